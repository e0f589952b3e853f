"""The ``specrag`` command: finds the commands, runs one, turns errors into exit codes.

Exit codes: 0 done; 1 something went wrong that the user cannot mend; 2 a user's mistake; 130
stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

import specrag_native
from specrag_native.errors import Cancelled, SpecragError, UserError

COMMANDS = (
    "pull",
    "models",
    "index",
    "ask",
    "search",
    "status",
    "remove",
    "rebuild",
    "doctor",
    "tune",
    "eval",
    "eval_retrieval",
    "report",
    "train",
)
"""Modules of this package in the order ``specrag --help`` lists them."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="specrag",
        description="Answers from your own documents, on your own machine, by Speculative RAG.",
    )
    parser.add_argument("--version", action="version", version=specrag_native.__version__)
    parser.add_argument("--verbose", action="store_true", help="show what happens, on stderr")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"specrag_native.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.ERROR, format="specrag: %(message)s"
    )
    try:
        return int(args.run(args))
    except UserError as error:
        print(f"specrag: error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Cancelled):
        print("specrag: stopped", file=sys.stderr)
        return 130
    except SpecragError as error:
        print(f"specrag: failed: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone (`specrag ask ... | head`): not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
