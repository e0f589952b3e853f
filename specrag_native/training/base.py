"""The model that is fine-tuned: loading it, and telling early what could not be exported.

Law: a base that :mod:`specrag_native.training.export` cannot write back is refused before training.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.errors import ConfigError, ModelFileError
from specrag_native.training.encoding import Tokeniser

if TYPE_CHECKING:
    import torch

EXPORTABLE = ("llama", "qwen2", "qwen3")
"""Architectures whose tensors the export knows how to name."""

TARGETS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
"""Linear layers that are adapted: their names in transformers and in a GGUF."""

EXTRA = "training needs the train extra: pip install 'specrag-native[train]'"


@dataclass(frozen=True, slots=True)
class Base:
    """A causal language model to start from: a GGUF, or a folder in Hugging Face's layout."""

    path: Path
    architecture: str
    end_of_turn: int
    is_gguf: bool

    def model(self, dtype: torch.dtype) -> Any:
        """Load the weights (transformers' reader dequantises a GGUF)."""
        with _needs_extra():
            from transformers import AutoModelForCausalLM
        if not self.is_gguf:
            return AutoModelForCausalLM.from_pretrained(
                self.path, dtype=dtype, local_files_only=True, use_safetensors=True
            )
        return AutoModelForCausalLM.from_pretrained(
            self.path.parent, gguf_file=self.path.name, dtype=dtype, local_files_only=True
        )

    def tokeniser(self) -> Tokeniser:
        """Return the tokeniser: the engine's own for a GGUF, so that tokens are exact."""
        if self.is_gguf:
            from specrag_native.engine import NativeEngine
            from specrag_native.engine_options import EngineOptions

            return NativeEngine(
                self.path, EngineOptions(n_ctx=256, n_batch=32, n_seq_max=2, n_outputs_max=1)
            )
        return _FolderTokeniser(self.path)


class _FolderTokeniser:
    """A Hugging Face tokeniser behind the :class:`Tokeniser` protocol."""

    def __init__(self, folder: Path) -> None:
        with _needs_extra():
            from transformers import AutoTokenizer
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def chat(self, messages: Any) -> Any:
        from specrag_native.chat import lay_out_chat

        return lay_out_chat(messages, self._apply)

    def _apply(self, messages: list[tuple[str, str]], add_assistant: bool) -> str | None:
        if not self._tokenizer.chat_template:
            return None
        turns = [{"role": role, "content": content} for role, content in messages]
        return str(
            self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_assistant
            )
        )

    def tokenize(self, prompt: Any) -> list[int]:
        ids: list[int] = []
        for segment in prompt:
            ids += self._tokenizer.encode(
                segment.text, add_special_tokens=False, split_special_tokens=not segment.control
            )
        return ids


def open_base(path: Path) -> Base:
    """Look at a base model without loading its weights.

    Raises:
        ModelFileError: there is no model, or it is of an architecture that cannot be exported.
    """
    if path.is_dir():
        try:
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            architecture = str(config["model_type"])
            end = config["eos_token_id"]
        except (OSError, ValueError, KeyError) as error:
            raise ModelFileError(
                f"{path} is no model folder (config.json: {error!r}): give a .gguf file or a "
                "folder in Hugging Face's layout"
            ) from None
        base = Base(path, architecture, end[0] if isinstance(end, list) else int(end), False)
    else:
        from specrag_native.model_files.gguf_check import check_gguf

        facts = check_gguf(path)
        base = Base(path.absolute(), facts.architecture, _gguf_end(path), True)
    if base.architecture not in EXPORTABLE:
        raise ModelFileError(
            f"{path} is a {base.architecture} model, and only {', '.join(EXPORTABLE)} can be "
            "exported after training: choose another base"
        )
    return base


def _gguf_end(path: Path) -> int:
    from gguf import GGUFReader

    field = GGUFReader(path).get_field("tokenizer.ggml.eos_token_id")
    if field is None:
        raise ModelFileError(f"{path} names no end-of-turn token (tokenizer.ggml.eos_token_id)")
    return int(field.contents())


def gguf_name(weight: str) -> str | None:
    """Return the GGUF name of a weight as transformers names it; ``None`` for others.

    ``...layers.3.self_attn.q_proj.weight`` is ``blk.3.attn_q.weight``; what an adapter puts between
    is ignored.
    """
    parts = weight.split(".")
    if "layers" not in parts:
        return None
    layer = parts[parts.index("layers") + 1]
    target = next((TARGETS[p] for p in parts if p in TARGETS), None)
    return f"blk.{layer}.{target}.weight" if target else None


@contextlib.contextmanager
def _needs_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{EXTRA} ({error})") from None


def require_extra() -> None:
    """Raise ConfigError when the ``train`` extra is not installed."""
    with _needs_extra():
        import peft  # noqa: F401
        import safetensors  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
