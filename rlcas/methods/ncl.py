"""NCL: experts that learn together and from each other, over all classes and over the hardest ones."""

from __future__ import annotations

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import balanced_softmax
from rlcas.methods.method import Method
from rlcas.methods.objective import Objective, new_classifier

EXCLUDED = -1e9
"""Logit of an excluded class: its probability is 0, and unlike -inf it gives the divergence no NaN."""


class NestedCollaboration(Objective):
    """K independent classifiers on the same images (Li et al. 2022); their mean logits predict.

    With z_k the logits of expert k, b_k = z_k + log n and h_k the same over the hard classes of each image, the loss
    is Σ_k CE(b_k) + r Σ_k CE(h_k) + KL(b) + KL(h): the KL terms, in both directions, make the experts agree. The hard
    classes are those of the first expert's largest logits, always with the label. The paper's optional third part, a
    self-supervised contrast (MoCo) in each expert, is not implemented.
    """

    weighs_images = True
    normalises_each_image_once = True

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self.settings = meta.method.ncl
        self.experts = nn.ModuleList(new_classifier(meta) for _ in range(self.settings.experts))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C]: the mean of the experts' logits."""
        return self._logits(images_NCHW).mean(dim=0)

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the nested losses of the one view."""
        logits_KNC, labels_N = self._logits(batch.images_NCHW), batch.labels_N
        return batch.weighted_mean(
            lambda rows: self._nested_loss(logits_KNC[:, rows], labels_N[rows], counts_C)
        )

    def _nested_loss(self, logits_KNC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        settings = self.settings
        # z + log n: Balanced Softmax
        balanced_KNC = logits_KNC + counts_C.float().log()
        # From the first expert's raw logits, as in the authors' code.
        hard_NC = hard_classes(logits_KNC[0].detach(), labels_N, settings.hcm_share)
        # The authors' code multiplies by a mask, which leaves excluded classes the logit 0.
        fill = 0.0 if settings.hcm_fill == "zero" else EXCLUDED
        nested_KNC = balanced_KNC.masked_fill(~hard_NC, fill)
        supervised = summed_cross_entropy(balanced_KNC, labels_N)
        hard_supervised = summed_cross_entropy(nested_KNC, labels_N)
        return (
            supervised
            + settings.hcm_weight * hard_supervised
            + settings.distillation * mutual_divergence(balanced_KNC)
            + settings.hcm_distillation * mutual_divergence(nested_KNC)
        )

    def validation_loss(self, logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        """Return the Balanced Softmax of the mean logits."""
        return balanced_softmax(logits_NC, labels_N, counts_C)

    def _logits(self, images_NCHW: Tensor) -> Tensor:
        return torch.stack([expert(images_NCHW).float() for expert in self.experts])


def hard_classes(logits_NC: Tensor, labels_N: Tensor, share: float) -> Tensor:
    """Return [N, C] bool: the label and the classes of the largest other logits, together max(2, round(share C))."""
    num_classes = logits_NC.shape[1]
    # +∞ puts the label among the largest. Ties with the least of them are taken too.
    logits_NC = logits_NC.masked_fill(F.one_hot(labels_N, num_classes).bool(), torch.inf)
    least_N1 = logits_NC.topk(max(2, round(share * num_classes)), dim=1).values[:, -1:]
    return logits_NC >= least_N1


def summed_cross_entropy(logits_KNC: Tensor, labels_N: Tensor) -> Tensor:
    """Return the experts' mean cross-entropies, summed over the K experts."""
    return torch.stack([F.cross_entropy(logits_NC, labels_N) for logits_NC in logits_KNC]).sum()


def mutual_divergence(logits_KNC: Tensor) -> Tensor:
    """Return Σ_{i≠j} KL(p_j ‖ p_i) / (K - 1), the mean over images; gradients flow into both sides."""
    log_p_KNC = logits_KNC.log_softmax(dim=2)
    divergences = [
        # F.kl_div(input, target) is KL(target ‖ input); "batchmean" divides by the images, "mean" by N·C.
        F.kl_div(log_p_i, log_p_j, log_target=True, reduction="batchmean")
        for log_p_i, log_p_j in permutations(log_p_KNC, 2)
    ]
    return torch.stack(divergences).sum() / (len(logits_KNC) - 1)


NCL = Method(
    title="NCL",
    source="Li et al. 2022",
    objective=NestedCollaboration,
    search={
        "method.ncl.distillation": (0.3, 0.6, 1.0),
        "method.ncl.hcm_distillation": (0.3, 0.6, 1.0),
    },
    passes=lambda config: config.method.ncl.experts,
)
