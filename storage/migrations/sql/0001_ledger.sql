-- The ledger keeps itself: one door in, nothing out, and a balance that PostgreSQL checks.

-- Posts a transaction once per cause. A repeat with the same postings returns false and posts
-- nothing; a repeat with other postings is an error. When it took effect is no part of the
-- comparison, since a retry may come with a later time: the first one stands.
CREATE FUNCTION ledger_post(p_cause text, p_effective_at timestamptz, p_postings jsonb)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    v_transaction_id bigint;
BEGIN
    INSERT INTO ledger_transactions (cause, effective_at)
    VALUES (p_cause, p_effective_at)
    ON CONFLICT (cause) DO NOTHING
    RETURNING id INTO v_transaction_id;

    IF v_transaction_id IS NULL THEN
        IF EXISTS (
            (SELECT * FROM ledger_given_postings(p_postings)
             EXCEPT ALL
             SELECT * FROM ledger_posted(p_cause))
            UNION ALL
            (SELECT * FROM ledger_posted(p_cause)
             EXCEPT ALL
             SELECT * FROM ledger_given_postings(p_postings))
        ) THEN
            RAISE EXCEPTION 'the ledger has other postings for the cause %', p_cause
                USING ERRCODE = 'integrity_constraint_violation',
                      HINT = 'A cause is posted once; a correction is a transaction of its own.';
        END IF;
        RETURN false;
    END IF;

    -- In one order everywhere, or two first posts to the same accounts deadlock.
    INSERT INTO ledger_accounts (code)
    SELECT DISTINCT given.account
    FROM ledger_given_postings(p_postings) AS given
    WHERE NOT EXISTS (SELECT 1 FROM ledger_accounts WHERE code = given.account)
    ORDER BY given.account
    ON CONFLICT (code) DO NOTHING;

    INSERT INTO ledger_postings (transaction_id, account_id, currency, amount_minor)
    SELECT v_transaction_id, account.id, given.currency, given.amount_minor
    FROM ledger_given_postings(p_postings) AS given
    JOIN ledger_accounts AS account ON account.code = given.account;
    RETURN true;
END
$$;

CREATE FUNCTION ledger_given_postings(p_postings jsonb)
RETURNS TABLE (account text, currency text, amount_minor bigint)
LANGUAGE sql
IMMUTABLE
SET search_path = public, pg_temp
AS $$
    SELECT account, currency, amount_minor
    FROM jsonb_to_recordset(p_postings)
        AS given (account text, currency text, amount_minor bigint)
$$;

CREATE FUNCTION ledger_posted(p_cause text)
RETURNS TABLE (account text, currency text, amount_minor bigint)
LANGUAGE sql
STABLE
SET search_path = public, pg_temp
AS $$
    SELECT account.code, posting.currency, posting.amount_minor
    FROM ledger_transactions AS posted
    JOIN ledger_postings AS posting ON posting.transaction_id = posted.id
    JOIN ledger_accounts AS account ON account.id = posting.account_id
    WHERE posted.cause = p_cause
$$;

CREATE FUNCTION ledger_check_balance() RETURNS trigger
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
DECLARE
    v_transaction_id bigint;
    v_postings bigint;
    v_unbalanced text;
BEGIN
    IF TG_TABLE_NAME = 'ledger_transactions' THEN
        v_transaction_id := NEW.id;
    ELSE
        v_transaction_id := NEW.transaction_id;
    END IF;
    SELECT sum(per_currency.postings),
           string_agg(per_currency.currency, ', ') FILTER (WHERE per_currency.total <> 0)
    INTO v_postings, v_unbalanced
    FROM (
        SELECT currency, count(*) AS postings, sum(amount_minor) AS total
        FROM ledger_postings
        WHERE transaction_id = v_transaction_id
        GROUP BY currency
    ) AS per_currency;
    IF coalesce(v_postings, 0) < 2 THEN
        RAISE EXCEPTION 'ledger transaction % has fewer than two postings', v_transaction_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF v_unbalanced IS NOT NULL THEN
        RAISE EXCEPTION 'ledger transaction % does not sum to zero in %',
            v_transaction_id, v_unbalanced
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION ledger_refuse() RETURNS trigger
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'A correction is a transaction of its own.';
END
$$;

CREATE CONSTRAINT TRIGGER ledger_transactions_balance
    AFTER INSERT ON ledger_transactions
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_check_balance();
CREATE CONSTRAINT TRIGGER ledger_postings_balance
    AFTER INSERT ON ledger_postings
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_check_balance();

CREATE TRIGGER ledger_accounts_append_only BEFORE UPDATE OR DELETE ON ledger_accounts
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_transactions_append_only BEFORE UPDATE OR DELETE ON ledger_transactions
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_postings_append_only BEFORE UPDATE OR DELETE ON ledger_postings
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_accounts_no_truncate BEFORE TRUNCATE ON ledger_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_transactions_no_truncate BEFORE TRUNCATE ON ledger_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_postings_no_truncate BEFORE TRUNCATE ON ledger_postings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
