"""The native engine against what a user of llama-cpp-python alone would write, in one run.

Rivals get the same GGUF, the same threads and the same prompts. Every case reports the median of
its rounds; ``extra_info`` keeps tokens, the raw rate of the library for the same batch shape, and
what share of the time is ours.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rivals import shared as rivals

from specrag_native import prompts
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ModelNotFoundError
from specrag_native.hardware import physical_cores
from specrag_native.model_files import catalog
from specrag_native.protocol import GenerateOptions, Prompt, Segment, Stage
from specrag_native.types import Passage, Question

THREADS = physical_cores()
ROUNDS = 3
N_TOKENS = 40

# Written for this benchmark: ten passages of some 100 words about a town that does not exist.
SENTENCES = (
    "The town of Arnholt lies where the river Sill leaves the hills.",
    "Its market was first held in the year 1212 and has been held on Thursdays ever since.",
    "The engineer Clara Wendel built the iron bridge in 1874, and it carries carts and cars alike.",
    "A flood took the lower mill, the tannery and eleven houses in the spring of the year 1903.",
    "The school has ninety pupils, a garden that won a prize, and a bell older than the church.",
    "Every September the bakers of six villages meet to compare their bread, and seldom agree.",
    "The quarry closed when its marble ran out, and lakes now fill the three largest pits.",
    "Trains stop four times a day, twice on Sundays, and never when the points are frozen.",
)
PASSAGES = [
    Passage(
        id=f"p{i}",
        document="arnholt.txt",
        title=f"Arnholt, part {i + 1}",
        text=" ".join(SENTENCES[(i + j) % 8] for j in range(6)),
    )
    for i in range(10)
]
QUESTION = Question("Who built the iron bridge of Arnholt, and in which year?")
DRAFTS = [
    (
        f"Clara Wendel, in {1870 + i}",
        "The iron bridge of Arnholt was built by the engineer Clara Wendel in the year "
        f"{1870 + i}, and it carries carts and cars alike to this day; the market, the school and "
        "the mill are older, as the history of the town tells in its first part, which names "
        "the builder.",
    )
    for i in range(5)
]


def model(role: Any) -> Path:
    try:
        return catalog.path_for(role)
    except ModelNotFoundError as error:
        pytest.skip(str(error))


def measure(benchmark: Any, work: Callable[[], Any], **facts: Any) -> Any:
    """Median of ROUNDS rounds after one warm-up; returns what the last round returned."""
    benchmark.extra_info.update(threads=THREADS, **facts)
    return benchmark.pedantic(work, rounds=ROUNDS, warmup_rounds=1)


def raw_rate(path: Path, n_tokens: int, n_outputs: int) -> float:
    """Tokens per second of the library's decode call alone for one batch of a shape."""
    llama_cpp = rivals.llama_cpp()
    model_ = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 4096, 512, 512
    params.n_threads = params.n_threads_batch = THREADS
    context = llama_cpp.llama_init_from_model(model_, params)
    batch = llama_cpp.llama_batch_init(512, 0, 1)
    memory = llama_cpp.llama_get_memory(context)
    best = float("inf")
    for _ in range(ROUNDS):
        llama_cpp.llama_memory_clear(memory, False)
        seconds = 0.0
        done = 0
        while done < n_tokens:
            n = min(512, n_tokens - done)
            batch.n_tokens = n
            for i in range(n):
                at = done + i
                batch.token[i] = 1000 + at
                batch.pos[i] = at
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = at >= n_tokens - n_outputs
            begin = time.perf_counter()
            assert llama_cpp.llama_decode(context, batch) == 0
            seconds += time.perf_counter() - begin
            done += n
        best = min(best, seconds)
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model_)
    return n_tokens / best


# --- drafting ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drafter() -> NativeEngine:
    return NativeEngine(model("drafter"), EngineOptions(n_ctx=8192, threads=THREADS))


@pytest.fixture(scope="module")
def drafter_rival() -> Iterator[Any]:
    rival = rivals.llama_cpp().Llama(
        str(model("drafter")), n_ctx=4096, n_threads=THREADS, n_threads_batch=THREADS, verbose=False
    )
    yield rival
    rival.close()


def drafting_prompts(engine: NativeEngine) -> list[Prompt]:
    """Five prompts that share a task and, in pairs, passages; as the pipeline lays them out."""
    return [
        prompts.drafter_prompt(engine, QUESTION, [PASSAGES[0], PASSAGES[i + 1]]) for i in range(5)
    ]


def test_drafting_five_prompts(benchmark: Any, drafter: NativeEngine) -> None:
    benchmark.group = "drafting 5 prompts that share a prefix"
    options = GenerateOptions((Stage(max_tokens=N_TOKENS),))
    asked = drafting_prompts(drafter)

    def work() -> Any:
        drafter.score([(Segment(f"{time.time_ns()}"), Segment(" x", scored=True))])  # cold
        return drafter.generate(asked, options)

    batch = measure(benchmark, work, rival=False)
    usage = batch.usage
    rate = raw_rate(model("drafter"), usage.prefilled, 5)
    benchmark.extra_info.update(
        prefilled=usage.prefilled,
        reused=usage.reused,
        decoded=usage.decoded,
        prefill_tokens_per_s=usage.prefilled / usage.prefill_s,
        decode_tokens_per_s=usage.decoded / usage.decode_s,
        raw_prefill_tokens_per_s=rate,
        prefill_efficiency=usage.prefilled / rate / usage.prefill_s,
        share_outside_decode=1 - (usage.prefill_s + usage.decode_s) / usage.total_s,
    )


