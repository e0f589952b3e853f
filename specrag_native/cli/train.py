"""``specrag train``: its verbs, and of these those that fit a drafter and export it.

Law: everything long shows how far it is on stderr, can be stopped with Ctrl-C, and goes on when it
is run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from specrag_native.cli import train_check, train_data, train_ranker
from specrag_native.cli.train_shared import bar
from specrag_native.config import DraftForm

if TYPE_CHECKING:
    from specrag_native.training.base import Base
    from specrag_native.training.fit import Step
    from specrag_native.training.fit_options import FitOptions


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a drafter or a reranker of your own",
        description="Train a drafter: `data` makes drafting examples of questions with passages, "
        "`fit` fine-tunes a small model on them, `export` makes a GGUF of it, `check` measures how "
        "well a model drafts. `pairs` and `ranker` do the same for a reranker. fit, export and "
        "ranker need pip install 'specrag-native[train]'.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    train_data.add_verb(verbs)
    _add_encode(verbs)
    _add_fit(verbs)
    _add_export(verbs)
    train_check.add_verb(verbs)
    train_ranker.add_verbs(verbs)


def _add_encode(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "encode",
        help="make tokens of drafting examples, to fit elsewhere",
        description="Write drafting examples as the tokens of a base model. `fit` takes such a "
        "file where there is no engine, such as on a borrowed machine with a GPU.",
    )
    parser.add_argument("examples", type=Path, metavar="FILE", help="from specrag train data")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="tokens, .npz")
    parser.add_argument("--base", metavar="MODEL", help="the model that will be fitted, as in fit")
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=1024,
        metavar="N",
        help="longer examples are left out (default: %(default)s)",
    )
    parser.add_argument(
        "--draft-form",
        choices=get_args(DraftForm),
        default="rationale-first",
        help="what drafts begin with (default: %(default)s)",
    )
    parser.set_defaults(run=run_encode)


def run_encode(args: argparse.Namespace) -> int:
    """Encode examples."""
    from specrag_native.errors import ConfigError
    from specrag_native.training.encoded import encode_examples, write_encoded
    from specrag_native.training.examples import read_examples

    if args.out.suffix != ".npz":
        raise ConfigError(f"--out must end with .npz, got {args.out}")
    examples = read_examples(args.examples)
    encoded = encode_examples(
        examples, _base(args.base), max_tokens=args.max_tokens, form=args.draft_form
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_encoded(args.out, encoded)
    print(
        f"{args.out}: {encoded.n_examples - encoded.left_out} examples of {len(encoded.groups)} "
        f"subsets, {encoded.left_out} too long and left out"
    )
    return 0


def _add_fit(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "fit",
        help="fine-tune a model on drafting examples",
        description="Fine-tune a small causal model on drafting examples. Run again with the same "
        "settings, it goes on from its last checkpoint with the numbers it would have had.",
    )
    parser.add_argument(
        "examples", type=Path, metavar="FILE", help="from specrag train data, or encode (.npz)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints, curve")
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="a name of `specrag models`, a .gguf file, or a folder in Hugging Face's layout "
        "(default: the default drafter's base)",
    )
    from specrag_native.training.fit_options import FitOptions

    for field in dataclasses.fields(FitOptions):
        default: Any = field.default
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="N" if not isinstance(default, str) else "NAME",
            help=f"(default: {default})",
        )
    parser.set_defaults(run=run_fit)


def run_fit(args: argparse.Namespace) -> int:
    """Fine-tune, with progress and a plot of the curve."""
    from specrag_native.training.base import require_extra
    from specrag_native.training.curve import plot
    from specrag_native.training.encoded import read_encoded
    from specrag_native.training.examples import read_examples
    from specrag_native.training.fit import Fit
    from specrag_native.training.fit_options import FitOptions

    options: FitOptions = FitOptions(
        **{f.name: getattr(args, f.name) for f in dataclasses.fields(FitOptions)}
    )
    examples = (read_encoded if args.examples.suffix == ".npz" else read_examples)(args.examples)
    require_extra()
    fit = Fit(_base(args.base), examples, args.out, options)
    if fit.left_out:
        print(f"specrag: {fit.left_out} examples are too long and left out", file=sys.stderr)
    with bar("fit", "step", initial=fit.step) as tell:

        def on_step(step: Step) -> None:
            tell(step.step, step.of, f"loss {step.loss:.3f}")

        try:
            fit.run(on_step=on_step)
        finally:
            plot(args.out)
    print(f"{args.out}: {len(fit.steps)} steps; export it with specrag train export {args.out}")
    return 0


def _add_export(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "export",
        help="make GGUF files of a fit",
        description="Write the adapter and the merged, quantised model of a fit's last checkpoint.",
    )
    parser.add_argument("fit", type=Path, metavar="DIR", help="from specrag train fit")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--base", metavar="MODEL", help="the GGUF the fit began with")
    parser.add_argument("--name", default="drafter", metavar="NAME", help="(default: drafter)")
    parser.add_argument(
        "--type", default="Q8_0", metavar="TYPE", help="of the merged model (default: Q8_0)"
    )
    parser.add_argument(
        "--rank", type=int, metavar="N", help="of the adapter, when all weights were trained"
    )
    parser.add_argument(
        "--adapter-type",
        default="F16",
        choices=("F16", "Q8_0"),
        help="of the adapter's matrices; Q8_0 takes half the space (default: %(default)s)",
    )
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Export a fit."""
    from specrag_native.training.base import require_extra
    from specrag_native.training.export import export

    require_extra()
    done = export(
        args.fit,
        _base(args.base),
        args.out,
        name=args.name,
        type=args.type,
        rank=args.rank,
        adapter_type=args.adapter_type,
    )
    for path in (done.adapter, done.model):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _base(name: str | None) -> Base:
    from specrag_native.model_files import catalog
    from specrag_native.training.base import open_base

    if name is not None and Path(name).exists():
        return open_base(Path(name))
    return open_base(catalog.resolve(name or "smollm2-135m-instruct", role="drafter").path)
