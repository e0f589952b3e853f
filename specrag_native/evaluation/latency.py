"""Results of the latency benchmarks, read back as a table.

Law: figures are those pytest-benchmark wrote; the latest file is shown, none is averaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specrag_native.evaluation.results import ResultsError
from specrag_native.evaluation.tables import NONE, Table


def latest(folder: Path) -> Path | None:
    """Return the newest results file of a folder by the time written in it, or ``None``."""
    files = sorted(folder.glob("*.json"), key=lambda p: str(_read(p).get("datetime", "")))
    return files[-1] if files else None


def latency_table(path: Path) -> Table:
    """Return seconds and tokens per method and state.

    Raises:
        ResultsError: the file is no result of pytest-benchmark.
    """
    held = _read(path)
    cases = [b for b in held.get("benchmarks", []) if "method" in (b.get("params") or {})]
    if not cases:
        raise ResultsError(f"{path} holds no latency results: expected those of bench_latency.py")
    base = {
        (b["params"]["state"], b["params"].get("n")): b["stats"]["median"]
        for b in cases
        if b["params"]["method"] == "standard"
    }
    rows = []
    for case in sorted(cases, key=lambda b: (b["params"]["state"], b["stats"]["median"])):
        params, stats = case["params"], case["stats"]
        standard = base.get((params["state"], params.get("n")))
        rows.append(
            (
                params["method"],
                params["state"],
                str(stats["rounds"]),
                f"{stats['median']:.2f}",
                f"{stats['min']:.2f} to {stats['max']:.2f}",
                f"{standard / stats['median']:.2f}x" if standard else NONE,
                ", ".join(
                    f"{stage} {s:.2f}"
                    for stage, s in case["extra_info"].get("stages_s", {}).items()
                    if s >= 0.005 and stage != "total"
                ),
                _tokens(case["extra_info"], "drafter"),
                _tokens(case["extra_info"], "verifier"),
            )
        )
    info = cases[0]["extra_info"]
    models = ", ".join(
        f"{role} {m['file']} (sha256 {m['sha256'][:12]})"
        for role, m in info.get("models", {}).items()
    )
    return Table(
        "Latency beside other runtimes",
        (
            "Method",
            "State",
            "Questions",
            "Seconds, median",
            "Range",
            "Speed against standard",
            "Mean seconds by stage",
            "Drafter tokens",
            "Verifier tokens",
        ),
        tuple(rows),
        "One run, one process after another, "
        f"{info.get('cpu', '?')}, {info.get('threads', '?')} threads, commit "
        f"{info.get('commit', '?')}; {models}. cold: nothing computed before; warm: another "
        "question from the same passages was just answered. Tokens: computed in prefill + reused + "
        "generated, means (runtimes that do not say what they reused count it as computed).",
    )


def _tokens(info: Mapping[str, Any], role: str) -> str:
    t = info.get("tokens_per_question", {}).get(role)
    if not t or not t["prefilled"] + t["reused"]:
        return NONE
    return f"{t['prefilled']:.0f}+{t['reused']:.0f}+{t['decoded']:.0f}"


def _read(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    if not isinstance(held, dict):
        raise ResultsError(f"{path} is no result of pytest-benchmark")
    return held
