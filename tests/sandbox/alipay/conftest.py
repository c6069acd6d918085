"""The merchant at the sandbox's Alipay."""

import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.alipay.merchant import Merchant


@pytest.fixture
def sandbox_public_url() -> str:
    """Only Stripe reports there; Alipay has the notify_url of each order. The same for every
    test, so that they share one process."""
    return "http://127.0.0.1:9"


@pytest.fixture
def merchant(sandbox: SandboxProcess) -> Merchant:
    """Without an address for notifications."""
    return Merchant(sandbox)


@pytest.fixture
async def paid(merchant: Merchant, sandbox: SandboxProcess) -> Merchant:
    """The merchant, after a payment of 29.00."""
    made = await merchant.precreate()
    code = {"type": "qr_code", "code_url": made.node["qr_code"]}
    await sandbox.pay(gateway="alipay", next_action=code)
    return merchant
