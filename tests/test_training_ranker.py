"""Groups for a cross-encoder, and its fit: learning, resuming, export into what the engine runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_convert import CONFIG, weights, write_safetensors

from specrag_native.errors import Cancelled, ConfigError, UserError
from specrag_native.model_files.convert import convert_bert
from specrag_native.training.data import DataOptions, Source
from specrag_native.training.pairs import Group, make_groups, read_groups

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
WORDS = ["red", "blue", "moon", "boat", "king", "harp"]
VOCAB = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "is", "what", "."]


def row(i: int, *, marked: bool) -> dict[str, Any]:
    word = WORDS[i % 6]
    passages = [{"id": f"{i}-0", "title": word, "text": f"{word} is {i}00", "relevant": True}]
    if marked:
        passages += [
            {"id": f"{i}-{j}", "title": w, "text": f"{w} is {j}", "relevant": False}
            for j, w in enumerate(WORDS, 1)
            if w != word
        ]
    return {
        "id": str(i),
        "question": f"what is {word} {i}",
        "answers": [f"{i}00"],
        "task": "qa",
        "passages": passages,
    }


def write_set(path: Path, n: int, *, marked: bool) -> Path:
    rows = [row(i, marked=marked) for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("marked", [True, False])
def test_groups_hold_what_answers_and_what_does_not(tmp_path: Path, marked: bool) -> None:
    made = write_set(tmp_path / "made.jsonl", 30, marked=marked)
    asked = write_set(tmp_path / "asked.jsonl", 5, marked=True)
    options = DataOptions(sources=(Source(made),), exclude=(asked,), held_back=0.3)
    counts = make_groups(options, tmp_path / "groups.jsonl")
    groups = read_groups(tmp_path / "groups.jsonl")
    held = read_groups(tmp_path / "groups-check.jsonl")
    assert counts.excluded == 5 and len(groups) == sum(counts.examples.values())
    assert len(groups) + len(held) <= 25 and len(held) == counts.held_back
    for group in (*groups, *held):
        number = group.question.split()[-1]
        assert int(number) >= 5  # the others are measured on
        (right,) = group.right
        assert right.endswith(f"is {number}00") and right.startswith(right.split(". ")[1][:3])
        assert 1 <= len(group.others) <= 4 and right not in group.others
        assert not any(f"is {number}00" in other for other in group.others)
    titles = {t.split(".")[0] for g in groups for t in g.right}
    assert titles.isdisjoint(t.split(".")[0] for g in held for t in g.right)


def test_the_same_sets_give_the_same_groups(tmp_path: Path) -> None:
    made = write_set(tmp_path / "made.jsonl", 20, marked=False)
    for name in ("a", "b"):
        make_groups(DataOptions(sources=(Source(made),)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("text", ["", "{}\n", "not json\n", '{"dataset": 1}\n'])
def test_files_without_groups_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groups.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match="group"):
        read_groups(path)


def group(i: int) -> Group:
    word, others = WORDS[i % 6], [w for w in WORDS if w != WORDS[i % 6]]
    return Group(
        dataset="made",
        question=f"what is {word}",
        right=(f"{word} is {word}",),
        others=tuple(f"{w} is {w}" for w in others[:3]),
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT with a vocabulary of a few words."""
    folder = tmp_path_factory.mktemp("base")
    tensors = {name: 0.2 * w for name, w in weights().items()}
    draw = np.random.default_rng(3)
    embedding = draw.normal(size=(len(VOCAB), 32)).astype(np.float32)
    tensors["embeddings.word_embeddings.weight"] = embedding
    for name in tensors:
        if "LayerNorm" in name:
            full = np.ones if name.endswith("weight") else np.zeros
            tensors[name] = full(32, dtype=np.float32)
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": len(VOCAB)}))
    convert_bert(
        folder / "model.safetensors",
        folder / "base.gguf",
        vocab=folder / "vocab.txt",
        config=folder / "config.json",
        type="f32",
    )
    return folder / "base.gguf"


