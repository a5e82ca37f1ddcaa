"""LIFT on a tiny random CLIP: its start, its training, its saved file and its errors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny import CPU, tiny_config, tiny_data, tiny_trainer
from tiny_clip import NUM_BLOCKS, SIZE_PX, WIDTH, write_tiny_clip
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from rlcas import settings
from rlcas.batches.batch_maker import MiniBatch
from rlcas.batches.images import Normalisation, to_float
from rlcas.classifiers.inference import predict_logits, probabilities
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.methods import METHODS, build_objective
from rlcas.methods.lift import Lift, adapter_dim
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import load_classifier, predict, save_incumbent
from rlcas.training.trainer import ClassifierTrainer

DATA = tiny_data()
IMAGES = torch.from_numpy(DATA.val.images_NCHW)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def lift_config(folder: Path | str | None, **lift: object) -> RunConfig:
    own = {"classifier.method": "lift", "method.lift.pretrained": None if folder is None else str(folder)}
    config = settings.override(tiny_config(), {**METHODS["lift"].settings, **own})
    return settings.override(config, {f"method.lift.{key}": value for key, value in lift.items()})


def build(folder: Path | str | None, **lift: object) -> Lift:
    torch.manual_seed(0)
    objective = build_objective(ClassifierMeta.of(DATA, lift_config(folder, **lift)))
    assert isinstance(objective, Lift)
    return objective.eval()


def normalised(objective: Lift) -> Tensor:
    """Return the images as in a trainer's batch."""
    return objective.meta.normalisation.apply(to_float(IMAGES))


