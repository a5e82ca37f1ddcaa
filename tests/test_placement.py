"""Where the episodes run: the arithmetic of nodes, and that nothing stays behind however a run ends."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from test_trials import held, left_behind
from trivial import NoFirstClassifier, TrivialTrainer, breaks

from cluster.runtime.placement import check_room, fitting, room
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import RunError, UserError

hundredths = st.integers(1, 400).map(lambda number: number / 100)


@given(hundredths, hundredths, hundredths, hundredths)
def test_as_many_bundles_fit_as_can_be_taken_away(
    cpus: float, gpus: float, has_cpus: float, has_gpus: float
) -> None:
    taken = next(
        number
        for number in itertools.count()
        if round(100 * cpus) * (number + 1) > round(100 * has_cpus)
        or round(100 * gpus) * (number + 1) > round(100 * has_gpus)
    )
    assert room({"CPU": cpus, "GPU": gpus}, {"CPU": has_cpus, "GPU": has_gpus}) == taken


@given(st.integers(1, 64))
def test_equal_shares_of_a_gpu_fit_into_it(k: int) -> None:
    assert room(fitting({"CPU": 0, "GPU": 1 / k}), {"GPU": 1}) == k


def test_a_bundle_must_lie_whole_on_one_node() -> None:
    nodes = [("a", {"CPU": 2.0}), ("b", {"CPU": 2.0}), ("c", {"CPU": 2.0, "GPU": 1.0})]
    check_room({"CPU": 2.0}, 3, nodes)
    with pytest.raises(
        UserError,
        match=r"^sampler.k 1 episodes ask 4 CPU and 0 GPU each, each on one node; the nodes have 2 CPU and 0 GPU "
        r"\(room for 0\) on a, b; 2 CPU and 1 GPU \(room for 0\) on c: lower cluster.threads_per_episode, "
        r"cluster.gpus_per_episode or sampler.k, or add nodes$",
    ):
        check_room({"CPU": 4.0}, 1, nodes)
    with pytest.raises(
        UserError,
        match=r"sampler.k 3 episodes ask 1 CPU and 0.5 GPU each.* 2 CPU and 0 GPU \(room for 0\) on a, b; "
        r"2 CPU and 1 GPU \(room for 2\) on c: lower",
    ):
        check_room({"CPU": 1.0, "GPU": 0.5}, 3, nodes)


def build(factory, **cluster):
    from cluster import RLCASConfig

    config = RLCASConfig().training(k=2, epochs=3).debugging(seed=0)
    return config.episodes(
        trainer_factory=factory, num_classes=4, threads_per_episode=1, **cluster
    ).build_algo()


def trained(algorithm) -> None:
    algorithm.train()


def interrupted(algorithm) -> None:
    """Interrupt the driver while the episodes run."""
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    algorithm.train()


@pytest.mark.medium
def test_a_run_reserves_one_placement_group_and_gives_it_back(ray_session: None) -> None:
    before = held()
    algorithm = build(TrivialTrainer, placement="pack")
    (group,) = [
        group
        for key, group in ray.util.placement_group_table().items()
        if key not in before and group["state"] == "CREATED"
    ]
    assert group["strategy"] == "PACK"
    assert [group["bundles"][i] for i in range(2)] == [{"CPU": 1.0}] * 2
    algorithm.train()
    algorithm.stop()
    assert left_behind(before) == set()


@pytest.mark.medium
@pytest.mark.parametrize(
    ("factory", "act", "error"),
    [
        (breaks, trained, RunError),
        (NoFirstClassifier, trained, ray.exceptions.RayTaskError),
        (
            functools.partial(TrivialTrainer, faults={(1, 0): "exception", (1, 1): "exception"}),
            trained,
            RunError,
        ),
        (functools.partial(TrivialTrainer, sleep_seconds=30.0), interrupted, KeyboardInterrupt),
    ],
    ids=["a worker cannot be built", "no first classifier", "no valid episode", "Ctrl-C"],
)
def test_nothing_is_left_behind_however_a_run_ends(ray_session: None, factory, act, error) -> None:
    before = held()
    with pytest.raises(error):
        algorithm = build(factory)
        try:
            act(algorithm)
        finally:
            algorithm.stop()
    assert left_behind(before) == set()


@pytest.mark.medium
def test_room_that_others_hold_is_reported_with_what_each_node_has(ray_session: None) -> None:
    from cluster.episodes.actor_runner import EpisodeActors

    before, all_cpus = held(), ray.cluster_resources()["CPU"]
    others = ray.util.placement_group([{"CPU": all_cpus}])
    assert ray.wait([others.ready()], timeout=60)[0]
    try:
        with pytest.raises(
            UserError,
            match=r"sampler.k 2 episodes ask 1 CPU and 0 GPU each, which was not free within "
            r"cluster.start_timeout_seconds 0.1; free are 0 CPU and 0 GPU \(room for 0\) on .*: "
            r"free or add nodes, lower sampler.k, or wait longer",
        ):
            EpisodeActors(
                TrivialTrainer,
                SamplerConfig(k=2),
                ClusterConfig(start_timeout_seconds=0.1, threads_per_episode=1),
            )
    finally:
        ray.util.remove_placement_group(others)
    assert left_behind(before) == set()
