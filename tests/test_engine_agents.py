"""Every entry of AGENTS through the engine: what it learns, and what a restart keeps of it."""

import functools

import numpy as np
import pytest
import torch
from trivial import TrivialTrainer

from cluster.episodes.checkpoint import load_into, save
from rlcas.agents import AGENTS
from rlcas.config import POPULATION, ClusterConfig, SamplerConfig
from rlcas.errors import UserError

pytestmark = pytest.mark.medium

NUM_CLASSES, K, SEED = 4, 3, 5
FAULTS = {(2, 0): "exception", (3, 1): "non_finite"}


def build(trainer=TrivialTrainer, faults=None, **sampler):
    from cluster import RLCASConfig

    factory = functools.partial(trainer, num_classes=NUM_CLASSES, faults=faults or {})
    return (
        RLCASConfig()
        .training(**{"k": K, "epochs": 6} | sampler)
        .episodes(trainer_factory=factory, num_classes=NUM_CLASSES, episode_runner="in_process")
        .debugging(seed=SEED)
        .build_algo()
    )


def epochs(algorithm, count):
    """Train and return what must be the same bits of each epoch."""
    return [bits_of(algorithm) for _ in range(count) if algorithm.train()]


def bits_of(algorithm):
    record, incumbent = algorithm.record, algorithm.incumbent
    learner_arrays = algorithm.on_learner(lambda learner: learner.arrays())
    return (
        record.reports,
        record.winner,
        record.probabilities_C3.tobytes(),
        None if record.curves_CG is None else record.curves_CG.tobytes(),
        incumbent.counts_C.tobytes(),
        {name: array.tobytes() for name, array in learner_arrays.items()},
    )


@pytest.mark.parametrize("name", sorted(AGENTS.keys() - {POPULATION}))
def test_a_run_resumes_from_any_checkpoint_to_the_same_bits(ray_session, tmp_path, name):
    from cluster import RLCAS

    algorithm = build(agents=name, faults=FAULTS)
    epochs(algorithm, 3)
    save(algorithm, tmp_path)
    rllib_checkpoint = algorithm.save_to_path(str(tmp_path / "rllib"))
    state = algorithm.get_state()
    expected = epochs(algorithm, 3)

    resumed = build(agents=name, faults=FAULTS)
    assert load_into(resumed, tmp_path) == 3
    assert epochs(resumed, 3) == expected, "from safetensors and JSON"
    resumed.set_state(state)
    assert epochs(resumed, 3) == expected, "an older state in memory"
    restored = RLCAS.from_checkpoint(rllib_checkpoint)
    assert epochs(restored, 3) == expected, "from RLlib's own checkpoint"
    for built in (algorithm, resumed, restored):
        built.stop()


def test_an_episode_that_fails_in_the_process_is_an_outcome_as_on_an_actor(ray_session):
    algorithm = build(faults=FAULTS)
    statuses = [[report.status for report in epoch[0]] for epoch in epochs(algorithm, 3)]
    algorithm.stop()
    assert statuses == [["ok"] * 3, ["exception", "ok", "ok"], ["ok", "non_finite", "ok"]]


def test_gpus_are_shared_out_by_actors_alone():
    from cluster.episodes.local_runner import LocalEpisodes

    cluster = ClusterConfig(episode_runner="in_process", gpus_per_episode=0.5)
    with pytest.raises(
        UserError, match=r"gpus_per_episode 0.5 is for cluster.episode_runner actors, not for in_"
    ):
        LocalEpisodes(TrivialTrainer, SamplerConfig(), cluster)


