"""Metrics of each class: beside the folders of the classes alone, independent formulas, and what is refused."""

import json

import numpy as np
import pytest
from metric_cases import METRIC_CASES
from PIL import Image
from stubs import AllOutputs, GridMeans
from tolerances import FEW_ROUNDINGS, KERNEL_MEANS, SCIPYS_ROOT_SINGULAR

from fastfid import Statistics, compute_statistics, evaluate
from fastfid.cli import main
from fastfid.errors import FastfidWarning, SkippedImagesWarning
from fastfid.metrics import METRICS
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.sources.kept import KeptLabels

# More images than the 12 features of GridMeans, fewer, and too few; in the order of the classes.
COUNTS = {"ant": 40, "bee": 30, "cat": 9, "dog": 1}
COMPARED = ["ant", "bee", "cat"]
CLASSES = list(COUNTS)


def pixels(seed, high):
    """The images of each class: classes are of different brightness."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(20 * k, high, (n, 9, 11, 3), dtype=np.uint8) for k, (name, n) in enumerate(COUNTS.items())
    }


REAL, FAKE = pixels(0, 256), pixels(1, 200)


def write_folders(root, images, where="{name}/{i:02}.png"):
    for name, of_class in images.items():
        for i, image in enumerate(of_class):
            path = root / where.format(name=name, i=i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def shuffled(images, seed=5):
    """All images in an order that mixes the classes, and the number of the class of each."""
    every = np.concatenate(list(images.values()))
    codes = np.repeat(np.arange(len(images)), [len(one) for one in images.values()])
    order = np.random.default_rng(seed).permutation(len(every))
    return every[order], codes[order]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    return write_folders(root / "real", REAL), write_folders(root / "fake", FAKE)


@pytest.fixture(scope="module")
def alone(folders):
    """What evaluate() says of the folders of each class."""
    real, fake = folders
    return {
        name: evaluate(real / name, fake / name, metrics=["fid", "kid"], extractor=GridMeans()) for name in COMPARED
    }


def values(per_class):
    return {name: {key: result.value for key, result in one.items()} for name, one in per_class.items()}


def evaluate_quietly(*sources, extractor=None, **options):
    """One class is always too small."""
    with pytest.warns(FastfidWarning, match=r"^per_class: left out 1 of 4 classes"):
        return evaluate(*sources, extractor=extractor or GridMeans(), per_class=True, **options)


def features(images):
    return np.array([GridMeans().prepare(image) for image in images], np.float64)


# What the numbers are


def test_a_class_is_what_its_folders_alone_are(folders, alone):
    found = evaluate_quietly(*folders, labels="folder")
    assert found["fid"].value == evaluate(*folders, extractor=GridMeans(), recursive=True)["fid"].value
    assert sorted(found.per_class) == COMPARED
    assert found.per_class.classes_of == "both"
    for name, one in found.per_class.items():
        assert (one.n_real, one.n_fake) == (COUNTS[name], COUNTS[name])
        for key in ("fid", "kid"):
            for attribute in ("value", "standard_error"):
                assert getattr(one[key], attribute) == getattr(alone[name][key], attribute)
        assert one["fid"].bias == alone[name]["fid"].bias
    assert found.per_class["cat"]["fid"].bias is None
    assert found.per_class["ant"]["fid"].bias > 0
    fids = [one["fid"].value for one in found.per_class.values()]
    assert fids == sorted(fids, reverse=True)
    assert found.per_class.means["fid"] == (sum(fids) / 3, 3, None)  # one class has no standard error
    errors = [alone[name]["kid"].standard_error for name in COMPARED]
    expected = pytest.approx(np.sqrt(np.square(errors).sum()) / 3, rel=FEW_ROUNDINGS)
    assert found.per_class.means["kid"].standard_error == expected
    assert "dog" not in found.per_class
    with pytest.raises(KeyError, match=r"'dog' was left out: 1 image of .*real and 1 image of .*fake"):
        found.per_class["dog"]


@pytest.mark.parametrize("name", sorted(METRIC_CASES))
def test_every_metric_of_each_class_is_as_another_code_has_it(name):
    (real, codes), (fake, codes_of_fake) = shuffled(REAL), shuffled(FAKE)
    labels = {"real": codes, "fake": codes_of_fake}
    found = evaluate_quietly(real, fake, metrics=[name], extractor=AllOutputs(), labels=labels).per_class
    case = METRIC_CASES[name]
    for number, key in enumerate(CLASSES):
        n = COUNTS[key]
        if n < 2:
            assert number in found.left_out
        elif n < case.fewest:
            assert not found[number].results
            assert found[number].missing
        else:
            # The order of the images of a class is that of the source.
            truth = case.truth(features(real[codes == number]), features(fake[codes_of_fake == number]))
            relative = case.relative if n > 12 else max(case.relative, SCIPYS_ROOT_SINGULAR)
            for value, expected in truth.items() if isinstance(truth, dict) else ((name, truth),):
                result = found[number][value]
                # That of the MIFID is the difference of 1 and cosines, whose roundings are of 1.
                near = relative / result.details.get("memorisation_distance", 1)
                assert result.value == pytest.approx(expected, rel=near)


def test_a_side_without_labels_is_compared_as_a_whole(folders, tmp_path):
    real, fake = folders
    options = {"labels": {"fake": "folder"}, "recursive": True}
    found = evaluate_quietly(*folders, metrics=["fid", "kid"], **options)
    assert found.per_class.classes_of == "generated"
    for name, one in found.per_class.items():
        expected = evaluate(real, fake / name, metrics=["fid", "kid"], extractor=GridMeans(), recursive=True)
        assert one["fid"].value == expected["fid"].value
        for attribute in ("value", "standard_error"):
            # The sums of the KID are about another constant.
            truth = pytest.approx(getattr(expected["kid"], attribute), rel=KERNEL_MEANS)
            assert getattr(one["kid"], attribute) == truth
        assert (one.n_real, one.n_fake) == (sum(COUNTS.values()), COUNTS[name])
    # The KID needs rows of the side without labels, which are kept only if it is asked for.
    alone = evaluate_quietly(*folders, **options).per_class
    assert list(alone.means) == ["fid"]
    assert found.per_class.means["kid"].standard_error is None  # the classes share the images of the other side
    assert "each class of the generated side is compared with all images of the real side" in alone.table()


def test_the_other_side_may_be_statistics(folders, tmp_path):
    real, fake = folders
    path = compute_statistics(real, extractor=GridMeans(), recursive=True).save(tmp_path / "real.npz")
    found = evaluate_quietly(path, fake, labels="folder")
    for name, one in found.per_class.items():
        assert one["fid"].value == evaluate(path, fake / name, extractor=GridMeans())["fid"].value
        assert one.n_real == sum(COUNTS.values())
    nameless = Statistics(np.zeros(12), np.eye(12), meta={"protocol": "none", "extractor": "grid-means"})
    assert evaluate_quietly(nameless, fake, labels="folder").per_class["ant"].n_real is None
    with pytest.raises(ValueError, match=r"^kid: needs the images of both sides"):
        evaluate(path, fake, metrics=["fid", "kid"], extractor=GridMeans(), labels="folder", per_class=True)


def test_all_metrics_for_each_class(folders):
    found = evaluate_quietly(*folders, metrics="all", extractor=AllOutputs(), labels="folder")
    assert set(found.per_class["ant"]) | set(found.missing) == {key for row in METRICS.values() for key in row.labels}
    assert set(found.per_class["cat"].missing) == {"fid-infinity", "is"}
    with pytest.raises(KeyError, match=r"fid-infinity could not be computed: .*cat"):
        found.per_class["cat"]["fid-infinity"]
    assert found.per_class.means["fid-infinity"].classes == 2
    assert f"{found.per_class.means['fid-infinity'].value:.6g} (of 2)" in found.per_class.table()
    assert "fid-infinity: not computed for 1 of 3 classes: " in found.per_class.table()


def test_classes_are_sorted_by_the_first_metric(folders):
    found = evaluate_quietly(*folders, metrics=["mind"], labels={"fake": "folder"}, recursive=True)
    minds = [one["mind"].value for one in found.per_class.values()]
    assert minds == sorted(minds, reverse=True)
    # The first class, 0, has too few images for the first metric, and not the smallest value of the second.
    (real, codes), (fake, codes_of_fake) = shuffled(REAL), shuffled(FAKE)
    labels = {side: np.where(of == 2, 0, 2) for side, of in (("real", codes), ("fake", codes_of_fake))}
    two = evaluate(
        real, fake, metrics=["fid-infinity", "kid"], labels=labels, extractor=GridMeans(), per_class=True
    ).per_class
    assert list(two.means) == ["fid-infinity", "kid"]
    assert list(two) == [2, 0]
    assert two[0]["kid"].value > two[2]["kid"].value


# Where labels come from


def test_formats_of_labels(folders, alone, tmp_path):
    expected = {name: {key: alone[name][key].value for key in ("fid", "kid")} for name in COMPARED}
    fake = tmp_path / "flat"
    write_folders(fake, FAKE, "{name}-{i:02}.png")
    entries = [[path.name, CLASSES.index(path.name[:3])] for path in fake.iterdir()]
    (fake / "dataset.json").write_text(json.dumps({"labels": entries}))
    numbers = {"real": "folder", "fake": "auto"}
    found = values(evaluate_quietly(folders[0], fake, labels=numbers).per_class)
    assert found == expected
    (fake / "dataset.json").unlink()

    rows = "".join(f"{path.name},{path.name[:3]}\n" for path in fake.glob("*.png"))
    (tmp_path / "labels.csv").write_text(f"name,label\n{rows}")
    found = evaluate_quietly(folders[0], fake, labels={"real": "folder", "fake": tmp_path / "labels.csv"})
    assert values(found.per_class) == expected
    assert found.to_dict()["options"]["labels"] == {"real": "folder", "fake": str(tmp_path / "labels.csv")}

    images, codes = np.concatenate(list(FAKE.values())), np.repeat(np.arange(4), list(COUNTS.values()))
    np.savez(tmp_path / "samples.npz", images, codes)
    found = evaluate_quietly(folders[0], tmp_path / "samples.npz", labels=numbers)
    assert values(found.per_class) == expected
    np.savez(tmp_path / "real.npz", np.concatenate(list(REAL.values())), codes)
    found = evaluate_quietly(tmp_path / "real.npz", tmp_path / "samples.npz", labels="auto")
    assert values(found.per_class) == {CLASSES.index(name): value for name, value in expected.items()}


def test_images_that_were_skipped_take_their_labels_along(folders, tmp_path):
    real = write_folders(tmp_path / "real", REAL)
    for name, i in (("ant", 0), ("bee", 3), ("cat", 8)):
        (real / name / f"{i:02}.png").write_bytes(b"no picture")
    with pytest.warns(SkippedImagesWarning, match="skipped 3"):
        found = evaluate_quietly(real, folders[1], labels="folder", on_error="skip")
    for name, i in (("ant", 0), ("bee", 3), ("cat", 8)):
        (real / name / f"{i:02}.png").unlink()
        expected = evaluate(real / name, folders[1] / name, extractor=GridMeans())["fid"].value
        assert found.per_class[name]["fid"].value == expected
        assert found.per_class[name].n_real == COUNTS[name] - 1


def test_a_subset_takes_its_labels_along():
    (images, codes), (others, _) = shuffled(REAL), shuffled(FAKE)
    found = evaluate_quietly(images, others, labels={"real": codes}, num=50, seed=3).per_class
    chosen = np.sort(np.random.RandomState(3).permutation(len(images))[:50])
    assert {label: one.n_real for label, one in found.items()} == {
        label: n for label, n in enumerate(np.bincount(codes[chosen])) if n > 1
    }


# Stores


class Unused(GridMeans):
    def forward(self, batch):
        raise AssertionError("the network ran")


def test_a_store_keeps_the_labels(folders, tmp_path):
    root = tmp_path / "features"
    plain = evaluate_quietly(*folders, labels="folder")
    stored = evaluate_quietly(*folders, labels="folder", store=root)
    real, fake = (next(root.glob(f"{name}-*")) for name in ("real", "fake"))
    again = evaluate_quietly(*folders, extractor=Unused(), labels="folder", store=root)
    given = evaluate_quietly(real, fake)
    for one in (stored, again, given):
        assert values(one.per_class) == values(plain.per_class)
    mixed = evaluate_quietly(real, folders[1], labels={"fake": "folder"})
    assert values(mixed.per_class) == values(plain.per_class)
    with pytest.warns(FastfidWarning, match=r"real-\w+: is a store, whose labels are those that it was made with"):
        evaluate_quietly(real, folders[1], labels="folder")


def test_an_interrupted_run_with_labels_goes_on(folders, tmp_path):
    class Failing(GridMeans):
        seen = 0
        batch_size = 1

        def forward(self, batch):
            self.seen += len(batch)
            if self.seen == 25:
                raise RuntimeError("the power failed")
            return super().forward(batch)

    root = tmp_path / "features"
    with pytest.raises(RuntimeError, match="the power failed"):
        evaluate(*folders, extractor=Failing(), labels="folder", store=root, per_class=True)
    kept = ((next(root.glob("real-*")) / "features.npy.new").stat().st_size - 128) // 48
    assert kept == 24
    found = evaluate_quietly(*folders, labels="folder", store=root)
    assert values(found.per_class) == values(evaluate_quietly(*folders, labels="folder").per_class)


def test_stores_whose_labels_are_stale_damaged_or_missing(folders, tmp_path):
    root, fake = tmp_path / "features", tmp_path / "flat"
    write_folders(fake, FAKE, "{name}-{i:02}.png")
    names = sorted(path.name for path in fake.iterdir())
    labels = tmp_path / "labels.csv"
    options = {"labels": {"real": "folder", "fake": labels}, "store": root}
    labels.write_text("name,label\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    evaluate_quietly(folders[0], fake, **options)
    labels.write_text("name,label\n" + "".join(f"{name},{name[:3].replace('ant', 'bee')}\n" for name in names))
    with pytest.raises(ValueError, match=r"is stale: the labels of .*flat have changed since; delete .*flat-"):
        evaluate(folders[0], fake, extractor=GridMeans(), per_class=True, **options)

    real = next(root.glob("real-*"))
    for damaged in ("[", "{}", '{"schema": 1, "classes": ["a"], "class_names": null, "codes": [0]}'):
        (real / "labels.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"labels\.json: .*; delete the folder .*real-"):
            evaluate(real, FAKE["ant"], extractor=GridMeans(), per_class=True)
        evaluate(real, FAKE["ant"], extractor=GridMeans())
    (real / "labels.json").unlink()
    with pytest.raises(ValueError, match=r"^per_class: neither side has labels; .*; the features in .*real-"):
        evaluate(real, FAKE["ant"], extractor=GridMeans(), per_class=True)
    with pytest.raises(ValueError, match=r"real-\w+: the labels of its images are missing; delete this folder"):
        evaluate(folders[0], folders[1], extractor=GridMeans(), labels="folder", store=root, per_class=True)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"classes": []},
        {"classes": ["b", "a"]},
        {"classes": ["a", 1]},
        {"classes": [True, 2]},
        {"classes": None},
        {"class_names": [1]},
        {"codes": [0, 2]},
        {"codes": [0, -1]},
        {"codes": [0, True]},
        {"codes": [0]},
        {"codes": {"0": 0}},
        {"classes": [0, 9], "class_names": ["a"]},
    ],
)
def test_a_file_of_labels_is_checked(change):
    sound = json.loads(KeptLabels.of(["a", "b"]).to_json())
    assert KeptLabels.from_json(json.dumps(sound).encode(), 2).classes == ("a", "b")
    with pytest.raises(ValueError, match=r"labels|label"):
        KeptLabels.from_json(json.dumps({**sound, **change}).encode(), 2)


def test_a_file_of_labels_that_nests_is_refused():
    with pytest.raises(ValueError, match="nests too deep"):
        KeptLabels.from_json(b"[" * 100_000, 2)


# Which class is which


def of_classes(names, seed, n=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n * len(names), 8, 8, 3), dtype=np.uint8), np.repeat(names, n)


def compare_classes(real, fake, class_names=None):
    """The classes that are compared, of two lists of classes."""
    (a, of_a), (b, of_b) = of_classes(real, 0), of_classes(fake, 1)
    fake = b if class_names is None else Loader(b, of_b, class_names)
    labels = {"real": of_a, "fake": of_b if class_names is None else "auto"}
    return evaluate(a, fake, extractor=GridMeans(1), labels=labels, per_class=True).per_class


class Loader:
    """A Dataset with names of its classes."""

    def __init__(self, images, labels, classes):
        self._items = list(zip(images, labels.tolist(), strict=True))
        self.classes = classes

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


def test_numbers_and_names(capsys):
    assert sorted(compare_classes([0, 1], [0, 1], ["x", "y"])) == ["x", "y"]
    assert "the numbers of array are taken for positions in the 2 classes of" in capsys.readouterr().err
    assert sorted(compare_classes(["x", "y"], [1, 0], ["y", "x"])) == ["x", "y"]
    assert sorted(compare_classes([2, 10], ["10", "2"])) == [2, 10]
    assert sorted(compare_classes(["x (1)", "x (0)"], [0, 1], ["x", "x"])) == ["x (0)", "x (1)"]
    taken = ["x", "x", "x (0)", "y"]
    assert sorted(compare_classes(["x (0) (0)", "x (1)", "x (0)", "y"], [0, 1, 2, 3], taken)) == [
        "x (0)",
        "x (0) (0)",
        "x (1)",
        "y",
    ]
    with pytest.raises(ValueError, match=r"^per_class: array has names of classes \(x, y\), and array has numbers \(0"):
        compare_classes(["x", "y"], [0, 1])
    with pytest.raises(ValueError, match=r"up to 7, of which .* knows 2: give both sides numbers, or both names"):
        compare_classes([0, 7], [0, 1], ["x", "y"])


def test_classes_of_one_side_alone_are_named():
    with pytest.warns(
        FastfidWarning, match=r"left out 2 of 3 classes: x \(no image of array\), z \(no image of array\)"
    ):
        found = compare_classes(["x", "y"], ["y", "z"])
    assert list(found) == ["y"]
    assert set(found.left_out) == {"x", "z"}
    with pytest.raises(ValueError, match=r"no class in common: array has x, y and array has z"):
        compare_classes(["x", "y"], ["z"])


# What is refused


def test_what_is_refused(folders, monkeypatch):
    (images, codes), (others, _) = shuffled(REAL), shuffled(FAKE)
    with pytest.raises(ValueError, match=r"^per_class: neither side has labels; say where they are by --labels \(lab"):
        evaluate(images, others, extractor=Unused(), per_class=True)
    with pytest.raises(TypeError, match=r"^per_class: expected True or False, got 1"):
        evaluate(images, others, extractor=Unused(), labels=codes, per_class=1)
    with pytest.raises(ValueError, match=r"^labels: expected the keys 'real' and 'fake', got 'generated'"):
        evaluate(images, others, extractor=Unused(), labels={"generated": codes}, per_class=True)
    with pytest.raises(ValueError, match=r"^per_class: no class has 2 images or more"):
        evaluate(images, others, extractor=GridMeans(), labels=np.arange(len(images)), per_class=True)
    of_four = {"labels": [0, 0, 1, 1] * 2, "extractor": GridMeans()}
    with pytest.raises(ValueError, match=r"^per_class: no metric has a value for any class: .*at least 6 images"):
        evaluate(images[:8], others[:8], metrics=["prdc"], per_class=True, **of_four)
    monkeypatch.setattr("fastfid.evaluation.classes._MOST_CLASSES", 3)
    with pytest.raises(ValueError, match=r"^per_class: array has 4 classes, at most 3 are compared"):
        evaluate(images, others, extractor=GridMeans(), labels=codes, per_class=True)
    with pytest.raises(TypeError, match=r"per_class is of fastfid\.evaluate"):
        compute_statistics(images, per_class=True)


# What is shown


def test_the_cache_does_not_stand_in_for_rows(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path))
    monkeypatch.setattr("fastfid.cache._CLOCK_S", -1e9)  # files of just now may be kept
    plain = evaluate(*folders, extractor=GridMeans(), labels="folder", cache=True)
    found = evaluate_quietly(*folders, labels="folder", cache=True)
    assert found["fid"].value == plain["fid"].value
    assert len(found.per_class) == 3


def test_the_record_has_rows_of_classes(folders):
    found = evaluate_quietly(*folders, labels="folder")
    record = json.loads(json.dumps(found.to_dict()))
    rows = record["metrics"]
    assert [(row["class"], row["metric"]) for row in rows] == [
        (None, "fid"),
        *((name, metric) for name in found.per_class for metric in ("fid", "kid")),
    ]
    for row in rows[1:]:
        result = found.per_class[row["class"]][row["metric"]]
        assert (row["value"], row["standard_error"]) == (result.value, result.standard_error)
        assert row["n_real"] == row["n_generated"] == COUNTS[row["class"]]
    assert record["value"] == record["fid"] == found["fid"].value
    assert record["per_class"] == {
        "classes_of": "both",
        "means": [
            {"metric": name, "convention": None, **found.per_class.means[name]._asdict()} for name in ("fid", "kid")
        ],
        "left_out": [{"class": "dog", "reason": found.per_class.left_out["dog"]}],
    }
    assert evaluate(*folders, extractor=GridMeans(), recursive=True).to_dict()["per_class"] is None


def test_the_table(folders):
    found = evaluate_quietly(*folders, labels="folder").per_class
    lines = found.table().splitlines()
    assert lines[0].split() == ["class", "n", "real", "n", "generated", "FID", "+-", "bias", "KID", "+-"]
    assert [line.split()[0] for line in lines[1:5]] == [*found, "mean"]
    for line, (name, one) in zip(lines[1:], found.items(), strict=False):
        assert line.endswith("n <= d") == (COUNTS[name] <= 12)
        assert f"{one['fid'].value:.6g}" in line
    assert lines[5].startswith("n <= d: no more images than features (12)")
    assert lines[6].startswith("left out: dog (1 image of ")
    assert repr(found) == (
        f"PerClass(3 classes, mean fid={found.means['fid'].value:.6g}, mean kid={found.means['kid'].value:.6g},"
        " 1 left out)"
    )
    assert repr(found["ant"]).startswith(f"ClassResults(fid={found['ant']['fid'].value:.6g}, kid=")
    shown = found._repr_html_()
    assert shown.count("<tr>") == 5
    assert "<caption>by class; n &lt;= d: " in shown
    whole = evaluate_quietly(*folders, labels="folder")._repr_html_()
    assert whole.count("<table>") == 2


def test_names_of_classes_do_not_control_the_terminal():
    (a, of_a), (b, of_b) = (of_classes(["x\x1b[2J", "y"], seed) for seed in (0, 1))
    found = evaluate(a, b, extractor=GridMeans(1), labels={"real": of_a, "fake": of_b}, per_class=True).per_class
    assert "x\\x1b[2J" in found.table()
    assert "\x1b" not in found.table() + found._repr_html_()


def test_a_metric_object_with_options_is_used_for_classes():
    (images, codes), (others, _) = shuffled(REAL), shuffled(FAKE)
    metric = FrechetInceptionDistance(needs_bias=False, needs_standard_error=False)
    found = evaluate_quietly(images, others, metrics=[metric], labels=codes)
    assert found.per_class[0]["fid"].no_standard_error == "it was not asked for"


def test_the_command_line(tmp_path, capsys, weights):
    rng = np.random.default_rng(0)
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8), np.repeat([3, 7], 5))
    paths = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    command = [*paths, "--dims", "64", "--labels", "auto", "--per-class"]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    said = "fastfid: per-class: 2 classes, of which one at a time is in memory: the largest has 10 images, 0.0 MiB of"
    assert said in err
    record = json.loads(out)
    assert {row["class"] for row in record["metrics"]} == {None, "3", "7"}
    assert main(command) == 0
    out, _ = capsys.readouterr()
    assert out.startswith(f"FID:  {record['fid']}\nclass  n real  n generated")
    assert main([*command, "--fake-labels", "none", "--json"]) == 0
    out, _ = capsys.readouterr()
    record = json.loads(out)
    assert record["per_class"]["classes_of"] == "real"
    assert record["options"]["labels"] == {"real": "auto", "fake": None}
    assert main([*paths, "--dims", "64", "--per-class"]) == 1
    assert "error: per_class: neither side has labels; say where they are by --labels" in capsys.readouterr().err
