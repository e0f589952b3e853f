"""The vocabulary of the package: read-only values that modules hand to each other.

Law: a value here holds facts and derives what follows from them; it never does work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

Task = Literal["qa", "claim", "choice"]
"""Kind of question: free answer, true/false claim, multiple choice."""

DecidedBy = Literal["speculative", "repair", "standard", "drafter", "abstain"]
"""Which step of the method gave the answer."""

RepairStep = Literal[
    "draft",
    "redraft",
    "rationales",
    "short",
    "best",
    "subset",
    "named",
    "pair",
    "linked",
    "sentences",
    "extracts",
    "more",
    "all",
]
"""What can be done when no draft is good enough; see ``Config.repair``."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, the unit of retrieval.

    ``start`` and ``end`` are character offsets into the document's extracted text
    (``text == document_text[start:end]``); ``page`` counts from 1 where the format has pages.
    """

    id: str
    document: str
    title: str
    text: str
    start: int = 0
    end: int = 0
    page: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """A passage that retrieval found.

    ``score`` is the fused retrieval score (higher is better, comparable within one query only);
    ``vector`` is the passage's embedding, float32 of shape ``(d,)``, L2-normalised.
    """

    passage: Passage
    score: float
    vector: FloatArray


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and for multiple choice the options by letter."""

    text: str
    task: Task = "qa"
    choices: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Subset:
    """The passages one draft is written from (the paper's delta), in prompt order."""

    passages: tuple[Passage, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers of the passages, in prompt order."""
        return tuple(p.id for p in self.passages)


@dataclass(frozen=True, slots=True)
class LogprobSpan:
    """Natural-log probability of a run of tokens: its sum and its length in tokens."""

    logprob_sum: float
    n_tokens: int

    @property
    def logprob_mean(self) -> float:
        """Mean natural-log probability per token; 0.0 for an empty run."""
        return self.logprob_sum / self.n_tokens if self.n_tokens else 0.0


@dataclass(frozen=True, slots=True)
class Draft:
    """What the drafter wrote from one subset: rationale (beta), then answer (alpha)."""

    answer: str
    rationale: str
    subset: Subset
    answer_logprob: LogprobSpan
    rationale_logprob: LogprobSpan
    unknown: bool = False
    """True when the drafter said that its passages do not hold the answer."""
    unknown_logprob: float | None = None
    """Natural log of the probability with which it would have said so; ``None``: not measured."""
    outranked: bool = False
    """True when nothing was written, because other subsets were likelier to hold the answer. It is
    ``unknown`` then, too."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one draft (paper section 3.3), all natural logarithms.

    ``self_containment`` and ``self_reflection`` are ``None`` when the draft was not verified;
    ``total`` is the sum of the terms in use, the quantity that is maximised.
    """

    draft: float
    self_containment: float | None = None
    self_reflection: float | None = None
    total: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A draft with its scores; ``verified`` is False when the verifier never read it.

    ``support`` is the verifier's ``P(yes) / (P(yes) + P(no))`` to the self-reflection question,
    in 0..1; ``None`` when not verified. ``contained`` is the verifier's log-probability of the
    answer with the rationale, from which self-containment is derived; ``None`` likewise.
    """

    draft: Draft
    scores: Scores
    verified: bool
    support: float | None = None
    contained: LogprobSpan | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """A span of a source document; ``text`` stands verbatim at ``start``..``end`` of its text."""

    document: str
    title: str
    start: int
    end: int
    text: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and seconds of one or more engine calls.

    ``prefilled``: prompt tokens computed. ``reused``: prompt tokens that were not computed because
    another prompt or an earlier call had computed them. ``decoded``: tokens generated.
    ``proposed``: tokens computed on a guess; ``accepted``: those of them that were right, which
    are among the decoded ones.
    Seconds: ``prefill_s`` and ``decode_s`` inside the library's decode call, ``total_s`` the whole
    call.
    """

    prefilled: int = 0
    reused: int = 0
    decoded: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0
    proposed: int = 0
    accepted: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return the sum of both usages."""
        return Usage(
            prefilled=self.prefilled + other.prefilled,
            reused=self.reused + other.reused,
            decoded=self.decoded + other.decoded,
            prefill_s=self.prefill_s + other.prefill_s,
            decode_s=self.decode_s + other.decode_s,
            total_s=self.total_s + other.total_s,
            proposed=self.proposed + other.proposed,
            accepted=self.accepted + other.accepted,
        )


@dataclass(frozen=True, slots=True)
class Repair:
    """One step of repair that was taken: what it answered and what it cost.

    ``answer`` is empty when the step found none; ``confidence``, 0..1, is that of the best draft
    after ``redraft`` and that of what the verifier wrote after the others. ``decided`` tells
    whether this is the answer that was given. ``usage`` is per model role. ``grounded`` is False
    for an answer that does not stand in what was read, and was therefore not taken; ``probability``
    is the mean probability per token of what the verifier wrote, ``whole`` whether it had read all
    passages by then.
    """

    step: RepairStep
    answer: str
    confidence: float
    decided: bool
    seconds: float
    usage: Mapping[str, Usage] = field(default_factory=dict)
    probability: float = 0.0
    whole: bool = False
    grounded: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a question: the answer with everything that supports it.

    ``confidence`` is in 0..1. ``support`` is the share, 0..1, of the rationale's words (of the
    answer's, without a rationale) in sentences that the cited passages support; ``unsupported``
    names the other sentences. ``timings`` are seconds per stage (``retrieve``, ``cluster``,
    ``draft``, ``verify``, ``repair``, ``cite``), until the first event (``first_event``) and in
    ``total``; ``usage`` is per model role (``drafter``, ``verifier``); ``models`` names the model
    file per role; ``repairs`` are the steps of repair taken, in order; ``skipped`` names what could
    not have changed the answer and was not done; ``left_out`` names what did not fit into the
    budget, and ``too_long`` what did not fit into the verifier's context.
    """

    question: str
    answer: str
    rationale: str
    confidence: float
    decided_by: DecidedBy
    citations: tuple[Citation, ...] = ()
    support: float = 0.0
    unsupported: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    repairs: tuple[Repair, ...] = ()
    skipped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    too_long: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain JSON-ready values (the form ``specrag ask --json`` prints)."""
        return {
            "question": self.question,
            "answer": self.answer,
            "rationale": self.rationale,
            "confidence": self.confidence,
            "decided_by": self.decided_by,
            "support": self.support,
            "unsupported": list(self.unsupported),
            "citations": [
                {
                    "document": c.document,
                    "title": c.title,
                    "start": c.start,
                    "end": c.end,
                    "text": c.text,
                    "page": c.page,
                }
                for c in self.citations
            ],
            "drafts": [
                {
                    "answer": v.draft.answer,
                    "rationale": v.draft.rationale,
                    "unknown": v.draft.unknown,
                    "outranked": v.draft.outranked,
                    "unknown_probability": _probability(v.draft.unknown_logprob),
                    "passages": list(v.draft.subset.ids),
                    "scores": {
                        "draft": None if v.draft.outranked else v.scores.draft,
                        "self_containment": v.scores.self_containment,
                        "self_reflection": v.scores.self_reflection,
                        "total": v.scores.total if v.verified else None,
                    },
                    "support": v.support,
                    "verified": v.verified,
                }
                for v in self.verdicts
            ],
            "repairs": [
                {
                    "step": r.step,
                    "answer": r.answer,
                    "confidence": r.confidence,
                    "decided": r.decided,
                    "grounded": r.grounded,
                    "seconds": r.seconds,
                    "tokens": _tokens(r.usage),
                }
                for r in self.repairs
            ],
            "timings": dict(self.timings),
            "tokens": _tokens(self.usage),
            "models": dict(self.models),
            "skipped": list(self.skipped),
            "left_out": list(self.left_out),
            "too_long": list(self.too_long),
        }


def _probability(logprob: float | None) -> float | None:
    return None if logprob is None else math.exp(logprob)


def _tokens(usage: Mapping[str, Usage]) -> dict[str, dict[str, int]]:
    return {
        role: {"prefilled": u.prefilled, "reused": u.reused, "decoded": u.decoded}
        for role, u in usage.items()
    }
