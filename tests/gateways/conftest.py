import os

import pytest

from runtime.settings import Settings, load_settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.scripted_stripe import Clock, Stripe


@pytest.fixture
def clean_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a setting of ours but the one that every process needs."""
    for name in os.environ:
        if name.startswith("EVERBILL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/everbill")
    return monkeypatch


@pytest.fixture
def sandbox_settings(sandbox: SandboxProcess, clean_settings: pytest.MonkeyPatch) -> Settings:
    """The settings with which a process of ours talks to the running sandbox."""
    for name, value in sandbox.environment.items():
        clean_settings.setenv(name, value)
    return load_settings()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scripted() -> Stripe:
    return Stripe()
