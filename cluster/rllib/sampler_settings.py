"""The settings of the RLlib algorithm: the sampler's and the cluster's, beside RLlib's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from gymnasium.spaces import Box, MultiDiscrete
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from cluster.episodes.episode import TrainerFactory, check_factory
from cluster.rllib.agents_module import AgentsModule
from cluster.rllib.env_runner import NoEnvRunner
from cluster.rllib.learner import ReinforceLearner
from cluster.runtime.resources import reachable_resources
from envs.observations import Observer
from rlcas.batches.composition import ACTIONS, initial_counts
from rlcas.config import POPULATION, ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.settings import validated

FOUND = ("found_dose[0]", "found_dose[1]")
"""The parts of `found_dose`, for errors."""


class SamplerSettings(AlgorithmConfig):
    """Every field of SamplerConfig in `.training()`, of ClusterConfig in `.episodes()`."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.env_runner_cls = NoEnvRunner
        self.num_env_runners = 0
        self.seed = 0
        self.trainer_factory: TrainerFactory | None = None
        self.num_classes: int | None = None
        self.class_counts: Sequence[int] | None = None
        self.found_dose: tuple[Sequence[int], Sequence[float]] | None = None
        for name in SamplerConfig.model_fields:  # RLlib has defaults by some of these names
            self.__dict__.pop(name, None)
        for name, value in ClusterConfig():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Return a setting of the sampler that was not stated: a default, perhaps of its agents or reward."""
        # Python calls this only for attributes that do not exist, so stated settings never get here.
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
        class_counts: Sequence[int] | None = None,
        found_dose: tuple[Sequence[int], Sequence[float]] | None = None,
        **settings: Any,
    ) -> Self:
        """Set what trains an epoch and where.

        Args:
            trainer_factory: a function that builds the EpisodeTrainer on each actor from the sampler's settings
                (rlcas.config.SamplerConfig), which Tune may search; it is pickled, so keep the data out of it
                (functools.partial of a loader).
            num_classes: C.
            class_counts: [C] real training images of each class, by which agents dose know how rare a class is. None:
                all count as equally rare.
            found_dose: [C] the composition that agents dose start from, and [C] the probability that its images of a
                class are a benefit. None: `initial_count`.
            settings: fields of ClusterConfig.

        Raises:
            UserError: a setting is unknown.
        """
        if unknown := settings.keys() - ClusterConfig.model_fields.keys():
            raise UserError(
                f"episodes({', '.join(sorted(unknown))}) is unknown: use trainer_factory, num_classes, class_counts, "
                f"found_dose, {', '.join(ClusterConfig.model_fields)}"
            )
        own = {
            "trainer_factory": trainer_factory,
            "num_classes": num_classes,
            "class_counts": class_counts,
            "found_dose": found_dose,
        }
        return self._set(settings | {name: value for name, value in own.items() if value is not None})

    def sampler_config(self) -> SamplerConfig:
        """Return the sampler's settings, validated."""
        stated = {name: value for name, value in vars(self).items() if name in SamplerConfig.model_fields}
        return validated({"sampler": stated}).sampler

    def concrete_sampler(self) -> SamplerConfig:
        """Return the sampler's settings, validated, with `episode` and `handover` chosen by the GPUs that there are."""
        sampler = self.sampler_config()
        if sampler.episode != "auto":
            return sampler
        on_gpus = self.episode_runner == "actors" and self.gpus_per_episode != 0
        return sampler.concrete(reachable_resources().get("GPU", 0.0) if on_gpus else 0.0)

    def cluster_config(self) -> ClusterConfig:
        """Return the cluster's settings, validated, with the threads that this machine has for an episode."""
        settings = {name: getattr(self, name) for name in ClusterConfig.model_fields}
        return validated({"cluster": settings}).cluster.concrete(self.concrete_sampler().num_workers)

    def spaces(self) -> tuple[Box, MultiDiscrete]:
        """Return the spaces of the joint observation and of the joint action."""
        assert self.num_classes is not None, "validate() has passed"
        space = Observer(self.sampler_config()).space(self.num_classes)
        return space, MultiDiscrete([len(ACTIONS)] * self.num_classes)

    def validate(self) -> None:
        """Check the settings.

        Raises:
            UserError: a setting is out of its range or of other classes, `.episodes(trainer_factory=…,
                num_classes=…)` is missing, or the factory does not take the sampler's settings.
        """
        super().validate()
        sampler = self.sampler_config()
        # Part of the bits, so made known.
        self.threads_per_episode = self.cluster_config().threads_per_episode
        self.episode, self.handover = (concrete := self.concrete_sampler()).episode, concrete.handover
        if self.trainer_factory is None or self.num_classes is None:
            raise UserError(
                f"trainer_factory is {self.trainer_factory} and num_classes is {self.num_classes}: "
                "call .episodes(trainer_factory=..., num_classes=...)"
            )
        known = {"class_counts": self.class_counts, **dict(zip(FOUND, self.found_dose or (), strict=False))}
        for name, values in known.items():
            if values is not None and len(values) != self.num_classes:
                raise UserError(
                    f"episodes({name}=...) has {len(values)} numbers, but num_classes is {self.num_classes}: give one "
                    "for each class"
                )
        check_factory(self.trainer_factory)
        initial_counts(sampler, self.num_classes)
        if sampler.agents == POPULATION:
            raise UserError(
                f"sampler.agents {POPULATION} is not an RLlib algorithm: use `rlcas train`, or "
                "cluster.population.population.Population"
            )

    def get_evaluation_config_object(self) -> AlgorithmConfig | None:
        """Return RLlib's with our `batch_mode`: RLlib sets its env runners' setting of that name, which is another."""
        evaluation = super().get_evaluation_config_object()
        if evaluation is not None:
            evaluation.batch_mode = self.batch_mode
        return evaluation

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the one stacked module."""
        model_config = {
            "sampler": self.sampler_config().model_dump(),
            "seed": self.seed,
            "class_counts": self.class_counts,
            "found_dose": self.found_dose,
        }
        return RLModuleSpec(module_class=AgentsModule, model_config=model_config)

    def get_default_learner_class(self) -> type[ReinforceLearner]:
        """Return the REINFORCE learner."""
        return ReinforceLearner

    def _set(self, settings: dict[str, Any]) -> Self:
        for name, value in settings.items():
            setattr(self, name, value)
        return self
