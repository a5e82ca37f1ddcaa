"""The model of an epoch on a cluster against cases computed by hand, and the engine with many episodes."""

from __future__ import annotations

import dataclasses
import json
import math
import time

import numpy as np
import pytest
import scaling
from hypothesis import given
from hypothesis import strategies as st
from scaling_inputs import Cluster, Costs, Job, costs_of
from scaling_model import (
    efficiency,
    gigabytes,
    mean_added,
    plane,
    seconds_by_part,
    simulate,
    start_seconds,
    straggler_factors,
)

from rlcas.config import SamplerConfig

COSTS = Costs(
    epoch_seconds=0.01,
    episode_seconds=0.002,
    class_seconds=1e-6,
    episode_class_seconds=1e-7,
    hand_over_seconds_per_gb=0.5,
    score_seconds=1e-8,
    validation_speed=4.0,
    open_seconds_per_gb=3.0,
    checkpoint_seconds_per_gb=5.0,
    message_bytes=100.0,
    line_bytes=40.0,
    driver_gb=1.0,
    worker_gb=0.5,
)
STEADY = Cluster(gpus_per_node=4, images_per_second=1000.0, straggler_sigma=0.0)
JOB = Job(
    k=4, num_classes=10, num_images=8000, num_val_images=1024, image_bytes=100, state_bytes=1e8, batch_size=80
)


def epoch_seconds(job: Job, cluster: Cluster) -> float:
    return sum(seconds_by_part(job, cluster, COSTS, epochs=200).values())


def test_without_stragglers_an_epoch_is_one_episode_and_the_overheads() -> None:
    parts = seconds_by_part(JOB, STEADY, COSTS)
    assert parts == pytest.approx(
        {
            "train": 8.0,
            "validate": 1024 / 4000 + 1024 * 10 * 10 * 1e-8,
            "wait": 0.0,
            "network": 0.0,
            "hand_over": 4 * 0.1 * 0.5,
            "engine": 0.01 + 4 * 0.002 + 10 * 1e-6 + 40 * 1e-7,
        }
    )


def test_synthetic_images_are_trained_on_in_every_mini_batch() -> None:
    job = dataclasses.replace(JOB, added=20.0)
    assert job.trained_images == 8000 + 100 * 20
    assert seconds_by_part(job, STEADY, COSTS)["train"] == pytest.approx(10.0)


def test_episodes_that_share_a_gpu_take_turns_but_score_on_cores_of_their_own() -> None:
    shared = seconds_by_part(dataclasses.replace(JOB, k=9), STEADY, COSTS)
    assert shared["train"] == pytest.approx(3 * 8.0)
    assert shared["validate"] == pytest.approx(3 * 1024 / 4000 + 1024 * 10 * 10 * 1e-8)


def test_every_other_node_gets_one_copy_of_the_state() -> None:
    on_three = dataclasses.replace(STEADY, nodes=3, network_gb_per_second=0.5)
    assert gigabytes(JOB, on_three, COSTS)["network"] == pytest.approx(2 * 0.1 + 4 * 10 * 100 / 1e9)
    assert seconds_by_part(JOB, on_three, COSTS)["network"] == pytest.approx(2 * 0.1 / 0.5)
    assert seconds_by_part(JOB, on_three, COSTS)["hand_over"] == pytest.approx(2 * 0.1 * 0.5)


def test_memory_is_that_of_the_fullest_node() -> None:
    on_three = dataclasses.replace(STEADY, nodes=3)
    job = dataclasses.replace(JOB, added=20.0, pool_per_class=50)
    assert gigabytes(job, on_three, COSTS) == pytest.approx(
        {
            "network": 0.2 + 4e-6,
            "store": (2 + 4) * 0.1,
            "driver": 1.0 + 4 * 0.1,
            "workers": 2 * (0.5 + 2 * 0.1 + 1024 * 10 * 20 / 1e9 + 8 * 10_000 / 1e9),
            "images": 9024 * 100 / 1e9,
            "gpu": (9024 + 500) * 100 / 1e9,
            "checkpoint": 0.2,
            "line": 4 * 10 * 40 / 1e9,
        }
    )


def test_the_start_reads_the_images_once_a_node_and_once_a_worker() -> None:
    on_three = dataclasses.replace(STEADY, nodes=3, storage_gb_per_second=0.5)
    images_gb = 9024 * 100 / 1e9
    assert start_seconds(JOB, on_three, COSTS) == pytest.approx(
        {"open": 3 * images_gb, "read": 3 * images_gb / 0.5}
    )


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_slower_of_two_episodes_is_as_slow_as_mathematics_says(sigma: float) -> None:
    """The larger of two lognormal variables of mean 1 has the mean 2 Φ(σ / √2)."""
    slower = straggler_factors(2, sigma, epochs=200_000, seed=0).max(axis=0).mean()
    assert slower == pytest.approx(1 + math.erf(sigma / 2), rel=4e-3)


def test_waiting_is_for_the_slowest_episode() -> None:
    slow = dataclasses.replace(STEADY, straggler_sigma=0.2)
    job = dataclasses.replace(JOB, k=2)
    parts = seconds_by_part(job, slow, COSTS, epochs=200_000)
    assert parts["wait"] == pytest.approx((parts["train"] + parts["validate"]) * math.erf(0.1), rel=0.03)


