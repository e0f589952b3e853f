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
        ("reflection", 3),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting) as caught:
        Config.from_mapping({setting: value})
    assert str(value) in str(caught.value)


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
