"""EVERBILL_DUNNING: a schedule of one's own, or a message that says what is wrong with it."""

import pytest

from billing.dunning import DunningSchedule
from billing.errors import SettingError
from runtime.settings import load_settings
from tests.fixtures.house import environment

_REQUIRED = {"DATABASE_URL": "postgresql://nobody@127.0.0.1/none"}


def test_what_it_leaves_out_is_as_shipped() -> None:
    told = {"EVERBILL_DUNNING": '{"retry_after_hours": [24, 72], "end_after_hours": 168}'}
    with environment(_REQUIRED | told):
        found = load_settings().dunning
    assert found == DunningSchedule(retry_after_hours=(24, 72), end_after_hours=168)


def test_unset_it_is_as_shipped() -> None:
    with environment(_REQUIRED):
        assert load_settings().dunning == DunningSchedule()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("soon", "a JSON object"),
        ("[1]", "a JSON object"),
        ('{"retry": 1}', "'retry'"),
        ('{"retry_after_hours": [72, 24]}', "does not rise"),
        ('{"end_after_hours": 0}', "end_after_hours"),
    ],
)
def test_one_that_makes_no_sense_stops_the_start(text: str, said: str) -> None:
    told = _REQUIRED | {"EVERBILL_DUNNING": text}
    with environment(told), pytest.raises(SettingError, match="EVERBILL_DUNNING") as problem:
        load_settings()
    assert said in str(problem.value)
