"""An embedder taught to rank: fit on groups of passages, checked, exported as an adapter.

Law: it reads a pair in training as the engine reads it in use: token for token, with the same cuts.

The embedder stays as it is but for adapters (LoRA) on the linear layers of its encoder; a head of
two layers on the first token gives the score. A step lowers, for each group, the cross-entropy of
each right passage against the others (listwise softmax) and half that of right and wrong by
themselves, so that scores of different questions can be compared.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.engine import NativeCrossEncoder, NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import Cancelled, ConfigError, ModelFileError
from specrag_native.model_files.adapter import BASE_FACT, Adapter, write_adapter
from specrag_native.model_files.model_dir import hash_file
from specrag_native.protocol import CancelFlag, Segment
from specrag_native.training.base import require_extra
from specrag_native.training.checkpoints import (
    checkpoints,
    cut_log,
    read_moments,
    trained_weights,
    write_checkpoint,
)
from specrag_native.training.fit import LOSSES, SETTINGS, OnStep, Step
from specrag_native.training.pairs import Group
from specrag_native.training.rank_options import RankFitOptions

if TYPE_CHECKING:
    import torch

_LAYERS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "attention.output.LayerNorm": "attn_output_norm",
    "output.LayerNorm": "layer_output_norm",
}
"""Layers of a BERT by their names in transformers, and in a GGUF; those of the norms come last."""
_ADAPTED = tuple(name for name in _LAYERS if not name.endswith("LayerNorm"))
_EMBEDDINGS = {
    "word_embeddings.weight": "token_embd.weight",
    "position_embeddings.weight": "position_embd.weight",
    "token_type_embeddings.weight": "token_types.weight",
    "LayerNorm.weight": "token_embd_norm.weight",
    "LayerNorm.bias": "token_embd_norm.bias",
}
_HEAD = {
    "dense.weight": "cls.weight",
    "dense.bias": "cls.bias",
    "out.weight": "cls.output.weight",
    "out.bias": "cls.output.bias",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a cross-encoder does with held-back groups: mean loss, share with a right one first."""

    groups: int
    loss: float
    first_right: float


class PairTokens:
    """Tokens of pairs, as the engine makes them of the same texts.

    Args:
        path: the GGUF of the embedder.
    """

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        reader = GGUFReader(path)
        self._cls, self._sep = (
            int(reader.get_field(f"tokenizer.ggml.{name}_token_id").contents())
            for name in ("bos", "seperator")  # the file format's own spelling
        )
        self._engine = NativeEngine(path, EngineOptions(n_ctx=512, n_batch=512, n_seq_max=2))

    def pair(self, question: str, text: str) -> list[int]:
        """Return the tokens of a question and a text, cut as the engine cuts them."""
        head = self._plain(question)[: NativeCrossEncoder.QUESTION_TOKENS]
        ids = [self._cls, *head, self._sep, *self._plain(text)]
        return [*ids[: NativeCrossEncoder.PAIR_TOKENS - 1], self._sep]

    def _plain(self, text: str) -> list[int]:
        ids = self._engine.tokenize((Segment(text),)) if text else []
        return ids[1:] if ids[:1] == [self._cls] else ids


