"""Logit adjustment: the logarithm of the class prior, subtracted from the logits or added in training."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.methods.method import Method
from rlcas.methods.objective import Objective, Score, new_classifier


class LogitAdjustment(Objective):
    """One classifier and a multiple τ of log π, with π the class shares of its training (Menon et al. 2021).

    Mode posthoc (eq. 9) trains plain cross-entropy and predicts z - τ log π, with the τ that is best on the validation
    images after each epoch; of equal ones the first. Mode loss (eq. 10) trains the cross-entropy of z + τ log π and
    predicts z.
    """

    weighs_images = True
    normalises_each_image_once = True
    tau: Tensor
    """τ of the prediction; 0 until one is chosen on the validation images."""
    log_prior_C: Tensor
    """log π of the training images."""

    def __init__(self, meta: ClassifierMeta) -> None:
        super().__init__(meta)
        self.settings = meta.method.logit_adjust
        self.classifier = new_classifier(meta)
        counts_C = Tensor(meta.train_counts)
        # Buffers, so that the τ that was chosen is saved and restored with the weights.
        self.register_buffer("tau", counts_C.new_zeros(()))
        self.register_buffer("log_prior_C", log_prior(counts_C))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return [N, C] logits, adjusted in mode posthoc."""
        # z - τ log π (eq. 9)
        return self.classifier(images_NCHW).float() - self.tau * self.log_prior_C

    def loss(self, batch: MiniBatch, counts_C: Tensor) -> Tensor:
        """Return the cross-entropy of the one view, of z or of z + τ log π."""
        # Kept for prediction: under `sampler.prior` effective the shares change with the composition.
        self.log_prior_C.copy_(log_prior(counts_C))
        tau = self.settings.tau if self.settings.mode == "loss" else 0.0
        logits_NC = self.classifier(batch.images_NCHW).float()
        # z + τ log π (eq. 10)
        adjusted_NC = logits_NC + tau * self.log_prior_C
        return batch.weighted_mean(lambda rows: F.cross_entropy(adjusted_NC[rows], batch.labels_N[rows]))

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        """Set τ to 0."""
        self.tau.zero_()

    def calibrate(self, logits_NC: Tensor, labels_N: Tensor, score: Score) -> Tensor:
        """Set τ to the one of `method.logit_adjust.taus` with the best score; return the logits adjusted by it."""
        if self.settings.mode == "loss":
            return logits_NC
        # The logits come from `forward`, which has subtracted the present τ.
        plain_NC = logits_NC + self.tau * self.log_prior_C
        scores = {tau: score(plain_NC - tau * self.log_prior_C, labels_N) for tau in self.settings.taus}
        self.tau.fill_(max(scores, key=scores.__getitem__))
        return plain_NC - self.tau * self.log_prior_C


def log_prior(counts_C: Tensor) -> Tensor:
    """Return [C]: log π_c = log(n_c / Σ n)."""
    counts_C = counts_C.float()
    return (counts_C / counts_C.sum()).log()


LOGIT_ADJUST = Method(
    title="Logit-Adjust",
    source="Menon et al. 2021",
    objective=LogitAdjustment,
)
