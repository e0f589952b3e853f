"""The fit of confidences, on made-up runs of which the truth is known."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from specrag_native.answering.confidence import READING_FEATURES
from specrag_native.evaluation.datasets import half_of
from specrag_native.evaluation.metrics import Grade
from specrag_native.evaluation.records import DraftRecord, Header, Record
from specrag_native.evaluation.results import ResultFile
from specrag_native.types import LogprobSpan, Usage
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
        confidence_alone=math.exp(-0.2),  # wholly supported
    )


def reading(answer: str, right: bool, probability: float, **more: Any) -> dict[str, Any]:
    return {
        **{"step": "more", "answer": answer, "right": float(right), "probability": probability},
        "usage": {"verifier": {"prefilled": 98, "decoded": 2}},
        "grounded": True,
        "whole": False,
        **more,
    }


def names(n: int) -> list[str]:
    return [f"q{i}" for i in range(4 * n) if half_of(f"q{i}") == "tune"][:n]


def write_run(
    folder: Path,
    n: int,
    repairs: Any,
    *,
    accept_above: float = 0.0,
    order: str = "subset,more",
    **settings: Any,
) -> None:
    """Write ``n`` questions whose belief tells right from wrong, nine times in ten."""
    config: dict[str, Any] = {"normalisation": "mean", "verify": "always", "repair": "all"}
    config |= {"accept_above": accept_above, "repair_below": 1.0}
    config["repair"] = order if accept_above else "subset"
    config |= settings
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
    with ResultFile(folder, header) as file:
        for name in names(n):
            right = fraction(name, "right") < 0.5
            honest = fraction(name, "honest") < 0.9
            belief = 0.9 if right == honest else 0.2
            steps = tuple(repairs(name, right, belief))
            file.append(
                Record(
                    *("set", name, "speculative", "0" * 16, "qa", "x"),
                    *(Grade(float(right), 0.0, 0.0, 1.0), 0.0, "repair", 0.5),
                    drafts=(draft(right, belief),),
                    repairs=steps,
                    usage={"verifier": Usage(prefilled=50 + 100 * len(steps))},
                )
            )


def calibrate(run: Path, *more: str, script: Path = SCRIPT) -> dict[str, Any]:
    words = [str(script), str(run), "--drafter", DRAFTER, "--verifier", VERIFIER, *more]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_predicts_gets_weight_and_is_calibrated(tmp_path: Path) -> None:
    write_run(tmp_path, 120, lambda name, right, belief: [reading("y", right, belief)])
    found = calibrate(tmp_path)
    assert found["drafts"]["answers"] == found["drafts"]["sets"]["set"] == 120
    assert found["confidence_weights"][1] > 0.3
    assert found["drafts"]["ece"] < 0.2  # the fit is cautious
    assert found["repair_below"] < 1.0
    assert found["readings"]["answers"] == 120
    assert found["reading_weights"][1] > 0.3 and len(found["reading_weights"]) == 6


def test_belief_never_lowers_a_confidence(tmp_path: Path) -> None:
    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        return [reading("x" if right != (belief > 0.5) else "y", right, 1.0 - belief)]

    # Every draft says "x"; where a reading agrees, it is mostly wrong.
    write_run(tmp_path, 120, repairs)
    weights = calibrate(tmp_path)["reading_weights"]
    log_odds, agreement = (READING_FEATURES.index(f) for f in ("log_odds", "agreement"))
    assert weights[log_odds] == weights[agreement] == 0.0
    assert weights[0] != 0.0


def test_only_answers_that_were_read_count_as_readings(tmp_path: Path) -> None:
    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        return [
            reading("", False, 0.0),
            reading("remembered", True, 0.9, grounded=False),
            reading("y", right, belief),
            reading("y", right, belief, step="all"),
        ]

    write_run(tmp_path, 60, repairs)
    assert calibrate(tmp_path)["readings"]["answers"] == 120  # of two steps each


def test_what_was_drafted_again_is_left_out(tmp_path: Path) -> None:
    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        return [reading("x", True, 0.9, step="redraft")] if fraction(name) < 0.5 else []

    write_run(tmp_path, 80, repairs)
    assert 20 < calibrate(tmp_path)["drafts"]["answers"] < 60


def write_standard(folder: Path, n: int, right: float) -> None:
    models = {"verifier": {"file": VERIFIER, "sha256": "1"}}
    header = Header(*("set", "standard", "standard", "1" * 16, {}, models, "given", {}, ""))
    with ResultFile(folder, header) as file:
        for i, name in enumerate(names(n)):
            grade = Grade(float(i < right * n), 0.0, 0.0, 1.0)
            cost = ("set", name, "standard", "1" * 16, "qa", "y", grade, 0.0, "standard", 0.5)
            file.append(Record(*cost))


def both_steps(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
    """The first passage is as good as the draft; what is read after them is always right."""
    return [
        reading("x", right, belief, step="subset"),
        reading("y", fraction(name, "read") < 0.97, 0.95, whole=True),
    ]


def test_without_standard_there_is_no_policy(tmp_path: Path) -> None:
    write_run(tmp_path, 60, both_steps, accept_above=1.0)
    assert "policy" not in calibrate(tmp_path)


def test_where_standard_is_never_right_the_cheapest_step_will_do(tmp_path: Path) -> None:
    write_run(tmp_path, 120, both_steps, accept_above=1.0)
    write_standard(tmp_path, 120, 0.0)
    found = calibrate(tmp_path)
    assert found["repair_below"] < 0.5 and found["policy"]["tokens"] == 50


def test_where_standard_is_good_more_is_read(tmp_path: Path) -> None:
    write_run(tmp_path, 120, both_steps, accept_above=1.0)
    write_standard(tmp_path, 120, 0.9)
    found = calibrate(tmp_path)
    policy = found["policy"]
    assert policy["questions"] == 120 and policy["standard_right"] == 0.9
    assert policy["right"] >= 0.9 and 50 < policy["tokens"] <= 150 + 100
    assert found["accept_above"] > 0.4


def test_redrafting_is_no_reading_and_other_steps_are_named(tmp_path: Path) -> None:
    def with_redraft(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        first, then = both_steps(name, right, belief)
        return [first, reading("x", False, 0.0, step="redraft"), then]

    plain, run = tmp_path / "plain", tmp_path / "run"
    write_run(plain, 120, both_steps, accept_above=1.0)
    write_run(run, 120, with_redraft, accept_above=1.0, order="subset,redraft,more")
    for folder in (plain, run):
        write_standard(folder, 120, 0.9)
    assert "policy" not in calibrate(run), "no run has the steps that are taken for granted"
    found = calibrate(run, "--repair", "subset,redraft,more")
    assert found["repair"] == "subset,redraft,more"
    same = calibrate(plain)
    assert found["accept_above"] == same["accept_above"]
    assert found["reading_weights"] == same["reading_weights"]
    assert found["policy"]["right"] == same["policy"]["right"]


def test_standard_that_nothing_equals_leaves_the_threshold_of_the_fit(tmp_path: Path) -> None:
    write_run(tmp_path, 120, both_steps, accept_above=1.0)
    write_standard(tmp_path, 120, 1.0)
    found = calibrate(tmp_path)
    assert "policy" not in found and "repair" not in found and "reading_weights" in found


def test_what_is_chosen_together_is_replaced_together() -> None:
    module = runpy.run_path(str(SCRIPT))
    kept = {"drafter": DRAFTER, "verifier": VERIFIER, "layout": "standalone", "n_drafts": 9}
    policy = {"repair": "more", "repair_below": 0.3, "accept_above": 0.2, "policy": {"tokens": 1}}
    found = module["merged"]({**kept, **policy}, {"repair_below": 0.7, "half": "tune"})
    assert found == {**kept, "repair_below": 0.7, "half": "tune"}
    found = module["merged"]({**kept, **policy}, {"reading_weights": [1.0]})
    assert found == {**kept, **policy, "reading_weights": [1.0]}


def test_too_few_answers_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, 5, lambda *_: [])
    words = [str(SCRIPT), str(tmp_path), "--drafter", DRAFTER, "--verifier", VERIFIER]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 2 and "too few" in done.stderr
