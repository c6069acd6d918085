"""The promises about conduct: ends are ends, nothing is lost, nothing secret is told."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload, SearchAttributes
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from audit.evidence import Evidence, Finding
from audit.processes import was_never_known, without_process
from billing.cards import contains_card_number
from billing.payment import PaymentStatus
from runtime import attributes
from runtime.codec import ENCODING
from runtime.logs import holds_secret, redact

OVERDUE_ALLOWANCE: Final = timedelta(minutes=3)
"""What closing at a silent gateway may take past the deadline, and then some."""

HISTORIES_READ: Final = 20
# What the server itself puts into the cancelation of an activity that no worker had begun.
_NOT_STARTED: Final = b'"ACTIVITY_ID_NOT_STARTED"'
# Which change of the code a history knows of: words of the code's own.
_PATCH: Final = "core_patch"
_TERMINAL: Final = tuple(status.value for status in PaymentStatus if status.is_terminal)


async def ends_are_final(evidence: Evidence) -> list[Finding]:
    """Promise 5: no final status is left, and no payment stays open past its deadline."""
    findings = [
        Finding(
            5,
            row["object_id"],
            f"after {row['ended']} came {row['later']}",
            "a final status was left: look for writes past the application",
        )
        for row in await evidence.rows(
            """
            SELECT ended.object_id, ended.type AS ended, later.type AS later
            FROM events AS ended JOIN events AS later
            ON later.object_id = ended.object_id AND later.sequence > ended.sequence
            WHERE ended.type = ANY(:ends) AND later.type = ANY(:statuses)
            """,
            ends=[f"payment.{status}" for status in _TERMINAL],
            statuses=[f"payment.{status.value}" for status in PaymentStatus],
        )
    ]
    findings += await _last_event_against_row(evidence)
    findings += await _overdue(evidence)
    if evidence.client is not None:
        findings += await without_process(
            evidence,
            5,
            _that_need_workflows,
            "it may still be paid, and no workflow of it runs",
        )
    return findings


async def _last_event_against_row(evidence: Evidence) -> list[Finding]:
    rows = await evidence.rows(
        """
        SELECT payments.id, payments.status, last.type
        FROM payments LEFT JOIN LATERAL (
            SELECT type FROM events
            WHERE object_id = payments.id AND type = ANY(:statuses)
            ORDER BY sequence DESC LIMIT 1
        ) AS last ON true
        WHERE last.type IS DISTINCT FROM 'payment.' || payments.status
        """,
        statuses=[f"payment.{status.value}" for status in PaymentStatus],
    )
    return [
        Finding(
            5,
            row["id"],
            f"it is {row['status']}, and its last event says {row['type'] or 'nothing'}",
            "both are written in one transaction: look for writes past the application",
        )
        for row in rows
    ]


async def _overdue(evidence: Evidence) -> list[Finding]:
    rows = await evidence.rows(
        """
        SELECT id, status, expires_at FROM payments
        WHERE status <> ALL(:resting) AND expires_at < :latest
        """,
        resting=[*_TERMINAL, PaymentStatus.NEEDS_REVIEW.value],
        latest=evidence.now - OVERDUE_ALLOWANCE,
    )
    return [
        Finding(
            5,
            row["id"],
            f"it is {row['status']} past its deadline of {row['expires_at']:%Y-%m-%d %H:%M:%S} UTC",
            "look at its workflow in the Temporal UI: a failing workflow task is a bug of ours;"
            f" where none runs, `everbill resume {row['id']}`",
        )
        for row in rows
    ]


async def _that_need_workflows(evidence: Evidence) -> list[str]:
    rows = await evidence.rows(
        """
        SELECT id FROM payments WHERE status <> ALL(:ends) AND recorded_at < :latest
        UNION
        SELECT payment_id FROM payment_attempts WHERE state = 'open' AND recorded_at < :latest
        ORDER BY id
        """,
        ends=list(_TERMINAL),
        latest=evidence.now - evidence.under_way,
    )
    return [row["id"] for row in rows]


async def nothing_lost(evidence: Evidence) -> list[Finding]:
    """Promise 6: accepted webhooks are delivered, claimed orders recorded, events counted."""
    latest = evidence.now - evidence.under_way
    findings = [
        Finding(
            6,
            row["event_id"],
            f"{row['gateway']}'s webhook of {row['received_at']:%Y-%m-%d %H:%M:%S} UTC was tried"
            f" {row['tries']} times and is not delivered",
            "is the worker running, and does Temporal answer it? see its log",
        )
        for row in await evidence.rows(
            "SELECT * FROM webhook_inbox WHERE outcome IS NULL AND received_at < :latest",
            latest=latest,
        )
    ]
    findings += [
        Finding(
            6,
            row["event_id"],
            f"{row['gateway']}'s webhook was set aside as unmatched, and {row['payment_id']} is"
            " a payment of ours",
            f"`refresh` {row['payment_id']} over the API, which asks the gateway",
        )
        for row in await evidence.rows(
            """
            SELECT webhook_inbox.* FROM webhook_inbox
            JOIN payments ON payments.id = webhook_inbox.payment_id
            WHERE webhook_inbox.outcome = 'unmatched'
            """
        )
    ]
    findings += await _unrecorded(evidence, latest)
    findings += [
        Finding(
            6,
            row["object_id"],
            f"its {row['events']} events are numbered up to {row['last']}",
            "an event was removed: look for writes past the application",
        )
        for row in await evidence.rows(
            """
            SELECT object_id, count(*) AS events, max(sequence) AS last FROM events
            GROUP BY object_id HAVING count(*) <> max(sequence) OR min(sequence) <> 1
            """
        )
    ]
    return findings


async def _unrecorded(evidence: Evidence, latest: datetime) -> list[Finding]:
    """Orders that were claimed and have no row. One that Temporal never knew a process of was not
    begun, unless it was deleted there: its application was told of no payment, and its repeat is
    the first to start it. Where Temporal may have forgotten, it counts as ordered."""
    claims = await evidence.rows(
        """
        SELECT claims.object_id, claims.answer_status, claims.created_at
        FROM idempotency_claims AS claims
        LEFT JOIN payments ON payments.id = claims.object_id
        WHERE claims.command = 'create' AND payments.id IS NULL AND claims.created_at < :latest
        -- What was refused under its key was never ordered.
        AND coalesce(claims.answer_status, 0) < 400
        """,
        latest=latest,
    )
    return [
        Finding(
            6,
            row["object_id"],
            "it was claimed, and Temporal knows of no process of it",
            "unless one was deleted there, or lost with a restore of Temporal, nothing was ordered:"
            " the application may repeat the request under its Idempotency-Key, which starts it, or"
            " leave it; the claim goes after 30 days",
            is_information=True,
        )
        if row["answer_status"] is None
        and await was_never_known(evidence, row["object_id"], row["created_at"])
        else Finding(
            6,
            row["object_id"],
            "it was ordered and has no row, or nobody can tell any more whether it was",
            "is the worker running? repeat the request under its Idempotency-Key; after a restore,"
            " or with another Temporal, look for its money at the gateway. Not repeated, the claim"
            " goes after 30 days",
        )
        for row in claims
    ]


async def nothing_told(evidence: Evidence) -> list[Finding]:
    """Promise 7: no secret and no card number in logs, search attributes or readable payloads."""
    findings = [finding for path in evidence.logs for finding in _read_log(path)]
    if evidence.client is None:
        return findings
    for row in await evidence.rows(
        "SELECT id FROM payments ORDER BY id DESC LIMIT :most", most=HISTORIES_READ
    ):
        handle = evidence.client.get_workflow_handle(row["id"])
        try:
            findings += await _read_history(handle, row["id"])
        except RPCError as problem:
            if problem.status is not RPCStatusCode.NOT_FOUND:
                raise
    return findings


def _read_log(path: Path) -> Iterator[Finding]:
    with path.open(errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if redact(line) != line:
                yield Finding(
                    7,
                    f"{path.name}:{number}",
                    "the line holds what looks like a secret or a card number",
                    "remove the line, change the secret, and find who logged it",
                )


async def _read_history(handle: WorkflowHandle[object, object], payment_id: str) -> list[Finding]:
    findings = []
    description = await handle.describe()
    told = {pair.key.name: str(pair.value) for pair in description.typed_search_attributes}
    # The application's own number of a user is any number: one of some hundred is like a card's.
    user_id = told.pop(attributes.CUSTOMER_ID.name, "")
    others = " ".join(told.values())
    is_told = redact(others) != others or contains_card_number(others) or holds_secret(user_id)
    if is_told or "@" in user_id + others:
        findings.append(
            Finding(
                7,
                payment_id,
                "a search attribute holds what looks like a secret or a personal datum",
                "search attributes are readable to whoever may see the UI: see what set it",
            )
        )
    history = await handle.fetch_history()
    readable = {
        event.WhichOneof("attributes") or "event"
        for event in history.events
        if event.marker_recorded_event_attributes.marker_name != _PATCH
        for payload in _payloads(event)
        if payload.metadata.get("encoding") not in (ENCODING, b"binary/null")
        and payload.data != _NOT_STARTED
    }
    findings += [
        Finding(
            7,
            payment_id,
            f"{where} holds a readable payload",
            "some process connects without EVERBILL_ENCRYPTION_KEYS",
        )
        for where in sorted(readable)
    ]
    return findings


def _payloads(message: Message) -> Iterator[Payload]:
    """Every payload inside a message, but for search attributes, which are readable by nature."""
    if isinstance(message, Payload):
        yield message
    elif not isinstance(message, SearchAttributes):
        for field, value in message.ListFields():
            if field.type != field.TYPE_MESSAGE:
                continue
            if isinstance(value, Message):
                yield from _payloads(value)
            else:
                members = value.values() if isinstance(value, Mapping) else value
                for member in members:
                    if isinstance(member, Message):
                        yield from _payloads(member)
