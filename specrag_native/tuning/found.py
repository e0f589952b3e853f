"""What a search found: speeds, trials, and whether they are to be believed.

Law: nothing is kept that was measured on a busy machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from specrag_native.model_files.model_dir import file_digest
from specrag_native.tuning.store import Kept, Rates, this_machine
from specrag_native.tuning.work import Sample, Work

LEAST_GAIN = 0.03
"""Share of the time that a change must save, however steady the measurements are."""
DISTURBED = 1.25
"""The same settings taking this much longer one time than another show that the machine did other
work meanwhile."""
WAITING = 0.1
"""Share of the time that threads may stand in line for a core on a machine that counts as quiet."""

Changes = dict[str, Any]
Verdict = Literal["kept", "no gain", "not confirmed", "impossible"]


@dataclass(frozen=True, slots=True)
class Speed:
    """What one setting reached.

    ``rates`` are medians in tokens per second. ``seconds`` has, for every repetition, the seconds
    that a typical question would take at its pace.
    """

    rates: Rates
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median of the seconds for a typical question."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the range of the repetitions, as a share of their median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median_s

    def beats(self, other: Speed) -> bool:
        """Return whether this is faster than ``other`` by more than either scatters."""
        gain = 1 - self.median_s / other.median_s
        return gain > max(LEAST_GAIN, self.spread, other.spread)


def speed_of(samples: Sequence[Sample], work: Work) -> Speed:
    """Return the speed that repetitions show, for a question of the work's typical size."""
    prefill = [s.prefilled / max(s.prefill_s, 1e-9) for s in samples]
    decode = [s.decoded / max(s.decode_s, 1e-9) for s in samples]
    return Speed(
        Rates(statistics.median(prefill), statistics.median(decode)),
        tuple(
            work.prefill / p + (work.decode / d if work.decode else 0.0)
            for p, d in zip(prefill, decode, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """One value that was tried; ``pace`` is its speed relative to the best known before it."""

    setting: str
    value: int | str
    pace: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class OtherType:
    """The speed of the model with its weights in another type. Never switched to by itself."""

    type: str
    speed: Speed


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was found for one model.

    ``default`` and ``chosen`` are None when there was no time to measure even the defaults.
    ``settings`` holds what differs from the defaults; ``left`` names settings that were not, or not
    wholly, tried. ``drift``: seconds the defaults took at the end over those at the start.
    ``waiting``: share of the time that threads stood in line for a core, 0 where the system does
    not tell. ``stopped``: by Ctrl-C.
    """

    role: str
    path: Path
    defaults: Changes
    settings: Changes
    default: Speed | None
    chosen: Speed | None
    trials: tuple[Trial, ...]
    left: tuple[str, ...]
    drift: float
    waiting: float
    stopped: bool
    other_type: OtherType | None

    @property
    def disturbed(self) -> bool:
        """Whether the machine seems to have done other work, so that nothing is to be believed."""
        spread = max((s.spread for s in (self.default, self.chosen) if s), default=0.0)
        uneven = max(self.drift, 1 / self.drift, 1 + 2 * spread)
        return uneven > DISTURBED or self.waiting > WAITING

    def to_keep(self) -> Kept | None:
        """Return what is to be kept of it.

        None when no setting was tried to the end, and when the machine was busy: settings that are
        fast beside other programs, such as fewer threads, are slow without them.
        """
        if self.default is None or self.chosen is None or set(self.left) == set(self.defaults):
            return None
        if self.disturbed:
            return None
        return Kept(
            digest=file_digest(self.path),
            file=self.path.name,
            role=self.role,
            machine=this_machine(),
            date=time.strftime("%Y-%m-%d"),
            settings=dict(self.settings),
            before=self.default.rates,
            after=self.chosen.rates,
            left=self.left,
        )
