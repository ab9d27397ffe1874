"""The studies: disturbances and numbers of images, on real photographs and on images whose answer is known."""

import json
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans
from tolerances import FEW_ROUNDINGS, PRINTED_4_DIGITS, PRINTED_6_DIGITS

from fastfid import compute_statistics, demo, evaluate
from fastfid.errors import ImageError
from fastfid.metrics.nearest import PrecisionRecall
from fastfid.sources import open_source
from fastfid.study import figures
from fastfid.study.disturb import _first_that_loads, disturb, table
from fastfid.study.disturbances import CONTAMINATION, DISTURBANCES, SEED, ContaminatedSource, DisturbedSource
from fastfid.study.reading import Reader
from fastfid.study.samples import samples
from fastfid.study.samples import table as table_of_samples


@pytest.fixture(scope="module")
def photographs():
    """Crops of five of the demo's pictures, and of the three others: a tissue, a retina, galaxies."""
    crops = np.stack(demo.clean_crops())[:, ::2, ::2]
    return np.ascontiguousarray(crops[:80]), np.ascontiguousarray(crops[80:])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        levels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(levels).resize((16, 12), Image.Resampling.BICUBIC).save(tmp_path / "images" / f"{i:02}.png")
    return tmp_path / "images"


def of_metric(found, name, metric):
    """The values of a disturbance by rising level, without level 0."""
    return [point["metrics"][metric]["value"] for point in found["points"] if point["disturbance"] == name]


def test_the_fid_of_real_photographs_rises_with_the_disturbances(photographs, tmp_path, weights):
    """With the features of 64 dims. They see a swirl, but not its strength; tests/test_demo.py has 2048 dims."""
    clean, other = photographs
    levels = {"contamination": [0.2, 0.4, 0.6]}  # the last needs all 48 other crops
    options = {"contaminate": other, "levels": levels, "metrics": ["fid", "kid"], "dims": 64, "device": "cpu"}
    found = disturb(clean, tmp_path, reference=clean, **options)
    for one in (*DISTURBANCES, CONTAMINATION):
        fids, kids = (of_metric(found, one.key, metric) for metric in ("fid", "kid"))
        at_zero = of_metric(found, "clean", "fid")[0]
        assert at_zero < min(fids), one.key
        if one.key != "swirl":
            assert fids[0] < fids[1] < fids[2], one.key
            assert kids[0] < kids[1] < kids[2], one.key
    assert all(point["n"] == {"reference": 80, "disturbed": 80} for point in found["points"])
    assert all(point["metrics"]["fid"]["standard_error"] > 0 for point in found["points"])
    assert json.loads((tmp_path / "disturb.json").read_text()) == json.loads(json.dumps(found))
    picture = Image.open(tmp_path / "disturb.png").convert("RGB")
    assert picture.width > 1500
    assert len(picture.getcolors(1 << 24)) > 1000  # curves and photographs, no empty canvas
    rows = table(found).splitlines()
    assert rows[0].split() == ["disturbance", "level", "FID", "KID"]
    assert len(rows) == 1 + 1 + 6 * 3


def test_without_a_reference_one_half_is_compared_with_the_other(folder, tmp_path):
    found = disturb(folder, tmp_path / "out", disturbances=["noise"], metrics=["fid"], extractor=GridMeans())
    images = [item.load() for item in open_source(folder)]
    order = np.random.default_rng(SEED).permutation(40)
    clean, spoilt = ([images[i] for i in sorted(half)] for half in (order[:20], order[20:]))
    at_zero = evaluate(clean, spoilt, extractor=GridMeans())["fid"]
    assert of_metric(found, "clean", "fid")[0] == at_zero.value
    assert found["points"][0]["metrics"]["fid"]["standard_error"] == at_zero.standard_error
    noisy = list(demo.disturbed(spoilt, DISTURBANCES[0], 0.5))
    assert of_metric(found, "noise", "fid")[1] == evaluate(clean, noisy, extractor=GridMeans())["fid"].value


