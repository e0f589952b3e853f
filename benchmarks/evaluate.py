r"""Stored evaluations, taken up where the stored results end.

Answers the first questions of the reporting half of each set by each method, twenty questions of
every set at a time, so that all sets grow together, and stores the results after each set. It can
be stopped at any time and run again, here or on another machine: what is stored is not answered
again, as long as settings, models and wording stay.

``methods`` are the methods as they are by default, over seven sets (docs/results.md).
``ablations`` are the paper's: drafts of two passages each, all of them scored, without repair, and
what becomes of it when one thing is left out or changed, over two sets (docs/ablations.md).
``systems`` are the field's other methods, and the paper's with the verifier as its own drafter,
over the same two (docs/systems.md).

    python benchmarks/evaluate.py FOLDER_OF_SETS --limit 100 --minutes 120
    python benchmarks/evaluate.py FOLDER_OF_SETS --limit 100 --minutes 120 --what ablations
    python benchmarks/evaluate.py FOLDER_OF_SETS --limit 100 --minutes 120 --what systems
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rivals.nearest_standard import METHOD as NEAREST_METHOD
from stored import RESULTS

from specrag_native.model_files import catalog

ROOT = RESULTS.parent.parent
STEP = 20
"""Questions of each set in a round."""


@dataclass(frozen=True)
class Plan:
    """What is evaluated: runs of ``specrag eval`` over sets, and the folder of their results.

    ``runs`` are the options of each run over a set, ``sets`` the further ones that a set needs.
    """

    stored: Path
    sets: Mapping[str, Sequence[str]]
    runs: Sequence[Sequence[str]]


SETS: dict[str, tuple[str, ...]] = {
    "triviaqa-dpr-dev": (),
    "nq-dpr-dev": (),
    "popqa-active-dev": (),
    "hotpotqa-dev": (),
    "musique-dev": ("--top", "15"),
    "pubhealth-dev": (),
    "arc-challenge-dev": (),
}
"""The sets, and how many of the passages given with a question are read, if not all."""
PAPER = tuple(
    word
    for setting in (
        "rerank=false",
        "n_drafts=5",
        "passages_per_draft=2",
        "n_written=none",
        "draft_order=retrieved",
        "verify=always",
        "repair=off",
        "repair_below=0",
        "abstain_below=0",
        "draft_weights=none",
        "multihop_above=none",
    )
    for word in ("--set", setting)
)
"""The method as the paper has it: every draft is written, scored and believed."""
TWO_SETS = {name: SETS[name] for name in ("hotpotqa-dev", "triviaqa-dpr-dev")}
PLANS = {
    "methods": Plan(
        RESULTS / "eval", SETS, (("--method", f"standard,speculative,drafter,{NEAREST_METHOD}"),)
    ),
    "ablations": Plan(
        RESULTS / "ablations",
        TWO_SETS,
        (
            (
                *("--method", "speculative,drafter,oracle", *PAPER),
                "--ablate",
                "random-subsets,one-cluster,unclustered,plain-clustering,residual-clustering,"
                "exact-layout,reflection-1,reflection-2,assistant-layout",
            ),
            ("--method", "speculative", *PAPER, "--drafts", "1,3,10"),
            ("--method", "speculative", *PAPER, "--per-draft", "1,4"),
        ),
    ),
    "systems": Plan(
        RESULTS / "systems",
        TWO_SETS,
        (
            ("--method", "standard,corrective,self-reflective"),
            ("--method", "speculative", *PAPER, "--drafter", catalog.default("verifier")),
        ),
    ),
}


def main() -> None:
    """Answer what is not stored yet, round by round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of the sets")
    parser.add_argument("--what", choices=tuple(PLANS), default="methods")
    parser.add_argument("--limit", type=int, default=100, help="questions of each set")
    parser.add_argument("--minutes", type=float, help="begin no set after so many")
    parser.add_argument("--work", type=Path, metavar="DIR", help="default: in build")
    args = parser.parse_args()
    plan = PLANS[args.what]
    data = args.data.resolve()
    work = (args.work or ROOT / "build" / plan.stored.name).resolve()
    unpack(plan.stored, work)
    end = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    for limit in range(STEP, args.limit + STEP, STEP):
        for name, options in plan.sets.items():
            if time.monotonic() > end:
                return
            for run in plan.runs:
                specrag(
                    *("eval", str(data / f"{name}.jsonl.gz"), "--half", "report"),
                    *("--limit", str(min(limit, args.limit)), *run),
                    *("--out", str(work), *options),
                )
            specrag("report", str(work), "--no-plots", "--export", str(plan.stored), quiet=True)


def unpack(stored: Path, work: Path) -> None:
    """Put stored results where a run goes on with them, unless it has more of them already."""
    work.mkdir(parents=True, exist_ok=True)
    for path in stored.glob("*.jsonl.gz"):
        there = work / path.stem
        data = gzip.decompress(path.read_bytes())
        answered = there.read_bytes().count(b"\n") if there.exists() else 0
        if answered < data.count(b"\n"):
            there.write_bytes(data)


def specrag(*words: str, quiet: bool = False) -> None:
    """Run a command of the package from the project's root; end with it when it fails."""
    command = [sys.executable, "-m", "specrag_native", *words]
    code = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.DEVNULL if quiet else None
    ).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
