"""What the catalogue says of each model, read from ``models/catalog.toml`` and checked.

Law: a catalogue that was loaded is whole: no unknown key, no missing one, no hash that is none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from specrag_native.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Role = Literal["drafter", "verifier", "embedder", "reranker", "hop_ranker"]
"""What a model is for."""

ROLES: tuple[Role, ...] = get_args(Role)

PreparationKind = Literal["quantise", "convert-bert", "merge-adapter"]
"""What can be done with fetched files before use."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a Hugging Face repository."""

    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file carried by a package's wheel, or cut into parts carried by several packages.

    ``{n}`` in ``name`` and ``member`` is the part's number from 1; ``part_size`` is in bytes, of
    all parts but the last.
    """

    name: str
    version: str
    member: str
    part_size: int = 0
    part_sha256: tuple[str, ...] = ()

    @property
    def n_parts(self) -> int:
        """Number of packages the file is spread over."""
        return len(self.part_sha256) or 1

    def name_of(self, n: int) -> str:
        """Name of the package that carries part ``n``."""
        return self.name.format(n=n)

    def spec(self, n: int) -> str:
        """Requirement that pins the package of part ``n``."""
        return f"{self.name_of(n)}=={self.version}"

    def member_of(self, n: int) -> str:
        """Path of part ``n`` inside its wheel."""
        return self.member.format(n=n)

    def sha256_of(self, n: int, file: ModelFile) -> str:
        """Expected sha256 of part ``n``."""
        return self.part_sha256[n - 1] if self.part_sha256 else file.sha256


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file to fetch: its size in bytes, its sha256, and where it is to be had."""

    name: str
    size: int
    sha256: str
    hub: HubSource | None = None
    package: PackageSource | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done once with fetched files before use.

    ``sha256`` is the prepared file's where it was measured; other machines may differ. ``adapter``
    names a file beside the catalogue that ``merge-adapter`` adds to the fetched model, or to
    ``base``, another model of the catalogue as it is in use; then nothing is fetched.
    """

    kind: PreparationKind
    type: str
    revision: int = 1
    sha256: str = ""
    adapter: str = ""
    adapter_sha256: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """An entry of the catalogue."""

    name: str
    role: Role
    licence: str
    summary: str
    prompt_format: str
    file: tuple[ModelFile, ...] = ()
    prepare: Preparation | None = None

    @property
    def fetch_size(self) -> int:
        """Bytes to fetch."""
        return sum(f.size for f in self.file)

    @property
    def recipe(self) -> str:
        """What the file in use is made of; a file made by another recipe is made anew."""
        assert self.file or self.prepare
        base = (self.prepare.base,) if self.prepare and self.prepare.base else ()
        sources = "+".join((*base, *(f.sha256 for f in self.file)))
        if self.prepare is None:
            return sources
        made_of = f"{sources}+{self.prepare.adapter_sha256}" if self.prepare.adapter else sources
        return f"{made_of} {self.prepare.kind} {self.prepare.type} {self.prepare.revision}"

    @property
    def file_name(self) -> str:
        """Name of the file in use: the fetched one, or the one prepared from what was fetched."""
        if self.prepare is None:
            return self.file[0].name
        return f"{self.name}-{self.prepare.type.lower()}.gguf"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models this project knows, and the default of each role."""

    model: tuple[Model, ...]
    defaults: Mapping[str, str]

    def find(self, name: str) -> Model | None:
        """Return the model of that name (case does not matter), or None."""
        return next((m for m in self.model if m.name == name.lower()), None)


def load(path: Path) -> Catalogue:
    """Read and check a catalogue; raise ConfigError naming the entry and key that is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the catalogue {path}: {error}") from error
    return _checked(_read(Catalogue, values, str(path)), str(path))


_T = TypeVar("_T")
_TABLES: dict[str, type] = {
    "model": Model,
    "file": ModelFile,
    "hub": HubSource,
    "package": PackageSource,
    "prepare": Preparation,
}
_LISTS = ("model", "file")


def _read(kind: type[_T], values: Any, where: str) -> _T:
    """Make a ``kind`` of a TOML table; unknown, missing and mistyped keys are refused."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a table, got {values!r}")
    known = {f.name: f for f in fields(cast(Any, kind))}
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    made: dict[str, Any] = {}
    for key, value in values.items():
        at = f"{where}: {key}"
        table = _TABLES.get(key) if known[key].type not in ("str", "int") else None
        if table is not None and key in _LISTS:
            if not isinstance(value, list) or not value:
                raise ConfigError(f"{at}: expected at least one [[{key}]], got {value!r}")
            made[key] = tuple(_read(table, v, f"{at}[{i}]") for i, v in enumerate(value))
        elif table is not None:
            made[key] = _read(table, value, at)
        else:
            made[key] = _plain(value, str(known[key].type), at)
    try:
        return kind(**made)
    except TypeError as error:
        lacking = [name for name in known if name not in made and name in str(error)]
        raise ConfigError(f"{where}: missing key {', '.join(lacking) or error}") from error


