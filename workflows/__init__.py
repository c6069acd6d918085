"""The business processes, one durable workflow each."""

from workflows.after import PaymentAfterWorkflow
from workflows.method import MethodAfterWorkflow, MethodSetupWorkflow
from workflows.payment import PaymentWorkflow
from workflows.refund import RefundAfterWorkflow, RefundWorkflow
from workflows.spend import PointsSpendWorkflow
from workflows.subscription import SubscriptionWorkflow

WORKFLOWS = [
    PaymentWorkflow,
    PaymentAfterWorkflow,
    RefundWorkflow,
    RefundAfterWorkflow,
    PointsSpendWorkflow,
    MethodSetupWorkflow,
    MethodAfterWorkflow,
    SubscriptionWorkflow,
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
    "SubscriptionWorkflow",
]
