"""Class probabilities of new images, which are converted as the training images were."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlcas import settings
from rlcas.classifiers.inference import BATCH_SIZE
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config.cores import available_cores
from rlcas.console import progress, say
from rlcas.data.masks import mask_note
from rlcas.data.pixels import Layout, convert_one
from rlcas.data.source import Pixels, Window
from rlcas.deploy.images import NamedImages, find_images
from rlcas.deploy.medmnist import split_of, write_scores
from rlcas.devices import choose_device
from rlcas.errors import UserError
from rlcas.storage.atomic import replacing
from rlcas.storage.remote import BULKY, local
from rlcas.training.saved_classifier import load_classifier
from rlcas.training.saved_classifier import predict as probabilities_of
from rlcas.types import Float64, Uint8


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of a classifier for some images."""

    paths: tuple[str, ...]
    """[N] the image's file, or `FILE.npz:ARRAY[INDEX]`."""
    class_names: tuple[str, ...]
    p_NC: Float64
    """Probability of each class."""

    @property
    def labels(self) -> list[str]:
        """Return [N] names of the most probable class of each image (the first one on a tie)."""
        return [self.class_names[c] for c in self.p_NC.argmax(axis=1)]

    def write(self, path: str | Path) -> None:
        """Write a CSV table of path, label and the probability of each class, atomically."""
        with (
            replacing(Path(path)) as temporary,
            # csv writes its own line ends; a file's name that is not UTF-8 is written back with its own bytes.
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            table = csv.writer(file)
            table.writerow(["path", "label", *self.class_names])
            for name, label, p_C in zip(self.paths, self.labels, self.p_NC, strict=True):
                table.writerow([name, label, *(f"{p:.9g}" for p in p_C)])

    def write_medmnist(self, folder: str | Path, run: str = "rlcas") -> Path:
        """Write the result file of MedMNIST's Evaluator, FLAG_SPLIT_[AUC]x_[ACC]y@RUN.csv, and return its path.

        Args:
            folder: of the file.
            run: what its name ends in.

        Raises:
            UserError: the images are not one split of a MedMNIST file, or the classes are not those of the set.
        """
        return write_scores(self.p_NC, self.class_names, split_of(self.paths), Path(folder), run)


def predict(
    run: str | Path, images: str | Path | Sequence[str | Path], given: Mapping[str, Any] | None = None
) -> Predictions:
    """Return the predictions of a run's classifier for images, which are read batch by batch.

    Args:
        run: a run's folder, or its address.
        images: folders (all images below them), image files and npz arrays (`PATH.npz`, `PATH.npz:ARRAY`).
        given: `device`, `dataset.window`, `dataset.frame` or `dataset.masks`, dotted as on the command line, to
            override the run's own.

    Raises:
        UserError: the run has no classifier, or an image cannot be read; the message names it.
    """
    run = local(run, without=BULKY)
    config = settings.override(settings.load(run), given or {})
    classifier = load_classifier(run, choose_device(config.device))
    sources = [images] if isinstance(images, str | Path) else images
    window, frame, keep_masks = config.dataset.window, config.dataset.frame, config.dataset.masks == "keep"
    found = [find_images(source, window, frame, keep_masks=keep_masks) for source in sources]
    paths = tuple(name for part in found for name in part.names)
    masks = [name for part in found for name in part.masks]
    if not sources:
        raise UserError("no images are named: name a folder, files or an npz array")
    if not paths:
        only, keep = (" but masks of pictures", ", or --dataset.masks keep") if masks else ("", "")
        raise UserError(f"{', '.join(map(str, sources))} has no images{only}: name others{keep}")
    for note in mask_note(masks):
        say(f"note: {note}")
    p_NC, num_changed = [], 0
    with progress("predict", len(paths)) as bar:
        for images_NCHW, changed in _batches(found, classifier.meta, config.dataset.window):
            p_NC.append(probabilities_of(classifier, images_NCHW))
            num_changed += changed
            bar.advance(len(images_NCHW))
    if num_changed:
        say(f"note: {num_changed} of {len(paths)} images were converted to {_form(classifier.meta)}")
    return Predictions(paths, classifier.meta.class_names, np.concatenate(p_NC))


def _batches(
    found: Sequence[NamedImages], meta: ClassifierMeta, window: Window | None
) -> Iterator[tuple[Uint8, int]]:
    """Yield uint8 [n, channels, H, W] for the classifier, and how many of them had another size or channels."""
    channels, height_px, width_px = meta.image_shape
    window = window or meta.window
    # The shape of a decoded image, whose channels come last, if it needs no conversion.
    shape = (height_px, width_px) if channels == 1 else (height_px, width_px, channels)
    layout = Layout(channels=channels, height_px=height_px, width_px=width_px, window=window)
    items = [(name, part.images, index) for part in found for index, name in enumerate(part.names)]

    def read(item: tuple[str, Sequence[Pixels] | Pixels, int]) -> tuple[Uint8, bool]:
        name, images, index = item
        image = images[index]
        if image.dtype != np.uint8 and window is None:
            raise UserError(
                f"{name} has more than 8 bits, but no training image had: set --dataset.window=LOW,HIGH"
            )
        return convert_one(image, layout), image.shape != shape

    with ThreadPoolExecutor(available_cores()) as threads:
        for start in range(0, len(items), BATCH_SIZE):
            images_CHW, changed = zip(*threads.map(read, items[start : start + BATCH_SIZE]), strict=True)
            yield np.stack(images_CHW), sum(changed)


def _form(meta: ClassifierMeta) -> str:
    channels, height_px, width_px = meta.image_shape
    kind = "gray (luma)" if channels == 1 else "RGB"
    return f"{kind} of {height_px}x{width_px} px (area filter down, bicubic up), as the training images were"
