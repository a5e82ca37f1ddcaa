import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcas.agents import AGENTS, ResponseAgents, agents_named, build_agents
from rlcas.config import AGENT_DEFAULTS, REWARD_DEFAULTS, SamplerConfig
from rlcas.config.sampler import COMPARING_REWARDS, WITHOUT_GRADIENT
from rlcas.errors import UserError
from rlcas.reinforce import advantages, log_prob, policy_loss
from rlcas.rewards import REWARDS

NUM_CLASSES = 4


def make(name, seed=3, num_classes=NUM_CLASSES, **settings):
    sampler = SamplerConfig(agents=name, **settings)
    return build_agents(sampler, num_classes, len(sampler.observation or AGENTS[name].observes), seed)


def taught(agents, num_epochs=3, k=3, seed=0):
    """Let the agents learn from a few epochs; return some features."""
    rng = np.random.default_rng(seed)
    for epoch in range(1, num_epochs + 1):
        counts_KC = torch.from_numpy(rng.integers(0, 9, (k, NUM_CLASSES)) * 2)
        agents.learn(counts_KC, torch.from_numpy(rng.normal(size=(k, NUM_CLASSES))), epoch / 30)
    return torch.from_numpy(rng.random((5, NUM_CLASSES, agents.num_features), np.float32))


def probabilities(agents, counts_C):
    """Return [C, 3] of agents that see their count alone."""
    shares_1C1 = torch.tensor(counts_C, dtype=torch.float32)[None, :, None] / agents.sampler.max_count
    return agents(shares_1C1)[0].double().softmax(-1).detach().numpy()


@pytest.mark.parametrize("name", AGENTS)
def test_agents_give_probabilities_that_follow_from_their_seed_and_state(name):
    before = torch.random.get_rng_state()
    agents, other = make(name), make(name, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())
    features_BCF = taught(agents)
    logits_BC3 = agents(features_BCF)
    assert logits_BC3.shape == (5, NUM_CLASSES, 3)
    assert logits_BC3.isfinite().all()
    torch.testing.assert_close(logits_BC3.float().softmax(-1).sum(-1), torch.ones(5, NUM_CLASSES))
    other.load_state_dict(agents.state_dict())
    assert torch.equal(other(features_BCF), logits_BC3), "parameters and buffers are all that they are"
    assert torch.equal(make(name)(features_BCF), make(name)(features_BCF))


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_hears_of_its_own_class_alone(name):
    agents = make(name)
    features_BCF = taught(agents)
    changed_BCF = features_BCF.clone()
    changed_BCF[:, 0] = 1 - changed_BCF[:, 0]
    assert torch.equal(agents(features_BCF)[:, 1:], agents(changed_BCF)[:, 1:])


def test_the_papers_agents_are_three_logits_a_class_whatever_they_see():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected_C3 = 1e-3 * torch.randn(NUM_CLASSES, 3)
    logits_BC3 = make("paper")(torch.rand(2, NUM_CLASSES, 1))
    assert torch.equal(logits_BC3, torch.stack([expected_C3, expected_C3]).double())


@pytest.mark.parametrize("name", ["paper", "state"])
def test_an_agent_that_acted_alike_in_all_episodes_learns_nothing_from_normalised_advantages(name):
    agents = make(name)
    features_KCF = torch.rand(1, agents.num_classes, agents.num_features).expand(3, -1, -1)
    rewards_K1 = torch.tensor([[0.3141], [0.2718], [0.1618]]).double()
    alike_KC = torch.ones(3, agents.num_classes, dtype=torch.long)
    log_probs_KC = log_prob(agents(features_KCF), alike_KC)
    adam = torch.optim.Adam(agents.parameters(), lr=0.15)
    before = [parameter.detach().clone() for parameter in agents.parameters()]
    policy_loss(log_probs_KC, advantages(rewards_K1, 0.0, "normalised")).backward()
    adam.step()
    for parameter, was in zip(agents.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), was, rtol=0, atol=1e-6)


