"""Low-rank adapters (LoRA) as GGUF files: read, write, and merge into the model they belong to.

An adapter may bring whole tensors as well, such as the head that makes a cross-encoder of an
embedder.

Law: the same base, adapter and version of this module give the same merged file; a file appears
whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.errors import ModelFileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

Quantise = Callable[[Path, Path, str], None]
"""Writes a GGUF anew with its matrices as another type."""

BASE_FACT = "specrag.base.sha256"
"""The fact that says which file an adapter was trained from."""

_A, _B = ".lora_a", ".lora_b"
_HEAD = "cls.output.weight"
"""The last matrix of a cross-encoder."""
_WHOLE = ("position_embd.weight", "token_types.weight")
"""Matrices that llama.cpp adds to activations, and wants as float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """What is added to a model's matrices: ``alpha / rank * b @ a``.

    ``matrices`` maps a matrix's GGUF name (``blk.0.attn_q.weight``) to ``a`` of shape ``(rank,
    n_in)`` and ``b`` of shape ``(n_out, rank)``, float32. ``tensors`` are whole tensors that the
    model has not, by their GGUF names, such as the head of a cross-encoder. ``facts`` are texts
    kept in the file.
    """

    architecture: str
    alpha: float
    matrices: Mapping[str, tuple[Matrix, Matrix]]
    tensors: Mapping[str, Matrix] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    def change(self, name: str) -> Matrix:
        """Return what is added to a matrix, float32 of shape ``(n_out, n_in)``."""
        import numpy as np

        a, b = self.matrices[name]
        return np.asarray((b @ a) * np.float32(self.alpha / a.shape[0]), dtype=np.float32)


def write_adapter(path: Path, adapter: Adapter, *, type: str = "F16") -> None:
    """Write an adapter as llama.cpp reads them, its matrices as ``F16`` or ``Q8_0``.

    Raises:
        ModelFileError: a row does not fill the blocks of the type.
    """
    import gguf

    partial = path.with_name(path.name + ".writing")
    writer = gguf.GGUFWriter(partial, adapter.architecture)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", adapter.alpha)
        for key, value in sorted(adapter.facts.items()):
            writer.add_string(key, value)
        for name, (a, b) in adapter.matrices.items():
            for half, values in ((_A, a), (_B, b)):
                data, kind = _as_type(values, type)
                writer.add_tensor(name + half, data, raw_dtype=kind)
        for name, values in adapter.tensors.items():
            writer.add_tensor(name, _stored(values))
        _finish(writer, partial, path)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


def _as_type(values: Matrix, type: str) -> tuple[NDArray[Any], Any]:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import quantize

    kind = GGMLQuantizationType[type]
    block = GGML_QUANT_SIZES[kind][0]
    if values.shape[-1] % block:
        raise ModelFileError(
            f"an adapter's matrix of {values.shape} has no rows of {block}s, as {type} needs: "
            f"give it a rank that is a multiple of {block}, or type F16"
        )
    return quantize(np.ascontiguousarray(values, dtype=np.float32), kind), kind


def read_adapter(path: Path) -> Adapter:
    """Read an adapter.

    Raises:
        ModelFileError: the file is no LoRA adapter.
    """
    import numpy as np
    from gguf.quants import dequantize

    reader = _open(path)
    if _text(reader, "adapter.type") != "lora":
        raise ModelFileError(f"{path} is no LoRA adapter (adapter.type is missing)")
    alpha = reader.get_field("adapter.lora.alpha")
    found: dict[str, Matrix] = {
        t.name: np.asarray(dequantize(t.data, t.tensor_type), dtype=np.float32)
        for t in reader.tensors
    }
    halves = {name: values for name, values in found.items() if name.endswith((_A, _B))}
    names = [name.removesuffix(_A) for name in halves if name.endswith(_A)]
    if alpha is None or not names or len(halves) != 2 * len(names):
        raise ModelFileError(f"{path} is a damaged adapter: {len(halves)} tensors")
    facts = {
        key: str(kept.contents())
        for key, kept in reader.fields.items()
        if key.startswith(("general.", "specrag."))
        and key not in ("general.type", "general.architecture")
        and isinstance(kept.contents(), str)
    }
    try:
        return Adapter(
            architecture=_text(reader, "general.architecture"),
            alpha=float(alpha.contents()),
            matrices={name: (halves[name + _A], halves[name + _B]) for name in names},
            tensors={name: values for name, values in found.items() if name not in halves},
            facts=facts,
        )
    except KeyError as error:
        raise ModelFileError(f"{path} is a damaged adapter: {error} is missing") from None


