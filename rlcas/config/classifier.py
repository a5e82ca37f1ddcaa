"""Settings of the classifier."""

from __future__ import annotations

from typing import Literal

from rlcas.config.values import Count, Decay, NonNegative, Positive, PositiveCount, Settings


class ClassifierConfig(Settings):
    """The classifier and its training."""

    backbone: str = "resnet18"
    """Any timm model name, hf_hub:OWNER/NAME on the Hugging Face hub, or package.module:function."""
    width: PositiveCount | None = None
    """Channels of the first stage of a ResNet (64 as published). None: the backbone's own."""
    pretrained: bool = False
    """Start from timm's pretrained weights (downloads them once)."""
    small_stem_below_px: Count = 96
    """A ResNet for smaller images gets a 3x3 stem of stride 1 without pooling."""
    method: str = "baseline"
    """The method whose training step is used: a name in rlcas.methods.METHODS, or package.module:object."""
    loss: str = "balanced_softmax"
    """A name in rlcas.losses.LOSSES, or package.module:function."""
    offset: Literal["none", "calibrated"] = "none"
    """Decision offset d: predictions are the argmax of the logits minus d. calibrated: fitted on validation images by
    their class-balanced log-likelihood, once, when the trained classifier is saved."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimiser of the classifier (SGD with Nesterov momentum 0.9)."""
    lr: Positive = 1e-3
    """Learning rate at the start."""
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the run's steps."""
    weight_decay: NonNegative = 5e-4
    """Decoupled weight decay (AdamW) or L2 (SGD)."""
    ema_decay: Decay | None = None
    """Decay of an exponential moving average of the weights, which is validated, selected and saved in their place.
    None: no average."""
    batch_size: PositiveCount = 128
    """Real images in a mini-batch; synthetic ones are added to them or replace some (`sampler.batch_mode`)."""
    augment: Literal["none", "light"] = "light"
    """light: horizontal flip, small rotation, shift and scale, small brightness and contrast change."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that supports it, fp32 elsewhere."""
