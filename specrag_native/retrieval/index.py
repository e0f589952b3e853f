"""An index as the rest of the package uses it.

Law: opening reads a few rows and nothing more; everything else is read when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from specrag_native.protocol import Embedder
from specrag_native.retrieval.store import Counts, SourceInfo, Store
from specrag_native.types import Passage

if TYPE_CHECKING:
    from specrag_native.retrieval.hybrid import RetrievalOptions, Retriever

DEFAULT_DIRECTORY = ".specrag"
ENVIRONMENT = "SPECRAG_INDEX"


def default_index_dir() -> Path:
    """Return where an index is kept when nobody says: ``$SPECRAG_INDEX``, else ``.specrag``."""
    return Path(os.environ.get(ENVIRONMENT) or DEFAULT_DIRECTORY)


class Index:
    """Documents, passages and vectors of one folder of documents; safe for threads to read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, path: Path) -> Index:
        """Open the index in the folder ``path``; raises :class:`IndexStoreError`."""
        return cls(Store(Path(path)))

    @classmethod
    def create(cls, path: Path, embedder_name: str, dim: int) -> Index:
        """Make an empty index in the folder ``path`` and open it."""
        return cls(Store.create(Path(path), embedder=embedder_name, dim=dim))

    @property
    def path(self) -> Path:
        """The folder that holds the index."""
        return self._store.directory

    @property
    def embedder(self) -> str:
        """Name of the embedder that made the vectors."""
        return self._store.embedder

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._store.dim

    @property
    def counts(self) -> Counts:
        """How much the index holds now."""
        return self._store.counts()

    def retriever(
        self, embedder: Embedder, *, options: RetrievalOptions | None = None
    ) -> Retriever:
        """Return what finds passages; raises :class:`IndexStoreError` for another embedder."""
        from specrag_native.retrieval.hybrid import Retriever

        return Retriever(self._store, embedder, options=options)

    def sources(self) -> list[SourceInfo]:
        """Return every file the index knows, with the reason for those that were skipped."""
        return self._store.sources()

    def roots(self) -> list[Path]:
        """Return the files and folders that were given to be indexed."""
        return self._store.roots()

    def document_text(self, name: str) -> str | None:
        """Return the extracted text of a document (``Passage.document``); ``None`` if unknown."""
        return self._store.document_text(name)

    def document_passages(self, name: str) -> list[Passage]:
        """Return the passages of a document, in order."""
        return self._store.document_passages(name)

    def passages(self) -> Iterator[Passage]:
        """Yield every passage."""
        return self._store.all_passages()

    def text_around(self, passage: Passage) -> str | None:
        """Return the extracted text of the document that holds ``passage``.

        ``None`` when the passage has left the index.
        """
        return self._store.document_of(passage.id)

    def close(self) -> None:
        """Close the index; searching afterwards raises."""
        self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}, embedder={self.embedder!r}, dim={self.dim})"
