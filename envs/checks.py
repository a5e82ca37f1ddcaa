"""A checker of the environment's contract, for those who bring their own trainer."""

from __future__ import annotations

import numpy as np

from envs.composition_env import BatchCompositionEnv
from rlcas.batches.composition import ACTIONS
from rlcas.types import Incumbent, Int64


def check_batch_composition(env: BatchCompositionEnv) -> None:
    """Train five epochs and check what the sampler builds on.

    The observation lies in its space; actions of 0 keep the composition and others move and clamp it; the
    same incumbent and actions give the same bits, whatever was trained between.

    Raises:
        AssertionError: the first promise that is broken.
    """
    keep_C = np.ones(env.num_classes, dtype=np.int64)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation), f"{observation} is not in {env.observation_space}"
    start = env.incumbent
    trained = _step(env, start, keep_C)
    _step(env, start, keep_C + 1)
    again = _step(env, start, keep_C)
    assert_same(trained, again)
    assert trained.epoch == start.epoch + 1, f"one step trained {trained.epoch - start.epoch} epochs, not 1"
    assert np.array_equal(trained.counts_C, start.counts_C), "actions of 0 changed the composition"
    step, max_count = env.sampler.action_step, env.sampler.max_count
    parent = trained if env.sampler.epochs > 1 else start  # no epoch follows the last
    for actions_C in (keep_C - 1, keep_C + 1):
        moved = _step(env, parent, actions_C)
        expected_C = np.clip(parent.counts_C + step * ACTIONS[actions_C], 0, max_count)
        assert np.array_equal(moved.counts_C, expected_C), f"{moved.counts_C} is not {expected_C}"


def _step(env: BatchCompositionEnv, incumbent: Incumbent, actions_C: Int64) -> Incumbent:
    env.reset(options={"incumbent": incumbent})
    observation, reward, terminated, _, info = env.step(actions_C)
    assert env.observation_space.contains(observation), f"{observation} is not in {env.observation_space}"
    assert not terminated, "an epoch never ends the run: it is truncated at sampler.epochs"
    assert reward == info["report"].reward, "the reward is not the report's"
    return env.incumbent


def assert_same(one: Incumbent, other: Incumbent) -> None:
    """Raise AssertionError where the two incumbents differ in any bit of weights, counts or metrics."""
    assert one.arrays.keys() == other.arrays.keys(), "the incumbents hold other dtypes"
    for dtype, array in one.arrays.items():
        assert array.tobytes() == other.arrays[dtype].tobytes(), f"the {dtype} weights differ: not pure"
    assert np.array_equal(one.counts_C, other.counts_C), "the compositions differ: not pure"
    assert np.array_equal(one.positions_C, other.positions_C), "the pool's positions differ: not pure"
    assert one.result is not None and other.result is not None
    assert one.result.val_loss == other.result.val_loss, "the validation losses differ: not pure"
    # As text, in which NaN equals itself and every bit of a float shows.
    assert repr(one.result.metrics) == repr(other.result.metrics), "the metrics differ: not pure"
