from __future__ import annotations

import shutil
import sqlite3
import threading

import numpy as np
import pytest
from index_fakes import HashEmbedder, check_integrity, contents, run_index

from specrag_native.errors import IndexStoreError
from specrag_native.retrieval import store_schema
from specrag_native.retrieval.index import Index, default_index_dir
from specrag_native.retrieval.lock import writer_lock
from specrag_native.retrieval.store import vector_from_blob, vector_to_blob
from specrag_native.retrieval.store_writer import open_writer


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "docs"
    made.mkdir()
    (made / "a.txt").write_text("The river Thames flows through London. It is long.")
    (made / "b.md").write_text("# Bees\n\nBees make honey in the summer.")
    return made


@pytest.fixture
def index_dir(folder, tmp_path):
    run_index(folder, tmp_path / "index")
    return tmp_path / "index"


def database_bytes(index_dir):
    return (index_dir / "index.db").read_bytes()


def test_opening_a_folder_without_an_index_says_how_to_make_one(tmp_path):
    with pytest.raises(IndexStoreError, match=r"holds no index: make an index with specrag index"):
        Index.open(tmp_path)
    with pytest.raises(IndexStoreError, match="holds no index"):
        Index.open(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexStoreError, match="is no folder"):
        Index.open(tmp_path / "file")


