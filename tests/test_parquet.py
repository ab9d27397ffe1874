"""Parquet files and Hugging Face's datasets, beside files that its own package has written."""

import io
import subprocess
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fastfid.errors import ImageError, SuspiciousInputWarning
from fastfid.sources import open_source

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
NAMES = ["cat", "dog", "emu"]
LABELS = [2, 0, 1, 1, 0]


def encoded(array, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def dataset(**more):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"image": [Image.fromarray(x) for x in IMAGES], "label": LABELS}, features)


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def pictures(source):
    return np.stack([item.load() for item in source])


def labels_of(source):
    return [item.label for item in source]


STRUCTS = [{"bytes": encoded(x), "path": f"{i}.png"} for i, x in enumerate(IMAGES)]


# Files


def test_a_file_of_hugging_face(tmp_path):
    dataset().to_parquet(tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet", labels="auto")
    assert len(source) == 5
    np.testing.assert_array_equal(pictures(source), IMAGES)
    assert [item.name for item in source] == [f"{tmp_path}/x.parquet[{i}]" for i in range(5)]
    assert labels_of(source) == LABELS
    assert (source.labels_from, source.class_names) == ("column label", tuple(NAMES))
    assert source.notes == []
    plain = open_source(tmp_path / "x.parquet")
    assert labels_of(plain) == [None] * 5
    assert list(plain.files()) == [f"{tmp_path}/x.parquet"]
    assert labels_of(open_source(tmp_path / "x.parquet", labels="auto", num=2, seed=1)) == [
        LABELS[i] for i in np.sort(np.random.RandomState(1).permutation(5)[:2])
    ]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([x["bytes"] for x in STRUCTS]),
        pa.array([x["bytes"] for x in STRUCTS], pa.large_binary()),
        pa.array([x["bytes"] for x in STRUCTS]).dictionary_encode(),
        pa.array(STRUCTS),
        pa.array(STRUCTS, pa.struct([("path", pa.string()), ("bytes", pa.binary())])),
        pa.array(STRUCTS, pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
        pa.array([{"bytes": x["bytes"]} for x in STRUCTS]),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_every_way_to_store_pictures(tmp_path, column, rows):
    pq.write_table(pa.table({"text": ["a"] * 5, "photo": column}), tmp_path / "x.parquet", row_group_size=rows)
    np.testing.assert_array_equal(pictures(open_source(tmp_path / "x.parquet")), IMAGES)


def test_the_column(tmp_path):
    path = table(tmp_path / "x.parquet", image=STRUCTS, other=STRUCTS[::-1], text=["a"] * 5)
    np.testing.assert_array_equal(pictures(open_source(path)), IMAGES)
    np.testing.assert_array_equal(pictures(open_source(path, column="other")), IMAGES[::-1])
    for column, said in (
        ("nothing", r"x\.parquet: has no column nothing; its columns are image, other, text"),
        ("text", r"x\.parquet: text: expected encoded pictures .*; got string"),
    ):
        with pytest.raises(ValueError, match=said):
            open_source(path, column=column)
    path = table(tmp_path / "y.parquet", a=STRUCTS, b=STRUCTS)
    with pytest.raises(ValueError, match=r"has several columns of pictures; its columns are a, b; --column NAME"):
        open_source(path)
    with pytest.raises(ValueError, match=r"has no column of pictures; its columns are a"):
        open_source(table(tmp_path / "z.parquet", a=[1]))
    features = datasets.Features({"photo": datasets.Image(), "sound": datasets.Value("binary")})
    rows = {"photo": [Image.fromarray(x) for x in IMAGES], "sound": [b"x"] * 5}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "f.parquet")
    np.testing.assert_array_equal(pictures(open_source(tmp_path / "f.parquet")), IMAGES)  # what is called an Image


def test_pictures_beside_the_file(tmp_path):
    (tmp_path / "in").mkdir()
    for i, x in enumerate(IMAGES):
        (tmp_path / f"in/{i}.png").write_bytes(encoded(x))
    rows = [{"bytes": None, "path": f"in/{i}.png"} for i in range(5)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = table(tmp_path / "x.parquet", image=pa.array(rows, kind))
    np.testing.assert_array_equal(pictures(open_source(path)), IMAGES)
    rows = [{"bytes": None, "path": p} for p in ("/etc/passwd", "../x.png", "in/../../x.png", None, "", "no.png")]
    items = list(open_source(table(tmp_path / "y.parquet", image=pa.array([*rows, None], kind))))
    said = ["is not a path of a file beside"] * 3 + ["has neither bytes nor a path"] * 2 + ["No such file"]
    for item, text in zip(items, [*said, "has neither bytes nor a path"], strict=True):
        with pytest.raises(ImageError, match=text):
            item.load()


def test_damaged_pictures_fail_in_their_turn(tmp_path):
    path = table(tmp_path / "x.parquet", image=[encoded(IMAGES[0]), b"", b"junk", None, encoded(IMAGES[4])])
    first, *broken, last = open_source(path)
    assert first.load().shape == last.load().shape == (6, 7, 3)
    for i, item in enumerate(broken):
        with pytest.raises(ImageError, match=rf"^{tmp_path}/x\.parquet\[{i + 1}\]: (cannot be read|has neither)"):
            item.load()
    items = list(open_source(table(tmp_path / "y.parquet", image=[bytes(2**20 + 9)]), max_pixels=1))
    with pytest.raises(ImageError, match=r"y\.parquet\[0\]: has 1048585 bytes; at most 1048584 are read"):
        items[0].load()


def test_files_and_folders(tmp_path):
    for part in range(2):
        name = f"train-{part:05}-of-00002.parquet"
        (tmp_path / "set/data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set/README.md").touch()
        table(
            tmp_path / "set/data" / name, image=STRUCTS[3 * part : 3 * part + 3], label=LABELS[3 * part : 3 * part + 3]
        )
    for obj in (
        tmp_path / "set/data",
        tmp_path / "set/data/*.parquet",
        tmp_path / "set/data/train-{00000..00001}-*.parquet",
    ):
        source = open_source(obj, labels="auto")
        np.testing.assert_array_equal(pictures(source), IMAGES)
        assert labels_of(source) == LABELS
        assert source.notes == []
    with pytest.raises(ValueError, match=r"no images found .*1 sub-folder not entered \(--recursive enters them\)"):
        open_source(tmp_path / "set")
    source = open_source(tmp_path / "set", recursive=True)
    assert len(source) == 5
    assert [str(note) for note in source.notes] == [f"{tmp_path}/set: 1 other file not read (.md)"]
    table(tmp_path / "set/data/test-00000-of-00001.parquet", image=STRUCTS)
    (note,) = open_source(tmp_path / "set/data").notes
    assert isinstance(note, SuspiciousInputWarning)
    assert str(note).endswith(
        f"several splits (test, train), which are all read; '{tmp_path}/set/data/test*.parquet' reads one"
    )
    (tmp_path / "set/data/x.png").write_bytes(encoded(IMAGES[0]))  # a folder of pictures is one
    assert len(open_source(tmp_path / "set/data")) == 1


def test_parquet_needs_a_package(tmp_path, monkeypatch):
    path = table(tmp_path / "x.parquet", image=STRUCTS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"x\.parquet: reading parquet needs pyarrow: pip install pyarrow"):
        open_source(path)


def test_pyarrow_is_not_imported_for_others():
    script = (
        "import sys; import numpy as np; from fastfid.sources import open_source\n"
        "list(open_source(np.zeros((2, 4, 4, 3), np.uint8)))\n"
        "assert not {'pyarrow', 'datasets'} & {name.partition('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_group_of_rows_is_not_read_at_once(tmp_path):
    """100 MB of pictures in one group of rows, which is how few files are written, take a part of this memory."""
    picture = np.random.default_rng(0).bytes(1_000_000)
    with pq.ParquetWriter(
        tmp_path / "x.parquet", pa.schema([("image", pa.binary())]), compression="none", use_dictionary=False
    ) as writer:
        writer.write_table(pa.table({"image": [picture] * 100}), row_group_size=100)
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 1
    script = (
        "import resource, sys; from fastfid.sources import open_source\n"
        "import pyarrow.parquet\n"
        "source = open_source(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(1 for item in source))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.parquet")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    images, growth = done.stdout.split()
    assert images == "100"
    assert int(growth) < 60


# Labels in files


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(LABELS, pa.int8()), LABELS),
        (pa.array(LABELS, pa.uint64()), LABELS),
        (pa.array(["b", "a", "b", "c", "a"]), ["b", "a", "b", "c", "a"]),
        (pa.array(["b", "a", "b", "c", "a"]).dictionary_encode(), ["b", "a", "b", "c", "a"]),
    ],
)
def test_labels_of_every_type(tmp_path, values, expected):
    source = open_source(table(tmp_path / "x.parquet", image=STRUCTS, label=values), labels="auto")
    assert labels_of(source) == expected
    assert source.class_names is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([2, None, 1, 1, 0], r"x\.parquet\[1\]: has no label"),
        ([2, 0, 1, -1, 0], r"x\.parquet\[3\]: has the label -1"),
        (["a", "", "b", "b", "c"], r"x\.parquet\[1\]: expected a label .*; got ''"),
        (["a", None, "b", "b", "c"], r"x\.parquet\[1\]: has no label"),
        ([2.0, 0, 1, 1, 0], r"x\.parquet: label: expected whole numbers or names as labels; got double"),
        ([True] * 5, r"x\.parquet: label: expected whole numbers or names as labels; got bool"),
        ([[1]] * 5, r"x\.parquet: label: expected whole numbers or names as labels; got list<"),
        ([None] * 5, r"x\.parquet: label: expected whole numbers or names as labels; got null"),
    ],
)
def test_labels_that_are_none(tmp_path, values, said):
    path = table(tmp_path / "x.parquet", image=STRUCTS, label=values)
    with pytest.raises(ValueError, match=said):
        open_source(path, labels="auto")


