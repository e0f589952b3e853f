"""``specrag index``: bring an index up to date with files and folders.

Law: a file that cannot be read costs one line, never the run; what was finished is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.cli.index_options import (
    add_embedder_options,
    add_index_option,
    index_dir,
    open_embedder,
)

if TYPE_CHECKING:
    from specrag_native.protocol import Embedder
    from specrag_native.retrieval.index_types import IndexOptions, IndexReport, Progress

_SHOWN = 20
"""Skipped files named one by one; all of them are in --json and in ``specrag status``."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "index",
        help="index files and folders, or what changed in them",
        description="Index files and folders. Run again, it reads only what is new, changed, moved "
        "or deleted; without PATH it looks at everything that was given before.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="file or folder")
    add_index_option(parser)
    add_embedder_options(parser)
    add_reading_options(parser)
    parser.add_argument(
        "--precompute",
        metavar="GB",
        type=float,
        nargs="?",
        const=4.0,
        help="also let the drafter read every passage now and keep what it computed, up to GB "
        "gigabytes (default: 4), so that questions need not; 0 removes what is kept",
    )
    parser.add_argument(
        "--drafter", metavar="MODEL", help="drafter to precompute for (default: the default one)"
    )
    parser.add_argument(
        "--with-verifier",
        action="store_true",
        help="with --precompute: let the verifier read every passage as well, seconds for each",
    )
    parser.add_argument(
        "--verifier", metavar="MODEL", help="the verifier to do so (default: the default one)"
    )
    parser.add_argument(
        "--watch", action="store_true", help="go on, and index what changes, until Ctrl-C"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (with --watch one a line)"
    )
    parser.set_defaults(run=run)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which files are read, and how."""
    parser.add_argument("--words", type=int, metavar="N", help="words per passage (default: 100)")
    parser.add_argument(
        "--overlap", type=int, metavar="N", help="words repeated between passages (default: 0)"
    )
    parser.add_argument("--hidden", action="store_true", help="also files that start with a dot")
    parser.add_argument("--follow-links", action="store_true", help="also follow symbolic links")
    parser.add_argument(
        "--no-ignore", action="store_true", help="disregard .gitignore and .specragignore"
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="how to read text that is not UTF-8, such as cp1252"
    )
    parser.add_argument(
        "--max-file-mb", type=int, default=256, metavar="N", help="largest file (default: 256)"
    )
    parser.add_argument(
        "--file-seconds", type=float, default=60, metavar="S", help="time per file (default: 60)"
    )
    parser.add_argument(
        "--wait", type=float, default=0, metavar="S", help="seconds to wait for another writer"
    )


def reading_options(args: argparse.Namespace) -> IndexOptions:
    """Return the options that the command line says; raises :class:`ConfigError`."""
    import codecs

    from specrag_native.errors import ConfigError
    from specrag_native.ingest.document import ReadLimits
    from specrag_native.retrieval.chunking import ChunkOptions
    from specrag_native.retrieval.index_types import IndexOptions
    from specrag_native.retrieval.scan import ScanOptions

    if args.encoding is not None:
        try:
            codecs.lookup(args.encoding)
        except LookupError:
            raise ConfigError(f"no encoding is called {args.encoding!r}: try cp1252") from None
    if args.max_file_mb < 1 or args.file_seconds <= 0:
        raise ConfigError("--max-file-mb and --file-seconds must be above 0")
    chunk = None
    if args.words is not None or args.overlap is not None:
        default = ChunkOptions()
        chunk = ChunkOptions(
            words=default.words if args.words is None else args.words,
            overlap=default.overlap if args.overlap is None else args.overlap,
        )
    return IndexOptions(
        chunk=chunk,
        scan=ScanOptions(
            hidden=args.hidden, follow_links=args.follow_links, ignore_files=not args.no_ignore
        ),
        limits=ReadLimits(
            file_bytes=args.max_file_mb * 2**20,
            seconds=args.file_seconds,
            encoding=args.encoding,
        ),
        wait_s=args.wait,
    )


def run(args: argparse.Namespace) -> int:
    """Index, with a progress bar on a terminal, and print the summary."""
    from specrag_native.cli.precompute import check_precompute, print_precomputed, run_precompute
    from specrag_native.retrieval.indexer import check_paths, index_paths

    options = reading_options(args)
    directory = index_dir(args)
    check_paths(args.paths, index_dir=directory)  # before a model is loaded
    check_precompute(args)
    embedder = open_embedder(args)
    if args.watch:
        return _watch(args, directory, embedder, options)
    with ProgressBar(shown=sys.stderr.isatty()) as bar:
        report = index_paths(
            args.paths, index_dir=directory, embedder=embedder, options=options, progress=bar.show
        )
    if not args.json:
        print_report(report, directory, print)
    kept = {} if args.precompute is None else run_precompute(args, directory)
    if args.json:
        read = {reader: dataclasses.asdict(done) for reader, done in kept.items()}
        more = {"precompute": read} if read else {}
        print(json.dumps({**report_json(report, directory), **more}, indent=2))
    elif args.precompute is not None:
        print_precomputed(kept, directory)
    return 0


def _watch(
    args: argparse.Namespace, directory: Path, embedder: Embedder, options: IndexOptions
) -> int:
    from specrag_native.retrieval.watch import watch_paths

    for report in watch_paths(args.paths, index_dir=directory, embedder=embedder, options=options):
        if args.json:
            print(json.dumps(report_json(report, directory)), flush=True)
        else:
            print_report(report, directory, functools.partial(print, flush=True))
    return 0


def print_report(report: IndexReport, directory: Path, line: Callable[[str], None]) -> None:
    """Print what a run did: one line of counts, then what is not in the index and why."""
    counts = [
        f"{number} {name}"
        for number, name in (
            (report.added, "added"),
            (report.changed, "changed"),
            (report.moved, "moved"),
            (report.removed, "removed"),
            (report.unchanged, "unchanged"),
            (len(report.skipped), "skipped"),
        )
        if number
    ]
    line(
        f"{directory}: {', '.join(counts) or 'nothing to do'}; {report.passages} passages, "
        f"{report.embedded} embedded, {report.seconds:.1f} s"
    )
    for skipped in report.skipped[:_SHOWN]:
        line(f"  skipped {skipped.path}: {skipped.reason}")
    if len(report.skipped) > _SHOWN:
        line(f"  and {len(report.skipped) - _SHOWN} more: specrag status --skipped")
    for note in report.notes[:_SHOWN]:
        line(f"  note    {note.path}: {note.reason}")
    if report.unknown_formats:
        some = sorted(report.unknown_formats.items(), key=lambda pair: -pair[1])[:8]
        line("  no reader for " + ", ".join(f"{n} {suffix}" for suffix, n in some))


def report_json(report: IndexReport, directory: Path) -> dict[str, Any]:
    """Return a report as plain JSON-ready values."""
    return {
        "index": str(directory),
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "documents": report.documents,
        "passages": report.passages,
        "embedded": report.embedded,
        "skipped": [{"path": s.path, "reason": s.reason} for s in report.skipped],
        "notes": [{"path": s.path, "note": s.reason} for s in report.notes],
        "unknown_formats": dict(report.unknown_formats),
        "seconds": round(report.seconds, 3),
    }


class ProgressBar:
    """A bar over the bytes of new and changed files, with the time left."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        if not self._shown or not progress.total_bytes:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.total_bytes, unit="B", unit_scale=True, file=sys.stderr, leave=False
            )
        self._bar.total = progress.total_bytes
        self._bar.n = progress.done_bytes
        self._bar.set_description(progress.path[-32:], refresh=False)
        self._bar.set_postfix_str(f"{progress.passages} passages", refresh=False)
        self._bar.refresh()
