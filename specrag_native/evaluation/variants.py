"""Which methods a run compares: a method, its settings, and a name that tells them apart.

Law: two runs share a config hash only if nothing that can change an answer differs between them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specrag_native import prompts
from specrag_native.config import REPAIR_THRESHOLDS, Config
from specrag_native.errors import ConfigError
from specrag_native.protocol import Prompt, Segment
from specrag_native.types import Passage, Question

BUILT_IN = ("speculative", "standard", "drafter", "corrective", "self-reflective")
"""Methods that run models."""
DERIVED = ("oracle",)
"""Methods computed from the drafts of ``speculative``."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "random-subsets": {"subsets": "random"},
    "one-cluster": {"subsets": "one-cluster"},
    "unclustered": {"subsets": "unclustered"},
    "plain-clustering": {"conditioning": "plain"},
    "product-clustering": {"conditioning": "product"},
    "residual-clustering": {"conditioning": "residual"},
    "reflection-0": {"reflection": 0},
    "reflection-1": {"reflection": 1},
    "reflection-2": {"reflection": 2},
    "user-layout": {"verifier_layout": "user"},
    "assistant-layout": {"verifier_layout": "assistant"},
    "exact-layout": {"layout": "exact"},
    "standalone-layout": {"layout": "standalone"},
    "verify-auto": {"verify": "auto"},
    "no-reranking": {"rerank": False},
    "no-repair": {"repair": "off"},
    "repair-subset": {"repair": "subset"},
    "repair-all": {"repair": "all"},
    "repair-redraft": {"repair": "redraft,subset,all"},
    "repair-rationales": {"repair": "rationales,subset,all"},
    "repair-more": {"repair": "subset,more"},
    "repair-sentences": {"repair": "sentences,more"},
}
"""Ablations that run the models again, by the settings they change."""

OFFLINE = (
    "no-draft-score",
    "no-self-containment",
    "no-self-reflection",
    "raw-scores",
    "random-draft",
    "no-abstention",
)
"""Ablations that only choose again among the same scored drafts."""

_READS: Mapping[str, tuple[str, ...]] = {
    "standard": ("max_answer_tokens",),
    "corrective": ("max_answer_tokens",),
    "self-reflective": ("max_answer_tokens",),
    "drafter": (
        "rerank",
        "n_drafts",
        "n_written",
        "drafts_per_subset",
        "passages_per_draft",
        "draft_order",
        "seed",
        "subsets",
        "conditioning",
        "layout",
        "unknown_above",
        "draft_form",
        "draft_weights",
        "max_rationale_tokens",
        "max_answer_tokens",
        "normalisation",
    ),
}
"""Settings each method reads; the others read all."""

_OF_REPAIR = (
    "reading_weights",
    "sentence_tokens",
    "accept_above",
    "irrelevant_below",
    *REPAIR_THRESHOLDS,
    "min_rationales",
    "grounded",
)
"""Settings that say what repair does, so that without it nothing reads them."""

_LATER: Mapping[str, object] = {
    **dict.fromkeys(REPAIR_THRESHOLDS),
    "min_rationales": 1,
    "drafts_per_subset": 1,
    "draft_weights": (),
    "draft_form": "rationale-first",
}
"""Settings that came after results were stored, and what they are where there is none."""

