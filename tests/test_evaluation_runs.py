from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import PROVENANCE, FakeModels, rows, session, write_set

from specrag_native.config import Config
from specrag_native.errors import ConfigError, QuestionError, UserError
from specrag_native.evaluation.datasets import read_dataset
from specrag_native.evaluation.methods import Session, build
from specrag_native.evaluation.offline import derive
from specrag_native.evaluation.records import FORMAT, Header
from specrag_native.evaluation.results import ResultsError, ResultSet, read_folder, read_results
from specrag_native.evaluation.reuse import DraftMemory
from specrag_native.evaluation.runner import Evaluation
from specrag_native.evaluation.sharing import export
from specrag_native.evaluation.variants import OFFLINE, Variant, expand, wording
from specrag_native.types import Answer, Question

NEVER_ABSTAINS = Config(abstain_below=0.0, repair="off")
SOMETIMES_ABSTAINS = Config(abstain_below=0.3, repair="off")
N_ABLATED = 16


class Steady:
    """A method with the seconds of its answers set to a constant, so that runs can be compared."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def answer(self, question: Question, **given: Any) -> Answer:
        import dataclasses

        answer = self._method.answer(question, **given)
        repairs = tuple(dataclasses.replace(r, seconds=1.0) for r in answer.repairs)
        return dataclasses.replace(answer, timings={"total": 1.0}, repairs=repairs)


def evaluation(out: Path, **changes: Any) -> Evaluation:
    return Evaluation(
        changes.pop("session", session()),
        PROVENANCE,
        out,
        clock=itertools.count().__next__,
        make=lambda variant, held: Steady(build(variant, held)),
        **changes,
    )


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.iterdir())}


def test_a_killed_run_taken_up_again_ends_with_the_same_files(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows()))
    variants = expand(["speculative", "standard"], Config())
    list(evaluation(tmp_path / "whole").run([dataset], variants))

    run = evaluation(tmp_path / "parts").run([dataset], variants)
    for _ in range(5):
        next(run)
    run.close()
    started = next(iter((tmp_path / "parts").iterdir()))
    with started.open("a", encoding="utf-8") as file:
        file.write('{"type": "result", "id": "q5", "ans')  # killed while it wrote
    left = list(evaluation(tmp_path / "parts").run([dataset], variants))
    assert [p.total for p in left[:1]] == [24 - 5]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(3)))
    variants = expand(["standard"], Config())
    assert len(list(evaluation(tmp_path / "out").run([dataset], variants))) == 3
    before = contents(tmp_path / "out")
    assert list(evaluation(tmp_path / "out").run([dataset], variants)) == []
    assert contents(tmp_path / "out") == before


def test_every_line_holds_what_the_report_needs(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(4)))
    list(evaluation(tmp_path / "out").run([dataset], expand(["speculative"], Config())))
    (found,) = read_folder(tmp_path / "out")
    assert found.header.machine["cpu"] == "a processor"
    assert found.header.models["verifier"]["sha256"] == "v" * 64
    record = found.records["q0"]
    assert record.drafts and record.usage["drafter"].decoded == 4
    draft = next(d for d in record.drafts if d.verified)
    assert draft.contained is not None and draft.contained.n_tokens > 0
    assert draft.log_yes is not None and draft.log_yes < 0
    assert all(d.passages for d in record.drafts)


def test_unlike_runs_are_kept_apart(tmp_path: Path) -> None:
    models = {"drafter": "d", "verifier": "v", "embedder": "e"}

    def identity(config: Config, evidence: str = "given", method: str = "speculative") -> str:
        return Variant(method, method, config).config_hash(models=models, evidence=evidence)

    base = identity(Config())
    assert identity(Config()) == base
    assert identity(Config(n_drafts=3)) != base
    assert identity(Config(reflection=1)) != base
    assert identity(Config(), evidence="retrieved") != base
    # Standard RAG reads neither the drafter nor the number of drafts.
    standard = identity(Config(), method="standard")
    assert identity(Config(n_drafts=3), method="standard") == standard
    # Without repair, nobody reads what it is set to do; with it, everybody does.
    assert identity(Config(accept_above=0.4)) != base
    drafts = identity(Config(repair="off"))
    assert drafts != base and identity(Config(repair="off", accept_above=0.4)) == drafts
    assert identity(Config(repair="off", repair_below=0.1)) != drafts
    assert identity(Config(claims_above=0.6)) != base
    assert identity(Config(repair="off", claims_above=0.6)) == drafts
    assert identity(Config(questions_above=0.6)) != base
    assert identity(Config(repair="off", questions_above=0.6)) == drafts
    first = Config(draft_form="answer-first")
    assert identity(first) != base and identity(first, method="standard") == standard
    weighed = Config(draft_weights=(0.0, 1.0, 1.0, 1.0))
    alone = identity(Config(), method="drafter")
    assert identity(weighed) != base and identity(weighed, method="drafter") != alone
    assert identity(Config(questions_above=0.6), method="drafter") == alone
    # Results of before there was such a setting are results without.
    settings = Variant("speculative", "speculative", Config()).settings
    later = {"claims_above", "questions_above", "draft_weights", "draft_form", "rerank"}
    assert not later & settings.keys()
    models["drafter"] = "another"
    assert identity(Config()) != base
    assert identity(Config(), method="standard") == standard


def test_results_of_a_model_that_stands_for_another_are_results_of_that(tmp_path: Path) -> None:
    (variant,) = expand(["standard"], Config())

    def header(**facts: str) -> Header:
        models = {"verifier": {"file": "v.gguf", **facts}}
        return dataclasses.replace(PROVENANCE, models=models).header("towns-dev", variant)

    measured, here = header(sha256="a" * 64), header(sha256="b" * 64, stands_for="a" * 64)
    assert measured.config_hash == here.config_hash != header(sha256="b" * 64).config_hash
    assert here.models["verifier"]["sha256"] == "b" * 64, "what was run is said"


def test_a_change_of_wording_is_a_change_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from specrag_native import prompts

    before = wording("speculative", Config()), wording("standard", Config())
    monkeypatch.setattr(prompts, "DRAFTER_TASK", "Do it. ")
    assert wording("speculative", Config()) != before[0]
    assert wording("standard", Config()) == before[1]
    # The form of a draft is a wording of its own.
    first = wording("drafter", Config(draft_form="answer-first"))
    assert first != wording("drafter", Config())


def test_results_of_another_format_are_refused_and_left_alone(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(2)))
    variants = expand(["standard"], Config())
    list(evaluation(tmp_path / "out").run([dataset], variants))
    (path,) = (tmp_path / "out").iterdir()
    newer = path.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}')
    path.write_text(newer)
    with pytest.raises(ResultsError, match=f"format {FORMAT + 1}"):
        list(evaluation(tmp_path / "out").run([dataset], variants))
    with pytest.raises(ResultsError, match="choose another folder"):
        read_folder(tmp_path / "out")
    assert path.read_text() == newer


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(3)))
    list(evaluation(tmp_path / "out").run([dataset], expand(["standard"], Config())))
    (path,) = (tmp_path / "out").iterdir()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{oops", *lines[2:]]) + "\n")
    with pytest.raises(ResultsError, match="line 2: not JSON"):
        read_results(path)
    path.write_text("\n".join([lines[0], '{"type": "result"}', *lines[2:]]) + "\n")
    with pytest.raises(ResultsError, match="line 2: no result of format"):
        read_results(path)
    with pytest.raises(ResultsError, match="holds no results"):
        read_folder(tmp_path / "elsewhere")


def test_shared_results_cut_answers_that_run_on(tmp_path: Path) -> None:
    class Talker:
        def answer(self, question: Question, **_: Any) -> Answer:
            said = " ".join(f"word{i}" for i in range(20))
            return Answer(question.text, said, "", 1.0, "standard")

    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(1)))
    run = Evaluation(session(), PROVENANCE, tmp_path / "out", make=lambda v, s: Talker())
    list(run.run([dataset], expand(["standard"], Config())))
    (path,) = (tmp_path / "out").iterdir()
    export(path, tmp_path / "shared.jsonl.gz")
    record = read_results(tmp_path / "shared.jsonl.gz").records["q0"]
    assert record.answer.startswith("word0 ") and "word8" not in record.answer
    assert record.grade.words == 20


def test_shared_results_hold_no_rationales_and_read_the_same(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(4)))
    list(evaluation(tmp_path / "out").run([dataset], expand(["speculative"], Config())))
    (path,) = (tmp_path / "out").iterdir()
    target = tmp_path / "shared" / f"{path.name}.gz"
    export(path, target)
    first = target.read_bytes()
    export(path, target)
    assert target.read_bytes() == first
    shared, local = read_results(target), read_results(path)
    assert shared.header == local.header and set(shared.records) == set(local.records)
    for id, record in shared.records.items():
        for a, b in zip(record.drafts, local.records[id].drafts, strict=True):
            assert a.rationale is None and b.rationale
            assert a.rationale_logprob == b.rationale_logprob and a.grade == b.grade


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> ResultSet:
    folder = tmp_path_factory.mktemp("measured")
    dataset = read_dataset(write_set(folder / "set.jsonl", rows(N_ABLATED)))
    run = evaluation(folder / "out").run([dataset], expand(["speculative"], SOMETIMES_ABSTAINS))
    list(run)
    (found,) = read_folder(folder / "out")
    return found


def rerun(tmp_path: Path, config: Config) -> dict[str, Any]:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(N_ABLATED)))
    list(evaluation(tmp_path / "again").run([dataset], [Variant("again", "speculative", config)]))
    (found,) = read_folder(tmp_path / "again")
    return {id: (r.answer, r.grade, r.abstained, r.confidence) for id, r in found.records.items()}


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("no-draft-score", {"use_draft_score": False}),
        ("no-self-containment", {"use_self_containment": False}),
        ("no-self-reflection", {"use_self_reflection": False}),
        ("raw-scores", {"normalisation": "sum"}),
        ("no-abstention", {"abstain_below": 0.0}),
    ],
)
def test_an_offline_ablation_equals_a_rerun(
    tmp_path: Path, measured: ResultSet, rule: str, changes: dict[str, Any]
) -> None:
    derived = {
        r.id: (r.answer, r.grade, r.abstained, r.confidence)
        for r in derive(measured)[f"speculative {rule}"]
    }
    again = rerun(tmp_path, SOMETIMES_ABSTAINS.replace(**changes))
    assert derived == again
    base = {id: r.answer for id, r in measured.records.items()}
    assert {id: a[0] for id, a in again.items()} != base, "the ablation must change something here"


def test_the_drafter_alone_is_derived_as_it_is_run(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(8)))
    variants = expand(["speculative", "drafter"], NEVER_ABSTAINS)
    list(evaluation(tmp_path / "out").run([dataset], variants))
    drafter, speculative = read_folder(tmp_path / "out")
    assert drafter.header.method == "drafter"
    derived = {r.id: r.answer for r in derive(speculative)["drafter"]}
    assert derived == {id: r.answer for id, r in drafter.records.items()}


def test_oracle_bounds_every_choice_and_chance_is_a_mean(measured: ResultSet) -> None:
    found, derived = measured, derive(measured)
    best = {r.id: r.grade.right for r in derived["oracle"]}
    chance = {r.id: r.grade.right for r in derived["speculative random-draft"]}
    for id, record in found.records.items():
        known = [d.grade.right for d in record.drafts if not d.unknown]
        assert best[id] == max(known) >= record.grade.right
        assert chance[id] == pytest.approx(sum(known) / len(known))
    assert 0 < sum(chance.values()) < sum(best.values())


def test_choice_is_not_derived_where_repair_answered(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(6)))
    config = Config(repair="all", repair_below=0.6)
    list(evaluation(tmp_path / "out").run([dataset], expand(["speculative"], config)))
    (found,) = read_folder(tmp_path / "out")
    assert set(derive(found)) == {"oracle", "speculative random-draft"}


def test_drafts_are_written_once_for_variants_that_share_them(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(3)))
    models = FakeModels()
    held = Session(models, reuse=DraftMemory())
    variants = expand(["speculative", "drafter"], Config(), ablations=["reflection-1"])
    run = Evaluation(held, PROVENANCE, tmp_path / "out").run([dataset], variants)
    assert len(list(run)) == 9
    assert models.drafter.n_generate == 3
    for found in read_folder(tmp_path / "out"):
        for record in found.records.values():
            assert record.usage["drafter"].decoded == 4
            if found.header.variant != "speculative":
                assert record.timings["draft"] >= 0.25  # the seconds of the first time


def test_a_question_that_does_not_fit_is_recorded_and_counted_wrong(tmp_path: Path) -> None:
    class Refusing:
        def answer(self, question: Question, **_: Any) -> Answer:
            raise QuestionError("needs 9 tokens and 8 fit")

    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(2)))
    run = Evaluation(session(), PROVENANCE, tmp_path / "out", make=lambda v, s: Refusing())
    list(run.run([dataset], expand(["standard"], Config())))
    (found,) = read_folder(tmp_path / "out")
    assert {r.error for r in found.records.values()} == {"needs 9 tokens and 8 fit"}
    assert {r.grade.right for r in found.records.values()} == {0.0}


def test_a_draft_reads_at_most_the_passages_there_are(tmp_path: Path) -> None:
    lines = rows(2)
    lines[0]["passages"] = lines[0]["passages"][:1]
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", lines))
    variants = expand(["speculative"], Config(), per_draft=[3])
    list(evaluation(tmp_path / "out").run([dataset], variants))
    (found,) = read_folder(tmp_path / "out")
    assert {len(d.passages) for d in found.records["q0"].drafts} == {1}
    assert {len(d.passages) for d in found.records["q1"].drafts} == {3}


def test_variants_are_named_by_what_changes() -> None:
    found = expand(
        ["speculative", "standard", "oracle"],
        Config(),
        drafts=[1, 3],
        ablations=["one-cluster", "no-draft-score"],
    )
    assert [v.name for v in found] == [
        "speculative m=1",
        "speculative m=3",
        "standard",
        "speculative one-cluster",
    ]
    assert [v.name for v in expand(["oracle"], Config())] == ["speculative"]
    with pytest.raises(ConfigError, match="unknown ablation 'x'"):
        expand(["speculative"], Config(), ablations=["x"])
    assert "raw-scores" in OFFLINE


def test_a_method_of_the_users_own_is_measured_like_the_others(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from specrag_native.types import Answer\n"
        "class Mine:\n"
        "    def __init__(self, session, config): pass\n"
        "    def answer(self, question, *, hits, question_vector):\n"
        "        first = hits[0].passage.text.split()[0]\n"
        "        return Answer(question.text, first, '', 1.0, 'standard')\n"
    )
    dataset = read_dataset(write_set(tmp_path / "set.jsonl", rows(4)))
    run = Evaluation(session(), PROVENANCE, tmp_path / "out")
    list(run.run([dataset], expand([f"{mine}:Mine"], Config())))
    (found,) = read_folder(tmp_path / "out")
    assert found.header.variant == "Mine"
    assert {r.grade.right for r in found.records.values()} == {1.0}
    for name in (f"{mine}:None", "nothing", f"{tmp_path / 'no.py'}:Mine"):
        with pytest.raises(ConfigError, match="expected"):
            build(Variant("x", name, Config()), session())


def test_a_method_may_import_what_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    package = tmp_path / "own_methods"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "words.py").write_text("WORD = 'seven'\n")
    mine = package / "mine.py"
    mine.write_text(
        "from own_methods.words import WORD\ndef make(session, config):\n    return WORD\n"
    )
    assert build(Variant("x", f"{mine}:make", Config()), session()) == "seven"
    mine.write_text("import nowhere_to_be_found\n")
    with pytest.raises(ConfigError, match=r"mine\.py cannot be imported.*nowhere_to_be_found"):
        build(Variant("x", f"{mine}:make", Config()), session())


def test_the_command_runs_and_says_where_results_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    from specrag_native import engines
    from specrag_native.cli import eval as command
    from specrag_native.model_files import catalog

    class Found:
        path = write_set(tmp_path / "model.gguf", ["weights"])

    monkeypatch.setattr(catalog, "resolve", lambda name, role=None: Found)
    monkeypatch.setattr(engines, "Engines", lambda paths, **_: FakeModels())
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    path = write_set(tmp_path / "set.jsonl", [*rows(3), "oops"])
    out = tmp_path / "out"

    def run(*words: str) -> int:
        args = parser.parse_args(["eval", str(path), "--out", str(out), *words])
        return int(args.run(args))

    assert run("--method", "speculative,oracle", "--drafter", "d.gguf", "--contended") == 0
    said = capsys.readouterr()
    assert "3 answers added" in said.out
    assert "1 malformed lines skipped; the first:" in said.err and "line 4" in said.err
    (found,) = read_folder(out)
    assert found.contended == {"q0", "q1", "q2"}
    assert str(tmp_path) not in json.dumps(found.header.to_dict())
    for words, reason in (
        (["--limit", "0"], "--limit must be at least 1"),
        (["--drafts", "two"], "--drafts takes numbers"),
        (["--set", "n_drafts"], "NAME=VALUE"),
        (["--set", "nothing=1"], "unknown setting"),
        (["--strict"], "line 4"),
    ):
        with pytest.raises(UserError, match=reason):
            run(*words)
