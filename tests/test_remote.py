"""Files at URLs: a server of this process, which breaks connections, refuses parts, or has no such file."""

import errno
import io
import re
import sys
import threading
import zipfile

import fsspec.implementations.memory
import numpy as np
import pytest
from remote_files import IMAGES, SOURCES, encoded, files, pictures, serving
from stubs import GridMeans

from fastfid import Statistics, _remote, cli, compute_fid, compute_statistics
from fastfid.errors import FastfidWarning
from fastfid.sources import is_statistics_file, open_source


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_remote, "_DELAYS_S", (0.0,) * 4)
    with serving(files()) as found:
        yield found


@pytest.mark.parametrize("name", SOURCES)
def test_every_format(server, name):
    source = open_source(f"{server.url}/{name}", labels="auto")
    np.testing.assert_array_equal(pictures(source), IMAGES)
    if name != "x.npy":
        assert [item.label for item in source] == [0, 1, 2, 3]
    assert all(item.name.startswith(f"{server.url}/{name}") for item in source)


@pytest.mark.parametrize("name", SOURCES)
def test_a_connection_that_breaks_in_the_middle(server, name):
    server.breaks = 3
    np.testing.assert_array_equal(pictures(open_source(f"{server.url}/{name}")), IMAGES)
    assert server.breaks == 0


@pytest.mark.parametrize("name", SOURCES)
def test_a_connection_that_breaks_every_time(server, name):
    server.breaks = 10**9
    with pytest.raises(ValueError, match=rf"{name}: .*\(cannot be read \(.*not completed"):
        open_source(f"{server.url}/{name}")
    server.breaks = 0
    source = open_source(f"{server.url}/{name}")
    server.breaks = 10**9
    with pytest.raises((OSError, ValueError), match=rf"{name}.*cannot be read|cannot be read.*{name}"):
        [item.load() for item in source]


@pytest.mark.parametrize("name", SOURCES)
def test_a_server_that_gives_no_parts(server, name):
    server.has_ranges = False
    with pytest.raises(
        OSError, match=rf"the server gives no parts of files \(HTTP ranges\); download it first.*{name}"
    ):
        open_source(f"{server.url}/{name}")


def test_only_parts_are_read(server, monkeypatch):
    """Of a large zip, what is not asked for is not fetched."""
    monkeypatch.setattr(_remote, "_BLOCK_BYTES", 2**16)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("0.png", encoded(IMAGES[0]))
        archive.writestr("1.bin", bytes(20_000_000))
        archive.writestr("2.png", encoded(IMAGES[1]))
    server.files["large.zip"] = buffer.getvalue()
    np.testing.assert_array_equal(pictures(open_source(f"{server.url}/large.zip")), IMAGES[:2])
    assert sum(last - first + 1 for first, last in server.requests) < 1_000_000


def test_threads_read_at_once(server):
    items = list(open_source(f"{server.url}/x.tar")) * 5
    found = [None] * len(items)

    def work(start):
        for i in range(start, len(items), 4):
            found[i] = items[i].load()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.stack(found), np.concatenate([IMAGES] * 5))


def test_shards_and_queries(server):
    server.files |= {f"{i}.tar": server.files["x.tar"] for i in range(3)}
    assert len(open_source(f"{server.url}/{{0..2}}.tar")) == 12
    assert len(open_source([f"{server.url}/0.tar", f"{server.url}/x.zip"])) == 8
    assert len(open_source(f"{server.url}/x.tar?download=true")) == 4


def test_what_is_not_there(server):
    with pytest.raises(FileNotFoundError, match=r"No such file .*y\.zip"):
        open_source(f"{server.url}/y.zip")
    server.status = 403
    with pytest.raises(OSError, match=r"access is denied \(403.*x\.zip"):
        open_source(f"{server.url}/x.zip")
    with pytest.raises(ValueError, match=r"expected a folder, or a file that ends in"):
        open_source(f"{server.url}/folder")
    with pytest.raises(ValueError, match=r"nosuch://x/y\.zip: Protocol not known: nosuch"):
        open_source("nosuch://x/y.zip")


def test_a_server_that_is_not_there(server):
    with pytest.raises(OSError, match=r"cannot be read .*x\.zip"):
        open_source("http://127.0.0.1:1/x.zip")


@pytest.mark.parametrize("name", SOURCES)
def test_a_server_that_does_not_answer(server, name, monkeypatch):
    monkeypatch.setattr(_remote, "_ANSWER_S", 0.2)
    source = open_source(f"{server.url}/{name}")
    server.may_answer.clear()
    with pytest.raises(OSError, match=rf"cannot be read \(.*{name}"):
        [item.load() for item in source]
    with pytest.raises(OSError, match=rf"cannot be read \(.*{name}"):
        open_source(f"{server.url}/{name}?again")


