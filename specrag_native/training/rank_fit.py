"""A fit of a cross-encoder on groups of passages, checked and exported.

Law: as every fit, it can be stopped at any step, and gone on with it has the numbers it would have
had.

A step lowers, for each group, the cross-entropy of each right passage against the others (listwise
softmax) and half that of right and wrong by themselves, so that scores of different questions can
be compared.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specrag_native.errors import Cancelled, ConfigError
from specrag_native.model_files.adapter import BASE_FACT, Adapter, write_adapter
from specrag_native.model_files.model_dir import hash_file
from specrag_native.protocol import CancelFlag
from specrag_native.training.base import require_extra
from specrag_native.training.checkpoints import (
    checkpoints,
    cut_log,
    read_moments,
    write_checkpoint,
)
from specrag_native.training.cross_encoder import PairTokens, adapter_of, cross_encoder, score_pairs
from specrag_native.training.fit import LOSSES, SETTINGS, OnStep, Step
from specrag_native.training.pairs import Group
from specrag_native.training.rank_options import RankFitOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Found:
    """What a cross-encoder does with held-back groups: their mean loss, and two shares.

    ``first_right``: of groups with right texts and others, those with a right one first; ``told``:
    of groups with one kind alone, those of which every text is told by itself, by the sign of its
    score. ``None`` where there is no such group.
    """

    groups: int
    loss: float
    first_right: float | None
    told: float | None


def group_loss(scores: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
    """Return the mean loss of groups; of each, the scores of right texts come first.

    A group may have right texts alone, or none.
    """
    import torch
    from torch.nn import functional

    losses, at = [], 0
    for group in groups:
        n, size = len(group.right), len(group.right) + len(group.others)
        own = scores[at : at + size]
        at += size
        wanted = (torch.arange(size) < n).float()
        loss = 0.5 * functional.binary_cross_entropy_with_logits(own, wanted)
        if n:
            against = [torch.cat([own[i : i + 1], own[n:]]) for i in range(n)]
            loss = loss + torch.stack([-functional.log_softmax(x, 0)[0] for x in against]).mean()
        losses.append(loss)
    return torch.stack(losses).mean()


class RankFit:
    """A fit of a cross-encoder in a folder: made anew, or gone on with.

    Args:
        base: the GGUF of a BERT embedder, or of a cross-encoder to train on.
        groups: what it learns from.
        out: folder of checkpoints, settings and losses.
        options: see :class:`RankFitOptions`.

    Raises:
        ConfigError: the folder holds a fit with other settings, groups or base.
    """

    def __init__(
        self,
        base: Path,
        groups: Sequence[Group],
        out: Path,
        options: RankFitOptions,
    ) -> None:
        require_extra()
        import torch
        from safetensors.torch import load_file

        self.options, self.out, self.base = options, out, base
        self._groups = groups
        out.mkdir(parents=True, exist_ok=True)
        self._claim()
        if options.threads:
            torch.set_num_threads(options.threads)
        self._tokens = PairTokens(
            base, question_tokens=options.question_tokens, pair_tokens=options.pair_tokens
        )
        self.model = cross_encoder(base, options)
        self.steps = _plan(len(groups), options)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(
            trained, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.step = 0
        if found := checkpoints(out):
            self.model.load_state_dict(load_file(found[-1] / "weights.safetensors"), strict=False)
            self.step = read_moments(found[-1], self.model, self._optimiser)
        cut_log(out / LOSSES, self.step)

    def _claim(self) -> None:
        import hashlib

        digest = hashlib.blake2b(digest_size=8)
        for group in self._groups:
            digest.update(json.dumps(asdict(group)).encode())
        kept = {k: v for k, v in asdict(self.options).items() if k not in ("threads", "save_every")}
        settings = {
            "base": hash_file(self.base),
            "groups": len(self._groups),
            "groups_digest": digest.hexdigest(),
            "options": kept,
        }
        path = self.out / SETTINGS
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if different := sorted(k for k in settings if found.get(k) != settings[k]):
                raise ConfigError(
                    f"{self.out} holds a fit with another {different[0]}: choose another --out, or "
                    "give the same settings to go on"
                )
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    def run(self, *, on_step: OnStep | None = None, cancel: CancelFlag | None = None) -> None:
        """Take the steps that are left; a checkpoint is written regularly and at the end.

        Raises:
            Cancelled: ``cancel`` was set; the last finished step is kept in a checkpoint.
        """
        try:
            while self.step < len(self.steps):
                if cancel is not None and cancel.cancelled:
                    raise Cancelled("cancelled while fitting")
                taken = self._take()
                with (self.out / LOSSES).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(taken)) + "\n")
                self.step += 1
                if on_step:
                    on_step(taken)
                if self.step % self.options.save_every == 0:
                    self._save()
        except (KeyboardInterrupt, Cancelled):
            self._save()
            raise
        self._save()

    def _save(self) -> None:
        write_checkpoint(self.out, self.step, self.model, self._optimiser)

    def _take(self) -> Step:
        import torch

        started = time.perf_counter()
        rate = _rate_at(self.step, len(self.steps), self.options)
        for settings in self._optimiser.param_groups:
            settings["lr"] = rate
        groups = [self._groups[i] for i in self.steps[self.step]]
        pairs = self._pairs(groups)
        self.model.train()
        loss = group_loss(score_pairs(self.model, pairs), groups)
        loss.backward()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, self.options.clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return Step(
            step=self.step + 1,
            of=len(self.steps),
            loss=float(loss.detach()),
            rate=rate,
            examples=len(groups),
            tokens=sum(map(len, pairs)),
            seconds=time.perf_counter() - started,
        )

    def _pairs(self, groups: Sequence[Group]) -> list[list[int]]:
        return [self._tokens.pair(g.question, t) for g in groups for t in (*g.right, *g.others)]

    def check(
        self, held: Sequence[Group], report: Callable[[int, int], None] | None = None
    ) -> Found:
        """Return what the model does with held-back groups."""
        import torch

        self.model.eval()
        total = 0.0
        first: list[bool] = []
        told: list[bool] = []
        with torch.no_grad():
            for done, group in enumerate(held, 1):
                scores = score_pairs(self.model, self._pairs([group]))
                total += float(group_loss(scores, [group]))
                if group.right and group.others:
                    first.append(int(scores.argmax()) < len(group.right))
                else:
                    told.append(bool(((scores > 0) == bool(group.right)).all()))
                if report:
                    report(done, len(held))
        return Found(len(held), total / max(1, len(held)), _share(first), _share(told))

    def export(self, path: Path, *, name: str) -> Adapter:
        """Write the adapter with its head.

        :func:`specrag_native.model_files.adapter.build` makes a model of it and the base.
        """
        adapter = adapter_of(
            self.model,
            alpha=float(self.options.alpha),
            facts={"general.name": name, BASE_FACT: hash_file(self.base)},
        )
        write_adapter(path, adapter)
        return adapter


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None


def _plan(n_groups: int, options: RankFitOptions) -> list[list[int]]:
    """Return which groups make each step."""
    order: list[int] = []
    for epoch in range(math.ceil(options.epochs)):
        numbers = list(range(n_groups))
        random.Random(f"{options.seed} {epoch}").shuffle(numbers)
        order += numbers
    order = order[: max(1, round(options.epochs * n_groups))]
    return [order[i : i + options.groups] for i in range(0, len(order), options.groups)]


def _rate_at(step: int, n_steps: int, options: RankFitOptions) -> float:
    """Return the learning rate of a step (counted from 0)."""
    warm = min(1.0, (step + 1) / max(1, options.warmup))
    return options.rate * warm * (0.05 + 0.475 * (1 + math.cos(math.pi * step / n_steps)))
