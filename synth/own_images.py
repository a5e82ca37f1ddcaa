"""The user's own synthetic images, one folder per class, imported as a pool."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rlcas.config.data import Frame
from rlcas.data.decode import IMAGE_SUFFIXES, DecodedFiles
from rlcas.data.files import image_files, name_below
from rlcas.data.folder_names import lying_in
from rlcas.data.masks import mask_note, without_masks
from rlcas.data.pixels import Layout, convert
from rlcas.errors import UserError
from rlcas.storage.atomic import sha256_of
from synth.pool import PoolWriter, SyntheticPool

SHARD_IMAGES = 256
SIXTEEN_BITS = (0.0, 65535.0)


def import_folder(
    path: Path,
    pool_folder: Path,
    class_names: Sequence[str],
    image_shape_CHW: tuple[int, int, int],
    *,
    frame: Frame = None,
    keep_masks: bool = False,
) -> SyntheticPool:
    """Write the user's synthetic images, one folder per class, as a pool of the data set's image shape.

    Args:
        path: has a folder for every class, named after the class; or by the class's number if no folder has the
            name of a class. Hidden files are skipped. 16-bit values are divided by 65535; images are resized
            without cropping (area filter down, bicubic up).
        pool_folder: where the pool is written.
        class_names: [C] names of the data set's classes.
        image_shape_CHW: (channels, H, W) of the data set's images.
        frame: which frame of a file that has several, as in `dataset.frame`.
        keep_masks: whether files count that are masks of pictures beside them, as in `dataset.masks`.

    Raises:
        UserError: a class has no folder or no images, or an image cannot be read.
    """
    files_C = [_files_of_class(folder, keep_masks) for folder in _class_folders(path, class_names)]
    channels, height_px, width_px = image_shape_CHW
    layout = Layout(channels=channels, height_px=height_px, width_px=width_px, window=SIXTEEN_BITS)
    # Part of the plan: an interrupted import is refused, not resumed, if the files have changed since.
    digest = hashlib.sha256("".join(sha256_of(file) for files in files_C for file in files).encode())
    writer = PoolWriter(
        pool_folder,
        class_names=class_names,
        image_shape_CHW=image_shape_CHW,
        shard_images=SHARD_IMAGES,
        source={"folder": str(path), "files_sha256": digest.hexdigest()},
    )
    sizes_C = [len(files) for files in files_C]
    for class_id, span in writer.missing(sizes_C):
        files = files_C[class_id][span.start : span.stop]
        writer.write(class_id, span, convert(DecodedFiles(files, SIXTEEN_BITS, frame), layout))
    writer.commit(sizes_C)
    return SyntheticPool(pool_folder)


def masks_left_out(path: Path, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the files that `import_folder` leaves out as masks.

    Raises:
        UserError: a class has no folder.
    """
    found = [without_masks(image_files(folder))[1] for folder in _class_folders(path, class_names)]
    return mask_note([name_below(path, mask) for masks in found for mask in masks])


def _class_folders(path: Path, class_names: Sequence[str]) -> list[Path]:
    """Return [C] folders, all by name or all by number, as a class's name may be another class's number.

    Raises:
        UserError: a class has no folder.
    """
    by_name = any((path / name).is_dir() for name in class_names)
    folders = [path / (name if by_name else str(class_id)) for class_id, name in enumerate(class_names)]
    for folder, name in zip(folders, class_names, strict=True):
        if not folder.is_dir():
            wanted = " or ".join(map(repr, dict.fromkeys((name, folder.name))))
            raise UserError(f"{path} has no folder {wanted} with images of class {name!r}: add one")
    return folders


def _files_of_class(folder: Path, keep_masks: bool) -> list[Path]:
    """Return the folder's image files.

    Raises:
        UserError: there are none.
    """
    files = image_files(folder)
    files = files if keep_masks else without_masks(files)[0]
    if not files:
        lying = lying_in(folder)
        but = f" but {lying}" if lying else ""
        raise UserError(f"{folder} has no images{but} ({', '.join(IMAGE_SUFFIXES)}, or DICOM): add some")
    return files
