"""The promises about money: taken once, recorded once, balanced, never given back twice."""

from collections import Counter
from typing import Final

from audit.evidence import Charge, Evidence, Finding
from billing.money import CURRENCIES

_LEDGER_TABLES: Final = ("ledger_accounts", "ledger_transactions", "ledger_postings")
_TRIGGERS: Final = frozenset(
    {"ledger_transactions_balance", "ledger_postings_balance"}
    | {"points_transactions_chain", "points_balances_agree"}
    | {f"{table}_append_only" for table in _LEDGER_TABLES}
    | {f"{table}_no_truncate" for table in _LEDGER_TABLES}
)


async def taken_once(evidence: Evidence) -> list[Finding]:
    """Promise 1: per attempt money is taken at most once, and one receipt per payment is kept."""
    taken = Counter((charge.payment_id, charge.attempt) for charge in evidence.charges)
    findings = [
        Finding(
            1,
            payment_id,
            f"the gateway took money {times} times for attempt {attempt}",
            "return all but one at the gateway, and find out under which keys they were taken",
        )
        for (payment_id, attempt), times in taken.items()
        if times > 1
    ]
    for row in await evidence.rows(
        """
        SELECT payments.id, payments.status, count(receipts.payment_id) AS kept
        FROM payments LEFT JOIN receipts ON receipts.payment_id = payments.id AND receipts.kept
        GROUP BY payments.id, payments.status
        HAVING count(receipts.payment_id) <> (payments.status = 'succeeded')::int
        """
    ):
        findings.append(
            Finding(
                1,
                row["id"],
                f"it is {row['status']} and has {row['kept']} kept receipts",
                "a succeeded payment has exactly one, any other none: compare its events with its"
                " receipts",
            )
        )
    return findings


async def recorded_once(evidence: Evidence) -> list[Finding]:
    """Promise 2: gateway, receipts and ledger tell of the same money, both ways."""
    receipts = {
        (row["payment_id"], row["attempt"]): row
        for row in await evidence.rows("SELECT * FROM receipts")
    }
    charged = {(charge.payment_id, charge.attempt): charge for charge in evidence.charges}
    findings = [
        finding
        for key, charge in charged.items()
        if (finding := _charge_unlike(charge, receipts.get(key), evidence)) is not None
    ]
    findings += [
        Finding(
            2,
            payment_id,
            f"there is a receipt of attempt {attempt}, and the gateway knows of no such money",
            "ask the gateway by its number; a receipt never comes from anything but its answer",
        )
        for (payment_id, attempt), receipt in receipts.items()
        if (payment_id, attempt) not in charged
        and receipt["recorded_at"] <= evidence.now
        and evidence.truth.covers(payment_id)
    ]
    findings += await _receipts_against_payments(evidence)
    return findings + await _ledger_against_receipts(evidence)


def _charge_unlike(charge: Charge, receipt: object, evidence: Evidence) -> Finding | None:
    if receipt is None:
        if evidence.now - charge.paid_at < evidence.under_way:
            return None
        return Finding(
            2,
            charge.payment_id,
            f"{charge.gateway.value} took {charge.amount_minor} {charge.currency} for attempt"
            f" {charge.attempt}, and there is no receipt",
            f"`everbill resume {charge.payment_id}`, or `refresh` it over the API",
        )
    assert isinstance(receipt, dict)
    told = f"{charge.amount_minor} {charge.currency} by {charge.gateway.value}"
    kept = f"{receipt['amount_minor']} {receipt['currency']} by {receipt['gateway']}"
    if told == kept:
        return None
    return Finding(
        2,
        charge.payment_id,
        f"the gateway tells of {told}, the receipt of attempt {charge.attempt} of {kept}",
        "the gateway's answer was not checked: this is a bug; correct it by a ledger transaction",
    )


async def _receipts_against_payments(evidence: Evidence) -> list[Finding]:
    """A receipt is kept for exactly what was ordered, and every attempt that paid has one."""
    findings = [
        Finding(
            2,
            row["id"],
            f"{row['ordered']} {row['currency']} were ordered, and a receipt of {row['received']}"
            f" {row['received_currency']} was kept for it",
            "the gateway's answer was not checked: this is a bug; compare with the gateway's own"
            " list",
        )
        for row in await evidence.rows(
            """
            SELECT payments.id, payments.amount_minor AS ordered, payments.currency,
                   receipts.amount_minor AS received, receipts.currency AS received_currency
            FROM payments JOIN receipts ON receipts.payment_id = payments.id AND receipts.kept
            WHERE (receipts.amount_minor, receipts.currency)
                  <> (payments.amount_minor, payments.currency)
            """
        )
    ]
    findings += [
        Finding(
            2,
            row["number"],
            f"the attempt is {row['state']}, and it has {row['receipts']} receipts",
            "both are written in one transaction: look for writes past the application",
        )
        for row in await evidence.rows(
            """
            SELECT attempts.number, attempts.state, count(receipts.attempt) AS receipts
            FROM payment_attempts AS attempts LEFT JOIN receipts
            ON receipts.payment_id = attempts.payment_id AND receipts.attempt = attempts.attempt
            GROUP BY attempts.number, attempts.state
            HAVING count(receipts.attempt) <> (attempts.state = 'paid')::int
            """
        )
    ]
    return findings


