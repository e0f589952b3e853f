"""The native engine: one GGUF model on this machine, behind the verbs of the border.

Law: an engine knows tokens and prompts; what a prompt means is known above it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from specrag_native.chat import lay_out_chat
from specrag_native.engine_options import (
    EngineFacts,
    EngineOptions,
    ModelFacts,
    PassageCacheFacts,
)
from specrag_native.errors import ConfigError, ModelFileError
from specrag_native.hardware import physical_cores
from specrag_native.model_files.model_dir import file_digest, hash_file
from specrag_native.model_files.weights import written_as
from specrag_native.native import LLAMA_CPP_PYTHON_VERSION, load_core, translated
from specrag_native.protocol import (
    Batch,
    CancelFlag,
    Completion,
    FinishReason,
    GenerateOptions,
    Generation,
    OnText,
    Prompt,
    Ranking,
    Score,
    Segment,
    SegmentScore,
)
from specrag_native.types import Usage

if TYPE_CHECKING:
    from specrag_native import _core
    from specrag_native.types import FloatArray


def _usage(raw: _core.Usage) -> Usage:
    return Usage(
        prefilled=raw.prefilled,
        reused=raw.reused,
        decoded=raw.decoded,
        proposed=raw.proposed,
        accepted=raw.accepted,
        prefill_s=raw.prefill_s,
        decode_s=raw.decode_s,
        total_s=raw.total_s,
    )


def _cache_identity(path: Path, options: EngineOptions) -> str:
    """Return what cells depend on besides tokens: the files' whole content, types, the library."""
    if not options.passage_cache_folder:
        return ""
    digests = [hash_file(Path(name)) for name in (path, options.adapter) if name]
    computed = [options.kv_type, options.flash_attention, LLAMA_CPP_PYTHON_VERSION]
    return " ".join([*digests, *filter(None, [options.weights]), *computed])


def _weights(path: Path, options: EngineOptions) -> tuple[object, ...]:
    """Return what the weights of an engine in memory depend on."""
    of_file = path, options.adapter, options.weights
    return *of_file, options.n_gpu_layers, options.main_gpu, options.use_mmap


def _load(
    path: Path, options: EngineOptions, cancel: CancelFlag | None
) -> tuple[_core.Model, EngineOptions]:
    """Load a model, and return it with the options that it follows.

    Weights in another type are those of the file where they can neither be written nor read.
    """
    file = written_as(path, options.weights)
    as_stored = dataclasses.replace(options, weights="")
    if file == path:
        options = as_stored
    try:
        with translated():
            model = load_core().Model(
                str(file),
                n_gpu_layers=options.n_gpu_layers,
                main_gpu=options.main_gpu,
                use_mmap=options.use_mmap,
                adapter=options.adapter,
                cancel=cast("_core.CancelFlag | None", cancel),
            )
    except ModelFileError as error:
        if file == path:
            raise
        logging.getLogger(__name__).warning("%s: it is removed, to be written anew", error)
        with suppress(OSError):
            file.unlink()
        return _load(path, as_stored, cancel)
    return model, options


