"""From folders to an index: only what is new or changed is read and embedded.

Law: after a run the index equals a fresh one of the same files, whatever happened before; one file
is one transaction; vectors are kept by the hash of their text, so no text is embedded twice and no
finished batch is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from specrag_native.errors import Cancelled, DocumentError
from specrag_native.ingest.document import Document
from specrag_native.ingest.reading import read_documents
from specrag_native.ingest.registry import Reader
from specrag_native.ingest.sandbox import Sandbox
from specrag_native.protocol import Embedder
from specrag_native.retrieval.chunking import chunk
from specrag_native.retrieval.embedding import embedding_text, text_hash
from specrag_native.retrieval.embedding_queue import EmbeddingQueue
from specrag_native.retrieval.index_plan import Below, Job, make_plan, refreshed, still
from specrag_native.retrieval.index_types import IndexOptions, IndexReport, Progress, Skipped
from specrag_native.retrieval.lock import writer_lock
from specrag_native.retrieval.scan import Scan, scan
from specrag_native.retrieval.store import display
from specrag_native.retrieval.store_schema import (
    check_database,
    check_free,
    create_database,
    exists,
    reported,
)
from specrag_native.retrieval.store_writer import (
    CutDocument,
    Source,
    StoreWriter,
    VectorMissing,
    open_writer,
)

_ATTEMPTS = 3
_PENDING_FILES = 512


@dataclass(frozen=True, slots=True)
class _Read:
    """A file that was read and waits for its vectors."""

    job: Job
    documents: Sequence[CutDocument]


def index_paths(
    paths: Sequence[Path],
    *,
    index_dir: Path,
    embedder: Embedder,
    options: IndexOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> IndexReport:
    """Bring the index in ``index_dir`` up to date with ``paths``, making it where there is none.

    Without ``paths``, everything that was ever given is looked at again. Files that cannot be read
    are skipped and reported. Raises :class:`DocumentError` when there is nothing to index,
    :class:`IndexStoreError` when the index cannot be used, :class:`Cancelled` when ``cancel()``
    says so; what was finished by then is kept.
    """
    started = time.monotonic()
    chosen = options or IndexOptions()
    if not exists(index_dir):
        _make_index(paths, index_dir, embedder, chosen)
    with open_writer(index_dir, wait_s=chosen.wait_s) as writer:
        writer.require_embedder(embedder.name)
        roots = [Path(p) for p in paths] or writer.roots()
        if not roots:
            raise DocumentError(f"the index {index_dir} has no folders yet: name one to index")
        found = scan(roots, options=chosen.scan, exclude=index_dir)
        run = _Run(writer, embedder, chosen, progress, cancel)
        try:
            run.update(roots, found)
        finally:
            run.close()
        run.report.seconds = time.monotonic() - started
        return run.report


def rebuild(
    *,
    index_dir: Path,
    embedder: Embedder,
    options: IndexOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> IndexReport:
    """Read every file of an index again and write its derived parts anew; vectors are kept."""
    chosen = replace(options or IndexOptions(), reread=True)
    report = index_paths(
        (),
        index_dir=index_dir,
        embedder=embedder,
        options=chosen,
        progress=progress,
        cancel=cancel,
    )
    with open_writer(index_dir, wait_s=chosen.wait_s) as writer:
        writer.compact()
    return report


def remove_paths(paths: Sequence[Path], *, index_dir: Path, wait_s: float = 0.0) -> int:
    """Take files, or all files below folders, out of an index; return how many those were.

    Raises :class:`DocumentError`, with nothing removed, for a path the index does not know.
    """
    with open_writer(index_dir, wait_s=wait_s) as writer:
        known = writer.sources()
        gone: set[bytes] = set()
        for path in paths:
            below = Below([writer.paths.key(path)])
            found = {key for key in known if key in below}
            if not found:
                raise DocumentError(f"the index {index_dir} holds nothing of {path}")
            gone |= found
        removed = writer.remove(sorted(gone))
        for path in paths:
            writer.remove_root(writer.paths.key(path))
        writer.finish()
        return removed


def check_paths(paths: Sequence[Path], *, index_dir: Path) -> None:
    """Raise what :func:`index_paths` would raise for its paths and folder, at no cost."""
    for path in paths:
        if not path.exists():
            raise DocumentError(f"no such file or folder: {path}")
    if exists(index_dir):
        check_database(index_dir)
        return
    check_free(index_dir)
    if not paths:
        raise DocumentError("name a file or a folder to index")


def _make_index(
    paths: Sequence[Path], index_dir: Path, embedder: Embedder, options: IndexOptions
) -> None:
    check_paths(paths, index_dir=index_dir)
    found = scan(paths, options=options.scan, exclude=index_dir)
    if not found.files:
        raise DocumentError(_nothing(paths, found))
    dim = int(embedder.embed(["width"]).shape[1])
    with reported(index_dir):
        index_dir.mkdir(parents=True, exist_ok=True)
    with writer_lock(index_dir, wait_s=options.wait_s):
        if not exists(index_dir):
            create_database(index_dir, embedder=embedder.name, dim=dim)


def _nothing(paths: Sequence[Path], found: Scan) -> str:
    names = ", ".join(str(p) for p in paths)
    if found.failed:
        path, reason = found.failed[0]
        return f"nothing to index in {names}: {path}: {reason}"
    if found.unknown:
        suffixes = ", ".join(f"{n} {s}" for s, n in found.unknown.most_common(3))
        return f"nothing to index in {names}: no reader for its files ({suffixes})"
    return f"nothing to index in {names}: no files there (hidden files are left out by default)"


class _Run:
    """One run over the files that were found."""

    def __init__(
        self,
        writer: StoreWriter,
        embedder: Embedder,
        options: IndexOptions,
        progress: Callable[[Progress], None] | None,
        cancel: Callable[[], bool] | None,
    ) -> None:
        self.writer = writer
        self.options = options
        self.report = IndexReport()
        self.chunking = writer.chunking(options.chunk)
        self.sandbox = Sandbox()
        self.queue = EmbeddingQueue(
            embedder, writer, batch=options.batch, tick=self._tick, check=self._check
        )
        self.waiting: list[_Read] = []
        self._progress = progress
        self._cancel = cancel
        self._path = ""
        self._done_bytes = 0
        self._streamed_bytes = 0
        self._total_bytes = 0

    def close(self) -> None:
        self.sandbox.close()

    def update(self, roots: Sequence[Path], found: Scan) -> None:
        """Do the whole run."""
        writer = self.writer
        report = self.report
        report.unknown_formats = dict(found.unknown)
        writer.add_roots(writer.paths.key(root) for root in roots)
        plan = make_plan(
            writer,
            roots,
            found,
            chunking=self.chunking,
            encoding=self.options.limits.encoding,
            reread=self.options.reread,
            check=self._check,
        )
        for old, source in plan.moves:
            writer.move(old, source)
        for source in plan.touched:
            writer.touch(source)
        report.moved = len(plan.moves)
        report.removed = writer.remove(plan.gone)
        report.unchanged = sum(source.reason is None for source in plan.kept)
        for source in plan.kept:
            if source.reason is not None:
                report.skipped.append(Skipped(display(source.path), source.reason))
            elif source.note:
                report.notes.append(Skipped(display(source.path), source.note))
        for source in plan.unreadable:
            self._skip(source)
        jobs = plan.jobs
        self._total_bytes = sum(job.found.size for job in jobs)
        for job in jobs:
            self._check()
            self._do(job)
        self._flush()
        for path, reason in found.failed:
            self.report.skipped.append(Skipped(str(path), reason))
        writer.finish()
        self._tick()

    # Reading

    def _do(self, job: Job) -> None:
        self._path = display(job.source.path)
        try:
            if job.found.reader.streamed:
                self._flush()
                self._stream(job)
            else:
                self._read(job)
        except DocumentError as error:
            self._skip(replace(job.source, reason=str(error)))
        except OSError as error:
            self._skip(replace(job.source, reason=error.strerror or str(error)))
        else:
            return
        self._advance(job)

    def _read(self, job: Job) -> None:
        for _ in range(_ATTEMPTS):
            note: list[str | None] = []
            documents = list(self._documents(job, note))
            if not any(cut.spans for cut in documents):
                raise DocumentError(_no_text(job.found.reader))
            if still(job.found):
                break
            job = refreshed(job)
        else:
            raise DocumentError("it keeps changing while it is read")
        job = Job(job.found, replace(job.source, note=note[0]), job.is_new)
        self.waiting.append(_Read(job, documents))
        for cut in documents:
            self._enqueue(cut)
        if self.queue.is_full or len(self.waiting) >= _PENDING_FILES:
            self._flush()

    def _flush(self) -> None:
        """Embed what waits, then commit the waiting files one by one."""
        self.queue.run()
        while self.waiting:
            read = self.waiting.pop(0)
            counts = self.writer.replace(read.job.source, read.documents)
            self._count(read.job, *counts)
            self._advance(read.job, share=1.0)

    def _stream(self, job: Job) -> None:
        """Read a file of any length twice: once to embed, once to store, holding neither whole."""
        for _ in range(_ATTEMPTS):
            note: list[str | None] = []
            found_any = False
            for cut in self._documents(job, note):
                found_any = found_any or bool(cut.spans)
                self._streamed_bytes = int(cut.document.read_share * job.found.size)
                self._enqueue(cut)
                if self.queue.is_full:
                    self.queue.run()
            self.queue.run()
            if not found_any:
                raise DocumentError(_no_text(job.found.reader))
            source = replace(job.source, note=note[0])
            try:
                counts = self.writer.replace(source, self._unchanging(job))
            except VectorMissing:
                job = refreshed(job)
                continue
            self._count(Job(job.found, source, job.is_new), *counts)
            self._advance(job)
            return
        raise DocumentError("it keeps changing while it is read")

    def _unchanging(self, job: Job) -> Iterator[CutDocument]:
        """Yield the documents of a file; raise at the end when it changed since it was hashed."""
        yield from self._documents(job, [])
        if not still(job.found):
            raise VectorMissing(str(job.found.path))

    def _documents(self, job: Job, note: list[str | None]) -> Iterator[CutDocument]:
        reading = read_documents(
            job.found.path, job.found.reader, limits=self.options.limits, sandbox=self.sandbox
        )
        while True:
            self._check()
            try:
                document = next(reading)
            except StopIteration as end:
                note.append(end.value)
                return
            yield self._cut(document)

    def _cut(self, document: Document) -> CutDocument:
        spans = chunk(
            document.text, pages=document.pages, layout=document.layout, options=self.chunking
        )
        hashes = [text_hash(embedding_text(document.title, document.text[a:b])) for a, b in spans]
        return CutDocument(document, spans, hashes)

    def _enqueue(self, cut: CutDocument) -> None:
        document = cut.document
        for (start, end), key in zip(cut.spans, cut.hashes, strict=True):
            self.queue.add(key, embedding_text(document.title, document.text[start:end]))

    # Reporting

    def _skip(self, source: Source) -> None:
        self.writer.skip(source)
        self.report.skipped.append(Skipped(display(source.path), source.reason or ""))

    def _count(self, job: Job, documents: int, passages: int) -> None:
        if job.is_new:
            self.report.added += 1
        else:
            self.report.changed += 1
        self.report.documents += documents
        self.report.passages += passages
        self.report.embedded = self.queue.embedded
        if job.source.note:
            self.report.notes.append(Skipped(display(job.source.path), job.source.note))

    def _advance(self, job: Job, *, share: float = 0.0) -> None:
        self._done_bytes += job.found.size
        self._streamed_bytes = 0
        self._tick(share)

    def _tick(self, share: float = 0.0) -> None:
        if self._progress is None:
            return
        done = self._done_bytes + self._streamed_bytes
        done += int(share * sum(read.job.found.size for read in self.waiting))
        self._progress(Progress(self._path, done, self._total_bytes, self.queue.seen))

    def _check(self) -> None:
        if self._cancel is not None and self._cancel():
            raise Cancelled("indexing was cancelled; what was finished is kept")


def _no_text(reader: Reader) -> str:
    if reader.name == "pdf":
        return "no text in it (scanned pages are not read)"
    return "no text in it"
