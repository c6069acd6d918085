import os

import pytest


@pytest.fixture
def clean_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a setting of ours but the one that every process needs."""
    for name in os.environ:
        if name.startswith("EVERBILL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/everbill")
    return monkeypatch
