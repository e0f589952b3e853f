from __future__ import annotations

import shutil
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_world import FakeHub, fake_hub, gguf_bytes, isolate, sha256

from specrag_native.errors import Cancelled, ModelFileError, ModelNotFoundError, UserError
from specrag_native.model_files import catalog, fetch, hub
from specrag_native.model_files.hub import HubRef, choose, parse_ref, shards

TOY = gguf_bytes()
QUANTS = ["x-Q4_0.gguf", "x-Q4_K_M.gguf", "x-Q4_K_S.gguf", "x-Q8_0.gguf", "mmproj-Q8_0.gguf"]
SPLIT = [f"big-q4_k_m-{n:05}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return isolate(monkeypatch, tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with fake_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("a/b", HubRef("a/b")),
        ("Qwen/Qwen2.5-1.5B-GGUF:q4_k_m", HubRef("Qwen/Qwen2.5-1.5B-GGUF", "Q4_K_M")),
        ("hf:a/b:Q8_0", HubRef("a/b", "Q8_0")),
        ("hf://a/b/sub/x.gguf", HubRef("a/b", file="sub/x.gguf")),
        ("a/b/x.gguf", None),  # a path
        ("a/x.gguf", None),
        ("../b", None),
        ("./b", None),
        ("/a/b", None),
        ("a", None),
        ("a/b c", None),
        ("C:\\a\\b", None),
        ("", None),
    ],
)
def test_a_reference_is_told_from_a_path(text: str, ref: HubRef | None) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    ("ref", "file"),
    [
        (HubRef("a/b", "Q4_0"), "x-Q4_0.gguf"),
        (HubRef("a/b", "Q4_K_M"), "x-Q4_K_M.gguf"),
        (HubRef("a/b", "Q8_0"), "x-Q8_0.gguf"),  # not the vision projector
        (HubRef("a/b"), "x-Q4_K_M.gguf"),
        (HubRef("a/b", file="x-Q4_K_S.gguf"), "x-Q4_K_S.gguf"),
    ],
)
def test_the_file_with_the_whole_quant_in_its_name_is_chosen(ref: HubRef, file: str) -> None:
    assert choose(QUANTS, ref) == file


def test_a_quant_that_is_not_there_lists_what_is() -> None:
    with pytest.raises(ModelFileError, match=r"no GGUF file for a/b:Q4_K; .*x-Q4_K_M\.gguf"):
        choose(QUANTS, HubRef("a/b", "Q4_K"))
    with pytest.raises(ModelFileError, match="its GGUF files: none"):
        choose(["README.md", "model.safetensors"], HubRef("a/b"))


def test_a_quant_of_several_files_asks_for_one() -> None:
    with pytest.raises(ModelFileError, match=r"fits several files: a-Q8_0.gguf, b-Q8_0.gguf; name"):
        choose(["a-Q8_0.gguf", "b-Q8_0.gguf"], HubRef("a/b", "Q8_0"))


def test_a_split_model_is_chosen_by_its_first_part_and_needs_all() -> None:
    assert choose(SPLIT, HubRef("a/b", "Q4_K_M")) == SPLIT[0]
    assert shards(SPLIT[0], SPLIT) == SPLIT
    assert shards("x-Q4_0.gguf", QUANTS) == ["x-Q4_0.gguf"]
    with pytest.raises(ModelFileError, match=r"big-q4_k_m-00003-of-00003\.gguf is missing"):
        shards(SPLIT[0], SPLIT[:2])


def test_a_repository_is_pulled_into_the_hugging_face_cache_once(
    server: FakeHub, tmp_path: Path
) -> None:
    server.files = {("a/b", "x-Q4_K_M.gguf"): TOY, ("a/b", "x-Q8_0.gguf"): TOY + b"more"}
    seen: list[fetch.Progress] = []
    found = fetch.pull("a/b:q4_k_m", progress=seen.append)
    assert found.path.read_bytes() == TOY
    assert found.path.is_relative_to(tmp_path / "hf" / "hub" / "models--a--b")
    assert any(p.stage == "hub" and p.done == p.total == len(TOY) for p in seen)
    asked = len(server.asked)
    assert fetch.pull("a/b:Q4_K_M").path == found.path == catalog.resolve("a/b:Q4_K_M").path
    assert len(server.asked) == asked


def test_a_split_model_is_pulled_whole(server: FakeHub) -> None:
    server.files = {("a/b", name): TOY for name in SPLIT}
    found = fetch.pull("a/b")
    assert found.path.name == SPLIT[0]
    assert all((found.path.parent / name).is_file() for name in SPLIT)


def test_what_the_hub_sends_is_checked_against_what_it_promised(server: FakeHub) -> None:
    server.files = {("a/b", "x.gguf"): TOY}
    server.said_sha256 = {("a/b", "x.gguf"): sha256(b"another file")}
    with pytest.raises(ModelFileError, match="wrong sha256"):
        fetch.pull("a/b")


def test_a_repository_that_does_not_exist_is_named(server: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match="model a/none could not be fetched"):
        fetch.pull("a/none")


def test_a_full_disk_under_the_hugging_face_cache_is_told(
    monkeypatch: pytest.MonkeyPatch, server: FakeHub, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(100, 90, 10))
    server.files = {("a/b", "x.gguf"): TOY}
    with pytest.raises(UserError) as caught:
        fetch.pull("a/b")
    assert f"({len(TOY)} bytes)" in str(caught.value) and "set HF_HOME" in str(caught.value)
    assert str(tmp_path / "hf" / "hub") in str(caught.value)


def test_a_cancelled_download_stops(server: FakeHub) -> None:
    import threading

    server.files = {("a/b", "x.gguf"): TOY}
    cancel = threading.Event()

    def stop(progress: fetch.Progress) -> None:
        cancel.set()

    with pytest.raises(Cancelled):
        fetch.pull("a/b", progress=stop, cancel=cancel)
    with pytest.raises(ModelNotFoundError):
        catalog.resolve("a/b")


def test_a_hub_out_of_reach_is_given_up_at_once_and_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = time.monotonic()
    with pytest.raises(ModelNotFoundError, match=r"cannot be reached .*check the name and"):
        fetch.pull("a/b")
    assert time.monotonic() - started < 5
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(ModelNotFoundError, match="cannot be reached"):
        fetch.pull("a/b")


def test_a_hub_that_never_answers_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: release.wait(30))
    started = time.monotonic()
    with pytest.raises(ModelNotFoundError, match="did not answer within"):
        fetch.pull("a/b")
    release.set()
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "SPECRAG_OFFLINE"])
def test_offline_mode_asks_no_hub(
    monkeypatch: pytest.MonkeyPatch, server: FakeHub, variable: str
) -> None:
    server.files = {("a/b", "x.gguf"): TOY}
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelNotFoundError, match=f"{variable} forbids"):
        fetch.pull("a/b")
    assert server.asked == []