def test_a_folder_of_other_files_is_not_made_an_index(tmp_path, folder):
    with pytest.raises(IndexStoreError, match="holds other files"):
        run_index(folder, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["a.txt", "b.md"]


def test_an_index_of_another_embedder_is_refused_by_readers_and_writers(index_dir, folder):
    other = HashEmbedder(name="other-model")
    before = contents(index_dir)
    with Index.open(index_dir) as index, pytest.raises(IndexStoreError) as error:
        index.retriever(other)
    assert "hash-32" in str(error.value) and "other-model" in str(error.value)
    with pytest.raises(IndexStoreError, match="use that embedder"):
        run_index(folder, index_dir, other)
    assert contents(index_dir) == before


def test_an_index_of_a_newer_version_is_refused_untouched(index_dir, folder):
    with sqlite3.connect(index_dir / "index.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = database_bytes(index_dir)
    with pytest.raises(IndexStoreError, match="schema version 999, made by a newer specrag"):
        Index.open(index_dir)
    with pytest.raises(IndexStoreError, match="upgrade specrag-native"):
        run_index(folder, index_dir)
    assert database_bytes(index_dir) == before


def older(index_dir, monkeypatch, migration):
    """Make the package one schema version newer than the index."""
    version = store_schema.SCHEMA_VERSION
    monkeypatch.setattr(store_schema, "SCHEMA_VERSION", version + 1)
    monkeypatch.setattr(store_schema, "MIGRATIONS", {**store_schema.MIGRATIONS, version: migration})
    return version


def test_an_older_index_is_migrated_by_a_writer_after_a_copy(index_dir, folder, monkeypatch):
    before = contents(index_dir)
    version = older(
        index_dir, monkeypatch, lambda c: c.execute("ALTER TABLE sources ADD COLUMN colour TEXT")
    )
    with pytest.raises(IndexStoreError, match=r"older schema version .* run specrag index once"):
        Index.open(index_dir)
    assert run_index(folder, index_dir).unchanged == 2
    assert contents(index_dir) == before
    copy = sqlite3.connect(index_dir / f"index.db.v{version}")
    assert copy.execute("PRAGMA user_version").fetchone() == (version,)
    assert copy.execute("SELECT count(*) FROM passages").fetchone() == (2,)
    copy.close()


def test_a_migration_that_fails_changes_nothing(index_dir, folder, monkeypatch):
    def fail(connection):
        connection.execute("DROP TABLE roots")
        raise sqlite3.OperationalError("database or disk is full")

    version = older(index_dir, monkeypatch, fail)
    with pytest.raises(IndexStoreError, match="no space left"):
        run_index(folder, index_dir)
    connection = sqlite3.connect(index_dir / "index.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    assert connection.execute("SELECT count(*) FROM roots").fetchone() == (1,)
    connection.close()


def test_a_version_too_old_to_migrate_is_refused(index_dir, folder):
    with sqlite3.connect(index_dir / "index.db") as connection:
        connection.execute("PRAGMA user_version = 0")
    connection.close()
    with pytest.raises(IndexStoreError, match="too old to migrate"):
        run_index(folder, index_dir)


def test_a_database_of_another_program_is_refused_untouched(tmp_path, folder):
    (tmp_path / "index").mkdir()
    connection = sqlite3.connect(tmp_path / "index" / "index.db")
    connection.execute("CREATE TABLE photos (id)")
    connection.commit()
    connection.close()
    before = database_bytes(tmp_path / "index")
    with pytest.raises(IndexStoreError, match="another program"):
        Index.open(tmp_path / "index")
    with pytest.raises(IndexStoreError, match="another program"):
        run_index(folder, tmp_path / "index")
    assert database_bytes(tmp_path / "index") == before


def test_a_damaged_database_is_reported(index_dir):
    (index_dir / "index.db").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(IndexStoreError, match="damaged or no index"):
        Index.open(index_dir)


def test_a_second_writer_is_told_who_writes_and_readers_go_on(index_dir, folder):
    with open_writer(index_dir):
        with pytest.raises(IndexStoreError, match=r"being written by process \d+ on .* since"):
            run_index(folder, index_dir)
        with Index.open(index_dir) as index:
            assert index.retriever(HashEmbedder()).search("honey")[0].passage.title == "Bees"
    assert run_index(folder, index_dir).unchanged == 2


def test_a_reader_is_not_blocked_inside_a_write_transaction(index_dir):
    with open_writer(index_dir) as writer, writer.transaction() as connection:
        connection.execute("DELETE FROM passages")
        with Index.open(index_dir) as index:
            assert index.counts.passages == 2
        raise_later = connection.execute("SELECT count(*) FROM passages").fetchone()
        assert raise_later == (0,)


def test_a_second_writer_can_wait(tmp_path):
    order = []

    def second():
        with writer_lock(tmp_path, wait_s=30):
            order.append("second")

    with writer_lock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_vectors_survive_storage_within_half_precision():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = np.stack([vector_from_blob(blob) for blob in vector_to_blob(vectors)])
    assert stored.dtype == np.float32
    assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
    assert np.abs(stored @ stored.T - vectors @ vectors.T).max() < 5e-4


def test_documents_are_found_by_the_name_their_passages_carry(index_dir):
    with Index.open(index_dir) as index:
        hit = index.retriever(HashEmbedder()).search("Which river is in London?")[0]
        text = index.document_text(hit.passage.document)
        assert text == "The river Thames flows through London. It is long."
        assert text[hit.passage.start : hit.passage.end] == hit.passage.text
        assert index.text_around(hit.passage) == text
        assert [p.text for p in index.document_passages(hit.passage.document)] == [text]
        assert index.document_text("no such") is None
        assert index.document_passages("no such") == []


def test_a_closed_index_says_so(index_dir):
    index = Index.open(index_dir)
    index.close()
    with pytest.raises(IndexStoreError, match="is closed"):
        _ = index.counts


def test_an_empty_index_can_be_made_and_searched(tmp_path):
    with Index.create(tmp_path / "new", "hash-32", 32) as index:
        assert index.counts.passages == 0 and index.dim == 32
        assert index.retriever(HashEmbedder()).search("anything") == []
    assert "new" in repr(index)


def test_the_default_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("SPECRAG_INDEX", raising=False)
    assert str(default_index_dir()) == ".specrag"
    monkeypatch.setenv("SPECRAG_INDEX", "/somewhere/else")
    assert str(default_index_dir()) == "/somewhere/else"


def test_an_index_can_be_read_where_nothing_can_be_written(index_dir, monkeypatch):
    before = contents(index_dir)
    real = sqlite3.connect

    def read_only_disk(name, *args, **kwargs):
        if "mode=ro" in str(name):
            raise sqlite3.OperationalError("unable to open database file")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(store_schema.os, "access", lambda *args: False)
    monkeypatch.setattr(store_schema.sqlite3, "connect", read_only_disk)
    assert contents(index_dir) == before


def test_a_folder_moves_with_the_index_inside_it(tmp_path, folder):
    run_index(folder, folder / ".specrag")
    moved = shutil.move(folder, tmp_path / "moved")
    from pathlib import Path

    report = run_index(Path(moved), Path(moved) / ".specrag")
    assert report.unchanged == 2 and report.embedded == 0
    check_integrity(Path(moved) / ".specrag")


def full_disk(monkeypatch, pages):
    """Let SQLite meet a full disk after so many pages."""
    real = store_schema._open

    def limited(path, *, write):
        connection = real(path, write=write)
        if write:
            (now,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count={now + pages}")
        return connection

    monkeypatch.setattr(store_schema, "_open", limited)


@pytest.mark.parametrize("pages", [0, 3, 12])
def test_a_full_disk_is_told_and_nothing_is_lost(index_dir, folder, monkeypatch, pages, tmp_path):
    before = contents(index_dir)
    rng = np.random.default_rng(1)
    for i in range(30):
        words = " ".join(f"word{n}" for n in rng.integers(0, 9999, 600))
        (folder / f"large{i}.txt").write_text(words)
    with monkeypatch.context() as patch:
        full_disk(patch, pages)
        with pytest.raises(IndexStoreError, match=r"no space left .* nothing was lost"):
            run_index(folder, index_dir)
    check_integrity(index_dir)
    with Index.open(index_dir) as index:
        assert index.retriever(HashEmbedder()).search("honey", 1)[0].passage.title == "Bees"
    if pages == 0:
        assert [row for row in contents(index_dir) if row[0] == "source"] == [
            row for row in before if row[0] == "source"
        ]
    run_index(folder, index_dir)
    run_index(folder, tmp_path / "fresh")
    assert contents(index_dir) == contents(tmp_path / "fresh")


def test_a_derived_index_that_cannot_be_written_is_told_and_the_index_answers(
    index_dir, folder, monkeypatch
):
    import faiss

    def fail(index, name):
        raise RuntimeError("write error: No space left on device")

    (folder / "new.txt").write_text("Whales dive.")
    with monkeypatch.context() as patch:
        patch.setattr(faiss, "write_index", fail)
        with pytest.raises(IndexStoreError, match=r"No space left on device.* nothing was lost"):
            run_index(folder, index_dir)
    with Index.open(index_dir) as index:
        assert "Whales" in index.retriever(HashEmbedder()).search("Whales dive")[0].passage.text
    assert run_index(folder, index_dir).unchanged == 3
