"""Backbones are tried at the images' size before anything starts: what they cannot take, and what they do not read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_run
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlcas import cli
from rlcas.classifiers.image_size import check_image_size
from rlcas.config import ClassifierConfig
from rlcas.devices import place
from rlcas.errors import UserError

FAMILIES = {
    "test_byobnet": (28, 64),
    "cait_xxs24_224": (32, 64),
    "coat_tiny": (32, 64),
    "convit_tiny": (32, 64),
    "convmixer_768_32": (28, 63),
    "test_convnext": (32, 64),
    "crossvit_tiny_240": (24, 72),
    "cs3darknet_focus_s": (28, 64),
    "cspnext_tiny": (28, 64),
    "davit_tiny": (28, 64),
    "deit_tiny_patch16_224": (32, 64),
    "densenet121": (29, 64),
    "dla46x_c": (31, 64),
    "dpn48b": (28, 64),
    "edgenext_xx_small": (32, 64),
    "efficientformer_l1": (193, 193),
    "efficientformerv2_s0": (28, 64),
    "test_efficientnet": (28, 64),
    "efficientvit_b0": (28, 64),
    "efficientvit_m0": (28, 64),
    "fastvit_t8": (28, 64),
    "focalnet_tiny_srf": (32, 64),
    "gcvit_xxtiny": (32, 64),
    "ghostnet_050": (28, 64),
    "hardcorenas_b": (28, 64),
    "hgnetv2_b0": (28, 64),
    "hiera_tiny_224": (32, 64),
    "hrnet_w18_small": (29, 64),
    "inception_next_atto": (32, 64),
    "inception_v3": (75, 75),
    "lambda_resnet26t": (28, 64),
    "lcnet_035": (28, 64),
    "legacy_seresnet18": (28, 64),
    "legacy_xception": (29, 65),
    "levit_128s": (32, 64),
    "test_mambaout": (28, 64),
    "maxvit_pico_rw_256": (32, 64),
    "mixer_s32_224": (32, 64),
    "mobilevit_xxs": (28, 64),
    "mvitv2_tiny": (32, 64),
    "nest_tiny": (32, 64),
    "test_nfnet": (28, 64),
    "pit_ti_224": (32, 64),
    "poolformerv2_s12": (28, 64),
    "pvt_v2_b0": (29, 64),
    "rdnet_tiny": (32, 64),
    "regnetx_002": (28, 64),
    "repghostnet_050": (28, 64),
    "repvit_m1": (28, 64),
    "res2next50": (28, 64),
    "resnest14d": (28, 64),
    "test_resnet": (28, 64),
    "resnetv2_18": (28, 64),
    "rexnet_100": (28, 64),
    "selecsls42": (28, 64),
    "sequencer2d_s": (28, 63),
    "skresnet18": (28, 64),
    "swiftformer_xs": (28, 64),
    "swin_tiny_patch4_window7_224": (28, 64),
    "swinv2_cr_tiny_224": (28, 64),
    "tiny_vit_5m_224": (28, 64),
    "tnt_s_legacy_patch16_224": (32, 64),
    "tresnet_m": (28, 64),
    "twins_svt_small": (32, 64),
    "visformer_tiny": (32, 64),
    "vit_tiny_patch16_224": (32, 64),
    "vit_tiny_r_s16_p8_224": (29, 64),
    "vit_small_patch14_dinov2": (28, 70),
    "test_vit_relpos": (32, 64),
    "volo_d1_224": (28, 64),
    "ese_vovnet19b_slim_dw": (29, 64),
    "xception41p": (28, 64),
    "xcit_nano_12_p8_224": (32, 64),
}
"""A small member of each of timm's families -> the size that it is to get for images of 28 px, and of 64 px."""
QUICK = ("test_resnet", "test_convnext", "vit_tiny_patch16_224", "densenet121", "nest_tiny", "pit_ti_224")


def check(backbone: str, size_px: int = 28, channels: int = 1, **settings: object) -> tuple[str, ...]:
    config = ClassifierConfig.model_validate({"backbone": backbone, **settings})
    return check_image_size(config, (channels, size_px, size_px), 3)


def right_size_px(backbone: str, size_px: int) -> int:
    """Return the size itself if the check passes, else the one that its line names."""
    try:
        check(backbone, size_px)
    except UserError as error:
        named = str(error).partition("set dataset.size_px ")[2]
        assert str(error).startswith(f"classifier.backbone {backbone!r} ") and "\n" not in str(error)
        return int(named.partition(",")[0])
    return size_px


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_family_takes_the_images_or_names_the_size_that_it_takes(backbone: str) -> None:
    assert (right_size_px(backbone, 28), right_size_px(backbone, 64)) == FAMILIES[backbone]


