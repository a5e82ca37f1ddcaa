import json

import numpy as np
import pytest
from golden.trajectory import FILE, trajectory

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def on_actors(ray_session):
    return trajectory()


def test_a_short_real_training_gives_the_recorded_figures(on_actors):
    recorded = json.loads(FILE.read_text())["epochs"]
    assert [sorted(epoch) for epoch in recorded] == [sorted(epoch) for epoch in on_actors]
    for expected, actual in zip(recorded, on_actors, strict=True):
        for name, value in expected.items():
            values, expected_values = np.array(actual[name]), np.array(value)
            tolerance = 0 if expected_values.dtype.kind == "i" else 1e-3
            np.testing.assert_allclose(values, expected_values, rtol=tolerance, err_msg=name)


def test_episodes_in_the_process_itself_give_the_bits_of_actors(on_actors):
    assert trajectory("in_process") == on_actors
