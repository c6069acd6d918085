"""All the promises at once, and what a person reads of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from audit import conduct, disputes, money, points, refunds, subscriptions
from audit.evidence import Evidence, Finding

Check = Callable[[Evidence], Awaitable[list[Finding]]]

PROMISES: Final[Sequence[tuple[int, str, Check]]] = (
    (1, "money is taken at most once per attempt, one receipt is kept", money.taken_once),
    (2, "what a gateway took is in the ledger once, and nothing else", money.recorded_once),
    (3, "the ledger balances, and nobody can change it", money.balanced),
    (4, "refunds never exceed what was captured", refunds.refunded_within_bounds),
    (5, "a final status is final, nothing stays open past its deadline", conduct.ends_are_final),
    (6, "no webhook, command or event is lost", conduct.nothing_lost),
    (7, "no secret and no card number is told", conduct.nothing_told),
    (8, "amounts are integers with a currency", money.integers_with_currencies),
    (9, "what disputes took is recorded, and in the ledger once", disputes.disputes_booked),
    (10, "points are bought, spent, taken back, and agree to the point", points.points_agree),
    (11, "each period of a subscription is charged once", subscriptions.charged_once),
)


@dataclass(frozen=True)
class Report:
    """What each promise came to."""

    findings: Sequence[Finding]

    @property
    def is_clean(self) -> bool:
        return not self.violations

    @property
    def violations(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_information]

    def of(self, promise: int) -> list[Finding]:
        return [finding for finding in self.violations if finding.promise == promise]

    def table(self) -> Table:
        """One line a promise."""
        table = Table(title="The promises", title_justify="left", box=None, pad_edge=False)
        for heading in ("", "promise", "held"):
            table.add_column(heading)
        for number, promise, _ in PROMISES:
            broken = len(self.of(number))
            held = "[green]yes[/green]" if not broken else f"[red]no: {broken} findings[/red]"
            table.add_row(str(number), promise, held)
        return table

    def explanations(self) -> list[str]:
        """Each violation in words: where, what, and what to do."""
        return [f"promise {one.promise}, {_in_words(one)}" for one in self.violations]

    def information(self) -> list[str]:
        """What is no violation, in the same words."""
        return [_in_words(one) for one in self.findings if one.is_information]


def _in_words(finding: Finding) -> str:
    return f"{finding.subject}: {finding.what}.\n  {finding.advice}"


async def run_all(evidence: Evidence, progress: Callable[[str], None] = lambda _: None) -> Report:
    """Check every promise; `progress` is told which one is next."""
    findings: list[Finding] = []
    for number, promise, check in PROMISES:
        progress(f"promise {number}: {promise}")
        findings += await check(evidence)
    return Report(findings)
