"""FID-infinity: the closed form and the fit beside formulas, the code that others run, and simulation."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from metric_cases import frechet, frechet_less_bias
from stubs import GridMeans
from test_standard_error import Pair
from tolerances import (
    DEVIATIONS,
    FEW_ROUNDINGS,
    FINITE_DIFFERENCES,
    INTERCEPT,
    SCIPYS_ROOT_SMALL,
    SPREAD_OF_200,
    SPREAD_OF_250,
)

import fastfid
from fastfid import Statistics
from fastfid.metrics import fid_infinity, infinity
from fastfid.metrics.infinity import FIDInfinity, FIDInfinityFit, FIDInfinityResult
from fastfid.metrics.standard_error import StandardError

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((300, 8)), RNG.standard_normal((200, 8)) * np.linspace(0.5, 2, 8) + 0.3


def test_the_value_is_the_fid_less_the_bias():
    found = fid_infinity(X, Y)
    assert found.value == pytest.approx(frechet_less_bias(X, Y), rel=SCIPYS_ROOT_SMALL)
    assert found.fid == pytest.approx(frechet(X, Y), rel=SCIPYS_ROOT_SMALL)
    assert (found.value, found.sides) == (found.fid - found.bias, "both")
    sides = [Statistics.from_features(rows) for rows in (X, Y)]
    assert found == fid_infinity(*sides) == fid_infinity(X, sides[1])


def test_the_bias_of_the_generated_side_alone():
    """The bias is linear in 1 / n of each side."""
    both, one = fid_infinity(X, Y), fid_infinity(X, Y, sides="generated")
    endless = Statistics(X.mean(axis=0), np.cov(X.T), n=1 << 60)
    assert one.bias == pytest.approx(fid_infinity(endless, Y).bias, rel=SCIPYS_ROOT_SMALL)
    other = fid_infinity(Y, X, sides="generated")
    assert one.bias + other.bias == pytest.approx(both.bias, rel=SCIPYS_ROOT_SMALL)
    assert one.fid == both.fid
    unknown = Statistics(X.mean(axis=0), np.cov(X.T), name="reference")
    assert fid_infinity(unknown, Y, sides="generated").bias == pytest.approx(one.bias, rel=SCIPYS_ROOT_SMALL)
    assert fid_infinity(unknown, Y, sides="generated").standard_error_of == "generated"


def test_what_may_be_left_of_the_bias():
    """0.5 d / n of each side's true share; a note where that is more than the standard error."""
    share = fid_infinity(X, Y, sides="generated")
    both, other = fid_infinity(X, Y), fid_infinity(Y, X, sides="generated")
    assert share.bias_error == pytest.approx(0.02 * (share.bias + share.bias_error), rel=SCIPYS_ROOT_SMALL)
    assert both.bias_error == pytest.approx(share.bias_error + other.bias_error, rel=SCIPYS_ROOT_SMALL)
    assert both.bias_error < both.standard_error
    assert both.note == ""


@pytest.mark.parametrize("multiple", [1.25, 2, 5])
def test_the_bias_that_is_left_is_half_of_d_over_n_where_all_features_vary_alike(multiple):
    found, values, _ = drawn(lambda rng: rng.standard_normal((2, int(64 * multiple), 64)), 40)
    expected = np.mean([one.bias_error for one in found])
    assert values.mean() == pytest.approx(expected, abs=DEVIATIONS * values.std() / math.sqrt(40))
    assert all(re.fullmatch(r"up to .* of the bias is left in the value, more than its.*", one.note) for one in found)


def test_features_without_variance():
    """All of the bias is that of a mean."""
    found = fid_infinity(np.ones((9, 2)), Y[:, :2])
    assert found.bias == pytest.approx(np.trace(np.cov(Y[:, :2].T)) / 200, rel=SCIPYS_ROOT_SMALL)
    assert fid_infinity(np.ones((9, 2)), np.zeros((9, 2))).value == 2


def drawn(draw, draws, **options):
    """The values of pairs of sets, their spread, and the root mean square of their standard errors."""
    rng = np.random.default_rng(1)
    found = [fid_infinity(*draw(rng), **options) for _ in range(draws)]
    values = np.array([one.value for one in found])
    return found, values, math.sqrt(np.mean([one.standard_error**2 for one in found]))


