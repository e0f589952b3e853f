"""Checkpoints of a fit: the weights that are trained, the optimiser's moments, the step.

Law: a checkpoint appears whole or not at all, and the one before it is dropped only then.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def trained_weights(model: Any) -> dict[str, Any]:
    """Return the weights of a torch module that are trained, by name."""
    return {
        name: p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def checkpoints(out: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(p for p in out.glob("checkpoint-*") if (p / "step.json").is_file())


def write_checkpoint(out: Path, step: int, model: Any, optimiser: Any) -> Path:
    """Write a checkpoint of a step and drop the one before it; return its folder."""
    from safetensors.torch import save_file

    final = out / f"checkpoint-{step:06}"
    if final.exists():
        return final
    partial = out / f".checkpoint-{step:06}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file(trained_weights(model), partial / "weights.safetensors")
    moments = {}
    for name, p in model.named_parameters():
        state = optimiser.state.get(p)
        if state:
            moments[f"{name}/exp_avg"] = state["exp_avg"].cpu().contiguous()
            moments[f"{name}/exp_avg_sq"] = state["exp_avg_sq"].cpu().contiguous()
    save_file(moments, partial / "optimiser.safetensors")
    (partial / "step.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    partial.rename(final)
    for old in checkpoints(out)[:-1]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def read_moments(checkpoint: Path, model: Any, optimiser: Any) -> int:
    """Give an optimiser the moments of a checkpoint; return the checkpoint's step."""
    import torch
    from safetensors.torch import load_file

    step = int(json.loads((checkpoint / "step.json").read_text())["step"])
    moments = load_file(checkpoint / "optimiser.safetensors")
    fused = optimiser.defaults.get("fused")
    for name, p in model.named_parameters():
        if f"{name}/exp_avg" in moments:
            optimiser.state[p] = {
                "step": torch.tensor(float(step), device=p.device if fused else None),
                "exp_avg": moments[f"{name}/exp_avg"].to(p.device),
                "exp_avg_sq": moments[f"{name}/exp_avg_sq"].to(p.device),
            }
    return step


def cut_log(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint; those steps are taken again."""
    if path.exists():
        kept = path.read_text(encoding="utf-8").splitlines()[:step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
