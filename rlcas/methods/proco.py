"""ProCo: contrast with infinitely many samples of each class's von Mises-Fisher density."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import logit_adjusted
from rlcas.methods.features import split_classifier
from rlcas.methods.method import Method
from rlcas.methods.objective import Objective
from rlcas.methods.von_mises_fisher import ClassDirections, log_scaled_bessel

NUM_VIEWS = 3
"""One for the linear layer, two for the contrast."""


class ProbabilisticContrast(Objective):
    """A linear layer on one view, and on two more the contrast of projections z with every class (Du et al. 2024).

    The loss is LA(fc(f_1)) + α/2 [LA(l(z_2)) + LA(l(z_3))]: LA is the logit-adjusted cross-entropy and l_c(z) the
    logarithm of E exp(zᵀz'/τ) over the class's density, through which no gradient flows. The density's estimate
    continues that of the last epoch, while a new one starts from zero for the next. The linear layer predicts.
    """

    num_views = NUM_VIEWS

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self.settings = meta.method.proco
        self.backbone, self.fc = split_classifier(meta)
        self.projection = nn.Sequential(
            nn.Linear(self.fc.in_features, self.settings.hidden_dim),
            nn.BatchNorm1d(self.settings.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(self.settings.hidden_dim, self.settings.projection_dim),
        )
        self.directions = ClassDirections(meta.num_classes, self.settings.projection_dim)
        self.next_directions = ClassDirections(meta.num_classes, self.settings.projection_dim)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C] logits of the linear layer."""
        return self.fc(self.backbone(images_NCHW))

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        """Continue with the estimate that the last epoch started, and start a new one for the next epoch."""
        self.directions.take_over(self.next_directions)
        self.next_directions.reset()

    def continue_epoch(self, epoch: int, num_epochs: int) -> None:
        """Do nothing: both estimates are buffers, and go on."""

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the loss of the three views, which pass the backbone as one batch."""
        num_images = len(batch.labels_N)
        features = self.backbone(torch.cat(batch.views))
        logits_NC = self.fc(features[:num_images]).float()
        # Both views in one batch, so that the projection's BatchNorm has at least two rows even for a single image.
        z = F.normalize(self.projection(features[num_images:]).float(), dim=1)
        contrast = [
            logit_adjusted(self._contrast(z_NP, batch.labels_N), batch.labels_N, counts_C)
            for z_NP in z.split(num_images)
        ]
        supervised = logit_adjusted(logits_NC, batch.labels_N, counts_C)
        return supervised + self.settings.alpha * torch.stack(contrast).mean()

    def validation_loss(self, logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
        """Return the loss of the linear layer."""
        return logit_adjusted(logits_NC, labels_N, counts_C)

    def _contrast(self, z_NP: Tensor, labels_N: Tensor) -> Tensor:
        """Add a view to both estimates; return its [N, C] contrastive logits."""
        for directions in (self.directions, self.next_directions):
            # Detached: no gradient flows into the densities. Each view counts before it is compared.
            directions.update(z_NP.detach(), labels_N)
        return contrastive_logits(z_NP, self.directions.scaled_means(), self.settings.temperature)


def contrastive_logits(z_NP: Tensor, scaled_means_CP: Tensor, temperature: float) -> Tensor:
    """Return [N, C] float32: l_c(z) = G(|κ_c μ_c + z/τ|) - G(κ_c), G(κ) = log I_v(κ) - v log κ.

    This is log E exp(zᵀz'/τ) for z' from the density of class c (Du et al. 2024, proposition 1).

    Args:
        z_NP: unit features.
        scaled_means_CP: κ μ of each class, float64.
        temperature: τ.
    """
    order = z_NP.shape[1] / 2 - 1
    scaled_NP = z_NP.double() / temperature
    # |κ μ + z/τ|² = κ² + |z/τ|² + 2 κ μᵀz/τ: [C], [N, 1] and [N, C], without a tensor [N, C, P].
    own_C = scaled_means_CP.square().sum(dim=1)
    shift_NC = scaled_NP.square().sum(dim=1, keepdim=True) + 2 * scaled_NP @ scaled_means_CP.T
    # A square that round-off can make negative where z/τ is opposite to κ μ.
    shifted_NC = (own_C + shift_NC).clamp_min(0)
    return (log_scaled_bessel(shifted_NC, order) - log_scaled_bessel(own_C, order)).float()


PROCO = Method(
    title="ProCo",
    source="Du et al. 2024",
    objective=ProbabilisticContrast,
    # Its rows of a comparison add no images.
    settings={"sampler.synthetic_weight": 1.0, "sampler.batch_norm": "all"},
    search={
        "method.proco.alpha": (0.5, 1.0, 2.0),
        "method.proco.temperature": (0.07, 0.1, 0.2),
    },
    passes=lambda config: NUM_VIEWS,
)
