"""The algorithm over its actors, against the environment called in-process."""

import contextlib
import dataclasses
import functools
import math
import sys

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_factory, tiny_trainer
from trivial import TrivialTrainer, dawdles, no_such_data

from cluster.episodes.checkpoint import CorruptCheckpointError, load_into, save
from envs import BatchCompositionEnv
from envs.observations import OBSERVATIONS
from rlcas.agents import build_agents
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.reinforce import draw_actions, joint_log_prob, policy_loss, update_baseline
from rlcas.seeding import rng_for, seed_for
from rlcas.training.fit import fit

pytestmark = pytest.mark.medium

NUM_CLASSES, K, SEED = 4, 3, 5


def make_config(faults=None, cluster=None, **sampler):
    from cluster import RLCASConfig

    factory = functools.partial(TrivialTrainer, num_classes=NUM_CLASSES, faults=faults or {})
    return (
        RLCASConfig()
        .training(**{"k": K, "epochs": 6, "lr": 0.05, "observation": tuple(OBSERVATIONS)} | sampler)
        .episodes(trainer_factory=factory, num_classes=NUM_CLASSES, **(cluster or {}))
        .debugging(seed=SEED)
    )


def trained(epochs, **options):
    """Return an algorithm after `epochs` epochs and the bits of each."""
    algorithm = make_config(**options).build_algo()
    return algorithm, [bits_of(algorithm) for _ in range(epochs) if algorithm.train()]


def bits_of(algorithm):
    """What must be the same bits: the record but for its seconds, and the incumbent."""
    record, incumbent = algorithm.record, algorithm.incumbent
    return (
        record.reports,
        record.winner,
        record.baseline,
        record.probabilities_C3.tobytes(),
        record.best_epoch,
        incumbent.counts_C.tobytes(),
        incumbent.arrays["float32"].tobytes(),
    )


