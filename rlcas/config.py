"""Every setting of rlcas: its name, type, default and meaning, declared here and nowhere else.

A run is one frozen `RunConfig`. Dotted flags (`--sampler.k 5`), YAML files and Ray Tune use the same keys.
The text under a field is its help. Presets, which override these defaults, are in `rlcas/presets.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=8, multiple_of=8)]
Counts = Annotated[
    Annotated[Count, Tag("one")] | Annotated[tuple[Count, ...], Tag("each")],
    Discriminator(lambda value: "each" if isinstance(value, list | tuple) else "one"),
]
"""One count for all classes, or one for each."""


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error, and so is inf or nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class PhantomConfig(Settings):
    """The breast-ultrasound phantoms of `--data phantom`."""

    num_images: PositiveCount = 5622
    """Images in all, over the three splits (the paper's Breast-LT-8 has 5622)."""
    imbalance: Annotated[float, Field(ge=1.0)] = 47.98
    """Largest class over smallest class; 1 draws a balanced set."""
    size_px: Annotated[int, Field(ge=16)] = 32
    """Side of the images, in pixels."""


class DatasetConfig(Settings):
    """How images are read, resized, split and thinned."""

    size_px: PositiveCount | None = None
    """Side to which images are resized, in pixels (area filter down, bicubic up). None keeps the source's."""
    channels: Literal[1, 3] | None = None
    """1 converts to gray, 3 to RGB. None keeps the source's."""
    split: tuple[Positive, Positive, Positive] = (0.7, 0.1, 0.2)
    """Shares of train, validation and test, for sources that come without any split."""
    val_from_train: Fraction | None = None
    """Share of train to cut as validation, for sources that have no validation split."""
    test_from_train: Fraction | None = None
    """Share of train to cut as test, for sources that have no test split."""
    imbalance_factor: Annotated[float, Field(ge=1.0)] | None = None
    """Thin the training classes to n_max * factor^(-rank/(C-1)). None keeps them all."""
    window: tuple[float, float] | None = None
    """Values shown as black and white in images of more than 8 bits. None: a DICOM file's own window, else the
    training images' range."""
    phantom: PhantomConfig = PhantomConfig()


class ShotsConfig(Settings):
    """Which classes are many-, medium- and few-shot."""

    source: Literal["train", "test", "total"] = "train"
    """Images that are counted for the rule."""
    many_above: Count = 100
    """A class with more images than this is many-shot."""
    few_below: Count = 20
    """A class with fewer images than this is few-shot."""
    many: tuple[Count, ...] | None = None
    """Explicit list of many-shot classes; with `few`, it replaces the rule."""
    few: tuple[Count, ...] | None = None
    """Explicit list of few-shot classes; with `many`, it replaces the rule."""

    @model_validator(mode="after")
    def _check(self) -> ShotsConfig:
        if (self.many is None) != (self.few is None):
            raise ValueError(f"shots.many is {self.many} and shots.few is {self.few}: give both or neither")
        if self.few_below > self.many_above + 1:
            raise ValueError(
                f"shots.few_below {self.few_below} overlaps shots.many_above {self.many_above}: "
                "set few_below to many_above + 1 at most"
            )
        return self


class ClassifierConfig(Settings):
    """The classifier and how one epoch trains it."""

    backbone: str = "resnet18"
    """Any timm model name, or package.module:function."""
    width: PositiveCount | None = None
    """Channels of the first stage of a ResNet (64 as published). None keeps the backbone's."""
    pretrained: bool = False
    """Start from timm's pretrained weights (downloads them once)."""
    small_stem_below_px: Count = 96
    """Smaller images get a 3x3 stem of stride 1 without pooling, where the backbone is a ResNet."""
    loss: str = "balanced_softmax"
    """A name in rlcas.losses.LOSSES, or package.module:function."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimiser of the classifier (SGD with Nesterov momentum 0.9)."""
    lr: Positive = 1e-3
    """Learning rate at the start."""
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the run's steps."""
    weight_decay: NonNegative = 5e-4
    """Decoupled weight decay (AdamW) or L2 (SGD)."""
    batch_size: PositiveCount = 128
    """Real images in a mini-batch; synthetic ones are appended, or take their place (`sampler.batch_mode`)."""
    augment: Literal["none", "light"] = "light"
    """light: horizontal flip, small rotation, shift and scale, small brightness and contrast change."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 elsewhere."""


AGENT_DEFAULTS: dict[str, dict[str, Any]] = {
    "state": {"lr": 0.15, "reward": "per_class", "advantages": "normalised"},
    "response": {"exploration": 0.2, "memory_epochs": 15.0},
}
"""Settings of the sampler that these agents have where nothing else is said (docs/sampler.md measures them)."""
REWARD_DEFAULTS: dict[str, dict[str, Any]] = {"per_class": {"team_share": 1.0}}
"""The same by reward."""
POPULATION = "pbt"
"""The agents that are none: population-based training moves the counts of K members (`cluster.population`)."""
WITHOUT_GRADIENT = ("response", "uniform", "constant", POPULATION)
"""Agents that no gradient teaches."""
COMPARING_REWARDS = ("rank", "per_class")
"""Rewards that compare the episodes of an epoch."""


class SamplerConfig(Settings):
    """The RL-driven class-adaptive sampler (paper, section 2.2)."""

    epochs: PositiveCount = 30
    """Epochs: each is K parallel one-epoch trainings and one update of the agents."""
    k: PositiveCount = 3
    """Episodes an epoch (K): classifiers trained side by side from the incumbent."""
    agents: str = "paper"
    """A name in rlcas.agents.AGENTS, or package.module:class. pbt has none but K members, whose counts Ray Tune's
    population-based training moves (a control)."""
    lr: NonNegative = 1e-3
    """Learning rate of the agents' Adam, where they have parameters; 0 freezes the policy (a control)."""
    entropy_bonus: NonNegative = 0.0
    """Weight of the policy's entropy, added to what the agents maximise."""
    exploration: Fraction | None = None
    """Chance that an agent acts at random: agents response, which have 0.2; None for the others."""
    memory_epochs: Positive | None = None
    """Epochs after which an observation weighs 1/e: agents response, which have 15; None for the others."""
    baseline_gamma: Fraction = 0.99
    """γ of eq. 2: weight of the new mean reward in the baseline."""
    advantages: Literal["baseline", "normalised"] = "baseline"
    """baseline: the reward minus B of eq. 2, the paper's. normalised: minus the mean over the K episodes, divided
    by the standard deviation over episodes and classes. Agents state: normalised."""
    reward: str = "cubic"
    """A name in rlcas.rewards.REWARDS, or package.module:function. Agents state: per_class."""
    signal: str = "log_likelihood"
    """Figure of a class on its own validation images that reward per_class, agents response and observation signal
    take: a name in rlcas.metrics.CLASS_SIGNALS."""
    team_share: NonNegative | None = None
    """Weight of the team's metric beside the own signal: reward per_class, which has 1; None for the others."""
    metric: str = "f1"
    """Validation metric ε that rewards and selects: a name in rlcas.metrics.SELECTING."""
    initial_count: Counts = 2
    """Synthetic images per class and mini-batch before the first action; or C counts with commas, one a class."""
    action_step: PositiveCount = 2
    """An agent's actions are -step, 0 and +step."""
    max_count: PositiveCount = 16
    """Counts are clamped to [0, max_count]."""
    batch_mode: Literal["append", "fixed_total"] = "append"
    """append: synthetic images come on top of the real ones; fixed_total: they replace as many of the batch."""
    draw_mode: Literal["cycle", "with_replacement"] = "cycle"
    """cycle: each class's pool in shuffled rounds, every image once a round; with_replacement: any image any time."""
    prior: Literal["real", "effective"] = "real"
    """Class counts in the training loss: the real ones, or those of the images that the epoch shows."""
    observation: tuple[str, ...] | None = None
    """What agents see: names in envs.observations.OBSERVATIONS. None: what the agents ask for."""
    replay: AbsolutePath | None = None
    """Folder of a run whose surviving compositions are the actions here, epoch by epoch; no agents learn. Of `rlcas
    train`, its settings are then the base."""
    common_random_numbers: bool = True
    """Order and augmentation of the real images are the same in all K episodes of an epoch."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, stated: Any) -> Any:
        """Fill in what agents and reward have of their own where it is not stated."""
        if not isinstance(stated, dict):
            return stated
        for setting, table in (("agents", AGENT_DEFAULTS), ("reward", REWARD_DEFAULTS)):
            name = stated.get(setting, cls.model_fields[setting].default)
            known = {key: value for key, value in stated.items() if value is not None}
            stated = stated | table.get(name, {}) | known if isinstance(name, str) else stated
        return stated

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
        self._check_population()
        return self

    def _check_agents(self) -> None:
        for name in ("exploration", "memory_epochs"):
            if getattr(self, name) is not None and self.agents != "response" and ":" not in self.agents:
                raise ValueError(
                    f"sampler.{name} {getattr(self, name)} is for sampler.agents response, not for "
                    f"{self.agents}: leave it out or change the agents"
                )
        if self.entropy_bonus > 0 and self.agents in WITHOUT_GRADIENT:
            raise ValueError(
                f"sampler.entropy_bonus {self.entropy_bonus} has no effect on sampler.agents {self.agents}, "
                "which no gradient teaches: set it to 0"
            )
        if self.agents == "response" and self.observation and "composition" not in self.observation:
            raise ValueError(
                f"sampler.observation {','.join(self.observation)} leaves out composition, which sampler.agents "
                "response must see: add it"
            )

    def _check_population(self) -> None:
        if self.agents == POPULATION and self.replay is not None:
            raise ValueError(f"sampler.agents {POPULATION} beside sampler.replay {self.replay}: leave one out")
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


class AutoencoderConfig(Settings):
    """The variational autoencoder between pixels and latents."""

    pretrained: str | None = None
    """Folder or hub name of a diffusers AutoencoderKL to use as it is. None trains one on the images."""
    factor: Literal[2, 4, 8] | None = None
    """Downsampling factor. None: 2 up to 48 px, 4 up to 128 px, 8 above."""
    channels: tuple[PositiveCount, ...] | None = None
    """Width of each level, one more level than log2(factor). None: 16 to 64 by factor."""
    latent_channels: PositiveCount = 4
    """Channels of the latent."""
    kl_weight: NonNegative = 1e-6
    """Weight of the KL term beside the L1 reconstruction."""
    lr: Positive = 1e-3
    """Learning rate of AdamW."""
    batch_size: PositiveCount = 32
    """Images in a mini-batch."""
    epochs: PositiveCount = 100
    """Passes over the training images."""
    max_steps: PositiveCount | None = None
    """Stop after this many optimiser steps, if they come before `epochs`."""


class DenoiserConfig(Settings):
    """The class-conditional denoiser and its sketch branch (paper, section 2.1)."""

    channels: tuple[Width, Width, Width, Width] = (64, 96, 128, 128)
    """Width of the UNet's four levels; each a multiple of 8."""
    layers_per_block: PositiveCount = 1
    """Residual blocks a level."""
    dropout: Fraction = 0.1
    """Dropout in the residual blocks."""
    prediction: Literal["epsilon", "v_prediction"] = "v_prediction"
    """What the denoiser predicts; the paper's is epsilon."""
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    """Noise schedule over 1000 steps."""
    min_snr_gamma: Positive | None = 5.0
    """Min-SNR weighting of the loss over timesteps. None: all the same, as in the paper."""
    sketch_weight: NonNegative = 0.1
    """λ of the sketch loss; 0 switches the sketch branch off (the paper's +SynClass row)."""
    label_drop: Fraction = 0.1
    """Share of images trained without their label, for classifier-free guidance."""
    flip: bool = True
    """Train on left-right mirrored images too; the denoiser is told which they are, and samples none of itself."""
    moved_copies: Count = 0
    """Train on so many rotated, scaled and shifted copies of each image too, told of in the same way."""
    cbdm_weight: NonNegative = 0.0
    """Weight of the class-balancing regulariser CBDM (its paper's is 1, as τ 0.001 x timestep); 0 is off, any other
    doubles the cost of a step."""
    class_balance: Fraction = 0.5
    """Classes are drawn with probability ~ n_c^(1 - class_balance): 0 as they are, 0.5 by root, 1 evenly."""
    ema_decays: tuple[Decay, Decay] = (0.999, 0.9999)
    """Decays of a short and a long moving average of the weights. Both are kept; the one with the lower
    loss on the validation images is sampled from."""
    lr: Positive = 1e-4
    """Learning rate of AdamW."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay."""
    batch_size: PositiveCount = 32
    """Latents in a mini-batch."""
    epochs: PositiveCount = 200
    """Passes over the training images."""
    max_steps: PositiveCount | None = None
    """Stop after this many optimiser steps, if they come before `epochs`."""


class GenerationConfig(Settings):
    """Sampling the pool."""

    solver: str = "unipc"
    """A name in synth.diffusion.SOLVERS, or package.module:function."""
    steps: PositiveCount = 20
    """Denoising steps an image."""
    guidance: Annotated[float, Field(ge=1.0)] = 1.5
    """Classifier-free guidance scale; 1 is none and costs half."""
    guidance_interval: tuple[Fraction, Fraction] = (0.0, 1.0)
    """Noise levels t/T between which ldm and mgdm guide; a step outside costs half (Kynkäänniemi et al. 2024)."""
    per_class: PositiveCount | None = None
    """Images a class. None: as many as the class has real ones, but 50 at least and 1000 at most."""
    micro_batch: PositiveCount = 32
    """Images denoised together; fixed (padded) and recorded, because other shapes differ in the last bits."""
    threads: PositiveCount = 1
    """Torch threads of a sampler on a CPU; fixed and recorded, because another number moves the last bits."""
    shard_images: PositiveCount = 256
    """Images in one file of the pool."""

    @model_validator(mode="after")
    def _check(self) -> GenerationConfig:
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(
                f"synth.generation.guidance_interval is {low:g},{high:g}: the first share must be below the second"
            )
        return self


class MgdmConfig(Settings):
    """MGDM (Luo et al. 2024), for `synth.generator` mgdm: the ldm, and an uncertainty gradient over its images."""

    scale: NonNegative = 5.0
    """Strength s of the uncertainty gradient; 0 inverts and decodes without one."""
    uncertainty: str = "entropy"
    """A name in synth.disturbance.UNCERTAINTIES, or package.module:function."""
    ddim_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Steps of the inversion, and as many of the decoding."""
    channels: tuple[Width, ...] = (32, 64, 64)
    """Width of each level of the noise-aware classifier; each a multiple of 8."""
    class_balance: Fraction = 0.0
    """The classifier draws class c with probability ~ n_c^(1 - class_balance): 0 as they are, 1 evenly."""
    lr: Positive = 3e-4
    """Learning rate of the classifier's AdamW."""
    weight_decay: NonNegative = 1e-5
    """Decoupled weight decay of the classifier."""
    batch_size: PositiveCount = 64
    """Latents in a mini-batch."""
    epochs: PositiveCount = 100
    """Passes over the training images."""
    max_steps: PositiveCount | None = None
    """Stop after this many optimiser steps, if they come before `epochs`."""


class SkinSdmConfig(Settings):
    """Skin-SDM (Patcharapimpisut and Khanarsa 2024), for `synth.generator` skin_sdm: Stable Diffusion with LoRA."""

    pretrained: str | None = None
    """Folder or hub name of a Stable Diffusion pipeline, which must be given; its safety checker is not used."""
    prompt: str = "an ultrasound image of a breast lesion, {class}"
    """What images of a class are called; {class} stands for its name."""
    size_px: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    """Side to which images are resized, in pixels; samples are brought back to the data's own."""
    rank: PositiveCount = 8
    """Rank of the LoRA in the UNet's attention."""
    flip: bool = True
    """Train on left-right mirrored images too."""
    class_balance: Fraction = 0.0
    """Classes are drawn with probability ~ n_c^(1 - class_balance): 0 as they are, 1 evenly."""
    lr: Positive = 1e-4
    """Learning rate of AdamW."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay."""
    batch_size: PositiveCount = 8
    """Latents in a mini-batch."""
    epochs: PositiveCount = 100
    """Passes over the training images."""
    max_steps: PositiveCount | None = 10_000
    """Stop after this many optimiser steps, if they come before `epochs`."""
    steps: PositiveCount = 50
    """DDIM steps an image, in place of `synth.generation.steps`."""
    guidance: Annotated[float, Field(ge=1.0)] = 7.5
    """Classifier-free guidance scale, in place of `synth.generation.guidance`."""

    @model_validator(mode="after")
    def _check(self) -> SkinSdmConfig:
        if "{class}" not in self.prompt:
            raise ValueError(
                f"synth.skin_sdm.prompt {self.prompt!r} is the same for every class: write {{class}} where the "
                "class's name shall stand"
            )
        return self


class ScoringConfig(Settings):
    """How the pool is judged."""

    extractor: str = "classifier"
    """Features that distances are taken in: a name in rlcas.features.EXTRACTORS, any timm model name (inception_v3),
    or package.module:function. classifier: the penultimate ones of a Baseline trained on the real images."""
    extractor_weights: AbsolutePath | None = None
    """File of weights for a timm model. None: timm's pretrained ones (downloads them once)."""
    leave_out_copies: bool = True
    """Leave images out of the pool that are nearer to a training image than held-out real images are."""
    pool_only_epochs: Count = 10
    """Epochs of the classifier that is trained on the pool alone and tested on real images; 0 leaves it out."""


class SynthConfig(Settings):
    """The sketch-supervised synthesiser, or another generator in its place."""

    generator: str = "ldm"
    """A name in synth.generators.GENERATORS, or package.module:object."""
    sketch: str = "ratio_of_averages"
    """A name in synth.sketch.SKETCHES, or package.module:object."""
    sketch_weights: AbsolutePath | None = None
    """Checkpoint of the sketch extractor, where it needs one: pidinet takes its authors', full, small or tiny."""
    checkpoint_steps: PositiveCount = 500
    """Optimiser steps from one checkpoint of the training to the next."""
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    generation: GenerationConfig = GenerationConfig()
    mgdm: MgdmConfig = MgdmConfig()
    skin_sdm: SkinSdmConfig = SkinSdmConfig()
    scoring: ScoringConfig = ScoringConfig()

    @model_validator(mode="after")
    def _check(self) -> SynthConfig:
        if self.denoiser.label_drop == 0 and self.generation.guidance > 1:
            raise ValueError(
                f"synth.generation.guidance {self.generation.guidance} needs unlabelled training, but "
                "synth.denoiser.label_drop is 0.0: set guidance to 1 or label_drop to 0.1"
            )
        return self


class ClusterConfig(Settings):
    """Ray: where the episodes and the synthesiser run."""

    episode_runner: Literal["actors", "in_process"] = "actors"
    """actors: the K episodes of an epoch side by side, on Ray. in_process: one after another in the process that
    calls, to debug a trainer or save the memory of K processes; the same bits."""
    gpus_per_episode: NonNegative | None = None
    """GPUs of one episode. None: one each where there are K, 1/K on a single card, 0 without a GPU or on device cpu."""
    threads_per_episode: PositiveCount | None = None
    """Torch threads of one episode on a CPU; part of what makes the same bits. None: this machine's cores divided
    by K, 1 at least; the run's folder keeps the number."""
    start_timeout_seconds: Positive = 300.0
    """Longest wait for Ray to start the K workers."""
    epoch_timeout_seconds: Positive = 3600.0
    """Longest wait for the K episodes of one epoch."""
    checkpoint_epochs: PositiveCount = 1
    """Epochs from one checkpoint to the next; the last two are kept, each with the best classifier so far."""
    episode_retries: Count = 3
    """How often an episode, or the synthesiser's training, is run again after a worker died."""
    synth_workers: PositiveCount = 1
    """Processes that train the synthesiser together, a GPU each where there is one, started by Ray Train; 1 is
    this process. The batches are the same, and divided among them."""
    sampling_workers: PositiveCount = 1
    """Workers that fill the pool side by side, on Ray; 1 fills it in the process itself."""
    gpus_per_sampler: NonNegative | None = None
    """GPUs of one sampling worker. None: one each, or an even share where there are fewer; 0 on device cpu."""
    sampling_retries: Count = 3
    """How often a micro-batch is sampled again after its worker died."""
    sampling_timeout_seconds: Positive = 3600.0
    """Longest wait for the next micro-batch of the sampling workers."""

    def concrete(self, k: int, device: str = "auto") -> ClusterConfig:
        """Return the settings with what K and this machine decide: the threads, and no GPU on device cpu."""
        gpus = 0.0 if device == "cpu" and self.gpus_per_episode is None else self.gpus_per_episode
        threads = self.threads_per_episode or max(1, (os.cpu_count() or 1) // k)
        return self.model_copy(update={"threads_per_episode": threads, "gpus_per_episode": gpus})


class RunConfig(Settings):
    """A whole run: both phases on one data set."""

    data: str = "phantom"
    """A data set's name (phantom, breastmnist, breastmnist_64, …), or npz:PATH, folder:PATH, csv:PATH."""
    preset: Literal["quick", "paper", "best"] = "best"
    """quick: minutes on 2 cores; paper: the paper's figures; best: what we found best."""
    out: Path | None = None
    """The run's folder. None: runs/<data>-<preset>-<seed>."""
    pool: str | None = None
    """A pool of synthetic images, DIR or folder:PATH (a folder a class); skips the synthesiser."""
    seed: Count = 0
    """The one seed that every draw of the run comes from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the synthesiser and evaluation run; episodes run where Ray puts them."""
    dataset: DatasetConfig = DatasetConfig()
    shots: ShotsConfig = ShotsConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    sampler: SamplerConfig = SamplerConfig()
    synth: SynthConfig = SynthConfig()
    cluster: ClusterConfig = ClusterConfig()


def _dotted(over: Any, prefix: str = "") -> Any:
    """Return {"sampler": {"k": [1, 3]}} as {"sampler.k": (1, 3)}; one value becomes a tuple, text stays."""
    if not isinstance(over, dict):
        return over
    flat: dict[str, Any] = {}
    for name, values in over.items():
        if isinstance(values, dict):
            flat |= _dotted(values, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = values if isinstance(values, str | list | tuple) else (values,)
    return flat


class SweepConfig(Settings):
    """`rlcas sweep`: which settings are tried, how, and how many at once."""

    over: Annotated[dict[str, str | tuple[Any, ...]], BeforeValidator(_dotted)] = {
        "sampler.baseline_gamma": (0.5, 0.9, 0.99),
        "sampler.k": (1, 3),
        "sampler.reward": ("cubic", "linear"),
    }
    """SETTING=VALUES, once a setting: values 1,3 (with ; between those that are lists), or a range 1e-4..1e-2, drawn
    on a log scale where both ends are positive and a factor of ten or more apart."""
    search: Literal["grid", "random", "asha", "pbt"] = "grid"
    """grid: every combination; random: `trials` draws; asha: draws, of which the worse stop early; pbt: a
    population, of which the worse go on from the better with other values."""
    trials: Annotated[int, Field(ge=2)] = 12
    """Draws of random and asha; the population of pbt."""
    concurrent: PositiveCount | None = None
    """Trials side by side. None: as many as the cores, or the GPUs, take at `sampler.k` episodes each."""
    metric: str | None = None
    """Validation metric of a trial, the larger the better: a name in rlcas.metrics.SELECTING. None: sampler.metric."""
    grace_epochs: PositiveCount = 4
    """asha: epochs before a trial may be stopped; the next decisions come at 3, 9, ... times as many."""
    exchange_epochs: PositiveCount = 4
    """pbt: epochs from one exchange to the next."""


class SweptConfig(RunConfig):
    """A run of which some settings are swept: what `rlcas sweep` takes."""

    sweep: SweepConfig = SweepConfig()

    @property
    def run(self) -> RunConfig:
        """Return the settings that the trials share, as those of a run."""
        return RunConfig.model_construct(**{name: getattr(self, name) for name in RunConfig.model_fields})
