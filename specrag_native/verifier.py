"""The algebra of the scores: drafts in, verdicts out, in one forward pass (paper section 3.4).

Law: every score is a natural logarithm until a person sees it, and the verifier never reads a
passage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from specrag_native import prompts
from specrag_native.config import Config, Normalisation
from specrag_native.protocol import CancelFlag, Engine, Prompt, Score
from specrag_native.types import Draft, LogprobSpan, Question, Scores, Usage, Verdict


def log_add(a: float, b: float) -> float:
    """Return ``log(exp(a) + exp(b))``."""
    high, low = max(a, b), min(a, b)
    if high == -math.inf:
        return high
    return high + math.log1p(math.exp(low - high))


def span_score(span: LogprobSpan, normalisation: Normalisation) -> float:
    """Return the log-probability of a run of tokens: per token (``mean``) or of all (``sum``)."""
    return span.logprob_mean if normalisation == "mean" else span.logprob_sum


def draft_score(draft: Draft, normalisation: Normalisation) -> float:
    """Return the log of rho_Draft = P(rationale) + P(answer given rationale)."""
    return log_add(
        span_score(draft.rationale_logprob, normalisation),
        span_score(draft.answer_logprob, normalisation),
    )


class Verifier:
    """Scores drafts by self-containment and self-reflection."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine = engine
        self._config = config

    def verify(
        self, question: Question, drafts: Sequence[Draft], *, cancel: CancelFlag | None = None
    ) -> tuple[list[Verdict], Usage]:
        """Score every draft that is not ``unknown``; the verdicts keep the order of the drafts.

        Drafts with the same answer and rationale are scored once. Raises ``Cancelled`` when
        cancelled.
        """
        texts = list(dict.fromkeys((d.answer, d.rationale) for d in drafts if not d.unknown))
        scored: dict[tuple[str, str], tuple[Score, Score]] = {}
        usage = Usage()
        if texts:
            pairs: list[Prompt] = []
            for answer, rationale in texts:
                pairs += prompts.verifier_prompts(
                    self._engine,
                    question,
                    answer,
                    rationale,
                    layout=self._config.verifier_layout,
                    reflection=self._config.reflection,
                )
            batch = self._engine.score(pairs, cancel=cancel)
            usage = batch.usage
            scored = {text: (batch[2 * i], batch[2 * i + 1]) for i, text in enumerate(texts)}
        return [self._verdict(d, scored.get((d.answer, d.rationale))) for d in drafts], usage

    def _verdict(self, draft: Draft, scored: tuple[Score, Score] | None) -> Verdict:
        config = self._config
        own = draft_score(draft, config.normalisation)
        if draft.unknown or scored is None:
            return Verdict(draft, Scores(draft=own), verified=False)
        yes, no = scored
        *parts, yes_part = yes.segments
        contained = LogprobSpan(
            sum(p.logprob.logprob_sum for p in parts), sum(p.logprob.n_tokens for p in parts)
        )
        log_yes, log_no = yes_part.logprob.logprob_sum, no.segments[0].logprob.logprob_sum
        self_containment = span_score(contained, config.normalisation)
        total = (
            config.use_draft_score * own
            + config.use_self_containment * self_containment
            + config.use_self_reflection * log_yes
        )
        return Verdict(
            draft,
            Scores(
                draft=own,
                self_containment=self_containment,
                self_reflection=log_yes,
                total=total,
            ),
            verified=True,
            support=math.exp(log_yes - log_add(log_yes, log_no)),
            contained=contained,
        )


def best(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the verified verdict with the highest total, the first among equals."""
    verified = [v for v in verdicts if v.verified]
    return max(verified, key=lambda v: v.scores.total, default=None)
