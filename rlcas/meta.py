"""What goes with a classifier's weights: all that it takes to build it again and to feed it."""

from __future__ import annotations

from pydantic import BaseModel

from rlcas.config import ClassifierConfig, MethodConfig, RunConfig
from rlcas.images import Normalisation
from rlcas.types import TrainingData


class ClassifierMeta(BaseModel):
    """What a classifier is besides its weights; stored as JSON in the header of model.safetensors."""

    classifier: ClassifierConfig
    method: MethodConfig
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Channels, height and width."""
    mean: tuple[float, ...]
    """Mean of each channel of the training images, for pixels in [0, 1]."""
    std: tuple[float, ...]
    train_counts: tuple[int, ...]
    """Real training images of each class, for the shot groups and the methods that weigh by them."""
    window: tuple[float, float] | None = None
    """Values that images of more than 8 bits are shown as 0 and 255 by, as they were for training."""

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
