"""``specrag tune``: measures this machine and keeps the engine settings that are fastest here.

Law: progress goes to stderr and only to a terminal; what was found before Ctrl-C is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specrag_native.tuning.found import Speed, Trial, Tuning
    from specrag_native.tuning.tuner import Target

_LEAST_S, _MOST_S = 10.0, 3600.0
_BAR = "{desc} |{bar:24}|"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "tune",
        help="measure this machine and keep the fastest settings",
        description="Measure drafter and verifier on this machine with threads, batch sizes, flash "
        "attention, cache types and lookup of their own, the small models also with weights in "
        "types of sixteen bits, and keep for each model file what is clearly faster "
        "than the default. Close other programs meanwhile. `specrag doctor` shows "
        "what is kept; --threads of another command, or SPECRAG_NO_TUNING=1, sets it aside.",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=110.0,
        metavar="S",
        help="time for everything; what does not fit keeps its default (default: 110)",
    )
    for role in ("drafter", "verifier", "reranker", "hop-ranker"):
        parser.add_argument(
            f"--{role}",
            metavar="MODEL",
            help="a name of `specrag models`, a .gguf file, or user/repo:QUANT (default: the "
            f"default {role})",
        )
    parser.add_argument("--reset", action="store_true", help="forget what is kept, measure nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, keep and show; 130 when Ctrl-C came first."""
    from specrag_native.errors import ConfigError
    from specrag_native.tuning import store as tuning_store

    if args.reset:
        return _reset(args)
    if not _LEAST_S <= args.seconds <= _MOST_S:
        raise ConfigError(
            f"--seconds must be between {_LEAST_S:.0f} and {_MOST_S:.0f}, got {args.seconds:g}"
        )
    targets = _targets(args)
    tuning_store.check_writable()
    replaced = tuning_store.read().problem
    began = time.monotonic()
    found = _measure(targets, args.seconds)
    spent = time.monotonic() - began
    if args.json:
        print(json.dumps(_as_json(found, spent), indent=2))
    else:
        if replaced:
            print(replaced.removesuffix(": run specrag tune"))
        _print(found, spent)
    return 130 if any(t.stopped for t in found) else 0


def _reset(args: argparse.Namespace) -> int:
    from specrag_native.tuning import store as tuning_store

    there = tuning_store.forget()
    if args.json:
        print(json.dumps({"forgotten": there}))
    else:
        print("the defaults are used again" if there else "nothing was kept")
    return 0


def _targets(args: argparse.Namespace) -> list[Target]:
    from specrag_native.engines import DEFAULT_OPTIONS
    from specrag_native.errors import ModelNotFoundError
    from specrag_native.model_files import catalog
    from specrag_native.tuning.store import TUNED_ROLES
    from specrag_native.tuning.tuner import Target

    out: list[Target] = []
    for role in TUNED_ROLES:
        named = getattr(args, role)
        try:
            path = catalog.resolve(named or catalog.default(role), role=role).path
        except ModelNotFoundError:
            if named or role in ("drafter", "verifier"):
                raise
            continue  # answers can do without cross-encoders
        if path not in [t.path for t in out]:
            out.append(Target(role, path, DEFAULT_OPTIONS[role]))
    return out


def _measure(targets: list[Target], seconds: float) -> list[Tuning]:
    """Tune every target with a bar of the time left; keep each as soon as it is done."""
    import threading

    from tqdm import tqdm

    from specrag_native.native import new_cancel_flag
    from specrag_native.tuning.store import keep
    from specrag_native.tuning.tuner import tune

    flag = new_cancel_flag()
    limit = threading.Timer(seconds, flag.cancel)
    limit.daemon = True
    limit.start()
    began = time.monotonic()
    found = []
    shown = sys.stderr.isatty()
    if (busy := _busy()) is not None:
        print(f"specrag: {busy}", file=sys.stderr)
    with tqdm(total=round(seconds), bar_format=_BAR, leave=False, disable=not shown) as bar:

        def step(text: str) -> None:
            spent = min(seconds, time.monotonic() - began)
            bar.n = spent
            bar.set_description_str(f"{text:<32} at most {seconds - spent:4.0f} s left")

        try:
            for tuning in tune(targets, seconds=seconds, cancel=flag, on_step=step):
                found.append(tuning)
                if (entry := tuning.to_keep()) is not None:
                    keep(entry)
        finally:
            limit.cancel()
    return found


def _busy() -> str | None:
    """Return a line that says so when other programs are using this machine, else None."""
    from specrag_native.hardware import usable_cores

    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return None
    if load < 0.5 * usable_cores():
        return None
    return (
        f"other programs use this machine (load {load:.1f} on {usable_cores()} cores): "
        "what is measured now may not hold when they are gone"
    )


