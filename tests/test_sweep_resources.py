"""What trials reserve, how many run side by side, and what is said where they do not fit."""

from __future__ import annotations

import pytest

from cluster.sweeps.resources import check_trials_fit, concurrency, trial_bundles
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.errors import UserError


def config(k: int, **stated: object) -> RunConfig:
    return settings.of({"sampler.k": k, "cluster.threads_per_episode": 1, **stated})


@pytest.mark.parametrize(
    ("ks", "total", "expected"),
    [
        ((1, 3), {"CPU": 2}, 1),
        ((1, 1), {"CPU": 2}, 2),
        ((3, 3, 3), {"CPU": 8}, 2),
        ((3, 3, 3), {"CPU": 8, "GPU": 8}, 2),
        ((3, 3), {"CPU": 64, "GPU": 1}, 1),
        ((1, 1), {"CPU": 64, "GPU": 8}, 2),
    ],
)
def test_trials_are_as_many_as_the_cores_or_gpus_take(
    ks: tuple[int], total: dict[str, float], expected: int
) -> None:
    assert concurrency(None, [config(k) for k in ks], total) == expected


def test_no_more_trials_run_side_by_side_than_exist() -> None:
    assert concurrency(9, [config(1), config(1)], {"CPU": 2}) == 2
    assert concurrency(2, [config(3)] * 4, {"CPU": 2}) == 2


@pytest.mark.parametrize("concurrent", [1, 2, 4])
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("total", [{"CPU": 5.0}, {"CPU": 6.0, "GPU": 1.0}, {"CPU": 64.0, "GPU": 8.0}])
def test_all_side_by_side_fit_and_none_goes_without_its_gpu(
    concurrent: int, k: int, total: dict[str, float]
) -> None:
    bundles = trial_bundles(config(k), concurrent, total)
    assert len(bundles) == 1 + k
    for kind, there_is in total.items():
        assert concurrent * sum(bundle.get(kind, 0) for bundle in bundles) <= there_is + 1e-9
        assert kind != "GPU" or all(bundle["GPU"] > 0 for bundle in bundles[1:])


@pytest.mark.parametrize(
    ("stated", "concurrent", "total", "message"),
    [
        (
            {"cluster.gpus_per_episode": 1},
            2,
            {"CPU": 64, "GPU": 4},
            r"^sweep\.concurrent 2 x sampler\.k 3 x cluster\.gpus_per_episode 1 = 6 GPUs, but Ray has 4 \(room",
        ),
        (
            {"cluster.gpus_per_episode": 0.5},
            1,
            {"CPU": 64, "GPU": 1},
            r"= 1\.5 GPUs, but Ray has 1 \(room for 2 episodes\): lower one of them$",
        ),
        (
            {},
            4,
            {"CPU": 4},
            r"^sweep\.concurrent 4 x 1 CPU of a trial = 4 CPUs, and sampler\.k 3 episodes each, but Ray has 4 CPUs",
        ),
    ],
)
def test_what_cannot_fit_is_refused_with_the_arithmetic(
    stated: dict[str, object], concurrent: int, total: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        trial_bundles(config(3, **stated), concurrent, total)


@pytest.mark.medium
def test_what_others_hold_is_reported_in_place_of_a_silent_wait(ray_session: None) -> None:
    import ray

    check_trials_fit([[{"CPU": 1}] * 4], timeout_seconds=60)
    with pytest.raises(
        UserError,
        match=r"^2 trials side by side ask 7 CPU, 7 CPU; of it Ray reserved 1 within .* 2, and has .* CPU, 0 GPU left",
    ):
        check_trials_fit([[{"CPU": 1}] * 7] * 2, timeout_seconds=2)
    held = [group["state"] for group in ray.util.placement_group_table().values()]
    assert set(held) <= {"REMOVED"}
