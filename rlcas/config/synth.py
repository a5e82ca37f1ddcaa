"""Settings of the synthesiser: autoencoder, denoiser, other generators, sampling and scoring."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rlcas.config.values import (
    AbsolutePath,
    Count,
    Decay,
    Fraction,
    NonNegative,
    Percentage,
    Positive,
    PositiveCount,
    Settings,
    Width,
)


class AutoencoderConfig(Settings):
    """The variational autoencoder between pixels and latents."""

    pretrained: str | None = None
    """Folder or hub name of a diffusers AutoencoderKL to use unchanged. None: train one on the images."""
    factor: Literal[2, 4, 8] | None = None
    """Downsampling factor. None: 2 up to 48 px, 4 up to 128 px, 8 above."""
    channels: tuple[PositiveCount, ...] | None = None
    """Width of each level; there is one level more than log2(factor). None: 16 to 64, depending on the factor."""
    latent_channels: PositiveCount = 4
    """Channels of the latent."""
    kl_weight: NonNegative = 1e-6
    """Weight of the KL term relative to the L1 reconstruction loss."""
    lr: Positive = 1e-3
    """Learning rate of AdamW."""
    batch_size: PositiveCount = 32
    """Images in a mini-batch."""
    epochs: PositiveCount = 100
    """Passes over the training images."""
    max_steps: PositiveCount | None = None
    """Stop after this many optimiser steps, if that is before the end of `epochs`."""


class DenoiserConfig(Settings):
    """The class-conditional denoiser and its sketch branch (paper, section 2.1)."""

    channels: tuple[Width, Width, Width, Width] = (64, 96, 128, 128)
    """Width of the UNet's four levels; each a multiple of 8."""
    layers_per_block: PositiveCount = 1
    """Residual blocks in each level."""
    dropout: Fraction = 0.1
    """Dropout in the residual blocks."""
    prediction: Literal["epsilon", "v_prediction"] = "v_prediction"
    """What the denoiser predicts; the paper uses epsilon."""
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    """Noise schedule over 1000 steps."""
    min_snr_gamma: Positive | None = 5.0
    """γ of the Min-SNR weighting of the loss over timesteps. None: equal weights, as in the paper."""
    sketch_weight: NonNegative = 0.1
    """λ of the sketch loss; 0 switches the sketch branch off (the paper's +SynClass row)."""
    label_drop: Fraction = 0.1
    """Share of images trained without their label, for classifier-free guidance."""
    flip: bool = True
    """Also train on left-right mirrored images; they are marked by a condition, so that none are sampled."""
    moved_copies: Count = 0
    """Also train on this many rotated, scaled and shifted copies of each image, marked in the same way."""
    cbdm_weight: NonNegative = 0.0
    """Weight of the class-balancing regulariser CBDM (its paper uses 1, as τ 0.001 x timestep); 0 is off, any other
    value doubles the cost of a step."""
    class_balance: Fraction = 0.5
    """Classes are drawn with probability ~ n_c^(1 - class_balance): 0 as in the data, 0.5 by square root, 1 evenly."""
    ema_decays: tuple[Decay, Decay] = (0.999, 0.9999)
    """Decays of a short and a long moving average of the weights. Both are kept; images are sampled from the one with
    the lower loss on the validation images."""
    lr: Positive = 1e-4
    """Learning rate of AdamW."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay."""
    batch_size: PositiveCount = 32
    """Latents in a mini-batch."""
    epochs: PositiveCount = 200
    """Passes over the training images."""
    max_steps: PositiveCount | None = None
    """Stop after this many optimiser steps, if that is before the end of `epochs`."""


IMAGE_START_DEFAULTS: dict[str, Any] = {"strength": 0.5, "sources": "own"}
"""Defaults of the settings of sampling that only a start from images has."""


