"""Settings and resources of the algorithm: what is known before Ray starts."""

import subprocess
import sys

import pytest
from trivial import TrivialTrainer

from cluster.start import check_answers, episode_resources
from rlcas.config import ClusterConfig
from rlcas.errors import UserError


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
    cluster = ClusterConfig(gpus_per_episode=asked)
    assert episode_resources(cluster, k, {"CPU": cpus, "GPU": gpus}) == pytest.approx(expected)


def test_too_many_gpus_are_refused_with_the_arithmetic():
    text = r"gpus_per_episode 0.6 x sampler.k 3 = 1.8 GPUs, but Ray has 2 \(room for 2\): set .* 0.5"
    with pytest.raises(UserError, match=text):
        episode_resources(ClusterConfig(gpus_per_episode=0.6), 3, {"CPU": 8, "GPU": 2})


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


def test_the_sampler_keeps_its_batch_mode_where_rllib_has_one_of_that_name():
    config = sampled(batch_mode="fixed_total")
    assert config.sampler_config().batch_mode == "fixed_total"
    assert config.get_evaluation_config_object().sampler_config().batch_mode == "fixed_total"


def test_a_cluster_that_does_not_answer_is_told_at_once():
    with pytest.raises(UserError, match=r"RAY_ADDRESS 'ray://127.0.0.1:1' does not answer .*: start it"):
        check_answers("ray://127.0.0.1:1")


def test_an_actor_does_not_import_rllib():
    code = "import sys, cluster.episode; sys.exit('ray.rllib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
