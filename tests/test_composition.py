import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_config

from rlcas.batches.composition import (
    PoolCycles,
    apply_actions,
    batch_starts,
    check_composition,
    epoch_plan,
    evenly,
    first_composition,
    initial_counts,
    num_clamped,
    replaces_real,
)
from rlcas.config import SamplerConfig
from rlcas.errors import UserError


def test_actions_are_minus_step_nothing_and_plus_step():
    counts = apply_actions(np.array([4, 4, 4]), np.array([0, 1, 2]), step=2, max_count=16)
    np.testing.assert_array_equal(counts, [2, 4, 6])


@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 2)), min_size=1), st.integers(1, 20))
def test_counts_stay_between_zero_and_the_maximum(pairs, step):
    counts, actions = np.array(pairs).T
    new = apply_actions(counts, actions, step=step, max_count=16)
    assert ((new >= 0) & (new <= 16)).all()
    np.testing.assert_array_equal(new[actions == 1], counts[actions == 1])


def test_only_actions_cut_off_at_a_limit_count_as_clamped():
    parent_C, actions_C = np.array([0, 1, 2, 15, 16, 16]), np.array([0, 0, 0, 2, 2, 1])
    counts_C = apply_actions(parent_C, actions_C, step=2, max_count=16)
    assert counts_C.tolist() == [0, 0, 0, 16, 16, 16]
    assert num_clamped(parent_C, counts_C, actions_C, 2) == 4


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40), st.integers(0, 3))
def test_every_cycle_shows_each_image_once(size, start, num_images, class_id):
    cycles = PoolCycles(np.array([size] * 4), seed=3)
    whole = cycles.take(class_id, 0, (start + num_images) // size * size + size)
    assert (np.sort(whole.reshape(-1, size), axis=1) == np.arange(size)).all()
    np.testing.assert_array_equal(cycles.take(class_id, start, num_images), whole[start : start + num_images])


def test_cycles_differ_between_rounds_and_classes():
    cycles = PoolCycles(np.array([50, 50]), seed=0)
    first, second = cycles.take(0, 0, 100).reshape(2, 50)
    assert (first != second).any() and (first != cycles.take(1, 0, 50)).any()


def test_a_class_without_images_yields_none():
    assert len(PoolCycles(np.array([0]), seed=0).take(0, 0, 0)) == 0


@given(st.integers(1, 300), st.integers(1, 64), st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_a_plan_shows_each_real_image_once_and_the_counts_in_every_batch(num_images, batch_size, counts):
    counts_C, positions_C = np.array(counts), np.arange(len(counts))
    cycles = PoolCycles(np.full(len(counts), 7), seed=1)
    order = np.random.default_rng(0).permutation(num_images)
    plan = epoch_plan(order, batch_size, counts_C, positions_C, cycles)
    np.testing.assert_array_equal(np.concatenate(plan.real_batches), order)
    num_steps = len(plan.real_batches)
    assert [i.shape for i in plan.synthetic_by_class] == [(num_steps, count) for count in counts]
    np.testing.assert_array_equal(plan.positions_C, positions_C + num_steps * counts_C)
    assert plan.num_images == num_images + num_steps * counts_C.sum()


@given(st.integers(1, 300), st.integers(2, 64))
def test_no_batch_is_a_single_image_where_there_are_two(num_images, batch_size):
    starts = [*batch_starts(num_images, batch_size), num_images]
    sizes = np.diff(starts)
    assert sizes.sum() == num_images
    assert (sizes >= min(2, num_images)).all() and (sizes <= batch_size + 1).all()


COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def plan_of(num_images, batch_size, counts, *, fixed_total):
    order = np.random.default_rng(0).permutation(num_images)
    cycles = PoolCycles(np.full(len(counts), 7), seed=1)
    positions_C = np.zeros(len(counts), np.int64)
    return epoch_plan(order, batch_size, np.array(counts), positions_C, cycles, fixed_total=fixed_total)


@given(st.integers(1, 300), st.integers(20, 64), COUNTS)
def test_with_a_fixed_total_every_batch_keeps_its_size_and_holds_the_counts(num_images, batch_size, counts):
    plan, plain = (
        plan_of(num_images, batch_size, these, fixed_total=True) for these in (counts, [0] * len(counts))
    )
    num_synthetic = sum(counts)
    assert len(plan.real_batches) == len(plain.real_batches)
    for kept, whole in zip(plan.real_batches, plain.real_batches, strict=True):
        assert len(kept) + num_synthetic == max(len(whole), num_synthetic)
        np.testing.assert_array_equal(kept, whole[: len(kept)])
    sizes = [len(batch) + num_synthetic for batch in plan.real_batches]
    assert all(size in (batch_size, batch_size + 1) for size in sizes[:-1])
    assert plan.counts_C.tolist() == counts
    shown = np.concatenate(plan.real_batches)
    assert len(set(shown.tolist())) == len(shown), "a real image is shown once at most"


@given(st.integers(1, 300), st.integers(2, 64), st.integers(1, 4))
def test_without_synthetic_images_both_batch_modes_plan_the_same(num_images, batch_size, num_classes):
    fixed, appended = (
        plan_of(num_images, batch_size, [0] * num_classes, fixed_total=mode) for mode in (True, False)
    )
    assert list(map(np.ndarray.tolist, fixed.real_batches)) == list(
        map(np.ndarray.tolist, appended.real_batches)
    )
    assert fixed.num_images == appended.num_images == num_images


@given(st.integers(1, 100), st.integers(20, 64), COUNTS, st.booleans())
def test_the_images_shown_are_those_of_the_plan(num_images, batch_size, counts, fixed_total):
    plan = plan_of(num_images, batch_size, counts, fixed_total=fixed_total)
    labels_N = np.arange(num_images) % len(counts)
    expected = np.zeros(len(counts), np.int64)
    for step, batch in enumerate(plan.real_batches):
        np.add.at(expected, labels_N[batch], 1)
        for class_id, rows in enumerate(plan.synthetic_by_class):
            expected[class_id] += len(rows[step])
    np.testing.assert_array_equal(plan.shown_C(labels_N), expected)
    assert plan.shown_C(labels_N).sum() == plan.num_images


def test_each_real_image_is_as_likely_to_be_replaced_as_any_other():
    kept_N = np.zeros(40)
    for epoch in range(2000):
        order = np.random.default_rng(epoch).permutation(40)
        cycles = PoolCycles(np.array([7]), seed=1)
        plan = epoch_plan(order, 10, np.array([4]), np.zeros(1, np.int64), cycles, fixed_total=True)
        kept_N[np.concatenate(plan.real_batches)] += 1
    assert kept_N.sum() == 2000 * 24
    assert np.abs(kept_N / 2000 - 0.6).max() < 4 * np.sqrt(0.24 / 2000)


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40), st.integers(0, 3))
def test_draws_with_replacement_follow_from_the_position_alone(size, start, num_images, class_id):
    cycles = PoolCycles(np.array([size] * 4), seed=3, with_replacement=True)
    whole = cycles.take(class_id, 0, start + num_images)
    assert ((whole >= 0) & (whole < size)).all()
    np.testing.assert_array_equal(cycles.take(class_id, start, num_images), whole[start:])


