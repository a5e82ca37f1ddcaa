"""CBFocal: a focal loss, weighted by the effective number of images of each class."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import class_balanced_focal, class_balanced_softmax_focal
from rlcas.methods.features import last_linear
from rlcas.methods.method import Method
from rlcas.methods.objective import Objective, new_classifier

LOSS_BY_KIND = {"sigmoid": class_balanced_focal, "softmax": class_balanced_softmax_focal}


class ClassBalancedFocal(Objective):
    """One classifier under a class-balanced focal loss.

    With the kind sigmoid the C outputs start at the probability 1/C: the bias of the last layer is -log(C - 1), and
    has no weight decay, which would pull it back to 0 (section 4 of the paper).
    """

    weighs_images = True
    normalises_each_image_once = True

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self.settings = meta.method.cbfocal
        self.classifier = new_classifier(meta)
        self._loss = LOSS_BY_KIND[self.settings.kind]
        if self.settings.kind == "sigmoid":
            # σ(-log(C - 1)) = 1/C
            nn.init.constant_(last_linear(self.classifier, meta).bias, -math.log(meta.num_classes - 1))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C] logits; under both kinds the largest is the most probable class."""
        return self.classifier(images_NCHW)

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the focal loss of the one view."""
        logits_NC, labels_N = self.classifier(batch.images_NCHW).float(), batch.labels_N
        return batch.weighted_mean(lambda rows: self.validation_loss(logits_NC[rows], labels_N[rows], counts_C))

    def validation_loss(self, logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        """Return the same loss of the validation images."""
        return self._loss(logits_NC, labels_N, counts_C, beta=self.settings.beta, gamma=self.settings.gamma)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return all parameters in one group; with the kind sigmoid the last layer's bias in another, without decay."""
        (everything,) = super().parameter_groups(weight_decay)
        if self.settings.kind == "softmax":
            return [everything]
        bias = last_linear(self.classifier, self.meta).bias
        # By `is`: == of tensors compares their elements.
        others = [parameter for parameter in everything["params"] if parameter is not bias]
        return [{**everything, "params": others}, {"params": [bias], "weight_decay": 0.0}]


CBFOCAL = Method(
    title="CBFocal",
    source="Cui et al. 2019",
    objective=ClassBalancedFocal,
    search={
        "method.cbfocal.beta": (0.9, 0.99, 0.999, 0.9999),
        "method.cbfocal.gamma": (0.5, 1.0, 2.0),
    },
)
