from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from evaluation_fakes import rows, write_set

from specrag_native.evaluation.datasets import DatasetError, half_of, read_dataset


def test_a_set_is_read_with_its_tasks_and_passages(tmp_path: Path) -> None:
    choice = {
        "id": "c",
        "question": "Which?",
        "answers": ["B", "two"],
        "choices": {"A": "one", "B": "two"},
        "task": "choice",
        "passages": [{"title": None, "text": "Some text.", "relevant": None}],
        "a field of the future": 1,
    }
    hop = {**rows(1)[0], "task": "multihop"}
    path = tmp_path / "mixed-dev.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(hop) + "\n\n" + json.dumps(choice) + "\n")
    found = read_dataset(path)
    assert found.name == "mixed-dev"
    assert [e.question.task for e in found.examples] == ["qa", "choice"]
    assert found.examples[0].passages[0].title == "Hill 0"
    assert found.examples[1].question.choices == {"A": "one", "B": "two"}
    assert found.examples[1].passages[0].id
    assert found.malformed == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object, got list"),
        ('{"id": "x", "question": "Q?", "answers": []}', "answers must be a list"),
        ('{"id": "x", "question": " ", "answers": ["a"]}', "question must be a text"),
        ('{"id": 3, "question": "Q?", "answers": ["a"]}', "id must be a text"),
        ('{"id": "x", "question": "Q?", "answers": ["a"], "task": "sing"}', "task must be one of"),
        (
            '{"id": "x", "question": "Q?", "answers": ["A"], "task": "choice"}',
            "needs choices",
        ),
        (
            '{"id": "x", "question": "Q?", "answers": ["Z"], "task": "choice", '
            '"choices": {"A": "a"}}',
            "first answer must be one of A",
        ),
        ('{"id": "x", "question": "Q?", "answers": ["a"], "passages": {}}', "must be a list"),
        ('{"id": "x", "question": "Q?", "answers": ["a"], "passages": ["p"]}', "must be an object"),
        ('{"id": "x", "question": "Q?", "answers": ["a"], "passages": []}', "no passages"),
        ('{"id": "q0", "question": "Q?", "answers": ["a"]}', "earlier line"),
    ],
)
def test_a_malformed_line_names_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    path = write_set(tmp_path / "set.jsonl", [rows(1)[0], line, rows(3)[2]])
    found = read_dataset(path)
    assert [e.id for e in found.examples] == ["q0", "q2"]
    assert len(found.malformed) == 1
    assert str(found.malformed[0]).startswith(f"{path}, line 2: ")
    assert reason in str(found.malformed[0])
    with pytest.raises(DatasetError, match="line 2"):
        read_dataset(path, strict=True)


def test_a_set_without_passages_is_refused_unless_they_are_retrieved(tmp_path: Path) -> None:
    bare = [{k: v for k, v in row.items() if k != "passages"} for row in rows(3)]
    path = write_set(tmp_path / "bare.jsonl", bare)
    with pytest.raises(DatasetError, match="--retrieve"):
        read_dataset(path)
    assert len(read_dataset(path, passages_needed=False).examples) == 3


def test_missing_empty_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no question set at"):
        read_dataset(tmp_path / "none.jsonl")
    with pytest.raises(DatasetError, match="no usable question"):
        read_dataset(write_set(tmp_path / "empty.jsonl", []))
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b"{}\n" * 1000)[:-12])
    with pytest.raises(DatasetError, match="cannot be read"):
        read_dataset(broken)


def test_the_halves_split_a_set_by_id_for_good(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set.jsonl", rows(40))
    tune = [e.id for e in read_dataset(path, half="tune").examples]
    report = [e.id for e in read_dataset(path, half="report").examples]
    assert sorted(tune + report) == sorted(e.id for e in read_dataset(path).examples)
    assert 10 <= len(tune) <= 30
    assert [half_of(f"q{i}") for i in range(4)] == ["tune", "report", "tune", "report"]
    assert [e.id for e in read_dataset(path, half="tune", limit=2).examples] == tune[:2]
