"""The recipes of docs/data.md, run on layouts in the form of the public sets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from doc_commands import commands_in
from doc_pages import ROOT, Page
from layouts import write_layouts

from rlcas import settings
from rlcas.cli import ALL_COMMANDS
from rlcas.commands.command import parse
from rlcas.config import RunConfig
from rlcas.data import load, load_test
from rlcas.errors import UserError
from rlcas.types import ImageSet, TrainingData

SHARED = ROOT.parent / "shared" / "cases"
"""Layouts that somebody else wrote, where they lie beside the repository."""
BREAST = "BrEaST-Lesions_USG-images_and_masks"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared layouts do not lie beside the repository"
)


@dataclass(frozen=True)
class Expected:
    """What a set's authors document of it, or what the layout was given."""

    classes: tuple[str, ...]
    num_images: int
    num_patients: int | None = None
    notes: tuple[str, ...] = ()
    """Parts of notes that the user must see."""


GRADES = ("0", "1", "2")
SPECIES = tuple(str(number) for number in range(12))
RECIPES = {
    "folder:Dataset_BUSI_with_GT": Expected(
        ("benign", "malignant", "normal"),
        26,
        notes=("masks of pictures beside them: 28 (benign/benign (1)_mask",),
    ),
    "csv:BUSBRA/bus_data.csv": Expected(
        ("Cyst", "Fibroadenoma", "Invasive ductal carcinoma", "Phyllodes tumor"),
        30,
        20,
        ("patients, which cannot be in each of train, val and test: 1 (Phyllodes tumor (2))",),
    ),
    f"csv:{BREAST}/BrEaST.csv": Expected(
        ("benign", "malignant"), 20, 20, ("columns: path=Image_filename,label=Classification,patient=CaseID",)
    ),
    "csv:BUS-UCLM/INFO.csv": Expected(("Benign", "Malignant", "Normal"), 36, 9),
    "csv:HAM10000/HAM10000_metadata.csv": Expected(
        ("bkl", "mel", "nv"), 48, 24, ("columns: path=image_id,label=dx,patient=lesion_id (recognised",)
    ),
    "csv:ISIC2019/ISIC_2019_Training_GroundTruth.csv": Expected(
        ("BCC", "MEL", "NV"), 40, 25, ("no classes: UNK", "each a patient of its own: 10")
    ),
    "csv:aptos2019/train.csv": Expected(
        GRADES, 30, notes=("test.csv beside the table is left out", "path=id_code,label=diagnosis")
    ),
    "csv:eyepacs/trainLabels.csv": Expected(GRADES, 60, 30),
    "csv:ImageNet_LT_train.txt": Expected(
        GRADES, 39, notes=("train ImageNet_LT_train.txt, val ImageNet_LT_val",)
    ),
    "csv:iNaturalist/iNaturalist18_train.txt": Expected(SPECIES, 132),
    "folder:iNaturalist/train_val2018": Expected(SPECIES, 132),
}


def recipes() -> dict[str, RunConfig]:
    """Return the data set that each recipe names -> its settings."""
    page = Page(ROOT / "docs" / "data.md")
    block = next(block for block in page.blocks if "Dataset_BUSI_with_GT" in block.text)
    given = [parse("run", ALL_COMMANDS["run"], words[2:]).given for words in commands_in(block.text)]
    return {one["data"]: settings.resolve(given=one) for one in given}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    write_layouts(root)
    return root


def read(config: RunConfig) -> tuple[TrainingData, list[ImageSet]]:
    data, (test, _) = load(config), load_test(config)
    return data, [data.train, data.val, test]


def patients_of(parts: list[ImageSet]) -> list[set[str]]:
    return [set(part.patients_N.tolist()) for part in parts if part.patients_N is not None]


def test_every_set_has_a_recipe() -> None:
    assert set(recipes()) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_its_set(name: str, layouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layouts)
    expected = RECIPES[name]
    data, parts = read(recipes()[name])
    assert data.class_names == expected.classes
    assert sum(map(len, parts)) == expected.num_images
    for part in expected.notes:
        assert any(part in note for note in data.notes), data.notes
    patients = patients_of(parts)
    assert bool(patients) == (expected.num_patients is not None)
    # Nobody is in two splits.
    assert sum(map(len, patients)) == len(set().union(*patients)) == (expected.num_patients or 0)


@pytest.mark.parametrize(
    ("setting", "value", "classes"),
    [
        (
            "dataset.merge",
            "rare benign=Cyst+Phyllodes tumor",
            ("Fibroadenoma", "Invasive ductal carcinoma", "rare benign"),
        ),
        ("dataset.drop", "Phyllodes tumor", ("Cyst", "Fibroadenoma", "Invasive ductal carcinoma")),
    ],
)
def test_rare_subtypes_are_merged_or_dropped(
    layouts: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, classes: tuple[str, ...]
) -> None:
    monkeypatch.chdir(layouts)
    config = settings.override(recipes()["csv:BUSBRA/bus_data.csv"], {setting: value})
    data, parts = read(config)
    assert data.class_names == classes
    assert all((part.class_counts(len(classes)) > 0).all() for part in parts)
    assert not any("cannot be in each" in note for note in data.notes)


