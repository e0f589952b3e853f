"""Tuning: what is measured, what is believed, and where it is used. No model is needed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fakes import FakeEngine, text_of

from specrag_native import hardware
from specrag_native.cli import doctor
from specrag_native.cli import tune as command
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.engines import DEFAULT_OPTIONS, Engines, ModelPaths
from specrag_native.errors import (
    Cancelled,
    ConfigError,
    ModelFileError,
    ModelNotFoundError,
    UserError,
)
from specrag_native.evaluation import machine
from specrag_native.model_files import model_dir
from specrag_native.protocol import (
    Batch,
    CancelFlag,
    Completion,
    GenerateOptions,
    Generation,
    Ranking,
)
from specrag_native.tuning import search, tuner
from specrag_native.tuning import store as tuning_store
from specrag_native.tuning.found import Tuning, speed_of
from specrag_native.tuning.search import Search, candidates
from specrag_native.tuning.store import Kept, Machine, Rates
from specrag_native.tuning.tuner import Target
from specrag_native.tuning.work import DRAFT_TOKENS, N_SLOTS, WORKS, Sample, Work
from specrag_native.types import Usage

HAS = {f.name for f in dataclasses.fields(EngineOptions)}
BASE = EngineOptions()
WORK_TOKENS = (400, 100)  # read and written per repetition


class World:
    """A machine with made-up speeds and a clock that only its work moves.

    ``pace(options)`` is how many times faster than the default the machine is; ``noise`` are
    factors on the seconds of one repetition after another.
    """

    def __init__(
        self,
        pace: Callable[[Any], float] = lambda options: 1.0,
        *,
        noise: tuple[float, ...] = (1.0,),
        load_s: float = 0.5,
        repetition_s: float = 1.0,
        in_line: float = 0.0,
    ) -> None:
        self.now = self.waited_s = 0.0
        self.runs = 0
        self.loaded: list[EngineOptions] = []
        self.marks: list[int] = []
        self._pace, self._noise = pace, noise
        self._load_s, self._repetition_s = load_s, repetition_s
        self.in_line = in_line  # threads that stand in line for a core
        self.at_run: Callable[[int], None] = lambda n: None

    def load(self, options: EngineOptions, path: Path | None = None) -> Any:
        self.loaded.append(options)
        self.now += self._load_s
        pace = self._pace(options)
        engine = FakeEngine(write=lambda prompt: ("words",))
        return _with(engine, options=options, path=path, pace=pace)

    def run(self, engine: Any, size: int, mark: int, cancel: CancelFlag | None) -> Sample:
        self.marks.append(mark)
        self.at_run(self.runs)
        seconds = self._repetition_s * self._noise[self.runs % len(self._noise)] / engine.pace
        self.runs += 1
        self.now += seconds
        self.waited_s += self.in_line * seconds
        prefill, decode = WORK_TOKENS
        return Sample(prefill, seconds * 0.5, decode, seconds * 0.5, largest=2000)

    def search(self, *, role: str = "drafter", seconds: float = 1000, **more: Any) -> Search:
        return Search(
            role,
            Path("toy.gguf"),
            BASE,
            load=self.load,
            work=Work(self.run, sizes=(1,), prefill=WORK_TOKENS[0], decode=WORK_TOKENS[1]),
            seconds=seconds,
            clock=lambda: self.now,
            physical=4,
            logical=8,
            waited=lambda: self.waited_s,
            **more,
        )


def _with(engine: FakeEngine, **values: Any) -> Any:
    for name, value in values.items():
        setattr(engine, name, value)
    return engine


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SPECRAG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SPECRAG_NO_TUNING", raising=False)
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"weights" * 1000)
    return path


def entry(path: Path, **changes: Any) -> Kept:
    kept = Kept(
        digest=model_dir.file_digest(path),
        file=path.name,
        role="drafter",
        machine=tuning_store.this_machine(),
        date="2026-01-01",
        settings={"threads": 3, "n_batch": 256},
        before=Rates(100.0, 10.0),
        after=Rates(120.0, 12.0),
    )
    return dataclasses.replace(kept, **changes)


# --- the search ----------------------------------------------------------------------------------


def test_the_fast_settings_are_chosen_one_after_the_other() -> None:
    def pace(options: Any) -> float:
        return {8: 1.3, 3: 1.1, 2: 0.6}.get(options.threads, 1.0) * (
            1.2 if options.n_batch == 256 else 1.0
        )

    found = World(pace).search().run()
    assert found.settings == {"threads": 8, "n_batch": 256}
    assert found.left == () and not found.stopped and not found.disturbed
    assert found.default is not None and found.chosen is not None
    assert found.chosen.rates.decode == pytest.approx(1.56 * found.default.rates.decode)
    assert {(t.setting, t.value) for t in found.trials if t.verdict == "kept"} == {
        ("threads", 8),
        ("n_batch", 256),
    }


def test_a_gain_within_the_spread_keeps_the_default() -> None:
    noisy = World(lambda o: 1.15 if o.threads == 8 else 1.0, noise=(0.8, 1.0, 1.2))
    assert noisy.search().run().settings == {}
    quiet = World(lambda o: 1.15 if o.threads == 8 else 1.0)
    assert quiet.search().run().settings == {"threads": 8}


def test_a_gain_of_less_than_three_percent_is_no_gain() -> None:
    assert World(lambda o: 1.02 if o.threads == 8 else 1.0).search().run().settings == {}


def test_a_gain_that_the_old_settings_show_too_when_measured_again_is_none() -> None:
    world = World(noise=(2.0,) * 3 + (1.0,) * 500)  # disturbed while the defaults were measured
    found = world.search().run()
    assert found.settings == {} and found.default == found.chosen
    (first, *others) = found.trials
    assert (first.verdict, first.pace) == ("not confirmed", pytest.approx(2.0))
    assert {t.verdict for t in others} == {"no gain"}


def test_a_gain_that_there_was_no_time_to_confirm_is_not_kept() -> None:
    world = World(lambda o: 1.3 if o.threads == 8 else 1.0)
    found = world.search(role="verifier", seconds=8).run()
    assert found.settings == {} and "threads" in found.left
    assert [t.verdict for t in found.trials] == ["not confirmed"]


def test_the_time_limit_leaves_later_settings_at_their_default() -> None:
    world = World(lambda o: 1.3 if o.threads == 8 else 1.0)
    found = world.search(seconds=25).run()
    assert world.now <= 25
    assert found.settings == {"threads": 8}
    assert "threads" not in found.left and "flash_attention" in found.left


def test_no_time_at_all_gives_nothing_to_keep() -> None:
    found = World().search(seconds=2).run()
    assert found.default is None and found.to_keep() is None
    assert set(found.left) == set(found.defaults)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Cancelled("time")])
def test_what_was_finished_before_an_interruption_is_kept(stop: BaseException, model: Path) -> None:
    world = World(lambda o: 1.3 if o.threads == 8 else 1.0)

    def interrupt(n: int) -> None:
        if world.loaded[-1].n_batch != BASE.n_batch:
            raise stop

    world.at_run = interrupt
    found = dataclasses.replace(world.search().run(), path=model)
    assert found.settings == {"threads": 8} and found.left[0] == "n_batch"
    assert found.stopped is isinstance(stop, KeyboardInterrupt)
    kept = found.to_keep()
    assert kept is not None and kept.settings == {"threads": 8} and "n_batch" in kept.left


def test_settings_that_make_no_engine_are_passed_over() -> None:
    world = World()
    load = world.load

    def picky(options: EngineOptions) -> Any:
        if options.flash_attention == "off":
            raise ModelFileError("not possible")
        return load(options)

    world.load = picky  # type: ignore[method-assign,assignment]
    found = world.search().run()
    (trial,) = (t for t in found.trials if t.value == "off")
    assert trial.verdict == "impossible" and found.left == ()


def test_a_model_that_cannot_be_loaded_at_all_is_an_error() -> None:
    world = World()

    def broken(options: EngineOptions) -> Any:
        raise ModelFileError("no usable model")

    world.load = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(ModelFileError, match="no usable model"):
        world.search().run()


def test_a_setting_is_repeated_only_as_long_as_it_can_win() -> None:
    world = World(lambda o: {2: 0.5, 8: 1.2}.get(o.threads, 1.0))
    steps: list[str] = []
    world.search(on_step=steps.append).run()
    assert steps.count("threads 8") == search.REPETITIONS
    assert (steps.count("threads 3"), steps.count("threads 2")) == (1, 1)
    assert steps.count("n_batch 256") == 2


def test_a_machine_that_slows_down_meanwhile_is_noticed() -> None:
    assert not World().search().run().disturbed
    assert World(noise=(1.0,) * 5 + (2.0,) * 500).search().run().disturbed
    assert World(noise=(0.8, 1.0, 1.2)).search().run().disturbed


def test_flash_attention_on_is_not_tried_where_auto_must_be_on() -> None:
    found = World(lambda o: 0.7 if o.flash_attention == "off" else 1.0).search().run()
    assert [t.value for t in found.trials if t.setting == "flash_attention"] == ["off"]


def test_nothing_is_kept_when_threads_had_to_wait_for_a_core(model: Path) -> None:
    def found(in_line: float) -> Tuning:
        world = World(lambda o: 1.3 if o.threads == 3 else 1.0, in_line=in_line)
        return dataclasses.replace(world.search().run(), path=model)

    quiet, busy = found(0.2), found(2.0)
    assert (quiet.waiting, busy.waiting) == (pytest.approx(0.05), pytest.approx(0.5))
    assert quiet.to_keep() is not None and busy.to_keep() is None


def test_no_two_repetitions_share_their_texts() -> None:
    world = World()
    world.search().run()
    assert len(set(world.marks)) == len(world.marks)


def test_only_settings_that_the_engine_has_are_tried() -> None:
    @dataclasses.dataclass(frozen=True)
    class Older:
        n_batch: int = 512
        threads: int = 0
        flash_attention: str = "auto"

    older = candidates("drafter", cast(Any, Older()), physical=4, logical=4)
    assert [name for name, _ in older] == ["threads", "n_batch", "flash_attention"]

    @dataclasses.dataclass(frozen=True)
    class Newer(Older):
        lookup: int = 0
        kv_type: str = "f16"

    newer = candidates("drafter", cast(Any, Newer()), physical=4, logical=4)
    assert {"kv_type", "lookup"} <= set(dict(newer)) and newer[0][0] == "lookup"
    verifying = candidates("verifier", cast(Any, Newer()), physical=4, logical=4)
    assert not {"kv_type", "lookup"} & set(dict(verifying))


@pytest.mark.parametrize(("physical", "logical"), [(1, 1), (2, 2), (4, 8), (32, 64)])
def test_threads_to_try_are_other_numbers_than_the_default(physical: int, logical: int) -> None:
    plan = dict(candidates("drafter", BASE, physical=physical, logical=logical))
    tried = [c["threads"] for c in plan.get("threads", [])]
    assert physical not in tried and len(set(tried)) == len(tried)
    assert all(1 <= n <= logical for n in tried)


def test_a_work_smaller_than_both_batches_says_nothing_about_them() -> None:
    world = World()
    small = Search(
        "verifier",
        Path("toy.gguf"),
        BASE,
        load=world.load,
        work=Work(
            lambda e, s, m, c: dataclasses.replace(world.run(e, s, m, c), largest=200), (1,), 10, 10
        ),
        seconds=1000,
        clock=lambda: world.now,
        physical=2,
        logical=2,
        waited=lambda: None,
    ).run()
    assert [t.value for t in small.trials if t.setting == "n_batch"] == [128]


def test_the_other_type_is_measured_and_never_chosen() -> None:
    world = World(lambda o: 1.0)

    def other(description: str, stack: ExitStack) -> tuple[str, Callable[[EngineOptions], Any]]:
        def load(options: EngineOptions) -> Any:
            return _with(world.load(options), pace=4.0)

        return "Q4_0", load

    found = world.search().run(other)
    assert found.other_type is not None and found.other_type.type == "Q4_0"
    assert found.default is not None and found.settings == {}
    assert found.other_type.speed.rates.decode == pytest.approx(4 * found.default.rates.decode)


def test_weights_are_tried_for_small_models_and_alone_for_cross_encoders() -> None:
    def plan(role: str, base: EngineOptions = BASE) -> dict[str, list[dict[str, Any]]]:
        return dict(candidates(role, base, physical=4, logical=4))

    drafting = plan("drafter")
    assert next(iter(drafting)) == "weights", "what else is fast depends on them"
    assert drafting["weights"] == [{"weights": "BF16"}, {"weights": "F16"}]
    assert plan("drafter", EngineOptions(weights="F16"))["weights"] == [{"weights": "BF16"}]
    assert "weights" not in plan("verifier")
    assert list(plan("reranker")) == list(plan("hop_ranker")) == ["weights"]


def test_weights_that_the_file_has_are_not_tried() -> None:
    world = World()
    load = world.load

    def stored(options: EngineOptions) -> Any:
        return _with(load(options), model=SimpleNamespace(description="bert 22M F16"))

    world.load = stored  # type: ignore[method-assign,assignment]
    found = world.search(role="reranker").run()
    assert [t.value for t in found.trials] == ["BF16"] and found.left == ()
    assert found.defaults == {"weights": "as stored"}


def test_fast_weights_are_kept_and_the_others_removed(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(lambda o: {"BF16": 1.5, "F16": 1.2}.get(o.weights, 1.0))
    monkeypatch.setattr(Search.__init__, "__kwdefaults__", _quiet(Search))
    (home / "weights").mkdir(parents=True)
    digest = model_dir.file_digest(model)[:16]
    short, half = (home / "weights" / f"toy.{digest}.{type}.gguf" for type in ("bf16", "f16"))
    for file in (short, half):
        file.write_bytes(b"written")
    (found,) = tuner.tune(
        [Target("reranker", model, BASE)],
        seconds=1000,
        clock=lambda: world.now,
        load=lambda path, options, cancel: world.load(options, path),
        works={"reranker": Work(world.run, (1,), 400, 0)},
    )
    assert found.settings == {"weights": "BF16"}
    assert short.exists() and not half.exists()
    kept = found.to_keep()
    assert kept is not None
    tuning_store.keep(kept)
    engines = Engines(ModelPaths(model, model, model, reranker=model))
    assert engines.options("reranker").weights == "BF16"
    assert engines.tuned_roles()["reranker"] == {"weights": "BF16"}
    assert "hop_ranker" not in engines.tuned_roles()
    assert tuning_store.forget() and not short.exists()


def test_the_other_type_is_measured_with_weights_of_its_own() -> None:
    world = World(lambda o: 1.5 if o.weights == "BF16" else 1.0)
    seen: list[str] = []

    def other(description: str, stack: ExitStack) -> tuple[str, Callable[[EngineOptions], Any]]:
        def load(options: EngineOptions) -> Any:
            seen.append(options.weights)
            return world.load(options)

        return "Q4_0", load

    assert world.search().run(other).settings["weights"] == "BF16"
    assert seen == [""]


def test_drafter_and_verifier_share_the_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(repetition_s=2.0)
    monkeypatch.setattr(tuner, "quantise", lambda *a, **k: None)
    verifier = tmp_path / "judge.gguf"
    verifier.write_bytes(b"judge")
    work = Work(world.run, (1,), 400, 100)
    found = list(
        tuner.tune(
            [Target("drafter", model, BASE), Target("verifier", verifier, BASE)],
            seconds=60,
            clock=lambda: world.now,
            load=lambda path, options, cancel: world.load(options, path),
            works={"drafter": work, "verifier": work},
        )
    )
    assert [t.role for t in found] == ["drafter", "verifier"] and world.now <= 60
    assert all(t.default is not None for t in found)


# --- the work ------------------------------------------------------------------------------------


class CountingEngine(FakeEngine):
    """Writes as many words as are asked for, and remembers the stages."""

    model = SimpleNamespace(is_cross_encoder=True)

    def rank(self, first: str, seconds: Any, **_: Any) -> Ranking:
        n = len(seconds)
        return Ranking(np.zeros(n, np.float32), Usage(prefilled=100 * n, prefill_s=float(n)))

    def generate(self, prompts: Any, options: GenerateOptions, **_: Any) -> Batch[Generation]:
        self.generated += [text_of(p) for p in prompts]
        (stage,) = options.stages
        assert stage.min_tokens == stage.max_tokens and not stage.stop
        n = stage.max_tokens
        done = Generation((Completion(tuple(range(n)), (-0.1,) * n, "w " * n, "length"),))
        usage = Usage(prefilled=300, decoded=n, prefill_s=1.0, decode_s=0.5)
        return Batch((done,) * len(prompts), usage)


def test_drafting_is_five_prompts_that_begin_with_what_their_passage_says() -> None:
    engine = CountingEngine()
    sample = WORKS["drafter"].run(engine, 1, 42, None)
    assert len(set(engine.generated)) == N_SLOTS
    assert sample.decoded == N_SLOTS * (DRAFT_TOKENS - 1) and sample.prefilled == 300
    for text in engine.generated:
        begun = text.rpartition("Evidence:")[2].strip()
        assert text.count(begun) >= 2 and "Report 000042-0" in text


def test_verifying_is_scoring_drafts_and_reading_passages() -> None:
    engine = CountingEngine()
    most = max(WORKS["verifier"].sizes)
    sample = WORKS["verifier"].run(engine, most, 7, None)
    assert len(engine.scored) == 2 * 4 and len(engine.generated) == 1
    assert sample.prefilled == 320 and sample.largest == 300
    rationale = engine.scored[0].partition("Explanation: ")[2].partition("\n\n")[0]
    assert 40 <= len(rationale.split()) <= 60


def test_ranking_is_a_question_with_passages() -> None:
    engine = CountingEngine()
    for role in ("reranker", "hop_ranker"):
        WORKS[role].warm_up(engine, None)
        sample = WORKS[role].run(engine, 2, 7, None)
        assert (sample.prefilled, sample.decoded) == (100 * 2 * N_SLOTS, 0)
        speed = speed_of([sample], WORKS[role])
        assert (speed.rates.prefill, speed.rates.decode) == (100.0, 0.0)
        assert speed.seconds == (WORKS[role].prefill / 100.0,)


def test_work_that_was_cancelled_is_no_measurement() -> None:
    flag = SimpleNamespace(cancelled=True, cancel=lambda: None)
    for work in WORKS.values():
        with pytest.raises(Cancelled):
            work.run(CountingEngine(), 1, 1, flag)


# --- what is kept --------------------------------------------------------------------------------


def test_settings_are_kept_for_the_file_they_were_measured_with(model: Path) -> None:
    tuning_store.keep(entry(model))
    assert tuning_store.settings_for(model) == {"threads": 3, "n_batch": 256}
    model.write_bytes(b"other weights")
    assert tuning_store.settings_for(model) == {}


def test_the_digest_is_the_engines(model: Path) -> None:
    engine = SimpleNamespace(model=SimpleNamespace(path=model))
    of_engine = NativeEngine.__dict__["file_digest"].func
    assert model_dir.file_digest(model) == of_engine(engine)


@pytest.mark.parametrize(
    "elsewhere", [{"cpu": "another"}, {"cores": 99}, {"llama_cpp_python": "0.0.1"}]
)
def test_settings_of_another_machine_are_not_used(
    model: Path, elsewhere: Mapping[str, Any]
) -> None:
    here = tuning_store.this_machine()
    tuning_store.keep(entry(model, machine=dataclasses.replace(here, **elsewhere)))
    assert tuning_store.settings_for(model) == {}


def test_a_new_measurement_replaces_only_this_machines_old_one(model: Path) -> None:
    here = tuning_store.this_machine()
    away = dataclasses.replace(here, cpu="another")
    old = dataclasses.replace(here, llama_cpp_python="0.0.1")
    for machine_ in (away, old, here):
        tuning_store.keep(entry(model, machine=machine_))
    tuning_store.keep(entry(model, settings={"n_batch": 128}))
    stored = tuning_store.read()
    assert {e.machine for e in stored.entries} == {away, here}
    assert tuning_store.settings_for(model) == {"n_batch": 128}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged"),
        ("\xff", "damaged"),
        ("[]", "format None"),
        ('{"format": 99, "models": []}', "format 99"),
        ('{"format": 1}', "damaged"),
        ('{"format": 1, "models": [{"digest": 1}]}', "damaged"),
        ('{"format": 1, "models": 3}', "damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_ignored_in_one_line(
    text: str, said: str, model: Path, home: Path
) -> None:
    home.mkdir()
    (home / "tuning.json").write_bytes(text.encode("latin-1"))
    stored = tuning_store.read()
    assert stored.problem is not None and said in stored.problem and "\n" not in stored.problem
    assert tuning_store.settings_for(model) == {}
    tuning_store.keep(entry(model))  # measured anew
    assert tuning_store.settings_for(model)


@pytest.mark.parametrize(
    "settings", [{"n_batch": 1}, {"n_batch": "512"}, {"flash_attention": "maybe"}]
)
def test_values_out_of_range_are_not_used(settings: Mapping[str, Any], model: Path) -> None:
    tuning_store.keep(entry(model, settings=settings))
    assert tuning_store.settings_for(model) == {}


def test_settings_the_engine_does_not_know_are_left_out(model: Path) -> None:
    tuning_store.keep(entry(model, settings={"n_batch": 256, "wings": 2}))
    assert tuning_store.settings_for(model) == {"n_batch": 256}


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPECRAG_HOME", str(tmp_path / "file" / "home"))
    for act in (tuning_store.check_writable, lambda: tuning_store.keep(entry(model))):
        with pytest.raises(UserError, match=r"cannot write .*SPECRAG_HOME"):
            act()


# --- where it is used ----------------------------------------------------------------------------


def options_used(path: Path, **how: Any) -> EngineOptions:
    used: list[EngineOptions] = []

    def load(path: Path, options: EngineOptions) -> Any:
        used.append(options)
        return SimpleNamespace(model=SimpleNamespace(is_embedding=False))

    engines = Engines(ModelPaths(path, path, path), load=load, **how)
    assert engines.drafter
    return used[0]


def test_engines_use_what_is_kept_unless_told_otherwise(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = DEFAULT_OPTIONS["drafter"]
    assert options_used(model) == default
    tuning_store.keep(entry(model))
    assert options_used(model) == dataclasses.replace(default, threads=3, n_batch=256)
    assert options_used(model, tuned=False) == default
    assert options_used(model, threads=2) == dataclasses.replace(default, threads=2)
    assert options_used(model, n_gpu_layers=-1) == dataclasses.replace(default, n_gpu_layers=-1)
    monkeypatch.setenv("SPECRAG_NO_TUNING", "1")
    assert options_used(model) == default


def test_the_embedder_is_never_loaded_with_tuned_settings(model: Path) -> None:
    tuning_store.keep(entry(model))
    assert Engines(ModelPaths(model, model, model)).tuned("embedder") == {}


def test_a_run_records_the_settings_it_used(model: Path) -> None:
    tuning_store.keep(entry(model))
    engines = Engines(ModelPaths(model, model, model))
    told = machine.describe(threads=2, tuned={"drafter": engines.tuned("drafter")})
    assert told["tuned"] == {"drafter": {"threads": 3, "n_batch": 256}}
    assert "tuned" not in machine.describe(threads=2, tuned={"drafter": {}})


# --- the command ---------------------------------------------------------------------------------


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["tune", *words])
    result: int = args.run(args)
    return result


def _quiet(search: Any) -> dict[str, Any]:
    return {**search.__init__.__kwdefaults__, "waited": lambda: 0.0}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, model: Path) -> World:
    """The command with one model and a machine that is faster with a batch of 256."""
    world = World(lambda o: 1.3 if o.n_batch == 256 else 1.0)
    work = Work(world.run, (1,), 400, 100)
    real = tuner.tune

    def faked(targets: Any, **how: Any) -> Iterator[Tuning]:
        how |= {
            "clock": lambda: world.now,
            "load": lambda path, options, cancel: world.load(options, path),
            "works": {"drafter": work, "verifier": work},
        }
        return real(targets, **how)

    monkeypatch.setattr(tuner, "tune", faked)
    monkeypatch.setattr(Search.__init__, "__kwdefaults__", _quiet(Search))
    monkeypatch.setattr(tuner, "quantise", lambda *a, **k: None)
    monkeypatch.setattr("specrag_native.native.new_cancel_flag", threading.Event)
    monkeypatch.setattr(threading.Event, "cancel", threading.Event.set, raising=False)
    monkeypatch.setattr(threading.Event, "cancelled", False, raising=False)
    monkeypatch.setattr(command, "_targets", lambda args: [Target("drafter", model, BASE)])
    return world


def test_the_command_shows_a_table_and_keeps_the_settings(
    world: World, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    told = capsys.readouterr().out
    assert "drafter: toy.gguf" in told and "1.30x, chosen" in told
    (row,) = (line.split() for line in told.splitlines() if line.strip().startswith("n_batch"))
    assert row[1:3] == ["512", "256"]
    assert tuning_store.settings_for(model) == {"n_batch": 256}


def test_cross_encoders_that_are_not_here_are_passed_over_unless_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specrag_native.model_files import catalog

    verifier = tmp_path / "judge.gguf"
    here = {"drafter": model, "verifier": verifier}

    def resolve(name: str, *, role: str) -> Any:
        if role not in here:
            raise ModelNotFoundError(f"{name} is not here")
        return SimpleNamespace(path=here[role])

    monkeypatch.setattr(catalog, "resolve", resolve)
    args = argparse.Namespace(drafter=None, verifier=None, reranker=None, hop_ranker=None)
    assert [t.role for t in command._targets(args)] == ["drafter", "verifier"]
    here["reranker"] = tmp_path / "ranks.gguf"
    assert [t.role for t in command._targets(args)] == ["drafter", "reranker", "verifier"]
    args.hop_ranker = "another"
    with pytest.raises(ModelNotFoundError, match="another is not here"):
        command._targets(args)


def test_the_command_as_json(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = told["models"]
    assert row["settings"] == {"n_batch": 256} and row["kept"] and row["left"] == []
    assert row["after"]["decode_tokens_per_s"] > row["before"]["decode_tokens_per_s"]
    assert row["other_type"]["type"] == "Q4_0"


def test_ctrl_c_ends_the_command_with_what_was_finished(
    world: World, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(n: int) -> None:
        if world.loaded[-1].flash_attention != BASE.flash_attention:
            raise KeyboardInterrupt

    world.at_run = interrupt
    assert run() == 130
    told = capsys.readouterr().out
    assert "stopped" in told and "no time left" not in told
    assert tuning_store.settings_for(model) == {"n_batch": 256}


def test_a_terminal_sees_what_is_measured_and_the_time_left(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(command, "_busy", lambda: "busy")
    assert run() == 0
    told = capsys.readouterr().err
    assert "specrag: busy" in told and "drafter: threads" in told and "s left |" in told


def test_reset_forgets(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning_store.keep(entry(model))
    assert run("--reset") == 0 and run("--reset") == 0
    assert capsys.readouterr().out.splitlines() == [
        "the defaults are used again",
        "nothing was kept",
    ]
    assert tuning_store.settings_for(model) == {}


@pytest.mark.parametrize("seconds", ["0", "-3", "1e9", "nan"])
def test_a_time_that_makes_no_sense_is_refused(seconds: str) -> None:
    with pytest.raises(ConfigError, match="--seconds must be between"):
        run("--seconds", seconds)


# --- the doctor ----------------------------------------------------------------------------------


@pytest.fixture
def one_default(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    from specrag_native.model_files import catalog

    status = SimpleNamespace(model=SimpleNamespace(role="drafter"), is_default=True, path=model)
    monkeypatch.setattr(catalog, "list_models", lambda: [status])


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    doctor._print_tuning(doctor._tuning())
    return capsys.readouterr().out


def test_the_doctor_shows_what_is_kept(
    one_default: None, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "not measured on this machine: run specrag tune" in shown(capsys)
    tuning_store.keep(entry(model, left=("lookup",)))
    told = shown(capsys)
    assert "threads 3, n_batch 256 (2026-01-01)" in told and "not tried: lookup" in told


def test_the_doctor_says_why_nothing_is_used(
    one_default: None,
    model: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tuning_store.keep(entry(model, machine=Machine("another", 64, "0.3.36")))
    assert "another machine" in shown(capsys)
    (home / "tuning.json").write_text("{")
    assert "damaged" in shown(capsys)
    monkeypatch.setenv("SPECRAG_NO_TUNING", "1")
    assert "SPECRAG_NO_TUNING is set" in shown(capsys)


def test_the_processor_has_a_name_and_cores() -> None:
    assert hardware.cpu_name() and hardware.usable_cores() >= 1


def test_processors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    lines = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\n\n"
    info.write_text(lines.format(17) + lines.format(1))
    assert hardware.cpu_name(info) == "AMD EPYC (family 25, model 17)"
    info.write_text("model name\t: Some Arm\n")
    assert hardware.cpu_name(info) == "Some Arm"
    assert hardware.cpu_name(tmp_path / "missing")