def build(
    base: Path, adapter: Path, dst: Path, *, type: str, name: str, quantise: Quantise | None = None
) -> None:
    """Merge an adapter file into its base and store the result as ``type`` at ``dst``.

    Raises:
        ModelFileError: see :func:`merge`, or the type is unknown.
    """
    if type.upper() == "F16":
        merge(base, read_adapter(adapter), dst, name=name)
        return
    if quantise is None:
        from specrag_native.native import quantise as quantise_natively

        quantise = quantise_natively
    whole = dst.with_name(dst.name + ".merged")
    partial = dst.with_name(dst.name + ".writing")
    try:
        merge(base, read_adapter(adapter), whole, name=name)
        quantise(whole, partial, type)
        partial.replace(dst)
    finally:
        whole.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def merge(base: Path, adapter: Adapter, dst: Path, *, name: str = "") -> None:
    """Write the model ``base`` with the adapter's changes added, matrices as float16, to ``dst``.

    Raises:
        ModelFileError: the adapter is for another architecture, or does not fit its matrices.
    """
    import gguf
    import numpy as np
    from gguf.quants import dequantize

    reader = _open(base)
    found = _text(reader, "general.architecture")
    if found != adapter.architecture:
        raise ModelFileError(
            f"{base} is a {found} model, the adapter is for {adapter.architecture}"
        )
    there = {t.name for t in reader.tensors}
    if missing := sorted(set(adapter.matrices) - there):
        raise ModelFileError(f"{base} has no matrix {missing[0]}: the adapter is for another model")
    partial = dst.with_name(dst.name + ".writing")
    writer = gguf.GGUFWriter(partial, found)
    try:
        _copy_facts(reader, writer, name=name, ranks=_HEAD in adapter.tensors)
        for tensor in reader.tensors:
            if tensor.name in adapter.tensors:
                continue  # the adapter's own takes its place
            values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            if tensor.name in adapter.matrices:
                change = adapter.change(tensor.name)
                if change.shape != values.shape:
                    raise ModelFileError(
                        f"{base}: {tensor.name} is {values.shape}, the adapter's {change.shape}"
                    )
                values = values + change
            writer.add_tensor(tensor.name, values if tensor.name in _WHOLE else _stored(values))
        for tensor_name, values in adapter.tensors.items():
            writer.add_tensor(tensor_name, _stored(values))
        _finish(writer, partial, dst)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


def _stored(values: Matrix) -> NDArray[Any]:
    """Return matrices as float16, and what has one axis as it is."""
    import numpy as np

    return np.ascontiguousarray(values, dtype=np.float16 if values.ndim > 1 else np.float32)


def _copy_facts(reader: Any, writer: Any, *, name: str, ranks: bool) -> None:
    """Copy what the base says of itself; with a head that ranks, the model pools by it."""
    import gguf

    for key, found in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        if key == "general.quantization_version" or (key == "general.name" and name):
            continue
        if key.endswith(".pooling_type") and ranks:
            writer.add_pooling_type(gguf.PoolingType.RANK)
            continue
        kind = found.types[0]
        sub = found.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, found.contents(), kind, sub_type=sub)
    if name:
        writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _finish(writer: Any, partial: Path, path: Path) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _open(path: Path) -> Any:
    from gguf import GGUFReader

    from specrag_native.model_files.gguf_check import check_gguf

    check_gguf(path)
    return GGUFReader(path)


def _text(reader: Any, key: str) -> str:
    found = reader.get_field(key)
    return str(found.contents()) if found is not None else ""
