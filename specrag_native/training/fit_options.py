"""The settings of a fit, validated once.

Law: nothing is imported here that a command line cannot afford to import for its help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from specrag_native.config import DraftForm
from specrag_native.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Settings of a fit.

    ``rank`` 0 trains all weights, otherwise an adapter (LoRA) of that rank on every linear layer;
    ``alpha`` is its scale times the rank. ``rate`` is the peak learning rate: linear warm-up over
    ``warmup`` steps, then a cosine to a tenth. ``groups`` subsets make one step, computed one after
    another, so memory does not depend on it; on a GPU, give ``batch_tokens`` instead: a step is
    then three batches of subsets of like lengths, each of at most so many tokens.
    ``decision`` is the weight of the token by which a draft says whether there is evidence, where
    others have 1. ``standalone`` is the share of groups read in the standalone layout. ``epochs``
    may be a fraction. ``draft_form``: what drafts begin with; encoded examples have it in them.
    ``start``: folder of another fit with the same rank, or file of an adapter with that rank, whose
    (last) weights are the first of this one.
    """

    rank: int = 32
    alpha: int = 64
    rate: float = 1e-3
    warmup: int = 20
    groups: int = 6
    batch_tokens: int = 0
    decision: float = 1.0
    epochs: float = 1.0
    max_tokens: int = 1024
    standalone: float = 0.25
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    save_every: int = 25
    threads: int = 0
    device: str = "auto"
    start: str = ""
    draft_form: DraftForm = "rationale-first"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rank", 0, 1024),
            ("groups", 1, 4096),
            ("batch_tokens", 0, 1 << 24),
            ("warmup", 0, 1 << 20),
            ("max_tokens", 64, 1 << 16),
            ("save_every", 1, 1 << 20),
            ("standalone", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, got {value}")
        for name in ("alpha", "rate", "epochs", "clip", "decision"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.draft_form not in get_args(DraftForm):
            raise ConfigError(
                f"draft_form must be one of {', '.join(get_args(DraftForm))}, got "
                f"{self.draft_form!r}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device must be auto, cpu or cuda, got {self.device!r}")
