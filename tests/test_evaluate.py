"""The script that goes on with the stored evaluation."""

from __future__ import annotations

import gzip
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "evaluate.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the source tree is not here")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return runpy.run_path(str(SCRIPT))


def test_stored_results_are_gone_on_with_but_never_go_back(
    script: dict[str, Any], tmp_path: Path
) -> None:
    unpack: Callable[[Path, Path], None] = script["unpack"]
    stored, work = tmp_path / "stored", tmp_path / "work"
    stored.mkdir()
    (stored / "a.jsonl.gz").write_bytes(gzip.compress(b"header\none\ntwo\n"))
    unpack(stored, work)
    assert (work / "a.jsonl").read_text() == "header\none\ntwo\n"
    further = "header\none with its rationale\ntwo\nthree\n"
    (work / "a.jsonl").write_text(further)
    unpack(stored, work)
    assert (work / "a.jsonl").read_text() == further


def test_all_sets_grow_together_and_are_stored_after_each(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, said = script["main"], []
    names = main.__globals__
    monkeypatch.setitem(names, "STORED", tmp_path / "stored")
    monkeypatch.setitem(names, "specrag", lambda *words, quiet=False: said.append(words))
    monkeypatch.setattr(
        sys, "argv", ["evaluate.py", "data", "--limit", "7", "--work", str(tmp_path / "work")]
    )
    main()
    evals = [words for words in said if words[0] == "eval"]
    limits = [words[words.index("--limit") + 1] for words in evals]
    n = len(script["SETS"])
    assert n >= 7 and limits == ["5"] * n + ["7"] * n
    assert [words[0] for words in said] == ["eval", "report"] * (2 * n)
    assert all(Path(words[1]).is_absolute() for words in evals)
