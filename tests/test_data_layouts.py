"""Folders as people have them: other words for splits, deeper levels, masks, files of other kinds, rlcas's own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from data_files import config, gray, write_image
from PIL import Image

from rlcas import settings
from rlcas.data import load, load_test
from rlcas.data.masks import masks_among
from rlcas.errors import UserError
from rlcas.types import TrainingData


def images(folder: Path, count: int = 6, suffix: str = ".png", seed: int = 0) -> None:
    for i in range(count):
        write_image(folder / f"{i}{suffix}", gray(100 * seed + i))


def read(root: Path, **dataset: Any) -> TrainingData:
    return load(config(f"folder:{root}", **dataset))


WORDS = [
    ("Training", "Validation", "Testing"),
    ("TRAIN", "Val", "TEST"),
    ("training", "validate", "testing"),
    ("train_set", "dev_set", "test_set"),
    ("Train data", "dev", "Test data"),
    ("train_images", "val_images", "test_images"),
    ("TrainSet", "evaluation", "TestSet"),
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_other_words_for_splits_are_recognised_with_a_note(tmp_path: Path, words: tuple[str, ...]) -> None:
    for s, word in enumerate(words):
        for c in "ab":
            images(tmp_path / word / c, count=s + 1, seed=10 * s + ord(c))
    data = read(tmp_path)
    test, names = load_test(config(f"folder:{tmp_path}"))
    assert names == ("a", "b") and [len(part) for part in (data.train, data.val, test)] == [2, 4, 6]
    noted = [f"{word} as {split}" for word, split in zip(words, ("train", "val", "test"), strict=True)]
    assert data.notes == (f"folders are read as splits: {', '.join(noted)}",)


@pytest.mark.parametrize(
    "twins", [("train", "Training"), ("val", "dev"), ("test", "TEST"), ("Val", "validation")]
)
def test_two_names_for_one_split_are_refused(tmp_path: Path, twins: tuple[str, str]) -> None:
    for word in twins:
        images(tmp_path / word / "a")
        images(tmp_path / word / "b")
    first, second = sorted(twins)
    with pytest.raises(UserError, match=f"has {first} and {second}, which are one split, .*: join them"):
        read(tmp_path)


def test_what_lies_beside_the_splits_is_left_out_with_a_note(tmp_path: Path) -> None:
    for word in ("train", "val", "test", "unlabelled"):
        images(tmp_path / word / "a")
        images(tmp_path / word / "b")
    assert "left out, because they are beside the splits: 1 (unlabelled)" in read(tmp_path).notes


@pytest.mark.parametrize(
    "names",
    [
        ("benign", "malignant", "normal"),
        ("mask", "no_mask"),
        ("with_mask", "without_mask"),
        ("benign images", "malignant images"),
        ("image", "text"),
        ("stage 1", "stage 2"),
        ("class_0", "class_1"),
        ("label_0", "label_1"),
        ("grade1", "grade2"),
        ("0", "1", "2"),
        ("partial", "full"),
        ("Casein", "Whey"),
        ("art", "photo"),
    ],
)
def test_classes_are_classes_whatever_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    for c, name in enumerate(names):
        images(tmp_path / name, seed=c)
    (tmp_path / "README.csv").write_text("nothing,of,this\n1,2,3\n")
    assert read(tmp_path).class_names == tuple(sorted(names))


@pytest.mark.parametrize(
    "names",
    [
        ("Images", "Masks"),
        ("images",),
        ("img", "gt"),
        ("SET_images_part_1", "SET_images_part_2"),
        ("fold1", "fold2", "fold10"),
        ("patient_01", "patient_02"),
        ("ISIC_Training_Input", "ISIC_Test_Input"),
        ("images_001", "images_002"),
        ("JPEGImages", "SegmentationMasks"),
        ("Patient 1", "Patient 2"),
        ("Hospital-1", "Hospital-2"),
        ("SET10_images_part_1", "SET10_images_part_2", "SET10_segmentations_lesion_x"),
        ("images_normalized", "masks"),
        ("images_normalized", "lesion_masks"),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for c, name in enumerate(names):
        images(tmp_path / "set" / name, seed=c)
    listed = ", ".join(sorted(names))
    with pytest.raises(
        UserError, match=f"set has the folders {listed}, which are no classes: write a table of path"
    ) as e:
        read(tmp_path / "set")
    assert str(e.value).endswith("or arrange it as CLASS/*.png or train/CLASS/*.png")
    (tmp_path / "set" / "sheet.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"no classes: save .*set/sheet.xlsx as CSV and use --data csv:FILE"):
        read(tmp_path / "set")


def test_a_folder_that_is_no_class_can_be_dropped(tmp_path: Path) -> None:
    for c, name in enumerate(("benign", "malignant", "masks")):
        images(tmp_path / name, seed=c)
    shown = (
        "classes whose names say what kind of files they have: 1 (masks); --dataset.drop masks leaves them out"
    )
    assert shown in read(tmp_path).notes
    dropped = read(tmp_path, drop=("masks",))
    assert dropped.class_names == ("benign", "malignant") and shown not in dropped.notes


@pytest.mark.parametrize(
    ("classes", "masks"),
    [
        (("benign", "malignant"), ("benign_masks", "malignant_masks")),
        (("benign", "malignant"), ("benign GT",)),
        (("benign", "malignant"), ("mask_benign",)),
        (("in situ", "normal"), ("in_situ_ground_truth",)),
    ],
)
def test_folders_of_masks_of_a_class_are_refused_dropped_or_kept(
    tmp_path: Path, classes: tuple[str, ...], masks: tuple[str, ...]
) -> None:
    grid(tmp_path, *classes, *masks)
    with pytest.raises(
        UserError, match=f"has {masks[0]} beside {classes[0]}, which seem to be its masks"
    ) as caught:
        read(tmp_path)
    typed = str(caught.value).partition("with --dataset.drop ")[2].partition(", or take")[0]
    dropped = settings.resolve(given={"data": f"folder:{tmp_path}", "dataset.drop": shlex.split(typed)[0]})
    assert load(dropped).class_names == classes
    assert set(read(tmp_path, masks="keep").class_names) == {*classes, *masks}


@pytest.mark.parametrize(
    ("names", "noted"),
    [
        (("p001", "p002", "p003"), "patients or parts of a set: 3 (p001, p002, p003)"),
        (("set1", "set2"), "patients or parts of a set: 2 (set1, set2)"),
        (("malignant", "normal GT"), "what kind of files they have: 1 (normal GT)"),
        (("benign images", "malignant images", "masks"), "what kind of files they have: 1 (masks)"),
        (("mask", "face"), "what kind of files they have: 1 (mask)"),
        (("mask", "no_mask"), "what kind of files they have: 1 (mask)"),
        (("with_mask", "without_mask"), ""),
        (("left", "right"), ""),
        (("grade1", "grade2"), ""),
        (("n01440764", "n01443537"), ""),
    ],
)
def test_classes_that_are_hardly_so_are_noted(tmp_path: Path, names: tuple[str, ...], noted: str) -> None:
    grid(tmp_path, *names)
    notes = [note for note in read(tmp_path).notes if note.startswith("classes whose names")]
    assert [noted in note for note in notes] == [True] * bool(noted)


def test_a_table_beside_classes_is_reported(tmp_path: Path) -> None:
    for c, name in enumerate(("a", "b")):
        images(tmp_path / name, seed=c)
    (tmp_path / "finer.csv").write_text("file,subtype\na/0.png,x\nb/1.png,y\n")
    shown = (
        f"has labels too, which are not used: --data csv:{tmp_path / 'finer.csv'} --dataset.columns path=file,"
    )
    assert any(shown in note for note in read(tmp_path).notes)


def write_webp(folder: Path) -> None:
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(gray(i)).save(folder / f"{i}.webp")


def write_without_suffix(folder: Path) -> None:
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(gray(i)).save(folder / f"{i}", "PNG")


LEVELS = "if p1 is a patient, --dataset.levels class,patient; if it is a class, --dataset.levels any,class"
READ = r": read are files that end in \.png, \.jpg, "


@pytest.mark.parametrize(
    ("write", "lying"),
    [
        (write_webp, rf"has no images but 3 \.webp files{READ}"),
        (write_without_suffix, rf"has no images but 3 files without suffix{READ}"),
        (lambda folder: images(folder / "p1"), f"has no images but folders: 1 .p1.: {LEVELS}"),
        (
            lambda folder: images(folder / "test"),
            r"has no images but folders: 1 .test.: splits are wanted above the classes, train/CLASS",
        ),
        (
            lambda folder: images(folder / "images"),
            "has no images but folders: 1 .images.: --dataset.levels class,any reads",
        ),
    ],
)
@pytest.mark.parametrize("split", ["", "train"])
def test_a_class_without_images_says_what_lies_there(
    tmp_path: Path, write: Any, lying: str, split: str
) -> None:
    images(tmp_path / split / "a")
    write(tmp_path / split / "b")
    with pytest.raises(UserError, match=f"class folder {tmp_path / split / 'b'} {lying}") as caught:
        read(tmp_path, val_from_train=0.2)
    assert "\n" not in str(caught.value)


def test_a_folder_without_classes_says_what_lies_there(tmp_path: Path) -> None:
    write_webp(tmp_path / "set")
    wanted = r"arrange it as CLASS/\*\.png or train/CLASS/\*\.png; read are files that end in \.png, "
    with pytest.raises(UserError, match=rf"set has no class folders but 3 \.webp files: {wanted}"):
        read(tmp_path / "set")
    with pytest.raises(
        UserError, match=rf"no class folders \(dataset.levels any,class\) but 3 \.webp files: {wanted}"
    ):
        read(tmp_path / "set", levels=("any", "class"))
    images(tmp_path / "flat")
    flat = r"flat has no class folders but 6 images: .*, or, if their classes are in a table, write a table of path"
    with pytest.raises(UserError, match=flat):
        read(tmp_path / "flat")
    images(tmp_path / "splits" / "train")
    with pytest.raises(UserError, match=r"splits/train has no class folders but 6 images: "):
        read(tmp_path / "splits")


def test_a_split_whose_images_have_no_classes_is_named(tmp_path: Path) -> None:
    for c in "ab":
        images(tmp_path / "train" / c, seed=ord(c))
    images(tmp_path / "test")
    with pytest.raises(UserError, match="test has no class folders but 6 images: "):
        read(tmp_path, val_from_train=0.2)


def test_what_macos_adds_to_an_archive_is_hidden(tmp_path: Path) -> None:
    for c in "ab":
        images(tmp_path / c, seed=ord(c))
        (tmp_path / "__MACOSX" / c).mkdir(parents=True)
        (tmp_path / "__MACOSX" / c / "._0.png").write_bytes(b"macOS's own")
    assert read(tmp_path).class_names == ("a", "b")


def test_a_folder_around_the_classes_is_no_class(tmp_path: Path) -> None:
    for c in "ab":
        images(tmp_path / "dataset" / c, seed=ord(c))
    with pytest.raises(
        UserError, match=r"dataset has no images but folders: 2 \(a, b\): .*--dataset.levels any,class"
    ):
        read(tmp_path)
    assert read(tmp_path, levels=("any", "class")).class_names == ("a", "b")


def deep(root: Path) -> None:
    for k, kind in enumerate(("Plantae", "Aves")):
        for c in range(3):
            images(root / kind / str(8 + 2 * c + k), seed=10 * k + c)


def test_classes_a_level_deeper_are_read_by_a_setting(tmp_path: Path) -> None:
    deep(tmp_path / "set")
    data = read(tmp_path / "set", levels=("any", "class"))
    assert data.class_names == ("8", "9", "10", "11", "12", "13")
    where = {
        gray(100 * (10 * k + c) + i).tobytes(): str(8 + 2 * c + k)
        for k in range(2)
        for c in range(3)
        for i in range(6)
    }
    found = [data.class_names[label] for label in data.train.labels_N]
    assert [where[image.tobytes()] for image in data.train.images_NCHW] == found
    for split in ("train", "val", "test"):
        deep(tmp_path / "splits" / split)
    assert len(read(tmp_path / "splits", levels=("any", "class")).train) == 36


@pytest.mark.parametrize("levels", [("class", "patient"), ("patient", "class"), ("any", "patient", "class")])
def test_a_folder_for_each_patient_stays_in_one_split(tmp_path: Path, levels: tuple[Any, ...]) -> None:
    for p in range(12):
        names = {"any": "all", "class": "ab"[p % 2], "patient": f"p{p}"}
        images(tmp_path.joinpath(*(names[level] for level in levels)), count=3, seed=p)
    data, (test, _) = read(tmp_path, levels=levels), load_test(config(f"folder:{tmp_path}", levels=levels))
    assert data.class_names == ("a", "b")
    patients = [
        set(part.patients_N.tolist()) for part in (data.train, data.val, test) if part.patients_N is not None
    ]
    assert len(set().union(*patients)) == sum(map(len, patients)) == 12
    owner = {gray(100 * p + i).tobytes(): f"p{p}" for p in range(12) for i in range(3)}
    assert data.train.patients_N is not None
    assert [owner[image.tobytes()] for image in data.train.images_NCHW] == data.train.patients_N.tolist()


def test_a_folder_of_masks_beside_one_of_images_is_left_out(tmp_path: Path) -> None:
    for c, name in enumerate(("COVID", "Normal")):
        images(tmp_path / name / "images", seed=c)
        images(tmp_path / name / "masks", seed=10 + c)
    data = read(tmp_path, levels=("class", "any"))
    assert (
        len(data.train) + len(data.val) == 10
        and "pictures beside them: 2 (COVID/masks, Normal/masks)" in data.notes[0]
    )
    assert len(read(tmp_path, levels=("class", "any"), masks="keep").train) == 16


def grid(root: Path, *folders: str) -> None:
    for i, folder in enumerate(folders):
        images(root / folder, seed=i)


@pytest.mark.parametrize("masks", ["masks", "gt", "segmentations", "Ground Truth", "lesion_masks"])
def test_folders_of_masks_above_the_classes_are_left_out(tmp_path: Path, masks: str) -> None:
    grid(tmp_path, *(f"{kind}/{c}" for kind in ("images", masks) for c in "ab"))
    with pytest.raises(UserError, match=rf"folders: 2 \(a, b\): --data folder:{tmp_path}/images reads its"):
        read(tmp_path)
    data, kept = (read(tmp_path, levels=("any", "class"), masks=masks) for masks in ("leave_out", "keep"))
    assert len(data.train) + len(data.val) == 10 and len(kept.train) == 16
    assert any(f"masks of pictures beside them: 1 ({masks});" in note for note in data.notes)


def test_folders_of_masks_below_splits_are_left_out(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        grid(tmp_path / split, *(f"{kind}/{c}" for kind in ("images", "masks") for c in "ab"))
    with pytest.raises(UserError, match=r"--dataset\.levels any,class reads its classes, without masks"):
        read(tmp_path)
    data = read(tmp_path, levels=("any", "class"))
    assert len(data.train) == 12 and "3 (test/masks, train/masks, val/masks)" in data.notes[0]


@pytest.mark.parametrize("names", [("masks_1", "masks_2"), ("mask", "no_mask"), ("with_mask", "without_mask")])
def test_folders_of_masks_alone_are_read(tmp_path: Path, names: tuple[str, str]) -> None:
    grid(tmp_path, *(f"{name}/{c}" for name in names for c in "ab"))
    data = read(tmp_path, levels=("any", "class"))
    assert len(data.train) == 16 and not any("left out" in note for note in data.notes)


ALIKE = [("seg_train", "seg_test"), ("trainset", "testset"), ("01_train", "03_test"), ("xtrain", "xtest")]


@pytest.mark.parametrize("deeper", [False, True])
@pytest.mark.parametrize("words", ALIKE, ids=" ".join)
def test_folders_named_alike_but_for_the_split_are_splits(
    tmp_path: Path, words: tuple[str, str], deeper: bool
) -> None:
    for s, word in enumerate(words):
        for c in "ab":
            images(tmp_path / word / (word if deeper else "") / c, seed=10 * s + ord(c))
    # As in Kaggle's scenes, whose images for a submission have no classes.
    images(tmp_path / "seg_pred" / "seg_pred")
    levels = ("any", "class") if deeper else ("class",)
    data = read(tmp_path, val_from_train=0.2, levels=levels)
    test, _ = load_test(config(f"folder:{tmp_path}", val_from_train=0.2, levels=levels))
    assert len(data.train) + len(data.val) == len(test) == 12
    assert f"folders are read as splits: {words[0]} as train, {words[1]} as test" in data.notes


@pytest.mark.parametrize(
    ("folders", "levels", "where"),
    [
        (("final test/{}", "my train one/{}"), ("any", "class"), ""),
        (("set/train/{}", "set/test/{}"), ("any", "any", "class"), "/set"),
        (("set/seg_train/{}", "set/seg_test/{}"), ("any", "any", "class"), "/set"),
        (("{}/train", "{}/test"), ("class", "any"), "/a"),
    ],
)
def test_splits_at_a_level_of_no_meaning_are_not_joined(
    tmp_path: Path, folders: tuple[str, ...], levels: tuple[str, ...], where: str
) -> None:
    grid(tmp_path, *(folder.format(c) for folder in folders for c in "ab"))
    with pytest.raises(
        UserError, match=f"^{tmp_path}{where} has .*, which dataset.levels would join: splits are"
    ):
        read(tmp_path, levels=levels)


def test_folders_that_are_splits_in_some_way_are_to_be_renamed(tmp_path: Path) -> None:
    grid(tmp_path, *(f"{folder}/{c}" for folder in ("final test", "my train one") for c in "ab"))
    with pytest.raises(UserError, match="if final test and my train one are splits, rename them to train and"):
        read(tmp_path)


def test_parts_with_a_folder_of_images_are_refused_with_the_table(tmp_path: Path) -> None:
    """As ChestX-ray14 lies: images_001/images, images_002/images, …"""
    for i in range(12):
        write_image(tmp_path / f"images_00{1 + i // 6}" / "images" / f"{i:08d}.png", gray(i))
    rows = [f"{i:08d}.png,{'ab'[i % 2]},{i // 2}" for i in range(12)]
    (tmp_path / "Data_Entry.csv").write_text("\n".join(["Image Index,Label,Patient ID", *rows]))
    shown = (
        rf"images_002, which are no classes: use --data csv:{tmp_path}/Data_Entry.csv .*'images_00\*/images/"
    )
    with pytest.raises(UserError, match=shown):
        read(tmp_path)


MASKED = [
    ("benign (1).png", "benign (1)_mask.png"),
    ("benign (1).png", "benign (1)_mask_1.png"),
    ("a.jpg", "a_mask.png"),
    ("a.png", "a_Mask.PNG"),
    ("a.png", "a-masks.tif"),
    ("case001.png", "case001_tumor.png"),
    ("case001.png", "case001_tumour2.png"),
    ("case001.png", "case001_other1.png"),
    ("ISIC_1.jpg", "ISIC_1_segmentation.png"),
    ("ISIC_1.jpg", "ISIC_1_superpixels.png"),
    ("x.png", "x_seg.png"),
    ("x.png", "x_gt.png"),
    ("x.png", "mask_x.png"),
    ("bus_0001-l.png", "mask_0001-l.png"),
    ("a_b.c.png", "a_b.c_mask.png"),
    ("x0.png", "x0_lesion_mask.png"),
    ("x0.png", "x0_lesion.png"),
    ("x0.png", "x0_roi.png"),
    ("x0.png", "x0_ROI_2.png"),
    ("x0.png", "x0_contour.png"),
    ("x0.png", "x0_overlay.png"),
    ("x0.png", "x0_annotated.png"),
    ("x0.jpg", "x0.jpg_mask.png"),
]
PICTURES = [
    ("a.png", "b_mask.png"),
    ("a.png", "amask.png"),
    ("a_left.png", "a_right.png"),
    ("a.png", "a_other.png"),
    ("a.png", "a_1.png"),
    ("a.png", "tumor.png"),
    ("1_mask.png", "2_mask.png"),
    ("mask_1.png", "mask_2.png"),
    ("a.png", "a_crop.png"),
    ("a.png", "masked a.png"),
    ("a.png", "a_no_mask.png"),
    ("a.png", "a_with_mask.png"),
    ("a.jpg", "a.jpg.png"),
]


@pytest.mark.parametrize(("picture", "mask"), MASKED)
def test_a_mask_beside_its_picture_is_found(picture: str, mask: str) -> None:
    assert masks_among([picture, mask, "other.png"]) == {mask}
    assert masks_among([mask, "other.png"]) == set()


@pytest.mark.parametrize("names", PICTURES)
def test_nothing_else_is_taken_for_a_mask(names: tuple[str, str]) -> None:
    assert masks_among(names) == set()


def test_masks_are_left_out_with_a_note_unless_they_are_kept(tmp_path: Path) -> None:
    for c in "ab":
        images(tmp_path / c, suffix=" x.png", seed=ord(c))
        images(tmp_path / c, suffix=" x_mask.png", seed=1000 + ord(c))
    data, (test, _) = read(tmp_path), load_test(config(f"folder:{tmp_path}"))
    assert len(data.train) + len(data.val) + len(test) == 12
    shown = "masks of pictures beside them: 12 (a/0 x_mask.png, a/1 x_mask.png, a/2 x_mask.png, …)"
    assert data.notes[0] == f"left out, because they are {shown}; --dataset.masks keep takes them for images"
    kept = read(tmp_path, masks="keep")
    assert len(kept.train) == 16 and not any("left out" in note for note in kept.notes)


def test_what_rlcas_wrote_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for c in "ab":
        images(tmp_path / c, seed=ord(c))
    for run in ("runs/first", "results/deep/second", "third"):
        (tmp_path / run / "synth").mkdir(parents=True)
        settings.save(settings.resolve(given={}), tmp_path / run)
        write_image(tmp_path / run / "contact_sheet.png", gray(7))
    (tmp_path / "a" / "config.yaml").write_text("of: another program\n")
    monkeypatch.chdir(tmp_path)
    data = load(config("folder:."))
    assert data.class_names == ("a", "b")
    assert data.notes[0] == "left out, because rlcas wrote it: results, runs, third"
    assert "left out, because they are not image files: 1 (a/config.yaml)" in data.notes
