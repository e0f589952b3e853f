"""Questions that take several passages: when the hop ranker is asked, and what is read then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, FakeModels, hits, passage

from specrag_native.answering.hops import LINK
from specrag_native.answering.pipeline import Pipeline
from specrag_native.config import Config
from specrag_native.engines import Engines, ModelPaths
from specrag_native.errors import ConfigError
from specrag_native.protocol import CancelFlag, Ranking
from specrag_native.types import Hit, Question, Usage

SETTINGS: dict[str, Any] = {
    **{"rerank": True, "n_drafts": 2, "passages_per_draft": 1, "draft_order": "named"},
    **{"verify": "auto", "repair_below": 1.0, "grounded": False, "questions_above": 0.1},
    **{"repair": "rationales,pair,draft,all", "multihop_above": 0.5},
}


class Scores:
    """A cross-encoder with known scores by words of the texts; 0 for the others."""

    name = "fake"

    def __init__(self, scores: dict[str, float], alone: float = 0.0, seconds: float = 0.1) -> None:
        self._scores, self._alone, self._seconds = scores, alone, seconds
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def rank(
        self, question: str, texts: Sequence[str], *, cancel: CancelFlag | None = None
    ) -> Ranking:
        self.asked.append((question, tuple(texts)))
        found = [next((s for word, s in self._scores.items() if word in t), 0.0) for t in texts]
        if list(texts) == [""]:
            found = [self._alone]
        usage = Usage(prefilled=10 * len(texts), prefill_s=self._seconds)
        return Ranking(np.asarray(found, dtype=np.float32), usage)


def world(alone: float, **changes: object) -> tuple[Pipeline, FakeModels, Scores]:
    """Return a pipeline whose best hit is number 6, completed by number 3."""
    models = FakeModels(FakeEngine(), FakeEngine(lambda prompt: ("Fact",)))
    models.reranker = Scores({"number 6": 2.0, "number 1": 1.0}, seconds=0.0)
    hops = Scores({"number 3": 1.5, "number 2": 1.0}, alone)
    models.hop_ranker = hops
    return Pipeline(models, config=Config.from_mapping({**SETTINGS, **changes})), models, hops


def read_by(models: FakeModels) -> list[list[str]]:
    """Return the texts of the passages of each prompt of the verifier."""
    prompts = models.verifier.generated
    return [[p.split("\n")[1] for p in prompt.split("Passage: ")[1:]] for prompt in prompts]


def test_a_question_that_takes_two_passages_has_them_read_before_anything_is_drafted() -> None:
    asked, models, hops = world(alone=0.1)
    answer = asked.answer("What is here?", hits=hits(8))
    assert models.drafter.generated == []
    assert read_by(models) == [["Fact number 6 is here.", "Fact number 3 is here."]]
    assert [s.step for s in answer.repairs] == ["pair"]
    assert answer.decided_by == "repair" and answer.answer == "Fact"
    (alone, nothing), (question, texts) = hops.asked
    assert (alone, nothing) == ("What is here?", ("",))
    assert question == "What is here? Title 6. Fact number 6 is here."
    assert texts == tuple(f"Title {i}. Fact number {i} is here." for i in (1, 0, 2, 3, 4))
    assert answer.usage["hop_ranker"].prefilled == 60 and "hops" in answer.timings


def test_of_two_passages_that_complete_each_other_none_is_read_alone() -> None:
    asked, models, _ = world(alone=0.1, repair="rationales,best,pair,draft,all")
    answer = asked.answer("What is here?", hits=hits(8))
    assert [s.step for s in answer.repairs] == ["pair"]
    assert read_by(models) == [["Fact number 6 is here.", "Fact number 3 is here."]]


def test_a_single_passage_is_not_read_again_as_two() -> None:
    order = {"repair": "best,pair,all", "best_above": 0.9, "questions_above": 1.0}
    asked, models, _ = world(alone=-9.0, **order)
    answer = asked.answer("What is here?", hits=hits(1))
    assert [(s.step, s.decided) for s in answer.repairs] == [("best", True)]
    assert read_by(models) == [["Fact number 0 is here."]] and answer.answer == "Fact"


def test_one_that_takes_one_passage_is_drafted_first_as_ever() -> None:
    asked, models, hops = world(alone=-0.1)
    asked.answer("What is here?", hits=hits(8))
    plain, others, never = world(alone=-0.1, multihop_above=None)
    plain.answer("What is here?", hits=hits(8))
    assert models.drafter.generated == others.drafter.generated != []
    assert models.verifier.generated == others.verifier.generated
    assert len(hops.asked) == 1 and never.asked == []


@pytest.mark.parametrize(
    ("question", "changes"),
    [
        (Question("It is.", "claim", {"A": "true", "B": "false"}), {}),
        (Question("Which?", "choice", {"A": "this", "B": "that"}), {}),
        (Question("What is here?"), {"rerank": False}),  # given passages that nothing ranked
        (Question("What is here?"), {"repair": "short,all"}),
        (Question("What is here?"), {"repair": "off"}),
    ],
)
def test_where_it_has_nothing_to_say_it_is_not_asked(
    question: Question, changes: dict[str, object]
) -> None:
    asked, _, hops = world(alone=9.0, **changes)
    asked.answer(question, hits=hits(8), question_vector=hits(1)[0].vector)
    assert hops.asked == []


def test_a_single_passage_has_none_to_go_with_it() -> None:
    asked, models, hops = world(alone=9.0)
    asked.answer("What is here?", hits=hits(1))
    assert hops.asked == [] and models.drafter.generated != []


@pytest.mark.parametrize(("ahead", "chosen"), [(LINK - 0.5, "number 2"), (LINK + 0.5, "number 3")])
def test_a_link_by_titles_counts_for_so_much(ahead: float, chosen: str) -> None:
    """Passage 6 names the title of passage 2, and the hop ranker likes passage 3 better."""
    found = hits(8)
    named = passage(6, "Fact number 6 stands in Title 2.")
    found[6] = Hit(named, found[6].score, found[6].vector)
    asked, models, _ = world(alone=9.0)
    models.hop_ranker = Scores({"number 3": 1.0 + ahead, "number 2": 1.0}, 9.0)
    asked.answer("What is here?", hits=found)
    assert read_by(models) == [[named.text, f"Fact {chosen} is here."]]


def test_of_those_that_the_reranker_puts_last_only_linked_ones_are_looked_at() -> None:
    """Passage 6 names the title of passage 7, the last; passage 5 is before that one."""
    found = hits(8)
    named = passage(6, "Fact number 6 stands in Title 7.")
    found[6] = Hit(named, found[6].score, found[6].vector)
    asked, _, hops = world(alone=9.0)
    asked.answer("What is here?", hits=found)
    _, (_, texts) = hops.asked
    assert texts == tuple(f"Title {i}. Fact number {i} is here." for i in (1, 0, 2, 3, 4, 7))


def test_what_two_passages_do_not_hold_is_drafted_and_then_read_in_all() -> None:
    asked, models, _ = world(alone=9.0)
    models.verifier = FakeEngine(lambda prompt: ("unknown",))
    answer = asked.answer("What is here?", hits=hits(4))
    assert [s.step for s in answer.repairs] == ["pair", "draft", "all"]
    assert answer.decided_by == "abstain"
    assert models.drafter.generated != []


def test_a_draft_of_one_passage_does_not_decide_such_a_question() -> None:
    """Whatever its confidence: it has seen one of them."""
    asked, models, _ = world(alone=9.0, questions_above=0.0, abstain_below=0.0)
    models.verifier = FakeEngine(
        lambda prompt: ("unknown",) if prompt.count("Passage: ") < 4 else ("It",)
    )
    answer = asked.answer("What is here?", hits=hits(4))
    assert answer.decided_by == "standard" and answer.answer == "It"


def test_a_budget_that_leaves_no_time_for_it_says_so() -> None:
    asked, models, _ = world(alone=9.0)
    models.hop_ranker = hops = Scores({"number 3": 1.5}, 9.0, seconds=50.0)
    asked.answer("What is here?", hits=hits(8))  # learns the pace
    asked_before = len(hops.asked)
    answer = asked.answer("What is here?", hits=hits(8), budget_s=0.5)
    assert "looking for passages that belong together" in answer.left_out
    assert len(hops.asked) == asked_before + 1


def test_the_setting_is_a_probability() -> None:
    with pytest.raises(ConfigError, match="multihop_above must be between 0 and 1, got 2"):
        Config(multihop_above=2.0)


def test_without_a_hop_ranker_the_setting_that_needs_it_is_named(tmp_path: Path) -> None:
    engines = Engines(ModelPaths(tmp_path / "d", tmp_path / "v", tmp_path / "e"))
    with pytest.raises(ConfigError, match="no hop_ranker: name a model for it, or set multihop"):
        _ = engines.hop_ranker
