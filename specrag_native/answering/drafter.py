"""Question and subsets in, drafts out: all subsets are drafted in one batch (paper section 3.3).

Law: a draft's log-probabilities are the drafter's own, read while it writes; nothing is scored
twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from specrag_native import prompts
from specrag_native.answering.subsets import order_for_sharing
from specrag_native.config import Config, DraftForm
from specrag_native.protocol import CancelFlag, Engine, GenerateOptions, Generation, OnText
from specrag_native.types import Draft, LogprobSpan, Question, Subset, Usage


class Drafter:
    """Writes drafts of subsets: a rationale and an answer, in the order of ``draft_form``."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine = engine
        self._standalone = config.layout == "standalone"
        self._form = config.draft_form
        self._each = config.drafts_per_subset
        self._options = GenerateOptions(
            stages=prompts.drafter_stages(
                max_rationale_tokens=config.max_rationale_tokens,
                max_answer_tokens=config.max_answer_tokens,
                unknown_above=config.unknown_above,
                form=config.draft_form,
            ),
            keep=(config.n_written or 0) * config.drafts_per_subset,
            distinct=config.drafts_per_subset > 1,
        )

    def draft(
        self,
        question: Question,
        subsets: Sequence[Subset],
        *,
        on_text: OnText | None = None,
        cancel: CancelFlag | None = None,
    ) -> tuple[list[Draft], Usage]:
        """Write the drafts of each subset, and return those that were finished, or outranked.

        Args:
            question: what is asked.
            subsets: what each draft may read; with several drafts per subset these stand together.
            on_text: called with (draft index, 0 for the first part or 1 for the second, new text).
            cancel: stops the call; drafts that are not finished then are left out.
        """
        drafted = [subset for subset in subsets for _ in range(self._each)]
        batch = self._engine.generate(
            [
                prompts.drafter_prompt(
                    self._engine,
                    question,
                    passages,
                    standalone=self._standalone,
                    form=self._form,
                )
                for passages in order_for_sharing([s.passages for s in drafted])
            ],
            self._options,
            on_text=on_text,
            cancel=cancel,
        )
        drafts = [
            read_draft(question, subset, generation, form=self._form)
            for subset, generation in zip(drafted, batch, strict=True)
            if generation.finish_reason != "cancelled"
        ]
        return drafts, batch.usage


def read_draft(
    question: Question,
    subset: Subset,
    generation: Generation,
    *,
    form: DraftForm = "rationale-first",
) -> Draft:
    """Return the draft that a generation of two stages, in the order of ``form``, holds.

    There is no second stage when the first says that the passages hold no answer, or when nothing
    was written, as other drafts were.
    """
    first, *rest = generation.completions
    unknown_logprob = first.watched[0] if first.watched else None
    if not rest:
        return Draft(
            answer=prompts.UNKNOWN,
            rationale=first.text.strip() if form == "rationale-first" else prompts.NO_EVIDENCE,
            subset=subset,
            rationale_logprob=_span(first.logprob),
            answer_logprob=LogprobSpan(0.0, 1),
            unknown=True,
            unknown_logprob=unknown_logprob,
            outranked=generation.finish_reason == "outranked",
        )
    (second,) = rest
    rationale, answer = (first, second) if form == "rationale-first" else (second, first)
    text = prompts.read_answer(answer.text, question)
    return Draft(
        answer=text,
        rationale=rationale.text.strip(),
        subset=subset,
        rationale_logprob=_span(rationale.logprob),
        answer_logprob=_span(answer.logprob),
        unknown=prompts.is_unknown(text),
        unknown_logprob=unknown_logprob,
    )


def _span(span: LogprobSpan) -> LogprobSpan:
    """An empty stretch has no probability to speak of: it counts as one impossible token."""
    return span if span.n_tokens else LogprobSpan(-100.0, 1)
