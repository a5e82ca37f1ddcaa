import dataclasses
import functools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from trivial import TrivialTrainer

from envs import ENV_ID, BatchCompositionEnv, check_batch_composition
from envs.checks import assert_same
from envs.observations import OBSERVATIONS, Observation
from envs.pettingzoo_view import parallel_env
from rlcas.config import RunConfig
from rlcas.errors import UserError

ALL = tuple(OBSERVATIONS)


def make_env(num_classes=4, faults=None, **sampler):
    sampler = {"epochs": 5} | sampler
    return BatchCompositionEnv(
        {"sampler": sampler}, trainer=TrivialTrainer(num_classes=num_classes, faults=faults or {})
    )


@pytest.mark.parametrize("observation", [("composition",), ALL])
def test_gymnasium_accepts_it(observation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render modes.*")
        check_env(make_env(observation=observation), skip_render_check=True)


def test_gymnasium_makes_it_by_its_name_and_accepts_it():
    env = gym.make(
        ENV_ID, config={"sampler": {"epochs": 5}}, trainer=TrivialTrainer(), disable_env_checker=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    assert isinstance(env.unwrapped, BatchCompositionEnv)


def test_it_keeps_its_own_contract():
    check_batch_composition(make_env(observation=ALL))
    check_batch_composition(make_env(initial_count=0, action_step=1, max_count=1))


@pytest.mark.medium
def test_a_run_of_one_epoch_keeps_the_contract_too():
    config = RunConfig.model_validate({"sampler": {"agents": "state", "epochs": 1}})
    check_batch_composition(BatchCompositionEnv(config, trainer=TrivialTrainer()))


def test_the_default_trainer_keeps_the_contract():
    settings = {"dataset": {"phantom": {"num_images": 120}}, "classifier": {"width": 8}}
    check_batch_composition(BatchCompositionEnv(settings))


def test_the_checker_finds_a_trainer_that_is_not_pure():
    class Drifting(TrivialTrainer):
        calls = 0

        def train_epoch(self, incumbent, counts_C, *, episode_index):
            self.calls += 1
            return super().train_epoch(incumbent, counts_C + self.calls, episode_index=episode_index)

    env = BatchCompositionEnv({"sampler": {"epochs": 5}}, trainer=Drifting())
    with pytest.raises(AssertionError, match="not pure"):
        check_batch_composition(env)


class Observing(BatchCompositionEnv):
    def step(self, action):
        observation, *rest = super().step(action)
        return observation + 99, *rest


class ObservingAtReset(BatchCompositionEnv):
    def reset(self, **options):
        observation, info = super().reset(**options)
        return observation - 99, info


class Ending(BatchCompositionEnv):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, True, truncated, info


class Generous(BatchCompositionEnv):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + 1, *rest


class Hasty(BatchCompositionEnv):
    def step(self, action):
        super().step(action)
        return super().step(action)


class Changing(BatchCompositionEnv):
    """Changes the composition of each trained incumbent."""

    def __init__(self, config, change, **options):
        super().__init__(config, **options)
        self.change = change

    @property
    def incumbent(self):
        own = super().incumbent
        return own if own.epoch == 0 else dataclasses.replace(own, counts_C=self.change(own.counts_C))


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (ObservingAtReset, r"^\[-97.* is not in Box"),
        (Observing, r"^\[101.* is not in Box"),
        (Ending, "^an epoch never ends the run: it is truncated at sampler.epochs"),
        (Generous, "^the reward is not the report's"),
        (Hasty, "^one step trained 2 epochs, not 1"),
        (
            functools.partial(Changing, change=lambda counts_C: counts_C + 1),
            "^actions of 0 changed the composit",
        ),
        (
            functools.partial(Changing, change=lambda counts_C: np.maximum(counts_C, 1)),
            r"^\[1 1 1 1\] is not \[0 0 0 0\]",
        ),
    ],
)
def test_the_checker_finds_the_promise_that_an_environment_breaks(broken, text):
    env = broken({"sampler": {"epochs": 5}}, trainer=TrivialTrainer())
    with pytest.raises(AssertionError, match=text):
        check_batch_composition(env)


