"""Settings of the agents and the episodes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from rlcas.config.values import (
    AbsolutePath,
    Count,
    Counts,
    Fraction,
    NonNegative,
    Positive,
    PositiveCount,
    Settings,
    Weight,
)

DOSE_DEFAULTS: dict[str, Any] = {
    "lr": 1.0,
    "initial_count": 0,
    "exploration": 1.0,
    "memory_epochs": 15.0,
    "benefit_probability": 0.8,
    "fold_epochs": 0,
    "start_share": 0.25,
    "max_count": 8,
    "batch_mode": "auto",
    "prior": "effective",
}
DOSING = ("dose", "dose_permuted")
"""Agents that perturb around a dose of their own, whatever the composition before."""
AGENT_DEFAULTS: dict[str, dict[str, Any]] = {
    "state": {"lr": 0.15, "reward": "per_class", "advantages": "normalised"},
    "response": {"exploration": 0.2, "memory_epochs": 15.0},
    **dict.fromkeys(DOSING, DOSE_DEFAULTS),
}
"""Agents -> their own defaults of the sampler's settings (measured in docs/sampler.md)."""
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "exploration": ("response", *DOSING),
    "memory_epochs": ("response", *DOSING),
    "benefit_probability": DOSING,
    "fold_epochs": DOSING,
    "start_share": DOSING,
}
"""Setting of the sampler -> the agents that have it; None for all others."""
REWARD_DEFAULTS: dict[str, dict[str, Any]] = {"per_class": {"team_share": 1.0}}
"""Reward -> its own defaults of the sampler's settings."""
POPULATION = "pbt"
"""The value of `agents` without agents: population-based training changes the counts (`cluster.population`)."""
EPISODE_DEFAULTS: dict[str, dict[str, Any]] = {"whole": {"handover": "best"}, "share": {"handover": "in_turn"}}
"""What an episode is -> its own defaults of the sampler's settings."""
WITHOUT_GRADIENT = ("response", *DOSING, "uniform", "constant", POPULATION)
"""Agents that are not trained by gradient."""
COMPARING_REWARDS = ("rank", "per_class")
"""Rewards that compare the episodes of an epoch."""


