import pytest
import torch

from rlcas.classifiers import build_classifier
from rlcas.config import ClassifierConfig
from rlcas.errors import UserError


def build(size_px: int = 28, channels: int = 1, **settings: object) -> torch.nn.Module:
    config = ClassifierConfig.model_validate(settings)
    return build_classifier(config, channels=channels, num_classes=5, size_px=size_px)


def test_small_images_get_a_stem_without_stride_or_pooling():
    model = build(width=16)
    assert model.conv1.kernel_size == (3, 3) and model.conv1.stride == (1, 1)
    with torch.no_grad():
        stem = model.maxpool(model.act1(model.bn1(model.conv1(torch.zeros(1, 1, 28, 28)))))
        assert stem.shape == (1, 16, 28, 28)
        assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 5)


def test_large_images_get_the_published_stem():
    model = build(size_px=96, channels=3)
    assert model.conv1.weight.shape == (64, 3, 7, 7) and model.conv1.stride == (2, 2)
    assert isinstance(model.maxpool, torch.nn.MaxPool2d)


@pytest.mark.parametrize("size_px", [28, 96])
def test_width_sets_the_stem_and_the_four_stages(size_px):
    model = build(size_px=size_px, width=16)
    stages = [getattr(model, f"layer{i}")[-1].conv2.out_channels for i in (1, 2, 3, 4)]
    assert [model.conv1.out_channels, *stages] == [16, 16, 32, 64, 128]
    assert model.layer1[0].downsample is None
    assert model(torch.zeros(2, 1, size_px, size_px)).shape == (2, 5)


def test_the_published_width_has_the_published_number_of_parameters():
    # torchvision's ResNet-18 without its head has 11,176,512 parameters.
    model = build(size_px=224, channels=3, width=64)
    body = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("fc"))
    assert body == 11_176_512
    assert model.state_dict().keys() == build(size_px=224, channels=3).state_dict().keys()


def test_other_backbones_come_from_timm_by_name():
    assert build(size_px=64, backbone="mobilenetv3_small_050")(torch.zeros(2, 1, 64, 64)).shape == (2, 5)


def test_a_transformer_is_built_for_the_size_of_the_images():
    assert build(size_px=32, backbone="vit_tiny_patch16_224")(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


def test_an_unknown_backbone_is_answered_with_close_names():
    with pytest.raises(UserError, match=r"classifier\.backbone 'resnet1' is unknown: .*resnet18"):
        build(backbone="resnet1")


def test_a_width_on_another_backbone_is_refused():
    with pytest.raises(UserError, match=r"classifier\.width 16 is for timm's ResNets, not for 'mobilenetv3"):
        build(backbone="mobilenetv3_small_050", width=16)


def test_a_width_with_pretrained_weights_is_refused():
    with pytest.raises(UserError, match=r"classifier\.width 16 has no pretrained weights"):
        build(width=16, pretrained=True)


def test_an_odd_width_is_refused():
    with pytest.raises(UserError, match=r"classifier\.width 15 is odd: use an even number"):
        build(width=15)


def own_builder(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size_px**2, num_classes))


def test_a_builder_from_outside_is_imported_by_its_path():
    assert build(backbone="test_classifiers:own_builder")(torch.zeros(2, 1, 28, 28)).shape == (2, 5)