def changed_result(incumbent, **changes):
    return dataclasses.replace(incumbent, result=dataclasses.replace(incumbent.result, **changes))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda it: dataclasses.replace(it, arrays=it.arrays | {"int64": np.zeros(1)}),
            "the incumbents hold other dtypes",
        ),
        (
            lambda it: dataclasses.replace(it, arrays={"float32": it.arrays["float32"] + np.float32(1e-6)}),
            "the float32 weights differ: not pure",
        ),
        (lambda it: dataclasses.replace(it, counts_C=it.counts_C + 1), "the compositions differ: not pure"),
        (
            lambda it: dataclasses.replace(it, positions_C=it.positions_C + 1),
            "the pool's positions differ: not pure",
        ),
        (lambda it: changed_result(it, val_loss=0.1), "the validation losses differ: not pure"),
        (
            lambda it: changed_result(it, metrics=it.result.metrics | {"f1": 0.1}),
            "the metrics differ: not pure",
        ),
    ],
)
def test_whatever_differs_between_two_incumbents_is_named(change, text):
    env = make_env()
    env.reset()
    env.step(np.ones(4))
    assert_same(env.incumbent, env.incumbent)
    with pytest.raises(AssertionError, match=text):
        assert_same(env.incumbent, change(env.incumbent))


def test_a_step_moves_the_composition_and_clamps_it():
    env = make_env(initial_count=2, max_count=4)
    env.reset()
    for expected in ([0, 2, 4, 4], [0, 2, 4, 4]):
        *_, info = env.step(np.array([0, 1, 2, 2]))
        assert env.incumbent.counts_C.tolist() == expected
    assert info["report"].num_clamped == 3
    assert info["report"].num_synthetic == 10


def test_each_class_may_start_with_a_count_of_its_own():
    env = make_env(initial_count=(0, 2, 4, 16))
    env.reset()
    assert env.incumbent.counts_C.tolist() == [0, 2, 4, 16]
    with pytest.raises(UserError, match=r"initial_count 1,2 has 2 counts, but the data has 4 classes"):
        make_env(initial_count=(1, 2))


def test_the_reward_is_the_cube_of_the_metric_plus_004():
    env = make_env()
    env.reset()
    _, reward, _, _, info = env.step(np.array([1, 1, 1, 1]))
    assert reward == pytest.approx((info["report"].result.metrics["f1"] + 0.04) ** 3)
    assert info["many"] == info["report"].result.metrics["many"]


def test_the_run_is_cut_at_its_epochs_and_never_ended():
    env = make_env(epochs=2)
    env.reset()
    ended = [env.step(np.ones(4))[2:4] for _ in range(2)]
    assert ended == [(False, False), (False, True)]


def test_the_observation_holds_what_is_named():
    env = make_env(observation=ALL, epochs=4)
    assert env.reset()[0].tolist() == [2, 2, 2, 2] + [0] * 10
    observation, *_, info = env.step(np.array([0, 1, 2, 2]))
    result = info["report"].result
    expected = [0, 2, 4, 4, 0.25, result.metrics["f1"], *result.per_class_recall_C]
    expected += np.exp(result.per_class["log_likelihood"]).tolist()
    np.testing.assert_allclose(observation, expected, rtol=1e-6)


EPOCHS_LEFT = Observation(
    lambda incumbent, sampler: np.array([sampler.epochs - incumbent.epoch]),
    lambda sampler: sampler.epochs,
    per_class=False,
)


def test_an_observation_may_come_from_outside():
    env = make_env(observation=("composition", f"{__name__}:EPOCHS_LEFT"), epochs=3)
    assert env.observation_space.high.tolist() == [16, 16, 16, 16, 3]
    assert env.reset()[0].tolist() == [2, 2, 2, 2, 3]
    assert env.step(np.ones(4))[0].tolist() == [2, 2, 2, 2, 2]


def test_a_reset_to_an_incumbent_continues_from_it():
    env = make_env()
    env.reset()
    env.step(np.array([2, 2, 1, 0]))
    incumbent = env.incumbent
    env.step(np.array([0, 0, 0, 0]))
    observation, _ = env.reset(options={"incumbent": incumbent, "episode_index": 2})
    assert observation.tolist() == [4, 4, 2, 0]
    assert env.step(np.ones(4))[-1]["report"].episode_index == 2


class OlderTrainer(TrivialTrainer):
    """Calls the episode's index `child`, as every trainer did before 0.2."""

    def train_epoch(self, incumbent, counts_C, *, child):
        return super().train_epoch(incumbent, counts_C, episode_index=child)


def test_the_name_that_the_index_of_an_episode_had_before_is_still_read():
    env = BatchCompositionEnv({"sampler": {"epochs": 5}}, trainer=OlderTrainer())
    env.reset(options={"child": 2})
    report = env.step(np.ones(4))[-1]["report"]
    assert (report.episode_index, report.child) == (2, 2)


def test_a_loss_that_is_not_finite_raises():
    env = make_env(faults={(1, 0): "non_finite"})
    env.reset()
    with pytest.raises(FloatingPointError, match="a loss of epoch 1 is not finite"):
        env.step(np.ones(4))
    assert env.incumbent.epoch == 0


