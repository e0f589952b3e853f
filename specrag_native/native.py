"""The native extension and the library in this process: loading, errors, facts, conversion.

Law: this is the only module that imports ``_core``; every error of the core leaves as one of
:mod:`specrag_native.errors`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from specrag_native.errors import (
    Cancelled,
    ContextFullError,
    DecodeError,
    EngineError,
    ModelFileError,
)
from specrag_native.hardware import physical_cores
from specrag_native.protocol import CancelFlag

LLAMA_CPP_PYTHON_VERSION = "0.3.36"
"""The release whose headers the extension is compiled against; it must be the one installed."""


SPIN_COUNT = "2000"
"""How long GNU OpenMP threads wait in a loop before they sleep, unless the user says otherwise."""


def _require_exact_library(core: Any) -> None:
    import importlib.metadata

    installed = importlib.metadata.version("llama-cpp-python")
    loaded, built = core.library_version(), core.library_build_version()
    if installed != LLAMA_CPP_PYTHON_VERSION or loaded != built:
        raise EngineError(
            f"specrag-native was built for llama-cpp-python {LLAMA_CPP_PYTHON_VERSION} (library "
            f"{built}) but found {installed} (library {loaded}): run pip install "
            f"llama-cpp-python=={LLAMA_CPP_PYTHON_VERSION}, or build specrag-native again"
        )


@functools.lru_cache(maxsize=1)
def load_core() -> Any:
    """Import the extension once and check that the library beside it is the right one."""
    # Between two operations of a graph, threads wait for each other in a loop for milliseconds by
    # default. When another program has the core, that wait is the time slice of the waiting: a
    # short wait costs nothing on a quiet machine and keeps a busy one several times faster.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        from specrag_native import _core
    except ImportError as error:
        raise EngineError(
            f"the native extension cannot be loaded ({error}): build specrag-native again on this "
            "machine with pip install --force-reinstall --no-deps specrag-native"
        ) from error
    _require_exact_library(_core)
    _core.start_library()
    return _core


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the core's exceptions into this package's."""
    core = load_core()
    try:
        yield
    except core.ContextFullError as error:
        message, n_tokens, n_ctx = error.args
        raise ContextFullError(message, n_tokens=n_tokens, n_ctx=n_ctx) from None
    except core.Cancelled:
        raise Cancelled("cancelled") from None
    except core.DecodeError as error:
        raise DecodeError(str(error)) from None
    except core.ModelError as error:
        raise ModelFileError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Device:
    """Something the library can compute on; ``memory_total`` in bytes."""

    name: str
    description: str
    kind: str
    memory_total: int


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """The library in this process: versions, CPU features, devices and the files it came from.

    ``amx`` is "absent", "off" (compiled into the library, and kept from use) or "on".
    """

    version: str
    build_version: str
    system_info: str
    amx: str
    supports_gpu_offload: bool
    devices: tuple[Device, ...]
    libraries: tuple[str, ...]


def library_facts() -> LibraryFacts:
    """Return what is loaded and from where. Raises ``EngineError`` when nothing can be loaded."""
    core = load_core()
    return LibraryFacts(
        version=core.library_version(),
        build_version=core.library_build_version(),
        system_info=core.system_info(),
        amx=core.amx_state(),
        supports_gpu_offload=core.supports_gpu_offload(),
        devices=tuple(
            Device(d.name, d.description, d.kind, d.memory_total) for d in core.devices()
        ),
        libraries=_loaded_libraries(),
    )


def _loaded_libraries() -> tuple[str, ...]:
    """Return the library's files that are mapped into this process; empty where unknown."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:  # macOS, Windows
        return ()
    files = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if line.count("/")}
    return tuple(sorted(f for f in files if Path(f).name.startswith(("libllama", "libggml"))))


def new_cancel_flag() -> CancelFlag:
    """Return a flag that stops a call of the native engine from any thread."""
    return cast(CancelFlag, load_core().CancelFlag())


def quantise(src: Path, dst: Path, type: str, *, threads: int | None = None) -> None:
    """Write the GGUF at ``src`` to ``dst`` with its weights in another type, such as ``Q8_0``.

    Raises:
        ModelFileError: the source is no usable model, or the type is unknown.
    """
    core = load_core()
    if type not in core.quantisation_types():
        raise ModelFileError(
            f"unknown quantisation type {type!r}: expected one of "
            + ", ".join(core.quantisation_types())
        )
    with translated():
        core.quantise(str(src), str(dst), type, threads=threads or physical_cores())