def cross_encoder(path: Path, options: RankFitOptions) -> Any:
    """Return a torch module: the embedder of a GGUF with adapters, and a new head.

    It takes token ids and a mask, int64 and float of shape ``(n, longest)``, and returns logits of
    shape ``(n,)``.

    Raises:
        ModelFileError: the file is no BERT.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertModel

    torch.manual_seed(options.seed)
    config, weights = _read_bert(path)
    bert = BertModel(BertConfig(**config), add_pooling_layer=False)
    bert.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()}, strict=False)
    adapted = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=[
            f"encoder.layer.{i}.{name}"
            for i in range(config["num_hidden_layers"])
            for name in _ADAPTED
        ],
        lora_dropout=0.0,
        bias="none",
    )

    class CrossEncoder(torch.nn.Module):  # type: ignore[misc]  # torch is optional
        def __init__(self) -> None:
            super().__init__()
            self.bert = get_peft_model(bert, adapted)
            self.dense = torch.nn.Linear(config["hidden_size"], config["hidden_size"])
            self.out = torch.nn.Linear(config["hidden_size"], 1)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
            scores: torch.Tensor = self.out(torch.tanh(self.dense(hidden[:, 0]))).squeeze(-1)
            return scores

    return CrossEncoder()


def _read_bert(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a BERT's configuration and weights, both by their names in transformers."""
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)

    def fact(key: str) -> Any:
        field = reader.get_field(key)
        return field.contents() if field is not None else None

    if fact("general.architecture") != "bert":
        raise ModelFileError(f"{path} is no BERT: a cross-encoder is made of such an embedder")
    found = {
        t.name: np.array(dequantize(t.data, t.tensor_type), dtype=np.float32)
        for t in reader.tensors
    }
    n_layer = int(fact("bert.block_count"))
    names = {f"embeddings.{name}": gguf for name, gguf in _EMBEDDINGS.items()}
    for i in range(n_layer):
        for name, gguf in _LAYERS.items():
            for half in ("weight", "bias"):
                names[f"encoder.layer.{i}.{name}.{half}"] = f"blk.{i}.{gguf}.{half}"
    if missing := sorted(set(names.values()) - set(found)):
        raise ModelFileError(f"{path} has no {missing[0]}: a cross-encoder needs a whole BERT")
    config = {
        "vocab_size": len(found["token_embd.weight"]),
        "hidden_size": int(fact("bert.embedding_length")),
        "num_hidden_layers": n_layer,
        "num_attention_heads": int(fact("bert.attention.head_count")),
        "intermediate_size": int(fact("bert.feed_forward_length")),
        "max_position_embeddings": len(found["position_embd.weight"]),
        "type_vocab_size": len(found["token_types.weight"]),
        "layer_norm_eps": float(fact("bert.attention.layer_norm_epsilon")),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return config, {name: found[gguf] for name, gguf in names.items()}


def score_pairs(model: Any, pairs: Sequence[Sequence[int]], *, batch: int = 20) -> torch.Tensor:
    """Return the logits of tokenised pairs, shape ``(n,)``; those of like length go together."""
    import torch

    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i]))
    out: list[torch.Tensor] = []
    for begin in range(0, len(order), batch):
        chosen = [pairs[i] for i in order[begin : begin + batch]]
        longest = max(map(len, chosen))
        ids = torch.zeros(len(chosen), longest, dtype=torch.long)
        mask = torch.zeros(len(chosen), longest)
        for row, pair in enumerate(chosen):
            ids[row, : len(pair)] = torch.tensor(pair)
            mask[row, : len(pair)] = 1.0
        out.append(model(ids, mask))
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(out)[back]


def group_loss(scores: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
    """Return the mean loss of groups; of each, the scores of right texts come first."""
    import torch
    from torch.nn import functional

    losses, at = [], 0
    for group in groups:
        n, size = len(group.right), len(group.right) + len(group.others)
        own = scores[at : at + size]
        at += size
        against = [torch.cat([own[i : i + 1], own[n:]]) for i in range(n)]
        listwise = torch.stack([-functional.log_softmax(x, 0)[0] for x in against]).mean()
        wanted = (torch.arange(size) < n).float()
        losses.append(listwise + 0.5 * functional.binary_cross_entropy_with_logits(own, wanted))
    return torch.stack(losses).mean()


class RankFit:
    """A fit of a cross-encoder in a folder: made anew, or gone on with.

    Args:
        base: the GGUF of a BERT embedder.
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
        self._tokens = PairTokens(base)
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
        total, right = 0.0, 0
        with torch.no_grad():
            for done, group in enumerate(held, 1):
                scores = score_pairs(self.model, self._pairs([group]))
                total += float(group_loss(scores, [group]))
                right += int(scores.argmax()) < len(group.right)
                if report:
                    report(done, len(held))
        return Found(len(held), total / max(1, len(held)), right / max(1, len(held)))

    def export(self, path: Path, *, name: str) -> Adapter:
        """Write the adapter with its head.

        :func:`specrag_native.model_files.adapter.build` makes a model of it and the base.
        """
        weights = {n: w.float().numpy() for n, w in trained_weights(self.model).items()}
        matrices = {}
        for key, a in weights.items():
            if ".lora_A." not in key:
                continue
            layer, _, rest = key.partition("encoder.layer.")[2].partition(".")
            b = weights[key.replace(".lora_A.", ".lora_B.")]
            matrices[f"blk.{layer}.{_LAYERS[rest.partition('.lora_A.')[0]]}.weight"] = (a, b)
        adapter = Adapter(
            architecture="bert",
            alpha=float(self.options.alpha),
            matrices=matrices,
            tensors={gguf: weights[own] for own, gguf in _HEAD.items()},
            facts={"general.name": name, BASE_FACT: hash_file(self.base)},
        )
        write_adapter(path, adapter)
        return adapter


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
