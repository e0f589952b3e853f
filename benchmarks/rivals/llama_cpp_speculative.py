"""Speculative RAG on ``llama_cpp.Llama`` alone: one draft after another, ``logits_all`` for scores.

Law: the same subsets, prompts and scores as the project's own; everything else as that library
offers it. Log-probabilities are asked for in two ways: by the option that the library documents for
them, ``logprobs``, which sorts the whole vocabulary behind every token; or taken from
``Llama.scores`` by numpy, as one would who read the library's code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rivals.shared import (
    ChatML,
    Retrieving,
    answered,
    llama_cpp,
    model_path,
    read,
    text_of,
    threads_of,
)
from specrag_native import prompts
from specrag_native.answering.subsets import draw_subsets
from specrag_native.answering.verifier import best, draft_score, log_add, span_score
from specrag_native.config import Config
from specrag_native.types import (
    Answer,
    Draft,
    Hit,
    LogprobSpan,
    Question,
    Scores,
    Subset,
    Usage,
    Verdict,
)

_N_TOLD = 20
"""Of so many tokens the library is asked for the log-probability behind a text."""


class _Model:
    """One ``Llama`` with ``logits_all``."""

    def __init__(self, path: Path, *, threads: int, n_ctx: int) -> None:
        self.llama = llama_cpp().Llama(
            str(path),
            n_ctx=n_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            verbose=False,
        )
        self.usage = Usage()

    def tokens(self, text: str) -> list[int]:
        return list(self.llama.tokenize(text.encode("utf-8"), add_bos=False, special=True))


class _Scoring(_Model):
    """Log-probabilities are computed from the logits where ``Llama`` keeps them."""

    def evaluate(self, tokens: list[int]) -> None:
        """Compute a text from its beginning, reusing the longest prefix of the last one."""
        shared = 0
        past = self.llama.input_ids[: self.llama.n_tokens].tolist()
        while shared < min(len(past), len(tokens) - 1) and past[shared] == tokens[shared]:
            shared += 1
        self.llama.n_tokens = shared
        self.llama._ctx.kv_cache_seq_rm(-1, shared, -1)
        self.llama.eval(tokens[shared:])
        self.usage = self.usage + Usage(prefilled=len(tokens) - shared, reused=shared)

    def logprob(self, position: int, token: int) -> float:
        """Return the log-probability of ``token`` at ``position``."""
        row = np.asarray(self.llama.scores[position - 1], dtype=np.float64)
        high = row.max()
        return float(row[token] - high - math.log(np.exp(row - high).sum()))

    def span(self, tokens: list[int], begin: int, end: int) -> LogprobSpan:
        return LogprobSpan(sum(self.logprob(i, tokens[i]) for i in range(begin, end)), end - begin)

    def line(self, tokens: list[int], max_tokens: int) -> tuple[str, LogprobSpan, list[int]]:
        """Continue a text greedily to the end of a line."""
        self.evaluate(tokens)
        out: list[int] = []
        text, logprob = b"", 0.0
        while len(out) < max_tokens:
            position = len(tokens) + len(out)
            best_first = np.argsort(-self.llama.scores[position - 1])[:16]
            pieces = {
                int(t): self.llama.detokenize([int(t)], prev_tokens=tokens + out)
                for t in (best_first if not out else best_first[:1])
            }
            going = [t for t, p in pieces.items() if t != self.llama.token_eos() and b"\n" not in p]
            if not going:
                break
            token, piece = going[0], pieces[going[0]]  # a line never ends before it begins
            logprob += self.logprob(position, token)
            out.append(token)
            text += piece
            self.llama.eval([token])
        self.usage = self.usage + Usage(decoded=len(out))
        return text.decode("utf-8", "replace"), LogprobSpan(logprob, len(out)), out


class _Documented(_Model):
    """``create_completion`` writes and tells log-probabilities."""

    _told: dict[str, Any]

    def evaluate(self, tokens: list[int]) -> None:
        """Let a text be repeated with its log-probabilities, and one token be written behind it.

        The library repeats only text, and tells log-probabilities of the right tokens only behind
        a first one that it leaves out.
        """
        text = self.llama.detokenize([self.llama.token_bos(), *tokens], special=True).decode()
        done = self._complete(text, max_tokens=1, echo=True, logprobs=_N_TOLD)
        self._told = done["choices"][0]["logprobs"]

    def logprob(self, position: int, token: int) -> float:
        """Return that of the first token written, ``token``; at most the least of those told."""
        told: dict[str, float] = self._told["top_logprobs"][-1]
        return told.get(self.llama.detokenize([token]).decode(), min(told.values()))

    def span(self, tokens: list[int], begin: int, end: int) -> LogprobSpan:
        first, last = (len(self.llama.detokenize(tokens[:n]).decode()) for n in (begin, end))
        told = zip(self._told["text_offset"], self._told["token_logprobs"], strict=True)
        found = [logprob for offset, logprob in told if first <= offset < last]
        return LogprobSpan(sum(found), len(found))

    def line(self, tokens: list[int], max_tokens: int) -> tuple[str, LogprobSpan, list[int]]:
        """Continue a text greedily to the end of a line."""
        done = self._complete(tokens, max_tokens=max_tokens, stop=["\n"], logprobs=1)
        text = str(done["choices"][0]["text"])
        said = self.tokens(text)
        logprobs = done["choices"][0]["logprobs"]["token_logprobs"][: len(said)]
        return text, LogprobSpan(sum(logprobs), len(logprobs)), said

    def _complete(self, prompt: str | list[int], **options: Any) -> Any:
        tokens = self.tokens(prompt) if isinstance(prompt, str) else prompt
        shared = self.llama.longest_token_prefix(
            self.llama.input_ids[: self.llama.n_tokens].tolist(), tokens
        )
        done: Any = self.llama.create_completion(prompt, temperature=0.0, **options)
        written = done["usage"]["completion_tokens"]
        self.usage = self.usage + Usage(
            prefilled=len(tokens) - shared, reused=shared, decoded=written
        )
        return done


class LlamaSpeculativeRAG:
    """Drafts one after another, then verifies one after another."""

    def __init__(
        self,
        drafter: Path,
        verifier: Path,
        *,
        threads: int,
        config: Config,
        n_ctx: int = 1536,
        documented: bool = False,
    ) -> None:
        kind = _Documented if documented else _Scoring
        self._drafter = kind(drafter, threads=threads, n_ctx=n_ctx)
        self._verifier = kind(verifier, threads=threads, n_ctx=512)
        self._config = config

    def answer(
        self, question: Question, *, hits: Sequence[Hit] | None, question_vector: Any = None
    ) -> Answer:
        """Answer one question from the given passages with their vectors."""
        begin = time.perf_counter()
        self._drafter.usage = self._verifier.usage = Usage()
        config = self._config
        subsets = draw_subsets(
            list(hits or ()),
            question_vector,
            m=config.n_drafts,
            k=config.passages_per_draft,
            strategy=config.subsets,
            conditioning=config.conditioning,
            seed=config.seed,
        )
        drafts = [self._draft(question, subset) for subset in subsets]
        draft_s = time.perf_counter() - begin
        verdicts = [self._verify(question, draft) for draft in drafts]
        winner = best(verdicts)
        verify_s = time.perf_counter() - begin - draft_s
        return answered(
            question,
            winner.draft.answer if winner is not None else "",
            begin=begin,
            usage={"drafter": self._drafter.usage, "verifier": self._verifier.usage},
            stages={"draft": draft_s, "verify": verify_s},
            confidence=winner.support or 0.0 if winner is not None else 0.0,
            rationale=winner.draft.rationale if winner is not None else "",
            verdicts=verdicts,
        )

    def _draft(self, question: Question, subset: Subset) -> Draft:
        form = self._config.draft_form
        prompt = text_of(prompts.drafter_prompt(ChatML(), question, subset.passages, form=form))
        most = {
            "answer": self._config.max_answer_tokens,
            "rationale": self._config.max_rationale_tokens,
        }
        _, between, _ = prompts.drafter_completion("", "", form=form)
        tokens = self._drafter.tokens(prompt)
        lines = {}
        for part in prompts.DRAFT_PARTS[form]:
            text, logprob, said = self._drafter.line(tokens, most[part])
            lines[part] = text, logprob
            tokens = tokens + said + self._drafter.tokens(between.text)
        rationale, rationale_logprob = lines["rationale"]
        answer, answer_logprob = lines["answer"]
        text = read(answer, question)
        return Draft(
            answer=text,
            rationale=rationale.strip(),
            subset=subset,
            rationale_logprob=rationale_logprob,
            answer_logprob=answer_logprob,
            unknown=prompts.is_unknown(text),
        )

    def _verify(self, question: Question, draft: Draft) -> Verdict:
        config, model = self._config, self._verifier
        own = draft_score(draft, config.normalisation)
        if draft.unknown:
            return Verdict(draft, Scores(draft=own), verified=False)
        prompt, _ = prompts.verifier_prompts(
            ChatML(),
            question,
            draft.answer,
            draft.rationale,
            layout=config.verifier_layout,
            reflection=config.reflection,
        )
        tokens: list[int] = []
        spans: list[tuple[int, int]] = []
        for segment in prompt[:-1]:
            part = model.tokens(segment.text)
            if segment.scored:
                spans.append((len(tokens), len(tokens) + len(part)))
            tokens += part
        model.evaluate(tokens)
        found = [model.span(tokens, a, b) for a, b in spans]
        contained = LogprobSpan(sum(s.logprob_sum for s in found), sum(s.n_tokens for s in found))
        log_yes = model.logprob(len(tokens), model.tokens(prompts.YES)[0])
        log_no = model.logprob(len(tokens), model.tokens(prompts.NO)[0])
        containment = span_score(contained, config.normalisation)
        return Verdict(
            draft,
            Scores(own, containment, log_yes, own + containment + log_yes),
            verified=True,
            support=math.exp(log_yes - log_add(log_yes, log_no)),
            contained=contained,
        )

    def close(self) -> None:
        """Free both models."""
        self._drafter.llama.close()
        self._verifier.llama.close()


def llama_cpp_speculative(session: Any, config: Config) -> Retrieving:
    """Return the method for ``specrag eval --method FILE.py:llama_cpp_speculative``."""
    rival = LlamaSpeculativeRAG(
        model_path(session, "drafter"),
        model_path(session, "verifier"),
        threads=threads_of(session),
        config=config,
    )
    return Retrieving(rival, session, config)
