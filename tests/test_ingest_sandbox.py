from __future__ import annotations

import os
import random
import signal
import sys
import textwrap
import time
from pathlib import Path

import index_files as make
import pytest
from index_fakes import HashEmbedder, check_integrity, run_index

from specrag_native.errors import DocumentError
from specrag_native.ingest import Reader, ReadLimits, read_documents, reader_for, register
from specrag_native.ingest.registry import Registry
from specrag_native.ingest.sandbox import Sandbox
from specrag_native.retrieval.index import Index
from specrag_native.retrieval.index_types import IndexOptions

HOSTILE = textwrap.dedent(
    """
    import os, time
    from specrag_native.ingest import Document

    def hang(path, limits):
        while True:
            pass
        yield

    def crash(path, limits):
        os.kill(os.getpid(), 11)
        yield

    def leave(path, limits):
        os._exit(3)
        yield

    def eat(path, limits):
        hoard = bytearray(8 << 30)
        yield Document(str(len(hoard)))

    def chatter(path, limits):
        print("noise on stdout")
        os.write(1, b"more noise")
        yield Document("clean", key="k", title="t", pages=(0, 2), layout="lines")
        return "a note"

    def raise_odd(path, limits):
        raise KeyError("odd")
        yield
    """
)


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "hostile_readers.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"x")
    sandbox = Sandbox()

    def read(function, **limits):
        reader = Reader(
            name="hostile", suffixes=(), function=f"hostile_readers:{function}", isolated=True
        )
        reading = read_documents(path, reader, limits=ReadLimits(**limits), sandbox=sandbox)
        return list(reading)

    yield read
    sandbox.close()


def test_a_reader_that_hangs_is_stopped_and_the_next_file_is_read(hostile, monkeypatch):
    monkeypatch.setattr("specrag_native.ingest.sandbox._GRACE_S", 0.5)
    started = time.monotonic()
    with pytest.raises(DocumentError, match=r"longer than 0\.5 seconds"):
        hostile("hang", seconds=0.5)
    assert time.monotonic() - started < 10
    assert hostile("chatter", seconds=30)[0].text == "clean"


@pytest.mark.parametrize(("function", "code"), [("crash", "signal 11"), ("leave", "exit code 3")])
def test_a_reader_that_dies_is_reported(hostile, function, code):
    with pytest.raises(DocumentError, match=f"its parser crashed .{code}"):
        hostile(function)
    assert hostile("chatter")[0].text == "clean"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of address space")
def test_a_reader_that_eats_memory_is_stopped(hostile):
    with pytest.raises(DocumentError, match="more memory than a file may take"):
        hostile("eat", memory_bytes=2 << 30)


def test_what_a_reader_raises_or_prints_does_not_leave_the_child(hostile):
    with pytest.raises(DocumentError, match=r"broken hostile file \(KeyError"):
        hostile("raise_odd")
    (document,) = hostile("chatter")
    assert (document.key, document.title, document.pages, document.layout) == (
        "k",
        "t",
        (0, 2),
        "lines",
    )


def test_the_child_is_used_again_for_the_next_file(hostile, tmp_path):
    sandbox = Sandbox()
    make.make_html(tmp_path / "a.html")
    reader = reader_for("a.html")
    pids = set()
    for _ in range(3):
        list(read_documents(tmp_path / "a.html", reader, limits=ReadLimits(), sandbox=sandbox))
        pids.add(sandbox._child.pid)
    assert len(pids) == 1
    os.kill(pids.pop(), signal.SIGKILL)
    time.sleep(0.1)
    list(read_documents(tmp_path / "a.html", reader, limits=ReadLimits(), sandbox=sandbox))
    sandbox.close()
    assert sandbox._child is None


def test_a_reader_can_be_plugged_in(hostile, tmp_path):
    register(
        Reader(
            name="noise", suffixes=(".noise",), function="hostile_readers:chatter", isolated=True
        )
    )
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.noise").write_text("x")
    report = run_index(folder, tmp_path / "index")
    assert report.added == 1 and report.notes[0].reason == "a note"


