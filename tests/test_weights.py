"""Weights in another type: written once, of this very file, and never needed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ConfigError, ModelFileError
from specrag_native.evaluation import machine
from specrag_native.model_files import weights
from specrag_native.passage_cache import make_cache_folder
from specrag_native.prompts import drafter_prompt
from specrag_native.protocol import GenerateOptions, Segment, Stage
from specrag_native.types import Passage, Question
from tests.tiny_model import write_tiny

ASKED = (Segment("The keeper writes down the colour of the "), Segment("sea", scored=True))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SPECRAG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.gguf")


def engine(path: Path, type: str = "", **more: object) -> NativeEngine:
    return NativeEngine(path, EngineOptions(n_ctx=512, threads=1, weights=type, **more))  # type: ignore[arg-type]


def logprob(engine: NativeEngine) -> float:
    (score,) = engine.score([ASKED])
    return float(score.segments[0].logprob.logprob_sum)


def test_an_engine_computes_with_the_type_it_is_told(tiny: Path, home: Path) -> None:
    stored, half, short = (engine(tiny, type) for type in ("", "F16", "BF16"))
    assert (half.options.weights, short.options.weights) == ("F16", "BF16")
    assert short.model.path == tiny and short.name == "tiny.gguf"
    assert "BF16" in short.model.description and "F32" in stored.model.description
    assert short.facts.model_bytes < 0.7 * stored.facts.model_bytes
    assert logprob(half) == pytest.approx(logprob(stored), abs=0.01)
    assert logprob(short) == pytest.approx(logprob(stored), abs=0.1)
    assert len(list((home / "weights").iterdir())) == 2


def test_a_file_is_written_once(tiny: Path) -> None:
    first = weights.written_as(tiny, "BF16")
    at = first.stat().st_mtime_ns
    assert weights.written_as(tiny, "BF16") == first != tiny
    assert first.stat().st_mtime_ns == at
    write_tiny(tiny, seed=1)
    other = weights.written_as(tiny, "BF16")
    assert other != first, "another file of the same name"


def test_what_cannot_be_written_is_read_as_it_is(
    tiny: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.write_text("no folder")
    with caplog.at_level(logging.WARNING):
        told = engine(tiny, "BF16")
    assert told.options.weights == "" and logprob(told) == logprob(engine(tiny))
    (line,) = caplog.messages
    assert line.startswith("tiny.gguf is used with its own weights") and "\n" not in line


def test_a_disk_without_room_is_told_beforehand(
    tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    assert weights.written_as(tiny, "BF16") == tiny
    assert "not enough disk space" in caplog.text and not list((home / "weights").iterdir())


def test_a_write_that_was_cut_off_leaves_nothing_that_is_read(
    tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(src: Path, dst: Path, type: str) -> None:
        dst.write_bytes(tiny.read_bytes()[:1000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(weights, "quantise", cut_off)
        weights.written_as(tiny, "BF16")
    assert not list((home / "weights").iterdir())
    assert engine(tiny, "BF16").options.weights == "BF16"


def test_a_file_that_was_damaged_is_removed_and_written_anew(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = weights.written_as(tiny, "BF16")
    written.write_bytes(written.read_bytes()[:-5000])
    told = engine(tiny, "BF16")
    assert told.options.weights == "" and logprob(told) == logprob(engine(tiny))
    assert not written.exists()
    (line,) = caplog.messages
    assert str(written) in line and line.endswith("it is removed, to be written anew")
    assert engine(tiny, "BF16").options.weights == "BF16" and written.exists()


def test_a_model_that_cannot_be_read_is_told_by_its_own_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but no model")
    with pytest.raises(ModelFileError, match=r"broken\.gguf"):
        engine(broken, "BF16")


def test_only_what_is_used_is_kept(tiny: Path, tmp_path: Path) -> None:
    other = write_tiny(tmp_path / "other.gguf", seed=2)
    beside = weights.written_as(other, "F16")
    half, short = weights.written_as(tiny, "F16"), weights.written_as(tiny, "BF16")
    weights.keep_only(tiny, "BF16")
    assert short.exists() and beside.exists() and not half.exists()
    weights.keep_only(tiny, "")
    assert not short.exists() and beside.exists()
    weights.forget()
    assert not beside.exists() and other.exists()
    weights.forget()


def test_passages_of_one_type_do_not_serve_another(tiny: Path, tmp_path: Path) -> None:
    kept = make_cache_folder(tmp_path, 1 << 30)
    passages = [Passage("1", "1.txt", "Title", "The text of a passage.", end=1)]

    def read(type: str) -> NativeEngine:
        told = engine(
            tiny,
            type,
            passage_cache_folder=str(kept.path),
            passage_cache_folder_bytes=kept.limit,
        )
        prompt = drafter_prompt(told, Question("What is it?"), passages, standalone=True)
        told.generate([prompt], GenerateOptions((Stage(max_tokens=2),)))
        return told

    read("")
    assert read("").passage_cache.disk_hits == 1
    assert read("BF16").passage_cache.disk_hits == 0
    assert read("BF16").passage_cache.disk_hits == 1


def test_weights_are_shared_only_in_one_type(tiny: Path) -> None:
    first = engine(tiny, "BF16")
    options = EngineOptions(n_ctx=512, threads=1, weights="BF16")
    assert logprob(NativeEngine(tiny, options, weights_of=first)) == logprob(first)
    with pytest.raises(ConfigError, match="loaded otherwise"):
        NativeEngine(tiny, EngineOptions(n_ctx=512, threads=1), weights_of=first)


def test_another_type_than_these_is_refused() -> None:
    with pytest.raises(ConfigError, match="weights must be BF16, F16 or empty, got 'Q4_0'"):
        EngineOptions(weights="Q4_0")


def test_results_of_one_type_are_not_those_of_another(tiny: Path) -> None:
    paths = {"drafter": tiny}
    stored = machine.model_files(paths)["drafter"]
    short = machine.model_files(paths, tuned={"drafter": {"weights": "BF16"}})["drafter"]
    assert short == {**stored, "weights": "BF16"}
    assert machine.identity(stored) == stored["sha256"]
    assert machine.identity(short) == f"{stored['sha256']} BF16"
    assert machine.model_files(paths, tuned={"drafter": {"lookup": 4}})["drafter"] == stored
