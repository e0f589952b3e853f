"""The index survives being killed at any moment, as by a power cut."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from index_fakes import HashEmbedder, check_integrity, contents, run_index

from specrag_native.retrieval.index import Index

KILLS = 100

# One process forks a child for every run, so that a run costs no start of an interpreter; the
# child writes its number when it begins, and is killed a moment after.
RUNNER = textwrap.dedent(
    """
    import os, sys
    sys.path[:0] = sys.argv[3].split(os.pathsep)
    from pathlib import Path
    import numpy, sqlite3
    from index_fakes import HashEmbedder
    from specrag_native.retrieval import index_plan, scan, store_writer, vector_index
    from specrag_native.retrieval.index_types import IndexOptions
    from specrag_native.retrieval.indexer import index_paths

    options = IndexOptions(batch=4, wait_s=30)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            print(os.getpid(), flush=True)
            index_paths(
                [Path(sys.argv[1])],
                index_dir=Path(sys.argv[2]),
                embedder=HashEmbedder(),
                options=options,
            )
            os._exit(0)
        sys.stdin.readline()  # until then the child's number is not used again
        _, status = os.waitpid(pid, 0)
        print(status, flush=True)
    """
)


def edit(folder: Path, rng: random.Random) -> None:
    """Add, change, move or delete a few files."""
    files = sorted(folder.rglob("*.txt"))
    for _ in range(rng.randrange(1, 4)):
        kind = rng.choice(["add", "add", "change", "move", "delete"])
        text = " ".join(rng.choices(["bees", "make", "honey", "by", "the", "river"], k=260))
        if kind == "add" or not files:
            target = folder / f"{rng.randrange(10**9)}.txt"
            target.write_text(text + ".")
            files.append(target)
        elif kind == "change":
            rng.choice(files).write_text(text + "!")
        elif kind == "move":
            old = files.pop(rng.randrange(len(files)))
            target = folder / f"moved{rng.randrange(10**9)}.txt"
            old.rename(target)
            files.append(target)
        elif len(files) > 3:
            files.pop(rng.randrange(len(files))).unlink()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_any_moment_the_index_opens_answers_and_is_finished_by_the_next_run(tmp_path):
    rng = random.Random(7)
    folder, index_dir = tmp_path / "docs", tmp_path / "index"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.txt").write_text(f"File number {i} tells of bees. " * 30)
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(folder), str(index_dir), os.pathsep.join(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert runner.stdin is not None and runner.stdout is not None
    killed = finished = 0
    longest = 0.6
    while killed < KILLS:
        assert finished < 4 * KILLS, "runs end before they can be killed"
        runner.stdin.write("run\n")
        runner.stdin.flush()
        pid = int(runner.stdout.readline())
        time.sleep(rng.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        runner.stdin.write("reap\n")
        runner.stdin.flush()
        status = int(runner.stdout.readline())
        if status == 0:
            finished += 1
            longest = max(0.02, longest * 0.9)
            edit(folder, rng)
            continue
        killed += 1
        longest = min(1.0, longest * 1.05)
        if killed % 5 == 0:
            edit(folder, rng)
        if (index_dir / "index.db").exists():
            with Index.open(index_dir) as index:
                index.retriever(HashEmbedder()).search("bees make honey", 3)
            if killed % 10 == 0:
                check_integrity(index_dir)
    runner.stdin.close()
    runner.wait(30)
    runner.stdout.close()
    run_index(folder, index_dir)
    run_index(folder, tmp_path / "fresh")
    assert contents(index_dir) == contents(tmp_path / "fresh")
    check_integrity(index_dir)
    left = {path.name for path in index_dir.iterdir()}
    assert all(name.startswith(("index.db", "vectors-", "writer.", ".gitignore")) for name in left)
