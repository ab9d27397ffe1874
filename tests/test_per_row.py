"""Nearest rows, authenticity and realism, beside distances in float64."""

import json
import re

import numpy as np
import pytest
from test_prdc import distances, duplicates, grid, nearly_equal, radii, rows
from tolerances import FEW_ROUNDINGS

from fastfid.errors import NumericalError
from fastfid.metrics import authpct, nearest_rows, prdc, realism

R = np.random.RandomState(1).randn(2000, 64).astype(np.float32)[:1000]
F = (np.random.RandomState(2).randn(1500, 64) * 1.1 + 0.1).astype(np.float32)[:800]


def authentic(train, fake):
    """dgm-eval's rule: the nearest training row has another that is nearer than the generated row."""
    between = distances(train, fake)
    nearest = between.argmin(axis=0)  # the first of equal ones
    return 100 * np.count_nonzero(radii(train, 1)[nearest] < between[nearest, np.arange(len(fake))]) / len(fake)


def test_authpct_is_dgm_evals():
    found = authpct(R, F)
    assert found.value == 91.75
    assert (found.n_train, found.n_generated) == (1000, 800)
    assert found.value == authentic(R, F)


@pytest.mark.parametrize("make", [grid, duplicates, nearly_equal])
def test_authpct_decides_as_float64(make):
    train, fake = make(400, 0), make(340, 1)
    assert authpct(train, fake).value == authentic(train, fake)


def test_copies_are_not_authentic():
    assert authpct(R, R[:300]).value == 0
    far = R + np.float32(1e3)
    assert authpct(R, far).value == 100
    assert authpct(R, np.concatenate([R[:50], far[:150]])).value == 75


@pytest.mark.parametrize("k", [1, 7])
def test_nearest_rows(k):
    found = nearest_rows(F, R, k)
    expected = np.sqrt(np.sort(distances(F, R), axis=1)[:, :k])
    np.testing.assert_array_equal(found.distances, expected)
    np.testing.assert_array_equal(found.indices[:, 0], distances(F, R).argmin(axis=1))
    assert repr(found) == f"NearestRows(n=800, k={k})"
    assert nearest_rows(F, F).indices[:, 0].tolist() == list(range(800))  # a row of the other set is no "other row"


def test_nearest_rows_of_float64_are_of_float32():
    wide = R.astype(np.float64) * (1 + 1e-12)
    np.testing.assert_array_equal(nearest_rows(wide, F).distances, nearest_rows(R, F).distances)


@pytest.mark.parametrize("k", [1, 3])
def test_realism_is_the_largest_ratio(k):
    """Kynkäänniemi et al. 2019, (3), over the half of the balls that are small."""
    of_balls = np.sqrt(radii(R, k))
    small = of_balls <= np.median(of_balls)
    expected = (of_balls[small, None] / np.sqrt(distances(R, F)[small])).max(axis=0)
    found = realism(R, F, k=k)
    np.testing.assert_allclose(found.values, expected, rtol=FEW_ROUNDINGS)
    assert found.k == k
    assert repr(found) == f"Realism(n=800, median={np.median(expected):.6g}, k={k})"


def test_realism_of_many_blocks_of_balls():
    real, fake = rows(5000, 3, 1), rows(1500, 3, 2)
    of_balls = np.sqrt(radii(real, 3))
    small = of_balls <= np.median(of_balls)
    expected = (of_balls[small, None] / np.sqrt(distances(real, fake)[small])).max(axis=0)
    np.testing.assert_allclose(realism(real, fake).values, expected, rtol=FEW_ROUNDINGS)


def test_a_row_in_a_small_ball_has_at_least_1():
    """All balls but those of outliers: precision counts the others too."""
    shares = (realism(R, F, k=5).values >= 1).mean(), prdc(R, F, k=5, strict=False).precision
    assert 0 < shares[0] < shares[1]


def test_realism_of_copies_and_of_duplicates():
    found = realism(R, R)
    of_balls = radii(R, 3)
    np.testing.assert_array_equal(np.isinf(found.values), of_balls <= np.median(of_balls))
    assert realism(np.repeat(R[:5], 10, axis=0), F).values.max() == 0  # all balls have the radius 0


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: authpct(R[:1], F), ValueError, "train: expected at least 2 rows"),
        (lambda: authpct(R, F[:0]), ValueError, "fake: expected at least 1 row"),
        (lambda: authpct(R, F[:, :3]), ValueError, "train, fake: expected rows of the same length"),
        (lambda: authpct(R * np.float32(np.inf), F), NumericalError, "train: row 0 has NaN or infinite values in"),
        (lambda: realism(R[:3], F), ValueError, "real: expected at least 4 rows"),
        (lambda: realism(R, F, k=0), ValueError, "k: expected 1 or more; got 0"),
        (lambda: realism(R, F[:, :3]), ValueError, "real, fake: expected rows of the same length"),
        (lambda: nearest_rows(R, F[:2], 3), ValueError, "y: expected at least 3 rows"),
        (lambda: nearest_rows(R, F, 1.5), TypeError, "k: expected an integer, got 1.5"),
        (lambda: nearest_rows(R, F[:, :3]), ValueError, "x, y: expected rows of the same length"),
        (lambda: nearest_rows(R.astype(complex), F), TypeError, "x: expected an array (n, d) of features"),
    ],
)
def test_what_has_no_nearest_rows(call, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        call()


def test_results_are_json():
    real, fake = np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([[1.5], [4.0]])
    found = realism(real, fake, k=1).to_dict(), nearest_rows(fake, real).to_dict()
    assert found == ({"values": [2.0, 0.5], "k": 1}, {"indices": [[1], [2]], "distances": [[0.5], [2.0]]})
    assert json.loads(json.dumps(found)) == list(found)
