"""The models this project knows, and the file on disk that a model's name stands for.

Law: resolving a name never asks the network and never changes a model; what it returns exists, and
a catalogue model's file is the one whose every byte was checked.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from specrag_native.errors import ConfigError, ModelFileError, ModelNotFoundError
from specrag_native.model_files import hub, model_dir
from specrag_native.model_files.catalog_entries import ROLES, Catalogue, Model, Role, load
from specrag_native.model_files.gguf_check import GgufFacts, check_gguf


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this disk. ``sha256`` is known for models of the catalogue."""

    name: str
    path: Path
    sha256: str | None = None
    licence: str | None = None
    role: Role | None = None

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model of the catalogue and whether it is here; ``size`` is the file's, in bytes."""

    model: Model
    present: bool
    path: Path | None = None
    size: int = 0
    is_default: bool = False


def place(model: Model) -> Path:
    """Return where this project puts the file of ``model`` that is in use."""
    return model_dir.models_dir() / model.file_name


def catalogue_path() -> Path:
    """Return the catalogue's place: inside the installed package, or in the source tree."""
    here = Path(__file__).resolve().parent.parent
    for path in (here / "models" / "catalog.toml", here.parent / "models" / "catalog.toml"):
        if path.is_file():
            return path
    raise ConfigError(f"models/catalog.toml is missing beside {here}; install the package again")


@functools.cache
def catalogue() -> Catalogue:
    """Return this project's catalogue."""
    return load(catalogue_path())


def default(role: Role) -> str:
    """Return the name of the role's default model."""
    try:
        return catalogue().defaults[role]
    except KeyError:
        raise ConfigError(f"no default model for {role!r}; roles: {', '.join(ROLES)}") from None


def path_for(role: Role, name: str | None = None) -> Path:
    """Return the file of a named model, or of the role's default one; see :func:`resolve`."""
    return resolve(name or default(role), role=role).path


def list_models() -> list[ModelStatus]:
    """Return every model of the catalogue and whether it is here. Reads no file's contents."""
    defaults = set(catalogue().defaults.values())
    result = []
    for model in catalogue().model:
        path = _located(model)
        result.append(
            ModelStatus(
                model=model,
                present=path is not None,
                path=path,
                size=path.stat().st_size if path else 0,
                is_default=model.name in defaults,
            )
        )
    return result


def resolve(name_or_path: str, *, role: Role | None = None) -> ResolvedModel:
    """Return the model on this disk that a name, ``user/repo:QUANT`` or path stands for.

    A name of the catalogue comes first, then an existing file, then the Hugging Face cache. With
    ``role``, a model that cannot fill it is refused. Raises ModelNotFoundError when it is not here
    (the message says how to get it) and ModelFileError when its file is no usable model.
    """
    name = os.fspath(name_or_path)
    if model := catalogue().find(name):
        found = _resolve_model(model)
        if role is not None:
            _check_role(found.name, role, pooled=_POOLED.get(model.role, ""))
        return found
    path = Path(name).expanduser()
    ref = hub.parse_ref(name)
    if path.is_file():
        found = ResolvedModel(name=path.stem, path=path.absolute(), role=role)
    elif path.is_dir():
        raise ModelFileError(f"{path} is a folder; name a .gguf file in it")
    elif ref is not None:
        cached = hub.find_cached_ref(ref)
        if cached is None:
            raise ModelNotFoundError(f"model {ref.name} is not on this machine; run: {_pull(name)}")
        found = ResolvedModel(name=ref.name, path=cached, role=role)
    elif name.endswith(".gguf") or os.sep in name:
        raise ModelNotFoundError(f"there is no model file {path}")
    else:
        raise ModelNotFoundError(_unknown(name))
    facts = check_gguf(found.path)
    if role is not None:
        _check_role(f"{found.name} ({facts.architecture})", role, facts=facts)
    return found


