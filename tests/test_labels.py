"""Labels of images: every place that they come from, and what is said where one is missing, damaged or repeated."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans

from fastfid import evaluate
from fastfid.cache import StatisticsCache
from fastfid.sources import open_source
from fastfid.sources.labels import as_label, largest_dataset_json


def png(shade=0):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 5), (shade, 7, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, files):
    """Write a folder, a zip or a tar, as the path ends."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif ".tar" in path.name:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


def labels_of(source):
    return [item.label for item in source]


def named(source):
    return {item.name.removeprefix(f"{source.name}/"): item.label for item in source}


def texts(source):
    return [str(note) for note in source.notes]


def refused(match, obj, **options):
    """The error comes when the source is opened, before any image is read."""
    with pytest.raises(ValueError, match=match):
        open_source(obj, **options)


CONTAINERS = ["folder", "x.zip", "x.tar", "x.tar.gz"]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


# What is not asked for


@pytest.mark.parametrize("kind", ["folder", "x.zip"])
def test_without_the_option_there_are_no_labels(tmp_path, kind):
    path = write(tmp_path / kind, {"a.png": png(), "b.png": png(), "dataset.json": b"damaged"})
    source = open_source(path)
    assert labels_of(source) == [None, None]
    assert not source.has_labels
    assert source.labels_from is None
    assert source.class_names is None
    assert texts(source) == [f"{path}: 1 other file not read (.json)"]


def test_a_source_without_labels_is_read_all_the_same(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES)
    write(tmp_path / "folder", {"a.png": png()})
    write(tmp_path / "null.zip", {"a.png": png(), "dataset.json": b'{"labels": null}'})
    write(tmp_path / "x.tar", {"a.png": png(), "a.txt": b"a caption", "a.json": b'{"width": 4}'})
    for path in (tmp_path / "x.npz", tmp_path / "folder", tmp_path / "null.zip", tmp_path / "x.tar", IMAGES):
        source = open_source(path, labels="auto")
        assert not source.has_labels
        assert set(labels_of(source)) == {None}
        (said,) = texts(source)
        assert "carries no labels" in said


def test_labels_change_no_number(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 3)
    paths = (str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    plain = evaluate(*paths, extractor=GridMeans())
    auto = evaluate(*paths, extractor=GridMeans(), labels="auto")
    given = evaluate(*paths, extractor=GridMeans(), labels=np.arange(40) % 3)
    assert plain["fid"].value == auto["fid"].value == given["fid"].value
    said = [one.to_dict()["options"]["labels"] for one in (plain, auto, given)]
    assert said == [None, "auto", "given"]


def test_the_cache_takes_labels_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "a.npz", IMAGES)
    source = open_source(tmp_path / "a.npz")
    kinds = (None, "auto", Path("x.csv"), [1, 2, 3, 4], np.arange(4), np.arange(1, 5))
    entries = [
        StatisticsCache(source, {"options": {"labels": labels}}, by_content=False, opened_at=0.0).path
        for labels in kinds
    ]
    assert len(set(entries)) == len(kinds) - 1  # a list and an array of the same labels are one


# The option


@pytest.mark.parametrize(
    ("labels", "error", "said"),
    [
        (
            "folders",
            ValueError,
            r"labels: expected 'auto', 'folder', the path of a \.csv file, or one .*; got 'folders'",
        ),
        (3, TypeError, "got int"),
        ({"a.png": 3}, TypeError, "got dict"),
        (iter([1]), TypeError, "got list_iterator"),
        (b"auto", TypeError, "got bytes"),
    ],
)
def test_labels_that_are_none(labels, error, said):
    with pytest.raises(error, match=said):
        open_source(IMAGES, labels=labels)


