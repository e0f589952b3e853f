from __future__ import annotations

import builtins
import importlib
import threading
import time

import pytest
from index_fakes import HashEmbedder, run_index

from specrag_native.errors import DocumentError
from specrag_native.retrieval.index import Index
from specrag_native.retrieval.lock import writer_lock
from specrag_native.retrieval.watch import watch_paths


def waited_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_watched_folder_is_indexed_as_it_changes(tmp_path):
    pytest.importorskip("watchfiles")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The first file.")
    reports, stop = [], threading.Event()

    def watch():
        watching = watch_paths(
            [folder],
            index_dir=folder / ".specrag",
            embedder=HashEmbedder(),
            stop=stop,
            settle_ms=100,
        )
        reports.extend(iter(lambda: next(watching, None), None))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert waited_for(lambda: (folder / ".specrag" / "index.db").exists())

        def texts():
            (folder / "b.txt").write_text(f"A second file, written at {time.time_ns()}.")
            with Index.open(folder / ".specrag") as index:
                hits = index.retriever(HashEmbedder()).search("second", 5)
            return [hit.passage.text for hit in hits]

        assert waited_for(lambda: any("second" in text for text in texts()))
        with writer_lock(folder / ".specrag", wait_s=30):
            (folder / "c.txt").write_text("A third file, written while another one writes.")
            time.sleep(0.5)

        def third():
            (folder / "b.txt").write_text(f"Changed at {time.time_ns()}.")
            with Index.open(folder / ".specrag") as index:
                return index.document_text("c.txt") is not None

        assert waited_for(third)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_watching_without_the_library_names_the_extra(tmp_path, monkeypatch):
    real = importlib.import_module

    def missing(name, *args):
        if name == "watchfiles":
            raise builtins.ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DocumentError, match="watchfiles"):
        next(watch_paths([tmp_path], index_dir=tmp_path / "ix", embedder=HashEmbedder()))


def test_what_is_watched_by_default_is_what_was_indexed(tmp_path):
    pytest.importorskip("watchfiles")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    run_index(folder, tmp_path / "ix")
    watching = watch_paths([], index_dir=tmp_path / "ix", embedder=HashEmbedder())
    assert next(watching).unchanged == 1
    watching.close()