def test_drafting_one_by_one_with_llama_cpp_python(
    benchmark: Any, drafter: NativeEngine, drafter_rival: Any
) -> None:
    benchmark.group = "drafting 5 prompts that share a prefix"
    texts = ["".join(s.text for s in p) for p in drafting_prompts(drafter)]

    def work() -> None:
        drafter_rival.reset()
        for text in texts:
            tokens = drafter_rival.tokenize(text.encode(), add_bos=False, special=True)
            drafter_rival.create_completion(tokens, max_tokens=N_TOKENS, temperature=0.0, stop=[])

    measure(benchmark, work, rival=True)


# --- verification --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verifier() -> NativeEngine:
    return NativeEngine(model("verifier"), EngineOptions(n_ctx=4096, threads=THREADS))


@pytest.fixture(scope="module")
def verifier_rival() -> Iterator[Any]:
    rival = rivals.llama_cpp().Llama(
        str(model("verifier")),
        n_ctx=512,
        n_threads=THREADS,
        n_threads_batch=THREADS,
        logits_all=True,
        verbose=False,
    )
    yield rival
    rival.close()


def test_scoring_five_drafts(benchmark: Any, verifier: NativeEngine) -> None:
    benchmark.group = "scoring 5 drafts of about 70 tokens"
    pairs = [p for a, r in DRAFTS for p in prompts.verifier_prompts(verifier, QUESTION, a, r)]

    def work() -> Any:
        verifier.score([(Segment(f"{time.time_ns()}"), Segment(" x", scored=True))])  # cold
        return verifier.score(pairs)

    batch = measure(benchmark, work, rival=False)
    usage = batch.usage
    n_scored = sum(len(s.tokens) for score in batch for s in score.segments)
    rate = raw_rate(model("verifier"), usage.prefilled, min(n_scored, usage.prefilled))
    benchmark.extra_info.update(
        prefilled=usage.prefilled,
        reused=usage.reused,
        scored=n_scored,
        prefill_tokens_per_s=usage.prefilled / usage.prefill_s,
        raw_prefill_tokens_per_s=rate,
        prefill_efficiency=usage.prefilled / rate / usage.prefill_s,
        share_outside_decode=1 - usage.prefill_s / usage.total_s,
    )


def test_scoring_with_logits_all_in_llama_cpp_python(
    benchmark: Any, verifier: NativeEngine, verifier_rival: Any
) -> None:
    benchmark.group = "scoring 5 drafts of about 70 tokens"
    texts = [
        "".join(s.text for s in prompts.verifier_prompts(verifier, QUESTION, answer, rationale)[0])
        for answer, rationale in DRAFTS
    ]

    def work() -> None:
        for text in texts:
            verifier_rival.reset()
            verifier_rival.create_completion(
                text, max_tokens=1, echo=True, logprobs=1, temperature=0.0
            )

    benchmark.extra_info.update(threads=THREADS, rival=True)
    benchmark.pedantic(work, rounds=1)  # every round takes minutes


# --- start-up ------------------------------------------------------------------------------------


def test_importing_the_package(benchmark: Any) -> None:
    benchmark.group = "import specrag_native"
    bare = [sys.executable, "-c", "pass"]

    def seconds(command: list[str]) -> float:
        begin = time.perf_counter()
        subprocess.run(command, check=True)
        return time.perf_counter() - begin

    interpreter = min(seconds(bare) for _ in range(5))
    measure(
        benchmark,
        lambda: subprocess.run([sys.executable, "-c", "import specrag_native"], check=True),
        interpreter_s=interpreter,
    )


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_peak_memory_of_ask(benchmark: Any, tmp_path: Path) -> None:
    """Peak resident memory of a whole ``ask`` against the model files and the KV caches."""
    benchmark.group = "peak memory of ask"
    note = tmp_path / "arnholt.jsonl"
    import json

    note.write_text(
        "".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in PASSAGES)
    )
    from specrag_native.cli.main import main
    from specrag_native.engines import DEFAULT_OPTIONS

    index = tmp_path / "index"
    assert main(["index", str(note), "--index", str(index)]) == 0
    code = (
        "import re, sys; from specrag_native.cli.main import main; "
        f"code = main(['ask', {QUESTION.text!r}, '--index', {str(index)!r}, '--json']); "
        # Not ru_maxrss: that one remembers the process that started this one.
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], "
        "file=sys.stderr); sys.exit(code)"
    )

    def work() -> int:
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        return int(done.stderr.split()[-1]) * 1024

    benchmark.extra_info.update(threads=THREADS)
    peak = benchmark.pedantic(work, rounds=1)
    paths = [model(role) for role in ("drafter", "verifier", "embedder")]
    files = sum(p.stat().st_size for p in paths)
    kv = sum(
        NativeEngine(p, EngineOptions(n_ctx=DEFAULT_OPTIONS[role].n_ctx)).facts.kv_bytes  # type: ignore[index]
        for role, p in zip(("drafter", "verifier"), paths, strict=False)
    )
    benchmark.extra_info.update(
        peak_bytes=peak, model_file_bytes=files, kv_bytes=kv, beyond_bytes=peak - files - kv
    )


@pytest.fixture(autouse=True)
def one_line_of_context(benchmark: Any) -> None:
    """Stamp every result."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    benchmark.extra_info.update(
        commit=commit,
        cpu_count=os.cpu_count(),
        spin=os.environ.get("GOMP_SPINCOUNT", "package default"),
        pointer_bits=ctypes.sizeof(ctypes.c_void_p) * 8,
    )
