"""Passages kept beside an index: computed once, within their room, never needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ConfigError
from specrag_native.passage_cache import (
    CacheFolder,
    Precomputed,
    cache_folder,
    make_cache_folder,
    precompute,
    remove_cache_folder,
)
from specrag_native.prompts import drafter_prompt, standard_prompt
from specrag_native.protocol import GenerateOptions, Segment, Stage
from specrag_native.types import Passage, Question

PASSAGES = [
    Passage(str(i), f"{i}.txt", f"Title {i}", f"The text of passage {i}. " * (1 + i % 3), end=1)
    for i in range(30)
]


def engine(path: Path, kept: CacheFolder) -> NativeEngine:
    return NativeEngine(
        path,
        EngineOptions(
            n_ctx=4096,
            threads=1,
            passage_cache_folder=str(kept.path),
            passage_cache_folder_bytes=kept.limit,
        ),
    )


def compute(path: Path, kept: CacheFolder, **changes: Any) -> Precomputed:
    options = EngineOptions(n_ctx=4096, threads=1)
    return precompute(path, options, kept, PASSAGES, len(PASSAGES), **changes)


def test_what_was_computed_serves_the_drafter(tiny: Path, tmp_path: Path) -> None:
    kept = make_cache_folder(tmp_path, 1 << 30)
    assert cache_folder(tmp_path) == kept
    seen: list[int] = []
    done = compute(tiny, kept, progress=seen.append)
    assert (done.computed, done.kept_before, done.left_out) == (30, 0, 0)
    assert seen == sorted(seen) and seen[-1] == 30
    assert done.used == sum(f.stat().st_size for f in kept.path.glob("*.kv"))
    again = compute(tiny, kept)
    assert (again.computed, again.kept_before, again.left_out) == (0, 30, 0)

    later = engine(tiny, kept)
    asked = [
        drafter_prompt(later, Question("What is it?"), pair, standalone=True)
        for pair in (PASSAGES[:2], PASSAGES[7:9])
    ]
    later.generate(asked, GenerateOptions((Stage(max_tokens=2),)))
    assert (later.passage_cache.disk_hits, later.passage_cache.misses) == (4, 0)


def test_what_was_computed_serves_the_verifier(tiny: Path, tmp_path: Path) -> None:
    kept = make_cache_folder(tmp_path, 1 << 30)
    done = compute(tiny, kept, reader="verifier")
    assert (done.computed, done.kept_before, done.left_out) == (30, 0, 0)
    later = engine(tiny, kept)
    asked = standard_prompt(later, Question("What is it?"), PASSAGES[3:5], may_abstain=True)
    told = later.generate([asked], GenerateOptions((Stage(max_tokens=2),)))
    assert (later.passage_cache.disk_hits, later.passage_cache.misses) == (1, 0)
    assert told.usage.reused > 0
    whole = NativeEngine(tiny, EngineOptions(n_ctx=4096, threads=1))
    plain = tuple(Segment(s.text, control=s.control) for s in asked)
    expected = whole.generate([plain], GenerateOptions((Stage(max_tokens=2),)))
    assert list(told[0].logprobs) == pytest.approx(list(expected[0].logprobs), abs=0.02)


def test_it_ends_when_the_folder_is_full(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = compute(tiny, make_cache_folder(tmp_path / "whole", 1 << 30))
    kept = make_cache_folder(tmp_path, whole.used * 2 // 3)
    first = compute(tiny, kept)
    assert 10 < first.computed < 25
    assert first.left_out == 30 - first.computed
    assert first.used <= kept.limit
    again = compute(tiny, kept)
    assert again.kept_before == first.computed
    assert (again.computed, again.left_out) == (0, first.left_out)
    more = compute(tiny, make_cache_folder(tmp_path, 1 << 30))
    assert (more.computed, more.left_out) == (first.left_out, 0)


def test_the_folder_can_go(tmp_path: Path) -> None:
    assert cache_folder(tmp_path) is None
    remove_cache_folder(tmp_path)
    kept = make_cache_folder(tmp_path, 100)
    (kept.path / "a.kv").write_text("")
    (kept.path / "mine.txt").write_text("")
    remove_cache_folder(tmp_path)
    assert cache_folder(tmp_path) is None
    assert [f.name for f in kept.path.iterdir()] == ["mine.txt"]
    (kept.path / "cache.json").write_text("{ cut")
    assert cache_folder(tmp_path) is None
    with pytest.raises(ConfigError, match="cannot be written"):
        make_cache_folder(tmp_path / "nowhere", 100)
