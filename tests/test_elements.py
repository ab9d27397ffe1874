"""Elements of Datasets, loaders and iterables: pairs, dicts and labels; float images, beside torch's own arithmetic."""

import numpy as np
import pytest
import torch
from PIL import Image
from stubs import GridMeans

from fastfid import compute_fid, compute_statistics
from fastfid.options import SourceOptions
from fastfid.sources import open_source
from fastfid.sources.arrays import make_scale
from fastfid.sources.device import _to_uint8

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 0]
TENSORS = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).contiguous()


def pictures(source):
    return np.stack([item.load() for item in source])


def labels_of(source):
    return [item.label for item in source]


class Map(torch.utils.data.Dataset):
    """A map-style Dataset, which has no end but by its length."""

    def __init__(self, element, classes=None):
        self._element = element
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return self._element(index)


ELEMENTS = {
    "pillow": lambda i: (Image.fromarray(IMAGES[i]), LABELS[i]),
    "tensor": lambda i: (TENSORS[i], torch.tensor(LABELS[i])),
    "array": lambda i: (IMAGES[i], np.int64(LABELS[i])),
    "list": lambda i: [IMAGES[i], LABELS[i]],
    "batch": lambda i: (TENSORS[i : i + 1], torch.tensor(LABELS[i : i + 1])),
    "image": lambda i: {"image": Image.fromarray(IMAGES[i]), "label": LABELS[i]},
    "pixel_values": lambda i: {"pixel_values": TENSORS[i], "labels": torch.tensor(LABELS[i]), "text": "x"},
    "img": lambda i: {"img": IMAGES[i : i + 1], "label": [LABELS[i]]},
    "pillow in a list": lambda i: {"image": [Image.fromarray(IMAGES[i])], "label": [LABELS[i]]},
}


@pytest.mark.parametrize("kind", ELEMENTS)
def test_elements_with_labels(kind):
    element = ELEMENTS[kind]
    for make in (lambda: Map(element), lambda: [element(i) for i in range(5)], lambda: map(element, range(5))):
        source = open_source(make(), labels="auto")
        np.testing.assert_array_equal(pictures(source), IMAGES)
        assert labels_of(open_source(make(), labels="auto")) == LABELS
        assert source.labels_from == "elements"
        plain = open_source(make())
        assert not plain.has_labels
        assert labels_of(plain) == [None] * 5
    assert len(open_source([element(i) for i in range(5)])) == 5


@pytest.mark.parametrize("kind", ["tensor", "array", "pixel_values"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_loaders(kind, size):
    loader = torch.utils.data.DataLoader(Map(ELEMENTS[kind]), batch_size=size)
    source = open_source(loader, labels="auto")
    np.testing.assert_array_equal(pictures(source), IMAGES)
    assert labels_of(source) == LABELS  # a loader may be read again
    np.testing.assert_array_equal(pictures(open_source(loader)), IMAGES)


def test_a_loader_of_two_images_and_labels():
    """Two labels beside two images, and two images, are different things."""
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(TENSORS[:2], torch.tensor([3, 4])), batch_size=2
    )
    assert labels_of(open_source(loader, labels="auto")) == [3, 4]
    assert len(list(open_source([[IMAGES[0], IMAGES[1]]]))) == 2


def test_names_of_classes():
    names = ["cat", "dog", "emu"]
    source = open_source(Map(ELEMENTS["tensor"], names), labels="auto")
    assert source.class_names == tuple(names)
    loader = torch.utils.data.DataLoader(Map(ELEMENTS["tensor"], names), batch_size=2)
    assert open_source(loader, labels="auto").class_names == tuple(names)
    with pytest.raises(ValueError, match=r"Map: image 0: has the label 2, but there are 2 classes"):
        labels_of(open_source(Map(ELEMENTS["tensor"], names[:2]), labels="auto"))
    by_name = [(IMAGES[i], names[LABELS[i]]) for i in range(5)]
    assert labels_of(open_source(by_name, labels="auto")) == [names[label] for label in LABELS]


def test_elements_without_labels_are_read_all_the_same():
    calls = []

    def produce():
        for image in IMAGES:
            calls.append(1)
            yield image

    source = open_source(produce(), labels="auto")
    assert len(calls) == 1  # the first element says it
    assert not source.has_labels
    np.testing.assert_array_equal(pictures(source), IMAGES)
    assert "carries no labels" in str(source.notes[0])
    assert labels_of(open_source(iter([]), labels="auto")) == []


def test_callables_with_labels():
    calls = iter(range(100))

    def generate():
        i = next(calls)
        return TENSORS[i : i + 2], torch.tensor(LABELS[i : i + 2])

    assert labels_of(open_source(generate, labels="auto", num=3)) == [2, 0, 0]
    assert next(calls) == 2  # no call more than needed


@pytest.mark.parametrize(
    ("elements", "error", "said"),
    [
        ([(IMAGES[0], 1), IMAGES[1]], ValueError, r"list: image 1: has no label, but the first element has"),
        ([(IMAGES[:2], [1])], ValueError, r"list: image 1: has no label"),
        ([(IMAGES[:2], [1, 2, 3])], ValueError, r"list: image 0: has more labels than the 2 images of its element"),
        ([(IMAGES[0], 1), (IMAGES[1], -1)], ValueError, r"list: image 1: has the label -1"),
        (
            [(IMAGES[0], 1), (IMAGES[1], "x")],
            ValueError,
            r"list: image 1: has the label 'x', but the labels before are",
        ),
        ([{"image": IMAGES[0], "label": 1.5}], ValueError, r"list: image 0: expected a label .*; got 1\.5"),
        (
            [{"image": IMAGES[0], "img": IMAGES[0]}],
            TypeError,
            r"list: has images under 'image' and 'img'; column= takes",
        ),
        ([{"picture": IMAGES[0]}], TypeError, r"got dict with 'picture' \(column= names the key of the images"),
        (
            [(IMAGES[0], np.zeros((2, 2)))],
            TypeError,
            r"list: image 1: expected images, .*a pair is \(images, labels\)",
        ),
        ([(IMAGES[0], True)], TypeError, r"list: image 1: expected uint8 images, .*got bool"),
    ],
)
def test_elements_that_do_not_fit(elements, error, said):
    with pytest.raises(error, match=said):
        [item.load() for item in open_source(elements, labels="auto")]


def test_the_key_of_images():
    rows = [{"image": IMAGES[i], "img": IMAGES[4 - i]} for i in range(5)]
    np.testing.assert_array_equal(pictures(open_source(rows, column="img")), IMAGES[::-1])


# Float images


SIGNED = torch.rand(3, 3, 8, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
SIGNED[0, 0, 0, :3] = torch.tensor([-1.0, 1.0, 0.0])
# Every grey level, as x / 127.5 - 1, on which generators are trained: floor needs the arithmetic of float32 here.
LEVELS = (torch.arange(256, dtype=torch.float32).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)) / 127.5 - 1
# As the scripts write it that samples come from.
SCRIPTS = {
    "floor-127.5": lambda x: ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8),
    "floor-128": lambda x: torch.clamp(127.5 * x + 128.0, 0, 255).to(torch.uint8),
}
UNIT = {
    "truncate": lambda x: (x * 255).byte(),
    "round": lambda x: (x.double() * 255).round().to(torch.uint8),
}


