"""From question sets to files of drafting examples, resumable where a model writes rationales.

Law: what is measured on is never trained on: a question that also stands in an excluded set is
left out, and held-back questions share no article with the others.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from specrag_native.evaluation.datasets import Example, read_dataset, read_lines, read_passage
from specrag_native.evaluation.metrics import normalise
from specrag_native.protocol import Engine
from specrag_native.training.drawing import Drawing, DrawOptions
from specrag_native.training.examples import (
    DraftExample,
    TrainingDataError,
    dump,
    load,
    write_examples,
)
from specrag_native.training.writing import write_questions
from specrag_native.types import Passage

Report = Callable[[int, int], None]
"""Called with the number of examples written and of all."""


_HELD_PER_ARTICLE = 8
"""Most held-back questions of one article, so that no article decides what `check` finds."""


@dataclass(frozen=True, slots=True)
class Source:
    """A question set, and how many of its questions to use; ``None``: all."""

    path: Path
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What examples are made of; see :func:`make`."""

    sources: tuple[Source, ...]
    pools: tuple[Path, ...] = ()
    exclude: tuple[Path, ...] = ()
    held_back: float = 0.02
    draw: DrawOptions = field(default_factory=DrawOptions)


@dataclass(slots=True)
class Counts:
    """What became of the rows."""

    rows: int = 0
    malformed: int = 0
    excluded: int = 0
    no_answer: int = 0
    no_gold_passage: int = 0
    no_evidence: int = 0
    examples: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    held_back: int = 0
    subsets: int = 0
    written: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {**asdict(self), "examples": dict(self.examples), "written": dict(self.written)}


class Writer(Protocol):
    """Gives examples a rationale of its own."""

    name: str

    def write(self, examples: Sequence[DraftExample]) -> list[DraftExample]:
        """Return the examples, those whose new rationale passed its checks changed."""


def make(
    options: DataOptions,
    out: Path,
    *,
    writer: Writer | None = None,
    report: Report | None = None,
    batch: int = 32,
) -> Counts:
    """Write drafting examples to ``out`` and held-back ones beside it (``NAME-check.jsonl``).

    With a ``writer``, answerable examples get its rationale where that passes; finished examples
    are kept in ``NAME.partial`` and a run that was stopped goes on after them.

    Raises:
        TrainingDataError: no example came out, or ``NAME.partial`` is of a run with other settings.
        DatasetError: a question set cannot be read.
    """
    counts = Counts()
    forbidden = questions_of(options.exclude)
    pool = [p for path in options.pools for p in read_passages(path)]
    train: list[list[DraftExample]] = []
    check: list[list[DraftExample]] = []
    for source in options.sources:
        kept, held = split(rows_of(source, forbidden, counts), options, source.limit)
        for rows, groups in ((kept, train), (held, check)):
            drawing = Drawing(rows, pool, options.draw) if rows else None
            if drawing is None:
                continue
            groups.extend(_by_subset(drawing.examples()))
            for name in ("no_answer", "no_gold_passage", "no_evidence"):
                setattr(counts, name, getattr(counts, name) + getattr(drawing.skipped, name))
    if not train:
        raise TrainingDataError(
            "no drafting example came out: rows need answers and passages that hold them "
            f"({counts.rows} rows, {counts.malformed} malformed, {counts.excluded} excluded)"
        )
    random.Random(options.draw.seed).shuffle(train)
    for example in itertools.chain.from_iterable(train):
        counts.examples[example.dataset] += 1
        counts.unknown += example.unknown
    counts.subsets = len(train)
    counts.held_back = sum(map(len, check))
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = _settings(options, writer)
    check_path = out.with_name(f"{out.stem}-check{out.suffix}")
    examples = list(itertools.chain.from_iterable((*check, *train)))
    partial = out.with_name(out.name + ".partial")
    header = json.dumps({"settings": settings, "n": len(examples)}, sort_keys=True)
    done = len(_started(partial, header))
    with partial.open("a", encoding="utf-8") as file:
        for start in range(done, len(examples), batch):
            chunk = examples[start : start + batch]
            if writer is not None:
                chunk = writer.write(chunk)
            file.writelines(dump(e) + "\n" for e in chunk)
            file.flush()
            if report:
                report(min(start + batch, len(examples)), len(examples))
    finished = [load(line) for line in _started(partial, header)]
    counts.written.update(e.writer for e in finished)
    write_examples(check_path, finished[: counts.held_back])
    write_examples(out, finished[counts.held_back :])
    partial.unlink()
    facts = {"settings": settings, "counts": counts.as_dict()}
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return counts


def rows_of(source: Source, forbidden: set[str], counts: Counts) -> list[Example]:
    """Return the rows of a set that do not stand in an excluded one, and count the others."""
    dataset = read_dataset(source.path)
    counts.rows += len(dataset.examples) + len(dataset.malformed)
    counts.malformed += len(dataset.malformed)
    rows = [e for e in dataset.examples if normalise(e.question.text) not in forbidden]
    counts.excluded += len(dataset.examples) - len(rows)
    return rows