@pytest.mark.parametrize(
    ("folder", "shown"),
    [
        ("BUSBRA", "--data csv:BUSBRA/bus_data.csv --dataset.columns path=ID,label=Histology,patient=Case "
                   "--dataset.images 'Images/{ID}.png' (or label=Pathology)"),
        ("HAM10000", "--data csv:HAM10000/HAM10000_metadata.csv --dataset.columns path=image_id,label=dx,"
                     "patient=lesion_id --dataset.images 'HAM10000_images_part_*/{image_id}.jpg'"),
        ("aptos2019", "--data csv:aptos2019/train.csv --dataset.columns path=id_code,label=diagnosis "
                      "--dataset.images 'train_images/{id_code}.png'"),
        ("aptos2019/train_images", "--dataset.images 'train_images/{id_code}.png'"),
        ("eyepacs", "--data csv:eyepacs/trainLabels.csv --dataset.columns path=image,label=level "
                    "--dataset.images 'train/{image}.jpeg'"),
        ("BUS-UCLM", "--data csv:BUS-UCLM/INFO.csv --dataset.columns path=Image,label=Label "
                     "--dataset.images 'images/{Image}'"),
        ("ISIC2019", "--dataset.columns path=image,label=MEL+NV+BCC+UNK --dataset.images "
                     "'ISIC_2019_Training_Input/{image}.jpg'"),
    ],
)  # fmt: skip
def test_a_folder_without_classes_is_refused_with_the_command_that_is_meant(
    layouts: Path, monkeypatch: pytest.MonkeyPatch, folder: str, shown: str
) -> None:
    monkeypatch.chdir(layouts)
    with pytest.raises(UserError, match="no class") as caught:
        load(settings.resolve(given={"data": f"folder:{folder}", "dataset.size_px": "16"}))
    assert shown in str(caught.value) and "\n" not in str(caught.value)
    # What it shows can be typed.
    start = str(caught.value)[str(caught.value).index("--data") :].partition(" (or ")[0].partition("; ")[0]
    (words,) = commands_in(f"rlcas run {start} --dataset.size_px 16 --dataset.channels 1")
    data, _ = read(settings.resolve(given=parse("run", ALL_COMMANDS["run"], words[2:]).given))
    assert len(data.class_names) >= 3


@needs_shared
def test_recipes_read_the_shared_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, str(SHARED / "layouts.py"), str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    # The sheet, which the layout leaves out, saved as CSV.
    sheet = [f"{i},case{i:03d}.png,{'benign' if i % 3 else 'malignant'}" for i in range(1, 31)]
    lines = ["CaseID,Image_filename,Classification", *sheet]
    (tmp_path / BREAST / "BrEaST.csv").write_text("\n".join(lines))
    sizes = {
        f"csv:{BREAST}/BrEaST.csv": (2, 30, 30),
        "folder:Dataset_BUSI_with_GT": (3, 88, None),
        "csv:BUSBRA/bus_data.csv": (5, 94, 54),
        "csv:HAM10000/HAM10000_metadata.csv": (7, 118, None),
        "csv:aptos2019/train.csv": (5, 88, None),
        "csv:eyepacs/trainLabels.csv": (5, 80, 40),
    }
    for name, (num_classes, num_images, num_patients) in sizes.items():
        data, parts = read(settings.override(recipes()[name], {"dataset.size_px": "16"}))
        patients = patients_of(parts)
        assert (len(data.class_names), sum(map(len, parts))) == (num_classes, num_images)
        assert sum(map(len, patients)) == len(set().union(*patients))
        assert num_patients in (None, sum(map(len, patients)))


@needs_shared
def test_folders_named_in_other_words_and_by_numbers_are_read(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SHARED / "bugs" / "folder_words.py"), str(tmp_path)], check=True)
    words = settings.resolve(given={"data": f"folder:{tmp_path / 'words'}", "dataset.val_from_train": "0.2"})
    data, parts = read(words)
    assert [len(part) for part in parts] == [64, 16, 32]
    assert "folders are read as splits: Training as train, Testing as test" in data.notes
    numbers, _ = read(settings.resolve(given={"data": f"folder:{tmp_path / 'numbers'}"}))
    assert numbers.class_names == SPECIES


def test_labels_and_pictures_of_a_recipe_are_those_of_the_table(
    layouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(layouts)
    data, parts = read(settings.override(recipes()["csv:aptos2019/train.csv"], {"dataset.size_px": "16"}))
    lines = (layouts / "aptos2019" / "train.csv").read_text().splitlines()[1:]
    label_of = {}
    for name, label in (line.split(",") for line in lines):
        with Image.open(layouts / "aptos2019" / "train_images" / f"{name}.png") as image:
            resized = image.resize((16, 16), Image.Resampling.BOX)
            label_of[np.asarray(resized).tobytes()] = label
    found = {
        image[0].tobytes(): data.class_names[label]
        for part in parts
        for image, label in zip(part.images_NCHW, part.labels_N, strict=True)
    }
    assert found == label_of
