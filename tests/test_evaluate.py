"""The script that goes on with the stored evaluation."""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specrag_native.cli import eval as eval_command
from specrag_native.cli.settings import read_settings
from specrag_native.config import Config
from specrag_native.evaluation.metrics import Grade
from specrag_native.evaluation.records import DraftRecord, Header, Record
from specrag_native.evaluation.results import ResultSet
from specrag_native.evaluation.variants import expand
from specrag_native.types import LogprobSpan

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "evaluate.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the source tree is not here")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return runpy.run_path(str(SCRIPT))


def test_stored_results_are_gone_on_with_but_never_go_back(
    script: dict[str, Any], tmp_path: Path
) -> None:
    unpack: Callable[[Path, Path], None] = script["unpack"]
    stored, work = tmp_path / "stored", tmp_path / "work"
    stored.mkdir()
    (stored / "a.jsonl.gz").write_bytes(gzip.compress(b"header\none\ntwo\n"))
    unpack(stored, work)
    assert (work / "a.jsonl").read_text() == "header\none\ntwo\n"
    further = "header\none with its rationale\ntwo\nthree\n"
    (work / "a.jsonl").write_text(further)
    unpack(stored, work)
    assert (work / "a.jsonl").read_text() == further


def evals_of(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, work: Path, *options: str
) -> list[tuple[str, ...]]:
    """Return the commands of the package that the script would run."""
    said: list[tuple[str, ...]] = []
    main = script["main"]
    monkeypatch.setitem(main.__globals__, "specrag", lambda *words, quiet=False: said.append(words))
    command = ["evaluate.py", "data", "--limit", "22", "--work", str(work), *options]
    monkeypatch.setattr(sys, "argv", command)
    main()
    return said


