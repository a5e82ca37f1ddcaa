"""Opening a pool and drawing 32 images from it, after its first verification.

The 32 images are of random classes and numbers, a different draw each time. For comparison: the same draw from one
compressed npz per class and from one PNG per image, both read from the disk at each draw, as by a loader without a
pool.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from common import emit, median_seconds, parser
from PIL import Image

from rlcas.types import Int64, Uint8
from synth.pool import PoolWriter, SyntheticPool

DRAW = 32
SHARD_IMAGES = 256
CASES = {  # classes, images a class, side in pixels
    "classes_8_64px": (8, 500, 64),
    "classes_8_256px": (8, 500, 256),
    "classes_1000_64px": (1000, 50, 64),
}


def write_pool(folder: Path, num_classes: int, per_class: int, side_px: int) -> None:
    """Write a pool of noise, which like speckle does not compress.

    Args:
        folder: the pool's folder.
        num_classes: C.
        per_class: images of each class.
        side_px: side of the images.
    """
    writer = PoolWriter(
        folder,
        class_names=[f"class {number}" for number in range(num_classes)],
        image_shape_CHW=(1, side_px, side_px),
        shard_images=SHARD_IMAGES,
        source={},
    )
    rng = np.random.default_rng(0)
    sizes = [per_class] * num_classes
    for class_id, span in writer.missing(sizes):
        writer.write(class_id, span, rng.integers(0, 256, (len(span), 1, side_px, side_px), dtype=np.uint8))
    writer.commit(sizes)


def draws(sizes_C: Int64) -> Iterator[dict[int, Int64]]:
    """Yield draws without end: class -> numbers of its images, 32 in total."""
    for seed in itertools.count():
        rng = np.random.default_rng(seed)
        classes = rng.integers(len(sizes_C), size=DRAW)
        numbers = rng.integers(sizes_C[classes])
        yield {int(class_id): numbers[classes == class_id] for class_id in np.unique(classes)}


def median_milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of one call."""
    return 1000 * median_seconds(work, repeats)


def other_formats(pool: SyntheticPool, folder: Path, repeats: int) -> dict[str, float]:
    """Return the time of a draw from one npz per class and from one PNG per image."""
    images_of = {c: pool.images(c, np.arange(size)) for c, size in enumerate(pool.class_sizes_C)}
    for class_id, images_NCHW in images_of.items():
        np.savez_compressed(folder / f"{class_id}.npz", images=images_NCHW)
        for number, image_CHW in enumerate(images_NCHW):
            Image.fromarray(image_CHW[0]).save(folder / f"{class_id}-{number}.png", compress_level=1)

    def from_npz(class_id: int, numbers: Int64) -> Uint8:
        with np.load(folder / f"{class_id}.npz") as file:
            return file["images"][numbers]

    def from_png(class_id: int, numbers: Int64) -> Uint8:
        return np.stack([np.asarray(Image.open(folder / f"{class_id}-{number}.png")) for number in numbers])

    return {
        f"draw_32_{name}_milliseconds": draw_milliseconds(read, pool.class_sizes_C, repeats)
        for name, read in (("npz", from_npz), ("png", from_png))
    }


def draw_milliseconds(read: Callable[[int, Int64], Uint8], sizes_C: Int64, repeats: int) -> float:
    """Return the median time of reading one draw."""
    endless = draws(sizes_C)

    def draw() -> None:
        for class_id, numbers in next(endless).items():
            read(class_id, numbers)

    return median_milliseconds(draw, repeats)


def measured(folder: Path, case: tuple[int, int, int], repeats: int, *, others: bool) -> dict[str, float]:
    """Return the figures of one case.

    Args:
        folder: for the case's files.
        case: classes, images of each class, side in pixels.
        repeats: repetitions.
        others: measure the other formats too.
    """
    write_pool(folder / "pool", *case)
    SyntheticPool(folder / "pool")
    figures = {
        "open_milliseconds": median_milliseconds(lambda: SyntheticPool(folder / "pool"), repeats),
        "first_draw_milliseconds": statistics.median(
            first_draw_milliseconds(folder / "pool", seed) for seed in range(repeats)
        ),
    }
    pool = SyntheticPool(folder / "pool")
    figures["draw_32_milliseconds"] = draw_milliseconds(pool.images, pool.class_sizes_C, repeats)
    return figures | (other_formats(pool, folder, repeats) if others else {})


def first_draw_milliseconds(folder: Path, seed: int) -> float:
    """Return the time of the first draw of a freshly opened pool, which maps its files."""
    pool = SyntheticPool(folder)
    drawn = next(itertools.islice(draws(pool.class_sizes_C), seed, None))
    return median_milliseconds(lambda: [pool.images(*item) for item in drawn.items()], 1)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=100)
    arguments.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = arguments.parse_args()
    results = {}
    for case in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            results[case] = measured(Path(folder), CASES[case], args.repeats, others=case == "classes_8_64px")
    emit("Pool: opening it and drawing 32 images", results, args.json)


if __name__ == "__main__":
    main()
