"""The settings of a fit of a cross-encoder, validated once.

Law: nothing is imported here that a command line cannot afford to import for its help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from specrag_native.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RankFitOptions:
    """Settings of a fit of a cross-encoder.

    ``rank`` and ``alpha`` are those of the adapter; ``rate`` is the peak learning rate: linear
    warm-up over ``warmup`` steps, then a cosine to a twentieth; ``groups`` make one step;
    ``epochs`` may be a fraction. Of a question ``question_tokens`` are read, of a pair
    ``pair_tokens`` with the model's own ones; the defaults are those of a reranker, a hop ranker
    reads 160 and 288.
    """

    rank: int = 32
    alpha: int = 64
    rate: float = 1e-3
    warmup: int = 30
    groups: int = 8
    epochs: float = 1.0
    clip: float = 1.0
    seed: int = 0
    question_tokens: int = 64
    pair_tokens: int = 192
    save_every: int = 100
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "groups", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1 <= self.question_tokens <= self.pair_tokens - 3 <= 509:
            raise ConfigError(
                "question_tokens must be at least 1 and 3 fewer than pair_tokens, of which there "
                f"are at most 512; got {self.question_tokens} and {self.pair_tokens}"
            )
        for name in ("alpha", "rate", "epochs", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