class NativeEngine:
    """One GGUF model with one context; generates and scores, or embeds if it is an embedding model.

    Safe from any thread: calls queue, and none holds the interpreter's lock while it computes.

    Args:
        path: the GGUF file.
        options: settings of the engine; of ``weights`` it keeps what it could follow.
        weights_of: an engine of the same file, adapter, type of weights and GPU settings: its
            weights are shared and not loaded again.
        cancel: stops loading from another thread.

    Raises:
        ModelFileError: the file is no usable model, or the options do not fit it.
        ConfigError: ``weights_of`` has other weights.
        Cancelled: loading was cancelled.
    """

    model: ModelFacts
    """What the file says of itself."""

    def __init__(
        self,
        path: Path | str,
        options: EngineOptions = EngineOptions(),
        *,
        weights_of: NativeEngine | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        core = load_core()
        self._core = core
        self.options: EngineOptions
        path = Path(path)
        if not path.is_file():
            raise ModelFileError(f"no model file at {path}: give the path of a .gguf file")
        if weights_of is not None and _weights(path, options) != _weights(
            weights_of.model.path, weights_of.options
        ):
            raise ConfigError(f"{weights_of.name} was loaded otherwise: its weights do not serve")
        self._model: _core.Model
        if weights_of is not None:
            self._model = weights_of._model
        else:
            self._model, options = _load(path, options, cancel)
        self.options = options
        with translated():
            self._engine: _core.Engine = core.Engine(
                self._model,
                n_ctx=options.n_ctx,
                n_batch=options.n_batch,
                n_seq_max=options.n_seq_max,
                n_outputs_max=options.n_outputs_max,
                threads=options.threads or physical_cores(),
                flash_attention=options.flash_attention,
                kv_type=options.kv_type,
                cache_host_bytes=options.passage_cache_bytes,
                cache_disk_bytes=options.passage_cache_folder_bytes,
                cache_folder=options.passage_cache_folder,
                cache_evicts=options.passage_cache_evicts,
                cache_identity=_cache_identity(path, options),
            )
        raw = self._model.facts
        self.model = ModelFacts(
            path=path,
            architecture=raw.architecture,
            description=raw.description,
            chat_template=raw.chat_template,
            n_params=raw.n_params,
            size_bytes=raw.size_bytes,
            n_ctx_train=raw.n_ctx_train,
            n_embd=raw.n_embd,
            n_layer=raw.n_layer,
            n_vocab=raw.n_vocab,
            is_embedding=raw.is_embedding,
            is_cross_encoder=raw.is_cross_encoder,
        )

    def __repr__(self) -> str:
        return f"NativeEngine({self.name}, n_ctx={self.facts.n_ctx}, threads={self.facts.threads})"

    @property
    def name(self) -> str:
        """The model's file name."""
        return self.model.path.name

    @property
    def facts(self) -> EngineFacts:
        """Capacities and memory of the engine."""
        raw = self._engine.facts
        return EngineFacts(
            n_ctx=raw.n_ctx,
            n_batch=raw.n_batch,
            n_seq_max=raw.n_seq_max,
            threads=raw.threads,
            kv_bytes=raw.kv_bytes,
            model_bytes=raw.model_bytes,
        )

    @property
    def passage_cache(self) -> PassageCacheFacts:
        """What the cache of standalone segments did so far."""
        raw = self._engine.run_cache_facts()
        return PassageCacheFacts(
            **{f.name: getattr(raw, f.name) for f in dataclasses.fields(PassageCacheFacts)}
        )

    def _native(self, prompt: Prompt) -> list[_core.Segment]:
        segment = self._core.Segment
        return [
            segment(s.text, scored=s.scored, control=s.control, standalone=s.standalone)
            for s in prompt
        ]

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt, as :meth:`generate` and :meth:`score` see them."""
        with translated():
            return list(self._model.tokenize(self._native(prompt)))

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        """Lay out messages with the model's chat template; see :meth:`Engine.chat`."""
        return lay_out_chat(messages, self._apply_template)

    def _apply_template(self, messages: list[tuple[str, str]], add_assistant: bool) -> str | None:
        if not self.model.chat_template:
            return None
        try:
            return str(self._model.apply_chat_template(messages, add_assistant))
        except self._core.ModelError:
            return None

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerateOptions = GenerateOptions(),
        *,
        on_text: OnText | None = None,
        cancel: CancelFlag | None = None,
    ) -> Batch[Generation]:
        """Continue all prompts together; what prompts share is computed once.

        Args:
            prompts: each a tuple of segments.
            options: stages, temperature and seed.
            on_text: called with (prompt index, stage index, new text) as text becomes certain.
            cancel: stops the call within one physical batch; what there is comes back with the
                finish reason ``cancelled``.

        Raises:
            ContextFullError: one prompt alone, with room for its completion, does not fit.
        """
        stage = self._core.Stage
        with translated():
            raw, usage = self._engine.generate(
                [self._native(p) for p in prompts],
                stages=[
                    stage(
                        max_tokens=s.max_tokens,
                        min_tokens=s.min_tokens,
                        stop=list(s.stop),
                        then=self._native(s.then),
                        watch=list(s.watch),
                        last=list(s.last),
                        watch_from=s.watch_from,
                    )
                    for s in options.stages
                ],
                temperature=options.temperature,
                seed=options.seed,
                lookup=self.options.lookup,
                keep=options.keep,
                distinct=options.distinct,
                on_text=on_text,
                cancel=cast("_core.CancelFlag | None", cancel),
            )
        items = tuple(
            Generation(
                tuple(
                    Completion(
                        tokens=tuple(c.tokens),
                        logprobs=tuple(c.logprobs),
                        text=c.text,
                        finish_reason=cast(FinishReason, c.finish_reason),
                        watched=tuple(c.watched),
                    )
                    for c in completions
                )
            )
            for completions in raw
        )
        return Batch(items, _usage(usage))

    def score(self, prompts: Sequence[Prompt], *, cancel: CancelFlag | None = None) -> Batch[Score]:
        """Return natural-log probabilities of the scored segments, one forward pass for all.

        Raises:
            ContextFullError: one prompt alone does not fit.
            Cancelled: the call was cancelled.
        """
        with translated():
            raw, usage = self._engine.score(
                [self._native(p) for p in prompts],
                cancel=cast("_core.CancelFlag | None", cancel),
            )
        items = tuple(
            Score(tuple(SegmentScore(tuple(s.tokens), tuple(s.logprobs)) for s in segments))
            for segments in raw
        )
        return Batch(items, _usage(usage))

    def embed(self, texts: Sequence[str], *, cancel: CancelFlag | None = None) -> FloatArray:
        """Return pooled, L2-normalised vectors, float32 of shape ``(len(texts), n_embd)``.

        A text longer than the model's training context is cut at its end.

        Raises:
            ModelFileError: the model is no embedding model.
            Cancelled: the call was cancelled.
        """
        with translated():
            vectors, _ = self._engine.embed(
                list(texts), cancel=cast("_core.CancelFlag | None", cancel)
            )
        return vectors

    def rank(
        self,
        first: str,
        seconds: Sequence[str],
        *,
        first_tokens: int,
        pair_tokens: int,
        cancel: CancelFlag | None = None,
    ) -> Ranking:
        """Return the score of a text with each of some others; see :class:`Ranking`.

        Args:
            first: read first in every pair.
            seconds: read after it, one per pair.
            first_tokens: of ``first``, what is longer is cut at its end.
            pair_tokens: of a pair with the model's own tokens, likewise.
            cancel: stops the call within one physical batch.

        Raises:
            ModelFileError: the model is no cross-encoder.
            Cancelled: the call was cancelled.
        """
        with translated():
            scores, usage = self._engine.rank(
                first,
                list(seconds),
                first_tokens=first_tokens,
                pair_tokens=pair_tokens,
                cancel=cast("_core.CancelFlag | None", cancel),
            )
        return Ranking(scores, _usage(usage))

    @functools.cached_property
    def file_digest(self) -> str:
        """Identity of the model file: sha256 of its size and its first and last mebibyte, hex."""
        return file_digest(self.model.path)
