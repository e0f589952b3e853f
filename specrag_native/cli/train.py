"""``specrag train``: make drafting examples, fit a drafter, export it, check it.

Law: everything long shows how far it is on stderr, can be stopped with Ctrl-C, and goes on when it
is run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from specrag_native.cli import train_ranker
from specrag_native.cli.train_shared import bar, source
from specrag_native.config import DraftForm

if TYPE_CHECKING:
    from specrag_native.engine import NativeEngine
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
    _add_data(verbs)
    _add_encode(verbs)
    _add_fit(verbs)
    _add_export(verbs)
    _add_check(verbs)
    train_ranker.add_verbs(verbs)


def _add_data(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "data",
        help="make drafting examples",
        description="Turn question sets with passages into drafting examples: subsets with "
        "distractors, a rationale, the answer, or `unknown` where the subset does not hold it. "
        "Held-back examples for `check` are written beside them.",
    )
    parser.add_argument(
        "sets", metavar="SET[:N]", nargs="*", help="a .jsonl or .jsonl.gz question set, N questions"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="examples, .jsonl")
    parser.add_argument(
        "--pool",
        type=Path,
        action="append",
        default=[],
        metavar="CORPUS",
        help="further passages to draw distractors from, .jsonl; may be repeated",
    )
    parser.add_argument(
        "--exclude",
        type=Path,
        action="append",
        default=[],
        metavar="SET",
        help="leave out questions that stand in this set too; may be repeated",
    )
    parser.add_argument(
        "--held-back", type=float, default=0.02, metavar="SHARE", help="share of articles to check"
    )
    parser.add_argument(
        "--unknown", type=float, default=0.25, metavar="SHARE", help="share without an answer"
    )
    parser.add_argument(
        "--hard-unknown",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of questions asked once more of close passages without their answer",
    )
    parser.add_argument(
        "--weak",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share asked once more of a close passage that happens to hold the answer",
    )
    parser.add_argument(
        "--swapped",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of true claims made false by another name or number",
    )
    parser.add_argument(
        "--sizes",
        default="1:0.15,2:0.7,3:0.15",
        metavar="K:WEIGHT,...",
        help="passages per subset and how often (default: %(default)s)",
    )
    parser.add_argument(
        "--similar",
        type=float,
        default=0.4,
        metavar="SHARE",
        help="share of distractors close to the question, the others are of the same article",
    )
    parser.add_argument(
        "--per-subset", type=int, default=10, metavar="N", help="most questions of one subset"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument(
        "--writer",
        metavar="MODEL",
        help="a larger model that writes the rationales (default: they are extracted)",
    )
    parser.add_argument(
        "--synthesise",
        metavar="CORPUS[:N]",
        help="also let the writer ask questions about the passages of a .jsonl corpus",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the writer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_data)


def run_data(args: argparse.Namespace) -> int:
    """Make drafting examples."""
    from specrag_native.errors import ConfigError
    from specrag_native.training import data
    from specrag_native.training.drawing import DrawOptions
    from specrag_native.training.writing import RationaleWriter

    if not args.sets and not args.synthesise:
        raise ConfigError("nothing to make examples of: name a question set, or --synthesise")
    if args.synthesise and not args.writer:
        raise ConfigError("--synthesise needs --writer MODEL, a larger model that asks")
    for name, value in (("--held-back", args.held_back), ("--unknown", args.unknown)):
        if not 0 <= value < 1:
            raise ConfigError(f"{name} must be at least 0 and below 1, got {value}")
    engine = _engine(args.writer, args.threads) if args.writer else None
    sources = [source(text) for text in args.sets]
    if args.synthesise:
        assert engine is not None
        corpus = source(args.synthesise)
        asked = args.out.with_name(f"{args.out.stem}-questions.jsonl")
        if not asked.exists():
            with bar("questions", "passage") as tell:
                found = data.synthesise(
                    engine, corpus.path, asked, limit=corpus.limit, seed=args.seed, report=tell
                )
            print(
                f"{found['questions']} questions of {found['passages']} passages", file=sys.stderr
            )
        sources.append(data.Source(asked))
    options = data.DataOptions(
        sources=tuple(sources),
        pools=tuple(args.pool),
        exclude=tuple(args.exclude),
        held_back=args.held_back,
        draw=DrawOptions(
            unknown=args.unknown,
            hard_unknown=args.hard_unknown,
            weak=args.weak,
            swapped=args.swapped,
            similar=args.similar,
            sizes=_sizes(args.sizes),
            per_subset=args.per_subset,
            seed=args.seed,
        ),
    )
    writer = RationaleWriter(engine, Path(args.writer).name) if engine is not None else None
    with bar("examples", "example") as tell:
        counts = data.make(options, args.out, writer=writer, report=tell)
    values: dict[str, Any] = {"out": str(args.out), **counts.as_dict()}
    if writer is not None:
        values["refused_rationales"] = dict(writer.faults)
    if args.json:
        print(json.dumps(values, indent=1))
        return 0
    n = sum(counts.examples.values())
    print(f"{args.out}: {n} examples of {counts.subsets} subsets, {counts.unknown} unknown")
    for name, number in sorted(counts.examples.items()):
        print(f"  {name}  {number}")
    skipped = {
        "malformed": counts.malformed,
        "excluded": counts.excluded,
        "without answer": counts.no_answer,
        "without a gold passage": counts.no_gold_passage,
        "without evidence": counts.no_evidence,
    }
    print("skipped: " + (", ".join(f"{v} {k}" for k, v in skipped.items() if v) or "nothing"))
    print(f"held back for check: {counts.held_back}")
    return 0


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


def _add_check(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "check",
        help="measure how well a model drafts",
        description="Draft held-back examples with a model and print how many are answered right, "
        "how often it says unknown rightly, and how well the rationales are supported.",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of `specrag models` or a .gguf file")
    parser.add_argument("examples", type=Path, metavar="FILE", help="from specrag train data")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N examples")
    parser.add_argument("--adapter", default="", metavar="FILE", help="a LoRA adapter of the model")
    parser.add_argument(
        "--draft-form",
        choices=get_args(DraftForm),
        help="what drafts begin with (default: what the model was taught, if it is ours)",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N")
    parser.add_argument("--show", action="store_true", help="also print every draft")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Check a model on held-back examples."""
    from specrag_native.answering.calibration import taught_to
    from specrag_native.config import Config
    from specrag_native.model_files import catalog
    from specrag_native.training.check import check, measure
    from specrag_native.training.examples import read_examples

    examples = read_examples(args.examples)[: args.limit]
    path = catalog.resolve(args.model, role="drafter").path
    engine = _engine(args.model, args.threads, adapter=args.adapter)
    form = {"draft_form": args.draft_form} if args.draft_form else taught_to(path)
    checked = []
    with bar("check", "example") as tell:
        for one in check(engine, examples, config=Config(**form)):
            checked.append(one)
            tell(len(checked), len(examples))
            if args.show:
                mark = "right" if one.right else "unknown" if one.draft.unknown else "wrong"
                print(f"[{mark}] {one.example.question.text}\n  wanted: {one.example.answer}")
                print(f"  {one.draft.rationale}\n  -> {one.draft.answer}")
    found = dataclasses.asdict(measure(checked))
    if args.json:
        print(json.dumps({"model": engine.name, **found}, indent=1))
        return 0
    for name, value in found.items():
        print(f"{name.replace('_', ' '):20} {value:.3f}" if value % 1 else f"{name:20} {value:g}")
    return 0


def _engine(name: str, threads: int, *, adapter: str = "") -> NativeEngine:
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions
    from specrag_native.model_files import catalog

    path = catalog.resolve(name, role="drafter").path
    return NativeEngine(path, EngineOptions(n_ctx=8192, threads=threads, adapter=adapter))


def _base(name: str | None) -> Base:
    from specrag_native.model_files import catalog
    from specrag_native.training.base import open_base

    if name is not None and Path(name).exists():
        return open_base(Path(name))
    return open_base(catalog.resolve(name or "smollm2-135m-instruct", role="drafter").path)


def _sizes(text: str) -> dict[int, float]:
    from specrag_native.errors import ConfigError

    try:
        sizes = {int(k): float(w) for k, w in (part.split(":") for part in text.split(","))}
    except ValueError:
        sizes = {}
    if not sizes or min(sizes) < 1 or min(sizes.values()) < 0 or not sum(sizes.values()):
        raise ConfigError(f"--sizes takes K:WEIGHT,..., such as 1:0.2,2:0.8, got {text!r}")
    return sizes
