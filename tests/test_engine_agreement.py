"""Our log-probabilities against an independent computation on the same file.

The reference drives llama-cpp-python's low-level calls: one sequence, all logits, log-softmax in
float64 by numpy. The tolerance: both compute with the same library, but in batches of other
shapes, whose kernels add in another order and in another precision. The library's own low-level
calls differ among themselves by 0.03 on average and 0.22 at most (batches of 8 against 256 tokens,
attention fused or not); in batches of one shape the difference is below 0.001.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.protocol import Segment

pytestmark = pytest.mark.model

TEXT = "The lighthouse on the northern cape was built of grey stone and lit for the first time"
CONTINUATION = " in the winter of the great storm, when three ships were lost."


def reference_logprobs(
    path: Path, tokens: list[int]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """log P(tokens[i] | tokens[:i]) for i >= 1."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 256
    params.n_batch = 256
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(256, 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        assert llama_cpp.llama_decode(context, batch) == 0
        n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        out = []
        for i in range(len(tokens) - 1):
            row = llama_cpp.llama_get_logits_ith(context, i)
            logits = np.ctypeslib.as_array(
                ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), shape=(n_vocab,)
            ).astype(np.float64)
            peak = logits.max()
            out.append(logits[tokens[i + 1]] - peak - np.log(np.exp(logits - peak).sum()))
        return np.asarray(out)
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def test_scores_agree_with_the_low_level_calls(drafter: NativeEngine, drafter_path: Path) -> None:
    prompt = (Segment(TEXT), Segment(CONTINUATION, scored=True))
    tokens = drafter.tokenize(prompt)
    expected = reference_logprobs(drafter_path, tokens)
    got = drafter.score([prompt])[0].segments[0]
    assert list(got.tokens) == tokens[-len(got.tokens) :]
    assert len(got.tokens) > 10
    difference = np.abs(np.asarray(got.logprobs) - expected[-len(got.tokens) :])
    assert difference.mean() < 0.1, difference
    assert difference.max() < 0.6, difference


def test_scores_of_one_batch_shape_agree_to_the_third_decimal(drafter_path: Path) -> None:
    engine = NativeEngine(drafter_path, EngineOptions(n_ctx=256, n_batch=256, n_seq_max=2))
    prompt = (Segment(TEXT), Segment(CONTINUATION, scored=True))
    tokens = engine.tokenize(prompt)
    expected = reference_logprobs(drafter_path, tokens[:-1])
    got = engine.score([prompt])[0].segments[0].logprobs[:-1]
    assert_allclose(got, expected[-len(got) :], atol=0.001)


def test_log_softmax_of_the_core_is_exact(drafter: NativeEngine) -> None:
    """The normaliser alone: probabilities of all two-way continuations never exceed one."""
    words = [" a", " the", " one", " his", " her", " its", " that", " this"]
    scores = drafter.score([(Segment(TEXT), Segment(w, scored=True)) for w in words])
    total = sum(np.exp(s.segments[0].logprobs[0]) for s in scores)
    assert 0.0 < total < 1.0
