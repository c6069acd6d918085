-- Refunds made at the gateway without us, webhooks that speak of them, and points that disputes take.

ALTER TABLE refunds
    DROP CONSTRAINT refunds_cause_check,
    ADD CONSTRAINT refunds_cause_check CHECK (cause IN ('requested', 'returned', 'elsewhere'));

-- The refund's number at the gateway, and the gateway's own number of the order where it tells
-- none of ours.
ALTER TABLE webhook_inbox
    ADD COLUMN foreign_refund TEXT,
    ADD COLUMN refunded_reference TEXT;

-- A dispute takes points back as well as a refund.
ALTER TABLE points_clawbacks RENAME COLUMN refund_id TO cause_id;
ALTER TABLE points_takings RENAME COLUMN refund_id TO cause_id;
ALTER TABLE points_clawbacks
    RENAME CONSTRAINT points_clawbacks_refund_id_not_null TO points_clawbacks_cause_id_not_null;
ALTER TABLE points_takings
    RENAME CONSTRAINT points_takings_refund_id_not_null TO points_takings_cause_id_not_null;
ALTER TABLE points_takings
    RENAME CONSTRAINT points_takings_refund_id_fkey TO points_takings_cause_id_fkey;
