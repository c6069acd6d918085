"""What calls on PaymentIntents and on SetupIntents have in common: the payment method that a
request brings, the client secret of a browser, the return_url."""

import hmac

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.calls import Call
from sandbox.stripe.cards import card_from_data
from sandbox.stripe.errors import StripeError
from sandbox.stripe.forms import Form
from sandbox.stripe.methods import Methods
from sandbox.stripe.objects import browser_view
from sandbox.stripe.parameters import may_redirect


class Wallet:
    """The payment methods that requests bring. `owner` is `PaymentIntent` or `SetupIntent`."""

    def __init__(self, sandbox: Sandbox, owner: str) -> None:
        self._sandbox = sandbox
        self._owner = owner
        self._methods = Methods(sandbox)

    def method(self, call: Call, customer: str | None) -> Document | None:
        """The kept document of the payment method named, or of a new one made of the data typed in;
        `customer` is the intent's. Raises StripeError."""
        form = call.form
        if "payment_method" in form:
            return self._methods.named(str(form["payment_method"]), customer, self._owner)
        data = form.get("payment_method_data")
        if not isinstance(data, dict):
            return None
        if call.is_secret:
            raise StripeError(
                400,
                "Sending credit card numbers directly to the Stripe API is generally unsafe. To"
                " continue processing use a token or a test payment method such as"
                " pm_card_visa.",
                param="payment_method_data",
            )
        return self._methods.create(card_from_data(data, self._sandbox.clock()))

    def check_given(self, method: Document | None) -> None:
        """Raises StripeError where a call creates and confirms without a payment method."""
        if method is None:
            raise StripeError(
                400,
                f"You cannot confirm this {self._owner} because it's missing a payment method.",
                code="parameter_missing",
                param="payment_method",
            )

    def check_client_secret(self, intent: Document, form: Form) -> None:
        """Raises StripeError where a browser's secret is not that of the intent."""
        given = str(form.get("client_secret", ""))
        if not hmac.compare_digest(given.encode(), str(intent["client_secret"]).encode()):
            raise StripeError(
                400,
                f"The client_secret provided does not match any associated {self._owner} on this"
                " account.",
                param="client_secret",
            )

    def check_return_url(self, form: Form, automatic_payment_methods: Document | None) -> None:
        """Raises StripeError where the server confirms what could redirect, without a way back."""
        if may_redirect(automatic_payment_methods) and "return_url" not in form:
            raise StripeError(
                400,
                f"This {self._owner} is configured to accept payment methods enabled in your"
                " Dashboard. Because some of these payment methods might redirect your customer off"
                " of your page, you must provide a `return_url`. If you don't want to accept"
                " redirect-based payment methods, set `automatic_payment_methods[enabled]` to"
                " `true` and `automatic_payment_methods[allow_redirects]` to `never`.",
                param="return_url",
            )


def for_browsers(problem: StripeError, name: str) -> StripeError:
    """The error without what a publishable key may not see of the intent in it."""
    if intent := problem.body["error"].get(name):
        problem.body["error"][name] = browser_view(intent)
    return problem
