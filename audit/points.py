"""The promise about points: bought, spent, taken back and expired, and nothing else."""

from collections.abc import Mapping
from typing import Any, Final

from audit.evidence import Evidence, Finding

_ONE_TRANSACTION: Final = "all are written in one transaction: look for writes past the application"


async def points_agree(evidence: Evidence) -> list[Finding]:
    """Promise 10: balance, lots, ledger and history of each user agree to the point."""
    return (
        await _balances(evidence)
        + await _chains(evidence)
        + await _purchases(evidence)
        + await _clawbacks(evidence)
        + await _proportions(evidence)
    )


async def _balances(evidence: Evidence) -> list[Finding]:
    rows = await evidence.rows(
        """
        WITH users AS (
            SELECT 'points:' || application || ':' || user_id AS account, balance, debt, movements,
                   application, user_id
            FROM points_balances
        ), held AS (
            SELECT application, user_id, sum(remaining) AS remaining
            FROM points_lots GROUP BY application, user_id
        ), owing AS (
            SELECT application, user_id, sum(owed) AS owed
            FROM points_clawbacks GROUP BY application, user_id
        ), posted AS (
            SELECT accounts.code AS account, -sum(postings.amount_minor) AS credit
            FROM ledger_postings AS postings
            JOIN ledger_accounts AS accounts ON accounts.id = postings.account_id
            WHERE accounts.code LIKE 'points:%' AND postings.currency = 'PTS'
            GROUP BY accounts.code
        )
        SELECT account, users.balance, users.debt,
               coalesce(held.remaining, 0) AS remaining, coalesce(owing.owed, 0) AS owed,
               coalesce(posted.credit, 0) AS credit, coalesce(last.balance_after, 0) AS last
        FROM users
        LEFT JOIN held USING (application, user_id)
        LEFT JOIN owing USING (application, user_id)
        FULL JOIN posted USING (account)
        LEFT JOIN LATERAL (
            SELECT balance_after FROM points_transactions AS transactions
            WHERE transactions.application = users.application
              AND transactions.user_id = users.user_id
            ORDER BY sequence DESC LIMIT 1
        ) AS last ON true
        WHERE users.balance IS NULL
           OR users.balance <> coalesce(held.remaining, 0) - users.debt
           OR users.debt <> coalesce(owing.owed, 0)
           OR users.balance <> coalesce(posted.credit, 0)
           OR users.balance <> coalesce(last.balance_after, 0)
        ORDER BY account
        """
    )
    return [Finding(10, row["account"], _differences(row), _ONE_TRANSACTION) for row in rows]


def _differences(row: Mapping[str, Any]) -> str:
    return (
        f"the balance is {row['balance']} with {row['debt']} owed; the lots hold"
        f" {row['remaining']}, refunds are owed {row['owed']}, the ledger says {row['credit']},"
        f" the last transaction {row['last']}"
    )


async def _chains(evidence: Evidence) -> list[Finding]:
    """Each transaction goes on from the one before it, and is in the ledger as it stands."""
    rows = await evidence.rows(
        """
        WITH chain AS (
            SELECT id, application, user_id, amount, balance_after, sequence,
                   row_number() OVER whole AS turn,
                   coalesce(lag(balance_after) OVER whole, 0) AS before
            FROM points_transactions
            WINDOW whole AS (PARTITION BY application, user_id ORDER BY sequence)
        )
        SELECT chain.id, chain.amount, chain.balance_after, chain.before,
               coalesce(posted.credit, 0) AS credit
        FROM chain
        LEFT JOIN LATERAL (
            SELECT -sum(postings.amount_minor) AS credit
            FROM ledger_transactions AS transactions
            JOIN ledger_postings AS postings ON postings.transaction_id = transactions.id
            JOIN ledger_accounts AS accounts ON accounts.id = postings.account_id
            WHERE transactions.cause = 'points/' || chain.id AND postings.currency = 'PTS'
              AND accounts.code = 'points:' || chain.application || ':' || chain.user_id
        ) AS posted ON true
        WHERE chain.before + chain.amount <> chain.balance_after
           OR chain.turn <> chain.sequence
           OR chain.amount IS DISTINCT FROM posted.credit
        ORDER BY chain.id
        """
    )
    return [
        Finding(
            10,
            row["id"],
            f"it moves {row['amount']} from {row['before']} to {row['balance_after']}, and the"
            f" ledger has {row['credit']}",
            _ONE_TRANSACTION,
        )
        for row in rows
    ]


async def _purchases(evidence: Evidence) -> list[Finding]:
    """Points come with a payment that succeeded, and with each that was made for them."""
    rows = await evidence.rows(
        """
        SELECT coalesce(payments.id, lots.payment_id) AS id,
               coalesce(payments.status, 'unknown') AS status,
               coalesce(lots.granted, 0) AS granted
        FROM (SELECT payment_id, sum(granted) AS granted FROM points_lots GROUP BY payment_id)
             AS lots
        FULL JOIN (SELECT * FROM payments WHERE type = 'points') AS payments
        ON payments.id = lots.payment_id
        WHERE (payments.status IS NOT DISTINCT FROM 'succeeded') <> (lots.granted IS NOT NULL)
        ORDER BY 1
        """
    )
    return [
        Finding(
            10,
            row["id"],
            f"as a payment for points it is {row['status']}, and it brought {row['granted']}",
            "points are credited as the payment succeeds: " + _ONE_TRANSACTION,
        )
        for row in rows
    ]


