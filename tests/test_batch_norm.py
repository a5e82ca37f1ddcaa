"""`sampler.batch_norm real`: BatchNorm's statistics come from the real images of a mini-batch alone."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
import timm
import torch
from test_synthetic_weight import COUNTS_C, batch_of, images_of, trained
from tiny import FIXED, MIXED, ZEROS, tiny_config, tiny_data, tiny_trainer
from torch import Tensor, nn

from cluster.comparison.plan import row_of
from cluster.runs.checks import check_data_fits, check_training
from rlcas import settings
from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.batch_norm import RealStatistics, check_batch_norm, real_statistics
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import CompareRunConfig
from rlcas.errors import UserError
from rlcas.methods import METHODS, build_objective

REAL: dict[str, object] = {"batch_norm": "real"}
LAYERS = {
    "2d": (nn.BatchNorm2d, (6, 3, 4, 4)),
    "1d": (nn.BatchNorm1d, (6, 3)),
    "tokens": (nn.BatchNorm1d, (6, 3, 5)),
    "3d": (nn.BatchNorm3d, (6, 3, 2, 4, 4)),
    "timm": (timm.layers.BatchNormAct2d, (6, 3, 4, 4)),
}
every_layer = pytest.mark.parametrize("layer", LAYERS)


def layer_and_images(layer: str, **own: Any) -> tuple[Any, Tensor]:
    build, shape = LAYERS[layer]
    torch.manual_seed(0)
    made = build(3, **own)
    if made.affine:
        nn.init.normal_(made.weight)
        nn.init.normal_(made.bias)
    return made.train(), 3 + 2 * torch.randn(*shape)


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


@every_layer
@pytest.mark.parametrize(
    "own", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
def test_real_images_and_running_statistics_have_the_bits_of_a_batch_of_real_images(
    layer: str, own: dict[str, Any]
) -> None:
    (with_synthetic, images), (alone, _) = layer_and_images(layer, **own), layer_and_images(layer, **own)
    with RealStatistics(4, 6):
        normalised = with_synthetic(images)
    assert torch.equal(normalised[:4], alone(images[:4]))
    assert_same_state(with_synthetic, alone)


@every_layer
def test_synthetic_images_are_normalised_by_the_real_ones(layer: str) -> None:
    made, images = layer_and_images(layer)
    with RealStatistics(4, 6):
        normalised = made(images)
    real = np.moveaxis(images[:4].double().numpy(), 1, -1).reshape(-1, 3)
    scaled = (np.moveaxis(images[4:].double().numpy(), 1, -1) - real.mean(0)) / np.sqrt(real.var(0) + 1e-5)
    expected = np.moveaxis(scaled * made.weight.detach().numpy() + made.bias.detach().numpy(), -1, 1)
    if layer == "timm":
        expected = expected.clip(min=0)  # its activation
    np.testing.assert_allclose(normalised[4:].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "timm"])  # its activation has a kink
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_flow_through_the_statistics_of_the_real_images(layer: str, affine: bool) -> None:
    made, images = layer_and_images(layer, affine=affine)
    made, images = made.double(), images.double().requires_grad_()

    def normalised(images: Tensor, *parameters: Tensor) -> Tensor:
        with RealStatistics(4, 6):
            return made(images)

    assert torch.autograd.gradcheck(normalised, (images, *made.parameters()))
    normalised(images)[4:].pow(3).sum().backward()
    assert images.grad is not None and images.grad[:4].abs().max() > 1e-3


@pytest.mark.parametrize("num_real", [0, 1])
def test_without_two_real_values_a_channel_the_running_statistics_normalise(num_real: int) -> None:
    (made, images), (evaluated, _) = layer_and_images("1d"), layer_and_images("1d")
    with RealStatistics(num_real, 6):
        normalised = made(images)
    assert torch.equal(normalised, evaluated.eval()(images))
    assert torch.equal(made.running_mean, torch.zeros(3))


def test_in_evaluation_nothing_changes_and_layers_on_tokens_see_each_image_s_rows() -> None:
    made, images = layer_and_images("1d")
    expected = made(images[:4])
    with RealStatistics(2, 3) as statistics:  # two rows for each image
        torch.testing.assert_close(made(images)[:4], expected, rtol=0, atol=0)
        assert statistics.num_layers == 1
        assert torch.equal(made.eval()(images), made(images))
        assert statistics.num_layers == 1


def test_the_arguments_are_those_of_torch() -> None:
    """A layer may give them by place or by name."""
    own = inspect.signature(RealStatistics._batch_norm).parameters
    assert list(own)[1:] == list(inspect.signature(torch.nn.functional.batch_norm).parameters)


def test_without_synthetic_images_no_mode_is_entered() -> None:
    assert not isinstance(real_statistics(6, 6), RealStatistics)
    assert isinstance(real_statistics(4, 6), RealStatistics)


def test_a_composition_of_zeros_has_the_bits_of_all_and_one_with_synthetic_images_has_others() -> None:
    real, plain = tiny_trainer(tiny_config(sampler=REAL)), tiny_trainer()
    assert np.array_equal(trained(real, ZEROS), trained(plain, ZEROS))
    assert not np.array_equal(trained(real, MIXED), trained(plain, MIXED))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_epoch_trains_with_batches_that_hold_synthetic_images_only(precision: str) -> None:
    config = tiny_config(sampler={**FIXED, **REAL, "max_count": 5}, classifier={"precision": precision})
    trainer = tiny_trainer(config)
    counts_C = np.array([5, 5, 5])
    assert [
        len(batch) for batch in trainer.batch_maker.plan(trainer.initial(ZEROS), counts_C, 0).real_batches
    ] == [
        1,
        1,
        0,
    ]
    assert trainer.train_epoch(trainer.initial(ZEROS), counts_C, episode_index=0).finite


@pytest.mark.parametrize("method", ["baseline", "logit_adjust", "cbfocal", "ncl", "glmc", "baseline_ensemble"])
@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
def test_in_every_training_step_synthetic_images_leave_the_running_statistics_alone(
    method: str, backbone: str
) -> None:
    width = 8 if backbone == "resnet18" else None
    config = tiny_config(classifier={"method": method, "backbone": backbone, "width": width})
    batch, states = batch_of(), []
    for synthetic in (0.0, 5.0):
        torch.manual_seed(0)
        model = build_objective(ClassifierMeta.of(tiny_data(), config)).train()
        images = batch.images_NCHW.clone()
        images[5:] += synthetic
        other = images_of(batch_of(), slice(None))
        resampled = dataclasses.replace(other, views=other.views * 2)
        seen = MiniBatch(views=(images, images), labels_N=batch.labels_N, num_synthetic=3, resampled=resampled)
        torch.manual_seed(1)
        with real_statistics(seen.num_real, 8):
            model.loss(seen, COUNTS_C)
        states.append(dict(model.named_buffers()))
    moved = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert not moved and any("running_mean" in name for name in states[0])


class OwnNorm(nn.Module):
    """Normalises by the mean of the mini-batch, beside a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.fc = nn.Linear(256, 3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.fc((self.norm(images_NCHW) - images_NCHW.mean()).flatten(1))


def own_norm(config: Any, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    return OwnNorm()


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("vit_tiny_patch16_224", "has no BatchNorm in training"),
        (
            "test_batch_norm:own_norm",
            "mixes the images of a mini-batch in other layers than torch's BatchNorm too",
        ),
    ],
)
def test_a_backbone_on_which_the_setting_does_nothing_or_not_all_is_refused(
    backbone: str, message: str
) -> None:
    config = tiny_config(sampler=REAL, classifier={"backbone": backbone, "width": None})
    line = rf"^sampler\.batch_norm real: classifier\.backbone '{backbone}' {message}: set it to all, or use another"
    for check in (check_data_fits, lambda config, data: tiny_trainer(config, data)):
        with pytest.raises(UserError, match=line):
            check(config, tiny_data())
    check_data_fits(tiny_config(classifier={"backbone": backbone, "width": None}), tiny_data())