@pytest.mark.parametrize("multiple", [1.25, 2, 5])
def test_it_is_the_distance_of_the_distributions_within_what_is_left_of_the_bias(multiple):
    pair, n = Pair(), int(multiple * Pair.mu2.size)
    found, values, error = drawn(lambda rng: pair.sample(rng, n), 500)
    left = np.mean([one.bias_error for one in found])
    noise = values.std() / math.sqrt(500)
    assert -DEVIATIONS * noise <= values.mean() - pair.distance <= left + DEVIATIONS * noise
    assert error == pytest.approx(values.std(), rel=SPREAD_OF_250)


@pytest.mark.parametrize("sides", ["both", "generated"])
def test_the_influence_is_that_of_the_fid_less_its_bias(sides, monkeypatch):
    """A row moves the value by its influence: the derivative by the row's share, where all features vary alike."""
    d, n, rng = 6, 50, np.random.default_rng(4)

    def side(scale, shift):
        rows = Statistics.from_features(rng.standard_normal((n, d)))
        return dataclasses.replace(rows, mu=np.full(d, shift), sigma=scale**2 * np.eye(d), rows=None)

    def moved(one, row, share):
        off = row - one.mu
        sigma = (1 - share) * one.sigma + share * (1 - share) * np.outer(off, off)
        return Statistics(one.mu + share * off, sigma, n)

    real, fake = side(1, 0), side(1.5, 0.4)
    taken = []
    monkeypatch.setattr(infinity, "why_none", lambda *_: None)  # the rows are not those of these moments
    monkeypatch.setattr(
        infinity, "standard_error_from", lambda parts, *_: taken.append(parts) or StandardError(1, 0, "")
    )
    fid_infinity(real, fake, sides=sides)
    share = 1e-4
    for one, influence in ((real, taken[0].of_a), (fake, taken[0].of_b)):
        slopes = []
        for row in one.reservoir.rows:
            ends = [moved(one, row, sign * share) for sign in (1, -1)]
            pairs = [(end, fake) if one is real else (real, end) for end in ends]
            above, below = (fid_infinity(*pair, sides=sides).value for pair in pairs)
            slopes.append((above - below) / (2 * share))
        differences = influence - influence.mean() - (np.array(slopes) - np.mean(slopes))
        assert np.abs(differences).max() < FINITE_DIFFERENCES * np.ptp(influence)


def test_the_standard_error_beside_fixed_statistics():
    pair = Pair()
    reference = Statistics(np.zeros(24), pair.sigma1, n=1 << 40)
    found, values, error = drawn(lambda rng: (reference, pair.sample(rng, 100)[1]), 500)
    assert {one.standard_error_of for one in found} == {"generated"}
    assert error == pytest.approx(values.std(), rel=SPREAD_OF_250)


# The fit.


def fit_of_the_origin(real, fake, smallest, points, seed):
    """calculate_FID_infinity_path of mchong6/FID_IS_infinity: its draws, sizes and regression."""
    activations, sizes = fake.copy(), np.linspace(smallest, len(fake), points).astype("int32")
    np.random.seed(seed)  # noqa: NPY002
    fids = []
    for size in sizes:
        np.random.shuffle(activations)  # noqa: NPY002
        fids.append(frechet(real, activations[:size]))
    return sizes, fids, np.polyfit(1 / sizes, fids, 1)


@pytest.mark.parametrize("points", [3, 15])
def test_the_fit_is_that_of_the_origin(points):
    sizes, fids, (slope, intercept) = fit_of_the_origin(X, Y, 50, points, 7)
    found = fid_infinity(X, Y, method="fit", smallest=50, points=points, seed=7)
    assert found.sizes == tuple(sizes)
    np.testing.assert_allclose(found.fids, fids, rtol=SCIPYS_ROOT_SMALL)
    assert (found.value, found.slope) == pytest.approx((intercept, slope), rel=INTERCEPT)
    assert (found.fid, found.seed) == (found.fids[-1], 7)
    assert found.fid == pytest.approx(fid_infinity(X, Y).fid, rel=SCIPYS_ROOT_SMALL)
    design = np.stack([np.ones(points), 1 / sizes], axis=1)
    residual = np.array(fids) - design @ [intercept, slope]
    error = math.sqrt(np.linalg.inv(design.T @ design)[0, 0] * (residual @ residual) / (points - 2))
    assert found.fit_error == pytest.approx(error, rel=INTERCEPT)


