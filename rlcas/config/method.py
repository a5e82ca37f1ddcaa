"""Settings of the compared methods: what is a method's own, with its authors' defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlcas.config.values import Decay, Fraction, NonNegative, Positive, PositiveCount, Prompt, Settings


class LiftConfig(Settings):
    """LIFT (Shi et al. 2024): a frozen CLIP with adapters, and a cosine head that starts from text."""

    pretrained: str | None = None
    """Folder or hub name of a CLIP in transformers' layout, such as openai/clip-vit-base-patch16 (0.6 GB); it must be
    given."""
    prompt: Prompt = "a photo of a {class}."
    """What the text encoder is given of a class; {class} becomes its name."""
    names: tuple[str, ...] | None = None
    """Full names of the classes for the prompt, in their order. None: as the data has them."""
    adapter_dim: PositiveCount | None = None
    """Width of the adapters' bottleneck. None: the authors' rule, about C / 2L for C classes and L blocks."""
    scale: Positive = 25.0
    """What the cosines of features and classes are multiplied by."""
    tte: bool = True
    """Predict the mean of five crops of the image (test-time ensembling)."""


class FreeMaskConfig(Settings):
    """FreeMask's filter and re-sampling by hardness (Yang et al. 2023), adapted to classification."""

    tolerance: NonNegative = 1.25
    """Synthetic images are left out whose loss is above this many times the mean of their class's real images."""
    nmax: PositiveCount = 20
    """Synthetic images that the hardest real image grants its class, before the list is fitted to the pool."""


class CbFocalConfig(Settings):
    """Class-balanced focal loss (`cbfocal`)."""

    kind: Literal["sigmoid", "softmax"] = "sigmoid"
    """sigmoid: C one-against-all problems, as the authors'; softmax: the focal loss of the class probabilities."""
    beta: Decay = 0.9999
    """β of the effective number of images: 0 weighs all classes alike, towards 1 by their inverse frequency."""
    gamma: NonNegative = 1.0
    """γ, the focus on images that are not learnt yet; 0 has none."""


class LogitAdjustConfig(Settings):
    """Logit adjustment (`logit_adjust`)."""

    mode: Literal["posthoc", "loss"] = "posthoc"
    """posthoc: train plain cross-entropy and take τ log π off the logits; loss: add it to them in training."""
    tau: Positive = 1.0
    """τ of mode loss; 1 is the Balanced Softmax."""
    taus: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.5, 1.0, 1.5, 2.0)
    """Values of τ of which validation takes one, in mode posthoc."""


class ProCoConfig(Settings):
    """Probabilistic contrastive learning (`proco`)."""

    alpha: NonNegative = 1.0
    """α, the weight of the contrastive loss."""
    temperature: Positive = 0.1
    """τ of the contrastive loss (0.07 in the authors' larger data sets)."""
    hidden_dim: PositiveCount = 512
    """Hidden width of the projection."""
    projection_dim: Annotated[int, Field(ge=16)] = 128
    """p, the dimension of the sphere that contrast happens on."""


class NclConfig(Settings):
    """Nested collaborative learning (`ncl`)."""

    experts: Annotated[int, Field(ge=2)] = 3
    """Networks that learn side by side and from each other."""
    hcm_share: Fraction = 0.3
    """Share of the classes, two at least, that are an image's hard ones (hard category mining)."""
    hcm_fill: Literal["zero", "minus_infinity"] = "zero"
    """Logits of the other classes in the loss over the hard ones: 0 as the authors', or left out altogether."""
    hcm_weight: NonNegative = 1.0
    """Weight of the cross-entropy over the hard classes."""
    distillation: NonNegative = 0.6
    """Weight of what the experts learn from each other over all classes."""
    hcm_distillation: NonNegative = 0.6
    """Weight of what they learn from each other over the hard classes."""


class GlmcConfig(Settings):
    """Global and local mixture consistency (`glmc`)."""

    resampling_power: NonNegative = 0.0
    """q: images of the second batch are drawn with probability ~ n_c^-q; at 0 without replacement."""
    label_power: NonNegative = 1.2
    """k: labels of the balanced loss weigh ~ n_c^-k."""
    consistency: NonNegative = 1.0
    """Weight of the agreement between the two mixtures (the authors' are 1 for 10 classes, 4 to 10 for more)."""
    projection_dim: PositiveCount = 128
    """Dimension in which they shall agree."""


class MethodConfig(Settings):
    """What each compared method has of its own."""

    lift: LiftConfig = LiftConfig()
    freemask: FreeMaskConfig = FreeMaskConfig()
    cbfocal: CbFocalConfig = CbFocalConfig()
    logit_adjust: LogitAdjustConfig = LogitAdjustConfig()
    proco: ProCoConfig = ProCoConfig()
    ncl: NclConfig = NclConfig()
    glmc: GlmcConfig = GlmcConfig()
