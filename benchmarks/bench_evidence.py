r"""How well a drafter tells passages with the answer from others, one passage per draft.

Every passage of a question is drafted alone, and no draft may say that there is no evidence; how
probable that would have been orders the passages. Beside it: the cosine of the embedder, and the
order in which the passages came. A passage holds the answer when an accepted one stands in it.
With `--drafts 2` every passage has a second draft, which begins with the next likeliest token.
Rows are appended to benchmarks/results/evidence.jsonl; what stands there is not measured again.

    python benchmarks/bench_evidence.py SET.jsonl.gz [SET...] --drafter NAME --limit 8
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stored import RESULTS, read_rows

from specrag_native.answering.calibration import taught_to
from specrag_native.answering.drafter import Drafter
from specrag_native.config import Config
from specrag_native.encoders import NativeEmbedder
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.evaluation import machine
from specrag_native.evaluation.datasets import read_dataset
from specrag_native.evaluation.metrics import contains_answer, grade
from specrag_native.hardware import physical_cores
from specrag_native.model_files import catalog
from specrag_native.retrieval.embedding import embedding_text
from specrag_native.types import Subset

STORED = RESULTS / "evidence.jsonl"
MOST_PASSAGES = 10


def main() -> None:
    """Measure what the command line names and is not stored yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--drafter", default=catalog.default("drafter"))
    parser.add_argument("--half", default="tune", choices=("tune", "report"))
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--drafts", type=int, default=1, help="of each passage")
    args = parser.parse_args()
    path = catalog.resolve(args.drafter, role="drafter").path
    digest = machine.sha256(path)[:12]
    drafter = Drafter(
        NativeEngine(path, EngineOptions(n_ctx=8192)),
        Config(
            layout="standalone",
            unknown_above=1.0,
            drafts_per_subset=args.drafts,
            **taught_to(path),
        ),
    )
    embedder = NativeEmbedder(
        NativeEngine(
            catalog.path_for("embedder"),
            EngineOptions(n_ctx=512, n_seq_max=32),
        )
    )
    stamp = machine.describe(threads=physical_cores())
    done = {(r["sha256"], r["id"], r.get("drafts", 1)) for r in read_rows(STORED)}
    for file in args.sets:
        dataset = read_dataset(file, half=args.half, limit=args.limit)
        for example in dataset.examples:
            if (digest, example.id, args.drafts) in done:
                continue
            passages = example.passages[:MOST_PASSAGES]
            rows = embedder.embed([embedding_text(p.title, p.text) for p in passages])
            cosine = rows @ embedder.embed([example.question.text])[0]
            drafts, usage = drafter.draft(example.question, [Subset((p,)) for p in passages])
            right = [grade(d.answer, example.question, example.answers).right > 0 for d in drafts]
            row = {
                "drafter": path.stem,
                "sha256": digest,
                "set": dataset.name,
                "id": example.id,
                "half": args.half,
                "holds": [
                    contains_answer(f"{p.title}\n{p.text}", example.answers) for p in passages
                ],
                "none": [round(d.unknown_logprob or 0.0, 4) for d in drafts[:: args.drafts]],
                "cosine": [round(float(c), 4) for c in cosine],
                "right": right[:: args.drafts],
                "decoded": usage.decoded,
                **({"drafts": args.drafts, "right_each": right} if args.drafts > 1 else {}),
                "machine": stamp,
            }
            with STORED.open("a") as out:
                out.write(json.dumps(row) + "\n")
            print(f"{path.stem} {dataset.name} {example.id}", flush=True)


if __name__ == "__main__":
    main()
