"""Drafting examples: a question, the subset of passages a draft may read, and what it should say.

Law: an example holds text only; prompts and tokens are made of it when a model is at hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specrag_native.errors import UserError
from specrag_native.evaluation.datasets import read_passage
from specrag_native.prompts import NO_EVIDENCE, UNKNOWN
from specrag_native.types import Passage, Question

UNKNOWN_RATIONALE = NO_EVIDENCE
UNKNOWN_ANSWER = UNKNOWN


class TrainingDataError(UserError):
    """A file of drafting examples, or what it should be made of, that cannot be used."""


@dataclass(frozen=True, slots=True)
class DraftExample:
    """One drafting example.

    ``answers`` are all accepted answers, ``answer`` is the one to write. ``unknown``: the passages
    do not hold an answer, and the draft should say so. ``writer`` tells where the rationale is
    from: ``extract``, or the file name of the model that wrote it.
    """

    id: str
    dataset: str
    question: Question
    passages: tuple[Passage, ...]
    rationale: str
    answer: str
    answers: tuple[str, ...]
    unknown: bool = False
    writer: str = "extract"

    @property
    def subset_key(self) -> str:
        """The same for examples whose drafts read the same passages in the same order."""
        return "\x1f".join(p.id for p in self.passages)


def dump(example: DraftExample) -> str:
    """Return the example as one line of JSON, without the line's end."""
    question = example.question
    return json.dumps(
        {
            "id": example.id,
            "dataset": example.dataset,
            "question": question.text,
            "task": question.task,
            "choices": dict(question.choices) if question.choices else None,
            "passages": [{"id": p.id, "title": p.title, "text": p.text} for p in example.passages],
            "rationale": example.rationale,
            "answer": example.answer,
            "answers": list(example.answers),
            "unknown": example.unknown,
            "writer": example.writer,
        },
        ensure_ascii=False,
    )


def load(line: str) -> DraftExample:
    """Read what :func:`dump` wrote; raise ValueError when it is something else."""
    try:
        row: dict[str, Any] = json.loads(line)
        return DraftExample(
            id=str(row["id"]),
            dataset=str(row["dataset"]),
            question=Question(str(row["question"]), row["task"], row["choices"]),
            passages=tuple(map(read_passage, row["passages"])),
            rationale=str(row["rationale"]),
            answer=str(row["answer"]),
            answers=tuple(row["answers"]),
            unknown=bool(row["unknown"]),
            writer=str(row["writer"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no drafting example ({error!r})") from None


def write_examples(path: Path, examples: Iterable[DraftExample]) -> int:
    """Write examples beside ``path`` and rename; return how many there were."""
    partial = path.with_name(path.name + ".writing")
    count = 0
    with partial.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(dump(example) + "\n")
            count += 1
    partial.replace(path)
    return count


def read_examples(path: Path) -> list[DraftExample]:
    """Read a file of drafting examples.

    Raises:
        TrainingDataError: the file is missing, holds nothing, or a line is no example.
    """
    return list(_read(path))


def _read(path: Path) -> Iterator[DraftExample]:
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                yield load(line)
    except FileNotFoundError:
        raise TrainingDataError(
            f"no drafting examples at {path}: make them with specrag train data"
        ) from None
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"{path}, line {max(number, 1)}: {error}") from None
    if number == 0:
        raise TrainingDataError(f"{path} holds no drafting example")
