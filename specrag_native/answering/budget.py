"""Seconds an answer may take: what still fits, and what was left out.

Law: a budget only ever leaves work out; without one nothing here changes an answer.

What fits is told by the pace of earlier calls of the same engine, in seconds per token. Until the
verifier has run once it is taken to be :data:`VERIFIER_RATIO` times slower than the drafter. These
are estimates: what began because it seemed to fit, and does not, is stopped by
:class:`~specrag_native.answering.deadline.Deadline`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from specrag_native.errors import ConfigError
from specrag_native.types import Usage

VERIFIER_RATIO = 10.0
"""Seconds per token of an unknown verifier, in those of the drafter."""
DRAFT_SHARE = 0.6
"""Share of the time left that drafting may take; the rest is for choosing."""
_CHARS_PER_TOKEN = 4.0


@dataclass(slots=True)
class Pace:
    """Seconds per token of an engine, as its last calls had it; ``None`` before the first."""

    prefill: float | None = None
    decode: float | None = None

    def observe(self, usage: Usage) -> None:
        """Learn from a call; half of what is kept is the newest."""
        if usage.prefilled >= 8:
            self.prefill = _mixed(self.prefill, usage.prefill_s / usage.prefilled)
        if usage.decoded >= 4:
            self.decode = _mixed(self.decode, usage.decode_s / usage.decoded)


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else 0.5 * (old + new)


@dataclass(slots=True)
class Budget:
    """Time one answer may take.

    ``left_out`` names what was not done for lack of it, in the order in which it was left out.
    """

    seconds: float | None
    paces: dict[str, Pace]
    now: Callable[[], float] = time.perf_counter
    left_out: list[str] = field(default_factory=list)
    begin: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"a budget must be more than 0 seconds, got {self.seconds:g}")
        self.begin = self.now()

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.seconds is not None

    @property
    def left(self) -> float:
        """Seconds left, never below 0; infinite without a limit."""
        if self.seconds is None:
            return float("inf")
        return max(0.0, self.seconds - (self.now() - self.begin))

    def pace(self, role: str) -> Pace:
        """Return the pace of an engine."""
        return self.paces.setdefault(role, Pace())

    def drafts(self, n: int, *, tokens: float, decoded: float, n_written: int | None = None) -> int:
        """Return how many of ``n`` drafts fit, at least 1.

        ``tokens`` are to be computed for one draft and ``decoded`` written, the latter for no more
        than ``n_written`` of them. Before the drafter's pace is known that is one, from which it is
        learnt.
        """
        if not self.limited:
            return n
        pace = self.pace("drafter")
        if pace.prefill is None:
            return min(n, 1)
        reading, writing = tokens * pace.prefill, decoded * (pace.decode or 0.0)
        seconds = self.left * DRAFT_SHARE

        def cost(k: int) -> float:
            return k * reading + min(k, n_written or k) * writing

        return next((k for k in range(n, 1, -1) if cost(k) <= seconds), 1)

    def fits(self, role: str, tokens: float) -> bool:
        """Return whether computing ``tokens`` fits into the time left."""
        if not self.limited:
            return True
        if not self.left:
            return False
        pace = self.pace(role).prefill
        if pace is None:
            pace = VERIFIER_RATIO * (self.pace("drafter").prefill or 0.0)
        return tokens * pace <= self.left

    def leave_out(self, what: str) -> None:
        """Note what is not done."""
        self.left_out.append(what)


def tokens_in(*texts: str) -> float:
    """Return about how many tokens texts are; for estimates only."""
    return sum(map(len, texts)) / _CHARS_PER_TOKEN


def parse_seconds(text: str) -> float:
    """Read a time such as ``5``, ``5s``, ``500ms`` or ``2m``.

    Raises:
        ConfigError: it is none, or not above 0.
    """
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}
    number = text.strip().lower().rstrip("ms")
    unit = text.strip().lower()[len(number) :]
    try:
        seconds = float(number) * units[unit]
    except (ValueError, KeyError):
        raise ConfigError(f"a time is a number with ms, s or m, such as 5s, got {text!r}") from None
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"a time must be above 0, got {text!r}")
    return seconds
