"""Folders that Ray's workers would import in place of rlcas: they search the driver's current folder first."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from rlcas.errors import UserError

OUR_PACKAGES = ("rlcas", "synth", "envs", "cluster")


def check_not_hidden() -> None:
    """Refuse a current folder from which a worker would import other packages than this process has.

    Raises:
        UserError: it holds a package or module of the same name, such as another checkout of rlcas.
    """
    here = Path.cwd()
    for name in OUR_PACKAGES:
        ours = importlib.util.find_spec(name)
        found = PathFinder.find_spec(name, [str(here), *sys.path])
        assert ours is not None and ours.origin is not None
        if found is None or found.origin is None or not Path(found.origin).samefile(ours.origin):
            raise UserError(
                f"{here / name} is not part of this rlcas, but Ray's workers would import it: call rlcas in "
                "another folder"
            )
