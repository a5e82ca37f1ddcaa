"""Other RL libraries drive the environment and its views: `python drive_env_peers.py LIBRARY`.

They are no dependencies of ours: `test_env_peers.py` installs them into a folder of its own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from trivial import TrivialTrainer

from envs import BatchCompositionEnv
from envs.pettingzoo_view import ParallelComposition, parallel_env

EPOCHS = 5


def make_env() -> BatchCompositionEnv:
    return BatchCompositionEnv({"sampler": {"epochs": EPOCHS}}, trainer=TrivialTrainer(num_classes=4))


def make_view() -> ParallelComposition:
    return parallel_env(make_env())


def stable_baselines3() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_checker import check_env
    from stable_baselines3.common.vec_env import DummyVecEnv

    check_env(make_env())
    options: dict[str, Any] = {"n_steps": 10, "batch_size": 10, "n_epochs": 1, "device": "cpu"}
    model = PPO("MlpPolicy", DummyVecEnv([make_env, make_env]), **options).learn(40)
    assert model.num_timesteps == 40


def torchrl() -> None:
    from torchrl.envs import GymWrapper, PettingZooWrapper, check_env_specs

    for env in (GymWrapper(make_env(), device="cpu"), PettingZooWrapper(make_view(), use_mask=True)):
        check_env_specs(env)
        assert env.rollout(EPOCHS + 3).shape == (EPOCHS,)


def supersuit() -> None:
    import supersuit as ss
    from stable_baselines3 import PPO

    vector = ss.pettingzoo_env_to_vec_env_v1(make_view())
    vector.reset(seed=0)
    for _ in range(EPOCHS):
        *_, truncated, infos = vector.step(np.array([0, 1, 2, 2]))
    assert truncated.all()
    # SuperSuit writes each agent's last observation into its info.
    assert [info["terminal_observation"].tolist() for info in infos] == [[0], [2], [12], [12]]
    two = ss.concat_vec_envs_v1(
        ss.pettingzoo_env_to_vec_env_v1(make_view()), 2, num_cpus=0, base_class="stable_baselines3"
    )
    assert (
        PPO("MlpPolicy", two, n_steps=10, batch_size=10, n_epochs=1, device="cpu").learn(80).num_timesteps == 80
    )


if __name__ == "__main__":
    {"stable_baselines3": stable_baselines3, "torchrl": torchrl, "supersuit": supersuit}[sys.argv[1]]()
