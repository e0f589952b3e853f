"""What a run of the indexer is asked and what it answers.

Law: a report accounts for every file that was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from specrag_native.ingest.document import ReadLimits
from specrag_native.retrieval.chunking import ChunkOptions
from specrag_native.retrieval.scan import ScanOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How folders are indexed."""

    chunk: ChunkOptions | None = None
    """Length of passages; ``None``: as the index was made."""
    scan: ScanOptions = field(default_factory=ScanOptions)
    limits: ReadLimits = field(default_factory=ReadLimits)
    batch: int = 128
    """Texts given to the embedder at once, and vectors stored per transaction."""
    wait_s: float = 0.0
    """Seconds to wait for another writer."""
    reread: bool = False
    """Read every file again, also unchanged ones (vectors are kept)."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not in the index, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; bytes count the files that are new or changed."""

    path: str
    done_bytes: int
    total_bytes: int
    passages: int
    """Passages embedded or found embedded so far."""


@dataclass(slots=True, kw_only=True)
class IndexReport:
    """What a run did, in files, documents and passages."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    documents: int = 0
    """Documents of the files that were added or changed."""
    passages: int = 0
    """Passages of those documents."""
    embedded: int = 0
    """Texts the embedder was given; other passages had their vectors already."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[Skipped] = field(default_factory=list)
    """Files that are in the index but not whole, and what is missing."""
    unknown_formats: Mapping[str, int] = field(default_factory=dict)
    """Files without a reader, by suffix."""
    seconds: float = 0.0

    @property
    def touched(self) -> int:
        """Files whose content in the index is not what it was."""
        return self.added + self.changed + self.moved + self.removed
