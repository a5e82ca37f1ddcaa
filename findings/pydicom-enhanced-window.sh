#!/bin/sh
# pydicom applies no window and no rescaling of enhanced multi-frame images: they are in functional groups.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    pydicom==3.0.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'EOF'
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import EnhancedUSVolumeStorage


def item(**values):
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def image(**values):
    fixed = {"SOPClassUID": EnhancedUSVolumeStorage, "PhotometricInterpretation": "MONOCHROME2"}
    return item(**fixed, BitsAllocated=16, BitsStored=12, HighBit=11, PixelRepresentation=0, **values)


print("pydicom", pydicom.__version__, "numpy", np.__version__)
window = {"WindowCenter": 100.0, "WindowWidth": 50.0}
rescale = {"RescaleSlope": 2.0, "RescaleIntercept": -100.0, "RescaleType": "US"}
groups = item(FrameVOILUTSequence=[item(**window)], PixelValueTransformationSequence=[item(**rescale)])
enhanced = image(NumberOfFrames=1, SharedFunctionalGroupsSequence=[groups])
values = np.array([0, 80, 90, 100, 110, 200], dtype=np.uint16)
print("expected: the same window and rescaling give the same pixels, or an error, wherever the standard puts them")
for function, attributes in ((apply_voi_lut, window), (apply_modality_lut, rescale)):
    at_top, in_groups = function(values, image(**attributes)), function(values, enhanced)
    print(f"seen: {function.__name__}: {np.round(at_top).tolist()} of attributes at the top, "
          f"{in_groups.tolist()} (unchanged) of functional groups")
    assert not np.array_equal(at_top, values) and np.array_equal(in_groups, values), "changed"
EOF
