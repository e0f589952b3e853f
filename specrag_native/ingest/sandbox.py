"""Parses a file in a child process under limits of time and memory.

Law: whatever a file does to its parser (hang, crash, exhaust memory) ends one child process and is
reported as a reason; the next file gets a new child. The child speaks JSON, so it cannot make the
parent run anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import Document, ReadLimits
from specrag_native.ingest.reading import Reading, checked, read_here
from specrag_native.ingest.registry import Reader

_HEADER = 8
_GRACE_S = 5.0
"""What a child may take to start, on top of a file's own time."""


class Sandbox:
    """One child process, started when first needed and again after it was killed."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._memory = 0

    def read(self, path: Path, reader: Reader, limits: ReadLimits) -> Reading:
        """Yield the documents of ``path``, parsed by the child; the return value is a note.

        A frozen application has no interpreter to start: it parses in its own process, and only
        the limits of size hold.
        """
        if getattr(sys, "frozen", False):
            return (yield from read_here(path, reader, limits))
        child = self._start(limits)
        request = {
            "path": os.fsencode(path.absolute()).hex(),
            "function": reader.function,
            "name": reader.name,
            "limits": {
                "file_bytes": limits.file_bytes,
                "text_chars": limits.text_chars,
                "encoding": limits.encoding,
            },
        }
        deadline = time.monotonic() + limits.seconds + _GRACE_S
        try:
            assert child.stdin is not None and child.stdout is not None
            write_frame(child.stdin, request)
            while True:
                answer = _read_frame(child.stdout, deadline, limits)
                if "document" in answer:
                    yield checked(_document(answer["document"]), limits)
                elif "error" in answer:
                    raise DocumentError(str(answer["error"]))
                else:
                    note = answer.get("note")
                    return str(note) if note else None
        except _TooSlow:
            self.close()
            raise DocumentError(
                f"reading it took longer than {limits.seconds:g} seconds (--file-seconds)"
            ) from None
        except (_ChildDied, BrokenPipeError, ValueError):
            code = self._exit_code()
            self.close()
            raise DocumentError(f"its parser crashed ({code})") from None
        except GeneratorExit:
            self.close()  # an answer is half read
            raise

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _start(self, limits: ReadLimits) -> subprocess.Popen[bytes]:
        alive = self._child is not None and self._child.poll() is None
        if self._child is not None and alive and self._memory == limits.memory_bytes:
            return self._child
        self.close()
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        self._memory = limits.memory_bytes
        self._child = subprocess.Popen(
            [sys.executable, "-m", "specrag_native.ingest.worker", str(limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
        return self._child

    def _exit_code(self) -> str:
        if self._child is None:
            return "no child"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._child.wait(timeout=1.0)
            return f"signal {-code}" if code < 0 else f"exit code {code}"
        return "a broken answer"


class _TooSlow(Exception):
    """The deadline passed."""


class _ChildDied(Exception):
    """The pipe ended before the answer did."""


def write_frame(pipe: IO[bytes], value: dict[str, Any]) -> None:
    """Write one message: its length in eight bytes, then JSON."""
    data = json.dumps(value).encode("ascii")
    view = memoryview(len(data).to_bytes(_HEADER, "big") + data)
    while view:
        written = pipe.write(view)
        view = view[written or 0 :]


def frames(pipe: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a blocking pipe until it ends."""
    while len(header := pipe.read(_HEADER)) == _HEADER:
        data = pipe.read(int.from_bytes(header, "big"))
        yield json.loads(data)


def _read_frame(pipe: IO[bytes], deadline: float, limits: ReadLimits) -> dict[str, Any]:
    length = int.from_bytes(_read_exactly(pipe, _HEADER, deadline), "big")
    if length > 16 * limits.text_chars + 65536:
        raise ValueError(f"a message of {length} bytes")
    value = json.loads(_read_exactly(pipe, length, deadline))
    if not isinstance(value, dict):
        raise ValueError("no message")
    return value


def _read_exactly(pipe: IO[bytes], length: int, deadline: float) -> bytes:
    parts: list[bytes] = []
    missing = length
    while missing:
        if not _readable(pipe, deadline):
            raise _TooSlow
        part = os.read(pipe.fileno(), min(missing, 1 << 20))
        if not part:
            raise _ChildDied
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _readable(pipe: IO[bytes], deadline: float) -> bool:
    left = max(0.0, deadline - time.monotonic())
    ready, _, _ = select.select([pipe], [], [], left)
    return bool(ready)


def _document(value: dict[str, Any]) -> Document:
    return Document(
        text=value["text"],
        title=value["title"],
        key=value["key"],
        pages=tuple(int(page) for page in value["pages"]),
        layout="lines" if value["layout"] == "lines" else "prose",
    )