def test_a_run_that_was_interrupted_goes_on(folder, tmp_path, monkeypatch):
    def run(name):
        return disturb(folder, tmp_path / name, disturbances=["blur", "noise"], extractor=GridMeans())

    whole = run("whole")
    reads, real_read = [], Reader.read

    def read(self, images):
        reads.append(images)
        if len(reads) == 5:  # the clean half, level 0, two levels; the next is interrupted
            raise KeyboardInterrupt
        return real_read(self, images)

    monkeypatch.setattr(Reader, "read", read)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "points").iterdir()}
    assert sorted(there) == ["blur-1.json", "blur-2.json", "clean-0.json"]
    assert not (tmp_path / "cut" / "disturb.json").exists()
    assert run("cut") == whole
    assert len(reads) == 5 + 1 + 4  # the clean half, and what was not there
    assert all((tmp_path / "cut" / "points" / name).stat().st_mtime_ns == at for name, at in there.items())
    assert run("cut") == whole
    assert len(reads) == 10


def test_results_of_another_study_are_refused_and_may_be_replaced(folder, tmp_path):
    def run(**options):
        given = {"disturbances": ["blur"], "metrics": ["fid"], "extractor": GridMeans(), **options}
        return disturb(folder, tmp_path / "out", **given)

    run()
    with pytest.raises(ValueError, match=r"out: has results of another study: metrics is \['fid'\] there, \['kid'\]"):
        run(metrics=["kid"])
    with pytest.raises(ValueError, match="network dims is 12 there, 27 here; give another folder"):
        run(extractor=GridMeans(3))
    assert len(run(disturbances=["noise"])["points"]) == 7  # more levels are added
    (tmp_path / "out" / "points" / "blur-2.json").write_text("{")
    with pytest.raises(ValueError, match=r"blur-2\.json: is damaged .*; remove the file"):
        run()
    assert list(run(metrics=["kid"], fresh=True)["points"][0]["metrics"]) == ["kid"]
    Image.new("RGB", (16, 12)).save(folder / "00.png")
    with pytest.raises(ValueError, match="the files of the source have changed"):
        run(metrics=["kid"])


def labels(found):
    return [(point["disturbance"], point["level"]) for point in found["points"]]


def test_a_later_run_adds_levels_and_shows_those_that_are_there(folder, tmp_path, capsys, monkeypatch):
    def run(output="out", **options):
        return disturb(folder, tmp_path / output, metrics=["fid"], extractor=GridMeans(), **options)

    drawn, real_draw = [], figures.draw_grid
    monkeypatch.setattr(
        "fastfid.study.disturb.draw_grid",
        lambda target, title, panels, rows, *a, **k: (
            drawn.append((panels, rows)) or real_draw(target, title, panels, rows, *a, **k)
        ),
    )
    run(disturbances=["noise"], levels={"noise": [0.5]})
    rng = np.random.default_rng(1)
    other = rng.integers(0, 256, (40, 12, 16, 3), dtype=np.uint8)
    run(contaminate=other, disturbances=["contamination"], levels={"contamination": [0.5]})
    found = run(disturbances=["blur", "noise"], levels={"noise": [0.75, 0.25], "blur": [2]})
    levels = [("clean", 0), ("noise", 0.25), ("noise", 0.5), ("noise", 0.75), ("blur", 2), ("contamination", 0.5)]
    assert labels(found) == levels
    assert "2 levels of earlier runs are shown too" in capsys.readouterr().err
    at_once = run(
        "whole",
        contaminate=other,
        disturbances=["noise", "blur", "contamination"],
        levels={"noise": [0.25, 0.5, 0.75], "blur": [2], "contamination": [0.5]},
    )
    assert found == at_once
    assert json.loads((tmp_path / "out" / "disturb.json").read_text()) == json.loads(json.dumps(at_once))
    (panels, rows), (whole_panels, whole_rows) = drawn[-2:]
    assert rows == whole_rows
    assert [curve.x for curve in rows["FD"]] == [(0, 0.25, 0.5, 0.75), (0, 2.0), (0, 0.5)]
    assert [len(panel.strip) for panel in whole_panels] == [4, 2, 2]
    assert [len(panel.strip) for panel in panels] == [4, 2, 0]  # the other set is not at hand
    assert len(table(found).splitlines()) == 1 + len(levels)


