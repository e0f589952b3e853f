"""Settings that were found fastest, kept per model file, machine and library.

Law: a setting is used only for the very model file, machine and library it was measured on; a file
that cannot be read is no settings, never an error.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from specrag_native import hardware
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ConfigError, UserError
from specrag_native.model_files import model_dir, weights
from specrag_native.model_files.model_dir import file_digest
from specrag_native.native import LLAMA_CPP_PYTHON_VERSION

FORMAT = 1
"""Version of the file this module reads and writes."""

TUNABLE = ("weights", "lookup", "threads", "n_batch", "flash_attention", "kv_type")
"""Names of the engine settings that are measured, in the order they are: what is likely to gain
comes first, because time may end."""

TunedRole = Literal["drafter", "reranker", "hop_ranker", "verifier"]
TUNED_ROLES: tuple[TunedRole, ...] = ("drafter", "reranker", "hop_ranker", "verifier")
"""Roles of the models that are measured, in this order; not the embedder, as an index holds its
vectors."""

Settings = Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Machine:
    """What speeds depend on besides the model: processor, usable logical cores, library."""

    cpu: str
    cores: int
    llama_cpp_python: str


def this_machine() -> Machine:
    """Return the machine this process runs on."""
    return Machine(hardware.cpu_name(), hardware.usable_cores(), LLAMA_CPP_PYTHON_VERSION)


@dataclass(frozen=True, slots=True)
class Rates:
    """Speeds in tokens per second: of reading a prompt, and of writing."""

    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one model on one machine.

    ``digest`` identifies the file, ``file`` is its name for people. ``settings`` holds only what
    differs from the defaults, ``left`` the names of settings there was no time for. ``date`` is
    the day of the measurement, ISO 8601.
    """

    digest: str
    file: str
    role: str
    machine: Machine
    date: str
    settings: Settings
    before: Rates
    after: Rates
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """The contents of the file; ``problem`` is one line that says why it is not used."""

    entries: tuple[Kept, ...] = ()
    problem: str | None = field(default=None)

    def find(self, digest: str, machine: Machine) -> Kept | None:
        """Return what is kept of a model file on a machine."""
        for entry in self.entries:
            if (entry.digest, entry.machine) == (digest, machine):
                return entry
        return None


def store_path() -> Path:
    """Return where the settings are kept: ``tuning.json`` in this project's folder."""
    return model_dir.home() / "tuning.json"


def is_off() -> bool:
    """Return whether ``SPECRAG_NO_TUNING`` forbids the use of kept settings."""
    return os.environ.get("SPECRAG_NO_TUNING", "").upper() not in ("", "0", "FALSE", "NO", "OFF")


def read() -> Stored:
    """Return what is kept; never raises."""
    path = store_path()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Stored()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        return Stored(problem=f"{path} cannot be read ({why}) and is ignored: run specrag tune")
    version = values.get("format") if isinstance(values, dict) else None
    if version != FORMAT:
        return Stored(
            problem=f"{path} has format {version!r}, expected {FORMAT}, and is ignored: "
            "run specrag tune"
        )
    try:
        return Stored(tuple(_entry(row) for row in values["models"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return Stored(problem=f"{path} is damaged and is ignored: run specrag tune")


def _entry(row: Mapping[str, Any]) -> Kept:
    values = dict(row)
    values["machine"] = Machine(**values["machine"])
    values["before"], values["after"] = Rates(**values["before"]), Rates(**values["after"])
    values["left"] = tuple(values["left"])
    values["settings"] = dict(values["settings"])
    entry = Kept(**values)
    if not all(isinstance(r, int | float) for r in dataclasses.astuple(entry.before)):
        raise ValueError("rates are numbers")
    if not all(isinstance(r, int | float) for r in dataclasses.astuple(entry.after)):
        raise ValueError("rates are numbers")
    return entry


def valid(settings: Settings) -> dict[str, int | str]:
    """Return those settings that this package's engine knows; none when they are out of range."""
    defaults = EngineOptions()
    known = {f.name for f in dataclasses.fields(EngineOptions)}.intersection(TUNABLE)
    kept = {name: value for name, value in settings.items() if name in known}
    if any(type(value) is not type(getattr(defaults, name)) for name, value in kept.items()):
        return {}
    try:
        dataclasses.replace(defaults, **kept)  # type: ignore[arg-type]
    except ConfigError:
        return {}
    return kept


def settings_for(path: Path) -> dict[str, int | str]:
    """Return the settings to load a model file with, over the defaults; never raises."""
    if is_off():
        return {}
    stored = read()
    if not stored.entries:
        return {}
    try:
        found = stored.find(file_digest(path), this_machine())
    except OSError:  # the engine says what is wrong with the file
        return {}
    return valid(found.settings) if found is not None else {}


def keep(entry: Kept) -> None:
    """Put what was found of one model in the place of what was kept of it on this machine.

    Entries of other machines stay; those of another release of the library go. Raises UserError
    when the folder cannot be written to.
    """
    path = store_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        others = [e for e in read().entries if not _replaces(entry, e)]
        _write(path, [*others, entry])
    except OSError as error:
        raise UserError(_unwritable(path, error)) from error


def _replaces(new: Kept, old: Kept) -> bool:
    return (new.digest, new.machine.cpu, new.machine.cores) == (
        old.digest,
        old.machine.cpu,
        old.machine.cores,
    )


def _write(path: Path, entries: list[Kept]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    rows = [dataclasses.asdict(entry) for entry in entries]
    try:
        partial.write_text(
            json.dumps({"format": FORMAT, "models": rows}, indent=1) + "\n", encoding="utf-8"
        )
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_writable() -> None:
    """Raise UserError when nothing could be kept, before time is spent on measuring."""
    path = store_path()
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise UserError(_unwritable(path, error)) from error


def forget() -> bool:
    """Remove everything that is kept, rewritten weights too; return whether there was anything."""
    path = store_path()
    weights.forget()
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(_unwritable(path, error)) from error
    return True


def _unwritable(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror}; set SPECRAG_HOME to a folder you may write to"
