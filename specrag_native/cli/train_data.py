"""``specrag train data``: make drafting examples of questions with passages.

Law: as ``specrag train``: everything long shows how far it is, can be stopped, and goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from specrag_native.cli.train_shared import bar, drafting_engine, source


def add_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to those of ``specrag train``."""
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make drafting examples."""
    from specrag_native.errors import ConfigError
    from specrag_native.model_files import catalog
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
    engine = None
    if args.writer:
        path = catalog.resolve(args.writer, role="drafter").path
        engine = drafting_engine(path, args.threads)
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


def _sizes(text: str) -> dict[int, float]:
    from specrag_native.errors import ConfigError

    try:
        sizes = {int(k): float(w) for k, w in (part.split(":") for part in text.split(","))}
    except ValueError:
        sizes = {}
    if not sizes or min(sizes) < 1 or min(sizes.values()) < 0 or not sum(sizes.values()):
        raise ConfigError(f"--sizes takes K:WEIGHT,..., such as 1:0.2,2:0.8, got {text!r}")
    return sizes
