-- Lists of payments by filter and time, and daily totals that follow the record.

-- One index for each kind of list: all of them go on from (created_at, id).
DROP INDEX payments_application_id_idx;
DROP INDEX payments_application_created_at_idx;
DROP INDEX payments_application_gateway_id_idx;
DROP INDEX payments_application_status_id_idx;
DROP INDEX payments_application_type_id_idx;
DROP INDEX payments_application_user_id_id_idx;
CREATE INDEX payments_application_created_at_id_idx
    ON payments (application, created_at, id);
CREATE INDEX payments_application_user_id_created_at_id_idx
    ON payments (application, user_id, created_at, id);
CREATE INDEX payments_filtered_idx
    ON payments (application, status, gateway, type, created_at, id);
CREATE INDEX payments_user_filtered_idx
    ON payments (application, user_id, status, gateway, type, created_at, id);

-- What has changed and is not in the totals yet. Those who pay only append here.
CREATE TABLE stats_changes (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    kind TEXT NOT NULL,
    application TEXT NOT NULL,
    day DATE NOT NULL,
    currency TEXT NOT NULL,
    gateway TEXT NOT NULL,
    method TEXT NOT NULL,
    code TEXT,
    decline_code TEXT,
    took INTEGER,
    count INTEGER NOT NULL,
    amount_minor BIGINT NOT NULL,
    CONSTRAINT stats_changes_pkey PRIMARY KEY (id),
    CONSTRAINT stats_changes_kind_check CHECK (kind IN ('taken', 'unapplied', 'refunded', 'ended'))
);

CREATE TABLE stats_money (
    application TEXT NOT NULL,
    day DATE NOT NULL,
    currency TEXT NOT NULL,
    gateway TEXT NOT NULL,
    taken_count BIGINT NOT NULL,
    taken_minor BIGINT NOT NULL,
    refunded_count BIGINT NOT NULL,
    refunded_minor BIGINT NOT NULL,
    unapplied_count BIGINT NOT NULL,
    unapplied_minor BIGINT NOT NULL,
    CONSTRAINT stats_money_pkey PRIMARY KEY (application, day, currency, gateway)
);

-- `day` is the first of so many `days`, 1, 8 or 64, so that a long window is few rows.
CREATE TABLE stats_payments (
    application TEXT NOT NULL,
    days INTEGER NOT NULL,
    day DATE NOT NULL,
    gateway TEXT NOT NULL,
    method TEXT NOT NULL,
    currency TEXT NOT NULL,
    ended BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    took INTEGER[] NOT NULL,
    CONSTRAINT stats_payments_pkey PRIMARY KEY (application, days, day, gateway, method, currency)
);

CREATE TABLE stats_declines (
    application TEXT NOT NULL,
    days INTEGER NOT NULL,
    day DATE NOT NULL,
    gateway TEXT NOT NULL,
    method TEXT NOT NULL,
    currency TEXT NOT NULL,
    code TEXT NOT NULL,
    decline_code TEXT NOT NULL,
    count BIGINT NOT NULL,
    CONSTRAINT stats_declines_pkey PRIMARY KEY (application, days, day, gateway, method, currency, code, decline_code)
);

-- The step of a time to pay on a scale that rounds up: of 125 ms to two seconds, then eight to each
-- doubling. Steps count from 1; what is above a year is a year.
CREATE FUNCTION stats_step(p_milliseconds bigint)
RETURNS integer
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT 8 * doublings + ((units + (1 << doublings) - 1) >> doublings)
    FROM (
        SELECT units, greatest(0, length(ltrim((units - 1)::bit(32)::text, '0')) - 4) AS doublings
        FROM (
            SELECT ((greatest(1, least(p_milliseconds, 31536000000)) + 124) / 125)::integer AS units
        ) AS in_units
    ) AS in_doublings
$$;

