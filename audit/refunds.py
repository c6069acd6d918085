"""The promises about giving back: never more than came in, and each refund in the ledger once."""

from audit.evidence import Evidence, Finding


async def refunded_within_bounds(evidence: Evidence) -> list[Finding]:
    """Promise 4: what was given back never exceeds what was taken."""
    findings = [
        Finding(
            4,
            charge.payment_id,
            f"{charge.refunded_minor} of {charge.amount_minor} {charge.currency} were returned",
            "stop refunds of this payment and compare it with the gateway's own list",
        )
        for charge in evidence.charges
        if charge.refunded_minor > charge.amount_minor
    ]
    for row in await evidence.rows(
        """
        SELECT payments.id, payments.amount_refunded_minor AS refunded,
               coalesce(sum(receipts.amount_minor) FILTER (WHERE receipts.kept), 0) AS captured
        FROM payments LEFT JOIN receipts ON receipts.payment_id = payments.id
        WHERE payments.amount_refunded_minor > 0
        GROUP BY payments.id
        HAVING payments.amount_refunded_minor
               > coalesce(sum(receipts.amount_minor) FILTER (WHERE receipts.kept), 0)
        """
    ):
        findings.append(
            Finding(
                4,
                row["id"],
                f"{row['refunded']} were refunded of {row['captured']} captured",
                "stop refunds of this payment and compare it with the gateway's own list",
            )
        )
    findings += await _unapplied_goes_back(evidence)
    findings += await _reserved_within_bounds(evidence)
    findings += await _ledger_against_refunds(evidence)
    return findings + await _refunds_against_gateways(evidence)


async def _unapplied_goes_back(evidence: Evidence) -> list[Finding]:
    """Money that no payment waited for is returned, on its way back, or called to attention."""
    return [
        Finding(
            4,
            row["payment_id"],
            f"attempt {row['attempt']} brought {row['amount_minor']} {row['currency']} that did not"
            " pay for it, and nothing gives them back",
            f"`everbill review decide {row['payment_id']} return --reason …`",
        )
        for row in await evidence.rows(
            """
            SELECT receipts.payment_id, receipts.attempt, receipts.amount_minor, receipts.currency
            FROM receipts
            WHERE NOT receipts.kept
              AND NOT EXISTS (
                  SELECT 1 FROM refunds
                  WHERE refunds.payment_id = receipts.payment_id
                    AND refunds.attempt = receipts.attempt AND refunds.status <> 'failed')
              AND NOT EXISTS (
                  SELECT 1 FROM attention
                  WHERE attention.payment_id = receipts.payment_id
                    AND attention.reason IN ('unapplied_receipt', 'return_failed')
                    AND attention.resolved_at IS NULL)
            """
        )
    ]


async def _reserved_within_bounds(evidence: Evidence) -> list[Finding]:
    """A refund made elsewhere asks nobody: what was set aside for ours is then for the gateway to
    refuse, and only what has gone back counts."""
    return [
        Finding(
            4,
            row["payment_id"],
            f"{row['reserved']} are refunded or set aside of {row['received']} that attempt"
            f" {row['attempt']} brought",
            "the reservation did not hold: stop refunds of this payment, and report the bug",
        )
        for row in await evidence.rows(
            """
            SELECT refunds.payment_id, refunds.attempt, receipts.amount_minor AS received,
                   sum(refunds.amount_minor) AS reserved
            FROM refunds LEFT JOIN receipts
            ON receipts.payment_id = refunds.payment_id AND receipts.attempt = refunds.attempt
            WHERE refunds.status = 'succeeded'
               OR (refunds.status <> 'failed' AND NOT EXISTS (
                      SELECT 1 FROM refunds AS others
                      WHERE others.payment_id = refunds.payment_id
                        AND others.attempt = refunds.attempt AND others.cause = 'elsewhere'))
            GROUP BY refunds.payment_id, refunds.attempt, receipts.amount_minor
            HAVING sum(refunds.amount_minor) > coalesce(receipts.amount_minor, 0)
            """
        )
    ]


async def _ledger_against_refunds(evidence: Evidence) -> list[Finding]:
    """What was given back is out of the books once; what failed is out of them not at all."""
    return [
        Finding(
            4,
            row["id"],
            f"it is {row['status']} over {row['amount_minor']}, and the ledger has"
            f" {row['posted']} out of {row['code']}",
            "both are written in one transaction: look for writes past the application",
        )
        for row in await evidence.rows(
            """
            SELECT refunds.id, refunds.status, refunds.amount_minor, side.code,
                   coalesce(posted.amount, 0) AS posted
            FROM refunds
            JOIN receipts ON receipts.payment_id = refunds.payment_id
                         AND receipts.attempt = refunds.attempt
            CROSS JOIN LATERAL (
                VALUES (-1, 'gateway_clearing:' || refunds.gateway),
                       (1, CASE WHEN receipts.kept THEN 'revenue'
                                ELSE 'unapplied_receipts:' || refunds.gateway END)
            ) AS side (sign, code)
            LEFT JOIN LATERAL (
                SELECT sum(postings.amount_minor) AS amount
                FROM ledger_transactions AS transactions
                JOIN ledger_postings AS postings ON postings.transaction_id = transactions.id
                JOIN ledger_accounts AS accounts ON accounts.id = postings.account_id
                WHERE transactions.cause IN (
                          'refund/' || refunds.id, 'refund/' || refunds.id || '/failed')
                  AND accounts.code = side.code AND postings.currency = refunds.currency
            ) AS posted ON true
            WHERE coalesce(posted.amount, 0)
                  <> CASE refunds.status WHEN 'succeeded' THEN side.sign * refunds.amount_minor
                                         ELSE 0 END
            """
        )
    ]


async def _refunds_against_gateways(evidence: Evidence) -> list[Finding]:
    """What a gateway says it gave back is what we know to be given back, or to be on its way."""
    ours = {
        (row["payment_id"], row["attempt"]): row
        for row in await evidence.rows(
            """
            SELECT payment_id, attempt,
                   sum(amount_minor) FILTER (WHERE status = 'succeeded') AS done,
                   sum(amount_minor) FILTER (
                       WHERE status IN ('pending', 'processing', 'needs_review')) AS under_way
            FROM refunds GROUP BY payment_id, attempt
            """
        )
    }
    findings = []
    for charge in evidence.charges:
        row = ours.get((charge.payment_id, charge.attempt), {})
        done, under_way = int(row.get("done") or 0), int(row.get("under_way") or 0)
        if not done <= charge.refunded_minor <= done + under_way:
            findings.append(
                Finding(
                    4,
                    charge.payment_id,
                    f"{charge.gateway.value} gave back {charge.refunded_minor}"
                    f" {charge.currency} of attempt {charge.attempt}; we know of {done}, and of"
                    f" {under_way} on the way",
                    "a refund made elsewhere, or one that failed: compare with the gateway's list",
                )
            )
    return findings
