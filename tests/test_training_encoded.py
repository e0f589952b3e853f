"""Encoded examples: what is read is what was written, and a fit on them is the same fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_training_fit import make, options

from specrag_native.cli.main import main
from specrag_native.errors import ConfigError
from specrag_native.training.encoded import (
    EncodedExamples,
    encode_examples,
    read_encoded,
    write_encoded,
)
from specrag_native.training.examples import TrainingDataError, write_examples

pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from specrag_native.training import base as bases
from specrag_native.training.fit import Fit, read_losses

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def encoded(tiny: Path, n: int = 12, max_tokens: int = 1024) -> EncodedExamples:
    return encode_examples(make(n), bases.open_base(tiny), max_tokens=max_tokens)


def test_what_is_read_is_what_was_written(tiny: Path, tmp_path: Path) -> None:
    before = encoded(tiny)
    path = tmp_path / "examples.npz"
    write_encoded(path, before)
    after = read_encoded(path)
    assert list(after.groups) == list(before.groups)
    assert (after.digest, after.n_examples, after.base) == (before.digest, 12, "tiny.gguf")
    assert after.left_out == 0
    assert [p.name for p in tmp_path.iterdir()] == ["examples.npz"]


def test_passages_of_several_groups_are_kept_once(tiny: Path, tmp_path: Path) -> None:
    once, twice = encoded(tiny), encoded(tiny)
    twice = EncodedExamples([*once.groups, *twice.groups], "x", 24, "tiny.gguf")
    write_encoded(tmp_path / "once.npz", once)
    write_encoded(tmp_path / "twice.npz", twice)
    with np.load(tmp_path / "once.npz") as a, np.load(tmp_path / "twice.npz") as b:
        for name in ("heads", "passages", "branches"):
            assert np.array_equal(a[name], b[name])
    assert list(read_encoded(tmp_path / "twice.npz").groups) == [*once.groups, *once.groups]


def test_what_is_too_long_is_counted(tiny: Path) -> None:
    lengths = [
        group.n_evidence + max(len(branch.tokens) for branch in group.branches)
        for group in encoded(tiny, 24).groups
    ]
    shorter = encoded(tiny, 24, max_tokens=max(lengths) - 1)
    assert 0 < len(shorter.groups) < len(lengths)
    assert shorter.left_out == 24 - sum(len(group.branches) for group in shorter.groups) > 0


def test_a_fit_on_them_is_the_same_fit(tiny: Path, tmp_path: Path) -> None:
    base = bases.open_base(tiny)
    write_encoded(tmp_path / "examples.npz", encoded(tiny))
    settings = options(epochs=1.0)
    Fit(base, make(12), tmp_path / "plain", settings).run()
    Fit(base, read_encoded(tmp_path / "examples.npz"), tmp_path / "read", settings).run()
    plain, read = read_losses(tmp_path / "plain"), read_losses(tmp_path / "read")
    assert [s.loss for s in plain] == [s.loss for s in read] and len(plain) == 3
    assert (tmp_path / "plain" / "fit.json").read_text() == (
        tmp_path / "read" / "fit.json"
    ).read_text()


def test_tokens_of_another_model_are_refused(tiny: Path, tmp_path: Path) -> None:
    found = encoded(tiny)
    other = EncodedExamples(found.groups, found.digest, found.n_examples, "other.gguf")
    with pytest.raises(ConfigError, match=r"encoded for other\.gguf"):
        Fit(bases.open_base(tiny), other, tmp_path / "fit", options())


def test_files_that_hold_none_are_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "examples.npz"
    with pytest.raises(TrainingDataError, match="no encoded examples at"):
        read_encoded(path)
    path.write_bytes(b"no archive")
    with pytest.raises(TrainingDataError, match="holds no encoded examples"):
        read_encoded(path)
    write_encoded(path, encoded(tiny))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, "passages": arrays["passages"][:-1]})
    with pytest.raises(TrainingDataError, match="passages are cut short"):
        read_encoded(path)
    facts = {**json.loads(arrays["facts"].tobytes()), "format": 9}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(TrainingDataError, match="is of format 9"):
        read_encoded(path)


def test_from_the_command_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_examples(tmp_path / "e.jsonl", make(12))
    begin = ["train", "encode", str(tmp_path / "e.jsonl"), "--base", str(tiny), "--out"]
    assert main([*begin, str(tmp_path / "e.txt")]) == 2
    assert "must end with .npz" in capsys.readouterr().err
    assert main([*begin, str(tmp_path / "e.npz")]) == 0
    assert "12 examples of 6 subsets, 0 too long" in capsys.readouterr().out
    settings = ["--rank", "2", "--epochs", "1", "--batch-tokens", "4096", "--threads", "1"]
    fit = ["train", "fit", str(tmp_path / "e.npz"), "--base", str(tiny), *settings]
    assert main([*fit, "--out", str(tmp_path / "fit")]) == 0
    assert sum(s.examples for s in read_losses(tmp_path / "fit")) == 12
