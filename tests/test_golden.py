import json

import numpy as np
import pytest
from golden.trajectory import FILE, trajectory


@pytest.mark.medium
def test_a_short_real_training_gives_the_figures_kept(ray_session):
    kept, now = json.loads(FILE.read_text())["epochs"], trajectory()
    assert [sorted(epoch) for epoch in kept] == [sorted(epoch) for epoch in now]
    for expected, told in zip(kept, now, strict=True):
        for name, value in expected.items():
            values, expected_values = np.array(told[name]), np.array(value)
            tolerance = 0 if expected_values.dtype.kind == "i" else 1e-3
            np.testing.assert_allclose(values, expected_values, rtol=tolerance, err_msg=name)
