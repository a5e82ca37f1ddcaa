#!/bin/sh
# Pillow turns a TIFF in which white is zero around at 8 bits, and not at 16.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'EOF'
import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__, "numpy", np.__version__)
print("expected: the smallest stored value is white at every depth, as PhotometricInterpretation 0 says")
for dtype, inverted in ((np.uint8, True), (np.uint16, False)):
    top = np.iinfo(dtype).max
    stored = np.array([[0, top // 4], [top // 2, top]], dtype=dtype)
    tifffile.imwrite("image.tif", stored, photometric="miniswhite")
    with Image.open("image.tif") as image:
        assert image.tag_v2[262] == 0
        mode, read = image.mode, np.asarray(image)
    print(f"seen: {dtype.__name__}, mode {mode}: stored {stored.ravel().tolist()}, read {read.ravel().tolist()}")
    assert np.array_equal(read, top - stored if inverted else stored), "changed"
EOF
