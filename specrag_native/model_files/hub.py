"""The Hugging Face hub and its cache on this machine, as a source of model files.

Law: a file already in the cache is used as it is; the network is asked only by ``list_files`` and
``download``, and a hub that cannot be reached is given up within seconds, once a minute at most.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specrag_native.errors import Cancelled, ModelFileError

PROBE_SECONDS = 6.0
"""Longest wait for a hub's first answer."""

_REF = re.compile(
    r"(?P<hf>hf:(//)?)?(?P<repo>[\w.-]+/[\w.-]+?)"
    r"(?:/(?P<file>[\w./+-]+\.gguf)|:(?P<quant>[\w.-]+))?",
    re.ASCII,
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_DEFAULT_QUANTS = ("Q4_K_M", "Q8_0")
_RETRY_S = 60.0
_unreachable: dict[str, tuple[float, str]] = {}  # endpoint -> until when (monotonic s), why


class HubError(Exception):
    """The hub did not give a file; the message says why."""


@dataclass(frozen=True, slots=True)
class HubRef:
    """A model named by its place on the hub: ``user/repo``, ``user/repo:QUANT`` or one file."""

    repo: str
    quant: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """The reference as a user writes it."""
        if self.file:
            return f"hf:{self.repo}/{self.file}"
        return f"{self.repo}:{self.quant}" if self.quant else self.repo


def parse_ref(text: str) -> HubRef | None:
    """Read ``user/repo``, ``user/repo:QUANT`` or ``hf:user/repo/file.gguf``; None if it is none."""
    match = _REF.fullmatch(text)
    if match is None or (text.endswith(".gguf") and not match["hf"]):  # that is a path
        return None
    if any(part.strip(".") == "" for part in match["repo"].split("/")):
        return None
    return HubRef(match["repo"], (match["quant"] or "").upper(), match["file"] or "")


def choose(files: Sequence[str], ref: HubRef) -> str:
    """Return the file of a repository that ``ref`` means (of a split model, its first part).

    Raises ModelFileError when none or several fit, naming what there is.
    """
    names = sorted(f for f in files if f.endswith(".gguf") and "mmproj" not in f.lower())
    names = [f for f in names if not (m := _SHARD.search(f)) or int(m[1]) == 1]
    if ref.file:
        found = [f for f in names if f == ref.file]
    elif ref.quant:
        found = [f for f in names if _has_quant(f, ref.quant)]
    else:
        found = names
        for quant in _DEFAULT_QUANTS:
            if len(found) > 1 and (some := [f for f in names if _has_quant(f, quant)]):
                found = some
    if len(found) == 1:
        return found[0]
    have = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"
    if not found:
        raise ModelFileError(f"{ref.repo} has no GGUF file for {ref.name}; its GGUF files: {have}")
    raise ModelFileError(
        f"{ref.name} fits several files: {', '.join(found)}; name one as hf:{ref.repo}/FILE.gguf"
    )


def _has_quant(file: str, quant: str) -> bool:
    """True when ``quant`` stands whole in the file's path: Q4_K is not in ``x-Q4_K_M.gguf``."""
    pattern = rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])"
    return re.search(pattern, file, re.IGNORECASE) is not None


