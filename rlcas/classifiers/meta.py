"""What goes with a classifier's weights: all that it takes to build it again and to feed it."""

from __future__ import annotations

from pydantic import BaseModel, model_validator

from rlcas.batches.images import Normalisation
from rlcas.config import ClassifierConfig, MethodConfig, RunConfig
from rlcas.config.values import Count, PositiveCount
from rlcas.types import TrainingData


class ClassifierMeta(BaseModel):
    """What a classifier is besides its weights; stored as JSON in the header of model.safetensors."""

    classifier: ClassifierConfig
    method: MethodConfig
    class_names: tuple[str, ...]
    image_shape: tuple[PositiveCount, PositiveCount, PositiveCount]
    """Channels, height and width."""
    mean: tuple[float, ...]
    """Mean of each channel of the training images, for pixels in [0, 1]."""
    std: tuple[float, ...]
    train_counts: tuple[Count, ...]
    """Real training images of each class, for the shot groups and the methods that weigh by them."""
    window: tuple[float, float] | None = None
    """Values that images of more than 8 bits are shown as 0 and 255 by, as they were for training."""

    @model_validator(mode="after")
    def _check(self) -> ClassifierMeta:
        if not len(self.mean) == len(self.std) == self.image_shape[0]:
            raise ValueError("mean and std are not those of its channels")
        if not len(self.train_counts) == self.num_classes > 0:
            raise ValueError("train_counts are not those of its classes")
        return self

    @classmethod
    def of(cls, data: TrainingData, config: RunConfig) -> ClassifierMeta:
        """Return what goes with a classifier that is trained on `data`."""
        normalisation = Normalisation.of(data.train.images_NCHW)
        return cls(
            classifier=config.classifier,
            method=config.method,
            class_names=data.class_names,
            image_shape=data.image_shape_CHW,
            mean=normalisation.mean,
            std=normalisation.std,
            train_counts=tuple(data.train.class_counts(data.num_classes).tolist()),
            window=data.window,
        )

    @property
    def num_classes(self) -> int:
        """Return C."""
        return len(self.class_names)

    @property
    def normalisation(self) -> Normalisation:
        """Return what images are normalised by before the classifier sees them."""
        return Normalisation(self.mean, self.std)
