-- The application owns nothing. It reads all, writes what changes, and posts through one function.

DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'everbill_app') THEN
        CREATE ROLE everbill_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role everbill_app is missing and this login may not create it'
            USING HINT = 'As a superuser: CREATE ROLE everbill_app NOLOGIN;';
    WHEN duplicate_object OR unique_violation THEN
        NULL;
END
$$;

REVOKE ALL ON FUNCTION
    ledger_post(text, timestamptz, jsonb),
    ledger_given_postings(jsonb),
    ledger_posted(text),
    ledger_check_balance(),
    ledger_refuse()
    FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO everbill_app;
GRANT SELECT ON
    payments, payment_attempts, receipts, reviews, attention, events, idempotency_claims,
    webhook_inbox, api_keys, ledger_accounts, ledger_transactions, ledger_postings
    TO everbill_app;
GRANT INSERT ON events, receipts, reviews TO everbill_app;
-- An event is never changed; it is only given its place in the feed.
GRANT UPDATE (place) ON events TO everbill_app;
GRANT INSERT, UPDATE ON
    payments, payment_attempts, webhook_inbox, api_keys, attention TO everbill_app;
GRANT INSERT, UPDATE, DELETE ON idempotency_claims TO everbill_app;
GRANT EXECUTE ON FUNCTION ledger_post(text, timestamptz, jsonb) TO everbill_app;
