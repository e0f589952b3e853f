from __future__ import annotations

import gzip
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from index_fakes import HashEmbedder, check_integrity, contents, run_index

from specrag_native.errors import Cancelled, ContextFullError, DocumentError, IndexStoreError
from specrag_native.ingest.document import ReadLimits
from specrag_native.retrieval.chunking import ChunkOptions
from specrag_native.retrieval.index import Index
from specrag_native.retrieval.index_types import IndexOptions
from specrag_native.retrieval.indexer import index_paths


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "docs"
    made.mkdir()
    for name in ("apples", "bees", "clouds"):
        (made / f"{name}.txt").write_text(f"{name.title()} are a subject of this text. " * 40)
    return made


@pytest.fixture
def index_dir(tmp_path):
    return tmp_path / "index"


def fresh(folder, tmp_path):
    target = tmp_path / "fresh"
    run_index(folder, target)
    return contents(target)


def test_a_second_run_reads_nothing(folder, index_dir):
    embedder = HashEmbedder()
    first = run_index(folder, index_dir, embedder)
    assert (first.added, first.documents, first.passages) == (3, 3, 9)
    given = len(embedder.texts)
    second = run_index(folder, index_dir, embedder)
    assert (second.unchanged, second.touched, second.embedded) == (3, 0, 0)
    assert len(embedder.texts) == given


def test_an_edit_embeds_only_the_passages_that_changed(folder, index_dir, tmp_path):
    run_index(folder, index_dir)
    text = (folder / "bees.txt").read_text()
    (folder / "bees.txt").write_text(text + "\n\nA new last sentence about wasps.")
    embedder = HashEmbedder()
    report = run_index(folder, index_dir, embedder)
    assert (report.changed, report.unchanged) == (1, 2)
    assert report.embedded == 1 and report.passages == 3
    assert contents(index_dir) == fresh(folder, tmp_path)


