from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import PROVENANCE, rows, session, write_set

from specrag_native.config import Config
from specrag_native.evaluation.comparison import group
from specrag_native.evaluation.datasets import read_dataset
from specrag_native.evaluation.report import results_document, write_report
from specrag_native.evaluation.results import ResultsError, read_folder
from specrag_native.evaluation.runner import Evaluation
from specrag_native.evaluation.tables import accuracy_table, cost_table, markdown, overall_table
from specrag_native.evaluation.variants import expand
from specrag_native.types import Answer, Question

HOSTILE = '<script>alert("Zed")</script><img src=http://x/y>'


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    dataset = read_dataset(write_set(folder / "towns-dev.jsonl", rows(12)))
    for contended, methods in ((False, "speculative,standard"), (True, "drafter")):
        provenance = dataclasses.replace(PROVENANCE, contended=contended)
        variants = expand(
            methods.split(","),
            Config(abstain_below=0.3, repair="off"),
            ablations=["one-cluster"] if not contended else [],
        )
        list(Evaluation(session(), provenance, folder / "out").run([dataset], variants))
    sweep = expand(["speculative"], Config(), drafts=[1, 3])
    list(Evaluation(session(), PROVENANCE, folder / "out").run([dataset], sweep))
    return folder / "out"


class Taking:
    """A method that answers in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def answer(self, question: Question, **_: Any) -> Answer:
        timings = {"verify": self.seconds, "total": self.seconds}
        return Answer(question.text, "Arvel", "", 0.5, "standard", timings=timings)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_for_nothing_outside(results: Path) -> None:
    report = write_report(results, results / "report", plots=False)
    text = report.page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "iframe", "object"}
    assert not [a for _, a in tags.seen if (a.get("src") or "data:").partition(":")[0] != "data"]
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", text)
    assert "default-src 'none'" in text


def test_hostile_texts_are_shown_as_text(tmp_path: Path) -> None:
    lines = rows(3)
    for line in lines:
        line["passages"] = [
            {"id": f"{HOSTILE}{i}", "title": HOSTILE, "text": f"Zed {HOSTILE}"} for i in range(3)
        ]
        line["question"] = f"Who? {HOSTILE}"
        line["id"] += HOSTILE
    path = write_set(tmp_path / "towns.jsonl", lines)
    dataset = read_dataset(path)
    variants = expand(["speculative", "standard"], Config(abstain_below=0.0))
    list(Evaluation(session(), PROVENANCE, tmp_path / "out").run([dataset], variants))
    report = write_report(tmp_path / "out", tmp_path / "page", plots=False, questions=[dataset])
    text = report.page.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in text
    assert "<script" not in text and "<img" not in text
    assert "<script" not in report.markdown


def test_questions_are_shown_only_where_the_set_is_at_hand(results: Path) -> None:
    dataset = read_dataset(results.parent / "towns-dev.jsonl")
    bare = write_report(results, results / "report", plots=False).page.read_text()
    assert "Which town lies near" not in bare
    full = write_report(results, results / "report", plots=False, questions=[dataset])
    assert "Which town lies near" in full.page.read_text()


def test_tables_hold_the_figures_of_the_records(results: Path) -> None:
    (found,) = group(read_folder(results))
    assert [e.name for e in found.main] == ["standard", "speculative", "drafter", "oracle"]
    speculative = found.find("speculative")
    assert speculative is not None
    right = [r.grade.right for r in speculative.records.values()]
    assert speculative.summary.accuracy.mean == pytest.approx(sum(right) / len(right))
    table = accuracy_table([found])
    row = next(r for r in table.rows if r[1] == "speculative")
    assert row[3].startswith(f"{100 * sum(right) / len(right):.1f} [")
    written = markdown(table)
    assert written.count("\n| ") == 2 + len(table.rows)


def test_differences_are_taken_over_shared_questions_only(results: Path) -> None:
    (found,) = group(read_folder(results))
    speculative, standard = found.find("speculative"), found.find("standard")
    assert speculative is not None and standard is not None
    fewer = dataclasses.replace(
        standard, records={id: r for id, r in list(standard.records.items())[:5]}
    )
    difference = speculative.against(fewer)
    assert difference is not None and difference.n == 5
    expected = sum(
        speculative.records[id].grade.right - r.grade.right for id, r in fewer.records.items()
    )
    assert difference.mean == pytest.approx(expected / 5)
    assert speculative.against(speculative) is None


def test_all_sets_are_taken_together_where_there_are_several(results: Path) -> None:
    (found,) = group(read_folder(results))
    assert overall_table([found]) is None
    speculative, standard = found.find("speculative"), found.find("standard")
    assert speculative is not None and standard is not None
    half = dataclasses.replace(
        standard, records={id: r for id, r in list(standard.records.items())[:6]}
    )
    other = dataclasses.replace(found, dataset="other", entries=[half, speculative])
    table = overall_table([found, other])
    assert table is not None
    (row,) = (r for r in table.rows if r[0] == "speculative")
    pairs = speculative.beside(standard) + speculative.beside(half)
    assert row[1:3] == ("2", str(12 + 6))
    assert row[3] == f"{100 * sum(a.grade.right for a, _ in pairs) / 18:.1f}"
    wins, losses = int(row[5]), int(row[6])
    assert wins == sum(a.grade.right > b.grade.right for a, b in pairs)
    assert losses == sum(a.grade.right < b.grade.right for a, b in pairs)
    assert row[7].startswith(f"{100 * (wins - losses) / 18:+.1f} [")
    # The drafter's rows were measured on a busy machine: no time is told of them.
    both = overall_table([found, dataclasses.replace(found, dataset="other")])
    assert both is not None
    assert {r[0]: r[8] for r in both.rows}["drafter"] == "\N{EN DASH}"


def test_seconds_of_a_busy_machine_are_marked(results: Path) -> None:
    report = write_report(results, results / "report", plots=False)
    cost = report.markdown.partition("## Cost per question")[2].partition("## ")[0]
    lines = {line.split("|")[2].strip(): line for line in cost.splitlines() if line.startswith("|")}
    assert " * |" in lines["drafter"]
    assert " * |" not in lines["standard"]
    assert "*oracle*" not in lines


def test_seconds_of_two_machines_are_never_set_beside_each_other(tmp_path: Path) -> None:
    other = {"cpu": "a slower processor", "threads": 2}
    dataset = read_dataset(write_set(tmp_path / "towns-dev.jsonl", rows()))
    few = dataclasses.replace(dataset, examples=dataset.examples[:6])
    out = tmp_path / "results"
    for machine, asked, methods, seconds in (
        (other, few, ["standard", "drafter"], 100.0),
        (PROVENANCE.machine, dataset, ["standard", "speculative"], 1.0),
    ):
        provenance = dataclasses.replace(PROVENANCE, machine=machine)
        taking = Taking(seconds)
        run = Evaluation(session(), provenance, out, make=lambda *_, m=taking: m)
        assert list(run.run([asked], expand(methods, Config())))
    groups = group(read_folder(out))
    cost = {row[1]: row for row in cost_table(groups).rows}
    assert cost["standard"][2:4] == ("6", "1.0"), "those of the earlier machine do not count"
    assert cost["speculative"][2:4] == ("12", "1.0")
    assert cost["drafter"][2:4] == ("0", "\N{EN DASH}"), "only the other machine answered it"
    other_set = dataclasses.replace(groups[0], dataset="other")
    overall = overall_table([groups[0], other_set])
    assert overall and {r[0]: r[2::6] for r in overall.rows} == {
        "speculative": ("24", "1.00x"),
        "drafter": ("12", "1.00x"),
        "*oracle*": ("24", "\N{EN DASH}"),
    }
    assert groups[0].baseline and groups[0].baseline.summary.n == 12, "right or wrong does count"


def test_the_machine_that_counts_is_the_one_where_most_methods_answered(tmp_path: Path) -> None:
    newer = {"cpu": "a faster processor", "threads": 2}
    dataset = read_dataset(write_set(tmp_path / "towns-dev.jsonl", rows()))
    out = tmp_path / "results"

    def answer(machine: dict[str, Any], asked: slice, methods: list[str], s: float) -> None:
        few = dataclasses.replace(dataset, examples=dataset.examples[asked])
        provenance = dataclasses.replace(PROVENANCE, machine=machine)
        run = Evaluation(session(), provenance, out, make=lambda *_: Taking(s))
        assert list(run.run([few], expand(methods, Config())))

    def costs() -> dict[str, tuple[str, ...]]:
        rows_ = cost_table(group(read_folder(out))).rows
        return {row[1]: row[2:4] for row in rows_}

    answer(PROVENANCE.machine, slice(0, 9), ["standard"], 9.0)
    answer(newer, slice(9, 12), ["standard"], 1.0)
    assert costs()["standard"] == ("9", "9.0"), "where it answered most"
    answer(newer, slice(0, 12), ["speculative"], 0.5)
    both = costs()
    assert both["standard"] == ("3", "1.0"), "where it can be set beside the other"
    assert both["speculative"] == ("12", "0.5")


def test_the_same_results_give_the_same_document(results: Path) -> None:
    first = results_document(results, results / "towns.md")
    assert first == results_document(results, results / "towns.md")
    assert first.startswith("# Towns\n")
    assert f"`specrag report {results.name} --document towns.md`" in first
    assert "specrag eval set.jsonl" in first and "v" * 64 in first
    assert "Variants on towns-dev" in first
    assert "answered only 12 questions" in first and "Seconds marked *" in first


def test_every_plot_is_a_png_with_data(results: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra eval")
    report = write_report(results, results / "report")
    names = {p.stem for p in report.plots}
    assert names == {
        "accuracy",
        "latency",
        "ablations-towns-dev",
        "calibration-towns-dev",
        "sweep-towns-dev",
    }
    for path in report.plots:
        assert path.read_bytes().startswith(b"\x89PNG")
    assert report.page.read_text().count("data:image/png") == len(names)


def test_the_package_is_imported_without_plotting() -> None:
    code = (
        "import sys, specrag_native.evaluation.report, specrag_native.cli.eval;"
        "assert 'matplotlib' not in sys.modules and 'faiss' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def bench(method: str, state: str, median: float) -> dict[str, Any]:
    return {
        "params": {"method": method, "state": state, "n": 3},
        "stats": {"median": median, "min": median - 1, "max": median + 1, "rounds": 3},
        "extra_info": {
            "cpu": "a processor",
            "threads": 2,
            "commit": "abc",
            "models": {"verifier": {"file": "v.gguf", "sha256": "1" * 64}},
            "stages_s": {"verify": median, "total": median},
            "tokens_per_question": {"verifier": {"prefilled": 10.4, "reused": 2, "decoded": 3}},
        },
    }


def test_latency_is_told_against_standard_in_the_same_state(results: Path, tmp_path: Path) -> None:
    cases = [bench("standard", "cold", 12.0), bench("speculative", "cold", 4.0)]
    (tmp_path / "old.json").write_text(json.dumps({"datetime": "2020", "benchmarks": []}))
    (tmp_path / "new.json").write_text(json.dumps({"datetime": "2021", "benchmarks": cases}))
    text = results_document(results, tmp_path / "results.md", tmp_path)
    assert "| speculative | cold | 3 | 4.00 | 3.00 to 5.00 | 3.00x | verify 4.00 |" in text
    assert "10+2+3" in text
    (tmp_path / "newest.json").write_text(json.dumps({"datetime": "2022", "benchmarks": []}))
    with pytest.raises(ResultsError, match="no latency results"):
        results_document(results, tmp_path / "results.md", tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ResultsError, match="cannot be read"):
        results_document(results, tmp_path / "results.md", tmp_path)


def test_the_command_writes_shares_and_documents(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    from specrag_native.cli import report as command

    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())

    def run(*words: str) -> str:
        args = parser.parse_args(["report", *words])
        assert args.run(args) == 0
        return capsys.readouterr().out

    shared, page, document = tmp_path / "shared", tmp_path / "page", tmp_path / "results.md"
    said = run(str(results), "--no-plots", "--out", str(page), "--export", str(shared))
    assert said.startswith("## Accuracy") and str(page / "report.html") in said
    assert len(list(shared.iterdir())) == len(list(results.glob("*.jsonl")))
    assert run(str(shared), "--document", str(document)).strip() == str(document)
    assert document.read_text() == results_document(shared, document)
    assert not (shared / "report").exists()
