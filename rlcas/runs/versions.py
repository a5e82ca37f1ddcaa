"""The versions of the packages that figures depend on."""

from __future__ import annotations

import datetime
import importlib.metadata
from typing import Any

VERSIONS_OF = ("rlcas", "torch", "torchvision", "timm", "diffusers", "ray", "gymnasium", "numpy")


def made_now() -> dict[str, Any]:
    """Return what is kept of when and by which versions the cells were trained."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"date": datetime.date.today().isoformat(), "versions": versions}