_ROLES: Mapping[str, tuple[str, ...]] = {
    "standard": ("verifier",),
    "corrective": ("verifier",),
    "self-reflective": ("verifier", "self-rag"),
    "drafter": ("drafter", "embedder"),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A method with its settings. ``name`` is what tables call it."""

    name: str
    method: str
    config: Config

    @property
    def roles(self) -> tuple[str, ...]:
        """The model roles that take part in an answer."""
        roles = _ROLES.get(self.method, ("drafter", "verifier", "embedder"))
        ranks = self.config.rerank and "drafter" in roles
        hops = self.config.multihop_above is not None and self.config.repair_steps
        further = ("reranker",) if ranks else ()
        if hops and self.method == "speculative":
            further = (*further, "hop_ranker")
        return (*roles, *further)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings this method reads, by name."""
        values = dataclasses.asdict(self.config)
        del values["top"]  # part of where the passages come from
        if not values["rerank"]:  # results of when there was none are results without
            del values["rerank"]
        for name, without in _LATER.items():  # likewise
            if values[name] == without:
                del values[name]
        if self.method == "speculative" and values["repair"] == "off":
            values = {n: v for n, v in values.items() if n not in _OF_REPAIR}
        reads = _READS.get(self.method)
        return values if reads is None else {n: values[n] for n in reads if n in values}

    def config_hash(self, *, models: Mapping[str, str], evidence: str) -> str:
        """Return the identity of everything that can change an answer, 16 hex digits.

        Args:
            models: sha256 of the model file per role.
            evidence: where the passages come from.
        """
        parts = {
            "method": self.method,
            "settings": self.settings,
            "models": {role: models[role] for role in self.roles if role in models},
            "evidence": evidence,
            "wording": wording(self.method, self.config),
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def expand(
    methods: Sequence[str],
    config: Config,
    *,
    drafts: Sequence[int] = (),
    per_draft: Sequence[int] = (),
    ablations: Sequence[str] = (),
) -> list[Variant]:
    """Return the variants to run.

    Several numbers of drafts or of passages per draft vary ``speculative`` and ``drafter``;
    ablations vary ``speculative`` alone. The last of each name wins nothing twice: equal variants
    are run once.

    Raises:
        ConfigError: an unknown ablation.
    """
    unknown = [a for a in ablations if a not in ABLATIONS and a not in OFFLINE]
    if unknown:
        raise ConfigError(
            f"unknown ablation {unknown[0]!r}: expected one of {', '.join([*ABLATIONS, *OFFLINE])}"
        )
    wanted = list(methods)
    offline = set(DERIVED) & set(wanted) or any(a in OFFLINE for a in ablations)
    if (offline or ablations) and "speculative" not in wanted:
        wanted.insert(0, "speculative")
    out: dict[str, Variant] = {}
    for method in dict.fromkeys(wanted):
        if method in DERIVED:
            continue
        if method not in ("speculative", "drafter"):
            out.setdefault(method, Variant(_short(method), method, config))
            continue
        for m, k in itertools.product(drafts or (None,), per_draft or (None,)):
            changes: dict[str, Any] = {}
            name = method
            if m is not None:
                changes["n_drafts"] = m
                name += f" m={m}"
            if k is not None:
                changes["passages_per_draft"] = k
                name += f" k={k}"
            out.setdefault(name, Variant(name, method, _changed(config, changes)))
    for ablation in ablations:
        if ablation in ABLATIONS:
            changed = _changed(config, ABLATIONS[ablation])
            if changed != config:
                name = f"speculative {ablation}"
                out.setdefault(name, Variant(name, "speculative", changed))
    return list(out.values())


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    k = changes.get("passages_per_draft")
    if k is not None and k > config.top:
        changes = {**changes, "top": k}
    return config.replace(**changes) if changes else config


def _short(method: str) -> str:
    """Return the short name of a method: what follows the colon of ``FILE.py:NAME``."""
    return method.rpartition(":")[2]


class _Plain:
    """A layout that shows every segment, to take the identity of a prompt without a model."""

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        return tuple(
            s for role, content in messages for s in (Segment(f"<{role}>", control=True), *content)
        )


def wording(method: str, config: Config) -> str:
    """Return the identity of the prompts and stops a method uses, so that a change is seen."""
    layout = _Plain()
    passages = (Passage("p", "d", "Title", "Text."), Passage("q", "d", "", "More."))
    drafts = method not in ("standard", "corrective", "self-reflective")
    reads = not drafts or config.repair != "off" or method not in ("speculative", "drafter")
    seen: list[object] = []
    if reads:
        seen.append(prompts.standard_stages(max_answer_tokens=1))
    if drafts:
        seen.append(
            prompts.drafter_stages(
                max_rationale_tokens=1, max_answer_tokens=1, form=config.draft_form
            )
        )
    may_abstain = method == "speculative"
    for question in (
        Question("Who?"),
        Question("It is.", "claim", {"A": "true", "B": "false"}),
        Question("Which?", "choice", {"A": "this", "B": "that"}),
    ):
        if reads:
            seen.append(
                prompts.standard_prompt(layout, question, passages, may_abstain=may_abstain)
            )
        if drafts:
            seen.append(prompts.drafter_prompt(layout, question, passages, form=config.draft_form))
        if drafts and method != "drafter":
            seen.append(
                prompts.verifier_prompts(
                    layout,
                    question,
                    "answer",
                    "rationale",
                    layout=config.verifier_layout,
                    reflection=config.reflection,
                )
            )
    return hashlib.sha256(repr(seen).encode("utf-8")).hexdigest()[:16]
