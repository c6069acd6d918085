-- Subscriptions, and the payments that are charged for them.

CREATE TABLE subscriptions (
    id TEXT NOT NULL,
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    status TEXT NOT NULL,
    access TEXT NOT NULL,
    gateway TEXT NOT NULL,
    payment_method_id TEXT,
    tier TEXT NOT NULL,
    version BIGINT NOT NULL,
    has_open_charge BOOLEAN DEFAULT false NOT NULL,
    state JSONB NOT NULL,
    debt JSONB,
    announced JSONB,
    giving_back JSONB,
    start_document BYTEA NOT NULL,
    next_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    CONSTRAINT subscriptions_pkey PRIMARY KEY (id),
    CONSTRAINT subscriptions_status_check CHECK (status IN ('incomplete', 'trialing', 'active', 'past_due', 'paused', 'canceled', 'expired')),
    CONSTRAINT subscriptions_access_check CHECK (access IN ('active', 'grace', 'restricted', 'ended')),
    CONSTRAINT subscriptions_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay')),
    CONSTRAINT subscriptions_version_check CHECK (version >= 1)
);
CREATE INDEX subscriptions_method_idx ON subscriptions (payment_method_id) WHERE payment_method_id IS NOT NULL AND status NOT IN ('canceled', 'expired');
CREATE INDEX subscriptions_unfinished_idx ON subscriptions (id) WHERE (status NOT IN ('canceled', 'expired') OR has_open_charge OR giving_back IS NOT NULL);
CREATE INDEX subscriptions_user_idx ON subscriptions (application, user_id, id);
GRANT SELECT, INSERT, UPDATE ON subscriptions TO everbill_app;

CREATE TABLE subscription_charges (
    payment_id TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    period_number INTEGER NOT NULL,
    status TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    charge JSONB NOT NULL,
    created_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    CONSTRAINT subscription_charges_pkey PRIMARY KEY (payment_id),
    CONSTRAINT subscription_charges_kind_check CHECK (kind IN ('sign_up', 'payment', 'renewal', 'change', 'cancellation', 'expiry', 'pause', 'resumption', 'undo')),
    CONSTRAINT subscription_charges_status_check CHECK (status IN ('open', 'paid', 'failed')),
    CONSTRAINT subscription_charges_amount_minor_check CHECK (amount_minor >= 1),
    CONSTRAINT subscription_charges_subscription_id_fkey FOREIGN KEY(subscription_id) REFERENCES subscriptions (id)
);
CREATE UNIQUE INDEX subscription_charges_number_idx ON subscription_charges (subscription_id, number);
CREATE UNIQUE INDEX subscription_charges_open_idx ON subscription_charges (subscription_id) WHERE status = 'open';
CREATE UNIQUE INDEX subscription_charges_period_idx ON subscription_charges (subscription_id, period_number) WHERE status = 'paid' AND kind <> 'change';
GRANT SELECT, INSERT, UPDATE ON subscription_charges TO everbill_app;
