-- An attempt that was switched to is placed with details of its own, sealed like the order.

ALTER TABLE payment_attempts ADD COLUMN details BYTEA;