def _print(found: list[Tuning], spent: float) -> None:
    from specrag_native.tuning.store import is_off, store_path, this_machine

    machine = this_machine()
    print(
        f"{machine.cpu}, {machine.cores} cores, llama-cpp-python {machine.llama_cpp_python}, "
        f"measured in {spent:.0f} s"
    )
    for tuning in found:
        print(f"\n{tuning.role}: {tuning.path.name}")
        for line in _lines(tuning):
            print(f"  {line}".rstrip())
    print()
    if any(t.stopped for t in found):
        print("stopped before the end")
    for tuning in found:
        if tuning.disturbed and tuning.default is not None:
            print(f"{tuning.role}: not kept, the machine was busy{_in_line(tuning)}: run it again")
        elif tuning.to_keep() is None:
            advice = "" if tuning.stopped else ": give it more --seconds"
            print(f"{tuning.role}: not kept, too little was measured{advice}")
    if any(t.to_keep() for t in found):
        print(f"kept in {store_path()}; specrag tune --reset forgets it")
    if is_off():
        print("SPECRAG_NO_TUNING is set: the defaults are used until it is not")


def _in_line(tuning: Tuning) -> str:
    from specrag_native.tuning.found import WAITING

    if tuning.waiting <= WAITING:
        return ""
    return f" (its threads waited {tuning.waiting:.0%} of the time for a core)"


def _lines(tuning: Tuning) -> list[str]:
    """Return what a person reads of one model."""
    if tuning.default is None or tuning.chosen is None:
        return ["stopped before the defaults were measured"]
    rows = [("setting", "default", "chosen", "tried")]
    for name, default in tuning.defaults.items():
        tried = ", ".join(_tried(t) for t in tuning.trials if t.setting == name)
        if name in tuning.left:
            tried = ", ".join(
                filter(None, (tried, "stopped" if tuning.stopped else "no time left"))
            )
        chosen = tuning.settings.get(name, default)
        rows.append((name, str(default), str(chosen), tried or "nothing else to try"))
    lines = _table(rows)
    rates = [("tokens/s", "default", "chosen", "")]
    for name, title in (("prefill", "reading"), ("decode", "writing")):
        before = getattr(tuning.default.rates, name)
        after = getattr(tuning.chosen.rates, name)
        if before:
            rates.append((title, f"{before:.0f}", f"{after:.0f}", f"{after / before:.2f}x"))
    lines += ["", *_table(rates, [max(len(r[i]) for r in rows) for i in range(3)])]
    if tuning.other_type is not None:
        rates_ = tuning.other_type.speed.rates
        lines.append(
            f"weights as {tuning.other_type.type}: reading {rates_.prefill:.0f}, writing "
            f"{rates_.decode:.0f} tokens/s; not switched to, because answers would change"
        )
    elif tuning.role == "drafter":
        lines.append("weights of another type: not measured")
    return lines


def _tried(trial: Trial) -> str:
    if trial.verdict == "impossible":
        return f"{trial.value} (not possible)"
    note = {"kept": ", chosen", "not confirmed": ", not so a second time"}.get(trial.verdict, "")
    if trial.verdict == "no gain" and trial.pace > 1.03:
        note = ", not sure"
    return f"{trial.value} ({trial.pace:.2f}x{note})"


def _table(rows: list[tuple[str, str, str, str]], least: list[int] | None = None) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    if least is not None:
        widths = [max(w, v) for w, v in zip(widths, least, strict=True)]
    return [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]


def _as_json(found: list[Tuning], spent: float) -> dict[str, Any]:
    import dataclasses

    from specrag_native.tuning.store import store_path, this_machine

    return {
        "machine": dataclasses.asdict(this_machine()),
        "seconds": round(spent, 1),
        "kept_in": str(store_path()),
        "models": [
            {
                "role": t.role,
                "file": t.path.name,
                "kept": t.to_keep() is not None,
                "defaults": t.defaults,
                "settings": t.settings,
                "before": _speed(t.default),
                "after": _speed(t.chosen),
                "tried": [dataclasses.asdict(trial) for trial in t.trials],
                "left": list(t.left),
                "disturbed": t.disturbed,
                "waiting": round(t.waiting, 3),
                "stopped": t.stopped,
                "other_type": t.other_type
                and {"type": t.other_type.type, **(_speed(t.other_type.speed) or {})},
            }
            for t in found
        ],
    }


def _speed(speed: Speed | None) -> dict[str, float] | None:
    """Return rates in tokens per second, and the spread as a share."""
    if speed is None:
        return None
    return {
        "prefill_tokens_per_s": round(speed.rates.prefill, 1),
        "decode_tokens_per_s": round(speed.rates.decode, 1),
        "spread": round(speed.spread, 3),
    }
