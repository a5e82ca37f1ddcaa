"""The declared rows of the comparison: each is valid over any settings of the user."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.runs.checks import check_settings
from rlcas import settings
from rlcas.errors import UserError
from rlcas.methods import METHODS
from rlcas.methods.method import missing_weights

USERS: list[dict[str, Any]] = [
    {},
    {"sampler.agents": "state", "sampler.entropy_bonus": 0.1},
    {"sampler.agents": "response", "sampler.exploration": 0.3},
    {"sampler.agents": "dose", "sampler.benefit_probability": 0.9},
    {"sampler.reward": "per_class", "sampler.team_share": 2.0, "sampler.advantages": "normalised"},
    {"sampler.reward": "rank"},
    {"preset": "paper"},
]


def own_settings(name: str) -> dict[str, Any]:
    """Return the settings that a row sets."""
    return {key: value for key, value in METHODS[name].settings.items() if not key.startswith("compare.")}


@pytest.mark.parametrize("user", USERS, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_a_rows_settings_are_valid_over_those_of_any_agents(name: str, user: dict[str, Any]) -> None:
    resolved = settings.override(settings.of(user), own_settings(name))
    assert settings.of(user | own_settings(name)).sampler.agents == resolved.sampler.agents
    assert resolved.classifier.batch_size == settings.of(user).classifier.batch_size


def test_agents_of_the_user_do_not_leak_into_a_control() -> None:
    user = settings.of({"sampler.agents": "response", "sampler.replay": "somewhere"})
    frozen = settings.override(user, own_settings("rlcas_frozen")).sampler
    assert (frozen.agents, frozen.exploration, frozen.memory_epochs, frozen.replay) == (
        "uniform",
        None,
        None,
        None,
    )


def taught_by(name: str, user: dict[str, Any]) -> tuple[Any, ...]:
    """Return agents, learning rate, reward, advantages, the team's share, exploration and memory of a row."""
    sampler = settings.override(settings.of(user), own_settings(name)).sampler
    return (
        sampler.agents,
        sampler.lr,
        sampler.reward,
        sampler.advantages,
        sampler.team_share,
        sampler.exploration,
        sampler.memory_epochs,
    )


STATE = ("state", 0.15, "per_class", "normalised", 1.0, None, None)
RESPONSE = ("response", 1e-3, "cubic", "baseline", None, 0.2, 15.0)


@pytest.mark.parametrize(
    ("user", "state", "response"),
    [
        ({}, STATE, RESPONSE),
        ({"preset": "paper"}, STATE, RESPONSE),
        ({"preset": "quick"}, STATE, RESPONSE),
        ({"sampler.agents": "state"}, STATE, RESPONSE),
        ({"sampler.agents": "response"}, STATE, RESPONSE),
        ({"sampler.agents": "uniform"}, STATE, RESPONSE),
        ({"sampler.lr": 0.05}, ("state", 0.05, *STATE[2:]), ("response", 0.05, *RESPONSE[2:])),
        (
            {"sampler.reward": "rank"},
            ("state", 0.15, "rank", "normalised", None, None, None),
            ("response", 1e-3, "rank", *RESPONSE[3:]),
        ),
        (
            {"sampler.reward": "per_class", "sampler.team_share": 2.0},
            ("state", 0.15, "per_class", "normalised", 2.0, None, None),
            ("response", 1e-3, "per_class", "baseline", 2.0, 0.2, 15.0),
        ),
        (
            {"sampler.agents": "response", "sampler.exploration": 0.3},
            STATE,
            (*RESPONSE[:5], 0.3, 15.0),
        ),
    ],
    ids=str,
)
def test_rows_of_agents_have_the_settings_that_these_need_by_default(
    user: dict[str, Any], state: tuple[Any, ...], response: tuple[Any, ...]
) -> None:
    assert taught_by("rlcas_state", user) == state
    assert taught_by("rlcas_response", user) == response
    assert taught_by("rlcas", user)[0] == settings.of(user).sampler.agents


def test_agents_trained_by_gradient_keep_the_entropy_bonus_of_the_settings() -> None:
    user = settings.of({"sampler.entropy_bonus": 0.1})
    bonuses = [
        settings.override(user, own_settings(name)).sampler.entropy_bonus
        for name in ("rlcas", "rlcas_state", "rlcas_response", "rlcas_frozen")
    ]
    assert bonuses == [0.1, 0.1, 0, 0]


def test_episodes_under_one_composition_differ_in_order_and_augmentation() -> None:
    shared = settings.of({})
    assert not settings.override(shared, own_settings("constant")).sampler.common_random_numbers
    assert settings.override(shared, own_settings("rlcas_frozen")).sampler.common_random_numbers


def test_a_population_has_no_row_of_one_episode() -> None:
    with pytest.raises(UserError, match=r"pbt is a population of sampler\.k 1 members: raise sampler\.k"):
        settings.override(settings.of({"sampler.agents": "pbt"}), own_settings("rlcas_k1"))


def test_the_search_of_a_row_is_over_existing_settings() -> None:
    known = {flag.key for flag in settings.flags()} | {"compare.synthetic_ratio"}
    searched = {key for method in METHODS.values() for key in method.search}
    assert searched <= known


def test_rows_that_train_k_classifiers_count_k_passes_and_one_episode_counts_one() -> None:
    config = settings.of({"sampler.k": 5})
    k_times = {name for name, method in METHODS.items() if method.passes(config) == 5}
    assert k_times == {
        "syn_class_rlcas",
        "rlcas",
        "rlcas_state",
        "rlcas_response",
        "rlcas_frozen",
        "constant",
        "pbt",
        "baseline_best_of_k",
        "baseline_ensemble",
    }
    assert METHODS["rlcas_k1"].passes(config) == 1


def test_rows_name_the_weights_they_lack_and_where_to_get_them() -> None:
    config = settings.of({})
    missing = {name: text for name, method in METHODS.items() if (text := missing_weights(method, config))}
    assert set(missing) == {"lift", "skin_sdm"}
    assert "not given: --method.lift.pretrained takes them: folder or hub name of a CLIP" in missing["lift"]
    assert "--synth.skin_sdm.pretrained takes them: folder or hub name of a Stable Diff" in missing["skin_sdm"]
    given = settings.of({"method.lift.pretrained": "clip", "synth.skin_sdm.pretrained": "sd"})
    assert not any(missing_weights(METHODS[name], given) for name in missing)


def test_a_run_without_the_weights_of_its_classifier_does_not_start() -> None:
    with pytest.raises(
        UserError, match=r"classifier\.method 'lift': weights not given: --method\.lift\.pretrained"
    ):
        check_settings(settings.of({"classifier.method": "lift"}))
    check_settings(settings.of({"classifier.method": "skin_sdm"}))


def test_a_row_that_chooses_the_composition_has_a_pool_and_best_of_k_has_none() -> None:
    for method in METHODS.values():
        assert (method.pool is not None) or method.engine in ("fit", "best_of_k")
        assert method.select is None or method.pool is not None
    assert METHODS["baseline_best_of_k"].pool is None