def test_the_defaults_are_those_of_the_origin():
    rows = np.random.default_rng(2).standard_normal((6000, 2)).astype(np.float32)
    found = fid_infinity(X[:, :2], rows, method="fit")
    assert found.sizes == tuple(np.linspace(5000, 6000, 15).astype(int))
    assert found.seed == 0
    assert found == fid_infinity(X[:, :2], rows, method="fit", smallest=5000, points=15, seed=0)


def test_the_fit_leaves_the_rows_and_the_global_generator_alone():
    rows, state = Y.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = fid_infinity(X, rows, method="fit", smallest=50)
    np.testing.assert_array_equal(rows, Y)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert first.fids != fid_infinity(X, rows, method="fit", smallest=50, seed=1).fids


def small_sets(scale, shift):
    root = np.diag(np.logspace(0, -1, 8))
    return lambda rng: (rng.standard_normal((120, 8)) @ root, rng.standard_normal((120, 8)) @ root * scale + shift)


@pytest.mark.parametrize("smallest", [40, 100])
def test_the_standard_error_of_the_intercept_is_its_spread(smallest):
    """The error of least squares is less, as subsets share rows."""
    found, values, error = drawn(small_sets(1.5, 0.2), 200, method="fit", smallest=smallest)
    assert error == pytest.approx(values.std(), rel=SPREAD_OF_200)
    assert {one.standard_error_of for one in found} == {"both"}
    assert np.mean([one.fit_error for one in found]) < values.std()


def test_the_standard_error_of_the_intercept_near_a_distance_of_0():
    _, values, error = drawn(small_sets(1, 0), 200, method="fit", smallest=40)
    assert 0.95 * values.std() <= error <= 1.25 * values.std()


def test_the_fit_estimates_what_the_closed_form_of_the_generated_side_does():
    draws = 100
    fits = drawn(small_sets(1.5, 0.2), draws, method="fit", smallest=40)[1]
    closed = drawn(small_sets(1.5, 0.2), draws, sides="generated")[1]
    difference = fits - closed
    assert abs(difference.mean()) < DEVIATIONS * difference.std() / math.sqrt(draws)


# Results, and what is refused.


@pytest.mark.parametrize(
    ("options", "kind"), [({}, FIDInfinityResult), ({"method": "fit", "smallest": 50}, FIDInfinityFit)]
)
def test_results_are_frozen_one_line_and_json(options, kind):
    found = fid_infinity(X, Y, **options)
    assert type(found) is kind
    assert repr(found).startswith(f"{kind.__name__}(value=")
    assert "\n" not in repr(found)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.value = 0.0
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (record["value"], record["fid"]) == (found.value, found.fid)


def test_why_there_is_no_standard_error():
    bare = Statistics(Y.mean(axis=0), np.cov(Y.T), n=200, name="bare.npz")
    found = fid_infinity(X, bare)
    assert found.standard_error is None
    assert "bare.npz: holds no sample of its features" in found.no_standard_error
    repeated = fid_infinity(X, np.repeat(Y[:50], 4, axis=0), method="fit", smallest=50)
    assert repeated.standard_error is None
    assert "images are repeated" in repeated.no_standard_error


@pytest.mark.parametrize("options", [{}, {"method": "fit", "smallest": 50}])
def test_an_error_beyond_float64_leaves_the_value(options):
    far = Statistics(np.full(8, 1e140), np.eye(8), 1000)
    found = fid_infinity(far, Y * 1e30, **options)
    assert found.value == pytest.approx(8e280, rel=FEW_ROUNDINGS)
    assert found.standard_error is None
    assert found.no_standard_error == "the standard error exceeds the range of float64"


def test_an_influence_that_fails_leaves_the_value(monkeypatch):
    expected = fid_infinity(X, Y, method="fit", smallest=50)

    def fails(*_):
        raise fastfid.NumericalError("no influence")

    monkeypatch.setattr(infinity, "influence", fails)
    found = fid_infinity(X, Y, method="fit", smallest=50)
    assert (found.value, found.standard_error) == (expected.value, None)
    assert found.no_standard_error == "no influence"


