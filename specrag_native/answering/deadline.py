"""One flag that stops calls of an engine when the caller cancels or when time is up.

Law: the caller's own flag is only ever read, and which of the two it was can always be told.
"""

from __future__ import annotations

import threading
import time

from specrag_native.errors import Cancelled
from specrag_native.native import new_cancel_flag
from specrag_native.protocol import CancelFlag

_POLL_S = 0.02
"""How soon the caller's flag is seen while a deadline runs, seconds."""


class Deadline:
    """Stops what gets its ``flag``, after some seconds or when the caller cancels.

    Without ``seconds`` the flag is the caller's own and nothing runs beside the call. It is used
    as a context: time begins when it is made, and nothing is watched after the context.
    """

    def __init__(self, seconds: float | None, cancel: CancelFlag | None = None) -> None:
        self._cancel = cancel
        self._end = None if seconds is None else time.perf_counter() + seconds
        self._up = threading.Event()
        self._left = threading.Event()
        self.flag = cancel if seconds is None else new_cancel_flag()
        """What calls of an engine are given."""

    @property
    def up(self) -> bool:
        """Whether time is up."""
        return self._up.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` when the caller has cancelled."""
        if self._cancel is not None and self._cancel.cancelled:
            raise Cancelled("cancelled")

    def __enter__(self) -> Deadline:
        if self._end is not None:
            threading.Thread(target=self._watch, name="specrag-deadline", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def _watch(self) -> None:
        assert self._end is not None and self.flag is not None
        while (seconds := self._end - time.perf_counter()) > 0:
            if self._cancel is not None and self._cancel.cancelled:
                self.flag.cancel()
                return
            if self._left.wait(seconds if self._cancel is None else min(seconds, _POLL_S)):
                return
        self._up.set()
        self.flag.cancel()
