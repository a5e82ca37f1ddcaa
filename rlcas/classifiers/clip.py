"""A pretrained CLIP: its frozen vision transformer, and the features of class names by its text encoder.

transformers is installed by the extra `lift` and imported only where it is used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from rlcas.batches.images import Normalisation
from rlcas.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import CLIPModel

CLIP_NORMALISATION = Normalisation(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
"""The normalisation that CLIP was trained with, for pixels in [0, 1]."""
WHERE_TO_GET = (
    "a folder or hub name of a CLIP in transformers' layout, such as openai/clip-vit-base-patch16 (0.6 GB, downloaded "
    "once)"
)


class VisionTransformer(nn.Module):
    """The parts of a CLIP's vision transformer.

    transformers' own model around them is dropped: it looks for parameters, of which `freeze` leaves none, so that it
    could be neither traced nor exported.

    Args:
        vision: transformers' `CLIPModel.vision_model`.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.embed = nn.Sequential(vision.embeddings, vision.pre_layrnorm)
        self.blocks = vision.encoder.layers
        self.norm = vision.post_layernorm


@dataclass(frozen=True, slots=True)
class Clip:
    """The parts of a CLIP that LIFT uses."""

    vision: VisionTransformer
    """Frozen by `freeze`."""
    text_CD: Tensor
    """[C, D]: unit features of the classes' texts, in the D dimensions of the vision transformer."""
    size_px: int
    """Side of its input images."""
    width: int
    """D."""


def load_clip(name: str | None, texts_C: Sequence[str]) -> Clip:
    """Return the CLIP of a folder or hub name; its text encoder is used once and dropped.

    Args:
        name: the setting `method.lift.pretrained`.
        texts_C: [C] a text for each class.

    Raises:
        UserError: the name is None or no complete CLIP, or transformers is not installed.
    """
    check_clip(name)
    model, tokenizer = _read(str(name))
    config = model.config.vision_config
    text_CD = _text_features(model, tokenizer, texts_C)
    vision = VisionTransformer(model.vision_model)
    # Otherwise every incumbent and every saved file would hold the whole CLIP.
    freeze(vision)
    return Clip(vision, text_CD, config.image_size, config.hidden_size)


def check_clip(name: str | None) -> None:
    """Check what can be checked before a CLIP is read.

    Raises:
        UserError: the name is None, or transformers is not installed.
    """
    if name is None:
        raise UserError(f"method.lift.pretrained is not given: name {WHERE_TO_GET}")
    # Looked for without the slow import.
    if importlib.util.find_spec("transformers") is None:
        raise UserError("classifier.method 'lift' needs transformers: pip install rlcas[lift]")


def freeze(module: nn.Module) -> None:
    """Turn the parameters of `module` into buffers that are neither trained nor in its state dict.

    They still move with the module from device to device.
    """
    for part in module.modules():
        # A list, because the loop deletes what it goes through.
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach(), persistent=False)


def _read(name: str) -> tuple[CLIPModel, Any]:
    """Return the model and its tokenizer.

    Raises:
        UserError: they cannot be loaded, or tensors are missing, which transformers would fill with random numbers.
    """
    from transformers import AutoTokenizer, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, report = CLIPModel.from_pretrained(name, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"method.lift.pretrained {name!r} cannot be loaded ({first_line(error)}): name {WHERE_TO_GET}"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"method.lift.pretrained {name!r} lacks {len(missing)} tensors of a CLIP, such as {missing[0]}: name "
            f"{WHERE_TO_GET}"
        )
    # transformers 5 keeps the type of the weights in the file, which may be half precision.
    return model.float().eval(), tokenizer


@torch.no_grad()
def _text_features(model: CLIPModel, tokenizer: Any, texts_C: Sequence[str]) -> Tensor:
    """Return [C, D]: the projected texts, mapped back to the vision transformer's width by its own projection."""
    tokens = tokenizer(list(texts_C), padding=True, truncation=True, return_tensors="pt")
    found = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    text_CP = getattr(found, "pooler_output", found)  # before transformers 5 `found` is the tensor itself
    # [C, P] @ [P, D]: the projection maps D to P, here it is used transposed (LIFT's start of the head).
    return F.normalize(F.normalize(text_CP) @ model.visual_projection.weight)
