"""In which order a file has the rows of query and key matrices, and in which transformers has them.

transformers reorders them when it reads a GGUF of a llama model: rotary pairs stand beside each
other in the file, and in two halves in its own layout.

Law: what is put into one order and then into the other is what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specrag_native.errors import ModelFileError

Matrix = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Heads:
    """Numbers of query heads and of key heads, and whether their rows are in rotary pairs."""

    n_head: int
    n_head_kv: int
    paired: bool


def read_heads(path: Path) -> Heads:
    """Read the numbers of heads from a GGUF."""
    from gguf import GGUFReader

    reader = GGUFReader(path)

    def number(key: str) -> int:
        field = reader.get_field(key)
        if field is None:
            raise ModelFileError(f"{path} does not state {key}")
        return int(field.contents())

    kind = str(reader.get_field("general.architecture").contents())
    n_head = number(f"{kind}.attention.head_count")
    return Heads(n_head, number(f"{kind}.attention.head_count_kv"), kind == "llama")


def file_order(rows: Matrix, name: str, heads: Heads) -> Matrix:
    """Put the rows of a query or key matrix (or of its ``b``) into the order of the file."""
    if not heads.paired:
        return rows
    if name.endswith("attn_q.weight"):
        n = heads.n_head
    elif name.endswith("attn_k.weight"):
        n = heads.n_head_kv
    else:
        return rows
    split = rows.reshape(n, 2, rows.shape[0] // n // 2, *rows.shape[1:])
    ordered: Matrix = split.swapaxes(1, 2).reshape(rows.shape)
    return ordered


def own_order(rows: Matrix, name: str, heads: Heads) -> Matrix:
    """Put the rows of a query or key matrix of a file into the order of transformers."""
    order = file_order(np.arange(rows.shape[0])[:, None], name, heads)[:, 0]
    own = np.empty_like(rows)
    own[order] = rows
    return own
