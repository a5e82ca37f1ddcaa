"""Settings and resources of the algorithm: what is known before Ray starts."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
from trivial import TrivialTrainer

from cluster.runtime.connection import check_answers
from cluster.runtime.resources import check_demand, episode_resources
from rlcas import settings
from rlcas.config import ClusterConfig, RunConfig, SamplerConfig
from rlcas.config.cores import available_cores
from rlcas.errors import UserError
from rlcas.runs import folder as run_folder


@pytest.mark.parametrize(
    ("asked", "k", "gpus", "cpus", "expected"),
    [
        (None, 3, 0, 8, {"CPU": 1.0, "GPU": 0.0}),
        (None, 3, 1, 8, {"CPU": 1.0, "GPU": 1 / 3}),
        (None, 3, 2, 8, {"CPU": 1.0, "GPU": 1 / 2}),
        (None, 3, 4, 8, {"CPU": 1.0, "GPU": 1.0}),
        (0.25, 3, 1, 2, {"CPU": 0.33, "GPU": 0.25}),
        (0, 3, 4, 1, {"CPU": 0.01, "GPU": 0.0}),
    ],
)
def test_k_episodes_share_what_there_is(asked, k, gpus, cpus, expected):
    cluster = ClusterConfig(gpus_per_episode=asked, threads_per_episode=1)
    assert episode_resources(cluster, k, {"CPU": cpus, "GPU": gpus}) == pytest.approx(expected)


def test_too_many_gpus_are_refused_with_the_arithmetic():
    text = r"gpus_per_episode 0.6 x sampler.k 3 = 1.8 GPUs, but Ray has 2 \(room for 2\): set .* 0.5"
    with pytest.raises(UserError, match=text):
        episode_resources(ClusterConfig(gpus_per_episode=0.6), 3, {"CPU": 8, "GPU": 2})


def test_more_than_one_gpu_is_a_whole_number():
    with pytest.raises(UserError, match=r"cluster.gpus_per_episode 1.5 is more than one GPU .*: set 1$"):
        episode_resources(ClusterConfig(gpus_per_episode=1.5), 1, {"CPU": 8, "GPU": 2})


@pytest.mark.parametrize(
    ("k", "asked", "threads"), [(1, None, None), (10**6, None, 1), (10**6, 3, 3), (1, 1, 1)]
)
def test_threads_are_the_cores_divided_by_k_unless_they_are_stated(k, asked, threads):
    concrete = ClusterConfig(threads_per_episode=asked).concrete(k)
    assert concrete.threads_per_episode == (threads or available_cores())


def test_the_algorithms_own_config_keeps_the_number_of_threads():
    config = sampled(k=10**6)
    config.validate()
    assert config.threads_per_episode == 1


def test_the_runs_folder_keeps_the_number_of_threads_and_device_cpu_asks_no_gpu(tmp_path):
    config = RunConfig.model_validate({"out": tmp_path / "r", "device": "cpu", "sampler": {"k": 10**6}})
    run_folder.create(config)
    kept = settings.load(tmp_path / "r").cluster
    assert (kept.threads_per_episode, kept.gpus_per_episode) == (1, 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
@pytest.mark.parametrize(
    ("cluster", "text"),
    [
        ({"gpus_per_episode": 1}, r"gpus_per_episode 1 x sampler.k 3 = 3 GPUs, but Ray has 0 \(room for 0\)"),
        (
            {"gpus_per_sampler": 0.5},
            r"gpus_per_sampler 0.5 x cluster.sampling_workers 1 = 0.5 GPUs, but Ray has 0",
        ),
    ],
)
def test_a_demand_that_cannot_be_met_is_refused_without_starting_ray(cluster, text):
    was_there = ray.is_initialized()
    with pytest.raises(UserError, match=text):
        check_demand(RunConfig.model_validate({"cluster": cluster}))
    assert ray.is_initialized() == was_there


def empty():
    from cluster import RLCASConfig

    return RLCASConfig()


def sampled(**sampler):
    return empty().training(**sampler).episodes(trainer_factory=TrivialTrainer, num_classes=4)


def test_settings_are_checked_by_name():
    with pytest.raises(UserError, match=r"training\(gamma=0.9\) is RLlib's discount"):
        sampled(gamma=0.9)
    with pytest.raises(
        UserError, match=r"episodes\(gpus\) is unknown: use trainer_factory, num_classes, .*gpus_per"
    ):
        sampled().episodes(gpus=1)
    with pytest.raises(UserError, match=r"sampler.initial_count 20 is above sampler.max_count 16"):
        sampled(initial_count=20).validate()
    with pytest.raises(UserError, match=r"sampler.batch_mode is 'complete_episodes': input should be 'append'"):
        sampled(batch_mode="complete_episodes").validate()
    with pytest.raises(UserError, match=r"initial_count 1,2 has 2 counts, but the data has 4 classes"):
        sampled(initial_count=(1, 2)).validate()
    with pytest.raises(UserError, match=r"sampler.baseline_gamma is 1.5: input should be less"):
        sampled(baseline_gamma=1.5).validate()
    with pytest.raises(UserError, match=r"trainer_factory is None and num_classes is None: call .episodes"):
        empty().validate()


def without_argument():
    return TrivialTrainer()


def with_too_many_arguments(data, sampler):
    return TrivialTrainer(sampler)


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (without_argument, r"trainer_factory without_argument does not take .* \(too many positional arg"),
        (functools.partial(without_argument), r"trainer_factory without_argument does not take the sampler's"),
        (with_too_many_arguments, r"trainer_factory with_too_many_arguments .*\(missing a required arg"),
        (TrivialTrainer(), r"trainer_factory TrivialTrainer\(.* is not a callable object\)"),
    ],
)
def test_a_factory_that_does_not_take_the_settings_is_refused_in_one_line(factory, text):
    from cluster.episodes.local_runner import LocalEpisodes

    with pytest.raises(UserError, match=text) as refused:
        sampled().episodes(trainer_factory=factory).validate()
    assert str(refused.value).endswith("it is called with one argument, an rlcas.config.SamplerConfig")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=text):
        LocalEpisodes(factory, SamplerConfig(), ClusterConfig())


def test_the_sampler_keeps_its_batch_mode_where_rllib_has_one_of_that_name():
    config = sampled(batch_mode="fixed_total")
    assert config.sampler_config().batch_mode == "fixed_total"
    assert config.get_evaluation_config_object().sampler_config().batch_mode == "fixed_total"


def test_a_cluster_that_does_not_answer_is_reported_at_once():
    with pytest.raises(UserError, match=r"RAY_ADDRESS 'ray://127.0.0.1:1' does not answer .*: start it"):
        check_answers("ray://127.0.0.1:1")


@pytest.fixture
def ray_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `ray start` notes the head's address for RAY_ADDRESS=auto."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_a_lost_head_that_ray_start_noted_here_is_reported_at_once(ray_note: Path):
    ray_note.write_text("127.0.0.1:1")
    with pytest.raises(UserError, match=r"RAY_ADDRESS 'auto' \(127.0.0.1:1\) does not answer .*: start it"):
        check_answers("auto")


def test_no_ray_on_this_machine_is_reported_at_once(ray_note: Path, monkeypatch: pytest.MonkeyPatch):
    """Other tests' Ray, which would be found among the processes, is hidden."""
    monkeypatch.setattr("cluster.runtime.connection.find_gcs_addresses", set)
    with pytest.raises(UserError, match=r"RAY_ADDRESS 'auto' finds no Ray on this machine: start it"):
        check_answers("auto")


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265", "127.0.0.1:1 ", "host:99999"])
def test_an_address_that_is_not_a_clusters_is_refused(address: str):
    with pytest.raises(
        UserError, match=rf"RAY_ADDRESS '{address}' is not a cluster's address: write HOST:6379 or"
    ):
        check_answers(address)


@pytest.mark.medium
def test_a_cluster_that_does_not_answer_is_reported_before_phase_one_where_no_gpu_is_needed():
    code = (
        "from cluster.runtime.resources import check_demand; from rlcas.config import RunConfig; "
        "check_demand(RunConfig(device='cpu'))"
    )
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "RAY_ADDRESS '127.0.0.1:1' does not answer" in done.stderr


def test_an_actor_does_not_import_rllib():
    code = "import sys, cluster.episodes.episode; sys.exit('ray.rllib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