def test_labels_from_a_list_array_or_tensor():
    import torch

    for values in ([3, 0, 1, 3], (3, 0, 1, 3), np.array([3, 0, 1, 3], np.uint8), torch.tensor([3, 0, 1, 3])):
        source = open_source(IMAGES, labels=values)
        assert labels_of(source) == [3, 0, 1, 3]
        assert {type(label) for label in labels_of(source)} == {int}
        assert source.labels_from == "labels"
    assert labels_of(open_source(IMAGES, labels=["b", "a", "b", "c"])) == ["b", "a", "b", "c"]
    assert labels_of(open_source(IMAGES, labels=np.array(["b", "a", "b", "c"]))) == ["b", "a", "b", "c"]
    assert labels_of(open_source(IMAGES, labels=[np.int64(3), torch.tensor(2), 1, np.array(0)])) == [3, 2, 1, 0]
    assert labels_of(open_source(IMAGES, labels=np.eye(4, dtype=np.float32)[[2, 0, 3, 1]])) == [2, 0, 3, 1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2, 3], r"array: has 4 images, but labels has 3 labels"),
        ([1, 2, 3, 4, 5], r"array: has 4 images, but labels has 5 labels"),
        ([1, 2, None, 4], r"array\[2\]: has no label"),
        ([1, 2, -1, 4], r"array\[2\]: has the label -1; expected 0 to"),
        ([1, 2**63, 3, 4], r"array\[1\]: has the label 9223372036854775808"),
        ([1, True, 3, 4], r"array\[1\]: expected a label that is a whole number or a name; got True"),
        ([1.0, 2, 3, 4], r"array\[0\]: expected a label .*; got 1\.0"),
        (["a", "", "b", "c"], r"array\[1\]: expected a label .*; got ''"),
        (["a", 1, "b", "c"], r"array\[1\]: has the label 1, but array\[0\] 'a': all labels are numbers"),
        (np.array([1.0, 2, 3, 4]), r"labels: expected one whole number or name for each image, .*; got float64"),
        (np.ones((4, 2)), r"array\[0\]: its label is a list that is not one-hot"),
        (np.zeros((4, 2, 2), int), r"labels: expected one whole number .* of shape \(4, 2, 2\)"),
    ],
)
def test_labels_that_do_not_fit(values, said):
    refused(said, IMAGES, labels=values)


def test_labels_of_a_stream_are_counted_when_it_is_read():
    assert labels_of(open_source(iter(IMAGES), labels=[4, 5, 6, 7])) == [4, 5, 6, 7]
    assert labels_of(open_source(iter(IMAGES), labels=[4, 5, 6, 7], num=2)) == [4, 5]
    with pytest.raises(ValueError, match=r"list_iterator|image 3: has no label; labels has 3 labels"):
        labels_of(open_source(iter(list(IMAGES)), labels=[4, 5, 6]))
    with pytest.raises(ValueError, match=r"has 4 images, but labels has 5 labels"):
        labels_of(open_source(iter(list(IMAGES)), labels=[4, 5, 6, 7, 8]))


def test_a_subset_keeps_the_labels_of_its_images(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES, np.array([7, 8, 9, 6]))
    whole = {item.name: item.label for item in open_source(tmp_path / "x.npz", labels="auto")}
    part = open_source(tmp_path / "x.npz", labels="auto", num=2, seed=3)
    assert part.labels_from == "arr_1"
    assert len(found := {item.name: item.label for item in part}) == 2
    assert found.items() <= whole.items()


