"""What is refused, with the words, where no test of the whole comes by: damaged files, states and arguments."""

import io
import json
import pickle
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

import fastfid
from fastfid import InputSpec, WeightsError, npz
from fastfid._files import open_regular
from fastfid.batches.fixed import fixed_from_state
from fastfid.compat.cleanfid import _kid, _readers
from fastfid.compat.cleanfid import features as cleanfid
from fastfid.compat.pytorch_fid import fid_score
from fastfid.features import onnx_file
from fastfid.features.known.export import export_known
from fastfid.features.weights import find_weights, torch_file
from fastfid.features.weights.known import MAX_BYTES
from fastfid.features.weights.state_dict import float32_array, unpickle
from fastfid.inspection import inspect_features
from fastfid.sources import open_source, pages
from fastfid.sources.arrays import check_value_range
from fastfid.sources.kept import SCHEMA, KeptLabels
from fastfid.sources.picture import DEFAULT_MAX_PIXELS
from fastfid.sources.samples import SampleLabels
from fastfid.study.reading import open_set

GAUSSIAN = {"mu": np.zeros(2), "sigma": np.eye(2)}


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ({"meta": {"protocol": 3}}, TypeError, r"state\['meta'\]\['protocol'\]: expected a string, got 3"),
        ({"name": 3}, TypeError, r"state\['name'\]: expected a string, got int"),
        ({"meta": 3}, TypeError, r"state\['meta'\]: expected a mapping, got int"),
        ({"spatial": {"spatial": {}}}, TypeError, "without a spatial part of its own"),
        ({"spatial": {"mu": np.zeros(2)}}, ValueError, r"state\['spatial'\]: state: the key 'sigma' is missing"),
    ],
)
def test_states_of_a_fixed_side(entry, error, said):
    assert fixed_from_state(GAUSSIAN).d == 2
    with pytest.raises(error, match=said):
        fixed_from_state(GAUSSIAN | entry)


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ({"mu": np.zeros(2, complex)}, ValueError, "mu: expected real numbers, got dtype complex128"),
        ({"n": np.ones(2, int)}, ValueError, r"n: expected one integer, got shape \(2,\) of int64"),
        ({"n": np.array(2.5)}, ValueError, r"n: expected one integer, got shape \(\) of float64"),
        ({"meta": np.array('{"extractor": 3}')}, ValueError, "meta: extractor: expected a string, got 3"),
        ({"meta": np.array("[" * 100_000)}, ValueError, "meta: expected a JSON object in a string"),
    ],
)
def test_files_of_statistics(tmp_path, entry, error, said):
    np.savez(tmp_path / "x.npz", **GAUSSIAN | entry)
    with pytest.raises(error, match=rf"x\.npz.*{said}"):
        fastfid.Statistics.load(tmp_path / "x.npz")


# Files of arrays


def header(dtype, shape="(2,)"):
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return io.BytesIO(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (header("[('a', '<f4')]"), r"^x: declares elements of dtype \[\('a', '<f4'\)\]; expected numbers or text"),
        (header("'|S0'"), "declares elements of dtype"),
        (header("'<f4'", "(-1, 2)"), r"declares an impossible shape \(-1, 2\)"),
        (header("'<f4'", str((1,) * 99)), r"declares an impossible shape \(1, 1, "),
    ],
)
def test_headers_of_arrays(stream, said):
    with pytest.raises(ValueError, match=said):
        npz.read_header(stream, "x")


def test_arrays_that_are_read_as_they_lie(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(100), b=np.arange(200))
    content = path.read_bytes()
    with npz.open_npz(str(path)) as archive:
        assert (archive.read_stored("b") == np.arange(200)).all()
        archive._archive.fp = io.BytesIO(content[: content.index(b"b.npy") + 300])
        with pytest.raises(ValueError, match=r"x\.npz: b: .*is cut short"):
            archive.read_stored("b")
        archive._archive.fp = io.BytesIO(bytes(len(content)))
        with pytest.raises(ValueError, match=r"x\.npz: b: .*has no header"):
            archive.read_stored("b")
        archive._archive.getinfo("a.npy").flag_bits |= 1
        with pytest.raises(ValueError, match=r"x\.npz: a: is encrypted"):
            archive.read("a", 10_000)
    np.savez_compressed(path, a=np.arange(100))
    with npz.open_npz(str(path)) as archive, pytest.raises(ValueError, match=r"x\.npz: a: .*is compressed"):
        archive.read_stored("a")