-- What one row of the record adds to the totals of its day, a day of UTC.
CREATE FUNCTION stats_of_receipt(p_receipt receipts)
RETURNS TABLE (
    kind text, application text, day date, currency text, gateway text, method text,
    code text, decline_code text, took integer, count integer, amount_minor bigint
)
LANGUAGE sql
STABLE
AS $$
    SELECT CASE WHEN p_receipt.kept THEN 'taken' ELSE 'unapplied' END, payments.application,
           (p_receipt.paid_at AT TIME ZONE 'UTC')::date, p_receipt.currency, p_receipt.gateway, '',
           NULL::text, NULL::text, NULL::integer, 1, p_receipt.amount_minor
    FROM payments
    WHERE payments.id = p_receipt.payment_id
$$;

CREATE FUNCTION stats_of_refund(p_refund refunds)
RETURNS TABLE (
    kind text, application text, day date, currency text, gateway text, method text,
    code text, decline_code text, took integer, count integer, amount_minor bigint
)
LANGUAGE sql
STABLE
AS $$
    SELECT 'refunded', p_refund.application, (p_refund.refunded_at AT TIME ZONE 'UTC')::date,
           p_refund.currency, p_refund.gateway, '',
           NULL::text, NULL::text, NULL::integer, 1, p_refund.amount_minor
    WHERE p_refund.status = 'succeeded'
$$;

-- Codes are cut where a gateway sends more than fits an index.
CREATE FUNCTION stats_of_payment(p_payment payments)
RETURNS TABLE (
    kind text, application text, day date, currency text, gateway text, method text,
    code text, decline_code text, took integer, count integer, amount_minor bigint
)
LANGUAGE sql
STABLE
AS $$
    SELECT 'ended', p_payment.application, (p_payment.created_at AT TIME ZONE 'UTC')::date,
           p_payment.currency, p_payment.gateway, p_payment.method,
           CASE WHEN p_payment.status <> 'succeeded' THEN left(p_payment.failure ->> 'code', 100) END,
           CASE WHEN p_payment.status <> 'succeeded'
                THEN left(p_payment.failure ->> 'decline_code', 100) END,
           CASE WHEN p_payment.status = 'succeeded'
                THEN stats_step(floor(extract(epoch FROM p_payment.paid_at - p_payment.created_at)
                                      * 1000)::bigint) END,
           1, p_payment.amount_minor
    WHERE p_payment.status IN ('succeeded', 'failed', 'canceled', 'expired')
$$;

CREATE FUNCTION stats_note_receipt()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
BEGIN
    INSERT INTO stats_changes (kind, application, day, currency, gateway, method, code,
                               decline_code, took, count, amount_minor)
    SELECT * FROM stats_of_receipt(NEW);
    RETURN NULL;
END
$$;

CREATE FUNCTION stats_note_refund()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO stats_changes (kind, application, day, currency, gateway, method, code,
                                   decline_code, took, count, amount_minor)
        SELECT kind, application, day, currency, gateway, method, code, decline_code, took,
               -count, -amount_minor
        FROM stats_of_refund(OLD);
    END IF;
    INSERT INTO stats_changes (kind, application, day, currency, gateway, method, code,
                               decline_code, took, count, amount_minor)
    SELECT * FROM stats_of_refund(NEW);
    RETURN NULL;
END
$$;

CREATE FUNCTION stats_note_payment()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO stats_changes (kind, application, day, currency, gateway, method, code,
                                   decline_code, took, count, amount_minor)
        SELECT kind, application, day, currency, gateway, method, code, decline_code, took,
               -count, -amount_minor
        FROM stats_of_payment(OLD);
    END IF;
    INSERT INTO stats_changes (kind, application, day, currency, gateway, method, code,
                               decline_code, took, count, amount_minor)
    SELECT * FROM stats_of_payment(NEW);
    RETURN NULL;
END
$$;

