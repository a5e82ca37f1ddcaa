"""Classifiers by name: timm's, whose ResNets can have a stem for small images and another width."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from rlcas.classifiers.hub import architecture_of, is_hub_name, reading_hub
from rlcas.config import ClassifierConfig
from rlcas.errors import UserError
from rlcas.registry import lookup

Builder = Callable[..., nn.Module]

CLASSIFIERS: dict[str, Builder] = {}
"""Classifiers that timm does not have: name -> builder(config, *, channels, num_classes, size_px)."""
UNFIT = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AssertionError, MemoryError)
"""What timm and torch raise for a network that cannot be built, or that images or weights do not fit."""


def build_classifier(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    """Return a new classifier; weights that are not pretrained are drawn from torch's global generator.

    Args:
        config: the settings of the classifier.
        channels: of the images.
        num_classes: the number of logits.
        size_px: side of the images.

    Raises:
        UserError: the backbone is unknown, does not come in `classifier.width`, or cannot be read from the hub.
    """
    return _builder(config.backbone)(config, channels=channels, num_classes=num_classes, size_px=size_px)


def replaces_first_layer(config: ClassifierConfig, size_px: int) -> bool:
    """Return whether a backbone for images of this size gets a new first layer, which no pretrained weights fit."""
    return size_px < config.small_stem_below_px and _builder(config.backbone) is _timm_resnet


def _builder(name: str) -> Builder:
    if name in CLASSIFIERS or (":" in name and not is_hub_name(name)):
        return lookup(name, CLASSIFIERS, "classifier.backbone")
    return _timm_resnet if _is_timm_resnet(name) else _timm_model


def _is_timm_resnet(name: str) -> bool:
    # timm takes seconds to import, most of them for torchvision; here as in the functions below.
    import timm

    if not is_hub_name(name):
        require_timm_model(name, "classifier.backbone", CLASSIFIERS)
    return architecture_of(name) in timm.list_models(module="resnet")


def require_timm_model(name: str, setting: str, known: Iterable[str]) -> None:
    """Check that timm knows a model, with or without the tag of its weights (resnet18, resnet18.a1_in1k).

    Raises:
        UserError: it does not; the message has the setting, `known` and the most similar of timm's names.
    """
    import timm

    # The name without the tag of its weights: resnet18.a1_in1k is resnet18.
    architecture = name.partition(".")[0]
    if timm.is_model(architecture):
        return
    close = difflib.get_close_matches(architecture, [*known, *timm.list_models()], n=3)
    hint = f" ({', '.join(close)}, …)" if close else ""
    ours = "".join(f"{ours}, " for ours in sorted(known))
    raise UserError(
        f"{setting} {name!r} is unknown: use {ours}a timm model name{hint} or package.module:function"
    )


def _timm_model(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    """Return a timm model that is not a ResNet.

    Raises:
        UserError: a width is set.
    """
    import timm

    if config.width is not None:
        raise UserError(
            f"classifier.width {config.width} is for timm's ResNets, not for {config.backbone!r}: set "
            "--classifier.width none, also where a preset has set it"
        )
    published = timm.get_pretrained_cfg(architecture_of(config.backbone))
    # Vision transformers are built for one size; other timm models refuse the argument.
    fixed_size = {"img_size": size_px} if published is not None and published.fixed_input_size else {}
    return _created(config, channels, num_classes, fixed_size)


def _created(config: ClassifierConfig, channels: int, num_classes: int, own: Mapping[str, Any]) -> nn.Module:
    """Return a network of timm's; `own` are arguments that only some of its families take.

    Raises:
        UserError: its pretrained weights cannot be read.
    """
    import timm

    fault = f"classifier.backbone {config.backbone!r}: timm cannot read its pretrained weights"
    reading = reading_hub(fault, "or set classifier.pretrained false")
    with reading if config.pretrained else contextlib.nullcontext():
        return timm.create_model(
            config.backbone,
            pretrained=config.pretrained,
            in_chans=channels,
            num_classes=num_classes,
            **own,
        )


def _timm_resnet(config: ClassifierConfig, *, channels: int, num_classes: int, size_px: int) -> nn.Module:
    width = {} if config.width is None else _width_arguments(config)
    model: Any = _created(config, channels, num_classes, width)
    if size_px < config.small_stem_below_px:
        model.conv1 = _stem(channels, model.bn1.num_features, kernel_px=3, stride=1)
        model.maxpool = nn.Identity()
    elif config.width is not None:
        model.conv1 = _stem(channels, config.width, kernel_px=7, stride=2)
    return model


def _stem(channels: int, width: int, *, kernel_px: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, kernel_px, stride, padding=kernel_px // 2, bias=False)
    # Initialised as timm initialises the convolutions of its ResNets.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _width_arguments(config: ClassifierConfig) -> dict[str, object]:
    """Return the arguments of timm's ResNet that make its first stage `classifier.width` channels wide.

    Raises:
        UserError: the width is odd, or pretrained weights are asked for.
    """
    assert config.width is not None
    if config.pretrained:
        raise UserError(
            f"classifier.width {config.width} has no pretrained weights: "
            "set --classifier.pretrained false or --classifier.width none"
        )
    if config.width % 2:
        raise UserError(f"classifier.width {config.width} is odd: use an even number")
    # timm fixes a plain stem at 64 channels. A deep one has 2 x stem_width; `_timm_resnet` replaces it by a plain one.
    return {
        "channels": tuple(config.width * factor for factor in (1, 2, 4, 8)),
        "stem_type": "deep",
        "stem_width": config.width // 2,
    }
