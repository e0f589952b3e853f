"""A tiny random llama GGUF with a byte vocabulary, which the engine and transformers both load."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions

N_EMBD, N_HEAD, N_HEAD_KV, N_FF, N_LAYER = 64, 4, 2, 128, 2
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokens() -> list[str]:
    """The 256 bytes as byte-level BPE writes them, then three special tokens."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, extra = {}, 0
    for byte in range(256):
        if byte in shown:
            names[byte] = chr(byte)
        else:
            names[byte] = chr(256 + extra)
            extra += 1
    return [*(names[b] for b in range(256)), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tiny(path: Path, *, architecture: str = "llama", seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    tokens = byte_tokens()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(2048)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 3
    writer.add_token_types(kinds)
    writer.add_token_merges(["Ā ā"])  # two control bytes, which no text holds
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    def matrix(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * 0.15).astype(np.float32)

    head = N_EMBD // N_HEAD
    writer.add_tensor("token_embd.weight", matrix(len(tokens), N_EMBD))
    writer.add_tensor("output_norm.weight", np.ones(N_EMBD, dtype=np.float32))
    for i in range(N_LAYER):
        writer.add_tensor(f"blk.{i}.attn_norm.weight", np.ones(N_EMBD, dtype=np.float32))
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", np.ones(N_EMBD, dtype=np.float32))
        writer.add_tensor(f"blk.{i}.attn_q.weight", matrix(N_EMBD, N_EMBD))
        writer.add_tensor(f"blk.{i}.attn_k.weight", matrix(head * N_HEAD_KV, N_EMBD))
        writer.add_tensor(f"blk.{i}.attn_v.weight", matrix(head * N_HEAD_KV, N_EMBD))
        writer.add_tensor(f"blk.{i}.attn_output.weight", matrix(N_EMBD, N_EMBD))
        writer.add_tensor(f"blk.{i}.ffn_gate.weight", matrix(N_FF, N_EMBD))
        writer.add_tensor(f"blk.{i}.ffn_up.weight", matrix(N_FF, N_EMBD))
        writer.add_tensor(f"blk.{i}.ffn_down.weight", matrix(N_EMBD, N_FF))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tiny_engine(path: Path, **changes: int) -> NativeEngine:
    """An engine of such a model, small and with one thread."""
    options = {"n_ctx": 1024, "n_batch": 64, "threads": 1, **changes}
    return NativeEngine(path, EngineOptions(**options))
