"""The promise about disputes: what payers' banks took back is recorded, and booked once."""

from audit.evidence import Evidence, Finding

_HELD = "withdrawn_minor - reinstated_minor"


async def disputes_booked(evidence: Evidence) -> list[Finding]:
    """Promise 9: what disputes have of the money is in the record and in the ledger once."""
    findings = await _disputes_against_gateways(evidence)
    findings += await _ledger_against_disputes(evidence)
    findings += await _account_against_disputes(evidence)
    return findings + await _payments_against_disputes(evidence)


async def _disputes_against_gateways(evidence: Evidence) -> list[Finding]:
    recorded = {
        (row["payment_id"], row["attempt"]): int(row["held"])
        for row in await evidence.rows(
            f"SELECT payment_id, attempt, sum({_HELD}) AS held FROM disputes"  # noqa: S608
            " GROUP BY payment_id, attempt"
        )
    }
    return [
        Finding(
            9,
            charge.payment_id,
            f"disputes have {charge.disputed_minor} {charge.currency} of attempt {charge.attempt}"
            f" at {charge.gateway.value}, and the record knows of {known}",
            "a webhook was lost: `refresh` the payment over the API, or resend it from the"
            " gateway's dashboard",
        )
        for charge in evidence.charges
        if (known := recorded.get((charge.payment_id, charge.attempt), 0)) != charge.disputed_minor
    ]


async def _ledger_against_disputes(evidence: Evidence) -> list[Finding]:
    """Each dispute's postings leave its money where its row says that it is."""
    return [
        Finding(
            9,
            row["payment_id"],
            f"dispute {row['reference']} is {row['status']}, and the ledger has {row['posted']} on"
            f" {row['code']} where the row says {row['expected']}",
            "both are written in one transaction: look for writes past the application",
        )
        for row in await evidence.rows(
            """
            SELECT disputes.reference, disputes.payment_id, disputes.status, side.code,
                   side.expected, coalesce(posted.amount, 0) AS posted
            FROM disputes
            JOIN receipts ON receipts.payment_id = disputes.payment_id
                         AND receipts.attempt = disputes.attempt
            CROSS JOIN LATERAL (
                SELECT withdrawn_minor - reinstated_minor AS minor
            ) AS held
            CROSS JOIN LATERAL (
                VALUES ('disputed:' || disputes.gateway, held.minor - written_off_minor),
                       ('dispute_fees:' || disputes.gateway, fee_minor),
                       ('gateway_clearing:' || disputes.gateway, -held.minor - fee_minor),
                       (CASE WHEN receipts.kept THEN 'revenue'
                             ELSE 'unapplied_receipts:' || disputes.gateway END,
                        written_off_minor)
            ) AS side (code, expected)
            LEFT JOIN LATERAL (
                SELECT sum(postings.amount_minor) AS amount
                FROM ledger_transactions AS transactions
                JOIN ledger_postings AS postings ON postings.transaction_id = transactions.id
                JOIN ledger_accounts AS accounts ON accounts.id = postings.account_id
                WHERE starts_with(transactions.cause, 'dispute/' || disputes.reference || '/')
                  AND accounts.code = side.code AND postings.currency = disputes.currency
            ) AS posted ON true
            WHERE coalesce(posted.amount, 0) <> side.expected
            """
        )
    ]


async def _account_against_disputes(evidence: Evidence) -> list[Finding]:
    """The account of disputed money holds what undecided disputes have, and nothing else."""
    return [
        Finding(
            9,
            row["code"],
            f"it holds {row['balance']} {row['currency']}, and undecided disputes have"
            f" {row['held']}",
            "something else was posted on it: look for causes that are no dispute's",
        )
        for row in await evidence.rows(
            """
            WITH account AS (
                SELECT accounts.code, postings.currency, sum(postings.amount_minor) AS balance
                FROM ledger_postings AS postings
                JOIN ledger_accounts AS accounts ON accounts.id = postings.account_id
                WHERE accounts.code LIKE 'disputed:%'
                GROUP BY accounts.code, postings.currency
            ), undecided AS (
                SELECT 'disputed:' || gateway AS code, currency,
                       sum(withdrawn_minor - reinstated_minor - written_off_minor) AS held
                FROM disputes GROUP BY gateway, currency
            )
            SELECT code, currency, coalesce(balance, 0) AS balance, coalesce(held, 0) AS held
            FROM account FULL JOIN undecided USING (code, currency)
            WHERE coalesce(balance, 0) <> coalesce(held, 0)
            """
        )
    ]


async def _payments_against_disputes(evidence: Evidence) -> list[Finding]:
    """A payment shows its latest dispute as it stands."""
    return [
        Finding(
            9,
            row["id"],
            f"it shows as its dispute {row['shown']}, and the latest recorded is {row['latest']}",
            "both are written in one transaction: look for writes past the application",
        )
        for row in await evidence.rows(
            """
            SELECT payments.id,
                   (payments.dispute ->> 'id') || ' ' || (payments.dispute ->> 'status') AS shown,
                   latest.reference || ' ' || latest.status AS latest
            FROM payments LEFT JOIN LATERAL (
                SELECT reference, status FROM disputes
                WHERE disputes.payment_id = payments.id
                ORDER BY opened_at DESC, reference DESC LIMIT 1
            ) AS latest ON true
            WHERE (payments.dispute IS NOT NULL OR latest.reference IS NOT NULL)
              AND (payments.dispute ->> 'id', payments.dispute ->> 'status')
                  IS DISTINCT FROM (latest.reference, latest.status)
            """
        )
    ]