# ADM's samples


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arr_1(tmp_path, save):
    save(tmp_path / "x.npz", IMAGES, np.array([999, 0, 1, 0]))
    source = open_source(tmp_path / "x.npz", labels="auto")
    assert labels_of(source) == [999, 0, 1, 0]
    assert (source.labels_from, source.class_names) == ("arr_1", None)
    np.testing.assert_array_equal([item.load() for item in source], IMAGES)
    save(tmp_path / "y.npz", IMAGES, np.array(["cat", "dog", "cat", "dog"]))
    assert labels_of(open_source(tmp_path / "y.npz", labels="auto")) == ["cat", "dog", "cat", "dog"]
    np.savez(tmp_path / "z.npz", IMAGES, IMAGES[:1])  # of images that are asked for by name, arr_1 is no label
    assert open_source(tmp_path / "z.npz", labels="auto", key="arr_1").labels_from is None


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.arange(3), r"x\.npz: arr_1: expected 4 labels, one for each image; got shape \(3,\)"),
        (np.array(3), r"x\.npz: arr_1: expected 4 labels, .* got shape \(\)"),
        (np.array([0, 1, -1, 2]), r"x\.npz: arr_0\[2\]: has the label -1"),
        (np.arange(4) / 2, r"x\.npz: arr_1: expected one whole number .*; got float64"),
        (np.zeros((4, 3)), r"x\.npz: arr_0\[0\]: its label is a list that is not one-hot"),
        (np.array([None] * 4), r"x\.npz: arr_1: holds Python objects"),
        (np.zeros((4, 300_000), np.int8), r"x\.npz: arr_1: declares shape \(4, 300000\) of int8, more than \d+ bytes"),
    ],
)
def test_arr_1_that_is_no_label(tmp_path, array, said):
    np.savez(tmp_path / "x.npz", IMAGES, array)
    assert len(open_source(tmp_path / "x.npz")) == 4
    refused(said, tmp_path / "x.npz", labels="auto")


# dataset.json


@pytest.mark.parametrize("kind", ["folder", "x.zip"])
def test_dataset_json(tmp_path, kind):
    files = {f"0000{i}/img{i}.png": png(i) for i in range(3)}
    entries = [[name, 5 - i] for i, name in enumerate(files)]
    content = json.dumps({"labels": [*reversed(entries), ["elsewhere.png", 1]], "more": 3}).encode()
    path = write(tmp_path / kind, {**files, "dataset.json": content})
    source = open_source(path, labels="auto", recursive=True)
    assert named(source) == dict(entries)
    assert (source.labels_from, source.class_names, texts(source)) == ("dataset.json", None, [])
    vectors = json.dumps({"labels": [[name, [0.0] * i + [1.0] + [0] * (4 - i)] for i, name in enumerate(files)]})
    path = write(tmp_path / f"vectors-{kind}", {**files, "dataset.json": vectors.encode()})
    assert labels_of(open_source(path, labels="auto", recursive=True)) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["folder", "x.zip"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"dataset\.json: cannot be read as JSON"),
        (b"\xff\xfe{", r"dataset\.json: cannot be read as JSON"),
        (b"[" * 100_000, r"dataset\.json: cannot be read as JSON \(it nests too deep\)"),
        (b'{"labels": 3}', r"dataset\.json: expected .* or null labels"),
        (b'{"labels": {"a.png": 3}}', r"dataset\.json: expected"),
        (b'{"labels": [["a.png", 3, 4]]}', r"dataset\.json: expected"),
        (b'{"labels": [[3, 3]]}', r"dataset\.json: expected"),
        (b'{"labels": [["a.png", 3]]}', r"dataset\.json: has no label for b\.png of .*, and 1 other images$"),
        (b'{"labels": [["a.png", 3], ["b.png", 4], ["a.png", 3]]}', r"dataset\.json: has two labels for a\.png"),
        (b'{"labels": [["a.png", 3], ["b.png", 4.5], ["c.png", 1]]}', r"b\.png: expected a label .*; got 4\.5"),
        (b'{"labels": [["a.png", 3], ["b.png", NaN], ["c.png", 1]]}', r"b\.png: expected a label .*; got nan"),
        (b'{"labels": [["a.png", 3], ["b.png", null], ["c.png", 1]]}', r"b\.png: has no label"),
        (b'{"labels": [["a.png", 3], ["b.png", -1], ["c.png", 1]]}', r"b\.png: has the label -1"),
        (b'{"labels": [["a.png", 3], ["b.png", [0, 1, 1]], ["c.png", 1]]}', r"b\.png: its label is a list that is not"),
        (b'{"labels": [["a.png", 3], ["b.png", [0, 2]], ["c.png", 1]]}', r"b\.png: its label is a list that is not"),
        (b'{"labels": [["a.png", 3], ["b.png", []], ["c.png", 1]]}', r"b\.png: its label is a list that is not"),
        (b'{"labels": [["a.png", 3], ["b.png", [[1], 2]], ["c.png", 1]]}', r"b\.png: its label is a list that is not"),
        (b'{"labels": [["a.png", 3], ["b.png", "x"], ["c.png", 1]]}', r"b\.png: has the label 'x', but .*a\.png 3"),
        (b'{"labels": [["a.png", 3], ["b.png", ' + b"9" * 30 + b'], ["c.png", 1]]}', r"b\.png: has the label 9+; exp"),
        (b'{"labels": [["a.png", 3], ["b.png", ' + b"9" * 9000 + b'], ["c.png", 1]]}', r"cannot be read as JSON"),
    ],
)
def test_dataset_json_that_is_damaged(tmp_path, kind, content, said):
    path = write(tmp_path / kind, {"a.png": png(), "b.png": png(), "c.png": png(), "dataset.json": content})
    refused(rf"^{path}.*{said}", path, labels="auto")


