"""The commands around an index, with a fake embedder in place of a model."""

from __future__ import annotations

import argparse
import importlib
import json

import pytest
from index_fakes import HashEmbedder, contents

from specrag_native.errors import ConfigError, DocumentError, IndexStoreError, QuestionError
from specrag_native.retrieval.lock import writer_lock
from tests.tiny_model import write_tiny

COMMANDS = ("index", "status", "remove", "rebuild", "search")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command line in ``tmp_path``; return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPECRAG_INDEX", raising=False)
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for name in COMMANDS:
        module = importlib.import_module(f"specrag_native.cli.{name}")
        module.add_parser(subparsers)
        if hasattr(module, "open_embedder"):
            monkeypatch.setattr(module, "open_embedder", lambda args: HashEmbedder())

    def run(*line: str) -> str:
        args = parser.parse_args(line)
        assert args.run(args) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "bees.md").write_text("# On bees\n\nBees make honey from nectar.")
    (folder / "river.txt").write_text("The river runs to the sea.")
    (folder / "broken.json").write_text("{")
    return folder


def test_index_makes_an_index_and_says_what_was_skipped(call, docs):
    out = call("index", "docs")
    assert ".specrag: 2 added, 1 skipped; 2 passages, 2 embedded" in out
    assert "skipped docs/broken.json: no JSON" in out
    again = json.loads(call("index", "--json"))
    assert again["unchanged"] == 2 and again["embedded"] == 0
    assert again["skipped"][0]["path"] == "docs/broken.json"


def test_both_models_can_read_passages_ahead(call, docs, tmp_path):
    tiny = str(write_tiny(tmp_path / "tiny.gguf"))
    models = ("--drafter", tiny, "--verifier", tiny, "--threads", "1")
    done = json.loads(call("index", "docs", "--precompute", "1", "--json", *models))["precompute"]
    assert [done[reader]["computed"] for reader in ("drafter", "verifier")] == [2, 2]
    again = call("index", "--precompute", "1", "--drafter", tiny)
    assert "2 passages kept as the drafter read them (0 of them now)" in again
    assert "verifier" not in again
    assert len(list((tmp_path / ".specrag" / "passages").glob("*.kv"))) == 4
    call("index", "--precompute", "0")
    assert not (tmp_path / ".specrag" / "passages").exists()


def test_the_folder_of_the_index_can_be_named(call, docs, monkeypatch):
    call("index", "docs", "--index", "elsewhere")
    monkeypatch.setenv("SPECRAG_INDEX", "elsewhere")
    assert json.loads(call("status", "--json"))["passages"] == 2


def test_status_shows_what_is_there(call, docs):
    call("index", "docs")
    out = call("status", "--files", "--skipped")
    assert ".specrag: 2 files, 2 documents, 2 passages" in out
    assert "hash-32, 32 dimensions" in out and "docs/bees.md" in out and "no JSON" in out
    facts = json.loads(call("status", "--json"))
    assert facts["files"] == 2 and facts["bytes"] > 0 and facts["writer"] is None
    with writer_lock(docs.parent / ".specrag"):
        assert json.loads(call("status", "--json"))["writer"].startswith("process ")


def test_remove_takes_files_out_and_leaves_them_on_disk(call, docs):
    call("index", "docs")
    assert "1 files removed" in call("remove", "docs/bees.md")
    assert (docs / "bees.md").exists()
    assert json.loads(call("status", "--json"))["files"] == 1
    with pytest.raises(DocumentError, match=r"holds nothing of nowhere\.txt"):
        call("remove", "docs/river.txt", "nowhere.txt")
    assert json.loads(call("status", "--json"))["files"] == 1
    assert json.loads(call("remove", "docs", "--json"))["removed"] == 2
    assert json.loads(call("status", "--json"))["roots"] == []


def test_rebuild_keeps_content_and_embeds_nothing(call, docs):
    call("index", "docs")
    before = contents(docs.parent / ".specrag")
    report = json.loads(call("rebuild", "--json"))
    assert report["changed"] == 2 and report["embedded"] == 0
    assert contents(docs.parent / ".specrag") == before


def test_search_shows_hits_with_scores_and_marks_words(call, docs):
    call("index", "docs")
    out = call("search", "Do bees make honey?", "--top", "1")
    assert "On bees  [score 0." in out and "cosine" in out
    assert "docs/bees.md, characters" in out
    assert "*Bees* *make* *honey* from nectar" in out and "river" not in out
    found = json.loads(call("search", "river", "--json", "--mode", "words"))
    assert [hit["document"] for hit in found["hits"]] == ["docs/river.txt"]
    assert found["hits"][0]["cosine"] is None
    assert call("search", "zebra", "--mode", "words") == "no passages found\n"


def test_what_a_document_holds_cannot_steer_the_terminal(call, docs):
    (docs / "evil.txt").write_text("Bees\x1b[2J and \x07 bells \u202e reversed")
    call("index", "docs")
    out = call("search", "bells", "--mode", "words")
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        (["index"], DocumentError, "name a file or a folder"),
        (["index", "missing"], DocumentError, "no such file or folder: missing"),
        (["index", "docs", "--words", "3"], ConfigError, "10 to 2000 words"),
        (["index", "docs", "--encoding", "klingon"], ConfigError, "no encoding is called"),
        (["index", "docs", "--file-seconds", "0"], ConfigError, "must be above 0"),
        (["index", "docs", "--verifier", "x"], ConfigError, "--verifier goes with --precompute"),
        (["index", "docs", "--with-verifier"], ConfigError, "goes with --precompute"),
        (["index", "docs", "--index", "docs"], IndexStoreError, "holds other files"),
        (["status"], IndexStoreError, "holds no index"),
        (["search", "x"], IndexStoreError, "holds no index"),
        (["search", " "], QuestionError, "empty"),
        (["remove", "docs"], IndexStoreError, "holds no index"),
    ],
)
def test_mistakes_are_told_in_one_line_before_a_model_is_loaded(
    call, docs, line, error, message, monkeypatch
):
    def never(args):
        raise AssertionError("a model was loaded")

    for name in ("index", "rebuild"):
        monkeypatch.setattr(f"specrag_native.cli.{name}.open_embedder", never)
    with pytest.raises(error, match=message) as caught:
        call(*line)
    assert "\n" not in str(caught.value)
    assert not (docs.parent / ".specrag").exists()
