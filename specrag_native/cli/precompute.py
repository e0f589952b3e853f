"""``specrag index --precompute``: passages computed ahead of questions.

Law: what was computed is kept whenever it stops.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specrag_native.passage_cache import Precomputed


def check_precompute(args: argparse.Namespace) -> None:
    """Refuse options that do not go together; raises :class:`ConfigError`."""
    from specrag_native.errors import ConfigError
    from specrag_native.model_files import catalog

    if args.precompute is None:
        return
    if not 0 <= args.precompute <= 1 << 20:
        raise ConfigError(f"--precompute must be gigabytes, 0 or more, got {args.precompute:g}")
    if args.watch:
        raise ConfigError("--precompute does not go with --watch: run it once, afterwards")
    if args.precompute:
        catalog.resolve(args.drafter or catalog.default("drafter"), role="drafter")


def run_precompute(args: argparse.Namespace, directory: Path) -> Precomputed:
    """Let the drafter read every passage of the index, with a progress bar on a terminal."""
    from tqdm import tqdm

    from specrag_native.engines import Engines, ModelPaths
    from specrag_native.model_files import catalog
    from specrag_native.passage_cache import (
        Precomputed,
        make_cache_folder,
        precompute,
        remove_cache_folder,
    )
    from specrag_native.retrieval.index import Index

    if not args.precompute:
        remove_cache_folder(directory)
        return Precomputed(0, 0, 0, 0)
    path = catalog.resolve(args.drafter or catalog.default("drafter"), role="drafter").path
    kept = make_cache_folder(directory, int(args.precompute * 1e9))
    engines = Engines(
        ModelPaths(drafter=path, verifier=path, embedder=path),
        threads=args.threads,
        n_gpu_layers=args.gpu_layers,
    )
    with Index.open(directory) as index:
        total = index.counts.passages
        with tqdm(
            total=total,
            unit="passage",
            desc="read by the drafter",
            file=sys.stderr,
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as bar:

            def show(done: int) -> None:
                bar.update(done - bar.n)

            options = engines.options("drafter")
            return precompute(path, options, kept, index.passages(), total, progress=show)


def print_precomputed(kept: Precomputed, directory: Path) -> None:
    """Print what is kept now, and how to use it."""
    if not (kept.computed or kept.kept_before):
        print(f"{directory}: no passage is kept as the drafter read it")
        return
    print(
        f"{directory}: {kept.computed + kept.kept_before} passages kept as the drafter read them "
        f"({kept.computed} of them now), {kept.used / 1e9:.2f} GB"
    )
    if kept.left_out:
        print(f"  {kept.left_out} more do not fit: give --precompute more gigabytes")
