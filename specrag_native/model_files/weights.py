"""A model's weights in the type that a processor computes fastest, written once and kept.

Law: what is read was written from the very file that was asked for; what cannot be written is read
as the file has it, which is slower and nothing else.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

from specrag_native.errors import EngineError, UserError
from specrag_native.model_files import model_dir
from specrag_native.native import quantise

TYPES = ("BF16", "F16")
"""Types that hold eight bits and fewer without a loss that shows. BF16 is fast where the processor
multiplies it (AVX512-BF16, AMX), F16 where it has that."""

_LARGEST = 4
"""Times as large as its source a rewritten file may become: from four bits to sixteen."""


def folder() -> Path:
    """Return where rewritten files are kept: ``weights`` in this project's folder."""
    return model_dir.home() / "weights"


def written_as(path: Path, type: str) -> Path:
    """Return a file with a model's weights in another type, which is written at its first use.

    Where it cannot be written the model itself is returned, with a warning to the log.

    Args:
        path: the model.
        type: one of ``TYPES``; empty: that of the file, which is the model itself.

    Raises:
        OSError: the model cannot be read.
    """
    if not type:
        return path
    target = _target(path, type)
    if target.is_file():
        return target
    partial = target.with_name(f"{target.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        needed = _LARGEST * path.stat().st_size
        model_dir.check_space(target.parent, needed, f"{path.name} with weights in {type}")
        try:
            quantise(path, partial, type)
            model_dir.sync(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, UserError, EngineError) as error:
        logging.getLogger(__name__).warning(
            "%s is used with its own weights, as it could not be written in %s: %s",
            path.name,
            type,
            error,
        )
        return path
    return target


def keep_only(path: Path, type: str) -> None:
    """Remove what was written of a model, of whatever version, but for one type; ``""``: all."""
    kept = _target(path, type) if type else None
    for other in folder().glob(f"{glob.escape(path.stem)}.*.gguf*"):
        if other != kept:
            with suppress(OSError):  # in use on Windows
                other.unlink()


def forget() -> None:
    """Remove every rewritten file."""
    shutil.rmtree(folder(), ignore_errors=True)


def _target(path: Path, type: str) -> Path:
    digest = model_dir.file_digest(path)[:16]
    return folder() / f"{path.stem}.{digest}.{type.lower()}.gguf"
