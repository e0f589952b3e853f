"""Standalone segments: computed once, kept for later calls, and the same whoever computed them."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ConfigError, ContextFullError, ModelFileError
from specrag_native.protocol import GenerateOptions, Prompt, Segment, Stage
from tests.tiny_model import write_tiny

HEAD = "Some lines about a town. "
PASSAGES = tuple(
    f"Line {i}: " + " ".join(random.Random(i).choices(["mill", "river", "old", "bank"], k=4 + i))
    for i in range(6)
)
MB = 1 << 20


def engine(path: Path, **changes: object) -> NativeEngine:
    options = {"n_ctx": 2048, "n_batch": 64, "n_seq_max": 16, "threads": 1, **changes}
    return NativeEngine(path, EngineOptions(**options))  # type: ignore[arg-type]


def prompt(chosen: Sequence[int], ask: str, *, standalone: bool = True) -> Prompt:
    evidence = (Segment(PASSAGES[i], standalone=standalone) for i in chosen)
    return (Segment(HEAD), *evidence, Segment(ask))


SUBSETS = ((0, 1), (0, 2), (1, 3), (2, 4, 5), (5, 0))
PROMPTS = [prompt(chosen, f" So, {number}: ") for number, chosen in enumerate(SUBSETS)]


def written(model: NativeEngine, prompts: Sequence[Prompt], n: int = 12) -> list[tuple[float, ...]]:
    batch = model.generate(prompts, GenerateOptions((Stage(max_tokens=n),)))
    return [g.logprobs for g in batch]


def assert_close(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> None:
    for one, other in zip(a, b, strict=True):
        assert list(one) == pytest.approx(list(other), abs=0.02)


def test_one_standalone_passage_is_read_as_any_text(tiny: Path) -> None:
    model = engine(tiny)
    alone = written(model, [prompt((3,), " So: ")])
    assert_close(alone, written(model, [prompt((3,), " So: ", standalone=False)]))


def test_passages_do_not_see_each_other(tiny: Path) -> None:
    model = engine(tiny)
    assert_close(
        written(model, [prompt((0, 4), " So: ")]), written(model, [prompt((4, 0), " So: ")])
    )
    exact = [
        written(model, [prompt(order, " So: ", standalone=False)]) for order in ((0, 4), (4, 0))
    ]
    assert exact[0][0] != pytest.approx(exact[1][0], abs=0.02)


def test_together_is_as_one_by_one(tiny: Path) -> None:
    model = engine(tiny)
    assert_close(written(model, PROMPTS), [written(engine(tiny), [p])[0] for p in PROMPTS])


def test_no_token_is_computed_twice(tiny: Path) -> None:
    model = engine(tiny)

    def n(text: str) -> int:
        return len(model.tokenize((Segment(text),)))

    asks = [p[-1].text for p in PROMPTS]
    one_by_one = sum(n(segment.text) for p in PROMPTS for segment in p)
    distinct = n(HEAD) + sum(map(n, PASSAGES)) + sum(map(n, asks))
    usage = model.generate(PROMPTS, GenerateOptions((Stage(max_tokens=1),))).usage
    assert usage.prefilled == distinct
    assert usage.prefilled + usage.reused == one_by_one


def test_a_kept_passage_is_not_computed_again(tiny: Path) -> None:
    model = engine(tiny, passage_cache_bytes=64 * MB)
    first = written(model, PROMPTS)
    assert_close(first, written(engine(tiny), PROMPTS))
    other = [prompt(chosen, f" And now {number}? ") for number, chosen in enumerate(SUBSETS)]
    batch = model.generate(other, GenerateOptions((Stage(max_tokens=12),)))
    assert_close([g.logprobs for g in batch], written(engine(tiny), other))
    # The head stays in the context, the passages come from the cache.
    asks = sum(len(model.tokenize((p[-1],))) for p in other)
    assert batch.usage.prefilled == asks
    facts = model.passage_cache
    assert (facts.hits, facts.misses) == (6, 6)
    assert facts.restored == sum(len(model.tokenize((Segment(p),))) for p in PASSAGES)


def test_another_head_is_another_passage(tiny: Path) -> None:
    model = engine(tiny, passage_cache_bytes=64 * MB)
    written(model, PROMPTS)
    other = [(Segment("Quite another beginning. "), *p[1:]) for p in PROMPTS]
    assert_close(written(model, other), written(engine(tiny), other))
    assert model.passage_cache.hits == 0


def test_mixed_prompts_in_one_call(tiny: Path) -> None:
    mixed = [
        *PROMPTS,
        prompt((1, 2), " So: ", standalone=False),
        (Segment("No evidence at all. "),),
        (Segment("Another head. "), *PROMPTS[0][1:]),
        (*prompt((1,), ""), Segment("")),
    ][:-1]
    model = engine(tiny, passage_cache_bytes=64 * MB)
    expected = [written(engine(tiny), [p])[0] for p in mixed]
    assert_close(written(model, mixed), expected)
    assert_close(written(model, mixed), expected)


@pytest.mark.parametrize("changes", [{"n_seq_max": 3}, {"n_seq_max": 5}, {"n_ctx": 320}])
def test_little_room_takes_more_passes_and_changes_nothing(
    tiny: Path, changes: dict[str, int]
) -> None:
    for cache in (0, 64 * MB):
        small = engine(tiny, passage_cache_bytes=cache, **changes)
        for _ in range(2):
            assert_close(written(small, PROMPTS), written(engine(tiny), PROMPTS))


def test_scoring_reads_standalone_passages_too(tiny: Path) -> None:
    model = engine(tiny, passage_cache_bytes=64 * MB)
    scored = [(*p, Segment("yes", scored=True)) for p in PROMPTS]
    first = [s.segments[0].logprobs for s in model.score(scored)]
    alone = [engine(tiny).score([p])[0].segments[0].logprobs for p in scored]
    assert_close(first, alone)
    assert_close([s.segments[0].logprobs for s in model.score(scored)], alone)
    assert model.passage_cache.hits == 6


def test_a_prompt_without_scored_segments_fills_the_cache(tiny: Path) -> None:
    model = engine(tiny, passage_cache_bytes=64 * MB)
    usage = model.score([prompt((i,), "") for i in range(6)]).usage
    assert usage.prefilled > 0
    assert model.passage_cache.misses == 6
    usage = model.generate(PROMPTS, GenerateOptions((Stage(max_tokens=1),))).usage
    assert model.passage_cache.hits == 6


def test_the_budget_of_the_cache_is_kept(tiny: Path) -> None:
    one = engine(tiny, passage_cache_bytes=64 * MB)
    written(one, PROMPTS)
    budget = one.passage_cache.host_bytes // 2
    model = engine(tiny, passage_cache_bytes=budget)
    for _ in range(3):
        assert_close(written(model, PROMPTS), written(engine(tiny), PROMPTS))
        assert 0 < model.passage_cache.host_bytes <= budget


def test_files_serve_a_later_engine(tiny: Path, tmp_path: Path) -> None:
    folder = {"passage_cache_folder": str(tmp_path), "passage_cache_folder_bytes": 64 * MB}
    first = written(engine(tiny, **folder), PROMPTS)
    later = engine(tiny, **folder)
    assert_close(written(later, PROMPTS), first)
    facts = later.passage_cache
    assert (facts.disk_hits, facts.misses, facts.disk_errors) == (6, 0, 0)


def test_files_of_another_model_are_not_used(tiny: Path, tmp_path: Path) -> None:
    folder = {"passage_cache_folder": str(tmp_path), "passage_cache_folder_bytes": 64 * MB}
    written(engine(tiny, **folder), PROMPTS)
    other = write_tiny(tmp_path / "other.gguf", seed=1)
    changed = engine(other, **folder)
    assert_close(written(changed, PROMPTS), written(engine(other), PROMPTS))
    assert changed.passage_cache.disk_hits == 0
    unlike = engine(tiny, flash_attention="off", **folder)  # keeps values in another order
    assert_close(written(unlike, PROMPTS), written(engine(tiny), PROMPTS))
    assert unlike.passage_cache.disk_hits == 0


@pytest.mark.model
def test_eight_bit_cells_take_half_the_memory(drafter_path: Path) -> None:
    sizes = {}
    for kv_type in ("f16", "q8_0"):
        model = engine(
            drafter_path, kv_type=kv_type, flash_attention="on", passage_cache_bytes=64 * MB
        )
        first = written(model, PROMPTS)
        for one, again in zip(first, written(model, PROMPTS), strict=True):
            assert list(one) == pytest.approx(list(again), abs=0.3)
        sizes[kv_type] = model.passage_cache.host_bytes
        assert model.passage_cache.hits == 6
    assert sizes["q8_0"] < 0.55 * sizes["f16"]


WORK = """
import sys
from pathlib import Path
from tests.test_standalone import MB, PROMPTS, engine, written
folder, tiny, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if limit:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
model = engine(tiny, passage_cache_folder=str(folder), passage_cache_folder_bytes=64 * MB)
print("ready", flush=True)
while True:
    text = written(model, PROMPTS)
    if limit:
        print(model.passage_cache.disk_errors, text, flush=True)
        break
    for file in folder.glob("*.kv"):
        file.unlink(missing_ok=True)
