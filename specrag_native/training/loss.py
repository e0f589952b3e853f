"""The loss of a group of examples: one pass over the evidence and, behind it, every branch.

Law: a branch sees the evidence and itself, nothing of other branches; positions are those the
engine gives the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from specrag_native.training.encoding import IGNORED, Group

if TYPE_CHECKING:
    import torch

Layout = Literal["exact", "standalone"]
"""``exact``: passages one after another. ``standalone``: passages do not see each other and all
start at the same position."""

_ALL = -1
"""Owner of a token that everything behind it may see."""


@dataclass(frozen=True, slots=True)
class Row:
    """A group as one row of tokens; every list has one entry per token.

    ``branch`` is the branch a token belongs to, ``passage`` the standalone passage; ``_ALL`` (-1)
    of what belongs to none.
    """

    tokens: list[int]
    positions: list[int]
    labels: list[int]
    branch: list[int]
    passage: list[int]


def row_of(group: Group, layout: Layout) -> Row:
    """Lay a group out: its head, its passages, then its branches, all of which begin together."""
    head = len(group.head)
    alone = layout == "standalone" and len(group.passages) > 1
    tokens, positions, passage = list(group.head), list(range(head)), [_ALL] * head
    for i, of_passage in enumerate(group.passages):
        begin = head if alone else len(tokens)
        tokens += of_passage
        positions += range(begin, begin + len(of_passage))
        passage += [i if alone else _ALL] * len(of_passage)
    n_evidence, following = len(tokens), max(positions) + 1
    labels, owner = [IGNORED] * n_evidence, [_ALL] * n_evidence
    for i, branch in enumerate(group.branches):
        tokens += branch.tokens
        labels += branch.labels
        positions += range(following, following + len(branch.tokens))
        owner += [i] * len(branch.tokens)
    passage += [_ALL] * (len(tokens) - n_evidence)
    return Row(tokens, positions, labels, owner, passage)


def group_logits(
    model: Any, group: Group, *, layout: Layout
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits of the tokens that count, their labels, and the branch each is of.

    Shapes: ``(n, n_vocab)``, ``(n,)``, ``(n,)``; n is the number of labels that count.
    """
    import torch

    device = next(model.parameters()).device
    row = row_of(group, layout)
    hidden = _inner(model)(
        input_ids=torch.tensor([row.tokens], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        attention_mask=_mask(row)[None, None].to(device),
        use_cache=False,
    ).last_hidden_state[0]
    labels, branch = torch.tensor(row.labels), torch.tensor(row.branch)
    # A token is predicted from the one before it; the first of a branch never counts.
    (counted,) = (labels != IGNORED).nonzero(as_tuple=True)
    logits = model.get_output_embeddings()(hidden[(counted - 1).to(device)])
    return logits, labels[counted].to(device), branch[counted].to(device)


def _mask(row: Row) -> torch.Tensor:
    """Return what is added to the attention of each token (row) to each other: 0, or very little.

    A token sees those before it that belong to all or to what it belongs to itself; branches see
    every passage.
    """
    import torch

    branch, passage = torch.tensor(row.branch), torch.tensor(row.passage)
    visible = torch.ones((len(branch), len(branch)), dtype=torch.bool).tril()
    visible &= (branch[None, :] == _ALL) | (branch[None, :] == branch[:, None])
    in_evidence = branch[:, None] == _ALL
    visible &= ~in_evidence | (passage[None, :] == _ALL) | (passage[None, :] == passage[:, None])
    least = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape).masked_fill(~visible, least)


def _inner(model: Any) -> Any:
    """Return the decoder without its head, below an adapter if there is one."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.model
