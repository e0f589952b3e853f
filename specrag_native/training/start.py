"""The weights that a fit begins with: the last of another fit, or a kept adapter.

Law: an adapter that was exported and begun with again is the one that was trained, but for what its
type loses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from specrag_native.errors import ConfigError
from specrag_native.model_files.adapter import BASE_FACT, read_adapter
from specrag_native.model_files.model_dir import hash_file
from specrag_native.training.base import Base, gguf_name
from specrag_native.training.checkpoints import checkpoints
from specrag_native.training.fit_options import FitOptions
from specrag_native.training.rows import own_order, read_heads

if TYPE_CHECKING:
    import torch


def start_file(start: Path) -> Path:
    """Return the file that holds the weights to begin with.

    Raises:
        ConfigError: it is neither an adapter's file nor a folder with a checkpoint.
    """
    if start.is_file():
        return start
    found = checkpoints(start)
    if not found:
        raise ConfigError(
            f"{start} holds no checkpoint of a fit: give the folder of one, or an adapter (.gguf)"
        )
    return found[-1] / "weights.safetensors"


def digest_of(path: Path) -> str:
    """Return a digest of a file's bytes."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def start_weights(options: FitOptions, base: Base, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the weights to begin with by their names in the model that is trained.

    Args:
        options: ``start`` says where they are; ``alpha`` and ``rank`` how an adapter is scaled.
        base: the model that is adapted.
        names: of the weights that are trained.

    Raises:
        ConfigError: ``start`` holds none, or an adapter where all weights are trained, or one of
            another base.
        ModelFileError: the file is no adapter.
    """
    path = start_file(Path(options.start))
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return {_plain(name): weights for name, weights in load_file(path).items()}
    if not options.rank:
        raise ConfigError(
            f"{path} is an adapter, and rank 0 trains all weights: give --base the merged model"
        )
    return _of_adapter(path, options, base, names)


def _plain(name: str) -> str:
    """Return a weight's name without what the peft library puts around it."""
    return name.removeprefix("base_model.model.").replace(".default.weight", ".weight")


def _of_adapter(
    path: Path, options: FitOptions, base: Base, names: Iterable[str]
) -> dict[str, torch.Tensor]:
    import torch

    adapter = read_adapter(path)
    if not base.is_gguf or adapter.facts.get(BASE_FACT, "") not in ("", hash_file(base.path)):
        raise ConfigError(
            f"{path} is an adapter of another file than {base.path}: give --base the GGUF it was "
            "trained from"
        )
    heads = read_heads(base.path)
    weights = {}
    for name in names:
        matrix = gguf_name(name) or ""
        if matrix not in adapter.matrices:
            continue  # who asked finds out
        a, b = adapter.matrices[matrix]
        if ".lora_A." in name:
            values = a
        else:
            scale = adapter.alpha / a.shape[0] / (options.alpha / options.rank)
            values = own_order(b * scale, matrix, heads)
        weights[name] = torch.tensor(values, dtype=torch.float32)
    return weights
