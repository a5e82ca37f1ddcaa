"""PiDiNet: differences of pixels, conversion, the authors' checkpoints and maps, and a user's mistakes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_synth import squares, tiny_data
from torch import Tensor

from cluster.runs.checks import check_settings
from cluster.runs.results import write_gallery
from rlcas import settings
from rlcas.batches.sources import RealImages
from rlcas.cli import main
from rlcas.errors import UserError
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.runs.paths import resolved
from synth.pidinet import VARIANTS, PiDiNet, PixelDifferenceConv, convert, load_pidinet, show_licence_notice
from synth.sketch import IMAGENET_MEAN, IMAGENET_STD, SKETCHES, sketch_extractor

PARAMETERS = {
    "full": 710_149,
    "small": 183_763,
    "tiny": 84_477,
    "full-l": 611_289,
    "small-l": 158_949,
    "tiny-l": 73_369,
}


@pytest.fixture(scope="module")
def reference(real_data: Path) -> Path:
    folder = real_data.parent / "pidinet"
    if not folder.is_dir():
        pytest.skip("the authors' checkpoints and maps are not in the folder of the real images")
    return folder


def central(around: np.ndarray, w: np.ndarray) -> float:
    return sum(w[i, j] * (around[1 + i, 1 + j] - around[2, 2]) for i in range(3) for j in range(3))


def angular(around: np.ndarray, w: np.ndarray) -> float:
    clockwise = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]
    pixel = around[1:4, 1:4]
    return sum(w[here] * (pixel[here] - pixel[there]) for here, there in pairwise(clockwise))


def radial(around: np.ndarray, w: np.ndarray) -> float:
    """The outer ring minus the inner, with all weights but the first, row by row as in the checkpoints."""
    outer = np.delete(around[::2, ::2].flatten(), 4)
    inner = np.delete(around[1:4, 1:4].flatten(), 4)
    return float((w.flatten()[1:] * (outer - inner)).sum())


DIFFERENCES = {"central": central, "angular": angular, "radial": radial}


@pytest.mark.parametrize("kind", DIFFERENCES)
@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_weights_differences_of_pixels_and_equals_its_plain_one(kind: str, groups: int) -> None:
    torch.manual_seed(0)
    layer = PixelDifferenceConv(kind, 4, 8, groups).double()
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    padded, weight = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2))), layer.weight.detach().numpy()
    expected = np.zeros((2, 8, 5, 7))
    for n, o, row, column in np.ndindex(expected.shape):
        for c in range(4 // groups):
            channel = o // (8 // groups) * (4 // groups) + c
            around = padded[n, channel, row : row + 5, column : column + 5]
            expected[n, o, row, column] += DIFFERENCES[kind](around, weight[o, c])
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-12)
    np.testing.assert_allclose(layer.converted()(x).detach(), expected, atol=1e-12)


def test_a_flat_image_has_no_differences_whatever_the_weights() -> None:
    for kind in DIFFERENCES:
        layer = PixelDifferenceConv(kind, 3, 6)
        inside = layer(torch.full((1, 3, 9, 9), 0.7))[..., 2:-2, 2:-2]
        torch.testing.assert_close(inside, torch.zeros_like(inside))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_as_many_parameters_as_the_authors(variant: str) -> None:
    with torch.device("meta"):
        network = PiDiNet(variant)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[variant]


@pytest.mark.parametrize("variant", ["small", "tiny-l"])
@pytest.mark.parametrize("shape", [(28, 28), (33, 19)])
def test_conversion_leaves_no_difference_layer_and_changes_no_map(variant: str, shape: tuple[int, int]) -> None:
    network, images = random_network(variant), torch.randn(2, 3, *shape)
    maps = network(images)
    assert maps.shape == (2, 5, *shape) and maps.std() > 0.01
    plain = convert(network)
    assert not any(isinstance(module, PixelDifferenceConv) for module in plain.modules())
    torch.testing.assert_close(plain(images), maps)


@pytest.mark.parametrize(
    ("file", "variant", "key"),
    [("table5_pidinet.pth", "full", "pidinet"), ("table5_pidinet-tiny.pth", "tiny", "pidinet_tiny")],
)
def test_the_maps_are_those_of_the_authors_converted_or_not(
    reference: Path, file: str, variant: str, key: str
) -> None:
    golden = np.load(reference / "golden.npz")
    images, expected = golden["images"][:, None], golden[key][:, None].astype(np.float32)
    converted = SKETCHES["pidinet"](weights=reference / file, variant=variant)(images)
    np.testing.assert_allclose(converted, expected, atol=1e-3, rtol=0)
    unconverted = load_pidinet(reference / file, variant)(normalised(images))[:, -1:]
    np.testing.assert_allclose(unconverted, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("side_px", [8, 28, 33])
def test_an_extractor_returns_maps_in_0_1_for_any_kind_and_side(tiny: Path, side_px: int) -> None:
    extractor, images = SKETCHES["pidinet"](weights=tiny), squares(3, side_px=side_px)
    maps = extractor(images)
    assert isinstance(maps, np.ndarray) and maps.dtype == np.float32 and maps.shape == images.shape
    assert maps.min() >= 0 and maps.max() <= 1 and maps.std() > 1e-4
    from_torch = extractor(torch.from_numpy(images))
    assert isinstance(from_torch, Tensor) and not from_torch.requires_grad
    np.testing.assert_array_equal(from_torch, maps)
    np.testing.assert_array_equal(extractor(images.repeat(3, axis=1)), maps)  # gray is repeated


def test_the_maps_of_many_images_are_those_of_each_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, images = SKETCHES["pidinet"](weights=tiny), squares(5)
    whole = extractor(images)
    monkeypatch.setattr("synth.sketch.CHUNK_PIXELS", 2 * 20 * 20)
    np.testing.assert_allclose(extractor(images), whole, atol=1e-6)
    assert extractor(images[:0]).shape == (0, 1, 20, 20)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_bare_state_dict_loads_too_and_its_variant_is_recognised(variant: str, tmp_path: Path) -> None:
    network = random_network(variant)
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    images = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(load_pidinet(tmp_path / "bare.pth")(images), network(images), rtol=0, atol=0)


def test_loading_leaves_the_global_random_state_alone(tiny: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    SKETCHES["pidinet"](weights=tiny)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_licence_notice_is_shown_once(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_licence_notice.cache_clear()
    for _ in range(2):
        SKETCHES["pidinet"](weights=tiny)
    said = capsys.readouterr().out
    assert said.count("\n") == said.count("research only; agree with its authors on any commercial use") == 1
    assert "Pixel Difference Networks" in said and "github.com/hellozhuo/pidinet" in said


class Anything:
    """An object that is not a tensor."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            r"are not a checkpoint of tensors only \(truncated, .* pickled objects, which are never loaded\): get t",
        ),
        (b"hello", r"are not a checkpoint of tensors only"),
        ({"state_dict": Anything()}, r"are not a checkpoint of tensors only"),
        (
            {"state_dict": {}},
            r"hold another network: get table5_pidinet\.pth from github\.com/hellozhuo/pidinet",
        ),
        ({"state_dict": torch.zeros(3)}, r"hold another network"),
        ([torch.zeros(3)], r"hold another network"),
        ({"init_block.weight": torch.zeros(20, 3, 3, 3)}, r"hold another network"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_a_one_line_error_with_the_fix(
    content: Any, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=rf"^pidinet weights .*bad\.pth {message}") as caught:
        SKETCHES["pidinet"](weights=file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [1, 1000, -1000])
def test_a_truncated_checkpoint_is_refused(kept: int, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "short.pth").write_bytes(tiny.read_bytes()[:kept])
    with pytest.raises(
        UserError, match=r"^pidinet weights .*short\.pth are not a checkpoint of tensors only \(trunc"
    ):
        SKETCHES["pidinet"](weights=tmp_path / "short.pth")


def test_missing_weights_and_wrong_variants_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^sketch pidinet needs its checkpoint, which is not downloaded: get tab"
    ):
        SKETCHES["pidinet"]()
    with pytest.raises(
        UserError, match=r"gone\.pth cannot be read: No such file or directory: name the checkp"
    ):
        SKETCHES["pidinet"](weights=tmp_path / "gone.pth")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        SKETCHES["pidinet"](weights=tmp_path)
    with pytest.raises(UserError, match=r"are of variant tiny, not full: set variant 'tiny'$"):
        SKETCHES["pidinet"](weights=tiny, variant="full")
    with pytest.raises(
        UserError, match=r"^variant 'huge' of pidinet is unknown: use one of full, small, tiny, f"
    ):
        SKETCHES["pidinet"](weights=tiny, variant="huge")
    with pytest.raises(
        UserError, match=r"sides of \[7, 7\] px are too small: resize to 8 px at least with datas"
    ):
        SKETCHES["pidinet"](weights=tiny)(np.zeros((1, 1, 7, 7), np.uint8))


