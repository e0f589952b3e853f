"""Every method behind one call: a question with its passages in, an answer out.

Law: what a method is given, every other method is given too; a method cannot see the accepted
answers.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from specrag_native.answering.pipeline import Models, Pipeline, Retriever
from specrag_native.config import Config
from specrag_native.errors import ConfigError
from specrag_native.evaluation.field.asking import Search
from specrag_native.evaluation.field.corrective import CorrectiveRAG
from specrag_native.evaluation.field.self_reflective import SelfReflectiveRAG
from specrag_native.evaluation.reuse import DraftMemory, RememberingEngine
from specrag_native.types import Answer, Hit, Question

if TYPE_CHECKING:
    from specrag_native.evaluation.variants import Variant
    from specrag_native.protocol import CrossEncoder, Embedder, Engine
    from specrag_native.types import FloatArray


class Method(Protocol):
    """A way to answer questions.

    With ``hits`` the passages are given, otherwise the method retrieves them.
    """

    def answer(
        self,
        question: Question,
        *,
        hits: Sequence[Hit] | None,
        question_vector: FloatArray | None,
    ) -> Answer:
        """Answer one question, with timings and usage."""


@dataclass(frozen=True)
class Session:
    """What methods share: the engines, the retriever if passages are retrieved, drafts written.

    ``reuse``: drafts written once are used by all variants that would write the same ones; their
    seconds and tokens are counted in each.
    """

    models: Models
    retriever: Retriever | None = None
    reuse: DraftMemory | None = None
    self_rag: Engine | None = None

    def search(self, config: Config) -> Search | None:
        """Return what finds passages for a question, or ``None`` when they are given."""
        retriever, models = self.retriever, self.models
        if retriever is None:
            return None
        return lambda text: retriever.search_with(
            text, models.embedder.embed([text])[0], config.top
        )


class PipelineMethod:
    """A method of the pipeline itself."""

    def __init__(
        self, session: Session, config: Config, kind: Literal["speculative", "standard", "drafter"]
    ) -> None:
        self._memory = session.reuse
        models: Models = session.models
        if self._memory is not None:
            models = _Remembering(session.models, self._memory)
        self._models, self._retriever = models, session.retriever
        self._config = config
        self._kind = kind

    def answer(
        self,
        question: Question,
        *,
        hits: Sequence[Hit] | None,
        question_vector: FloatArray | None,
    ) -> Answer:
        """Answer one question; see :class:`Method`."""
        if self._memory is not None:
            self._memory.reused_s = 0.0
        config = _fitting(self._config, hits)
        answer = Pipeline(self._models, self._retriever, config).answer(
            question,
            method=self._kind,
            hits=hits,
            question_vector=question_vector,
        )
        if self._memory is not None and self._memory.reused_s:
            timings = dict(answer.timings)
            for stage in ("draft", "total"):
                timings[stage] = timings.get(stage, 0.0) + self._memory.reused_s
            answer = _with_timings(answer, timings)
        return answer


class _Remembering:
    """The models of a session, whose drafter remembers."""

    def __init__(self, models: Models, memory: DraftMemory) -> None:
        self._models, self._memory = models, memory

    @property
    def drafter(self) -> Engine:
        return RememberingEngine(self._models.drafter, self._memory)

    @property
    def verifier(self) -> Engine:
        return self._models.verifier

    @property
    def embedder(self) -> Embedder:
        return self._models.embedder

    @property
    def reranker(self) -> CrossEncoder:
        return self._models.reranker

    @property
    def hop_ranker(self) -> CrossEncoder:
        return self._models.hop_ranker


def build(variant: Variant, session: Session) -> Method:
    """Return the method of a variant, ready to answer.

    Raises:
        ConfigError: the variant names no method.
    """
    method = variant.method
    if method in ("speculative", "standard", "drafter"):
        kind = cast(Literal["speculative", "standard", "drafter"], method)
        return PipelineMethod(session, variant.config, kind)
    if method == "corrective":
        return CorrectiveRAG(
            session.models.verifier, variant.config, session.search(variant.config)
        )
    if method == "self-reflective":
        return SelfReflectiveRAG(
            session.self_rag or session.models.verifier,
            variant.config,
            session.search(variant.config),
            reflection_tokens=session.self_rag is not None,
        )
    return load_method(method, session, variant.config)


def load_method(name: str, session: Session, config: Config) -> Method:
    """Return a method of the user's own, from ``FILE.py:NAME``.

    ``NAME`` is called with the session and the configuration and returns a :class:`Method`. The
    file may import what stands beside it, or beside the package it belongs to.

    Raises:
        ConfigError: there is no such file or name, or the file cannot be imported.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise ConfigError(
            f"unknown method {name!r}: expected speculative, standard, drafter, oracle, "
            "corrective, self-reflective, or FILE.py:NAME of a method of your own"
        )
    spec = importlib.util.spec_from_file_location(f"specrag_method_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file: expected FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    if (beside := str(_import_root(path))) not in sys.path:
        sys.path.append(beside)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise ConfigError(f"{path} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{path} has no {attribute}: expected FILE.py:NAME")
    make: Any = getattr(module, attribute)
    return cast(Method, make(session, config))


def _import_root(path: Path) -> Path:
    """Return the folder of a file, or of the outermost package it belongs to."""
    folder = path.resolve().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _fitting(config: Config, hits: Sequence[Hit] | None) -> Config:
    """Let each draft read all passages of a question that has fewer than ``passages_per_draft``."""
    k = config.passages_per_draft
    if hits and k is not None and k > len(hits):
        return config.replace(passages_per_draft=len(hits))
    return config


def _with_timings(answer: Answer, timings: dict[str, float]) -> Answer:
    return dataclasses.replace(answer, timings=timings)
