"""The loss of a group of examples: evidence computed once, its branches beside each other.

Law: a branch sees the evidence and itself, nothing of other branches; positions are those the
engine gives the same tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from specrag_native.training.encoding import IGNORED, Group

if TYPE_CHECKING:
    import torch

Layout = Literal["exact", "standalone"]
"""``exact``: passages one after another. ``standalone``: passages do not see each other and all
start at the same position."""


def group_logits(
    model: Any, group: Group, *, layout: Layout
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits of the tokens that count, their labels, and the branch each is of.

    Shapes: ``(n, n_vocab)``, ``(n,)``, ``(n,)``; n is the number of labels that count.
    """
    import torch
    from transformers import DynamicCache

    device = next(model.parameters()).device
    evidence, positions, mask, following = _evidence(group, layout, device, model.dtype)
    inner = _inner(model)
    cache = DynamicCache(config=model.config)
    inner(
        input_ids=evidence,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    )
    n = len(group.branches)
    cache.batch_repeat_interleave(n)
    width = max(len(b.tokens) for b in group.branches)
    tokens = torch.zeros((n, width), dtype=torch.long)
    labels = torch.full((n, width), IGNORED, dtype=torch.long)
    seen = torch.zeros((n, evidence.shape[1] + width), dtype=torch.long)
    seen[:, : evidence.shape[1]] = 1
    for row, branch in enumerate(group.branches):
        length = len(branch.tokens)
        tokens[row, :length] = torch.tensor(branch.tokens)
        labels[row, :length] = torch.tensor(branch.labels)
        seen[row, evidence.shape[1] : evidence.shape[1] + length] = 1
    hidden = inner(
        input_ids=tokens.to(device),
        position_ids=torch.arange(following, following + width, device=device).expand(n, width),
        attention_mask=seen.to(device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    # A token is predicted from the one before it; the first of a branch never counts.
    rows, columns = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    logits = model.get_output_embeddings()(hidden[rows.to(device), columns.to(device)])
    return logits, labels[rows, columns + 1].to(device), rows.to(device)


def _inner(model: Any) -> Any:
    """Return the decoder without its head, below an adapter if there is one."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.model


def _evidence(
    group: Group, layout: Layout, device: Any, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, int]:
    """Return tokens, positions and mask of the evidence, and the position that follows it."""
    import torch

    head = len(group.head)
    lengths = [len(p) for p in group.passages]
    tokens = torch.tensor([[*group.head, *(t for p in group.passages for t in p)]], device=device)
    n = tokens.shape[1]
    if layout == "exact" or len(lengths) < 2:
        return tokens, torch.arange(n, device=device)[None], None, n
    positions = torch.cat([torch.arange(head), *(torch.arange(head, head + x) for x in lengths)])
    owner = torch.cat(
        [torch.full((head,), -1), *(torch.full((x,), i) for i, x in enumerate(lengths))]
    )
    visible = torch.ones((n, n), dtype=torch.bool).tril()
    visible &= (owner[None, :] == -1) | (owner[None, :] == owner[:, None])
    mask = torch.zeros((n, n), dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
    return tokens, positions[None].to(device), mask[None, None].to(device), head + max(lengths)