def test_all_sets_grow_together_and_are_stored_after_each(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = evals_of(script, monkeypatch, tmp_path)
    evals = [words for words in said if words[0] == "eval"]
    limits = [words[words.index("--limit") + 1] for words in evals]
    n = len(script["SETS"])
    assert n >= 7 and limits == ["20"] * n + ["22"] * n
    assert [words[0] for words in said] == ["eval", "report"] * (2 * n)
    assert all(Path(words[1]).is_absolute() for words in evals)
    assert all(Path(words[-1]).name == "eval" for words in said if words[0] == "report")


def test_ablations_are_runs_that_the_command_takes(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = evals_of(script, monkeypatch, tmp_path, "--what", "ablations")
    parser = argparse.ArgumentParser()
    eval_command.add_parser(parser.add_subparsers())
    names: dict[str, list[str]] = {}
    for words in said:
        if words[0] != "eval":
            continue
        args = parser.parse_args(words)
        config = Config.from_mapping(read_settings(args.set))
        assert config.repair_steps == () and config.verify == "always"
        variants = expand(
            args.method.split(","),
            config,
            drafts=[int(m) for m in (args.drafts or "").split(",") if m],
            per_draft=[int(k) for k in (args.per_draft or "").split(",") if k],
            ablations=[a for a in args.ablate.split(",") if a],
        )
        names.setdefault(args.datasets[0].name, []).extend(v.name for v in variants)
    assert len(names) == 2
    for found in names.values():
        assert {"speculative", "drafter", "speculative m=10", "speculative k=4"} <= set(found)
        assert {"speculative random-subsets", "speculative assistant-layout"} <= set(found)
        assert "speculative exact-layout" not in found  # it is the default where none is fitted


def test_questions_seen_before_the_settings_were_chosen_are_told_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    after: Callable[[list[ResultSet], dict[str, int]], list[ResultSet]] = runpy.run_path(
        str(SCRIPT.parent / "tables" / "unseen.py")
    )["after"]

    def results(dataset: str, method: str, ids: str) -> ResultSet:
        header = Header(dataset, method, method, "0" * 16, {}, {}, "given", {}, "")
        grade = Grade(1.0, 1.0, 1.0, 1.0)
        records = {
            id: Record(dataset, id, method, "0" * 16, "qa", "x", grade, 0.0, method, 0.5)
            for id in ids
        }
        return ResultSet(header, records)

    found = after(
        [
            results("one", "standard", "abcd"),
            results("one", "speculative", "dcba"),  # the order of standard RAG counts
            results("two", "standard", "ef"),  # all of them were seen
            results("two", "speculative", "ef"),
            results("three", "standard", "g"),  # nobody saw it
        ],
        {"one": 2, "two": 100},
    )
    left = [(r.header.dataset, r.header.method, set(r.records)) for r in found]
    assert left == [
        ("one", "standard", {"c", "d"}),
        ("one", "speculative", {"c", "d"}),
        ("three", "standard", {"g"}),
    ]


@pytest.mark.parametrize(
    ("last", "asked", "expected"),
    [
        ({"probability": 0.7, "whole": False}, 0.7, (0.0, 2.0, False)),
        ({"probability": 0.69, "whole": False}, 0.7, (1.0, 2.0 + 9.0, True)),
        ({"probability": 0.1, "whole": True}, 0.7, (0.0, 2.0, True)),  # there is no more to read
        (None, 0.7, (0.0, 2.0, False)),  # every draft was sure that nothing is there
        ({"probability": 0.1, "whole": False}, 0.0, (0.0, 2.0, False)),  # as it was measured
    ],
)
def test_an_answer_below_what_is_asked_for_is_replayed_as_standard_rag(
    monkeypatch: pytest.MonkeyPatch,
    last: dict[str, Any] | None,
    asked: float,
    expected: tuple[float, float, bool],
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from tables.dial import play

    def record(right: float, seconds: float, **more: Any) -> Record:
        grade = Grade(right, right, right, 1.0)
        timings = {"total": seconds}
        said = ("set", "q", "x", "0" * 16, "qa", "x", grade, 0.0, "x", 0.5)
        return Record(*said, timings=timings, **more)

    draft = dataclasses.replace(record(0.0, 2.0), decided_by="speculative")  # confidence 0.5
    claim = dataclasses.replace(draft, task="claim")
    for ours, above, reads in ((draft, 0.5, False), (draft, 0.6, True), (claim, 0.6, False)):
        judged = play(ours, record(1.0, 9.0), above, 1.0)
        found = (1.0, 2.0 + 9.0, True) if reads else (0.0, 2.0, False)
        assert (judged.right, judged.seconds, judged.whole) == found
    steps = ({"probability": 0.2, "whole": False}, last) if last else ()
    played = play(record(0.0, 2.0, repairs=steps), record(1.0, 9.0), 1.0, asked)
    assert (played.right, played.seconds, played.whole) == expected


@pytest.mark.parametrize(
    ("decided_by", "task", "drafted", "steps", "expected"),
    [
        ("speculative", "qa", True, (), "DRAFT"),
        ("abstain", "qa", True, ("rationales", "pair", "all"), "NOTHING"),
        ("repair", "qa", True, ("rationales",), "RATIONALES"),
        ("repair", "qa", True, ("rationales", "pair"), "PAIR"),
        ("repair", "qa", True, ("rationales", "best"), "BEST"),
        ("repair", "qa", True, ("best", "pair"), "PAIR"),
        ("repair", "qa", False, ("pair",), "LINKED"),
        ("repair", "choice", False, ("pair",), "PAIR"),
        ("repair", "choice", False, ("short",), "SHORT"),
        ("repair", "qa", True, ("pair", "subset"), "MORE"),
        ("standard", "qa", True, ("pair", "subset", "all"), "MORE"),
    ],
)
def test_an_answer_is_of_the_part_that_gave_it(
    monkeypatch: pytest.MonkeyPatch,
    decided_by: str,
    task: str,
    drafted: bool,
    steps: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from tables import settled

    said = ("set", "q", "x", "0" * 16, task, "x", Grade(1.0, 1.0, 1.0, 1.0), 0.0, decided_by, 0.5)
    span, right = LogprobSpan(-1.0, 2), Grade(1.0, 1.0, 1.0, 1.0)
    draft = DraftRecord("x", None, ("p",), False, False, right, span, span)
    taken = tuple({"step": s} for s in steps)
    record = Record(*said, drafts=(draft,) if drafted else (), repairs=taken)
    assert settled.settled_by(record) == getattr(settled, expected)
