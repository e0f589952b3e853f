"""``specrag remove``: take files out of an index.

Law: the files themselves are never touched.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from specrag_native.cli.index_options import add_index_option, index_dir


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "remove",
        help="take files or folders out of an index",
        description="Take files, or all files below a folder, out of an index. The files stay on "
        "disk; indexing a folder that holds them brings them back, unless .specragignore names "
        "them.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="file or folder")
    add_index_option(parser)
    parser.add_argument(
        "--wait", type=float, default=0, metavar="S", help="seconds to wait for another writer"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Remove, and print how many files that were."""
    from specrag_native.retrieval.indexer import remove_paths

    directory = index_dir(args)
    removed = remove_paths(args.paths, index_dir=directory, wait_s=args.wait)
    if args.json:
        print(json.dumps({"index": str(directory), "removed": removed}))
    else:
        print(f"{directory}: {removed} files removed")
    return 0
