"""``specrag status``: what an index holds, and what it could not read.

Law: looking changes nothing, and needs no model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.cli.index_options import add_index_option, index_dir

if TYPE_CHECKING:
    from specrag_native.retrieval.index import Index
    from specrag_native.retrieval.store import SourceInfo


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "status",
        help="show what an index holds",
        description="Show what an index holds: its files, passages, embedder and size, and the "
        "files that were skipped, with the reason.",
    )
    add_index_option(parser)
    parser.add_argument("--files", action="store_true", help="list every file")
    parser.add_argument("--skipped", action="store_true", help="list every skipped file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the facts of an index."""
    from specrag_native.retrieval.index import Index

    with Index.open(index_dir(args)) as index:
        sources = index.sources()
        if args.json:
            print(json.dumps(status_json(index, sources), indent=2))
        else:
            _print(index, sources, files=args.files, skipped=args.skipped)
    return 0


def status_json(index: Index, sources: Sequence[SourceInfo]) -> dict[str, Any]:
    """Return the facts of an index as plain JSON-ready values."""
    from specrag_native.retrieval.lock import current_writer

    counts = index.counts
    return {
        "index": str(index.path),
        "embedder": index.embedder,
        "dim": index.dim,
        "files": counts.sources,
        "documents": counts.documents,
        "passages": counts.passages,
        "bytes": disk_bytes(index.path),
        "roots": [str(root) for root in index.roots()],
        "writer": current_writer(index.path),
        "skipped": [{"path": s.path, "reason": s.reason} for s in sources if s.reason],
        "notes": [{"path": s.path, "note": s.note} for s in sources if s.note],
        "sources": [
            {"path": s.path, "documents": s.documents, "passages": s.passages}
            for s in sources
            if s.reason is None
        ],
    }


def disk_bytes(directory: Path) -> int:
    """Return the size of an index on disk, in bytes."""
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())


def _print(index: Index, sources: Sequence[SourceInfo], *, files: bool, skipped: bool) -> None:
    facts = status_json(index, sources)
    print(f"{index.path}: {facts['files']} files, {facts['documents']} documents,", end=" ")
    print(f"{facts['passages']} passages, {facts['bytes'] / 2**20:.1f} MiB")
    print(f"embedder {index.embedder}, {index.dim} dimensions")
    for root in facts["roots"]:
        print(f"indexed from {root}")
    if facts["writer"]:
        print(f"being written by {facts['writer']}")
    if files:
        for source in sources:
            if source.reason is None:
                print(f"  {source.passages:6} passages  {source.path}")
    missing = [source for source in sources if source.reason is not None]
    if missing:
        print(f"{len(missing)} files skipped{':' if skipped else ' (--skipped lists them)'}")
    if skipped:
        for source in missing:
            print(f"  {source.path}: {source.reason}")
    for source in sources:
        if source.note:
            print(f"  note {source.path}: {source.note}")