def test_a_dataset_json_that_unpacks_to_more_than_labels_take(tmp_path):
    files = {"a.png": png(), "dataset.json": b" " * (largest_dataset_json(1) + 1)}
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    refused(
        r"x\.zip/dataset\.json: has \d+ bytes; at most \d+ are read for 1 images", tmp_path / "x.zip", labels="auto"
    )
    path = write(tmp_path / "folder", files)
    refused(r"folder/dataset\.json: has more than the \d+ bytes", path, labels="auto")


def test_a_dataset_json_that_is_no_file(tmp_path):
    path = write(tmp_path / "folder", {"a.png": png()})
    os.mkfifo(path / "dataset.json")
    refused(r"dataset\.json: is not a regular file", path, labels="auto")


# Class folders


@pytest.mark.parametrize("kind", CONTAINERS)
def test_class_folders(tmp_path, kind):
    names = ["dog/1.png", "ant/deep/2.png", "cat/1.png", "ant/1.png"]
    path = write(tmp_path / kind, {name: png(i) for i, name in enumerate(names)})
    source = open_source(path, labels="folder")
    assert named(source) == {name: name.partition("/")[0] for name in names}
    assert source.class_names == ("ant", "cat", "dog")
    assert source.labels_from == "class folders"


def test_class_folders_of_a_pattern(tmp_path):
    names = ["dog/1.png", "cat/1.png", "cat/2.png"]
    write(tmp_path / "set", dict.fromkeys(names, png()))
    source = open_source(tmp_path / "set/*/*.png", labels="folder")
    assert labels_of(source) == ["cat", "cat", "dog"]
    both = open_source([tmp_path / "set", write(tmp_path / "x.zip", {"emu/1.png": png()})], labels="folder")
    assert labels_of(both) == ["cat", "cat", "dog", "emu"]
    assert both.class_names == ("cat", "dog", "emu")


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_picture_in_no_class_folder(tmp_path, kind):
    path = write(tmp_path / kind, {"ant/1.png": png(), "2.png": png()})
    refused(
        rf"^{path}/2\.png: lies in no class folder; labels='folder' takes the sub-folders of", path, labels="folder"
    )


def test_what_has_no_names_has_no_class_folders(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES)
    (tmp_path / "x.csv").write_text("name,label\n")
    for obj, name in ((IMAGES, "array"), (tmp_path / "x.npz", r"x\.npz"), (list(IMAGES), "list")):
        refused(rf"{name}: labels='folder' needs pictures that have names", obj, labels="folder")
        refused(rf"{name}: labels='.*x\.csv' needs pictures that have names", obj, labels=tmp_path / "x.csv")


# CSV


