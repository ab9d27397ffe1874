"""Known references: named by the hash of their numbers, in a table of the user's own."""

import hashlib
import json
import os
import struct
import threading

import numpy as np
import pytest

from fastfid import Statistics, cli, evaluate, references
from fastfid.errors import FastfidWarning

MU, SIGMA = np.array([0.5, -0.0]), np.array([[2.0, 0.25], [0.25, 1.0]])


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references.jsonl"


def save(path, mu=MU, sigma=SIGMA, **more):
    np.savez(path, mu=mu, sigma=sigma, **more)
    return path


def record(real, fake, **options):
    return evaluate(real, fake, metrics=["fid"], force=True, **options).to_dict()


def test_the_hash_is_that_of_the_numbers_alone(tmp_path):
    by_hand = hashlib.sha256(struct.pack("<q6d", 2, 0.5, 0.0, 2.0, 0.25, 0.25, 1.0)).hexdigest()
    ours = Statistics(MU, SIGMA, n=9, meta={"protocol": "clean"})
    ours.save(tmp_path / "a.npz")
    save(tmp_path / "b.npz")
    save(tmp_path / "c.npz", MU.astype(np.float32), SIGMA.astype(np.float32), more=np.zeros(3))
    found = [references.numbers_hash(Statistics.load(tmp_path / f"{name}.npz")) for name in "abc"]
    assert found == [by_hand] * 3
    others = [
        Statistics(MU * (1 + 1e-15), SIGMA),
        Statistics(MU, SIGMA * (1 + 1e-15)),
        Statistics(MU[:1], SIGMA[:1, :1]),
    ]
    assert by_hand not in {references.numbers_hash(other) for other in others}


def test_a_result_names_the_reference(tmp_path, capsys):
    path, other = save(tmp_path / "known.npz"), save(tmp_path / "other.npz", MU + 1)
    assert cli.main(["inspect", str(path), "--add-reference", "Two dims, clean", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["known_as"], len(printed["numbers_sha256"])) == ("Two dims, clean", 64)
    with pytest.warns(FastfidWarning, match="says its protocol"):
        first, second = record(path, other), record(other, Statistics(MU, SIGMA))
    assert first["known_as"] == {"real": "Two dims, clean", "fake": None}
    assert second["known_as"] == {"real": None, "fake": "Two dims, clean"}
    assert cli.main([str(path), str(other)]) == 0
    assert f"{path}: has the numbers of the known reference Two dims, clean\n" in capsys.readouterr().err
    assert cli.main([str(path), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["known_as"]["real"] == "Two dims, clean"
    assert cli.main(["inspect", str(other)]) == 0
    assert "known_as        None\n" in capsys.readouterr().out


def test_without_a_table_nothing_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "numbers_hash", lambda _: pytest.fail("hashed"))
    assert references.known_as([Statistics(MU, SIGMA), None]) == [None, None]
    monkeypatch.setattr(references, "cache_folder", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert references.known_as([Statistics(MU, SIGMA), None]) == [None, None]


def test_the_shipped_table_is_empty(table):
    assert dict(references.SHIPPED) == references.read_table() == {}
    assert not table.exists()


def test_adding(table):
    known = Statistics(MU, SIGMA)
    digest = references.add_reference(known, "first")
    with open(table, "a") as stream:
        stream.write("\n  \n")  # lines left empty by hand
    assert references.add_reference(known, "first") == digest
    assert references.read_table() == {digest: "first"}
    assert len(table.read_text().split("\n{")) == 1
    with pytest.raises(ValueError, match=r"is known as first already; to rename it, edit .*references\.jsonl"):
        references.add_reference(known, "second")
    with pytest.raises(ValueError, match="first is the name of other statistics"):
        references.add_reference(Statistics(MU + 1, SIGMA), "first")
    for name in ("", " ", "a\nb", "\x1b[31m", "x" * 201, " padded"):
        with pytest.raises(ValueError, match="1 to 200 printable characters"):
            references.add_reference(Statistics(MU + 1, SIGMA), name)
    assert references.read_table() == {digest: "first"}


def test_adding_at_once_loses_nothing():
    def add(i):
        references.add_reference(Statistics([float(i)], [[1.0]]), f"reference {i}")

    threads = [threading.Thread(target=add, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(references.read_table().values()) == sorted(f"reference {i}" for i in range(20))


def test_only_statistics_are_references(tmp_path, capsys):
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4, 3), np.uint8))
    assert cli.main(["inspect", str(tmp_path / "images.npy"), "--add-reference", "x"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastfid: error: {tmp_path / 'images.npy'}: is no statistics file; --add-reference names")
    assert len(error.splitlines()) == 1


HOSTILE = {
    "no JSON": b"{]\n",
    "no object": b"[1]\n",
    "deep": b"[" * 100_000 + b"\n",
    "no name": b'{"sha256": "%s"}\n' % (b"0" * 64),
    "a short hash": b'{"sha256": "00", "name": "x"}\n',
    "control characters": b'{"sha256": "%s", "name": "\\u001b[31m"}\n' % (b"0" * 64),
    "a number": b'{"sha256": 5, "name": 5}\n',
    "bytes": b"\xff\xfe\x00\n",
    "cut short": b'{"sha256": "0000',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_table(table, name):
    references.add_reference(Statistics(MU, SIGMA), "first")
    with open(table, "ab") as stream:
        stream.write(HOSTILE[name])
    with pytest.raises(ValueError, match=r"references\.jsonl: line 2 is damaged: expected a JSON object"):
        references.add_reference(Statistics(MU + 1, SIGMA), "second")
    with pytest.warns(FastfidWarning, match="not looked up: .*line 2 is damaged"):
        assert references.known_as([Statistics(MU, SIGMA), None]) == [None, None]


def test_a_table_that_is_too_large_or_no_file(table):
    table.parent.mkdir()
    with open(table, "wb") as stream:
        stream.truncate(1 << 40)  # a sparse file
    with pytest.raises(ValueError, match=r"references\.jsonl: is larger than 4 MiB"):
        references.read_table()
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(ValueError, match=r"references\.jsonl"):
        references.read_table()
    table.unlink()
    table.mkdir()
    with pytest.raises((OSError, ValueError), match=r"references\.jsonl"):
        references.read_table()
    with pytest.warns(FastfidWarning, match=r"not looked up: .*references\.jsonl"):
        assert references.known_as([Statistics(MU, SIGMA), None]) == [None, None]
