"""A classifier's metadata: all that is needed to rebuild it for its weights and to prepare its images."""

from __future__ import annotations

from pydantic import BaseModel, FiniteFloat, model_validator

from rlcas.batches.images import Normalisation
from rlcas.config import ClassifierConfig, MethodConfig, RunConfig
from rlcas.config.values import Count, PositiveCount
from rlcas.types import TrainingData


class ClassifierMeta(BaseModel):
    """A classifier's metadata, stored as JSON in the header of model.safetensors."""

    classifier: ClassifierConfig
    method: MethodConfig
    class_names: tuple[str, ...]
    image_shape: tuple[PositiveCount, PositiveCount, PositiveCount]
    """Channels, height and width."""
    mean: tuple[float, ...]
    """Mean of each channel of the training images, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel."""
    train_counts: tuple[Count, ...]
    """Real training images of each class, for the shot groups and for methods that weigh classes by them."""
    members: PositiveCount = 1
    """Classifiers of an ensemble: `sampler.k` where the classifier was trained. Other methods do not read it."""
    window: tuple[float, float] | None = None
    """Values of images of more than 8 bits that become 0 and 255, the same as in training."""
    offset: tuple[FiniteFloat, ...] | None = None
    """The decision offset δ of each class, which prediction subtracts from the logits; None where none was fitted."""

    @model_validator(mode="after")
    def _check(self) -> ClassifierMeta:
        """Check that the lengths agree.

        Raises:
            ValueError: they do not; pydantic makes a ValidationError of it.
        """
        if not len(self.mean) == len(self.std) == self.image_shape[0]:
            raise ValueError("mean and std must have one value a channel")
        if not len(self.train_counts) == self.num_classes > 0:
            raise ValueError("train_counts must have one value a class, of at least one class")
        if self.offset is not None and len(self.offset) != self.num_classes:
            raise ValueError("offset must have one value a class")
        return self

    @classmethod
    def of(cls, data: TrainingData, config: RunConfig) -> ClassifierMeta:
        """Return the metadata of a classifier that is trained on `data`."""
        normalisation = Normalisation.of(data.train.images_NCHW)
        return cls(
            classifier=config.classifier,
            method=config.method,
            class_names=data.class_names,
            image_shape=data.image_shape_CHW,
            mean=normalisation.mean,
            std=normalisation.std,
            train_counts=tuple(data.train.class_counts(data.num_classes).tolist()),
            members=config.sampler.k,
            window=data.window,
        )

    @property
    def num_classes(self) -> int:
        """Return C."""
        return len(self.class_names)

    @property
    def normalisation(self) -> Normalisation:
        """Return the normalisation of the classifier's input images."""
        return Normalisation(self.mean, self.std)
