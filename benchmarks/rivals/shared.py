"""What rivals share: the text of a prompt, the model files, and an answer with its seconds.

Law: a prompt's text comes from the same functions as the project's own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specrag_native import prompts
from specrag_native.chat import lay_out_chat
from specrag_native.config import Config
from specrag_native.native import load_core
from specrag_native.protocol import Prompt, Segment
from specrag_native.types import Answer, Hit, Passage, Question, Usage, Verdict


def llama_cpp() -> Any:
    """Return llama-cpp-python, with its library started as our engine starts it.

    So both compute with the same kernels, and neither with those for AMX, which crash.
    """
    import llama_cpp

    load_core().start_library()
    return llama_cpp


class ChatML:
    """The chat layout of the models measured here, so that a rival needs no engine of ours."""

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        """Lay out messages; the result ends where the assistant's turn begins."""

        def apply(turns: list[tuple[str, str]], add_assistant: bool) -> str:
            text = "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns)
            return text + ("<|im_start|>assistant\n" if add_assistant else "")

        return lay_out_chat(messages, apply)


def text_of(prompt: Prompt) -> str:
    """Return a prompt as one string, as programs around ``llama_cpp.Llama`` build it."""
    return "".join(segment.text for segment in prompt)


def standard_text(question: Question, passages: Sequence[Passage]) -> str:
    """Return the text of the prompt of standard RAG."""
    return text_of(prompts.standard_prompt(ChatML(), question, passages))


def model_path(session: Any, role: str) -> Path:
    """Return the model file of a role in a session of an evaluation."""
    return Path(session.models.path(role))


def threads_of(session: Any) -> int:
    """Return the threads the project's own engine computes with."""
    return int(session.models.verifier.facts.threads)


class Retrieving:
    """A rival with the passages that a session retrieves, where a question brings none.

    Retrieving, some milliseconds, is not counted in the rival's seconds.
    """

    def __init__(self, rival: Any, session: Any, config: Config) -> None:
        self._rival, self._session, self._config = rival, session, config

    def answer(
        self, question: Question, *, hits: Sequence[Hit] | None, question_vector: Any = None
    ) -> Answer:
        """Answer one question from the given passages, or from those that are found."""
        if hits is None:
            question_vector = self._session.models.embedder.embed([question.text])[0]
            hits = self._session.retriever.search_with(
                question.text, question_vector, self._config.top
            )
        answer: Answer = self._rival.answer(question, hits=hits, question_vector=question_vector)
        return answer


def answered(
    question: Question,
    text: str,
    *,
    begin: float,
    usage: dict[str, Usage],
    stages: dict[str, float] | None = None,
    confidence: float = 0.0,
    rationale: str = "",
    verdicts: Sequence[Verdict] = (),
) -> Answer:
    """Return an answer in the project's form, timed since ``begin``."""
    total = time.perf_counter() - begin
    return Answer(
        question=question.text,
        answer=text or prompts.ABSTAIN_TEXT,
        rationale=rationale,
        confidence=confidence,
        decided_by=("speculative" if verdicts else "standard") if text else "abstain",
        verdicts=tuple(verdicts),
        timings={**(stages or {"verify": total}), "total": total},
        usage=usage,
    )


def read(text: str, question: Question) -> str:
    """Return the answer a model wrote, read as the project's own answers are."""
    return prompts.read_answer(text, question)


DEFAULT = Config()
