"""GLMC: consistency of two mixtures of a batch with a re-sampled one, and labels that move to class weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.methods.features import split_classifier
from rlcas.methods.method import Method
from rlcas.methods.objective import Objective

NUM_VIEWS = 2
"""One for MixUp, one for CutMix."""


class MixtureConsistency(Objective):
    """Global and local mixture consistency cumulative learning (Du et al. 2023).

    g is the MixUp and l the CutMix of an image and one of the second batch, with labels y mixed alike. The loss is
    a [CE(fc(g), y) + CE(fc(l), y)] + (1 - a) [CE(fc_cb(g), wy) + CE(fc_cb(l), wy)] + c [D(g, l) + D(l, g)], with
    w_c ∝ n_c^-k and D(g, l) = -cos(pred(proj(g)), sg proj(l)). a = 1 - (t/T)² moves from the plain to the weighted
    labels. The layer fc_cb predicts.
    """

    num_views = NUM_VIEWS
    normalises_each_image_once = True

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self.settings = meta.method.glmc
        self.resampling_power = self.settings.resampling_power
        self.backbone, self.fc = split_classifier(meta)
        dim = self.settings.projection_dim
        self.fc_cb = nn.Linear(self.fc.in_features, meta.num_classes)
        self.projection = nn.Linear(self.fc.in_features, dim)
        self.predictor = nn.Linear(dim, dim)
        # No buffer: it follows from the epoch alone, and `start_epoch` sets it.
        self.plain_share = 1.0

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C] logits of the layer that learns from weighted labels."""
        return self.fc_cb(self.backbone(images_NCHW))

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        """Set the weight a of the plain labels."""
        self.plain_share = 1 - (epoch / num_epochs) ** 2

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the loss of the two mixtures."""
        assert batch.resampled is not None
        # λ ~ Beta(1, 1), one for the batch, drawn on the CPU: reading a number off a GPU waits for the GPU.
        share = torch.rand(()).item()
        images = (
            mixup(batch.views[0], batch.resampled.views[0], share),
            cutmix(batch.views[1], batch.resampled.views[1], share),
        )
        labels_NC = share * F.one_hot(batch.labels_N, len(counts_C))
        labels_NC = labels_NC + (1 - share) * F.one_hot(batch.resampled.labels_N, len(counts_C))
        mixtures = [self.backbone(images_NCHW) for images_NCHW in images]
        plain = soft_cross_entropy(self.fc, mixtures, labels_NC)
        weights_C = label_weights(counts_C, self.settings.label_power)
        # Rows of labels that do not sum to 1: torch computes -Σ_c y_c log p_c as it stands.
        weighted = soft_cross_entropy(self.fc_cb, mixtures, weights_C * labels_NC)
        # a [...] + (1 - a) [...] + c [D(g, l) + D(l, g)], D = -cos
        supervised = self.plain_share * plain + (1 - self.plain_share) * weighted
        return supervised - self.settings.consistency * self._agreement(*mixtures)

    def _agreement(self, features_g: Tensor, features_l: Tensor) -> Tensor:
        """Return -D(g, l) - D(l, g)."""
        z_g, z_l = self.projection(features_g).float(), self.projection(features_l).float()
        predicted_g, predicted_l = self.predictor(z_g).float(), self.predictor(z_l).float()
        # Stop-gradient (sg): each side learns to predict the other, which is held fixed.
        agreement_N = F.cosine_similarity(predicted_g, z_l.detach())
        return (agreement_N + F.cosine_similarity(predicted_l, z_g.detach())).mean()


def soft_cross_entropy(head: nn.Module, mixtures: list[Tensor], labels_NC: Tensor) -> Tensor:
    """Return the mean cross-entropies with label weights, summed over the mixtures' features."""
    losses = [F.cross_entropy(head(features).float(), labels_NC) for features in mixtures]
    return torch.stack(losses).sum()


def label_weights(counts_C: Tensor, power: float) -> Tensor:
    """Return [C]: w_c ∝ n_c^-power with Σ_c w_c = C."""
    weights_C = counts_C.float() ** -power
    return weights_C * len(weights_C) / weights_C.sum()


def mixup(images_NCHW: Tensor, others_NCHW: Tensor, share: float) -> Tensor:
    """Return share x images + (1 - share) x others."""
    return share * images_NCHW + (1 - share) * others_NCHW


def cutmix(images_NCHW: Tensor, others_NCHW: Tensor, share: float) -> Tensor:
    """Return the images with one box of the others pasted in, of about 1 - share of the area.

    The box has the image's aspect ratio and a random centre, and is cropped at the image's borders; the share in the
    labels is not corrected for the crop.
    """
    height, width = images_NCHW.shape[2:]
    rows = _box(height, share)
    columns = _box(width, share)
    mixed_NCHW = images_NCHW.clone()
    mixed_NCHW[:, :, rows, columns] = others_NCHW[:, :, rows, columns]
    return mixed_NCHW


def _box(side_px: int, share: float) -> slice:
    """Return the range of a box of relative length sqrt(1 - share) along a side."""
    length_px = int(side_px * (1 - share) ** 0.5)
    centre = int(torch.randint(side_px, ()))
    return slice(max(centre - length_px // 2, 0), min(centre + length_px // 2, side_px))


GLMC = Method(
    title="GLMC",
    source="Du et al. 2023",
    objective=MixtureConsistency,
    # Its rows of a comparison add no images.
    settings={"sampler.synthetic_weight": 1.0},
    search={
        "method.glmc.resampling_power": (0.0, 0.2),
        "method.glmc.label_power": (1.0, 1.2),
        "method.glmc.consistency": (1.0, 2.0, 4.0),
    },
    passes=lambda config: NUM_VIEWS,
)