@pytest.mark.parametrize("kind", CONTAINERS)
def test_csv(tmp_path, kind):
    names = ["a,1.png", "b/2.png", "é.png"]
    path = write(tmp_path / kind, dict.fromkeys(names, png()))
    table = tmp_path / "labels.csv"
    table.write_text('\ufeffid,label,name\r\n1,3,"a,1.png"\r\n2,0,é.png\r\n\r\n3,12,b/2.png\r\n4,5,z.png\r\n')
    source = open_source(path, labels=table, recursive=True)
    assert named(source) == {"a,1.png": 3, "b/2.png": 12, "é.png": 0}
    assert (source.labels_from, source.class_names) == ("labels.csv", None)
    assert texts(source) == [f"{table}: 1 row of images that {path} does not have"]
    table.write_text('name,label\n"a,1.png",007\nb/2.png,1\né.png,1\n')
    assert labels_of(open_source(path, labels=str(table), recursive=True)) == ["007", "1", "1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"expected a first line with the columns name and label; it is empty"),
        (b"a.png,3\nb.png,4\n", r"expected a first line with the columns name and label; it is a\.png, 3"),
        (b"name,label\na.png,3\n", r"has no label for b\.png of "),
        (b"name,label\na.png,3\nb.png\n", r"line 3: has 1 columns of 2"),
        (b"name,label\na.png,3\nb.png,\n", r"line 3: b\.png has no label"),
        (b"name,label\na.png,3\nb.png,4\na.png,3\n", r"line 4: a\.png has a label already"),
        (b"name,label\na.png,3\nb.png,\xff\n", r"cannot be read as CSV in UTF-8"),
        (b'name,label\na.png,3\n"b.png,4\n', r"cannot be read as CSV in UTF-8"),
        (b"name,label\na.png,3\nb.png," + b"x" * 200_000, r"cannot be read as CSV in UTF-8 \(field larger"),
        (b"name,label\na.png,3\nb.png,4\0\n", r"b\.png|cannot be read as CSV"),
    ],
)
def test_csv_that_does_not_fit(tmp_path, content, said):
    path = write(tmp_path / "folder", {"a.png": png(), "b.png": png()})
    (tmp_path / "x.csv").write_bytes(content)
    if content.endswith(b"\0\n"):
        assert labels_of(open_source(path, labels=tmp_path / "x.csv")) == ["3", "4\0"]
        return
    refused(rf"x\.csv: {said}", path, labels=tmp_path / "x.csv")


def test_a_csv_that_is_no_file(tmp_path):
    path = write(tmp_path / "folder", {"a.png": png()})
    with pytest.raises(FileNotFoundError, match=r"labels: there is no such file; name a \.csv .*x\.csv"):
        open_source(path, labels=tmp_path / "x.csv")
    (tmp_path / "x.csv").symlink_to("/dev/zero")
    refused(r"x\.csv: is not a regular file", path, labels=tmp_path / "x.csv")


# WebDataset


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
def test_cls_beside_the_picture(tmp_path, kind):
    files = {
        "s/01.png": png(),
        "s/01.cls": b"3",
        "s/02.cls": b" 0\n",  # before its picture
        "s/02.jpg": png(),
        "s/03.input.png": png(),
        "s/03.target.png": png(),
        "s/03.cls": b"7",
        "s/03.json": b"damaged, and of no interest",
    }
    path = write(tmp_path / kind, files)
    source = open_source(path, labels="auto")
    assert named(source) == {"s/01.png": 3, "s/02.jpg": 0, "s/03.input.png": 7, "s/03.target.png": 7}
    assert source.labels_from == ".cls"
    assert texts(source) == texts(open_source(path)) == []


@pytest.mark.parametrize(("key", "values"), [("label", [4, 0]), ("cls", [4, 0]), ("label", ["cat", "dog"])])
def test_json_beside_the_picture(tmp_path, key, values):
    files = {}
    for i, value in enumerate(values):
        files |= {
            f"{i}.png": png(),
            f"{i}.txt": b"a caption",
            f"{i}.json": json.dumps({"width": 4, key: value}).encode(),
        }
    source = open_source(write(tmp_path / "x.tar", files), labels="auto")
    assert labels_of(source) == values
    assert source.labels_from == f".json: {key}"
    assert texts(source) == []


