"""Stripe's error answers: status and `{"error": {...}}`."""

from typing import Any

from sandbox.book import Document


class StripeError(Exception):
    """An error as Stripe answers it.

    `executed` tells that work had begun: such an answer is kept under the idempotency key and
    what was changed stays changed. All others change nothing and are kept nowhere.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        executed: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.executed = executed
        error: Document = {"message": message, "type": type}
        if code:
            error |= {"code": code, "doc_url": f"https://stripe.com/docs/error-codes/{code}"}
        if param:
            error["param"] = param
        self.body: Document = {"error": error | more}


def missing(kind: str, object_id: str, param: str = "intent") -> StripeError:
    return StripeError(404, f"No such {kind}: '{object_id}'", code="resource_missing", param=param)


def balance_insufficient() -> StripeError:
    """A refund that the account has no money for: kept under its key, like any other answer."""
    return StripeError(
        400,
        "Insufficient funds in your Stripe balance to refund this amount.",
        code="balance_insufficient",
        executed=True,
    )


def server_error(status: int) -> StripeError:
    """What Stripe says of a failure of its own (500), or of too many requests (429)."""
    if status == 429:
        return StripeError(
            429,
            "Request rate limit exceeded. Learn more about rate limits here"
            " https://stripe.com/docs/rate-limits.",
            code="rate_limit",
        )
    return StripeError(
        status,
        "Sorry! We're having some issues with our systems at the moment. Please try again.",
        type="api_error",
    )