-- Receipts are never updated, and nothing of the record is ever deleted.
CREATE TRIGGER receipts_stats_insert AFTER INSERT ON receipts
    FOR EACH ROW EXECUTE FUNCTION stats_note_receipt();
CREATE TRIGGER refunds_stats_insert AFTER INSERT ON refunds
    FOR EACH ROW WHEN (NEW.status = 'succeeded') EXECUTE FUNCTION stats_note_refund();
CREATE TRIGGER refunds_stats_update AFTER UPDATE ON refunds
    FOR EACH ROW WHEN (
        (OLD.status = 'succeeded' OR NEW.status = 'succeeded')
        AND (OLD.status, OLD.refunded_at, OLD.amount_minor)
            IS DISTINCT FROM (NEW.status, NEW.refunded_at, NEW.amount_minor)
    ) EXECUTE FUNCTION stats_note_refund();
CREATE TRIGGER payments_stats_insert AFTER INSERT ON payments
    FOR EACH ROW WHEN (NEW.status IN ('succeeded', 'failed', 'canceled', 'expired'))
    EXECUTE FUNCTION stats_note_payment();
CREATE TRIGGER payments_stats_update AFTER UPDATE ON payments
    FOR EACH ROW WHEN (
        NEW.status IN ('succeeded', 'failed', 'canceled', 'expired')
        AND (OLD.status, OLD.gateway, OLD.method, OLD.failure, OLD.paid_at)
            IS DISTINCT FROM (NEW.status, NEW.gateway, NEW.method, NEW.failure, NEW.paid_at)
    ) EXECUTE FUNCTION stats_note_payment();

CREATE FUNCTION stats_sum(p_one integer[], p_other integer[])
RETURNS integer[]
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT coalesce(array_agg(coalesce(one, 0) + coalesce(other, 0) ORDER BY step), '{}')
    FROM unnest(p_one, p_other) WITH ORDINALITY AS both_of(one, other, step)
$$;

