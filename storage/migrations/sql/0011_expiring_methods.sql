-- When a saved method stops being chargeable by itself, and whether that was told ahead.

ALTER TABLE payment_methods
    ADD COLUMN expires_at timestamptz GENERATED ALWAYS AS (
        coalesce(
            ends_at,
            (make_timestamp((card ->> 'expires_year')::int, (card ->> 'expires_month')::int, 1, 0, 0, 0)
                + interval '1 month') AT TIME ZONE 'UTC'
        )
    ) STORED,
    ADD COLUMN expiry_told timestamptz;
CREATE INDEX payment_methods_expiring_idx ON payment_methods (expires_at)
    WHERE status = 'active' AND expires_at IS DISTINCT FROM expiry_told;
