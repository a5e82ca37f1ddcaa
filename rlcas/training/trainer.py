"""One epoch of a classifier under a composition of real and synthetic images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import update_bn

from rlcas.batches.batch_maker import BatchMaker, MiniBatch
from rlcas.batches.composition import EpochPlan, check_divisible, mean_composition
from rlcas.classifiers import snapshot
from rlcas.classifiers.average import WeightAverage
from rlcas.classifiers.batch_norm import check_batch_norm, real_statistics
from rlcas.classifiers.inference import predict_logits, probabilities
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import ClassifierConfig, RunConfig
from rlcas.devices import as_tensor, autocast, place, same_bits
from rlcas.methods import build_objective, check_training_step
from rlcas.methods.objective import Objective
from rlcas.metrics import CLASS_SIGNALS, METRICS, SELECTING, class_signals, per_class_recall, shot_recalls
from rlcas.registry import lookup
from rlcas.seeding import seed_for
from rlcas.shots import shot_groups
from rlcas.types import WHOLE, EpochResult, Incumbent, Int64, Share, SyntheticSource, TrainingData

RECALIBRATION_BATCHES = 16
"""Mini-batches of real images that BatchNorm's statistics of a merged classifier are computed from."""


class ClassifierTrainer:
    """Trains a classifier epoch by epoch; implements `rlcas.types.ShareTrainer`.

    The result of an epoch is a function of the incumbent, the composition, the episode's index and the settings:
    weights, buffers and optimiser are restored first, and every random draw has its own seed.

    Args:
        data: training and validation images.
        config: the run's settings.
        pool: where synthetic images come from.
        device: where images and classifier are.

    Raises:
        UserError: a setting is unknown or not for the method, or the pool does not fit the data.
    """

    def __init__(
        self, data: TrainingData, config: RunConfig, *, pool: SyntheticSource, device: torch.device
    ) -> None:
        check_training_step(config)
        check_batch_norm(config, data.image_shape_CHW, data.num_classes)
        self.num_classes = data.num_classes
        self.config = config
        self.device = device
        self._data = data
        self._val_images = as_tensor(data.val.images_NCHW, device)
        self._val_labels = as_tensor(data.val.labels_N, device)
        train_counts_C = data.train.class_counts(data.num_classes)
        self._class_counts = as_tensor(train_counts_C, device)
        # None: training knows nothing about the test images, not even how many there are.
        self._shots = shot_groups(config.shots, train_counts_C, None)
        self._metric = lookup(config.sampler.metric, SELECTING, "sampler.metric")
        self.model = self._new_model()
        self.batch_maker = BatchMaker(
            data,
            pool,
            config,
            device,
            num_views=self.model.num_views,
            resampling_power=self.model.resampling_power,
        )
        self._optimizer = build_optimizer(
            config.classifier, self.model.parameter_groups(config.classifier.weight_decay)
        )
        # Before the first snapshot, because all snapshots must have the layout of a used optimiser.
        snapshot.materialise(self._optimizer)
        self._average = WeightAverage(self.model, config.classifier.ema_decay)
        self._held: snapshot.Arrays | None = None
        """The state that was taken last, until something is trained."""
        self._initial_arrays = self._taken()
        self._place: tuple[int, Int64, Int64] | None = None

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return the incumbent before the first epoch; a pure function of the run's settings."""
        return Incumbent(
            epoch=0,
            arrays=self._initial_arrays,
            counts_C=counts_C,
            positions_C=np.zeros(self.num_classes, np.int64),
        )

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        """Train one epoch from `incumbent` under `counts_C`, then validate.

        If a loss is not finite, the result is marked so, and neither its metrics nor `trained` may be used.
        """
        return self.train_share(
            incumbent, counts_C, epoch=incumbent.epoch, episode_index=episode_index, share=WHOLE
        )

    def train_share(
        self, incumbent: Incumbent, counts_C: Int64, *, epoch: int, episode_index: int, share: Share
    ) -> EpochResult:
        """Train a part of epoch `epoch` (from 0) from `incumbent`, then validate; otherwise as `train_epoch`.

        Args:
            incumbent: what the episode before it reached, or the incumbent of the epoch before.
            counts_C: [C], the composition.
            epoch: from 0.
            episode_index: j in 0..K-1.
            share: which of the epoch's mini-batches.

        Raises:
            UserError: the epoch has fewer mini-batches than parts.
        """
        # Whole epochs may be short, as those of a judge or of a dry run.
        if share.total > 1:
            check_divisible(self.config.sampler, self.batch_maker.num_steps)
        plan = self.batch_maker.plan(incumbent, counts_C, episode_index, epoch=epoch, share=share)
        with same_bits(self.device):
            self._restore(incumbent.arrays)
            # Nothing is left of earlier epochs, so a retry on another worker has the same bits.
            # Between epochs the model holds the average, so that all who read an incumbent find it in its place.
            self._average.swap()
            train_loss = self._train(plan, epoch, episode_index)
            self._average.swap()
            self._place = (epoch + 1, counts_C, plan.positions_C)
            return self._validate(train_loss, plan.num_images)

    def merged(self, incumbents: Sequence[Incumbent]) -> Incumbent:
        """Return the mean of classifiers that were trained from one: of weights and optimiser states, in float64.

        BatchNorm's running statistics are those of the mean's own features on real images of the epoch, unless the
        classifiers are equal. The composition is the mean one in whole images; the pool goes on behind the last
        image that any of them was shown.
        """
        first, results = incumbents[0], [incumbent.result for incumbent in incumbents if incumbent.result]
        arrays = snapshot.mean([incumbent.arrays for incumbent in incumbents])
        with same_bits(self.device):
            self._restore(arrays)
            if not all(snapshot.equal(incumbent.arrays, arrays) for incumbent in incumbents):
                self._recalibrate(first)
            result = self._validate(
                float(np.mean([result.train_loss for result in results])),
                sum(result.num_images for result in results),
            )
            arrays = self._taken()
        return Incumbent(
            epoch=first.epoch,
            arrays=arrays,
            counts_C=mean_composition([incumbent.counts_C for incumbent in incumbents]),
            positions_C=np.max([incumbent.positions_C for incumbent in incumbents], axis=0),
            result=result,
        )

    def trained(self) -> Incumbent:
        """Return the incumbent that the last `train_epoch` trained."""
        assert self._place is not None, "train_epoch comes first"
        epoch, counts_C, positions_C = self._place
        arrays = self._held = self._taken()
        return Incumbent(epoch=epoch, arrays=arrays, counts_C=counts_C, positions_C=positions_C)

    def _taken(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of all state."""
        return snapshot.take(self.model, self._optimizer, self._average.tensors)

    def _restore(self, arrays: snapshot.Arrays) -> None:
        """Set the classifier and the optimiser to a state, unless they still have it, as after a share of an epoch."""
        if arrays is not self._held:
            snapshot.restore(self.model, self._optimizer, arrays, self._average.tensors)
        self._held = None

    def _recalibrate(self, trained: Incumbent) -> None:
        """Set BatchNorm's running statistics by real images of the epoch, with the weights as they are."""
        epoch = trained.epoch - 1
        plan = self.batch_maker.plan(trained, np.zeros(self.num_classes, np.int64), 0, epoch=epoch)
        batches = itertools.islice(self.batch_maker.batches(plan, epoch, 0), RECALIBRATION_BATCHES)
        # For dropout, which is on beside BatchNorm's own training mode.
        torch.manual_seed(seed_for(self.config.seed, "recalibration", epoch))
        with autocast(self.config.classifier.precision, self.device):
            update_bn((batch.images_NCHW for batch in batches), self.model)

    def _new_model(self) -> Objective:
        with same_bits(self.device):
            # Seeded before the network is built, which draws its weights from torch's global generator.
            torch.manual_seed(seed_for(self.config.seed, "classifier"))
            model = build_objective(ClassifierMeta.of(self._data, self.config))
        return place(model, self.device)

    def _train(self, plan: EpochPlan, epoch: int, episode_index: int) -> float:
        """Train the epoch's steps and return their mean loss."""
        # For dropout and the methods' own draws; before `start_epoch`, in which ProCo draws too.
        torch.manual_seed(seed_for(self.config.seed, "dropout", epoch, episode_index))
        self.model.train()
        # Shares that are trained at once all start from the incumbent of the epoch before.
        starts = plan.steps.start == 0 or self.config.sampler.handover == "merge"
        (self.model.start_epoch if starts else self.model.continue_epoch)(epoch, self.config.sampler.epochs)
        class_counts = self._prior(plan)
        total = torch.zeros((), device=self.device)
        batches = self.batch_maker.batches(plan, epoch, episode_index)
        for step, batch in zip(plan.steps, batches, strict=True):
            # From the step alone: torch's schedulers have a state, which no incumbent carries.
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr(epoch * self.batch_maker.num_steps + step)
            with autocast(self.config.classifier.precision, self.device), self._statistics(batch):
                loss = self.model.loss(batch, class_counts)
            self._optimizer.zero_grad()  # before backward: an epoch that failed midway leaves gradients behind
            loss.backward()
            self._optimizer.step()
            self._average.update(epoch * self.batch_maker.num_steps + step)
            total += loss.detach()  # with its graph, the sum would keep every step's activations
        return total.item() / len(plan.real_batches)  # read once an epoch: every read waits for a GPU

    def _statistics(self, batch: MiniBatch) -> AbstractContextManager[object]:
        """Return the context of a step in which BatchNorm follows `sampler.batch_norm`."""
        num_images = len(batch.labels_N)
        real_alone = self.config.sampler.batch_norm == "real"
        return real_statistics(batch.num_real if real_alone else num_images, num_images)

    def _prior(self, plan: EpochPlan) -> Tensor:
        """Return [C]: the class counts of the training loss, by `sampler.prior`.

        A class without images in the epoch counts as one image: losses divide by the counts and take their logarithm.
        """
        if self.config.sampler.prior == "real":
            return self._class_counts
        shown_C = plan.shown_C(self._data.train.labels_N, self.config.sampler.synthetic_weight)
        return as_tensor(np.where(shown_C > 0, shown_C, 1), self.device)

    def _validate(self, train_loss: float, num_images: int) -> EpochResult:
        """Return the metrics on the validation images; their loss always has the real prior."""
        normalisation, labels_N = self.batch_maker.normalisation, self._data.val.labels_N
        logits = predict_logits(
            self.model, self._val_images, normalisation, self.config.classifier, self.device
        )
        # Before the metrics and the snapshot, which depend on what is chosen here; NaN has no meaningful score.
        if logits.isfinite().all():
            logits = self.model.calibrate(logits, self._val_labels, self._score)
        val_loss = self.model.validation_loss(logits, self._val_labels, self._class_counts).item()
        finite = math.isfinite(train_loss) and math.isfinite(val_loss)
        # NaN logits would still have an argmax, and so an accuracy.
        recall_C = np.full(self.num_classes, np.nan)
        per_class = dict.fromkeys(CLASS_SIGNALS, recall_C)
        figures = dict.fromkeys(METRICS, math.nan)
        if finite:
            p_NC = probabilities(logits)
            recall_C = per_class_recall(p_NC, labels_N)
            per_class = class_signals(p_NC, labels_N)
            figures = {name: metric(p_NC, labels_N) for name, metric in METRICS.items()}
        return EpochResult(
            metrics={**figures, **shot_recalls(recall_C, self._shots)},
            val_loss=val_loss,
            train_loss=train_loss,
            per_class=per_class,
            num_images=num_images,
            finite=finite,
        )

    def _score(self, logits_NC: Tensor, labels_N: Tensor) -> float:
        """Return `sampler.metric` of logits [N, C]."""
        return self._metric(probabilities(logits_NC), labels_N.cpu().numpy())

    def _lr(self, step: int) -> float:
        """Return the learning rate of global step `step`: a half cosine over the run's steps."""
        settings = self.config.classifier
        if settings.lr_schedule == "constant":
            return settings.lr
        progress = step / (self.config.sampler.epochs * self.batch_maker.num_steps)
        return 0.5 * settings.lr * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_optimizer(config: ClassifierConfig, groups: Iterable[Any]) -> torch.optim.Optimizer:
    """Return the optimiser of the setting `classifier.optimizer`.

    Args:
        config: the classifier's settings.
        groups: parameters, or groups of them with settings of their own.
    """
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=config.weight_decay,
        fused=True,
    )
