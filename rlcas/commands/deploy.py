"""`rlcas predict` and `rlcas export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlcas.commands.command import Parser
from rlcas.commands.runs import check_is_run
from rlcas.errors import UserError
from rlcas.storage.atomic import check_place

MEDMNIST = "medmnist"
TABLE = Path("predictions.csv")


def predict(arguments: argparse.Namespace) -> int:
    """Write the predictions of a run's classifier for new images.

    Raises:
        UserError: --out is not a CSV file, or does not go with the format.
    """
    check_is_run(arguments.folder)
    # Before torch is imported and the images are read.
    check_place(_place_of(arguments))
    from rlcas.deploy.predict import predict as predict_images

    predictions = predict_images(arguments.folder, arguments.images, arguments.given)
    out = _place_of(arguments)
    if arguments.format == MEDMNIST:
        out = predictions.write_medmnist(out.parent, arguments.folder.absolute().name)
    else:
        predictions.write(out)
    print(f"{out}: {len(predictions.paths)} images")
    return 0


def _place_of(arguments: argparse.Namespace) -> Path:
    """Return where the table goes; the name of MedMNIST's file follows from its figures, and is yet to be known.

    Raises:
        UserError: --out is not a CSV file, or does not go with the format, or the images do not.
    """
    is_table = arguments.out.suffix.lower() == ".csv"
    if arguments.format != MEDMNIST:
        if not is_table:
            raise UserError(f"--out {arguments.out} is not a CSV file: name one that ends in .csv")
        return arguments.out
    from rlcas.deploy.medmnist import medmnist_split

    medmnist_split(arguments.images)
    if arguments.out == TABLE:
        return TABLE
    if is_table:
        raise UserError(f"--out {arguments.out}: --format medmnist names its file itself: name a folder")
    return arguments.out / TABLE


def predict_arguments(parser: Parser) -> str:
    """Add the arguments of `rlcas predict`."""
    text = (
        "folders, image files, or arrays: PATH.npz reads `images`, else `test_images`; PATH.npz:ARRAY names one"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=text)
    table = (
        "the table, which is overwritten [predictions.csv]; with --format medmnist the folder of the file [.]"
    )
    parser.add_argument("--out", type=Path, default=TABLE, metavar="FILE", help=table)
    kinds = "csv, or medmnist: the result file of MedMNIST's Evaluator, for one array SPLIT_images of its files [csv]"
    parser.add_argument("--format", choices=("csv", MEDMNIST), default="csv", help=kinds)
    return "IMAGES ... [--out FILE] [--format csv|medmnist]"


def export(arguments: argparse.Namespace) -> int:
    """Write a run's classifier to a file that needs no rlcas."""
    check_is_run(arguments.folder)
    if arguments.out is not None:
        check_place(arguments.out)
    from rlcas.deploy.export import export as export_run

    print(export_run(arguments.folder, arguments.out, arguments.format))
    return 0


def export_arguments(parser: Parser) -> str:
    """Add the arguments of `rlcas export`."""
    to = "the file, which is overwritten [model.pt2, .pt or .onnx in the run's folder]"
    parser.add_argument("--out", type=Path, metavar="FILE", help=to)
    kinds = "torchscript, pt2 or onnx [by the file's ending, else pt2]"
    parser.add_argument("--format", metavar="FORMAT", help=kinds)
    return "[--out FILE] [--format FORMAT]"
