"""``specrag eval``: methods over question sets, resumable by question.

Law: what is answered is on disk before the next question begins.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.cli.index_options import add_embedder_options
from specrag_native.cli.settings import add_set_option, read_settings

if TYPE_CHECKING:
    from specrag_native.config import Config
    from specrag_native.evaluation.datasets import Dataset
    from specrag_native.evaluation.runner import Progress


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="measure methods on question sets",
        description="Answer question sets by one or more methods and write every answer with its "
        "scores, seconds and tokens to OUT. Run again, it goes on where it was stopped. "
        "`specrag report OUT` shows the results.",
    )
    parser.add_argument(
        "datasets", metavar="DATASET", nargs="+", type=Path, help="a .jsonl or .jsonl.gz file"
    )
    parser.add_argument(
        "--method",
        default="speculative,standard,drafter",
        metavar="NAMES",
        help="of speculative, standard, drafter, oracle, corrective, self-reflective, or "
        "FILE.py:NAME; separated by commas (default: speculative,standard,drafter)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results folder")
    parser.add_argument("--limit", type=int, metavar="N", help="questions per set (default: all)")
    parser.add_argument(
        "--half",
        choices=("tune", "report", "all"),
        default="all",
        help="which half of each set: settings are chosen on tune and reported on report",
    )
    parser.add_argument("--drafts", metavar="M[,M]", help="drafts per question; several to compare")
    parser.add_argument("--per-draft", metavar="K[,K]", help="passages per draft; likewise")
    parser.add_argument(
        "--ablate",
        default="",
        metavar="NAMES",
        help="variants of speculative, separated by commas: random-subsets, one-cluster, "
        "unclustered, plain-clustering, product-clustering, residual-clustering, reflection-0..2, "
        "user-layout, assistant-layout, exact-layout, standalone-layout, verify-auto, "
        "no-reranking, no-repair, repair-subset, repair-all, repair-redraft, repair-rationales, "
        "repair-more, repair-sentences; computed from the drafts by the report: no-draft-score, "
        "no-self-containment, no-self-reflection, raw-scores, random-draft, no-abstention",
    )
    parser.add_argument(
        "--retrieve", type=Path, metavar="INDEX", help="retrieve passages from this index"
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="passages retrieved (default: 10), or kept of those given (default: all)",
    )
    add_set_option(parser)
    parser.add_argument("--drafter", metavar="MODEL", help="as --embedder, for the drafter")
    parser.add_argument("--verifier", metavar="MODEL", help="as --embedder, for the verifier")
    parser.add_argument("--reranker", metavar="MODEL", help="as --embedder, for the reranker")
    parser.add_argument("--hop-ranker", metavar="MODEL", help="as --embedder, for the hop ranker")
    add_embedder_options(parser)
    parser.add_argument(
        "--self-rag", metavar="MODEL", help="a model with reflection tokens, for self-reflective"
    )
    parser.add_argument("--strict", action="store_true", help="fail at the first malformed line")
    parser.add_argument(
        "--no-reuse",
        action="store_true",
        help="write drafts again for every variant, even those that are the same",
    )
    parser.add_argument(
        "--contended", action="store_true", help="note that the machine is busy: seconds mean less"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run what is left to run and say where the results are."""
    from specrag_native.answering.calibration import settings_for
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions
    from specrag_native.engines import Engines, ModelPaths
    from specrag_native.errors import IndexStoreError
    from specrag_native.evaluation import machine
    from specrag_native.evaluation.methods import Session
    from specrag_native.evaluation.reuse import DraftMemory
    from specrag_native.evaluation.runner import Evaluation, Provenance, evidence_given
    from specrag_native.evaluation.variants import expand
    from specrag_native.hardware import physical_cores
    from specrag_native.model_files import catalog
    from specrag_native.retrieval.index import Index

    found = {
        role: catalog.path_for(role, getattr(args, role))
        for role in ("drafter", "verifier", "embedder")
    }
    variants = expand(
        _words(args.method),
        _config(args, settings_for(found["drafter"], found["verifier"])),
        drafts=_numbers(args.drafts, "--drafts"),
        per_draft=_numbers(args.per_draft, "--per-draft"),
        ablations=_words(args.ablate),
    )
    for further in ("reranker", "hop_ranker"):
        if any(further in v.roles for v in variants):
            found[further] = catalog.path_for(further, getattr(args, further))
    datasets = _datasets(args)
    engines = Engines(ModelPaths(**found), threads=args.threads, n_gpu_layers=args.gpu_layers)
    retriever, evidence = None, evidence_given(args.top)
    if args.retrieve is not None:
        index = Index.open(args.retrieve)
        retriever = index.retriever(engines.embedder)
        n = index.counts.passages
        if n == 0:
            raise IndexStoreError(f"{args.retrieve} holds no passages: fill it with specrag index")
        evidence = f"retrieved, top {args.top or 10} of {n} passages in {args.retrieve.name}"
    self_rag = None
    if args.self_rag:
        path = catalog.resolve(args.self_rag).path
        found["self-rag"] = path
        self_rag = NativeEngine(path, EngineOptions(threads=args.threads))
    provenance = Provenance(
        models=machine.model_files(found, tuned=engines.tuned_roles()),
        evidence=evidence,
        machine=machine.describe(
            threads=args.threads or physical_cores(),
            tuned=engines.tuned_roles(),
        ),
        command=_command(args),
        contended=args.contended,
    )
    evaluation = Evaluation(
        Session(engines, retriever, None if args.no_reuse else DraftMemory(), self_rag),
        provenance,
        args.out,
        top=args.top,
    )
    done = _follow(evaluation.run(datasets, variants), sys.stderr.isatty())
    print(f"{done} answers added to {args.out}; show them with: specrag report {args.out}")
    return 0


