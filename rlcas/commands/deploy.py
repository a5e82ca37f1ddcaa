"""`rlcas predict` and `rlcas export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlcas.commands.command import Parser
from rlcas.commands.runs import check_is_run
from rlcas.errors import UserError
from rlcas.storage.atomic import check_place


def predict(arguments: argparse.Namespace) -> int:
    """Write the predictions of a run's classifier for new images.

    Raises:
        UserError: --out is not a CSV file.
    """
    check_is_run(arguments.folder)
    if arguments.out.suffix.lower() != ".csv":
        raise UserError(f"--out {arguments.out} is not a CSV file: name one that ends in .csv")
    # Before torch is imported and the images are read.
    check_place(arguments.out)
    from rlcas.deploy.predict import predict as predict_images

    predictions = predict_images(arguments.folder, arguments.images, arguments.given)
    predictions.write(arguments.out)
    print(f"{arguments.out}: {len(predictions.paths)} images")
    return 0


def predict_arguments(parser: Parser) -> str:
    """Add the arguments of `rlcas predict`."""
    text = (
        "folders, image files, or arrays: PATH.npz reads `images`, else `test_images`; PATH.npz:ARRAY names one"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=text)
    table = "the table, which is overwritten [predictions.csv]"
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"), metavar="FILE", help=table)
    return "IMAGES ... [--out FILE]"


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
