-- Refunds: what is set aside of a receipt to be given back, and what became of it.

CREATE TABLE refunds (
    id TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    application TEXT NOT NULL,
    cause TEXT NOT NULL,
    status TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    gateway TEXT NOT NULL,
    reason TEXT NOT NULL,
    gateway_reference TEXT,
    gateway_status TEXT,
    failure JSONB,
    review JSONB,
    ask_at timestamptz NOT NULL,
    asked_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    refunded_at timestamptz,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT refunds_pkey PRIMARY KEY (id),
    CONSTRAINT refunds_payment_id_fkey FOREIGN KEY(payment_id, attempt) REFERENCES receipts (payment_id, attempt),
    CONSTRAINT refunds_cause_check CHECK (cause IN ('requested', 'returned')),
    CONSTRAINT refunds_status_check CHECK (status IN ('pending', 'processing', 'succeeded', 'failed', 'needs_review')),
    CONSTRAINT refunds_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay')),
    CONSTRAINT refunds_amount_check CHECK (amount_minor >= 1),
    CONSTRAINT refunds_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT refunds_refunded_at_check CHECK ((status = 'succeeded') = (refunded_at IS NOT NULL)),
    CONSTRAINT refunds_review_check CHECK ((status = 'needs_review') = (review IS NOT NULL))
);
CREATE INDEX refunds_payment_id_idx ON refunds (payment_id);
CREATE INDEX refunds_unfinished_idx ON refunds (id) WHERE status NOT IN ('succeeded', 'failed');
GRANT SELECT, INSERT, UPDATE ON refunds TO everbill_app;

ALTER TABLE webhook_inbox ADD COLUMN refund_id TEXT;
