from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_run import save_run
from tiny import CPU, tiny_config, tiny_set
from tiny_clip import write_tiny_clip
from torch import Tensor, nn

import rlcas
from rlcas import settings
from rlcas.deploy.export import FORMATS
from rlcas.errors import RunError, UserError
from rlcas.methods import METHODS
from rlcas.training.saved_classifier import load_classifier, predict
from rlcas.types import ImageSet, TrainingData

OBJECTIVES = {method.objective: name for name, method in METHODS.items()}
"""Each objective once, with a method that it is the network of."""
SMALL = {"backbone": "resnet10t"}

LOADERS = """
import sys
sys.modules["rlcas"] = None  # importing it fails
import json, numpy as np, torch, onnxruntime

images, found = np.load("images.npy"), {}

facts = {"rlcas.json": ""}
scripted = torch.jit.load("model.pt", _extra_files=facts)
found["torchscript"] = scripted(torch.from_numpy(images)), facts["rlcas.json"]

facts = {"rlcas.json": ""}
exported = torch.export.load("model.pt2", extra_files=facts).module()
found["pt2"] = exported(torch.from_numpy(images)), facts["rlcas.json"]

session = onnxruntime.InferenceSession("model.onnx")
facts = session.get_modelmeta().custom_metadata_map
found["onnx"] = session.run(["probabilities"], {"images": images})[0], facts["rlcas.json"]

print(json.dumps({name: (p.tolist(), json.loads(text)) for name, (p, text) in found.items()}))
"""