@pytest.mark.parametrize("backbone", QUICK)
def test_the_size_that_is_named_is_taken(backbone: str) -> None:
    size_px = right_size_px(backbone, 28)
    assert size_px == FAMILIES[backbone][0]
    assert right_size_px(backbone, size_px) == size_px


def test_a_backbone_that_drops_a_margin_is_refused_with_what_it_reads() -> None:
    with pytest.raises(
        UserError,
        match=r"^classifier\.backbone 'vit_tiny_patch16_224' reads only 16 x 16 of the images' 28 x 28 px: set "
        r"dataset\.size_px 32, the nearest that it reads whole, or use another backbone$",
    ):
        check("vit_tiny_patch16_224")
    # Read in part, the images may as well be made smaller: 63 is nearer than 70.
    with pytest.raises(
        UserError, match=r"reads only 63 x 63 of the images' 64 x 64 px: set dataset\.size_px 63, "
    ):
        check("sequencer2d_s", 64)


def test_a_backbone_that_cannot_take_the_images_is_refused_with_the_smallest_size() -> None:
    with pytest.raises(
        UserError,
        match=r"^classifier\.backbone 'test_convnext' cannot take images of 28 x 28 px \(Calculated padded input size "
        r".*\): set dataset\.size_px 32, the smallest from 28 px on that works, or use another backbone$",
    ):
        check("test_convnext")


def test_images_that_are_not_square_may_be_made_so() -> None:
    config = ClassifierConfig(backbone="vit_tiny_patch16_224")
    with pytest.raises(
        UserError,
        match=r"images of 32 x 48 px .* set dataset\.size_px 48, the smallest from 48 px on that works",
    ):
        check_image_size(config, (1, 32, 48), 3)
    assert check_image_size(ClassifierConfig(width=8), (1, 20, 31), 3) == ()


def test_a_backbone_for_three_channels_says_so() -> None:
    with pytest.raises(
        UserError,
        match=r"^classifier\.backbone 'csatv2' cannot take images of 64 x 64 px \(shape .*\), but those with three "
        r"channels: set dataset\.channels 3",
    ):
        check("csatv2", 64)


