"""Kernels for AMX that the library was compiled with are kept from use, as they would crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from specrag_native.native import library_facts
from tests.tiny_model import write_tiny

GENERATE = """
import sys
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.native import load_core
from specrag_native.protocol import GenerateOptions, Segment, Stage

load_core().quantise(sys.argv[1], sys.argv[2], "Q8_0")
engine = NativeEngine(sys.argv[2], EngineOptions(n_ctx=256, n_batch=64, n_seq_max=2))
prompt = (Segment("the lighthouse " * 4),)
generated = engine.generate([prompt], GenerateOptions((Stage(4, 4),)))
print(load_core().amx_state(), len(generated[0].completions[0].tokens))
"""
ASK_THE_SYSTEM_FIRST = """
import ctypes
assert ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0  # arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA
"""


def generate(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    source = write_tiny(folder / "tiny.gguf")
    environment = {name: value for name, value in os.environ.items() if name != "SPECRAG_AMX"}
    return subprocess.run(
        [sys.executable, "-c", code, str(source), str(folder / "tiny-q8_0.gguf")],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_it_is_kept_from_use_without_a_word(tmp_path: Path) -> None:
    run = generate(tmp_path, GENERATE)
    assert run.returncode == 0, run.stderr
    state, n_tokens = run.stdout.split()
    assert state in ("absent", "off")
    assert int(n_tokens) == 4
    assert run.stderr == ""


def test_it_is_kept_from_use_where_another_library_was_granted_it(tmp_path: Path) -> None:
    if library_facts().amx == "absent":
        pytest.skip("the library has no kernels for AMX here")
    run = generate(tmp_path, ASK_THE_SYSTEM_FIRST + GENERATE)
    assert run.returncode == 0, run.stderr
    state, n_tokens = run.stdout.split()
    assert state == "off"
    assert int(n_tokens) == 4
