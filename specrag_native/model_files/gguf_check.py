"""Looks at a GGUF file's header without loading the model.

Law: what passes here has a readable header and all bytes its tensors need; the file is only read.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from specrag_native.errors import ModelFileError

# GGUF value types: struct code of the fixed-size ones, by type number.
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # bytes, unless the file says otherwise
_MAX_COUNT = 1 << 24  # of keys and of tensors; more is a damaged header

# ggml tensor types: (values per block, bytes per block), by type number.
BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 40),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
}

ENCODERS = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert")
"""Architectures that read a text and write none: they embed, and cannot draft or verify."""


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What a GGUF header says about its model.

    ``pooling`` is llama.cpp's pooling number (0 none, 1 mean, 2 cls, 3 last, 4 rank), ``None``
    when the file does not name one; ``size`` is in bytes.
    """

    version: int
    architecture: str
    n_tensors: int
    size: int
    causal: bool = True
    pooling: int | None = None

    @property
    def generates(self) -> bool:
        """True for a causal language model, one that can draft and verify."""
        return self.causal and self.architecture not in ENCODERS and self.pooling != 4

    @property
    def ranks(self) -> bool:
        """True for a cross-encoder, which scores a pair of texts."""
        return self.pooling == 4

    @property
    def embeds(self) -> bool:
        """True for a model that pools its tokens into one vector."""
        return self.pooling in (1, 2, 3) or (self.pooling is None and not self.generates)


def check_gguf(path: Path) -> GgufFacts:
    """Read the header of ``path`` and check that no tensor lies past the end of the file.

    Raises ModelFileError for a file that is no GGUF (with a guess at what it is), one of an
    unknown version, and one that is damaged or cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
            _check_magic(path, head, size)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Header(path, data).read()
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {error.strerror}") from error


def _check_magic(path: Path, head: bytes, size: int) -> None:
    if head[:4] == b"GGUF":
        if size < 24:
            raise ModelFileError(f"{path} is cut off: {size} bytes; fetch it again")
        return
    if not head:
        raise ModelFileError(f"{path} is empty, not a GGUF model; fetch it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    what = "not a GGUF model"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        what = "a web page, not a GGUF model (the download saved the site's page, not the file)"
    elif head.startswith(b"version https://git-lfs"):
        what = "a Git LFS pointer, not the GGUF model it stands for (git lfs pull fetches it)"
    elif head.startswith(b"PK\x03\x04"):
        what = "a zip archive, not a GGUF model"
    elif head[:4] in (b"ggml", b"lmgg", b"fmgg", b"tjgg"):
        what = "a GGML file of before 2023-08, which llama.cpp no longer reads, not a GGUF model"
    elif not any(head):
        what = "all zero bytes at its start, not a GGUF model (an unfinished download?)"
    raise ModelFileError(f"{path} is {what}: it starts with {head[:8]!r}, expected b'GGUF'")


class _Header:
    """Reads one header from front to back; every read is bounded by the file's size."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = 4  # past the magic

    def read(self) -> GgufFacts:
        version = self._fixed("I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            hint = ", a big-endian file" if swapped in _VERSIONS else ""
            raise ModelFileError(
                f"{self._path} is GGUF version {version}{hint}; versions {_VERSIONS} can be read"
            )
        n_tensors, n_keys = int(self._fixed("Q")), int(self._fixed("Q"))
        if n_tensors > _MAX_COUNT or n_keys > _MAX_COUNT:
            raise ModelFileError(
                f"{self._path} is damaged: its header promises {n_tensors} tensors, {n_keys} keys"
            )
        wanted: dict[str, int | float | bool | str] = {}
        for _ in range(n_keys):
            key = self._string()
            value = self._value(int(self._fixed("I")))
            if value is not None:
                wanted[key] = value
        architecture = str(wanted.get("general.architecture", ""))
        if not architecture:
            raise ModelFileError(f"{self._path} names no general.architecture: no usable model")
        self._check_tensors(n_tensors, int(wanted.get("general.alignment", _ALIGNMENT)))
        pooling = wanted.get(f"{architecture}.pooling_type")
        return GgufFacts(
            version=int(version),
            architecture=architecture,
            n_tensors=n_tensors,
            size=len(self._data),
            causal=bool(wanted.get(f"{architecture}.attention.causal", True)),
            pooling=None if pooling is None else int(pooling),
        )

    def _check_tensors(self, n_tensors: int, alignment: int) -> None:
        needed = 0  # bytes of the data section
        for _ in range(n_tensors):
            name = self._string()
            n_dims = int(self._fixed("I"))
            if n_dims > 4:
                raise ModelFileError(f"{self._path} is damaged: tensor {name!r} has {n_dims} axes")
            n_values = 1
            for _ in range(n_dims):
                n_values *= int(self._fixed("Q"))
            kind, offset = int(self._fixed("I")), int(self._fixed("Q"))
            per_block, block_bytes = BLOCKS.get(kind, (1, 0))  # unknown types: only their offset
            needed = max(needed, offset + n_values // per_block * block_bytes)
        start = -(-self._at // alignment) * alignment if alignment > 0 else self._at
        if start + needed > len(self._data):
            raise self._cut_off(start + needed)

    def _value(self, kind: int) -> int | float | bool | str | None:
        """Return a scalar, skip an array."""
        if kind == _STRING:
            return self._string()
        if kind in _FIXED:
            return self._fixed(_FIXED[kind])
        if kind != _ARRAY:
            raise ModelFileError(f"{self._path} is damaged: unknown value type {kind}")
        element, count = int(self._fixed("I")), int(self._fixed("Q"))
        if element in _FIXED:
            self._skip(struct.calcsize("<" + _FIXED[element]) * count)
        elif element == _STRING:
            self._skip_strings(count)
        else:
            raise ModelFileError(f"{self._path} is damaged: array of value type {element}")
        return None

    def _skip_strings(self, count: int) -> None:
        unpack, data, at, end = (
            struct.Struct("<Q").unpack_from,
            self._data,
            self._at,
            len(self._data),
        )
        for _ in range(count):
            if at + 8 > end:
                raise self._cut_off(at + 8)
            at += 8 + unpack(data, at)[0]
        self._at = at
        self._skip(0)

    def _fixed(self, code: str) -> int | float | bool:
        at = self._at
        self._skip(struct.calcsize("<" + code))
        value: int | float | bool = struct.unpack_from("<" + code, self._data, at)[0]
        return value

    def _string(self) -> str:
        length = int(self._fixed("Q"))
        at = self._at
        self._skip(length)
        return self._data[at : at + length].decode("utf-8", errors="replace")

    def _skip(self, n_bytes: int) -> None:
        self._at += n_bytes
        if self._at > len(self._data):
            raise self._cut_off(self._at)

    def _cut_off(self, needed: int) -> ModelFileError:
        return ModelFileError(
            f"{self._path} is cut off or damaged: it has {len(self._data):,} bytes, its header "
            f"asks for at least {needed:,}; fetch it again"
        )
