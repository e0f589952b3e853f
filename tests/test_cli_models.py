from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from model_world import catalogue_of, gguf_bytes, isolate, model_of, sha256

from specrag_native.cli import models as models_command
from specrag_native.cli import pull as pull_command
from specrag_native.errors import ModelNotFoundError
from specrag_native.model_files import catalog, fetch

TOY, OTHER = gguf_bytes(), gguf_bytes("bert", pooling=1)


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = isolate(monkeypatch, tmp_path)
    toys = catalogue_of(
        model_of(TOY),
        model_of(TOY, name="judge", role="verifier"),
        model_of(OTHER, name="embeds", role="embedder"),
    )
    monkeypatch.setattr(catalog, "catalogue", lambda: toys)
    folder.mkdir(parents=True)
    (folder / "toy.gguf").write_bytes(TOY)
    return folder


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(required=True)
    pull_command.add_parser(subparsers)
    models_command.add_parser(subparsers)
    args = parser.parse_args(words)
    result: int = args.run(args)
    return result


def test_the_table_tells_what_is_here_and_how_to_get_the_rest(
    capsys: pytest.CaptureFixture[str], models: Path
) -> None:
    assert command("models") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["NAME", "ROLE", "FETCH", "LICENCE"]
    assert str(models / "toy.gguf") in rows[0] and rows[0].startswith("*  toy")
    assert rows[2].endswith("no; specrag pull embeds")


def test_the_list_as_json_has_every_model(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    assert command("models", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(models)
    toy, _, embeds = told["models"]
    assert toy["present"] and toy["path"] == str(models / "toy.gguf") and toy["size"] == len(TOY)
    assert (embeds["present"], embeds["path"], embeds["role"]) == (False, None, "embedder")


def test_pull_without_a_name_takes_the_default_of_each_role(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path
) -> None:
    pulled: list[str] = []

    def fake(name: str, **_: object) -> catalog.ResolvedModel:
        pulled.append(name)
        return catalog.ResolvedModel(name=name, path=models / "toy.gguf")

    monkeypatch.setattr(fetch, "pull", fake)
    assert command("pull") == 0
    assert pulled == ["toy", "judge", "embeds"]
    assert capsys.readouterr().out.splitlines()[0] == f"toy  {models / 'toy.gguf'}"


def test_pull_as_json_tells_path_and_sha256(
    capsys: pytest.CaptureFixture[str], models: Path
) -> None:
    assert command("pull", "toy", "toy", "--json") == 0
    told = capsys.readouterr()
    (model,) = json.loads(told.out)["models"]
    assert (model["path"], model["sha256"]) == (str(models / "toy.gguf"), sha256(TOY))
    assert told.err == ""  # no progress where nobody watches


def test_a_wrong_name_is_refused_before_anything_is_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "pull", lambda *a, **k: pytest.fail("pulled"))
    with pytest.raises(ModelNotFoundError, match="no model is called 'nonsense'"):
        command("pull", "toy", "nonsense")


def test_a_terminal_sees_a_bar_per_file_and_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pull_command._Bars(shown=True) as bars:
        for done in (0, 50, 100):
            bars.show(fetch.Progress("toy", "toy.gguf", "package", done, 100))
        bars.show(fetch.Progress("toy", "toy.gguf", "prepare", 100, 100))
    drawn = capsys.readouterr().err
    assert "fetching toy.gguf: 100%" in drawn and "preparing toy.gguf: 100%" in drawn
