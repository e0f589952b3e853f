"""``specrag rebuild``: make everything that can be derived again.

Law: the files are read anew and every derived part is written anew; vectors are kept by the hash
of their text, so nothing is embedded that was embedded before.
"""

from __future__ import annotations

import argparse
import json
import sys

from specrag_native.cli.index import (
    ProgressBar,
    add_reading_options,
    print_report,
    reading_options,
    report_json,
)
from specrag_native.cli.index_options import (
    add_embedder_options,
    add_index_option,
    index_dir,
    open_embedder,
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "rebuild",
        help="read every file of an index again",
        description="Read every file of an index again, also unchanged ones, write the full-text "
        "and vector indexes anew and give unused space back. Texts that were embedded before are "
        "not embedded again. With --words or --overlap, passages are cut anew.",
    )
    add_index_option(parser)
    add_embedder_options(parser)
    add_reading_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Rebuild, with a progress bar on a terminal, and print the summary."""
    from specrag_native.retrieval.indexer import check_paths, rebuild

    options = reading_options(args)
    directory = index_dir(args)
    check_paths((), index_dir=directory)
    embedder = open_embedder(args)
    with ProgressBar(shown=sys.stderr.isatty()) as bar:
        report = rebuild(index_dir=directory, embedder=embedder, options=options, progress=bar.show)
    if args.json:
        print(json.dumps(report_json(report, directory), indent=2))
    else:
        print_report(report, directory, print)
    return 0