async def _clawbacks(evidence: Evidence) -> list[Finding]:
    """Every refund that stands has taken its points back, every dispute those of the money it has,
    and nothing else has."""
    findings = [
        Finding(
            10,
            row["id"],
            f"the refund is {row['status']} over {row['amount_minor']}, and points are taken back"
            f" for {row['taken_for']}",
            _ONE_TRANSACTION,
        )
        for row in await evidence.rows(
            """
            SELECT refunds.id, refunds.status, refunds.amount_minor,
                   coalesce(clawbacks.amount_minor, 0) AS taken_for
            FROM refunds
            LEFT JOIN points_clawbacks AS clawbacks
            ON clawbacks.cause_id = refunds.id AND clawbacks.restored_at IS NULL
            JOIN receipts ON receipts.payment_id = refunds.payment_id
                         AND receipts.attempt = refunds.attempt
            WHERE receipts.kept
              AND EXISTS (SELECT 1 FROM points_lots WHERE payment_id = refunds.payment_id)
              AND coalesce(clawbacks.amount_minor, 0)
                  <> CASE refunds.status WHEN 'failed' THEN 0 ELSE refunds.amount_minor END
            ORDER BY refunds.id
            """
        )
    ]
    findings += [
        Finding(
            10,
            row["reference"],
            f"the dispute has {row['held']}, and points are taken back for {row['taken_for']}",
            _ONE_TRANSACTION,
        )
        for row in await evidence.rows(
            """
            SELECT disputes.reference, held.minor AS held, coalesce(taken.minor, 0) AS taken_for
            FROM disputes
            JOIN receipts ON receipts.payment_id = disputes.payment_id
                         AND receipts.attempt = disputes.attempt AND receipts.kept
            CROSS JOIN LATERAL (
                SELECT greatest(disputes.withdrawn_minor - disputes.reinstated_minor, 0) AS minor
            ) AS held
            LEFT JOIN LATERAL (
                SELECT sum(clawbacks.amount_minor) AS minor FROM points_clawbacks AS clawbacks
                WHERE clawbacks.restored_at IS NULL
                  AND (clawbacks.cause_id = disputes.reference
                       OR starts_with(clawbacks.cause_id, disputes.reference || '/'))
            ) AS taken ON true
            WHERE EXISTS (SELECT 1 FROM points_lots WHERE payment_id = disputes.payment_id)
              AND coalesce(taken.minor, 0) <> held.minor
            ORDER BY disputes.reference
            """
        )
    ]
    findings += [
        Finding(
            10,
            row["cause_id"],
            f"it took {row['points']} points back, of which {row['owed']} are owed and"
            f" {row['taken']} came out of lots",
            _ONE_TRANSACTION,
        )
        for row in await evidence.rows(
            """
            SELECT clawbacks.cause_id, clawbacks.points, clawbacks.owed,
                   coalesce(sum(takings.points + takings.lapsed), 0) AS taken
            FROM points_clawbacks AS clawbacks
            LEFT JOIN points_takings AS takings ON takings.cause_id = clawbacks.cause_id
            WHERE clawbacks.restored_at IS NULL
            GROUP BY clawbacks.cause_id
            HAVING clawbacks.points
                   <> clawbacks.owed + coalesce(sum(takings.points + takings.lapsed), 0)
            ORDER BY clawbacks.cause_id
            """
        )
    ]
    return findings


async def _proportions(evidence: Evidence) -> list[Finding]:
    """The points of a purchase go with its money, parts of a point rounded up."""
    rows = await evidence.rows(
        """
        SELECT payments.id, payments.amount_minor, lots.granted, gone.minor, gone.points,
               due.points AS due
        FROM payments
        JOIN (SELECT payment_id, sum(granted)::bigint AS granted FROM points_lots
              GROUP BY payment_id) AS lots ON lots.payment_id = payments.id
        JOIN (SELECT payment_id, sum(amount_minor)::bigint AS minor, sum(points)::bigint AS points
              FROM points_clawbacks WHERE restored_at IS NULL
              GROUP BY payment_id) AS gone ON gone.payment_id = payments.id
        CROSS JOIN LATERAL (
            SELECT (lots.granted * least(gone.minor, payments.amount_minor)
                    + payments.amount_minor - 1) / payments.amount_minor AS points
        ) AS due
        WHERE gone.points <> due.points
        ORDER BY payments.id
        """
    )
    return [
        Finding(
            10,
            row["id"],
            f"{row['minor']} of {row['amount_minor']} in minor units have gone back, and with them"
            f" {row['points']} of the {row['granted']} points that it brought, not {row['due']}",
            "the next refund of the payment, made or failed, sets it right",
        )
        for row in rows
    ]
