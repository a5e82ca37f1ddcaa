"""Which episode becomes the incumbent, and which incumbent is the best so far."""

from __future__ import annotations

from rlcas.errors import RunError
from rlcas.training.fit import selection_key
from rlcas.types import EpisodeReport, Incumbent


class EpisodeError(RunError):
    """An epoch without a usable outcome; the text holds the workers' own tracebacks."""


def choose(reports: list[EpisodeReport], metric: str) -> int:
    """Return the winner: best `metric` of the valid ones, ties by lower validation loss, then lower index.

    Raises:
        EpisodeError: none is valid; the text holds the workers' tracebacks.
    """
    keys = {
        report.episode_index: (*selection_key(report.result, metric), -report.episode_index)
        for report in reports
        if report.valid and report.result is not None
    }
    if not keys:
        statuses = ", ".join(report.status for report in reports)
        tracebacks = "\n".join(f"episode {report.episode_index}:\n{report.traceback}" for report in reports)
        raise EpisodeError(
            f"epoch {reports[0].epoch}: none of the {len(reports)} episodes is valid ({statuses})\n{tracebacks}"
        )
    return max(keys, key=lambda episode_index: keys[episode_index])


def better(best: Incumbent, new: Incumbent, metric: str) -> Incumbent:
    """Return `new` where it beats `best` on the validation images, or `best` was never trained."""
    assert new.result is not None
    if best.result is None or selection_key(new.result, metric) > selection_key(best.result, metric):
        return new
    return best
