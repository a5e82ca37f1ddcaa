"""RLlib's learner around `rlcas.reinforce`: one step of eqs. 1 and 2 an epoch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from cluster.module import AgentsModule, probabilities
from rlcas.composition import ACTIONS
from rlcas.reinforce import joint_log_prob, policy_loss, update_baseline
from rlcas.types import Float32, Float64

BASELINE = "baseline"


class ReinforceLearner(TorchLearner):
    """Holds the policy, its Adam and the baseline B; RLlib's discount `gamma` plays no part."""

    def build(self) -> None:
        """Build module and optimiser; B^0 is 0."""
        super().build()
        self.baseline = 0.0

    @property
    def agents(self) -> AgentsModule:
        """The stacked policy."""
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    def probabilities(self, observation_D: Float32) -> Float64:
        """Return [C, 3]: the policy for one observation."""
        return probabilities(self.agents, observation_D)

    def compute_losses(self, *, fwd_out: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Move B by eq. 2 and return the loss of eq. 1 over the valid episodes in `batch`."""
        rewards_K = batch[DEFAULT_MODULE_ID][Columns.REWARDS]
        actions_KC = batch[DEFAULT_MODULE_ID][Columns.ACTIONS]
        logits_KC3 = fwd_out[DEFAULT_MODULE_ID][Columns.ACTION_DIST_INPUTS].unflatten(-1, (-1, len(ACTIONS)))
        self.baseline = update_baseline(self.baseline, rewards_K, self.config.baseline_gamma)
        loss = policy_loss(joint_log_prob(logits_KC3, actions_KC), rewards_K, self.baseline)
        return {DEFAULT_MODULE_ID: loss}

    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        """RLlib asks for it; `compute_losses` above is what runs."""
        raise NotImplementedError("the loss is that of compute_losses, over all agents at once")

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return RLlib's state and B."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(BASELINE, components, not_components):
            state[BASELINE] = self.baseline
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state and B, older ones too."""
        self._weights_seq_no = 0  # RLlib would keep its newer weights
        super().set_state(state)
        self.baseline = state.get(BASELINE, self.baseline)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the policy, Adam's moments and steps, and B as named arrays: all that a resumed run needs."""
        adam = self._adam()
        arrays = {BASELINE: np.array([self.baseline])}
        for name, parameter in self.agents.named_parameters():
            arrays[f"policy/{name}"] = parameter.detach().cpu().numpy().copy()
            for key, value in adam.state[parameter].items():
                arrays[f"adam/{name}/{key}"] = value.detach().cpu().numpy().copy()
        return arrays

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays` returned."""
        adam = self._adam()
        self.baseline = float(arrays[BASELINE][0])
        for name, parameter in self.agents.named_parameters():
            parameter.data.copy_(torch.from_numpy(arrays[f"policy/{name}"]))
            prefix = f"adam/{name}/"
            adam.state[parameter] = {
                key.removeprefix(prefix): torch.from_numpy(value.copy())
                for key, value in arrays.items()
                if key.startswith(prefix)
            }

    def _adam(self) -> torch.optim.Optimizer:
        (_, optimizer), *_ = self.get_optimizers_for_module(DEFAULT_MODULE_ID)
        return optimizer
