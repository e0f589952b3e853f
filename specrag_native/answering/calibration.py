"""Settings that were fitted for a pair of models and are kept with them.

Law: they are used for exactly the files they were fitted for; every other pair has the defaults,
and with a drafter of ours what that was taught.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specrag_native.config import REPAIR_THRESHOLDS
from specrag_native.errors import ConfigError
from specrag_native.model_files import catalog

SETTINGS = (
    *("confidence_weights", "reading_weights"),
    *("rerank", "n_drafts", "n_written", "passages_per_draft", "draft_order", "layout"),
    *("unknown_above", "verify", "repair", "repair_below", "accept_above", "irrelevant_below"),
    *REPAIR_THRESHOLDS,
    *("min_rationales", "draft_weights", "abstain_below"),
)


def path() -> Path:
    """Return where calibrations are kept: beside the catalogue of models."""
    return catalog.catalogue_path().with_name("calibration.json")


def settings_for(drafter: Path, verifier: Path) -> dict[str, Any]:
    """Return the settings of the method that were fitted for two model files; empty when none.

    What a drafter was taught holds beside every verifier.
    """
    taught = taught_to(drafter)
    for pair in _stored().get("pairs", ()):
        if (pair["drafter"], pair["verifier"]) == (drafter.name, verifier.name):
            found = {name: pair[name] for name in SETTINGS if name in pair}
            return {
                **taught,
                **{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()},
            }
    return taught


def taught_to(drafter: Path) -> dict[str, Any]:
    """Return the settings that follow from how a drafter was trained; empty for another file."""
    return dict(_stored().get("drafters", {}).get(drafter.name, {}))


def _stored() -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(path().read_text(encoding="utf-8"))
        return {**stored, "pairs": stored["pairs"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path()} cannot be read ({error!r}): install the package again"
        ) from None
