"""Example images as inline PNG, class by class."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from rlcas.reports.facts import RunFacts
from rlcas.types import Uint8

MOST_CLASSES = 12
AT_EACH_END = 4
LONGEST_SIDE_PX = 128


@dataclass(frozen=True, slots=True)
class Tile:
    """One image and its sketch, as data URIs."""

    image: str
    sketch: str


@dataclass(frozen=True, slots=True)
class ClassImages:
    """The real and synthetic tiles of a class."""

    class_id: int
    name: str
    real: list[Tile]
    synthetic: list[Tile]


def galleries(facts: RunFacts) -> list[ClassImages]:
    """Return the images of every class or, if there are many, of the largest and the smallest few."""
    if facts.gallery is None:
        return []
    return [
        ClassImages(
            c, facts.class_names[c], *(_tiles(facts.gallery, kind, c) for kind in ("real", "synthetic"))
        )
        for c in shown_classes(facts)
    ]


def shown_classes(facts: RunFacts) -> list[int]:
    """Return the ids of the classes whose images are shown, by decreasing number of training images if not all are."""
    num_classes = len(facts.class_names)
    if num_classes <= MOST_CLASSES:
        return list(range(num_classes))
    assert facts.data is not None
    by_size = np.argsort(facts.data["class_counts"]["train"], kind="stable")[::-1].tolist()
    return by_size[:AT_EACH_END] + by_size[-AT_EACH_END:]


def _tiles(gallery: dict[str, Uint8], kind: str, class_id: int) -> list[Tile]:
    pairs = zip(gallery[kind][class_id], gallery[f"{kind}_sketch"][class_id], strict=True)
    return [Tile(_data_uri(image_CHW), _data_uri(sketch_CHW)) for image_CHW, sketch_CHW in pairs]


def _data_uri(image_CHW: Uint8) -> str:
    from PIL import Image

    picture = Image.fromarray(image_CHW[0] if len(image_CHW) == 1 else np.moveaxis(image_CHW, 0, -1))
    picture.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
