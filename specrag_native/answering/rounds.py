"""Rounds of drafting and verification of one question, and what they come to together.

Law: a finished draft is never lost, and no draft is verified that cannot change the answer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from specrag_native.answering.budget import tokens_in
from specrag_native.answering.confidence import borne_out, ceiling, confidence, draft_confidence
from specrag_native.answering.drafter import Drafter
from specrag_native.answering.evidence import undrafted
from specrag_native.answering.grounding import echoes, is_judgement
from specrag_native.answering.links import asked_first
from specrag_native.answering.run import Models, Run
from specrag_native.answering.subsets import draw_subsets
from specrag_native.answering.verifier import Scored, Verifier, best, judge
from specrag_native.config import Config
from specrag_native.events import DraftText, Verified
from specrag_native.prompts import DRAFT_PARTS
from specrag_native.types import Draft, Subset, Verdict

RELEVANT = 0.5
"""Probability that the best passage answers, by a cross-encoder that ranked the passages. Under it
a draft about a claim is not taken as it stands, as of what passages do not speak of drafts say
"false". Drafts that answer a question need no more than ``irrelevant_below``."""
UNLIKELY = 0.1
"""The same, from which on drafts are not believed that there is no answer."""


def drafts_decide(run: Run, config: Config) -> float | None:
    """Return the confidence from which on a draft is the answer, unverified and before any reading.

    ``None`` where drafts come when ``repair`` says, and are judged by the verifier: where they may
    not decide, or the question takes several passages and a draft sees one.
    """
    if not config.repair_steps or run.question.task == "choice" or run.hops:
        return None
    return config.claims_above if run.question.task == "claim" else config.questions_above


class Rounds:
    """The drafts of one question, their verdicts, and the best of them.

    ``winner`` is the best verdict, if any draft has an answer, and ``trust`` the confidence in it.
    """

    def __init__(self, run: Run, models: Models, config: Config) -> None:
        self.verdicts: list[Verdict] = []
        self.winner: Verdict | None = None
        self.trust = 0.0
        self._run, self._models, self._config = run, models, config
        self._drafts: list[Draft] = []
        self._begun = 0
        self._scored = Scored()
        self._asks = run.question.task not in ("claim", "choice")

    @property
    def confident(self) -> bool:
        """Whether the best draft is good enough to be the answer as it stands.

        One that only repeats the question is not: it says nothing, or chose between two things
        that the question names, of which its passage often holds but one.
        """
        if self.winner is None:
            return False
        config, draft = self._config, self.winner.draft
        least = drafts_decide(self._run, config)
        if least is None:
            return self.trust >= config.repair_below
        if self._run.relevance < (config.irrelevant_below if self._asks else RELEVANT):
            return False
        if self._asks and echoes(draft.answer, self._run.question):
            return False
        if self._asks and config.linked_above is not None and self._may_take_two(draft):
            if is_judgement(draft.answer):
                return False
            least = config.linked_above
        return self.trust >= least

    def _may_take_two(self, draft: Draft) -> bool:
        """Whether no other bears a draft out, and another drafted passage is linked to its own."""
        if borne_out(draft, self._drafts):
            return False
        own = set(draft.subset.ids)
        friends = frozenset().union(*(self._run.links.linked[i] for i in own)) - own
        return any(i in friends for d in self._drafts for i in d.subset.ids)

    @property
    def silent(self) -> bool:
        """Whether every draft is so sure that nothing is there that reading would be in vain.

        The cross-encoder must find it unlikely that a passage answers: drafts overlook answers, and
        read each passage alone where the answer may take two.
        """
        above = self._config.silent_above
        if above is None or drafts_decide(self._run, self._config) is None or not self._asks:
            return False
        if self._config.rerank and self._run.relevance >= UNLIKELY:
            return False
        least = math.log(max(above, 1e-9))
        nothing = [d.unknown_logprob for d in self._drafts]
        return bool(nothing) and all(x is not None and x >= least for x in nothing)

    # --- Drafting --------------------------------------------------------------------------------

    def draft(self, besides: Collection[str] = ()) -> None:
        """Write drafts from the first subsets, of all passages ``besides`` some (ids)."""
        if len(besides) >= len(self._run.hits):
            return
        with self._run.stage("cluster"):
            subsets = self._draw(self._config.n_drafts, self._config.seed, besides)
        self._write(subsets)

    def redraft(self) -> bool:
        """Write drafts from as many other subsets, or more, so that no passage is left out.

        Returns:
            Whether there were any new drafts.
        """
        config, run = self._config, self._run
        with run.stage("cluster"):
            subsets = self._others()
            left_out = len(undrafted(self.verdicts, run.hits))
            per_draft = max((len(s.ids) for s in subsets), default=1)
            subsets = subsets[: max(config.n_drafts, math.ceil(left_out / per_draft))]
        if not subsets:
            return False
        if not run.budget.fits("drafter", _tokens(subsets[0])):
            run.budget.leave_out("redrafting")
            return False
        known = len(self._drafts)
        self._write(subsets, "further drafts")
        return len(self._drafts) > known

    def _draw(self, m: int, seed: int, besides: Collection[str] = ()) -> list[Subset]:
        config, run = self._config, self._run
        if run.vector is None:
            run.vector = self._models.embedder.embed([run.question.text])[0]
        vector, hits = run.vector, [h for h in run.hits if h.passage.id not in besides]
        if config.draft_order == "named":
            if not run.ranked:
                hits.sort(key=lambda hit: -float(hit.vector @ vector))
            hits = asked_first(run.links, hits)
        return draw_subsets(
            hits,
            vector,
            m=m,
            k=config.passages_per_draft,
            strategy=config.subsets,
            conditioning=config.conditioning,
            seed=seed,
        )

    def _others(self) -> list[Subset]:
        """Return subsets not drafted yet, those first that hold most of what no answer came from.

        They are the ones that would have been drawn next, then those of another clustering.
        """
        seen = {frozenset(d.subset.ids) for d in self._drafts}
        used = {i for d in self._drafts if not d.unknown for i in d.subset.ids}
        others: dict[frozenset[str], Subset] = {}
        most = max(4 * self._config.n_drafts, len(self._run.hits))
        for seed in (self._config.seed, self._config.seed + 1):
            for subset in self._draw(len(seen) + most, seed):
                if (ids := frozenset(subset.ids)) not in seen:
                    others.setdefault(ids, subset)
        return sorted(others.values(), key=lambda s: -len(set(s.ids) - used))

    def _write(self, subsets: Sequence[Subset], what: str = "drafts") -> None:
        """Draft as many subsets as fit, and keep every draft that is finished."""
        run, config, engine = self._run, self._config, self._models.drafter
        tokens = max(_tokens(s) for s in subsets)
        each = config.drafts_per_subset
        left, wanted, finished = list(subsets), len(subsets) * each, 0
        with run.stage("draft"):
            # Under a budget, what fits is known once the drafter has run: one draft, then others.
            for _ in range(2):
                if not left or run.time_is_up or (self._drafts and not run.budget.left):
                    break
                n = run.budget.drafts(
                    len(left),
                    tokens=tokens,
                    decoded=config.max_rationale_tokens * each,
                    n_written=config.n_written,
                )
                now, left = left[:n], left[n:]
                drafts, usage = Drafter(engine, config).draft(
                    run.question, now, on_text=self._show, cancel=run.flag
                )
                self._begun += len(now) * each
                self._drafts += _said_once(drafts)
                finished += len(drafts)
                run.add("drafter", usage)
        run.check()
        if finished < wanted:
            run.budget.leave_out(f"{wanted - finished} of {wanted} {what}")

    def _show(self, draft: int, stage: int, text: str) -> None:
        part = DraftText(self._begun + draft, DRAFT_PARTS[self._config.draft_form][stage], text)
        self._run.emit(part)

    # --- Verification ----------------------------------------------------------------------------

    def verify(self, *, reads_next: bool = False) -> None:
        """Judge all drafts so far; what the verifier has scored before is not scored again.

        ``reads_next``: the verifier will read passages unless a draft is good enough. Then it need
        not judge drafts of which none can be (``verify="auto"``).
        """
        run = self._run
        known = [d for d in self._drafts if not d.unknown]
        texts = {(d.answer, d.rationale) for d in known} - self._scored.texts.keys()
        tokens = sum(tokens_in(run.question.text, *text) for text in texts)
        if texts and not (reads_next and self._pointless(known)):
            if run.budget.fits("verifier", tokens):
                self._score()
            else:
                run.budget.leave_out("verification")
        self.decide()

    def _score(self) -> None:
        run, verifier = self._run, Verifier(self._models.verifier, self._config)
        with run.stage("verify"), run.may_be_cut("verification"):
            try:
                verifier.verify(
                    run.question,
                    self._drafts,
                    scored=self._scored,
                    one_by_one=run.budget.limited,
                    cancel=run.flag,
                )
            finally:
                run.add("verifier", self._scored.usage)

    def _pointless(self, known: Sequence[Draft]) -> bool:
        """Return whether no draft can reach ``repair_below``, whatever the verifier says of it."""
        config = self._config
        if config.verify != "auto":
            return False
        if drafts_decide(self._run, config) is not None:
            name = "claims_above" if self._run.question.task == "claim" else "questions_above"
            self._skip(f"verification: a draft is the answer, or the verifier reads ({name})")
            return True
        if config.repair_below >= 1.0:
            self._skip("verification: no draft is taken as it stands (repair_below 1)")
            return True
        if not config.confidence_weights:
            return False
        most = max(ceiling(d, self._drafts, config.confidence_weights) for d in known)
        if most >= config.repair_below:
            return False
        self._skip(
            f"verification: no draft could reach a confidence of {config.repair_below:.0%}, "
            f"at most {math.floor(100 * most)}%"
        )
        return True

    def _skip(self, what: str) -> None:
        if what not in self._run.skipped:
            self._run.skipped.append(what)

    def decide(self) -> None:
        """Choose among all drafts by what is known of them so far."""
        config = self._config
        self.verdicts = judge(self._drafts, self._scored, config)
        self.winner = best(self.verdicts)
        weights = config.draft_weights
        unjudged = [v for v in self.verdicts if not (v.draft.unknown or v.verified)]
        if self.winner is not None and weights and self._asks and not self.winner.verified:
            trusts = [draft_confidence(v.draft, self._drafts, weights) for v in unjudged]
            self.trust = max(trusts)
            self.winner = unjudged[trusts.index(self.trust)]
        elif self.winner is not None:
            self.trust = confidence(self.winner, self.verdicts, config.confidence_weights)
        self._run.emit(Verified(tuple(self.verdicts)))


def _tokens(subset: Subset) -> float:
    return tokens_in(*(p.text for p in subset.passages))


def _said_once(drafts: Sequence[Draft]) -> list[Draft]:
    """Return drafts without those that say once more that a subset holds no answer."""
    silent: set[tuple[str, ...]] = set()
    out = []
    for draft in drafts:
        if not (draft.unknown and draft.subset.ids in silent):
            out.append(draft)
        if draft.unknown:
            silent.add(draft.subset.ids)
    return out
