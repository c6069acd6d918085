-- Saved payment methods, what gateways call the payers, and webhooks that speak of mandates.

CREATE TABLE gateway_customers (
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    gateway TEXT NOT NULL,
    reference TEXT NOT NULL,
    created_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT gateway_customers_pkey PRIMARY KEY (application, user_id, gateway),
    CONSTRAINT gateway_customers_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay'))
);
GRANT SELECT, INSERT ON gateway_customers TO everbill_app;

CREATE TABLE payment_methods (
    id TEXT NOT NULL,
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    gateway TEXT NOT NULL,
    status TEXT NOT NULL,
    number TEXT NOT NULL,
    setup_reference TEXT,
    reference TEXT,
    customer_reference TEXT,
    gateway_status TEXT,
    is_default BOOLEAN DEFAULT false NOT NULL,
    card JSONB,
    currency TEXT NOT NULL,
    most_minor BIGINT,
    rhythm_months INTEGER,
    next_action BYTEA,
    order_document BYTEA NOT NULL,
    failure JSONB,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    asked_at timestamptz,
    activated_at timestamptz,
    ends_at timestamptz,
    ended_at timestamptz,
    released_at timestamptz,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT payment_methods_pkey PRIMARY KEY (id),
    CONSTRAINT payment_methods_number_key UNIQUE (number),
    CONSTRAINT payment_methods_status_check CHECK (status IN ('pending', 'active', 'failed', 'ended')),
    CONSTRAINT payment_methods_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay')),
    CONSTRAINT payment_methods_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT payment_methods_most_check CHECK (most_minor >= 1),
    CONSTRAINT payment_methods_rhythm_check CHECK (rhythm_months >= 1),
    CONSTRAINT payment_methods_default_check CHECK (NOT is_default OR status = 'active'),
    CONSTRAINT payment_methods_next_action_check CHECK (status = 'pending' OR next_action IS NULL),
    CONSTRAINT payment_methods_failure_check CHECK ((status = 'failed') = (failure IS NOT NULL)),
    CONSTRAINT payment_methods_ended_at_check CHECK ((status IN ('failed', 'ended')) = (ended_at IS NOT NULL)),
    CONSTRAINT payment_methods_released_at_check CHECK (released_at IS NULL OR ended_at IS NOT NULL)
);
CREATE UNIQUE INDEX payment_methods_default_key ON payment_methods (application, user_id) WHERE is_default;
CREATE INDEX payment_methods_application_user_id_created_at_id_idx ON payment_methods (application, user_id, created_at, id);
CREATE INDEX payment_methods_gateway_reference_idx ON payment_methods (gateway, reference);
CREATE INDEX payment_methods_gateway_setup_reference_idx ON payment_methods (gateway, setup_reference);
CREATE INDEX payment_methods_unfinished_idx ON payment_methods (id) WHERE released_at IS NULL AND status <> 'active';
CREATE INDEX payment_methods_ending_idx ON payment_methods (ends_at) WHERE status = 'active' AND ends_at IS NOT NULL;
GRANT SELECT, INSERT, UPDATE ON payment_methods TO everbill_app;

-- What a payment by the method `saved` is charged to.
ALTER TABLE payments ADD COLUMN payment_method_id TEXT;
CREATE INDEX payments_method_unfinished_idx ON payments (payment_method_id)
    WHERE payment_method_id IS NOT NULL
    AND status NOT IN ('succeeded', 'failed', 'canceled', 'expired');

-- Our own number of a mandate, and the gateway's.
ALTER TABLE webhook_inbox
    ADD COLUMN method_id TEXT,
    ADD COLUMN mandate_reference TEXT;
