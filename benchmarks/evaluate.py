r"""The evaluation that docs/results.md shows, taken up where the stored results end.

Answers the first questions of the reporting half of each set by each method, a few questions of
every set at a time, so that all sets grow together, and stores the results in
benchmarks/results/eval after each round. It can be stopped at any time and run again, here or on
another machine: what is stored is not answered again, as long as settings, models and wording stay.

    python benchmarks/evaluate.py FOLDER_OF_SETS --limit 100 --minutes 120
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import time
from pathlib import Path

from rivals.nearest_standard import METHOD as NEAREST_METHOD
from stored import RESULTS

STORED = RESULTS / "eval"
ROOT = RESULTS.parent.parent
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
METHODS = f"standard,speculative,{NEAREST_METHOD}"
STEP = 5
"""Questions of each set in a round."""


def main() -> None:
    """Answer what is not stored yet, round by round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of the sets")
    parser.add_argument("--limit", type=int, default=100, help="questions of each set")
    parser.add_argument("--minutes", type=float, help="begin no set after so many")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "eval", metavar="DIR")
    args = parser.parse_args()
    data, work = args.data.resolve(), args.work.resolve()
    unpack(STORED, work)
    end = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    for limit in range(STEP, args.limit + STEP, STEP):
        for name, options in SETS.items():
            if time.monotonic() > end:
                return
            specrag(
                *("eval", str(data / f"{name}.jsonl.gz"), "--half", "report"),
                *("--limit", str(min(limit, args.limit)), "--method", METHODS),
                *("--out", str(work), *options),
            )
            specrag("report", str(work), "--no-plots", "--export", str(STORED), quiet=True)


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
