"""Measurements kept as JSON lines, one row per thing measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""Where measurements are kept."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows that were stored so far, none where nothing was."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
