"""The mini-batches of a trainer: which images, in which order, with which augmentation."""

import numpy as np
import pytest
import torch
from tiny import FIXED, MIXED, ZEROS, tiny_config, tiny_set, tiny_trainer

from rlcas.batches.sources import RealImages
from rlcas.errors import UserError
from rlcas.training.trainer import ClassifierTrainer


def batches_of(trainer: ClassifierTrainer, counts_C: np.ndarray, episode_index: int) -> list:
    plan = trainer.batch_maker.plan(trainer.initial(counts_C), counts_C, episode_index)
    batches = trainer.batch_maker.batches(plan, epoch=0, episode_index=episode_index)
    return [(batch.images_NCHW, batch.labels_N) for batch in batches]


def test_real_images_and_their_augmentation_are_the_same_in_all_episodes():
    trainer = tiny_trainer()
    plain, mixed = batches_of(trainer, ZEROS, episode_index=0), batches_of(trainer, MIXED, episode_index=2)
    assert len(plain) == len(mixed) == 3
    for (images, labels), (more_images, more_labels) in zip(plain, mixed, strict=True):
        num_real = len(labels)
        assert torch.equal(images, more_images[:num_real])
        assert torch.equal(labels, more_labels[:num_real])
        assert more_labels[num_real:].tolist() == [1, 1, 1, 1, 2, 2]


def test_without_common_random_numbers_each_episode_has_its_own_order():
    trainer = tiny_trainer(tiny_config(sampler={"common_random_numbers": False}))
    (images, _), *_ = batches_of(trainer, ZEROS, episode_index=0)
    assert not torch.equal(images, batches_of(trainer, ZEROS, episode_index=1)[0][0])
    assert torch.equal(images, batches_of(trainer, ZEROS, episode_index=0)[0][0])


def test_episodes_augment_the_same_synthetic_images_differently():
    trainer = tiny_trainer()
    (first, _), *_ = batches_of(trainer, MIXED, episode_index=0)
    (second, _), *_ = batches_of(trainer, MIXED, episode_index=1)
    assert torch.equal(first[:16], second[:16])
    assert not torch.equal(first[16:], second[16:])


def test_batches_have_mean_0_and_standard_deviation_1_over_the_training_images():
    trainer = tiny_trainer(tiny_config(classifier={"augment": "none"}))
    images = torch.cat([images for images, _ in batches_of(trainer, ZEROS, episode_index=0)])
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_with_a_fixed_total_synthetic_images_replace_real_ones():
    plain = batches_of(tiny_trainer(), ZEROS, episode_index=0)
    mixed = batches_of(tiny_trainer(tiny_config(sampler=FIXED)), MIXED, episode_index=0)
    assert [len(labels) for _, labels in mixed] == [16, 16, 9]
    for (images, labels), (mixed_images, mixed_labels) in zip(plain, mixed, strict=True):
        num_real = len(labels) - 6
        assert torch.equal(images[:num_real], mixed_images[:num_real])
        assert torch.equal(labels[:num_real], mixed_labels[:num_real])
        assert mixed_labels[num_real:].tolist() == [1, 1, 1, 1, 2, 2]


def test_a_last_batch_smaller_than_the_composition_has_synthetic_images_only():
    trainer = tiny_trainer(tiny_config(sampler=FIXED))
    result = trainer.train_epoch(trainer.initial(ZEROS), np.array([5, 5, 5]), episode_index=0)
    assert result.num_images == 16 + 16 + 15 and result.finite
    *_, (_, labels) = batches_of(trainer, np.array([5, 5, 5]), episode_index=0)
    assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_a_batch_that_may_overflow_is_refused_at_construction():
    with pytest.raises(UserError, match=r"3 classes x sampler.max_count 6 = 18 > classifier.batch_size 16"):
        tiny_trainer(tiny_config(sampler={**FIXED, "max_count": 6}))


def test_a_pool_without_a_class_is_refused_at_construction():
    pool = RealImages(tiny_set(30, seed=9))
    pool._indices_by_class[1] = np.empty(0, np.int64)
    with pytest.raises(UserError, match=r"no images of class 'b': every class needs one at least"):
        tiny_trainer(pool=pool)


def test_a_pool_of_another_data_set_is_refused():
    with pytest.raises(UserError, match=r"the pool has 2 classes, but tiny has 3"):
        tiny_trainer(pool=RealImages(tiny_set(30, seed=9, num_classes=2)))
    with pytest.raises(UserError, match=r"images are \(3, 16, 16\) .* those of tiny are \(1, 16, 16\)"):
        tiny_trainer(pool=RealImages(tiny_set(30, seed=9, channels=3)))
