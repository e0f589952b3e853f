"""``specrag train pairs`` and ``specrag train ranker``: teach an embedder to rank.

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
    from specrag_native.training.fit import Step


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both verbs to those of ``specrag train``."""
    _add_pairs(verbs)
    _add_ranker(verbs)


def _add_pairs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "pairs",
        help="make groups of passages for a reranker",
        description="Turn question sets with passages into groups: passages that answer a "
        "question, and close ones that do not. Held-back groups are written beside them.",
    )
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
    parser.set_defaults(run=run_pairs)


def run_pairs(args: argparse.Namespace) -> int:
    """Make groups."""
    from specrag_native.errors import ConfigError
    from specrag_native.training.data import DataOptions
    from specrag_native.training.drawing import DrawOptions
    from specrag_native.training.pairs import make_groups

    if not 0 <= args.held_back < 1:
        raise ConfigError(f"--held-back must be at least 0 and below 1, got {args.held_back}")
    options = DataOptions(
        sources=tuple(source(text) for text in args.sets),
        pools=tuple(args.pool),
        exclude=tuple(args.exclude),
        held_back=args.held_back,
        draw=DrawOptions(seed=args.seed),
    )
    with bar("groups", "question") as tell:
        counts = make_groups(options, args.out, report=tell)
    print(f"{args.out}: {sum(counts.examples.values())} groups, {counts.held_back} held back")
    for name, number in sorted(counts.examples.items()):
        print(f"  {name}  {number}")
    return 0


def _add_ranker(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "ranker",
        help="fit a reranker on groups and export it",
        description="Teach an embedder to rank: fit it on groups, check it on those held back, "
        "and write an adapter and the model made of it, which `specrag ask --reranker` takes. Run "
        "again with the same settings, it goes on from its last checkpoint.",
    )
    parser.add_argument("groups", type=Path, metavar="FILE", help="from specrag train pairs")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="checkpoints, models"
    )
    parser.add_argument("--base", metavar="MODEL", help="an embedder (default: the default one)")
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
    groups = read_groups(args.groups)
    check = args.groups.with_name(f"{args.groups.stem}-check{args.groups.suffix}")
    held = read_groups(check) if check.exists() and check.stat().st_size else []
    require_extra()
    from specrag_native.training.rank_fit import RankFit

    base = catalog.path_for("embedder", args.base)
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
        print(
            f"of {found['groups']} held-back groups, {found['first_right']:.0%} have a passage "
            f"first that answers; loss {found['loss']:.3f}"
        )
    return 0