def test_a_second_set_that_contaminates_is_refused(folder, tmp_path):
    sets = np.random.default_rng(1).integers(0, 256, (2, 40, 12, 16, 3), dtype=np.uint8)
    for name, images in zip("ab", sets, strict=True):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i:02}.png")
    options = {"disturbances": ["contamination"], "metrics": ["fid"], "extractor": GridMeans()}
    disturb(folder, tmp_path / "out", contaminate=tmp_path / "a", **options)
    with pytest.raises(ValueError, match="has results of another study"):
        disturb(folder, tmp_path / "out", contaminate=tmp_path / "b", **options)


def test_a_file_that_is_no_level_is_named(folder, tmp_path):
    options = {"metrics": ["fid"], "extractor": GridMeans(), "disturbances": ["blur"]}
    disturb(folder, tmp_path / "out", **options)
    (tmp_path / "out" / "points" / "notes.json").write_text('{"disturbance": "tea"}')
    with pytest.raises(ValueError, match=r"notes\.json: holds no level of a disturbance; remove the file"):
        disturb(folder, tmp_path / "out", **options)


def test_metrics_that_the_network_cannot_serve_are_named(folder, tmp_path):
    found = disturb(folder, tmp_path, disturbances=["blur"], extractor=GridMeans())
    assert list(found["missing"]) == ["sfid", "is"]
    assert list(found["points"][0]["metrics"]) == ["fid", "kid", "precision", "recall", "density", "coverage"]
    with pytest.raises(ValueError, match="sfid: needs the output spatial"):
        disturb(folder, tmp_path, disturbances=["blur"], metrics=["sfid"], extractor=GridMeans(), fresh=True)


def names(source):
    return [item.name for item in source]


def test_contamination_replaces_the_share_and_no_image_twice(folder):
    source = open_source(folder)
    other = open_source(np.zeros((30, 4, 4, 3), np.uint8))
    replaced = []
    for level in (0.25, 0.5, 0.75):
        found = names(ContaminatedSource(source, other, level))
        foreign = [name for name in found if name not in names(source)]
        assert len(foreign) == len(set(foreign)) == level * 40
        replaced.append({i for i, (old, new) in enumerate(zip(names(source), found, strict=True)) if old != new})
    assert replaced[0] < replaced[1] < replaced[2]
    with pytest.raises(ValueError, match=r"has 30 images, and a share of 0\.9 of 40 images needs 36"):
        ContaminatedSource(source, other, 0.9)


def test_a_disturbed_source_gives_the_disturbed_images(folder):
    source = open_source(folder)
    images = [item.load() for item in source]
    for one in DISTURBANCES:
        found = [item.load() for item in DisturbedSource(source, one, one.levels[1])]
        expected = list(demo.disturbed(images, one, one.levels[1]))
        assert all((a == b).all() for a, b in zip(found, expected, strict=True)), one.key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"disturbances": ["nose"]}, "disturbances: expected names among noise, blur"),
        ({"disturbances": ["blur", "blur"]}, "disturbances: expected one or more names, each once; got blur, blur"),
        ({"disturbances": []}, "each once; got none"),
        ({"disturbances": ["contamination"]}, "contamination: needs a second set of images"),
        ({"disturbances": ["blur"], "contaminate": "x"}, "contaminate: is for the disturbance contamination"),
        ({"levels": {"noise": [1.5]}}, r"levels: noise: expected numbers above 0, up to 1 \(share of noise\); got"),
        ({"levels": {"noise": []}}, r"levels: noise: expected numbers above 0"),
        ({"levels": {"contamination": [0.5]}}, "levels: contamination is not among the disturbances asked for"),
        ({"on_error": "ignore"}, "on_error"),
    ],
)
def test_what_is_wrong_is_said_before_an_image_is_read(folder, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        disturb(folder, tmp_path / "out", extractor=GridMeans(), **options)
    assert not (tmp_path / "out").exists()


def test_images_of_unknown_number_and_too_few_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the number of images is not known beforehand"):
        disturb(iter([np.zeros((4, 4, 3), np.uint8)] * 9), tmp_path / "out", extractor=GridMeans())
    with pytest.raises(ValueError, match="has 3 images, and two halves of two images or more are needed"):
        disturb(np.zeros((3, 4, 4, 3), np.uint8), tmp_path / "out", extractor=GridMeans())
    with pytest.raises(TypeError, match="unexpected keyword arguments: sead"):
        disturb(np.zeros((9, 4, 4, 3), np.uint8), tmp_path / "out", extractor=GridMeans(), sead=1)


def test_missing_packages_are_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "_has", lambda module: module != "matplotlib")
    with pytest.raises(ImportError, match="the study needs matplotlib: pip install"):
        disturb(folder, tmp_path, extractor=GridMeans())


def noise(n, seed, high=256):
    return np.random.default_rng(seed).integers(0, high, (n, 4, 4, 3), dtype=np.uint8)


def test_samples_of_one_distribution_have_an_fid_infinity_of_zero(tmp_path):
    found = samples(noise(1200, 0), None, tmp_path, extractor=GridMeans(), sizes=6, repeats=4)
    assert [point["n"] for point in found["points"]] == [10, 23, 51, 117, 265, 600]
    means = [point["fid"] for point in found["points"]]
    assert means == sorted(means, reverse=True)
    infinity = found["fid_infinity"]
    assert abs(infinity["value"]) < 3 * infinity["standard_error"]
    assert found["fit"]["value"] < means[-1]
    picture = Image.open(tmp_path / "samples.png").convert("RGB")
    assert len(picture.getcolors(1 << 24)) > 100


def test_the_curve_of_the_bias_goes_through_the_fids_of_independent_sets(tmp_path):
    """Truth: the mean FID of many independent sets of n images, with all real images."""
    real, fake, d = noise(4000, 1), noise(4000, 2, high=200), 12
    found = samples(real, fake, tmp_path, extractor=GridMeans(), sizes=3, repeats=1)
    assert found["points"][-1]["fid"] == pytest.approx(
        evaluate(real, fake, extractor=GridMeans())["fid"].value, rel=PRINTED_6_DIGITS, abs=0
    )
    n = found["bias"]["n"]
    assert n[0] == pytest.approx(d + 1, rel=FEW_ROUNDINGS, abs=0)
    assert found["bias"]["fid"][-1] == pytest.approx(found["points"][-1]["fid"], rel=PRINTED_6_DIGITS, abs=0)
    many = noise(100 * 120, 3, high=200).reshape(100, 120, 4, 4, 3)
    known = compute_statistics(real, extractor=GridMeans())
    fids = [evaluate(known, one, extractor=GridMeans())["fid"].value for one in many]
    expected = np.interp(120, n, found["bias"]["fid"])
    assert abs(np.mean(fids) - expected) < 0.05 * expected
    assert abs(np.mean(fids) - expected) < abs(np.mean(fids) - found["fid_infinity"]["value"]) / 5


def test_the_table_of_samples_ends_with_fid_infinity(tmp_path):
    found = samples(noise(60, 0), noise(60, 1), tmp_path, extractor=GridMeans(), sizes=3, repeats=2)
    *_, closed, fit = table_of_samples(found).splitlines()
    one = found["fid_infinity"]
    assert closed == f"FD-infinity, closed form of the bias: {one['value']:.4g} ± {one['standard_error']:.2g}"
    assert fit.startswith(f"FD-infinity, fit in 1 / n: {found['fit']['value']:.4g}")


@pytest.mark.filterwarnings("ignore::fastfid.errors.SuspiciousInputWarning")
def test_the_table_of_samples_says_why_there_is_no_standard_error(tmp_path):
    repeated = np.repeat(noise(3, 1), 20, axis=0)
    found = samples(noise(60, 0), repeated, tmp_path, extractor=GridMeans(), sizes=3, repeats=2)
    *_, closed, _ = table_of_samples(found).splitlines()
    reason = "array: only 3 of 60 rows in the sample of its features differ; images are repeated"
    assert closed.endswith(f"{found['fid_infinity']['value']:.4g} (no standard error: {reason})")
    assert (tmp_path / "samples.png").stat().st_size > 0


def test_samples_take_stores_and_no_statistics(folder, tmp_path):
    dark = tmp_path / "dark"
    dark.mkdir()
    for path in folder.iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(dark / path.name)
    evaluate(folder, dark, extractor=GridMeans(), store=tmp_path / "kept")
    stores = [next((tmp_path / "kept").glob(f"{name}-*")) for name in ("images", "dark")]
    given = {"extractor": GridMeans(), "sizes": 3, "repeats": 2}
    found = samples(*stores, tmp_path / "out", **given)
    expected = samples(folder, dark, tmp_path / "out", **given)
    for key in ("points", "fid_infinity", "fit", "bias"):
        assert found[key] == expected[key], key
    compute_statistics(dark, extractor=GridMeans()).save(tmp_path / "dark.npz")
    with pytest.raises(ValueError, match=r"dark\.npz: holds statistics, and the study needs images or a store"):
        samples(folder, tmp_path / "dark.npz", tmp_path / "none", **given)
    assert not (tmp_path / "none").exists()


def test_samples_say_why_there_is_no_fid_infinity(tmp_path):
    found = samples(noise(22, 0), None, tmp_path, extractor=GridMeans(), sizes=3, repeats=1)
    assert found["fid_infinity"] is None
    assert "FID-infinity needs more images than the 12 features, got 11" in found["no_fid_infinity"]
    with pytest.raises(ValueError, match="generated images: expected more than 10, got 5"):
        samples(noise(10, 0), None, tmp_path, extractor=GridMeans())


@pytest.fixture
def run(run):
    return partial(run, "study")


@pytest.mark.parametrize("words", [["--help"], ["disturb", "--help"], ["samples", "--help"]])
def test_help(run, words):
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: fastfid study {words[0] if len(words) > 1 else '{disturb,samples}'}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: STUDY"),
        (["distrub", "x"], "expected one of disturb, samples; got 'distrub'; did you mean disturb?"),
        (["disturb"], "the following arguments are required: SOURCE"),
        (["disturb", "x", "--levels", "blur"], "expected NAME=LEVEL,LEVEL,..., as blur=1,2,4; got 'blur'"),
        (["disturb", "x", "--levels", "blur=much"], "expected NAME=LEVEL,LEVEL,..., as blur=1,2,4; got 'blur=much'"),
        (["--", "disturb", "x"], "unrecognized arguments: x"),
        (["--", "disturb"], "expected the name of a study first, got '--'"),
        (["disturb", "x", "--levels", "blur=1", "--levels", "blur=2"], "--levels: blur comes twice"),
        (["disturb", "x", "--metrics", "all"], "--metrics: expected names with commas between, got all"),
        (["samples", "x", "--sizes", "2"], "expected 3 or more, got 2"),
    ],
)
def test_wrong_usage_is_2(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err


def test_the_command_line_prints_a_table_and_writes_the_files(run, folder, tmp_path, weights):
    out = tmp_path / "out"
    options = ("--dims", "64", "--device", "cpu", "--quiet", "-o", out)
    code, printed, err = run("disturb", folder, "--disturbances", "blur", "--levels", "blur=2", *options)
    assert (code, err) == (0, "")
    lines = printed.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["clean", "0"], ["blur", "2"]]
    record = json.loads((out / "disturb.json").read_text())
    value = float(lines[2].split()[2])
    assert value == pytest.approx(record["points"][1]["metrics"]["fid"]["value"], rel=PRINTED_4_DIGITS, abs=0)
    code, printed, err = run("samples", folder, *options)
    assert (code, err) == (0, "")
    assert re.search(r"no FID-infinity: .* needs more images than the 64 features, got 20", printed)
    assert sorted(path.name for path in out.iterdir()) == [
        "disturb.json",
        "disturb.png",
        "plan.json",
        "points",
        "samples.json",
        "samples.png",
    ]
    code, printed, err = run("disturb", tmp_path / "nothing")
    assert (code, printed) == (1, "")
    assert "Invalid path" in err


