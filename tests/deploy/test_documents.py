"""What the documents point at is there: files, commands, make targets, attributes, reasons."""

import re
from pathlib import Path

import pytest
import typer.main

from cli.__main__ import app
from gateways.stripe.webhook import SUBSCRIBED
from runtime import attributes
from tests.deploy.compose import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    headings = {_anchor(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), target


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    known = typer.main.get_command(app)
    commands = set(getattr(known, "commands", {}))
    assert {"doctor", "keys", "migrate"} <= commands
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = " ".join(re.findall(r"```.*?```|`[^`]+`", document.read_text(), re.DOTALL))
    assert set(re.findall(r"(?<!=)\beverbill ([a-z]+)\b", code)) <= commands
    assert set(re.findall(r"\bmake ([a-z]+)\b", code)) <= targets


def test_operators_are_told_of_every_search_attribute_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \| (?:Bool|Datetime|Keyword|Int)", OPERATIONS, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == {key.name for key in attributes.ALL}


def test_operators_are_told_what_to_do_for_every_reason_to_call_them() -> None:
    called_for = re.compile(
        r'AnswerUntrusted\(\s*"(\w+)"|_park\(\s*work,\s*found,\s*order,\s*"(\w+)"'
        r'|raise_\(\s*[\w.]+,\s*"(\w+)"|FlagPayment\([^)]*?reason="(\w+)"'
    )
    sources = [
        *(ROOT / "gateways").rglob("*.py"),
        *(ROOT / "activities").rglob("*.py"),
        *(ROOT / "workflows").rglob("*.py"),
    ]
    reasons = {
        reason
        for source in sources
        for match in called_for.findall(source.read_text())
        for reason in match
        if reason
    }
    assert {"amount_mismatch", "unknown_status", "unapplied_receipt"} <= reasons
    section = OPERATIONS.partition("\n## Payments that wait")[2].partition("\n## ")[0]
    assert reasons <= set(re.findall(r"`(\w+)`", section))


def test_stripes_events_are_those_that_its_endpoint_is_to_be_subscribed_to() -> None:
    section = OPERATIONS.partition("The events of Stripe's endpoint")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`([\w.]+)`", section)) == sorted(SUBSCRIBED)
