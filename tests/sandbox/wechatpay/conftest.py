"""The merchant at the sandbox's WeChat Pay."""

import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.wechatpay.merchant import Merchant


@pytest.fixture
def sandbox_public_url() -> str:
    """Only Stripe reports there; WeChat Pay has the notify_url of each order. The same for every
    test, so that they share one process."""
    return "http://127.0.0.1:9"


@pytest.fixture
def merchant(sandbox: SandboxProcess) -> Merchant:
    """With an address for notifications where nobody is."""
    return Merchant(sandbox)


@pytest.fixture
async def paid(merchant: Merchant, sandbox: SandboxProcess) -> Merchant:
    """The merchant, after a payment of 2900 fen."""
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan())
    return merchant
