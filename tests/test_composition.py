import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlcas.composition import PoolCycles, apply_actions, batch_starts, epoch_plan, num_clamped


def test_actions_are_minus_step_nothing_and_plus_step():
    counts = apply_actions(np.array([4, 4, 4]), np.array([0, 1, 2]), step=2, max_count=16)
    np.testing.assert_array_equal(counts, [2, 4, 6])


@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 2)), min_size=1), st.integers(1, 20))
def test_counts_stay_between_zero_and_the_maximum(pairs, step):
    counts, actions = np.array(pairs).T
    new = apply_actions(counts, actions, step=step, max_count=16)
    assert ((new >= 0) & (new <= 16)).all()
    np.testing.assert_array_equal(new[actions == 1], counts[actions == 1])


def test_only_actions_that_run_into_a_limit_count_as_clamped():
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


def test_a_class_without_images_can_give_none():
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
