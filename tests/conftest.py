"""Fixtures shared by all tests: the default models, if they are on this machine, and a tiny one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from specrag_native.engine import NativeEngine

# Deadlines measure the machine, not the code.
hypothesis.settings.register_profile("specrag", deadline=None)
hypothesis.settings.load_profile("specrag")


def default_model(role: str) -> Path:
    """Path of a default model; skips the test when it was not pulled."""
    from specrag_native.errors import ModelNotFoundError
    from specrag_native.model_files import catalog

    try:
        return catalog.resolve(catalog.default(role), role=role).path  # type: ignore[arg-type]
    except ModelNotFoundError as error:
        pytest.skip(f"the default {role} is not on this machine: {error}")


@pytest.fixture(scope="session")
def drafter_path() -> Path:
    return default_model("drafter")


@pytest.fixture(scope="session")
def verifier_path() -> Path:
    return default_model("verifier")


@pytest.fixture(scope="session")
def embedder_path() -> Path:
    return default_model("embedder")


@pytest.fixture(scope="session")
def drafter(drafter_path: Path) -> NativeEngine:
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions

    return NativeEngine(drafter_path, EngineOptions(n_ctx=2048, n_batch=256, n_seq_max=16))


@pytest.fixture(scope="session")
def embedder(embedder_path: Path) -> Iterator[NativeEngine]:
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions

    yield NativeEngine(embedder_path, EngineOptions(n_ctx=512, n_batch=512, n_seq_max=8))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF of a tiny random model that generates."""
    from tests.tiny_model import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
