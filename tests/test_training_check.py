"""Measures of a drafter, and the ``specrag train`` command from sets to a checked model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from test_training_data import write_set
from tiny_model import write_tiny

from specrag_native.cli.main import main
from specrag_native.training.check import Checked, measure
from specrag_native.training.examples import DraftExample
from specrag_native.types import Draft, LogprobSpan, Question, Subset


def checked(*, unknown: bool, said_unknown: bool, right: bool = False) -> Checked:
    example = DraftExample("1", "d", Question("Q?"), (), "r", "a", ("a",), unknown=unknown)
    answer = "unknown" if said_unknown else "a"
    span = LogprobSpan(-1.0, 2)
    draft = Draft(answer, "r", Subset(()), span, span, unknown=said_unknown)
    return Checked(example, draft, right, 0.5, 10, 3.0, 6)


def test_measures_are_shares_of_what_they_name() -> None:
    found = measure(
        [
            checked(unknown=False, said_unknown=False, right=True),
            checked(unknown=False, said_unknown=False),
            checked(unknown=False, said_unknown=True),
            checked(unknown=True, said_unknown=True),
            checked(unknown=True, said_unknown=False),
        ]
    )
    assert (found.examples, found.answerable) == (5, 3)
    assert found.right == pytest.approx(1 / 3)
    assert found.unknown_recall == pytest.approx(1 / 2)
    assert found.unknown_precision == pytest.approx(1 / 2)
    assert found.loss == pytest.approx(0.5)
    assert (found.support, found.rationale_tokens, found.malformed) == (0.5, 10, 0)
    assert measure([]).right == 0.0


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_drafter_is_trained_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft", reason="the train extra is not installed")
    base = write_tiny(tmp_path / "tiny.gguf")
    source = write_set(tmp_path / "towns.jsonl.gz")
    examples, fit, out = tmp_path / "e.jsonl", tmp_path / "fit", tmp_path / "out"
    data = ["train", "data", f"{source}:30", "--out", str(examples), "--held-back", "0.2"]
    assert main([*data, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert sum(counts["examples"].values()) > 20 and counts["held_back"] > 0
    settings = ["--rank", "2", "--alpha", "4", "--epochs", "0.5", "--threads", "1"]
    begin = ["train", "fit", str(examples), "--out", str(fit), "--base", str(base), *settings]
    assert main(begin) == 0
    assert (fit / "loss.png").stat().st_size > 1000
    assert main(begin) == 0  # nothing is left to do, and nothing is done twice
    export = ["train", "export", str(fit), "--base", str(base), "--out", str(out)]
    assert main([*export, "--name", "mine", "--type", "Q8_0"]) == 0
    capsys.readouterr()
    model, held = str(out / "mine-q8_0.gguf"), str(tmp_path / "e-check.jsonl")
    assert main(["train", "check", model, held, "--limit", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 3 and found["malformed"] == 0
    assert 0 < found["loss"] < 3 * math.log(259)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "--out", "x"], "nothing to make examples of"),
        (["data", "no.jsonl", "--out", "x"], "no question set at no.jsonl"),
        (["data", "a.jsonl", "--out", "x", "--sizes", "two"], "--sizes takes"),
        (["data", "a.jsonl", "--out", "x", "--unknown", "1.5"], "--unknown must be"),
        (["data", "--synthesise", "c.jsonl", "--out", "x"], "needs --writer"),
        (["data", "a.jsonl:0", "--out", "x"], "at least 1"),
        (["fit", "none.jsonl", "--out", "x"], "no drafting examples at none.jsonl"),
        (["fit", "none.jsonl", "--out", "x", "--rate", "-1"], "rate must be above 0"),
        (["check", "none.gguf", "e.jsonl"], "no drafting examples at e.jsonl"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