def test_an_edit_that_keeps_size_and_time_is_seen(folder, index_dir, tmp_path):
    run_index(folder, index_dir)
    path = folder / "bees.txt"
    facts = path.stat()
    path.write_text(path.read_text().replace("Bees", "Cows"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert run_index(folder, index_dir).changed == 1
    assert contents(index_dir) == fresh(folder, tmp_path)


def test_a_moved_file_is_not_embedded_again(folder, index_dir, tmp_path):
    run_index(folder, index_dir)
    (folder / "deep").mkdir()
    (folder / "bees.txt").rename(folder / "deep" / "insects.txt")
    embedder = HashEmbedder()
    report = run_index(folder, index_dir, embedder)
    assert (report.moved, report.removed, report.added) == (1, 0, 0)
    assert embedder.texts == []
    with Index.open(index_dir) as index:
        hit = index.retriever(embedder).search("Bees")[0]
        assert hit.passage.document == "docs/deep/insects.txt"
        assert hit.passage.title == "insects.txt"
    assert contents(index_dir) == fresh(folder, tmp_path)


def test_a_touched_file_is_not_read_again(folder, index_dir):
    run_index(folder, index_dir)
    os.utime(folder / "bees.txt", (1, 1))
    report = run_index(folder, index_dir)
    assert (report.unchanged, report.touched) == (3, 0)


def test_a_deleted_file_leaves_the_index_and_takes_its_vectors(folder, index_dir, tmp_path):
    run_index(folder, index_dir)
    (folder / "bees.txt").unlink()
    assert run_index(folder, index_dir).removed == 1
    assert contents(index_dir) == fresh(folder, tmp_path)


def test_files_outside_what_is_given_are_left_alone(folder, index_dir, tmp_path):
    other = tmp_path / "docs2"
    other.mkdir()
    (other / "z.txt").write_text("Zebras are striped.")
    run_index(folder, index_dir)
    report = run_index(other, index_dir)
    assert (report.added, report.removed) == (1, 0)
    with Index.open(index_dir) as index:
        assert index.counts.sources == 4
        assert {root.name for root in index.roots()} == {"docs", "docs2"}


def test_without_paths_everything_given_before_is_looked_at(folder, index_dir):
    run_index(folder, index_dir)
    (folder / "new.txt").write_text("News.")
    report = index_paths([], index_dir=index_dir, embedder=HashEmbedder())
    assert (report.added, report.unchanged) == (1, 3)


def test_equal_texts_are_embedded_once(folder, index_dir):
    (folder / "copy.txt").write_text((folder / "bees.txt").read_text())
    embedder = HashEmbedder()
    run_index(folder, index_dir, embedder)
    assert len(embedder.texts) - 1 == len(set(embedder.texts)) - 1  # one text asks the width
    with Index.open(index_dir) as index:
        assert index.counts.sources == 4


def test_rows_of_json_lines_are_documents_with_their_ids(tmp_path, index_dir):
    rows = [{"id": f"r{i}", "title": f"Row {i}", "text": f"Row number {i}. " * 5} for i in range(9)]
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + "\nthis is no JSON\n")
    report = index_paths([path], index_dir=index_dir, embedder=HashEmbedder())
    assert (report.added, report.documents, report.passages) == (1, 9, 9)
    assert "1 lines are no JSON" in report.notes[0].reason
    with Index.open(index_dir) as index:
        hit = index.retriever(HashEmbedder()).search("Row 7 number 7")[0]
        assert hit.passage.document == "rows.jsonl.gz#r7"
        assert hit.passage.title == "Row 7"
        assert index.document_text("rows.jsonl.gz#r7") == rows[7]["text"]
    again = index_paths([path], index_dir=index_dir, embedder=HashEmbedder())
    assert again.unchanged == 1 and len(again.notes) == 1


def test_a_long_stream_is_embedded_in_batches_that_are_kept(tmp_path, index_dir):
    path = tmp_path / "rows.jsonl"
    lines = (json.dumps({"id": str(i), "text": f"Text number {i}."}) for i in range(2000))
    path.write_text("\n".join(lines))

    class Failing(HashEmbedder):
        def embed(self, texts):
            if len(self.texts) > 700:
                raise KeyboardInterrupt
            return super().embed(texts)

    failing = Failing()
    with pytest.raises(KeyboardInterrupt):
        index_paths([path], index_dir=index_dir, embedder=failing)
    check_integrity(index_dir)
    embedder = HashEmbedder()
    report = index_paths([path], index_dir=index_dir, embedder=embedder)
    assert report.passages == 2000
    assert report.embedded == len(embedder.texts) == 2000 - (len(failing.texts) - 1)


def test_cancelling_keeps_what_was_finished(folder, index_dir):
    asked = iter([False] * 8 + [True] * 100)
    options = IndexOptions(batch=1)
    with pytest.raises(Cancelled):
        index_paths(
            [folder],
            index_dir=index_dir,
            embedder=HashEmbedder(),
            options=options,
            cancel=lambda: next(asked),
        )
    check_integrity(index_dir)
    assert run_index(folder, index_dir).embedded < 9


def test_progress_reaches_the_total(folder, index_dir):
    seen = []
    run_index(folder, index_dir, progress=seen.append)
    assert (
        seen[-1].done_bytes
        == seen[-1].total_bytes
        == sum(p.stat().st_size for p in folder.iterdir())
    )
    assert seen[-1].passages == 9
    assert all(a.done_bytes <= b.done_bytes for a, b in pairwise(seen))


def test_unreadable_files_are_reported_and_skipped(folder, index_dir, tmp_path):
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "binary.txt").write_bytes(b"\x00\x01\x02")
    (folder / "empty.txt").write_bytes(b"  \n")
    (folder / "broken.json").write_text("{")
    (folder / "photo.png").write_bytes(b"png")
    report = run_index(folder, index_dir)
    reasons = {Path(s.path).name: s.reason for s in report.skipped}
    assert report.added == 3
    assert "byte 0xe9 at offset 3" in reasons["latin.txt"]
    assert "zero bytes" in reasons["binary.txt"]
    assert "no text" in reasons["empty.txt"]
    assert "no JSON" in reasons["broken.json"]
    assert report.unknown_formats == {".png": 1}
    again = run_index(folder, index_dir)
    assert {s.path: s.reason for s in again.skipped} == {s.path: s.reason for s in report.skipped}
    (folder / "broken.json").write_text('{"mended": "yes"}')
    assert run_index(folder, index_dir).changed == 1
    assert contents(index_dir) == fresh(folder, tmp_path)


