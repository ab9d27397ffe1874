"""The functions of ``fastfid.metrics`` on features of one's own: golden numbers, brute force, closed forms, bad input.

The golden numbers are by NumPy in float64 from each tool's formulas, before these functions were written.
tests/peers/test_scores.py compares with the tools themselves.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
from tolerances import (
    ANOTHER_NUMBER,
    CMMD_BRACKET,
    CMMD_FLOAT32,
    CMMDS,
    FEW_ROUNDINGS,
    GOLDEN,
    KERNEL_MEANS,
    KID_FLOAT32,
    NEAR_A_LIMIT,
    OFFSET_OF_A_MILLION,
    ROOTS_OF_ROUNDINGS,
    SAMPLED_VARIANCE,
    SPREAD_OF_250,
)

import fastfid
from fastfid import metrics
from fastfid.metrics import cmmd, fdr, inception_score, kid, mifid, mind, rke, vendi
from fastfid.metrics.ratios import FDR_DIVISORS

A32 = np.random.RandomState(1).randn(2000, 64).astype(np.float32)
B32 = (np.random.RandomState(2).randn(1500, 64) * 1.1 + 0.1).astype(np.float32)
A, B = A32.astype(np.float64), B32.astype(np.float64)
R, F = A[:1000], B[:800]

OF_TWO_SETS = [kid, cmmd, mind, mifid]
FUNCTIONS = [*OF_TWO_SETS, inception_score, rke, vendi]


def call(function, rows, **options):
    """The function of these rows, beside themselves where it takes two sets."""
    return function(rows, rows, **options) if function in OF_TWO_SETS else function(rows, **options)


# What all have in common.


def test_no_function_loads_numpy_before_it_is_used():
    code = "import sys, fastfid.metrics as m; assert 'kid' in dir(m); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_name_is_the_functions_whatever_is_imported():
    fastfid.evaluate  # noqa: B018 - loads the metrics
    for name in metrics._FUNCTIONS:
        assert callable(getattr(metrics, name))
        assert metrics._FUNCTIONS[name] not in metrics._FUNCTIONS, "the module would take the name of the function"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        metrics.nonsense  # noqa: B018


@pytest.mark.parametrize("function", FUNCTIONS)
def test_results_are_one_line_and_json(function):
    found = call(function, R[:50])
    assert repr(found).startswith(f"{type(found).__name__}(value=")
    assert "\n" not in repr(found)
    assert json.loads(json.dumps(found.to_dict()))["value"] == found.value
    with pytest.raises(AttributeError):
        found.value = 0


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        (np.ones(9), ValueError, r"shape \(n, d\), got \(9,\)"),
        (np.ones((9, 0)), ValueError, r"shape \(n, d\), got \(9, 0\)"),
        (np.ones((0, 3)), ValueError, "at least . rows? of .*, got 0"),
        (np.ones((19, 2), complex), TypeError, "got complex128"),
        (np.ones((19, 2), bool), TypeError, "got bool"),
        (np.array([["a"]]), TypeError, "got <U1"),
        ([[1.0, 2.0], [3.0]], TypeError, "on the host; setting an array element with a sequence"),
        (np.ma.masked_array(np.ones((19, 2))), TypeError, "without a mask"),
        (np.where(np.arange(18).reshape(9, 2) == 11, np.nan, 1), fastfid.NumericalError, "row 5 has NaN or infinite"),
        (np.where(np.arange(3000)[:, None] == 2345, np.inf, 1), fastfid.NumericalError, "row 2345 has NaN"),
    ],
)
def test_bad_rows_are_one_sentence(function, rows, error, match):
    with pytest.raises(error, match=match) as caught:
        call(function, rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", OF_TWO_SETS)
def test_both_sets_have_rows_of_one_length(function):
    with pytest.raises(ValueError, match=r"rows of the same length, got shapes \(9, 2\) and \(9, 3\)"):
        function(R[:9, :2], R[:9, :3])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_other_dtypes_and_layouts_have_the_values_of_their_numbers(function):
    whole = np.arange(1, 61).reshape(20, 3) % 7
    expected = call(function, whole.astype(np.float64)).value
    half = whole.astype(np.float16)
    for rows in (whole, half, half[::-1][::-1], np.asfortranarray(whole), whole.astype(">f8"), whole.tolist()):
        assert call(function, rows).value == pytest.approx(expected, rel=GOLDEN, abs=GOLDEN)


# KID.


def brute_force(x, y, degree=3, gamma=None, coef0=1):
    def kernel(a, b):
        return (a @ b.T * (1 / x.shape[1] if gamma is None else gamma) + coef0) ** degree

    def within(a):
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def test_kid_of_all_rows_is_the_golden_number():
    assert kid(A, B).value == pytest.approx(0.027853290482333648, rel=GOLDEN)
    assert kid(A32, B32).value == pytest.approx(0.027853290482333648, rel=GOLDEN)
    assert kid(A32, B32).standard_error == pytest.approx(kid(A, B).standard_error, rel=GOLDEN)


def test_kid_of_torch_fidelity_is_the_golden_number():
    found = kid(A, B, protocol="torch-fidelity")
    assert found.value == pytest.approx(0.027717480660924654, rel=GOLDEN)
    assert found.std == pytest.approx(0.002273946185491271, rel=GOLDEN)
    assert (found.standard_error, found.subsets, found.subset_size) == (None, 100, 1000)
    in_float32 = kid(A32, B32, protocol="torch-fidelity")
    assert in_float32.value == pytest.approx(0.027717507, rel=0, abs=KID_FLOAT32)
    assert in_float32.std == pytest.approx(0.002273939, rel=0, abs=KID_FLOAT32)
    few = {"subsets": 2, "subset_size": 900}  # without a protocol: in float64
    expected = kid(A, B, protocol="torch-fidelity", **few).value
    assert kid(A32, B32, **few).value == pytest.approx(expected, rel=GOLDEN)


def test_kid_of_clean_fid_is_the_golden_number():
    """The generated side is x."""
    assert kid(B, A, protocol="clean-fid", seed=0).value == pytest.approx(0.028418183669528255, rel=GOLDEN)


@pytest.mark.parametrize("protocol", ["clean-fid", "stylegan3", "dgm-eval", "mmd-gan"])
def test_without_a_seed_the_global_generator_draws_as_in_the_tool(protocol):
    few = {"protocol": protocol, "subsets": 2, "subset_size": 100}
    np.random.seed(0)  # noqa: NPY002
    assert kid(R, F, **few).value == kid(R, F, **few, seed=0).value
    assert np.random.random() != np.random.RandomState(0).random_sample()  # noqa: NPY002 - it goes on


@pytest.mark.parametrize("protocol", ["dgm-eval", "mmd-gan", "stylegan3", "clean-fid", "torch-fidelity"])
def test_subsets_are_drawn_from_x_then_from_y(protocol):
    found = kid(R, F, protocol=protocol, subsets=3, subset_size=40, seed=6)
    rng = np.random.RandomState(6)
    expected = [brute_force(R[rng.permutation(1000)[:40]], F[rng.permutation(800)[:40]]) for _ in range(3)]
    assert found.value == pytest.approx(np.mean(expected), rel=KERNEL_MEANS)
    assert found.std == pytest.approx(np.std(expected), rel=KERNEL_MEANS)


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_kid_under_other_kernels_is_brute_force(degree):
    x, y = A[:1100, :8], B[:1300, :8]  # several tiles
    for gamma, coef0 in ((None, 1), (0.3, 0.5)):
        found = kid(x, y, degree=degree, gamma=gamma, coef0=coef0)
        assert found.value == pytest.approx(brute_force(x, y, degree, gamma, coef0), rel=KERNEL_MEANS, abs=KERNEL_MEANS)
    one = kid(x, y, degree=degree, subsets=1, subset_size=1100, gamma=0.3)
    y = y[[*draw(1100, 1300)][1]]
    assert one.value == pytest.approx(brute_force(x, y, degree, 0.3), rel=KERNEL_MEANS, abs=KERNEL_MEANS)


def draw(m, n):
    rng = np.random.RandomState(2020)
    return rng.choice(m, m, replace=False), rng.choice(n, m, replace=False)


def test_the_standard_error_under_another_kernel_is_its_spread():
    rng = np.random.default_rng(8)
    sets = [(rng.standard_normal((90, 32)), rng.standard_normal((60, 32)) * 1.2 + 0.1) for _ in range(250)]
    found = [kid(x, y, degree=2, coef0=0.5) for x, y in sets]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.sqrt(np.mean([one.standard_error**2 for one in found])) == pytest.approx(spread, rel=SPREAD_OF_250)


def test_the_standard_error_is_invariant():
    """No order of rows or sides changes it, and scaled features with a scaled gamma have it."""
    x, y = A[:60, :4], B[:40, :4]
    expected = kid(x, y, degree=2).standard_error
    for found in (
        kid(y, x, degree=2),
        kid(x[::-1], y, degree=2),
        kid(x * 3, y * 3, degree=2, gamma=1 / 4 / 9),
        kid(x, y[::-1], degree=2),
    ):
        assert found.standard_error == pytest.approx(expected, rel=KERNEL_MEANS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_rows_have_a_value_and_no_standard_error(dtype):
    x, y = A[:9, :4].astype(dtype), B[:9, :4].astype(dtype)
    for n in (2, 3):
        assert kid(x[:n], y).standard_error is None
        assert kid(x[:n], y).value == pytest.approx(brute_force(A[:n, :4], B[:9, :4]), rel=KID_FLOAT32)
    assert kid(x[:4], y).standard_error > 0


def test_sets_smaller_than_a_subset():
    with pytest.raises(ValueError, match="subset_size: 1000 rows are more than the 800 of y"):
        kid(R, F, protocol="torch-fidelity")
    assert kid(R, F, protocol="clean-fid", seed=1, subsets=3).subset_size == 800


def test_equal_rows_have_the_documented_value():
    """Without its own pairs a row is compared with its copies: k - 2 k + k."""
    assert kid(np.ones((9, 4)), np.ones((7, 4))).value == pytest.approx(0, abs=GOLDEN)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"protocol": "inception"}, ValueError, "protocol: expected one of 'torch-fidelity', .*; got 'inception'"),
        ({"seed": 1}, ValueError, "seed: nothing is drawn over all rows"),
        ({"subsets": 0}, ValueError, "subsets: expected 1 or more; got 0"),
        ({"subset_size": 1}, ValueError, "subset_size: expected 2 or more; got 1"),
        ({"subset_size": 2.0}, TypeError, "subset_size: expected an integer, got 2.0"),
        ({"subsets": 3, "seed": -1}, ValueError, "seed: expected 0 or more"),
        ({"degree": 0}, ValueError, "degree: expected 1 or more; got 0"),
        ({"degree": 2.5}, TypeError, "degree: expected an integer"),
        ({"gamma": np.nan}, ValueError, "gamma, coef0: expected finite numbers"),
        ({"gamma": "scale"}, TypeError, "gamma: expected a number, got 'scale'"),
        ({"coef0": None}, TypeError, "coef0: expected a number, got None"),
        ({"protocol": ["adm"]}, ValueError, r"protocol: expected one of .*; got \['adm'\]"),
    ],
)
def test_kid_refuses(options, error, match):
    with pytest.raises(error, match=match):
        kid(R[:9], F[:9], **options)


def test_features_that_are_too_large_for_the_kernel():
    for rows in (R[:9] * 1e100, (R[:9] * 1e35).astype(np.float32)):
        with pytest.raises(fastfid.NumericalError, match="too large for the kernel"):
            kid(rows, F[:9].astype(rows.dtype))


def test_torchmetrics_draws_need_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(fastfid.BackendUnavailable, match=r"protocol 'torchmetrics' needs torch, .*: pip install torch"):
        kid(R, F, protocol="torchmetrics", subset_size=50)
    with pytest.raises(fastfid.BackendUnavailable, match="protocol 'torchmetrics' needs torch"):
        inception_score(R, protocol="torchmetrics")


# Inception Score.

LOGITS = np.random.RandomState(7).randn(1003, 1008) * 3


@pytest.mark.parametrize(
    ("options", "value", "std"),
    [
        ({"protocol": "torch-fidelity"}, 22.027290972130686, 1.0610386691654283),
        ({"order": "shuffle"}, 22.027290972130686, 1.0610386691654283),
        ({}, 22.049708260286256, 0.7770608220227195),
        ({"protocol": "openai"}, 22.049708260286256, 0.7770608220227195),
        ({"protocol": "torchmetrics", "order": "given"}, 22.050044904316852, 0.7081094400993586),
        ({"protocol": "adm", "split_size": 500}, 21.032162703187346, None),
        ({"splits": 1}, 31.941309631987906, 0),
        ({"protocol": "adm"}, 31.941309631987906, None),
        ({"protocol": "torchmetrics", "order": "given", "splits": 1}, 31.941309631987906, None),
    ],
)
def test_inception_scores_are_the_golden_numbers(options, value, std):
    found = inception_score(LOGITS, **options)
    assert found.value == pytest.approx(value, rel=GOLDEN)
    assert found.std == (None if std is None else pytest.approx(std, rel=GOLDEN, abs=GOLDEN))


def test_identical_rows_have_the_score_1():
    assert inception_score(np.tile(LOGITS[:1], (50, 1))).value == pytest.approx(1, rel=FEW_ROUNDINGS)


@pytest.mark.parametrize("scale", [1e3, 1e300])
def test_classes_used_equally_have_the_score_of_their_number(scale):
    """Probabilities of 0, whose logarithm other tools take."""
    assert inception_score(np.tile(np.eye(8), (40, 1)) * scale).value == pytest.approx(8, rel=FEW_ROUNDINGS)


def test_a_constant_added_to_a_row_changes_nothing():
    shifted = LOGITS[:300] + np.arange(300)[:, None]
    assert inception_score(shifted).value == pytest.approx(inception_score(LOGITS[:300]).value, rel=GOLDEN)


def test_blocks_of_torch_chunk_may_be_fewer():
    assert inception_score(LOGITS[:12], protocol="torchmetrics", order="given", splits=10).splits == 6


def test_another_seed_is_another_score():
    found = {inception_score(LOGITS, protocol="torch-fidelity", seed=seed).value for seed in (None, 2020, 2021)}
    assert len(found) == 2
    assert max(found) > min(found) * (1 + ANOTHER_NUMBER)


def test_rows_sorted_by_class_are_a_warning():
    classes = np.repeat(np.eye(10), 30, axis=0) * 20
    with pytest.warns(fastfid.SuspiciousInputWarning, match=r"is 1 over 10 blocks .* 10 unsplit.*guided-diffusion#165"):
        assert inception_score(classes).value == pytest.approx(1, rel=ANOTHER_NUMBER)
    with pytest.warns(fastfid.SuspiciousInputWarning, match="is 1 over 10 blocks"):
        inception_score(classes, protocol="adm", split_size=30)
    for options in ({"order": "shuffle"}, {"protocol": "torch-fidelity"}, {"splits": 1}):
        assert inception_score(classes, **options).value > 7  # and no warning


def test_small_blocks_in_random_order_are_none():
    """Their score is a third less than the unsplit one all the same: there are fewer rows than classes in a block."""
    assert inception_score(LOGITS).value < 0.7 * inception_score(LOGITS, splits=1).value


def test_probabilities_that_vanish_in_the_mean_add_nothing():
    smallest = np.log(5e-324)
    assert inception_score([[0.0, smallest], [0.0, 2 * smallest]], splits=1).value == 1


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"protocol": "is"}, ValueError, "protocol: expected one of 'openai', .*; got 'is'"),
        ({"order": "sorted"}, ValueError, "order: expected 'given' or 'shuffle'; got 'sorted'"),
        ({"splits": 0}, ValueError, "splits: expected 1 or more; got 0"),
        ({"splits": 10}, ValueError, "logits: expected at least 10 rows for 10 splits, got 9"),
        ({"splits": True}, TypeError, "splits: expected an integer"),
        ({"protocol": "adm", "splits": 2}, ValueError, "splits: protocol 'adm' has blocks of split_size rows"),
        ({"split_size": 2}, ValueError, "split_size: only protocol 'adm'"),
        ({"seed": 1.5}, TypeError, "seed: expected an integer"),
    ],
)
def test_inception_score_refuses(options, error, match):
    with pytest.raises(error, match=match):
        inception_score(LOGITS[:9], **options)


# CMMD.


def cmmd_by_differences(x, y):
    """The formula as it stands, in extended precision."""
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x.astype(np.longdouble), y))

    def mean(a, b):
        return np.mean([np.exp(-((row - b) ** 2).sum(axis=1) / 200).mean() for row in a])

    return float(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)))


def test_cmmd_is_the_golden_number():
    assert cmmd(R, F).value == pytest.approx(0.09524438561769877, rel=0, abs=CMMDS)
    assert cmmd(F, R).value == pytest.approx(0.09524438561769877, rel=0, abs=CMMDS)
    assert (cmmd(R, F).lower, cmmd(R, F).upper) == (None, None)


def test_cmmd_is_its_formula():
    x, y = A[:1100, :5], B[:90, :5]  # two blocks
    assert cmmd(x, y).value == pytest.approx(cmmd_by_differences(x, y), rel=0, abs=CMMDS)


@pytest.mark.parametrize("angle", [1e-3, 0.1, 1.0, 3.0, np.pi])
def test_cmmd_of_two_points_at_an_angle(angle):
    x = np.tile([[2.0, 0.0]], (9, 1))
    y = np.tile([[np.cos(angle), np.sin(angle)]], (5, 1))
    expected = -2000 * np.expm1((np.cos(angle) - 1) / 100)
    assert cmmd(x, y).value == pytest.approx(expected, rel=GOLDEN, abs=CMMDS)
    found = cmmd(x, y, moments=True)
    assert found.lower - CMMDS <= expected <= found.upper + CMMDS


@pytest.mark.parametrize(("x", "y"), [(R, F), (R, R + 5), (np.ones((1, 64)), -np.ones((1, 64))), (R[:1], F)])
def test_the_bracket_from_moments_has_the_exact_value(x, y):
    found, exact = cmmd(x, y, moments=True), cmmd(x, y).value
    assert found.value == found.lower
    assert found.lower - CMMDS <= exact <= found.upper + CMMDS
    assert 0 < found.upper - found.lower < CMMD_BRACKET


def test_cmmd_of_a_set_and_itself_is_0_whatever_the_lengths_of_its_rows():
    assert cmmd(R, R[::-1] * np.linspace(1e-200, 1e200, 1000)[:, None]).value == pytest.approx(0, abs=CMMDS)
    assert cmmd(R, R, moments=True).lower == 0


def unit_statistics(rows, **options):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return fastfid.Statistics.from_features(unit, **options)


def test_cmmd_of_statistics_is_that_of_the_rows(tmp_path):
    x, y = unit_statistics(R), unit_statistics(F)
    expected = cmmd(R, F, moments=True)
    path = x.save(tmp_path / "x.npz", rows=False)
    for a, b in ((x, y), (x, F), (R, y), (fastfid.Statistics.load(path), y)):
        found = cmmd(a, b, moments=True)
        assert found.value == pytest.approx(expected.value, rel=0, abs=CMMDS)
        assert found.lower - CMMDS <= cmmd(R, F).value <= found.upper + CMMDS
    few = cmmd(unit_statistics(R[:9]), unit_statistics(F[:9]), moments=True)  # n <= d
    assert few.value == pytest.approx(cmmd(R[:9], F[:9], moments=True).value, rel=0, abs=CMMDS)
    in_float32 = unit_statistics(R.astype(np.float32))
    assert cmmd(in_float32, y, moments=True).value == pytest.approx(expected.value, rel=0, abs=CMMD_FLOAT32)


def test_cmmd_of_statistics_of_two_points_has_the_closed_form():
    x, y = (unit_statistics(np.tile([[np.cos(a), np.sin(a)]], (9, 1))) for a in (0.0, 1.0))
    found = cmmd(x, y, moments=True)
    assert found.lower - CMMDS <= -2000 * np.expm1((np.cos(1) - 1) / 100) <= found.upper + CMMDS


@pytest.mark.parametrize("of_statistics", [lambda s: cmmd(F, s, moments=True), vendi, rke])
def test_statistics_of_other_than_unit_vectors_are_refused(of_statistics):
    unit = R / np.linalg.norm(R, axis=1, keepdims=True)
    spread = unit * np.sqrt(np.linspace(0.5, 1.5, 1000))[:, None]  # of mean squared length 1
    bad = r"\(s\): expected statistics of unit vectors, got a mean squared length 64.*divide each row by its norm"
    with pytest.raises(ValueError, match=bad):
        of_statistics(fastfid.Statistics.from_features(R, name="s"))
    with pytest.raises(ValueError, match=r"got a mean squared length 1\.0002"):
        of_statistics(fastfid.Statistics.from_features(unit * 1.0001))
    with pytest.raises(ValueError, match=r"got a row of squared length (1\.5|0\.5)"):
        of_statistics(fastfid.Statistics.from_features(spread))
    known = fastfid.Statistics.from_features(unit)
    with pytest.raises(ValueError, match=r"\(s\): its number of rows is unknown, on which the second moment depends"):
        of_statistics(fastfid.Statistics(known.mu, known.sigma, name="s"))


def test_statistics_that_cmmd_refuses():
    x, y = unit_statistics(R), unit_statistics(F[:, :60])
    with pytest.raises(ValueError, match="y: statistics give bounds of the CMMD only; pass moments=True"):
        cmmd(R, x)
    with pytest.raises(ValueError, match=r"has 64 dims.* has 60"):
        cmmd(x, y, moments=True)
    with pytest.raises(ValueError, match="x, y: expected rows of the same length"):
        cmmd(R, y, moments=True)
    of = [unit_statistics(R, meta={"extractor": name}, name=name) for name in ("dinov2", "clip")]
    with pytest.raises(ValueError, match="dinov2"):
        cmmd(*of, moments=True)


def test_cmmd_refuses_rows_without_a_direction():
    with pytest.raises(ValueError, match="y: row 3 is 0, which has no direction"):
        cmmd(R[:9], R[:9] * (np.arange(9) != 3)[:, None])
    with pytest.raises(TypeError, match="moments: expected True or False, got 1"):
        cmmd(R, F, moments=1)


# Vendi score and RKE.


@pytest.mark.parametrize(("q", "value"), [(1, 61.52663683961855), (2, 59.31063743000485), (np.inf, 38.599008950636986)])
def test_vendi_scores_are_the_golden_numbers(q, value):
    assert vendi(F, q).value == pytest.approx(value, rel=GOLDEN)


@pytest.mark.parametrize(
    ("kernel", "value"),
    [
        (np.exp(-np.abs(np.subtract.outer([0, 0, 10, 10, 20, 20], [0, 0, 10, 10, 20, 20]))), "2.9999"),
        (np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), "2.1573"),
    ],
)
def test_vendi_scores_are_the_examples_of_its_authors(kernel, value):
    """README of vertaix/Vendi-Score, which cuts off after four digits, from rows whose cosines are the kernel."""
    values, vectors = np.linalg.eigh(kernel)
    assert f"{vendi(vectors * np.sqrt(values.clip(0))).value:.12f}".startswith(value)


@pytest.mark.parametrize("q", [0, 0.5, 1, 2, 3.5, 1000, np.inf])
def test_vendi_scores_of_orthogonal_and_identical_rows(q):
    for n in (5, 40):  # less and more rows than features
        assert vendi(np.eye(n, 40) * np.arange(1, n + 1)[:, None], q).value == pytest.approx(n, rel=GOLDEN)
        assert vendi(np.tile(A[:1, :40], (n, 1)), q).value == pytest.approx(1, rel=GOLDEN)


@pytest.mark.parametrize(("q", "limit"), [(1 + 1e-12, 1), (1 - 1e-15, 1), (1 + 1e-9, 1), (1e308, np.inf)])
def test_vendi_scores_near_a_limit_are_near_its_score(q, limit):
    assert vendi(F, q).value == pytest.approx(vendi(F, limit).value, rel=NEAR_A_LIMIT)


@pytest.mark.parametrize("q", [0.9, 1.1])
def test_both_formulas_of_vendi_scores_agree(q):
    below, above = (vendi(F, q * (1 + step)).value for step in (-1e-13, 1e-13))
    assert below == pytest.approx(above, rel=GOLDEN)


@pytest.mark.parametrize("q", [0.5, 1, 2, 4, np.inf])
def test_vendi_scores_of_classes_are_the_entropies_of_their_shares(q):
    shares = np.array([0.5, 0.3, 0.2])
    rows = np.repeat(np.eye(3), (50, 30, 20), axis=0)
    if q == 1:
        expected = np.exp(-(shares * np.log(shares)).sum())
    else:
        expected = 2 if q == np.inf else (shares**q).sum() ** (1 / (1 - q))
    assert vendi(rows, q).value == pytest.approx(expected, rel=GOLDEN)


@pytest.mark.parametrize("q", [1, 2, 3, np.inf])
def test_both_gram_matrices_have_the_score_of_the_kernel(q):
    for rows in (A[:50], A[:80]):  # d = 64
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        values = np.linalg.eigvalsh(unit @ unit.T / len(rows)).clip(1e-300)
        if q == 1:
            expected = np.exp(-(values * np.log(values)).sum())
        else:
            expected = 1 / values[-1] if q == np.inf else (values**q).sum() ** (1 / (1 - q))
        assert vendi(rows, q).value == pytest.approx(expected, rel=GOLDEN)


@pytest.mark.parametrize("q", [0, 0.5, 1, 2, 3.5, np.inf])
def test_vendi_scores_of_statistics_are_those_of_the_rows(q, tmp_path):
    statistics = unit_statistics(F)
    assert vendi(statistics, q).value == pytest.approx(vendi(F, q).value, rel=GOLDEN)
    stored = fastfid.Statistics.load(statistics.save(tmp_path / "f.npz"))
    assert vendi(stored, q).value == pytest.approx(vendi(F, q).value, rel=GOLDEN)
    assert rke(statistics).value == pytest.approx(rke(F).value, rel=GOLDEN)
    few = unit_statistics(F[:9])  # of 64 features
    assert vendi(few, q).value == pytest.approx(vendi(F[:9], q).value, rel=GOLDEN)
    if q > 0:  # the rank of what a file has rounded is another
        stored = fastfid.Statistics.load(few.save(tmp_path / "few.npz"))
        assert vendi(stored, q).value == pytest.approx(vendi(F[:9], q).value, rel=ROOTS_OF_ROUNDINGS)
    with pytest.raises(TypeError, match="x: a Gaussian kernel needs rows, got Statistics"):
        rke(statistics, sigma=1)


@pytest.mark.parametrize(
    ("q", "error", "match"),
    [
        (-1, ValueError, "q: expected 0 or more; got -1"),
        (np.nan, ValueError, "q: expected 0 or more; got nan"),
        ("inf", TypeError, "q: expected a number, got 'inf'"),
        (True, TypeError, "q: expected a number, got True"),
    ],
)
def test_vendi_refuses(q, error, match):
    with pytest.raises(error, match=match):
        vendi(R, q)


@pytest.mark.parametrize("sigma", [0.5, 1, 8, 100])
def test_rke_of_a_gaussian_kernel_is_its_formula(sigma):
    """By differences of all pairs, over three blocks; a million off, distances are those of the rows."""
    x = A[:2000, :5]
    mean = np.mean([np.exp(-((row - x) ** 2).sum(axis=1) / (2 * sigma**2)) ** 2 for row in x])
    assert rke(x, sigma=sigma).value == pytest.approx(1 / mean, rel=GOLDEN)
    assert rke(x + 2.0**20, sigma=sigma).value == pytest.approx(1 / mean, rel=OFFSET_OF_A_MILLION)
    assert rke(x, sigma=sigma).sigma == sigma


def test_rke_of_cosines_is_the_vendi_score_of_order_2():
    assert rke(F).value == pytest.approx(59.31063743000485, rel=GOLDEN)
    assert (rke(F).value, rke(F).sigma) == (vendi(F, q=2).value, None)


def test_rke_of_distant_modes_is_that_of_their_shares():
    rows = np.repeat(np.eye(3) * 100, (50, 30, 20), axis=0)
    assert rke(rows, sigma=1).value == pytest.approx(1 / (0.25 + 0.09 + 0.04), rel=GOLDEN)
    assert rke(np.arange(9.0)[:, None], sigma=1e-3).value == pytest.approx(9, rel=GOLDEN)
    assert rke(np.ones((9, 2)), sigma=1e-9).value == 1
    assert rke(np.ones((1, 2)), sigma=1).value == 1


def test_rke_of_a_gaussian_set():
    """The mean of exp(-|x - y|^2 / sigma^2) over normal x and y is (1 + 4 / sigma^2)^(-d/2)."""
    x = np.random.default_rng(5).standard_normal((4000, 4))
    assert rke(x, sigma=3).value == pytest.approx((1 + 4 / 9) ** 2, rel=SAMPLED_VARIANCE)


@pytest.mark.parametrize(
    ("sigma", "error", "match"),
    [
        (0, ValueError, "sigma: expected a positive, finite number; got 0"),
        (np.inf, ValueError, "sigma: expected a positive, finite number; got inf"),
        (True, TypeError, "sigma: expected a number, got True"),
        ("1", TypeError, "sigma: expected a number, got '1'"),
        (1e-300, fastfid.NumericalError, "x: the features are too large for a kernel of sigma = 1e-300"),
    ],
)
def test_rke_refuses(sigma, error, match):
    with pytest.raises(error, match=match):
        rke(R, sigma=sigma)


# FDr-k.


def test_fdr6_is_the_mean_of_six_ratios():
    """Twice the distances of the validation images, but for one at four times its own."""
    distances = {"inception": 3.36, "convnext": 113.74, "dinov2": 28.38, "mae": 0.16, "siglip": 1.20, "clip": 11.20}
    found = fdr(distances)
    assert found.value == pytest.approx((5 * 2 + 4) / 6, rel=FEW_ROUNDINGS)
    assert found.ratios == pytest.approx({name: 4 if name == "mae" else 2 for name in distances}, rel=FEW_ROUNDINGS)
    assert list(FDR_DIVISORS) == list(distances)
    assert fdr(FDR_DIVISORS).value == 1
    assert json.loads(json.dumps(found.to_dict())) == {"value": found.value, "ratios": found.ratios}


def test_fdr_of_divisors_of_ones_own():
    train, held_out, fake = (fastfid.Statistics.from_features(rows) for rows in (A[:1000], A[1000:], B[:1000]))
    distances = [fastfid.frechet_distance(train, side) for side in (fake, held_out)]
    found = fdr({"mine": np.float64(distances[0])}, divisors={"mine": distances[1], "other": 3})
    assert found.value == found.ratios["mine"] == distances[0] / distances[1]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([1.0],), TypeError, "distances: expected a dict of Fréchet distances by extractor, got list"),
        (({},), ValueError, "distances: expected at least one extractor, got none"),
        (({"vgg": 1.0},), ValueError, "distances: expected names among inception, .*, clip; got vgg"),
        (({"mae": "1"},), TypeError, "distances: expected a number for mae, got '1'"),
        (({"mae": True},), TypeError, "distances: expected a number for mae, got True"),
        (({"mae": -1.0},), ValueError, "distances: expected a distance of at least 0 for mae, got -1.0"),
        (({"mae": np.nan},), ValueError, "distances: expected a distance of at least 0 for mae, got nan"),
        (({"a": 1}, {"a": 0.0}), ValueError, "divisors: expected a distance above 0 for a, got 0"),
        (({"a": 1}, 2.0), TypeError, "divisors: expected a dict of Fréchet distances by extractor, got float"),
    ],
)
def test_fdr_refuses(arguments, error, match):
    with pytest.raises(error, match=match):
        fdr(*arguments)


# MIND.

DIRECTIONS = np.random.RandomState(3).randn(256, 64)


def test_mind_is_the_golden_number():
    found = mind(R[:800], F, directions=DIRECTIONS)
    assert found.value == pytest.approx(5.616769948488711, rel=GOLDEN)
    assert found.directions == 256
    assert mind(F, R[:800], directions=DIRECTIONS * 7).value == pytest.approx(found.value, rel=GOLDEN)


def test_mind_of_sets_of_different_sizes_is_that_of_their_repetitions():
    x, y = A[:12], B[:30]
    expected = mind(np.tile(x, (5, 1)), np.tile(y, (2, 1)), directions=DIRECTIONS).value
    assert mind(x, y, directions=DIRECTIONS).value == pytest.approx(expected, rel=GOLDEN)


def test_mind_of_a_set_and_itself_is_0():
    assert mind(R, R[::-1]).value == pytest.approx(0, abs=GOLDEN)


def test_mind_of_a_shift_is_three_times_its_square():
    """Over any orthonormal directions exactly: the mean of their squares is |shift|^2 / d."""
    axes = np.linalg.qr(DIRECTIONS[:64])[0]
    shift = np.arange(64) / 10
    expected = 3 * (shift**2).sum()
    assert mind(R, R + shift, directions=axes).value == pytest.approx(expected, rel=GOLDEN)
    found = mind(R, R + shift, directions=2000)
    assert abs(found.value - expected) < 4 * found.directions_error


def test_mind_of_isotropic_gaussians_is_three_fids():
    x = np.random.default_rng(5).standard_normal((4000, 16))
    found = mind(x, 3 * x, directions=300)
    assert found.value == pytest.approx(3 * 16 * (3 - 1) ** 2, rel=SAMPLED_VARIANCE)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"directions": 0}, ValueError, "directions: expected 1 or more; got 0"),
        ({"directions": np.zeros((2, 64))}, ValueError, "directions: row 0 is 0"),
        ({"directions": np.ones((2, 63))}, ValueError, "directions, x: expected rows of the same length"),
        ({"seed": -1}, ValueError, "seed: expected 0 or more"),
        ({"directions": "many"}, TypeError, "directions: expected an array"),
    ],
)
def test_mind_refuses(options, error, match):
    with pytest.raises(error, match=match):
        mind(R, F, **options)
    with pytest.raises(fastfid.NumericalError, match="too large"):
        mind(R * 1e200, F)


# MIFID.


@pytest.mark.parametrize(("direction", "distance"), [("real", 0.2083086337550477), ("generated", 0.20599343937124678)])
def test_memorisation_distances_are_the_golden_numbers(direction, distance):
    found = mifid(np.abs(R), np.abs(F), direction=direction)
    assert found.memorisation_distance == pytest.approx(distance, rel=GOLDEN)
    assert found.value == pytest.approx(found.fid, rel=GOLDEN)  # 0.1 or more counts as 1
    near = mifid(np.abs(R), np.abs(F), direction=direction, threshold=1)
    assert near.value == pytest.approx(found.fid / distance, rel=GOLDEN)


def test_the_fid_of_mifid_is_the_fid():
    sides = [fastfid.Statistics.from_features(rows) for rows in (R, F)]
    assert mifid(R, F).fid == fastfid.frechet_distance(*sides)


def test_mifid_of_copies():
    """Generated rows that are real ones, but for their lengths and signs, are at distance 0 from them."""
    copies = R[:100] * np.linspace(-2, 3, 100)[:, None]
    found = mifid(R, copies, direction="generated")
    assert found.memorisation_distance == pytest.approx(0, abs=GOLDEN)
    assert found.value > 1e10 * found.fid
    assert mifid(R, copies).memorisation_distance > 0.1
    assert mifid(R, R).value == 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"direction": "fake"}, ValueError, "direction: expected 'real' or 'generated'; got 'fake'"),
        ({"threshold": 2}, ValueError, "threshold: expected 0 to 1; got 2"),
        ({"threshold": "0"}, TypeError, "threshold: expected a number"),
    ],
)
def test_mifid_refuses(options, error, match):
    with pytest.raises(error, match=match):
        mifid(R, F, **options)
    with pytest.raises(ValueError, match="fake: row 0 is 0, which has no direction"):
        mifid(R, np.zeros((9, 64)))
