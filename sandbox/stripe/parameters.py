"""What intents may be created, confirmed, canceled and listed with, and the refusals."""

from typing import Any, Final

from sandbox.stripe.errors import StripeError
from sandbox.stripe.forms import Form, is_true
from sandbox.stripe.intents import NewIntent

_COPIED: Final = (
    "allowed_payment_method_types",
    "customer",
    "description",
    "receipt_email",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_group",
)
CREATE: Final = frozenset(
    {
        *_COPIED,
        "amount",
        "automatic_payment_methods",
        "capture_method",
        "confirm",
        "confirmation_method",
        "currency",
        "error_on_requires_action",
        "expand",
        "metadata",
        "off_session",
        "payment_method",
        "payment_method_data",
        "payment_method_options",
        "return_url",
        "use_stripe_sdk",
    }
)
CONFIRM: Final = frozenset(
    {
        "client_secret",
        "error_on_requires_action",
        "expand",
        "key",
        "mandate_data",
        "off_session",
        "payment_method",
        "payment_method_data",
        "payment_method_options",
        "receipt_email",
        "return_url",
        "setup_future_usage",
        "shipping",
        "use_stripe_sdk",
    }
)
_SETUP_COPIED: Final = ("allowed_payment_method_types", "customer", "description")
SETUP_CREATE: Final = frozenset(
    {
        *_SETUP_COPIED,
        "automatic_payment_methods",
        "confirm",
        "expand",
        "mandate_data",
        "metadata",
        "payment_method",
        "payment_method_data",
        "payment_method_options",
        "return_url",
        "usage",
        "use_stripe_sdk",
    }
)
SETUP_CONFIRM: Final = frozenset(
    {
        "client_secret",
        "expand",
        "key",
        "mandate_data",
        "payment_method",
        "payment_method_data",
        "payment_method_options",
        "return_url",
        "use_stripe_sdk",
    }
)
CANCEL: Final = frozenset({"cancellation_reason", "expand"})
LIST: Final = frozenset(
    {"charge", "created", "customer", "delivery_success", "ending_before", "expand", "limit"}
    | {"payment_intent", "payment_method", "starting_after", "type", "types"}
)

REASONS: Final = ("duplicate", "fraudulent", "requested_by_customer", "abandoned")
SETUP_REASONS: Final = ("abandoned", "requested_by_customer", "duplicate")
_USAGES: Final = ("off_session", "on_session")
_MAX_AMOUNT: Final = 99_999_999
_MIN_AMOUNT: Final = {"gbp": 30, "hkd": 400, "mxn": 1000, "dkk": 250, "nok": 300, "sek": 300}
_DEFAULT_MIN_AMOUNT: Final = 50
_CURRENCIES: Final = frozenset(
    """
    usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp
    byn bzd cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip
    gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt
    lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr
    nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd
    std szl thb tjs tnd top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer zar
    zmw
    """.split()
)


def check_known(form: Form, known: frozenset[str]) -> None:
    """Raises StripeError for a parameter that the call does not have."""
    if "payment_method_types" in form:
        raise StripeError(
            400,
            "payment_method_types is no longer supported as of 2026-09-30.endive; use"
            " allowed_payment_method_types.",
            code="payment_method_types_no_longer_supported",
            param="payment_method_types",
        )
    for name in form:
        if name not in known:
            raise StripeError(
                400,
                f"Received unknown parameter: {name}",
                code="parameter_unknown",
                param=name,
            )


def read_create(form: Form) -> NewIntent:
    """Raises StripeError for what Stripe refuses."""
    check_known(form, CREATE)
    currency = _required(form, "currency")
    if currency not in _CURRENCIES:
        raise StripeError(
            400,
            f"Invalid currency: {currency}. Stripe currently supports these currencies:"
            f" {', '.join(sorted(_CURRENCIES))}",
            param="currency",
        )
    fields: dict[str, Any] = {name: form[name] for name in _COPIED if name in form}
    fields["metadata"] = read_metadata(form)
    fields["capture_method"] = form.get("capture_method", "automatic_async")
    if fields["capture_method"] not in ("automatic", "automatic_async"):
        raise StripeError(400, "This sandbox captures automatically only.", param="capture_method")
    fields["automatic_payment_methods"] = _read_automatic(form)
    fields["payment_method_types"] = _read_types(form)
    return NewIntent(_read_amount(form, currency), currency, fields)


