"""The questions about this project's own documents are still answered by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from specrag_native.evaluation.datasets import Example, read_dataset
from specrag_native.evaluation.metrics import contains_answer

ROOT = Path(__file__).parents[1]
DATASET = read_dataset(ROOT / "benchmarks" / "questions" / "docs.jsonl", passages_needed=False)
TEXTS = [p.read_text() for p in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md")]


def test_every_line_is_a_question() -> None:
    assert not DATASET.malformed
    assert len({e.id for e in DATASET.examples}) == len(DATASET.examples) >= 25


@pytest.mark.parametrize("example", DATASET.examples, ids=lambda e: e.id)
def test_an_accepted_answer_stands_in_a_document(example: Example) -> None:
    assert any(contains_answer(text, example.answers) for text in TEXTS)