def located(model: Model) -> ResolvedModel | None:
    """Return ``model`` as checked and ready for use, or None. Hashes a file not seen before."""
    record = model_dir.read_record(model.name)
    if record is not None and record.recipe == model.recipe and record.is_fresh:
        return _resolved(model, record)
    path = _located(model)
    if path is None:
        return None
    sha256 = model_dir.hash_file(path)
    if model.prepare is None:
        expected, origin = model.file[0].sha256, "hub cache"
    else:  # _located only names a prepared file that has a record
        assert record is not None
        expected, origin = record.sha256, record.origin
    if sha256 != expected:
        raise ModelFileError(
            f"{path} has the wrong sha256 {sha256}, expected {expected}: it was changed or is "
            f"damaged; fetch it again: {_pull(model.name)}"
        )
    return _resolved(model, _record(model, path, sha256, origin))


def prepared_as(path: Path) -> str | None:
    """Return the sha256 that the catalogue gives for a file that was prepared by its recipe.

    ``None`` for any other file. The file's own may differ: a preparation computes, and processors
    round differently.
    """
    for model in catalogue().model:
        if model.prepare is None or model.file_name != path.name:
            continue
        record = model_dir.read_record(model.name)
        if record and record.recipe == model.recipe and Path(record.path) == path:
            return model.prepare.sha256 or None
    return None


def _resolve_model(model: Model) -> ResolvedModel:
    found = located(model)
    if found is not None:
        return found
    record = model_dir.read_record(model.name)
    size = record.size if record else sum(f.size for f in model.file[:1])
    path = Path(record.path) if record else place(model)
    if path.is_file() and path.stat().st_size != size:
        raise ModelFileError(
            f"{path} has {path.stat().st_size} bytes, expected {size}: it is cut off or another "
            f"file; fetch it again: {_pull(model.name)}"
        )
    raise ModelNotFoundError(f"model {model.name} is not on this machine; run: {_pull(model.name)}")


def _located(model: Model) -> Path | None:
    """Return where the model's file seems to be, by name and size alone."""
    record = model_dir.read_record(model.name)
    if record is not None and record.recipe == model.recipe:
        path = Path(record.path)
        if path.is_file() and path.stat().st_size == record.size:
            return path
    if model.prepare is not None:
        return None
    file = model.file[0]
    if place(model).is_file() and place(model).stat().st_size == file.size:
        return place(model)
    return hub.find_cached(file.hub.repo, file.hub.file, size=file.size) if file.hub else None


def _record(model: Model, path: Path, sha256: str, origin: str) -> model_dir.Record:
    try:
        return model_dir.write_record(
            model.name, path, sha256=sha256, recipe=model.recipe, origin=origin
        )
    except OSError:  # a read-only model folder: checked again next time
        stat = path.stat()
        return model_dir.Record(
            str(path), stat.st_size, stat.st_mtime_ns, sha256, model.recipe, origin
        )


def _resolved(model: Model, record: model_dir.Record) -> ResolvedModel:
    return ResolvedModel(
        name=model.name,
        path=Path(record.path),
        sha256=record.sha256,
        licence=model.licence,
        role=model.role,
    )


_POOLED: Mapping[Role, str] = {
    "embedder": "embeddings",
    "reranker": "scores",
    "hop_ranker": "scores",
}
"""What models of a role pool their tokens into; the others generate."""


def _check_role(name: str, role: Role, *, pooled: str = "", facts: GgufFacts | None = None) -> None:
    able = {
        "": facts.generates if facts else not pooled,
        "embeddings": facts.embeds if facts else pooled == "embeddings",
        "scores": facts.ranks if facts else pooled == "scores",
    }
    wanted = _POOLED.get(role, "")
    if not able[wanted]:
        lacks = f"pools no {wanted}" if wanted else "is no causal language model"
        raise ModelFileError(f"{name} {lacks}: it cannot be the {role}; use {default(role)}")


def _pull(name: str) -> str:
    return f"specrag pull {name}"


def _unknown(name: str) -> str:
    known = [m.name for m in catalogue().model]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"no model is called {name!r}; {hint}known: {', '.join(known)}; or name a .gguf file, or a "
        "Hugging Face repository as user/repo:QUANT"
    )
