"""The algebra of the scores: drafts in, verdicts out (paper section 3.4).

Law: every score is a natural logarithm until a person sees it, and the verifier never reads a
passage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class Scored:
    """What the verifier said of the drafts of one question.

    ``texts``: by answer and rationale, the scores of the prompts that end in "Yes" and in "No".
    ``usage``: what the last call used.
    """

    texts: dict[tuple[str, str], tuple[Score, Score]] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


class Verifier:
    """Scores drafts by self-containment and self-reflection."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine = engine
        self._config = config

    def verify(
        self,
        question: Question,
        drafts: Sequence[Draft],
        *,
        scored: Scored | None = None,
        one_by_one: bool = False,
        cancel: CancelFlag | None = None,
    ) -> tuple[list[Verdict], Usage]:
        """Score drafts that are not ``unknown``; the verdicts keep the order of the drafts.

        Drafts with the same answer and rationale are scored once. With ``verify="auto"`` drafts
        that cannot change the answer are not scored; see :class:`~specrag_native.config.Config`.

        Args:
            question: what is asked.
            drafts: what is judged.
            scored: what is known of earlier drafts of the question and not scored again; what is
                scored is added to it at once, so that nothing is lost when the call is cancelled.
            one_by_one: score one draft after another, the most promising first.
            cancel: stops the call; ``Cancelled`` is raised then.
        """
        scored = scored if scored is not None else Scored()
        scored.usage = Usage()
        known = [d for d in drafts if not d.unknown]
        always = self._config.verify == "always"
        rounds = [known] if always else self._candidates(known)
        if one_by_one:
            rounds = [[d] for r in rounds for d in sorted(r, key=self._own, reverse=True)]
        for candidates in rounds:  # before the first, nothing may be known and nothing ruled out
            least = max(
                (v.scores.total for v in judge(known, scored, self._config) if v.verified),
                default=-math.inf,
            )
            wanted = [d for d in candidates if always or self._bound(d) > least]
            self._score(question, wanted, scored, cancel)
        return judge(drafts, scored, self._config), scored.usage

    def _own(self, draft: Draft) -> float:
        return draft_score(draft, self._config.normalisation)

    def _candidates(self, known: Sequence[Draft]) -> list[list[Draft]]:
        """Return the drafts worth scoring: the most promising alone, then one of each other answer.

        Nothing, when several drafts say the same and the drafter is sure of them.
        """
        by_answer: dict[str, list[Draft]] = {}
        for draft in known:
            by_answer.setdefault(answer_key(draft.answer), []).append(draft)
        if len(by_answer) == 1 and len(known) > 1:
            sure = min(d.answer_logprob.logprob_mean for d in known)
            if math.exp(min(0.0, sure)) >= self._config.skip_above:
                return []

        own = self._own
        best_of = sorted((max(same, key=own) for same in by_answer.values()), key=own, reverse=True)
        return [best_of[:1], best_of[1:]] if self._config.use_draft_score else [best_of]

    def _bound(self, draft: Draft) -> float:
        """Return the largest total a draft can reach: both of the verifier's terms at most 0."""
        return self._own(draft) if self._config.use_draft_score else 0.0

    def _score(
        self,
        question: Question,
        drafts: Sequence[Draft],
        scored: Scored,
        cancel: CancelFlag | None,
    ) -> None:
        """Score drafts in one forward pass and add what came of it to ``scored``."""
        wanted = dict.fromkeys((d.answer, d.rationale) for d in drafts)
        texts = [text for text in wanted if text not in scored.texts]
        if not texts:
            return
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
        for i, text in enumerate(texts):
            scored.texts[text] = (batch[2 * i], batch[2 * i + 1])
        scored.usage += batch.usage


def judge(drafts: Sequence[Draft], scored: Scored, config: Config) -> list[Verdict]:
    """Return the verdicts of drafts by what the verifier has said of their texts so far."""
    return [_verdict(d, scored.texts.get((d.answer, d.rationale)), config) for d in drafts]


def _verdict(draft: Draft, scored: tuple[Score, Score] | None, config: Config) -> Verdict:
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


def answer_key(answer: str) -> str:
    """Return what two answers must share to be the same: words, without case and punctuation."""
    return " ".join(re.findall(r"\w+", answer.lower())) or answer


def best(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the verdict with the highest total, the first among equals.

    Where verification was skipped because all drafts agree: the one the drafter believes most.
    """
    verified = [v for v in verdicts if v.verified]
    if verified:
        return max(verified, key=lambda v: v.scores.total)
    known = [v for v in verdicts if not v.draft.unknown]
    return max(known, key=lambda v: v.scores.draft, default=None)