def centre_alone(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    """Read 8 x 8 pixels of the middle, whatever the size."""

    class Centre(nn.Module):
        def forward(self, images_NCHW: Tensor) -> Tensor:
            start = (images_NCHW.shape[-1] - 8) // 2
            return images_NCHW[..., start : start + 8, start : start + 8]

    return nn.Sequential(Centre(), nn.Flatten(), nn.Linear(64 * channels, num_classes))


def without_nan(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    """Read every pixel, but replace those that are no number."""

    class Numbers(nn.Module):
        def forward(self, images_NCHW: Tensor) -> Tensor:
            return images_NCHW.nan_to_num()

    return nn.Sequential(Numbers(), nn.Flatten(), nn.Linear(channels * size_px**2, num_classes))


def features(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    return nn.Flatten()


def of_16_px(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, num_classes))


def lattice(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    """Reads a pixel of four, also at an odd size, at which the last row and column are among them."""
    first = nn.Conv2d(channels, 8, 1, stride=2)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


def test_pixels_between_others_that_are_never_read_are_found() -> None:
    with pytest.raises(UserError, match=r"reads only 27 % of the pixels of images of 29 x 29 px"):
        check("test_image_size:lattice", size_px=29)


def test_backbones_from_outside_are_tried_too() -> None:
    with pytest.raises(
        UserError,
        match=r"reads only 8 x 8 of the images' 28 x 28 px: set dataset\.size_px 8, the nearest that it",
    ):
        check("test_image_size:centre_alone")
    assert check("test_image_size:without_nan") == ()
    with pytest.raises(
        UserError,
        match=r"\(of two images it makes \(2, 784\), not \(2, 3\)\), and no dataset\.size_px up to 512 fits",
    ):
        check("test_image_size:features")
    with pytest.raises(UserError, match=r"set dataset\.size_px 16, the nearest that works, or"):
        check("test_image_size:of_16_px")


def test_the_global_generator_stays_as_it_was() -> None:
    state = torch.random.get_rng_state()
    check("test_resnet", 30)
    assert torch.equal(state, torch.random.get_rng_state())


def test_weights_of_five_dimensions_stay_in_their_format() -> None:
    model = timm.create_model("lambda_resnet26t", num_classes=3)
    assert any(weight.dim() == 5 for weight in model.parameters())
    placed = place(model, torch.device("cpu"))
    for weight in placed.parameters():
        if weight.dim() == 4:
            assert weight.is_contiguous(memory_format=torch.channels_last)
        else:
            assert weight.is_contiguous()
    placed(torch.rand(2, 3, 64, 64)).sum().backward()


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "--dry-run"),
        ("compare", "--methods", "ce", "--compare.seeds", "1"),
        ("compare", "--methods", "ce", "--dry-run"),
        ("sweep", "--over", "classifier.loss=ce,balanced_softmax", "--dry-run"),
    ],
)
def test_commands_refuse_it_before_anything_is_written(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_run.write_npz(tmp_path / "shapes.npz")
    vit = ("--classifier.backbone", "vit_tiny_patch16_224")
    data = ("--data", "npz:shapes.npz", "--preset", "quick")
    assert cli.main([*words, *data, *vit]) == 2
    assert "classifier.width 16 is for timm's ResNets" in (error := capsys.readouterr().err)
    assert error.endswith(": set --classifier.width none, also where a preset has set it\n")
    assert cli.main([*words, *data, *vit, "--classifier.width", "none"]) == 2
    error = capsys.readouterr().err
    assert "reads only 16 x 16 of the images' 24 x 24 px: set dataset.size_px 32" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.npz"]


def test_a_trial_of_a_sweep_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_run.write_npz(tmp_path / "shapes.npz")
    over = ("--over", "classifier.backbone=test_resnet,test_convnext")
    assert cli.main(["sweep", "--data", "npz:shapes.npz", *over, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "rlcas: sweep.over classifier.backbone=test_convnext: classifier.backbone 'test_convnext' "
    )


# Hub names and pretrained weights, in a process of its own: huggingface_hub reads its environment when imported.
HUB_CHECK = """
import sys
from rlcas.classifiers.image_size import check_image_size
from rlcas.config import ClassifierConfig
from rlcas.errors import UserError
settings = {"backbone": sys.argv[1], "pretrained": sys.argv[2] == "pretrained"}
try:
    print(check_image_size(ClassifierConfig(**settings), (1, int(sys.argv[3]), int(sys.argv[3])), 3))
except UserError as error:
    print(error)
"""
REPOSITORY = "timm/test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def hub_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder HF_HOME as a download of one small ResNet leaves it."""
    home = tmp_path_factory.mktemp("hf_home")
    repository = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    model = timm.create_model("test_resnet", num_classes=1000)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    config = {"num_classes": 1000, "input_size": [3, 160, 160], "first_conv": "conv1.0", "classifier": "fc"}
    written = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": config}
    (snapshot / "config.json").write_text(json.dumps(written))
    return home


def hub_check(home: Path, name: str, weights: str, size_px: int = 32) -> str:
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB_CHECK, name, weights, str(size_px)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", [f"hf_hub:{REPOSITORY}", f"hf-hub:{REPOSITORY}", REPOSITORY.partition("/")[2]])
def test_pretrained_weights_are_read_and_a_first_layer_that_is_left_out_is_noted(
    hub_home: Path, name: str
) -> None:
    note = hub_check(hub_home, name, "pretrained")
    assert f"classifier.pretrained leaves out the first layer of '{name}'" in note
    assert "images of 32 px: --classifier.small_stem_below_px 0 keeps the pretrained one" in note
    assert hub_check(hub_home, name, "pretrained", 96) == "()"


def test_a_hub_that_cannot_be_read_is_one_line_that_says_what_timm_needs(tmp_path: Path) -> None:
    line = hub_check(tmp_path, f"hf_hub:{REPOSITORY}", "random")
    assert line.startswith(f"classifier.backbone 'hf_hub:{REPOSITORY}': timm cannot read its config.json (")
    assert (
        "it needs the package huggingface_hub, and a connection or an earlier download in the folder HF_HOME"
        in line
    )
    assert line.endswith("name one of timm's own models, such as resnet18")
    line = hub_check(tmp_path, "test_resnet", "pretrained")
    assert line.startswith("classifier.backbone 'test_resnet': timm cannot read its pretrained weights (")
    assert line.endswith("or set classifier.pretrained false")
