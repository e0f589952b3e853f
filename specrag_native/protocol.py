"""The border between meaning and tokens: what an engine takes, what it gives back, the verbs.

Law: nothing here names a library. The native engine, a fake with known logits and a remote server
all fit :class:`Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar, overload

from specrag_native.types import LogprobSpan, Usage

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

FinishReason = Literal["stop", "length", "cancelled", "outranked"]
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt. Segments are tokenised separately, so scored spans are exact.

    ``scored``: :meth:`Engine.score` reports the log-probability of each of its tokens.
    ``control``: template text of ours; special tokens are parsed only here, so the text of a
    document or a question can never become one.
    ``standalone``: sees what stands before all standalone segments of its prompt and itself, but no
    other one of them; they stand together, start at the same position, and what follows sees them
    all. So a passage is computed once for all prompts, and can be kept for later ones. Neither the
    last segment nor one followed at once by a scored one.
    """

    text: str
    scored: bool = False
    control: bool = False
    standalone: bool = False


Prompt = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of generation.

    It ends at one of the ``stop`` strings, at an end-of-generation token or after ``max_tokens``
    tokens, but never before ``min_tokens``, nor, with any of these, before it says something
    besides white space. Then ``then`` is forced into the prompt and the next
    stage begins; the last stage has none. A stage whose text is one of ``last`` (trimmed, without
    a full stop) ends the generation: none follows. ``watch``: texts whose chance to begin the stage
    is reported, see :class:`Completion`; with ``watch_from`` above 0 the stage begins with one from
    that probability on, and below it never.
    """

    max_tokens: int = 128
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    then: Prompt = ()
    watch: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    watch_from: float = 0.0


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """How to continue prompts. ``temperature`` 0 is greedy; ``seed`` matters only above 0.

    ``keep`` above 0: all prompts are computed, but only so many are continued, those whose first
    stage is least likely to begin with its first watched text. The others end with the finish
    reason ``outranked`` and hold nothing but ``watched``. Where a call needs several passes through
    the context, each continues those that are among the best so far.

    ``distinct``: equal prompts begin differently, the second with the token that is next likeliest
    to the first one's, and so on; greedy only. What they share is computed once, as always.
    """

    stages: tuple[Stage, ...] = (Stage(),)
    temperature: float = 0.0
    seed: int = 0
    keep: int = 0
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What one stage produced: one natural-log probability per token, stop tokens excluded.

    ``watched``: for each text of the stage's ``watch``, the natural-log probability that the stage
    begins with the first token of that text.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    watched: tuple[float, ...] = ()

    @property
    def logprob(self) -> LogprobSpan:
        """The sum of the log-probabilities with the number of tokens."""
        return LogprobSpan(sum(self.logprobs), len(self.logprobs))


@dataclass(frozen=True, slots=True)
class Generation:
    """The continuation of one prompt: one completion per stage that was begun."""

    completions: tuple[Completion, ...]

    @property
    def text(self) -> str:
        """Text of all stages, one after another, without what was forced between them."""
        return "".join(c.text for c in self.completions)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of all stages."""
        return tuple(t for c in self.completions for t in c.tokens)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Natural-log probabilities of all stages, one per token."""
        return tuple(p for c in self.completions for p in c.logprobs)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the last stage ended."""
        return self.completions[-1].finish_reason


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """Teacher-forced log-probabilities of one scored segment, one per token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def logprob(self) -> LogprobSpan:
        """The sum of the log-probabilities with the number of tokens."""
        return LogprobSpan(sum(self.logprobs), len(self.logprobs))


@dataclass(frozen=True, slots=True)
class Score:
    """The scored segments of one prompt, in prompt order."""

    segments: tuple[SegmentScore, ...]


@dataclass(frozen=True)
class Batch(Sequence[T_co], Generic[T_co]):
    """The results of one call, in the order of its prompts, with what the call used."""

    items: tuple[T_co, ...]
    usage: Usage

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        """Return the result of one prompt, or of several."""
        return self.items[index]

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.items)

    def __iter__(self) -> Iterator[T_co]:
        """Iterate over the results."""
        return iter(self.items)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """How well texts go with another: float32 of shape ``(n,)``, logits, and what it took."""

    scores: FloatArray
    usage: Usage


class CancelFlag(Protocol):
    """Stops a call from any thread."""

    def cancel(self) -> None:
        """Ask the call to stop, within one physical batch."""

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""


OnText = Callable[[int, int, str], None]
"""Called with (prompt index, stage index, new text) from the thread that runs the call."""


class Engine(Protocol):
    """One model that generates and scores. Calls may come from any thread; they queue."""

    @property
    def name(self) -> str:
        """The model's name for people and for results (the file name)."""

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        """Lay out (role, content) messages with the model's chat template.

        The result ends where the assistant's turn begins. A last message of role ``assistant`` is
        left open, so that the model continues it.
        """

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerateOptions,
        *,
        on_text: OnText | None = None,
        cancel: CancelFlag | None = None,
    ) -> Batch[Generation]:
        """Continue all prompts together. A cancelled call returns what it has so far."""

    def score(self, prompts: Sequence[Prompt], *, cancel: CancelFlag | None = None) -> Batch[Score]:
        """Return log-probabilities of the scored segments. Raises ``Cancelled`` when cancelled."""


class Embedder(Protocol):
    """One model that turns texts into vectors."""

    @property
    def name(self) -> str:
        """Identity of the model; an index is bound to it."""

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return L2-normalised vectors, float32 of shape ``(len(texts), d)``."""


class CrossEncoder(Protocol):
    """One model that reads a question with a text and says how well the text answers it."""

    @property
    def name(self) -> str:
        """The model's name for people and for results (the file name)."""

    def rank(
        self, question: str, texts: Sequence[str], *, cancel: CancelFlag | None = None
    ) -> Ranking:
        """Return a score for each text. Raises ``Cancelled`` when cancelled."""
