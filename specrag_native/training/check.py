"""How well a model drafts: measures on held-back examples, run through the engine.

Law: every example is drafted as at answering time, greedily, from the subset it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from specrag_native import prompts
from specrag_native.answering.citations import cite
from specrag_native.answering.drafter import read_draft
from specrag_native.config import Config
from specrag_native.evaluation.metrics import grade
from specrag_native.protocol import Engine, GenerateOptions, Segment
from specrag_native.training.examples import DraftExample
from specrag_native.types import Draft, Subset


@dataclass(frozen=True, slots=True)
class Checked:
    """One example with what the model wrote. ``loss``: nats per token of the wanted completion."""

    example: DraftExample
    draft: Draft
    right: bool
    support: float
    n_rationale_tokens: int
    loss: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Measures:
    """Means over held-back examples.

    ``right``: share of the answerable examples answered right; ``unknown_recall``: share of the
    others where the draft says so; ``unknown_precision``: share of the drafts that say so which are
    right to; ``support``: mean supported share of the rationales of drafts with an answer;
    ``malformed``: share of drafts with an empty rationale or answer.
    """

    examples: int
    answerable: int
    loss: float
    right: float
    unknown_recall: float
    unknown_precision: float
    support: float
    rationale_tokens: float
    malformed: float


def check(
    engine: Engine, examples: Sequence[DraftExample], *, config: Config = Config(), batch: int = 8
) -> Iterator[Checked]:
    """Draft every example and yield what came of it, in order."""
    options = GenerateOptions(
        stages=prompts.drafter_stages(
            max_rationale_tokens=config.max_rationale_tokens,
            max_answer_tokens=config.max_answer_tokens,
            unknown_above=config.unknown_above,
            form=config.draft_form,
        )
    )
    for start in range(0, len(examples), batch):
        chunk = examples[start : start + batch]
        asked = [
            prompts.drafter_prompt(
                engine,
                e.question,
                e.passages,
                standalone=config.layout == "standalone",
                form=config.draft_form,
            )
            for e in chunk
        ]
        wanted = [
            (
                *prompt,
                *_scored(prompts.drafter_completion(e.rationale, e.answer, form=config.draft_form)),
            )
            for prompt, e in zip(asked, chunk, strict=True)
        ]
        scores = engine.score(wanted)
        for example, generation, score in zip(
            chunk, engine.generate(asked, options), scores, strict=True
        ):
            draft = read_draft(
                example.question, Subset(example.passages), generation, form=config.draft_form
            )
            spans = [segment.logprob for segment in score.segments]
            parts = prompts.DRAFT_PARTS[config.draft_form]
            written = dict(zip(parts, generation.completions, strict=False))
            yield Checked(
                example=example,
                draft=draft,
                right=grade(draft.answer, example.question, example.answers).right > 0,
                support=cite(draft.rationale, draft.answer, example.passages).support,
                n_rationale_tokens=len(written["rationale"].tokens)
                if "rationale" in written
                else 1,
                loss=-sum(s.logprob_sum for s in spans),
                n_tokens=sum(s.n_tokens for s in spans),
            )


def _scored(completion: tuple[Segment, Segment, Segment]) -> tuple[Segment, ...]:
    first, between, second = completion
    return Segment(first.text, scored=True), between, Segment(second.text, scored=True)


def measure(checked: Sequence[Checked]) -> Measures:
    """Summarise; shares of nothing are 0."""

    def share(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    known = [c for c in checked if not c.example.unknown]
    silent = [c for c in checked if c.draft.unknown]
    return Measures(
        examples=len(checked),
        answerable=len(known),
        loss=sum(c.loss for c in checked) / max(1, sum(c.n_tokens for c in checked)),
        right=share([c.right and not c.draft.unknown for c in known]),
        unknown_recall=share([c.draft.unknown for c in checked if c.example.unknown]),
        unknown_precision=share([c.example.unknown for c in silent]),
        support=share([c.support for c in checked if not c.draft.unknown]),
        rationale_tokens=share([c.n_rationale_tokens for c in checked]),
        malformed=share([not c.draft.answer or not c.draft.rationale for c in checked]),
    )
