"""The routes of Stripe's API about customers and the payment methods they have saved."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.calls import Call, Calls
from sandbox.stripe.customers import Customers
from sandbox.stripe.errors import missing
from sandbox.stripe.lists import Lists, expanded
from sandbox.stripe.methods import Methods
from sandbox.stripe.parameters import check_known

_EXPAND = frozenset({"expand"})


def customer_routes(sandbox: Sandbox, calls: Calls) -> APIRouter:
    """`/v1/customers` and `/v1/payment_methods`; every call is the operation `mandate`."""
    router = APIRouter()
    customers = Customers(sandbox)
    methods = Methods(sandbox)
    lists = Lists(sandbox)

    def reference_of(method_id: str) -> str | None:
        method = methods.find(method_id)
        return method["reference"] if method else None

    @router.post("/v1/customers")
    async def create(request: Request) -> Response:
        return await calls.answer(
            request, "mandate", lambda call: customers.create(call.form, call.origin)
        )

    @router.get("/v1/customers")
    async def page(request: Request) -> Response:
        return await calls.answer(request, "mandate", lambda call: lists.customers(call.form))

    @router.get("/v1/customers/{customer_id}")
    async def retrieve(request: Request, customer_id: str) -> Response:
        return await calls.answer(request, "mandate", lambda call: customers.get(customer_id))

    @router.get("/v1/customers/{customer_id}/payment_methods")
    async def methods_of(request: Request, customer_id: str) -> Response:
        def work(call: Call) -> Document:
            customers.get(customer_id)
            return lists.methods(
                call.form | {"customer": customer_id}, f"/v1/customers/{customer_id}"
            )

        return await calls.answer(request, "mandate", work)

    @router.get("/v1/customers/{customer_id}/payment_methods/{method_id}")
    async def method_of(request: Request, customer_id: str, method_id: str) -> Response:
        def work(call: Call) -> Document:
            card: Document = methods.get(method_id)["object"]
            if card["customer"] != customer_id:
                raise missing("PaymentMethod", method_id, "payment_method")
            return expanded(sandbox.book, card, call.form)

        return await calls.answer(request, "mandate", work, lambda form: reference_of(method_id))

    @router.get("/v1/payment_methods")
    async def methods_page(request: Request) -> Response:
        def work(call: Call) -> Document:
            customers.check_named(call.form)
            return lists.methods(call.form, "/v1")

        return await calls.answer(request, "mandate", work)

    @router.get("/v1/payment_methods/{method_id}")
    async def method(request: Request, method_id: str) -> Response:
        return await calls.answer(
            request,
            "mandate",
            lambda call: expanded(sandbox.book, methods.get(method_id)["object"], call.form),
            lambda form: reference_of(method_id),
        )

    @router.post("/v1/payment_methods/{method_id}/detach")
    async def detach(request: Request, method_id: str) -> Response:
        def work(call: Call) -> Document:
            check_known(call.form, _EXPAND)
            card = methods.detach(methods.get(method_id), call.origin)
            return expanded(sandbox.book, card, call.form)

        return await calls.answer(request, "mandate", work, lambda form: reference_of(method_id))

    return router
