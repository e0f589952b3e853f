"""Options that the commands around an index share, and the embedder they open.

Law: an index and its embedder are named the same way in every command.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specrag_native.protocol import Embedder


def add_index_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--index``."""
    parser.add_argument(
        "--index",
        type=Path,
        metavar="DIR",
        default=None,
        help="folder of the index (default: $SPECRAG_INDEX, else .specrag)",
    )


def index_dir(args: argparse.Namespace) -> Path:
    """Return the folder of the index that the command line means."""
    from specrag_native.retrieval.index import default_index_dir

    return args.index if args.index is not None else default_index_dir()


def add_embedder_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--embedder``, ``--threads`` and ``--gpu-layers``."""
    parser.add_argument(
        "--embedder",
        metavar="MODEL",
        help="embedding model: a name of `specrag models`, a .gguf file, or user/repo:QUANT",
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads (default: physical cores)"
    )
    parser.add_argument(
        "--gpu-layers", type=int, default=0, metavar="N", help="layers on the GPU (default: 0)"
    )


def open_embedder(args: argparse.Namespace) -> Embedder:
    """Load the embedder that the command line names, or the default one."""
    from specrag_native.engines import Engines, ModelPaths
    from specrag_native.model_files import catalog

    model = catalog.resolve(args.embedder or catalog.default("embedder"), role="embedder")
    paths = ModelPaths(drafter=model.path, verifier=model.path, embedder=model.path)
    return Engines(paths, threads=args.threads, n_gpu_layers=args.gpu_layers).embedder
