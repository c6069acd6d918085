"""A year's record of one application, written straight into the tables.

Nothing is in the ledger for it and its orders cannot be opened: it is for lists and totals.
"""

from datetime import datetime
from typing import Any, Final

import psycopg

HEAVY_USER: Final = "kiosk-1"
"""Makes one payment of a hundred."""

_DICE: Final = """
CREATE TEMPORARY TABLE dice AS
SELECT n, 'pay_' || lpad(n::text, 26, '0') AS id, random() AS outcome, random() AS which_gateway,
       random() AS which_method, random() AS which_currency, random() AS which_type,
       random() AS which_user, random() AS reason, random() AS speed, random() AS after
FROM generate_series(1, {count}) AS n
"""

_PAYMENTS: Final = """
INSERT INTO payments (id, application, type, status, user_id, amount_minor, currency, gateway,
    method, description, metadata, attempt, gateway_reference, order_document, failure, review,
    created_at, updated_at, expires_at, paid_at)
SELECT id, {application},
    CASE WHEN which_type < 0.7 THEN 'one_time' WHEN which_type < 0.9 THEN 'points'
         ELSE 'subscription' END,
    status,
    CASE WHEN which_user < 0.01 THEN {heavy_user}
         ELSE 'user-' || floor(power(which_user, 2) * {count} / 10) END,
    100 + floor(speed * 50000), currency, gateway,
    CASE gateway WHEN 'stripe' THEN CASE WHEN which_method < 0.8 THEN 'card' ELSE 'saved' END
                 WHEN 'alipay' THEN (ARRAY['qr', 'page', 'wap'])[1 + floor(which_method * 3)::int]
                 ELSE (ARRAY['native', 'jsapi', 'h5'])[1 + floor(which_method * 3)::int] END,
    'A month of BASIC', '{{"order": "2026"}}', 1, 'gateway-' || n, decode(repeat('00', 300), 'hex'),
    CASE WHEN status = 'failed' OR status = 'expired' AND reason < 0.3 THEN jsonb_build_object(
        'code', 'declined', 'advice', 'soft', 'message', 'The gateway declined it',
        'decline_code', (ARRAY['insufficient_funds', 'do_not_honor', 'expired_card',
            'incorrect_cvc', 'lost_card', NULL])[1 + floor(reason * 20)::int % 6]) END,
    CASE WHEN status = 'needs_review' THEN jsonb_build_object(
        'reason', 'amount_mismatch', 'detail', '-', 'since', '2026-01-01T00:00:00Z') END,
    created_at, created_at, created_at + interval '30 minutes',
    CASE WHEN status = 'succeeded'
         THEN created_at + interval '3 seconds' + power(speed, 4) * interval '25 minutes' END
FROM (
    SELECT *, {until}::timestamptz - interval '365 days'
              + n * (interval '365 days' / {count}) AS created_at,
        CASE WHEN outcome < 0.80 THEN 'succeeded' WHEN outcome < 0.87 THEN 'failed'
             WHEN outcome < 0.92 THEN 'canceled' WHEN outcome < 0.998 THEN 'expired'
             WHEN outcome < 0.9985 THEN 'needs_review' ELSE 'requires_action' END AS status,
        CASE WHEN which_gateway < 0.4 THEN 'stripe' WHEN which_gateway < 0.75 THEN 'alipay'
             ELSE 'wechatpay' END AS gateway,
        CASE WHEN which_gateway >= 0.4 OR which_currency < 0.2 THEN 'CNY'
             WHEN which_currency < 0.7 THEN 'USD' ELSE 'EUR' END AS currency
    FROM dice
) AS drawn
"""

_ATTEMPTS: Final = """
INSERT INTO payment_attempts (payment_id, attempt, number, gateway, method, state, expires_at,
    updated_at)
SELECT id, turn, CASE turn WHEN 1 THEN id ELSE id || '02' END, gateway, method,
    CASE WHEN status = 'succeeded' THEN 'paid' WHEN status = 'requires_action' THEN 'open'
         ELSE 'dead' END, expires_at, updated_at
FROM payments
JOIN dice USING (id)
JOIN generate_series(1, 2) AS turn ON turn = 1 OR status = 'succeeded' AND after < 0.005
"""

_RECEIPTS: Final = """
INSERT INTO receipts (payment_id, attempt, gateway, gateway_reference, amount_minor, currency,
    kept, paid_at, effective_at)
SELECT payment_id, attempts.attempt, payments.gateway, attempts.number, amount_minor, currency,
    attempts.attempt = 1, paid_at + (attempts.attempt - 1) * interval '1 minute', paid_at
FROM payment_attempts AS attempts
JOIN payments ON payments.id = attempts.payment_id
WHERE attempts.state = 'paid'
"""

_REFUNDS: Final = """
INSERT INTO refunds (id, payment_id, attempt, application, cause, status, amount_minor, currency,
    gateway, reason, ask_at, created_at, updated_at, effective_at, refunded_at)
SELECT 'ref_' || lpad(n::text, 25, '0') || attempt, id, attempt, {application},
    CASE WHEN kept THEN 'requested' ELSE 'returned' END,
    CASE WHEN reason < 0.95 THEN 'succeeded' ELSE 'failed' END,
    receipts.amount_minor, currency, gateway, 'not wanted', asked, asked, asked, asked,
    CASE WHEN reason < 0.95 THEN asked + interval '1 minute' END
FROM receipts
JOIN dice ON dice.id = payment_id
CROSS JOIN LATERAL (SELECT paid_at + speed * interval '20 days' AS asked) AS later
WHERE after < 0.05
"""

_COUNT: Final = "SELECT stats_rebuild()"


async def write_record(
    superuser_url: str, *, application: str, count: int, until: datetime
) -> None:
    """`count` payments made evenly over the 365 days before `until`, with receipts and refunds, in
    a database that has none; the same ones each time."""
    values: dict[str, Any] = {
        "application": application,
        "count": count,
        "until": until,
        "heavy_user": HEAVY_USER,
    }
    literals = {name: psycopg.sql.Literal(value) for name, value in values.items()}
    async with await psycopg.AsyncConnection.connect(superuser_url) as connection:
        # Neither triggers nor foreign keys: the rows agree, and are counted afterwards.
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("SELECT setseed(0.2026)")
        for statement in (_DICE, _PAYMENTS, _ATTEMPTS, _RECEIPTS, _REFUNDS, _COUNT):
            await connection.execute(psycopg.sql.SQL(statement).format(**literals))
        await connection.execute("DROP TABLE dice")
        await connection.commit()
        await connection.set_autocommit(True)
        await connection.execute("VACUUM (ANALYZE)")
