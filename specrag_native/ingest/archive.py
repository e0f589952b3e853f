"""Zip containers (Office files, e-books), checked before a parser opens them.

Law: a member is read only as far as its limit, whatever its header claims.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import ReadLimits

_OLE = b"\xd0\xcf\x11\xe0"
_MEMBERS = 20_000
_UNPACKED_BYTES = 1024 * 1024 * 1024


def check_zip(path: Path, kind: str) -> None:
    """Raise unless ``path`` is a zip file of a size that can be unpacked."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == _OLE:
        raise DocumentError(f"encrypted, or an old binary file: save it as .{kind} unprotected")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise DocumentError(f"broken {kind} file ({error})") from None
    if len(members) > _MEMBERS:
        raise DocumentError(f"its archive has {len(members)} members, more than {_MEMBERS}")
    unpacked = sum(member.file_size for member in members)
    if unpacked > _UNPACKED_BYTES:
        raise DocumentError(
            f"it unpacks to {unpacked // 2**20} MiB, more than {_UNPACKED_BYTES // 2**20} MiB"
        )
    if any(member.flag_bits & 1 for member in members):
        raise DocumentError("encrypted: it needs a password")


def read_member(archive: zipfile.ZipFile, name: str, limits: ReadLimits) -> bytes:
    """Return a member's bytes; raises :class:`DocumentError` when there are too many."""
    bound = 4 * limits.text_chars
    try:
        with archive.open(name) as member:
            data = member.read(bound + 1)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DocumentError(f"its member {name} cannot be read ({error})") from None
    if len(data) > bound:
        raise DocumentError(f"its member {name} is larger than {bound // 2**20} MiB")
    return data