class GenerationConfig(Settings):
    """Sampling the pool."""

    solver: str = "unipc"
    """A name in synth.ldm.diffusion.SOLVERS, or package.module:function."""
    steps: PositiveCount = 20
    """Denoising steps for each image."""
    guidance: Annotated[float, Field(ge=1.0)] = 1.5
    """Scale of classifier-free guidance; 1 is no guidance and costs half as much."""
    guidance_interval: tuple[Fraction, Fraction] = (0.0, 1.0)
    """Noise levels t/T between which ldm and mgdm use guidance; steps outside cost half (Kynkäänniemi et al. 2024)."""
    per_class: PositiveCount | None = None
    """Images of each class. None: as many as the class has real ones, but at least 50 and at most 1000."""
    micro_batch: PositiveCount = 32
    """Images denoised together; fixed (padded) and recorded, because another batch size changes the last bits."""
    threads: PositiveCount = 1
    """Torch threads of a sampler on a CPU; fixed and recorded, because another number changes the last bits."""
    shard_images: PositiveCount = 256
    """Images in one file of the pool."""
    start: Literal["noise", "image"] = "noise"
    """What an image is denoised from: noise alone, or a real training image with noise (ldm alone)."""
    strength: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Noise level t/T to which `start` image noises its source; 1 is nearly noise alone. None: 0.5 with `start`
    image."""
    sources: Literal["own", "confused"] | None = None
    """Images that `start` image begins with: of the class itself, or of the more frequent class that it is most often
    confused with. None: own with `start` image."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, stated: Any) -> Any:
        """Fill in the defaults of a start from images."""
        if isinstance(stated, dict) and stated.get("start") == "image":
            # None counts as not stated: it is what a resolved config.yaml has where `start` is noise.
            return IMAGE_START_DEFAULTS | {key: value for key, value in stated.items() if value is not None}
        return stated

    @model_validator(mode="after")
    def _check(self) -> GenerationConfig:
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(
                f"synth.generation.guidance_interval is {low:g},{high:g}: the first share must be below the second"
            )
        for name in IMAGE_START_DEFAULTS:
            if self.start == "noise" and (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"synth.generation.{name} {value} is for synth.generation.start image, not for noise: leave it "
                    "out or set the start to image"
                )
        if self.strength is not None and self.strength * self.steps < 1:
            raise ValueError(
                f"synth.generation.strength {self.strength:g} leaves none of synth.generation.steps {self.steps}: "
                "raise one of them"
            )
        return self


class MgdmConfig(Settings):
    """MGDM (Luo et al. 2024), for `synth.generator` mgdm: ldm with an uncertainty gradient on its images."""

    scale: NonNegative = 5.0
    """Strength s of the uncertainty gradient; 0: inversion and decoding without it."""
    uncertainty: str = "entropy"
    """A name in synth.mgdm.disturbance.UNCERTAINTIES, or package.module:function."""
    ddim_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Steps of the inversion, and of the decoding."""
    channels: tuple[Width, ...] = (32, 64, 64)
    """Width of each level of the noise-aware classifier; each a multiple of 8."""
    class_balance: Fraction = 0.0
    """The classifier draws class c with probability ~ n_c^(1 - class_balance): 0 as in the data, 1 evenly."""
    lr: Positive = 3e-4
    """Learning rate of the classifier's AdamW."""
    weight_decay: NonNegative = 1e-5
    """Decoupled weight decay of the classifier."""
    batch_size: PositiveCount = 64
    """Latents in a mini-batch."""
    epochs: PositiveCount = 100
    """Passes over the training images."""
    max_steps: PositiveCount | None = None
    """Stop after this many optimiser steps, if that is before the end of `epochs`."""


