"""The sampler's settings as an RLlib AlgorithmConfig."""

from __future__ import annotations

from typing import Any, Self

from gymnasium.spaces import Box, MultiDiscrete
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from cluster.episodes.episode import TrainerFactory
from cluster.rllib.agents_module import AgentsModule
from cluster.rllib.env_runner import NoEnvRunner
from cluster.rllib.learner import ReinforceLearner
from envs.observations import observation_space
from rlcas.batches.composition import ACTIONS, initial_counts
from rlcas.config import POPULATION, ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.settings import validated


class RLCASConfig(AlgorithmConfig):
    """Settings of `RLCAS`: every field of SamplerConfig in `.training()`, of ClusterConfig in `.episodes()`.

    Example:
        config = (
            RLCASConfig()
            .training(k=3, baseline_gamma=0.99)
            .episodes(trainer_factory=make_trainer, num_classes=8)
            .debugging(seed=0)
        )
        algorithm = config.build_algo()
        algorithm.train()
    """

    def __init__(self, algo_class: type | None = None) -> None:
        from cluster.rllib.algorithm import RLCAS

        super().__init__(algo_class=algo_class or RLCAS)
        self.env_runner_cls = NoEnvRunner
        self.num_env_runners = 0
        self.seed = 0
        self.trainer_factory: TrainerFactory | None = None
        self.num_classes: int | None = None
        for name in SamplerConfig.model_fields:  # RLlib has defaults by some of these names
            self.__dict__.pop(name, None)
        for name, value in ClusterConfig():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Return a setting of the sampler that was not stated: a default, perhaps of its agents or reward."""
        if name in SamplerConfig.model_fields:
            return getattr(self.sampler_config(), name)
        raise AttributeError(f"{type(self).__name__} has no setting {name!r}")

    def training(self, **settings: Any) -> Self:
        """Set any field of SamplerConfig, or what RLlib's own `training` takes; Tune searches both.

        Raises:
            UserError: `gamma` was given, which is RLlib's discount.
        """
        if "gamma" in settings:
            raise UserError(
                f"training(gamma={settings['gamma']}) is RLlib's discount, which an epoch of one step has no use "
                "for: set baseline_gamma, the γ of eq. 2"
            )
        own = {name: settings.pop(name) for name in SamplerConfig.model_fields if name in settings}
        super().training(**settings)
        return self._set(own)

    def episodes(
        self,
        *,
        trainer_factory: TrainerFactory | None = None,
        num_classes: int | None = None,
        **settings: Any,
    ) -> Self:
        """Set what trains an epoch and where.

        Args:
            trainer_factory: a function without arguments that builds the EpisodeTrainer on each actor; it is
                pickled, so keep the data out of it (functools.partial of a loader).
            num_classes: C.
            settings: fields of ClusterConfig.
        """
        if unknown := settings.keys() - ClusterConfig.model_fields.keys():
            raise UserError(
                f"episodes({', '.join(sorted(unknown))}) is unknown: use trainer_factory, num_classes, "
                f"{', '.join(ClusterConfig.model_fields)}"
            )
        if trainer_factory is not None:
            settings["trainer_factory"] = trainer_factory
        if num_classes is not None:
            settings["num_classes"] = num_classes
        return self._set(settings)

    def sampler_config(self) -> SamplerConfig:
        """Return the sampler's settings, validated."""
        stated = {name: value for name, value in vars(self).items() if name in SamplerConfig.model_fields}
        return validated({"sampler": stated}).sampler

    def cluster_config(self) -> ClusterConfig:
        """Return the cluster's settings, validated, with the threads that this machine has for an episode."""
        settings = {name: getattr(self, name) for name in ClusterConfig.model_fields}
        return validated({"cluster": settings}).cluster.concrete(self.sampler_config().k)

    def spaces(self) -> tuple[Box, MultiDiscrete]:
        """Return the spaces of the joint observation and of the joint action."""
        assert self.num_classes is not None, "validate() has passed"
        space = observation_space(self.num_classes, self.sampler_config())
        return space, MultiDiscrete([len(ACTIONS)] * self.num_classes)

    def validate(self) -> None:
        """Check the settings.

        Raises:
            UserError: a setting is out of its range or of other classes, or `.episodes(trainer_factory=…,
                num_classes=…)` is missing.
        """
        super().validate()
        sampler = self.sampler_config()
        self.threads_per_episode = self.cluster_config().threads_per_episode  # part of the bits, so made known
        if self.trainer_factory is None or self.num_classes is None:
            raise UserError(
                f"trainer_factory is {self.trainer_factory} and num_classes is {self.num_classes}: "
                "call .episodes(trainer_factory=..., num_classes=...)"
            )
        initial_counts(sampler, self.num_classes)
        if sampler.agents == POPULATION:
            raise UserError(
                f"sampler.agents {POPULATION} is no RLlib algorithm: use `rlcas train`, or "
                "cluster.population.tune_runner"
            )

    def get_evaluation_config_object(self) -> AlgorithmConfig | None:
        """Return RLlib's, which would set its own `batch_mode`: its runners have one too, and here are none."""
        evaluation = super().get_evaluation_config_object()
        if evaluation is not None:
            evaluation.batch_mode = self.batch_mode
        return evaluation

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the one stacked module."""
        model_config = {"sampler": self.sampler_config().model_dump(), "seed": self.seed}
        return RLModuleSpec(module_class=AgentsModule, model_config=model_config)

    def get_default_learner_class(self) -> type[ReinforceLearner]:
        """Return the REINFORCE learner."""
        return ReinforceLearner

    def _set(self, settings: dict[str, Any]) -> Self:
        for name, value in settings.items():
            setattr(self, name, value)
        return self
