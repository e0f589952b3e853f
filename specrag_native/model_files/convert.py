"""Turns the safetensors weights of a BERT embedder into a GGUF that llama.cpp pools and serves.

Law: the same weights, vocabulary and type give the same bytes; a file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from specrag_native.errors import ModelFileError

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

MatrixType = Literal["f32", "f16", "q8_0"]
"""Storage of the weight matrices. Norms, biases, positions and token types are always float32."""

_WORD_START = "\u2581"  # llama.cpp's WordPiece marks the start of a word, not its continuation
_DROPPED = ("embeddings.position_ids", "pooler.")  # not part of the pooled embedding
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True)
class BertShape:
    """The sizes a BERT ``config.json`` states; everything else about it is fixed and checked."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_ctx: int
    n_vocab: int
    n_token_types: int
    layer_norm_eps: float


def read_shape(config: Path) -> BertShape:
    """Read a BERT ``config.json``; raise ModelFileError if llama.cpp cannot run such a model."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        shape = BertShape(
            n_layer=int(values["num_hidden_layers"]),
            n_embd=int(values["hidden_size"]),
            n_ff=int(values["intermediate_size"]),
            n_head=int(values["num_attention_heads"]),
            n_ctx=int(values["max_position_embeddings"]),
            n_vocab=int(values["vocab_size"]),
            n_token_types=int(values["type_vocab_size"]),
            layer_norm_eps=float(values["layer_norm_eps"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{config} is no BERT config.json: {error!r}") from error
    for key, expected in (
        ("model_type", "bert"),
        ("hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
    ):
        if (got := values.get(key, expected)) != expected:
            raise ModelFileError(f"{config}: {key} is {got!r}, only {expected!r} can be converted")
    return shape


def read_vocab(vocab: Path) -> list[str]:
    """Read a WordPiece ``vocab.txt``: one token a line, its line number (from 0) is its id."""
    # Only "\n" ends a line: tokens may be other characters that str.splitlines would split at.
    text = vocab.read_bytes().decode("utf-8")
    tokens = text.removesuffix("\n").split("\n")
    missing = [token for token in _SPECIAL if token not in tokens]
    if missing:
        raise ModelFileError(f"{vocab} is no WordPiece vocabulary: it lacks {', '.join(missing)}")
    return tokens


def wordpiece_token(token: str) -> str:
    """Return ``token`` as llama.cpp stores it: ``##ing`` -> ``ing``, ``sing`` -> ``▁sing``."""
    if token in _SPECIAL:
        return token
    return token[2:] if token.startswith("##") else _WORD_START + token


def convert_bert(
    weights: Path,
    dst: Path,
    *,
    vocab: Path,
    config: Path,
    type: str = "f16",
    name: str = "",
    licence: str = "",
) -> None:
    """Write the uncased, mean-pooled BERT in ``weights`` (safetensors) as the GGUF ``dst``.

    Raises ModelFileError when the files do not fit together, OSError when ``dst`` cannot be
    written. ``dst`` is replaced atomically.
    """
    import gguf

    if type not in get_args(MatrixType):
        raise ModelFileError(
            f"cannot store matrices as {type!r}, only as {', '.join(get_args(MatrixType))}"
        )
    matrices = cast(MatrixType, type)
    shape, tokens = read_shape(config), read_vocab(vocab)
    if len(tokens) != shape.n_vocab:
        raise ModelFileError(
            f"{vocab} holds {len(tokens)} tokens, but {config} promises {shape.n_vocab}"
        )
    partial = dst.with_name(dst.name + ".writing")
    writer = gguf.GGUFWriter(partial, "bert")
    try:
        _write_facts(writer, shape, type=matrices, name=name, licence=licence)
        _write_vocab(writer, tokens)
        for tensor_name, data, kind in _tensors(weights, shape, matrices):
            writer.add_tensor(tensor_name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(dst)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


def _write_facts(
    writer: gguf.GGUFWriter, shape: BertShape, *, type: MatrixType, name: str, licence: str
) -> None:
    import gguf

    if name:
        writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_block_count(shape.n_layer)
    writer.add_head_count(shape.n_head)
    writer.add_layer_norm_eps(shape.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(shape.n_token_types)
    writer.add_file_type(
        {
            "f32": gguf.LlamaFileType.ALL_F32,
            "f16": gguf.LlamaFileType.MOSTLY_F16,
            "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        }[type]
    )


def _write_vocab(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    import gguf

    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert")
    writer.add_token_list([wordpiece_token(token) for token in tokens])
    writer.add_token_types([control if token in _SPECIAL else normal for token in tokens])
    ids = {token: tokens.index(token) for token in _SPECIAL}
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", True)


def _tensors(
    weights: Path, shape: BertShape, type: MatrixType
) -> Iterator[tuple[str, NDArray[Any], gguf.GGMLQuantizationType]]:
    """Yield (GGUF name, data, stored type) of every tensor that the embedding needs."""
    import gguf
    import numpy as np
    from gguf.quants import quantize
    from gguf.utility import SafetensorsLocal

    matrix = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }[type]
    try:
        tensors = SafetensorsLocal(weights).tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{weights} is no safetensors file: {error}") from error
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, shape.n_layer)
    expected = 5 + 16 * shape.n_layer  # three embeddings and their norm; 16 tensors a layer
    written = 0
    for source_name, tensor in tensors.items():
        if source_name.startswith(_DROPPED):
            continue
        target = names.get_name(source_name, try_suffixes=(".weight", ".bias"))
        if target is None or tensor.dtype != "F32":
            raise ModelFileError(
                f"{weights}: tensor {source_name} ({tensor.dtype}) is not a BERT's float32 weight"
            )
        data = _floats(tensor.mmap_bytes(), tensor.shape, f"{weights}: tensor {source_name}")
        is_matrix = data.ndim == 2 and target not in ("position_embd.weight", "token_types.weight")
        kind = matrix if is_matrix else gguf.GGMLQuantizationType.F32
        yield target, quantize(data, kind) if kind != 0 else data.astype(np.float32), kind
        written += 1
    if written != expected:
        raise ModelFileError(f"{weights} holds {written} of a BERT's {expected} tensors")


def _floats(raw: NDArray[np.uint8], shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    import numpy as np

    try:
        return np.frombuffer(raw, dtype="<f4").reshape(shape)
    except ValueError as error:
        raise ModelFileError(f"{what} has not the bytes of its shape {shape}: {error}") from error
