"""Which reader reads which file, and the place to plug in more.

Law: a reader is chosen by the file's suffix alone; other packages add readers through the entry
point group ``specrag_native.readers`` or :func:`register`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import Document, ReadLimits

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "specrag_native.readers"
ReadFunction = Callable[[Path, ReadLimits], Iterable[Document]]
"""Yields the documents of a file; a generator may return a note for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One family of formats.

    ``function`` is ``"module:function"``, a callable of ``(path, limits)`` that yields documents;
    it is imported when first needed. ``version`` changes when the extracted text changes: files
    read by an older version are read again.
    """

    name: str
    suffixes: tuple[str, ...]
    function: str
    version: int = 1
    isolated: bool = False
    """Parse in a child process under limits of time and memory."""
    streamed: bool = False
    """Yields any number of documents without holding the file in memory."""
    needs: str | None = None
    """Module that must be importable, when it is not a base dependency."""

    def load(self) -> ReadFunction:
        """Import and return the reading function."""
        module_name, _, function_name = self.function.partition(":")
        found: Any = getattr(importlib.import_module(module_name), function_name)
        return found  # type: ignore[no-any-return]

    def require(self) -> None:
        """Raise :class:`DocumentError` when the library this reader needs is not installed."""
        if self.needs is None:
            return
        try:
            importlib.import_module(self.needs)
        except ImportError:
            raise DocumentError(missing_library(self.name, self.needs)) from None


def missing_library(reader: str, module: str) -> str:
    """Return the one line that says which extra brings ``module``."""
    return (
        f"reading {reader} needs the module {module}, which is not installed: "
        "pip install 'specrag-native[documents]'"
    )


_CODE_SUFFIXES = (
    "py pyi c h cc cpp cxx hpp hh cu java kt kts scala go rs js mjs cjs jsx ts tsx rb php pl pm "
    "sh bash zsh fish ps1 lua r jl swift m mm cs fs hs ml mli clj ex exs erl dart sql proto "
    "cmake toml yaml yml ini cfg conf tex bib vue svelte css scss make mk dockerfile gradle"
)

_HERE = "specrag_native.ingest"
_BUILTIN = (
    Reader(
        name="text",
        suffixes=(".txt", ".text", ".log"),
        function=f"{_HERE}.plain:read_text",
    ),
    Reader(
        name="markdown",
        suffixes=(".md", ".markdown", ".mdx", ".rst", ".adoc", ".org"),
        function=f"{_HERE}.plain:read_markup",
    ),
    Reader(
        name="code",
        suffixes=tuple(f".{suffix}" for suffix in _CODE_SUFFIXES.split()),
        function=f"{_HERE}.plain:read_code",
    ),
    Reader(
        name="json lines",
        suffixes=(".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
        function=f"{_HERE}.structured:read_jsonl",
        streamed=True,
    ),
    Reader(
        name="json",
        suffixes=(".json",),
        function=f"{_HERE}.structured:read_json",
        isolated=True,
    ),
    Reader(
        name="csv",
        suffixes=(".csv", ".tsv"),
        function=f"{_HERE}.tables:read_csv",
        isolated=True,
    ),
    Reader(
        name="html",
        suffixes=(".html", ".htm", ".xhtml"),
        function=f"{_HERE}.web:read_html",
        isolated=True,
    ),
    Reader(name="epub", suffixes=(".epub",), function=f"{_HERE}.epub:read_epub", isolated=True),
    Reader(
        name="pdf",
        suffixes=(".pdf",),
        function=f"{_HERE}.pdf:read_pdf",
        isolated=True,
        needs="pypdf",
    ),
    Reader(
        name="docx",
        suffixes=(".docx",),
        function=f"{_HERE}.office:read_docx",
        isolated=True,
        needs="docx",
    ),
    Reader(
        name="pptx",
        suffixes=(".pptx",),
        function=f"{_HERE}.office:read_pptx",
        isolated=True,
        needs="pptx",
    ),
    Reader(
        name="xlsx",
        suffixes=(".xlsx", ".xlsm"),
        function=f"{_HERE}.office:read_xlsx",
        isolated=True,
        needs="openpyxl",
    ),
)


class Registry:
    """The readers by suffix: the built-in ones, then plug-ins, then those registered by hand."""

    def __init__(self, builtin: Sequence[Reader] = _BUILTIN) -> None:
        self._by_suffix: dict[str, Reader] = {}
        self._plugins_loaded = False
        for reader in builtin:
            self.add(reader)

    def add(self, reader: Reader) -> None:
        """Make ``reader`` read its suffixes, in place of any reader that did."""
        for suffix in reader.suffixes:
            self._by_suffix[suffix.lower()] = reader

    def find(self, name: str) -> Reader | None:
        """Return the reader of a file called ``name``; the longest suffix wins."""
        self._load_plugins()
        lowered = name.lower()
        parts = lowered.split(".")
        for i in range(1, len(parts)):
            reader = self._by_suffix.get("." + ".".join(parts[i:]))
            if reader is not None:
                return reader
        if lowered in {"makefile", "dockerfile", "readme", "license", "notes"}:
            return self._by_suffix[".txt"]
        return None

    def all(self) -> tuple[Reader, ...]:
        """Return every reader once, sorted by name."""
        self._load_plugins()
        return tuple(sorted(set(self._by_suffix.values()), key=lambda reader: reader.name))

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        from importlib.metadata import entry_points

        for entry in entry_points(group=ENTRY_POINT_GROUP):
            try:
                reader = entry.load()
            except Exception as error:  # another package's fault must not stop this one
                log.warning("reader plug-in %s cannot be loaded: %s", entry.name, error)
                continue
            if isinstance(reader, Reader):
                self.add(reader)
            else:
                log.warning("reader plug-in %s is no Reader but %r", entry.name, type(reader))


_registry = Registry()


def register(reader: Reader) -> None:
    """Add a reader for this process; the function must be importable by name."""
    _registry.add(reader)


def reader_for(name: str) -> Reader | None:
    """Return the reader of a file called ``name``, or ``None`` for a format nobody reads."""
    return _registry.find(name)


def readers() -> tuple[Reader, ...]:
    """Return every known reader, sorted by name."""
    return _registry.all()