def read_setup(form: Form) -> dict[str, Any]:
    """The fields of a SetupIntent. Raises StripeError for what Stripe refuses."""
    check_known(form, SETUP_CREATE)
    fields: dict[str, Any] = {name: form[name] for name in _SETUP_COPIED if name in form}
    fields["metadata"] = read_metadata(form)
    fields["usage"] = form.get("usage", "off_session")
    if fields["usage"] not in _USAGES:
        raise StripeError(400, f"Invalid usage: must be one of {', '.join(_USAGES)}", param="usage")
    fields["automatic_payment_methods"] = _read_automatic(form)
    fields["payment_method_types"] = _read_types(form)
    return fields


def read_reason(form: Form, reasons: tuple[str, ...] = REASONS) -> str | None:
    """The reason given for a cancellation. Raises StripeError for one that Stripe has not."""
    check_known(form, CANCEL)
    reason = form.get("cancellation_reason")
    if reason is not None and reason not in reasons:
        raise StripeError(
            400,
            f"Invalid cancellation_reason: must be one of {', '.join(reasons)}",
            param="cancellation_reason",
        )
    return None if reason is None else str(reason)


def read_integer(form: Form, name: str) -> int:
    text = _required(form, name)
    try:
        return int(text)
    except ValueError:
        raise StripeError(
            400, f"Invalid integer: {text}", code="parameter_invalid_integer", param=name
        ) from None


def read_metadata(form: Form) -> dict[str, str]:
    """Raises StripeError for more or longer entries than Stripe keeps."""
    metadata = form.get("metadata", {})
    if not isinstance(metadata, dict) or len(metadata) > 50:
        raise StripeError(400, "Metadata is a hash of at most 50 keys.", param="metadata")
    for name, value in metadata.items():
        if not isinstance(value, str) or len(name) > 40 or len(value) > 500:
            raise StripeError(
                400,
                "Metadata keys have up to 40 characters, values are strings of up to 500.",
                param=f"metadata[{name}]",
            )
    return metadata


def may_redirect(automatic_payment_methods: dict[str, Any] | None) -> bool:
    """Whether the intent's payment methods could send the payer away, so that a confirmation on
    the server needs a return_url."""
    return (
        automatic_payment_methods is not None
        and automatic_payment_methods["allow_redirects"] == "always"
    )


def _read_amount(form: Form, currency: str) -> int:
    amount = read_integer(form, "amount")
    least = _MIN_AMOUNT.get(currency, _DEFAULT_MIN_AMOUNT)
    if amount < 1:
        raise StripeError(
            400,
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            param="amount",
        )
    if amount < least:
        raise StripeError(
            400,
            f"Amount must be at least {least} {currency} in the smallest unit.",
            code="amount_too_small",
            param="amount",
        )
    if amount > _MAX_AMOUNT:
        raise StripeError(
            400,
            f"Amount must be no more than {_MAX_AMOUNT} {currency} in the smallest unit.",
            code="amount_too_large",
            param="amount",
        )
    return amount


def _read_automatic(form: Form) -> dict[str, Any] | None:
    if "allowed_payment_method_types" in form:
        if "automatic_payment_methods" in form:
            raise StripeError(
                400,
                "You may only specify one of these parameters: automatic_payment_methods,"
                " allowed_payment_method_types.",
            )
        return None
    given = form.get("automatic_payment_methods", {"enabled": "true"})
    if not isinstance(given, dict) or not is_true(given.get("enabled")):
        return None
    return {"allow_redirects": given.get("allow_redirects", "always"), "enabled": True}


def _read_types(form: Form) -> list[str]:
    """Those of the allowed types that this account offers: silently fewer than were asked for."""
    allowed = form.get("allowed_payment_method_types", ["card"])
    if not isinstance(allowed, list):
        raise StripeError(400, "Invalid array", param="allowed_payment_method_types")
    return [name for name in allowed if name == "card"]


def _required(form: Form, name: str) -> str:
    value = form.get(name)
    if not isinstance(value, str) or not value:
        raise StripeError(
            400, f"Missing required param: {name}.", code="parameter_missing", param=name
        )
    return value
