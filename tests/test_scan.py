from __future__ import annotations

import os
from pathlib import Path

import pytest
from index_fakes import run_index

from specrag_native.errors import DocumentError
from specrag_native.retrieval import scan as scan_module
from specrag_native.retrieval.scan import ScanOptions, scan


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")


def names(folder: Path, **options) -> list[str]:
    result = scan([folder], options=ScanOptions(**options))
    return [file.path.relative_to(folder).as_posix() for file in result.files]


def test_files_come_in_the_order_of_their_names_and_once(tmp_path):
    make(tmp_path, "b.txt", "a/z.txt", "a/b/c.md", "c.txt")
    expected = ["b.txt", "c.txt", "a/z.txt", "a/b/c.md"]
    assert names(tmp_path) == expected
    twice = scan([tmp_path, tmp_path / "b.txt", tmp_path / "a"])
    assert len(twice.files) == 4


def test_hidden_files_are_left_out_unless_asked_for(tmp_path):
    make(tmp_path, "a.txt", ".b.txt", ".git/c.txt")
    assert names(tmp_path) == ["a.txt"]
    assert names(tmp_path, hidden=True) == [".b.txt", "a.txt", ".git/c.txt"]


def test_ignore_files_hold_for_their_folder_and_the_inner_one_wins(tmp_path):
    make(tmp_path, "a.txt", "b.log", "sub/b.log", "sub/keep.log", "build/x.txt", "sub/deep/y.txt")
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\n/a.txt\n")
    (tmp_path / "sub" / ".specragignore").write_text("!keep.log\ndeep\n")
    assert names(tmp_path) == ["sub/keep.log"]
    assert len(names(tmp_path, ignore_files=False)) == 6


def test_an_ignore_file_that_is_no_text_is_survived(tmp_path):
    make(tmp_path, "a.txt")
    (tmp_path / ".gitignore").write_bytes(b"\xff\xfe\x00[\n[a-\n[z-a]\n!\n")
    assert names(tmp_path) == ["a.txt"]


def test_links_are_not_followed_unless_asked_and_loops_end(tmp_path):
    make(tmp_path / "docs", "a.txt", "sub/b.txt")
    make(tmp_path / "other", "c.txt")
    (tmp_path / "docs" / "loop").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / "sub" / "up").symlink_to("..")
    (tmp_path / "docs" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "docs" / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "docs" / "self.txt").symlink_to("self.txt")
    assert names(tmp_path / "docs") == ["a.txt", "sub/b.txt"]
    followed = names(tmp_path / "docs", follow_links=True)
    assert sorted(followed) == ["a.txt", "more/c.txt", "sub/b.txt"]


def test_the_index_is_not_indexed(tmp_path):
    make(tmp_path, "a.txt", "ix/b.txt")
    result = scan([tmp_path], exclude=tmp_path / "ix")
    assert [file.path.name for file in result.files] == ["a.txt"]


def test_a_missing_path_is_an_error_before_anything_is_read(tmp_path):
    make(tmp_path, "a.txt")
    with pytest.raises(DocumentError, match=r"no such file or folder: .*missing"):
        scan([tmp_path, tmp_path / "missing"])


def test_a_named_file_without_reader_is_reported_and_others_are_counted(tmp_path):
    make(tmp_path, "a.txt", "b.png", "c.PNG", "d")
    result = scan([tmp_path])
    assert dict(result.unknown) == {".png": 2, "(no suffix)": 1}
    assert scan([tmp_path / "b.png"]).failed == [(tmp_path / "b.png", "no reader for .png files")]


def test_a_folder_that_cannot_be_listed_is_reported_and_keeps_its_files(tmp_path, monkeypatch):
    make(tmp_path / "docs", "a.txt", "locked/b.txt")
    run_index(tmp_path / "docs", tmp_path / "index")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(scan_module.os, "scandir", scandir)
    report = run_index(tmp_path / "docs", tmp_path / "index")
    assert (report.unchanged, report.removed) == (1, 0)
    assert report.skipped[0].reason == "Permission denied"


@pytest.mark.skipif(not hasattr(os, "fwalk"), reason="needs folders opened by descriptor")
def test_a_path_longer_than_the_system_allows_is_reported(tmp_path):
    make(tmp_path, "a.txt")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    result = scan([tmp_path])
    assert [file.path.name for file in result.files] == ["a.txt"]
    assert any("too long" in reason for _, reason in result.failed)
