"""Every prompt of the method, and how to read what a model wrote.

Law: wording lives here and nowhere else; text of documents, questions and models only ever enters a
prompt as plain segments, never as control text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from specrag_native.config import DraftForm, VerifierLayout
from specrag_native.protocol import Prompt, Segment, Stage
from specrag_native.types import Passage, Question

DRAFTER_TASK = (
    "Quote the sentence of the passages that answers the question, then give the answer in as few "
    "words as possible. If the passages do not hold the answer, the answer is: unknown.\n\n"
)
"""Drafters are taught with these words whichever part of a draft they write first."""
DRAFTER_RATIONALE = "Evidence:"
NO_EVIDENCE = "none"
"""The rationale of a draft whose passages do not hold the answer."""
UNKNOWN = "unknown"
DRAFTER_ANSWER = "Answer:"

DRAFT_PARTS: Mapping[
    DraftForm, tuple[Literal["rationale", "answer"], Literal["rationale", "answer"]]
] = {
    "rationale-first": ("rationale", "answer"),
    "answer-first": ("answer", "rationale"),
}
"""The parts of a draft, in the order in which they are written."""

STANDARD_TASK = (
    "Answer the question from the passages. Reply with the answer only, in as few words as "
    "possible, without explanation.\n\n"
)

REPAIR_TASK = (
    "Answer the question from the passages. Reply with the answer only, in as few words as "
    "possible, without explanation. If the passages do not hold the answer, reply: unknown.\n\n"
)

RATIONALE_TASK = (
    "One sentence of the passages shows that the answer is right. Write it as one short sentence "
    "that names what the question asks about and holds the answer. Use only the passages.\n\n"
)
QUESTION_TASK = (
    "Write one short question about a fact of the passage, so that it can be understood without "
    "the passage, then its answer in a few words copied from the passage.\n\n"
)
QUESTION_START = "Question:"

VERIFIER_TASK = "Answer the question and explain the answer in one sentence.\n\n"
REFLECTIONS = (
    "Do you think the explanation supports the answer? (Yes or No)",
    "Does the explanation show that the answer is right? Reply Yes or No.",
    "Is the answer to the question correct, given the explanation? (Yes or No)",
)
YES, NO = "Yes", "No"

ABSTAIN_TEXT = "Your documents do not say."

_UNKNOWN = re.compile(
    r"^(the )?(answer( is)?:? *)?("
    r"unknown|not (known|mentioned|stated|given|specified|provided|available|found|sure|enough)|"
    r"no answer\b|none( of the above)?\b|n/a\b|cannot be determined|unclear\b|"
    r"(the )?(passages?|text|evidence)( do| does)?( not|n't)\b"
    r")",
    re.IGNORECASE,
)


class ChatLayout(Protocol):
    """The part of an engine that prompts need."""

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        """Lay out messages with the model's chat template."""


def plain(text: str) -> Segment:
    """Return text that is never parsed for special tokens."""
    return Segment(text)


def _passage_segments(passages: Sequence[Passage], *, standalone: int = 0) -> tuple[Segment, ...]:
    """Return passages as every prompt words them; ``standalone``: how many of them are."""
    out: list[Segment] = []
    for i, passage in enumerate(passages):
        heading = f"Passage: {passage.title}\n" if passage.title else "Passage:\n"
        text = f"{heading}{passage.text.strip()}\n\n"
        out.append(Segment(text, standalone=i < standalone))
    return tuple(out)


def question_text(question: Question) -> str:
    """Return the question as every prompt words it, with its options where it has some."""
    if question.task == "claim":
        return f"Claim: {question.text}\nIs the claim true or false?"
    if question.task == "choice" and question.choices:
        options = "\n".join(f"{letter}: {text}" for letter, text in question.choices.items())
        return f"Question: {question.text}\n{options}\nAnswer with the letter of the right option."
    return f"Question: {question.text}"


def drafter_prompt(
    engine: ChatLayout,
    question: Question,
    passages: Sequence[Passage],
    *,
    standalone: bool = False,
    form: DraftForm = "rationale-first",
) -> Prompt:
    """Return the prompt of one draft: task, evidence, question, and the start of its first part.

    Evidence stands before the question, so that what was computed for a passage does not depend on
    the question (paper, appendix: the prompt of the drafter; the order is ours). ``standalone``:
    passages do not see each other, so each is computed once for all drafts.
    """
    evidence = _passage_segments(passages, standalone=len(passages) if standalone else 0)
    user = (plain(DRAFTER_TASK), *evidence, plain(question_text(question)))
    start = DRAFTER_ANSWER if form == "answer-first" else DRAFTER_RATIONALE
    return engine.chat([("user", user), ("assistant", (plain(start),))])


def drafter_completion(
    rationale: str, answer: str, *, form: DraftForm = "rationale-first"
) -> tuple[Segment, Segment, Segment]:
    """Return what a draft should read like: its first part, the forced text between, its second.

    The drafter itself writes both parts, the first token of what is forced (which ends the line),
    and the end of the turn.
    """
    if form == "answer-first":
        return plain(f" {answer}"), plain(f"\n{DRAFTER_RATIONALE}"), plain(f" {rationale}")
    return plain(f" {rationale}"), plain(f"\n{DRAFTER_ANSWER}"), plain(f" {answer}")


