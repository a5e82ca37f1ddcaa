"""An ensemble of independent classifiers, whose mean probability predicts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import LOSSES
from rlcas.methods.method import Method, k_passes
from rlcas.methods.objective import Objective, new_classifier
from rlcas.methods.paper_rows import BASELINE
from rlcas.registry import lookup


class Ensemble(Objective):
    """K = `sampler.k` classifiers from initial weights of their own, on the same images.

    Each learns from its own loss of `classifier.loss`, as it would alone; log of their mean probability predicts.
    """

    weighs_images = True
    normalises_each_image_once = True

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self.members = nn.ModuleList(new_classifier(meta) for _ in range(meta.members))
        self._loss = lookup(meta.classifier.loss, LOSSES, "classifier.loss")

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C]: log of the members' mean probability."""
        log_p_KNC = self._logits(images_NCHW).log_softmax(dim=2)
        return log_p_KNC.logsumexp(dim=0) - math.log(len(self.members))

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the sum of the members' losses of the one view, so that each has the gradient that it has alone."""
        logits_KNC, labels_N = self._logits(batch.images_NCHW), batch.labels_N

        def summed(rows: slice) -> Tensor:
            losses = [self._loss(logits_NC[rows], labels_N[rows], counts_C) for logits_NC in logits_KNC]
            return torch.stack(losses).sum()

        return batch.weighted_mean(summed)

    def validation_loss(self, logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        """Return the loss of `classifier.loss` of the ensemble's prediction."""
        return self._loss(logits_NC, labels_N, counts_C)

    def _logits(self, images_NCHW: Tensor) -> Tensor:
        return torch.stack([member(images_NCHW).float() for member in self.members])


BASELINE_ENSEMBLE = Method(
    title="Baseline, ensemble of K",
    source="control of RL-CAS",
    objective=Ensemble,
    settings=BASELINE.settings,
    passes=k_passes,
    control=True,
)
"""K Baselines that predict together: RL-CAS's compute without RL, and without a selection on validation images."""
