"""The settings of groups for a hop ranker, validated once.

Law: nothing is imported here that a command line cannot afford to import for its help.
"""

from __future__ import annotations

from dataclasses import dataclass

from specrag_native.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HopOptions:
    """Settings of groups for a hop ranker.

    ``bridges``: most made-up questions that take two passages, of each question that names the
    title of its passage. ``made_up``: questions about titles, asked alone.
    """

    bridges: int = 3
    made_up: int = 4500

    def __post_init__(self) -> None:
        for name in ("bridges", "made_up"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
