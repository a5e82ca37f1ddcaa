"""The training objective of a method: its network with all that is trained, and the loss of a batch."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers import build_classifier
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import LOSSES
from rlcas.registry import lookup

Score = Callable[[Tensor, Tensor], float]
"""A metric of logits [N, C] and labels [N], the larger the better."""


class Objective(nn.Module, abc.ABC):
    """A method's network, its state and its loss; called with images, it predicts.

    All state that carries over from step to step must be a parameter or a buffer: the incumbent consists of these
    alone. Random numbers must come from torch's global generator, which is seeded for every epoch.

    Args:
        meta: settings, classes and images of the classifier.
    """

    num_views: int = 1
    """Augmentations of each image in a step."""
    resampling_power: float | None = None
    """q of a second batch whose images are drawn with probability ~ n_c^-q; None for no second batch."""
    weighs_images: bool = False
    """Whether the loss is a mean over images that `MiniBatch.weighted_mean` takes, so that it weighs synthetic ones by
    `sampler.synthetic_weight`."""
    normalises_each_image_once: bool = False
    """Whether every BatchNorm of a step sees each image of the batch once, in the batch's order, which
    `sampler.batch_norm real` needs."""

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__()
        self.meta = meta

    @abc.abstractmethod
    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C] logits of normalised images, as the method predicts."""

    @abc.abstractmethod
    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the training loss of a step.

        Args:
            batch: the step's images.
            counts_C: [C] class counts of the loss (`sampler.prior`), all above 0.
        """

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        """Prepare for epoch `epoch` (from 0) of `num_epochs`."""

    def continue_epoch(self, epoch: int, num_epochs: int) -> None:
        """Prepare for another share of an epoch, perhaps in another process than the share before it."""
        self.start_epoch(epoch, num_epochs)

    def validation_loss(self, logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        """Return the loss of predictions on the validation images, which breaks ties."""
        return F.cross_entropy(logits_NC, labels_N)

    def calibrate(self, logits_NC: Tensor, labels_N: Tensor, score: Score) -> Tensor:
        """Set what is chosen on the validation images after an epoch; return their logits as predicted from now on."""
        return logits_NC

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return the trained parameters as groups for the optimiser."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": trained, "weight_decay": weight_decay}]


class LossOnLogits(Objective):
    """One classifier and the loss of `classifier.loss`."""

    weighs_images = True
    normalises_each_image_once = True

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self.classifier = new_classifier(meta)
        self._loss = lookup(meta.classifier.loss, LOSSES, "classifier.loss")

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C] logits."""
        return self.classifier(images_NCHW)

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the loss of the one view."""
        logits_NC, labels_N = self.classifier(batch.images_NCHW).float(), batch.labels_N
        return batch.weighted_mean(lambda rows: self._loss(logits_NC[rows], labels_N[rows], counts_C))

    def validation_loss(self, logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        """Return the same loss of the validation images."""
        return self._loss(logits_NC, labels_N, counts_C)


def new_classifier(meta: ClassifierMeta) -> nn.Module:
    """Return a new network of `classifier.backbone` with its linear layer."""
    channels, height, _ = meta.image_shape
    return build_classifier(meta.classifier, channels=channels, num_classes=meta.num_classes, size_px=height)
