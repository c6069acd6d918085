"""Webhooks: verified over their raw bytes, stored, answered; only then is anybody told.

No answer waits for Temporal. A message that is refused changes nothing; one that cannot be stored
is answered 503, so that the gateway sends it again.
"""

from datetime import UTC, datetime
from typing import Any, Final

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.exc import SQLAlchemyError

from api.bodies import WEBHOOK_LIMIT_BYTES, read_body
from api.context import Context, context
from api.openapi import problems
from api.problems import RequestRefused
from billing.identifiers import parse_attempt_number
from billing.payment import GatewayName
from gateways.gateway import Notification, Reply, WebhookRefused, WebhookVerifier

router = APIRouter(prefix="/webhook", tags=["webhooks"])

log = structlog.get_logger()


_TEXT: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
_JSON: Final[dict[str, Any]] = {"application/json": {"schema": {"type": "object"}}}
_FORM: Final[dict[str, Any]] = {
    "application/x-www-form-urlencoded": {
        "schema": {
            "type": "object",
            "required": ["app_id", "sign", "sign_type"],
            "properties": {
                "app_id": {"type": "string"},
                "sign": {"type": "string"},
                "sign_type": {"type": "string", "enum": ["RSA2"]},
            },
        }
    }
}


def _documented(
    code: int, accepted: dict[str, Any], refused: dict[str, Any], body: dict[str, Any]
) -> dict[str, Any]:
    """What FastAPI is to say of one gateway's route: its answers are in the gateway's own form."""
    return {
        "status_code": code,
        "response_class": Response,
        "responses": {
            code: {"description": "Stored, now or before", "content": accepted},
            400: {"description": "Not a genuine message of this gateway", "content": refused},
            413: {"description": "Longer than 256 KiB", "content": refused},
            503: {"description": "Not stored; send it again", "content": refused},
            **problems(404, 500),
        },
        "openapi_extra": {"requestBody": {"required": True, "content": body}},
    }


@router.post("/stripe", operation_id="stripe_webhook", **_documented(200, _JSON, _JSON, _JSON))
async def stripe(request: Request) -> Response:
    """Events of Stripe, signed in `Stripe-Signature`."""
    return await _receive(request, GatewayName.STRIPE)


@router.post("/alipay", operation_id="alipay_webhook", **_documented(200, _TEXT, _TEXT, _FORM))
async def alipay(request: Request) -> Response:
    """Asynchronous notifications of Alipay, signed in the form's `sign`."""
    return await _receive(request, GatewayName.ALIPAY)


@router.post("/wechatpay", operation_id="wechatpay_webhook", **_documented(204, {}, _JSON, _JSON))
async def wechatpay(request: Request) -> Response:
    """Notifications of WeChat Pay, signed in `Wechatpay-Signature`, their resource encrypted; those
    of contracts are XML, signed in its `sign`, and answered in XML with 200."""
    return await _receive(request, GatewayName.WECHATPAY)


async def _receive(request: Request, gateway: GatewayName) -> Response:
    wired = context(request)
    verifier = wired.verifiers.get(gateway)
    if verifier is None:
        raise RequestRefused(
            404, "gateway_not_configured", f"{gateway} has no keys on this deployment"
        )
    try:
        body = await read_body(request, WEBHOOK_LIMIT_BYTES)
    except RequestRefused as refusal:
        return _refuse(verifier, refusal.status_code, refusal.detail)
    now = datetime.now(UTC)
    try:
        notification = verifier.verify(dict(request.headers), body, now)
    except WebhookRefused as refusal:
        return _refuse(verifier, 400, refusal.reason)
    try:
        await _store(wired, gateway, notification, body, now)
    except Exception as problem:
        is_outage = isinstance(problem, SQLAlchemyError)
        log.error(
            "webhook_not_stored",
            gateway=gateway,
            event_id=notification.event_id,
            error=type(problem).__name__,
            exc_info=not is_outage,
        )
        return _reply(verifier.refused(503, "not stored; send it again"))
    return _reply(notification.reply or verifier.accepted)


async def _store(
    wired: Context, gateway: GatewayName, notification: Notification, body: bytes, now: datetime
) -> None:
    """Keep the event, once, and have it delivered in the background."""
    async with wired.database.single() as work:
        entry = await work.inbox.store(
            gateway,
            notification.event_id,
            notification.event_type,
            notification.number,
            body,
            now,
            refund_number=notification.refund_number,
            disputed_reference=notification.disputed_reference,
            foreign_refund=notification.foreign_refund,
            refunded_reference=notification.refunded_reference,
            mandate_number=notification.mandate_number,
            mandate_reference=notification.mandate_reference,
        )
    ours = parse_attempt_number(notification.number) if notification.number else None
    log.info(
        "webhook_stored" if entry else "webhook_repeated",
        gateway=gateway,
        event_id=notification.event_id,
        event_type=notification.event_type,
        payment_id=ours[0] if ours else None,
    )
    if entry is not None:
        wired.deliveries.hand_on(entry)


def _refuse(verifier: WebhookVerifier, status_code: int, reason: str) -> Response:
    log.warning("webhook_refused", gateway=verifier.name, status=status_code, reason=reason)
    return _reply(verifier.refused(status_code, reason))


def _reply(reply: Reply) -> Response:
    """To the byte; without a body there is no media type either."""
    return Response(
        reply.body, reply.status_code, media_type=reply.media_type if reply.body else None
    )
