"""fastfid report: what its page says, against brute force and closed forms; tests/report_browser opens it."""

import numpy as np
import pytest
from tolerances import LEAVE_ONE_OUT, LEAVE_ONE_OUT_WITHOUT_RANK

from fastfid import Statistics, _core, frechet_distance
from fastfid.metrics.leave_one_out import leave_one_out
from fastfid.statistics import gaussian


def features(n, d, seed, shift=0.0):
    """Correlated rows of features, with variances that decay."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(d, d)) * np.exp(-np.arange(d) / 3)
    return ((rng.normal(size=(n, d)) + shift) @ mix).astype(np.float32)


@pytest.mark.parametrize(
    ("m", "n", "tolerance"),
    [
        (60, 50, LEAVE_ONE_OUT),  # both sides have more rows than the 12 features
        (60, 9, LEAVE_ONE_OUT_WITHOUT_RANK),  # without a row the generated covariance loses a rank
        (8, 50, LEAVE_ONE_OUT),
        (8, 11, LEAVE_ONE_OUT),
        (11, 8, LEAVE_ONE_OUT_WITHOUT_RANK),
    ],
)
def test_leaving_out_one_row_is_what_the_distance_of_the_others_says(m, n, tolerance):
    real, rows = Statistics.from_features(features(m, 12, 1)), features(n, 12, 2, shift=0.3)
    whole = frechet_distance(real, Statistics.from_features(rows))
    expected = [frechet_distance(real, Statistics.from_features(np.delete(rows, i, 0))) - whole for i in range(n)]
    np.testing.assert_allclose(leave_one_out(real, rows), expected, rtol=0, atol=tolerance * whole)


def test_leaving_out_one_row_of_many_is_the_influence_function():
    real, rows = Statistics.from_features(features(9000, 6, 1)), features(9000, 6, 2, shift=0.3)
    generated = Statistics.from_features(rows)
    influence = _core.influence(gaussian(real, "a"), gaussian(generated, "b"), rows_b=rows).of_b
    changes = leave_one_out(real, rows) * (1 - len(rows))
    assert np.corrcoef(changes, influence)[0, 1] > 0.9999


def test_a_row_of_a_constant_set_moves_nothing():
    real = Statistics.from_features(np.ones((5, 3)))
    assert leave_one_out(real, np.ones((4, 3), np.float32)).tolist() == [0.0] * 4


def test_two_rows_are_too_few_to_leave_one_out():
    with pytest.raises(ValueError, match="rows: expected 3 rows or more"):
        leave_one_out(Statistics.from_features(np.eye(3)), np.eye(2, 3, dtype=np.float32))
