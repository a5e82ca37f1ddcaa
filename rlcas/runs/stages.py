"""The stages of a run: announced to the user and timed; the times add up over interruptions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rlcas.console import phase
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import read_facts, write_json
from rlcas.storage.remote import publish


@contextlib.contextmanager
def stage(folder: RunFolder, title: str, name: str) -> Iterator[None]:
    """Announce `title`; on success add the seconds to the run's timings under `name`, and publish the stage's files."""
    with phase(title) as watch:
        yield
    # Read only now: a stage inside may have written its own.
    seconds = timings(folder)
    write_json(folder.timings, {**seconds, name: seconds.get(name, 0.0) + watch.seconds})
    # After the timings, so that what is at the address has them.
    publish(folder.path)


def timings(folder: RunFolder) -> dict[str, float]:
    """Return the seconds of each stage that ended, over all sessions of the run."""
    return read_facts(folder.timings)
