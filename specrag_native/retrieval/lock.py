"""One writer at a time.

Law: the lock is held by the operating system for the writing process, so a killed writer never
leaves it behind; the note beside it only says who writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from specrag_native.errors import IndexStoreError

_LOCK = "writer.lock"
_NOTE = "writer.json"


@contextlib.contextmanager
def writer_lock(directory: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the index for writing; wait at most ``wait_s`` seconds for another writer."""
    from filelock import FileLock, Timeout

    lock = FileLock(directory / _LOCK, timeout=max(0.0, wait_s), thread_local=False)
    try:
        lock.acquire(poll_interval=0.05)
    except Timeout:
        raise IndexStoreError(
            f"the index {directory} is being written by {_who(directory)}: "
            "wait for it, or let this command wait with --wait SECONDS"
        ) from None
    except OSError as error:
        raise IndexStoreError(
            f"the index {directory} cannot be written ({error.strerror or error}): "
            "check its permissions"
        ) from error
    try:
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        with contextlib.suppress(OSError):
            (directory / _NOTE).write_text(json.dumps(note), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            (directory / _NOTE).unlink(missing_ok=True)
        lock.release()


def current_writer(directory: Path) -> str | None:
    """Return who writes the index now, or ``None``."""
    from filelock import FileLock, Timeout

    if not (directory / _LOCK).exists():
        return None
    lock = FileLock(directory / _LOCK, timeout=0, thread_local=False)
    try:
        with lock:
            return None
    except Timeout:
        return _who(directory)
    except OSError:
        return None  # where nothing can be locked nothing is written


def _who(directory: Path) -> str:
    try:
        note = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(note["since"]))
        return f"process {int(note['pid'])} on {note['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