def in_process(epochs, faults=None):
    """Section 2.2 as a plain loop over one environment: reports, winner, B and policy of each epoch."""
    env = BatchCompositionEnv(
        {"sampler": {"epochs": epochs}}, trainer=TrivialTrainer(num_classes=NUM_CLASSES, faults=faults or {})
    )
    agents = build_agents(SamplerConfig(), NUM_CLASSES, 1, seed_for(SEED, "agents"))
    adam = torch.optim.Adam(agents.parameters(), lr=0.05)
    env.reset()
    incumbent, baseline = env.incumbent, 0.0
    for epoch in range(1, epochs + 1):
        p_C3 = agents.logits_C3.detach().double().softmax(-1).numpy()
        actions_KC = [draw_actions(p_C3, rng_for(SEED, "actions", epoch, j)) for j in range(K)]
        reports, trained_K = [], []
        for episode_index, actions_C in enumerate(actions_KC):
            env.reset(options={"incumbent": incumbent, "episode_index": episode_index})
            reports.append(env.step(actions_C)[-1]["report"])
            trained_K.append(env.incumbent)
        winner = int(np.argmax([report.result.metrics["f1"] for report in reports]))
        incumbent = trained_K[winner]
        rewards_K = torch.tensor([report.reward for report in reports])
        baseline = update_baseline(baseline, rewards_K, 0.99)
        loss = policy_loss(
            joint_log_prob(agents.logits_C3, torch.from_numpy(np.stack(actions_KC))), rewards_K, baseline
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        yield reports, winner, baseline, p_C3, incumbent


@pytest.fixture(scope="module")
def six_epochs(ray_session, tmp_path_factory):
    """Six epochs, with both kinds of checkpoint after the third."""
    folder = tmp_path_factory.mktemp("run")
    algorithm, records = trained(3)
    save(algorithm, folder)
    rllib_checkpoint = algorithm.save_to_path(str(folder / "rllib"))
    records += [bits_of(algorithm) for _ in range(3) if algorithm.train()]
    yield algorithm, records, folder, rllib_checkpoint
    algorithm.stop()


def test_k_actors_give_the_bits_of_the_environment_called_in_process(six_epochs):
    _, records, *_ = six_epochs
    for record, (reports, winner, baseline, p_C3, incumbent) in zip(records, in_process(6), strict=True):
        assert [report.advantage for report in record[0]] == pytest.approx(
            [report.reward - baseline for report in reports], abs=1e-7
        )
        for reported, report in zip(record[0], reports, strict=True):
            assert reported == dataclasses.replace(report, advantage=reported.advantage)
        assert record[1] == winner
        assert record[2] == pytest.approx(baseline, rel=1e-12)
        np.testing.assert_allclose(np.frombuffer(record[3]).reshape(-1, 3), p_C3, rtol=1e-5)
        assert record[5:] == (incumbent.counts_C.tobytes(), incumbent.arrays["float32"].tobytes())


def test_neither_the_order_of_arrival_nor_a_killed_worker_changes_a_bit(six_epochs, tmp_path):
    faults = {(1, 0): "sleep", (2, 1): str(tmp_path / "died"), (3, 2): "sleep"}
    algorithm, records = trained(3, faults=faults)
    algorithm.stop()
    assert (tmp_path / "died").exists()
    assert records == six_epochs[1][:3]


def test_three_epochs_a_checkpoint_and_three_more_are_six(six_epochs):
    _, records, folder, _ = six_epochs
    algorithm = make_config().build_algo()
    try:
        assert load_into(algorithm, folder) == 3
        resumed = [bits_of(algorithm) for _ in range(3) if algorithm.train()]
        assert resumed == records[3:]
        assert algorithm.iteration == 6
        with pytest.raises(UserError, match=r"sampler.epochs 6 are trained: raise it to train more"):
            algorithm.train()
    finally:
        algorithm.stop()


def test_rllib_builds_it_again_from_its_own_checkpoint(six_epochs):
    from cluster import RLCAS

    _, records, _, rllib_checkpoint = six_epochs
    algorithm = RLCAS.from_checkpoint(rllib_checkpoint)
    try:
        assert [bits_of(algorithm) for _ in range(3) if algorithm.train()] == records[3:]
    finally:
        algorithm.stop()


def test_a_tune_trial_reserves_a_bundle_for_each_episode(ray_session):
    from cluster import RLCAS

    bundles = RLCAS.default_resource_request(make_config(cluster={"threads_per_episode": 1})).bundles
    assert [bundle["CPU"] for bundle in bundles] == [1, 1, 1, 1]


def test_a_checkpoint_with_the_learner_of_other_agents_is_refused_and_changes_nothing(six_epochs):
    algorithm, _, folder, _ = six_epochs
    load_into(algorithm, folder)
    snapshot, incumbent = algorithm.snapshot(), algorithm.incumbent
    arrays = {name: array for name, array in snapshot.arrays["learner"].items() if "policy/" not in name}
    other = dataclasses.replace(snapshot, arrays={"learner": arrays})
    with pytest.raises(CorruptCheckpointError, match=r"its learner is not that of these agents \('policy/"):
        algorithm.resume(other)
    assert algorithm.incumbent is incumbent


def test_an_older_state_in_memory_is_restored_whole(six_epochs):
    algorithm, records, folder, _ = six_epochs
    load_into(algorithm, folder)
    state = algorithm.get_state()
    algorithm.train()
    algorithm.set_state(state)
    algorithm.train()
    assert bits_of(algorithm) == records[3]


def test_failed_episodes_cannot_win_and_teach_nothing(ray_session):
    faults = {(1, 0): "exception", (1, 1): "out_of_memory", (2, 2): "non_finite"}
    faults |= {(3, episode_index): "exception" for episode_index in range(K)}
    algorithm, _ = trained(1, faults=faults)
    try:
        record = algorithm.record
        assert [report.status for report in record.reports] == ["exception", "out_of_memory", "ok"]
        assert record.winner == 2
        assert record.baseline == pytest.approx(0.99 * record.reports[2].reward, rel=1e-6)
        assert "set to fail" in record.reports[0].traceback
        assert math.isnan(record.reports[1].reward)
        before = record.probabilities_C3
        result = algorithm.train()
        assert [report.status for report in algorithm.record.reports] == ["ok", "ok", "non_finite"]
        assert result["rlcas"]["faults"]["failed"] == 1
        after = algorithm.record.probabilities_C3
        moved = np.take_along_axis(after - before, record.reports[2].actions_C[:, None], axis=1)
        assert (moved > 0).all(), "one valid episode with a reward above B^1 makes its own actions likelier"
        with pytest.raises(RuntimeError, match=r"(?s)epoch 3: none of the 3 episodes is valid .*set to fail"):
            algorithm.train()
        assert algorithm.epoch == 2
    finally:
        algorithm.stop()


@pytest.mark.parametrize("count", [0, 2, (0, 4, 1)])
def test_with_one_episode_and_frozen_agents_a_constant_composition_is_plain_training(ray_session, count):
    """Invariant 1: counts of 0 are the Baseline, others the static mix, bit for bit."""
    from cluster import RLCASConfig

    sampler = {"k": 1, "lr": 0.0, "agents": "constant", "initial_count": count, "epochs": 3}
    config = tiny_config(sampler=sampler)
    factory = tiny_factory(config)
    algorithm = (
        RLCASConfig()
        .training(**dict(config.sampler))
        .episodes(trainer_factory=factory, num_classes=3, threads_per_episode=1)
        .build_algo()
    )
    results = [algorithm.record.reports[0].result for _ in range(3) if algorithm.train()]
    best = algorithm.best
    algorithm.stop()
    with num_threads(1):
        expected, expected_results = fit(tiny_trainer(config), np.broadcast_to(count, 3), 3)
    assert repr(results) == repr(expected_results)
    assert best.epoch == expected.epoch
    for name, array in expected.arrays.items():
        assert best.arrays[name].tobytes() == array.tobytes()


def test_a_learning_rate_of_zero_keeps_the_policy(ray_session):
    algorithm, records = trained(2, k=1, lr=0.0)
    algorithm.stop()
    agents = build_agents(SamplerConfig(), NUM_CLASSES, 1, seed_for(SEED, "agents"))
    p_C3 = agents.logits_C3.detach().double().softmax(-1).numpy()
    assert [record[3] for record in records] == [p_C3.tobytes()] * 2


@contextlib.contextmanager
def num_threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(
    " " in sys.executable,
    reason="Ray 2.60 starts a trial's worker by a shell line that splits paths with spaces",
)
def test_tune_searches_a_sampler_setting(ray_session, tmp_path):
    from ray import tune

    from cluster import RLCAS

    config = make_config(k=1, epochs=1).training(baseline_gamma=tune.grid_search([0.5, 0.9]))
    run_config = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
    results = tune.Tuner(RLCAS, param_space=config, run_config=run_config).fit()
    assert not results.errors
    assert [result.metrics["training_iteration"] for result in results] == [1, 1], "it ends at sampler.epochs"
    figures_of = {result.config["baseline_gamma"]: result.metrics["rlcas"] for result in results}
    for gamma, figures in figures_of.items():
        assert figures["reward"]["baseline"] == pytest.approx(gamma * figures["reward"]["mean"], rel=1e-6)
    assert set(figures_of) == {0.5, 0.9}


def start_actors(factory=TrivialTrainer, sampler=None, **cluster):
    from cluster.episodes.actor_runner import EpisodeActors

    return EpisodeActors(factory, SamplerConfig(k=1, **(sampler or {})), ClusterConfig(**cluster))


def test_a_fault_of_the_user_in_the_factory_is_shown_as_it_is(ray_session):
    with pytest.raises(UserError, match=r"^data 'nowhere' is unknown: use phantom$"):
        start_actors(no_such_data)


def test_workers_that_do_not_start_are_named_with_what_they_ask_for(ray_session):
    with pytest.raises(
        UserError, match=r"workers \[0\] of 1 did not start within .* each asks 1 CPU and 0 GPU"
    ):
        start_actors(dawdles, start_timeout_seconds=3.0, threads_per_episode=1)