@pytest.mark.parametrize("order", "<>")
def test_texts_of_numbers_that_are_no_characters(tmp_path, order):
    """They became a SystemError of Python, when they were read as text."""
    codes = np.array([ord("a"), 0x110000, ord("b"), ord("c")], np.dtype(np.uint32).newbyteorder(order))
    path = tmp_path / "x.npz"
    np.savez(path, bad=codes.view(f"{order}U2"), sound=codes[2:].view(f"{order}U2"), empty=np.empty(0, "U2"))
    with npz.open_npz(str(path)) as archive:
        for read in (archive.read_stored, lambda key: archive.read(key, 1000)):
            assert (read("sound").tolist(), read("empty").tolist()) == (["bc"], [])
            with pytest.raises(ValueError, match=r"x\.npz: bad: .*has a text with the number 0x110000"):
                read("bad")


def test_memory_that_is_not_there_is_said_of_the_file():
    with pytest.raises(MemoryError, match=r"^x: not enough memory to read it"), npz._naming("x", "damaged"):
        raise MemoryError


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (pages._I32, b"\xff" * 20, "a number in a header does not end"),
        (pages._MAP, b"\xff\xff\xff\xff\x7f", "a header has a map of 34359738367 elements"),
        (pages._LIST, b"\xf5\xff\xff\xff\xff\x7f", "a header has a list of 34359738367 elements"),
        (pages._LIST, b"\x29\x19\x19" * 50, "a header nests too deep"),
        (pages._STRUCT, b"\x1f", "a header has a value of the unknown type 15"),
        (pages._BYTE, b"", "a header goes beyond its end"),
    ],
)
def test_headers_of_parquet_pages(kind, data, said):
    """Bytes are of Thrift's compact protocol."""
    with pytest.raises(ValueError, match=said):
        pages._skip(io.BytesIO(data), kind, 0)


def test_values_in_headers_of_parquet_pages_are_skipped_whole():
    """A map of two bytes to doubles, a list of two booleans, and a struct with a double."""
    for kind, data in (
        (pages._MAP, b"\x02\x37" + b"\1" + bytes(8) + b"\2" + bytes(8)),
        (pages._MAP, b"\0"),
        (pages._LIST, b"\x21\1\2"),
        (pages._STRUCT, b"\x17" + bytes(8) + b"\0"),
    ):
        file = io.BytesIO(data + b"next")
        pages._skip(file, kind, 0)
        assert file.read() == b"next"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": []}, "holds no labels"),
        ({"classes": ["b", "a"]}, "holds no labels"),
        ({"codes": [0, 2]}, "holds no labels"),
        ({"codes": [0]}, "has 1 labels of 2 images"),
        ({"classes": [1, 7], "class_names": ["a"]}, "has the label 7 of 1 classes"),
        ({"schema": 99}, "is no file of labels of this version"),
        (None, "nests too deep"),
    ],
)
def test_labels_kept_in_a_store(change, said):
    sound = {"schema": SCHEMA, "classes": ["a", "b"], "class_names": None, "codes": [0, 1]}
    assert KeptLabels.from_json(json.dumps(sound).encode(), 2).classes == ("a", "b")
    data = b"[" * 100_000 if change is None else json.dumps(sound | change).encode()
    with pytest.raises(ValueError, match=said):
        KeptLabels.from_json(data, 2)


def test_a_sample_of_a_tar_with_two_files_of_one_kind():
    found = SampleLabels("x.tar")
    found.add("a.cls", 1, lambda: b"1", is_picture=False)
    with pytest.raises(ValueError, match=r"x\.tar/a\.cls: comes twice in one sample"):
        found.add("a.cls", 1, lambda: b"1", is_picture=False)


