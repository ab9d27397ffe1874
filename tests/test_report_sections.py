"""Sections of a report: random images, the curve, directions and sources, against the features themselves."""

import html
import re

import numpy as np
import pytest
from PIL import Image
from report_pages import PageReader
from stubs import GridMeans

from fastfid import Statistics, evaluate, frechet_distance
from fastfid.report.header import facts_of
from fastfid.report.make import make_report

N = {"real": 45, "fake": 40}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two folders of noise; the generated images are darker and of less contrast."""
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for name, high in (("real", 256), ("fake", 150)):
        (folder / name).mkdir()
        for number in range(N[name]):
            image = rng.integers(0, high, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{name}-{number:02}.png")
    return folder / "real", folder / "fake"


@pytest.fixture(scope="module")
def made(sets, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    evaluation = make_report(*sets, path, extractor=GridMeans(), pictures=6)
    return evaluation, PageReader(path)


def features(folder):
    return np.array([GridMeans().prepare(np.asarray(Image.open(path))) for path in sorted(folder.iterdir())])


def section(page, key):
    """Source of a section."""
    return re.search(rf'<section aria-labelledby="{key}">.*?</section>', page.source, re.DOTALL)[0]


def names(source, side):
    """Names of the images of a side, in the order of the source."""
    return re.findall(rf'alt="{side} image ([^"]*)"', source)


def test_random_images_of_both_sides_are_there(made):
    source = section(made[1], "random")
    for side, n, prefix in (("generated", 40, "fake"), ("real", 45, "real")):
        shown = names(source, side)
        assert len(set(shown)) == len(shown) == 12  # twice the pictures of other sheets
        assert set(shown) <= {f"{prefix}-{number:02}.png" for number in range(n)}
        assert shown != [f"{prefix}-{number:02}.png" for number in range(12)]
        assert f"12 of the {n} images, drawn with a fixed seed" in source


def test_the_curve_has_the_fids_of_nested_random_subsets(made, sets):
    evaluation, page = made
    source = html.unescape(section(page, "images"))
    told = re.search(r"against the number of generated images: (.*?)\.\"", source)[1]
    points = [(float(value), int(n)) for value, n in re.findall(r"(\S+) at (\d+)", told)]
    assert points[-1] == (float(f"{evaluation['fid'].value:.4g}"), N["fake"])
    real, fake = (features(folder) for folder in sets)
    order = np.random.default_rng(0).permutation(N["fake"])
    for value, n in points[:-1]:
        subset = Statistics.from_features(fake[order[:n]])
        found = frechet_distance(Statistics.from_features(real), subset)
        assert value == float(f"{found:.4g}"), n
    assert len(points) > 4


def test_the_curve_says_the_bias_fid_infinity_and_the_interval_of_the_kid(made):
    evaluation, page = made
    fid, kid = evaluation["fid"], evaluation["kid"]
    text = page.text.replace("\N{MINUS SIGN}", "-")
    assert f"the closed form of the bias is {fid.bias:.4g} for Gaussian features" in text
    assert f"is about {fid.value - fid.bias:.4g}" in text
    low, high = (kid.value + sign * 1.96 * kid.standard_error for sign in (-1, 1))
    assert f"is {kid.value:.4g}, with the 95 % interval {low:.4g} to {high:.4g}." in text


def test_each_direction_shows_the_images_at_its_ends(made, sets):
    """The first direction is that of the means: an image's place there is its product with their difference."""
    source = section(made[1], "directions")
    sheets = source.split("<h4>")
    assert [sheet.partition("</h4>")[0] for sheet in sheets[1:3]] == ["Images at the low end", "Images at the high end"]
    real, fake = (features(folder).astype(np.float64) for folder in sets)
    vector = fake.mean(axis=0) - real.mean(axis=0)
    for sheet, sign in zip(sheets[1:3], (1, -1), strict=True):
        for side, rows, prefix in (("generated", fake, "fake"), ("real", real, "real")):
            order = np.argsort(sign * (rows @ vector))[:3]
            assert names(sheet, side) == [f"{prefix}-{row:02}.png" for row in order]
    assert source.count("Histogram along the direction") == 5
    assert "% of the FID" in source


def test_sources_say_numbers_sizes_modes_and_formats(made):
    source = section(made[1], "sources")
    cells = {
        row[0]: row[1:] for row in (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r) for r in source.split("<tr>")) if row
    }
    assert cells["images found"] == ["45", "40"]
    assert cells["sizes"] == ["8 x 8 (45)", "8 x 8 (40)"]
    assert cells["modes"] == ["RGB (45)", "RGB (40)"]
    assert cells["formats"] == ["PNG (45)", "PNG (40)"]


def test_a_known_reference_is_called_by_its_name(sets):
    record = evaluate(*sets, extractor=GridMeans()).to_dict()
    record["known_as"] = {"real": "cifar10-train", "fake": None}
    facts = dict(facts_of(record, None))
    assert facts["reference (real)"] == f"{sets[0]}, known as cifar10-train"
    assert facts["generated"] == str(sets[1])