"""


def start(folder: Path, tiny: Path, limit: int = 0) -> subprocess.Popen[str]:
    root = Path(__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(folder), str(tiny), str(limit)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process_leaves_no_wrong_passage(tiny: Path, tmp_path: Path) -> None:
    expected = written(engine(tiny), PROMPTS)
    for round_ in range(6):
        process = start(tmp_path, tiny)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.Random(round_).uniform(0.02, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        later = engine(tiny, passage_cache_folder=str(tmp_path), passage_cache_folder_bytes=64 * MB)
        assert_close(written(later, PROMPTS), expected)
        assert later.passage_cache.disk_errors == 0  # unfinished files have another name


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_full_disk_costs_the_file_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    process = start(tmp_path, tiny, limit=5000)
    out, _ = process.communicate(timeout=60)
    _, line = out.splitlines()
    errors, text = line.split(" ", 1)
    assert int(errors) > 0
    assert_close(eval(text), written(engine(tiny), PROMPTS))
    assert not list(tmp_path.glob("*.part"))


def test_what_cannot_be_computed_is_refused(tiny: Path) -> None:
    model = engine(tiny)
    with pytest.raises(ModelFileError, match="must stand together"):
        model.generate([(*prompt((0,), " and "), *prompt((1,), " so "))])
    with pytest.raises(ModelFileError, match="ends in a standalone"):
        model.generate([prompt((0,), "")])
    with pytest.raises(ModelFileError, match="cannot be scored"):
        model.score([(Segment("a"), Segment("b", standalone=True, scored=True))])
    with pytest.raises(ModelFileError, match="follow a standalone one at once"):
        model.score([(*prompt((0,), ""), Segment("b", scored=True))])
    with pytest.raises(ModelFileError, match="n_seq_max of at least 3"):
        engine(tiny, n_seq_max=2).generate(PROMPTS)
    with pytest.raises(ContextFullError):
        engine(tiny, n_ctx=256).generate(
            [
                (
                    Segment("x"),
                    *[Segment("y" * 100 + str(i), standalone=True) for i in range(3)],
                    Segment("z"),
                )
            ]
        )


@pytest.mark.parametrize("guesses", [1, 3, 8])
def test_lookup_writes_what_greedy_writes(tiny: Path, guesses: int) -> None:
    stages = GenerateOptions(
        (
            Stage(max_tokens=20, min_tokens=2, stop=("q", "\n"), then=(Segment(" then: "),)),
            Stage(max_tokens=16),
        )
    )
    copied = [
        (Segment(f"{i} abcabcabd{PASSAGES[i % 6]} {PASSAGES[i % 6][:12]}"),) for i in range(60)
    ]
    batch = engine(tiny).generate(copied, stages)
    guessed = engine(tiny, lookup=guesses).generate(copied, stages)
    assert guessed.usage.proposed > guessed.usage.accepted > 0
    assert batch.usage.proposed == 0
    ties = 0
    for a, b in zip(batch, guessed, strict=True):
        same = next(
            (i for i, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=False)) if x != y),
            len(a.tokens),
        )
        # Where they part, the best two are as likely as each other but for the library's noise.
        n = min(same + 1, len(a.tokens), len(b.tokens))
        assert list(a.logprobs[:n]) == pytest.approx(list(b.logprobs[:n]), abs=0.02)
        ties += a.tokens != b.tokens
    assert ties <= 6


def test_what_a_prompt_goes_on_from_is_not_computed_again_behind_a_passage(tiny: Path) -> None:
    def ask(more: str, *, standalone: bool = True) -> Prompt:
        return (Segment(HEAD), Segment(PASSAGES[4], standalone=standalone), Segment(more))

    model, n = engine(tiny), 4
    first = model.generate([ask(" And so,")], GenerateOptions((Stage(max_tokens=n),)))
    on = ask(" And so, " + PASSAGES[2])
    second = model.generate([on], GenerateOptions((Stage(max_tokens=n),)))
    assert second.usage.reused >= first.usage.prefilled - 2
    assert second.usage.prefilled + second.usage.reused == len(model.tokenize(on))
    fresh = written(engine(tiny), [ask(" And so, " + PASSAGES[2], standalone=False)], n)
    assert_close([second[0].logprobs], fresh)
    # Another passage there, or none, and nothing behind it is taken for known.
    other = (Segment(HEAD), Segment(PASSAGES[3], standalone=True), Segment(" And so,"))
    assert_close(written(model, [other], n), written(engine(tiny), [other], n))
    assert_close(written(model, [ask(" And so,")], n), [first[0].logprobs])
    both = [ask(" And so,"), ask(" But then,")]
    assert_close(written(model, both, n), written(engine(tiny), both, n))
    again = model.generate(both, GenerateOptions((Stage(max_tokens=n),)))
    tails = sum(len(model.tokenize((p[-1],))) for p in both)
    assert again.usage.prefilled <= tails < len(model.tokenize((Segment(PASSAGES[4]),)))


def test_a_last_text_ends_the_generation(tiny: Path) -> None:
    stage = Stage(max_tokens=4, then=(Segment(" then: "),))
    ask: list[Prompt] = [(Segment("To begin with"),)]
    whole = engine(tiny).generate(ask, GenerateOptions((stage, Stage(max_tokens=4))))
    said = whole[0].completions[0].text
    assert len(whole[0].completions) == 2
    ended = Stage(max_tokens=4, then=(Segment(" then: "),), last=(said.strip(" \t\r\n."),))
    cut = engine(tiny).generate(ask, GenerateOptions((ended, Stage(max_tokens=4))))
    assert len(cut[0].completions) == 1
    assert cut[0].completions[0].text == said


def test_other_beginnings_are_watched(tiny: Path) -> None:
    model = engine(tiny)
    stages = (
        Stage(max_tokens=3, then=(Segment(" then: "),), watch=("xyz", "q")),
        Stage(max_tokens=2, watch=("w",)),
    )
    for generation, asked in zip(
        model.generate(PROMPTS, GenerateOptions(stages)), PROMPTS, strict=True
    ):
        first, second = generation.completions
        expected = [
            model.score([(*asked, Segment(text, scored=True))])[0].segments[0].logprobs[0]
            for text in ("xyz", "q")
        ]
        assert list(first.watched) == pytest.approx(expected, abs=0.02)
        assert len(second.watched) == 1
        assert first.watched[0] <= first.logprobs[0] + 1e-6


@pytest.mark.parametrize("text", ["q", "e"])
def test_a_watched_beginning_is_taken_from_a_probability_on(tiny: Path, text: str) -> None:
    model = engine(tiny)
    ask = PROMPTS[:1]
    (begin,) = model.tokenize((Segment(text),))[-1:]

    def first(watch_from: float) -> tuple[int, float, float]:
        stage = Stage(max_tokens=2, watch=(text,), watch_from=watch_from)
        (completion,) = model.generate(ask, GenerateOptions((stage,)))[0].completions
        return completion.tokens[0], completion.logprobs[0], completion.watched[0]

    likeliest, logprob, watched = first(0.0)
    assert watched <= logprob
    assert first(0.9 * math.exp(watched)) == (begin, pytest.approx(watched), pytest.approx(watched))
    other, its_logprob, _ = first(1.1 * math.exp(watched))
    assert other != begin and its_logprob <= logprob + 1e-6
    assert other == likeliest or likeliest == begin


def test_weights_are_shared_between_engines_of_a_file(tiny: Path, tmp_path: Path) -> None:
    first = engine(tiny)
    second = NativeEngine(tiny, EngineOptions(n_ctx=512, n_batch=32, threads=1), weights_of=first)
    expected = written(first, PROMPTS[:2])
    assert_close(written(second, PROMPTS[:2]), expected)
    del first
    assert_close(written(second, PROMPTS[:2]), expected)
    with pytest.raises(ConfigError, match="loaded otherwise"):
        NativeEngine(write_tiny(tmp_path / "b.gguf"), EngineOptions(), weights_of=second)
