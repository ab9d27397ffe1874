"""Which stored records are of one reference, in any order of the records; and which files are one."""

import itertools
import random

import pytest
from report_pages import PageReader
from test_comparison import record, sides, written

from fastfid import cli, compare_records
from fastfid.evaluation.stored import references_of


def of(real, digest=None, known=None):
    """What a record says of its reference."""
    inputs = None if digest is None else sides({"files": 1, "bytes": 1, "sha256": digest}, None)
    return {"real": real, "inputs": inputs, "known_as": sides(known, None)}


# The records of each reference, by their places.
CASES = {
    "a folder and its hash": ([of("x"), of("x", "1"), of("x", "1")], [{0, 1, 2}]),
    "a moved folder": ([of("x", "1"), of("y", "1"), of("y")], [{0, 1, 2}]),
    "a name of two contents": ([of("x"), of("x", "1"), of("x", "2"), of("x")], [{0, 3}, {1}, {2}]),
    "statistics in two files": ([of("x", "1", "known"), of("y", "2", "known"), of("z", "2"), of("y")], [{0, 1, 2, 3}]),
    "linked by a third": ([of("x", None, "known"), of("z", "2"), of("y", "2", "known")], [{0, 1, 2}]),
    "two known ones": ([of("x", "1", "a"), of("x", "1", "b"), of("x", "1"), of("x", "1")], [{0}, {1}, {2, 3}]),
    "a chain to another hash": (
        [of("r", "1"), of("r", None, "a"), of("q", None, "a"), of("q", "2")],
        [{0}, {1, 2}, {3}],
    ),
    "nothing is said": ([{}, {}, of("x")], [{0}, {1}, {2}]),
    "other names": ([of("x"), of("y"), of("x")], [{0, 2}, {1}]),
    "no texts": ([of(["x"]), of({"a": 1}), of(["x"])], [{0, 2}, {1}]),
}


def parts(records, order):
    numbers = references_of([records[place] for place in order])
    assert list(dict.fromkeys(numbers)) == list(range(max(numbers) + 1))  # in the order of the first records
    return {frozenset(place for place, one in zip(order, numbers, strict=True) if one == k) for k in set(numbers)}


@pytest.mark.parametrize("name", CASES)
def test_in_every_order(name):
    records, expected = CASES[name]
    for order in itertools.permutations(range(len(records))):
        assert parts(records, order) == set(map(frozenset, expected))


def test_many_records_in_any_order():
    choose = random.Random(0)
    several = 0
    for _ in range(300):
        records = [
            of(choose.choice("pq"), choose.choice(["1", "2", "3", None]), choose.choice(["a", "b", None, None]))
            for _ in range(choose.randint(2, 8))
        ]
        found = parts(records, range(len(records)))
        several += len(found) > 1
        assert parts(records, choose.sample(range(len(records)), len(records))) == found
    assert several > 50


def test_a_comparison_takes_or_refuses_records_in_every_order(tmp_path):
    def compare(said, order):
        records = [record(f"candidate {place}", 1.0 + place, **said[place]) for place in order]
        return compare_records(written(tmp_path, *records, lines=True))

    for order in itertools.permutations(range(3)):
        assert len(compare(CASES["linked by a third"][0], order).candidates) == 3
        with pytest.raises(ValueError, match=r"inputs.real.sha256 is \"[12]\", but \"[12]\" in .*cannot be compared"):
            compare(CASES["a name of two contents"][0], order)


def test_a_file_counts_once_however_it_is_spelled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"metric": "fid", "value": 1.0, "standard_error": None}]
    records = [record(name, fid, metrics=rows, date="2026-01-31T12:00:00Z") for name, fid in (("A", 1.0), ("B", 2.0))]
    written(tmp_path, *records, lines=True)
    (tmp_path / "link.jsonl").symlink_to("results.jsonl")
    paths = ["results.jsonl", "./results.jsonl", "results.jsonl", "link.jsonl"]
    expected = [
        "fastfid: ./results.jsonl: is left out: the file was given before as results.jsonl",
        "fastfid: results.jsonl: is left out: the file was given before",
        "fastfid: link.jsonl: is left out: the file was given before as results.jsonl",
    ]
    assert cli.main(["report", *paths, "-o", "page.html"]) == 0
    assert capsys.readouterr().err.splitlines() == [*expected, "fastfid: page.html: written"]
    assert "2 records of 1 file" in PageReader(tmp_path / "page.html").text
    assert cli.main(["compare", *paths]) == 0
    out, err = capsys.readouterr()
    assert (err.splitlines()[:3], len(out.splitlines())) == (expected, 4)