def test_a_file_that_changes(server):
    source = open_source(f"{server.url}/x.zip")
    server.tag = '"2"'
    with pytest.raises(ValueError, match=r"x\.zip: has changed since it was listed"):
        list(source)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://bucket/x.zip", "s3fs"),
        ("gs://bucket/x.tar", "gcsfs"),
        ("hf://datasets/someone/set/x.parquet", "huggingface_hub"),
        ("https://host/x.zip", "aiohttp"),
    ],
)
def test_packages_that_are_missing(monkeypatch, capsys, url, package):
    monkeypatch.setitem(sys.modules, package, None)
    sentence = f"{url}: needs {package}: pip install {package}"
    with pytest.raises(ImportError, match=f"^{re.escape(sentence)}$"):
        open_source(url)
    assert cli.main(["inspect", url]) == 1
    assert capsys.readouterr().err == f"fastfid: error: {sentence}\n"
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImportError, match=rf"^{re.escape(url)}: reading URLs needs fsspec: pip install fsspec"):
        open_source(url)


def test_a_package_that_is_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "gcsfs.py").write_text("import a_module_that_gcsfs_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"^gs://bucket/x\.zip: No module named 'a_module_that_gcsfs_needs'$"):
        open_source("gs://bucket/x.zip")


def test_credentials_that_are_missing():
    class NoCredentialsError(Exception):
        """As botocore's, which s3fs lets through."""

    def request():
        raise NoCredentialsError("Unable to locate credentials")

    with pytest.raises(
        PermissionError, match=r"credentials are missing \(Unable to locate credentials\).*s3://b/x\.zip"
    ):
        _remote.persistently("s3://b/x.zip", request)


def test_patterns_of_stores(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.zip").write_bytes(files()["x.zip"])
    source = open_source(f"file://{tmp_path}/*.zip")
    assert [item.name for item in source][::4] == [f"file://{tmp_path}/{name}.zip/0.png" for name in ("a", "b")]
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_source(f"file://{tmp_path}/*.tar")


def test_statistics_at_a_url(server):
    url = f"{server.url}/s.npz"
    assert is_statistics_file(url)
    assert not is_statistics_file(f"{server.url}/x.npz")
    assert Statistics.load(url).n == 20
    with pytest.warns(FastfidWarning, match="says its protocol"):
        assert compute_fid(url, url, force=True) == 0
    assert compute_statistics(f"{server.url}/x.npy", extractor=GridMeans()).n == 4


class Unsound(fsspec.implementations.memory.MemoryFileSystem):
    """Files in memory, of which something is wrong."""

    protocol = "unsound"
    wrong = ""

    def info(self, path, **_):
        found = {"name": path, "type": "file", "size": 9}
        return found | {"folder": {"type": "directory"}, "no size": {"size": None}}.get(self.wrong, {})

    def open(self, path, *_, **__):
        return io.BytesIO(b"short" if self.wrong == "short" else b"9 letters")

    @classmethod
    def _strip_protocol(cls, path):
        return path


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("folder", IsADirectoryError, r"Is a directory: 'unsound://x\.zip'"),
        ("no size", ValueError, r"unsound://x\.zip: the server does not say how large the file is; download it first"),
        ("short", OSError, r"cannot be read \(0 bytes came of 1\): 'unsound://x\.zip'"),
    ],
)
def test_file_systems_that_say_too_little(monkeypatch, wrong, error, said):
    monkeypatch.setattr(_remote, "_DELAYS_S", (0.0,) * 4)
    fsspec.register_implementation("unsound", Unsound, clobber=True)
    monkeypatch.setattr(Unsound, "wrong", wrong)
    with pytest.raises(error, match=said):
        _remote.known_file("unsound://x.zip")
    monkeypatch.setattr(Unsound, "wrong", "")
    with _remote.known_file("unsound://x.zip").open() as file:
        assert file.read() == b"9 letters"
        with pytest.raises(OSError, match="Invalid argument"):
            file.seek(-10, io.SEEK_END)
    file.close()


def test_memory_that_is_not_there_is_not_asked_for_again():
    asked = []

    def request():
        asked.append(1)
        raise MemoryError

    with pytest.raises(MemoryError):
        _remote.persistently("https://host/x.zip", request)
    assert len(asked) == 1


class FileExpired(OSError):
    """As s3fs calls a version of a file that is not there any more."""


class ClientError(Exception):
    """As botocore's, which has the server's answer."""

    def __init__(self, status):
        super().__init__(f"an error occurred ({status})")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "number", "said"),
    [
        (FileExpired("gone"), errno.ESTALE, "has changed since it was listed"),
        (ClientError(404), errno.ENOENT, "No such file or directory"),
        (ClientError(403), errno.EACCES, r"access is denied \(an error occurred \(403\)\)"),
    ],
)
def test_errors_of_stores_that_stay(error, number, said):
    asked = []

    def request():
        asked.append(1)
        raise error

    with pytest.raises(OSError, match=rf"{said}: 's3://bucket/x\.zip'") as caught:
        _remote.persistently("s3://bucket/x.zip", request)
    assert (caught.value.errno, len(asked)) == (number, 1)


def test_what_needs_files_of_this_machine(server):
    with pytest.raises(ValueError, match=r"x\.npy: is not a file of this machine"):
        compute_statistics(f"{server.url}/x.npy", extractor=GridMeans(), cache=True)


def test_on_the_command_line(server, capsys):
    assert cli.main(["inspect", f"{server.url}/x.zip"]) == 0
    assert "  images      4\n" in capsys.readouterr().out
    assert cli.main(["inspect", f"{server.url}/y.zip"]) == 1
    assert capsys.readouterr().err == f"fastfid: error: {server.url}/y.zip: No such file or directory\n"