def test_a_file_that_becomes_unreadable_leaves_the_index(folder, index_dir, tmp_path):
    run_index(folder, index_dir)
    (folder / "bees.txt").write_bytes(b"\x00")
    report = run_index(folder, index_dir)
    assert len(report.skipped) == 1
    assert contents(index_dir) == fresh(folder, tmp_path)


def test_an_encoding_can_be_named(folder, index_dir):
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    options = IndexOptions(limits=ReadLimits(encoding="latin-1"))
    assert run_index(folder, index_dir, options=options).added == 4
    with Index.open(index_dir) as index:
        assert index.document_text("docs/latin.txt") == "caf\xe9"


def test_a_file_that_is_too_large_is_skipped(folder, index_dir):
    options = IndexOptions(limits=ReadLimits(file_bytes=100))
    report = run_index(folder, index_dir, options=options)
    assert len(report.skipped) == 3 and "larger than the limit" in report.skipped[0].reason


@pytest.mark.parametrize("missing", [True, False])
def test_nothing_to_index_is_an_error_and_makes_no_index(tmp_path, index_dir, missing):
    target = tmp_path / "missing"
    if not missing:
        target.mkdir()
        (target / ".hidden.txt").write_text("hidden")
    with pytest.raises(DocumentError, match="no such file" if missing else "nothing to index"):
        run_index(target, index_dir)
    assert not index_dir.exists()


def test_another_passage_length_reads_again_and_is_remembered(folder, index_dir):
    run_index(folder, index_dir)
    options = IndexOptions(chunk=ChunkOptions(words=50))
    assert run_index(folder, index_dir, options=options).changed == 3
    assert run_index(folder, index_dir).unchanged == 3


def test_a_text_longer_than_the_models_context_is_embedded_by_its_beginning(folder, index_dir):
    class Short(HashEmbedder):
        def embed(self, texts):
            if any(len(text) > 300 for text in texts):
                raise ContextFullError("too long", n_tokens=99, n_ctx=9)
            return super().embed(texts)

    assert run_index(folder, index_dir, Short()).passages == 9


def test_vectors_of_another_width_are_refused(folder, index_dir):
    run_index(folder, index_dir)
    (folder / "new.txt").write_text("News.")
    with pytest.raises(IndexStoreError, match=r"shape \(1, 8\)"):
        run_index(folder, index_dir, HashEmbedder(dim=8))
    check_integrity(index_dir)


def test_vectors_that_are_no_numbers_are_stored_as_zeros(folder, index_dir):
    class Broken(HashEmbedder):
        def embed(self, texts):
            return np.full((len(texts), self.dim), np.nan, dtype=np.float32)

    run_index(folder, index_dir, Broken())
    with Index.open(index_dir) as index:
        assert len(index.retriever(HashEmbedder()).search("bees", 3)) == 3


@pytest.mark.skipif(os.name != "posix", reason="names of bytes exist on POSIX only")
def test_names_that_are_no_text_are_kept(folder, index_dir):
    odd = folder / os.fsdecode(b"caf\xe9-\xf0\x9f\x90\x9d.txt")
    odd.write_bytes(b"Odd names are names too.")
    (folder / ("\u00fc" * 120 + ".txt")).write_text("A long name.")
    assert run_index(folder, index_dir).added == 5
    assert run_index(folder, index_dir).unchanged == 5
    with Index.open(index_dir) as index:
        hit = index.retriever(HashEmbedder()).search("Odd names are names too.")[0]
        assert hit.passage.document == "docs/caf\\xe9-\U0001f41d.txt"
        hit.passage.document.encode()
