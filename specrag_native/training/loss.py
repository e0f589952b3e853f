"""The loss of groups of examples: one pass over the evidence and, behind it, every branch.

Law: a branch sees the evidence and itself, nothing of other branches; positions are those the
engine gives the same tokens; and a group's loss does not depend on what it is computed beside.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from specrag_native.training.encoding import IGNORED, Group

if TYPE_CHECKING:
    import torch

Layout = Literal["exact", "standalone"]
"""``exact``: passages one after another. ``standalone``: passages do not see each other and all
start at the same position."""

Numbers = NDArray[np.int32]

_ALL = -1
"""Owner of a token that everything behind it may see."""
_NOBODY = -2
"""Owner of the tokens that fill a row up."""
_STEP = 32
"""Rows are filled up to a multiple of this, which is what attention is fast with."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A group as one row of tokens; every array has one entry per token.

    ``branch`` is the branch a token belongs to, ``passage`` the standalone passage; ``_ALL`` (-1)
    of what belongs to none.
    """

    tokens: Numbers
    positions: Numbers
    labels: Numbers
    branch: Numbers
    passage: Numbers

    @property
    def n_counted(self) -> int:
        """Tokens that count in the loss."""
        return int((self.labels != IGNORED).sum())

    @property
    def n_branches(self) -> int:
        """Examples that the row holds."""
        return int(self.branch.max()) + 1


def filled(length: int) -> int:
    """Return the length that a row of ``length`` tokens is filled up to."""
    return -(-length // _STEP) * _STEP


def row_of(group: Group, layout: Layout) -> Row:
    """Lay a group out: its head, its passages, then its branches, all of which begin together."""
    head = len(group.head)
    alone = layout == "standalone" and len(group.passages) > 1
    tokens = np.concatenate(
        [
            _array(part)
            for part in (group.head, *group.passages, *(b.tokens for b in group.branches))
        ]
    )
    positions = np.arange(len(tokens), dtype=np.int32)
    labels, branch, passage = (
        np.full(len(tokens), x, dtype=np.int32) for x in (IGNORED, _ALL, _ALL)
    )
    at = following = head
    for i, part in enumerate(group.passages):
        end = at + len(part)
        if alone:
            passage[at:end] = i
            positions[at:end] = np.arange(head, head + len(part))
        at, following = end, max(following, int(positions[end - 1]) + 1)
    for i, one in enumerate(group.branches):
        end = at + len(one.tokens)
        labels[at:end] = _array(one.labels)
        branch[at:end] = i
        positions[at:end] = np.arange(following, following + len(one.tokens))
        at = end
    return Row(tokens, positions, labels, branch, passage)


@functools.lru_cache(maxsize=1 << 17)
def _array(tokens: tuple[int, ...]) -> Numbers:
    return np.array(tokens, dtype=np.int32)


def row_logits(model: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits of the tokens that count, their labels, and the branch each is of.

    Rows come one after another, and branches are numbered through all rows. Shapes: ``(n,
    n_vocab)``, ``(n,)``, ``(n,)``; n is the number of labels that count.
    """
    import torch

    device = next(model.parameters()).device
    longest = max(len(row.tokens) for row in rows)
    width = longest if len(rows) == 1 else filled(longest)

    def table(arrays: Sequence[Numbers], filling: int) -> Numbers:
        made = np.full((len(arrays), width), filling, dtype=np.int32)
        for line, array in zip(made, arrays, strict=True):
            line[: len(array)] = array
        return made

    def there(array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    labels = table([row.labels for row in rows], IGNORED)
    branch = table([row.branch for row in rows], _NOBODY)
    of, counted = np.nonzero(labels != IGNORED)
    before = np.cumsum([0, *(row.n_branches for row in rows)])
    with _attention(device):
        hidden = model.model(
            input_ids=there(table([row.tokens for row in rows], 0)).long(),
            position_ids=there(table([row.positions for row in rows], 0)).long(),
            attention_mask=_mask(
                there(branch), there(table([row.passage for row in rows], _ALL)), _dtype(model)
            ),
            use_cache=False,
        ).last_hidden_state
    # A token is predicted from the one before it; the first of a branch never counts.
    logits = model.get_output_embeddings()(hidden[there(of), there(counted - 1)])
    numbers = branch[of, counted] + before[of]
    return logits, there(labels[of, counted]).long(), there(numbers)


def token_weights(branch: torch.Tensor, decision: float) -> torch.Tensor:
    """Return the weight of each token that counts: ``decision`` for the first of a branch, else 1.

    ``branch`` is the branch each is of, those of one beside each other.
    """
    import torch

    weights = torch.ones(branch.shape, device=branch.device)
    first = torch.ones(branch.shape, dtype=torch.bool, device=branch.device)
    first[1:] = branch[1:] != branch[:-1]
    return weights.masked_fill(first, decision)


def _mask(branch: torch.Tensor, passage: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to the attention of each token (row) to each other: 0, or very little.

    A token sees those before it that belong to all or to what it belongs to itself; branches see
    every passage. Shapes: ``(n, length)`` both; the mask's ``(n, 1, length, length)``.
    """
    import torch

    length = branch.shape[1]
    visible = torch.ones((length, length), dtype=torch.bool, device=branch.device).tril()[None]
    seen, sees = branch[:, None, :], branch[:, :, None]
    visible = visible & ((seen == _ALL) | (seen == sees))
    seen, reads = passage[:, None, :], passage[:, :, None]
    visible &= (sees != _ALL) | (seen == _ALL) | (seen == reads)
    mask = torch.zeros(visible.shape, dtype=dtype, device=branch.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]


def _attention(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On CUDA, keep torch from kernels that are planned anew for every shape: each batch has one.

    With these a step of new shapes took 1.9 s on an H200, and 1.0 s when it was taken again.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels: contextlib.AbstractContextManager[Any] = sdpa_kernel(
        [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    return kernels


def _dtype(model: Any) -> torch.dtype:
    """Return the type in which activations run through the model."""
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype
