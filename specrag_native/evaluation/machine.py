"""What a result was made on: processor, commit and versions, read from the machine.

Law: facts that cannot be read are given as "unknown", never guessed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specrag_native.errors import EngineError
from specrag_native.hardware import cpu_name
from specrag_native.model_files import catalog
from specrag_native.model_files.model_dir import hash_file
from specrag_native.native import load_core


def commit() -> str:
    """Return the commit the package runs from, with ``+`` when its sources were changed since.

    Outside of a checkout it is the package's version.
    """
    here = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../csrc")
    except (OSError, subprocess.SubprocessError):
        return f"v{version()}"
    return head + ("+" if changed else "")


def version() -> str:
    """Return the installed version of this package."""
    try:
        return importlib.metadata.version("specrag-native")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def describe(
    *, threads: int, tuned: Mapping[str, Mapping[str, int | str]] | None = None
) -> dict[str, Any]:
    """Return the facts for the header of a run.

    Args:
        threads: what the engines were given, unless ``tuned`` says otherwise.
        tuned: by role, the settings of ``specrag tune`` that engines were loaded with.
    """
    try:
        library = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        library = "unknown"
    facts = {
        "cpu": cpu_name() + (" with AMX" if uses_amx() else ""),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "version": version(),
        "commit": commit(),
        "llama_cpp_python": library,
    }
    used = {role: dict(settings) for role, settings in (tuned or {}).items() if settings}
    return {**facts, "tuned": used} if used else facts


def uses_amx() -> bool:
    """Return whether the library computes with AMX, which makes another machine of this one."""
    try:
        state: str = load_core().amx_state()
    except EngineError:
        return False
    return state == "on"


@functools.lru_cache(maxsize=16)
def sha256(path: Path) -> str:
    """Return the sha256 of a file, hex; each file is read once in a process."""
    return hash_file(path)


def model_files(
    paths: Mapping[str, Path], *, tuned: Mapping[str, Mapping[str, int | str]] | None = None
) -> dict[str, dict[str, str]]:
    """Return the file name and sha256 of each role's model, as headers of results have them.

    ``tuned`` are the settings of ``specrag tune`` by role: weights that are not in the type of the
    file (``weights``) make another model of it.

    A model that was prepared here as the catalogue says ``stands_for`` the file that the same
    preparation gave where it was measured, if that differs in some last bits: results of both are
    results of one model.
    """
    found = {}
    for role, path in paths.items():
        facts = {"file": path.name, "sha256": sha256(path)}
        measured = catalog.prepared_as(path)
        if measured and measured != facts["sha256"]:
            facts["stands_for"] = measured
        if weights := (tuned or {}).get(role, {}).get("weights"):
            facts["weights"] = str(weights)
        found[role] = facts
    return found


def identity(facts: Mapping[str, str]) -> str:
    """Return what tells the model of :func:`model_files` from others: sha256, type of weights."""
    digest = facts.get("stands_for", facts["sha256"])
    return f"{digest} {facts['weights']}" if "weights" in facts else digest
