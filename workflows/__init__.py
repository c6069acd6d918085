"""The business processes, one durable workflow each."""

from workflows.after import PaymentAfterWorkflow
from workflows.payment import PaymentWorkflow

WORKFLOWS = [PaymentWorkflow, PaymentAfterWorkflow]

__all__ = ["WORKFLOWS", "PaymentAfterWorkflow", "PaymentWorkflow"]
