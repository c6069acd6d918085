"""What a person sees of a benchmark under way."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Told before each part, and at each step of it."""

    begin: Callable[[str, int], None]
    advance: Callable[[], None]
