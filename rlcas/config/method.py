"""Settings of the compared methods: what is a method's own, with its authors' defaults."""

from __future__ import annotations

from rlcas.config.values import NonNegative, Positive, PositiveCount, Prompt, Settings


class LiftConfig(Settings):
    """LIFT (Shi et al. 2024): a frozen CLIP with adapters, and a cosine head that starts from text."""

    pretrained: str | None = None
    """Folder or hub name of a CLIP in transformers' layout, such as openai/clip-vit-base-patch16 (0.6 GB)."""
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


class MethodConfig(Settings):
    """What each compared method has of its own."""

    lift: LiftConfig = LiftConfig()
    freemask: FreeMaskConfig = FreeMaskConfig()