def _datasets(args: argparse.Namespace) -> list[Dataset]:
    from specrag_native.evaluation.datasets import read_dataset

    if args.limit is not None and args.limit < 1:
        from specrag_native.errors import ConfigError

        raise ConfigError(f"--limit must be at least 1, got {args.limit}")
    datasets = [
        read_dataset(
            path,
            strict=args.strict,
            half=args.half,
            limit=args.limit,
            passages_needed=args.retrieve is None,
        )
        for path in args.datasets
    ]
    for dataset in datasets:
        if dataset.malformed:
            first = dataset.malformed[0]
            print(
                f"specrag: {len(dataset.malformed)} malformed lines skipped; the first: {first}",
                file=sys.stderr,
            )
    return datasets


def _config(args: argparse.Namespace, fitted: Mapping[str, Any]) -> Config:
    from specrag_native.config import Config

    values = dict(fitted)
    values.update(read_settings(args.set))
    if args.top is not None:
        values["top"] = args.top
    return Config.from_mapping(values)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str | None, option: str) -> list[int]:
    from specrag_native.errors import ConfigError

    try:
        return [int(word) for word in _words(text or "")]
    except ValueError:
        raise ConfigError(f"{option} takes numbers separated by commas, got {text!r}") from None


def _command(args: argparse.Namespace) -> str:
    """Return the command without folders of this machine, which say nothing to others."""
    out = ["specrag", "eval", *(path.name for path in args.datasets)]
    known: Sequence[tuple[str, Callable[[Any], Iterable[str]]]] = (
        ("method", lambda v: [v]),
        ("limit", lambda v: [str(v)]),
        ("half", lambda v: [v] if v != "all" else []),
        ("drafts", lambda v: [v]),
        ("per_draft", lambda v: [v]),
        ("ablate", lambda v: [v]),
        ("retrieve", lambda v: [v.name]),
        ("top", lambda v: [str(v)]),
        ("drafter", lambda v: [Path(v).name]),
        ("verifier", lambda v: [Path(v).name]),
        ("embedder", lambda v: [Path(v).name]),
        ("reranker", lambda v: [Path(v).name]),
        ("hop_ranker", lambda v: [Path(v).name]),
    )
    for name, words in known:
        value = getattr(args, name)
        if value and (given := list(words(value))):
            out += [f"--{name.replace('_', '-')}", *given]
    for pair in args.set:
        out += ["--set", pair]
    return shlex.join(out)


def _follow(run: Iterable[Progress], shown: bool) -> int:
    """Run to the end with a progress bar where it is seen; return the number of answers."""
    from tqdm import tqdm

    done = 0
    bar: Any = None
    try:
        for progress in run:
            if bar is None:
                bar = tqdm(total=progress.total, unit="answer", disable=not shown)
            bar.set_description(f"{progress.dataset} {progress.variant}", refresh=False)
            bar.update(1)
            done = progress.done
    finally:
        if bar is not None:
            bar.close()
    return done