class SkinSdmConfig(Settings):
    """Skin-SDM (Patcharapimpisut and Khanarsa 2024), for `synth.generator` skin_sdm: Stable Diffusion with LoRA."""

    pretrained: str | None = None
    """Folder or hub name of a Stable Diffusion pipeline, such as stable-diffusion-v1-5/stable-diffusion-v1-5; required.
    Its safety checker is not used."""
    prompt: str = "an ultrasound image of a breast lesion, {class}"
    """Text prompt of a class; {class} becomes its name."""
    # Stable Diffusion's autoencoder has a factor of 8.
    size_px: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    """Side to which images are resized, in pixels; samples are resized back to the size of the data."""
    rank: PositiveCount = 8
    """Rank of the LoRA in the UNet's attention."""
    flip: bool = True
    """Also train on left-right mirrored images."""
    class_balance: Fraction = 0.0
    """Classes are drawn with probability ~ n_c^(1 - class_balance): 0 as in the data, 1 evenly."""
    lr: Positive = 1e-4
    """Learning rate of AdamW."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay."""
    batch_size: PositiveCount = 8
    """Latents in a mini-batch."""
    epochs: PositiveCount = 100
    """Passes over the training images."""
    max_steps: PositiveCount | None = 10_000
    """Stop after this many optimiser steps, if that is before the end of `epochs`."""
    steps: PositiveCount = 50
    """DDIM steps for each image, in place of `synth.generation.steps`."""
    guidance: Annotated[float, Field(ge=1.0)] = 7.5
    """Classifier-free guidance scale, in place of `synth.generation.guidance`."""

    @model_validator(mode="after")
    def _check(self) -> SkinSdmConfig:
        if "{class}" not in self.prompt:
            raise ValueError(
                f"synth.skin_sdm.prompt {self.prompt!r} is the same for every class: write {{class}} in place of the "
                "class's name"
            )
        return self


class ScoringConfig(Settings):
    """How the pool is evaluated."""

    extractor: str = "classifier"
    """Features in which distances are measured: a name in rlcas.evaluation.features.EXTRACTORS, any timm model name
    (inception_v3), or package.module:function. classifier: the penultimate features of a Baseline trained on the
    real images."""
    extractor_weights: AbsolutePath | None = None
    """Weights file for a timm model. None: timm's pretrained weights (downloads them once)."""
    leave_out_copies: bool = True
    """Do not train on images of the pool that are nearer to a training image than held-out real images are."""
    pool_only_epochs: Count = 10
    """Epochs of a classifier that is trained on the pool alone and tested on real images; 0: no such classifier."""
    usefulness: bool = False
    """Train small classifiers with the pool and with as many repeated real images, and take the difference in AUC and
    average precision on the validation images; `rlcas compare` does so unless `compare.usefulness` is false."""
    usefulness_seeds: PositiveCount = 3
    """Pairs of small classifiers, under seeds counting up from `seed`."""
    usefulness_epochs: PositiveCount = 10
    """Epochs of each small classifier; the last one is measured."""
    usefulness_ratio: Positive = 1.0
    """Added images for each real one, equally many of each class."""
    usefulness_width: PositiveCount = 16
    """Channels of the first stage of the small classifier, a ResNet-18 whatever the run's backbone."""


class FilterConfig(Settings):
    """Which images of a pool, made or given, are left out by a classifier trained on the real images."""

    confidence: tuple[Fraction, Fraction] | None = None
    """Keep images whose probability of their own class lies in this range, such as 0.3,0.9. None: keep all."""
    distance: tuple[Percentage, Percentage] | None = None
    """Keep images whose distance to the nearest real image of their class, in the classifier's features, lies between
    these percentiles of the distances among the real ones, such as 5,95. None: keep all."""

    @property
    def active(self) -> bool:
        """Return whether any image may be left out."""
        return self.confidence is not None or self.distance is not None

    @model_validator(mode="after")
    def _check(self) -> FilterConfig:
        for name in ("confidence", "distance"):
            limits = getattr(self, name)
            if limits is not None and limits[0] >= limits[1]:
                raise ValueError(
                    f"synth.filter.{name} is {limits[0]:g},{limits[1]:g}: the first must be below the second"
                )
        return self


class SynthConfig(Settings):
    """The sketch-supervised synthesiser, or another generator."""

    generator: str = "ldm"
    """A name in synth.generators.GENERATORS, or package.module:object."""
    sketch: str = "ratio_of_averages"
    """A name in synth.sketch.SKETCHES, or package.module:object."""
    sketch_weights: AbsolutePath | None = None
    """Checkpoint of the sketch extractor, if it needs one: pidinet takes its authors' full, small or tiny one."""
    checkpoint_steps: PositiveCount = 500
    """Optimiser steps between checkpoints of the training."""
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    generation: GenerationConfig = GenerationConfig()
    filter: FilterConfig = FilterConfig()
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
