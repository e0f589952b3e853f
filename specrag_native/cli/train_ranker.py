"""``specrag train pairs``, ``hops`` and ``ranker``: teach an embedder to rank.

Law: as ``specrag train``: everything long shows how far it is, can be stopped, and goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.cli.train_shared import bar, source

if TYPE_CHECKING:
    from specrag_native.training.data import Counts, DataOptions
    from specrag_native.training.fit import Step


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to those of ``specrag train``."""
    _add_pairs(verbs)
    _add_hops(verbs)
    _add_ranker(verbs)


def _add_pairs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "pairs",
        help="make groups of passages for a reranker",
        description="Turn question sets with passages into groups: passages that answer a "
        "question, and close ones that do not. Held-back groups are written beside them.",
    )
    _add_sources(parser)
    parser.set_defaults(run=run_pairs)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sets", metavar="SET[:N]", nargs="+", help="a .jsonl or .jsonl.gz question set, N questions"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="groups, .jsonl")
    for name, metavar, what in (
        ("--pool", "CORPUS", "further passages to draw the others from, .jsonl; may be repeated"),
        ("--exclude", "SET", "leave out questions that stand in this set too; may be repeated"),
    ):
        parser.add_argument(
            name, type=Path, action="append", default=[], metavar=metavar, help=what
        )
    parser.add_argument(
        "--held-back", type=float, default=0.02, metavar="SHARE", help="share of articles to check"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")


def run_pairs(args: argparse.Namespace) -> int:
    """Make groups."""
    from specrag_native.training.pairs import make_groups

    with bar("groups", "question") as tell:
        counts = make_groups(_options(args), args.out, report=tell)
    return _say(args.out, counts)


def _options(args: argparse.Namespace) -> DataOptions:
    from specrag_native.errors import ConfigError
    from specrag_native.training.data import DataOptions
    from specrag_native.training.drawing import DrawOptions

    if not 0 <= args.held_back < 1:
        raise ConfigError(f"--held-back must be at least 0 and below 1, got {args.held_back}")
    return DataOptions(
        sources=tuple(source(text) for text in args.sets),
        pools=tuple(args.pool),
        exclude=tuple(args.exclude),
        held_back=args.held_back,
        draw=DrawOptions(seed=args.seed),
    )


def _say(out: Path, counts: Counts) -> int:
    print(f"{out}: {sum(counts.examples.values())} groups, {counts.held_back} held back")
    for name, number in sorted(counts.examples.items()):
        print(f"  {name}  {number}")
    return 0


def _add_hops(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from specrag_native.training.hop_options import HopOptions

    parser = verbs.add_parser(
        "hops",
        help="make groups of passages for a hop ranker",
        description="Turn question sets with passages into groups for a hop ranker: a question "
        "with a first passage, those that complete it, and others; and questions alone, of which "
        "it tells whether one passage will do. Where sets mark one passage, questions that take "
        "two are made up of them. Fit it with `specrag train ranker --base specrag-reranker-22m "
        "--question-tokens 160 --pair-tokens 288`; `specrag ask --hop-ranker` takes what comes "
        "out.",
    )
    _add_sources(parser)
    for name, what in (
        ("bridges", "made-up questions of one question that names the title of its passage"),
        ("made-up", "made-up questions about titles, asked alone"),
    ):
        default = getattr(HopOptions(), name.replace("-", "_"))
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"most {what} (default: {default})",
        )
    parser.set_defaults(run=run_hops)


def run_hops(args: argparse.Namespace) -> int:
    """Make groups for a hop ranker."""
    from specrag_native.training.hop_options import HopOptions
    from specrag_native.training.hops import make_hop_groups

    options = HopOptions(bridges=args.bridges, made_up=args.made_up)
    with bar("groups", "question") as tell:
        counts = make_hop_groups(_options(args), args.out, hops=options, report=tell)
    return _say(args.out, counts)


def _add_ranker(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "ranker",
        help="fit a reranker or a hop ranker on groups and export it",
        description="Teach an embedder to rank: fit it on groups, check it on those held back, "
        "and write an adapter and the model made of it, which `specrag ask --reranker` (or "
        "`--hop-ranker`) takes. Run again with the same settings, it goes on from its last "
        "checkpoint.",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="groups, from specrag train pairs or hops"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="checkpoints, models"
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="an embedder, or a cross-encoder to train on (default: the default embedder)",
    )
    parser.add_argument("--name", default="reranker", metavar="NAME", help="(default: reranker)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    from specrag_native.training.rank_options import RankFitOptions

    for field in dataclasses.fields(RankFitOptions):
        default: Any = field.default
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="N",
            help=f"(default: {default})",
        )
    parser.set_defaults(run=run_ranker)


def run_ranker(args: argparse.Namespace) -> int:
    """Fit, check and export."""
    from specrag_native.model_files import catalog
    from specrag_native.model_files.adapter import build
    from specrag_native.training.base import require_extra
    from specrag_native.training.pairs import read_groups
    from specrag_native.training.rank_options import RankFitOptions

    options = RankFitOptions(
        **{f.name: getattr(args, f.name) for f in dataclasses.fields(RankFitOptions)}
    )
    groups = read_groups(args.file)
    check = args.file.with_name(f"{args.file.stem}-check{args.file.suffix}")
    held = read_groups(check) if check.exists() and check.stat().st_size else []
    require_extra()
    from specrag_native.training.rank_fit import RankFit

    base = catalog.resolve(args.base or catalog.default("embedder")).path
    fit = RankFit(base, groups, args.out, options)
    with bar("fit", "step", initial=fit.step) as tell:

        def on_step(step: Step) -> None:
            tell(step.step, step.of, f"loss {step.loss:.3f}")

        fit.run(on_step=on_step)
    with bar("check", "group") as tell:
        found = dataclasses.asdict(fit.check(held, report=tell))
    adapter = args.out / f"{args.name}-adapter.gguf"
    fit.export(adapter, name=args.name)
    model = args.out / f"{args.name}-f16.gguf"
    build(base, adapter, model, type="F16", name=args.name)
    values = {"adapter": str(adapter), "model": str(model), "steps": fit.step, **found}
    if args.json:
        print(json.dumps(values, indent=1))
        return 0
    print(f"{model}: {fit.step} steps")
    if held:
        print(f"{found['groups']} held-back groups: loss {found['loss']:.3f}")
    if found["first_right"] is not None:
        print(
            f"  {found['first_right']:.0%} of those with right texts and others: a right one first"
        )
    if found["told"] is not None:
        print(f"  {found['told']:.0%} of those of one kind: told, each text by itself")
    return 0
