"""Sections of a report: random images, the curve, directions and sources, against the features themselves."""

import base64
import html
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from report_pages import PageReader
from stubs import GridMeans

from fastfid import Statistics, evaluate, frechet_distance
from fastfid.errors import FastfidWarning, ImageError, SuspiciousInputWarning
from fastfid.report.header import facts_of
from fastfid.report.make import make_report
from fastfid.sources.folder import FileItem

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


def test_few_images_have_no_line_of_the_bias(sets, tmp_path):
    evaluation = make_report(*sets, tmp_path / "page.html", extractor=GridMeans(3), num=25, pictures=40)
    page = PageReader(tmp_path / "page.html")
    assert evaluation["fid"].bias is None
    assert "There is no closed form of the bias, and no FD-infinity: no more images than the 27 features" in page.text
    (drawing,) = [one for one in page.all("img") if "against the number of generated images" in one["alt"]]
    texts = base64.b64decode(drawing["src"].partition(",")[2]).decode()
    assert "of random subsets" in texts
    assert "infinity" not in texts
    pairs = section(page, "copies").split("<h4>")[-1]  # of the two sets, one for each generated image
    assert len(set(names(pairs, "generated"))) == 25


def test_one_set_on_both_sides_covers_itself(sets, tmp_path):
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same"):
        make_report(sets[0], sets[0], tmp_path / "page.html", extractor=GridMeans())
    dropped = section(PageReader(tmp_path / "page.html"), "dropped")
    assert "0 of 45 real images (0.0%) hold no generated image: the coverage is 1" in dropped
    assert "<img" not in dropped


def test_a_reference_of_unknown_number_counts_as_fixed(sets, tmp_path):
    known = Statistics.from_features(features(sets[0]), {"protocol": "none", "extractor": "grid-means"})
    real = Statistics(known.mu, known.sigma, None, known.meta)
    evaluation = make_report(real, sets[1], tmp_path / "page.html", metrics=["fid"], extractor=GridMeans())
    assert evaluation["fid"].standard_error_of == "generated"
    assert "the reference counts as fixed" in PageReader(tmp_path / "page.html").text


def test_many_sizes_are_counted_from_the_smallest_to_the_largest(sets, tmp_path):
    (tmp_path / "fake").mkdir()
    for number in range(20):
        Image.fromarray(np.full((8 + number, 9, 3), 10 * number, np.uint8)).save(tmp_path / "fake" / f"{number:02}.png")
    make_report(sets[0], tmp_path / "fake", tmp_path / "page.html", extractor=GridMeans())
    assert "; from 9 x 8 to 9 x 27" in PageReader(tmp_path / "page.html").text


def test_an_image_that_cannot_be_read_again_has_its_name(sets, tmp_path, monkeypatch):
    load, loads = FileItem.load, Counter()

    def gone(item):
        loads[item.name] += 1
        if loads[item.name] > 1:
            raise ImageError(f"{item.name}: is no picture any more")
        return load(item)

    monkeypatch.setattr(FileItem, "load", gone)
    make_report(*sets, tmp_path / "page.html", extractor=GridMeans())
    page = PageReader(tmp_path / "page.html")
    assert "fake-00.png" in page.text
    assert [one for one in page.all("img") if re.match("(real|generated) image", one["alt"])] == []


class Named:
    """A Dataset whose labels are numbers, with names of its classes."""

    classes = ("cat", "dog", "dog")

    def __init__(self, images, labels):
        self._items = list(zip(images, labels, strict=True))

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


def test_both_sides_of_a_class_are_shown_whatever_they_call_it(tmp_path):
    """Numbers on the real side; names of the numbers on the generated side, of which one is of two classes."""
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, high, (36, 8, 8, 3), dtype=np.uint8) for high in (256, 200))
    labels = [number % 3 for number in range(36)]
    given = {"extractor": GridMeans(), "labels": {"real": labels, "fake": "auto"}}
    make_report(real, Named(fake, labels), tmp_path / "page.html", **given)
    text = PageReader(tmp_path / "page.html").text
    for name in ("cat", "dog (1)", "dog (2)"):
        for side in ("real", "generated"):
            assert f"Class {name}: {side} images" in text


def test_classes_that_are_left_out_are_told(sets, tmp_path):
    labels = {"real": [0, 1, 2] * 15, "fake": [0, 1] * 20}
    with pytest.warns(FastfidWarning, match="left out 1 of 3 classes"):
        make_report(*sets, tmp_path / "page.html", extractor=GridMeans(), labels=labels)
    text = PageReader(tmp_path / "page.html").text
    assert f"1 classes were left out: 2 (no image of {sets[1]})." in text
