"""Predictions as MedMNIST's own result file, which `medmnist.Evaluator.parse_and_evaluate` reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlcas.data.medmnist import medmnist_info, medmnist_names
from rlcas.data.npz import open_npz
from rlcas.data.source import SplitName
from rlcas.deploy.images import npz_array
from rlcas.errors import UserError
from rlcas.metrics import accuracy, macro_auc
from rlcas.storage.atomic import replacing
from rlcas.types import Float64

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class MedmnistSplit:
    """A split of a MedMNIST file."""

    path: Path
    split: SplitName

    @property
    def flag(self) -> str:
        """Return MedMNIST's name of the set, without the size."""
        return medmnist_names()[self.path.stem][0]

    def columns(self, class_names: Sequence[str]) -> list[int]:
        """Return for each label of the set its class among `class_names`.

        Raises:
            UserError: these are other classes.
        """
        labels = medmnist_info()[self.flag]["label"]
        official = [labels[str(label)] for label in range(len(labels))]
        if list(class_names) == [str(label) for label in range(len(labels))]:
            return list(range(len(labels)))
        if sorted(class_names) != sorted(official):
            raise UserError(
                f"the classifier's classes ({', '.join(class_names)}) are not those of {self.flag} "
                f"({', '.join(official)}): predict with a run on {self.flag}"
            )
        return [list(class_names).index(name) for name in official]


def medmnist_split(images: Sequence[str | Path]) -> MedmnistSplit:
    """Return the split that `images` name: one array SPLIT_images of a file with a MedMNIST name.

    Raises:
        UserError: they are something else.
    """
    array = npz_array(images[0]) if len(images) == 1 else None
    if array is None:
        raise UserError(
            f"{', '.join(map(str, images))}: --format medmnist is of a whole split: name one file of MedMNIST, "
            "such as breastmnist.npz:test_images"
        )
    path, name = array
    if path.stem not in medmnist_names():
        raise UserError(
            f"{path} has no name of MedMNIST, such as breastmnist.npz or breastmnist_64.npz, by which its Evaluator "
            "finds the labels: rename the file, or use --format csv"
        )
    split = next((split for split in SPLITS if name == f"{split}_images"), None)
    if split is None:
        raise UserError(
            f"{path}: {name} is not a split of MedMNIST: name train_images, val_images or test_images"
        )
    return MedmnistSplit(path, split)


def split_of(paths: Sequence[str]) -> MedmnistSplit:
    """Return the split whose images, all of them in their order, the names of predicted images are.

    Raises:
        UserError: they are something else.
    """
    # The array's name without the index: a source that gives these names again.
    source = paths[0].rpartition("[")[0] or paths[0]
    found = medmnist_split([source])
    if list(paths) != [f"{source}[{index}]" for index in range(len(paths))]:
        raise UserError(f"{source}: other images are among the predictions: predict this array alone")
    return found


def write_scores(p_NC: Float64, class_names: Sequence[str], of: MedmnistSplit, folder: Path, run: str) -> Path:
    """Write FLAG_SPLIT_[AUC]x_[ACC]y@RUN.csv into a folder and return its path.

    Each line is an index and the probability of each class, in the order of the set's labels.

    Args:
        p_NC: [N, C] class probabilities.
        class_names: their C names.
        of: the split, in whose order the images are.
        folder: of the file.
        run: what its name ends in.

    Raises:
        UserError: the classes are not those of the set, or it has no label for each image.
    """
    scores_NC = p_NC[:, of.columns(class_names)]
    labels_N = open_npz(of.path).splits[of.split].labels_N
    if len(labels_N) != len(scores_NC) or labels_N.max() >= scores_NC.shape[1]:
        raise UserError(f"{of.path}: {of.split}_labels does not fit the images: download the file again")
    figures = f"[AUC]{macro_auc(scores_NC, labels_N):.3f}_[ACC]{accuracy(scores_NC, labels_N):.3f}"
    # The Evaluator takes what is between @ and the first dot for the run's name.
    path = folder / f"{of.path.stem}_{of.split}_{figures}@{re.sub(r'[^A-Za-z0-9_-]+', '-', run)}.csv"
    # repr: every digit, so that AUC and ACC are the same when it is read back.
    lines = (",".join([str(index), *map(repr, p_C)]) for index, p_C in enumerate(scores_NC.tolist()))
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