def test_draws_with_replacement_are_uniform_and_repeat_within_a_round():
    drawn = PoolCycles(np.array([10]), seed=0, with_replacement=True).take(0, 0, 20_000)
    shares = np.bincount(drawn, minlength=10) / len(drawn)
    assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.09 / len(drawn))
    assert any(len(set(cycle.tolist())) < 10 for cycle in drawn.reshape(-1, 10))


@pytest.mark.parametrize(("count", "expected"), [(2, [2, 2, 2]), ((0, 4, 16), [0, 4, 16])])
def test_initial_counts_are_one_for_all_or_one_for_each(count, expected):
    counts_C = initial_counts(SamplerConfig(initial_count=count), 3)
    assert counts_C.tolist() == expected and counts_C.dtype == np.int64


def test_initial_counts_for_another_number_of_classes_are_refused_with_both_numbers():
    with pytest.raises(
        UserError,
        match=r"sampler.initial_count 0,4 has 2 counts, but the data has 3 classes: give one .*, or 3 with",
    ):
        initial_counts(SamplerConfig(initial_count=(0, 4)), 3)


def test_a_batch_that_may_overflow_is_refused_with_the_arithmetic():
    fixed = {"batch_mode": "fixed_total", "max_count": 16}
    check_composition(tiny_config(sampler=fixed, classifier={"batch_size": 48}), 3)
    check_composition(tiny_config(sampler={"max_count": 16}), 3)
    text = (
        r"fixed_total: 3 classes x sampler.max_count 16 = 48 > classifier.batch_size 47: "
        r"lower sampler.max_count to 15, raise classifier.batch_size to 48, or append"
    )
    with pytest.raises(UserError, match=text):
        check_composition(tiny_config(sampler=fixed, classifier={"batch_size": 47}), 3)
    with pytest.raises(UserError, match=r"= 1600 > classifier.batch_size 47: raise classifier.batch_size"):
        check_composition(tiny_config(sampler=fixed, classifier={"batch_size": 47}), 100)


