"""The ensemble against its definition: independent classifiers, whose mean probability predicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import CPU, ZEROS, tiny_config, tiny_data, tiny_trainer

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.methods import METHODS
from rlcas.methods.ensemble import Ensemble
from rlcas.methods.objective import LossOnLogits
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import load_classifier, save_incumbent

COUNTS = torch.tensor([20, 14, 7])


def meta_of(k: int) -> ClassifierMeta:
    config = tiny_config(classifier={"method": "baseline_ensemble"}, sampler={"k": k})
    return ClassifierMeta.of(tiny_data(), config)


def objective(k: int) -> Ensemble:
    torch.manual_seed(0)
    return Ensemble(meta_of(k)).eval()


def batch() -> MiniBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(10, 1, 16, 16, generator=generator)
    return MiniBatch(views=(images,), labels_N=torch.randint(3, (10,), generator=generator))


def test_the_mean_probability_of_members_that_differ_predicts() -> None:
    model, images = objective(3), batch().images_NCHW
    p_KNC = torch.stack([member(images).softmax(dim=1) for member in model.members])
    torch.testing.assert_close(model(images).exp(), p_KNC.mean(dim=0))
    assert not torch.allclose(p_KNC[0], p_KNC[1]) and not torch.allclose(p_KNC[1], p_KNC[2])


def test_equal_members_predict_as_one_classifier() -> None:
    model, images = objective(4), batch().images_NCHW
    for member in model.members:
        member.load_state_dict(model.members[0].state_dict())
    torch.testing.assert_close(model(images), model.members[0](images).log_softmax(dim=1))


def test_each_member_has_the_gradient_that_it_has_alone() -> None:
    model = objective(2)
    model.loss(batch(), COUNTS).backward()
    for member in model.members:
        alone = LossOnLogits(meta_of(1)).eval()
        alone.classifier.load_state_dict(member.state_dict())
        alone.loss(batch(), COUNTS).backward()
        for mine, theirs in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_one_member_is_the_baseline_to_the_bit() -> None:
    def trained(method: str) -> list[float]:
        config = tiny_config(classifier={"method": method}, sampler={"k": 1})
        return [result.train_loss for result in fit(tiny_trainer(config), ZEROS, epochs=2)[1]]

    assert trained("baseline_ensemble") == trained("baseline")


@pytest.mark.parametrize("k", [1, 3])
def test_a_saved_ensemble_has_its_members_whatever_the_sampler_is_then(k: int, tmp_path: Path) -> None:
    config, data = tiny_config(classifier={"method": "baseline_ensemble"}, sampler={"k": k}), tiny_data()
    best, _ = fit(tiny_trainer(config), ZEROS, epochs=1)
    save_incumbent(tmp_path, best, data, config)
    saved = load_classifier(tmp_path, CPU)
    assert saved.meta.members == k == METHODS["baseline_ensemble"].passes(config)
