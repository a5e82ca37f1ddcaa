"""RLlib's learner around `rlcas.reinforce`: one step of eqs. 1 and 2 an epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from cluster.episodes.checkpoint import CorruptCheckpointError
from cluster.rllib.agents_module import AgentsModule, probabilities
from rlcas.batches.composition import ACTIONS
from rlcas.config import SamplerConfig
from rlcas.errors import first_line
from rlcas.metrics import signal_of
from rlcas.reinforce import advantages, log_prob, policy_entropy, policy_loss, update_baseline
from rlcas.types import EpisodeReport, Float32, Float64

BASELINE = "baseline"
ARRAYS = "arrays"
COUNTS = "counts"
SIGNALS = "signals"
PROGRESS = "progress"


class ReinforceLearner(TorchLearner):
    """Holds the policy, its Adam and the baseline B; RLlib's discount `gamma` plays no part."""

    def build(self) -> None:
        """Build module and optimiser; B^0 is 0."""
        super().build()
        self.baseline = 0.0
        self._sampler = self.config.sampler_config()

    @property
    def agents(self) -> AgentsModule:
        """The stacked policy."""
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    def probabilities(self, observation_D: Float32) -> Float64:
        """Return [C, 3]: the policy for one observation."""
        return probabilities(self.agents, observation_D)

    def curves(self) -> Float64 | None:
        """Return what the agents expect at each count (`rlcas.agents.Agents.curves`)."""
        curves_CG = self.agents.agents.curves()
        return None if curves_CG is None else curves_CG.cpu().numpy()

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """Register Adam for the agents' parameters, where they have any: Adam refuses an empty list."""
        if any(True for _ in self.agents.parameters()):
            super().configure_optimizers_for_module(module_id, config)

    def learn(self, arrays: dict[str, np.ndarray]) -> float:
        """Take one step of eqs. 1 and 2 on an epoch's valid episodes (`learner_batch`); return the loss.

        These are the parts of RLlib's own `update`, whose mini-batches and metrics cost more than the step.
        """
        batch = {name: torch.from_numpy(values).to(self._device) for name, values in arrays.items()}
        forward = {DEFAULT_MODULE_ID: self.agents.forward_train(batch)}
        losses = self.compute_losses(fwd_out=forward, batch={DEFAULT_MODULE_ID: batch})
        # The loss of agents without parameters has no grad_fn; RLlib then returns no gradients.
        self.apply_gradients(self.postprocess_gradients(self.compute_gradients(losses)))
        return losses[DEFAULT_MODULE_ID].item()

    def compute_losses(self, *, fwd_out: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Move B by eq. 2, let agents learn that need no gradient, and return the loss of eq. 1.

        `batch` holds the valid episodes: rewards [K, 1] or [K, C], actions, counts and signals [K, C].
        """
        episodes = batch[DEFAULT_MODULE_ID]
        # [K, 3C] -> [K, C, 3]
        logits_KC3 = fwd_out[DEFAULT_MODULE_ID][Columns.ACTION_DIST_INPUTS].unflatten(-1, (-1, len(ACTIONS)))
        # In float64, so that advantages that cancel leave no gradient (`rlcas.agents.policies`).
        rewards = episodes[Columns.REWARDS].double()
        # Eq. 2 before eq. 1: the advantages are against B^t, which has these rewards in it.
        self.baseline = update_baseline(self.baseline, rewards, self._sampler.baseline_gamma)
        self.agents.agents.learn(episodes[COUNTS], episodes[SIGNALS], episodes[PROGRESS][0].item())
        loss = policy_loss(
            log_prob(logits_KC3, episodes[Columns.ACTIONS]),
            advantages(rewards, self.baseline, self._sampler.advantages),
        )
        if bonus := self._sampler.entropy_bonus:
            loss = loss - bonus * policy_entropy(logits_KC3)
        return {DEFAULT_MODULE_ID: loss}

    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        """Refuse: RLlib declares it abstract, and `compute_losses` above is what runs.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the loss is that of compute_losses, over all agents at once")

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return RLlib's state and `arrays`: RLlib's own would come back in single precision."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(ARRAYS, components, not_components):
            state[ARRAYS] = self.arrays()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state and `arrays`, older ones than it holds too."""
        super().set_state(state)
        # After RLlib's own: it casts to float32, and keeps its weights where they are newer than the state's.
        if ARRAYS in state:
            self.load_arrays(state[ARRAYS])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the policy, Adam's moments and steps, and B as named arrays: all that a resumed run needs."""
        arrays = {BASELINE: np.array([self.baseline])}
        for name, tensor in self.agents.state_dict().items():
            arrays[f"policy/{name}"] = _copied(tensor)
        for name, state in self._adam_states().items():
            arrays |= {f"adam/{name}/{key}": _copied(value) for key, value in state.items()}
        return arrays

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays` returned.

        Raises:
            CorruptCheckpointError: an array of the policy or B is missing or of another shape; nothing has changed.
        """
        policy = self.agents.state_dict()
        try:
            baseline = float(arrays[BASELINE][0])
            # Reshaped, because a 0-d array comes back from a file as [1] (np.ascontiguousarray makes it so).
            loaded = {
                name: torch.from_numpy(arrays[f"policy/{name}"]).reshape(tensor.shape)
                for name, tensor in policy.items()
            }
        except (KeyError, IndexError, RuntimeError) as error:
            raise CorruptCheckpointError(
                f"its learner is not that of these agents ({first_line(error)})"
            ) from error
        self.baseline = baseline
        for name, tensor in policy.items():
            tensor.copy_(loaded[name])  # in place, as the optimiser holds these tensors
        for name, state in self._adam_states().items():
            prefix = f"adam/{name}/"
            state.clear()  # the optimiser's own dict, changed in place
            state |= {
                key.removeprefix(prefix): torch.from_numpy(value.copy())  # Adam updates in place
                for key, value in arrays.items()
                if key.startswith(prefix)
            }

    def _adam_states(self) -> dict[str, dict[str, Tensor]]:
        """Return what Adam keeps of each parameter, by the parameter's name; none before the first step."""
        optimizers = [optimizer for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID)]
        return {
            name: optimizer.state[parameter]  # a defaultdict: {} before the first step
            for optimizer in optimizers
            for name, parameter in self.agents.named_parameters()
        }


def learner_batch(
    observation_D: Float32, reports: Sequence[EpisodeReport], sampler: SamplerConfig
) -> dict[str, NDArray[Any]]:
    """Return what `ReinforceLearner.learn` takes of an epoch's valid, rewarded episodes, a row each."""
    own = [report.reward if report.rewards_C is None else report.rewards_C for report in reports]
    results = [report.compared for report in reports if report.compared is not None]
    return {
        Columns.OBS: np.tile(observation_D, (len(reports), 1)),  # all K saw one incumbent
        Columns.ACTIONS: np.stack([report.actions_C for report in reports]),  # as drawn, even where clamped
        Columns.REWARDS: np.array(own, dtype=np.float32).reshape(len(reports), -1),  # [K, 1] or [K, C]
        COUNTS: np.stack([report.counts_C for report in reports]),
        SIGNALS: np.stack([signal_of(result, sampler.signal) for result in results]),
        PROGRESS: np.array([report.epoch / sampler.epochs for report in reports]),
    }


def _copied(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()  # .numpy() shares memory with what the next step changes
