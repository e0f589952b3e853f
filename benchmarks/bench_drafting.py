r"""What keeps drafting cheap: no token twice, the passage cache, and guessing copied tokens.

Each measurement replaces its entry in benchmarks/results/drafting.json.

    python benchmarks/bench_drafting.py tokens --questions SET.jsonl.gz --subsets 5 --per-draft 2
    python benchmarks/bench_drafting.py cache --questions SET.jsonl.gz --passages 40
    python benchmarks/bench_drafting.py lookup --questions SET.jsonl.gz --prompts 200
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from stored import RESULTS
from ties import gap

from specrag_native.answering.subsets import order_for_sharing
from specrag_native.config import Config, Layout
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.evaluation import machine
from specrag_native.evaluation.datasets import dataset_name, read_dataset
from specrag_native.hardware import physical_cores
from specrag_native.model_files import catalog
from specrag_native.prompts import drafter_prompt, drafter_stages
from specrag_native.protocol import GenerateOptions, Prompt, Segment, Stage
from specrag_native.types import Passage, Question

STORED = RESULTS / "drafting.json"
MB = 1 << 20


def read_results() -> dict[str, Any]:
    """Return what was measured, by name."""
    found: dict[str, Any] = json.loads(STORED.read_text()) if STORED.exists() else {}
    return found


def save(name: str, values: dict[str, Any], model: Path) -> None:
    """Keep a measurement in place of the one before it, and print it."""
    arguments = [Path(a).name if os.sep in a else a for a in sys.argv[1:]]
    entry = {
        "command": " ".join(["python benchmarks/bench_drafting.py", *arguments]),
        "model": model.name,
        "load": [round(x, 2) for x in os.getloadavg()],
        **values,
        "machine": machine.describe(threads=physical_cores()),
    }
    STORED.write_text(json.dumps({**read_results(), name: entry}, indent=1) + "\n")
    print(json.dumps(entry, indent=1))


def distinct_tokens(engine: NativeEngine, prompts: Sequence[Prompt]) -> int:
    """Return how many tokens prompts have that do not stand behind the same text in another one.

    Behind the same text: of a standalone segment the head of the prompt and what the segment holds
    before; of what follows such segments the head, the segments, and what stands between.
    """
    places: dict[tuple[int, int, bool], int] = {}  # where a token, or a whole segment, follows

    def behind(before: int, what: int, whole: bool = False) -> int:
        return places.setdefault((before, what, whole), len(places) + 1)

    for prompt in prompts:
        here = head = 0
        apart = False
        for segment in prompt:
            if segment.standalone and not apart:
                head, apart = here, True
            end = head if segment.standalone else here
            for token in engine.tokenize((segment,)):
                end = behind(end, token)
            here = behind(here, end, whole=True) if segment.standalone else end
    return sum(not whole for _, _, whole in places)


def tokens(args: argparse.Namespace) -> None:
    """Count the tokens that drafting computes, beside the distinct ones of its prompts."""
    values: dict[str, Any] = {}
    examples = read_dataset(args.questions, half="report", limit=args.limit).examples
    for layout in get_args(Layout):
        engine = NativeEngine(args.model, EngineOptions(n_ctx=8192))
        counts = {"one_by_one": 0, "distinct": 0, "computed": 0}
        for example in examples:
            chosen = itertools.combinations(range(len(example.passages)), args.per_draft)
            drawn = random.Random(0).sample(list(chosen), args.subsets)
            subsets = order_for_sharing([[example.passages[i] for i in s] for s in drawn])
            prompts = [
                drafter_prompt(engine, example.question, s, standalone=layout == "standalone")
                for s in subsets
            ]
            engine.score([(Segment("Something else."),)])  # the last question leaves nothing behind
            usage = engine.generate(prompts, GenerateOptions((Stage(max_tokens=1),))).usage
            counts["one_by_one"] += sum(len(engine.tokenize(p)) for p in prompts)
            counts["distinct"] += distinct_tokens(engine, prompts)
            counts["computed"] += usage.prefilled
        values[layout] = counts
    save(
        f"tokens {len(examples)} of {dataset_name(args.questions)}",
        {"subsets": args.subsets, "per_draft": args.per_draft, **values},
        args.model,
    )


def cache(args: argparse.Namespace) -> None:
    """Time computing passages, and putting them back from memory and from files."""
    passages: list[Passage] = list(
        itertools.islice(
            (p for e in read_dataset(args.questions).examples for p in e.passages), args.passages
        )
    )
    values: dict[str, Any] = {"passages": len(passages)}
    for kv_type in ("f16", "q8_0"):
        with tempfile.TemporaryDirectory() as folder:
            options = EngineOptions(
                n_ctx=8192,
                kv_type=kv_type,
                flash_attention="on",
                passage_cache_bytes=4096 * MB,
                passage_cache_folder=folder,
                passage_cache_folder_bytes=4096 * MB,
            )
            engine = NativeEngine(args.model, options)
            prompts = [
                drafter_prompt(engine, Question("?"), (p,), standalone=True) for p in passages
            ]
            engine.score(prompts[:1])  # the head, and the first use of everything
            begin = engine.passage_cache
            usage = engine.score(prompts[1:]).usage
            made = engine.passage_cache
            engine.score(prompts[1:])
            host = engine.passage_cache
            later = NativeEngine(args.model, options)
            later.score(prompts[:1])
            before = later.passage_cache
            later.score(prompts[1:])
            disk = later.passage_cache
            assert host.misses == made.misses
            assert disk.disk_hits == len(passages)
            n = len(passages) - 1
            tokens = host.restored - made.restored
            values[kv_type] = {
                "tokens": tokens,
                "bytes_per_passage": round(made.host_bytes / len(passages)),
                "prefill_ms_per_passage": round(1000 * usage.prefill_s / n, 3),
                "keep_ms_per_passage": round(1000 * (made.keep_s - begin.keep_s) / n, 3),
                "memory_hit_ms_per_passage": round(1000 * (host.restore_s - made.restore_s) / n, 3),
                "disk_hit_ms_per_passage": round(1000 * (disk.restore_s - before.restore_s) / n, 3),
            }
    save("cache", values, args.model)


def lookup(args: argparse.Namespace) -> None:
    """Compare drafts written with and without guessing: their tokens, and the time of decoding."""
    config = Config()
    stages = GenerateOptions(
        drafter_stages(
            max_rationale_tokens=config.max_rationale_tokens,
            max_answer_tokens=config.max_answer_tokens,
        )
    )
    plain = NativeEngine(args.model, EngineOptions(n_ctx=8192))
    guessing = NativeEngine(
        args.model, EngineOptions(n_ctx=8192, lookup=args.guesses), weights_of=plain
    )
    batches: list[list[Prompt]] = []
    n = 0
    for example in read_dataset(args.questions).examples:
        if n >= args.prompts:
            break
        pairs = itertools.islice(itertools.combinations(example.passages, 2), 5)
        batches.append([drafter_prompt(plain, example.question, pair) for pair in pairs])
        n += len(batches[-1])
    same = 0
    gaps: list[float | None] = []
    seconds: dict[str, list[float]] = {"plain": [], "lookup": []}
    proposed = accepted = 0
    for batch in batches:
        a, b = plain.generate(batch, stages), guessing.generate(batch, stages)
        seconds["plain"].append(a.usage.decode_s)
        seconds["lookup"].append(b.usage.decode_s)
        proposed += b.usage.proposed
        accepted += b.usage.accepted
        for prompt, one, other in zip(batch, a, b, strict=True):
            if [c.tokens for c in one.completions] == [c.tokens for c in other.completions]:
                same += 1
            else:
                gaps.append(gap(plain, prompt, one, other))
    save(
        "lookup",
        {
            "prompts": n,
            "guesses": args.guesses,
            "same": same,
            "gaps_nats": [None if g is None else round(g, 3) for g in gaps],
            "parted_at_a_tie": sum(g is not None and g < args.tie for g in gaps),
            "other_differences": sum(g is None or g >= args.tie for g in gaps),
            "tie_nats": args.tie,
            "proposed": proposed,
            "accepted": accepted,
            "decode_s_median": {
                name: round(statistics.median(found), 4) for name, found in seconds.items()
            },
        },
        args.model,
    )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    subparsers = parser.add_subparsers(required=True)
    drafter = catalog.path_for("drafter")
    zero = subparsers.add_parser("tokens")
    zero.add_argument("--subsets", type=int, default=5)
    zero.add_argument("--per-draft", type=int, default=2)
    zero.add_argument("--limit", type=int, default=20)
    zero.set_defaults(run=tokens)
    one = subparsers.add_parser("cache")
    one.add_argument("--passages", type=int, default=40)
    one.set_defaults(run=cache)
    two = subparsers.add_parser("lookup")
    two.add_argument("--prompts", type=int, default=200)
    two.add_argument("--guesses", type=int, default=3)
    two.add_argument("--tie", type=float, default=0.35, help="nats that are noise; docs/speed.md")
    two.set_defaults(run=lookup)
    for sub in (zero, one, two):
        sub.add_argument("--questions", type=Path, required=True)
        sub.add_argument("--model", type=Path, default=drafter)
    args = parser.parse_args()
    begin = time.perf_counter()
    args.run(args)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