def drafter_stages(
    *,
    max_rationale_tokens: int,
    max_answer_tokens: int,
    unknown_above: float | None = None,
    form: DraftForm = "rationale-first",
) -> tuple[Stage, ...]:
    """Return the two stages of a draft: rationale and answer in the order of ``form``, a line each.

    Neither can be empty, so a small untuned model cannot leave the answer out. A drafter that finds
    no evidence has no answer to write; it says so from a probability of ``unknown_above`` on, or
    where that is its likeliest beginning.
    """
    lengths = {"answer": max_answer_tokens, "rationale": max_rationale_tokens}
    first, second = DRAFT_PARTS[form]
    nothing = UNKNOWN if first == "answer" else NO_EVIDENCE
    _, between, _ = drafter_completion("", "", form=form)
    return (
        Stage(
            max_tokens=lengths[first],
            min_tokens=1,
            stop=("\n",),
            then=(between,),
            watch=(f" {nothing}",),
            last=(nothing,),
            watch_from=unknown_above or 0.0,
        ),
        Stage(max_tokens=lengths[second], min_tokens=1, stop=("\n",)),
    )


def rationale_prompt(
    engine: ChatLayout, question: Question, passages: Sequence[Passage], answer: str
) -> Prompt:
    """Return the prompt that asks a larger model for a rationale of a known answer.

    The rationale is what a drafter is trained to write (paper section 3.1: question, evidence and
    answer in, rationale out).
    """
    user = (
        plain(RATIONALE_TASK),
        *_passage_segments(passages),
        plain(f"{question_text(question)}\nAnswer: {answer}"),
    )
    return engine.chat([("user", user), ("assistant", (plain(DRAFTER_RATIONALE),))])


def question_prompt(engine: ChatLayout, passage: Passage) -> Prompt:
    """Return the prompt that asks for a question which one passage answers."""
    user = (plain(QUESTION_TASK), *_passage_segments((passage,)))
    return engine.chat([("user", user), ("assistant", (plain(QUESTION_START),))])


def question_stages() -> tuple[Stage, ...]:
    """Return the two stages of a written question: the question, then its answer."""
    return (
        Stage(max_tokens=48, min_tokens=4, stop=("\n",), then=(plain(f"\n{DRAFTER_ANSWER}"),)),
        Stage(max_tokens=24, min_tokens=1, stop=("\n",)),
    )


def standard_prompt(
    engine: ChatLayout,
    question: Question,
    passages: Sequence[Passage],
    *,
    may_abstain: bool = False,
    standalone: int = 1,
) -> Prompt:
    """Return the prompt of standard RAG: all passages, then the question, a short answer.

    Nothing but our words stands before the first passage, so a cache can keep it for later
    questions, at no difference to what the model reads. ``standalone``: of how many passages none
    sees another; from 2 on that is a difference. Claims and choices are judged even where it
    ``may_abstain``: offered a third way out, a small model takes it, or the first word of it.
    """
    task = REPAIR_TASK if may_abstain and question.task == "qa" else STANDARD_TASK
    evidence = _passage_segments(passages, standalone=standalone)
    user = (plain(task), *evidence, plain(question_text(question)))
    return engine.chat([("user", user), ("assistant", (plain("Answer:"),))])


def standard_stages(*, max_answer_tokens: int) -> tuple[Stage, ...]:
    """Return the one stage of a short answer: a single line."""
    return (Stage(max_tokens=max_answer_tokens, min_tokens=1, stop=("\n",)),)


def verifier_prompts(
    engine: ChatLayout,
    question: Question,
    answer: str,
    rationale: str,
    *,
    layout: VerifierLayout = "user",
    reflection: int = 0,
) -> tuple[Prompt, Prompt]:
    """Return the prompts that score one draft, ending in "Yes" and in "No".

    The scored segments of the first are answer, rationale and "Yes", of the second only "No". They
    share all but their last token, which is never computed, so the second costs nothing.
    """
    draft = (
        plain("Answer:"),
        Segment(f" {answer}", scored=True),
        plain("\nExplanation:"),
        Segment(f" {rationale}", scored=True),
    )
    ask = question_text(question)
    wording = REFLECTIONS[reflection]
    if layout == "user":
        user = (plain(f"{ask}\n"), *draft, plain(f"\n\n{wording}"))
        messages: list[tuple[str, tuple[Segment, ...]]] = [("user", user)]
    else:
        messages = [
            ("user", (plain(f"{VERIFIER_TASK}{ask}"),)),
            ("assistant", draft),
            ("user", (plain(wording),)),
        ]
    yes = engine.chat([*messages, ("assistant", (Segment(YES, scored=True),))])
    no = tuple(
        Segment(s.text, control=s.control) if s is not yes[-1] else Segment(NO, scored=True)
        for s in yes
    )
    return yes, no


def read_answer(text: str, question: Question) -> str:
    """Return the answer a model wrote, without decoration; for a choice its letter where clear."""
    answer = text.strip().strip("\"'`*").strip()
    answer = re.sub(r"^(the )?answer( is)?:\s*", "", answer, flags=re.IGNORECASE)
    if question.task == "choice" and question.choices:
        return _read_choice(answer, question.choices)
    if question.task == "claim":
        match = re.search(r"\b(true|false)\b", answer, flags=re.IGNORECASE)
        return match.group(1).lower() if match else answer
    return answer.rstrip(".").strip() if len(answer.split()) <= 8 else answer


def _read_choice(answer: str, choices: object) -> str:
    assert isinstance(choices, dict) or hasattr(choices, "items")
    options = dict(choices.items())
    match = re.match(r"^\(?([A-Za-z0-9])\b", answer)
    if match and match.group(1).upper() in options:
        return match.group(1).upper()
    for letter, text in options.items():
        if text and text.lower() in answer.lower():
            return str(letter)
    return answer


def is_unknown(answer: str) -> bool:
    """Return whether an answer says that the passages do not hold one."""
    return not answer.strip() or _UNKNOWN.match(answer.strip()) is not None