def test_the_controls_are_chance_and_standstill_to_the_last_bit():
    features_BCF = torch.rand(1, NUM_CLASSES, 1)
    assert (make("uniform")(features_BCF).double().softmax(-1) == 1 / 3).all()
    assert make("constant")(features_BCF).double().softmax(-1)[0].tolist() == [[0, 1, 0]] * NUM_CLASSES


def test_state_agents_are_linear_in_what_they_see_own_count_first():
    agents = make("state")
    features_BCF = torch.rand(2, NUM_CLASSES, 4)
    weights_CF3, bias_C3 = agents.weights_CF3.detach(), agents.bias_C3.detach()
    logits_BC3 = agents(features_BCF).detach()
    for b, c in np.ndindex(2, NUM_CLASSES):
        centred_F = (2 * features_BCF[b, c] - 1) * torch.tensor([1, 0.25, 0.25, 0.25])
        torch.testing.assert_close(logits_BC3[b, c].float(), bias_C3[c] + centred_F @ weights_CF3[c])


def reference_curve(history, memory_epochs, counts_G, max_count=16, ridge=0.1):
    """One class's curve by least squares over all it saw: rows weighted by age, the slopes' prior as rows."""
    last = len(history)
    rows, targets = [], []
    for epoch, (counts_K, signals_K, progress) in enumerate(history, start=1):
        root = np.exp(-(last - epoch) / memory_epochs / 2)
        for count, signal in zip(counts_K, signals_K, strict=True):
            u = 2 * count / max_count - 1
            rows.append(root * np.array([1, u, u**2, 2 * progress - 1]))
            targets.append(root * signal)
    prior = np.sqrt(ridge) * np.eye(4)[1:]
    design, target = np.vstack([rows, prior]), np.concatenate([targets, np.zeros(3)])
    (level, linear, square, trend), *_ = np.linalg.lstsq(design, target, rcond=None)
    u_G = 2 * counts_G / max_count - 1
    return level + linear * u_G + square * u_G**2 + trend * (2 * history[-1][2] - 1)


@pytest.mark.parametrize("memory_epochs", [2.0, 15.0])
def test_the_fitted_curve_is_that_of_weighted_ridge_regression(memory_epochs):
    rng = np.random.default_rng(5)
    agents = make("response", num_classes=1, memory_epochs=memory_epochs)
    history = []
    for epoch in range(1, 8):
        counts_K, signals_K = rng.integers(0, 9, 3) * 2, rng.normal(size=3)
        history.append((counts_K, signals_K, epoch / 7))
        agents.learn(torch.from_numpy(counts_K)[:, None], torch.from_numpy(signals_K)[:, None], epoch / 7)
    expected_G = reference_curve(history, memory_epochs, np.arange(0, 17, 2))
    np.testing.assert_allclose(agents.curves()[0].numpy(), expected_G, rtol=1e-9)
    assert agents.peaks().item() == 2 * expected_G.argmax()


def planted(agents, best_C, drift=0.0, num_epochs=30, climb=0.5):
    """Teach noiseless quadratics with a peak at best_C while counts climb with the epoch."""
    rng = np.random.default_rng(1)
    for epoch in range(1, num_epochs + 1):
        counts_KC = np.clip(rng.integers(0, 3, (3, len(best_C))) * 2 + 2 * int(climb * epoch), 0, 16)
        signals_KC = 0.1 * (1 - ((counts_KC - best_C) / 16) ** 2) + drift * epoch / num_epochs
        agents.learn(torch.from_numpy(counts_KC), torch.from_numpy(signals_KC), epoch / num_epochs)


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_the_peak_is_found_though_the_signal_rises_with_the_epoch(drift):
    best_C = np.array([0, 4, 10, 16])
    agents = make("response")
    planted(agents, best_C, drift)
    np.testing.assert_allclose(agents.peaks().numpy(), best_C, atol=2)


