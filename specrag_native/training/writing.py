"""What a larger local model writes for training: rationales of known answers, and questions.

Law: nothing it writes is used before a check; what fails falls back to the extracted rationale, or
is dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from specrag_native import prompts
from specrag_native.evaluation.datasets import Example
from specrag_native.evaluation.metrics import contains_answer
from specrag_native.protocol import Engine, GenerateOptions, Stage
from specrag_native.training.examples import DraftExample
from specrag_native.training.rationales import fault, holds_answer
from specrag_native.types import Passage, Question


class RationaleWriter:
    """Writes rationales with a model that is told the answer (paper section 3.1).

    ``faults`` counts why rationales were refused.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self.faults: Counter[str] = Counter()
        self._engine = engine
        self._options = GenerateOptions(stages=(Stage(max_tokens=64, min_tokens=1, stop=("\n",)),))

    def write(self, examples: Sequence[DraftExample]) -> list[DraftExample]:
        """Return the examples; those that can be answered with a new rationale where it is good."""
        known = [i for i, e in enumerate(examples) if not e.unknown]
        asked = [
            prompts.rationale_prompt(
                self._engine, examples[i].question, examples[i].passages, _shown(examples[i])
            )
            for i in known
        ]
        out = list(examples)
        if not asked:
            return out
        for i, generation in zip(known, self._engine.generate(asked, self._options), strict=True):
            example, text = examples[i], " ".join(generation.text.split())
            is_span = holds_answer(example.passages, [_shown(example)])
            wrong = fault(text, example.passages, _shown(example), is_span=is_span)
            if wrong:
                self.faults[wrong] += 1
            else:
                out[i] = replace(example, rationale=text, writer=self.name)
        return out


def _shown(example: DraftExample) -> str:
    question = example.question
    if question.task == "choice" and question.choices:
        return question.choices.get(example.answer, example.answer)
    return example.answer


def write_questions(
    engine: Engine, passages: Iterable[Passage], *, name: str, batch: int = 8
) -> Iterator[Example]:
    """Yield questions that a model writes from plain passages, one per passage at most.

    A question is kept only when its answer stands in the passage and the same model, asked the
    question with the passage, gives that answer again.

    Args:
        engine: the larger model.
        passages: what to ask about.
        name: dataset name of the questions.
        batch: passages per call.
    """
    waiting: list[Passage] = []
    for passage in passages:
        waiting.append(passage)
        if len(waiting) == batch:
            yield from _questions(engine, waiting, name)
            waiting = []
    if waiting:
        yield from _questions(engine, waiting, name)


def _questions(engine: Engine, passages: Sequence[Passage], name: str) -> Iterator[Example]:
    written = engine.generate(
        [prompts.question_prompt(engine, p) for p in passages],
        GenerateOptions(stages=prompts.question_stages()),
    )
    drafts = []
    for passage, generation in zip(passages, written, strict=True):
        text, answer = (" ".join(c.text.split()) for c in generation.completions)
        answer = prompts.read_answer(answer, Question(text or "?"))
        if (
            text.endswith("?")
            and len(text.split()) >= 4
            and contains_answer(passage.text, [answer])
        ):
            drafts.append((passage, text, answer))
    if not drafts:
        return
    again = engine.generate(
        [prompts.standard_prompt(engine, Question(text), (p,)) for p, text, _ in drafts],
        GenerateOptions(stages=prompts.standard_stages(max_answer_tokens=24)),
    )
    for (passage, text, answer), generation in zip(drafts, again, strict=True):
        said = prompts.read_answer(generation.text, Question(text))
        if contains_answer(said, [answer]) or contains_answer(answer, [said]):
            yield Example(
                id=f"{name}-{passage.id}",
                dataset=name,
                question=Question(text),
                answers=(answer,),
                passages=(passage,),
                relevant=frozenset((passage.id,)),
            )