def split(
    rows: list[Example], options: DataOptions, limit: int | None
) -> tuple[list[Example], list[Example]]:
    """Return the rows to train on and those held back, no article in both; whole articles first."""
    articles: dict[str, list[Example]] = {}
    for row in rows:
        first = _first(row)
        articles.setdefault(first.title or first.id, []).append(row)
    names = sorted(articles, key=lambda name: _hash(f"{options.draw.seed} {name}"))
    kept: list[Example] = []
    held: list[Example] = []
    for name in names:
        if _hash(f"held back {name}") < options.held_back:
            held.extend(articles[name][:_HELD_PER_ARTICLE])
        else:
            kept.extend(articles[name])
    rng = random.Random(options.draw.seed)
    if limit is not None and len(kept) > limit:
        kept = _sample(kept, limit, rng)
    if limit is not None:
        held = held[: max(1, round(limit * options.held_back))] if held else []
    return kept, held


def _first(row: Example) -> Passage:
    """Return the first relevant passage, or the first where none is marked."""
    return next((p for p in row.passages if p.id in row.relevant), row.passages[0])


def _sample(rows: list[Example], limit: int, rng: random.Random) -> list[Example]:
    """Draw whole first passages, so that the questions of one passage stay together."""
    by_passage: dict[str, list[Example]] = {}
    for row in rows:
        by_passage.setdefault(_first(row).id, []).append(row)
    names = list(by_passage)
    rng.shuffle(names)
    drawn = itertools.chain.from_iterable(by_passage[name] for name in names)
    return list(itertools.islice(drawn, limit))


def _hash(text: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def questions_of(paths: Iterable[Path]) -> set[str]:
    """Return the questions of some sets, normalised."""
    return {
        normalise(e.question.text)
        for path in paths
        for e in read_dataset(path, passages_needed=False).examples
    }


def read_passages(path: Path) -> Iterator[Passage]:
    """Yield the passages of a corpus: JSON lines with ``title`` and ``text``."""
    for number, line in read_lines(path):
        try:
            yield read_passage(json.loads(line))
        except ValueError as error:
            raise TrainingDataError(f"{path}, line {number}: {error}") from None


def _by_subset(examples: Iterable[DraftExample]) -> list[list[DraftExample]]:
    return [list(group) for _, group in itertools.groupby(examples, lambda e: e.subset_key)]


def _settings(options: DataOptions, writer: Writer | None) -> dict[str, Any]:
    values = asdict(options)
    values["sources"] = [[s.path.name, s.limit] for s in options.sources]
    values["pools"] = [p.name for p in options.pools]
    values["exclude"] = sorted(p.name for p in options.exclude)
    values["writer"] = writer.name if writer else "extract"
    return values


def _started(partial: Path, header: str) -> list[str]:
    """Return the lines an earlier run finished, or begin a new file.

    What that run wrote in part is cut off.
    """
    try:
        raw = partial.read_bytes()
    except FileNotFoundError:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(header + "\n", encoding="utf-8")
        return []
    except OSError as error:
        raise TrainingDataError(f"{partial} cannot be read: {error}") from None
    end = raw.rfind(b"\n") + 1
    lines = raw[:end].decode("utf-8", errors="replace").split("\n")[:-1]
    if not lines or lines[0] != header:
        raise TrainingDataError(
            f"{partial} is of a run with other settings: finish that run, choose another --out, "
            "or delete it"
        )
    if end != len(raw):
        with partial.open("r+b") as file:
            file.truncate(end)
    return lines[1:]


def synthesise(
    engine: Engine,
    corpus: Path,
    out: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    batch: int = 8,
    report: Report | None = None,
) -> Counter[str]:
    """Write a question set made of plain passages to ``out``; see :func:`write_questions`.

    Finished passages are kept in ``NAME.partial``; a run that was stopped goes on after them.

    Returns:
        How many ``passages`` were read and how many ``questions`` were kept.
    """
    passages = sorted(read_passages(corpus), key=lambda p: _hash(f"{seed} {p.id}"))[:limit]
    name = out.stem
    settings = {"corpus": corpus.name, "limit": limit, "seed": seed, "batch": batch}
    partial = out.with_name(out.name + ".partial")
    header = json.dumps({"settings": settings, "n": len(passages)}, sort_keys=True)
    lines = _started(partial, header)
    done = sum("done" in json.loads(line) for line in lines) * batch
    counts = Counter(passages=len(passages))
    out.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a", encoding="utf-8") as file:
        for start in range(done, len(passages), batch):
            chunk = passages[start : start + batch]
            rows = [
                {
                    "id": e.id,
                    "question": e.question.text,
                    "answers": list(e.answers),
                    "task": "qa",
                    "passages": [
                        {"id": p.id, "title": p.title, "text": p.text, "relevant": True}
                        for p in e.passages
                    ],
                }
                for e in write_questions(engine, chunk, name=name, batch=batch)
            ]
            # The rows of a batch and the mark that it is done are one write.
            file.write("".join(json.dumps(row) + "\n" for row in (*rows, {"done": start})))
            file.flush()
            if report:
                report(min(start + batch, len(passages)), len(passages))
    kept = [line for line in _started(partial, header) if "done" not in json.loads(line)]
    counts["questions"] = len(kept)
    final = out.with_name(out.name + ".writing")
    final.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    final.replace(out)
    partial.unlink()
    return counts