def test_a_reward_that_is_not_finite_raises():
    env = make_env(metric="medium")
    env.reset()
    with pytest.raises(FloatingPointError, match="the reward of epoch 1 is nan"):
        env.step(np.ones(4))


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(
        UserError, match=r"sampler.observation 'mood' is unknown: use one of composition, metric"
    ):
        make_env(observation=("mood",))
    with pytest.raises(UserError, match=r"sampler.reward 'quartic' is unknown: use one of cubic, linear"):
        make_env(reward="quartic")
    env = make_env(metric="beauty")
    env.reset()
    with pytest.raises(UserError, match=r"sampler.metric 'beauty' is unknown: use one of acc, f1"):
        env.step(np.ones(4))


def test_pettingzoo_accepts_the_view():
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        parallel_api_test(parallel_env(make_env()), num_cycles=12)
        parallel_seed_test(lambda: parallel_env(make_env(observation=ALL)))


def test_agents_of_the_pettingzoo_view_see_their_own_class():
    view = parallel_env(make_env(num_classes=2, observation=("composition", "progress")))
    view.reset()
    observations, rewards, _, _, infos = view.step({"class_0": 0, "class_1": 2})
    assert {agent: seen.tolist() for agent, seen in observations.items()} == {
        "class_0": [0, pytest.approx(0.2)],
        "class_1": [4, pytest.approx(0.2)],
    }
    assert rewards["class_0"] == rewards["class_1"] == infos["class_0"]["report"].reward


def test_agents_of_the_pettingzoo_view_have_info_dicts_of_their_own():
    view = parallel_env(make_env())
    view.reset()
    *_, infos = view.step(dict.fromkeys(view.agents, 1))
    for agent, info in infos.items():  # as SuperSuit does
        info["terminal_observation"] = agent
    assert {agent: info["terminal_observation"] for agent, info in infos.items()} == {a: a for a in infos}


def test_after_the_end_a_step_of_the_pettingzoo_view_is_empty():
    view = parallel_env(make_env(epochs=1))
    with pytest.raises(AssertionError, match=r"reset\(\) comes first"):
        view.step({})
    view.reset()
    observations, _, _, truncations, _ = view.step(dict.fromkeys(view.agents, 1))
    assert len(observations) == 4 and all(truncations.values()) and view.agents == []
    assert view.step({}) == ({}, {}, {}, {}, {})
    assert view.env.incumbent.epoch == 1
    assert len(view.reset()[0]) == len(view.agents) == 4


IN_PROCESSES = """
import sys
import gymnasium, torch
import envs

if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.rand(2000, 2000).sum()  # starts torch's threads, as building an environment does
    config = {"dataset": {"phantom": {"num_images": 120}}, "classifier": {"width": 8}, "sampler": {"epochs": 1}}
    vector = gymnasium.make_vec(
        envs.ENV_ID, 2, "async", vector_kwargs={"context": sys.argv[1]}, config=config
    )
    vector.reset()
    _, _, _, truncated, _ = vector.step(vector.action_space.sample())
    print(truncated)
    vector.close()
"""


@pytest.mark.medium
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_environments_run_in_processes_and_say_that_a_fork_computes_on_one_thread(tmp_path, start):
    (tmp_path / "main.py").write_text(IN_PROCESSES)
    done = subprocess.run(
        [sys.executable, tmp_path / "main.py", start],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "[ True  True]\n"), done.stderr
    assert ('start processes by "spawn"' in done.stderr) == (start == "fork")


@pytest.mark.medium
def test_rllib_accepts_the_view():
    from ray.rllib.utils.pre_checks.env import check_multiagent_environments

    from envs.rllib_view import MultiAgentComposition

    view = MultiAgentComposition(make_env(observation=("composition", "recall")))
    check_multiagent_environments(view)
    observations, _ = view.reset()
    assert observations["class_3"].tolist() == [2, 0]


@pytest.mark.medium
def test_ppo_trains_on_the_multi_agent_view(ray_session):
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune import register_env

    from envs.rllib_view import MultiAgentComposition

    register_env("composition", lambda config: MultiAgentComposition(make_env(num_classes=2)))
    config = (
        PPOConfig()
        .environment("composition")
        .env_runners(num_env_runners=0)
        .multi_agent(policies={"class_0", "class_1"}, policy_mapping_fn=lambda agent, *_, **__: agent)
        .training(train_batch_size_per_learner=20, minibatch_size=10, num_epochs=1)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    assert result["env_runners"]["episode_return_mean"] > 0
    assert result["learners"]["class_1"]["num_module_steps_trained"] > 0


def test_an_observation_from_outside_that_is_not_one_is_refused():
    with pytest.raises(
        UserError, match=r"^sampler.observation 'math:pi' is not an envs.observations.Observation"
    ):
        make_env(observation=("math:pi",))
