"""The fit of confidences, on made-up runs of which the truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from specrag_native.evaluation.datasets import half_of
from specrag_native.evaluation.metrics import Grade
from specrag_native.evaluation.results import DraftRecord, Header, Record, ResultFile
from specrag_native.types import LogprobSpan
from tests.evaluation_fakes import fraction

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "calibrate.py"
DRAFTER, VERIFIER = "d.gguf", "v.gguf"


def draft(right: bool, support: float) -> DraftRecord:
    span = LogprobSpan(-0.4, 2)
    grade = Grade(float(right), float(right), float(right), 1.0)
    return DraftRecord(
        *("x", None, ("p",), False, True, grade, span, span),
        contained=LogprobSpan(-2.0, 4),
        log_yes=-0.1,
        support=support,
        total=-1.0,
    )


def reading(answer: str, right: bool, probability: float, **more: Any) -> dict[str, Any]:
    return {
        **{"step": "subset", "answer": answer, "right": float(right), "probability": probability},
        **more,
    }


def write_run(folder: Path, n: int, repairs: Any) -> None:
    """Write ``n`` questions whose belief tells right from wrong, nine times in ten."""
    config = {"normalisation": "mean", "verify": "always", "repair": "all"}
    config |= {f"use_{name}": True for name in ("draft_score", "self_containment")}
    header = Header(
        *("set", "speculative", "speculative", "0" * 16, config | {"use_self_reflection": True}),
        {
            "drafter": {"file": DRAFTER, "sha256": "0"},
            "verifier": {"file": VERIFIER, "sha256": "1"},
        },
        "given",
        {},
        "",
    )
    ids = [f"q{i}" for i in range(4 * n) if half_of(f"q{i}") == "tune"][:n]
    with ResultFile(folder, header) as file:
        for name in ids:
            right = fraction(name, "right") < 0.5
            honest = fraction(name, "honest") < 0.9
            belief = 0.9 if right == honest else 0.2
            file.append(
                Record(
                    *("set", name, "speculative", "0" * 16, "qa", "x"),
                    *(Grade(float(right), 0.0, 0.0, 1.0), 0.0, "repair", 0.5),
                    drafts=(draft(right, belief),),
                    repairs=tuple(repairs(name, right, belief)),
                )
            )


def calibrate(run: Path, *more: str) -> dict[str, Any]:
    words = [str(SCRIPT), str(run), "--drafter", DRAFTER, "--verifier", VERIFIER, *more]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_predicts_gets_weight_and_is_calibrated(tmp_path: Path) -> None:
    write_run(tmp_path, 120, lambda name, right, belief: [reading("y", right, belief)])
    found = calibrate(tmp_path)
    assert found["fitted_on"]["questions"] == sum(found["fitted_on"]["sets"].values()) == 120
    assert found["confidence_weights"][1] > 0.3
    assert found["held_out"]["ece"] < 0.2  # the fit is cautious
    assert found["held_out"]["accuracy_above"] >= 0.8
    assert found["held_out"]["share_above"] > 0.4
    assert found["readings"]["fitted_on"]["answers"] == 120
    assert found["reading_weights"][1] > 0.3 and len(found["reading_weights"]) == 5


def test_only_answers_that_were_read_count_as_readings(tmp_path: Path) -> None:
    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        return [
            reading("", False, 0.0),
            reading("remembered", True, 0.9, grounded=False),
            reading("y", right, belief),
            reading("y", right, belief, step="all"),
        ]

    write_run(tmp_path, 60, repairs)
    assert calibrate(tmp_path)["readings"]["fitted_on"]["answers"] == 120  # of two steps each


def test_what_was_drafted_again_is_left_out(tmp_path: Path) -> None:
    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        return [reading("x", True, 0.9, step="redraft")] if fraction(name) < 0.5 else []

    write_run(tmp_path, 80, repairs)
    assert 20 < calibrate(tmp_path)["fitted_on"]["questions"] < 60


def test_too_few_answers_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, 5, lambda *_: [])
    words = [str(SCRIPT), str(tmp_path), "--drafter", DRAFTER, "--verifier", VERIFIER]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 2 and "too few" in done.stderr
