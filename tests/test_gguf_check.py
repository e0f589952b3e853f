from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_world import gguf_bytes

from specrag_native.errors import ModelFileError
from specrag_native.model_files.gguf_check import BLOCKS, check_gguf

WHOLE = gguf_bytes()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.gguf"


def test_a_whole_file_tells_its_facts(file: Path) -> None:
    file.write_bytes(WHOLE)
    facts = check_gguf(file)
    assert (facts.version, facts.architecture, facts.n_tensors) == (3, "llama", 1)
    assert facts.size == len(WHOLE)
    assert facts.generates and not facts.embeds


@pytest.mark.parametrize(
    ("made", "generates", "embeds"),
    [
        (gguf_bytes("bert", causal=False, pooling=1), False, True),
        (gguf_bytes("bert"), False, True),
        (gguf_bytes("qwen3", pooling=3), True, True),  # a causal model trained to embed
        (gguf_bytes("qwen2"), True, False),
        (gguf_bytes("bert", causal=False, pooling=4), False, False),  # a reranker
    ],
)
def test_what_a_model_can_do_follows_from_its_header(
    file: Path, made: bytes, generates: bool, embeds: bool
) -> None:
    file.write_bytes(made)
    facts = check_gguf(file)
    assert (facts.generates, facts.embeds) == (generates, embeds)
    assert facts.ranks == (not generates and not embeds)


@pytest.mark.parametrize("missing", [1, 4, 100, 1024])
def test_a_file_cut_off_in_its_weights_is_refused(file: Path, missing: int) -> None:
    file.write_bytes(WHOLE[:-missing])
    with pytest.raises(ModelFileError, match=r"some\.gguf is cut off .*fetch it again"):
        check_gguf(file)


def test_no_prefix_of_a_file_passes(file: Path) -> None:
    for length in range(0, len(WHOLE), 7):
        file.write_bytes(WHOLE[:length])
        with pytest.raises(ModelFileError, match=r"some\.gguf"):
            check_gguf(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page, not a GGUF model"),
        (b"\n\n  <html lang=en>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"lmggold", "of before 2023-08"),
        (bytes(4096), "all zero bytes"),
        (b"hello there", "not a GGUF model: it starts with b'hello th'"),
    ],
)
def test_a_file_that_is_no_gguf_is_called_what_it_is(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        check_gguf(file)
    assert said in str(caught.value) and str(file) in str(caught.value)


def test_another_version_is_named(file: Path) -> None:
    file.write_bytes(b"GGUF" + (9).to_bytes(4, "little") + WHOLE[8:])
    with pytest.raises(ModelFileError, match="GGUF version 9"):
        check_gguf(file)
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "big") + WHOLE[8:])
    with pytest.raises(ModelFileError, match="big-endian"):
        check_gguf(file)


def test_a_file_that_is_not_there_is_a_model_file_error(file: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot read the model file"):
        check_gguf(file)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 300), value=st.integers(0, 255), length=st.integers(1, 9))
def test_damage_is_refused_or_harmless_but_never_another_error(
    file: Path, at: int, value: int, length: int
) -> None:
    damaged = bytearray(WHOLE)
    damaged[at : at + length] = bytes([value]) * length
    file.write_bytes(damaged)
    try:
        facts = check_gguf(file)
    except ModelFileError as error:
        assert str(file) in str(error)
    else:
        assert facts.size == len(damaged)


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    assert {kind: GGML_QUANT_SIZES[GGMLQuantizationType(kind)] for kind in BLOCKS} == BLOCKS
