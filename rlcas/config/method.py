"""Settings of the compared methods, each with its authors' defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlcas.config.values import Decay, Fraction, NonNegative, Positive, PositiveCount, Prompt, Settings


class LiftConfig(Settings):
    """LIFT (Shi et al. 2024): a frozen CLIP with adapters, and a cosine head that starts from text."""

    pretrained: str | None = None
    """Folder or hub name of a CLIP in transformers' layout, such as openai/clip-vit-base-patch16 (0.6 GB); required."""
    prompt: Prompt = "a photo of a {class}."
    """Text that the text encoder gets for a class; {class} becomes its name."""
    names: tuple[str, ...] | None = None
    """Full names of the classes for the prompt, in class order. None: the names in the data."""
    adapter_dim: PositiveCount | None = None
    """Width of the adapters' bottleneck. None: the authors' rule, about C / 2L for C classes and L blocks."""
    scale: Positive = 25.0
    """Factor of the cosines between features and classes in the logits."""
    tte: bool = True
    """Predict the mean of five crops of the image (test-time ensembling)."""


class FreeMaskConfig(Settings):
    """FreeMask's filter and resampling by hardness (Yang et al. 2023), adapted to classification."""

    tolerance: NonNegative = 1.25
    """Synthetic images with a loss above this many times the mean of their class's real images are left out."""
    nmax: PositiveCount = 20
    """Synthetic images that the hardest real image adds for its class, before the list is fitted to the pool."""


class CbFocalConfig(Settings):
    """Class-balanced focal loss (`cbfocal`)."""

    kind: Literal["sigmoid", "softmax"] = "sigmoid"
    """sigmoid: C one-vs-rest problems, as the authors do; softmax: the focal loss of the class probabilities."""
    beta: Decay = 0.9999
    """β of the effective number of images: 0 weights all classes equally, 1 in the limit by inverse frequency."""
    gamma: NonNegative = 1.0
    """γ, the focus on images that are not yet learnt; 0: no focus."""


class LogitAdjustConfig(Settings):
    """Logit adjustment (`logit_adjust`)."""

    mode: Literal["posthoc", "loss"] = "posthoc"
    """posthoc: train with plain cross-entropy and subtract τ log π from the logits; loss: add it in training."""
    tau: Positive = 1.0
    """τ of mode loss; 1 is the Balanced Softmax."""
    taus: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.5, 1.0, 1.5, 2.0)
    """Values of τ from which validation chooses one, in mode posthoc."""


class ProCoConfig(Settings):
    """Probabilistic contrastive learning (`proco`)."""

    alpha: NonNegative = 1.0
    """α, the weight of the contrastive loss."""
    temperature: Positive = 0.1
    """τ of the contrastive loss (the authors use 0.07 for larger data sets)."""
    hidden_dim: PositiveCount = 512
    """Width of the projection's hidden layer."""
    projection_dim: Annotated[int, Field(ge=16)] = 128
    """p, the dimension of the features on the unit sphere that are contrasted."""


class NclConfig(Settings):
    """Nested collaborative learning (`ncl`)."""

    experts: Annotated[int, Field(ge=2)] = 3
    """Networks that are trained together and learn from each other."""
    hcm_share: Fraction = 0.3
    """Share of the classes, but at least two, that are the hard ones of an image (hard category mining)."""
    hcm_fill: Literal["zero", "minus_infinity"] = "zero"
    """Logits of the other classes in the loss over the hard ones: 0, as the authors do, or -∞ to leave them out."""
    hcm_weight: NonNegative = 1.0
    """Weight of the cross-entropy over the hard classes."""
    distillation: NonNegative = 0.6
    """Weight of the distillation between the experts over all classes."""
    hcm_distillation: NonNegative = 0.6
    """Weight of the distillation between the experts over the hard classes."""


class GlmcConfig(Settings):
    """Global and local mixture consistency (`glmc`)."""

    resampling_power: NonNegative = 0.0
    """q: images of the second batch are drawn with probability ~ n_c^-q; at 0 without replacement."""
    label_power: NonNegative = 1.2
    """k: the labels of the balanced loss are weighted by ~ n_c^-k."""
    consistency: NonNegative = 1.0
    """Weight of the agreement between the two mixtures (the authors use 1 for 10 classes, 4 to 10 for more)."""
    projection_dim: PositiveCount = 128
    """Dimension of the projection in which the two mixtures are compared."""


class MethodConfig(Settings):
    """The settings of each compared method."""

    lift: LiftConfig = LiftConfig()
    freemask: FreeMaskConfig = FreeMaskConfig()
    cbfocal: CbFocalConfig = CbFocalConfig()
    logit_adjust: LogitAdjustConfig = LogitAdjustConfig()
    proco: ProCoConfig = ProCoConfig()
    ncl: NclConfig = NclConfig()
    glmc: GlmcConfig = GlmcConfig()
