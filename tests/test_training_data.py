"""Drafting examples: rationales, subsets, "unknown", held-back articles, resuming, written text."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specrag_native.evaluation.metrics import contains_answer
from specrag_native.protocol import Batch, Completion, Generation
from specrag_native.training import data
from specrag_native.training.data import DataOptions, Source
from specrag_native.training.drawing import DrawOptions
from specrag_native.training.examples import (
    DraftExample,
    TrainingDataError,
    dump,
    load,
    read_examples,
)
from specrag_native.training.rationales import extract, fault
from specrag_native.training.writing import RationaleWriter, write_questions
from specrag_native.types import Passage, Question, Usage

TOWNS = [f"Town{chr(65 + i)}{chr(97 + j)}" for i in range(8) for j in range(5)]


def passage(name: str, title: str, text: str) -> dict[str, Any]:
    return {"id": name, "title": title, "text": text, "relevant": True}


def write_set(path: Path, n: int = 40, *, task: str = "qa") -> Path:
    rows = []
    for i, town in enumerate(TOWNS[:n]):
        text = (
            f"{town} lies on a river. Its mayor is Anna {town}son, elected in {1900 + i}. "
            f"The mill of {town} was built by a company from the coast in {1700 + i}."
        )
        for j, (ask, answer) in enumerate(
            (
                (f"Who is the mayor of {town}?", f"Anna {town}son"),
                (f"When was the mill of {town} built?", str(1700 + i)),
            )
        ):
            rows.append(
                {
                    "id": f"{town}-{j}",
                    "question": ask,
                    "answers": [answer],
                    "task": task,
                    "passages": [passage(f"p{i}", f"Region {i // 4}", text)],
                }
            )
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def options(path: Path, **values: Any) -> DataOptions:
    return DataOptions(sources=(Source(path),), **{"held_back": 0.2, **values})


def test_examples_hold_their_answer_or_say_unknown(tmp_path: Path) -> None:
    out = tmp_path / "examples.jsonl"
    counts = data.make(options(write_set(tmp_path / "towns.jsonl.gz")), out)
    examples = read_examples(out)
    held = read_examples(tmp_path / "examples-check.jsonl")
    assert len(examples) == sum(counts.examples.values()) and len(held) == counts.held_back
    assert counts.unknown == sum(e.unknown for e in examples)
    assert 0.1 < counts.unknown / len(examples) < 0.4
    for example in (*examples, *held):
        texts = " ".join(p.text for p in example.passages)
        if example.unknown:
            assert not contains_answer(texts, example.answers)
            assert (example.rationale, example.answer) == ("none", "unknown")
        else:
            assert contains_answer(texts, [example.answer])
            assert contains_answer(example.rationale, [example.answer])
            assert len(example.rationale.split()) <= 24
        assert len({p.id for p in example.passages}) == len(example.passages)
    sizes = Counter(len(e.passages) for e in examples)
    assert sizes[2] > sizes[1] and sizes[2] > sizes[3] > 0
    # Groups stand together, and no article is in both files.
    keys = [e.subset_key for e in examples]
    assert sum(a != b for a, b in itertools.pairwise(keys)) + 1 == len(set(keys))
    asked = {e.passages[0].title for e in held for _ in e.answers if not e.unknown}
    golds = {p.title for e in examples if not e.unknown for p in e.passages}
    assert not asked & golds


def write_mayors(path: Path, text: str, *others: dict[str, Any]) -> Path:
    """Write a question for each town; ``{town}`` and ``{i}``, of its valley, are filled in."""
    rows = []
    for i, town in enumerate(TOWNS):
        filled = [
            {
                k: v.format(town=town, i=i // 4, n=i) if isinstance(v, str) else v
                for k, v in p.items()
            }
            for p in (passage("p{n}", "{town}", text), *others)
        ]
        question = f"Who is the mayor of {town} in the valley Vale{i // 4}?"
        answers = [f"Anna {town}son"]
        rows.append({"id": town, "question": question, "answers": answers, "passages": filled})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_close_passages_without_the_answer_are_unknown(tmp_path: Path) -> None:
    source = write_mayors(
        tmp_path / "set.jsonl", "In Vale{i} lies {town}, whose mayor is Anna {town}son."
    )
    data.make(options(source), tmp_path / "plain.jsonl")
    data.make(options(source, draw=DrawOptions(hard_unknown=0.5)), tmp_path / "hard.jsonl")
    plain = {dump(e) for e in read_examples(tmp_path / "plain.jsonl")}
    hard = read_examples(tmp_path / "hard.jsonl")
    assert plain <= {dump(e) for e in hard}  # all that was drawn without them
    more = [e for e in hard if dump(e) not in plain]
    assert 0.3 < len(more) / sum(not e.unknown for e in hard) < 0.7
    for example in more:
        assert example.unknown
        assert not contains_answer(" ".join(p.text for p in example.passages), example.answers)
        valley = example.question.text.split()[-1].rstrip("?")
        assert all(valley in p.text for p in example.passages)


def test_close_passages_that_happen_to_hold_the_answer_are_evidence_too(tmp_path: Path) -> None:
    news = passage("q{n}", "News", "Anna {town}son spoke in Vale{i} of bridges.")
    source = write_mayors(
        tmp_path / "set.jsonl",
        "In Vale{i} lies {town}, its mayor Anna {town}son.",
        {**news, "relevant": False},
    )
    data.make(options(source), tmp_path / "plain.jsonl")
    data.make(options(source, draw=DrawOptions(weak=1.0)), tmp_path / "weak.jsonl")
    plain = {dump(e) for e in read_examples(tmp_path / "plain.jsonl")}
    weak = read_examples(tmp_path / "weak.jsonl")
    assert plain <= {dump(e) for e in weak}
    more = [e for e in weak if dump(e) not in plain]
    assert len(more) > 10
    for example in more:
        assert example.id.endswith("/weak") and not example.unknown
        town = example.id.removesuffix("/weak")
        evidence = [p for p in example.passages if contains_answer(p.text, example.answers)]
        assert [p.title for p in evidence] == ["News"]
        assert example.answer == f"Anna {town}son"
        assert example.answer in example.rationale and "of bridges" in example.rationale


def test_true_claims_are_asked_again_with_a_word_exchanged(tmp_path: Path) -> None:
    source = tmp_path / "set.jsonl"
    rows = [
        {
            "id": town,
            "question": f"{town} was founded by Otto {town}berg in {1500 + 7 * i}.",
            "answers": ["A", "true"] if i % 2 else ["B", "false"],
            "choices": {"A": "true", "B": "false"},
            "task": "claim",
            "passages": [
                {
                    **passage(
                        f"p{i}",
                        town,
                        f"Otto {town}berg founded {town} in {1500 + 7 * i}, they say.",
                    ),
                    "relevant": True,
                }
            ],
        }
        for i, town in enumerate(TOWNS)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data.make(options(source, draw=DrawOptions(swapped=1.0)), tmp_path / "swapped.jsonl")
    examples = read_examples(tmp_path / "swapped.jsonl")
    swapped = [e for e in examples if e.id.endswith("/swapped")]
    true = {e.id: e for e in examples if not e.unknown and e.answer == "true"}
    assert 5 < len(swapped) <= len(true)
    for example in swapped:
        before = true[example.id.removesuffix("/swapped")].question.text.split()
        after = example.question.text.split()
        assert before[0] == after[0]
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert 1 <= len(changed) <= 2
        evidence = f"{example.passages[0].title} {example.passages[0].text}"
        assert not contains_answer(evidence, [" ".join(b for _, b in changed).strip(".")])
        assert example.answer == "false"


def test_no_article_fills_what_is_held_back(tmp_path: Path) -> None:
    source = tmp_path / "set.jsonl"
    rows = [
        {
            "id": f"{i}",
            "question": f"Who is person {i}?",
            "answers": [f"Name{i}"],
            "passages": [passage(f"p{i}", f"Article {i % 3}", f"Person {i} is Name{i} of town.")],
        }
        for i in range(90)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data.make(options(source, held_back=0.5), tmp_path / "out.jsonl")
    held = Counter(
        next(p.title for p in e.passages if contains_answer(p.text, e.answers))
        for e in read_examples(tmp_path / "out-check.jsonl")
        if not e.unknown
    )
    assert held and max(held.values()) <= 8


def test_the_same_settings_give_the_same_examples(tmp_path: Path) -> None:
    source = write_set(tmp_path / "towns.jsonl.gz")
    data.make(options(source), tmp_path / "a.jsonl")
    data.make(options(source), tmp_path / "b.jsonl")
    data.make(options(source, draw=DrawOptions(seed=1)), tmp_path / "c.jsonl")
    a, b, c = ((tmp_path / f"{x}.jsonl").read_text() for x in "abc")
    assert a == b
    assert a != c


def test_excluded_questions_and_useless_rows_are_counted(tmp_path: Path) -> None:
    source = write_set(tmp_path / "towns.jsonl.gz")
    with gzip.open(source, "at") as file:
        file.write("not json\n")
        file.write(json.dumps({"id": "x", "question": "Who?", "answers": []}) + "\n")
        row = {"id": "y", "question": "Who is it?", "answers": ["Nobody here"]}
        row["passages"] = [passage("q", "Q", "A text without it.")]  # type: ignore[assignment]
        file.write(json.dumps(row) + "\n")
    measured = tmp_path / "measured.jsonl"
    measured.write_text(
        json.dumps({"id": "m", "question": f"who is the mayor of {TOWNS[0]}", "answers": ["A"]})
    )
    counts = data.make(options(source, exclude=(measured,)), tmp_path / "out.jsonl")
    assert (counts.malformed, counts.excluded, counts.no_evidence) == (2, 1, 1)
    texts = {e.question.text for e in read_examples(tmp_path / "out.jsonl")}
    assert f"Who is the mayor of {TOWNS[0]}?" not in texts


def test_nothing_to_train_on_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    row = {"id": "y", "question": "Who?", "answers": ["X"], "passages": [passage("q", "", "No.")]}
    path.write_text(json.dumps(row))
    with pytest.raises(TrainingDataError, match="no drafting example came out"):
        data.make(options(path), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


class Stopping:
    """A writer that stops after some batches, as a kill would."""

    name = "writer.gguf"

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.seen = 0

    def write(self, examples: Sequence[DraftExample]) -> list[DraftExample]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen += len(examples)
        return [
            e if e.unknown else replace(e, rationale=f"{e.rationale}!", writer=self.name)
            for e in examples
        ]


def test_a_stopped_writer_goes_on(tmp_path: Path) -> None:
    source = write_set(tmp_path / "towns.jsonl.gz")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    data.make(options(source), whole, writer=Stopping(1000), batch=4)
    first = Stopping(7)
    with pytest.raises(KeyboardInterrupt):
        data.make(options(source), out, writer=first, batch=4)
    assert not out.exists()
    partial = next(tmp_path.glob("out*.partial"))
    partial.write_bytes(partial.read_bytes() + b'{"cut off')
    with pytest.raises(TrainingDataError, match="other settings"):
        data.make(options(source, held_back=0.1), out, writer=Stopping(1000), batch=4)
    second = Stopping(1000)
    data.make(options(source), out, writer=second, batch=4)
    assert out.read_text() == whole.read_text()
    n = len(read_examples(out)) + len(read_examples(tmp_path / "out-check.jsonl"))
    assert first.seen + second.seen <= n + 4
    assert not list(tmp_path.glob("*.partial"))


def test_an_example_survives_its_file() -> None:
    example = DraftExample(
        id="1",
        dataset="d",
        question=Question("Which?", "choice", {"A": "one", "B": "two"}),
        passages=(Passage("p", "p", "T", "Text é\n", end=7),),
        rationale="Text",
        answer="A",
        answers=("A", "one"),
    )
    assert load(dump(example)) == example
    with pytest.raises(ValueError, match="no drafting example"):
        load("{}")


def test_a_long_sentence_is_cut_around_the_answer_at_a_clause() -> None:
    text = (
        "After many long years in which nothing of note was recorded by anyone who lived there, "
        "the old bridge, which the duke had ordered in a letter, was opened by Maria Holt, and a "
        "market was held on it every week until the flood."
    )
    part = Passage("p", "p", "Old bridge", text, end=len(text))
    found = extract(Question("Who opened the bridge?"), [part], "Maria Holt", is_span=True)
    assert "Maria Holt" in found and found in text
    assert len(found.split()) <= 20
    assert found.startswith(("the old bridge", "which the duke", "was opened"))


def test_a_sentence_that_names_nothing_gets_its_title() -> None:
    text = "He was born in Ulm in 1879. He moved later."
    part = Passage("p", "p", "Albert Einstein", text, end=len(text))
    found = extract(Question("Where was Einstein born?"), [part], "Ulm", is_span=True)
    assert found == "Albert Einstein: He was born in Ulm in 1879."


@pytest.mark.parametrize(
    ("rationale", "wrong"),
    [
        ("Anna opened the bridge in Ulm.", None),
        ("", "empty"),
        ("Anna opened\nthe bridge", "lines"),
        ("The bridge was opened.", "answer"),
        ("Anna flew a spaceship beyond seven distant galaxies", "unsupported"),
        ("Anna " + "opened the bridge " * 20, "long"),
    ],
)
def test_written_rationales_are_checked(rationale: str, wrong: str | None) -> None:
    text = "Anna opened the bridge in Ulm."
    part = Passage("p", "p", "", text, end=len(text))
    assert fault(rationale, [part], "Anna", is_span=True) == wrong


class Scripted:
    """An engine that answers from a list of texts, one list per stage."""

    def __init__(self, *replies: tuple[str, ...]) -> None:
        self.replies = list(replies)

    def chat(self, messages: Any) -> Any:
        return tuple(s for _, content in messages for s in content)

    def generate(self, prompts: Sequence[Any], options: Any, **_: Any) -> Batch[Generation]:
        out = []
        for _prompt in prompts:
            texts = self.replies.pop(0)
            out.append(Generation(tuple(Completion((1,), (0.0,), t, "stop") for t in texts)))
        return Batch(tuple(out), Usage())


def test_a_written_rationale_is_used_only_when_it_passes() -> None:
    text = "Anna opened the bridge in Ulm."
    example = DraftExample(
        id="1",
        dataset="d",
        question=Question("Who opened it?"),
        passages=(Passage("p", "p", "", text, end=len(text)),),
        rationale="extracted",
        answer="Anna",
        answers=("Anna",),
    )
    unknown = replace(example, unknown=True, rationale="none")
    engine: Any = Scripted((" The bridge was opened by Anna.",), (" Somebody did.",))
    writer = RationaleWriter(engine, "big.gguf")
    out = writer.write([example, unknown, example])
    assert [e.rationale for e in out] == ["The bridge was opened by Anna.", "none", "extracted"]
    assert [e.writer for e in out] == ["big.gguf", "extract", "extract"]
    assert writer.faults == {"answer": 1}


def test_a_written_question_is_kept_when_its_answer_comes_back() -> None:
    text = "Anna opened the bridge in Ulm."
    part = Passage("p", "p", "Bridge", text, end=len(text))
    engine: Any = Scripted(
        (" Who opened the bridge in Ulm?", " Anna"),
        (" Where is it from here?", " the moon"),  # not in the passage
        (" Who was it that opened it?", " the bridge"),  # comes back otherwise
        ("Anna",),
        ("Anna",),
    )
    kept = list(write_questions(engine, [part, part, part], name="made"))
    assert [(e.question.text, e.answers, e.relevant) for e in kept] == [
        ("Who opened the bridge in Ulm?", ("Anna",), frozenset({"p"}))
    ]


def test_synthesised_questions_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(
            json.dumps({"id": f"c{i}", "title": "", "text": f"Text {i}."}) + "\n" for i in range(10)
        )
    )
    asked: list[str] = []

    def fake(engine: Any, passages: Sequence[Passage], *, name: str, batch: int) -> Any:
        for p in passages:
            if len(asked) == 5 and not stopped:
                stopped.append(True)
                raise KeyboardInterrupt
            asked.append(p.id)
            yield data.Example(f"{name}-{p.id}", name, Question(f"What is {p.id}?"), ("x",), (p,))

    stopped: list[bool] = []
    monkeypatch.setattr(data, "write_questions", fake)
    engine: Any = None
    with pytest.raises(KeyboardInterrupt):
        data.synthesise(engine, corpus, tmp_path / "q.jsonl", batch=2)
    counts = data.synthesise(engine, corpus, tmp_path / "q.jsonl", batch=2)
    assert counts == {"passages": 10, "questions": 10}
    rows = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 10
    assert len(asked) == 11  # the passage of the batch that was cut is asked about again
