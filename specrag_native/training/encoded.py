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
from typing import Any, TypeVar

import numpy as np

from specrag_native.config import DraftForm
from specrag_native.training.base import Base
from specrag_native.training.encoding import IGNORED, Branch, Group, encode
from specrag_native.training.examples import DraftExample, TrainingDataError

FORMAT = 1

Kept = TypeVar("Kept", tuple[int, ...], Branch)


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
    examples: Sequence[DraftExample],
    base: Base,
    *,
    max_tokens: int,
    form: DraftForm = "rationale-first",
) -> EncodedExamples:
    """Encode examples with the tokeniser of a base; those of one subset stand beside each other."""
    groups = encode(
        base.tokeniser(),
        examples,
        end_of_turn=base.end_of_turn,
        max_tokens=max_tokens,
        form=form,
    )
    return EncodedExamples(list(groups), digest_of(examples), len(examples), base.path.name)


def digest_of(examples: Sequence[DraftExample]) -> str:
    """Return what tells these examples from others."""
    digest = hashlib.blake2b(digest_size=8)
    for example in examples:
        digest.update(f"{example.id}\x1f{example.rationale}\n".encode())
    return digest.hexdigest()


def write_encoded(path: Path, encoded: EncodedExamples) -> None:
    """Write groups beside ``path`` and rename."""
    heads: dict[tuple[int, ...], int] = {}
    passages: dict[tuple[int, ...], int] = {}
    branches: dict[Branch, int] = {}
    of_groups = [
        [
            _number(heads, group.head),
            len(group.passages),
            *(_number(passages, passage) for passage in group.passages),
            *(_number(branches, branch) for branch in group.branches),
        ]
        for group in encoded.groups
    ]
    counts = [label != IGNORED for branch in branches for label in branch.labels]
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
            **_flat("heads", list(heads)),
            **_flat("passages", list(passages)),
            **_flat("branches", [branch.tokens for branch in branches]),
            **_flat("groups", of_groups),
            counts=np.packbits(np.asarray(counts, dtype=np.bool_)),
            starts=np.asarray([branch.start for branch in branches], dtype=np.uint32),
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


def _number(kept: dict[Kept, int], one: Kept) -> int:
    """Return the number of what is kept, a new one for what was not kept yet."""
    return kept.setdefault(one, len(kept))


def _flat(name: str, lists: Sequence[Sequence[int]]) -> dict[str, Any]:
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