def shards(file: str, files: Sequence[str]) -> list[str]:
    """Return all parts of the split model that ``file`` begins; ``[file]`` when it is not split."""
    match = _SHARD.search(file)
    if match is None:
        return [file]
    stem, count = file[: match.start()], int(match[2])
    parts = [f"{stem}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
    if missing := [p for p in parts if p not in files]:
        raise ModelFileError(
            f"{file} is split into {count} parts, of which {missing[0]} is missing"
        )
    return parts


def cache_dir() -> Path:
    """Return the Hugging Face cache folder, as its own library places it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(variable):
            return Path(chosen).expanduser()
    if chosen := os.environ.get("HF_HOME"):
        return Path(chosen).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def snapshots(repo: str) -> Iterator[Path]:
    """Yield the cached versions of a repository, the one that ``main`` points at first."""
    folder = cache_dir() / f"models--{repo.replace('/', '--')}"
    try:
        main = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        found = sorted((folder / "snapshots").iterdir(), key=lambda p: (p.name != main, p.name))
    except FileNotFoundError:
        main = ""
        versions = folder / "snapshots"
        found = sorted(versions.iterdir()) if versions.is_dir() else []
    except OSError:
        return
    yield from found


def find_cached(repo: str, file: str, *, size: int | None = None) -> Path | None:
    """Return a file's place in the cache; with ``size``, only one of so many bytes."""
    for snapshot in snapshots(repo):
        path = snapshot / file
        if path.is_file() and (size is None or path.stat().st_size == size):
            return path
    return None


def find_cached_ref(ref: HubRef) -> Path | None:
    """Return the cached GGUF that ``ref`` means, whole, or None."""
    for snapshot in snapshots(ref.repo):
        files = [
            p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*.gguf") if p.is_file()
        ]
        try:
            file = choose(files, ref)
            shards(file, files)
        except ModelFileError:
            continue
        return snapshot / file
    return None


def list_files(repo: str) -> list[str]:
    """Ask the hub which files ``repo`` has. Raises HubError."""
    from huggingface_hub import HfApi

    endpoint = _endpoint()
    api = HfApi(endpoint=endpoint)
    info = _asked(lambda: api.model_info(repo, timeout=PROBE_SECONDS), repo, endpoint)
    return [sibling.rfilename for sibling in info.siblings or ()]


def remote_facts(repo: str, file: str, revision: str = "main") -> tuple[int | None, str | None]:
    """Ask the hub for a file's size in bytes and its sha256 (None where it does not say)."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    endpoint = _endpoint()
    url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint)
    facts = _asked(
        lambda: get_hf_file_metadata(url, timeout=PROBE_SECONDS, endpoint=endpoint),
        f"{repo}/{file}",
        endpoint,
    )
    etag = facts.etag or ""
    return facts.size, etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None


def download(
    repo: str,
    file: str,
    *,
    revision: str = "main",
    on_bytes: Callable[[int], None] | None = None,
    cancel: threading.Event | None = None,
) -> Path:
    """Fetch a file into the Hugging Face cache and return its place there. Raises HubError.

    ``on_bytes`` is told the bytes fetched so far, from whatever thread fetches them. What was
    fetched before an interruption is not fetched again.
    """
    from huggingface_hub import hf_hub_download

    bar = _bar_class(on_bytes, cancel)
    try:
        return Path(
            hf_hub_download(
                repo,
                file,
                revision=revision,
                cache_dir=cache_dir(),
                endpoint=_endpoint(),
                etag_timeout=PROBE_SECONDS,
                tqdm_class=bar,
            )
        )
    except (Cancelled, OSError) as error:
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"stopped while fetching {repo}/{file}") from error
        if isinstance(error, OSError) and error.errno is not None and not _is_network(error):
            raise
        raise HubError(_first_line(error)) from error
    except Exception as error:  # the hub library lets through errors of the HTTP library it uses
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"stopped while fetching {repo}/{file}") from error
        raise HubError(_first_line(error)) from error


def _is_network(error: OSError) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError))


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _asked(ask: Callable[[], Any], what: str, endpoint: str | None) -> Any:
    """Return ``ask()``, given up after PROBE_SECONDS; a hub out of reach is left alone for long."""
    key = endpoint or ""
    until, why = _unreachable.get(key, (0.0, ""))
    if time.monotonic() < until:
        raise HubError(why)
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append((True, ask()))
        except Exception as error:
            outcome.append((False, error))

    # Name resolution knows no timeout of its own, so the wait is bounded from outside.
    thread = threading.Thread(target=work, daemon=True, name="specrag-hub")
    thread.start()
    thread.join(PROBE_SECONDS)
    if not outcome:
        why = f"the hub did not answer within {PROBE_SECONDS:.0f} s"
        _unreachable[key] = (time.monotonic() + _RETRY_S, why)
        raise HubError(why)
    done, value = outcome[0]
    if done:
        return value
    # An answer of the hub (no such repository, no access) says nothing of the next file's.
    if _is_out_of_reach(value):
        why = f"the hub cannot be reached ({_first_line(value)})"
        _unreachable[key] = (time.monotonic() + _RETRY_S, why)
        raise HubError(why) from value
    raise HubError(f"{what}: {_first_line(value)}") from value


def _is_out_of_reach(error: BaseException) -> bool:
    """True for a failure to reach the hub; its HTTP library has its own tree of these."""
    library = type(error).__module__.partition(".")[0]
    return getattr(error, "response", None) is None and (
        isinstance(error, OSError) or library.startswith(("httpx", "httpcore", "requests"))
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _bar_class(on_bytes: Callable[[int], None] | None, cancel: threading.Event | None) -> type[Any]:
    """Return a tqdm class that draws nothing: it passes on what the hub library tells its bar."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})
            self.n = kwargs.get("initial", 0) or 0

        def update(self, n: float | None = 1) -> bool | None:
            if cancel is not None and cancel.is_set():
                raise Cancelled("stopped while fetching from the hub")
            self.n += n or 0
            if on_bytes is not None:
                on_bytes(int(self.n))
            return None

    return Bar
