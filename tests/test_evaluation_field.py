from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from evaluation_fakes import FakeEngine

from specrag_native.config import Config
from specrag_native.errors import ContextFullError, QuestionError
from specrag_native.evaluation.field.asking import yes_no
from specrag_native.evaluation.field.corrective import (
    GRADE,
    CorrectiveOptions,
    CorrectiveRAG,
    strips_of,
)
from specrag_native.evaluation.field.self_reflective import (
    RELEVANCE_TOKENS,
    SUPPORT_TOKENS,
    UTILITY_TOKENS,
    SelfReflectiveRAG,
)
from specrag_native.protocol import (
    Batch,
    Completion,
    GenerateOptions,
    Generation,
    Prompt,
    Score,
    SegmentScore,
)
from specrag_native.types import Hit, Passage, Question, Usage

QUESTION = Question("Where is Zed?")


def hits(*texts: str) -> list[Hit]:
    zero = np.zeros(1, dtype=np.float32)
    return [Hit(Passage(f"p{i}", "d", "", t, end=len(t)), 1.0, zero) for i, t in enumerate(texts)]


class Judge(FakeEngine):
    """Says yes to prompts with certain words in certain degrees, and repeats the last passage."""

    def __init__(self, degrees: dict[str, float], alternatives: dict[str, float] = {}) -> None:  # noqa: B006
        super().__init__()
        self.degrees, self.alternatives = degrees, alternatives
        self.read: list[str] = []

    def score(self, prompts: Sequence[Prompt], **_: Any) -> Batch[Score]:
        out = []
        for prompt in prompts:
            text = "".join(s.text for s in prompt if not s.scored)
            word = next(s.text for s in prompt if s.scored)
            yes = next((p for key, p in self.degrees.items() if key in text), 0.0)
            p = self.alternatives.get(word, yes if word == "Yes" else 1 - yes)
            out.append(Score((SegmentScore((0,), (math.log(max(p, 1e-9)),)),)))
        return Batch(tuple(out), Usage(prefilled=len(prompts)))

    def generate(
        self, prompts: Sequence[Prompt], options: GenerateOptions, **_: Any
    ) -> Batch[Generation]:
        out = []
        for prompt in prompts:
            text = "".join(s.text for s in prompt)
            self.read.append(text)
            found = [w for w in ("Oslo", "Rome", "Bern") if w in text]
            said = found[0] if found else "unknown"
            out.append(Generation((Completion((1,), (-0.1,), f" {said}", "stop"),)))
        return Batch(tuple(out), Usage(decoded=len(prompts)))


def test_a_judgement_is_the_share_of_yes() -> None:
    said, usage = yes_no(Judge({"hill": 0.75, "lake": 0.1}), ["a hill?", "a lake?"])
    assert said == pytest.approx([0.75, 0.1])
    assert usage.prefilled == 4
    assert yes_no(Judge({}), []) == ([], Usage())


def test_corrective_reads_only_what_is_graded_right() -> None:
    engine = Judge({"Oslo": 0.9, "Rome": 0.4, "Bern": 0.05})
    found = CorrectiveRAG(engine, Config()).answer(
        QUESTION, hits=hits("Zed is in Rome.", "Zed is in Oslo.", "Bern is cold.")
    )
    assert found.answer == "Oslo"
    assert "Rome" not in engine.read[-1] and "Bern" not in engine.read[-1]
    assert set(found.timings) == {"retrieve", "grade", "verify", "total"}


def test_corrective_falls_back_to_ambiguous_passages_then_to_none() -> None:
    engine = Judge({"Rome": 0.4, "Bern": 0.05})
    method = CorrectiveRAG(engine, Config())
    given = hits("Zed is in Rome.", "Bern is cold.")
    assert method.answer(QUESTION, hits=given).answer == "Rome"
    assert "Bern" not in engine.read[-1]
    assert method.answer(QUESTION, hits=hits("Bern is cold.")).answer == "unknown"
    assert "Passage" not in engine.read[-1]


