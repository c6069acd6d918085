"""The business processes, one durable workflow each."""

from workflows.after import PaymentAfterWorkflow
from workflows.payment import PaymentWorkflow
from workflows.refund import RefundAfterWorkflow, RefundWorkflow

WORKFLOWS = [PaymentWorkflow, PaymentAfterWorkflow, RefundWorkflow, RefundAfterWorkflow]

__all__ = [
    "WORKFLOWS",
    "PaymentAfterWorkflow",
    "PaymentWorkflow",
    "RefundAfterWorkflow",
    "RefundWorkflow",
]
