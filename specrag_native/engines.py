"""The models of one session by role, loaded when first needed.

Law: a model file is loaded once, however many roles it plays.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from specrag_native.encoders import NativeCrossEncoder, NativeEmbedder
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ConfigError, ModelFileError
from specrag_native.passage_cache import CacheFolder
from specrag_native.tuning.store import TUNED_ROLES, settings_for

Role = Literal["drafter", "verifier", "embedder", "reranker", "hop_ranker"]


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """The model file of each role.

    A reranker is needed where the method ranks again, a hop ranker where it looks for passages that
    belong together.
    """

    drafter: Path
    verifier: Path
    embedder: Path
    reranker: Path | None = None
    hop_ranker: Path | None = None


DEFAULT_OPTIONS: dict[Role, EngineOptions] = {
    # Ten drafts of six passages are some 8,000 tokens; a verifier reads the passages of one answer.
    # Of passages each keeps the last 70 or so: the drafter those that it read standalone, the
    # verifier those that it read first.
    "drafter": EngineOptions(n_ctx=8192, passage_cache_bytes=256 << 20),
    "verifier": EngineOptions(n_ctx=4096, passage_cache_bytes=256 << 20),
    # Attention of a batch covers all of its tokens, so small batches are the fast ones.
    "embedder": EngineOptions(n_ctx=512, n_batch=512, n_seq_max=32),
    "reranker": EngineOptions(n_ctx=512, n_batch=384, n_seq_max=32),
    "hop_ranker": EngineOptions(n_ctx=512, n_batch=384, n_seq_max=32),
}


HOP_QUESTION_TOKENS = 160
HOP_PAIR_TOKENS = 288
"""A hop ranker reads the question with a passage in place of a question; so it was trained."""

_POOLS: tuple[Role, ...] = ("embedder", "reranker", "hop_ranker")
"""Roles of models that do not generate: nothing is kept of what they read."""


class Engines:
    """Loads the engine of a role at its first use, from any thread, and keeps it.

    Args:
        paths: the model file of each role.
        threads: CPU threads; 0: what ``specrag tune`` kept, else one per physical core.
        n_gpu_layers: layers on a GPU; negative: all.
        tuned: use the settings that ``specrag tune`` kept for a model on this machine. They were
            measured on the processor with threads of their own, so none is used when ``threads``
            or ``n_gpu_layers`` is given.
        passages: where passages that were read are kept from run to run; ``None``: nowhere.
        load: makes an engine.
    """

    def __init__(
        self,
        paths: ModelPaths,
        *,
        threads: int = 0,
        n_gpu_layers: int = 0,
        tuned: bool = True,
        passages: CacheFolder | None = None,
        load: Callable[[Path, EngineOptions], NativeEngine] = NativeEngine,
    ) -> None:
        self._paths = paths
        self._threads = threads
        self._n_gpu_layers = n_gpu_layers
        self._tuned = tuned and not threads and not n_gpu_layers
        self._passages = passages
        self._load = load
        self._lock = threading.Lock()
        self._loading: dict[Path, Future[NativeEngine]] = {}

    def path(self, role: Role) -> Path:
        """Return the model file of a role. Raises ``ConfigError`` when none was named."""
        path: Path | None = getattr(self._paths, role)
        if path is None:
            off = "multihop_above=none" if role == "hop_ranker" else "rerank=false"
            raise ConfigError(f"there is no {role}: name a model for it, or set {off}")
        return path

    def tuned(self, role: Role) -> dict[str, int | str]:
        """Return the settings of ``specrag tune`` that a role's engine is loaded with."""
        if not self._tuned or role not in TUNED_ROLES:
            return {}
        return settings_for(self.path(role))

    def tuned_roles(self) -> dict[str, dict[str, int | str]]:
        """Return the settings of ``specrag tune`` for every role that is tuned and has a model."""
        return {r: self.tuned(r) for r in TUNED_ROLES if getattr(self._paths, r) is not None}

    def options(self, role: Role) -> EngineOptions:
        """Return the settings that a role's engine is loaded with."""
        changes: dict[str, Any] = {"threads": self._threads, **self.tuned(role)}
        if role not in _POOLS and self._passages is not None:
            changes["passage_cache_folder"] = str(self._passages.path)
            changes["passage_cache_folder_bytes"] = self._passages.limit
            # What was computed ahead does not go for what a verifier happens to read.
            changes["passage_cache_evicts"] = role == "drafter"
        return dataclasses.replace(
            DEFAULT_OPTIONS[role], n_gpu_layers=self._n_gpu_layers, **changes
        )

    def _engine(self, role: Role) -> NativeEngine:
        path = self.path(role)
        with self._lock:
            future = self._loading.get(path)
            mine = future is None
            if future is None:
                future = self._loading[path] = Future()
        if mine:
            try:
                future.set_result(self._load(path, self.options(role)))
            except BaseException as error:
                with self._lock:
                    del self._loading[path]
                future.set_exception(error)
        return future.result()

    def _causal(self, role: Role) -> NativeEngine:
        engine = self._engine(role)
        if engine.model.is_embedding:
            raise ModelFileError(
                f"{engine.model.path} ({engine.model.architecture}) is an embedding model and "
                f"cannot write: choose a causal language model for --{role}"
            )
        return engine

    @property
    def drafter(self) -> NativeEngine:
        """The model that writes drafts. Raises ``ModelFileError`` for one that cannot."""
        return self._causal("drafter")

    @property
    def verifier(self) -> NativeEngine:
        """The model that scores drafts. Raises ``ModelFileError`` for one that cannot."""
        return self._causal("verifier")

    @property
    def embedder(self) -> NativeEmbedder:
        """The model that embeds. Raises ``ModelFileError`` for one that cannot."""
        return NativeEmbedder(self._engine("embedder"))

    @property
    def reranker(self) -> NativeCrossEncoder:
        """The model that ranks hits again. Raises ``ModelFileError`` for one that cannot."""
        return NativeCrossEncoder(self._engine("reranker"))

    @property
    def hop_ranker(self) -> NativeCrossEncoder:
        """The model that finds what completes a passage. Raises ``ModelFileError`` likewise."""
        return NativeCrossEncoder(
            self._engine("hop_ranker"),
            question_tokens=HOP_QUESTION_TOKENS,
            pair_tokens=HOP_PAIR_TOKENS,
        )

    def preload(self, *roles: Role) -> None:
        """Begin to load the engines of some roles in the background.

        An engine that fails to load fails again, with its error, when it is used.
        """

        def work() -> None:
            for role in roles:
                try:
                    self._engine(role)
                except Exception:
                    return

        threading.Thread(target=work, name="specrag-preload", daemon=True).start()
