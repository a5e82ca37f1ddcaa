"""The objects that are passed between processes and packages.

Shapes: N images, C classes, H height, W width, channels in NCHW's second place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rlcas.jsonable import jsonable

Uint8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

Status = Literal["ok", "exception", "out_of_memory", "non_finite", "died"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Labelled images of one split, in memory or mapped from disk."""

    images_NCHW: Uint8
    """[N, channels, H, W] uint8, channels 1 or 3."""
    labels_N: Int64
    """[N] int64 in 0..C-1."""
    patients_N: NDArray[np.str_] | None = None
    """[N] patient ids, where the source has them."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    def class_counts(self, num_classes: int) -> Int64:
        """Return [C] int64: images of each class."""
        return np.bincount(self.labels_N, minlength=num_classes).astype(np.int64)

    def take(self, indices: Int64) -> ImageSet:
        """Return the images at `indices`, in that order."""
        patients_N = None if self.patients_N is None else self.patients_N[indices]
        return ImageSet(
            images_NCHW=self.images_NCHW[indices], labels_N=self.labels_N[indices], patients_N=patients_N
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """Which images one split of a run holds."""

    names: tuple[str, ...]
    """[N] names in the source: paths, or `train 12`."""
    labels_N: Int64
    """[N] int64 in 0..C-1."""
    digests: tuple[str, ...]
    """[N] hash of shape, dtype and exact pixels as they were decoded, hexadecimal."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecord:
    """Which images each split of a run holds, decided once (`rlcas.data.record`)."""

    class_names: tuple[str, ...]
    parts: Mapping[str, PartRecord]
    """`train`, `val`, `test` if there is one, and `unused`: those that a long tail leaves out."""
    window: tuple[float, float] | None
    """Values of images of more than 8 bits that become 0 and 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The parts of a data set that training sees; `rlcas.data.load_test` reads the test images."""

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    notes: tuple[str, ...] = ()
    """Findings for the user to read: identical images across splits, resizing, thinning."""
    window: tuple[float, float] | None = None
    """Values of images of more than 8 bits that became 0 and 255; None where all had 8 bits."""
    record: SplitRecord | None = None
    """The images of all splits by name and hash; None where prepared images were opened."""

    @property
    def num_classes(self) -> int:
        """Return C."""
        return len(self.class_names)

    @property
    def image_shape_CHW(self) -> tuple[int, int, int]:
        """Return (channels, H, W)."""
        channels, height, width = self.train.images_NCHW.shape[1:]
        return channels, height, width


