-- Disputes: what payers' banks took back, as the gateway last told it.

CREATE TABLE disputes (
    gateway TEXT NOT NULL,
    reference TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    application TEXT NOT NULL,
    status TEXT NOT NULL,
    gateway_status TEXT NOT NULL,
    reason TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    withdrawn_minor BIGINT NOT NULL,
    reinstated_minor BIGINT NOT NULL,
    written_off_minor BIGINT NOT NULL,
    fee_minor BIGINT NOT NULL,
    due_by timestamptz,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    updated_at timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT disputes_pkey PRIMARY KEY (gateway, reference),
    CONSTRAINT disputes_payment_id_fkey FOREIGN KEY(payment_id, attempt) REFERENCES receipts (payment_id, attempt),
    CONSTRAINT disputes_status_check CHECK (status IN ('warning', 'open', 'under_review', 'unrecognised', 'lost', 'won')),
    CONSTRAINT disputes_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay')),
    CONSTRAINT disputes_amount_check CHECK (amount_minor >= 0),
    CONSTRAINT disputes_moved_check CHECK (withdrawn_minor >= 0 AND reinstated_minor >= 0 AND written_off_minor >= 0),
    CONSTRAINT disputes_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT disputes_closed_at_check CHECK ((status IN ('lost', 'won')) = (closed_at IS NOT NULL))
);
CREATE INDEX disputes_payment_id_idx ON disputes (payment_id);
GRANT SELECT, INSERT, UPDATE ON disputes TO everbill_app;

-- The latest dispute of a payment, as everybody sees it.
ALTER TABLE payments ADD COLUMN dispute JSONB;

-- An event of a dispute names the order by the gateway's own number.
ALTER TABLE webhook_inbox ADD COLUMN disputed_reference TEXT;
CREATE INDEX payment_attempts_gateway_reference_idx ON payment_attempts (gateway, reference);