def test_a_relative_path_of_weights_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = settings.resolve(given={"synth.sketch": "pidinet", "synth.sketch_weights": "tiny.pth"})
    assert resolved(given).synth.sketch_weights == tmp_path / "tiny.pth"
    assert resolved(settings.resolve(given={})).synth.sketch_weights is None


def test_the_settings_name_the_extractor_and_the_checkpoint_has_the_variant(tiny: Path) -> None:
    given = {"synth.sketch": "pidinet", "synth.sketch_weights": str(tiny)}
    images = squares(2)
    maps = sketch_extractor(settings.resolve(given=given).synth)(images)
    np.testing.assert_array_equal(maps, SKETCHES["pidinet"](weights=tiny, variant="tiny")(images))


def test_preset_paper_with_an_own_pool_needs_no_weights_for_its_gallery(tmp_path: Path) -> None:
    config, data = settings.resolve(given={"preset": "paper", "pool": "folder:mine"}), tiny_data()
    check_settings(config)
    write_gallery(RunContext(RunFolder(tmp_path), config, data, torch.device("cpu")), RealImages(data.train))
    gallery = np.load(tmp_path / "gallery.npz")
    expected = SKETCHES["ratio_of_averages"](gallery["real"][0])
    np.testing.assert_allclose(gallery["real_sketch"][0] / 255, expected, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--synth.sketch", "pidinet"], "rlcas: sketch pidinet needs its checkpoint"),
        (["--synth.sketch", "pidinet", "--synth.sketch_weights", "gone.pth"], "gone.pth cannot be read"),
        (["--preset", "paper"], "rlcas: preset paper needs weights that are not given"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["synth", "train"]])
def test_the_command_stops_before_anything_is_made(
    command: list[str],
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--data", "npz:nowhere.npz", *words]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr and stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights in the authors' format."""
    path = tmp_path_factory.mktemp("pidinet") / "random-tiny.pth"
    state = random_network("tiny").state_dict()
    torch.save({"epoch": 0, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return path


def random_network(variant: str) -> PiDiNet:
    torch.manual_seed(1)
    return PiDiNet(variant).requires_grad_(False).eval()


def normalised(images_NCHW: np.ndarray) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.from_numpy(images_NCHW).float() / 255 - mean) / std