@given(
    k=st.integers(1, 70),
    num_classes=st.integers(2, 1000),
    num_images=st.integers(1, 10**7),
    num_val=st.integers(1, 10**6),
    nodes=st.integers(1, 8),
    sigma=st.floats(0, 1),
)
def test_more_work_never_takes_less_time(
    k: int, num_classes: int, num_images: int, num_val: int, nodes: int, sigma: float
) -> None:
    job = dataclasses.replace(JOB, k=k, num_classes=num_classes, num_images=num_images, num_val_images=num_val)
    cluster = dataclasses.replace(STEADY, nodes=nodes, straggler_sigma=sigma)
    least = epoch_seconds(job, cluster)
    for name, factor in (("k", 2), ("num_classes", 3), ("num_images", 2), ("num_val_images", 2)):
        more = dataclasses.replace(job, **{name: factor * getattr(job, name)})
        assert epoch_seconds(more, cluster) >= least * (1 - 1e-12), name
        assert all(
            more_gb >= gb * (1 - 1e-12)
            for more_gb, gb in zip(
                gigabytes(more, cluster, COSTS).values(), gigabytes(job, cluster, COSTS).values(), strict=True
            )
        ), name
    for name in ("images_per_second", "network_gb_per_second"):
        faster = dataclasses.replace(cluster, **{name: 2 * getattr(cluster, name)})
        assert epoch_seconds(job, faster) <= least * (1 + 1e-12), name


@given(k=st.integers(1, 32), nodes=st.integers(8, 16), sigma=st.floats(0, 1))
def test_episodes_with_a_gpu_each_are_no_faster_than_one_alone(k: int, nodes: int, sigma: float) -> None:
    job, cluster = (
        dataclasses.replace(JOB, k=k),
        dataclasses.replace(STEADY, nodes=nodes, straggler_sigma=sigma),
    )
    assert 0 < efficiency(job, cluster, COSTS) <= 1 + 1e-12


def test_one_episode_on_one_node_loses_nothing() -> None:
    assert efficiency(dataclasses.replace(JOB, k=1), STEADY, COSTS) == 1


def test_agents_that_act_at_random_add_half_an_image_if_one_is_the_maximum() -> None:
    """The probability p of an image follows p ← (1 + p) / 3 from 0: (1 - 3^-t) / 2 in epoch t."""
    by_hand = np.mean([(1 - 3.0**-t) / 2 for t in range(1, 31)])
    assert mean_added(scaling.FEW_SYNTHETIC, 1000) == pytest.approx(1000 * by_hand)
    assert mean_added(SamplerConfig(agents="constant", initial_count=3), 7) == pytest.approx(21)


def test_the_fit_recovers_the_plane_of_the_engine() -> None:
    shapes = [(k, c) for k in (1, 4, 8) for c in (8, 1000)]
    exact = {(k, c): 0.01 + 0.002 * k + 1e-6 * c + 1e-7 * k * c for k, c in shapes}
    found = plane(exact)
    assert found == pytest.approx({name: getattr(COSTS, name) for name in found})
    falling = plane({(1, 8): 0.02, (8, 8): 0.01})
    assert all(value >= 0 for value in falling.values())


def test_the_page_has_the_tables_of_the_model_with_the_stored_costs() -> None:
    costs = costs_of(json.loads(scaling.COSTS_FILE.read_text(encoding="utf-8")))
    page = scaling.PAGE.read_text(encoding="utf-8")
    for table in scaling.tables(costs, Cluster()):
        assert table in page, "python benchmarks/scaling.py --write"


def test_a_table_replaces_the_one_with_its_head() -> None:
    page = "before\n\n| a | b |\n|---|--:|\n| x | 1 |\n\nafter\n"
    new = scaling.markdown("a", ["b"], {"x": [0.0], "y": [0.25], "z": [12345.6], "w": [1e-6]})
    rows = "| `x` | 0 |\n| `y` | 0.25 |\n| `z` | 12,346 |\n| `w` | < 0.001 |\n"
    assert scaling.put(page, new) == f"before\n\n| a | b |\n|---|--:|\n{rows}\nafter\n"
    with pytest.raises(AssertionError, match="0 tables"):
        scaling.put("no table\n", new)


def test_all_figures_of_the_target_are_present() -> None:
    job, nodes = scaling.CASES["target"]
    assert (job.k, job.num_classes, job.num_images, nodes) == (64, 1000, 10_000_000, 8)
    figures = simulate(job, Cluster(nodes=nodes), COSTS)
    parts = ("train", "validate", "wait", "network", "hand_over", "engine")
    assert figures["epoch_seconds"] == pytest.approx(sum(figures[f"{part}_seconds"] for part in parts))
    assert figures["images_gb"] == pytest.approx(11_250_000 * 3 * 64**2 / 1e9)


@pytest.mark.medium
def test_sixteen_episodes_have_the_bits_of_one_process_and_leave_no_process_running(ray_session) -> None:
    import ray
    from test_faults import make_config
    from trivial import TrivialTrainer

    cores = ray.available_resources()["CPU"]
    actors, alone = (
        make_config(TrivialTrainer, k=16, episode_runner=runner).build_algo()
        for runner in ("actors", "in_process")
    )
    for _ in range(3):
        actors.train()
        alone.train()
        assert [report.episode_index for report in actors.record.reports] == list(range(16))
        assert actors.record.reports == alone.record.reports
        assert actors.record.winner == alone.record.winner
    actors.stop()
    alone.stop()
    ends_at = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) != cores and time.monotonic() < ends_at:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == cores
