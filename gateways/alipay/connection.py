"""One call of gateway.do: signed, sent, and its answer verified."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from billing.errors import GatewayThrottled, OutcomeUnknown
from gateways.alipay.outcomes import meaning_of
from gateways.alipay.requests import Account, encoded, request_parameters
from gateways.alipay.signature import Node, read_answer
from gateways.clock import Clock
from gateways.meaning import Meaning, raise_unless_answered
from gateways.transport import retry_after_seconds, send

_FORM: Final = "application/x-www-form-urlencoded;charset=utf-8"


@dataclass(frozen=True)
class Connection:
    """One application at Alipay. `notify_url` is where Alipay reports to."""

    client: httpx.AsyncClient
    account: Account
    notify_url: str
    clock: Clock

    async def call(
        self, method: str, business: Mapping[str, object], *, is_reported: bool = False
    ) -> Node:
        """The verified answer: common parameters travel in the query, the business in the body.
        What comes of a call that `is_reported` is told to the notify_url. Raises OutcomeUnknown,
        GatewayThrottled."""
        parameters = request_parameters(
            self.account,
            method,
            business,
            self.clock(),
            notify_url=self.notify_url if is_reported else None,
        )
        body = encoded({"biz_content": parameters.pop("biz_content")})
        answer = await send(
            self.client,
            "POST",
            f"{self.account.gateway_url}?{encoded(parameters)}",
            headers={"Content-Type": _FORM},
            content=body.encode(),
        )
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise GatewayThrottled(
                f"Alipay throttles {method}",
                retry_after_seconds=retry_after_seconds(answer.headers),
            )
        if answer.status_code != httpx.codes.OK:
            raise OutcomeUnknown(f"Alipay answered {method} with HTTP {answer.status_code}")
        return read_answer(answer.body, method, self.account.alipay_public_key)


def failed(method: str, node: Node) -> tuple[Meaning, str]:
    """What a failure means for the order, and its words; raises what is no answer at all."""
    code, sub_code = node.text("code") or "", node.text("sub_code")
    detail = f"Alipay answered {method} with code {code}, sub_code {sub_code}"
    meaning = meaning_of(code, sub_code)
    raise_unless_answered(meaning, detail)
    return meaning, detail
