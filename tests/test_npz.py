"""Reading of untrusted NumPy files."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from fastfid import npz


def member(path, key, max_bytes=1 << 20):
    with npz.open_npz(path) as archive:
        return archive.read(key, max_bytes)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, c=np.arange(6.0).reshape(2, 3), f=np.asfortranarray(np.arange(6).reshape(2, 3)), s=np.array("text"))
    return path


def test_reads_what_numpy_wrote(saved):
    with np.load(saved) as truth:
        for key in truth:
            np.testing.assert_array_equal(member(saved, key), truth[key])
    with npz.open_npz(saved) as archive:
        assert archive.names == ["c", "f", "s"]


def test_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "o.npz"
    np.savez(path, o=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"o\.npz: o: holds Python objects"):
        member(path, "o")


def write_member(path, header: bytes, data: bytes = b""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header + data)


def npy_header(text: str) -> bytes:
    body = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"junk", b"", "not a NumPy array file"),
        (npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n"), b"\0" * 15, "declares 16 bytes"),
        (npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n"), b"\0" * 17, "but has more"),
        (
            npy_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({1 << 62}, {1 << 62})}}\n"),
            b"",
            "declares shape",
        ),
        (npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}\n"), b"", "impossible shape"),
        (npy_header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}\n"), b"", "not a NumPy array file"),
        (npy_header("__import__('os').system('true')\n"), b"", "not a NumPy array file"),
    ],
)
def test_bad_headers_are_refused(tmp_path, header, data, message):
    path = tmp_path / "bad.npz"
    write_member(path, header, data)
    with pytest.raises(ValueError, match=message) as caught:
        member(path, "x")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", pickle.dumps({})])
def test_not_an_archive(tmp_path, content):
    path = tmp_path / "no.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no\.npz: not a readable \.npz file"):
        member(path, "x")


def test_damaged_member(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).random(1000))
    data = bytearray(buffer.getvalue())
    data[200:260] = b"\xff" * 60
    path = tmp_path / "damaged.npz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged\.npz: x: cannot be read from the archive"):
        member(path, "x")


def test_stored_arrays_are_read_in_one_pass(tmp_path):
    arrays = {
        "a": np.arange(24.0).reshape(4, 6),
        "b": np.array(3),
        "c": np.empty((0, 5), np.float32),
        "d": np.array("x"),
    }
    np.savez(tmp_path / "stored.npz", **arrays)
    np.savez(tmp_path / "fortran.npz", a=np.asfortranarray(arrays["a"]))
    np.savez_compressed(tmp_path / "compressed.npz", **arrays)
    with npz.open_npz(tmp_path / "stored.npz") as archive:
        for name, array in arrays.items():
            found = archive.read_stored(name)
            assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        with pytest.raises(ValueError, match="has no array e"):
            archive.read_stored("e")
    for name in ("fortran", "compressed"):
        with npz.open_npz(tmp_path / f"{name}.npz") as archive, pytest.raises(ValueError, match=rf"{name}\.npz: a: "):
            archive.read_stored("a")


def test_damage_before_the_data_of_a_stored_array_names_the_file(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(24.0))
    sound = (tmp_path / "x.npz").read_bytes()
    said = []
    for at in range(0, 250, 3):
        data = bytearray(sound)
        data[at] ^= 0x41
        (tmp_path / "x.npz").write_bytes(data)
        try:
            with npz.open_npz(tmp_path / "x.npz") as archive:
                archive.read_stored("a")
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all(text.startswith(f"{tmp_path}/x.npz: ") for text in said)