# Checkpoints

STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\2tQ"
REBUILD = b"\x80\2ctorch._utils\n_rebuild_tensor_v2\n("


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\2t.", "a mark is missing"),
        (b"\x80\2(\x85.", "a mark stands where a value is needed"),
        (b"\x80\2K\1Q.", "a persistent id that names no storage"),
        (b"\x80\2\x85.", "its stack is empty"),
        (REBUILD + b"K\1K\0K\2\x85K\1\x85tR.", "a tensor without a storage"),
        (REBUILD + STORAGE + b"K\0K\2K\1\x85tR.", "a tensor whose offset, size or stride are no integers"),
    ],
)
def test_pickles_that_are_no_state_dict(data, said):
    with pytest.raises(pickle.UnpicklingError, match=said):
        unpickle(io.BytesIO(data))


@pytest.mark.parametrize(
    ("files", "method", "said"),
    [
        ({"a/data.pkl": b"\x80\2}."}, zipfile.ZIP_DEFLATED, r"a/data\.pkl: expected an uncompressed member"),
        ({"a/data.pkl": b"\x80\2}.", "a/byteorder": b"big"}, zipfile.ZIP_STORED, "expected little-endian tensors"),
    ],
)
def test_zips_that_torch_did_not_write(files, method, said):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        members = {info.filename: info for info in archive.infolist()}
    with pytest.raises(WeightsError, match=said):
        torch_file.zip_state(buffer.getvalue(), members, "a")


def test_tensors_whose_storage_is_missing_or_too_short():
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\2}.")
        members = {info.filename: info for info in archive.infolist()}
    state, storage_bytes = torch_file.zip_state(buffer.getvalue(), members, "a")
    assert state == {}
    with pytest.raises(WeightsError, match="storage '7' is missing"):
        storage_bytes("7")
    np.testing.assert_array_equal(float32_array(np.arange(4, dtype=np.float32).tobytes(), (1, 2), 2), [[2, 3]])
    for shape, offset in (((2, 2), 1), ((1,), -1), ((-1,), 0)):
        with pytest.raises(
            WeightsError, match=r"a tensor of shape .* at offset -?\d does not fit its storage of 16 by"
        ):
            float32_array(bytes(16), shape, offset)


