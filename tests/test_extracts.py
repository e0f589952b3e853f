"""Sentences that stand for their passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.answering.budget import tokens_in
from specrag_native.answering.extracts import extracts
from specrag_native.sentences import sentence_spans
from tests.fakes import FakeEmbedder, passage

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

TOPICS = ("cheese", "rivers", "clocks")


def by_topic(texts: Sequence[str]) -> FloatArray:
    """How often each topic is named, normalised."""
    rows = np.asarray([[0.1, *(t.lower().count(topic) for topic in TOPICS)] for t in texts])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


RIVERS = by_topic(["Which rivers?"])[0]


def like_rivers(texts: Sequence[str]) -> Sequence[float]:
    """The likeness of texts to a question about rivers."""
    return [float(x) for x in by_topic(texts) @ RIVERS]


def test_the_sentences_most_like_the_question_are_taken_with_their_titles() -> None:
    of = [
        passage(0, "It snows.\nThe rivers of Gondor run south. Its cheese is mild. Long rivers!"),
        passage(1, "Clocks tick. Rivers and clocks both run."),
        passage(2, "All about cheese."),
    ]
    found = extracts(of, like_rivers, tokens=22)
    assert [(short.text, whole.id) for short, whole in found] == [
        ("The rivers of Gondor run south. Long rivers!", "p0"),
        ("Rivers and clocks both run.", "p1"),
    ]
    assert all(short.title == whole.title for short, whole in found)


def test_lines_stay_lines() -> None:
    table = passage(0, "| rivers | 3 |\n| cheese | 4 |\n| rivers | 5 |")
    ((short, _),) = extracts([table], like_rivers, tokens=10)
    assert short.text == "| rivers | 3 |\n| rivers | 5 |"


def test_what_does_not_fit_is_passed_over() -> None:
    long = passage(0, "Rivers, rivers, rivers" + ", and so on" * 40 + ".")
    short = passage(1, "Some rivers freeze.")
    assert [p.id for p, _ in extracts([long, short], like_rivers, tokens=20)] == ["p1"]
    assert extracts([long], like_rivers, tokens=20) == []
    assert extracts([], like_rivers, tokens=20) == []
    assert extracts([passage(0, " \n ")], like_rivers, tokens=20) == []


@given(
    st.lists(st.text("ab .\n|!?", max_size=60), max_size=5),
    st.integers(1, 60),
)
def test_an_extract_is_sentences_of_its_passage_within_the_tokens(
    texts: list[str], tokens: int
) -> None:
    of = [passage(i, text) for i, text in enumerate(texts) if text]
    embed = FakeEmbedder().embed
    found = extracts(of, lambda texts: list(embed(texts) @ embed(["ab?"])[0]), tokens=tokens)
    assert len({p.id for p, _ in found}) == len(found)
    for short, whole in found:
        sentences = [whole.text[a:b] for a, b in sentence_spans(whole.text)]
        at = 0
        for sentence in sentences:  # a sentence is there as it is, and in its order, or not at all
            if short.text.startswith(sentence, at):
                at += len(sentence)
                at += at < len(short.text) and short.text[at] in " \n"
        assert at == len(short.text) > 0
    spent = sum(tokens_in(short.title, short.text.replace("\n", "")) for short, _ in found)
    assert spent <= tokens + 0.25 * sum(short.text.count(" ") for short, _ in found)
