-- The record of payments: what was ordered, tried, received, said and decided.

CREATE TABLE api_keys (
    id TEXT NOT NULL,
    application TEXT NOT NULL,
    name TEXT NOT NULL,
    digest BYTEA NOT NULL,
    last_four TEXT NOT NULL,
    scopes TEXT[] NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_digest_key UNIQUE (digest)
);
CREATE INDEX api_keys_application_idx ON api_keys (application);

CREATE TABLE attention (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    payment_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    raised_at timestamptz NOT NULL,
    resolved_at timestamptz,
    CONSTRAINT attention_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX attention_open_key ON attention (payment_id, reason) WHERE resolved_at IS NULL;

CREATE TABLE events (
    position BIGINT GENERATED ALWAYS AS IDENTITY,
    place BIGINT,
    id TEXT NOT NULL,
    object_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    application TEXT NOT NULL,
    type TEXT NOT NULL,
    data JSONB NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (position),
    CONSTRAINT events_id_key UNIQUE (id),
    CONSTRAINT events_sequence_check CHECK (sequence >= 1),
    CONSTRAINT events_object_id_sequence_key UNIQUE (object_id, sequence)
);
CREATE UNIQUE INDEX events_place_key ON events (application, place) WHERE place IS NOT NULL;
CREATE INDEX events_unplaced_idx ON events (application, position) WHERE place IS NULL;

CREATE TABLE idempotency_claims (
    application TEXT NOT NULL,
    key_digest BYTEA NOT NULL,
    fingerprint TEXT NOT NULL,
    command TEXT NOT NULL,
    object_id TEXT NOT NULL,
    request BYTEA NOT NULL,
    answer_status INTEGER,
    answer_body BYTEA,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_claims_pkey PRIMARY KEY (application, key_digest)
);
CREATE INDEX idempotency_claims_created_at_idx ON idempotency_claims (created_at);
CREATE INDEX idempotency_claims_object_id_idx ON idempotency_claims (object_id);

CREATE TABLE ledger_accounts (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    code TEXT NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT ledger_accounts_pkey PRIMARY KEY (id),
    CONSTRAINT ledger_accounts_code_check CHECK (code ~ '^[a-z][a-z_]*(:[A-Za-z0-9][A-Za-z0-9_.:-]*)?$'),
    CONSTRAINT ledger_accounts_code_key UNIQUE (code)
);

CREATE TABLE ledger_transactions (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    cause TEXT NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT ledger_transactions_pkey PRIMARY KEY (id),
    CONSTRAINT ledger_transactions_cause_key UNIQUE (cause)
);

CREATE TABLE payments (
    id TEXT NOT NULL,
    application TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    user_id TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    amount_refunded_minor BIGINT DEFAULT '0' NOT NULL,
    currency TEXT NOT NULL,
    gateway TEXT NOT NULL,
    method TEXT NOT NULL,
    description TEXT NOT NULL,
    metadata JSONB NOT NULL,
    attempt INTEGER NOT NULL,
    gateway_reference TEXT,
    next_action BYTEA,
    order_document BYTEA NOT NULL,
    failure JSONB,
    review JSONB,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    paid_at timestamptz,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT payments_pkey PRIMARY KEY (id),
    CONSTRAINT payments_status_check CHECK (status IN ('created', 'requires_action', 'processing', 'succeeded', 'failed', 'canceled', 'expired', 'needs_review')),
    CONSTRAINT payments_type_check CHECK (type IN ('one_time', 'points', 'subscription')),
    CONSTRAINT payments_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay')),
    CONSTRAINT payments_amount_check CHECK (amount_minor >= 1),
    CONSTRAINT payments_amount_refunded_check CHECK (amount_refunded_minor BETWEEN 0 AND amount_minor),
    CONSTRAINT payments_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT payments_attempt_check CHECK (attempt BETWEEN 1 AND 99),
    CONSTRAINT payments_ended_without_action_check CHECK (status NOT IN ('succeeded', 'failed', 'canceled', 'expired') OR next_action IS NULL),
    CONSTRAINT payments_paid_at_check CHECK ((status = 'succeeded') = (paid_at IS NOT NULL)),
    CONSTRAINT payments_review_check CHECK ((status = 'needs_review') = (review IS NOT NULL))
);
CREATE INDEX payments_application_created_at_idx ON payments (application, created_at);
CREATE INDEX payments_application_gateway_id_idx ON payments (application, gateway, id);
CREATE INDEX payments_application_id_idx ON payments (application, id);
CREATE INDEX payments_application_status_id_idx ON payments (application, status, id);
CREATE INDEX payments_application_type_id_idx ON payments (application, type, id);
CREATE INDEX payments_application_user_id_id_idx ON payments (application, user_id, id);
CREATE INDEX payments_unfinished_idx ON payments (id) WHERE status NOT IN ('succeeded', 'failed', 'canceled', 'expired');

CREATE TABLE webhook_inbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    gateway TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    number TEXT,
    payment_id TEXT,
    body BYTEA NOT NULL,
    outcome TEXT,
    tries INTEGER DEFAULT '0' NOT NULL,
    received_at timestamptz NOT NULL,
    next_try_at timestamptz NOT NULL,
    settled_at timestamptz,
    CONSTRAINT webhook_inbox_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_inbox_outcome_check CHECK (outcome IN ('delivered', 'unmatched', 'ignored')),
    CONSTRAINT webhook_inbox_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay')),
    CONSTRAINT webhook_inbox_gateway_event_id_key UNIQUE (gateway, event_id)
);
CREATE INDEX webhook_inbox_due_idx ON webhook_inbox (next_try_at) WHERE outcome IS NULL;
CREATE INDEX webhook_inbox_payment_id_idx ON webhook_inbox (payment_id);

