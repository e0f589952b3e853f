"""The steps that are taken when no draft is good enough: which, in what order, at what cost."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from test_pipeline import no, passages_in, yes

from specrag_native.answering.evidence import best_evidence
from specrag_native.answering.pipeline import TOO_LONG_TEXT, Pipeline
from specrag_native.config import Config
from specrag_native.errors import ConfigError, ContextFullError, QuestionError
from specrag_native.events import AnswerText, DraftText, Event, Verified
from specrag_native.prompts import ABSTAIN_TEXT
from specrag_native.types import Answer, Draft, LogprobSpan, Question, Scores, Subset, Verdict
from tests.fakes import FakeEngine, FakeModels, hits, passage

WEIGHTS = (-4.0, 0.7, -1.1, 0.04, 0.3, 1.4, 0.0)
"""Confidence weights under which hardly anything is trusted."""


def knows(*numbers: int) -> Any:
    """A drafter that finds answers in some passages only."""

    def write(prompt: str) -> tuple[str, str]:
        for i in numbers:
            if f"Fact number {i} is here." in prompt:
                return f"Fact number {i} is here.", f"answer {i}"
        return "nothing", "unknown"

    return write


def reads(answer: str, *, at_least: int = 0, text: str = "") -> FakeEngine:
    """A verifier that believes no draft and answers from enough passages, or from those with a
    text."""

    def write(prompt: str) -> tuple[str]:
        found = passages_in(prompt) >= at_least and text in prompt
        return (answer if found else "unknown",)

    return FakeEngine(write, no)


def ask(
    drafter: FakeEngine, verifier: FakeEngine, *, n: int = 8, **settings: Any
) -> tuple[Answer, list[Event]]:
    config = Config.from_mapping({"grounded": False, **settings})
    rag = Pipeline(FakeModels(drafter, verifier), config=config)
    events: list[Event] = []
    return rag.answer("How many?", hits=hits(n), on_event=events.append), events


def steps(answer: Answer) -> list[tuple[str, str, bool]]:
    return [(s.step, s.answer, s.decided) for s in answer.repairs]


def test_a_confident_draft_needs_no_repair() -> None:
    answer, _ = ask(FakeEngine(knows(3), yes), FakeEngine(logprob=yes))
    assert answer.repairs == () and answer.decided_by == "speculative"


def test_each_step_is_recorded_with_its_cost() -> None:
    answer, _ = ask(FakeEngine(knows(3), yes), reads("four", at_least=8))
    assert steps(answer) == [("subset", "", False), ("all", "four", True)]
    assert all(s.seconds >= 0 for s in answer.repairs)
    assert [s.usage["verifier"].prefilled for s in answer.repairs] == [10, 10]
    assert answer.usage["verifier"].prefilled == 20 + 10 + 10
    assert answer.repairs[-1].confidence == answer.confidence
    data = answer.to_dict()["repairs"][0]
    assert set(data) == {
        *("step", "answer", "confidence", "decided", "grounded", "seconds", "tokens")
    }
    assert data["tokens"] == {"verifier": {"prefilled": 10, "reused": 0, "decoded": 5}}


def test_rationales_are_read_with_their_titles_and_nothing_else() -> None:
    verifier = reads("three")
    answer, _ = ask(FakeEngine(knows(3, 5), yes), verifier, repair="rationales,all")
    (prompt,) = verifier.generated
    assert passages_in(prompt) == 2
    for i in (3, 5):
        assert f"Passage: Title {i}\nFact number {i} is here." in prompt
    assert steps(answer) == [("rationales", "three", True)]
    assert answer.decided_by == "repair"
    assert {c.document for c in answer.citations} <= {"doc3.txt", "doc5.txt"}


def test_too_few_rationales_are_passed_over() -> None:
    order = {"repair": "rationales,subset,all", "min_rationales": 2}
    answer, _ = ask(FakeEngine(knows(3, 5), yes), reads("three"), **order)
    assert steps(answer) == [("rationales", "three", True)]
    answer, _ = ask(FakeEngine(knows(3), yes), reads("three"), **order)
    assert steps(answer) == [("subset", "three", True)]
    with pytest.raises(ConfigError, match="min_rationales must be between 1 and 200, got 0"):
        Config(min_rationales=0)


def test_a_rationale_the_drafter_made_up_is_no_evidence() -> None:
    drafter = FakeEngine(lambda p: ("Elephants invented jazz.", "elephants"), yes)
    verifier = reads("three")
    answer, _ = ask(drafter, verifier, repair="rationales,subset")
    assert not any("lephants" in p for p in verifier.generated)
    assert steps(answer) == [("subset", "three", True)]


def test_what_was_read_stays_the_beginning_of_what_is_read_next() -> None:
    verifier = reads("unknown")
    answer, _ = ask(FakeEngine(knows(6), yes), verifier, repair="rationales,subset,redraft,all")
    assert answer.answer == ABSTAIN_TEXT
    _, few, everything = verifier.generated
    assert everything.startswith(few[: few.index("Question:")])
    assert passages_in(everything) == 8
    assert [s for s, *_ in steps(answer)] == ["rationales", "subset", "redraft", "all"]


def test_more_and_more_is_read_until_an_answer_is_found() -> None:
    verifier = reads("fact 7", text="Fact number 7 is here.")
    answer, _ = ask(FakeEngine(knows(2), yes), verifier, repair="subset,more", grounded=True)
    assert [s.step for s in answer.repairs][:2] == ["subset", "more"]
    assert {s.step for s in answer.repairs[1:]} == {"more"} and answer.repairs[-1].decided
    assert answer.answer == "fact 7"
    counts = [passages_in(p) for p in verifier.generated]
    assert counts == sorted(set(counts)) and counts[0] < 4
    for before, after in itertools.pairwise(verifier.generated):
        assert after.startswith(before[: before.index("Question:")])
    whole = [s.whole for s in answer.repairs]
    assert whole == [n == 8 for n in counts]


def test_more_ends_when_everything_was_read() -> None:
    verifier = reads("unknown")
    answer, _ = ask(FakeEngine(knows(2), yes), verifier, repair="more")
    assert answer.answer == ABSTAIN_TEXT
    assert passages_in(verifier.generated[-1]) == 8 and answer.repairs[-1].whole
    assert not any(s.whole for s in answer.repairs[:-1])


def test_under_accept_above_more_is_read_once() -> None:
    verifier = FakeEngine(lambda p: (f"{passages_in(p)} of them",), no)
    answer, _ = ask(FakeEngine(knows(2), yes), verifier, repair="subset,more", accept_above=0.9)
    assert [(s.step, s.decided) for s in answer.repairs] == [("subset", False), ("more", True)]
    assert answer.answer == f"{passages_in(verifier.generated[-1])} of them"


def none_where(*numbers: int) -> Any:
    """How likely a drafter is to find no evidence: sure of it, but in some passages."""

    def watched(prompt: str) -> float:
        there = [i for i in numbers if f"Fact number {i} is here." in prompt]
        return math.log(0.1 + 0.01 * there[0] if there else 0.97)

    return watched


def test_a_drafter_that_tells_evidence_is_gone_by() -> None:
    one: dict[str, Any] = {"n_drafts": 8, "passages_per_draft": 1, "repair": "subset,more"}
    verifier = reads("unknown")
    drafter = FakeEngine(knows(), yes, none_where(5, 2, 7))
    answer, _ = ask(drafter, verifier, unknown_above=0.95, **one)
    assert [passages_in(p) for p in verifier.generated] == [1, 2, 3]
    for number, prompt in zip((2, 5, 7), verifier.generated, strict=True):
        *_, last = prompt.split("Passage:")
        assert f"Fact number {number} is here." in last
    assert answer.answer == ABSTAIN_TEXT and answer.decided_by == "abstain"
    # Hits that are in no draft come last.
    verifier = reads("unknown")
    few = {**one, "n_drafts": 6}
    answer, _ = ask(
        FakeEngine(knows(), yes, none_where(5, 2, 7)), verifier, unknown_above=0.95, **few
    )
    drafted = {p for v in answer.verdicts for p in v.draft.subset.ids}
    assert len(drafted) == 6
    told = sum(passage(i).id in drafted for i in (2, 5, 7))
    assert [passages_in(p) for p in verifier.generated] == list(range(1, max(1, told) + 3))
    # Of what it rules out the best is read all the same, and all of it where that is asked for.
    verifier = reads("unknown")
    ask(FakeEngine(knows(), yes, none_where()), verifier, unknown_above=0.95, **one)
    assert [passages_in(p) for p in verifier.generated] == [1]
    verifier = reads("unknown")
    one["repair"] = "subset,more,all"
    ask(FakeEngine(knows(), yes, none_where(5)), verifier, unknown_above=0.95, **one)
    assert [passages_in(p) for p in verifier.generated] == [1, 8]


def test_sentences_of_the_others_are_read_with_the_best_passage_and_after_it() -> None:
    one: dict[str, Any] = {"n_drafts": 8, "passages_per_draft": 1, "unknown_above": 0.95}
    verifier = reads("unknown")
    drafter = FakeEngine(knows(), yes, none_where(5, 2))
    answer, _ = ask(drafter, verifier, repair="sentences,more", sentence_tokens=22, **one)
    assert [s.step for s in answer.repairs] == ["sentences", "more"]
    first, then = verifier.generated
    assert first.split("Passage:")[1].startswith(" Title 2\nFact number 2 is here.")
    assert passages_in(first) == 1 + 3, "some 8 tokens each with its title"
    assert [s.whole for s in answer.repairs] == [False, False]
    # What is read next begins with what was read whole, and with nothing of the sentences.
    assert passages_in(then) == 2 and "Fact number 5 is here." in then
    assert then.startswith(first[: first.index("Passage:", first.index("Fact number 2"))])
    # After another step they come to what that has read; with one passage there are none.
    verifier = reads("unknown")
    ask(drafter, verifier, repair="subset,sentences", sentence_tokens=22, **one)
    assert [passages_in(p) for p in verifier.generated] == [1, 4]
    verifier = reads("unknown")
    answer, _ = ask(drafter, verifier, n=1, repair="sentences", **one)
    assert [passages_in(p) for p in verifier.generated] == [1] and answer.repairs[0].whole


def test_extracts_are_sentences_of_all_passages_which_are_not_kept_for_other_questions() -> None:
    keeps: list[bool] = []

    class Noticing(FakeEngine):
        def generate(self, prompts: Any, options: Any, **rest: Any) -> Any:
            keeps.extend(any(s.standalone for s in prompt) for prompt in prompts)
            return super().generate(prompts, options, **rest)

    one: dict[str, Any] = {"n_drafts": 8, "passages_per_draft": 1, "unknown_above": 0.95}
    verifier = Noticing(lambda prompt: ("unknown",), no)
    drafter = FakeEngine(knows(), yes, none_where(5, 2))
    answer, _ = ask(drafter, verifier, repair="extracts,subset", sentence_tokens=22, **one)
    first, then = verifier.generated
    assert passages_in(first) == 3, "some 8 tokens each with its title"
    assert passages_in(then) == 1 and "Title 2\nFact number 2 is here." in then
    assert [(s.step, s.whole) for s in answer.repairs] == [("extracts", False), ("subset", False)]
    assert keeps == [False, True]


def test_an_answer_from_a_sentence_is_cited_there() -> None:
    verifier = reads("7", text="Fact number 7 is here.")
    one: dict[str, Any] = {"n_drafts": 8, "passages_per_draft": 1, "unknown_above": 0.95}
    drafter = FakeEngine(knows(), yes, none_where(2))
    answer, _ = ask(
        drafter, verifier, repair="sentences", sentence_tokens=200, grounded=True, **one
    )
    assert answer.answer == "7" and answer.decided_by == "repair"
    assert [(c.document, c.text) for c in answer.citations] == [
        ("doc7.txt", "Fact number 7 is here.")
    ]


def test_a_step_with_nothing_new_to_read_is_not_taken() -> None:
    verifier = reads("unknown")
    answer, _ = ask(FakeEngine(knows(), yes), verifier, n=2, repair="rationales,all,subset")
    assert [s for s, *_ in steps(answer)] == ["all"]


def test_redrafting_covers_other_subsets_and_decides_with_all_verdicts() -> None:
    seen: list[str] = []

    def write(prompt: str) -> tuple[str, str]:
        seen.append(prompt)
        return knows(*range(8))(prompt) if len(seen) > 5 else ("nothing", "unknown")

    verifier = FakeEngine(lambda p: ("unknown",), yes)
    answer, events = ask(FakeEngine(write, yes), verifier, repair="redraft,subset,all")
    assert answer.decided_by == "speculative"
    assert steps(answer) == [("redraft", answer.answer, True)]
    assert verifier.generated == []
    subsets = [frozenset(v.draft.subset.ids) for v in answer.verdicts]
    assert len(subsets) == len(set(subsets)) == 10
    assert set(answer.repairs[0].usage) == {"drafter", "verifier"}
    assert sum(isinstance(e, Verified) for e in events) == 2
    assert {e.draft for e in events if isinstance(e, DraftText)} == set(range(10))


def test_redrafting_begins_with_passages_no_answer_came_from() -> None:
    answer, _ = ask(FakeEngine(knows(0, 1), yes), reads("unknown"), repair="redraft", n_drafts=2)
    first, again = answer.verdicts[:2], answer.verdicts[2:]
    used = {i for v in first if not v.draft.unknown for i in v.draft.subset.ids}
    fresh = [len(set(v.draft.subset.ids) - used) for v in again]
    assert fresh == sorted(fresh, reverse=True)
    assert not used & set(again[0].draft.subset.ids)


def test_redrafting_stops_where_no_other_subset_is_left() -> None:
    drafter = FakeEngine(knows(), yes)
    answer, _ = ask(drafter, reads("three"), n=2, repair="redraft,subset")
    assert len(drafter.generated) == 1
    assert steps(answer) == [("subset", "three", True)]


def test_an_answer_that_stands_nowhere_is_none() -> None:
    verifier = FakeEngine(lambda p: ("Ulaanbaatar",), no)
    answer, events = ask(FakeEngine(knows(), yes), verifier, grounded=True)
    assert (answer.answer, answer.decided_by) == (ABSTAIN_TEXT, "abstain")
    assert [(s.answer, s.grounded, s.decided) for s in answer.repairs] == [
        ("Ulaanbaatar", False, False),
        ("Ulaanbaatar", False, False),
    ]
    assert "".join(e.text for e in events if isinstance(e, AnswerText)) == ABSTAIN_TEXT
    remembered, _ = ask(FakeEngine(knows(), yes), verifier)
    assert (remembered.answer, remembered.decided_by) == ("Ulaanbaatar", "repair")


def test_the_step_after_an_answer_that_stands_nowhere_decides() -> None:
    verifier = FakeEngine(lambda p: ("Mars",) if passages_in(p) < 8 else ("fact number 7",), no)
    answer, _ = ask(FakeEngine(knows(), yes), verifier, grounded=True)
    assert steps(answer) == [("subset", "Mars", False), ("all", "fact number 7", True)]
    assert [s.grounded for s in answer.repairs] == [False, True]
    assert answer.decided_by == "standard" and answer.support == 1.0


def test_abstaining_needs_no_evidence() -> None:
    answer, _ = ask(FakeEngine(knows(), yes), reads("unknown"), grounded=True)
    assert all(s.grounded for s in answer.repairs)  # nothing was said that could be wrong
    assert (answer.answer, answer.support, answer.unsupported) == (ABSTAIN_TEXT, 0.0, ())


def test_a_reading_has_the_confidence_of_its_weights() -> None:
    settings: dict[str, Any] = {"reading_weights": (1.0, 0.0, 0.5, -0.5, 0.0, 0.0)}
    drafter = FakeEngine(knows(3), yes, none_where(3))
    answer, _ = ask(drafter, reads("answer 3"), **settings)
    agrees = 1.0 + 0.5 - 0.5 * math.log(0.13)
    assert answer.confidence == pytest.approx(1 / (1 + math.exp(-agrees)))
    assert answer.repairs[0].probability == pytest.approx(0.6065, abs=1e-4)
    doubted, _ = ask(
        FakeEngine(knows(3), yes), reads("answer 3"), reading_weights=(-3.0, 0, 0, 0, 0, 0)
    )
    assert doubted.answer == ABSTAIN_TEXT  # 5%, under abstain_below
    assert not any(s.decided for s in doubted.repairs)


def test_the_rationale_of_a_reading_is_that_of_a_draft_that_agrees() -> None:
    drafter = FakeEngine(knows(3), yes)
    answer, _ = ask(drafter, reads("Answer 3."), repair="all")
    assert answer.decided_by == "repair" and answer.rationale == "Fact number 3 is here."
    assert answer.citations and answer.citations[0].text == "Fact number 3 is here."
    answer, _ = ask(drafter, reads("answer 4"), repair="all")
    assert answer.decided_by == "repair" and answer.rationale == ""


def test_an_answer_below_accept_above_is_passed_over_for_the_next_step() -> None:
    verifier = FakeEngine(lambda p: ("few",) if passages_in(p) < 8 else ("many",), no)
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, accept_above=0.9)
    assert steps(answer) == [("subset", "few", False), ("all", "many", True)]
    assert answer.confidence == pytest.approx(0.6065, abs=1e-4)  # the last step's is always taken
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, accept_above=0.6)
    assert steps(answer) == [("subset", "few", True)]


def test_accept_above_is_of_the_probability_whatever_the_confidence() -> None:
    verifier = FakeEngine(lambda p: ("few",) if passages_in(p) < 8 else ("many",), no)
    hopeless = {"reading_weights": (-1.0, 0.0, 0.0, 0.0, 0.0, 0.0), "accept_above": 0.6}
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, **hopeless)
    assert steps(answer) == [("subset", "few", True)]
    assert answer.confidence == pytest.approx(1 / (1 + math.e))
    sure = {"reading_weights": (9.0, 0.0, 0.0, 0.0, 0.0, 0.0), "accept_above": 0.61}
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, **sure)
    assert steps(answer) == [("subset", "few", False), ("all", "many", True)]


def test_rationales_may_have_to_be_surer_than_what_was_read_whole() -> None:
    drafter, verifier = FakeEngine(knows(3), yes), FakeEngine(lambda p: ("three",), no)  # 0.6065
    order = {"repair": "rationales,subset,all", "accept_above": 0.6}
    answer, _ = ask(drafter, verifier, **order)
    assert steps(answer) == [("rationales", "three", True)]
    answer, _ = ask(drafter, verifier, **order, rationales_above=0.61)
    assert steps(answer) == [("rationales", "three", False), ("subset", "three", True)]
    answer, _ = ask(drafter, verifier, **{**order, "accept_above": 0.61}, rationales_above=0.6)
    assert steps(answer) == [("rationales", "three", True)]
    with pytest.raises(ConfigError, match="rationales_above must be between 0 and 1, got 2"):
        Config(rationales_above=2)
    with pytest.raises(ConfigError, match="best_above must be between 0 and 1, got 2"):
        Config(best_above=2)
    with pytest.raises(ConfigError, match="best_linked_above must be between 0 and 1, got -1"):
        Config(best_linked_above=-1)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (("Three.", "three"), ["rationales", "best"]),  # case and punctuation are nothing
        (("unknown", "three"), ["rationales", "best"]),
        (("four", "three"), ["rationales", "best", "pair"]),
    ],
)
def test_one_passage_is_not_enough_where_the_rationales_said_something_else(
    said: tuple[str, str], taken: list[str]
) -> None:
    answers = iter((*said, "three"))
    verifier = FakeEngine(lambda p: (next(answers),), no)
    order = {"repair": "rationales,best,pair,all", "rationales_above": 0.9, "best_above": 0.6}
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, **order)
    assert [s.step for s in answer.repairs] == taken
    assert answer.answer == "three" and answer.repairs[-1].decided


def test_a_draft_that_is_good_enough_ends_reading() -> None:
    verifier = FakeEngine(lambda p: ("unknown",), yes)
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, repair="pair,draft,all")
    assert [s.step for s in answer.repairs] == ["pair", "draft"]
    assert (answer.answer, answer.decided_by) == ("answer 3", "speculative")
    assert answer.repairs[1].confidence == answer.confidence >= 0.9


# --- Claims --------------------------------------------------------------------------------------


def judge(
    verifier: FakeEngine, *, sure: float = -0.1, task: Any = "claim", **settings: Any
) -> Answer:
    """Ask whether a claim holds that passage 3 bears out."""

    def write(prompt: str) -> tuple[str, str]:
        there = "Fact number 3 is here." in prompt
        return ("Fact number 3 is here.", "true") if there else ("none", "unknown")

    steps = {"repair": "pair,draft,all", "verify": "auto", "repair_below": 1.0}
    config = Config.from_mapping({"claims_above": 0.6, "n_drafts": 8, **steps, **settings})
    drafter = FakeEngine(write, lambda text: sure)
    claim = Question("It is number 3.", task, {"A": "true", "B": "false"})
    return Pipeline(FakeModels(drafter, verifier), config=config).answer(claim, hits=hits(8))


def test_a_claim_is_judged_by_the_drafter_and_nothing_is_read() -> None:
    verifier = FakeEngine(lambda p: ("false",), no)
    answer = judge(verifier)
    assert (answer.answer, answer.decided_by) == ("true", "speculative")
    assert verifier.generated == verifier.scored == [] and answer.repairs == ()
    assert answer.confidence == pytest.approx(math.exp(-0.1)) and answer.citations
    assert len(answer.skipped) == 1 and "claims_above" in answer.skipped[0]


def test_a_claim_the_drafter_is_unsure_of_is_read_and_not_drafted_again() -> None:
    verifier = FakeEngine(lambda p: ("false",), no)
    answer = judge(verifier, sure=-0.7)  # a probability of 0.497
    assert (answer.answer, answer.decided_by) == ("false", "repair")
    assert [s.step for s in answer.repairs] == ["pair"] and verifier.scored == []
    assert len(answer.verdicts) == 8


def test_a_claim_is_verified_where_that_is_always_done() -> None:
    verifier = FakeEngine(lambda p: ("false",), yes)
    answer = judge(verifier, verify="always")
    assert verifier.scored != [] and (answer.answer, answer.skipped) == ("true", ())


@pytest.mark.parametrize(
    "change", [{"task": "choice"}, {"task": "qa"}, {"claims_above": None}, {"claims_above": 1.0}]
)
def test_otherwise_the_verifier_reads(change: dict[str, Any]) -> None:
    verifier = FakeEngine(lambda p: ("false",), no)
    answer = judge(verifier, grounded=False, **change)
    assert answer.answer in ("false", "B") and verifier.generated != []


def test_without_repair_a_claim_is_drafted_and_verified_like_a_question() -> None:
    verifier = FakeEngine(lambda p: ("false",), yes)
    answer = judge(verifier, sure=-0.3, repair="off")
    assert verifier.scored != [] and answer.answer == "true"


# --- Questions that drafts answer ----------------------------------------------------------------


def decide(verifier: FakeEngine, *, same: int = 1, **settings: Any) -> Answer:
    """Ask what passages 2 to 1 + ``same`` answer alike, and passage 5, more surely, otherwise."""

    def write(prompt: str) -> tuple[str, str]:
        number = int(prompt.split("Fact number ")[1].split()[0])
        said = {5: "five", **dict.fromkeys(range(2, 2 + same), "two")}.get(number, "unknown")
        return said, f"Fact number {number} is here."

    steps = {"repair": "pair,draft,all", "verify": "auto", "repair_below": 1.0}
    weights = (-1.0, 0.0, 1.0, 2.0)  # nothing but the answer's log-probability, and agreement
    config = Config.from_mapping(
        {
            **{"questions_above": 0.5, "draft_weights": weights, "draft_form": "answer-first"},
            **{"n_drafts": 8, "passages_per_draft": 1, **steps, **settings},
        }
    )
    drafter = FakeEngine(write, lambda text: -0.1 if "five" in text else -0.3)
    return Pipeline(FakeModels(drafter, verifier), config=config).answer(
        Question("Which number?"), hits=hits(8)
    )


def test_drafts_that_agree_are_the_answer_and_nothing_is_read() -> None:
    verifier = FakeEngine(lambda p: ("read",), no)
    answer = decide(verifier, same=2)
    assert (answer.answer, answer.decided_by) == ("two", "speculative")
    assert verifier.generated == verifier.scored == [] and answer.repairs == ()
    assert answer.confidence == pytest.approx(1 / (1 + math.exp(1.0 + 0.3 - 2.0)))
    assert len(answer.skipped) == 1 and "questions_above" in answer.skipped[0]
    assert answer.rationale == "Fact number 2 is here."


@pytest.mark.parametrize(
    ("change", "read_first"),
    [
        ({"same": 1}, "pair"),  # nothing agrees: a probability of 0.25
        ({"same": 2, "questions_above": 0.9}, "pair"),
        ({"same": 2, "questions_above": None}, "pair"),
    ],
)
def test_unsure_drafts_are_read_about(change: dict[str, Any], read_first: str) -> None:
    verifier = FakeEngine(lambda p: ("number",), no)
    answer = decide(verifier, **{"grounded": False, **change})
    assert answer.answer == "number" and verifier.scored == []
    assert [s.step for s in answer.repairs] == [read_first]


@pytest.mark.parametrize(("surely", "reads"), [(-0.005, False), (-0.02, True)])
def test_where_every_draft_is_sure_that_nothing_is_there_nothing_is_read(
    surely: float, reads: bool
) -> None:
    verifier = FakeEngine(lambda p: ("number",), no)
    drafter = FakeEngine(lambda p: ("unknown", "none"), watched=lambda p: surely)
    settings = {"questions_above": 0.5, "silent_above": 0.99, "draft_form": "answer-first"}
    steps = {"repair": "pair,draft,all", "verify": "auto", "repair_below": 1.0, "grounded": False}
    config = Config.from_mapping({**settings, **steps})
    asked = Question("Which number?")
    pipeline = Pipeline(FakeModels(drafter, verifier), config=config)
    answer = pipeline.answer(asked, hits=hits(4))
    assert bool(verifier.generated) == reads
    assert answer.decided_by == ("repair" if reads else "abstain")
    # One draft that is less sure is enough to read on.
    drafter = FakeEngine(
        lambda p: ("unknown", "none"), watched=lambda p: -0.5 if "Fact number 2" in p else surely
    )
    Pipeline(FakeModels(drafter, verifier), config=config).answer(asked, hits=hits(4))
    assert verifier.generated != []


def test_without_weights_the_draft_that_the_drafter_believes_most_is_taken() -> None:
    verifier = FakeEngine(lambda p: ("read",), no)
    answer = decide(verifier, same=2, draft_weights=())
    assert answer.answer == "five" and answer.confidence == pytest.approx(math.exp(-0.1))


class Small(FakeEngine):
    """A verifier that a few passages fit into, and no more."""

    def generate(self, prompts: Any, options: Any, **more: Any) -> Any:
        if passages_in("".join(s.text for s in prompts[0])) > 3:
            raise ContextFullError("full", n_tokens=5000, n_ctx=4096)
        return super().generate(prompts, options, **more)


def test_what_does_not_fit_into_the_context_is_left_unread() -> None:
    verifier = Small(lambda p: ("few",), no)
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, accept_above=0.9)
    assert (answer.answer, answer.decided_by) == ("few", "repair")
    assert answer.too_long == ("reading all passages: 5000 tokens, 4096 fit",)
    assert answer.to_dict()["too_long"] == list(answer.too_long)
    # Then it is not known that the documents do not say.
    verifier = Small(lambda p: ("unknown",), no)
    answer, _ = ask(FakeEngine(knows(), yes), verifier)
    assert (answer.answer, answer.decided_by) == (TOO_LONG_TEXT, "abstain")
    # Where nothing fits, that is what is said.
    with pytest.raises(QuestionError, match="5000 tokens and 4096 fit"):
        ask(FakeEngine(knows(), yes), verifier, repair="draft,all", n=4)


def test_the_last_word_of_the_verifier_counts() -> None:
    verifier = FakeEngine(lambda p: ("few",) if passages_in(p) < 8 else ("unknown",), no)
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, accept_above=0.9)
    assert steps(answer) == [("subset", "few", False), ("all", "", False)]
    assert answer.answer == ABSTAIN_TEXT


# --- Verification that cannot matter -------------------------------------------------------------


def test_drafts_that_cannot_be_good_enough_are_not_verified() -> None:
    settings = {"verify": "auto", "confidence_weights": WEIGHTS, "repair_below": 0.95}
    verifier = reads("three", text="Fact number 3 is here.")
    answer, events = ask(FakeEngine(knows(3), yes), verifier, **settings)
    assert verifier.scored == [] and answer.left_out == ()
    assert len(answer.skipped) == 1 and "verification" in answer.skipped[0]
    assert steps(answer) == [("subset", "three", True)]  # the drafter's own score chose well
    assert sum(isinstance(e, Verified) for e in events) == 1
    assert answer.to_dict()["skipped"] == list(answer.skipped)


@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_where_no_draft_is_taken_as_it_stands_none_is_verified(weights: Any) -> None:
    settings = {"verify": "auto", "confidence_weights": weights, "repair_below": 1.0}
    verifier = FakeEngine(lambda p: ("fact",), yes)
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, **settings)
    assert verifier.scored == [] and answer.decided_by == "repair"
    assert "repair_below 1" in answer.skipped[0]
    always, _ = ask(FakeEngine(knows(3), yes), verifier, **{**settings, "verify": "always"})
    assert verifier.scored != [] and always.skipped == ()


@pytest.mark.parametrize(
    "change",
    [
        {"verify": "always"},
        {"confidence_weights": ()},
        {"repair_below": 0.05},
        {"repair": "off"},
        {"repair": "redraft,all"},
    ],
)
def test_otherwise_they_are(change: dict[str, Any]) -> None:
    settings = {"verify": "auto", "confidence_weights": WEIGHTS, "repair_below": 0.95, **change}
    verifier = reads("three")
    answer, _ = ask(FakeEngine(knows(3), yes), verifier, **settings)
    assert len(verifier.scored) == 2
    assert answer.skipped == () or "redraft" in settings["repair"]


def test_a_draft_that_was_not_verified_is_not_trusted_more_than_it_could_be() -> None:
    settings = {"verify": "auto", "confidence_weights": WEIGHTS, "repair_below": 0.95}
    answer, _ = ask(FakeEngine(knows(3), lambda text: -0.001), reads("unknown"), **settings)
    assert answer.answer == ABSTAIN_TEXT and answer.confidence < 0.95


def made(number: int, *passages: int, none: float | None, total: float | None = None) -> Verdict:
    span = LogprobSpan(-0.1 * number, 1)
    subset = Subset(tuple(passage(i) for i in passages))
    draft = Draft(f"a{number}", f"r{number}", subset, span, span, unknown_logprob=none)
    scores = Scores(-0.1 * number, total=total if total is not None else -math.inf)
    return Verdict(draft, scores, verified=total is not None)


def test_evidence_comes_from_where_the_drafter_was_least_inclined_to_find_none() -> None:
    drafts = [made(1, 1, 2, none=-0.5), made(2, 3, 4, none=-4.0), made(3, 5, 6, none=-2.0)]
    assert [p.id for p in best_evidence(drafts)] == [passage(3).id, passage(4).id]
    # What the verifier said of a draft counts for more.
    drafts[0] = made(1, 1, 2, none=-0.5, total=-3.0)
    assert [p.id for p in best_evidence(drafts)] == [passage(1).id, passage(2).id]
    # An engine that does not tell leaves the drafts' own probability.
    drafts = [made(2, 1, 2, none=None), made(1, 3, 4, none=None)]
    assert [p.id for p in best_evidence(drafts)] == [passage(3).id, passage(4).id]
    assert best_evidence([]) == ()


def test_what_was_read_is_left_out_of_the_best_evidence() -> None:
    drafts = [made(i, i, i + 1, none=-float(i)) for i in range(1, 5)]
    assert [p.id for p in best_evidence(drafts, besides={passage(5).id})] == [passage(4).id]
    read = {passage(4).id, passage(5).id}
    assert [p.id for p in best_evidence(drafts, besides=read)] == [passage(3).id]
    assert best_evidence(drafts, besides={passage(i).id for i in range(9)}) == ()
