"""``specrag train check``: measure how well a model drafts.

Law: as ``specrag train``: everything long shows how far it is and can be stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import get_args

from specrag_native.cli.train_shared import bar, drafting_engine
from specrag_native.config import DraftForm


def add_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to those of ``specrag train``."""
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check a model on held-back examples."""
    from specrag_native.answering.calibration import taught_to
    from specrag_native.config import Config
    from specrag_native.model_files import catalog
    from specrag_native.training.check import check, measure
    from specrag_native.training.examples import read_examples

    examples = read_examples(args.examples)[: args.limit]
    path = catalog.resolve(args.model, role="drafter").path
    engine = drafting_engine(path, args.threads, adapter=args.adapter)
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
