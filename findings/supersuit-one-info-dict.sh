#!/bin/sh
# Agents that share one info dict pass PettingZoo's test, and SuperSuit writes the last agent's observation to all.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    pettingzoo==1.27.0 supersuit==3.11.0 gymnasium==1.2.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'EOF'
import gymnasium
import numpy as np
import pettingzoo
import supersuit
from gymnasium.spaces import Box, Discrete
from pettingzoo.test import parallel_api_test


class Team(pettingzoo.ParallelEnv):
    """Two agents with observations of their own and one info, after five steps."""

    metadata = {"name": "team_v0", "render_modes": []}
    render_mode = None

    def __init__(self):
        self.possible_agents = ["a", "b"]
        self.spaces = {agent: Box(0.0, 9.0, (1,), np.float32) for agent in self.possible_agents}
        self.actions = {agent: Discrete(2) for agent in self.possible_agents}

    def observation_space(self, agent):
        return self.spaces[agent]

    def action_space(self, agent):
        return self.actions[agent]

    def seen(self):
        return {agent: np.full(1, number + 1, np.float32) for number, agent in enumerate(self.possible_agents)}

    def reset(self, seed=None, options=None):
        self.agents, self.steps = list(self.possible_agents), 0
        return self.seen(), {agent: {} for agent in self.agents}

    def step(self, actions):
        acting, self.steps = self.agents, self.steps + 1
        ended = self.steps == 5
        self.agents = [] if ended else acting
        shared = {"steps": self.steps}
        return (
            self.seen() if acting else {},
            dict.fromkeys(acting, 0.0),
            dict.fromkeys(acting, False),
            dict.fromkeys(acting, ended),
            dict.fromkeys(acting, shared),
        )


print("pettingzoo", pettingzoo.__version__, "supersuit", supersuit.__version__, "gymnasium", gymnasium.__version__)
parallel_api_test(Team(), num_cycles=12)
vector = supersuit.pettingzoo_env_to_vec_env_v1(Team())
vector.reset(seed=0)
for _ in range(5):
    *_, infos = vector.step(np.zeros(2, dtype=np.int64))
print("expected: each agent's last observation, [1.0] and [2.0], as the parallel API test accepts one info for all")
last = [info["terminal_observation"].tolist() for info in infos]
print("seen:", last)
assert last == [[2.0], [2.0]], "changed"
EOF
