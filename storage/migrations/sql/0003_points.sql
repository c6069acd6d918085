-- Points: what each user has, in which lots, how it came to that, and what refunds took back.

CREATE TABLE points_balances (
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    balance BIGINT NOT NULL,
    debt BIGINT NOT NULL,
    movements BIGINT NOT NULL,
    updated_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT points_balances_pkey PRIMARY KEY (application, user_id),
    CONSTRAINT points_balances_debt_check CHECK (debt >= 0),
    CONSTRAINT points_balances_balance_check CHECK (balance >= -debt),
    CONSTRAINT points_balances_movements_check CHECK (movements >= 0)
);

CREATE TABLE points_lots (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    package_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    granted BIGINT NOT NULL,
    remaining BIGINT NOT NULL,
    spent BIGINT DEFAULT '0' NOT NULL,
    taken BIGINT DEFAULT '0' NOT NULL,
    expired BIGINT DEFAULT '0' NOT NULL,
    expires_at timestamptz,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT points_lots_pkey PRIMARY KEY (id),
    CONSTRAINT points_lots_application_fkey FOREIGN KEY(application, user_id) REFERENCES points_balances (application, user_id),
    CONSTRAINT points_lots_kind_check CHECK (kind IN ('paid', 'bonus')),
    CONSTRAINT points_lots_granted_check CHECK (granted >= 1),
    CONSTRAINT points_lots_remaining_check CHECK (remaining BETWEEN 0 AND granted),
    CONSTRAINT points_lots_used_check CHECK (spent >= 0 AND taken >= 0 AND expired >= 0),
    CONSTRAINT points_lots_whole_check CHECK (remaining + spent + taken + expired = granted),
    CONSTRAINT points_lots_payment_id_kind_key UNIQUE (payment_id, kind)
);
CREATE INDEX points_lots_due_idx ON points_lots (expires_at) WHERE remaining > 0 AND expires_at IS NOT NULL;
CREATE INDEX points_lots_remaining_idx ON points_lots (application, user_id) WHERE remaining > 0;

CREATE TABLE points_transactions (
    id TEXT NOT NULL,
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    amount BIGINT NOT NULL,
    balance_after BIGINT NOT NULL,
    payment_id TEXT,
    refund_id TEXT,
    description TEXT,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT points_transactions_pkey PRIMARY KEY (id),
    CONSTRAINT points_transactions_application_fkey FOREIGN KEY(application, user_id) REFERENCES points_balances (application, user_id),
    CONSTRAINT points_transactions_kind_check CHECK (kind IN ('purchase', 'bonus', 'spend', 'clawback', 'restore', 'expiry')),
    CONSTRAINT points_transactions_amount_check CHECK (amount <> 0),
    CONSTRAINT points_transactions_sign_check CHECK ((kind IN ('purchase', 'bonus', 'restore')) = (amount > 0)),
    CONSTRAINT points_transactions_sequence_check CHECK (sequence >= 1),
    CONSTRAINT points_transactions_application_user_id_sequence_key UNIQUE (application, user_id, sequence)
);

CREATE TABLE points_clawbacks (
    refund_id TEXT NOT NULL,
    application TEXT NOT NULL,
    user_id TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    points BIGINT NOT NULL,
    owed BIGINT NOT NULL,
    restored_at timestamptz,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT points_clawbacks_pkey PRIMARY KEY (refund_id),
    CONSTRAINT points_clawbacks_application_fkey FOREIGN KEY(application, user_id) REFERENCES points_balances (application, user_id),
    CONSTRAINT points_clawbacks_amount_check CHECK (amount_minor >= 1),
    CONSTRAINT points_clawbacks_owed_check CHECK (owed BETWEEN 0 AND points),
    CONSTRAINT points_clawbacks_restored_check CHECK (restored_at IS NULL OR owed = 0)
);
CREATE INDEX points_clawbacks_owed_idx ON points_clawbacks (application, user_id) WHERE owed > 0;
CREATE INDEX points_clawbacks_payment_id_idx ON points_clawbacks (payment_id);

CREATE TABLE points_takings (
    refund_id TEXT NOT NULL,
    lot_id BIGINT NOT NULL,
    points BIGINT NOT NULL,
    lapsed BIGINT NOT NULL,
    CONSTRAINT points_takings_pkey PRIMARY KEY (refund_id, lot_id),
    CONSTRAINT points_takings_taken_check CHECK (points >= 0 AND lapsed >= 0 AND points + lapsed > 0),
    CONSTRAINT points_takings_refund_id_fkey FOREIGN KEY(refund_id) REFERENCES points_clawbacks (refund_id),
    CONSTRAINT points_takings_lot_id_fkey FOREIGN KEY(lot_id) REFERENCES points_lots (id)
);

-- A transaction goes on from the one before it.
CREATE FUNCTION points_check_chain() RETURNS trigger
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
DECLARE
    v_before bigint := 0;
BEGIN
    IF NEW.sequence > 1 THEN
        SELECT balance_after INTO v_before FROM points_transactions
        WHERE application = NEW.application AND user_id = NEW.user_id
          AND sequence = NEW.sequence - 1;
    END IF;
    IF v_before + NEW.amount IS DISTINCT FROM NEW.balance_after THEN
        RAISE EXCEPTION 'points transaction % does not go on from the one before it', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

-- At commit a balance is what its lots hold less what is owed, and what its last transaction says.
CREATE FUNCTION points_check_balance() RETURNS trigger
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
DECLARE
    v points_balances%ROWTYPE;
    v_remaining bigint;
    v_owed bigint;
    v_after bigint;
BEGIN
    -- The row as it stands now: it may have changed since this check was called for.
    SELECT * INTO v FROM points_balances
    WHERE application = NEW.application AND user_id = NEW.user_id;
    SELECT coalesce(sum(remaining), 0) INTO v_remaining FROM points_lots
    WHERE application = NEW.application AND user_id = NEW.user_id AND remaining > 0;
    SELECT coalesce(sum(owed), 0) INTO v_owed FROM points_clawbacks
    WHERE application = NEW.application AND user_id = NEW.user_id AND owed > 0;
    SELECT balance_after INTO v_after FROM points_transactions
    WHERE application = NEW.application AND user_id = NEW.user_id AND sequence = v.movements;
    IF v.debt <> v_owed OR v.balance <> v_remaining - v_owed
       OR v.balance <> coalesce(v_after, 0) THEN
        RAISE EXCEPTION 'a balance of points does not agree with its lots and transactions'
            USING ERRCODE = 'integrity_constraint_violation',
                  DETAIL = format('balance %s, debt %s; lots hold %s, owed are %s, last is %s',
                                  v.balance, v.debt, v_remaining, v_owed, v_after);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER points_transactions_chain
    AFTER INSERT ON points_transactions
    FOR EACH ROW EXECUTE FUNCTION points_check_chain();
CREATE CONSTRAINT TRIGGER points_balances_agree
    AFTER INSERT OR UPDATE ON points_balances
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION points_check_balance();

REVOKE ALL ON FUNCTION points_check_chain(), points_check_balance() FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE ON points_balances, points_lots, points_clawbacks, points_takings
    TO everbill_app;
GRANT SELECT, INSERT ON points_transactions TO everbill_app;
