"""The business processes, one durable workflow each."""

from workflows.after import PaymentAfterWorkflow
from workflows.method import MethodAfterWorkflow, MethodSetupWorkflow
from workflows.payment import PaymentWorkflow
from workflows.refund import RefundAfterWorkflow, RefundWorkflow
from workflows.spend import PointsSpendWorkflow

WORKFLOWS = [
    PaymentWorkflow,
    PaymentAfterWorkflow,
    RefundWorkflow,
    RefundAfterWorkflow,
    PointsSpendWorkflow,
    MethodSetupWorkflow,
    MethodAfterWorkflow,
]

__all__ = [
    "WORKFLOWS",
    "MethodAfterWorkflow",
    "MethodSetupWorkflow",
    "PaymentAfterWorkflow",
    "PaymentWorkflow",
    "PointsSpendWorkflow",
    "RefundAfterWorkflow",
    "RefundWorkflow",
]
