"""What timm reads from the Hugging Face hub: published weights, and whole models by a name with a prefix."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator

from rlcas.errors import UserError, first_line

HUB_PREFIXES = ("hf_hub:", "hf-hub:")
"""timm's own, before the name of a repository on the hub."""
UNREAD = (OSError, RuntimeError, ValueError, LookupError, ImportError)
"""What timm and huggingface_hub raise where they do not get a file, or one that they cannot use."""


def is_hub_name(name: str) -> bool:
    """Return whether a backbone's name is that of a repository on the hub, such as hf_hub:timm/resnet18.a1_in1k."""
    return name.startswith(HUB_PREFIXES)


@functools.cache
def architecture_of(name: str) -> str:
    """Return timm's name of a network without the tag of its weights; that of a hub name is read from the hub.

    Raises:
        UserError: the hub cannot be read, or has no such model.
    """
    if not is_hub_name(name):
        return name.partition(".")[0]
    from timm.models import load_model_config_from_hf

    needs = f"classifier.backbone {name!r}: timm cannot read its config.json"
    with reading_hub(needs, "name one of timm's own models, such as resnet18"):
        _, architecture, _ = load_model_config_from_hf(name.partition(":")[2])
    return str(architecture)


@contextlib.contextmanager
def reading_hub(fault: str, otherwise: str) -> Iterator[None]:
    """Raise one line where what is read inside cannot be read from the hub.

    Args:
        fault: start of the line: the setting, its value and what cannot be read.
        otherwise: end of the line: what needs no hub.

    Raises:
        UserError: a file cannot be read.
    """
    hub = logging.getLogger("huggingface_hub")  # it logs every failed attempt; the error below is enough
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    except UNREAD as error:
        raise UserError(
            f"{fault} ({first_line(error)}): it needs the package huggingface_hub, and a connection or an earlier "
            f"download in the folder HF_HOME; {otherwise}"
        ) from error
    finally:
        hub.setLevel(level)
