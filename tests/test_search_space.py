"""What a sweep tries: grids, draws, steps, and what is refused before anything starts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcas.errors import UserError
from rlcas.settings.search_space import Choices, Range, draws, grid, named, perturbed, space_of


def test_a_grid_is_every_combination_the_last_setting_changing_fastest() -> None:
    space = space_of({"sampler.baseline_gamma": "0.5, 0.99", "sampler.k": [1, 3]}, {})
    assert [tuple(point.values()) for point in grid(space)] == [(0.5, 1), (0.5, 3), (0.99, 1), (0.99, 3)]
    assert named(grid(space)[0]) == "sampler.baseline_gamma=0.5 sampler.k=1"


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("classifier.pretrained", "true,false", (True, False)),
        ("classifier.width", "none,16", (None, 16)),
        ("synth.autoencoder.factor", "4,8", (4, 8)),
        ("synth.denoiser.channels", "32,48,64,64;64,96,128,128", ((32, 48, 64, 64), (64, 96, 128, 128))),
        ("data", "npz:a.npz,phantom", ("npz:a.npz", "phantom")),
        ("preset", "quick,best", ("quick", "best")),
    ],
)
def test_values_are_read_as_their_settings_take_them(key: str, text: str, values: tuple[object, ...]) -> None:
    assert space_of({key: text}, {}) == {key: Choices(values)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-4..1e-2", (1e-4, 1e-2, True)), ("0.001..0.005", (1e-3, 5e-3, False)), (".5..5", (0.5, 5.0, True))],
)
def test_a_range_is_log_where_its_positive_ends_are_a_factor_of_ten_apart(
    text: str, expected: tuple[float, float, bool]
) -> None:
    (axis,) = space_of({"classifier.lr": text}, {}).values()
    assert isinstance(axis, Range)
    assert (axis.low, axis.high, axis.log) == expected


def test_log_draws_are_even_over_the_decades_and_whole_ones_over_the_numbers() -> None:
    rng = np.random.default_rng(0)
    log = np.array([Range(1e-4, 1.0, whole=False).draw(rng) for _ in range(4000)])
    assert np.histogram(np.log10(log), bins=4, range=(-4, 0))[0] == pytest.approx([1000] * 4, abs=130)
    whole = [Range(1, 5, whole=True).draw(rng) for _ in range(5000)]
    assert np.bincount(whole)[1:] == pytest.approx([1000] * 5, abs=130)
    assert all(isinstance(number, int) for number in whole)


def test_more_draws_only_add_to_fewer_and_no_two_are_the_same() -> None:
    space = space_of({"classifier.lr": "1e-4..1e-2", "sampler.k": "1..5"}, {})
    assert draws(space, 9, seed=3)[:4] == draws(space, 4, seed=3)
    assert draws(space, 4, seed=3) != draws(space, 4, seed=4)
    small = space_of({"sampler.k": "1,2"}, {})
    assert sorted(point["sampler.k"] for point in draws(small, 12, seed=0)) == [1, 2]


@given(low=st.floats(1e-6, 10), factor=st.floats(1.01, 1e4), whole=st.booleans(), seed=st.integers(0, 2**31))
def test_draws_and_steps_stay_in_the_range(low: float, factor: float, whole: bool, seed: int) -> None:
    axis = Range(int(low), int(low) + int(factor) + 1, True) if whole else Range(low, low * factor, False)
    rng = np.random.default_rng(seed)
    value = axis.draw(rng)
    for _ in range(20):
        assert axis.low <= value <= axis.high
        value = axis.step(value, rng)


def test_a_step_goes_to_a_neighbour_or_a_fifth_down_or_a_quarter_up() -> None:
    rng = np.random.default_rng(0)
    choices = Choices(("a", "b", "c"))
    assert {choices.step("b", rng) for _ in range(20)} == {"a", "c"}
    assert {choices.step("a", rng) for _ in range(20)} == {"a", "b"}
    assert {Range(0.1, 10, whole=False).step(1.0, rng) for _ in range(20)} == {0.8, 1.25}
    assert {Range(1, 9, whole=True).step(2, rng) for _ in range(20)} == {1, 3}


def test_a_member_of_the_population_now_and_then_draws_anew() -> None:
    space = {"classifier.lr": Range(1e-4, 1e-2, whole=False)}
    rng = np.random.default_rng(0)
    stepped = [
        perturbed({"classifier.lr": 1e-3}, space, rng)["classifier.lr"] in (8e-4, 1.25e-3) for _ in range(800)
    ]
    assert np.mean(stepped) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({}, r"^sweep\.over is empty: name a setting, as in --over sampler\.k=1,3$"),
        (
            {"sampler.kk": "1,2"},
            r"^sweep\.over sampler\.kk=1,2: unknown setting sampler\.kk: did you mean sampler\.k\?",
        ),
        ({"classifier": "a,b"}, r"^sweep\.over classifier=a,b: unknown setting classifier"),
        ({"sweep.trials": "3,4"}, r"^sweep\.over sweep\.trials=3,4: unknown setting sweep\.trials"),
        (
            {"sampler.k": "3"},
            r"^sweep\.over sampler\.k=3 has one value: list at least two, or set --sampler\.k 3",
        ),
        (
            {"sampler.observation": "composition"},
            r"^sweep\.over sampler\.observation=composition has one value",
        ),
        ({"sampler.k": (3,)}, r"^sweep\.over sampler\.k=3 has one value"),
        (
            {"sampler.k": "0,3"},
            r"^sweep\.over sampler\.k=0: sampler\.k is '0': input should be greater than or equal",
        ),
        ({"sampler.k": "1,two"}, r"^sweep\.over sampler\.k=two: sampler\.k is 'two'"),
        (
            {"sampler.baseline_gamma": "0.5,0.50"},
            r"^sweep\.over sampler\.baseline_gamma=0\.5,0\.50 holds 0\.5 twice",
        ),
        (
            {"sampler.baseline_gamma": "0.5..2"},
            r"^sweep\.over sampler\.baseline_gamma=2: .* less than or equal to 1",
        ),
        (
            {"sampler.k": "1.5..3"},
            r"^sweep\.over sampler\.k=1\.5\.\.3: write a range .*in whole numbers for sampler\.k$",
        ),
        (
            {"classifier.lr": "1e-2..1e-4"},
            r"^sweep\.over classifier\.lr=1e-2\.\.1e-4: write a range as LOW\.\.HIGH",
        ),
        (
            {"sampler.reward": "1..3"},
            r"^sweep\.over sampler\.reward=1\.\.3 is a range, but sampler\.reward is not a number",
        ),
        ({"out": "a,b"}, r"^sweep\.over out=a,b: every trial has its own folder below out: leave it out$"),
        (
            {"sampler.initial_count": "2,20"},
            r"^sweep\.over sampler\.initial_count=20: sampler\.initial_count 20 is above sampler\.max_count 16: lower",
        ),
    ],
)
def test_what_cannot_be_swept_is_one_line(over: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        space_of(over, {})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_grid_of_a_range_is_refused() -> None:
    space = space_of({"classifier.lr": "1e-4..1e-2"}, {})
    with pytest.raises(
        UserError, match=r"classifier\.lr=0\.0001\.\.0\.01 is a range, which sweep\.search grid cannot"
    ):
        grid(space)


def test_a_setting_of_one_or_more_counts_is_swept_by_commas_or_by_semicolons():
    assert space_of({"sampler.initial_count": "2,4"}, {})["sampler.initial_count"].values == (2, 4)
    lists = space_of({"sampler.initial_count": "2,4;0,0"}, {})["sampler.initial_count"]
    assert lists.values == ((2, 4), (0, 0))


def test_values_that_fit_together_are_not_held_against_the_defaults() -> None:
    space = space_of({"sampler.initial_count": "2,20", "sampler.max_count": "32,40"}, {})
    assert len(grid(space)) == 4
