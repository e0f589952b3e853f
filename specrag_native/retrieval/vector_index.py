"""The derived vector index: FAISS beside the database, never in its place.

Law: it may be missing, stale or damaged, and the search is still right: passages newer than the
file are searched exactly, passages that are gone are left out, and what cannot be read is made
again from the database.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.errors import IndexStoreError
from specrag_native.retrieval.store import State, all_ids, vectors_after
from specrag_native.retrieval.store_schema import sync_directory

if TYPE_CHECKING:
    from specrag_native.retrieval.store import IdArray
    from specrag_native.types import FloatArray

log = logging.getLogger(__name__)

FLAT_UPTO = 100_000
"""Up to so many passages every vector is compared; above, the nearest lists of an inverted file."""
_PROBES = 48
_TRAIN_PER_LIST = 40
_MMAP_CODES = 0x200  # faiss.IO_FLAG_MMAP_IFC: codes of flat indexes stay on disk too


@dataclass(frozen=True, slots=True)
class Loaded:
    """A derived index as it is held for one committed state."""

    state: State
    base: Any
    """The FAISS index, or ``None``."""
    tail_ids: IdArray
    tail: FloatArray
    """Vectors of the passages that are newer than ``base``."""
    removed: IdArray
    """Ids in ``base`` whose passages are gone."""

    def __len__(self) -> int:
        base = 0 if self.base is None else int(self.base.ntotal)
        return base - len(self.removed) + len(self.tail_ids)

    def search(self, vector: FloatArray, limit: int) -> list[tuple[int, float]]:
        """Return ids and cosines of the passages nearest to ``vector``, nearest first."""
        import numpy as np

        limit = min(limit, len(self))
        if limit <= 0:
            return []
        found: list[tuple[int, float]] = []
        if self.base is not None:
            import faiss

            # One question is too little work to share: waiting for a second thread that the
            # machine has given to someone else costs more than the whole search.
            faiss.omp_set_num_threads(1)
            scores, ids = self.base.search(
                vector[None, :].astype(np.float32), limit, params=self._parameters()
            )
            pairs = zip(ids[0].tolist(), scores[0].tolist(), strict=True)
            found = [(key, score) for key, score in pairs if key >= 0]
        if len(self.tail_ids):
            cosines = self.tail @ vector.astype(np.float32)
            best = np.argsort(-cosines, kind="stable")[:limit]
            found += [(int(self.tail_ids[i]), float(cosines[i])) for i in best]
            found.sort(key=lambda pair: -pair[1])
        return found[:limit]

    def _parameters(self) -> Any:
        import faiss

        # FAISS takes NULL for "no selector"; the array must outlive the selector.
        options: dict[str, Any] = {}
        if len(self.removed):
            options["sel"] = faiss.IDSelectorNot(faiss.IDSelectorBatch(self.removed))
        if is_inverted(self.base):
            return faiss.SearchParametersIVF(nprobe=_PROBES, **options)
        return faiss.SearchParameters(**options) if options else None


def is_inverted(index: Any) -> bool:
    """Return whether ``index`` is an inverted file (approximate), not a flat one."""
    return hasattr(index, "nprobe")


def load(
    connection: sqlite3.Connection,
    directory: Path,
    state: State,
    *,
    dim: int,
    previous: Loaded | None = None,
) -> Loaded:
    """Return the derived index for the state that ``connection`` sees.

    What ``previous`` holds is reused where it still belongs.
    """
    import numpy as np

    base, upto = None, 0
    if state.vectors_file is not None:
        if previous is not None and previous.state.vectors_file == state.vectors_file:
            base = previous.base
        else:
            base = _read(directory / state.vectors_file, dim)
        upto = state.vectors_upto if base is not None else 0
    blocks = list(vectors_after(connection, upto))
    tail_ids = np.concatenate([ids for ids, _ in blocks]) if blocks else np.empty(0, np.int64)
    tail = np.concatenate([v for _, v in blocks]) if blocks else np.empty((0, dim), np.float32)
    removed = np.fromiter(
        (i for i in all_ids(connection, "removed", "passage_id") if i <= upto), dtype=np.int64
    )
    return Loaded(state=state, base=base, tail_ids=tail_ids, tail=tail, removed=removed)


def _read(path: Path, dim: int) -> Any:
    import faiss

    try:
        index = faiss.read_index(str(path), _MMAP_CODES | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        log.warning("%s cannot be read, its vectors are taken from the database: %s", path, error)
        return None
    if index.d != dim:
        log.warning("%s holds vectors of %d dimensions, not %d: ignored", path, index.d, dim)
        return None
    return index


def write(connection: sqlite3.Connection, directory: Path, *, dim: int, state: State) -> str:
    """Write the derived index of every passage ``connection`` sees; return its file's name.

    The file is written beside, flushed, and renamed. An inverted file that is still of the right
    size is patched; everything else is made anew.
    """
    import faiss

    faiss.omp_set_num_threads(os.cpu_count() or 1)
    (count,) = connection.execute("SELECT count(*) FROM passages").fetchone()
    index = _patched(connection, directory, count=count, dim=dim, state=state)
    if index is None:
        index = _empty(connection, count, dim)
        for ids, vectors in vectors_after(connection, 0):
            index.add_with_ids(vectors, ids)
    name = f"vectors-{state.generation}.faiss"
    new = directory / f"{name}.new"
    try:
        faiss.write_index(index, str(new))
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(directory / name)
    except (RuntimeError, OSError) as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise IndexStoreError(
            f"{new} cannot be written ({str(error)[-120:]}): nothing was lost, and the index "
            "answers; free some space and run specrag index again"
        ) from error
    sync_directory(directory)
    return name


def _patched(
    connection: sqlite3.Connection, directory: Path, *, count: int, dim: int, state: State
) -> Any:
    """Return the inverted file in use, brought up to date; ``None`` where it must be made anew."""
    import faiss
    import numpy as np

    if count <= FLAT_UPTO or state.vectors_file is None:
        return None
    try:
        index = faiss.read_index(str(directory / state.vectors_file))
    except RuntimeError:
        return None
    if not is_inverted(index) or index.d != dim or index.nlist != _n_lists(count):
        return None
    removed = np.fromiter(all_ids(connection, "removed", "passage_id"), dtype=np.int64)
    if len(removed):
        index.remove_ids(removed)
    for ids, vectors in vectors_after(connection, state.vectors_upto):
        index.add_with_ids(vectors, ids)
    return index if index.ntotal == count else None


def _n_lists(count: int) -> int:
    return int(2 ** round(math.log2(4 * math.sqrt(count))))


def _empty(connection: sqlite3.Connection, count: int, dim: int) -> Any:
    import faiss

    kind = faiss.ScalarQuantizer
    if count <= FLAT_UPTO:
        flat = faiss.IndexScalarQuantizer(dim, kind.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        return faiss.IndexIDMap(flat)
    n_lists = _n_lists(count)
    lists = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(
        lists, dim, n_lists, kind.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.own_fields = True
    lists.this.disown()
    index.cp.niter = 10
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = _TRAIN_PER_LIST
    index.train(_sample(connection, n_lists * _TRAIN_PER_LIST, count, dim))
    return index


def _sample(connection: sqlite3.Connection, wanted: int, count: int, dim: int) -> FloatArray:
    """Return every so-many-th vector, ``wanted`` in all: an even sample without loading all."""
    import numpy as np

    step = max(1, count // wanted)
    parts, seen = [], 0
    for _, vectors in vectors_after(connection, 0):
        first = -seen % step
        parts.append(vectors[first::step].copy())
        seen += len(vectors)
    return np.concatenate(parts) if parts else np.empty((0, dim), np.float32)


def remove_stale(directory: Path, current: str | None) -> None:
    """Delete derived files other than ``current``; one that is still in use is left for later."""
    for path in directory.glob("vectors-*"):
        if path.name != current:
            with contextlib.suppress(OSError):
                path.unlink()