def test_images_are_divided_evenly_and_the_rest_goes_to_the_rarest_classes():
    class_counts_C, most_C = np.array([9, 5, 5, 2]), np.full(4, 8)
    assert evenly(8, class_counts_C, most_C).tolist() == [2] * 4
    assert evenly(6, class_counts_C, most_C).tolist() == [1, 1, 2, 2]
    assert evenly(7, class_counts_C, np.array([8, 8, 8, 0])).tolist() == [2, 2, 3, 0]
    assert evenly(90, class_counts_C, np.array([8, 1, 8, 2])).tolist() == [8, 1, 8, 2], (
        "all that there is room for"
    )
    assert evenly(6, class_counts_C, np.zeros(4, int)).tolist() == [0] * 4


def test_the_batch_mode_auto_replaces_real_images_where_all_classes_fit():
    for mode, batch_size, replaces in (
        ("append", 48, False),
        ("fixed_total", 48, True),
        ("auto", 48, True),
        ("auto", 47, False),
    ):
        settings = {"batch_mode": mode, "max_count": 16}
        config = tiny_config(sampler=settings, classifier={"batch_size": batch_size})
        check_composition(config, 3)
        assert replaces_real(config, 3) == replaces, (mode, batch_size)


def test_the_first_composition_is_that_of_start_share_or_of_the_initial_counts():
    class_counts_C = np.array([60, 30, 10])
    dose = tiny_config(sampler={"agents": "dose"}, classifier={"batch_size": 16})
    assert first_composition(dose, class_counts_C).tolist() == [1, 1, 2], "a quarter of 16"
    assert first_composition(dose, class_counts_C, np.array([True, True, False])).tolist() == [2, 2, 0]
    stated = tiny_config(sampler={"agents": "dose", "initial_count": [1, 2, 3]})
    assert stated.sampler.start_share == 0 and first_composition(stated, class_counts_C).tolist() == [1, 2, 3]
    assert first_composition(tiny_config(sampler={"initial_count": 4}), class_counts_C).tolist() == [4] * 3


@pytest.mark.parametrize("other", [{"initial_count": 2}, {"fold_epochs": 3}])
def test_two_starts_of_agents_dose_are_refused(other):
    text = r"sampler.start_share 0.5 beside sampler.\w+ \d: each says where agents dose start, set one of them to 0"
    with pytest.raises(ValueError, match=text):
        SamplerConfig(agents="dose", start_share=0.5, **other)
