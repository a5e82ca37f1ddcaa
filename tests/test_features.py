from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import tiny_config, tiny_data

from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import ScoringConfig
from rlcas.errors import UserError
from rlcas.evaluation.features import EXTRACTORS, build_extractor, check_extractor
from rlcas.training.saved_classifier import Classifier, untrained
from rlcas.types import Float32, Uint8

CPU = torch.device("cpu")
GRAY = np.random.default_rng(0).integers(0, 256, (5, 1, 24, 20), dtype=np.uint8)


def judge() -> Classifier:
    meta = ClassifierMeta.of(tiny_data(), tiny_config())
    return Classifier(untrained(meta), meta, CPU)


def no_judge() -> Classifier:
    raise AssertionError("this extractor needs no classifier")


def extractor(**scoring: object):
    settings = ScoringConfig(**scoring)
    check_extractor(settings)
    return build_extractor(settings, no_judge, CPU)


def means(images_NCHW: Uint8) -> Float32:
    return images_NCHW.mean(axis=(2, 3)).astype(np.float32)


def one_number(images_NCHW: Uint8) -> Float32:
    return np.zeros(1, np.float32)


def not_numbers(images_NCHW: Uint8) -> Float32:
    return np.full((len(images_NCHW), 2), np.nan, np.float32)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random weights of a tiny ResNet with a head, as timm publishes them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model("test_resnet").state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_features_of_an_image_do_not_depend_on_the_other_images(name: str) -> None:
    images = tiny_data().val.images_NCHW
    features = build_extractor(ScoringConfig(extractor=name), judge, CPU)
    whole_ND = features(images)
    assert whole_ND.ndim == 2 and len(whole_ND) == len(images) and np.ptp(whole_ND, axis=0).max() > 0
    np.testing.assert_allclose(features(images[3:5]), whole_ND[3:5], atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_timm_models_features_are_those_of_timms_own_preparation(weights: Path, suffix: str) -> None:
    """Grey images become RGB, resized and normalised by the model's data config."""
    features = extractor(extractor="test_resnet", extractor_weights=weights.with_suffix(suffix))
    assert "test_resnet with the weights in" in features.described
    assert features.described.endswith("images resized to 160 px")
    model = timm.create_model("test_resnet", num_classes=0).eval()
    timm.models.load_checkpoint(model, str(weights), strict=False)
    prepare = timm.data.create_transform(
        input_size=(160, 160), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0,
        crop_mode="squash",
    )  # fmt: skip
    from PIL import Image

    rgb = [Image.fromarray(image[0]).convert("RGB") for image in GRAY]
    with torch.no_grad():
        expected_ND = model(torch.stack([prepare(picture) for picture in rgb])).numpy()
    found_ND = features(GRAY)
    assert np.corrcoef(found_ND.ravel(), expected_ND.ravel())[0, 1] > 0.999
    np.testing.assert_array_equal(features(np.repeat(GRAY, 3, axis=1)), found_ND)


def test_building_a_timm_model_draws_nothing_from_the_global_generator(weights: Path) -> None:
    torch.manual_seed(5)
    extractor(extractor="test_resnet", extractor_weights=weights)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_pixels_are_the_images_shrunk_to_32_px() -> None:
    flat_ND = extractor(extractor="pixels")(GRAY)
    np.testing.assert_allclose(flat_ND, GRAY.reshape(5, -1) / 255, rtol=1e-6)
    large = np.repeat(np.repeat(GRAY[:, :, :16, :16], 4, axis=2), 4, axis=3)
    half = large.reshape(5, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(5, -1) / 255
    np.testing.assert_allclose(extractor(extractor="pixels")(large), half, rtol=1e-5)


def test_a_function_of_ones_own_is_imported_by_its_path() -> None:
    features = extractor(extractor="test_features:means")
    np.testing.assert_allclose(features(GRAY), GRAY.mean(axis=(2, 3)), rtol=1e-6)
    assert features.described == "test_features:means"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "one_number",
            r"^synth\.scoring\.extractor returned an array of shape \[1\] for 5 images .*return features \[5",
        ),
        (
            "not_numbers",
            r"^synth\.scoring\.extractor returned features that are not finite \(test_features:not_n",
        ),
    ],
)
def test_the_features_of_a_function_are_checked(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        extractor(extractor=f"test_features:{name}")(GRAY)


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        (
            {"extractor": "inception_v33"},
            r"^synth\.scoring\.extractor 'inception_v33' is unknown: use classifier, pixels, a timm model name "
            r"\(inception_v3, .*\) or package\.module:function$",
        ),
        ({"extractor": "nowhere:f"}, r"^synth\.scoring\.extractor 'nowhere:f' cannot be imported"),
        (
            {"extractor_weights": __file__},
            r"extractor_weights .* are for a timm model, but synth\.scoring\.extractor is 'classifier': name",
        ),
        (
            {"extractor": "resnet18", "extractor_weights": "nowhere.pth"},
            r"extractor_weights /.*nowhere\.pth is not a file: name one, or omit it$",
        ),
        (
            {"extractor": "resnet18", "extractor_weights": __file__},
            r"test_features\.py are not the weights of timm's resnet18 \(.*\): name a file of such weights",
        ),
    ],
)
def test_a_wrong_extractor_is_an_error(scoring: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        extractor(**scoring)


def test_weights_of_another_model_are_refused(weights: Path) -> None:
    with pytest.raises(UserError, match=r"are not the weights of timm's resnet18 \("):
        extractor(extractor="resnet18", extractor_weights=weights)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    missing = next(iter(state))
    del state[missing]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=rf"timm's test_resnet \({missing} is missing\): name a file of such"):
        extractor(extractor="test_resnet", extractor_weights=tmp_path / "weights.safetensors")


def test_weights_in_the_form_of_jax_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", kernel=np.zeros(3))
    with pytest.raises(
        UserError, match=r"\(JAX's form, .*\): name a file of such weights, \.safetensors or \.pth"
    ):
        extractor(extractor="vit_tiny_patch16_224", extractor_weights=tmp_path / "weights.npz")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, ("open('sprung', 'w')",)

    torch.save({"state_dict": Trap()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"are not the weights of timm's test_resnet \("):
        extractor(extractor="test_resnet", extractor_weights=tmp_path / "weights.pth")


def test_pretrained_weights_that_cannot_be_loaded_are_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError,
        match=r"its pretrained weights \(.*\): it needs the package huggingface_hub, .* or name a file with",
    ):
        extractor(extractor="resnet18")
    assert capfd.readouterr().err == ""
