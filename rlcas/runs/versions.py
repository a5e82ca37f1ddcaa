"""The versions of the packages that figures depend on."""

from __future__ import annotations

import datetime
import importlib.metadata
from typing import Any

VERSIONS_OF = ("rlcas", "torch", "torchvision", "timm", "diffusers", "ray", "gymnasium", "numpy")


def date_and_versions() -> dict[str, Any]:
    """Return today's date and the installed versions, as made.json of a comparison has them."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"date": datetime.date.today().isoformat(), "versions": versions}