class SyntheticSource(Protocol):
    """Synthetic images by class and index: a stored pool, or anything else with these methods."""

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: number of images of each class."""
        ...

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8; image i depends on (class_id, indices[i]) alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Incumbent:
    """The surviving classifier with its composition: an episode starts from one and trains the next.

    The weights, buffers and optimiser state are flattened, one array per dtype, so that Ray shares them between
    processes without a copy; `rlcas.classifiers.snapshot` defines the layout.
    """

    epoch: int
    """Epochs trained so far; the next episode trains epoch number `epoch` (from 0)."""
    arrays: dict[str, NDArray[np.generic]]
    """dtype name -> flat array."""
    counts_C: Int64
    """[C] int64: the composition that it was trained with."""
    positions_C: Int64
    """[C] int64: synthetic images of each class drawn so far from the pool's shuffled cycles."""
    result: EpochResult | None = None
    """The result of its last epoch, set by the environment; None before the first epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """The result of one epoch of one classifier, on the validation images."""

    metrics: Mapping[str, float]
    """Every metric of rlcas.metrics.METRICS and the recall of the shot groups; NaN for an empty group."""
    val_loss: float
    train_loss: float
    per_class: Mapping[str, Float64]
    """Every metric of rlcas.metrics.CLASS_SIGNALS, [C] each; NaN for a class without validation images."""
    num_images: int
    """Images trained on, real and synthetic."""
    finite: bool
    """False if a loss was not finite: neither the metrics nor the trained classifier may be used."""

    @property
    def per_class_recall_C(self) -> Float64:
        """Return [C]: the recall of each class."""
        return self.per_class["recall"]


class Share(NamedTuple):
    """Which part of an epoch's mini-batches an episode trains on."""

    number: int = 0
    """From 0."""
    total: int = 1

    def steps(self, num_steps: int) -> range:
        """Return the steps of this part of an epoch of `num_steps`; the parts differ by one step at most."""
        return range(num_steps * self.number // self.total, num_steps * (self.number + 1) // self.total)


WHOLE = Share()


# eq=False: the generated == would compare arrays, whose == has no single truth value.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeTask:
    """What an episode is to do: with the incumbent that it starts from, all that its outcome depends on."""

    epoch: int
    """From 1."""
    episode_index: int
    """j in 0..K-1."""
    actions_C: Int64
    """[C] int64 in {0, 1, 2}: index of -step, 0, +step."""
    base_C: Int64
    """[C] int64: the composition that the actions change."""
    share: Share = WHOLE


class EpisodeTrainer(Protocol):
    """What the environment needs of a classifier: one epoch of training, from an incumbent."""

    num_classes: int

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return the incumbent before the first epoch; a pure function of the run's settings."""
        ...

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        """Train one epoch from `incumbent` under `counts_C`; a pure function of these and the settings.

        `episode_index` is j in 0..K-1; nothing but random streams depends on it.
        """
        ...

    def trained(self) -> Incumbent:
        """Return the incumbent that the last `train_epoch` trained."""
        ...


class ShareTrainer(EpisodeTrainer, Protocol):
    """What `sampler.episode share` and `sampler.handover merge` need beside whole epochs."""

    def train_share(
        self, incumbent: Incumbent, counts_C: Int64, *, epoch: int, episode_index: int, share: Share
    ) -> EpochResult:
        """Train a part of epoch `epoch` (from 0) from `incumbent`; otherwise as `train_epoch`.

        Args:
            incumbent: what the episode before it reached, or the incumbent of the epoch before.
            counts_C: [C], the composition.
            epoch: from 0.
            episode_index: j in 0..K-1.
            share: which of the epoch's mini-batches.
        """
        ...

    def merged(self, incumbents: Sequence[Incumbent]) -> Incumbent:
        """Return the mean of classifiers that were trained from one, with its result."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeReport:
    """The outcome of episode j of epoch t, whether it succeeded or failed; small enough to send and log.

    Two reports are equal if all but their seconds and retries are, to the bit.
    """

    epoch: int
    episode_index: int
    status: Status
    actions_C: Int64
    """[C] int64 in {0, 1, 2}: index of -step, 0, +step."""
    counts_C: Int64
    """[C] int64: the composition it trained with."""
    num_clamped: int = 0
    """Agents whose action was clamped at 0 or sampler.max_count."""
    num_synthetic: int = 0
    """Synthetic images drawn from the pool."""
    reward: float = float("nan")
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    rewards_C: Float64 | None = None
    """[C]: the reward of each agent, where the agents do not share `reward`, which is then the mean."""
    advantage: float = float("nan")
    """Weight of its actions in eq. 1 (`sampler.advantages`), the mean over agents where each has its own; NaN if the
    agents do not learn."""
    result: EpochResult | None = None
    without_trend: EpochResult | None = None
    """The result that the agents learn from, where the episodes are trained in turn (`rlcas.rewards.without_trend`)."""
    seconds: float = float("nan")
    traceback: str = ""
    retries: int = 0
    """How often the episode was run again because its worker or its node died."""

    @property
    def child(self) -> int:
        """Return `episode_index` by its name before 0.2."""
        return self.episode_index

    @property
    def compared(self) -> EpochResult | None:
        """Return the result that is compared with those of the epoch's other episodes."""
        return self.without_trend or self.result

    @property
    def valid(self) -> bool:
        """Return whether it may become the incumbent and train the agents."""
        return self.status == "ok"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpisodeReport) and self._outcome() == other._outcome()

    def _outcome(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["seconds"], fields["retries"]
        # As JSON, NaN is None, which equals itself, and an array a list, which == compares as a whole.
        return jsonable(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """The record of one epoch: a line of epochs.jsonl, a row of the table, points in TensorBoard."""

    epoch: int
    """1 for the first."""
    reports: tuple[EpisodeReport, ...]
    """The K outcomes, in the order of their indices."""
    winner: int | None
    """Index of the episode whose classifier became the incumbent; None where the episodes were merged."""
    baseline: float
    """B^t of eq. 2, after this epoch's rewards."""
    probabilities_C3: Float64
    """[C, 3]: the policy that the actions were drawn from, probabilities of -step, 0 and +step."""
    best_metric: float
    """Best validation metric of the incumbents so far."""
    best_epoch: int
    """Epoch (from 1) of the best incumbent, whose weights are saved."""
    seconds: float
    """Wall time of the epoch."""
    seconds_by_part: Mapping[str, float] = field(default_factory=dict)
    """Wall time of the epoch's parts."""
    curves_CG: Float64 | None = None
    """[C, max_count // action_step + 1]: the signal that each class's agent expects at the counts 0, step, …
    (`rlcas.agents.ResponseAgents.curves`), after this epoch; None where the agents fit no curves."""
    handover: str = "best"
    """How the incumbent came about: best, merge or in_turn."""
    merged: EpochResult | None = None
    """The result of the mean of the episodes' classifiers; None where one of them is the incumbent."""
    base_C: Int64 | None = None
    """[C] int64: the composition that the actions changed; None: that of the winner of the epoch before."""
    next_base_C: Int64 | None = None
    """[C] int64: the composition that the next epoch's actions change; None: the winner's."""

    @property
    def incumbent(self) -> EpochResult:
        """Return the result of the incumbent after the epoch."""
        result = self.merged if self.winner is None else self.reports[self.winner].result
        assert result is not None, "the winner is a valid episode"
        return result

    @property
    def counts_C(self) -> Int64:
        """Return [C] int64: the composition that the next epoch's actions change."""
        if self.next_base_C is not None:
            return self.next_base_C
        assert self.winner is not None
        return self.reports[self.winner].counts_C

    @property
    def num_synthetic(self) -> int:
        """Return the synthetic images that the incumbent was trained on in this epoch."""
        if self.handover == "best":
            assert self.winner is not None
            return self.reports[self.winner].num_synthetic
        return sum(report.num_synthetic for report in self.reports)

    @property
    def num_images(self) -> int:
        """Return the images, real and synthetic, that the incumbent was trained on in this epoch."""
        if self.handover == "in_turn":
            return sum(report.result.num_images for report in self.reports if report.result)
        return self.incumbent.num_images

    @property
    def retries(self) -> int:
        """Return how often episodes of this epoch were run again after a death."""
        return sum(report.retries for report in self.reports)

    @property
    def entropy_C(self) -> Float64:
        """Return [C]: entropy of each agent's policy, in nats; ln 3 is uniform."""
        # The probability of an action is 0 where a schedule is replayed: 0 log 0 counts as 0.
        p_C3 = np.clip(self.probabilities_C3, 1e-12, 1.0)
        return -(p_C3 * np.log(p_C3)).sum(axis=1)

    @property
    def distance_from_uniform(self) -> float:
        """Return the largest |p - 1/3| of any agent and action."""
        return float(np.abs(self.probabilities_C3 - 1 / 3).max())
