"""Settings of the method by name on a command line: ``--set NAME=VALUE``.

Law: every command reads them the same way; what a value means is decided by the configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from specrag_native.errors import ConfigError


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--set``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the method, such as layout=standalone; may be given again",
    )


def read_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Return what ``NAME=VALUE`` pairs say; raises :class:`ConfigError` for another form."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, got {pair!r}")
        values[name] = _value(text)
    return values


def _value(text: str) -> Any:
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