def test_a_plug_in_that_cannot_be_loaded_is_logged_and_left_out(monkeypatch, caplog):
    class Entry:
        def __init__(self, name, value):
            self.name = name
            self.value = value

        def load(self):
            if isinstance(self.value, Exception):
                raise self.value
            return self.value

    good = Reader(name="good", suffixes=(".good",), function="x:y")
    entries = [Entry("bad", ImportError("gone")), Entry("odd", 7), Entry("fine", good)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: entries)
    registry = Registry()
    assert registry.find("a.good") is good
    assert "bad cannot be loaded" in caplog.text and "odd is no Reader" in caplog.text
    assert good in registry.all()


MAKERS = {
    "html": make.make_html,
    "epub": make.make_epub,
    "pdf": lambda path: make.make_pdf(path, ["One page of text about bees."] * 3),
    "docx": make.make_docx,
    "pptx": make.make_pptx,
    "xlsx": make.make_xlsx,
    "txt": lambda path: path.write_text("Plain text about bees. " * 20),
    "md": lambda path: path.write_text("# Bees\n\ntext " * 20),
    "csv": lambda path: path.write_text("a,b\n1,2\n" * 20),
    "json": lambda path: path.write_text('{"a": [1, 2, {"b": "text"}]}' + " " * 50),
    "jsonl": lambda path: path.write_text('{"id": "1", "text": "words"}\n' * 20),
    "py": lambda path: path.write_text("def f():\n    return 1\n" * 20),
}
NEEDS = {"pdf": ("pypdf", "reportlab"), "docx": ("docx",), "pptx": ("pptx",), "xlsx": ("openpyxl",)}


def broken_copies(data: bytes, rng: random.Random, n: int):
    """Yield truncated, overwritten, shuffled and random versions of a file."""
    yield b""
    yield rng.randbytes(4000)
    yield data[:8] + rng.randbytes(4000)
    for _ in range(n):
        kind = rng.randrange(4)
        if kind == 0:
            yield data[: rng.randrange(len(data))]
        elif kind == 1:
            changed = bytearray(data)
            for _ in range(rng.randrange(1, 40)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            yield bytes(changed)
        elif kind == 2:
            cut = rng.randrange(len(data))
            yield data[cut:] + data[:cut]
        else:
            at = rng.randrange(len(data))
            yield data[:at] + rng.randbytes(64) + data[at:]


@pytest.mark.parametrize("suffix", sorted(MAKERS))
def test_broken_files_of_every_format_are_read_or_reported(suffix, tmp_path):
    for module in NEEDS.get(suffix, ()):
        pytest.importorskip(module)
    MAKERS[suffix](tmp_path / f"good.{suffix}")
    data = (tmp_path / f"good.{suffix}").read_bytes()
    rng = random.Random(suffix)
    reader = reader_for(f"a.{suffix}")
    sandbox = Sandbox()
    limits = ReadLimits(seconds=20)
    read = 0
    started = time.monotonic()
    for i, broken in enumerate(broken_copies(data, rng, 24)):
        path = tmp_path / f"{i}.{suffix}"
        path.write_bytes(broken)
        try:
            for document in read_documents(path, reader, limits=limits, sandbox=sandbox):
                document.text.encode("utf-8")
                read += 1
        except DocumentError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
    sandbox.close()
    assert time.monotonic() - started < 60


def test_a_folder_of_every_format_is_indexed_and_broken_files_are_skipped(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    suffixes = [s for s in MAKERS if all(_has(module) for module in NEEDS.get(s, ()))]
    for suffix in suffixes:
        MAKERS[suffix](folder / f"good.{suffix}")
    if "pdf" in suffixes:
        make.make_image_pdf(folder / "image.pdf")
        make.make_pdf(folder / "locked.pdf", ["Secret"], password="pass")
        data = (folder / "good.pdf").read_bytes()
        (folder / "cut.pdf").write_bytes(data[: len(data) // 3])
    (folder / "bad.epub").write_bytes(b"PK\x03\x04")
    report = run_index(folder, tmp_path / "index", options=IndexOptions())
    assert report.added == len(suffixes)
    skipped = {Path(s.path).name for s in report.skipped}
    assert skipped == {"bad.epub"} | (
        {"image.pdf", "locked.pdf", "cut.pdf"} if "pdf" in suffixes else set()
    )
    check_integrity(tmp_path / "index")
    if "pdf" in suffixes:
        with Index.open(tmp_path / "index") as index:
            pages = [p.page for p in index.document_passages("docs/good.pdf")]
            assert pages == [1, 2, 3]
            assert index.retriever(HashEmbedder()).search("page of text about bees", 1)


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None
