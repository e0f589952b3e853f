"""From a fit to GGUF files: the adapter, and the merged model in a type the engine runs fast.

Law: nothing is lost on the way but what the types lose; the merged model's log-probabilities are
those of the trained one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specrag_native.errors import ConfigError, ModelFileError
from specrag_native.model_files.adapter import BASE_FACT, Adapter, build, write_adapter
from specrag_native.model_files.model_dir import hash_file
from specrag_native.training.base import Base, gguf_name
from specrag_native.training.checkpoints import checkpoints
from specrag_native.training.fit import SETTINGS
from specrag_native.training.rows import Heads, file_order, read_heads

if TYPE_CHECKING:
    import torch

    from specrag_native.model_files.adapter import Matrix


@dataclass(frozen=True, slots=True)
class Exported:
    """The files of an export; ``model`` is what the engine runs."""

    adapter: Path
    model: Path
    steps: int


def export(
    fit: Path,
    base: Base,
    out: Path,
    *,
    name: str,
    type: str = "Q8_0",
    rank: int | None = None,
    adapter_type: str = "F16",
    facts: dict[str, str] | None = None,
) -> Exported:
    """Write ``NAME-adapter.gguf`` and ``NAME-TYPE.gguf`` of a fit's last checkpoint.

    Args:
        fit: folder of the fit.
        base: the model the fit began with; a GGUF, since the merged file is made from it.
        out: folder to write to.
        name: of the new model.
        type: of the merged model's matrices: ``F16``, or a type of ``quantise``.
        rank: of the adapter, when all weights were trained: the change of every matrix is cut to
            its largest ``rank`` singular values. The merged model is the base with the adapter.
        adapter_type: of the adapter's matrices: ``F16`` or ``Q8_0``. The merged model is made of
            the adapter as it was written.
        facts: further texts to keep in the adapter, such as its licence.

    Raises:
        ConfigError: the fit has no checkpoint, or is of another base.
    """
    found = checkpoints(fit)
    if not found:
        raise ConfigError(f"{fit} holds no checkpoint: run specrag train fit --out {fit}")
    settings = json.loads((fit / SETTINGS).read_text(encoding="utf-8"))
    if not base.is_gguf:
        raise ModelFileError(f"{base.path} is no GGUF: export merges into a GGUF of the base")
    if settings["base"] != base.path.name:
        raise ConfigError(f"{fit} began with {settings['base']}, not with {base.path.name}")
    shape = read_heads(base.path)
    trained_rank = int(settings["options"]["rank"])
    if trained_rank:
        matrices = _of_adapter(found[-1], shape)
        alpha = float(settings["options"]["alpha"])
    else:
        if not rank:
            raise ConfigError("all weights were trained: give the adapter a --rank")
        matrices, alpha = _factorised(found[-1], base, shape, rank), float(rank)
    steps = int(json.loads((found[-1] / "step.json").read_text())["step"])
    adapter = Adapter(
        architecture=base.architecture,
        alpha=alpha,
        matrices=matrices,
        facts={
            "general.name": name,
            BASE_FACT: hash_file(base.path),
            **(facts or {}),
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    adapter_path = out / f"{name}-adapter.gguf"
    write_adapter(adapter_path, adapter, type=adapter_type)
    model_path = out / f"{name}-{type.lower()}.gguf"
    build(base.path, adapter_path, model_path, type=type, name=name)
    return Exported(adapter_path, model_path, steps)


def _of_adapter(checkpoint: Path, heads: Heads) -> dict[str, tuple[Matrix, Matrix]]:
    weights = _load(checkpoint)
    halves: dict[str, dict[str, Matrix]] = {}
    for key, tensor in weights.items():
        name = gguf_name(key)
        if name is None or not (".lora_A." in key or ".lora_B." in key):
            raise ModelFileError(f"{checkpoint}: {key} is no part of an adapter")
        half = "a" if ".lora_A." in key else "b"
        halves.setdefault(name, {})[half] = tensor.float().numpy()
    return {name: (x["a"], file_order(x["b"], name, heads)) for name, x in halves.items()}


def _factorised(
    checkpoint: Path, base: Base, heads: Heads, rank: int
) -> dict[str, tuple[Matrix, Matrix]]:
    import numpy as np
    import torch

    before = dict(base.model(torch.float32).named_parameters())
    made = {}
    for key, tensor in _load(checkpoint).items():
        name = gguf_name(key)
        if name is None:
            continue  # norms and embeddings are not adapted
        change = (tensor.float() - before[key].detach()).numpy()
        u, s, v = np.linalg.svd(change, full_matrices=False)
        root = np.sqrt(s[:rank])
        b, a = u[:, :rank] * root, root[:, None] * v[:rank]
        # One rank for all, since the file has one scale; a small matrix has fewer directions.
        lacking = rank - len(root)
        b, a = np.pad(b, ((0, 0), (0, max(0, lacking)))), np.pad(a, ((0, max(0, lacking)), (0, 0)))
        made[name] = (a.astype(np.float32), file_order(b.astype(np.float32), name, heads))
    return made


def _load(checkpoint: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(checkpoint / "weights.safetensors"))
