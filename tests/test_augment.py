import pytest
import torch

from rlcas.batches.augment import Augment


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def test_draws_depend_on_the_seed_and_not_on_the_global_generator():
    state = torch.random.get_rng_state()
    augment = Augment("light")
    assert torch.equal(augment.draw(5, 3), augment.draw(5, 3))
    assert not torch.equal(augment.draw(5, 3), augment.draw(5, 4))
    assert torch.equal(state, torch.random.get_rng_state())


def test_draws_of_zero_change_nothing(images):
    torch.testing.assert_close(Augment("light").apply(images, torch.zeros(6, 7)), images, atol=1e-5, rtol=0)


def test_a_negative_first_draw_mirrors_the_image(images):
    draws = torch.zeros(6, 7)
    draws[:3, 0] = -1
    result = Augment("light").apply(images, draws)
    torch.testing.assert_close(result[:3], images[:3].flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(result[3:], images[3:], atol=1e-5, rtol=0)


def test_brightness_adds_and_contrast_multiplies_within_bounds(images):
    draws = torch.zeros(6, 7)
    draws[:, 5], draws[:, 6] = 1.0, -0.5
    expected = (images * 0.95 + 0.1).clamp(0, 1)
    torch.testing.assert_close(Augment("light").apply(images, draws), expected, atol=1e-5, rtol=0)


def test_a_shift_moves_by_a_share_of_the_side():
    image = torch.zeros(1, 1, 20, 20)
    image[0, 0, 10, 10] = 1.0
    draws = torch.zeros(1, 7)
    draws[0, 3], draws[0, 4] = 1.0, -1.0
    result = Augment("light").apply(image, draws)
    assert (result[0, 0] == result.max()).nonzero().tolist() == [[9, 11]]
    assert result.max().item() == pytest.approx(1.0, abs=1e-4)


def test_an_image_s_augmentation_does_not_depend_on_the_others_of_its_batch(images):
    augment = Augment("light")
    draws = augment.draw(6, 0)
    together = augment.apply(images, draws)
    assert torch.equal(together[:2], augment.apply(images[:2], draws[:2]))


def test_none_returns_the_images_unchanged(images):
    assert Augment("none").apply(images, Augment("none").draw(6, 0)) is images
