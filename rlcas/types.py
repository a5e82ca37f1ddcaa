"""Every object that crosses a process or a package.

Shapes: N images, C classes, H height, W width, channels in NCHW's second place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

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
class TrainingData:
    """What training may see of a data set: never its test images (`rlcas.data.load_test` reads those)."""

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    notes: tuple[str, ...] = ()
    """Findings a user should read: identical pictures across splits, resizing, thinning."""
    window: tuple[float, float] | None = None
    """Values that images of more than 8 bits were shown as 0 and 255 by; None where all had 8 bits."""

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
    """Synthetic images by class and index: a stored pool, or anything else that answers the same."""

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: images there are of each class."""
        ...

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8; image i depends on (class_id, indices[i]) alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Incumbent:
    """The surviving classifier with its composition: what an episode starts from and what it leaves.

    The weights, buffers and optimiser state are flattened, one array a dtype, so that Ray hands them on
    without a copy; `rlcas.classifiers.snapshot` knows the layout.
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
    """What its last epoch gave on the validation images, where the environment left it; None before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What one epoch of one classifier gave, on the validation images."""

    metrics: Mapping[str, float]
    """Every figure of rlcas.metrics.METRICS, in [0, 1]; NaN where a shot group is empty."""
    val_loss: float
    train_loss: float
    per_class: Mapping[str, Float64]
    """Every figure of rlcas.metrics.CLASS_SIGNALS, [C] each; NaN for a class without validation images."""
    num_images: int
    """Images trained on, real and synthetic."""
    finite: bool
    """False where a loss was not finite: the epoch stopped there and must not be used."""

    @property
    def per_class_recall_C(self) -> Float64:
        """Return [C]: the recall of each class."""
        return self.per_class["recall"]


class EpisodeTrainer(Protocol):
    """A classifier that can be trained for one epoch from an incumbent: the environment's inside."""

    num_classes: int

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return the incumbent before the first epoch; a pure function of the run's settings."""
        ...

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        """Train one epoch from `incumbent` under `counts_C`; a pure function of these and the settings.

        `episode_index` is j in 0..K-1: it only picks random streams.
        """
        ...

    def trained(self) -> Incumbent:
        """Return what the last `train_epoch` left."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeReport:
    """The outcome of episode j of epoch t, good or bad; small enough to send and log.

    Two are equal that tell the same, to the bit, in whatever time and after however many deaths.
    """

    epoch: int
    episode_index: int
    status: Status
    actions_C: Int64
    """[C] int64 in {0, 1, 2}: index of -step, 0, +step."""
    counts_C: Int64
    """[C] int64: the composition it trained with."""
    num_clamped: int = 0
    """Agents whose action ran into 0 or sampler.max_count."""
    num_synthetic: int = 0
    """Synthetic images that it drew from the pool."""
    reward: float = float("nan")
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    rewards_C: Float64 | None = None
    """[C]: what each agent was taught by, where the agents do not share `reward`, which is then the mean."""
    advantage: float = float("nan")
    """What its actions are weighed by in eq. 1 (`sampler.advantages`), the mean over agents where each has its own;
    NaN where nobody learns."""
    result: EpochResult | None = None
    seconds: float = float("nan")
    traceback: str = ""
    retries: int = 0
    """How often the episode was run again because its worker or its node died."""

    @property
    def valid(self) -> bool:
        """Return whether it may win and teach the agents."""
        return self.status == "ok"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpisodeReport) and self._outcome() == other._outcome()

    def _outcome(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["seconds"], fields["retries"]
        return jsonable(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """All that is told of one epoch: a line of epochs.jsonl, a row of the table, TensorBoard's points."""

    epoch: int
    """1 for the first."""
    reports: tuple[EpisodeReport, ...]
    """The K outcomes, in the order of their indices."""
    winner: int
    """Index of the episode that became the incumbent."""
    baseline: float
    """B^t of eq. 2, after this epoch's rewards."""
    probabilities_C3: Float64
    """[C, 3]: the policy that the actions were drawn from, for -step, 0, +step."""
    best_metric: float
    """Best validation metric of the incumbents so far."""
    best_epoch: int
    """Epoch (from 1) of the best incumbent: the one whose weights are kept."""
    seconds: float
    """Wall time of the epoch."""
    seconds_by_part: Mapping[str, float] = field(default_factory=dict)
    """Wall time of the epoch's parts."""
    curves_CG: Float64 | None = None
    """[C, max_count // action_step + 1]: the signal that each class's agent expects at the counts 0, step, …
    (`rlcas.agents.ResponseAgents.curves`), after this epoch; None where the agents fit no curves."""

    @property
    def retries(self) -> int:
        """Return how often episodes of this epoch were run again after a death."""
        return sum(report.retries for report in self.reports)

    @property
    def entropy_C(self) -> Float64:
        """Return [C]: entropy of each agent's policy, in nats; ln 3 is uniform."""
        p_C3 = np.clip(self.probabilities_C3, 1e-12, 1.0)
        return -(p_C3 * np.log(p_C3)).sum(axis=1)

    @property
    def distance_from_uniform(self) -> float:
        """Return the largest |p - 1/3| of any agent and action."""
        return float(np.abs(self.probabilities_C3 - 1 / 3).max())
