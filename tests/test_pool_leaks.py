"""Pools that know a run's test images are refused, with the number of these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_run
from PIL import Image

from cluster.pools.leaks import check_learnt_from
from cluster.runs.run import check
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.data import load, load_test
from rlcas.errors import UserError
from rlcas.types import SplitRecord, TrainingData
from synth.pool import PoolWriter, SyntheticPool

NAMES = ("a", "b", "c")


@pytest.fixture
def own(tmp_path: Path) -> str:
    """Return the name of a folder without splits: 60 images of noise in three classes."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / f"own/{name}/{i}.png")
    return f"folder:{tmp_path / 'own'}"


def config(own: str, **more: object) -> RunConfig:
    given = {**small_run.SETTINGS, "data": own, "synth.scoring.extractor": "classifier", **more}
    return settings.resolve(given={key: str(value) for key, value in given.items()})


def record_of(data: TrainingData) -> SplitRecord:
    assert data.record is not None
    return data.record


def pool_of(folder: Path, images_CNCHW: np.ndarray, learnt_from: tuple[str, ...] | None) -> SyntheticPool:
    sizes = [images_CNCHW.shape[1]] * len(NAMES)
    writer = PoolWriter(
        folder,
        class_names=NAMES,
        image_shape_CHW=images_CNCHW.shape[2:],
        shard_images=8,
        source={},
        learnt_from=learnt_from,
    )
    for class_id, span in writer.missing(sizes):
        writer.write(class_id, span, images_CNCHW[class_id, span.start : span.stop])
    writer.commit(sizes)
    return SyntheticPool(folder)


def noise() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (3, 4, 1, 16, 16), np.uint8)


def test_a_pool_that_learnt_from_test_images_is_refused_with_their_number(own: str, tmp_path: Path) -> None:
    data = load(config(own))
    other = record_of(load(config(own, seed=1)))
    pool_of(tmp_path / "pool", noise(), other.parts["train"].digests)
    leaked = len(set(other.parts["train"].digests) & set(record_of(data).parts["test"].digests))
    assert 0 < leaked < 12
    with pytest.raises(
        UserError, match=rf"pool was made from {leaked} of the 12 test images: make a pool for this"
    ):
        check(config(own, pool=tmp_path / "pool"))
    # The run whose pool it is may use it.
    check(config(own, pool=tmp_path / "pool", seed=1))


def test_a_picture_that_the_run_trains_on_too_is_no_leak(own: str, tmp_path: Path) -> None:
    record = record_of(load(config(own)))
    train, test = record.parts["train"], record.parts["test"]
    shared = replace(test, digests=(train.digests[0], *test.digests[1:]))
    pool = pool_of(tmp_path / "pool", noise(), train.digests)
    check_learnt_from(pool, replace(record, parts={**record.parts, "test": shared}))


def test_a_pool_that_does_not_say_what_it_learnt_from_is_used_with_a_note(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool_of(tmp_path / "pool", noise(), None)
    check(config(own, pool=tmp_path / "pool"))
    assert "does not record which images its generator learnt from" in " ".join(capsys.readouterr().out.split())


def test_a_pool_that_learnt_from_validation_images_alone_is_used_with_a_note(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = record_of(load(config(own)))
    pool = pool_of(tmp_path / "pool", noise(), record.parts["val"].digests)
    check_learnt_from(pool, record)
    assert f"was made from {len(record.parts['val'])} of the validation images" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_pool_with_the_pixels_of_test_images_is_refused_with_their_number(own: str, tmp_path: Path) -> None:
    (test, _), images = load_test(config(own)), noise()
    images[0, 1], images[2, 3] = test.images_NCHW[:2]
    pool_of(tmp_path / "pool", images, ())
    with pytest.raises(UserError, match=r"pool holds 2 test images, to the pixel: remove them from it"):
        check(config(own, pool=tmp_path / "pool"))


def test_own_images_with_the_pixels_of_test_images_are_refused_with_their_number(
    own: str, tmp_path: Path
) -> None:
    test, _ = load_test(config(own))
    for class_id, name in enumerate(NAMES):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i, image in enumerate([*noise()[class_id, :, 0], test.images_NCHW[class_id, 0]]):
            Image.fromarray(image).save(tmp_path / "mine" / name / f"{i}.png")
    with pytest.raises(UserError, match=r"pool folder:.*mine holds 3 test images, to the pixel"):
        check(config(own, pool=f"folder:{tmp_path / 'mine'}"))


def test_data_without_test_images_have_nothing_to_compare(tmp_path: Path) -> None:
    with np.load(small_run.write_npz(tmp_path / "all.npz")) as arrays:
        kept = {key: array for key, array in arrays.items() if not key.startswith("test_")}
    np.savez(tmp_path / "no_test.npz", **kept)
    record = record_of(load(config(f"npz:{tmp_path / 'no_test.npz'}")))
    check_learnt_from(pool_of(tmp_path / "pool", noise(), ("0",)), record)
