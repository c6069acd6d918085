-- Customers: everybody a payment was ever made for, since the first of theirs.

CREATE TABLE customers (
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    created_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT customers_pkey PRIMARY KEY (application, user_id)
);
GRANT SELECT, INSERT ON customers TO everbill_app;

INSERT INTO customers (application, user_id, created_at)
SELECT application, user_id, min(created_at) FROM payments GROUP BY application, user_id;
