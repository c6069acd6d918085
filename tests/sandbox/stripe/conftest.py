import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.stripe.saving import Saver


@pytest.fixture
def saver(client: stripe.StripeClient, sandbox: SandboxProcess) -> Saver:
    return Saver(client, sandbox)