def test_state_agents_learn_by_the_gradient_of_their_own_advantages(ray_session):
    """Against Adam on -(1/K) Σ_j Σ_i A_i^j log p(a_i^j) - 0.1 H, with A from the reports, by hand."""
    algorithm = build(agents="state", entropy_bonus=0.1, team_share=0.5)
    agents = algorithm.on_learner(lambda learner: learner.agents.agents)
    bias_C3 = agents.bias_C3.detach().clone().requires_grad_()
    weights_CF3 = agents.weights_CF3.detach().clone().requires_grad_()
    adam = torch.optim.Adam([bias_C3, weights_CF3], lr=0.15)
    scale_F = torch.tensor([1, 0.25, 0.25, 0.25])
    for epoch in range(4):
        incumbent = algorithm.incumbent
        shares_4C = np.zeros((4, NUM_CLASSES))
        shares_4C[0], shares_4C[3] = incumbent.counts_C / 16, epoch / 6
        if incumbent.result is not None:
            shares_4C[1:3] = (
                np.exp(incumbent.result.per_class["log_likelihood"]),
                np.full(NUM_CLASSES, incumbent.result.metrics["f1"]),
            )
        centred_CF = scale_F * (2 * torch.tensor(shares_4C.T, dtype=torch.float32) - 1)
        algorithm.train()
        log_p_C3 = (bias_C3 + torch.einsum("cf,cfa->ca", centred_CF, weights_CF3)).log_softmax(-1)
        np.testing.assert_allclose(algorithm.record.probabilities_C3, log_p_C3.exp().detach(), rtol=1e-5)
        reports = algorithm.record.reports
        signals_KC = np.stack([report.result.per_class["log_likelihood"] for report in reports])
        f1_K1 = np.array([[report.result.metrics["f1"]] for report in reports])
        own_KC = 1.5 * (signals_KC - signals_KC.mean(0)) + 0.5 * 1.5 * (f1_K1 - f1_K1.mean())
        np.testing.assert_allclose(np.stack([report.rewards_C for report in reports]), own_KC, atol=1e-12)
        advantages_KC = torch.tensor((own_KC - own_KC.mean(0)) / own_KC.std(), dtype=torch.float32)
        taken_KC = torch.stack([log_p_C3[torch.arange(NUM_CLASSES), r.actions_C] for r in reports])
        entropy = -(log_p_C3.exp() * log_p_C3).sum()
        adam.zero_grad()
        reported_K = [report.advantage for report in reports]
        np.testing.assert_allclose(reported_K, advantages_KC.mean(dim=1), atol=1e-6)
        (-(advantages_KC * taken_KC).sum() / K - 0.1 * entropy).backward()
        adam.step()
    algorithm.stop()


def test_response_agents_learn_from_the_results_of_the_valid_episodes(ray_session):
    algorithm = build(agents="response", faults=FAULTS)
    alone = AGENTS["response"](NUM_CLASSES, 1, SamplerConfig(agents="response"))
    for epoch in range(1, 5):
        algorithm.train()
        valid = [report for report in algorithm.record.reports if report.valid]
        assert len(valid) == K - (epoch in (2, 3))
        counts_KC = torch.tensor(np.stack([report.counts_C for report in valid]))
        signals_KC = np.stack([report.result.per_class["log_likelihood"] for report in valid])
        alone.learn(counts_KC, torch.tensor(signals_KC), epoch / 6)
        np.testing.assert_allclose(algorithm.record.curves_CG, alone.curves(), rtol=1e-5, atol=1e-6)
    algorithm.stop()


class WithoutImages(TrivialTrainer):
    """Class 0 has no validation images."""

    def train_epoch(self, incumbent, counts_C, *, episode_index):
        result = super().train_epoch(incumbent, counts_C, episode_index=episode_index)
        for values_C in result.per_class.values():
            values_C[0] = np.nan
        return result


@pytest.mark.parametrize("name", ["state", "response"])
def test_a_class_without_validation_images_is_not_an_obstacle(ray_session, name):
    algorithm = build(WithoutImages, agents=name)
    for _ in range(4):
        algorithm.train()
        assert np.isfinite(algorithm.record.probabilities_C3).all()
    p_3, *others = algorithm.record.probabilities_C3
    if name == "response":
        np.testing.assert_allclose(p_3, 1 / 3, rtol=1e-6)
        assert np.isnan(algorithm.record.curves_CG).any(axis=1).tolist() == [True, False, False, False]
    else:
        np.testing.assert_allclose(
            algorithm.record.reports[0].rewards_C[0], algorithm.record.reports[0].reward_parts["team"]
        )
    assert np.abs(np.array(others) - 1 / 3).max() > 0.05
    algorithm.stop()


def test_settings_that_are_not_stated_follow_from_the_agents():
    from cluster import RLCASConfig

    config = RLCASConfig().training(agents="state")
    assert (config.lr, config.reward, config.advantages) == (0.15, "per_class", "normalised")
    assert RLCASConfig().lr == 1e-3
    assert config.training(lr=0.3).lr == 0.3
    assert RLCASConfig().update_from_dict(config.to_dict()).sampler_config() == config.sampler_config()
    copy = config.copy(copy_frozen=False)
    assert copy.training(agents="response").sampler_config().exploration == 0.2
    with pytest.raises(AttributeError, match="RLCASConfig has no setting 'colour'"):
        _ = config.colour