def test_a_long_name_that_comes_often_is_in_memory_once(tmp_path):
    """10 MB in the file, 100 GB as texts."""
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 10_000_000]))
    table(tmp_path / "x.parquet", image=pa.array([encoded(IMAGES[0])] * 10_000), label=rows)
    assert (tmp_path / "x.parquet").stat().st_size > 10_000  # a file has no more rows than bytes
    script = (
        "import resource, sys; import pyarrow.parquet; from fastfid.sources import open_source\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "source = open_source(sys.argv[1], labels='auto')\n"
        "print(sum(len(item.label) for item in source))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.parquet")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    letters, growth = done.stdout.split()
    assert letters == "100000000000"
    assert int(growth) < 400


def test_a_list_beside_the_bytes(tmp_path):
    path = table(tmp_path / "x.parquet", image=[{"bytes": encoded(x), "more": [1]} for x in IMAGES])
    with pytest.raises(ValueError, match=r"has no column of pictures; its columns are image"):
        open_source(path)


def test_columns_of_classes(tmp_path):
    classes = datasets.ClassLabel(names=NAMES)

    def written(**columns):
        features = datasets.Features({"image": datasets.Image(), **dict.fromkeys(columns, classes)})
        rows = {"image": [Image.fromarray(x) for x in IMAGES], **columns}
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "x.parquet")
        return tmp_path / "x.parquet"

    assert open_source(written(kind=LABELS), labels="auto").labels_from == "column kind"
    assert open_source(written(kind=LABELS, label=LABELS), labels="auto").labels_from == "column label"
    with pytest.raises(ValueError, match=r"several columns of classes \(coarse, fine\) and none called label"):
        open_source(written(coarse=LABELS, fine=LABELS), labels="auto")
    (said,) = open_source(table(tmp_path / "y.parquet", image=STRUCTS, kind=LABELS), labels="auto").notes
    assert "carries no labels" in str(said)
    data = pa.table({"image": STRUCTS, "label": [2, 0, 7, 1, 0]})
    written(label=LABELS)
    names = pq.read_schema(tmp_path / "x.parquet").metadata
    pq.write_table(data.replace_schema_metadata(names), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet\[2\]: has the label 7, but there are 3 classes"):
        open_source(tmp_path / "x.parquet", labels="auto")


@pytest.mark.parametrize("metadata", [b"", b"{", b"[" * 100_000, b"[]", b'{"info": 3}', b'{"info": {"features": []}}'])
def test_metadata_that_is_damaged_is_of_no_interest(tmp_path, metadata):
    data = pa.table({"image": STRUCTS, "label": LABELS}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(data, tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet", labels="auto")
    assert (labels_of(source), source.class_names) == (LABELS, None)


# Objects


@pytest.mark.parametrize("stream", [False, True])
def test_datasets(stream):
    data = dataset().to_iterable_dataset() if stream else dataset()
    source = open_source(data, labels="auto")
    np.testing.assert_array_equal(pictures(source), IMAGES)
    assert labels_of(source) == LABELS
    assert (source.labels_from, source.class_names) == ("column label", tuple(NAMES))
    assert labels_of(open_source(data)) == [None] * 5
    if stream:
        with pytest.raises(TypeError, match="the number of images is not known"):
            len(source)
    else:
        assert len(source) == 5
        chosen = np.sort(np.random.RandomState(4).permutation(5)[:2])
        assert labels_of(open_source(data, labels="auto", num=2, seed=4)) == [LABELS[i] for i in chosen]


@pytest.mark.parametrize("stream", [False, True])
def test_datasets_are_decoded_once(stream, monkeypatch):
    data = dataset().to_iterable_dataset() if stream else dataset()
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: pytest.fail("decoded by datasets"))
    np.testing.assert_array_equal(pictures(open_source(data)), IMAGES)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_user_does_with_a_dataset_is_kept(stream):
    data = dataset().to_iterable_dataset() if stream else dataset()
    flipped = data.map(lambda row: {"image": Image.fromarray(np.asarray(row["image"])[::-1])})
    np.testing.assert_array_equal(pictures(open_source(flipped)), IMAGES[:, ::-1])
    np.testing.assert_array_equal(pictures(open_source(data.with_format("numpy"), labels="auto")), IMAGES)
    grey = data.cast_column("image", datasets.Image(mode="L"))
    expected = [np.asarray(Image.fromarray(x).convert("L").convert("RGB")) for x in IMAGES]
    np.testing.assert_array_equal(pictures(open_source(grey, labels="auto")), expected)
    if not stream:
        shown = data.with_transform(lambda rows: {"image": [np.asarray(x)[::-1] for x in rows["image"]]})
        np.testing.assert_array_equal(pictures(open_source(shown)), IMAGES[:, ::-1])
    assert len(list(open_source(data.filter(lambda row: row["label"] == 1)))) == 2


def test_columns_of_datasets():
    data = dataset().rename_column("image", "photo")
    np.testing.assert_array_equal(pictures(open_source(data)), IMAGES)
    with pytest.raises(ValueError, match=r"Dataset: has no column image; its columns are photo, label"):
        open_source(data, column="image")
    with pytest.raises(ValueError, match=r"Dataset: has no column of pictures; its columns are label"):
        open_source(data.remove_columns("photo"))
    with pytest.raises(
        TypeError, match=r"expected one split of the dataset, such as dataset\['train'\]; got DatasetDict"
    ):
        open_source(datasets.DatasetDict(train=data))


def test_a_dataset_from_pictures_on_disk(tmp_path):
    for i, x in enumerate(IMAGES):
        (tmp_path / f"{i}.png").write_bytes(encoded(x))
    paths = [f"{tmp_path}/{i}.png" for i in range(5)]
    data = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    np.testing.assert_array_equal(pictures(open_source(data)), IMAGES)
