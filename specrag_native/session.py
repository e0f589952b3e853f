"""An index and its models, opened for questions: answers, streams of events, and both for asyncio.

Law: nothing here blocks the interpreter or an event loop while a model computes, and leaving a
stream early stops the work.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from specrag_native.answering import subsets
from specrag_native.answering.calibration import settings_for
from specrag_native.answering.pipeline import Method, Pipeline
from specrag_native.config import Config
from specrag_native.engines import Engines, ModelPaths, Role
from specrag_native.errors import Cancelled
from specrag_native.events import Event
from specrag_native.native import new_cancel_flag
from specrag_native.passage_cache import cache_folder
from specrag_native.protocol import CancelFlag
from specrag_native.retrieval.index import Index, default_index_dir
from specrag_native.types import Answer, Question


class SpeculativeRAG(Pipeline):
    """Speculative RAG over an index on disk, with models of this machine.

    >>> rag = SpeculativeRAG.open("my-index")  # doctest: +SKIP
    >>> rag.answer("When was the bridge built?").answer  # doctest: +SKIP
    """

    def __init__(self, index: Index, models: Engines, config: Config = Config()) -> None:
        super().__init__(models, index.retriever(models.embedder), config)
        self.index = index
        self.engines = models

    @classmethod
    def open(
        cls,
        index_dir: Path | str | None = None,
        *,
        config: Config | None = None,
        settings: Mapping[str, Any] | None = None,
        drafter: str | None = None,
        verifier: str | None = None,
        embedder: str | None = None,
        reranker: str | None = None,
        hop_ranker: str | None = None,
        threads: int = 0,
        n_gpu_layers: int = 0,
        method: Method = "speculative",
    ) -> SpeculativeRAG:
        """Open an index and begin to load the models that ``method`` needs.

        Args:
            index_dir: folder of the index; by default ``$SPECRAG_INDEX``, else ``.specrag``.
            config: settings of the method; by default those that were fitted for the two models,
                where there are some.
            settings: some settings by name, over those of ``config`` or of the two models.
            drafter: a name of the catalogue, a ``.gguf`` file or ``user/repo:QUANT``; by default
                the catalogue's.
            verifier: as ``drafter``.
            embedder: as ``drafter``; it must be the one that made the index.
            reranker: as ``drafter``; used with the setting ``rerank``.
            hop_ranker: as ``drafter``; used with the setting ``multihop_above``.
            threads: CPU threads; 0: one per physical core.
            n_gpu_layers: layers on a GPU; negative: all.
            method: which models are loaded ahead; others load when first used.

        Raises:
            IndexStoreError: no index there, or one made by another embedder.
            ModelNotFoundError: a model is not on this machine.
            ModelFileError: a file is no usable model.
        """
        index = Index.open(Path(index_dir) if index_dir is not None else default_index_dir())
        paths = ModelPaths(
            drafter=_resolve(drafter, "drafter"),
            verifier=_resolve(verifier, "verifier"),
            embedder=_resolve(embedder, "embedder"),
        )
        if config is None:
            config = Config.from_mapping(settings_for(paths.drafter, paths.verifier))
        config = config.replace(**(settings or {}))
        if config.rerank or reranker:
            paths = dataclasses.replace(paths, reranker=_resolve(reranker, "reranker"))
        if config.multihop_above is not None or hop_ranker:
            paths = dataclasses.replace(paths, hop_ranker=_resolve(hop_ranker, "hop_ranker"))
        kept = cache_folder(index.path) if config.layout == "standalone" else None
        engines = Engines(paths, threads=threads, n_gpu_layers=n_gpu_layers, passages=kept)
        if method in ("speculative", "drafter"):
            hops = method == "speculative" and config.multihop_above is not None
            first: tuple[Role, ...] = ("reranker",) if config.rerank else ()
            engines.preload(*first, *(("hop_ranker",) if hops else ()), "drafter")
            if config.passages_per_draft != 1:  # else nothing is clustered
                threading.Thread(target=subsets.preload, name="specrag-import", daemon=True).start()
        if method in ("speculative", "standard"):
            engines.preload("verifier")
        return cls(index, engines, config)

    def stream(
        self,
        question: str | Question,
        *,
        method: Method = "speculative",
        budget_s: float | None = None,
        cancel: CancelFlag | None = None,
    ) -> Iterator[Event]:
        """Yield the events of an answer as they happen; the last one is ``Answered``.

        Leaving the loop early stops the work. Raises what :meth:`answer` raises.
        """
        flag = cancel if cancel is not None else new_cancel_flag()
        events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                self.answer(
                    question,
                    method=method,
                    budget_s=budget_s,
                    on_event=events.put,
                    cancel=flag,
                )
                events.put(None)
            except BaseException as error:
                events.put(error)

        thread = threading.Thread(target=work, name="specrag-answer", daemon=True)
        thread.start()
        try:
            while (event := events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            flag.cancel()
            thread.join()

    async def aanswer(
        self,
        question: str | Question,
        *,
        method: Method = "speculative",
        budget_s: float | None = None,
    ) -> Answer:
        """Answer without blocking the event loop; cancelling the task stops the work."""
        import asyncio

        flag = new_cancel_flag()
        work = asyncio.ensure_future(
            asyncio.to_thread(self.answer, question, method=method, budget_s=budget_s, cancel=flag)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            flag.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def astream(
        self,
        question: str | Question,
        *,
        method: Method = "speculative",
        budget_s: float | None = None,
    ) -> AsyncIterator[Event]:
        """Yield events without blocking the event loop; leaving the loop early stops the work."""
        import asyncio

        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        flag = new_cancel_flag()

        def emit(event: Event | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def work() -> None:
            try:
                self.answer(question, method=method, budget_s=budget_s, on_event=emit, cancel=flag)
            finally:
                emit(None)

        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            while (event := await events.get()) is not None:
                yield event
            await task
        finally:
            flag.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, BaseException) and not isinstance(outcome, Cancelled):
                raise outcome

    def close(self) -> None:
        """Close the index. Models are freed with the last reference to this object."""
        self.index.close()

    def __enter__(self) -> SpeculativeRAG:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _resolve(name: str | None, role: Role) -> Path:
    from specrag_native.model_files import catalog

    return catalog.path_for(role, name)