def test_a_fit_to_fixed_statistics_has_the_error_of_the_rows_alone():
    sampled = fid_infinity(X, Y, method="fit", smallest=50)
    fixed = fid_infinity(Statistics(X.mean(axis=0), np.cov(X.T), 300), Y, method="fit", smallest=50)
    assert fixed.value == pytest.approx(sampled.value, rel=FEW_ROUNDINGS)
    assert (sampled.standard_error_of, fixed.standard_error_of) == ("both", "generated")
    assert fixed.standard_error < sampled.standard_error


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"method": "line"}, ValueError, "method: expected 'bias' or 'fit'; got 'line'"),
        ({"sides": "real"}, ValueError, "sides: expected 'both' or 'generated'; got 'real'"),
        ({"points": 4}, ValueError, "points: is of method 'fit'; got 4"),
        ({"seed": 0}, ValueError, "seed: is of method 'fit'; got 0"),
        ({"method": "fit", "sides": "both"}, ValueError, "sides: is of method 'bias'; got 'both'"),
        ({"method": "fit"}, ValueError, "smallest: expected fewer rows than the 200 of fake, got 5000"),
        ({"method": "fit", "smallest": 8}, ValueError, "smallest: expected more rows than the 8 features, got 8"),
        ({"method": "fit", "smallest": 9.5}, TypeError, "smallest: expected an integer, got 9.5"),
        ({"method": "fit", "points": 2}, ValueError, "points: expected 3 or more; got 2"),
        ({"method": "fit", "seed": -1}, ValueError, "seed: expected 0 or more; got -1"),
    ],
)
def test_options_that_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        fid_infinity(X, Y, **options)


@pytest.mark.parametrize("options", [{}, {"method": "fit", "smallest": 50}])
@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        (np.ones(9), ValueError, r"fake: expected features of shape \(n, d\), got \(9,\)"),
        (np.ones((1, 8)), ValueError, "fake: expected at least 2 rows of features, got 1"),
        (np.ones((9, 8), complex), TypeError, "fake: .*got complex128"),
        (np.where(np.arange(200)[:, None] == 5, np.nan, Y), fastfid.NumericalError, "fake: row 5 has NaN or infinite"),
    ],
)
def test_rows_that_are_refused(options, rows, error, match):
    with pytest.raises(error, match=match):
        fid_infinity(X, rows, **options)


def test_sides_that_do_not_go_together():
    with pytest.raises(ValueError, match="real has 8 dims, fake has 7: they cannot be compared"):
        fid_infinity(X, Y[:, :7])
    with pytest.raises(ValueError, match="real, fake: expected rows of the same length"):
        fid_infinity(X, Y[:, :7], method="fit", smallest=50)
    of = [Statistics.from_features(X, {"extractor": name}, name=name) for name in ("dinov2", "clip")]
    with pytest.raises(ValueError, match="dinov2"):
        fid_infinity(*of)
    with pytest.raises(TypeError, match="fake: method 'fit' draws subsets of rows, got Statistics; pass the rows"):
        fid_infinity(X, of[1], method="fit")


def test_the_bias_needs_more_images_than_features_and_their_number():
    with pytest.raises(ValueError, match="fake: FID-infinity needs more images than the 8 features, got 8: add images"):
        fid_infinity(X, Y[:8])
    with pytest.raises(ValueError, match="real: FID-infinity needs more images than the 8 features, got 8"):
        fid_infinity(X[:8], Y)
    unknown = Statistics(Y.mean(axis=0), np.cov(Y.T), name="old.npz")
    for sides in ((unknown, Y), (X, unknown)):
        with pytest.raises(ValueError, match=r"old\.npz: its number of images is unknown.*fastfid stats"):
            fid_infinity(*sides)


def test_features_too_large():
    for options in ({}, {"method": "fit", "smallest": 50}):
        with pytest.raises(fastfid.NumericalError, match="fake: covariance: the variance of feature 0 overflows"):
            fid_infinity(X, Y * 1e160, **options)


def test_the_metric_has_the_option_of_the_function():
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, high, (30, 9, 11, 3), dtype=np.uint8) for high in (256, 200)]
    found = fastfid.evaluate(*pictures, metrics=["fid", FIDInfinity("generated")], extractor=GridMeans())
    alone = found["fid-infinity"]
    assert (alone.fid, alone.sides) == (found["fid"].value, "generated")
    assert alone.standard_error != found["fid"].standard_error  # that of the bias counts
    assert 0 < alone.bias < found["fid"].bias
    with pytest.raises(ValueError, match="sides: expected 'both' or 'generated'; got 'fake'"):
        FIDInfinity("fake")