def test_the_first_sample_says_where_labels_are(tmp_path):
    files = {
        "0.png": png(),
        "0.json": b'{"cls": 1, "label": 2}',
        "1.png": png(),
        "1.json": b'{"label": 5}',
        "1.cls": b"9",
    }
    source = open_source(write(tmp_path / "x.tar", files), labels="auto")
    assert (source.labels_from, labels_of(source)) == (".json: label", [2, 5])


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.cls": b"x"}, r"x\.tar/a\.cls: expected a whole number in ASCII; got b'x'"),
        ({"a.cls": b""}, r"x\.tar/a\.cls: expected a whole number"),
        ({"a.cls": "٣".encode()}, r"x\.tar/a\.cls: expected a whole number"),
        ({"a.cls": b"-1"}, r"x\.tar/a\.cls: has the label -1"),
        ({"a.cls": b"9" * 19}, r"x\.tar/a\.cls: expected a whole number"),
        ({"a.cls": b"1" * (2**20 + 1)}, r"x\.tar/a\.cls: has 1048577 bytes, too many for a label"),
        ({"a.cls": b"1", "b.png": png()}, r"x\.tar/b\.png: has no label, as no \.cls is beside it"),
        ({"a.cls": b"1", "b.png": png(), "c.cls": b"2"}, r"x\.tar/b\.png: has no label"),
        ({"a.cls": b"1", "b.png": png(), "b.json": b'{"label": 2}'}, r"x\.tar/b\.png: has no label, as no \.cls"),
        ({"a.json": b"{"}, r"x\.tar/a\.json: cannot be read as JSON"),
        ({"a.json": b"[" * 100_000}, r"x\.tar/a\.json: cannot be read as JSON \(it nests too deep\)"),
        ({"a.json": b'{"label": 2.5}'}, r"x\.tar/a\.json: label: expected a label"),
        (
            {"a.json": b'{"label": 2}', "b.png": png(), "b.json": b"[]"},
            r"b\.png: has no label, as no \.json with the key",
        ),
        ({"a.json": b'{"label": 2}', "b.png": png(), "b.json": b'{"label": "x"}'}, r"b\.png: has the label 'x', but"),
    ],
)
@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
def test_samples_that_are_damaged(tmp_path, kind, files, said):
    path = write(tmp_path / kind, {"a.png": png(), **files})
    assert len(open_source(path)) >= 1
    refused(said.replace(r"x\.tar", kind.replace(".", r"\.")), path, labels="auto")


def test_files_with_no_picture_beside_them_are_counted(tmp_path):
    files = {
        "a.png": png(),
        "a.txt": b"",
        "b.txt": b"",  # of no picture
        "c.cls": b"",
        "c.png": png(),
        "d.json": b"",
        "a.cls": b"",  # not beside it: other samples are between them
        "e.cls.txt": b"",
        ".json": b"",
    }
    path = write(tmp_path / "x.tar", files)
    assert texts(open_source(path)) == [f"{path}: 5 other files not read (.txt, .json, .cls)"]


def test_a_tar_is_cut_short_once(tmp_path):
    path = write(tmp_path / "x.tar", {"a.png": png(), "a.cls": b"1"})
    path.write_bytes(path.read_bytes()[:2048])
    assert sum("no end mark" in text for text in texts(open_source(path, labels="auto"))) == 1


# Several parts


def test_shards(tmp_path):
    for i in range(2):
        write(tmp_path / f"{i}.tar", {f"{i}.png": png(), f"{i}.cls": b"%d" % (7 + i)})
    source = open_source(tmp_path / "{0..1}.tar", labels="auto")
    assert (source.labels_from, labels_of(source)) == (".cls", [7, 8])
    write(tmp_path / "2.tar", {"2.png": png()})
    refused(
        r"2\.tar: carries no labels, but .*0\.tar does; labels are read from all",
        tmp_path / "{0..2}.tar",
        labels="auto",
    )
    write(tmp_path / "2.tar", {"2.png": png(), "2.json": b'{"label": "cat"}'})
    refused(
        r"2\.tar: its labels \(\.json: label\) are not of the classes of .*0\.tar", tmp_path / "*.tar", labels="auto"
    )


def test_a_label_has_no_nul():
    """Arrays of NumPy, in stores and Parts, would cut it off."""
    with pytest.raises(ValueError, match=r"a.csv: expected a label that is a whole number or a name; got 'a\\x00'"):
        as_label("a\0", "a.csv")
