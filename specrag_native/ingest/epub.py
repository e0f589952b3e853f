"""E-books: a zip file of web pages, read in the order of their spine.

Law: a chapter that cannot be read is noted and left out; the book is not.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from specrag_native.errors import DocumentError
from specrag_native.ingest.archive import check_zip, read_member
from specrag_native.ingest.document import Document, ReadLimits, tidy_title
from specrag_native.ingest.web import decode_html, html_text

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"


def read_epub(path: Path, limits: ReadLimits) -> Generator[Document, None, str | None]:
    """Yield the one document of an e-book."""
    check_zip(path, "epub")
    with zipfile.ZipFile(path) as archive:
        package_name = _package_name(archive, limits)
        package = _xml(archive, package_name, limits)
        locked = set(_encrypted(archive, limits))
        chapters: list[str] = []
        failed = 0
        for name in _spine(package, posixpath.dirname(package_name)):
            if name in locked:
                raise DocumentError("encrypted: it is protected by its seller")
            try:
                text, _ = html_text(decode_html(read_member(archive, name, limits), limits))
            except DocumentError:
                failed += 1
                continue
            if text:
                chapters.append(text)
    yield Document("\n\n".join(chapters), title=tidy_title(_text(package, "title")))
    return f"{failed} chapters could not be read" if failed else None


def _package_name(archive: zipfile.ZipFile, limits: ReadLimits) -> str:
    for element in _xml(archive, _CONTAINER, limits).iter():
        name = element.get("full-path")
        if _local(element) == "rootfile" and name:
            return name
    raise DocumentError("broken epub file (it names no package)")


def _spine(package: ElementTree.Element, folder: str) -> Iterator[str]:
    hrefs = {e.get("id"): e.get("href", "") for e in package.iter() if _local(e) == "item"}
    for element in package.iter():
        if _local(element) == "itemref" and (href := hrefs.get(element.get("idref"))):
            yield posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))


def _encrypted(archive: zipfile.ZipFile, limits: ReadLimits) -> Iterator[str]:
    if _ENCRYPTION not in archive.namelist():
        return
    for element in _xml(archive, _ENCRYPTION, limits).iter():
        if _local(element) == "CipherReference":
            yield unquote(element.get("URI", ""))


def _text(package: ElementTree.Element, name: str) -> str | None:
    return next((e.text for e in package.iter() if _local(e) == name and e.text), None)


def _xml(archive: zipfile.ZipFile, name: str, limits: ReadLimits) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_member(archive, name, limits))
    except ElementTree.ParseError as error:
        raise DocumentError(f"broken epub file ({name}: {error})") from None


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
