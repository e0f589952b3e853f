"""An embedder that needs no model, and small helpers for tests of the index."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specrag_native.retrieval.index import Index
from specrag_native.retrieval.index_types import IndexReport
from specrag_native.retrieval.indexer import index_paths


class HashEmbedder:
    """Puts each word into one of ``dim`` buckets: texts that share words are near."""

    def __init__(self, dim: int = 32, name: str = "hash-32") -> None:
        self.dim = dim
        self.name = name
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.texts.extend(texts)
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for i, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                digest = hashlib.md5(word.encode("utf-8", "replace")).digest()
                vectors[i, digest[0] % self.dim] += 1.0 if digest[1] & 1 else -1.0
            vectors[i, 0] += 0.01
            vectors[i] /= np.linalg.norm(vectors[i])
        return vectors


def run_index(
    folder: Path, index_dir: Path, embedder: HashEmbedder | None = None, **options: Any
) -> IndexReport:
    """Index one folder."""
    return index_paths(
        [folder], index_dir=index_dir, embedder=embedder or HashEmbedder(), **options
    )


def contents(index_dir: Path) -> list[tuple[Any, ...]]:
    """Return everything an index says, in a form that two equal indexes share."""
    rows: list[tuple[Any, ...]] = []
    with Index.open(index_dir) as index:
        retriever = index.retriever(HashEmbedder(index.dim, index.embedder))
        retriever.warm()
        for source in index.sources():
            rows.append(("source", source.path, source.documents, source.passages, source.reason))
        with index._store.read() as connection:
            for table in ("documents", "passages", "vectors"):
                (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                rows.append((table, count))
            for row in connection.execute(
                "SELECT s.path, d.key, d.title, p.start_char, p.end_char, p.page, p.text, v.hash"
                " FROM passages p JOIN documents d ON d.id = p.document_id"
                " JOIN sources s ON s.id = d.source_id JOIN vectors v ON v.id = p.vector_id"
                " ORDER BY 1, 2, 4"
            ):
                rows.append(tuple(row))
            words = connection.execute("SELECT term, doc, cnt FROM vocabulary ORDER BY term")
            rows.extend(tuple(row) for row in words)
        loaded = retriever._loaded
        assert loaded is not None
        rows.append(("searchable vectors", len(loaded)))
    return rows


def check_integrity(index_dir: Path) -> None:
    """Check what must hold of any index at any moment."""
    with Index.open(index_dir) as index, index._store.read() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        names = [row[0] for row in connection.execute("SELECT id FROM documents")]
        for document_id in names:
            rows = connection.execute(
                "SELECT id, start_char, end_char, text FROM passages WHERE document_id = ?",
                (document_id,),
            ).fetchall()
            for key, start, end, text in rows:
                whole = index._store.document_of(str(key))
                assert whole is not None and whole[start:end] == text
