"""Fine-tuning of a drafter on drafting examples, with checkpoints and exact resume.

Law: what comes next is decided by the settings, the examples and the step alone; a run that was
stopped goes on with the numbers it would have had.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.errors import Cancelled, ConfigError
from specrag_native.protocol import CancelFlag
from specrag_native.training import base as base_models
from specrag_native.training import encoded
from specrag_native.training.checkpoints import (
    checkpoints,
    cut_log,
    read_moments,
    write_checkpoint,
)
from specrag_native.training.encoded import EncodedExamples
from specrag_native.training.examples import DraftExample
from specrag_native.training.fit_options import FitOptions
from specrag_native.training.loss import row_logits, row_of, token_weights
from specrag_native.training.planning import plan, rate_at
from specrag_native.training.start import digest_of, start_file, start_weights

if TYPE_CHECKING:
    import torch

LOSSES = "loss.jsonl"
SETTINGS = "fit.json"
_NOT_LEARNT = ("threads", "device", "save_every", "start")
"""Settings that do not change what is learnt; ``start`` is kept as the digest of its weights."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step. ``loss`` in weighted nats per token that counts; ``tokens`` computed."""

    step: int
    of: int
    loss: float
    rate: float
    examples: int
    tokens: int
    seconds: float


OnStep = Callable[[Step], None]


