"""Images by name or path: `load` for training, `load_test` and `load_recorded_test` for evaluation only.

open (named set, npz, folder, csv) → survey → split → window, gray or RGB, resize → subsample to a long tail
"""

from rlcas.data.foreign import load_foreign_test
from rlcas.data.loading import is_cut, load, load_recorded_test, load_test, require_test, test_digests
from rlcas.data.opening import DATASETS, PREFIXES, check_name
from rlcas.data.prepared import open_prepared, prepare
from rlcas.data.record import read_record, recorded_splits, write_record
from rlcas.data.survey import picture_digest

__all__ = [
    "DATASETS",
    "PREFIXES",
    "check_name",
    "is_cut",
    "load",
    "load_foreign_test",
    "load_recorded_test",
    "load_test",
    "open_prepared",
    "picture_digest",
    "prepare",
    "read_record",
    "recorded_splits",
    "require_test",
    "test_digests",
    "write_record",
]
