"""What was reported from outside, and what of it the gateway was asked about since."""

from billing.messages import GatewayReport


class Reported:
    """Counts what was reported, each event once, and what was asked since."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.asked = 0
        self.answered = 0

    def hear(self, report: GatewayReport) -> None:
        if report.event_id not in self._seen:
            self._seen.add(report.event_id)
            self.asked += 1

    @property
    def has_news(self) -> bool:
        return self.asked > self.answered
