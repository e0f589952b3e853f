"""``specrag models``: the models this project knows, and which of them are here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specrag_native.model_files.catalog import ModelStatus


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="list the models this project knows, and which are on this machine",
        description="List the models this project knows: role, size to fetch, licence, and where "
        "they are on this machine. * marks the default of a role. Wherever a model is named, a "
        ".gguf file or user/repo:QUANT of the Hugging Face hub does as well.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue with what is present."""
    from specrag_native.model_files import catalog, model_dir

    found = catalog.list_models()
    if args.json:
        models = [_as_json(status) for status in found]
        print(json.dumps({"folder": str(model_dir.models_dir()), "models": models}, indent=2))
        return 0
    rows = [("", "NAME", "ROLE", "FETCH", "LICENCE", "ON THIS MACHINE")]
    for status in found:
        model = status.model
        rows.append(
            (
                "*" if status.is_default else "",
                model.name,
                model.role,
                model_dir.human(model.fetch_size),
                model.licence,
                f"{status.path} ({model_dir.human(status.size)})"
                if status.present
                else f"no; specrag pull {model.name}",
            )
        )
    print(_table(rows))
    return 0


def _as_json(status: ModelStatus) -> dict[str, Any]:
    model = status.model
    return {
        "name": model.name,
        "role": model.role,
        "default": status.is_default,
        "licence": model.licence,
        "summary": model.summary,
        "prompt_format": model.prompt_format,
        "fetch_size": model.fetch_size,
        "prepare": f"{model.prepare.kind} {model.prepare.type}" if model.prepare else None,
        "present": status.present,
        "path": str(status.path) if status.path else None,
        "size": status.size,
    }


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )
