"""fastfid report: what its page says, against brute force and closed forms; tests/report_browser opens it."""

import base64
import hashlib
import html
import importlib.util
import io
import itertools
import json
import re
import warnings

import numpy as np
import pytest
from PIL import Image
from report_pages import MARKUP, PageReader, two_folders
from stubs import GridMeans
from tolerances import FEW_ROUNDINGS, LEAVE_ONE_OUT, LEAVE_ONE_OUT_WITHOUT_RANK

import fastfid
from fastfid import Statistics, _core, evaluate, frechet_distance
from fastfid.cli import main
from fastfid.metrics import prdc
from fastfid.metrics.leave_one_out import leave_one_out
from fastfid.report.directions import directions_of
from fastfid.report.header import verdict
from fastfid.report.make import make_report
from fastfid.report.neighbours import K, neighbourhood
from fastfid.report.runs import make_report_of_runs
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


# ----------------------------------------------------------------------------------------------- neighbours, directions


def brute_distances(x, y):
    return np.sqrt(((x[:, None].astype(np.float64) - y[None]) ** 2).sum(axis=2))


def test_neighbours_are_those_of_all_distances():
    real, fake = features(40, 5, 1), features(25, 5, 2, shift=0.8)
    found = neighbourhood(real, fake)
    between, within, own = brute_distances(fake, real), brute_distances(real, real), brute_distances(fake, fake)
    np.fill_diagonal(within, np.inf)
    np.fill_diagonal(own, np.inf)
    radii = np.sort(within, axis=1)[:, K - 1]
    inside = between < radii
    assert found.real_of_generated[0].tolist() == np.argsort(between, axis=1)[:, :3].tolist()
    assert found.generated_of_real[0].tolist() == np.argsort(between.T, axis=1)[:, :3].tolist()
    assert found.own_of_generated[0][:, 0].tolist() == own.argmin(axis=1).tolist()
    assert found.own_of_real[0][:, 0].tolist() == within.argmin(axis=1).tolist()
    assert found.balls.tolist() == inside.sum(axis=1).tolist()
    assert found.held.tolist() == inside.sum(axis=0).tolist()
    assert sorted(found.outside) == np.flatnonzero(~inside.any(axis=1)).tolist()
    assert found.outside[0] == found.outside[between[found.outside].min(axis=1).argmax()]
    ratios = between.min(axis=0) / radii
    assert found.not_covered.tolist() == sorted(np.flatnonzero(~inside.any(axis=0)), key=lambda i: -ratios[i])


def test_shares_of_neighbours_are_precision_and_coverage():
    real, fake = features(60, 5, 1), features(50, 5, 2, shift=0.5)
    found, expected = neighbourhood(real, fake), prdc(real, fake, k=K, strict=True)
    assert 1 - len(found.outside) / 50 == pytest.approx(expected.precision, rel=FEW_ROUNDINGS)
    assert 1 - len(found.not_covered) / 60 == pytest.approx(expected.coverage, rel=FEW_ROUNDINGS)


def test_directions_of_known_gaussians():
    real = Statistics(np.zeros(3), np.diag([4.0, 1.0, 1.0]))
    fake = Statistics(np.array([0.0, 0.0, 2.0]), np.diag([4.0, 9.0, 0.25]))
    means, first, second, *_ = directions_of(real, fake)
    assert means.vector.tolist() == [0, 0, 1]
    assert (means.fid, means.difference, means.deviations) == (2.0**2 + 0.5**2, 2.0, (1.0, 0.5))
    assert abs(first.vector).tolist() == [0, 1, 0]
    assert (first.fid, first.deviations, first.name) == (4.0, (1.0, 3.0), "covariance 1: generated images vary more")
    assert abs(second.vector).tolist() == [0, 0, 1]
    assert second.name.endswith("vary less")


def test_equal_means_have_no_direction():
    same = Statistics(np.zeros(2), np.eye(2))
    assert not [one for one in directions_of(same, same) if "means" in one.name]


# ------------------------------------------------------------------------------------------------------------- the page


def make_with_copies(*arguments, **options):
    """Make a report of images of which some are copies, which is said in warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fastfid.errors.SuspiciousInputWarning)
        return make_report(*arguments, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return two_folders(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    make_with_copies(*folders, path, extractor=GridMeans(), recursive=True, labels="folder", command=["fastfid", "a b"])
    return PageReader(path)


def test_a_page_refers_to_nothing_outside(page):
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(key) or "#"
            assert value.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,", "#")), value[:60]
    assert "url(" not in page.source
    assert "@import" not in page.source
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_the_policy_of_a_page_allows_its_own_script_alone(page):
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(page.source)


def test_markup_in_a_name_is_text(page):
    assert f"07{MARKUP}.png" in page.text
    assert "real <b>" in page.text
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not page.all("b")


def test_a_page_is_told_to_those_who_do_not_see_it(page):
    assert all(image["alt"].strip() for image in page.all("img"))
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    anchors = {attributes["href"] for attributes in page.all("a")}
    assert anchors == {f"#{one['aria-labelledby']}" for one in page.all("section")} | {"#content"}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.all("html") == [{"lang": "en"}]
    assert all("scope" in attributes for attributes in page.all("th"))


def part(page, start, end):
    """The source between two anchors."""
    return page.source.partition(f'id="{start}"')[2].partition(f'id="{end}"')[0]


def alts(page, start, end):
    return [html.unescape(text) for text in re.findall(r'<img[^>]*alt="([^"]*)"', part(page, start, end))]


def raises_most(real, fake):
    """The generated image without which the distance is the smallest, by computing all of them."""
    sides = [sorted(folder.rglob("*.png")) for folder in (real, fake)]
    a, b = (np.array([GridMeans().prepare(np.asarray(Image.open(path))) for path in side]) for side in sides)
    of_a = Statistics.from_features(a)
    left = [frechet_distance(of_a, Statistics.from_features(np.delete(b, i, 0))) for i in range(len(b))]
    return f"generated image {sides[1][int(np.argmin(left))].relative_to(fake)}"


def test_the_first_image_is_the_one_that_raises_the_distance_most(page, folders):
    assert alts(page, "influence", "outliers")[0] == raises_most(*folders)


def test_a_page_shows_what_is_planted(page):
    assert alts(page, "outliers", "dropped")[0] == f"generated image dark/07{MARKUP}.png"
    dropped = alts(page, "dropped", "copies")
    assert set(dropped[::4]) <= {f"real image light/{number:02}.png" for number in range(10)}
    copies = alts(page, "copies", "classes")
    assert copies[:2] == ["generated image dark/02.png", "generated image dark/03.png"]
    between = copies[copies.index("real image dark/11.png") - 1 :]
    assert between[:2] == ["generated image dark/05.png", "real image dark/11.png"]
    assert "the closest pairs" in page.text


def test_a_thumbnail_of_a_small_image_has_its_pixels(page, folders):
    found = re.search(r'src="data:image/png;base64,([^"]*)"[^>]*alt="generated image dark/02.png"', page.source)
    expected = Image.open(folders[1] / "dark" / "02.png")
    shown = Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert np.array_equal(np.asarray(shown), np.asarray(expected))


def test_large_images_are_reduced_so_that_the_file_is_small(tmp_path):
    """Noise is what JPEG keeps worst; sheets are full with 60 images."""
    real, fake = (np.random.default_rng(seed).integers(0, 256, (60, 300, 200, 3), dtype=np.uint8) for seed in (0, 1))
    make_report(real, fake, tmp_path / "page.html", extractor=GridMeans())
    found = PageReader(tmp_path / "page.html")
    shown = {one["src"] for one in found.all("img") if one["src"].startswith("data:image/jpeg")}
    sizes = {Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size for uri in shown}
    assert sizes == {(85, 128)}
    assert (tmp_path / "page.html").stat().st_size < 15e6


def test_the_head_says_what_was_compared(page, folders):
    for text in ("4.", "grid-means", "protocol", "40 and 32", "fastfid 'a b'", "Precision", "FD-infinity"):
        assert text in page.text, text


@pytest.mark.filterwarnings("ignore::fastfid.errors.SuspiciousInputWarning")
def test_values_of_a_page_are_those_of_evaluate(page, folders):
    found = evaluate(*folders, extractor=GridMeans(), recursive=True, metrics=["fid", "kid", "prdc"])
    for name in found:
        assert f'data-number="{found[name].value}"' in page.source, name


def test_classes_come_worst_first(page):
    cells = re.findall(r'<th scope="row">(\w+)</th>', part(page, "classes", "directions"))
    assert cells == ["light", "dark"]
    assert "Class light: generated images" in page.text


def test_a_page_fits_statistics_without_images(tmp_path, folders):
    options = {"extractor": GridMeans(), "recursive": True}
    statistics = fastfid.compute_statistics(folders[0], **options)
    make_with_copies(statistics, folders[1], tmp_path / "page.html", **options)
    found = PageReader(tmp_path / "page.html")
    assert "holds statistics only" in found.text
    assert not [one for one in found.all("img") if one["alt"].startswith("real image")]
    assert alts(found, "influence", "outliers")[0] == raises_most(*folders)
    assert "FD less 2 times its bias" in found.text


def test_a_page_of_two_statistics_has_no_pictures(tmp_path):
    a, b = (Statistics.from_features(features(50, 6, seed), {"protocol": "none"}, f"set {seed}") for seed in (1, 2))
    make_report(a, b, tmp_path / "page.html")
    found = PageReader(tmp_path / "page.html")
    assert not [one for one in found.all("img") if not one["src"].startswith("data:image/svg")]
    assert len(found.all("img")) == 1  # the closed form of the bias needs no rows
    assert found.text.count("holds statistics only") >= 5


def test_a_page_from_stores_has_the_pictures_of_the_sources(tmp_path, folders, page):
    options = {"extractor": GridMeans(), "recursive": True, "labels": "folder"}
    for name in ("first", "second"):
        make_with_copies(*folders, tmp_path / f"{name}.html", store=tmp_path / "kept", **options)
    second = PageReader(tmp_path / "second.html")
    shown = [(one["alt"], one["src"]) for one in second.all("img") if "image/png" in one["src"]]
    assert shown == [(one["alt"], one["src"]) for one in page.all("img") if "image/png" in one["src"]]
    stores = sorted((tmp_path / "kept").iterdir(), reverse=True)  # real, fake
    make_with_copies(*stores, tmp_path / "third.html")
    third = PageReader(tmp_path / "third.html")
    assert "is a store of features, which holds no images" in third.text
    assert not [one for one in third.all("img") if "image/png" in one["src"]]


def test_images_that_were_left_out_are_listed_and_shift_no_picture(tmp_path):
    real, fake = two_folders(tmp_path)
    (fake / "dark" / "00.png").write_bytes(b"no picture")
    with pytest.warns(fastfid.FastfidWarning, match="skipped 1 unreadable"):
        make_with_copies(real, fake, tmp_path / "page.html", extractor=GridMeans(), recursive=True, on_error="skip")
    found = PageReader(tmp_path / "page.html")
    assert "1 images were left out" in found.text
    assert alts(found, "outliers", "dropped")[0].startswith("generated image dark/07")


def test_few_images_have_a_page(tmp_path):
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8) for n in (3, 2))
    make_report(real, fake, tmp_path / "page.html", extractor=GridMeans())
    found = PageReader(tmp_path / "page.html")
    assert "has fewer than 3 images" in found.text
    assert "Neighbours need more than 5 images on each side" in found.text


def test_a_stream_has_a_page_without_its_pictures(tmp_path):
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    make_report(real, iter(fake), tmp_path / "page.html", extractor=GridMeans())
    found = PageReader(tmp_path / "page.html")
    assert "is a stream, which cannot be read again" in found.text
    assert "a stream or a URL, whose headers are not read again" in found.text


# ---------------------------------------------------------------------------------------------------------- the verdict


@pytest.mark.parametrize(("shift", "said"), [(0, "cannot be told apart"), (60, "differs from")])
def test_the_verdict(tmp_path, shift, said):
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 190, (60, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    found = make_report(real, (fake + shift).astype(np.uint8), tmp_path / "page.html", extractor=GridMeans())
    assert said in verdict(found)
    assert "KD" in verdict(found)


def test_without_a_standard_error_there_is_no_verdict(tmp_path):
    a, b = (Statistics(np.zeros(4), np.eye(4), meta={"protocol": "none"}, name=name) for name in ("a", "b"))
    found = make_report(a, b, tmp_path / "page.html")
    assert "is not known" in verdict(found)


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"a report needs Jinja2 and matplotlib: pip install '\.\[report\]'"):
        make_report("real", "fake", tmp_path / "page.html")


def test_a_file_that_exists_is_kept(tmp_path, folders):
    target = tmp_path / "page.html"
    target.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite"):
        make_report(*folders, target)
    assert target.read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        make_report(*folders, tmp_path / "none" / "page.html")


def test_a_sheet_has_no_more_pictures_than_the_file_can_hold(tmp_path):
    with pytest.raises(ValueError, match="pictures: expected 1 to 100, got 101"):
        make_report("real", "fake", tmp_path / "page.html", pictures=101)


def test_a_metric_that_was_asked_for_must_be_there(tmp_path, folders):
    with pytest.raises(ValueError, match="sfid: needs the output spatial"):
        make_report(*folders, tmp_path / "page.html", metrics=["sfid"], extractor=GridMeans(), recursive=True)


# ------------------------------------------------------------------------------------------------------ records of runs


@pytest.fixture(scope="module")
def record():
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    found = evaluate(real, fake, metrics=["fid", "prdc"], extractor=GridMeans()).to_dict()
    return {**found, "real": "train"}


def write_runs(folder, record, **changes):
    """Write two runs of three records; `changes` are keys as functions of (run, step)."""
    paths = []
    for run in ("a", "b"):
        lines = []
        for step in (2, 1, 3):
            changed = {"fake": f"{run}-{step}", "fid": step, **{key: of(run, step) for key, of in changes.items()}}
            first = {**record["metrics"][0], "value": changed["fid"]}
            lines.append(json.dumps({**record, "metrics": [first, *record["metrics"][1:]], **changed}))
        paths.append(folder / f"{run}<i>.jsonl")
        paths[-1].write_text("\n".join(lines))
    return paths


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"step": lambda run, step: 10 * step}, "step"),
        ({}, "last number in the name of the generated set"),
        ({"fake": lambda run, step: run, "date": lambda run, step: f"2026-01-0{step}T00:00:00Z"}, "date (UTC)"),
    ],
)
def test_runs_are_drawn_against_their_steps(tmp_path, record, changes, label):
    paths = write_runs(tmp_path, record, **changes)
    make_report_of_runs(paths, tmp_path / "page.html")
    found = PageReader(tmp_path / "page.html")
    assert f"against {label}" in found.text
    drawn = [one["alt"] for one in found.all("img")]
    assert [alt.partition(" against")[0] for alt in drawn] == ["FD", "Precision", "Recall", "Density", "Coverage"]
    figure = base64.b64decode(found.all("img")[0]["src"].partition(",")[2]).decode()
    assert "a&lt;i&gt;.jsonl" in figure
    assert not found.all("i")


def test_runs_say_which_differences_are_beyond_noise(tmp_path, record):
    changes = {"fid": lambda run, step: 10.0 * step + (run == "b"), "standard_error": lambda run, step: 1.0}
    make_report_of_runs(write_runs(tmp_path, record, **changes), tmp_path / "page.html", metrics=["fid"])
    found = PageReader(tmp_path / "page.html")
    assert re.search(r"b-1 1 1\.4 cannot be told apart", found.text)
    assert "a-1 is better by" in found.text
    assert len(found.all("img")) == 1


def legends(page):
    """The texts of the legend of the first drawing."""
    drawing = base64.b64decode(page.all("img")[0]["src"].partition(",")[2]).decode()
    legend = drawing.partition('id="legend_1"')[2]
    return [html.unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", legend)]


NETWORKS = {"a": "one", "b": "two"}


@pytest.mark.parametrize(
    ("changes", "told", "names"),
    [
        ({"real": lambda run, step: run}, "reference", ["a<i>.jsonl: against a", "b<i>.jsonl: against b"]),
        (
            {"n": lambda run, step: {"real": 60, "fake": 30 if step == 2 else 60}},
            "number of generated images",
            [f"{run}<i>.jsonl: {n} images" for run in "ab" for n in (30, 60)],
        ),
        (
            {"dims": lambda run, step: 64 if run == "a" else 2048},
            "dims",
            ["a<i>.jsonl: 64 dims", "b<i>.jsonl: 2,048 dims"],
        ),
        (
            {
                key: lambda run, step: dict.fromkeys(("real", "fake"), NETWORKS[run])
                for key in ("protocol", "extractor")
            },
            "protocol and extractor",
            ["a<i>.jsonl: one, one", "b<i>.jsonl: two, two"],
        ),
    ],
)
def test_records_that_cannot_be_compared_are_lines_of_their_own(tmp_path, record, changes, told, names):
    changes = {"fid": lambda run, step: float(step), "standard_error": lambda run, step: 0.25, **changes}
    make_report_of_runs(write_runs(tmp_path, record, **changes), tmp_path / "page.html", metrics=["fid"])
    found = PageReader(tmp_path / "page.html")
    assert legends(found) == names
    assert f"of {len({name.partition(': ')[2] for name in names})} kinds, which cannot be compared" in found.text
    assert f"The records differ in {told}. " in found.text
    tables = re.findall(r"<caption>Against (.*?)</caption>", found.source)
    # FIDs of other numbers of generated images are compared less their biases; the others within their kind alone.
    assert len(tables) == (1 if "generated" in told else 2)
    assert all(a in text for a, text in zip(("a-1", "b-1"), tables, strict=False))


def test_records_of_a_kind_are_one_line_whatever_their_files(tmp_path, record):
    for step in (1, 2, 3, 4):
        dims = {"dims": 64} if step > 2 else {}
        (tmp_path / f"{step}.json").write_text(json.dumps({**record, "fake": f"step-{step}", **dims}))
    make_report_of_runs(sorted(tmp_path.glob("*.json")), tmp_path / "page.html")
    assert legends(PageReader(tmp_path / "page.html")) == [f"{record['dims']} dims", "64 dims"]


def test_a_reference_is_told_by_its_files_before_its_name(tmp_path, record):
    """One reference under two names is one; two of one name are two; statistics of a folder are not the folder."""

    def runs(**of_b):
        lines = [{**record, "real": "train", **keys, "fake": f"{i}"} for i, keys in enumerate(({}, of_b, of_b))]
        lines[0] |= {"inputs": {"real": {"sha256": "00"}, "fake": None}, "known_as": {"real": None, "fake": None}}
        (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        make_report_of_runs([tmp_path / "runs.jsonl"], tmp_path / "page.html", overwrite=True, metrics=["fid"])
        return legends(PageReader(tmp_path / "page.html"))

    def files(digest):
        return {"real": {"sha256": digest}, "fake": None}

    assert runs(real="moved/train", inputs=files("00")) == []
    assert runs(inputs=files("11")) == [
        "against train",
        "against train (other content, 2)",
    ]
    assert runs(real="train.npz", inputs=None)[1] == "against train.npz"


def test_records_without_a_value_are_no_point_of_it(tmp_path, record):
    """Rows of classes are not drawn; nor is a value that only other records have; two Gaussians have an FID alone."""
    of_class = {**record["metrics"][0], "class": "cat", "value": 99.0}
    gaussians = {key: one for key, one in record.items() if key != "metrics"}
    (tmp_path / "a.jsonl").write_text(json.dumps({**record, "step": 1, "metrics": [of_class, *record["metrics"]]}))
    (tmp_path / "b.jsonl").write_text(json.dumps({**gaussians, "step": 2}))
    make_report_of_runs([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "page.html")
    page = PageReader(tmp_path / "page.html")
    fid = f"{record['fid']:.4g}"
    first, precision, *_ = (one["alt"] for one in page.all("img"))
    assert first.endswith(f"against step: {fid} at 1, {fid} at 2.")
    assert re.search(r"Precision against step: \S+ at 1\.$", precision)
    (tmp_path / "b.jsonl").write_text(json.dumps({**gaussians, "step": 2, "protocol": "clean"}))
    make_report_of_runs([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "precision.html", metrics=["prdc"])
    page = PageReader(tmp_path / "precision.html")
    assert re.search(r"Precision against step: \S+ at 1\.$", page.all("img")[0]["alt"])
    assert "clean" not in "".join(legends(page))


def test_a_property_of_any_type_is_shown(tmp_path, record):
    changes = {"protocol": lambda run, step: "clean" if run == "a" else ["x"]}
    make_report_of_runs(write_runs(tmp_path, record, **changes), tmp_path / "page.html", metrics=["fid"])
    assert legends(PageReader(tmp_path / "page.html")) == ["a<i>.jsonl: clean", 'b<i>.jsonl: ["x"]']


def test_some_records_without_a_step_are_said(tmp_path, record):
    changes = {"step": lambda run, step: None if (run, step) == ("a", 3) else step}
    make_report_of_runs(write_runs(tmp_path, record, **changes), tmp_path / "page.html", metrics=["fid"])
    found = PageReader(tmp_path / "page.html")
    assert "1 of 6 records have no step, so no step is used." in found.text
    assert "against last number in the name" in found.text


def test_records_of_one_step_keep_the_order_of_the_file(tmp_path, record):
    lines = [
        {**record, "step": 1, "metrics": [{"metric": "fid", "value": 2.0, "standard_error": e}]} for e in (None, 0.1)
    ]
    lines.append({**record, "step": 0, "metrics": [{"metric": "fid", "value": 3.0}], "fake": "a number: 1" + "0" * 300})
    (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    make_report_of_runs([tmp_path / "runs.jsonl"], tmp_path / "page.html")
    (drawn,) = (one["alt"] for one in PageReader(tmp_path / "page.html").all("img"))
    assert drawn.endswith("against step: 3 at 0, 2 at 1, 2 at 1.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": lambda run, step: [3]}, "metrics is wrong"),
        ({"metrics": lambda run, step: [{"metric": "fid", "value": "3"}]}, "value of fid is wrong"),
        ({"fake": lambda run, step: "x", "date": lambda run, step: "today"}, "date is wrong"),
        ({"step": lambda run, step: "3"}, "step is wrong: expected a number from -1e15 to 1e15, got '3'"),
        ({"step": lambda run, step: float("nan")}, "step is wrong"),
        ({"step": lambda run, step: 10**16}, "step is wrong"),
        ({"fake": lambda run, step: f"{step}" * 400, "date": lambda run, step: None}, "date is wrong"),
        ({"schema": lambda run, step: 7}, "was written by another version"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, record, changes, said):
    paths = write_runs(tmp_path, record, **changes)
    with pytest.raises(ValueError, match=rf"a<i>\.jsonl:1: {said}"):
        make_report_of_runs(paths, tmp_path / "page.html")


def test_a_metric_that_no_record_has_is_named(tmp_path, record):
    with pytest.raises(ValueError, match="no record has a value of kid"):
        make_report_of_runs(write_runs(tmp_path, record), tmp_path / "page.html", metrics=["kid"])


# ----------------------------------------------------------------------------------------------------- the command line


def test_the_command_writes_pages(tmp_path, record, capsys):
    for seed in (1, 2):
        rows = np.random.default_rng(seed).normal(size=(200, 64))
        np.savez(tmp_path / f"{seed}.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "1.npz"), str(tmp_path / "2.npz"), "-o", str(page)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("FID: ")
    assert f"{page}: written" in err
    assert main(["report", str(tmp_path / "1.npz"), str(tmp_path / "2.npz"), "-o", str(page)]) == 1
    assert "exists already (--overwrite" in capsys.readouterr().err
    paths = [str(path) for path in write_runs(tmp_path, record)]
    assert main(["report", *paths, "-o", str(page), "--overwrite"]) == 0
    assert "6 records of 2 files" in PageReader(page).text
    assert main(["compare", *paths]) == 0
    assert "standard error" in capsys.readouterr().out


def test_wrong_usage_of_the_command(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "x.html")]) == 1
    assert "Invalid path:" in capsys.readouterr().err
    for argv, said in (
        (["a", "-o", "x.html"], "the real set and the generated one are needed, got 1 paths"),
        (["a", "b"], "the following arguments are required: -o/--output"),
        (["a", "b", "-o", "x.html", "--cache"], "unrecognized arguments: --cache"),
    ):
        with pytest.raises(SystemExit):
            main(["report", *argv])
        assert said in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::fastfid.errors.SuspiciousInputWarning")
def test_the_page_has_the_hashes_of_the_files(folders, tmp_path):
    options = {"extractor": GridMeans(), "hash_inputs": True, "recursive": True}
    make_report(*folders[:2], tmp_path / "page.html", **options)
    found = evaluate(*folders[:2], **options).inputs
    text = (tmp_path / "page.html").read_text()
    assert all(found[side]["sha256"] in text for side in ("real", "fake"))


@pytest.mark.parametrize("option", ["cache", "per_class"])
def test_options_that_a_report_has_no_place_for_are_refused(folders, tmp_path, option):
    with pytest.raises(TypeError, match=option):
        make_report(*folders, tmp_path / "page.html", extractor=GridMeans(), recursive=True, **{option: True})