CREATE TABLE ledger_postings (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    transaction_id BIGINT NOT NULL,
    account_id BIGINT NOT NULL,
    currency TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    CONSTRAINT ledger_postings_pkey PRIMARY KEY (id),
    CONSTRAINT ledger_postings_amount_check CHECK (amount_minor <> 0),
    CONSTRAINT ledger_postings_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ledger_postings_transaction_id_fkey FOREIGN KEY(transaction_id) REFERENCES ledger_transactions (id),
    CONSTRAINT ledger_postings_account_id_fkey FOREIGN KEY(account_id) REFERENCES ledger_accounts (id)
);
CREATE INDEX ledger_postings_account_id_idx ON ledger_postings (account_id);
CREATE INDEX ledger_postings_transaction_id_idx ON ledger_postings (transaction_id);

CREATE TABLE payment_attempts (
    payment_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    number TEXT NOT NULL,
    gateway TEXT NOT NULL,
    method TEXT NOT NULL,
    state TEXT NOT NULL,
    reference TEXT,
    gateway_status TEXT,
    expires_at timestamptz NOT NULL,
    opened_at timestamptz,
    updated_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT payment_attempts_pkey PRIMARY KEY (payment_id, attempt),
    CONSTRAINT payment_attempts_state_check CHECK (state IN ('open', 'paid', 'dead')),
    CONSTRAINT payment_attempts_gateway_check CHECK (gateway IN ('stripe', 'alipay', 'wechatpay')),
    CONSTRAINT payment_attempts_attempt_check CHECK (attempt BETWEEN 1 AND 99),
    CONSTRAINT payment_attempts_number_key UNIQUE (number),
    CONSTRAINT payment_attempts_payment_id_fkey FOREIGN KEY(payment_id) REFERENCES payments (id)
);
CREATE INDEX payment_attempts_open_idx ON payment_attempts (payment_id) WHERE state = 'open';

CREATE TABLE receipts (
    payment_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    gateway TEXT NOT NULL,
    gateway_reference TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    kept BOOLEAN NOT NULL,
    paid_at timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT receipts_pkey PRIMARY KEY (payment_id, attempt),
    CONSTRAINT receipts_payment_id_fkey FOREIGN KEY(payment_id, attempt) REFERENCES payment_attempts (payment_id, attempt),
    CONSTRAINT receipts_amount_check CHECK (amount_minor >= 1),
    CONSTRAINT receipts_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT receipts_gateway_gateway_reference_key UNIQUE (gateway, gateway_reference)
);
CREATE UNIQUE INDEX receipts_kept_key ON receipts (payment_id) WHERE kept;
CREATE INDEX receipts_recorded_at_idx ON receipts (recorded_at);

CREATE TABLE reviews (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    payment_id TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    gateway_number TEXT,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT reviews_pkey PRIMARY KEY (id),
    CONSTRAINT reviews_payment_id_actor_action_effective_at_key UNIQUE (payment_id, actor, action, effective_at),
    CONSTRAINT reviews_payment_id_fkey FOREIGN KEY(payment_id) REFERENCES payments (id)
);
