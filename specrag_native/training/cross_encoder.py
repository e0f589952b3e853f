"""An embedder that learns to rank, as a torch module, and its weights as an adapter.

Law: it reads a pair in training as the engine reads it in use: token for token, with the same cuts.

The embedder stays as it is but for adapters (LoRA) on the linear layers of its encoder; a head of
two layers on the first token gives the score.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.encoders import NativeCrossEncoder
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ModelFileError
from specrag_native.model_files.adapter import Adapter
from specrag_native.protocol import Segment
from specrag_native.training.checkpoints import trained_weights
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


class PairTokens:
    """Tokens of pairs, as the engine makes them of the same texts.

    Args:
        path: the GGUF of the embedder.
        question_tokens: of a question, what is longer is cut at its end.
        pair_tokens: of a pair with the model's own tokens, likewise.
    """

    def __init__(
        self,
        path: Path,
        *,
        question_tokens: int = NativeCrossEncoder.QUESTION_TOKENS,
        pair_tokens: int = NativeCrossEncoder.PAIR_TOKENS,
    ) -> None:
        from gguf import GGUFReader

        reader = GGUFReader(path)
        self._cls, self._sep = (
            int(reader.get_field(f"tokenizer.ggml.{name}_token_id").contents())
            for name in ("bos", "seperator")  # the file format's own spelling
        )
        self._engine = NativeEngine(path, EngineOptions(n_ctx=512, n_batch=512, n_seq_max=2))
        self._question_tokens = question_tokens
        self._pair_tokens = min(pair_tokens, self._engine.model.n_ctx_train)  # as the engine does

    def pair(self, question: str, text: str) -> list[int]:
        """Return the tokens of a question and a text, cut as the engine cuts them."""
        head = self._plain(question)[: self._question_tokens]
        ids = [self._cls, *head, self._sep, *self._plain(text)]
        return [*ids[: self._pair_tokens - 1], self._sep]

    def _plain(self, text: str) -> list[int]:
        ids = self._engine.tokenize((Segment(text),)) if text else []
        return ids[1:] if ids[:1] == [self._cls] else ids


def cross_encoder(path: Path, options: RankFitOptions) -> Any:
    """Return a torch module: the embedder of a GGUF with adapters, and its head or a new one.

    It takes token ids and a mask, int64 and float of shape ``(n, longest)``, and returns logits of
    shape ``(n,)``.

    Raises:
        ModelFileError: the file is no BERT.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertModel

    torch.manual_seed(options.seed)
    config, weights, head = _read_bert(path)
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
            with warnings.catch_warnings():  # of what peft asks of transformers
                warnings.simplefilter("ignore", FutureWarning)
                self.bert = get_peft_model(bert, adapted)
            self.dense = torch.nn.Linear(config["hidden_size"], config["hidden_size"])
            self.out = torch.nn.Linear(config["hidden_size"], 1)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
            scores: torch.Tensor = self.out(torch.tanh(self.dense(hidden[:, 0]))).squeeze(-1)
            return scores

    model = CrossEncoder()
    own = dict(model.named_parameters())
    for name, values in head.items():
        own[name].data = torch.from_numpy(values).reshape(own[name].shape)
    return model


def _read_bert(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a BERT's configuration, weights and head, by their names in transformers and ours.

    The head is empty where the file has none.
    """
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
    head = {name: found[gguf] for name, gguf in _HEAD.items() if gguf in found}
    return config, {name: found[gguf] for name, gguf in names.items()}, head


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


def adapter_of(model: Any, *, alpha: float, facts: Mapping[str, Any]) -> Adapter:
    """Return the trained weights of a cross-encoder, adapters and head, by their names in a GGUF.

    Args:
        model: from :func:`cross_encoder`.
        alpha: by which, over their rank, the adapters count.
        facts: what the file says of itself.
    """
    weights = {n: w.float().numpy() for n, w in trained_weights(model).items()}
    matrices = {}
    for key, a in weights.items():
        if ".lora_A." not in key:
            continue
        layer, _, rest = key.partition("encoder.layer.")[2].partition(".")
        b = weights[key.replace(".lora_A.", ".lora_B.")]
        matrices[f"blk.{layer}.{_LAYERS[rest.partition('.lora_A.')[0]]}.weight"] = (a, b)
    return Adapter(
        architecture="bert",
        alpha=alpha,
        matrices=matrices,
        tensors={gguf: weights[own] for own, gguf in _HEAD.items()},
        facts=dict(facts),
    )
