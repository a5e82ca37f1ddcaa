"""Check of the data sets that are on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rlcas.doctor.finding import Finding, fault, ok
from rlcas.errors import UserError


def data() -> Finding:
    """Check RLCAS_DATA, and the md5 of the MedMNIST files on this machine."""
    from rlcas.data.medmnist import check_file, local_files

    faults: dict[str, str] = {}
    files = local_files()
    for name, path in files.items():
        try:
            check_file(name, path)
        except UserError as error:
            faults[name] = str(error)
    return judge_data(os.environ.get("RLCAS_DATA"), sorted(files), faults)


def judge_data(rlcas_data: str | None, names: list[str], faults: Mapping[str, str]) -> Finding:
    """Judge the places of the data sets.

    Args:
        rlcas_data: the environment variable RLCAS_DATA.
        names: MedMNIST sets on this machine.
        faults: set -> error, for those of them that are not the official file.
    """
    if rlcas_data and not Path(rlcas_data).is_dir():
        return fault(f"RLCAS_DATA {rlcas_data} is not a folder", "make it, or unset RLCAS_DATA")
    place = f"RLCAS_DATA {rlcas_data}" if rlcas_data else "RLCAS_DATA is not set"
    found = f"{place}; MedMNIST sets here: {', '.join(names) or 'none yet, --data NAME fetches one'}"
    if faults:
        return fault(f"{found}; not the official file: {', '.join(faults)}", "; ".join(faults.values()))
    return ok(found)
