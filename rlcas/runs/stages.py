"""The stages of a run: announced to the user, timed, and remembered over an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rlcas.console import phase
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import read_facts, write_json
from rlcas.storage.remote import publish


@contextlib.contextmanager
def stage(folder: RunFolder, title: str, name: str) -> Iterator[None]:
    """Announce `title`; on success add its seconds to the run's timings under `name`, and publish what it left."""
    with phase(title) as watch:
        yield
    seconds = timings(folder)
    write_json(folder.timings, {**seconds, name: seconds.get(name, 0.0) + watch.seconds})
    publish(folder.path)


def timings(folder: RunFolder) -> dict[str, float]:
    """Return the seconds of each stage that ended, over all sittings of the run."""
    return read_facts(folder.timings)
