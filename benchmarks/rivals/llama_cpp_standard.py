"""Standard RAG through ``llama_cpp.Llama``: one call with all passages in the prompt.

Law: its own prefix cache (the longest prefix of the last prompt) stays on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rivals.shared import (
    Retrieving,
    answered,
    llama_cpp,
    model_path,
    read,
    standard_text,
    threads_of,
)
from specrag_native.config import Config
from specrag_native.types import Answer, Hit, Question, Usage


class LlamaStandardRAG:
    """One ``Llama`` that reads all passages and answers."""

    def __init__(self, path: Path, *, threads: int, config: Config, n_ctx: int = 4096) -> None:
        self._llama = llama_cpp().Llama(
            str(path), n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self._config = config

    def answer(
        self, question: Question, *, hits: Sequence[Hit] | None, question_vector: Any = None
    ) -> Answer:
        """Answer one question from the given passages."""
        begin = time.perf_counter()
        done: Any = self._llama.create_completion(
            standard_text(question, [h.passage for h in hits or ()]),
            max_tokens=self._config.max_answer_tokens,
            temperature=0.0,
            stop=["\n"],
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
        """Free the model."""
        self._llama.close()


def llama_cpp_standard(session: Any, config: Config) -> Retrieving:
    """Return the method for ``specrag eval --method FILE.py:llama_cpp_standard``."""
    rival = LlamaStandardRAG(
        model_path(session, "verifier"), threads=threads_of(session), config=config
    )
    return Retrieving(rival, session, config)