@pytest.mark.parametrize(
    ("backbone", "size_px"),
    [("resnet18", 16), ("efficientnet_b0", 16), ("densenet121", 32), ("levit_128s", 224)],
)
def test_backbones_with_batch_norm_are_taken(backbone: str, size_px: int) -> None:
    """The BatchNorm of LeViT sees tokens."""
    config = tiny_config(sampler=REAL, classifier={"backbone": backbone, "width": None})
    check_batch_norm(config, (3, size_px, size_px), 3)


@pytest.mark.parametrize("method", ["proco", "lift"])
def test_a_training_step_without_such_layers_is_refused(method: str) -> None:
    stated = {"classifier.method": method, "sampler.batch_norm": "real", "method.lift.pretrained": "clip"}
    with pytest.raises(
        UserError, match=rf"^sampler\.batch_norm real is not possible with classifier\.method '{method}'"
    ):
        check_training(settings.of(stated))
    config = CompareRunConfig.model_validate({"sampler": REAL, "method": {"lift": {"pretrained": "clip"}}})
    assert row_of(config, method).config.sampler.batch_norm == "all"
    assert row_of(config, "syn_sketch").config.sampler.batch_norm == "real"


def test_every_training_step_has_such_layers_or_is_refused() -> None:
    having = {
        name
        for name, method in METHODS.items()
        if getattr(method.objective, "normalises_each_image_once", False)
    }
    assert METHODS.keys() - having == {"proco", "lift"}
