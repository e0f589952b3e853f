"""The child process that parses files for :mod:`specrag_native.ingest.sandbox`.

Law: it reads requests from standard input and answers on standard output, and gives up its own
memory before the machine has to.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

from specrag_native.errors import SpecragError
from specrag_native.ingest.document import Document, ReadLimits
from specrag_native.ingest.reading import read_here
from specrag_native.ingest.registry import Reader
from specrag_native.ingest.sandbox import frames, write_frame


def limit_memory(n_bytes: int) -> None:
    """Bound this process's address space, where the system can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return


def answer(request: dict[str, Any], pipe: IO[bytes]) -> None:
    """Parse the file that ``request`` names and write its documents, then the end or an error."""
    path = Path(os.fsdecode(bytes.fromhex(request["path"])))
    reader = Reader(name=request["name"], suffixes=(), function=request["function"])
    reading = read_here(path, reader, ReadLimits(**request["limits"]))
    try:
        while True:
            try:
                document = next(reading)
            except StopIteration as end:
                write_frame(pipe, {"note": end.value})
                return
            write_frame(pipe, {"document": _plain(document)})
    except SpecragError as error:
        write_frame(pipe, {"error": str(error)})
    except OSError as error:
        write_frame(pipe, {"error": error.strerror or str(error)})


def _plain(document: Document) -> dict[str, Any]:
    return {
        "text": document.text,
        "title": document.title,
        "key": document.key,
        "pages": document.pages,
        "layout": document.layout,
    }


def main() -> None:
    """Serve requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    limit_memory(int(sys.argv[1]))
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(2, 1)  # a parser that prints must not disturb the answers
    for request in frames(sys.stdin.buffer):
        answer(request, pipe)


if __name__ == "__main__":
    main()