class Fit:
    """A fit in a folder: made anew, or gone on with.

    Args:
        base: the model to start from.
        examples: drafting examples, those of one subset beside each other, or encoded.
        out: folder of checkpoints, settings and the loss curve.
        options: see :class:`FitOptions`.

    Raises:
        ConfigError: the folder holds a fit with other settings or examples.
    """

    def __init__(
        self,
        base: base_models.Base,
        examples: Sequence[DraftExample] | EncodedExamples,
        out: Path,
        options: FitOptions = FitOptions(),
    ) -> None:
        base_models.require_extra()
        import torch

        self.options = options
        self.out = out
        self._base = base
        out.mkdir(parents=True, exist_ok=True)
        if isinstance(examples, EncodedExamples):
            if examples.base != base.path.name:
                raise ConfigError(
                    f"the examples were encoded for {examples.base}, not for {base.path}: encode "
                    "them with this base"
                )
            self._claim(examples.n_examples, examples.digest)
        else:
            self._claim(len(examples), encoded.digest_of(examples))
            examples = encoded.encode_examples(
                examples, base, max_tokens=options.max_tokens, form=options.draft_form
            )
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.device = _device(options.device)
        # Half precision pays only where the processor has the instructions.
        self.dtype = (
            torch.bfloat16 if self.device == "cuda" or _cpu_has_bfloat16() else torch.float32
        )
        self.groups = examples.groups
        if not self.groups:
            raise ConfigError(
                f"no example fits max_tokens {options.max_tokens}: raise it or use shorter passages"
            )
        self.left_out = examples.left_out
        self.model: Any = self._adapted(base.model(torch.float32))
        self.steps = plan([group.n_tokens for group in self.groups], options)
        trained = list(self._trained().values())
        self._optimiser = torch.optim.AdamW(
            trained,
            lr=options.rate,
            betas=(0.9, 0.98),
            weight_decay=options.weight_decay,
            fused=self.device == "cuda",
        )
        self.step = self._resume()

    def _claim(self, n_examples: int, digest: str) -> None:
        kept = {**asdict(self.options)}
        for name in _NOT_LEARNT:
            del kept[name]
        if self.options.start:
            kept["start"] = digest_of(start_file(Path(self.options.start)))
        settings = {
            "base": self._base.path.name,
            "architecture": self._base.architecture,
            "examples": n_examples,
            "examples_digest": digest,
            "options": kept,
        }
        path = self.out / SETTINGS
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            different = sorted(k for k in settings if found.get(k) != settings[k])
            if different:
                raise ConfigError(
                    f"{self.out} holds a fit with another {different[0]}: choose another --out, or "
                    "give the same settings to go on"
                )
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    def _adapted(self, model: Any) -> Any:
        model.config.use_cache = False
        if self.options.rank:
            from specrag_native.training.low_rank import adapt

            adapt(
                model,
                base_models.TARGETS,
                rank=self.options.rank,
                alpha=self.options.alpha,
                dtype=self.dtype,
            )
        else:  # what an adapter can express, so that the result can be shipped as one
            for name, weight in model.named_parameters():
                weight.requires_grad_(base_models.gguf_name(name) is not None)
        model.train()
        return model.to(self.device)

    def run(self, *, on_step: OnStep | None = None, cancel: CancelFlag | None = None) -> None:
        """Take the steps that are left; a checkpoint is written regularly and at the end.

        Raises:
            Cancelled: ``cancel`` was set; the last finished step is kept in a checkpoint.
            ConfigError: memory ran out.
        """
        import torch

        try:
            while self.step < len(self.steps):
                if cancel is not None and cancel.cancelled:
                    raise Cancelled("cancelled while fitting")
                taken = self._take()
                self._log(taken)
                self.step += 1
                if on_step:
                    on_step(taken)
                if self.step % self.options.save_every == 0:
                    self.save()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise ConfigError(
                f"memory ran out ({str(error).splitlines()[0] if str(error) else 'MemoryError'}): "
                "lower --max-tokens, or make the data with fewer questions per subset; more "
                "--groups per step costs no memory"
            ) from None
        except (KeyboardInterrupt, Cancelled):
            self.save()
            raise
        self.save()

    def _take(self) -> Step:
        import torch

        started = time.perf_counter()
        rate = rate_at(self.step, len(self.steps), self.options)
        for settings in self._optimiser.param_groups:
            settings["lr"] = rate
        batches = [
            [row_of(self.groups[n], layout) for n, layout in batch]
            for batch in self.steps[self.step]
        ]
        rows = [row for batch in batches for row in batch]
        n_examples = sum(row.n_branches for row in rows)
        # What counts in this step: every token once, but for the first of each branch.
        whole = sum(row.n_counted for row in rows) + (self.options.decision - 1) * n_examples
        losses = []
        for batch in batches:
            # An adapted model has its types already; one that is trained whole keeps float32.
            with torch.autocast(
                self.device,
                dtype=torch.bfloat16,
                enabled=self.dtype == torch.bfloat16 and not self.options.rank,
            ):
                logits, labels, branch = row_logits(self.model, batch)
            each = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
            loss = each @ token_weights(branch, self.options.decision)
            (loss / whole).backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(list(self._trained().values()), self.options.clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return Step(
            step=self.step + 1,
            of=len(self.steps),
            loss=float(sum(losses)) / whole,
            rate=rate,
            examples=n_examples,
            tokens=sum(len(row.tokens) for row in rows),
            seconds=time.perf_counter() - started,
        )

    def _log(self, step: Step) -> None:
        with (self.out / LOSSES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(step)) + "\n")

    def save(self) -> Path:
        """Write a checkpoint of this step and drop the one before it."""
        return write_checkpoint(self.out, self.step, self.model, self._optimiser)

    def _resume(self) -> int:
        from safetensors.torch import load_file

        found = checkpoints(self.out)
        step = 0
        if not found and self.options.start:
            self._set(start_weights(self.options, self._base, self._trained()))
        if found:
            self._set(load_file(found[-1] / "weights.safetensors"))
            step = read_moments(found[-1], self.model, self._optimiser)
        cut_log(self.out / LOSSES, step)
        return step

    def _set(self, weights: dict[str, torch.Tensor]) -> None:
        import torch

        trained = self._trained()
        if weights.keys() != trained.keys() or any(
            weights[name].shape != p.shape for name, p in trained.items()
        ):
            raise ConfigError(
                f"the weights to start from are not those of a fit with rank {self.options.rank} "
                "of this base: give the same --rank and --base as there"
            )
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(weights[name])

    def _trained(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def read_losses(out: Path) -> list[Step]:
    """Return the steps a fit has taken."""
    return list(_steps(out / LOSSES))


def _steps(path: Path) -> Iterator[Step]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield Step(**json.loads(line))


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda but torch sees none: install torch with CUDA or use cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