def test_a_reference_that_has_changed_is_refused(folder, tmp_path):
    def study(high):
        images = np.random.default_rng(0).integers(0, high, (30, 8, 8, 3), dtype=np.uint8)
        statistics = compute_statistics(images, extractor=GridMeans())
        statistics.save(tmp_path / "ref.npz", overwrite=True)
        given = {"disturbances": ["blur"], "metrics": ["fid"], "extractor": GridMeans()}
        return disturb(folder, tmp_path / "out", reference=tmp_path / "ref.npz", **given)

    study(200)
    study(200)
    with pytest.raises(ValueError, match="out: has results of another study: reference numbers is"):
        study(100)


def test_a_reference_that_is_gone_is_another_study(folder, tmp_path):
    given = {"disturbances": ["blur"], "metrics": ["fid"], "extractor": GridMeans()}
    reference = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    disturb(folder, tmp_path / "out", reference=reference, **given)
    with pytest.raises(ValueError, match="of another study: reference is array there, half of the source here"):
        disturb(folder, tmp_path / "out", **given)


def test_what_is_in_the_way_of_the_results_is_named(folder, tmp_path):
    given = {"disturbances": ["blur"], "metrics": ["fid"], "extractor": GridMeans()}
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: expected a folder for the results, or a name that is free"):
        disturb(folder, tmp_path / "file", **given)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("[]")
    with pytest.raises(ValueError, match=r"plan\.json: expected a JSON object, got list; remove the file"):
        disturb(folder, tmp_path / "out", **given)


def test_options_of_metrics_are_of_the_study(folder, tmp_path):
    def study(k):
        return disturb(
            folder, tmp_path / "out", disturbances=["blur"], metrics=[PrecisionRecall(k=k)], extractor=GridMeans()
        )

    study(3)
    with pytest.raises(ValueError, match=r"options_of_metrics is .*k=3"):
        study(5)


def test_levels_that_are_nearly_equal_are_two(folder, tmp_path):
    levels = {"blur": [1, 1.0000001]}
    given = {"disturbances": ["blur"], "metrics": ["fid"], "extractor": GridMeans()}
    found = disturb(folder, tmp_path / "out", levels=levels, **given)
    assert [point["level"] for point in found["points"]] == [0, 1, 1.0000001]
    again = disturb(folder, tmp_path / "out", levels={"blur": [1]}, **given)  # shows what is done
    assert again["points"] == found["points"]


@pytest.mark.filterwarnings("ignore:.*skipped 1 unreadable")
def test_the_figure_shows_the_first_image_that_can_be_read(folder, tmp_path):
    for number in range(4):
        (folder / f"{number:02}.png").write_bytes(b"no picture")
    given = {"disturbances": ["blur"], "metrics": ["fid"], "extractor": GridMeans(), "on_error": "skip"}
    with pytest.warns(match="unreadable"):
        disturb(folder, tmp_path / "out", **given)
    assert (tmp_path / "out" / "disturb.png").stat().st_size > 0


def test_images_that_are_gone_when_they_are_drawn_are_named(folder):
    source = open_source(folder)
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"39\.png: "):
        _first_that_loads(source)


@pytest.mark.parametrize("option", ["cache", "store", "force", "per_class"])
def test_options_without_an_effect_are_refused(folder, tmp_path, option):
    with pytest.raises(TypeError, match=option):
        disturb(folder, tmp_path / "out", extractor=GridMeans(), **{option: True})