@pytest.mark.parametrize(("offset", "size"), [(3_053_453_528, 4), (3_053_453_528, 0), (-60, 4), (0, 100)])
def test_members_that_lie_outside_of_a_zip_file(offset, size):
    """The directory at the end of the file says where members begin, and a damaged one says anything."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data/0", b"1234")
        [info] = archive.infolist()
    assert bytes(torch_file.stored_member(buffer.getvalue(), info)) == b"1234"
    info.header_offset, info.file_size = offset, size
    with pytest.raises(WeightsError, match="a/data/0: lies outside of the file"):
        torch_file.stored_member(buffer.getvalue()[:100], info)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((1,), "expected torch's magic number"),
        ((torch.serialization.MAGIC_NUMBER, 1000, {"little_endian": True}), "file of torch's format 1001"),
        ((torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": False}), "file of torch's format 1001"),
        ((torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True}, [], []), "expected a state dict"),
        (
            (torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True}, {}, ["0"]),
            "storage '0': expected FloatStorage or LongStorage, got None",
        ),
    ],
)
def test_files_of_an_old_torch(values, said):
    with pytest.raises(WeightsError, match=said):
        torch_file.legacy_state(b"".join(pickle.dumps(value, 2) for value in values))


def test_a_file_that_is_too_large_for_these_weights(tmp_path):
    with (tmp_path / "x.pth").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(WeightsError, match=rf"has {MAX_BYTES + 1} bytes; files of these weights have about 95 million"):
        find_weights(tmp_path / "x.pth")


# Networks


def test_a_known_extractor_becomes_an_onnx_file():
    with pytest.raises(ValueError, match=r"x\.pth: expected a file whose name ends in \.onnx"):
        export_known("dinov2-vits14", "checkpoint.pth", "x.pth")


def test_a_network_of_two_inputs(tmp_path):
    make = onnx.helper.make_tensor_value_info
    inputs = [make(name, onnx.TensorProto.FLOAT, ["n", 3, 8, 8]) for name in ("x", "y")]
    node = onnx.helper.make_node("Add", ["x", "y"], ["z"])
    graph = onnx.helper.make_graph([node], "g", inputs, [make("z", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"expected one input, .*, got 2: .*Make the others constants of the graph"):
        fastfid.OnnxExtractor(tmp_path / "x.onnx", InputSpec((8, 8)))


def test_a_number_in_an_onnx_file_that_has_no_end():
    for data, found in ((b"\x05", (5, 1)), (b"\x80\x01", (128, 2)), (b"\xff" * 12, (0, 12)), (b"\x80", (0, 1))):
        assert onnx_file._varint(memoryview(data), 0) == found


def test_a_module_on_two_devices(monkeypatch):
    there = [SimpleNamespace(device=torch.device(name)) for name in ("cpu", "cuda:0")]
    monkeypatch.setattr("fastfid.features.torch_model._tensors", lambda module: there)
    with pytest.raises(ValueError, match="module: has tensors on cpu, cuda:0: expected one device"):
        fastfid.TorchExtractor(torch.nn.Identity().eval(), InputSpec((8, 8)))


# The drop-in replacements


def test_arguments_of_cleanfid(tmp_path):
    with pytest.raises(ValueError, match=r"feats: expected shapes \(n1, d\) and \(n2, d\), got \(2, 3\) and \(2, 4\)"):
        _kid.kernel_distance(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="metric: expected FID or KID, got 'IS'"):
        cleanfid.stats_path("x", "clean", "train", 32, metric="IS", stats_folder=tmp_path)
    np.savez(tmp_path / "x.npz", mu=np.zeros(2))
    with pytest.raises(ValueError, match=r"x\.npz: expected features under the key 'feats', got mu"):
        cleanfid._load_features(tmp_path / "x.npz")


def test_an_array_that_is_cut_short_for_cleanfid(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 4, 3), np.uint8))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-5])
    with pytest.raises(fastfid.ImageError, match=r"x\.npy: has 43 bytes of data, its header declares 48"):
        _readers._ArrayItem(str(tmp_path / "x.npy")).load()


def test_arrays_that_are_not_read_for_cleanfid(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**16, 2**16, 3)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(fastfid.ImageError, match=rf"x\.npy: has {2**32} pixels; at most {DEFAULT_MAX_PIXELS}"):
        _readers._ArrayItem(str(tmp_path / "x.npy")).load()
    with pytest.raises(fastfid.ImageError, match=r"y\.npy: No such file or directory"):
        _readers._ArrayItem(str(tmp_path / "y.npy")).load()


def test_no_files_for_pytorch_fid():
    with pytest.raises(ValueError, match="files: there are none"):
        fid_score.get_activations([], None)


# Arguments


def test_arguments(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.zip: is no statistics file; --add-reference names the numbers of one"):
        inspect_features(str(tmp_path / "x.zip"), add_reference="mine")
    with pytest.raises(ValueError, match="value_range: expected two finite numbers, the first the smaller"):
        check_value_range((1, 0))
    with pytest.raises(ValueError, match=r"value_range: expected \(low, high\), such as \(-1, 1\); got '01'"):
        check_value_range("01")
    with pytest.raises(TypeError, match="match: expected a pattern, got 3"):
        open_source(tmp_path, match=3)
    np.savez(tmp_path / "x.npz", **GAUSSIAN)
    with pytest.raises(ValueError, match="holds statistics or features, and images are needed here"):
        open_set(str(tmp_path / "x.npz"), {})


def test_a_device_is_no_file():
    with pytest.raises(ValueError, match="/dev/null: is not a regular file; copy what it gives into one"):
        open_regular("/dev/null")
