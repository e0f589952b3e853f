"""``specrag report``: results of runs as a page, plots and a table.

Law: it reads results and runs no model.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="show the results of specrag eval",
        description="Write report.html (self-contained), plots (PNG, needs matplotlib) and "
        "report.md from the results in DIR, and print the table.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="results folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the report goes (default: DIR/report)"
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="also write the results there compressed, without rationales, fit to be shared",
    )
    parser.add_argument(
        "--document",
        type=Path,
        metavar="FILE",
        help="write the tables to this Markdown file, and nothing else unless --out is given",
    )
    parser.add_argument(
        "--latency",
        type=Path,
        metavar="DIR",
        help="results of the latency benchmarks (--benchmark-json), for --document",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        action="append",
        default=[],
        metavar="DATASET",
        help="a question set, so that the page shows questions beside answers; may be repeated",
    )
    parser.add_argument("--no-plots", action="store_true", help="leave the plots out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report and print its table."""
    from specrag_native.evaluation.datasets import read_dataset
    from specrag_native.evaluation.report import results_document, write_report
    from specrag_native.evaluation.sharing import export

    if args.document is not None:
        text = results_document(args.folder, args.document, args.latency)
        args.document.write_text(text, encoding="utf-8")
        print(args.document)
    if args.export is not None:
        for path in sorted(args.folder.glob("*.jsonl")):
            export(path, args.export / f"{path.name}.gz")
    if args.document is not None and args.out is None:
        return 0
    written = write_report(
        args.folder,
        args.out or args.folder / "report",
        plots=not args.no_plots,
        questions=[read_dataset(p, passages_needed=False) for p in args.questions],
    )
    print(written.markdown, end="")
    print(f"\n{written.page}")
    return 0
