"""Public image sets as they lie on disk, made small: real folder names, file names and columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE_PX = 16


def write_layouts(root: Path) -> None:
    """Write every set below `root`, each below a folder of its own or named as its archive."""
    for write in (
        busi,
        bus_bra,
        breast,
        ham10000,
        isic2019,
        aptos,
        eyepacs,
        bus_uclm,
        imagenet_lt,
        inaturalist,
    ):
        write(root)


def busi(root: Path) -> None:
    """A mask beside each picture, some with a second one; a picture in two classes."""
    for label, count in (("benign", 12), ("malignant", 8), ("normal", 6)):
        for i in range(1, count + 1):
            path = root / "Dataset_BUSI_with_GT" / label / f"{label} ({i}).png"
            picture(path, i + 100 * len(label), channels=3)
            mask(path.with_name(f"{label} ({i})_mask.png"))
            if label == "benign" and i in (4, 5):
                mask(path.with_name(f"{label} ({i})_mask_1.png"))


def bus_bra(root: Path) -> None:
    """Two sides of a case; a subtype with two patients."""
    subtypes = ["Fibroadenoma"] * 8 + ["Cyst"] * 5 + ["Invasive ductal carcinoma"] * 5 + ["Phyllodes tumor"] * 2
    rows = []
    for case, subtype in enumerate(subtypes, start=1):
        for side in "lr" if case % 2 else "s":
            name = f"{case:04d}-{side}"
            picture(root / "BUSBRA" / "Images" / f"bus_{name}.png", case)
            mask(root / "BUSBRA" / "Masks" / f"mask_{name}.png")
            pathology = "malignant" if "carcinoma" in subtype else "benign"
            rows.append((f"bus_{name}", case, subtype, pathology, 4, "GE Logiq 5", '"[35,32,49,51]"'))
    table(root / "BUSBRA" / "bus_data.csv", "ID,Case,Histology,Pathology,BIRADS,Device,BBOX", rows)
    folds = [(row[0], row[3], i % 5 + 1) for i, row in enumerate(rows)]
    table(root / "BUSBRA" / "5-fold-cv.csv", "ID,Pathology,kFold", folds)


def breast(root: Path) -> None:
    """Pictures and masks in one folder; the sheet saved as CSV, in a European Excel."""
    folder, rows = root / "BrEaST-Lesions_USG-images_and_masks", []
    for i in range(1, 21):
        picture(folder / f"case{i:03d}.png", i, channels=4)
        mask(folder / f"case{i:03d}_tumor.png")
        if i % 5 == 0:
            mask(folder / f"case{i:03d}_other1.png")
        label = "malignant" if i % 3 == 0 else "benign"
        rows.append((i, f"case{i:03d}.png", f"case{i:03d}_tumor.png", "0,0071", "57", f"d{i % 4}", label))
    head = "CaseID;Image_filename;Mask_tumor_filename;Pixel_size;Age;Diagnosis;Classification"
    table(folder / "BrEaST.csv", head, rows, separator=";", encoding="utf-8-sig")


def ham10000(root: Path) -> None:
    """Two folders of pictures, several of one lesion."""
    rows = []
    for i in range(48):
        name, label = f"ISIC_{24306 + i:07d}", ("nv", "nv", "mel", "bkl")[i // 2 % 4]
        picture(root / "HAM10000" / f"HAM10000_images_part_{1 + i % 2}" / f"{name}.jpg", i, channels=3)
        rows.append((f"HAM_{i // 2:07d}", name, label, "histo", 60.0, "male", "back"))
    head = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    table(root / "HAM10000" / "HAM10000_metadata.csv", head, rows)


def isic2019(root: Path) -> None:
    """One-hot labels, one class of which is empty; lesions in a second table, empty for some."""
    classes, labels, facts = ("MEL", "NV", "BCC", "UNK"), [], []
    for i in range(40):
        name = f"ISIC_{i:07d}" + ("_downsampled" if i % 5 == 0 else "")
        picture(root / "ISIC2019" / "ISIC_2019_Training_Input" / f"{name}.jpg", i, channels=3)
        labels.append((name, *(1.0 if c == i // 2 % 3 else 0.0 for c in range(len(classes)))))
        facts.append((name, 55, "anterior torso", "" if i % 8 > 5 else f"MSK4_{i // 2:07d}", "female"))
    start = root / "ISIC2019" / "ISIC_2019_Training_"
    table(Path(f"{start}GroundTruth.csv"), ",".join(["image", *classes]), labels)
    table(Path(f"{start}Metadata.csv"), "image,age_approx,anatom_site_general,lesion_id,sex", facts)


def aptos(root: Path) -> None:
    """Test pictures without labels."""
    names = [f"{i * 7919:012x}" for i in range(1, 31)]
    for i, name in enumerate(names):
        picture(root / "aptos2019" / "train_images" / f"{name}.png", i)
        picture(root / "aptos2019" / "test_images" / f"f{name[1:]}.png", 100 + i)
    table(
        root / "aptos2019" / "train.csv", "id_code,diagnosis", [(name, i % 3) for i, name in enumerate(names)]
    )
    table(
        root / "aptos2019" / "sample_submission.csv",
        "id_code,diagnosis",
        [(f"f{name[1:]}", 0) for name in names],
    )
    table(root / "aptos2019" / "test.csv", "id_code", [(f"f{name[1:]}",) for name in names])


def eyepacs(root: Path) -> None:
    """Two eyes of a patient."""
    rows = [(f"{patient}_{eye}", patient % 3) for patient in range(10, 40) for eye in ("left", "right")]
    for i, (name, _) in enumerate(rows):
        picture(root / "eyepacs" / "train" / f"{name}.jpeg", i)
    table(root / "eyepacs" / "trainLabels.csv", "image,level", rows)


def bus_uclm(root: Path) -> None:
    """Pictures and masks of one name in two folders; the patient is in the letters of the name."""
    rows = []
    for p, patient in enumerate(("ALWI", "VITR", "BEMA", "CODA", "ENSO", "FOMA", "GIRA", "HUTA", "INES")):
        for i in range(4):
            name = f"{patient}_{i:03d}.png"
            picture(root / "BUS-UCLM" / "images" / name, 10 * p + i, channels=3)
            mask(root / "BUS-UCLM" / "masks" / name)
            rows.append((name, ("Benign", "Malignant", "Normal")[p % 3]))
    table(root / "BUS-UCLM" / "INFO.csv", "Image;Label", rows, separator=";")


def imagenet_lt(root: Path) -> None:
    """A list for each split, without a header, whose paths begin in the folder of the full set."""
    for split, count in (("train", 10), ("val", 3), ("test", 3)):
        lines = []
        for label, wordnet in enumerate(("n01440764", "n01443537", "n01484850")):
            for i in range(count - 3 * label if split == "train" else count):
                name = f"{'train' if split == 'train' else 'val'}/{wordnet}/{wordnet}_{split}{i}.JPEG"
                picture(root / "imagenet" / name, 1000 * label + 10 * i + len(split))
                lines.append((name, label))
        table(root / f"ImageNet_LT_{split}.txt", None, lines, separator=" ")


def inaturalist(root: Path) -> None:
    """Classes, which are numbers, a level deeper than usual; no list of test images."""
    for split, count in (("train", 8), ("val", 3)):
        lines = []
        for label in range(12):
            for i in range(count):
                kind = ("Plantae", "Aves")[label % 2]
                name = f"train_val2018/{kind}/{label}/{split}{i}.jpg"
                picture(root / "iNaturalist" / name, 100 * label + i + len(split))
                lines.append((name, label))
        table(root / "iNaturalist" / f"iNaturalist18_{split}.txt", None, lines, separator=" ")


def picture(path: Path, seed: int, channels: int = 1) -> None:
    """Write noise, in another size for each seed."""
    shape = (SIZE_PX + seed % 3, SIZE_PX, channels) if channels > 1 else (SIZE_PX + seed % 3, SIZE_PX)
    pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, shape).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def mask(path: Path) -> None:
    """Write a mask of one bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(SIZE_PX, dtype=bool)).save(path)


def table(
    path: Path,
    head: str | None,
    rows: Iterable[Sequence[object]],
    separator: str = ",",
    encoding: str = "utf-8",
) -> None:
    """Write a table."""
    lines = [separator.join(map(str, row)) for row in rows]
    path.write_text("\n".join([*([head] if head else []), *lines]) + "\n", encoding=encoding)