def hwc(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("rule", [*SCRIPTS, *UNIT])
def test_rules_are_those_of_the_scripts(rule, dtype, tmp_path):
    images = [x.to(dtype) for x in (SIGNED, LEVELS)]
    if rule in UNIT:
        images = [(x + 1) / 2 for x in images]
    for x in images:
        expected = hwc({**SCRIPTS, **UNIT}[rule](x))
        np.save(tmp_path / "x.npy", x.numpy())
        np.savez(tmp_path / "x.npz", x.numpy())
        for obj in (x, x.numpy(), list(x), [x], tmp_path / "x.npy", tmp_path / "x.npz"):
            np.testing.assert_array_equal(pictures(open_source(obj, to_uint8=rule)), expected)
        scale = make_scale(None, rule)
        np.testing.assert_array_equal(hwc(_to_uint8(x, scale)), expected)  # what a device computes


def test_the_rules_differ():
    found = {rule: pictures(open_source(SIGNED, to_uint8=rule)).astype(int) for rule in SCRIPTS}
    difference = found["floor-128"] - found["floor-127.5"]
    assert set(np.unique(difference)) == {0, 1}
    assert 0.4 < difference.mean() < 0.6  # half a level


def test_the_rule_with_a_range():
    x = SIGNED.numpy()
    rounded = pictures(open_source(x, value_range=(-1, 1)))
    np.testing.assert_array_equal(pictures(open_source(x, value_range=(-1, 1), to_uint8="round")), rounded)
    cut = pictures(open_source(x, value_range=(-1, 1), to_uint8="truncate"))
    np.testing.assert_array_equal(cut, hwc(((SIGNED + 1) * (255 / 2)).to(torch.uint8)))
    np.testing.assert_array_equal(pictures(open_source(IMAGES, to_uint8="truncate")), IMAGES)  # uint8 is uint8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to_uint8": "floor"}, r"to_uint8: expected 'round', 'truncate', 'floor-127\.5', 'floor-128'; got 'floor'"),
        (
            {"to_uint8": "floor-128", "value_range": (0, 1)},
            r"to_uint8: 'floor-128' is of values in -1\.\.1; got value_r",
        ),
        ({"to_uint8": "round"}, r"has values from -1 to 1, outside of value_range=\(0, 1\)"),
        ({"to_uint8": "truncate"}, r"has values from -1 to 1, outside of value_range=\(0, 1\)"),
    ],
)
def test_rules_that_do_not_fit(options, said):
    with pytest.raises(ValueError, match=said):
        pictures(open_source(SIGNED, **options))


@pytest.mark.parametrize("rule", SCRIPTS)
@pytest.mark.parametrize("value", [1.01, -1.01, float("nan"), float("inf")])
def test_values_outside_are_not_cut_off_in_silence(rule, value):
    x = SIGNED.clone()
    x[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"outside of value_range=\(-1, 1\)|NaN or infinite"):
        pictures(open_source(x, to_uint8=rule))
    with pytest.raises(ValueError, match=r"outside of value_range=\(-1, 1\)"):
        _to_uint8(x, make_scale(None, rule))


def test_without_a_rule_floats_are_refused():
    with pytest.raises(TypeError, match=r"expected uint8 images .* got float32; its values go from -1 .*to_uint8="):
        open_source(SIGNED)
    with pytest.raises(TypeError, match=r"list: image 0: expected uint8 images .* got float32"):
        pictures(open_source([(SIGNED[0], 3)]))


def test_the_record_has_the_rule():
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    record = compute_fid(x, 1 - x, extractor=GridMeans(), to_uint8="truncate", return_info=True)
    assert record["options"]["to_uint8"] == "truncate"
    assert set(record["options"]) >= set(SourceOptions.__annotations__) - {"num", "seed"}


def test_statistics_say_which_rule_made_grey_levels():
    statistics = compute_statistics(SIGNED, extractor=GridMeans(), to_uint8="floor-128")
    assert statistics.meta["to_uint8"] == "floor-128"
    assert "to_uint8" not in compute_statistics(IMAGES, extractor=GridMeans()).meta
