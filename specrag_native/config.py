"""The settings of the method, validated once.

Law: a setting out of its range or an unknown name is refused with one clear line; nothing is
corrected silently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from specrag_native.errors import ConfigError
from specrag_native.types import RepairStep

SubsetStrategy = Literal["coverage", "random", "one-cluster", "unclustered"]
Conditioning = Literal["product", "residual", "plain"]
Normalisation = Literal["mean", "sum"]
VerifierLayout = Literal["user", "assistant"]
Verify = Literal["always", "auto"]
Layout = Literal["exact", "standalone"]
DraftOrder = Literal["retrieved", "named"]
DraftForm = Literal["rationale-first", "answer-first"]


REPAIR_THRESHOLDS = (
    "claims_above",
    "questions_above",
    "linked_above",
    "multihop_above",
    "silent_above",
    "rationales_above",
    "best_above",
    "best_linked_above",
)
"""Thresholds that say what ``repair`` is left to do; none needs to be set."""
_OPTIONAL = ("unknown_above", *REPAIR_THRESHOLDS)
"""Thresholds that need not be set."""
_WEIGHTS = {"confidence_weights": (7,), "reading_weights": (6,), "draft_weights": (5, 4)}
"""How many numbers each may have, if any."""
_SWITCHES = (
    "rerank",
    "use_draft_score",
    "use_self_containment",
    "use_self_reflection",
    "grounded",
)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of Speculative RAG; the defaults are the project's measured choice."""

    top: int = 10
    """Passages retrieved for a question (the paper's n)."""
    rerank: bool = False
    """Whether a cross-encoder reads the question with each passage and ranks the passages again
    before drafting, so that the best of them are drafted; it costs about a tenth of a draft each,
    and the verifier's own baseline does without."""
    n_drafts: int = 5
    """Subsets drafted (the paper's m); fewer when there are fewer distinct ones."""
    n_written: int | None = None
    """Subsets whose drafts one call of the drafter writes to their end: when all have been read,
    those go on where it is least inclined to say that there is no evidence. ``None``: all."""
    passages_per_draft: int | None = None
    """Passages each draft reads (the paper's k). ``None``: 2, or fewer when fewer were found."""
    drafts_per_subset: int = 1
    """Drafts of each subset: the first begins as is likeliest, the second with the token that is
    next likeliest, and so on, so with ``draft_form`` answer-first each has an answer of its own.
    ``n_drafts`` and ``n_written`` count subsets all the same."""
    draft_order: DraftOrder = "retrieved"
    """Which passages the first drafts read when not all fit into ``n_drafts``. ``retrieved``: the
    best hits. ``named``: those whose titles the question names, then those linked to the first of
    them, as one names the title of the other, then the best hits; hits that were given and not
    retrieved count as best when they are most similar to the question, unless ``rerank`` says."""
    seed: int = 0
    """Seed of clustering and of random subsets."""

    subsets: SubsetStrategy = "coverage"
    """How subsets are drawn. ``coverage``: one passage per cluster, the least used first.
    ``random``: one per cluster at random (the paper). ``one-cluster`` and ``unclustered`` are the
    paper's ablations."""
    conditioning: Conditioning = "product"
    """How passage vectors are conditioned on the question before clustering. ``product``:
    element-wise product with the question's vector; ``residual``: the question's direction
    removed; ``plain``: not at all."""

    layout: Layout = "exact"
    """How drafts read their passages. ``exact``: one after another, each seeing those before it.
    ``standalone``: none sees another, so a passage is computed once for all drafts and can be kept
    for later questions."""
    unknown_above: float | None = None
    """The drafter's probability of beginning with "none" (answer first: "unknown") from which on,
    and not below, a draft says that its passages do not hold the answer. ``None``: where that is
    its likeliest beginning. Where it is set, the drafter is known to tell evidence from other
    passages, and ``repair`` goes by it."""
    draft_form: DraftForm = "rationale-first"
    """What a draft begins with: what the drafter was taught, so it is kept with a trained one.
    ``rationale-first``: the paper's, and best for a model that was not trained to draft.
    ``answer-first``: the answer, then the sentence that bears it out; a small drafter finds more
    answers so, since it does not have to choose a sentence before it knows what it is to show."""
    max_rationale_tokens: int = 48
    """Longest rationale, tokens."""
    max_answer_tokens: int = 24
    """Longest answer, tokens."""

    verify: Verify = "always"
    """``always``: every draft with an answer is scored. ``auto``: of drafts with the same answer
    only the one the drafter believes most is scored, a draft whose largest possible score is below
    the best known one is not, and none is when all drafts agree and the drafter believes them, or
    none can reach ``repair_below``, and at 1 none can."""
    skip_above: float = 0.9
    """With ``verify="auto"``: the drafter's mean probability per token of the answer above which
    drafts that all agree are not verified."""
    use_draft_score: bool = True
    """Whether the drafter's own probability counts."""
    use_self_containment: bool = True
    """Whether the verifier's P(answer, rationale given the question) counts."""
    use_self_reflection: bool = True
    """Whether the verifier's P("Yes") counts."""
    normalisation: Normalisation = "mean"
    """``mean``: exp of the mean log-probability per token; ``sum``: raw products."""
    verifier_layout: VerifierLayout = "user"
    """``user``: answer and rationale stand in the user's turn; ``assistant``: they are the
    assistant's own turn, and the self-reflection question is the user's next."""
    reflection: int = 0
    """Which wording of the self-reflection question, an index into ``prompts.REFLECTIONS``."""

    claims_above: float | None = None
    """Confidence from which on a draft about a claim is the answer as it stands. Where it is set,
    claims are drafted before anything is read, and with ``verify="auto"`` the confidence is the
    drafter's alone: whether a passage bears a claim out is seen in the passage, which a verifier of
    drafts does not read. Below it, and with ``rerank`` where the cross-encoder finds it more likely
    that no passage answers, ``repair`` begins. ``None``: claims are drafted where ``repair`` says.
    Nothing without ``repair``."""
    questions_above: float | None = None
    """The same for questions that are neither claims nor multiple choice."""
    linked_above: float | None = None
    """The same for a draft about a question that is borne out by no other, from a passage that is
    linked to another drafted one: where one names the title of the other, or the question names
    both, the answer may take both, and a draft has seen one; one that only judges ("no") is then
    left to the verifier, however sure. ``None``: ``questions_above``."""

    multihop_above: float | None = None
    """Probability that a question takes several passages, by the hop ranker, from which on it is
    not drafted first: ``pair`` reads the best passage and the one that the hop ranker finds to
    complete it, before anything is drafted, as a draft has seen one of them. ``None``: no hop
    ranker is asked. Nothing for claims, multiple choice, passages that nothing has ranked, and
    ``repair`` without ``pair``."""

    silent_above: float | None = None
    """With ``questions_above``: probability of "unknown" from which on, when every draft has it,
    the documents do not say, and nothing is read; with ``rerank``, only where the cross-encoder
    finds it unlikely (under 0.1) that a passage answers. ``None``: the verifier has the last
    word."""

    draft_weights: tuple[float, ...] = ()
    """Weights of :data:`specrag_native.answering.confidence.DRAFT_FEATURES`, fitted for a drafter:
    of drafts about a question that the verifier does not judge, the one with the highest
    probability of being right is the best, and that is its confidence. Empty: the best is the one
    the drafter believes most."""
    confidence_weights: tuple[float, ...] = ()
    """Weights of :data:`specrag_native.answering.confidence.FEATURES`, fitted for a pair of models;
    empty: the confidence is the verifier's belief."""
    reading_weights: tuple[float, ...] = ()
    """Weights of :data:`specrag_native.answering.confidence.READING_FEATURES`, for answers that the
    verifier read itself, fitted likewise; empty: their confidence is the mean probability per
    token."""
    abstain_below: float = 0.2
    """Answers with a confidence below this are withheld: the documents do not say."""
    repair: str = "all"
    """What is done when no draft reaches ``repair_below``: ``off``, or steps with commas between,
    one after another until one gives an answer. ``draft``: only now the drafter drafts, over what
    was not read so far; without this step it does before all others. ``redraft``: where none was
    read so far, the drafter drafts over other subsets, so many that no passage is left out, and all
    drafts are judged again. ``rationales``: the verifier answers from the rationales of the drafts
    alone. ``short``: it reads all passages where they are short together, no more than some 200
    words.
    ``best``: it reads the most promising passage of all, with which ``pair`` begins, and nothing
    where ``pair`` reads two that the question names, or that a hop ranker found, nor for claims and
    multiple choice, which are judged whatever is read.
    ``subset``: it reads the passages of the most promising draft and, without ``unknown_above``,
    the best hit. ``named``: it reads the two most promising passages that the question names by
    their titles, or, where it does not name two, what ``subset`` reads. ``pair``: likewise,
    but where it does not, the most promising passage of all and the most promising one that is
    linked to it, or without one the second. ``linked``: it reads the passages of ``subset``, or
    what it has read already, and the most promising that is linked to them: one names the title of
    the other, or the question names both. ``sentences``: it reads these, or
    what it has read already, and of the other passages the sentences most like the question, or
    with ``rerank``, of the best of them, those that the cross-encoder ranks best.
    ``extracts``: it reads such sentences of all passages, and no passage whole.
    ``more``: it reads the passages of the next draft too, again and again until there is an answer;
    with ``unknown_above``, nothing that the drafter rules out. ``all``: it reads all passages;
    alone, the word stands for ``subset,all``."""
    sentence_tokens: int = 100
    """About how many tokens the sentences of ``sentences`` or ``extracts`` have together."""
    accept_above: float = 0.0
    """Mean probability per token that an answer of the verifier needs when a later step of
    ``repair`` could find a better one; 0: the first answer is taken, as is the first of
    ``more``. Whether an unsure answer is worth reading on for depends on the models, and on which
    questions the steps before leave to be read: it is measured, and kept with the pair."""
    rationales_above: float | None = None
    """The same for an answer from ``rationales``, which show a sentence or two where a passage says
    more. ``None``: ``accept_above``."""
    best_above: float | None = None
    """The same for an answer from ``best``, which shows one passage where the next step shows two.
    Where ``rationales`` had another answer, the next step is taken however sure it is. ``None``:
    ``accept_above``."""
    best_linked_above: float | None = None
    """The same where another passage is linked to that one, as the answer may take both: where one
    names the title of the other, or the question names both. ``None``: ``best_above``."""
    min_rationales: int = 1
    """With fewer than this ``rationales`` is passed over: a single one, of a draft that was not
    taken, leaves the verifier nothing to choose from."""
    irrelevant_below: float = 0.0
    """Probability that the best passage answers, by the cross-encoder of ``rerank``, under which
    ``repair`` ends as soon as the verifier has read a passage and found nothing that stands there:
    two models say so, and to read on takes longer than all that came before. 0: it always reads
    on."""
    grounded: bool = True
    """Whether an answer that the verifier gives in ``repair`` must stand in the passages it read,
    or whose rationales it read. One that does not was remembered, or reckoned, and counts as none:
    the documents do not say."""
    repair_below: float = 0.9
    """Confidence under which ``repair`` begins. High, because a drafter that was not trained to
    draft invents, and the verifier, which sees no passage, believes most of it."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("top", 1, 1000),
            ("n_drafts", 1, 200),
            ("n_written", 1, 200),
            ("drafts_per_subset", 1, 10),
            ("max_rationale_tokens", 1, 1024),
            ("max_answer_tokens", 1, 1024),
            ("sentence_tokens", 1, 4096),
            ("min_rationales", 1, 200),
            ("reflection", 0, 2),
        ):
            value = getattr(self, name)
            if value is None and name == "n_written":
                continue
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, got {value!r}")
        k = self.passages_per_draft
        if k is not None and (not isinstance(k, int) or not 1 <= k <= self.top):
            raise ConfigError(
                f"passages_per_draft must be between 1 and top ({self.top}), got {k}: lower it or "
                "raise top"
            )
        for name in (
            "abstain_below",
            "repair_below",
            "accept_above",
            "irrelevant_below",
            "skip_above",
            *_OPTIONAL,
        ):
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not _is_number(value) or not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} must be between 0 and 1, got {value!r}")
        if self.unknown_above == 0.0:
            raise ConfigError(
                f"unknown_above must be above 0, got {self.unknown_above!r}: leave it out to let "
                "the likeliest beginning decide"
            )
        for name in _SWITCHES:
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, got {value!r}")
        for name, allowed in (
            ("subsets", get_args(SubsetStrategy)),
            ("conditioning", get_args(Conditioning)),
            ("normalisation", get_args(Normalisation)),
            ("verifier_layout", get_args(VerifierLayout)),
            ("verify", get_args(Verify)),
            ("layout", get_args(Layout)),
            ("draft_order", get_args(DraftOrder)),
            ("draft_form", get_args(DraftForm)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        steps = self.repair_steps
        if len(set(steps)) < len(steps) or not set(steps) <= set(get_args(RepairStep)):
            raise ConfigError(
                f"repair must be off, or some of {', '.join(get_args(RepairStep))} with commas "
                f"between and none twice, got {self.repair!r}"
            )
        for name, numbers in _WEIGHTS.items():
            weights, n = getattr(self, name), " or ".join(map(str, numbers))
            if not isinstance(weights, (list, tuple)) or not all(map(_is_number, weights)):
                raise ConfigError(f"{name} must be {n} numbers or none, got {weights!r}")
            if len(weights) not in (0, *numbers):
                raise ConfigError(f"{name} must be {n} numbers or none, got {len(weights)}")
        if not (self.use_draft_score or self.use_self_containment or self.use_self_reflection):
            raise ConfigError("at least one of the three scores must be in use, got none")

    @property
    def repair_steps(self) -> tuple[RepairStep, ...]:
        """The steps of ``repair``, in order; none when it is off."""
        if self.repair == "off":
            return ()
        steps = "subset,all" if self.repair == "all" else str(self.repair)
        return cast("tuple[RepairStep, ...]", tuple(s.strip() for s in steps.split(",")))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Config:
        """Build a configuration from plain values; an unknown name is refused.

        ``None`` stands for no weights.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"unknown setting {unknown[0]!r}: expected one of {', '.join(sorted(known))}"
            )
        none: dict[str, Any] = {n: () for n in _WEIGHTS if n in values and values[n] is None}
        return cls(**{**values, **none})

    def replace(self, **changes: Any) -> Config:
        """Return a copy with some settings changed; an unknown name is refused."""
        return self.from_mapping({**dataclasses.asdict(self), **changes})
