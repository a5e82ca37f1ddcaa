"""Every compared method trains, repeats to the bit, and can be saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CPU, tiny_config, tiny_set, tiny_trainer
from torch import nn

from rlcas import settings
from rlcas.classifiers import build_classifier
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import ClassifierConfig, RunConfig
from rlcas.errors import UserError
from rlcas.methods import METHODS, build_objective
from rlcas.methods.features import last_linear, split_classifier
from rlcas.methods.objective import new_classifier
from rlcas.training.saved_classifier import Classifier, load_classifier, predict, save_incumbent
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import Incumbent, TrainingData

ONE_BY_OBJECTIVE = {
    method.objective: name for name, method in reversed(METHODS.items()) if method.needs is None
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in sorted(ONE_BY_OBJECTIVE.values())},
    "cbfocal, softmax": ("cbfocal", {"cbfocal": {"kind": "softmax"}}),
    "logit_adjust, loss": ("logit_adjust", {"logit_adjust": {"mode": "loss"}}),
    "ncl, minus infinity": ("ncl", {"ncl": {"hcm_fill": "minus_infinity"}}),
    "glmc, re-sampled": ("glmc", {"glmc": {"resampling_power": 1.0}}),
}
"""A row of every objective, and their other modes: name -> (method, its settings)."""


def data_of(num_classes: int, num_train: int = 41) -> TrainingData:
    return TrainingData(
        name="tiny",
        class_names=tuple("abcdefgh"[:num_classes]),
        train=tiny_set(num_train, 0, num_classes=num_classes),
        val=tiny_set(24, 1, num_classes=num_classes),
    )


def config_of(variant: str, classifier: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    method, own = VARIANTS[variant]
    return tiny_config(classifier={"method": method, **(classifier or {})}, method=own, **sections)


def trainer_of(variant: str, data: TrainingData, **sections: Any) -> ClassifierTrainer:
    return tiny_trainer(config_of(variant, **sections), data)


def assert_same_bits(a: Incumbent, b: Incumbent) -> None:
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], strict=True)


every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_variant
@pytest.mark.parametrize("num_classes", [2, 8])
def test_an_epoch_trains_validates_and_repeats_to_the_bit(variant: str, num_classes: int) -> None:
    trainer = trainer_of(variant, data_of(num_classes))
    start, counts_C = trainer.initial(np.zeros(num_classes, np.int64)), np.arange(num_classes) % 3
    result = trainer.train_epoch(start, counts_C, episode_index=0)
    first = trainer.trained()
    assert result.finite and result.num_images == 41 + 3 * counts_C.sum()
    assert 0 <= result.metrics["recall"] <= 1
    assert not np.array_equal(first.arrays["float32"], start.arrays["float32"])
    again = trainer.train_epoch(start, counts_C, episode_index=0)
    assert (again.train_loss, again.val_loss) == (result.train_loss, result.val_loss)
    assert_same_bits(trainer.trained(), first)


@every_variant
def test_an_episode_is_the_same_in_another_trainer_whatever_was_trained_before(variant: str) -> None:
    data, zeros, counts_C = data_of(3), np.zeros(3, np.int64), np.array([0, 2, 4])
    trainer, other = trainer_of(variant, data), trainer_of(variant, data)
    trainer.train_epoch(trainer.initial(zeros), zeros, episode_index=0)
    incumbent = trainer.trained()
    result = trainer.train_epoch(incumbent, counts_C, episode_index=1)
    trained = trainer.trained()
    trainer.train_epoch(trained, zeros, episode_index=2)
    for elsewhere in (trainer, other):
        again = elsewhere.train_epoch(incumbent, counts_C, episode_index=1)
        assert (again.train_loss, again.val_loss) == (result.train_loss, result.val_loss)
        assert_same_bits(elsewhere.trained(), trained)
    assert other.train_epoch(incumbent, counts_C, episode_index=2).train_loss != result.train_loss


@every_variant
def test_a_saved_classifier_predicts_the_same(variant: str, tmp_path: Path) -> None:
    data = data_of(3)
    trainer = trainer_of(variant, data)
    trainer.train_epoch(trainer.initial(np.zeros(3, np.int64)), np.array([0, 2, 4]), episode_index=0)
    config = trainer.config
    save_incumbent(tmp_path, trainer.trained(), data, config)
    here = Classifier(trainer.model, ClassifierMeta.of(data, config), CPU)
    images = data.val.images_NCHW
    np.testing.assert_array_equal(predict(load_classifier(tmp_path, CPU), images), predict(here, images))


@every_variant
def test_it_trains_on_a_last_batch_of_two_under_the_effective_prior_in_bf16(variant: str) -> None:
    data = data_of(3, num_train=18)
    trainer = trainer_of(
        variant, data, sampler={"prior": "effective"}, classifier={"batch_size": 16, "precision": "bf16"}
    )
    zeros = np.zeros(3, np.int64)
    assert trainer.train_epoch(trainer.initial(zeros), zeros, episode_index=0).finite
    assert trainer.train_epoch(trainer.trained(), np.array([0, 1, 3]), episode_index=0).finite


@every_variant
def test_the_optimiser_has_every_parameter_once(variant: str) -> None:
    trainer = trainer_of(variant, data_of(3))
    grouped = [id(p) for group in trainer._optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in trainer.model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_variant
def test_on_a_gpu_an_epoch_repeats_to_the_bit(variant: str) -> None:
    trainers = [tiny_trainer(config_of(variant), data_of(8), device=torch.device("cuda")) for _ in range(2)]
    counts_C, trained = np.arange(8) % 3, []
    for trainer in trainers:
        result = trainer.train_epoch(trainer.initial(counts_C), counts_C, episode_index=1)
        assert result.finite
        trained.append(trainer.trained())
    assert_same_bits(*trained)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_declares_existing_settings(name: str) -> None:
    method = METHODS[name]
    assert settings.of({"classifier.method": name, **method.settings}).classifier.method == name
    for key, values in method.search.items():
        assert len(set(values)) > 1, key
        for value in values:
            settings.of({"classifier.method": name, **method.settings, key: value})
    assert method.passes(RunConfig()) >= 1 and method.title


def test_no_two_rows_have_the_same_title() -> None:
    titles = [method.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", sorted(ONE_BY_OBJECTIVE.values()))
def test_the_search_of_a_row_includes_its_default(name: str) -> None:
    """The searched values must include the authors' choice, or `--compare.tune` might miss it."""
    config = settings.of({"classifier.method": name, **METHODS[name].settings})
    for key, values in METHODS[name].search.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        assert value in values, key


