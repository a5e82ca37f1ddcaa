"""A data folder that grows, or is cut by other settings, while a run exists: its test images stay the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small_run
from data_files import gray, write_image

from cluster.runs.evaluation import evaluate_data
from cluster.runs.run import resume, run
from rlcas import settings
from rlcas.errors import UserError
from rlcas.runs.folder import RunFolder

pytestmark = pytest.mark.medium


def grow(root: Path, *, per_class: int, prefix: str, seed: int) -> str:
    for class_id, name in enumerate(("negative", "positive")):
        for i in range(per_class):
            write_image(root / name / f"{prefix}_{i:03d}.png", gray(seed + 1000 * class_id + i, (16, 16)))
    return f"folder:{root}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    home = tmp_path_factory.mktemp("growing")
    data = grow(home / "set", per_class=40, prefix="old", seed=0)
    pool = grow(home / "pool", per_class=4, prefix="synthetic", seed=5000)
    more = {"data": data, "pool": pool, "out": home / "run", "cluster.episode_runner": "in_process"}
    given = {key: str(value) for key, value in {**small_run.SETTINGS, **more}.items()}
    return RunFolder(run(settings.resolve(given=given)))


def figures(folder: RunFolder) -> dict[str, object]:
    test = json.loads(folder.metrics.read_text())["test"]
    assert isinstance(test, dict)
    return test


def test_a_resumed_run_tests_the_images_that_it_began_with(
    finished: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = figures(finished)
    # Sorted before the old names: another cut would shift every index.
    grow(finished.path.parent / "set", per_class=4, prefix="a_new", seed=500)
    finished.metrics.unlink()
    resume(finished.path)
    shown = " ".join(capsys.readouterr().out.split())
    assert figures(finished) == before
    assert "has changed since the run began: 8 (negative/a_new_000.png" in shown
    evaluated = evaluate_data(finished.path, {})
    assert {name: evaluated[name] for name in ("acc", "f1", "n")} == {n: before[n] for n in ("acc", "f1", "n")}


def test_deleted_prepared_images_are_prepared_again_as_they_were(finished: RunFolder) -> None:
    before = {path.name: path.read_bytes() for path in finished.prepared.glob("*.npy")}
    shutil.rmtree(finished.prepared)
    finished.metrics.unlink()
    resume(finished.path)
    assert {path.name: path.read_bytes() for path in finished.prepared.glob("*.npy")} == before and before


def test_settings_that_would_cut_the_runs_own_images_again_are_refused(finished: RunFolder) -> None:
    with pytest.raises(
        UserError, match=r"^dataset.seed 3 changes nothing here: the run has recorded its test images"
    ):
        evaluate_data(finished.path, {"dataset.seed": "3"})


def test_another_set_is_tested_whole_and_its_notes_are_shown(
    finished: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = grow(finished.path.parent / "foreign", per_class=13, prefix="x", seed=9000)
    assert evaluate_data(finished.path, {"data": foreign})["n"] == 26
    assert "has no splits: all of its 26 images are tested" in " ".join(capsys.readouterr().out.split())
    write_image(finished.path.parent / "foreign/other/1.png", gray(1, (16, 16)))
    with pytest.raises(UserError, match=r"has classes that the classifier does not know: 1 \('other'\)"):
        evaluate_data(finished.path, {"data": foreign})


def test_a_run_without_a_record_is_resumed_only_on_unchanged_images(finished: RunFolder) -> None:
    root = finished.path.parent / "set"
    new = sorted(root.glob("*/a_new_*.png"))
    record, before = finished.split.read_bytes(), figures(finished)
    finished.split.unlink()
    with pytest.raises(
        UserError, match=r"has no split.json, as runs begun before 0.2, and folder:.* is not known to"
    ):
        evaluate_data(finished.path, {})
    for path in new:
        path.rename(path.with_suffix(".kept"))
    # Nothing of the run says which images were cut for its test.
    finished.prepared.rename(finished.path / "elsewhere")
    with pytest.raises(
        UserError, match=r"is not known to be as it was when it began: restore the images, or begin"
    ):
        evaluate_data(finished.path, {})
    (finished.path / "elsewhere").rename(finished.prepared)
    finished.metrics.unlink()
    resume(finished.path)
    assert finished.split.read_bytes() == record and figures(finished) == before
