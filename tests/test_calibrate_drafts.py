"""Which drafts are the answer as they stand, chosen on made-up runs of which the truth is known."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_calibrate import (
    DRAFTER,
    SCRIPT,
    VERIFIER,
    calibrate,
    names,
    reading,
    write_run,
    write_standard,
)

from specrag_native.evaluation.metrics import Grade
from specrag_native.evaluation.records import DraftRecord, Header, Record
from specrag_native.evaluation.results import ResultFile
from specrag_native.types import LogprobSpan

DRAFTS = SCRIPT.with_name("calibrate_drafts.py")


def header() -> Header:
    models = {"drafter": {"file": DRAFTER, "sha256": "0"}}
    return Header(*("set", "drafter", "drafter", "2" * 16, {}, models, "given", {}, ""))


def write_claims(folder: Path, n: int, right: float) -> None:
    """The drafter is right in three of four where it is sure, 0.8, and never where it is not."""
    with ResultFile(folder, header()) as file:
        for i, name in enumerate(names(n)):
            sure = i >= n // 2
            grade = Grade(float(sure and i % 4 > 0), 0.0, 0.0, 1.0)
            cost = ("set", name, "drafter", "2" * 16, "claim", "true", grade)
            file.append(Record(*cost, *(0.0, "drafter", 0.8 if sure else 0.62)))
    write_standard(folder, n, right)


def test_claims_are_judged_by_the_drafter_where_it_is_better(tmp_path: Path) -> None:
    write_claims(tmp_path / "some", 40, 0.5)  # standard RAG is right on the first half alone
    found = calibrate(tmp_path / "some", script=DRAFTS)
    facts = {"questions": 40, "taken": 20, "right": 20 + 15, "standard_right": 20}
    assert (found["claims_above"], found["claims"]) == (0.65, facts)  # none at 0.62 is right
    assert "draft_weights" not in found
    write_claims(tmp_path / "none", 40, 1.0)
    assert calibrate(tmp_path / "none", script=DRAFTS)["claims_above"] is None
    write_claims(tmp_path / "few", 8, 0.5)
    words = [str(DRAFTS), str(tmp_path / "few"), "--drafter", DRAFTER, "--verifier", VERIFIER]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 2 and "too few drafts" in done.stderr


def drafted(answer: str, right: bool, logprob: float, unknown: float) -> DraftRecord:
    span = LogprobSpan(logprob, 2)
    return DraftRecord(
        *(answer, None, ("p",), False, False, Grade(float(right), 0.0, 0.0, 1.0), span, span),
        confidence_alone=2.718281828 ** (logprob / 2),  # wholly supported
        unknown_logprob=unknown,
    )


def write_questions(folder: Path, n: int, standard: float) -> None:
    """Two drafts each. In every other question both give the right answer; else they part."""
    with ResultFile(folder, header()) as file:
        for i, name in enumerate(names(n)):
            sure = i % 2 == 0
            right = sure if i % 10 > 1 else not sure  # so one time in five they deceive
            drafts = (
                drafted("Bern", right, -0.2 if sure else -3.0, -3.0 if sure else -0.2),
                drafted("Bern" if sure else "Basel", right and sure, -0.4, -1.0),
            )
            grade = Grade(float(right), 0.0, 0.0, 1.0)
            cost = ("set", name, "drafter", "2" * 16, "qa", "a", grade)
            file.append(Record(*cost, *(0.0, "drafter", 0.5), drafts=drafts))
    write_standard(folder, n, standard)


@pytest.mark.parametrize("standard", [0.5, 0.9])
def test_drafts_are_taken_where_they_are_as_good_as_standard_rag(
    tmp_path: Path, standard: float
) -> None:
    write_questions(tmp_path, 120, standard)
    found = calibrate(tmp_path, script=DRAFTS)
    _, known, answer, agreement, unrivalled = found["draft_weights"]
    assert known >= 0 and answer >= 0 and agreement > 0 and unrivalled >= 0
    assert found["unverified_drafts"]["answers"] == 240
    if standard == 0.9:  # one in five of the drafts that agree is wrong
        assert found["questions_above"] is None and "questions" not in found
        return
    facts = found["questions"]
    assert facts["questions"] == 120 and facts["standard_right"] == pytest.approx(120 * standard)
    assert facts["right"] >= facts["standard_right"] and facts["taken"] >= 60
    assert 0.1 < found["questions_above"] < 0.6


def after_rationales(
    folder: Path, monkeypatch: pytest.MonkeyPatch, repairs: Any, standard: float
) -> tuple[dict[str, Any], Any]:
    """Return what the script defines, and runs of 40 questions that begin with rationales."""
    write_run(folder, 40, repairs, accept_above=1.0, order="rationales,pair")
    write_standard(folder, 40, standard)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    found = runpy.run_path(str(DRAFTS))
    return found, found["Runs"](folder, "tune", DRAFTER, VERIFIER, "")


@pytest.mark.parametrize("better", [True, False])
def test_rationales_are_read_first_where_that_is_as_good_as_standard_rag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    """No draft decides one of 40 questions; of 36 the verifier is sure from their rationales."""

    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        i = names(40).index(name)
        if i < 4:  # not so sure, and wrong where standard RAG is right
            return [reading("y", False, 0.8, step="rationales")]
        return [reading("y", better or i % 2 == 0, 0.9, step="rationales")]

    found, runs = after_rationales(tmp_path, monkeypatch, repairs, 0.9)
    settings = {
        "draft_weights": (0.0, 0.0, 0.0, 0.0),  # every draft has half a chance
        "questions_above": 0.6,
        "repair": "short,pair,all",
        "repair_below": 1.0,
        "accept_above": 0.6,
    }
    fit = found["rationales_fit"](runs, settings)
    if better:
        # The first 36 by standard RAG: at 0.8 four of them are lost, and four others gained.
        facts = {"questions": 40, "taken": 40, "right": 36.0, "standard_right": 36.0}
        assert fit["rationales"] == facts and fit["rationales_above"] == 0.8
        assert fit["repair"] == "rationales,short,pair,all"
    else:
        assert fit["rationales_above"] is None and fit["repair"] == "short,pair,all"
    assert found["rationales_fit"](runs, settings | {"questions_above": 0.4}) == {}


@pytest.mark.parametrize("alone", ["better", "as good", "worse"])
def test_one_passage_is_enough_where_two_find_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: str
) -> None:
    """Of 40 questions one passage answers ten surely, ten less so, ten barely and ten not."""

    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        i = names(40).index(name)
        same = right and alone != "worse"
        found = same if i < 10 else alone == "better"
        told = reading("y", found, (0.9, 0.7, 0.3, 0.9)[i // 10])
        told |= {"step": "best", "decided": False, "confidence": 0.5}
        told["grounded"] = not 30 <= i < 35
        # Of the last five the rationales say something else, so one passage is not enough.
        before = reading("y" if i < 35 else "z", False, 0.1, step="rationales")
        return [before, told, reading("y", right, 0.9, step="pair")]

    settings = {"order": "best,pair", "abstain_below": 0.2, "accept_above": 1.0}
    write_run(tmp_path, 40, repairs, **settings, best_above=1.0)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    found = runpy.run_path(str(DRAFTS))
    kept = {"repair": "short,best,pair,all", "repair_below": 1.0, "accept_above": 0.0}
    fit = found["best_fit"](found["Runs"](tmp_path, "tune", DRAFTER, VERIFIER, ""), kept)
    if alone == "better":
        assert fit["best_above"] == 0.5 and fit["best"]["taken"] == 20
        assert fit["best"]["right"] > fit["best"]["two_right"] > 0
    elif alone == "as good":
        two = fit["best"]["two_right"]
        facts = {"questions": 40, "taken": 10, "right": two, "two_right": two}
        assert fit == {"best_above": 0.75, "best": facts, **kept}
    else:
        assert fit == {"best_above": None, **kept, "repair": "short,pair,all"}
    write_run(tmp_path / "taken", 40, repairs, **settings, best_above=0.5)
    runs = found["Runs"](tmp_path / "taken", "tune", DRAFTER, VERIFIER, "")
    assert found["best_fit"](runs, kept) == {}, "what was taken says nothing of two passages"


@pytest.mark.parametrize("standard", [0.5, 0.75])
def test_the_verifier_reads_on_where_reading_everything_finds_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standard: float
) -> None:
    """Of 40 questions, half are answered with 0.4 from two passages, and wrongly from there on."""

    def repairs(name: str, right: bool, belief: float) -> list[dict[str, Any]]:
        i = names(40).index(name)
        sure = i < 20  # these are right, as standard RAG is on the first of all
        told = reading("y", False, 0.9 if i >= 36 else 0.5, step="rationales")
        return [told, reading("y", sure, 0.9 if sure else 0.4, step="pair")]

    found, runs = after_rationales(tmp_path, monkeypatch, repairs, standard)
    settings = {
        "draft_weights": (0.0, 0.0, 0.0, 0.0),  # every draft has half a chance
        "questions_above": 0.6,
        "rationales_above": 0.8,
    }
    fit = found["readings_fit"](runs, settings)
    # Standard RAG is right on the same 20, or on ten of the others besides: then one in ten is won
    # up to 0.95, where it is read on behind the right answers too.
    facts = {"questions": 36, "right": 20.0, "standard_right": 40.0 * standard}
    assert fit == {"accept_above": 0.0 if standard == 0.5 else 0.95, "unsettled": facts}
    assert found["readings_fit"](runs, settings | {"questions_above": 0.4}) == {}
    # Without a threshold for them no rationales are the answer.
    every = found["readings_fit"](runs, settings | {"rationales_above": None})
    assert every["unsettled"]["questions"] == 40
