"""What an engine is told, and what it says of itself.

Law: options are checked when they are made, so that no engine meets one out of range.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from specrag_native.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Settings of one engine. Every field has a default that is sane on a laptop."""

    n_ctx: int = 4096
    """KV cells for all sequences together, tokens."""
    n_batch: int = 512
    """Tokens per decode call; also how soon a cancelled call stops."""
    n_seq_max: int = 64
    """Sequences in flight, at most 256; at least 3 with standalone segments, as in standard RAG."""
    n_outputs_max: int = 96
    """Rows of logits kept per decode call; one row is 4 bytes per entry of the vocabulary."""
    threads: int = 0
    """CPU threads; 0: one per physical core."""
    n_gpu_layers: int = 0
    """Layers on a GPU; negative: all."""
    main_gpu: int = 0
    """Which GPU, counted from 0."""
    flash_attention: str = "auto"
    """``auto``, ``on`` or ``off``."""
    use_mmap: bool = False
    """Map the model file instead of reading it. Weights are repacked for the CPU as they are
    loaded, so a mapped file would be in memory a second time."""
    lookup: int = 0
    """Tokens guessed per prompt and step from what the prompt holds, and kept where greedy agrees;
    0: none. Pays where text is copied and a step with more tokens costs little."""
    weights: str = ""
    """Type that weights are computed in, ``BF16`` or ``F16``; empty: that of the file. The file is
    rewritten at the first use, and kept in this project's folder."""
    kv_type: str = "f16"
    """Type of keys and values: ``f16``, or ``q8_0``, which takes half the memory and needs flash
    attention."""
    passage_cache_bytes: int = 0
    """Memory for the cells of standalone segments, kept from call to call; the least recently used
    go first. 0: none."""
    passage_cache_folder: str = ""
    """Folder where they are kept from run to run; empty: none. Files of another model, adapter or
    library version are never used."""
    passage_cache_folder_bytes: int = 0
    """How large that folder may become."""
    passage_cache_evicts: bool = True
    """Whether the least recently used files of that folder go when there is no room."""
    adapter: str = ""
    """Path of a LoRA adapter (GGUF) of the model; empty: none. Its log-probabilities are those of
    the merged model, but every pass computes the adapter's share as well."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_ctx", 256, 1 << 22),
            ("n_batch", 32, 1 << 16),
            ("n_seq_max", 2, 256),
            ("n_outputs_max", 1, 1 << 16),
            ("threads", 0, 1024),
            ("main_gpu", 0, 255),
            ("lookup", 0, 16),
            ("passage_cache_bytes", 0, 1 << 50),
            ("passage_cache_folder_bytes", 0, 1 << 50),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, got {value}")
        if self.flash_attention not in ("auto", "on", "off"):
            raise ConfigError(
                f"flash_attention must be auto, on or off, got {self.flash_attention!r}"
            )
        if self.weights not in ("", "BF16", "F16"):
            raise ConfigError(f"weights must be BF16, F16 or empty, got {self.weights!r}")
        if self.kv_type not in ("f16", "q8_0"):
            raise ConfigError(f"kv_type must be f16 or q8_0, got {self.kv_type!r}")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model file says of itself. Sizes in bytes, lengths in tokens."""

    path: Path
    architecture: str
    description: str
    chat_template: str
    n_params: int
    size_bytes: int
    n_ctx_train: int
    n_embd: int
    n_layer: int
    n_vocab: int
    is_embedding: bool
    is_cross_encoder: bool


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine holds: capacities in tokens, memory in bytes."""

    n_ctx: int
    n_batch: int
    n_seq_max: int
    threads: int
    kv_bytes: int
    model_bytes: int


@dataclass(frozen=True, slots=True)
class PassageCacheFacts:
    """What the cache of standalone segments did since the engine began; bytes and seconds."""

    hits: int
    misses: int
    disk_hits: int
    disk_errors: int
    host_bytes: int
    disk_bytes: int
    restored: int
    """Tokens put back instead of computed."""
    restore_s: float
    """Seconds that took, reading files included."""
    keep_s: float
    """Seconds spent on keeping what was computed."""
