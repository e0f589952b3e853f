"""Where model files live on this machine, and which of them have been checked.

Law: a record is written only after a file's every byte was hashed; a file that still has its
record's size and time of change is that file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from specrag_native.errors import Cancelled, UserError

_CHUNK = 4 << 20  # bytes read at once
_TRUE = ("1", "TRUE", "YES", "ON")


def home() -> Path:
    """Return this project's folder: ``$SPECRAG_HOME``, or the platform's cache folder."""
    if chosen := os.environ.get("SPECRAG_HOME"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("specrag", appauthor=False)


def models_dir() -> Path:
    """Return the folder that holds fetched and prepared models."""
    return home() / "models"


def offline_variable() -> str | None:
    """Return the environment variable that forbids every network request, or None."""
    for variable in ("SPECRAG_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").upper() in _TRUE:
            return variable
    return None


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a model's file.

    ``recipe`` states the sources' sha256 and the preparation the file was made by, ``origin``
    where it came from (``"hub cache"``, ``"hub"``, ``"package"``). ``size`` is in bytes.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    recipe: str
    origin: str

    @property
    def is_fresh(self) -> bool:
        """True when the file has not changed since it was checked."""
        try:
            stat = Path(self.path).stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


def read_record(name: str) -> Record | None:
    """Return the record of model ``name``; None when there is none that can be read."""
    try:
        values = json.loads(_record_path(name).read_text(encoding="utf-8"))
        values["path"] = str(models_dir() / values["path"])
        return Record(**{field: values[field] for field in Record.__slots__})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(name: str, path: Path, *, sha256: str, recipe: str, origin: str) -> Record:
    """Record that ``path`` is model ``name`` and had ``sha256`` just now."""
    stat = path.stat()
    record = Record(str(path), stat.st_size, stat.st_mtime_ns, sha256, recipe, origin)
    target = _record_path(name)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        values = asdict(record)
        if path.parent == models_dir():  # so that the folder can be moved
            values["path"] = path.name
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return record


def _record_path(name: str) -> Path:
    return models_dir() / f"{name}.json"


def file_digest(path: Path) -> str:
    """Return an identity of a model file that is quick to have, hex.

    It is the sha256 of its size and of its first and last mebibyte.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read(1 << 20))
    return digest.hexdigest()


def hash_file(
    path: Path,
    *,
    on_bytes: Callable[[int], None] | None = None,
    cancel: threading.Event | None = None,
) -> str:
    """Return the sha256 of ``path``; ``on_bytes`` is told how many bytes have been read."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if cancel is not None and cancel.is_set():
                raise Cancelled(f"stopped while checking {path}")
            digest.update(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a finished file to the disk, so that a rename after it never exposes empty blocks."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def human(n_bytes: int) -> str:
    """Return a size for people: ``1.12 GB``, ``98 MB``, ``612 bytes``."""
    for unit, size, digits in (("GB", 10**9, 2), ("MB", 10**6, 0), ("kB", 10**3, 0)):
        if n_bytes >= size:
            return f"{n_bytes / size:.{digits}f} {unit}"
    return f"{n_bytes} bytes"


def check_space(folder: Path, needed: int, what: str, *, variable: str = "SPECRAG_HOME") -> None:
    """Raise UserError when the disk of ``folder`` has less than ``needed`` bytes left.

    ``variable`` is the environment variable that places the folder.
    """
    import shutil

    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"not enough disk space for {what}: {folder} needs {human(needed)} ({needed} bytes), "
            f"{human(free)} are free; make room, or set {variable} to a folder on another disk"
        )


@contextmanager
def disk_errors(
    folder: Path, needed: int, what: str, *, variable: str = "SPECRAG_HOME"
) -> Iterator[None]:
    """Turn a full or unwritable disk under ``folder`` into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        _raise_disk_error(error, folder, needed, what, variable)


def _raise_disk_error(
    error: OSError, folder: Path, needed: int, what: str, variable: str
) -> NoReturn:
    """Raise the UserError that stands for ``error``, or ``error`` itself if no system gave it."""
    full = [errno.ENOSPC, errno.EFBIG]
    with suppress(AttributeError):  # not on every platform
        full.append(errno.EDQUOT)
    if error.errno in full:
        raise UserError(
            f"the disk is full while writing {what} in {folder}: {human(needed)} ({needed} bytes) "
            f"are needed; make room, or set {variable} to a folder on another disk, and pull "
            "again: what was fetched so far is kept"
        ) from error
    if error.errno is None:  # not from the system: a bug of ours, or another library's
        raise error
    raise UserError(
        f"cannot write {what} in {folder}: {error.strerror}; set {variable} to a folder you may "
        "write to"
    ) from error


@contextmanager
def locked(name: str, *, cancel: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock of model ``name`` against other processes and threads; wait for it."""
    import logging

    from filelock import FileLock, Timeout

    folder = models_dir() / ".locks"
    with disk_errors(folder, 0, f"the lock of {name}"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        waited = False
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except Timeout:
                if cancel is not None and cancel.is_set():
                    raise Cancelled(f"stopped while waiting for another pull of {name}") from None
                if not waited:
                    logging.getLogger(__name__).info("waiting for another pull of %s", name)
                    waited = True
    try:
        yield
    finally:
        lock.release()
