"""Question sets as JSON lines: one question with its answers, and passages where it has some.

Law: a malformed line names its file and its number; it is counted and skipped, or it ends the
reading when the caller is strict. Fields this module does not know are ignored.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from specrag_native.errors import UserError
from specrag_native.types import Passage, Question, Task

Half = Literal["tune", "report", "all"]
"""Which part of a question set: settings are chosen on ``tune`` and reported on ``report``."""

_TASKS: Mapping[str, Task] = {"qa": "qa", "multihop": "qa", "claim": "claim", "choice": "choice"}


class DatasetError(UserError):
    """A question set that cannot be read, or a line of one when reading is strict."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a set, with its accepted answers and the passages given with it.

    For claims and choices ``answers`` holds the letter of the right option and its text.
    ``relevant`` are the ids of the passages that the set marks as holding the evidence.
    """

    id: str
    dataset: str
    question: Question
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    relevant: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that was skipped, and why."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A question set: its name (the file's, without suffixes), its questions, what was skipped."""

    name: str
    examples: tuple[Example, ...]
    malformed: tuple[Malformed, ...]


def half_of(example_id: str) -> Half:
    """Return the half a question belongs to, by a hash of its id that never changes."""
    digest = hashlib.blake2b(example_id.encode("utf-8"), digest_size=8).digest()
    return "tune" if digest[0] % 2 == 0 else "report"


def dataset_name(path: Path) -> str:
    """Return the name of the set in a file: ``nq-dpr-dev`` for ``nq-dpr-dev.jsonl.gz``."""
    name = path.name
    for suffix in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return name


def read_dataset(
    path: Path,
    *,
    strict: bool = False,
    half: Half = "all",
    limit: int | None = None,
    passages_needed: bool = True,
) -> Dataset:
    """Read a question set from a ``.jsonl`` or ``.jsonl.gz`` file.

    Args:
        path: the file.
        strict: fail at the first malformed line instead of skipping it.
        half: which questions to keep, see :func:`half_of`.
        limit: keep at most this many, the first of the half.
        passages_needed: whether a question without passages is malformed.

    Raises:
        DatasetError: the file cannot be read, holds no usable question, or, when ``strict``, has
            a malformed line.
    """
    if half not in get_args(Half):
        raise DatasetError(f"half must be one of {', '.join(get_args(Half))}, got {half!r}")
    name = dataset_name(path)
    examples: list[Example] = []
    malformed: list[Malformed] = []
    seen: set[str] = set()
    without_passages = 0
    for number, line in read_lines(path):
        try:
            example = _example(name, line)
            if example.id in seen:
                raise ValueError(f"the id {example.id!r} stands on an earlier line too")
            seen.add(example.id)
            if passages_needed and not example.passages:
                without_passages += 1
                raise ValueError("no passages, and no index to retrieve them from")
        except ValueError as error:
            wrong = Malformed(path, number, str(error))
            if strict:
                raise DatasetError(str(wrong)) from None
            malformed.append(wrong)
            continue
        if half in ("all", half_of(example.id)):
            examples.append(example)
    if not seen:
        first = f" ({malformed[0]})" if malformed else ""
        raise DatasetError(f"{path} holds no usable question{first}")
    if without_passages == len(seen):
        raise DatasetError(
            f"{path} holds questions without passages: name an index with --retrieve INDEX"
        )
    return Dataset(name, tuple(examples[:limit]), tuple(malformed))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that hold something, gzipped or not, with their numbers."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", errors="replace")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", errors="replace")
        ) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise DatasetError(
            f"no question set at {path}: give the path of a .jsonl or .jsonl.gz file"
        ) from None
    except (OSError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None


def _example(dataset: str, line: str) -> Example:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {type(row).__name__}")
    task = row.get("task", "qa")
    if task not in _TASKS:
        raise ValueError(f"task must be one of {', '.join(_TASKS)}, got {task!r}")
    answers = row.get("answers")
    if not isinstance(answers, list) or not answers or not all(_is_text(a) for a in answers):
        raise ValueError("answers must be a list of one or more texts")
    choices = _choices(row.get("choices"), needed=_TASKS[task] == "choice")
    if choices and answers[0] not in choices:
        raise ValueError(f"the first answer must be one of {', '.join(choices)}")
    passages = [(read_passage(p), p.get("relevant")) for p in _list(row.get("passages"))]
    return Example(
        id=_text(row, "id"),
        dataset=dataset,
        question=Question(_text(row, "question"), _TASKS[task], choices),
        answers=tuple(answers),
        passages=tuple(passage for passage, _ in passages),
        relevant=frozenset(passage.id for passage, relevant in passages if relevant is True),
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not _is_text(value):
        raise ValueError(f"{name} must be a text that is not empty, got {value!r:.40}")
    return cast(str, value)


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"passages must be a list, got {type(value).__name__}")
    return value


def _choices(value: object, *, needed: bool) -> dict[str, str] | None:
    if value is None:
        if needed:
            raise ValueError("a question of the task choice needs choices")
        return None
    if not isinstance(value, dict) or not all(
        _is_text(letter) and isinstance(text, str) for letter, text in value.items()
    ):
        raise ValueError("choices must be an object from letters to texts")
    return dict(value)


def read_passage(value: object) -> Passage:
    """Return the passage of a row; raise ValueError when it has no text or is no object."""
    if not isinstance(value, dict):
        raise ValueError(f"a passage must be an object, got {type(value).__name__}")
    text = _text(value, "text")
    title = value.get("title") or ""
    if not isinstance(title, str):
        raise ValueError(f"a passage's title must be a text, got {type(title).__name__}")
    identity = str(
        value.get("id") or hashlib.blake2b((title + text).encode(), digest_size=6).hexdigest()
    )
    return Passage(id=identity, document=identity, title=title, text=text, end=len(text))