def _plain(value: Any, annotation: str, at: str) -> Any:
    if annotation == "int":
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    elif annotation.startswith("tuple[str"):
        good = isinstance(value, list) and all(isinstance(v, str) for v in value)
        value = tuple(value) if good else value
    elif annotation.startswith("Mapping"):
        good = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    else:
        good = isinstance(value, str)
    if not good:
        raise ConfigError(f"{at}: expected {annotation}, got {value!r}")
    return value


def _checked(found: Catalogue, where: str) -> Catalogue:
    """Check what types cannot: hashes, sizes, names, roles, and that the defaults exist."""
    names = [m.name for m in found.model]
    if twice := {n for n in names if names.count(n) > 1}:
        raise ConfigError(f"{where}: model {sorted(twice)[0]!r} is there twice")
    for model in found.model:
        at = f"{where}: model {model.name!r}"
        if model.role not in ROLES:
            raise ConfigError(f"{at}: role is {model.role!r}, expected one of {', '.join(ROLES)}")
        if model.name != model.name.lower() or not _is_file_name(model.name):
            raise ConfigError(f"{at}: a name is lower-case letters, digits, '.', '-' and '_'")
        if model.prepare is None and len(model.file) != 1:
            raise ConfigError(f"{at}: {len(model.file)} files and no [model.prepare]")
        _check_base(model, found, at)
        if model.prepare is not None:
            _check_preparation(model.prepare, at)
        for file in model.file:
            _check_file(file, f"{at}, file {file.name!r}")
    for role, name in found.defaults.items():
        if role not in ROLES or name not in names:
            raise ConfigError(f"{where}: defaults: no model {name!r} for the role {role!r}")
    return found


def _check_base(model: Model, found: Catalogue, at: str) -> None:
    prepare = model.prepare
    base = prepare.base if prepare else ""
    if bool(base) == bool(model.file):
        raise ConfigError(f"{at}: either [[model.file]] or prepare.base is needed")
    if prepare is None or not base:
        return
    known = found.find(base)
    if known is None or not known.file or prepare.kind != "merge-adapter":
        raise ConfigError(f"{at}: prepare.base {base!r} is no model that an adapter is merged into")


def _check_preparation(prepare: Preparation, at: str) -> None:
    if prepare.kind not in get_args(PreparationKind):
        raise ConfigError(f"{at}: prepare.kind is {prepare.kind!r}")
    merges = prepare.kind == "merge-adapter"
    if merges != bool(prepare.adapter) or merges != bool(prepare.adapter_sha256):
        raise ConfigError(f"{at}: merge-adapter, and it alone, has adapter and adapter_sha256")
    if merges and not (_is_file_name(prepare.adapter) and _is_sha256(prepare.adapter_sha256)):
        raise ConfigError(f"{at}: adapter is a plain file name with its sha256")


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _check_file(file: ModelFile, at: str) -> None:
    parts = file.package.part_sha256 if file.package else ()
    for digest in (file.sha256, *parts):
        if not _is_sha256(digest):
            raise ConfigError(f"{at}: {digest!r} is no sha256 (64 lower-case hex digits)")
    if not _is_file_name(file.name) or file.size < 1:
        raise ConfigError(f"{at}: a file needs a plain name and a size in bytes")
    if file.hub is None and file.package is None:
        raise ConfigError(f"{at}: no source (hub or package)")
    if file.package is not None and parts:
        n, size = len(parts), file.package.part_size
        if not (n - 1) * size < file.size <= n * size:
            raise ConfigError(f"{at}: {n} parts of {size} bytes cannot make {file.size} bytes")


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and all(c.isalnum() or c in "._-" for c in name)
