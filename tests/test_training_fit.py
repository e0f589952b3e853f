"""Fitting, resuming and exporting, with a tiny random model."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import write_tiny

from specrag_native.errors import Cancelled, ConfigError, ModelFileError
from specrag_native.training.examples import DraftExample
from specrag_native.types import Passage, Question

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("peft", reason="the train extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from specrag_native.engine import NativeEngine  # noqa: E402
from specrag_native.engine_options import EngineOptions  # noqa: E402
from specrag_native.model_files.adapter import merge, read_adapter  # noqa: E402
from specrag_native.protocol import Segment  # noqa: E402
from specrag_native.training import base as bases  # noqa: E402
from specrag_native.training.checkpoints import checkpoints, trained_weights  # noqa: E402
from specrag_native.training.encoding import IGNORED, encode, encode_group  # noqa: E402
from specrag_native.training.export import export  # noqa: E402
from specrag_native.training.fit import Fit, read_losses  # noqa: E402
from specrag_native.training.fit_options import FitOptions  # noqa: E402
from specrag_native.training.loss import (  # noqa: E402
    row_logits,
    row_of,
    token_weights,
)
from specrag_native.training.low_rank import LowRankLinear, adapt  # noqa: E402
from specrag_native.training.planning import plan, rate_at  # noqa: E402
from specrag_native.training.rows import file_order, own_order, read_heads  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SMALL = EngineOptions(n_ctx=512, n_batch=64, n_seq_max=4, n_outputs_max=64)


def passage(name: str) -> Passage:
    text = f"The capital of {name} is {name[::-1]}ville, on a river."
    return Passage(name, name, name, text, end=len(text))


def make(n: int = 12) -> list[DraftExample]:
    out = []
    for i in range(n):
        names = (f"Land{i // 2}", f"Isle{i // 2}")
        asked = names[i % 2]
        unknown = i % 5 == 4
        out.append(
            DraftExample(
                id=str(i),
                dataset="made",
                question=Question(f"What is the capital of {asked}?"),
                passages=tuple(passage(name) for name in names),
                rationale="none" if unknown else f"The capital of {asked} is {asked[::-1]}ville",
                answer="unknown" if unknown else f"{asked[::-1]}ville",
                answers=(f"{asked[::-1]}ville",),
                unknown=unknown,
            )
        )
    return out


def group_logits(model: Any, group: Any, *, layout: Any) -> Any:
    return row_logits(model, [row_of(group, layout)])


def options(**values: Any) -> FitOptions:
    return FitOptions(
        **{
            "rank": 4,
            "alpha": 8,
            "rate": 5e-3,
            "groups": 2,
            "epochs": 2.0,
            "warmup": 2,
            "save_every": 2,
            "threads": 1,
            "device": "cpu",
            **values,
        }
    )


def test_only_what_the_drafter_writes_counts(tiny: Path) -> None:
    base = bases.open_base(tiny)
    tokeniser = base.tokeniser()
    group = encode_group(tokeniser, make()[:2], end_of_turn=base.end_of_turn)
    assert len(group.branches) == 2
    branch = group.branches[0]
    assert b"What is the capital of Land0?" in bytes_of(branch.tokens)
    counted = [t for t, label in zip(branch.tokens, branch.labels, strict=True) if label != IGNORED]
    assert bytes_of(counted) == b" The capital of Land0 is 0dnaLville\n 0dnaLville"
    assert counted[-1] == base.end_of_turn
    assert all(
        label in (IGNORED, token) for token, label in zip(branch.tokens, branch.labels, strict=True)
    )
    assert branch.labels[: branch.start] == (IGNORED,) * branch.start


def bytes_of(tokens: Any) -> bytes:
    from tiny_model import byte_tokens

    names = byte_tokens()
    decode = {name: byte for byte, name in enumerate(names[:256])}
    return bytes(decode[names[t]] for t in tokens if t < 256)


@pytest.mark.parametrize("form", ["rationale-first", "answer-first"])
def test_what_is_trained_is_what_is_asked(tiny: Path, form: Any) -> None:
    """Evidence and branch together are the tokens the engine is prompted with."""
    from specrag_native import prompts

    base = bases.open_base(tiny)
    tokeniser = base.tokeniser()
    example = make()[0]
    group = encode_group(tokeniser, [example], end_of_turn=base.end_of_turn, form=form)
    prompt = prompts.drafter_prompt(tokeniser, example.question, example.passages, form=form)
    before = [*group.head, *(t for p in group.passages for t in p)]
    branch = group.branches[0]
    assert [*before, *branch.tokens[: branch.start]] == tokeniser.tokenize(prompt)
    # What the drafter does not write itself is what stands between its two stages in the engine.
    stage, _ = prompts.drafter_stages(max_rationale_tokens=9, max_answer_tokens=9, form=form)
    parts = prompts.drafter_completion(example.rationale, example.answer, form=form)
    assert parts[1] == stage.then[0]
    n_start = len(tokeniser.tokenize(()))
    first, between, second = (tokeniser.tokenize((part,))[n_start:] for part in parts)
    written = [*first, between[0], *second, base.end_of_turn]
    assert [t for t in branch.labels if t != IGNORED] == written
    assert list(branch.tokens[branch.start :]) == [*first, *between, *second, base.end_of_turn]


def test_the_loss_is_the_engines(tiny: Path) -> None:
    """Shared evidence and branches give the log-probabilities that the engine computes alone."""
    base = bases.open_base(tiny)
    model = base.model(torch.float32)
    engine = NativeEngine(tiny, SMALL)
    examples = make()[:2]
    group = encode_group(base.tokeniser(), examples, end_of_turn=base.end_of_turn)
    with torch.no_grad():
        logits, labels, rows = group_logits(model, group, layout="exact")
    found = torch.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    from specrag_native import prompts

    for number, example in enumerate(examples):
        prompt = prompts.drafter_prompt(engine, example.question, example.passages)
        rationale, between, answer = prompts.drafter_completion(example.rationale, example.answer)
        scored = (Segment(rationale.text, scored=True), between, Segment(answer.text, scored=True))
        (score,) = engine.score([(*prompt, *scored)])
        expected = [p for segment in score.segments for p in segment.logprobs]
        mine = found[rows == number].tolist()
        n = len(score.segments[0].logprobs)
        del mine[n], mine[-1]  # the line's end and the turn's end are not scored there
        assert mine == pytest.approx(expected, abs=0.02)  # the engine's KV cache is float16


def test_the_engine_reads_standalone_passages_as_they_are_trained(tiny: Path) -> None:
    from specrag_native import prompts

    base = bases.open_base(tiny)
    engine = NativeEngine(tiny, SMALL)
    examples = make()[:2]
    assert len(examples[0].passages) > 1
    group = encode_group(base.tokeniser(), examples, end_of_turn=base.end_of_turn)
    with torch.no_grad():
        logits, labels, rows = group_logits(base.model(torch.float32), group, layout="standalone")
    found = torch.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    for number, example in enumerate(examples):
        asked = prompts.drafter_prompt(engine, example.question, example.passages, standalone=True)
        rationale, *_ = prompts.drafter_completion(example.rationale, example.answer)
        (score,) = engine.score([(*asked, Segment(rationale.text, scored=True))])
        expected = score.segments[0].logprobs
        mine = found[rows == number].tolist()[: len(expected)]
        assert mine == pytest.approx(expected, abs=0.04)


def test_standalone_passages_do_not_see_each_other(tiny: Path) -> None:
    base = bases.open_base(tiny)
    model = base.model(torch.float32)
    tokeniser = base.tokeniser()

    def logits(order: int, layout: Any) -> Any:
        example = make()[0]
        passages = example.passages[::order]
        changed = DraftExample(**{**fields(example), "passages": passages})
        group = encode_group(tokeniser, [changed], end_of_turn=base.end_of_turn)
        with torch.no_grad():
            return group_logits(model, group, layout=layout)[0]

    assert torch.allclose(logits(1, "standalone"), logits(-1, "standalone"), atol=1e-4)
    assert not torch.allclose(logits(1, "exact"), logits(-1, "exact"), atol=1e-2)


def fields(example: DraftExample) -> dict[str, Any]:
    import dataclasses

    return {f.name: getattr(example, f.name) for f in dataclasses.fields(example)}


def test_a_stopped_fit_goes_on_with_the_same_numbers(tiny: Path, tmp_path: Path) -> None:
    base = bases.open_base(tiny)
    whole = Fit(base, make(), tmp_path / "whole", options())
    whole.run()

    class After:
        def __init__(self, steps: int) -> None:
            self.left = steps

        @property
        def cancelled(self) -> bool:
            self.left -= 1
            return self.left < 0

    stopped = Fit(base, make(), tmp_path / "parts", options())
    with pytest.raises(Cancelled):
        stopped.run(cancel=After(3))  # type: ignore[arg-type]
    # What was logged after the last checkpoint, as a kill would leave it, is taken again.
    with (tmp_path / "parts" / "loss.jsonl").open("a") as file:
        file.write("{ cut off")
    again = Fit(base, make(), tmp_path / "parts", options())
    assert again.step == 3
    again.run()
    first = [s.loss for s in read_losses(tmp_path / "whole")]
    second = [s.loss for s in read_losses(tmp_path / "parts")]
    assert len(first) == len(whole.steps)
    assert first == second
    a, b = trained_weights(whole.model), trained_weights(again.model)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert len(checkpoints(tmp_path / "parts")) == 1
    assert first[-1] < first[0]


def test_a_fit_can_start_where_another_ended(tiny: Path, tmp_path: Path) -> None:
    base = bases.open_base(tiny)
    first = Fit(base, make(), tmp_path / "first", options())
    first.run()
    settings = options(start=str(tmp_path / "first"), seed=3)
    second = Fit(base, make(10), tmp_path / "second", settings)
    a, b = trained_weights(first.model), trained_weights(second.model)
    assert second.step == 0
    assert all(torch.equal(a[name], b[name]) for name in a)
    second.run()
    assert any(not torch.equal(a[name], p) for name, p in trained_weights(second.model).items())
    assert Fit(base, make(10), tmp_path / "second", settings).step == len(second.steps)
    with pytest.raises(ConfigError, match="another options"):  # the first went on meanwhile
        again = Fit(base, make(), tmp_path / "first", options())
        again.step = 0
        again._optimiser.step()
        shutil.rmtree(checkpoints(tmp_path / "first")[-1])
        again.save()
        weights = checkpoints(tmp_path / "first")[-1] / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
        Fit(base, make(10), tmp_path / "second", settings)
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        Fit(base, make(), tmp_path / "third", options(start=str(tmp_path)))
    with pytest.raises(ConfigError, match="give the same --rank"):
        Fit(base, make(), tmp_path / "fourth", options(start=str(tmp_path / "second"), rank=2))


def test_a_fit_can_start_from_a_kept_adapter(tiny: Path, tmp_path: Path) -> None:
    base = bases.open_base(tiny)
    first = Fit(base, make(), tmp_path / "first", options())
    first.run()
    kept = export(tmp_path / "first", base, tmp_path / "out", name="kept", type="F16").adapter
    trained = trained_weights(first.model)
    second = Fit(base, make(10), tmp_path / "second", options(start=str(kept)))
    for name, weight in trained_weights(second.model).items():
        assert torch.allclose(weight, trained[name], rtol=1e-3, atol=1e-6), name  # float16 is kept
    assert second.step == 0
    scaled = Fit(base, make(10), tmp_path / "third", options(start=str(kept), alpha=16))
    for name, weight in trained_weights(scaled.model).items():
        half = 0.5 if ".lora_B." in name else 1.0
        assert torch.allclose(weight, half * trained[name], rtol=1e-3, atol=1e-6), name
    with pytest.raises(ConfigError, match="give the same --rank"):
        Fit(base, make(), tmp_path / "fourth", options(start=str(kept), rank=2))
    with pytest.raises(ConfigError, match="give --base the merged model"):
        Fit(base, make(), tmp_path / "fifth", options(start=str(kept), rank=0))
    with pytest.raises(ConfigError, match="another options"):
        Fit(base, make(10), tmp_path / "second", options(start=str(tmp_path / "first")))
    other = bases.open_base(write_tiny(tmp_path / "other.gguf", seed=1))
    with pytest.raises(ConfigError, match="give --base the GGUF it was trained from"):
        Fit(other, make(), tmp_path / "sixth", options(start=str(kept)))


def test_other_settings_do_not_go_on_with_a_fit(tiny: Path, tmp_path: Path) -> None:
    base = bases.open_base(tiny)
    Fit(base, make(), tmp_path / "fit", options())
    with pytest.raises(ConfigError, match="another options"):
        Fit(base, make(), tmp_path / "fit", options(rate=1e-4))
    with pytest.raises(ConfigError, match="another examples"):
        Fit(base, make(10), tmp_path / "fit", options())


def test_a_base_that_cannot_be_exported_is_refused_before_training(tmp_path: Path) -> None:
    other = write_tiny(tmp_path / "other.gguf", architecture="gemma")
    with pytest.raises(ModelFileError, match="gemma"):
        bases.open_base(other)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text(
        json.dumps({"model_type": "mamba", "eos_token_id": 0})
    )
    with pytest.raises(ModelFileError, match="mamba"):
        bases.open_base(tmp_path / "folder")


@pytest.mark.parametrize("rank", [4, 0])
def test_the_exported_model_is_the_trained_one(
    tiny: Path, tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specrag_native.training.fit._cpu_has_bfloat16", lambda: False)
    base = bases.open_base(tiny)
    fit = Fit(base, make(), tmp_path / "fit", options(rank=rank, rate=2e-2))
    fit.run()
    done = export(
        tmp_path / "fit",
        base,
        tmp_path / "out",
        name="trained",
        type="F16",
        rank=None if rank else 64,
        facts={"general.license": "apache-2.0"},
    )
    merged = NativeEngine(done.model, SMALL)
    adapted = NativeEngine(tiny, EngineOptions(**{**opts(), "adapter": str(done.adapter)}))
    plain = NativeEngine(tiny, SMALL)
    group = encode_group(base.tokeniser(), make()[:1], end_of_turn=base.end_of_turn)
    tokens = [*group.head, *(t for p in group.passages for t in p), *group.branches[0].tokens[:-1]]
    text = bytes_of(tokens[-40:]).decode()
    prompt = (Segment("<|im_start|>", control=True), Segment(text, scored=True))
    of = {
        name: np.array(engine.score([prompt])[0].segments[0].logprobs)
        for name, engine in (("merged", merged), ("adapted", adapted), ("plain", plain))
    }
    assert np.abs(of["merged"] - of["adapted"]).max() < 0.05
    assert np.abs(of["merged"] - of["plain"]).max() > 0.2
    with torch.no_grad():
        ids = torch.tensor([merged.tokenize(prompt)])
        logits = fit.model(input_ids=ids).logits[0]
    mine = torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None])[:, 0].numpy()
    assert np.abs(of["merged"] - mine).max() < 0.05
    assert read_adapter(done.adapter).facts["general.license"] == "apache-2.0"


def opts() -> dict[str, Any]:
    import dataclasses

    return {f.name: getattr(SMALL, f.name) for f in dataclasses.fields(SMALL)}


def test_an_adapter_for_another_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    from specrag_native.model_files.adapter import Adapter, write_adapter

    rng = np.random.default_rng(0)
    halves = (
        rng.normal(size=(2, 64)).astype(np.float32),
        rng.normal(size=(64, 2)).astype(np.float32),
    )
    foreign = Adapter("llama", 2.0, {"blk.9.attn_q.weight": halves})
    with pytest.raises(ModelFileError, match=r"blk\.9"):
        merge(tiny, foreign, tmp_path / "out.gguf")
    with pytest.raises(ModelFileError, match="qwen2"):
        merge(tiny, Adapter("qwen2", 2.0, {}), tmp_path / "out.gguf")
    write_adapter(tmp_path / "a.gguf", foreign)
    with pytest.raises(ModelFileError, match="adapter"):
        NativeEngine(tiny, EngineOptions(adapter=str(tmp_path / "a.gguf")))
    with pytest.raises(ModelFileError, match="no LoRA adapter"):
        read_adapter(tiny)
    assert not (tmp_path / "out.gguf").exists()


def test_rows_of_queries_return_to_the_files_order(tiny: Path) -> None:
    heads = read_heads(tiny)
    assert (heads.n_head, heads.n_head_kv, heads.paired) == (4, 2, True)
    rows = np.arange(64, dtype=np.float32)[:, None]
    ordered = file_order(rows, "blk.0.attn_q.weight", heads)[:, 0]
    # In transformers' layout a head's rotary partners are half a head apart; in the file, adjacent.
    assert ordered[:4].tolist() == [0, 8, 1, 9]
    assert np.array_equal(file_order(rows, "blk.0.attn_v.weight", heads), rows)
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"):
        assert np.array_equal(own_order(file_order(rows, name, heads), name, heads), rows)


def test_the_plan_visits_every_group_once_an_epoch() -> None:
    settings = options(epochs=2.0, groups=4, standalone=0.5)
    lengths = [30] * 10
    steps = plan(lengths, settings)
    visited = [n for step in steps for batch in step for n, _ in batch]
    assert sorted(visited[:10]) == sorted(visited[10:]) == list(range(10))
    assert visited[:10] != visited[10:]
    assert [len(step) for step in steps] == [4, 4, 4, 4, 4]
    assert all(len(batch) == 1 for step in steps for batch in step)
    layouts = {layout for step in steps for batch in step for _, layout in batch}
    assert layouts == {"exact", "standalone"}
    assert plan(lengths, settings) == steps
    exact = plan(lengths, options(standalone=0.0))
    assert {layout for step in exact for batch in step for _, layout in batch} == {"exact"}


def test_a_step_of_batches_has_groups_of_all_lengths_and_no_batch_has() -> None:
    settings = options(epochs=1.5, batch_tokens=640)
    lengths = [(7 * i) % 300 + 20 for i in range(200)]
    steps = plan(lengths, settings)
    batches = [[n for n, _ in batch] for step in steps for batch in step]
    visited = [n for batch in batches for n in batch]
    assert len(visited) == 300
    assert sorted(set(visited)) == list(range(200))
    assert plan(lengths, settings) == steps
    for batch in batches:
        longest = max(lengths[n] for n in batch)
        assert len(batch) == 1 or len(batch) * -(-longest // 32) * 32 <= 640
    assert np.mean([np.ptp([lengths[n] for n in batch]) for batch in batches]) < 20
    assert np.mean([np.ptp([lengths[n] for batch in s for n, _ in batch]) for s in steps]) > 100
    assert max(len(step) for step in steps) == 3


@pytest.mark.parametrize("layout", ["exact", "standalone"])
def test_a_group_has_the_same_loss_beside_others(tiny: Path, layout: Any) -> None:
    base = bases.open_base(tiny)
    model = base.model(torch.float32)
    examples = [e for e in make() if e.id != "3"]  # groups of unequal length
    groups = list(encode(base.tokeniser(), examples, end_of_turn=base.end_of_turn, max_tokens=512))
    with torch.no_grad():
        together, labels, branch = row_logits(model, [row_of(g, layout) for g in groups])
        alone = [group_logits(model, g, layout=layout) for g in groups]
    assert torch.equal(labels, torch.cat([found[1] for found in alone]))
    assert (together - torch.cat([found[0] for found in alone])).abs().max() < 1e-4
    assert len(branch.unique()) == len(examples)
    assert len({len(row_of(g, layout).tokens) for g in groups}) > 1


def test_the_first_token_of_every_branch_is_weighted() -> None:
    weights = token_weights(torch.tensor([0, 0, 0, 1, 2, 2]), 5.0)
    assert weights.tolist() == [5, 1, 1, 5, 5, 1]


def test_a_decision_that_weighs_more_is_learnt_at_the_cost_of_the_rest(
    tiny: Path, tmp_path: Path
) -> None:
    """The loss that is logged is the weighted mean, worked out here from the logits."""
    base = bases.open_base(tiny)
    fit = Fit(base, make(2), tmp_path / "fit", options(groups=1, epochs=1.0, decision=5.0))
    with torch.no_grad():
        logits, labels, branch = group_logits(fit.model, fit.groups[0], layout="exact")
        each = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    first = [int((branch == b).nonzero()[0]) for b in (0, 1)]
    expected = (each.sum() + 4 * each[first].sum()) / (len(each) + 8)
    fit.run()
    (step,) = read_losses(tmp_path / "fit")
    assert step.loss == pytest.approx(float(expected), rel=2e-3)


def test_an_adapted_layer_begins_as_what_it_replaces() -> None:
    linear = torch.nn.Linear(6, 4)
    layer = LowRankLinear(linear, rank=2, alpha=4)
    x = torch.randn(3, 6)
    assert torch.allclose(layer(x), linear(x))
    with torch.no_grad():
        layer.lora_B.weight.normal_()
    change = 2 * layer.lora_B.weight @ layer.lora_A.weight
    assert torch.allclose(layer(x), linear(x) + x @ change.T, atol=1e-5)
    half = layer(x.to(torch.bfloat16))  # a bias follows the activations, as the weights do
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), layer(x), atol=0.1)


def test_only_what_is_adapted_keeps_its_type() -> None:
    model = torch.nn.ModuleDict(
        {
            "q_proj": torch.nn.Linear(6, 4),
            "norm": torch.nn.LayerNorm(6),
            "out": torch.nn.Linear(4, 2),
        }
    )
    adapt(model, ["q_proj"], rank=2, alpha=4, dtype=torch.bfloat16)
    types = {name: p.dtype for name, p in model.named_parameters()}
    assert {name for name, kind in types.items() if kind == torch.float32} == {
        "q_proj.weight",
        "q_proj.bias",
        "q_proj.lora_A.weight",
        "q_proj.lora_B.weight",
    }
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj.lora_A.weight", "q_proj.lora_B.weight"}


def test_an_adapter_in_half_the_space_is_nearly_the_same(tiny: Path, tmp_path: Path) -> None:
    base = bases.open_base(tiny)
    Fit(base, make(), tmp_path / "fit", options(rank=32, rate=2e-2)).run()
    found = {}
    for kind in ("F16", "Q8_0"):
        done = export(
            tmp_path / "fit", base, tmp_path / kind, name="x", type="F16", adapter_type=kind
        )
        found[kind] = (done.adapter.stat().st_size, read_adapter(done.adapter))
    assert found["Q8_0"][0] < 0.7 * found["F16"][0]
    for name in found["F16"][1].matrices:
        whole, half = (found[kind][1].change(name) for kind in ("F16", "Q8_0"))
        assert np.abs(whole - half).max() < 0.03 * np.abs(whole).max()
    Fit(base, make(), tmp_path / "narrow", options(rank=4)).run()
    with pytest.raises(ModelFileError, match="multiple of 32"):
        export(
            tmp_path / "narrow", base, tmp_path / "out", name="x", type="F16", adapter_type="Q8_0"
        )


def test_the_rate_warms_up_and_decays_to_a_tenth() -> None:
    settings = options(warmup=5, rate=1e-3)
    rates = [rate_at(step, 50, settings) for step in range(50)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-4, rel=0.1)
    assert all(math.isfinite(r) for r in rates)


def test_too_long_examples_are_left_out(tiny: Path) -> None:
    base = bases.open_base(tiny)
    tokeniser = base.tokeniser()
    groups = encode(tokeniser, make(), end_of_turn=base.end_of_turn, max_tokens=64)
    assert list(groups) == []


@pytest.mark.parametrize(
    ("name", "value"), [("groups", 0), ("rate", 0.0), ("standalone", 1.5), ("device", "tpu")]
)
def test_wrong_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        options(**{name: value})
