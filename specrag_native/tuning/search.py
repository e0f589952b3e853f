"""The search for the fastest engine settings of one model: what to try, and in which order.

Law: a setting moves away from its default only when it was faster by more than the measurements
scatter; what there was no time for stays as it was.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from specrag_native.engine_options import EngineOptions
from specrag_native.errors import Cancelled, ConfigError, EngineError, ModelFileError
from specrag_native.hardware import physical_cores, usable_cores, waited_s
from specrag_native.model_files.weights import TYPES
from specrag_native.protocol import CancelFlag, Engine
from specrag_native.tuning.found import (
    LEAST_GAIN,
    Changes,
    OtherType,
    Speed,
    Trial,
    Tuning,
    Verdict,
    speed_of,
)
from specrag_native.tuning.store import TUNABLE
from specrag_native.tuning.work import Sample, Work

REPETITIONS = 3
HOPELESS = 1.1
"""A setting is not repeated when its fastest repetition takes this much longer than the slowest of
the best setting."""

Load = Callable[[EngineOptions], Engine]

_ONLY: dict[str, tuple[str, ...]] = {
    "verifier": tuple(n for n in TUNABLE if n not in ("weights", "kv_type", "lookup")),
    "reranker": ("weights",),
    "hop_ranker": ("weights",),
}
"""What is tried for a role, if not everything."""


def candidates(
    role: str, base: EngineOptions, *, physical: int, logical: int
) -> list[tuple[str, list[Changes]]]:
    """Return what to try, setting by setting; only what this package's engine can set.

    Args:
        role: lookup and quantised KV caches are tried for the drafter only, which copies from its
            passages and keeps many of them; types of weights for it and for cross-encoders, which
            are small, and nothing else for these.
        base: the options that changes are made to.
        physical: physical cores, the default of ``threads``.
        logical: logical cores this process may use.
    """
    cores = base.threads or physical
    threads = dict.fromkeys((logical, round(physical * 0.75), physical // 2, physical))
    values: dict[str, list[Changes]] = {
        "weights": [{"weights": name} for name in TYPES if name != getattr(base, "weights", "")],
        "threads": [{"threads": n} for n in threads if n >= 1 and n != cores],
        "n_batch": [{"n_batch": n} for n in (256, 128, 1024) if n != base.n_batch],
        "flash_attention": [
            {"flash_attention": v} for v in ("off", "on") if v != base.flash_attention
        ],
        # The library quantises keys and values only together with flash attention.
        "kv_type": [{"kv_type": "q8_0", "flash_attention": "on"}],
        "lookup": [{"lookup": n} for n in (4, 8, 0) if n != getattr(base, "lookup", 0)],
    }
    known = {f.name for f in dataclasses.fields(base)}
    return [
        (name, values[name])
        for name in TUNABLE
        if name in known and values[name]
        if name in _ONLY.get(role, TUNABLE)
    ]


AS_STORED = "as stored"
"""The default type of weights, for people."""


class _OutOfTime(Exception):
    """The time limit came before the end."""


class Search:
    """Finds the fastest settings of one model, one setting after the other.

    Args:
        role: ``drafter``, ``verifier``, or that of a cross-encoder.
        path: the model file.
        base: the default options.
        load: makes an engine with some options.
        work: what is measured.
        seconds: time for everything, in seconds.
        clock: the time now, in seconds.
        on_step: told what is measured, before every repetition.
        cancel: ends the search as the time limit does.
        physical: physical cores.
        logical: logical cores.
        waited: seconds that threads have stood in line for a core so far.
    """

    def __init__(
        self,
        role: str,
        path: Path,
        base: EngineOptions,
        *,
        load: Load,
        work: Work,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        on_step: Callable[[str], None] = lambda text: None,
        cancel: CancelFlag | None = None,
        physical: int | None = None,
        logical: int | None = None,
        waited: Callable[[], float | None] = waited_s,
    ) -> None:
        self._role, self._path, self._base = role, path, base
        self._load, self._work, self._cancel = load, work, cancel
        self._clock, self._on_step = clock, on_step
        self._deadline = clock() + seconds
        self._physical = physical or physical_cores()
        self._plan = candidates(
            role, base, physical=self._physical, logical=logical or usable_cores()
        )
        self._mark = random.randrange(10**6)
        self._size = work.sizes[0]
        self._settings: Changes = {}
        self._default: Speed | None = None
        self._best: Speed | None = None
        self._trials: list[Trial] = []
        self._finished: set[str] = set()
        self._waited = waited
        self._waited_s = self._worked_s = 0.0
        self._drift = 1.0
        self._stopped = False
        self._other: OtherType | None = None
        self._load_s = self._repetition_s = 0.0
        self._largest = 0
        self._description = ""

    def run(self, other_type: Callable[[str, ExitStack], tuple[str, Load]] | None = None) -> Tuning:
        """Search until the end, the time limit or Ctrl-C, and return what is known then.

        ``other_type(description of the model, stack)`` writes the model with its weights in another
        type, and returns that type and what loads it; the stack removes the file afterwards.
        """
        try:
            self._measure_defaults()
            for name, changes in self._plan:
                if self._try(name, changes):
                    self._finished.add(name)
            self._see_drift()
            if other_type is not None:
                self._measure_other(other_type)
        except (_OutOfTime, Cancelled):
            pass
        except KeyboardInterrupt:
            self._stopped = True
        names = [name for name, _ in self._plan]
        return Tuning(
            role=self._role,
            path=self._path,
            defaults={n: self._value_of(getattr(self._base, n), n) for n in names},
            settings=dict(self._settings),
            default=self._default,
            chosen=self._best,
            trials=tuple(self._trials),
            left=tuple(n for n in names if n not in self._finished),
            drift=self._drift,
            waiting=self._waited_s / self._worked_s if self._worked_s else 0.0,
            stopped=self._stopped,
            other_type=self._other,
        )

    def _value_of(self, value: Any, name: str) -> Any:
        """Return a setting's value for people: the default of threads is a number of cores."""
        if name == "weights":
            return value or AS_STORED
        return value or self._physical if name == "threads" else value

    def _left_s(self) -> float:
        return self._deadline - self._clock()

    def _has_time(self) -> bool:
        """Return whether there is time to load and measure one more engine."""
        return self._left_s() >= self._load_s + REPETITIONS * self._repetition_s

    def _repeat(self, engine: Engine, what: str) -> Sample:
        self._on_step(what)
        if self._left_s() <= 0:
            raise _OutOfTime
        self._mark = (self._mark + 1) % 10**6
        began, in_line = self._clock(), self._waited()
        sample = self._work.run(engine, self._size, self._mark, self._cancel)
        spent = self._clock() - began
        if self._default is None:
            self._repetition_s = max(self._repetition_s, spent)
            if in_line is not None:
                self._waited_s += max(0.0, (self._waited() or 0.0) - in_line)
                self._worked_s += spent * (self._base.threads or self._physical)
        return sample

    def _open(self, load: Load, changes: Changes) -> Engine:
        began = self._clock()
        engine = load(dataclasses.replace(self._base, **changes))
        self._work.warm_up(engine, self._cancel)
        self._load_s = max(self._load_s, self._clock() - began)
        return engine

    def _measure_defaults(self) -> None:
        """Measure the defaults, after choosing how much work fits the time there is."""
        what = "defaults"
        self._on_step(what)
        engine = self._open(self._load, {})
        self._description = str(getattr(getattr(engine, "model", None), "description", ""))
        least = self._work.sizes[0]
        samples = [self._repeat(engine, what)]
        n_engines = 2 + sum(len(changes) for _, changes in self._plan)
        for size in self._work.sizes[1:]:
            each = self._load_s + REPETITIONS * self._repetition_s * size / least
            if n_engines * each <= self._left_s():
                self._size = size
        if self._size != least:
            samples = []
        while len(samples) < REPETITIONS:
            samples.append(self._repeat(engine, what))
        self._largest = max(s.largest for s in samples)
        self._default = self._best = speed_of(samples, self._work)

    def _measure(
        self,
        what: str,
        changes: Changes,
        load: Load | None = None,
        enough: Callable[[Sequence[Sample]], bool] = lambda samples: False,
    ) -> Speed | None:
        """Return the speed of some settings; None when no engine can be made with them.

        Repetitions end early when there are ``enough``.
        """
        try:
            engine = self._open(load or self._load, changes)
            samples = [self._repeat(engine, what)]
            while len(samples) < REPETITIONS and not enough(samples):
                samples.append(self._repeat(engine, what))
        except (ConfigError, ModelFileError, EngineError):
            return None
        return speed_of(samples, self._work)

    def _lost(self, samples: Sequence[Sample]) -> bool:
        """Return whether further repetitions cannot, or will hardly, show a gain."""
        assert self._best is not None
        fastest = min(speed_of(samples, self._work).seconds)
        if fastest > HOPELESS * max(self._best.seconds):
            return True
        # The median of all will be at least the least of more than half of them.
        too_slow = fastest >= (1 - LEAST_GAIN) * self._best.median_s
        return too_slow and 2 * len(samples) > REPETITIONS

    def _useful(self, changes: Changes) -> bool | None:
        """Return whether to try a change; None when this little work could not show its effect."""
        now = {f.name: getattr(self._base, f.name) for f in dataclasses.fields(self._base)}
        now.update(self._settings)
        if all(now[name] == value for name, value in changes.items()):
            return False
        if "weights" in changes and changes["weights"] in self._description.split():
            return False
        if "n_batch" in changes:  # nothing is split when all tokens fit either batch
            return min(int(changes["n_batch"]), int(now["n_batch"])) < self._largest or None
        # Keys and values are not quantised where flash attention was found slower.
        return not ("kv_type" in changes and now["flash_attention"] == "off")

    def _try(self, name: str, values: Sequence[Changes]) -> bool:
        """Try the values of a setting; return whether there was time enough for them.

        Flash attention ``auto`` is one of ``on`` and ``off``: when ``off`` is clearly slower,
        ``auto`` is ``on`` already.
        """
        assert self._best is not None
        useful = [self._useful(changes) for changes in values]
        if None in useful and True not in useful:
            return False
        for changes in values:
            if not self._useful(changes):
                continue
            if not self._has_time():
                return False
            before = self._best
            assert before is not None
            tried = {**self._settings, **changes}
            speed = self._measure(f"{name} {changes[name]}", tried, enough=self._lost)
            verdict = self._judge(speed)
            pace = before.median_s / speed.median_s if speed is not None else 0.0
            self._trials.append(Trial(name, changes[name], pace, verdict))
            if verdict == "not confirmed" and not self._has_time():
                return False
            if verdict == "kept":
                self._settings, self._best = tried, speed
            elif name == "flash_attention" and speed is not None and before.beats(speed):
                break
        return True

    def _judge(self, speed: Speed | None) -> Verdict:
        """Return what to think of a speed. What seems faster has to be so a second time.

        The best settings so far are measured again for that: the machine may have been disturbed
        when they were measured first.
        """
        assert self._best is not None
        if speed is None:
            return "impossible"
        if not speed.beats(self._best):
            return "no gain"
        again = self._measure("again, to compare", self._settings) if self._has_time() else None
        if again is None:
            return "not confirmed"
        if speed.beats(again):
            return "kept"
        self._best = min(self._best, again, key=lambda s: s.median_s)
        if not self._settings:
            self._default = self._best
        return "not confirmed"

    def _see_drift(self) -> None:
        """Measure the defaults once more, to see whether the machine is as fast as it was."""
        assert self._default is not None
        if not self._has_time():
            return
        again = self._measure("defaults, at the end", {}, enough=lambda samples: True)
        if again is not None:
            self._drift = again.median_s / self._default.median_s

    def _measure_other(self, make: Callable[[str, ExitStack], tuple[str, Load]]) -> None:
        if not self._has_time():
            return
        with ExitStack() as stack:
            self._on_step("weights of another type")
            try:
                type_, load = make(self._description, stack)
            except (ModelFileError, EngineError, OSError):
                return
            of_it = {k: v for k, v in self._settings.items() if k != "weights"}
            speed = self._measure(f"weights {type_}", of_it, load)
            if speed is not None:
                self._other = OtherType(type_, speed)
