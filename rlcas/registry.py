"""Look-up of objects by name: in plain dicts, or as `package.module:object` for code from outside."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TypeVar

from rlcas.errors import UserError

Entry = TypeVar("Entry")


def lookup(name: str, known: Mapping[str, Entry], setting: str) -> Entry:
    """Return `known[name]`, or import `package.module:object`.

    Raises:
        UserError: the name is unknown or cannot be imported; the message has the setting and the known names.
    """
    if name in known:
        return known[name]
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        # ValueError: no module before the colon; SyntaxError: in the module that is imported.
        except (ImportError, AttributeError, ValueError, SyntaxError) as error:
            raise UserError(
                f"{setting} {name!r} cannot be imported: {error}: name package.module:object"
            ) from error
    raise UserError(
        f"{setting} {name!r} is unknown: use one of {', '.join(sorted(known))}, or package.module:object"
    )