def test_without_its_line_in_the_epoch_the_response_would_take_time_for_images():
    class Trendless(ResponseAgents):
        def learn(self, counts_KC, signals_KC, progress):
            super().learn(counts_KC, signals_KC, 0.5)

    agents = Trendless(4, 1, SamplerConfig(agents="response"))
    planted(agents, np.array([0, 4, 10, 16]), drift=0.5)
    assert agents.peaks().tolist() == [16, 16, 16, 16]


def test_an_agent_steps_towards_the_peak_and_explores():
    agents = make("response", num_classes=3, exploration=0.3)
    planted(agents, np.array([8, 8, 8]))
    assert agents.peaks().tolist() == [8, 8, 8]
    p_C3 = probabilities(agents, [2, 8, 12])
    np.testing.assert_allclose(p_C3, [[0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]], atol=1e-6)
    odd_C3 = probabilities(agents, [7, 9, 11])
    assert odd_C3.argmax(axis=1).tolist() == [1, 1, 0], "a step must bring it nearer"


def test_without_exploration_it_never_acts_by_chance():
    agents = make("response", num_classes=1, exploration=0.0)
    planted(agents, np.array([8]))
    np.testing.assert_allclose(probabilities(agents, [8]), [[0, 1, 0]], atol=1e-9)


def test_it_acts_by_chance_while_it_knows_nothing():
    agents = make("response", num_classes=2)
    np.testing.assert_allclose(probabilities(agents, [2, 2]), 1 / 3, rtol=1e-6)
    assert agents.curves().isnan().all()
    for epoch in (1, 2):
        signals_KC = torch.tensor([[0.1, float("nan")], [0.7, float("nan")]])
        agents.learn(torch.full((2, 2), 2), signals_KC, epoch / 30)
        np.testing.assert_allclose(probabilities(agents, [2, 2]), 1 / 3, rtol=1e-6)
    assert agents.peaks().isnan().all(), "nothing follows from equal counts, nor from a class without images"


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3]), st.integers(1, 6), st.sampled_from([1e-6, 1.0, 1e4])
)
def test_whatever_was_seen_the_probabilities_are_numbers_and_exploration_stays(seed, spread, num_epochs, scale):
    """Equal counts, missing signals, tiny and huge ones."""
    rng = np.random.default_rng(seed)
    agents = make("response", exploration=0.3)
    for epoch in range(1, num_epochs + 1):
        counts_KC = torch.from_numpy(rng.integers(0, spread + 1, (rng.integers(1, 4), NUM_CLASSES)) * 2)
        signals_KC = scale * torch.from_numpy(rng.normal(size=counts_KC.shape))
        signals_KC[:, rng.random(NUM_CLASSES) < 0.3] = float("nan")
        agents.learn(counts_KC, signals_KC, epoch / 30)
    p_C3 = probabilities(agents, rng.integers(0, 9, NUM_CLASSES) * 2)
    assert np.isfinite(p_C3).all()
    assert (p_C3 > 0.0999).all()
    np.testing.assert_allclose(p_C3.sum(axis=1), 1)


def test_what_the_settings_say_of_agents_and_rewards_is_true_of_them():
    assert {name for name in AGENTS if not list(make(name).parameters())} == set(WITHOUT_GRADIENT)
    assert set(AGENT_DEFAULTS) <= set(AGENTS)
    assert set(REWARD_DEFAULTS) | set(COMPARING_REWARDS) <= set(REWARDS)


def test_the_curves_are_evaluated_at_every_count_that_steps_from_zero_reach():
    agents = make("response", max_count=7, action_step=3, initial_count=0)
    taught(agents)
    assert agents.counts_G.tolist() == [0, 3, 6]
    assert agents.curves().shape == (NUM_CLASSES, 3)
    assert make("paper").curves() is None


@pytest.mark.parametrize("name", ["math:pi", "math:sqrt", "collections:Counter"])
def test_agents_from_outside_that_are_not_agents_are_refused(name):
    with pytest.raises(UserError, match=rf"^sampler.agents '{name}' is not a subclass of rlcas.agents.Agents"):
        agents_named(name)
