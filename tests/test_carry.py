"""The script that takes over what a new drafter cannot have changed."""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specrag_native.config import Config
from specrag_native.evaluation.metrics import Grade
from specrag_native.evaluation.records import DraftRecord, Header, Record
from specrag_native.evaluation.results import ResultFile, read_results
from specrag_native.evaluation.runner import Provenance
from specrag_native.evaluation.sharing import export
from specrag_native.evaluation.variants import Variant
from specrag_native.types import DecidedBy, LogprobSpan, Task, Usage

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "carry.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the source tree is not here")

TODAY = {"claims_above": 0.6, "accept_above": 0.5}
NEW = {"file": "new.gguf", "sha256": "cd"}


@pytest.fixture
def carry(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    found: Callable[..., tuple[int, int]] = runpy.run_path(str(SCRIPT))["carry"]
    return found


def headed(config: Config, **drafter: str) -> Header:
    models = {
        role: {"file": f"{role}.gguf", "sha256": role}
        for role in ("drafter", "verifier", "embedder", "reranker")
    }
    models["drafter"] |= drafter
    made = Provenance(models, machine={"cpu": "a processor", "threads": 2}, command="specrag eval")
    return made.header("some-dev", Variant("speculative", "speculative", config))


def stored(tmp_path: Path, header: Header, task: Task = "qa", *, by_draft: bool = False) -> Path:
    """Return a stored file: of its questions "read" alone had no draft at all."""

    def answered(id: str, *steps: str, drafter: bool = False) -> Record:
        return Record(
            *("some-dev", id, "speculative", header.config_hash, task, "an answer"),
            Grade(1.0, 1.0, 1.0, 2.0),
            *(0.0, "repair", 0.5),
            timings={"total": 2.5},
            usage={"drafter" if drafter else "verifier": Usage(prefilled=200)},
            repairs=tuple({"step": s, "answer": "an answer", "seconds": 1.0} for s in steps),
        )

    with ResultFile(tmp_path / "before", header) as file:
        file.append(answered("read", "pair"))
        file.append(answered("drafted", "pair", "draft", "all"))
        file.append(answered("cut", "pair", drafter=True))
        if by_draft:
            file.append(answered("by draft", drafter=True))
        file.append(dataclasses.replace(answered("failed", "pair"), error="the context is full"))
    target = tmp_path / "stored" / (file.path.name + ".gz")
    export(file.path, target)
    return target


def test_what_no_draft_touched_is_taken_over_with_the_new_drafters_identity(
    carry: Callable[..., tuple[int, int]], tmp_path: Path
) -> None:
    header = headed(Config(repair="pair,draft,all", rerank=True))
    source = stored(tmp_path, header)
    assert carry(source, NEW, tmp_path / "out", {}) == (1, 3)
    (path,) = (tmp_path / "out").iterdir()
    found = read_results(path)
    (record,) = found.records.values()
    assert record.id == "read" and record.timings == {"total": 2.5}
    assert record.usage["verifier"].prefilled == 200 and record.machine == "a processor, 2 threads"
    assert found.header.models == {**header.models, "drafter": NEW}
    assert record.config_hash == found.header.config_hash != header.config_hash
    assert found.header.config_hash[:8] in path.name
    assert carry(source, NEW, tmp_path / "out", {}) == (0, 3)  # and once only
    old: dict[str, Any] = dict(header.models["drafter"])
    assert carry(source, old, tmp_path / "same", {}) == (3, 1)
    assert next((tmp_path / "same").iterdir()).name == source.stem


def test_answers_with_other_wording_are_refused(
    carry: Callable[..., tuple[int, int]], tmp_path: Path
) -> None:
    header = dataclasses.replace(headed(Config()), config_hash="0123456789abcdef")
    source = stored(tmp_path, header)
    with pytest.raises(SystemExit, match="other settings or wording"):
        carry(source, NEW, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_when_claims_are_judged_otherwise_what_is_no_claim_is_taken_over(
    carry: Callable[..., tuple[int, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = headed(Config(repair="pair,draft,all", rerank=True, accept_above=0.5))
    old: dict[str, Any] = dict(header.models["drafter"])
    source = stored(tmp_path, header)
    assert carry(source, old, tmp_path / "out", TODAY) == (3, 1)  # all but the one that failed
    assert carry(source, NEW, tmp_path / "both", TODAY) == (1, 3)
    found = read_results(next((tmp_path / "out").iterdir()))
    assert found.header.config["claims_above"] == 0.6
    assert found.header.config_hash != header.config_hash and capsys.readouterr().out == ""
    claims = stored(tmp_path / "claims", header, task="claim")
    assert carry(claims, old, tmp_path / "none", TODAY) == (0, 4)
    assert carry(claims, old, tmp_path / "same", {}) == (3, 1)
    assert carry(source, old, tmp_path / "as", {**TODAY, "accept_above": 0.7}) == (3, 1)
    assert "other settings: accept_above" in capsys.readouterr().out


def test_when_the_verifier_reads_otherwise_what_it_never_read_is_taken_over(
    carry: Callable[..., tuple[int, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = headed(Config(repair="pair,all", rerank=True, questions_above=0.4))
    old: dict[str, Any] = dict(header.models["drafter"])
    source = stored(tmp_path, header, by_draft=True)
    for name, value in (("repair", "rationales,pair,all"), ("reading_weights", (1.0,) * 6)):
        out = tmp_path / name
        assert carry(source, old, out, {name: value}) == (1, 4)
        found = read_results(next(out.iterdir()))
        assert list(found.records) == ["by draft"]
        assert found.header.config_hash != header.config_hash and capsys.readouterr().out == ""
    assert carry(source, NEW, tmp_path / "drafter", {"repair": "rationales,pair,all"}) == (0, 5)


def test_a_step_put_between_others_changes_nothing_before_it_nor_where_it_reads_nothing(
    carry: Callable[..., tuple[int, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"questions_above": 0.4, "multihop_above": 0.5, "rationales_above": 0.8}
    header = headed(Config(repair="rationales,pair,all", rerank=True, **told), weights="BF16")
    good, span = Grade(1.0, 1.0, 1.0, 1.0), LogprobSpan(-1.0, 1)
    draft = DraftRecord("x", "", ("p",), False, False, good, span, span, confidence_alone=0.1)

    def settled(id: str, task: Task, *steps: str, drafted: bool = True) -> Record:
        repairs = tuple({"step": s, "answer": "x", "decided": s == steps[-1]} for s in steps)
        cost = (*("some-dev", id, "speculative", header.config_hash, task, "x"), good)
        made = (draft,) if drafted else ()
        return Record(*cost, *(0.0, "repair", 0.5), drafts=made, repairs=repairs)

    with ResultFile(tmp_path / "before", header) as file:
        file.append(settled("told", "qa", "rationales"))
        file.append(settled("two", "qa", "rationales", "pair"))
        file.append(settled("hops", "qa", "pair", drafted=False))
        file.append(settled("claim", "claim", "pair"))
        file.append(settled("choice", "choice", "pair"))
        file.append(dataclasses.replace(settled("nothing", "qa", "rationales"), repairs=()))
        unsettled = ({"step": "rationales", "answer": "x", "decided": False},)
        file.append(dataclasses.replace(settled("cut", "qa"), repairs=unsettled))
    source = tmp_path / "stored" / (file.path.name + ".gz")
    export(file.path, source)
    old: dict[str, Any] = {"file": "drafter.gguf", "sha256": "drafter"}
    today = {"repair": "rationales,best,pair,all", "best_above": 0.5}
    assert carry(source, old, tmp_path / "out", today) == (5, 2)
    found = read_results(next((tmp_path / "out").iterdir()))
    assert list(found.records) == ["told", "hops", "claim", "choice", "nothing"]
    assert found.header.config["best_above"] == 0.5 and capsys.readouterr().out == ""
    assert found.header.models == header.models
    # Another threshold counts where that was read, and a higher one where its answer was taken.
    with ResultFile(tmp_path / "out", found.header) as file:
        for id, last, sure in (("sure", "best", 0.9), ("not so", "best", 0.6), ("no", "pair", 0.4)):
            record = settled(id, "qa", "best", last) if last == "pair" else settled(id, "qa", last)
            first = {**record.repairs[0], "probability": sure}
            record = dataclasses.replace(record, repairs=(first, *record.repairs[1:]))
            file.append(dataclasses.replace(record, config_hash=found.header.config_hash))
    again = tmp_path / "again" / (file.path.name + ".gz")
    export(file.path, again)
    assert carry(again, old, tmp_path / "low", {**today, "best_above": 0.4}) == (5, 3)
    higher = {**today, "best_linked_above": 0.85}
    assert carry(again, old, tmp_path / "high", higher) == (7, 1)
    (high,) = (read_results(p) for p in (tmp_path / "high").iterdir())
    assert {"sure", "no"} <= set(high.records) and "not so" not in high.records


def test_when_readings_are_taken_sooner_what_was_read_to_the_end_is_taken_over(
    carry: Callable[..., tuple[int, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the question that failed and the one whose first answer was passed over."""
    header = headed(Config(repair="pair,draft,all", rerank=True, accept_above=0.6))
    old: dict[str, Any] = dict(header.models["drafter"])
    source = stored(tmp_path, header)
    assert carry(source, old, tmp_path / "out", {"accept_above": 0.0}) == (2, 2)
    found = read_results(next((tmp_path / "out").iterdir()))
    assert list(found.records) == ["read", "cut"] and found.header.config["accept_above"] == 0.0
    assert found.header.config_hash != header.config_hash and capsys.readouterr().out == ""
    # Rationales have a threshold of their own, which says that they were not sure enough.
    told = headed(Config(repair="pair,draft,all", accept_above=0.6, rationales_above=0.8))
    again = stored(tmp_path / "told", told)
    assert carry(again, old, tmp_path / "too", {"accept_above": 0.0}) == (2, 2)


def test_with_other_weights_of_drafts_what_no_draft_answers_either_way_is_taken_over(
    carry: Callable[..., tuple[int, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = (-1.0, 0.0, 1.0, 2.0)
    header = headed(Config(repair="pair,all", questions_above=0.4, draft_weights=weights))

    def asked(id: str, by: DecidedBy, task: Task, *logprobs: float) -> Record:
        """Each draft has another answer, wholly supported, and the given log-probability."""
        good = Grade(1.0, 1.0, 1.0, 1.0)
        drafts = [
            DraftRecord(
                *(f"answer {i}", "", ("p",), False, False, good),
                *(LogprobSpan(logprob, 1), LogprobSpan(-1.0, 4)),
                confidence_alone=2.718281828**logprob,
                unknown_logprob=-1.0,
            )
            for i, logprob in enumerate(logprobs)
        ]
        steps = ({"step": "pair", "answer": "x", "grounded": True},) if by == "repair" else ()
        cost = (*("some-dev", id, "speculative", header.config_hash, task, "x"), good)
        return Record(*cost, *(0.0, by, 0.5), drafts=tuple(drafts), repairs=steps)

    with ResultFile(tmp_path / "before", header) as file:
        file.append(asked("unsure", "repair", "qa", -2.0, -3.0))
        file.append(asked("sure", "repair", "qa", -0.1))
        file.append(asked("by draft", "speculative", "qa", -2.0, -3.0))
        file.append(asked("nothing", "abstain", "qa"))
        file.append(asked("claim", "speculative", "claim", -0.1))
    source = tmp_path / "stored" / (file.path.name + ".gz")
    export(file.path, source)
    old: dict[str, Any] = dict(header.models["drafter"])
    # An answer that has no rival is twice as likely as not.
    today = {"draft_weights": (-1.0, 0.0, 1.0, 2.0, 1.8), "questions_above": 0.4}
    assert carry(source, old, tmp_path / "out", today) == (2, 3)
    found = read_results(next((tmp_path / "out").iterdir()))
    assert list(found.records) == ["unsure", "claim"] and capsys.readouterr().out == ""
    assert found.header.config_hash != header.config_hash
    assert carry(source, old, tmp_path / "all", {"questions_above": 0.4}) == (5, 0)
    every = {**today, "questions_above": None}  # the verifier reads whatever drafts say
    assert carry(source, old, tmp_path / "none", every) == (3, 2)
