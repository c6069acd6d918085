"""The business processes, one durable workflow each."""

from workflows.after import PaymentAfterWorkflow
from workflows.payment import PaymentWorkflow
from workflows.refund import RefundAfterWorkflow, RefundWorkflow
from workflows.spend import PointsSpendWorkflow

WORKFLOWS = [
    PaymentWorkflow,
    PaymentAfterWorkflow,
    RefundWorkflow,
    RefundAfterWorkflow,
    PointsSpendWorkflow,
]

__all__ = [
    "WORKFLOWS",
    "PaymentAfterWorkflow",
    "PaymentWorkflow",
    "PointsSpendWorkflow",
    "RefundAfterWorkflow",
    "RefundWorkflow",
]
