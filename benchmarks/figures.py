"""From slices to the figures that are published: medians of runs, and the ratios within each."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.load import Slice


@dataclass(frozen=True)
class Pace:
    """How one contender did at one concurrency: rates by run, times over every run."""

    contender: str
    concurrency: int
    measured: int
    settled_per_second: float
    instructions_ms_p50: float
    instructions_ms_p99: float
    settled_ms_p50: float
    settled_ms_p99: float
    cpu_ms_each: dict[str, float]


@dataclass(frozen=True)
class Ratio:
    """Ours against the same shape: one value a run, and their median."""

    of: str
    concurrency: int
    runs: list[float]
    median: float
    required: str | None
    is_met: bool | None


def pace(slices: Sequence[Slice]) -> Pace:
    """Of slices of one contender at one concurrency."""
    first = slices[0]
    taken = [one for each in slices for one in each.taken]
    instructed = [one.instructed_seconds * 1000 for one in taken]
    settled = [one.settled_seconds * 1000 for one in taken]
    return Pace(
        contender=first.contender,
        concurrency=first.concurrency,
        measured=len(taken),
        settled_per_second=round(statistics.median(each.settled_per_second for each in slices), 1),
        instructions_ms_p50=round(quantile(instructed, 0.50), 1),
        instructions_ms_p99=round(quantile(instructed, 0.99), 1),
        settled_ms_p50=round(quantile(settled, 0.50), 1),
        settled_ms_p99=round(quantile(settled, 0.99), 1),
        cpu_ms_each=_cpu_ms_each(slices, len(taken)),
    )


def throughput_ratio(runs: Sequence[Sequence[Slice]], ours: str, theirs: str) -> Ratio:
    """Settled per second, ours over theirs, at the one concurrency of these slices."""
    ratios = [_rate(run, ours) / _rate(run, theirs) for run in runs]
    concurrency = runs[0][0].concurrency
    return _ratio("settled per second", concurrency, ratios, at_least=_LEAST.get(concurrency))


def instructions_ratio(runs: Sequence[Sequence[Slice]], ours: str, theirs: str) -> Ratio:
    """Median time to the payer's instructions, ours over theirs."""
    ratios = [_time(run, ours) / _time(run, theirs) for run in runs]
    concurrency = runs[0][0].concurrency
    return _ratio("time to instructions", concurrency, ratios, at_most=_MOST.get(concurrency))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed; 0 where there is none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


_LEAST = {50: 0.75}
"""What the share of the bare workflow's rate must be, by concurrency."""
_MOST = {1: 1.6}
"""How many times the bare update the instructions may take, by concurrency."""


def _ratio(
    of: str,
    concurrency: int,
    runs: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Ratio:
    median = statistics.median(runs)
    required = is_met = None
    if at_least is not None:
        required, is_met = f"at least {at_least}", median >= at_least
    if at_most is not None:
        required, is_met = f"at most {at_most}", median <= at_most
    return Ratio(
        of, concurrency, [round(each, 2) for each in runs], round(median, 2), required, is_met
    )


def _rate(run: Sequence[Slice], contender: str) -> float:
    return statistics.mean(each.settled_per_second for each in run if each.contender == contender)


def _time(run: Sequence[Slice], contender: str) -> float:
    return statistics.median(
        one.instructed_seconds for each in run if each.contender == contender for one in each.taken
    )


def _cpu_ms_each(slices: Sequence[Slice], taken: int) -> dict[str, float]:
    return {
        name: round(1000 * sum(each.cpu_seconds[name] for each in slices) / max(taken, 1), 1)
        for name in slices[0].cpu_seconds
    }


def as_document(figures: Sequence[Pace] | Sequence[Ratio]) -> list[dict[str, object]]:
    """As they stand in `results.json`."""
    return [asdict(each) for each in figures]
