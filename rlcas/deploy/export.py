"""A run's classifier as one file that needs no rlcas: TorchScript, torch.export's .pt2, or ONNX.

Every format takes uint8 images [N, channels, H, W] of any N and returns float32 probabilities [N, C]; the
normalisation is inside. The class names, the input's format and so on are JSON in the file, under `rlcas.json`.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import rlcas
from rlcas.batches.images import to_float
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.errors import RunError, UserError, first_line
from rlcas.registry import lookup
from rlcas.seeding import rng_for
from rlcas.storage.atomic import replacing
from rlcas.training.saved_classifier import Classifier, load_classifier
from rlcas.training.saved_classifier import predict as probabilities_of
from rlcas.types import Uint8

CPU = torch.device("cpu")
FACTS_FILE = "rlcas.json"
INPUT, OUTPUT = "images", "probabilities"
LARGEST_DIFFERENCE = 1e-5
CHECKED_BATCHES = (1, 3)
"""Batch sizes with which an exported file is checked; it is traced with another one."""

UNTRACEABLE = (RuntimeError, TypeError, ValueError, AttributeError, StopIteration)
"""What torch's tracers have been seen to raise for networks that they cannot trace."""

Predictor = Callable[[Uint8], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file that a classifier is exported to."""

    suffix: str
    write: Callable[[nn.Module, Tensor, str, Path], None]
    """(network, example batch, facts as JSON, path)"""
    open: Callable[[Path], Predictor]
    needs: tuple[str, ...] = ()
    """Packages that it needs, which the extra of the same name installs."""


class ExportedClassifier(nn.Module):
    """From uint8 images [N, channels, H, W] to float32 probabilities [N, C]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier.model
        self.mean_C11, self.scale_C11 = (
            # Buffers, so that the normalisation is stored in the file with the weights.
            nn.Buffer(torch.tensor(values)[:, None, None])
            for values in (classifier.meta.mean, [1 / std for std in classifier.meta.std])
        )
        offset = classifier.meta.offset
        self.offset_C = None if offset is None else nn.Buffer(torch.tensor(offset))

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities."""
        logits_NC = self.model((to_float(images) - self.mean_C11) * self.scale_C11).float()
        # Not a buffer of zeros, so that a file without an offset is what it was.
        return (logits_NC if self.offset_C is None else logits_NC - self.offset_C).softmax(dim=1)


def export(run: str | Path, out: str | Path | None = None, format: str | None = None) -> Path:
    """Write a run's classifier to one file, check its predictions against the run's, and return its path.

    It computes in fp32, whatever `classifier.precision` is.

    Args:
        run: a run's folder.
        out: the file; None: `model` with the format's ending in the run's folder.
        format: a name in FORMATS; None: by the file's ending, or .pt2 without a file.

    Raises:
        UserError: the run has no classifier, or the format is unknown or not installed.
        RunError: the network cannot be exported to the format, or the file's probabilities differ from the run's;
            the file is deleted.
    """
    run, out = Path(run), None if out is None else Path(out)
    chosen = _format(out, format)
    classifier = _in_fp32(load_classifier(run, CPU))
    network = ExportedClassifier(classifier).eval().requires_grad_(False)
    # load_classifier may return channels-last weights (`rlcas.devices.place`); the file has the default layout.
    network = network.to(memory_format=torch.contiguous_format)
    path = out or run / f"model{chosen.suffix}"
    # Checked under the temporary name: a file that fails is deleted and never has the final name.
    with replacing(path) as temporary:
        try:
            # An example of two images, because torch.export makes a constant of a size of 0 or 1.
            chosen.write(
                network, torch.from_numpy(_noise(classifier.meta, 2)), _facts(classifier.meta), temporary
            )
            _check(chosen.open(temporary), classifier)
        except UNTRACEABLE as error:
            raise RunError(f"{path} is not kept ({first_line(error)}): try another --format") from error
    return path


def _format(out: Path | None, name: str | None) -> Format:
    ended = next(
        (known for known, found in FORMATS.items() if out and out.suffix.lower() == found.suffix), None
    )
    if name and ended not in (None, name):
        raise UserError(f"--out {out} ends as {ended} does: leave out --format {name}, or name another file")
    if out and not (name or ended):
        endings = ", ".join(f"{found.suffix} ({known})" for known, found in FORMATS.items())
        raise UserError(f"--out {out} does not say the format: use an ending of {endings}, or set --format")
    name = name or ended or "pt2"
    chosen = lookup(name, FORMATS, "--format")
    if missing := [package for package in chosen.needs if not _is_installed(package)]:
        raise UserError(f"--format {name} needs {', '.join(missing)}: pip install rlcas[{name}]")
    return chosen


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # find_spec raises it for a name in sys.modules without a spec
        return False


def _in_fp32(classifier: Classifier) -> Classifier:
    # The expected probabilities must be of fp32 too, or bf16 would look like a fault of the file.
    settings = classifier.meta.classifier.model_copy(update={"precision": "fp32"})
    meta = classifier.meta.model_copy(update={"classifier": settings})
    return Classifier(classifier.model, meta, classifier.device)


def _noise(meta: ClassifierMeta, num_images: int) -> Uint8:
    """Return images of noise, the same ones for the same number."""
    return rng_for(0, "export", num_images).integers(0, 256, (num_images, *meta.image_shape), np.uint8)


def _facts(meta: ClassifierMeta) -> str:
    """Return the facts that a user of the file must know, as JSON."""
    channels, height_px, width_px = meta.image_shape
    return json.dumps(
        {
            "class_names": meta.class_names,
            "input": {
                **{"name": INPUT, "dtype": "uint8", "shape": ["N", channels, height_px, width_px]},
                **{"range": [0, 255], "normalisation": "inside: give the pixels as they are"},
                "resize": "whole: Pillow's BOX along a shrinking side, then BICUBIC along a growing one",
                "channels": "gray (luma)" if channels == 1 else "RGB",
                "window": meta.window,
            },
            "output": {"name": OUTPUT, "dtype": "float32", "shape": ["N", meta.num_classes]},
            **({} if meta.offset is None else {"offset": meta.offset}),
            **{"method": meta.classifier.method, "backbone": meta.classifier.backbone},
            **{"rlcas": rlcas.__version__, "notice": "not a medical device"},
        }
    )


def _check(predict: Predictor, classifier: Classifier) -> None:
    for size in CHECKED_BATCHES:
        images_NCHW = _noise(classifier.meta, size)
        difference = np.abs(predict(images_NCHW) - probabilities_of(classifier, images_NCHW)).max()
        if not difference <= LARGEST_DIFFERENCE:  # also true for NaN, which > would let pass
            raise RunError(
                f"its probabilities of {size} images differ by {difference:.2g} from the run's, more than "
                f"{LARGEST_DIFFERENCE:g}"
            )


def _write_torchscript(network: nn.Module, example: Tensor, facts: str, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still what C++ and phones load
        # _check compares the file itself, and with other batch sizes, so tracing need not check anything.
        torch.jit.trace(network, example, check_trace=False).save(str(path), _extra_files={FACTS_FILE: facts})


def _open_torchscript(path: Path) -> Predictor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return _of_torch(torch.jit.load(str(path)))


def _exported(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    any_size = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(network, (example,), dynamic_shapes=any_size)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of this machine
    return program


def _write_pt2(network: nn.Module, example: Tensor, facts: str, path: Path) -> None:
    # An open file, because torch.export.save warns of a path that does not end in .pt2, as the temporary one.
    with path.open("wb") as file:
        torch.export.save(_exported(network, example), file, extra_files={FACTS_FILE: facts})


def _open_pt2(path: Path) -> Predictor:
    with path.open("rb") as file:
        return _of_torch(torch.export.load(file).module())


def _write_onnx(network: nn.Module, example: Tensor, facts: str, path: Path) -> None:
    program = torch.onnx.export(
        _exported(network, example), input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    assert program is not None
    program.model.metadata_props[FACTS_FILE] = facts
    program.save(path)


def _open_onnx(path: Path) -> Predictor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images_NCHW: session.run([OUTPUT], {INPUT: images_NCHW})[0]


def _of_torch(module: Any) -> Predictor:
    @torch.no_grad()
    def predict(images_NCHW: Uint8) -> np.ndarray:
        return module(torch.from_numpy(images_NCHW)).numpy()

    return predict


FORMATS: dict[str, Format] = {
    "torchscript": Format(suffix=".pt", write=_write_torchscript, open=_open_torchscript),
    "pt2": Format(suffix=".pt2", write=_write_pt2, open=_open_pt2),
    "onnx": Format(
        suffix=".onnx", write=_write_onnx, open=_open_onnx, needs=("onnx", "onnxscript", "onnxruntime")
    ),
}
"""Kinds of files by name."""
