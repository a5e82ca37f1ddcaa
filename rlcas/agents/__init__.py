"""Agents: C policies in one stacked module, from what they see to C × 3 logits.

To add some, write a subclass of `Agents` and its line in AGENTS.
"""

from __future__ import annotations

import torch

from rlcas import registry
from rlcas.agents.base import Agents
from rlcas.agents.dose import DoseAgents, PermutedDoseAgents
from rlcas.agents.policies import ConstantAgents, StateAgents, StatelessAgents, UniformAgents
from rlcas.agents.response import ResponseAgents
from rlcas.config import POPULATION, SamplerConfig
from rlcas.errors import UserError

__all__ = ["AGENTS", "Agents", "DoseAgents", "ResponseAgents", "agents_named", "build_agents"]

AGENTS: dict[str, type[Agents]] = {
    "paper": StatelessAgents,
    "state": StateAgents,
    "response": ResponseAgents,
    "dose": DoseAgents,
    "dose_permuted": PermutedDoseAgents,
    "uniform": UniformAgents,
    "constant": ConstantAgents,
    POPULATION: ConstantAgents,
}


def agents_named(name: str) -> type[Agents]:
    """Return the class of the setting `sampler.agents`.

    Raises:
        UserError: the name is unknown, or does not name a subclass of `Agents`.
    """
    found = registry.lookup(name, AGENTS, "sampler.agents")
    if not (isinstance(found, type) and issubclass(found, Agents)):
        raise UserError(f"sampler.agents {name!r} is not a subclass of rlcas.agents.Agents: name one")
    return found


def build_agents(sampler: SamplerConfig, num_classes: int, num_features: int, seed: int) -> Agents:
    """Return the agents of the setting `sampler.agents`.

    Args:
        sampler: the sampler's settings.
        num_classes: C.
        num_features: F, the numbers that an agent sees.
        seed: all of the initialisation follows from it; the global random state stays as it was.
    """
    # devices=[]: all is drawn on the CPU; by default the state of every GPU would be saved.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return agents_named(sampler.agents)(num_classes, num_features, sampler)
