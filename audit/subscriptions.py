"""The promise about subscriptions: each period is charged once, and its charge is a payment."""

from typing import Final

from audit.evidence import Evidence, Finding
from audit.processes import without_process
from billing.subscription import SubscriptionStatus

_PROMISE: Final = 11
_ENDED: Final = tuple(status.value for status in SubscriptionStatus if status.is_terminal)
_ONE_TRANSACTION: Final = (
    "both are written in one transaction: look for writes past the application"
)


async def charged_once(evidence: Evidence) -> list[Finding]:
    """Promise 11: charges and payments agree, row and events tell one story, and what has not ended
    has its process."""
    findings = await _charges(evidence) + await _uncharged(evidence) + await _rows(evidence)
    if evidence.client is not None:
        findings += await without_process(
            evidence, _PROMISE, _that_need_processes, "it has not ended, and no workflow of it runs"
        )
    return findings


async def _charges(evidence: Evidence) -> list[Finding]:
    """Each charge against its payment. One that failed may have been paid late, and returned."""
    rows = await evidence.rows(
        """
        SELECT charges.subscription_id, charges.payment_id, charges.status, payments.status AS paid
        FROM subscription_charges AS charges
        JOIN subscriptions ON subscriptions.id = charges.subscription_id
        LEFT JOIN payments ON payments.id = charges.payment_id
        WHERE (payments.id IS NOT NULL AND (
                  (payments.amount_minor, payments.currency, payments.user_id,
                   payments.application)
                  IS DISTINCT FROM
                  (charges.amount_minor, charges.currency, subscriptions.user_id,
                   subscriptions.application)))
           OR (charges.status = 'paid' AND payments.status IS DISTINCT FROM 'succeeded')
           OR (charges.status = 'failed' AND payments.status = 'succeeded')
           OR (charges.status = 'failed' AND payments.id IS NULL)
        ORDER BY charges.payment_id
        """
    )
    return [
        Finding(
            _PROMISE,
            row["payment_id"],
            f"as a charge of {row['subscription_id']} it is {row['status']}, as a payment"
            f" {row['paid'] or 'not there'}, or they differ in amount or user",
            "compare the events of both; a bug, report it",
        )
        for row in rows
    ]


async def _uncharged(evidence: Evidence) -> list[Finding]:
    """Payments for subscriptions that none has charged."""
    rows = await evidence.rows(
        """
        SELECT payments.id FROM payments
        LEFT JOIN subscription_charges AS charges ON charges.payment_id = payments.id
        WHERE payments.type = 'subscription' AND charges.payment_id IS NULL
        ORDER BY payments.id
        """
    )
    return [
        Finding(
            _PROMISE,
            row["id"],
            "it was taken for a subscription, and is the charge of none",
            "a charge is written before its payment begins: a bug, report it, and refund it",
        )
        for row in rows
    ]


async def _rows(evidence: Evidence) -> list[Finding]:
    """Each row against its charges and its events, of which every write appends one."""
    rows = await evidence.rows(
        """
        SELECT subscriptions.id, subscriptions.status, subscriptions.version,
               told.count AS events, told.status AS told
        FROM subscriptions
        LEFT JOIN LATERAL (
            SELECT count(*) AS count,
                   (array_agg(data ->> 'status' ORDER BY sequence DESC))[1] AS status
            FROM events WHERE object_id = subscriptions.id
        ) AS told ON true
        WHERE subscriptions.version <> told.count
           OR subscriptions.status IS DISTINCT FROM told.status
           OR subscriptions.status IS DISTINCT FROM (subscriptions.state ->> 'status')
           OR subscriptions.has_open_charge <> EXISTS (
               SELECT 1 FROM subscription_charges AS charges
               WHERE charges.subscription_id = subscriptions.id AND charges.status = 'open')
        ORDER BY subscriptions.id
        """
    )
    return [
        Finding(
            _PROMISE,
            row["id"],
            f"it is {row['status']} after {row['version']} writes; its {row['events']} events end"
            f" with {row['told']}, or its charges differ from it",
            _ONE_TRANSACTION,
        )
        for row in rows
    ]


async def _that_need_processes(evidence: Evidence) -> list[str]:
    rows = await evidence.rows(
        """
        SELECT id FROM subscriptions
        WHERE (status <> ALL(:ends) OR has_open_charge OR giving_back IS NOT NULL)
          AND recorded_at < :latest
        ORDER BY id
        """,
        ends=list(_ENDED),
        latest=evidence.now - evidence.under_way,
    )
    return [row["id"] for row in rows]