-- Moves at most so many changes into the totals; how many those were. Until the transaction ends
-- nobody else does: what it reads of the totals then belongs together.
CREATE FUNCTION stats_fold(p_limit integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    v_folded integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('everbill.stats', 0));
    WITH gone AS (
        DELETE FROM stats_changes
        WHERE id IN (SELECT id FROM stats_changes ORDER BY id LIMIT p_limit)
        RETURNING *
    ), money AS (
        INSERT INTO stats_money AS standing
        SELECT application, day, currency, gateway,
               coalesce(sum(count) FILTER (WHERE kind = 'taken'), 0),
               coalesce(sum(amount_minor) FILTER (WHERE kind = 'taken'), 0),
               coalesce(sum(count) FILTER (WHERE kind = 'refunded'), 0),
               coalesce(sum(amount_minor) FILTER (WHERE kind = 'refunded'), 0),
               coalesce(sum(count) FILTER (WHERE kind = 'unapplied'), 0),
               coalesce(sum(amount_minor) FILTER (WHERE kind = 'unapplied'), 0)
        FROM gone
        WHERE kind <> 'ended'
        GROUP BY application, day, currency, gateway
        ON CONFLICT (application, day, currency, gateway) DO UPDATE SET
            taken_count = standing.taken_count + excluded.taken_count,
            taken_minor = standing.taken_minor + excluded.taken_minor,
            refunded_count = standing.refunded_count + excluded.refunded_count,
            refunded_minor = standing.refunded_minor + excluded.refunded_minor,
            unapplied_count = standing.unapplied_count + excluded.unapplied_count,
            unapplied_minor = standing.unapplied_minor + excluded.unapplied_minor
    ), spread AS (
        SELECT application, days, day - (day - DATE '0001-01-01') % days AS day, gateway, method,
               currency, code, coalesce(decline_code, '') AS decline_code, took, sum(count) AS count
        FROM gone
        CROSS JOIN (VALUES (1), (8), (64)) AS span(days)
        WHERE kind = 'ended'
        GROUP BY application, days, 3, gateway, method, currency, code, 8, took
    ), steps AS (
        SELECT application, days, day, gateway, method, currency, took, sum(count)::integer AS count
        FROM spread
        WHERE took IS NOT NULL
        GROUP BY application, days, day, gateway, method, currency, took
    ), spans AS (
        SELECT application, days, day, gateway, method, currency,
               generate_series(1, max(took)) AS took
        FROM steps
        GROUP BY application, days, day, gateway, method, currency
    ), times AS (
        SELECT application, days, day, gateway, method, currency,
               array_agg(coalesce(steps.count, 0) ORDER BY took) AS took
        FROM spans
        LEFT JOIN steps USING (application, days, day, gateway, method, currency, took)
        GROUP BY application, days, day, gateway, method, currency
    ), ends AS (
        SELECT application, days, day, gateway, method, currency, sum(count) AS ended,
               coalesce(sum(count) FILTER (WHERE took IS NOT NULL), 0) AS succeeded
        FROM spread
        GROUP BY application, days, day, gateway, method, currency
    ), tries AS (
        INSERT INTO stats_payments AS standing
        SELECT application, days, day, gateway, method, currency, ended, succeeded,
               coalesce(times.took, '{}')
        FROM ends
        LEFT JOIN times USING (application, days, day, gateway, method, currency)
        ON CONFLICT (application, days, day, gateway, method, currency) DO UPDATE SET
            ended = standing.ended + excluded.ended,
            succeeded = standing.succeeded + excluded.succeeded,
            took = stats_sum(standing.took, excluded.took)
    ), declines AS (
        INSERT INTO stats_declines AS standing
        SELECT application, days, day, gateway, method, currency, code, decline_code, sum(count)
        FROM spread
        WHERE code IS NOT NULL
        GROUP BY application, days, day, gateway, method, currency, code, decline_code
        ON CONFLICT (application, days, day, gateway, method, currency, code, decline_code)
            DO UPDATE SET count = standing.count + excluded.count
    )
    SELECT count(*) INTO v_folded FROM gone;
    RETURN v_folded;
END
$$;

-- The totals anew from the record, which nobody changes meanwhile. Those who may are its owners.
CREATE FUNCTION stats_rebuild()
RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
    LOCK TABLE payments, receipts, refunds IN SHARE MODE;
    PERFORM pg_advisory_xact_lock(hashtextextended('everbill.stats', 0));
    TRUNCATE stats_changes, stats_money, stats_payments, stats_declines;
    INSERT INTO stats_changes (kind, application, day, currency, gateway, method, code,
                               decline_code, took, count, amount_minor)
    SELECT kind, application, day, currency, gateway, method, code, decline_code, took,
           sum(count), sum(amount_minor)
    FROM (
        SELECT counted.* FROM receipts, stats_of_receipt(receipts) AS counted
        UNION ALL
        SELECT counted.* FROM refunds, stats_of_refund(refunds) AS counted
        UNION ALL
        SELECT counted.* FROM payments, stats_of_payment(payments) AS counted
    ) AS record
    GROUP BY kind, application, day, currency, gateway, method, code, decline_code, took;
    WHILE stats_fold(100000) > 0 LOOP
    END LOOP;
END
$$;

SELECT stats_rebuild();

REVOKE ALL ON FUNCTION
    stats_step(bigint),
    stats_of_receipt(receipts),
    stats_of_refund(refunds),
    stats_of_payment(payments),
    stats_note_receipt(),
    stats_note_refund(),
    stats_note_payment(),
    stats_sum(integer[], integer[]),
    stats_fold(integer),
    stats_rebuild()
    FROM PUBLIC;
GRANT SELECT ON stats_changes, stats_money, stats_payments, stats_declines TO everbill_app;
GRANT EXECUTE ON FUNCTION stats_fold(integer) TO everbill_app;
