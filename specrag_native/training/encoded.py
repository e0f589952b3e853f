"""Groups of examples as tokens in a file, so that a fit can run where there is no engine.

Law: what is read is what was written; passages and questions that groups share are kept once.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specrag_native.training.base import Base
from specrag_native.training.encoding import IGNORED, Branch, Group, encode
from specrag_native.training.examples import DraftExample, TrainingDataError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class EncodedExamples:
    """Groups, and where they are from.

    ``digest`` tells sets of examples from each other, ``n_examples`` counts those that were
    encoded or left out as too long, ``base`` is the name of the model whose tokens they are.
    """

    groups: Sequence[Group]
    digest: str
    n_examples: int
    base: str

    @property
    def left_out(self) -> int:
        """Examples that were too long."""
        return self.n_examples - sum(len(group.branches) for group in self.groups)


def encode_examples(
    examples: Sequence[DraftExample], base: Base, *, max_tokens: int
) -> EncodedExamples:
    """Encode examples with the tokeniser of a base; those of one subset stand beside each other."""
    digest = hashlib.blake2b(digest_size=8)
    for example in examples:
        digest.update(f"{example.id}\x1f{example.rationale}\n".encode())
    groups = encode(base.tokeniser(), examples, end_of_turn=base.end_of_turn, max_tokens=max_tokens)
    return EncodedExamples(list(groups), digest.hexdigest(), len(examples), base.path.name)


def write_encoded(path: Path, encoded: EncodedExamples) -> None:
    """Write groups beside ``path`` and rename."""
    heads, passages, branches = _Table(), _Table(), _Table()
    kept: dict[Branch, int] = {}
    starts: list[int] = []
    of_groups: list[list[int]] = []
    for group in encoded.groups:
        numbers = []
        for branch in group.branches:
            if branch not in kept:
                kept[branch] = branches.append(branch.tokens)
                starts.append(branch.start)
            numbers.append(kept[branch])
        read = [passages.number(passage) for passage in group.passages]
        of_groups.append([heads.number(group.head), len(read), *read, *numbers])
    counts = [label != IGNORED for branch in kept for label in branch.labels]
    facts = {
        "format": FORMAT,
        "digest": encoded.digest,
        "examples": encoded.n_examples,
        "base": encoded.base,
    }
    partial = path.with_name(path.name + ".writing")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
            **heads.arrays("heads"),
            **passages.arrays("passages"),
            **branches.arrays("branches"),
            **_flat("groups", of_groups),
            counts=np.packbits(np.asarray(counts, dtype=np.bool_)),
            starts=np.asarray(starts, dtype=np.uint32),
        )
    partial.replace(path)


def read_encoded(path: Path) -> EncodedExamples:
    """Read what :func:`write_encoded` wrote.

    Raises:
        TrainingDataError: the file is missing, damaged, or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts: dict[str, Any] = json.loads(arrays["facts"].tobytes())
        if facts["format"] != FORMAT:
            raise TrainingDataError(
                f"{path} is of format {facts['format']}, this version reads {FORMAT}: make it "
                "again with specrag train encode"
            )
        groups = list(_groups(arrays))
        return EncodedExamples(
            groups, str(facts["digest"]), int(facts["examples"]), str(facts["base"])
        )
    except FileNotFoundError:
        raise TrainingDataError(
            f"no encoded examples at {path}: make them with specrag train encode"
        ) from None
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingDataError(f"{path} holds no encoded examples ({error!r})") from None


class _Table:
    """Lists of tokens, equal ones kept once where they are asked for by number."""

    def __init__(self) -> None:
        self._lists: list[Sequence[int]] = []
        self._numbers: dict[Sequence[int], int] = {}

    def append(self, tokens: Sequence[int]) -> int:
        self._lists.append(tokens)
        return len(self._lists) - 1

    def number(self, tokens: tuple[int, ...]) -> int:
        if tokens not in self._numbers:
            self._numbers[tokens] = self.append(tokens)
        return self._numbers[tokens]

    def arrays(self, name: str) -> dict[str, Any]:
        return _flat(name, self._lists)


def _flat(name: str, lists: Iterable[Sequence[int]]) -> dict[str, Any]:
    lists = list(lists)
    flat = np.fromiter((x for one in lists for x in one), dtype=np.uint32)
    small = not len(flat) or int(flat.max()) < 1 << 16
    return {
        name: flat.astype(np.uint16) if small else flat,
        f"{name}_ends": np.cumsum([len(one) for one in lists], dtype=np.uint32),
    }


def _lists(arrays: dict[str, Any], name: str) -> list[tuple[int, ...]]:
    flat, ends = arrays[name].tolist(), arrays[f"{name}_ends"].tolist()
    if len(flat) != (ends[-1] if ends else 0):
        raise ValueError(f"{name} are cut short")
    return [tuple(flat[i:j]) for i, j in zip([0, *ends], ends, strict=False)]


def _groups(arrays: dict[str, Any]) -> Iterable[Group]:
    heads, passages = _lists(arrays, "heads"), _lists(arrays, "passages")
    starts = arrays["starts"].tolist()
    counts = np.unpackbits(arrays["counts"])[: len(arrays["branches"])].tolist()
    branches, begin = [], 0
    for tokens, start in zip(_lists(arrays, "branches"), starts, strict=True):
        end = begin + len(tokens)
        labels = tuple(
            token if counted else IGNORED
            for token, counted in zip(tokens, counts[begin:end], strict=True)
        )
        branches.append(Branch(tokens, labels, start))
        begin = end
    for head, n, *rest in _lists(arrays, "groups"):
        yield Group(
            heads[head],
            tuple(passages[i] for i in rest[:n]),
            tuple(branches[i] for i in rest[n:]),
        )