def meta_of(backbone: str, num_classes: int = 5) -> ClassifierMeta:
    config = tiny_config(classifier={"backbone": backbone, "width": None, "method": "proco"})
    data = TrainingData(
        name="tiny",
        class_names=tuple("abcde"[:num_classes]),
        train=tiny_set(10, 0, num_classes=num_classes),
        val=tiny_set(10, 1, num_classes=num_classes),
    )
    return ClassifierMeta.of(data, config).model_copy(update={"image_shape": (1, 32, 32)})


@pytest.mark.parametrize(
    "backbone", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"]
)
def test_features_are_the_input_of_the_last_linear_layer(backbone: str) -> None:
    meta, images = meta_of(backbone), torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    whole = new_classifier(meta).eval()
    torch.manual_seed(0)
    body, linear = split_classifier(meta)
    with torch.no_grad():
        features = body.eval()(images)
        assert features.shape == (2, linear.in_features)
        torch.testing.assert_close(linear(features), whole(images))


def bare_network(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size_px**2, num_classes))


@pytest.mark.parametrize("backbone", ["test_methods:bare_network", "deit_tiny_distilled_patch16_224"])
def test_a_backbone_without_a_single_last_layer_is_refused_by_name(backbone: str) -> None:
    with pytest.raises(
        UserError, match=rf"backbone '{backbone}' has no single linear layer .*'proco' needs: use"
    ):
        build_objective(meta_of(backbone))


@pytest.mark.parametrize("name", ["baseline", "ncl", "logit_adjust"])
def test_methods_without_features_take_any_backbone(name: str) -> None:
    meta = meta_of("test_methods:bare_network")
    classifier = meta.classifier.model_copy(update={"method": name})
    model = build_objective(meta.model_copy(update={"classifier": classifier}))
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


def test_the_last_layer_is_found_in_the_network_itself() -> None:
    network = build_classifier(ClassifierConfig(width=8), channels=1, num_classes=5, size_px=16)
    assert last_linear(network, meta_of("resnet18")) is network.fc
