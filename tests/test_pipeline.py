"""The whole method on an engine with known words: who decides, what is told, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native import prompts
from specrag_native.answering.answer_text import settled
from specrag_native.answering.pipeline import Pipeline
from specrag_native.config import Config
from specrag_native.errors import ContextFullError, QuestionError
from specrag_native.events import Answered, AnswerText, DraftText, Event, Retrieved, Verified
from specrag_native.prompts import ABSTAIN_TEXT
from specrag_native.types import Question
from tests.fakes import FakeEngine, FakeModels, SlowEngine, hits


def write_by_passage(prompt: str) -> tuple[str, ...]:
    """A drafter that knows the answer only from passage 3; a verifier that reads."""
    if "Reply with the answer only" in prompt:
        return ("three",)
    if "Fact number 3 is here." in prompt:
        return ("Fact number 3 is here.", "three")
    return ("nothing", "unknown")


def yes(text: str) -> float:
    return {"Yes": -0.05, "No": -3.0}.get(text, -0.5)


def no(text: str) -> float:
    return {"Yes": -3.0, "No": -0.05}.get(text, -0.5)


def pipeline(
    config: Config = Config(), verifier: FakeEngine | None = None
) -> tuple[Pipeline, FakeEngine, FakeEngine]:
    drafter = FakeEngine(write_by_passage, yes)
    verifier = verifier or FakeEngine(lambda prompt: ("three",), yes)
    return Pipeline(FakeModels(drafter, verifier), config=config), drafter, verifier


def test_the_draft_that_found_the_evidence_answers() -> None:
    rag, drafter, verifier = pipeline()
    answer = rag.answer("How many?", hits=hits(8))
    assert answer.answer == "three"
    assert answer.decided_by == "speculative"
    assert answer.rationale == "Fact number 3 is here."
    assert len(drafter.generated) == 5
    assert len(verifier.scored) == 2
    assert 0.9 < answer.confidence <= 1.0
    assert answer.support == 1.0
    (citation,) = answer.citations
    assert (citation.document, citation.text) == ("doc3.txt", "Fact number 3 is here.")


def test_every_stage_is_timed_and_every_token_counted() -> None:
    rag, _, _ = pipeline()
    answer = rag.answer("How many?", hits=hits(8))
    assert {"retrieve", "cluster", "draft", "verify", "cite", "total"} <= set(answer.timings)
    assert answer.timings["total"] >= answer.timings["draft"] >= 0.0
    assert answer.timings["total"] >= answer.timings["first_event"] >= answer.timings["retrieve"]
    assert answer.usage["drafter"].prefilled == 50
    assert answer.usage["verifier"].prefilled == 20
    assert answer.models == {"drafter": "fake.gguf", "verifier": "fake.gguf"}


def test_events_come_in_order() -> None:
    rag, _, _ = pipeline()
    events: list[object] = []
    answer = rag.answer("How many?", hits=hits(8), on_event=events.append)
    assert isinstance(events[0], Retrieved)
    assert len(events[0].hits) == 8
    assert isinstance(events[-3], Verified)
    assert events[-2] == AnswerText("three")
    assert events[-1] == Answered(answer)
    drafted = [e for e in events if isinstance(e, DraftText)]
    assert {e.draft for e in drafted} == {0, 1, 2, 3, 4}
    assert {e.part for e in drafted} == {"rationale", "answer"}


def test_drafts_that_all_say_unknown_abstain_without_the_verifier() -> None:
    rag, _, verifier = pipeline(Config(repair="off"))
    answer = rag.answer("How many?", hits=hits(3))
    assert answer.decided_by == "abstain"
    assert answer.answer == ABSTAIN_TEXT
    assert answer.confidence == 0.0
    assert answer.citations == ()
    assert verifier.scored == []


def test_an_answer_the_verifier_does_not_believe_is_withheld() -> None:
    rag, _, _ = pipeline(Config(repair="off"), FakeEngine(lambda prompt: ("three",), no))
    answer = rag.answer("How many?", hits=hits(8))
    assert answer.decided_by == "abstain"
    assert answer.confidence < 0.2


def passages_in(prompt: str) -> int:
    return prompt.count("Passage:")


def test_repair_reads_only_the_best_drafts_passages_and_the_best_hit() -> None:
    verifier = FakeEngine(lambda prompt: ("three",), no)
    rag, _, _ = pipeline(verifier=verifier)
    answer = rag.answer("How many?", hits=hits(8))
    assert (answer.decided_by, answer.answer) == ("repair", "three")
    (prompt,) = verifier.generated
    assert passages_in(prompt) <= 3
    assert "Fact number 3 is here." in prompt
    assert "Fact number 0 is here." in prompt


def test_repair_reads_the_others_when_those_do_not_hold_the_answer() -> None:
    verifier = FakeEngine(lambda p: ("four",) if passages_in(p) == 8 else ("unknown",), no)
    rag, _, _ = pipeline(verifier=verifier)
    answer = rag.answer("How many?", hits=hits(8))
    assert (answer.decided_by, answer.answer) == ("standard", "four")
    few, all_ = verifier.generated
    shared = few[: few.index("Question:")]
    assert all_.startswith(shared)  # what was read is not read again


def test_a_repair_that_finds_nothing_abstains() -> None:
    for repair, calls in (("subset", 1), ("all", 2)):
        verifier = FakeEngine(lambda prompt: ("unknown",), no)
        rag, _, _ = pipeline(Config.from_mapping({"repair": repair}), verifier)
        answer = rag.answer("How many?", hits=hits(8))
        assert (answer.decided_by, answer.citations) == ("abstain", ())
        assert len(verifier.generated) == calls


class Recorder(list[Event]):
    """Events, in order."""

    @property
    def answer(self) -> str:
        return "".join(e.text for e in self if isinstance(e, AnswerText))


@pytest.mark.parametrize("method", ["speculative", "standard", "drafter"])
@pytest.mark.parametrize("n", [0, 3, 8])
def test_the_pieces_of_the_answer_are_the_answer(method: Any, n: int) -> None:
    rag, _, _ = pipeline(verifier=SlowEngine(lambda p: (" one two three.",), no, step_s=0.0))
    events = Recorder()
    answer = rag.answer("How many?", hits=hits(n), method=method, on_event=events.append)
    assert events.answer == answer.answer


def test_what_standard_writes_is_shown_as_it_is_written() -> None:
    rag, _, _ = pipeline(verifier=SlowEngine(lambda p: ("the old red door",), no, step_s=0.0))
    events = Recorder()
    answer = rag.answer("Which?", hits=hits(8), method="standard", on_event=events.append)
    assert answer.answer == "the old red door"
    pieces = [e.text for e in events if isinstance(e, AnswerText)]
    assert pieces == ["the old", " red", " door"]  # "the" could have become "the answer is:"


def test_a_text_that_is_dropped_is_never_shown() -> None:
    def write(prompt: str) -> tuple[str]:
        return ("Ulaanbaatar" if passages_in(prompt) < 8 else "not one but four",)

    rag, _, _ = pipeline(verifier=SlowEngine(write, no, step_s=0.0))
    events = Recorder()
    answer = rag.answer("How many?", hits=hits(8), on_event=events.append)
    assert (answer.decided_by, answer.answer) == ("standard", "not one but four")
    assert [e.text for e in events if isinstance(e, AnswerText)] == ["not one but four"]


# What is certain of an answer that is still being written


@given(st.text(st.sampled_from("nTtouhekw asrpgdicv/.:'\"*`A\n"), max_size=60), st.integers(0, 60))
def test_what_is_settled_stands(text: str, at: int) -> None:
    question = Question("Who?")
    shown, answer = settled(text[:at], question), prompts.read_answer(text, question)
    assert answer.startswith(shown)
    assert settled(text, question).startswith(shown)


@pytest.mark.parametrize("task", ["claim", "choice"])
def test_claims_and_choices_are_shown_when_they_are_read(task: Any) -> None:
    assert settled("That is true", Question("It is.", task, {"A": "this", "B": "that"})) == ""


def test_standard_reads_all_passages_and_drafts_nothing() -> None:
    rag, drafter, verifier = pipeline()
    answer = rag.answer("How many?", hits=hits(8), method="standard")
    assert (answer.decided_by, answer.answer) == ("standard", "three")
    assert drafter.generated == []
    assert verifier.generated[0].count("Passage:") == 8


def test_the_drafter_alone_is_never_verified() -> None:
    rag, _, verifier = pipeline()
    answer = rag.answer("How many?", hits=hits(8), method="drafter")
    assert (answer.decided_by, answer.answer) == ("drafter", "three")
    assert verifier.scored == verifier.generated == []


def test_no_passages_abstain() -> None:
    rag, _, _ = pipeline()
    assert rag.answer("How many?", hits=[]).decided_by == "abstain"


@pytest.mark.parametrize("question", ["", "  ", Question("\n")])
def test_an_empty_question_is_refused(question: str | Question) -> None:
    rag, _, _ = pipeline()
    with pytest.raises(QuestionError, match="empty"):
        rag.answer(question, hits=hits(3))


def test_without_hits_and_without_an_index_it_says_so() -> None:
    rag, _, _ = pipeline()
    with pytest.raises(QuestionError, match="index"):
        rag.answer("How many?")


def test_a_question_that_does_not_fit_is_the_users_to_shorten() -> None:
    class Full(FakeEngine):
        def generate(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            raise ContextFullError("full", n_tokens=9000, n_ctx=4096)

    rag = Pipeline(FakeModels(Full(), FakeEngine()))
    with pytest.raises(QuestionError, match="9000 tokens and 4096 fit"):
        rag.answer("How many?", hits=hits(3))


def test_the_answer_as_json_has_the_promised_fields() -> None:
    rag, _, _ = pipeline()
    data = rag.answer("How many?", hits=hits(8)).to_dict()
    assert {
        *("question", "answer", "rationale", "confidence", "decided_by", "citations", "drafts"),
        *("timings", "tokens", "models", "support", "repairs", "skipped", "left_out"),
    } <= set(data)
    assert set(data["citations"][0]) == {"document", "title", "start", "end", "text", "page"}
    known = next(d for d in data["drafts"] if d["verified"])
    assert set(known["scores"]) == {"draft", "self_containment", "self_reflection", "total"}
    assert set(data["tokens"]["drafter"]) == {"prefilled", "reused", "decoded"}
