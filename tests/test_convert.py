from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specrag_native.errors import ModelFileError, ModelNotFoundError
from specrag_native.model_files import catalog
from specrag_native.model_files.convert import convert_bert, read_shape, read_vocab, wordpiece_token
from specrag_native.model_files.gguf_check import check_gguf

GOLDEN = Path(__file__).parent / "golden" / "minilm.json"
VOCAB = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bed", "##ding", "\u2028"]
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(VOCAB),
}


def weights() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the float32 tensors of a two-layer BERT with the names its checkpoints use."""
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCAB), 32),
        "embeddings.position_embeddings.weight": (16, 32),
        "embeddings.token_type_embeddings.weight": (2, 32),
        "embeddings.LayerNorm.weight": (32,),
        "embeddings.LayerNorm.bias": (32,),
        "pooler.dense.weight": (32, 32),
        "pooler.dense.bias": (32,),
    }
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for name, (rows, columns) in {
            "attention.self.query": (32, 32),
            "attention.self.key": (32, 32),
            "attention.self.value": (32, 32),
            "attention.output.dense": (32, 32),
            "intermediate.dense": (64, 32),
            "output.dense": (32, 64),
        }.items():
            shapes[f"{layer}.{name}.weight"] = (rows, columns)
            shapes[f"{layer}.{name}.bias"] = (rows,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (32,)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_safetensors(path: Path, tensors: dict[str, Any], *, dtype: str = "F32") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, at = [], 0
    for name, data in tensors.items():
        blob = data.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(data.shape),
            "data_offsets": [at, at + len(blob)],
        }
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    write_safetensors(tmp_path / "model.safetensors", weights())
    (tmp_path / "vocab.txt").write_bytes("\n".join(VOCAB).encode() + b"\n")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def convert(sources: Path, type: str = "f16", name: str = "out.gguf") -> Path:
    convert_bert(
        sources / "model.safetensors",
        sources / name,
        vocab=sources / "vocab.txt",
        config=sources / "config.json",
        type=type,
        name="tiny",
        licence="apache-2.0",
    )
    return sources / name


def test_facts_and_vocabulary_are_what_llama_cpp_reads(sources: Path) -> None:
    from gguf import GGUFReader

    path = convert(sources)
    facts = check_gguf(path)
    assert (facts.architecture, facts.causal, facts.pooling) == ("bert", False, 1)
    assert facts.embeds and not facts.generates
    fields = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
    assert fields["bert.context_length"] == 16
    assert fields["bert.block_count"] == 2
    assert fields["bert.attention.layer_norm_epsilon"] == pytest.approx(1e-12)
    assert fields["tokenizer.ggml.model"] == "bert"
    assert fields["tokenizer.ggml.tokens"] == [
        "[PAD]", "▁[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁bed", "ding", "▁\u2028",
    ]  # fmt: skip
    assert fields["tokenizer.ggml.token_type"] == [3, 1, 3, 3, 3, 3, 1, 1, 1]
    ids = {k: fields[f"tokenizer.ggml.{k}_token_id"] for k in ("bos", "seperator", "unknown")}
    assert ids == {"bos": 3, "seperator": 4, "unknown": 2}


@pytest.mark.parametrize(("type", "tolerance"), [("f32", 0.0), ("f16", 2e-3), ("q8_0", 2e-2)])
def test_every_weight_keeps_its_value_and_norms_stay_float32(
    sources: Path, type: str, tolerance: float
) -> None:
    from gguf import GGMLQuantizationType, GGUFReader
    from gguf.quants import dequantize

    tensors = {t.name: t for t in GGUFReader(convert(sources, type)).tensors}
    source = weights()
    pairs = {
        "token_embd.weight": "embeddings.word_embeddings.weight",
        "position_embd.weight": "embeddings.position_embeddings.weight",
        "blk.1.ffn_down.weight": "encoder.layer.1.output.dense.weight",
        "blk.0.attn_q.bias": "encoder.layer.0.attention.self.query.bias",
        "blk.0.layer_output_norm.weight": "encoder.layer.0.output.LayerNorm.weight",
    }
    assert len(tensors) == len(source) - 2  # without the pooler
    for target, name in pairs.items():
        tensor = tensors[target]
        values = dequantize(tensor.data, tensor.tensor_type).reshape(source[name].shape)
        assert np.abs(values - source[name]).max() <= tolerance * np.abs(source[name]).max()
        if "norm" in target or "bias" in target or "position" in target:
            assert tensor.tensor_type == GGMLQuantizationType.F32


def test_the_same_sources_give_the_same_bytes(sources: Path) -> None:
    assert convert(sources, name="a.gguf").read_bytes() == convert(sources).read_bytes()


def test_words_and_continuations_swap_marks() -> None:
    assert [wordpiece_token(t) for t in ("sing", "##ing", "[CLS]", "##", "#")] == [
        "▁sing", "ing", "[CLS]", "", "▁#",
    ]  # fmt: skip


def test_only_a_newline_ends_a_token(sources: Path) -> None:
    assert read_vocab(sources / "vocab.txt") == VOCAB


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model_type", "roberta", "model_type is 'roberta'"),
        ("hidden_act", "relu", "hidden_act is 'relu'"),
        ("position_embedding_type", "relative_key", "position_embedding_type"),
        ("vocab_size", 99, "promises 99"),
        ("num_hidden_layers", 3, "holds 37 of a BERT's 53 tensors"),
        ("hidden_size", "wide", "is no BERT config.json"),
    ],
)
def test_a_config_of_another_model_is_refused(
    sources: Path, key: str, value: object, said: str
) -> None:
    (sources / "config.json").write_text(json.dumps({**CONFIG, key: value}))
    with pytest.raises(ModelFileError) as caught:
        convert(sources)
    assert said in str(caught.value)
    assert not (sources / "out.gguf").exists() and not list(sources.glob("*.writing"))


def test_a_config_that_is_no_json_is_refused(sources: Path) -> None:
    for text in ("<html>", "[]", "{}"):
        (sources / "config.json").write_text(text)
        with pytest.raises(ModelFileError, match="is no BERT config"):
            read_shape(sources / "config.json")


def test_weights_that_are_no_safetensors_are_refused(sources: Path) -> None:
    for content in (b"<html>not found</html>", b"", struct.pack("<Q", 4) + b"[1] "):
        (sources / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"model\.safetensors"):
            convert(sources)
    assert not (sources / "out.gguf").exists()


def test_weights_of_another_type_or_name_are_refused(sources: Path) -> None:
    write_safetensors(sources / "model.safetensors", weights(), dtype="F16")
    with pytest.raises(ModelFileError, match=r"\(F16\) is not a BERT's float32 weight"):
        convert(sources)
    write_safetensors(sources / "model.safetensors", {**weights(), "lm_head": np.ones(3)})
    with pytest.raises(ModelFileError, match="tensor lm_head"):
        convert(sources)


def test_a_vocabulary_without_its_special_tokens_is_refused(sources: Path) -> None:
    (sources / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ModelFileError, match=r"lacks \[PAD\], \[UNK\], \[CLS\]"):
        convert(sources)


def test_an_unknown_type_is_refused(sources: Path) -> None:
    with pytest.raises(ModelFileError, match="'q2_k', only as f32, f16, q8_0"):
        convert(sources, "q2_k")


@pytest.mark.model
def test_vectors_of_the_converted_model_agree_with_the_reference_pipeline() -> None:
    """The reference is written in the golden file: float32, mean pooling, L2-normalised.

    The matrices here are float16, whose rounding moves a cosine by some 1e-6; 0.999 would be
    missed by a wrong pooling, a wrong norm or one wrong token.
    """
    from specrag_native.encoders import NativeEmbedder
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions

    try:
        path = catalog.resolve("all-minilm-l6-v2", role="embedder").path
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    expected = np.array([row["vector"] for row in golden["rows"]], dtype=np.float32)
    assert expected.shape == (20, 384)
    engine = NativeEngine(path, EngineOptions(n_ctx=512, n_batch=512, n_seq_max=32))
    got = NativeEmbedder(engine).embed([row["text"] for row in golden["rows"]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = (got * expected).sum(axis=1)
    assert cosines.min() >= 0.999, dict(enumerate(cosines.tolist()))
