"""Settings are refused, never corrected."""

from __future__ import annotations

import pytest

from specrag_native.config import Config
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("top", 0),
        ("n_drafts", 0),
        ("n_drafts", "5"),
        ("passages_per_draft", 11),
        ("passages_per_draft", 0),
        ("subsets", "best"),
        ("normalisation", "median"),
        ("repair", "always"),
        ("repair", "subset,subset"),
        ("repair", "off,all"),
        ("repair", None),
        ("accept_above", 2.0),
        ("abstain_below", 1.5),
        ("unknown_above", 0.0),
        ("unknown_above", 1.5),
        ("n_written", 0),
        ("drafts_per_subset", 0),
        ("drafts_per_subset", 11),
        ("reflection", 3),
        ("passages_per_draft", "two"),
        ("accept_above", "high"),
        ("questions_above", True),
        ("use_draft_score", 1),
        ("grounded", "maybe"),
        ("draft_weights", 5),
        ("draft_weights", "0.1,0.2"),
        ("reading_weights", ("a",)),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting) as caught:
        Config.from_mapping({setting: value})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(("n", "fits"), [(0, True), (3, False), (4, True), (5, True), (6, False)])
def test_weights_are_as_many_as_there_are_features_or_none(n: int, fits: bool) -> None:
    weights = tuple(float(i) for i in range(n))
    if fits:
        assert Config.from_mapping({"draft_weights": weights}).draft_weights == weights
    else:
        with pytest.raises(ConfigError, match=f"draft_weights must be 5 or 4 .* got {n}"):
            Config.from_mapping({"draft_weights": weights})
    assert Config().replace(draft_weights=None, reading_weights=None) == Config()


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_draft'"):
        Config.from_mapping({"n_draft": 5})


@pytest.mark.parametrize(
    ("repair", "steps"),
    [
        ("off", ()),
        ("subset", ("subset",)),
        ("all", ("subset", "all")),
        ("rationales, subset,all", ("rationales", "subset", "all")),
        ("redraft,all", ("redraft", "all")),
    ],
)
def test_repair_is_a_name_or_its_steps(repair: str, steps: tuple[str, ...]) -> None:
    assert Config.from_mapping({"repair": repair}).repair_steps == steps
    assert Config().repair_steps == ("subset", "all")


def test_at_least_one_score_must_be_in_use() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Config(use_draft_score=False, use_self_containment=False, use_self_reflection=False)


def test_replace_keeps_the_other_settings() -> None:
    config = Config(seed=3).replace(top=4)
    assert (config.seed, config.top) == (3, 4)
    with pytest.raises(ConfigError):
        config.replace(tops=4)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("n_ctx", 0), ("n_seq_max", 300), ("threads", -1), ("flash_attention", "yes")],
)
def test_engine_options_are_checked(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        EngineOptions(**{setting: value})  # type: ignore[arg-type]