def test_corrective_filters_the_strips_of_a_right_passage() -> None:
    class Strict(Judge):
        def score(self, prompts: Sequence[Prompt], **_: Any) -> Batch[Score]:
            self.n_score += 1
            self.degrees = {"Oslo": 0.9} if self.n_score == 1 else {"Oslo": 0.9, "Snow": 0.0}
            return super().score(prompts)

    text = "Snow falls. It is cold. Zed lives in Oslo. He likes it."
    engine = Strict({})
    CorrectiveRAG(engine, Config()).answer(QUESTION, hits=hits(text))
    assert "Oslo" in engine.read[-1] and "Snow" not in engine.read[-1]


def test_strips_are_verbatim_runs_of_sentences() -> None:
    text = "One here. Two here. Three here."
    strips = strips_of(Passage("p", "d", "T", text, start=10, end=10 + len(text)), 2)
    assert [s.text for s in strips] == ["One here. Two here.", "Three here."]
    assert all(text[s.start - 10 : s.end - 10] == s.text for s in strips)
    assert CorrectiveOptions().sentences_per_strip == 2
    assert "Yes or No" in GRADE


def test_self_reflective_takes_the_answer_with_the_best_critiques() -> None:
    engine = Judge({"Oslo": 0.2, "Rome": 0.9, "Bern": 0.5})
    found = SelfReflectiveRAG(engine, Config()).answer(
        QUESTION, hits=hits("Oslo it is.", "Rome it is.", "Bern it is.")
    )
    assert found.answer == "Rome"
    assert found.confidence == pytest.approx(0.9)
    assert len(engine.read) == 3 and all(text.count("Passage:") == 1 for text in engine.read)


def test_reflection_tokens_are_read_where_the_model_has_them() -> None:
    alternatives = {
        RELEVANCE_TOKENS[0]: 0.6,
        RELEVANCE_TOKENS[1]: 0.2,
        SUPPORT_TOKENS[0]: 0.5,
        SUPPORT_TOKENS[1]: 0.2,
        SUPPORT_TOKENS[2]: 0.3,
        **dict.fromkeys(UTILITY_TOKENS, 0.1),
    }
    engine = Judge({}, alternatives)
    found = SelfReflectiveRAG(engine, Config(), reflection_tokens=True).answer(
        QUESTION, hits=hits("Oslo it is.")
    )
    assert found.answer == "Oslo"
    assert found.confidence == pytest.approx(0.5 + 0.5 * 0.2)
    assert engine.read[0].startswith("### Instruction:\n")
    assert found.usage["verifier"].prefilled == 2 + 3 + 5


@pytest.mark.parametrize("method", [CorrectiveRAG, SelfReflectiveRAG])
def test_passages_come_from_the_search_when_none_are_given(method: Any) -> None:
    engine = Judge({"Oslo": 0.9})
    found = method(engine, Config(), lambda text: hits("Oslo it is.")).answer(QUESTION, hits=None)
    assert found.answer == "Oslo"
    with pytest.raises(QuestionError, match="no index"):
        method(engine, Config()).answer(QUESTION, hits=None)


def test_no_passages_are_no_answer() -> None:
    found = SelfReflectiveRAG(Judge({}), Config()).answer(QUESTION, hits=[])
    assert found.decided_by == "abstain"


@pytest.mark.parametrize("method", [CorrectiveRAG, SelfReflectiveRAG])
def test_too_long_a_passage_is_the_users_to_mend(method: Any) -> None:
    class Full(Judge):
        def score(self, prompts: Sequence[Prompt], **_: Any) -> Batch[Score]:
            raise ContextFullError("full", n_tokens=9, n_ctx=8)

    with pytest.raises(QuestionError, match="needs 9 tokens and 8 fit"):
        method(Full({}), Config()).answer(QUESTION, hits=hits("Oslo."))
