"""``specrag index --precompute``: passages computed ahead of questions.

Law: what was computed is kept whenever it stops.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specrag_native.passage_cache import CacheFolder, Precomputed, Reader


def check_precompute(args: argparse.Namespace) -> None:
    """Refuse options that do not go together; raises :class:`ConfigError`."""
    from specrag_native.errors import ConfigError

    if args.precompute is None:
        for option in ("with_verifier", "verifier", "drafter"):
            if getattr(args, option):
                name = option.replace("_", "-")
                raise ConfigError(f"--{name} goes with --precompute: give both, or none")
        return
    if not 0 <= args.precompute <= 1 << 20:
        raise ConfigError(f"--precompute must be gigabytes, 0 or more, got {args.precompute:g}")
    if args.watch:
        raise ConfigError("--precompute does not go with --watch: run it once, afterwards")
    if args.precompute:
        _paths(args)


def run_precompute(args: argparse.Namespace, directory: Path) -> dict[Reader, Precomputed]:
    """Let the models read every passage of the index, with a progress bar on a terminal."""
    from specrag_native.passage_cache import make_cache_folder, remove_cache_folder

    if not args.precompute:
        remove_cache_folder(directory)
        return {}
    kept = make_cache_folder(directory, int(args.precompute * 1e9))
    return {
        reader: _let_read(reader, path, args, directory, kept)
        for reader, path in _paths(args).items()
    }


def _paths(args: argparse.Namespace) -> dict[Reader, Path]:
    from specrag_native.model_files import catalog

    names: dict[Reader, str | None] = {"drafter": args.drafter}
    if args.with_verifier or args.verifier:
        names["verifier"] = args.verifier
    return {reader: catalog.path_for(reader, name) for reader, name in names.items()}


def _let_read(
    reader: Reader, path: Path, args: argparse.Namespace, directory: Path, kept: CacheFolder
) -> Precomputed:
    from tqdm import tqdm

    from specrag_native.engines import Engines, ModelPaths
    from specrag_native.passage_cache import precompute
    from specrag_native.retrieval.index import Index

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
            desc=f"read by the {reader}",
            file=sys.stderr,
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as bar:

            def show(done: int) -> None:
                bar.update(done - bar.n)

            return precompute(
                path,
                engines.options(reader),
                kept,
                index.passages(),
                total,
                reader=reader,
                progress=show,
            )


def print_precomputed(done: dict[Reader, Precomputed], directory: Path) -> None:
    """Print what is kept now, and how to use it."""
    if not any(kept.computed or kept.kept_before for kept in done.values()):
        print(f"{directory}: no passage is kept as a model read it")
        return
    for reader, kept in done.items():
        print(
            f"{directory}: {kept.computed + kept.kept_before} passages kept as the {reader} read "
            f"them ({kept.computed} of them now), {kept.used / 1e9:.2f} GB in all"
        )
        if kept.left_out:
            print(f"  {kept.left_out} more do not fit: give --precompute more gigabytes")
