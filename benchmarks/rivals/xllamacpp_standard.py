"""Standard RAG through xllamacpp's in-process server: one request with all passages in the prompt.

Law: its own prompt cache stays on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rivals.shared import Retrieving, answered, model_path, read, standard_text, threads_of
from specrag_native.config import Config
from specrag_native.types import Answer, Hit, Question, Usage


class XllamacppStandardRAG:
    """A server inside this process that reads all passages and answers."""

    def __init__(self, path: Path, *, threads: int, config: Config, n_ctx: int = 4096) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = n_ctx
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.verbosity = 0
        self._server = xllamacpp.Server(params)
        self._config = config

    def answer(
        self, question: Question, *, hits: Sequence[Hit] | None, question_vector: Any = None
    ) -> Answer:
        """Answer one question from the given passages."""
        begin = time.perf_counter()
        done: Any = self._server.handle_completions(
            {
                "prompt": standard_text(question, [h.passage for h in hits or ()]),
                "max_tokens": self._config.max_answer_tokens,
                "temperature": 0.0,
                "stop": ["\n"],
                "cache_prompt": True,
            }
        )
        used = Usage(
            prefilled=done["usage"]["prompt_tokens"], decoded=done["usage"]["completion_tokens"]
        )
        return answered(
            question,
            read(done["choices"][0]["text"], question),
            begin=begin,
            usage={"verifier": used},
        )

    def close(self) -> None:
        """Stop the server."""
        del self._server


def xllamacpp_standard(session: Any, config: Config) -> Retrieving:
    """Return the method for ``specrag eval --method FILE.py:xllamacpp_standard``."""
    rival = XllamacppStandardRAG(
        model_path(session, "verifier"), threads=threads_of(session), config=config
    )
    return Retrieving(rival, session, config)