def fit(base: Path, out: Path, *, epochs: float = 1.0, **options: Any) -> Any:
    for module in ("torch", "peft", "transformers"):
        pytest.importorskip(module, reason="the train extra is not installed")
    from specrag_native.training.rank_fit import RankFit
    from specrag_native.training.rank_options import RankFitOptions

    settings = {"rank": 4, "alpha": 8, "groups": 6, "warmup": 4, "rate": 0.01, **options}
    return RankFit(
        base, [group(i) for i in range(48)], out, RankFitOptions(epochs=epochs, **settings)
    )


def test_it_learns_which_text_answers(base: Path, tmp_path: Path) -> None:
    learner = fit(base, tmp_path / "fit", epochs=8)
    held = [group(i) for i in range(6)]
    before = learner.check(held)
    losses = []
    learner.run(on_step=lambda step: losses.append(step.loss))
    after = learner.check(held)
    assert len(losses) == len(learner.steps) == 64
    assert after.loss < 0.5 * before.loss and after.first_right == 1.0
    assert math.isclose(sum(losses[-6:]) / 6, after.loss, rel_tol=0.5, abs_tol=0.1)


def test_a_fit_that_was_stopped_ends_as_an_unbroken_one(base: Path, tmp_path: Path) -> None:
    from specrag_native.training.checkpoints import trained_weights

    whole = fit(base, tmp_path / "whole")
    whole.run()

    class Stop:
        cancelled = False

    stop, first = Stop(), fit(base, tmp_path / "broken")

    def on_step(step: Any) -> None:
        stop.cancelled = step.step == 3

    with pytest.raises(Cancelled):
        first.run(on_step=on_step, cancel=stop)
    again = fit(base, tmp_path / "broken")
    assert again.step == 3
    again.run()
    a, b = trained_weights(whole.model), trained_weights(again.model)
    assert a.keys() == b.keys() and len(a) == 2 * 6 * 2 + 4
    for name, values in a.items():
        np.testing.assert_allclose(values.numpy(), b[name].numpy(), atol=1e-6)
    assert (tmp_path / "broken" / "loss.jsonl").read_text().count("\n") == len(whole.steps)
    with pytest.raises(ConfigError, match="holds a fit with another options"):
        fit(base, tmp_path / "broken", rate=0.5)


def test_what_was_learnt_is_what_the_engine_runs(base: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")

    from specrag_native.encoders import NativeCrossEncoder
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions
    from specrag_native.model_files.adapter import build
    from specrag_native.training.cross_encoder import score_pairs

    learner = fit(base, tmp_path / "fit", epochs=2)
    learner.run()
    adapter = learner.export(tmp_path / "adapter.gguf", name="made")
    assert sorted(adapter.tensors) == [
        "cls.bias",
        "cls.output.bias",
        "cls.output.weight",
        "cls.weight",
    ]
    assert adapter.matrices["blk.1.ffn_up.weight"][0].shape == (4, 32)
    assert adapter.matrices["blk.1.ffn_up.weight"][1].shape == (64, 4)
    build(base, tmp_path / "adapter.gguf", tmp_path / "made.gguf", type="F16", name="made")
    options = EngineOptions(n_ctx=256, n_batch=64, n_seq_max=4)
    ranker = NativeCrossEncoder(NativeEngine(tmp_path / "made.gguf", options))
    texts = ["moon is moon", "king", "", "boat is red."]
    got = ranker.rank("what is moon", texts)
    pairs = [learner._tokens.pair("what is moon", text) for text in texts]
    assert got.usage.prefilled == sum(map(len, pairs))
    learner.model.eval()
    with torch.no_grad():
        expected = score_pairs(learner.model, pairs, batch=2).numpy()
    np.testing.assert_allclose(got.scores, expected, atol=0.05)