def images_of(num_images: int, size_px: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(num_images)
    brightness = rng.integers(20, 256, (num_images, 1, 1, 1))
    return rng.integers(0, brightness, (num_images, channels, size_px, size_px)).astype(np.uint8)


def data_of(size_px: int, channels: int) -> TrainingData:
    labels_N = np.arange(12) % 3
    images = ImageSet(images_NCHW=images_of(12, size_px, channels), labels_N=labels_N)
    return TrainingData(
        name="noise", class_names=("a", "b", "c"), train=images, val=images, window=(-5.0, 900.5)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"), data_of(16, 1), tiny_config(classifier=SMALL))


def largest_difference(run: Path, exported: Path, name: str, sizes: tuple[int, ...]) -> float:
    classifier, open_file = load_classifier(run, CPU), FORMATS[name].open
    channels, size_px, _ = classifier.meta.image_shape
    loaded, differences = open_file(exported), []
    for size in sizes:
        images_NCHW = images_of(size, size_px, channels)
        expected = predict(classifier, images_NCHW)
        assert size == 1 or np.ptp(expected, axis=0).max() > 0.01, "all images are alike to this classifier"
        differences.append(np.abs(loaded(images_NCHW) - expected).max())
    return max(differences)


@pytest.mark.medium
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("method", OBJECTIVES.values())
def test_every_method_predicts_alike_from_every_format(method: str, name: str, tmp_path: Path) -> None:
    config = tiny_config(classifier={**SMALL, "method": method})
    if needs := METHODS[method].needs:
        config = settings.override(config, {needs: str(write_tiny_clip(tmp_path / "clip"))})
    run = save_run(tmp_path, data_of(28, 1), config)
    exported = rlcas.export(run, format=name)
    assert exported == run / f"model{FORMATS[name].suffix}"
    assert largest_difference(run, exported, name, (1, 3, 300)) < 1e-5


@pytest.mark.medium
@pytest.mark.parametrize("name", FORMATS)
def test_large_rgb_images_are_predicted_alike_from_every_format(name: str, tmp_path: Path) -> None:
    run = save_run(tmp_path, data_of(224, 3), tiny_config(classifier={**SMALL, "width": 4}))
    assert largest_difference(run, rlcas.export(run, format=name), name, (1, 3, 300)) < 1e-5


@pytest.mark.medium
def test_no_format_needs_rlcas_and_all_hold_the_same_facts(run: Path, tmp_path: Path) -> None:
    for form in FORMATS.values():
        rlcas.export(run, tmp_path / f"model{form.suffix}")
    images_NCHW = tiny_set(5, 0).images_NCHW
    np.save(tmp_path / "images.npy", images_NCHW)
    command = [sys.executable, "-W", "ignore", "-c", LOADERS]
    found = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    for name, (p_NC, facts) in found.items():
        np.testing.assert_allclose(
            p_NC, predict(load_classifier(run, CPU), images_NCHW), atol=1e-5, err_msg=name
        )
        assert facts["class_names"] == ["a", "b", "c"]
        assert facts["input"]["shape"] == ["N", 1, 16, 16] and facts["input"]["dtype"] == "uint8"
        assert facts["input"]["window"] == [-5.0, 900.5]
        assert facts["output"] == {"name": "probabilities", "dtype": "float32", "shape": ["N", 3]}


@pytest.mark.medium
@pytest.mark.parametrize("name", ["pt2", "onnx"])
def test_a_file_holds_nothing_of_the_machine_that_wrote_it(run: Path, tmp_path: Path, name: str) -> None:
    exported = rlcas.export(run, tmp_path / f"model{FORMATS[name].suffix}")
    assert str(Path(torch.__file__).parents[1]).encode() not in exported.read_bytes()


def test_what_trains_in_bf16_is_exported_in_fp32(tmp_path: Path) -> None:
    run = save_run(tmp_path, data_of(16, 1), tiny_config(classifier={**SMALL, "precision": "bf16"}))
    exported = rlcas.export(run, tmp_path / "model.pt")
    in_fp32 = save_run(
        tmp_path / "fp32", data_of(16, 1), tiny_config(classifier={**SMALL, "precision": "fp32"})
    )
    assert largest_difference(in_fp32, exported, "torchscript", (3,)) < 1e-5


def test_a_file_with_other_predictions_is_deleted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = FORMATS["torchscript"]

    def write_brighter(network: nn.Module, example: Tensor, facts: str, path: Path) -> None:
        network.mean_C11 -= 0.2
        right.write(network, example, facts, path)

    monkeypatch.setitem(FORMATS, "torchscript", dataclasses.replace(right, write=write_brighter))
    with pytest.raises(RunError, match=r"model.pt is not kept \(its probabilities of 1 images differ by 0\."):
        rlcas.export(run, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


class FixedBatch(nn.Module):
    """A network of a user's own that tracing fixes to the batch of two that it was traced with."""

    def __init__(self, num_classes: int, num_pixels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_pixels, num_classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.linear(images_NCHW.reshape(int(images_NCHW.shape[0]), -1))


def fixed_batch(config: object, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    return FixedBatch(num_classes, channels * size_px**2)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["torchscript", "pt2"])
def test_a_network_that_cannot_be_exported_is_an_error_of_one_line(name: str, tmp_path: Path) -> None:
    config = tiny_config(classifier={"backbone": "test_export:fixed_batch", "width": None})
    run = save_run(tmp_path, data_of(16, 1), config)
    before = sorted(run.iterdir())
    with pytest.raises(RunError, match=r"^\S+/model.pt2? is not kept \(.+\): try another --format$"):
        rlcas.export(run, format=name)
    assert sorted(run.iterdir()) == before


def test_the_ending_of_the_name_chooses_the_format(run: Path, tmp_path: Path) -> None:
    assert rlcas.export(run, tmp_path / "breast.PT").name == "breast.PT"
    torch.jit.load(tmp_path / "breast.PT")
    with pytest.raises(
        UserError, match=r"--out model.bin does not say the format: use an ending of .pt \(torchs"
    ):
        rlcas.export(run, Path("model.bin"))


def test_an_unknown_format_is_named(run: Path) -> None:
    with pytest.raises(UserError, match=r"--format 'tflite' is unknown: use one of onnx, pt2, torchscript"):
        rlcas.export(run, format="tflite")


def test_an_ending_of_another_format_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"--out model.onnx ends as onnx does: leave out --format pt2"):
        rlcas.export(run, Path("model.onnx"), "pt2")


def test_a_missing_extra_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"--format onnx needs onnxscript: pip install rlcas\[onnx\]"):
        rlcas.export(run, format="onnx")


def test_the_command_prints_the_file(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlcas", "export", str(run), "--out", str(tmp_path / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'model.pt'}\n" and done.stderr == ""
    assert largest_difference(run, tmp_path / "model.pt", "torchscript", (3,)) < 1e-5