async def _ledger_against_receipts(evidence: Evidence) -> list[Finding]:
    """Each receipt has the postings it must have, on the accounts it must have them on."""
    rows = await evidence.rows(
        """
        WITH posted AS (
            SELECT transactions.cause, accounts.code, postings.currency,
                   sum(postings.amount_minor) AS amount
            FROM ledger_transactions AS transactions
            LEFT JOIN ledger_postings AS postings ON postings.transaction_id = transactions.id
            LEFT JOIN ledger_accounts AS accounts ON accounts.id = postings.account_id
            WHERE transactions.cause LIKE 'receipt/%'
            GROUP BY transactions.cause, accounts.code, postings.currency
        ), received AS (
            SELECT 'receipt/' || attempts.number AS cause, side.code, receipts.currency,
                   side.sign * receipts.amount_minor AS amount
            FROM receipts
            JOIN payment_attempts AS attempts
            ON attempts.payment_id = receipts.payment_id AND attempts.attempt = receipts.attempt
            CROSS JOIN LATERAL (
                VALUES (1, 'gateway_clearing:' || receipts.gateway),
                       (-1, CASE WHEN receipts.kept THEN 'revenue'
                                 ELSE 'unapplied_receipts:' || receipts.gateway END)
            ) AS side (sign, code)
        )
        SELECT cause, string_agg(
            coalesce(code, 'no account') || ' has ' || coalesce(posted.amount, 0)
            || ' where the receipt says ' || coalesce(received.amount, 0), '; ' ORDER BY code
        ) AS differences
        FROM posted FULL JOIN received USING (cause, code, currency)
        WHERE posted.amount IS DISTINCT FROM received.amount
           OR (posted.amount IS NULL AND received.amount IS NULL)
        GROUP BY cause
        """
    )
    return [
        Finding(
            2,
            row["cause"].removeprefix("receipt/"),
            f"the ledger tells of other money than the receipt: {row['differences']}",
            "both are written in one transaction: look for writes past the application",
        )
        for row in rows
    ]


async def balanced(evidence: Evidence) -> list[Finding]:
    """Promise 3: every transaction sums to zero, and nobody can change what was posted."""
    findings = [
        Finding(
            3,
            row["cause"],
            f"its {row['postings']} postings sum to {row['total']} {row['currency'] or ''}".strip(),
            "the triggers were off when it was posted; correct it by a transaction of its own",
        )
        for row in await evidence.rows(
            """
            SELECT transactions.cause, postings.currency, count(postings.id) AS postings,
                   coalesce(sum(postings.amount_minor), 0) AS total
            FROM ledger_transactions AS transactions
            LEFT JOIN ledger_postings AS postings ON postings.transaction_id = transactions.id
            GROUP BY transactions.cause, postings.currency
            HAVING coalesce(sum(postings.amount_minor), 0) <> 0 OR count(postings.id) < 2
            """
        )
    ]
    enabled = {
        row["tgname"]
        for row in await evidence.rows(
            "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
        )
    }
    findings += [
        Finding(3, trigger, "the trigger is missing or switched off", "run `everbill migrate`")
        for trigger in sorted(_TRIGGERS - enabled)
    ]
    return findings + await _rights(evidence)


async def _rights(evidence: Evidence) -> list[Finding]:
    rows = await evidence.rows(
        """
        SELECT name AS table_name, privilege
        FROM unnest(CAST(:tables AS text[])) AS name,
             unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
        WHERE has_table_privilege(current_user, name, privilege)
           OR (privilege IN ('INSERT', 'UPDATE')
               AND has_any_column_privilege(current_user, name, privilege))
        """,
        tables=list(_LEDGER_TABLES),
    )
    return [
        Finding(
            3,
            row["table_name"],
            f"the application's login may {row['privilege']} it",
            "log in as a member of everbill_app that owns nothing (docs/OPERATIONS.md)",
        )
        for row in rows
    ]


async def integers_with_currencies(evidence: Evidence) -> list[Finding]:
    """Promise 8: amounts are integers in minor units, with a currency of ISO 4217."""
    findings = [
        Finding(
            8,
            f"{row['table_name']}.{row['column_name']}",
            f"an amount is kept as {row['data_type']}",
            "amounts are bigint: migrate the column",
        )
        for row in await evidence.rows(
            """
            SELECT table_name, column_name, data_type FROM information_schema.columns
            WHERE table_schema = 'public'
              AND (column_name LIKE '%amount%' AND data_type <> 'bigint'
                   OR data_type IN ('real', 'double precision', 'money'))
            """
        )
    ]
    for row in await evidence.rows(
        """
        SELECT 'payments' AS place, currency FROM payments
        UNION SELECT 'receipts', currency FROM receipts
        UNION SELECT 'ledger_postings', currency FROM ledger_postings
        """
    ):
        if row["currency"] not in CURRENCIES and row["currency"] != "PTS":
            findings.append(
                Finding(
                    8,
                    row["place"],
                    f"{row['currency']} is no currency of ISO 4217",
                    "find the payments that carry it; the API refuses such an order",
                )
            )
    return findings
