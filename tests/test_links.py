"""Passages that belong together by their titles, and what is made of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.answering import evidence
from specrag_native.answering.links import asked_first, links_of
from specrag_native.answering.pipeline import Pipeline
from specrag_native.config import Config
from specrag_native.types import Answer, Hit, Passage
from tests.fakes import FakeEngine, FakeModels, hits, passage

QUESTION = "Who built the ferry that the author of The Lantern took?"
BOOK, AUTHOR, FERRY, TOWN = range(4)
TEXTS = (
    ("The Lantern (novel)", "A novel by Ada Brook."),
    ("Ada Brook", "She crossed the bay on the Heron Ferry every week."),
    ("Heron Ferry", "Built by Tomas Reed."),
    ("Port Alder", "A town. It has ferries, lanterns and a brook."),
)


TITLES = {title: i for i, (title, _) in enumerate(TEXTS)}


def titled(texts: Sequence[tuple[str, str]]) -> list[Passage]:
    return [dataclasses.replace(passage(i, x), title=t) for i, (t, x) in enumerate(texts)]


def numbers(question: str, texts: Sequence[tuple[str, str]]) -> list[set[int]]:
    passages = titled(texts)
    found = links_of(question, passages).linked
    return [{int(i[1:]) for i in found[p.id]} for p in passages]


def in_order(question: str, passages: Sequence[Passage]) -> list[int]:
    found = asked_first(links_of(question, passages), [Hit(p, 1.0, np.zeros(1)) for p in passages])
    return [int(h.passage.id[1:]) for h in found]


def test_passages_that_name_each_other_belong_together() -> None:
    assert numbers(QUESTION, TEXTS) == [{AUTHOR}, {BOOK, FERRY}, {AUTHOR}, set()]


def test_so_do_those_that_the_question_names() -> None:
    found = numbers("which is older, heron ferry or port alder?", TEXTS)
    assert found == [{AUTHOR}, {BOOK, FERRY}, {AUTHOR, TOWN}, {FERRY}]


@pytest.mark.parametrize(
    "texts",
    [
        (("Ada", "x"), ("Else", "Ada Brook wrote it")),  # too short a title
        (("", "x"), ("Else", "anything")),
        (("(novel)", "x"), ("Else", "a (novel) thing")),
        (("Brook", "x"), ("Else", "many Brooks, and a brook")),  # another word, another case
        (("Ada Brook", "on Ada Brook"), ("ada brook (poet)", "by Ada Brook")),  # the same title
    ],
)
def test_what_is_no_link(texts: Sequence[tuple[str, str]]) -> None:
    assert numbers("Who?", texts) == [set(), set()]


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=40)), max_size=6), st.text())
def test_links_go_both_ways_and_an_order_loses_nothing(
    texts: list[tuple[str, str]], question: str
) -> None:
    found = numbers(question, texts)
    for i, friends in enumerate(found):
        assert i not in friends and all(i in found[j] for j in friends)
    assert sorted(in_order(question, titled(texts))) == list(range(len(texts)))


def test_what_the_question_names_comes_first_and_what_is_linked_to_it_next() -> None:
    order = [TOWN, FERRY, AUTHOR, BOOK]
    shuffled = titled([TEXTS[i] for i in order])
    assert [order[i] for i in in_order(QUESTION, shuffled)] == [BOOK, AUTHOR, TOWN, FERRY]
    # Where it names nothing, the best hit counts as named.
    assert in_order("Who built it?", shuffled) == [0, 1, 2, 3]
    moved = [AUTHOR, TOWN, FERRY, BOOK]
    found = in_order("Who built it?", titled([TEXTS[i] for i in moved]))
    assert [moved[i] for i in found] == [AUTHOR, FERRY, BOOK, TOWN]


def story() -> list[Hit]:
    """The passages above with their vectors, the town as the best hit."""
    vectors = [h.vector for h in hits(len(TEXTS))]
    passages = titled(TEXTS)
    return [
        Hit(passages[i], 1.0 / (place + 1), vectors[place])
        for place, i in enumerate((TOWN, FERRY, AUTHOR, BOOK))
    ]


def ask(
    none: dict[int, float], said: str = "unknown", *, question: str = QUESTION, **settings: Any
) -> tuple[Answer, list[str]]:
    """Answer the question; the drafter finds no evidence in passages with these probabilities."""

    def watched(prompt: str) -> float:
        return next(math.log(p) for i, p in none.items() if TEXTS[i][1] in prompt)

    drafter = FakeEngine(lambda p: ("nothing", "unknown"), watched=watched)
    verifier = FakeEngine(lambda p: (said,))
    config = Config.from_mapping(
        {"passages_per_draft": 1, "unknown_above": 0.95, "grounded": False, **settings}
    )
    answer = Pipeline(FakeModels(drafter, verifier), config=config).answer(question, hits=story())
    return answer, verifier.generated


def read(prompt: str) -> list[int]:
    """Return which of the passages a prompt holds, in its order."""
    at = {i: prompt.find(text) for i, (_, text) in enumerate(TEXTS)}
    return sorted((i for i, place in at.items() if place >= 0), key=lambda i: at[i])


def test_the_best_passage_is_read_with_the_one_linked_to_it() -> None:
    none = {BOOK: 0.5, AUTHOR: 0.1, FERRY: 0.4, TOWN: 0.2}
    answer, prompts = ask(none, "Tomas Reed", repair="linked,more", n_drafts=4)
    assert [read(p) for p in prompts] == [[AUTHOR, FERRY]], "not the town, ranked before the ferry"
    assert [(s.step, s.decided) for s in answer.repairs] == [("linked", True)]
    # What the drafter rules out is not read, linked or not; what is read next comes after.
    none = {BOOK: 0.5, AUTHOR: 0.1, FERRY: 0.97, TOWN: 0.2}
    _, prompts = ask(none, repair="linked,more", n_drafts=4)
    assert [read(p) for p in prompts] == [[AUTHOR, BOOK], [AUTHOR, BOOK, TOWN]]
    # Where nothing is linked to the best, it is read alone, and not twice.
    none = {BOOK: 0.5, AUTHOR: 0.4, FERRY: 0.3, TOWN: 0.2}
    _, prompts = ask(none, repair="linked", n_drafts=4)
    assert [read(p) for p in prompts] == [[TOWN]]
    _, prompts = ask(none, repair="subset,linked", n_drafts=4)
    assert [read(p) for p in prompts] == [[TOWN]]
    # After another step it comes to what that has read.
    none = {BOOK: 0.5, AUTHOR: 0.1, FERRY: 0.4, TOWN: 0.2}
    _, prompts = ask(none, repair="subset,linked", n_drafts=4)
    assert [read(p) for p in prompts] == [[AUTHOR], [AUTHOR, FERRY]]


def test_what_a_question_compares_is_read_together_whatever_the_drafter_says() -> None:
    none = {BOOK: 0.1, AUTHOR: 0.2, FERRY: 0.97, TOWN: 0.96}
    both = "Which is older, Port Alder or the Heron Ferry?"
    _, prompts = ask(none, question=both, repair="named,linked", n_drafts=4)
    assert [read(p) for p in prompts] == [[TOWN, FERRY], [TOWN, FERRY, AUTHOR]]
    _, prompts = ask(none, question=both, repair="named", n_drafts=1)
    assert [set(read(p)) for p in prompts] == [{TOWN, FERRY}], "drafted or not"
    # One name is no comparison.
    _, prompts = ask(none, repair="named,linked", n_drafts=4)
    assert [read(p) for p in prompts] == [[BOOK], [BOOK, AUTHOR]]
    # After another step nothing is read again.
    _, prompts = ask(none, question=both, repair="subset,named,more", n_drafts=4)
    assert [read(p) for p in prompts][:2] == [[BOOK], [BOOK, TOWN, FERRY]]


def test_two_passages_are_read_where_the_question_compares_none() -> None:
    none = {BOOK: 0.1, AUTHOR: 0.5, FERRY: 0.3, TOWN: 0.2}
    _, prompts = ask(none, repair="pair,linked", n_drafts=4)
    assert [read(p) for p in prompts] == [[BOOK, AUTHOR], [BOOK, AUTHOR, FERRY]]
    # Of those that are linked to the best the most promising; where none is, the second.
    none = {BOOK: 0.4, AUTHOR: 0.1, FERRY: 0.3, TOWN: 0.2}
    _, prompts = ask(none, repair="pair", n_drafts=4)
    assert [read(p) for p in prompts] == [[AUTHOR, FERRY]]
    none = {BOOK: 0.2, AUTHOR: 0.5, FERRY: 0.3, TOWN: 0.1}
    _, prompts = ask(none, repair="pair", n_drafts=4)
    assert [read(p) for p in prompts] == [[TOWN, BOOK]]
    # What it compares comes before what is most promising.
    both = "Which is older, Port Alder or the Heron Ferry?"
    _, prompts = ask(none, question=both, repair="pair", n_drafts=4)
    assert [set(read(p)) for p in prompts] == [{TOWN, FERRY}]
    # Passages that were not drafted follow those that were; nothing is read twice.
    _, prompts = ask(none, repair="pair", n_drafts=1)
    assert len(read(prompts[0])) == 2
    _, prompts = ask(none, repair="subset,pair", n_drafts=4)
    assert [read(p) for p in prompts] == [[TOWN]]


def test_the_best_passage_is_read_alone_and_two_then_begin_with_it() -> None:
    none = {BOOK: 0.1, AUTHOR: 0.5, FERRY: 0.3, TOWN: 0.2}
    answer, prompts = ask(none, repair="best,pair,all", n_drafts=4)
    assert [read(p) for p in prompts][:2] == [[BOOK], [BOOK, AUTHOR]]
    assert [s.step for s in answer.repairs] == ["best", "pair", "all"]
    assert len(read(prompts[2])) == 4 and read(prompts[2])[:2] == [BOOK, AUTHOR]
    # What it gives is taken from a probability on; FakeEngine says all with 0.6065.
    steps: dict[str, Any] = {"repair": "best,pair", "n_drafts": 4, "accept_above": 0.0}
    answer, prompts = ask(none, "Tomas Reed", **steps, best_above=0.6)
    assert [read(p) for p in prompts] == [[BOOK]]
    assert [(s.step, s.decided) for s in answer.repairs] == [("best", True)]
    answer, prompts = ask(none, "Tomas Reed", **steps, best_above=0.61)
    assert [(s.step, s.decided) for s in answer.repairs] == [("best", False), ("pair", True)]
    answer, _ = ask(none, "Tomas Reed", **{**steps, "accept_above": 0.61})
    assert [s.step for s in answer.repairs] == ["best", "pair"], "without one, as all others"
    # Where one is linked to it, the answer may take both, and it has to be surer.
    linked = {**steps, "best_above": 0.6, "best_linked_above": 0.61}
    answer, _ = ask(none, "Tomas Reed", **linked)
    assert [s.step for s in answer.repairs] == ["best", "pair"]
    answer, _ = ask(none | {BOOK: 0.5, TOWN: 0.1}, "Tomas Reed", **linked)
    assert [s.step for s in answer.repairs] == ["best"], "nothing is linked to the town"
    # Where the question compares two, one of them is not read alone.
    both = "Which is older, Port Alder or the Heron Ferry?"
    answer, prompts = ask(none, question=both, repair="best,pair", n_drafts=4)
    assert [s.step for s in answer.repairs] == ["pair"] and len(read(prompts[0])) == 2
    # After another step, or before another than ``pair``, nothing is read twice either.
    answer, prompts = ask(none, repair="subset,best,all", n_drafts=4)
    assert [s.step for s in answer.repairs] == ["subset", "all"]
    answer, prompts = ask(none, repair="best,linked", n_drafts=4)
    assert [read(p) for p in prompts] == [[BOOK], [BOOK, AUTHOR]]


def test_short_passages_are_all_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {BOOK: 0.5, AUTHOR: 0.97, FERRY: 0.1, TOWN: 0.2}
    steps = "short,linked,redraft,more"
    answer, prompts = ask(none, "Tomas Reed", repair=steps, n_drafts=1)
    assert [read(p) for p in prompts] == [[TOWN, FERRY, AUTHOR, BOOK]], "ruled out or not"
    assert [(s.step, s.whole, s.decided) for s in answer.repairs] == [("short", True, True)]
    assert answer.decided_by == "standard"
    # Once all is read there is nothing to read on, nor to draft.
    answer, prompts = ask(none, repair=steps, n_drafts=1)
    assert [s.step for s in answer.repairs] == ["short"] and len(answer.verdicts) == 1
    assert answer.decided_by == "abstain"
    answer, prompts = ask(none, repair="short,draft,more")
    assert [s.step for s in answer.repairs] == ["short"] and answer.verdicts == ()
    assert answer.decided_by == "abstain" and "drafter" not in answer.usage
    # After another step it comes to what that has read.
    _, prompts = ask(none, repair="subset,short", n_drafts=4)
    assert [read(p) for p in prompts] == [[FERRY], [FERRY, TOWN, AUTHOR, BOOK]]
    # Passages that are not short together are read by their promise.
    n = sum(len(text) for _, text in TEXTS)
    monkeypatch.setattr(evidence, "SHORT_CHARACTERS", n)
    assert len(read(ask(none, repair=steps)[1][0])) == 4
    monkeypatch.setattr(evidence, "SHORT_CHARACTERS", n - 1)
    assert len(read(ask(none, repair=steps)[1][0])) < 4


def test_passages_are_drafted_only_when_reading_gave_no_answer() -> None:
    none = {BOOK: 0.5, AUTHOR: 0.3, FERRY: 0.1, TOWN: 0.2}
    steps: dict[str, Any] = {"repair": "pair,draft,subset,all", "draft_order": "named"}
    answer, prompts = ask(none, "Tomas Reed", **steps)
    assert [s.step for s in answer.repairs] == ["pair"] and answer.verdicts == ()
    assert "drafter" not in answer.usage and answer.answer == "Tomas Reed"
    (first,) = prompts
    # What was read is not drafted; the best draft says what is read next.
    answer, prompts = ask(none, **steps)
    assert [s.step for s in answer.repairs] == ["pair", "draft", "subset", "all"]
    drafted = {TITLES[v.draft.subset.passages[0].title] for v in answer.verdicts}
    assert drafted == {BOOK, AUTHOR, FERRY, TOWN} - set(read(first)) and len(drafted) == 2
    assert read(prompts[1]) == [*read(first), min(drafted, key=lambda i: none[i])]
    assert set(read(prompts[2])) == {BOOK, AUTHOR, FERRY, TOWN}
    # An answer that the verifier is unsure of is read on for, too.
    answer, prompts = ask(none, "Tomas Reed", accept_above=0.99, **steps)
    assert [s.step for s in answer.repairs] == ["pair", "draft", "subset", "all"]


@pytest.mark.parametrize("retrieved", [False, True])
def test_hits_keep_the_order_of_a_retriever_and_given_ones_go_by_similarity(
    retrieved: bool,
) -> None:
    vectors = np.eye(3, dtype=np.float32)
    likeness = np.asarray([0.2, 0.9, 0.1], dtype=np.float32)
    found = [Hit(passage(i), 1.0 / (i + 1), vectors[i]) for i in range(3)]

    class Finds:
        def search_with(self, question: str, vector: Any, n: int = 10) -> list[Hit]:
            return found

    config = Config(n_drafts=1, passages_per_draft=1, draft_order="named", repair="off")
    pipeline = Pipeline(FakeModels(FakeEngine(), FakeEngine()), Finds(), config)
    hits = None if retrieved else found
    answer = pipeline.answer("Who?", hits=hits, question_vector=likeness)
    assert [v.draft.subset.ids for v in answer.verdicts] == [("p0",) if retrieved else ("p1",)]


def test_few_are_drafted_first_and_the_others_only_when_no_answer_was_found() -> None:
    none = {BOOK: 0.5, AUTHOR: 0.3, FERRY: 0.1, TOWN: 0.2}
    few: dict[str, Any] = {"n_drafts": 2, "draft_order": "named", "repair": "linked,redraft,more"}
    answer, prompts = ask(none, "Tomas Reed", **few)
    drafted = [v.draft.subset.passages[0].title for v in answer.verdicts]
    assert sorted(drafted) == [TEXTS[AUTHOR][0], TEXTS[BOOK][0]]
    assert [read(p) for p in prompts] == [[AUTHOR, BOOK]]
    answer, prompts = ask(none, repair_below=1.0, **few)
    assert [s.step for s in answer.repairs] == ["linked", "redraft", "more", "more"]
    assert [read(p) for p in prompts] == [
        [AUTHOR, BOOK],
        [AUTHOR, BOOK, FERRY],
        [AUTHOR, BOOK, FERRY, TOWN],
    ]
    assert len(answer.verdicts) == 4
    # None is left out, however few are drafted first.
    answer, _ = ask(none, repair_below=1.0, **{**few, "n_drafts": 1})
    assert len(answer.verdicts) == 4
    # They are not drafted when a better answer than the first is looked for.
    answer, prompts = ask(none, "Tomas Reed", accept_above=0.99, **few)
    assert [s.step for s in answer.repairs] == ["linked", "more"] and len(answer.verdicts) == 2
    retrieved = {**few, "draft_order": "retrieved"}
    _, prompts = ask(none, "Tomas Reed", **retrieved)
    assert read(prompts[0])[0] == FERRY


@pytest.mark.parametrize(
    ("answers", "above", "n_drafts", "by"),
    [
        ({TOWN: "a town"}, 1.0, 4, "speculative"),  # nothing is linked to it
        ({FERRY: "Tomas Reed"}, 1.0, 4, "repair"),  # the author is, and says nothing
        ({FERRY: "Tomas Reed"}, 0.7, 4, "speculative"),  # sure enough for such a draft, too
        ({FERRY: "Tomas Reed"}, None, 4, "speculative"),
        ({FERRY: "Tomas Reed", TOWN: "Tomas Reed"}, 1.0, 4, "speculative"),  # another bears it out
        ({FERRY: "Tomas Reed", BOOK: "Ada Brook"}, 1.0, 4, "repair"),
        ({FERRY: "no", AUTHOR: "no"}, 1.0, 4, "repair"),  # two say so by chance
        ({FERRY: "no"}, 0.7, 4, "repair"),  # on two things, of which it has seen one
        ({TOWN: "no"}, 0.7, 4, "speculative"),
        ({FERRY: "Tomas Reed"}, 1.0, 2, "speculative"),  # what is linked was not drafted
        # Of what the question holds already, however sure or borne out.
        ({FERRY: "the ferry"}, None, 4, "repair"),
        ({FERRY: "The Lantern", TOWN: "The Lantern"}, None, 4, "repair"),
    ],
)
def test_a_draft_is_not_the_answer_where_it_may_take_two_passages_or_echoes_the_question(
    answers: dict[int, str], above: float | None, n_drafts: int, by: str
) -> None:
    def write(prompt: str) -> tuple[str, str]:
        said = next((a for i, a in answers.items() if TEXTS[i][1] in prompt), "unknown")
        return said, next(text for _, text in TEXTS if text in prompt)

    config = Config.from_mapping(
        {
            **{"n_drafts": n_drafts, "passages_per_draft": 1, "draft_form": "answer-first"},
            **{"questions_above": 0.5, "linked_above": above, "verify": "auto", "grounded": False},
            # Nine in ten, whatever the drafter says, if its passages bear it out.
            **{"draft_weights": (math.log(9), 0.0, 0.0, 0.0, 0.0), "repair": "all"},
        }
    )
    models = FakeModels(FakeEngine(write), FakeEngine(lambda p: ("read",)))
    answer = Pipeline(models, config=config).answer(QUESTION, hits=story())
    assert answer.decided_by == by
    assert answer.answer == ("read" if by == "repair" else next(iter(answers.values())))