class SamplerConfig(Settings):
    """The RL-driven class-adaptive sampler (paper, section 2.2)."""

    epochs: PositiveCount = 30
    """Number of epochs; each is K parallel one-epoch trainings and one update of the agents."""
    k: PositiveCount = 3
    """Episodes in an epoch (K), each under a composition of its own."""
    episode: Literal["auto", "whole", "share"] = "whole"
    """whole: each episode trains on all mini-batches of the epoch, as in the paper. share: the K episodes divide the
    mini-batches of the epoch among them, so that the epoch costs what one of the Baseline costs. auto: whole where
    there are K GPUs to train the episodes at once, else share; the run's folder records which."""
    handover: Literal["best", "merge", "in_turn"] | None = None
    """What the next epoch starts from. best (for whole): the episode with the best validation metric, as in the paper.
    merge: the mean of the episodes' weights and optimiser states, with BatchNorm's statistics from real images.
    in_turn (for share): each episode starts from what the one before it reached, and the last one is kept. None: best
    for whole, in_turn for share."""
    merge_from: PositiveCount = 1
    """First epoch that is merged, for handover merge with whole episodes; best before it."""
    real_first: Fraction = 0.0
    """Share of the epochs, at the start, with real images alone; the agents do not act in them."""
    real_last: Fraction = 0.0
    """Share of the epochs, at the end, with real images alone; the agents do not act in them."""
    agents: str = "paper"
    """A name in rlcas.agents.AGENTS, or package.module:class. pbt: no agents; population-based training changes the
    counts of a population of K members (a control)."""
    lr: NonNegative = 1e-3
    """Learning rate of the agents' Adam, if they have parameters; for agents dose, whose default is 1, the share of
    `action_step` that a dose moves by at most. 0 freezes the policy (a control)."""
    entropy_bonus: NonNegative = 0.0
    """Weight of the policy's entropy in the objective of the agents."""
    exploration: Fraction | None = None
    """Probability that an agent of agents response acts at random (default 0.2); for agents dose, whose default is 1,
    the share of the classes that an epoch perturbs. None for all others."""
    memory_epochs: Positive | None = None
    """Epochs after which an observation has weight 1/e, for agents response and dose, whose default is 15. None for
    all others."""
    benefit_probability: Fraction | None = None
    """Probability of a benefit above which a class has a dose of synthetic images, for agents dose, whose default is
    0.8. None for all others."""
    fold_epochs: Count | None = None
    """Epochs of three classifiers, each without a third of the training images, in whose features agents dose look for
    a dose before the run; 0, their default: they look for none. None for all others."""
    start_share: Fraction | None = None
    """Share of a mini-batch that agents dose start with as synthetic images, divided evenly among the classes whose
    images a classifier of the real ones recognises; 0: they start from `initial_count`. Their default is 0.25, or 0
    where `initial_count` or `fold_epochs` is above 0. None for all others."""
    baseline_gamma: Fraction = 0.99
    """γ of eq. 2: weight of the new mean reward in the baseline."""
    advantages: Literal["baseline", "normalised"] = "baseline"
    """baseline: the reward minus B of eq. 2, as in the paper. normalised: minus the mean over the K episodes, divided
    by the standard deviation over episodes and classes. The default of agents state is normalised."""
    reward: str = "cubic"
    """A name in rlcas.rewards.REWARDS, or package.module:function. The default of agents state is per_class."""
    signal: str = "log_likelihood"
    """Measure of a class on its own validation images, for reward per_class, agents response and observation signal:
    a name in rlcas.metrics.CLASS_SIGNALS."""
    team_share: NonNegative | None = None
    """Weight of the team's metric relative to the class's own signal, for reward per_class, whose default is 1. None
    for all others."""
    metric: str = "f1"
    """Validation metric ε for rewards and selection: a name in rlcas.metrics.SELECTING."""
    initial_count: Counts = 2
    """Synthetic images of each class in a mini-batch before the first action: one count, or C separated by commas."""
    action_step: PositiveCount = 2
    """An agent's actions are -step, 0 and +step."""
    max_count: PositiveCount = 16
    """Counts are clamped to [0, max_count]; the default of agents dose is 8."""
    batch_mode: Literal["append", "fixed_total", "auto"] = "append"
    """append: synthetic images are added to the real ones; fixed_total: they replace as many of the real ones. auto,
    the default of agents dose: fixed_total where `max_count` images of all classes fit into a mini-batch, else append.
    """
    draw_mode: Literal["cycle", "with_replacement"] = "cycle"
    """cycle: each class's pool in shuffled rounds, every image once in a round; with_replacement: independent draws."""
    prior: Literal["real", "effective"] = "real"
    """Class counts in the training loss: of the real images, or of all images in the epoch, where a synthetic one
    counts `synthetic_weight`. The default of agents dose is effective."""
    synthetic_weight: Weight = 1.0
    """Weight of a synthetic image in the training loss; a real one has 1."""
    batch_norm: Literal["all", "real"] = "all"
    """Images of a mini-batch from which BatchNorm takes mean and variance in training: all, or the real ones alone, by
    which the synthetic ones are normalised too."""
    observation: tuple[str, ...] | None = None
    """What agents observe: names in envs.observations.OBSERVATIONS. None: the agents' own choice."""
    replay: AbsolutePath | None = None
    """Folder of a run whose surviving compositions are used again, epoch by epoch; no agents are trained. `rlcas train`
    then takes the settings of that run as its defaults."""
    common_random_numbers: bool = True
    """Use the same order and augmentation of the real images in all K episodes of an epoch."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, stated: Any) -> Any:
        """Fill in the agents' and the reward's own defaults of settings that are not stated."""
        if not isinstance(stated, dict):
            # An instance of the class itself, which is complete.
            return stated
        # The agents first: their defaults may name the reward, which has defaults of its own.
        for setting, table in (
            ("agents", AGENT_DEFAULTS),
            ("reward", REWARD_DEFAULTS),
            ("episode", EPISODE_DEFAULTS),
        ):
            name = stated.get(setting, cls.model_fields[setting].default)
            # None counts as not stated: a resolved config.yaml has it wherever a setting is for other agents.
            known = {key: value for key, value in stated.items() if value is not None}
            own = table.get(name, {}) if isinstance(name, str) else {}
            if "start_share" in own and (known.get("initial_count") or known.get("fold_epochs")):
                own = own | {"start_share": 0.0}  # another start is stated
            stated = stated | own | known
        return stated

    def concrete(self, num_gpus: float) -> SamplerConfig:
        """Return the settings with `episode` and `handover` chosen by the GPUs that there are."""
        if self.episode != "auto":
            return self
        if self.handover in ("best", "in_turn"):
            whole = self.handover == "best"
        else:
            # K whole episodes on K GPUs take as long as one; on fewer they would wait for each other.
            whole = self.agents == POPULATION or num_gpus >= self.k
        episode = "whole" if whole else "share"
        chosen = {"episode": episode, "handover": self.handover or EPISODE_DEFAULTS[episode]["handover"]}
        return self.model_copy(update=chosen)

    @property
    def num_workers(self) -> int:
        """Return how many episodes are trained at the same time."""
        return 1 if self.handover == "in_turn" else self.k

    @property
    def passes(self) -> int:
        """Return how many passes over the real training images an epoch takes."""
        assert self.episode != "auto", "the settings are concrete"
        return 1 if self.episode == "share" else self.k

    def stated(self) -> dict[str, Any]:
        """Return the agents, and the settings that differ from the defaults of these agents.

        They stay when the agents are changed. A setting that was stated with its default value counts as not stated.
        """
        defaults = SamplerConfig(agents=self.agents).model_dump()
        own = {name: value for name, value in self.model_dump().items() if value != defaults[name]}
        return {"agents": self.agents, **own}

    @model_validator(mode="after")
    def _check(self) -> SamplerConfig:
        most = self.initial_count if isinstance(self.initial_count, int) else max(self.initial_count, default=0)
        if most > self.max_count:
            raise ValueError(
                f"sampler.initial_count {most} is above sampler.max_count {self.max_count}: "
                "lower the first or raise the second"
            )
        if self.action_step > self.max_count:
            raise ValueError(
                f"sampler.action_step {self.action_step} is above sampler.max_count {self.max_count}: lower the first "
                "or raise the second"
            )
        self._check_agents()
        self._check_comparisons()
        self._check_episodes()
        self._check_population()
        return self

    def _check_agents(self) -> None:
        for name, theirs in ONLY_FOR.items():
            # Agents from outside, package.module:class, may read any setting.
            if getattr(self, name) is not None and self.agents not in theirs and ":" not in self.agents:
                raise ValueError(
                    f"sampler.{name} {getattr(self, name)} is for sampler.agents {', '.join(theirs)}, not for "
                    f"{self.agents}: leave it out or change the agents"
                )
        self._check_dose()
        if self.entropy_bonus > 0 and self.agents in WITHOUT_GRADIENT:
            raise ValueError(
                f"sampler.entropy_bonus {self.entropy_bonus} has no effect on sampler.agents {self.agents}, "
                "which are not trained by gradient: set it to 0"
            )
        if self.agents == "response" and self.observation and "composition" not in self.observation:
            raise ValueError(
                f"sampler.observation {','.join(self.observation)} leaves out composition, which sampler.agents "
                "response must observe: add it"
            )

    def _check_episodes(self) -> None:
        if (self.episode, self.handover) in (("whole", "in_turn"), ("share", "best")):
            other = "share" if self.episode == "whole" else "whole"
            own = EPISODE_DEFAULTS[self.episode]["handover"]
            raise ValueError(
                f"sampler.handover {self.handover} is for sampler.episode {other}, not for {self.episode}: use {own} "
                f"or merge, or set sampler.episode {other}"
            )
        if self.merge_from > 1 and (self.episode == "share" or self.handover != "merge"):
            raise ValueError(
                f"sampler.merge_from {self.merge_from} is for whole episodes with sampler.handover merge, not for "
                f"sampler.episode {self.episode} with {self.handover}: leave it out"
            )
        if self.real_first + self.real_last > 1:
            raise ValueError(
                f"sampler.real_first {self.real_first:g} and sampler.real_last {self.real_last:g} are more than all "
                "epochs: lower one of them"
            )

    def _check_dose(self) -> None:
        if self.agents in DOSING and self.exploration == 0:
            raise ValueError(
                f"sampler.exploration {self.exploration} leaves sampler.agents {self.agents} nothing to learn from: "
                "raise it"
            )
        for name in ("initial_count", "fold_epochs"):
            if self.start_share and (value := getattr(self, name)):
                raise ValueError(
                    f"sampler.start_share {self.start_share:g} beside sampler.{name} {value}: each says where agents "
                    "dose start, set one of them to 0"
                )

    def _check_population(self) -> None:
        if self.agents == POPULATION and self.replay is not None:
            raise ValueError(f"sampler.agents {POPULATION} beside sampler.replay {self.replay}: leave one out")
        if self.agents == POPULATION and (self.episode == "share" or self.handover not in (None, "best")):
            raise ValueError(
                f"sampler.agents {POPULATION} has members that train whole epochs and hand over among themselves, but "
                f"sampler.episode is {self.episode} and sampler.handover {self.handover}: leave both out"
            )
        if self.agents == POPULATION and (self.real_first or self.real_last):
            raise ValueError(
                f"sampler.agents {POPULATION} beside sampler.real_first {self.real_first:g} and sampler.real_last "
                f"{self.real_last:g}: its members change their counts in every epoch: leave both out"
            )
        if self.agents == POPULATION and self.k == 1:
            raise ValueError(
                f"sampler.agents {POPULATION} is a population of sampler.k {self.k} members: raise sampler.k"
            )

    def _check_comparisons(self) -> None:
        if self.team_share is not None and self.reward != "per_class" and ":" not in self.reward:
            raise ValueError(
                f"sampler.team_share {self.team_share} is for sampler.reward per_class, not for {self.reward}: "
                "leave it out or change the reward"
            )
        if self.k > 1 or self.replay or self.agents in WITHOUT_GRADIENT:
            return
        if self.reward in COMPARING_REWARDS or self.advantages == "normalised":
            raise ValueError(
                f"sampler.k {self.k} leaves nothing to compare, but sampler.reward is {self.reward} and "
                f"sampler.advantages {self.advantages}: raise k, or use reward linear and advantages baseline"
            )
