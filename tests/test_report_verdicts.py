"""Which classes of a report differ beyond noise, and which notes its table shows."""

import itertools
import re
from statistics import NormalDist

import numpy as np
import pytest
from report_pages import PageReader
from stubs import GridMeans

from fastfid import Statistics, compute_statistics, evaluate
from fastfid.cli import main
from fastfid.metrics.fid import NARROW
from fastfid.report.header import FEWEST_ERRORS, errors_from_zero
from fastfid.report.make import make_report
from fastfid.report.verdicts import FALSE_ALARM, beyond_noise


def closed_test(ratios):
    """The closed procedure of the tests of Bonferroni: one is named if every set of comparisons with it is refused."""
    found = []
    for i in range(len(ratios)):
        others = [j for j in range(len(ratios)) if j != i]
        sets = [(i, *more) for k in range(len(ratios)) for more in itertools.combinations(others, k)]
        is_refused = [max(ratios[j] for j in one) >= -NormalDist().inv_cdf(FALSE_ALARM / len(one)) for one in sets]
        found.append(all(is_refused) and ratios[i] >= FEWEST_ERRORS)
    return found


def test_holms_procedure_is_the_closed_test():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        ratios = list(rng.uniform(2.5, 3.5, rng.integers(1, 9)))
        assert beyond_noise(ratios) == closed_test(ratios)
        seen.add(sum(beyond_noise(ratios)))
    assert len(seen) > 3
    assert beyond_noise([]) == []
    assert beyond_noise([50.0, -1.0]) == [True, False]  # a KID may be below 0


CLASSES = 12


def images_of_classes(spoilt):
    """Two sets of 30 images a class; those of some classes are lighter in the second one."""
    rng = np.random.default_rng(1)
    labels = [f"class {label:02}" for label in range(CLASSES) for _ in range(30)]
    real, fake = (rng.integers(0, 190, (len(labels), 8, 8, 3), dtype=np.uint8) for _ in range(2))
    for label in spoilt:
        fake[30 * label : 30 * (label + 1)] += 60
    return real, fake, labels


@pytest.mark.parametrize("spoilt", [(), (3, 7)])
@pytest.mark.parametrize("by", ["KD", "FD less 2 times its bias"])
def test_classes_that_differ_are_named_and_the_others_are_not(tmp_path, spoilt, by):
    """Beside images there is a KID; beside statistics the classes are compared with all images, by the FID."""
    real, fake, labels = images_of_classes(spoilt)
    options = {"extractor": GridMeans(), "labels": labels}
    if by != "KD":
        real = compute_statistics(real, extractor=GridMeans())
    found = make_report(real, fake, tmp_path / "page.html", **options)
    page = PageReader(tmp_path / "page.html")
    assert f"{len(spoilt)} of {CLASSES} classes differ beyond noise, by the {by}" in page.text
    rows = re.findall(r'<th scope="row">(class \d\d)</th>(.*?)</tr>', page.source, re.DOTALL)
    told = {name: re.findall(r"<td[^>]*>(.*?)</td>", row)[2:4] for name, row in rows}
    assert {name for name, (is_beyond, _) in told.items() if is_beyond == "yes"} == {
        f"class {label:02}" for label in spoilt
    }
    ratio = errors_from_zero(found.per_class["class 03"])[1]
    assert told["class 03"][1] == f"{ratio:.1f}".replace("-", "\N{MINUS SIGN}")
    assert "any would be named in 1% of such reports at most" in page.text


def test_classes_without_a_standard_error_have_no_verdict(tmp_path):
    real, fake, labels = images_of_classes(())
    few = [i for i in range(len(labels)) if i % 30 < 10]  # fewer images than the 12 features
    statistics = compute_statistics(real, extractor=GridMeans())
    options = {"extractor": GridMeans(), "labels": [labels[i] for i in few]}
    make_report(statistics, fake[few], tmp_path / "page.html", **options)
    page = PageReader(tmp_path / "page.html")
    assert "Which classes differ beyond noise is not known" in page.text
    assert ">beyond noise<" not in page.source


@pytest.mark.parametrize(("zeros", "is_shown"), [(0, False), (3, True)])
def test_the_slowest_route_is_said_where_it_costs_digits(tmp_path, capsys, zeros, is_shown):
    """Features of very unlike variances: eigenvalues are lost in rounding, and singular values are taken."""
    paths = []
    for seed in (1, 2):
        rows = np.random.default_rng(seed).normal(size=(100, 16)) * np.logspace(0, -9, 16)
        rows[:, 16 - zeros :] = 0
        statistics = Statistics.from_features(rows.astype(np.float32), {"protocol": "none"}, f"set {seed}")
        paths.append(str(statistics.save(tmp_path / f"{seed}.npz")))
    found = evaluate(*paths, metrics=["fid"])
    assert found["fid"].method == "svd"
    assert "singular values of M" in found["fid"].note
    width = found["fid"].numerical_upper - found["fid"].numerical_lower
    assert (width > NARROW * found["fid"].value) == is_shown
    make_report(*paths, tmp_path / "page.html")
    assert ("singular values of M" in PageReader(tmp_path / "page.html").text) == is_shown
    assert main([*paths, "--metrics", "fid"]) == 0
    assert ("singular values of M" in capsys.readouterr().err) == is_shown