def pixels(size_px: int) -> Tensor:
    """Return the images prepared for CLIP, from the stored bytes."""
    large = F.interpolate(IMAGES / 255, (size_px, size_px), mode="bicubic", antialias=True).clamp(0, 1)
    return (large.expand(-1, 3, -1, -1) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def text_head(folder: Path, texts: list[str]) -> Tensor:
    """Return [C, D] unit vectors, text by text."""
    clip, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        output = clip.text_model(**tokenizer(text, return_tensors="pt")).pooler_output
        projected = clip.text_projection(output)[0]
        row = (projected / projected.norm()) @ clip.visual_projection.weight
        rows.append(row / row.norm())
    return torch.stack(rows).detach()


@torch.no_grad()
def clip_logits(folder: Path, pixels_NCHW: Tensor, head_CD: Tensor) -> Tensor:
    """Return [N, C]: 25 cos of the unadapted CLIP's features and the head."""
    features = CLIPModel.from_pretrained(folder).eval().vision_model(pixels_NCHW).pooler_output
    return 25 * F.cosine_similarity(features[:, None], head_CD[None], dim=-1)


@pytest.mark.parametrize(
    ("num_classes", "num_blocks", "dim"), [(100, 12, 4), (8, 12, 1), (2, 12, 1), (1000, 12, 32), (365, 12, 8)]
)
def test_the_bottleneck_is_the_authors(num_classes: int, num_blocks: int, dim: int) -> None:
    assert adapter_dim(num_classes, num_blocks) == dim


def test_the_first_logits_are_25_cos_of_the_frozen_feature_and_the_text(clip_folder: Path) -> None:
    head = text_head(clip_folder, [f"a photo of a {name}." for name in DATA.class_names])
    expected = clip_logits(clip_folder, pixels(SIZE_PX), head)
    objective = build(clip_folder, tte=False)
    torch.testing.assert_close(objective(normalised(objective)), expected, rtol=0, atol=2e-4)
    assert expected.std() > 0.1


def test_the_head_starts_from_prompt_and_names(clip_folder: Path) -> None:
    names = ("cyst", "fat", "a knot")
    objective = build(clip_folder, prompt="US of {class}", names=names)
    head = text_head(clip_folder, [f"US of {name}" for name in names])
    torch.testing.assert_close(objective.head_CD.detach(), head, rtol=0, atol=1e-5)


def test_texts_come_as_a_tensor_from_transformers_4(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, asked = build(clip_folder).head_CD, CLIPModel.get_text_features
    monkeypatch.setattr(
        CLIPModel, "get_text_features", lambda *args, **given: asked(*args, **given).pooler_output
    )
    torch.testing.assert_close(build(clip_folder).head_CD, expected, rtol=0, atol=0)


def test_an_adapter_adds_its_bottleneck_of_the_residual_beside_the_mlp(clip_folder: Path) -> None:
    objective = build(clip_folder, adapter_dim=2)
    untouched = objective.features(pixels(SIZE_PX))
    adapter, block = objective.adapters[-1], objective.clip.blocks[-1]
    torch.nn.init.normal_(adapter.up.weight)
    torch.nn.init.constant_(adapter.scale, 0.5)
    seen: dict[str, Tensor] = {}
    block.layer_norm2.register_forward_hook(lambda module, given, out: seen.update(residual=given[0]))
    block.mlp.register_forward_hook(lambda module, given, out: seen.update(mlp=out))
    changed = objective.features(pixels(SIZE_PX))
    residual = seen["residual"]
    narrow = F.relu(F.layer_norm(residual, (WIDTH,)) @ adapter.down.weight.T)
    tokens = residual + seen["mlp"] + 0.5 * narrow @ adapter.up.weight.T
    torch.testing.assert_close(changed, objective.clip.norm(tokens[:, 0]))
    assert narrow.shape[-1] == 2
    assert not torch.allclose(changed, untouched, atol=1e-2)


def test_test_time_ensembling_is_the_mean_over_corners_and_centre(clip_folder: Path) -> None:
    large = pixels(SIZE_PX + 24)
    corners = [(0, 0), (0, 24), (24, 0), (24, 24), (12, 12)]
    crops = [large[..., top : top + SIZE_PX, left : left + SIZE_PX] for top, left in corners]
    objective = build(clip_folder)
    head = objective.head_CD.detach()
    expected = torch.stack([clip_logits(clip_folder, crop, head) for crop in crops]).mean(dim=0)
    with torch.no_grad():
        torch.testing.assert_close(objective(normalised(objective)), expected, rtol=0, atol=2e-4)
        single = build(clip_folder, tte=False)(normalised(objective))
    assert not torch.allclose(single, expected, atol=1e-2)


def test_only_adapters_and_head_are_trained_and_saved(clip_folder: Path) -> None:
    objective = build(clip_folder).train()
    labels = torch.from_numpy(DATA.val.labels_N)
    for adapter in objective.adapters:  # at zero, nothing reaches what is before it
        torch.nn.init.normal_(adapter.up.weight)
    batch = MiniBatch(views=(normalised(objective),), labels_N=labels)
    objective.loss(batch, torch.tensor([30, 10, 1])).backward()
    names = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
    per_adapter = {"norm.weight", "norm.bias", "down.weight", "down.bias", "up.weight", "up.bias", "scale"}
    trained = {f"adapters.{block}.{name}" for block in range(NUM_BLOCKS) for name in per_adapter} | {"head_CD"}
    assert names == set(dict(objective.named_parameters())) == set(objective.state_dict()) == trained
    (group,) = objective.parameter_groups(5e-4)
    assert len(group["params"]) == len(trained)
    assert not objective.clip.training and objective.adapters.training


def test_the_loss_is_logit_adjusted(clip_folder: Path) -> None:
    objective = build(clip_folder, tte=False)
    labels, counts = torch.from_numpy(DATA.val.labels_N), torch.tensor([30, 10, 1])
    logits = objective(normalised(objective))
    expected = F.cross_entropy(logits + (counts / counts.sum()).log(), labels)
    batch = MiniBatch(views=(normalised(objective),), labels_N=labels)
    torch.testing.assert_close(objective.loss(batch, counts), expected)
    torch.testing.assert_close(objective.validation_loss(logits, labels, counts), expected)


def test_the_loss_weighs_synthetic_images(clip_folder: Path) -> None:
    objective = build(clip_folder)
    images_NCHW, weight = normalised(objective), 0.3
    labels_N = torch.arange(len(images_NCHW)) % 3
    batch = MiniBatch(views=(images_NCHW,), labels_N=labels_N, num_synthetic=2, synthetic_weight=weight)
    counts_C = torch.tensor([9.0, 4.0, 2.0])
    losses_N = torch.stack(
        [
            objective.loss(MiniBatch(views=(images_NCHW[i : i + 1],), labels_N=labels_N[i : i + 1]), counts_C)
            for i in range(len(labels_N))
        ]
    )
    weights_N = torch.where(torch.arange(len(labels_N)) < len(labels_N) - 2, 1.0, weight)
    expected = (weights_N * losses_N).sum() / weights_N.sum()
    torch.testing.assert_close(objective.loss(batch, counts_C), expected)


def test_grey_images_and_colour_images_of_equal_channels_have_the_same_logits(clip_folder: Path) -> None:
    gray = build(clip_folder)
    meta = gray.meta
    colour = meta.model_copy(
        update={"image_shape": (3, 16, 16), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    )
    three = build_objective(colour).eval()
    images = to_float(IMAGES)
    rgb = Normalisation(colour.mean, colour.std).apply(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(three(rgb), gray(meta.normalisation.apply(images)), rtol=0, atol=1e-3)


def test_training_lowers_the_loss_and_a_restored_epoch_has_the_same_bits(clip_folder: Path) -> None:
    trainer, zeros = tiny_trainer(lift_config(clip_folder)), np.zeros(3, np.int64)
    start = trainer.initial(zeros)
    first = trainer.train_epoch(start, zeros, episode_index=0)
    middle = trainer.trained()
    second = trainer.train_epoch(middle, zeros, episode_index=0)
    assert second.train_loss < first.train_loss
    end = trainer.trained()
    again = tiny_trainer(lift_config(clip_folder))
    assert again.train_epoch(middle, zeros, episode_index=0).val_loss == second.val_loss
    for name, array in again.trained().arrays.items():
        np.testing.assert_array_equal(array, end.arrays[name])
    assert sum(array.size for array in start.arrays.values()) < 3 * trained_numbers(trainer)


def trained_numbers(trainer: ClassifierTrainer) -> int:
    return sum(parameter.numel() for parameter in trainer.model.parameters())


def test_a_saved_classifier_predicts_the_same_and_names_its_clip(clip_folder: Path, tmp_path: Path) -> None:
    config = lift_config(clip_folder)
    trainer = tiny_trainer(config)
    best, _ = fit(trainer, np.zeros(3, np.int64), 1)
    save_incumbent(tmp_path, best, DATA, config)
    tensors = load_file(tmp_path / "model.safetensors")
    assert not any(name.startswith("clip") for name in tensors)
    classifier = load_classifier(tmp_path, CPU)
    assert classifier.meta.method.lift.pretrained == str(clip_folder)
    normalisation = classifier.meta.normalisation
    logits = predict_logits(trainer.model, IMAGES, normalisation, config.classifier, CPU)
    np.testing.assert_array_equal(predict(classifier, DATA.val.images_NCHW), probabilities(logits))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.medium
def test_it_is_traced_and_exported_with_its_clip(clip_folder: Path, tmp_path: Path) -> None:
    objective = build(clip_folder)
    images = normalised(objective)
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(objective, images), tmp_path / "lift.ts")
        torch.export.save(torch.export.export(objective, (images,)), tmp_path / "lift.pt2")
        torch.testing.assert_close(torch.jit.load(tmp_path / "lift.ts")(images[:5]), objective(images[:5]))
        exported = torch.export.load(tmp_path / "lift.pt2").module()
        torch.testing.assert_close(exported(images), objective(images))


def test_missing_weights_are_an_error_that_names_their_source() -> None:
    with pytest.raises(
        UserError,
        match=r"^method\.lift\.pretrained is not given: name a folder .* openai/clip-vit-base-patch16",
    ):
        build(None)


@pytest.mark.parametrize("name", ["./nowhere", "no/such/place", "."])
def test_a_name_that_cannot_be_loaded_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^method\.lift\.pretrained '.+' cannot be loaded \(.+\): name"
    ) as caught:
        build(name)
    assert "\n" not in str(caught.value)


def test_a_hub_name_without_a_network_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'no-one/no-clip' cannot be loaded \(.+\): name") as caught:
        build("no-one/no-clip")
    assert "\n" not in str(caught.value)


def test_a_model_that_lacks_tensors_of_a_clip_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    for file in clip_folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 tensors of a CLIP, such as visual_projection\.weight: name"):
        build(tmp_path)


def test_names_must_fit_the_classes(clip_folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"method\.lift\.names cyst,fat has 2 names, but the data has 3 classes"
    ):
        build(clip_folder, names=("cyst", "fat"))
    with pytest.raises(UserError, match=r"method\.lift\.prompt is 'a photo': string should match"):
        lift_config(clip_folder, prompt="a photo")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, clip_folder: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs transformers: pip install rlcas\[lift\]"):
        build(clip_folder)


def test_half_precision_weights_are_converted_to_single_precision(clip_folder: Path, tmp_path: Path) -> None:
    CLIPModel.from_pretrained(clip_folder).half().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(clip_folder).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    objective = build(tmp_path)
    assert {tensor.dtype for tensor in objective.clip.buffers() if tensor.is_floating_point()} == {
        torch.float32
    }
