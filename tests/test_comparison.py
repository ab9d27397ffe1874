"""Which of several sets is closer to a reference: the differences, their errors, the verdicts, and stored records."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from stubs import GridMeans
from tolerances import FEW_ROUNDINGS, SPREAD_OF_250, STUDENTS_QUANTILE

import fastfid
from fastfid import Statistics, compare, compare_records
from fastfid.errors import FastfidWarning, SuspiciousInputWarning
from fastfid.metrics.differences import Measured, compare_measured, measure, student_quantile
from fastfid.metrics.standard_error import Variance

pytestmark = pytest.mark.filterwarnings("ignore:.*says its protocol")
D = 12
ROOT = np.random.default_rng(1).uniform(-1, 1, (D, D))


def drawn(n, seed, shift=0.0, scale=1.0, name="x"):
    rows = np.random.default_rng((seed, n)).standard_normal((n, D)) @ ROOT * scale + shift
    return Statistics.from_features(rows, {"protocol": "none"}, name)


def two(n_a, n_b, shift_b=0.2, n_reference=3000):
    reference = drawn(n_reference, 1, name="real")
    return compare(reference, [drawn(n_a, 2, 0.2, name="A"), drawn(n_b, 3, shift_b, name="B")])


@pytest.mark.parametrize("freedom", [1, 2.5, 9, 100, 1234.5, 1e6, np.inf])
@pytest.mark.parametrize("p", [0.6, 0.975, 0.995, 0.9999])
def test_quantiles_are_students(freedom, p):
    assert student_quantile(0.5, freedom) == 0
    assert student_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=STUDENTS_QUANTILE)


def test_equal_candidates_are_not_told_apart():
    """With n = 1,000 and 5,000 too, where the FIDs differ by their bias."""
    for n_a, n_b in ((1000, 1000), (1000, 5000)):
        found = two(n_a, n_b)
        assert found.differences[0].verdict.startswith("cannot be told apart with these n")
        assert "is better" not in found.table()
    assert found.differences[0].verdict.endswith("(numbers of images differ: compared without the bias)")
    taken_off = {one.n: one.fid - one.value for one in found.candidates}
    assert taken_off[1000] > 4 * taken_off[5000] > 0  # the bias goes with 1 / n


def test_a_clear_difference_is_told():
    found = two(1000, 1000, 0.4)
    assert [one.name for one in found.candidates] == ["A", "B"]
    (difference,) = found.differences
    assert difference.difference == found.candidates[1].fid - found.candidates[0].fid > 0
    ratio = difference.difference / difference.standard_error
    assert difference.verdict == f"A is better by {ratio:.1f} standard errors"
    assert found.candidates[0].value == found.candidates[0].fid
    lines = found.table().splitlines()
    assert lines[0].split() == ["candidate", "FID", "standard", "error", "n"]
    assert [line.split()[0] for line in lines[1:3]] == ["A", "B"]
    assert "A and B: A is better by" in lines[3]
    assert repr(found).startswith("Comparison(reference='real', {'A': ")


def test_the_noise_of_the_reference_cancels():
    """The spread of the difference over all that is drawn is the error, and less than if the reference were two."""
    differences, errors, apart = [], [], []
    for k in range(300):
        reference = drawn(100, 3 * k)
        both = [measure(reference, drawn(400, 3 * k + i, s, name=f"{i}")) for i, s in ((1, 0.3), (2, 0.5))]
        differences.append(both[1].fid - both[0].fid)
        errors.append(compare_measured(both, 100)[1][0].standard_error)
        apart.append(np.hypot(both[0].standard_error, both[1].standard_error))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(differences), rel=SPREAD_OF_250)
    assert np.mean(errors) < 0.7 * np.mean(apart)


def measured(name, fid, n, own=1e-4, bias=0.1, shared=None, reason=None):
    variance = None if own is None else Variance(own, 0.02)
    error = None if own is None else own**0.5
    return Measured(name, fid, error, n, D, bias, variance, shared, 0.0, reason)


def verdict(a, b, n_reference=None):
    return compare_measured([a, b], n_reference)[1][0]


def test_words():
    close = verdict(measured("A", 1.0, 1000), measured("B", 1.02, 1000))
    assert close.standard_error == pytest.approx(2e-4**0.5, rel=FEW_ROUNDINGS)
    # (0.2 / 1000-image variance) / (0.02 / (2.58 + 1.28))^2 = 7,442, in two digits.
    assert close.verdict == "cannot be told apart with these n; about 7,500 images each would tell"
    assert verdict(measured("A", 1.0, 1000), measured("B", 1.0, 1000)).verdict == "cannot be told apart with these n"
    noisy = np.random.default_rng(0).standard_normal((2, 500))
    shared = [measured(name, fid, 1000, shared=x) for name, fid, x in zip("AB", (1.0, 1.02), noisy, strict=True)]
    assert verdict(*shared, n_reference=500).verdict.endswith("; more images of the reference would be needed")
    thin = verdict(measured("A", 1.0, 1000), measured("B", 1.2, 30, bias=None))
    assert thin.standard_error is None
    assert thin.verdict == (
        "no verdict: the numbers of images differ, and the bias cannot be taken off (B: n = 30, d = 12)"
    )
    few = verdict(measured("A", 1.0, 1000), measured("B", 1.2, 10))
    assert few.verdict == "no verdict: B: 10 images are too few for one; 20 are the least"
    unknown = verdict(measured("A", 1.0, 1000), measured("B", 1.2, None, bias=None, own=None, reason="B: unknown"))
    assert unknown.verdict == "no verdict: B: unknown"
    none = verdict(measured("A", 1.0, 1000), measured("B", 1.2, 1000, own=None, reason="B: why"))
    assert none.verdict == "no verdict: B: why"
    sure = verdict(measured("B", 1.2, 90, own=0.0), measured("A", 1.0, 90, own=0.0))
    assert (sure.a, sure.verdict) == ("A", "A is better by 0.2, and there is no noise")


def test_the_better_one_of_two_without_their_bias():
    """A third that has no bias lets all be sorted by the FID itself."""
    a, b = measured("A", 1.0, 1000, bias=0.0), measured("B", 1.1, 100, bias=0.3)
    candidates, differences = compare_measured([a, b, measured("C", 2.0, 30, bias=None)], None)
    assert [one.name for one in candidates] == ["A", "B", "C"]
    assert (differences[0].a, differences[0].b) == ("B", "A")
    assert differences[0].difference == pytest.approx(0.2, rel=FEW_ROUNDINGS)


def test_a_candidate_of_an_unknown_number_of_images():
    bare = Statistics(np.zeros(D), np.eye(D), meta={"protocol": "none"}, name="B")
    (found,) = compare(drawn(3000, 1), [drawn(1000, 2, name="A"), bare]).differences
    assert found.standard_error is None
    assert found.verdict == (
        "no verdict: B: its number of images is unknown; compute the statistics again with: fastfid stats"
    )


def test_an_error_beyond_float64_leaves_the_distances():
    far = Statistics(np.full(D, 1e150), np.eye(D), 1000, {"protocol": "none"}, name="far")
    (found,) = compare(far, [drawn(1000, k, scale=1e30, name=name) for k, name in enumerate("AB")]).differences
    assert found.verdict == "no verdict: the standard error exceeds the range of float64"


def test_the_error_of_the_correction_counts():
    """0.4 d / n of the larger bias, as one standard error."""
    found = verdict(measured("A", 1.0, 100, bias=0.5), measured("B", 0.9, 1000, bias=0.05))
    assert found.standard_error == pytest.approx((2e-4 + (0.4 * D / 100 * 0.5) ** 2) ** 0.5, rel=FEW_ROUNDINGS)
    assert found.difference == pytest.approx(abs((1.0 - 0.5) - (0.9 - 0.05)), rel=FEW_ROUNDINGS)


def test_against_fixed_statistics():
    reference = drawn(3000, 1, name="real")
    fixed = Statistics(reference.mu, reference.sigma, None, reference.meta, name="real")
    candidates = [drawn(1000, 2, 0.2, name="A"), drawn(1000, 3, 0.4, name="B")]
    found = compare(fixed, candidates)
    assert found.note == "real counts as fixed: it holds no sample of its features"
    assert found.differences[0].verdict.startswith("A is better by")
    bare = [Statistics(s.mu, s.sigma, s.n, s.meta, name=s.name) for s in candidates]
    assert compare(reference, bare).differences[0].verdict.startswith("no verdict: A: holds no sample of its features")


def test_images_are_read_once():
    class Counting(GridMeans):
        seen = 0

        def forward(self, batch):
            self.seen += len(batch)
            return super().forward(batch)

    rng = np.random.default_rng(0)
    images = [rng.integers(0, high, (40, 9, 11, 3), dtype=np.uint8) for high in (256, 250, 120)]
    extractor = Counting()
    found = compare(images[0], images[1:], names=["bright", "dark"], extractor=extractor)
    assert extractor.seen == 120
    assert [one.name for one in found.candidates] == ["bright", "dark"]
    for one, pixels in zip(found.candidates, images[1:], strict=True):
        assert one.fid == fastfid.compute_fid(images[0], pixels, extractor=GridMeans())
    record = found.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_arguments():
    one = drawn(50, 1)
    with pytest.raises(ValueError, match="candidates: expected 2 or more; got 1"):
        compare(one, [one])
    with pytest.raises(TypeError, match="candidates: expected a list of sets of images, got Statistics"):
        compare(one, one)
    with pytest.raises(ValueError, match="names: expected 2, as there are candidates, got 1"):
        compare(one, [one, one], names=["a"])
    with pytest.raises(ValueError, match="names: two candidates are called 'x'"):
        compare(one, [drawn(50, 2), drawn(50, 3)], names=["x", "x"])
    for names in ("xy", [1, 2]):
        with pytest.raises(TypeError, match="names: expected a list of strings"):
            compare(one, [drawn(50, 2), drawn(50, 3)], names=names)
    with pytest.raises(TypeError, match="unexpected keyword arguments: nmaes"):
        compare(one, [drawn(50, 2), drawn(50, 3)], nmaes=["a", "b"])
    found = compare(one, [drawn(50, 2), drawn(50, 3)])  # of one name
    assert sorted(candidate.name for candidate in found.candidates) == ["x (1)", "x (2)"]
    other = Statistics.from_features(np.eye(13, D), {"protocol": "clean"}, "other")
    with pytest.raises(ValueError, match="protocol"):
        compare(one, [drawn(50, 2), other])


def test_equal_sets_are_said(tmp_path):
    paths = [str(drawn(50, k).save(tmp_path / f"{k}.npz")) for k in (1, 2)]
    with pytest.warns(SuspiciousInputWarning) as said:
        compare(paths[0], paths)
    texts = [str(warning.message) for warning in said]
    assert f"both sides are the same: {paths[0]}" in texts
    assert f"{paths[0]} and {paths[0]} are one and the same set" in texts
    with pytest.warns(SuspiciousInputWarning, match="A and B are one and the same set"):
        compare(drawn(50, 1), [drawn(50, 2, name="A"), drawn(50, 2, name="B")])


def test_candidates_go_with_one_another():
    """Although the reference does not say its protocol."""
    silent = Statistics.from_features(np.random.default_rng(0).standard_normal((50, D)), name="silent")
    sides = [drawn(50, 2), Statistics.from_features(np.eye(30, D), {"protocol": "clean"}, "other")]
    with pytest.raises(ValueError, match=r"x .*other"), pytest.warns(match="does not say its protocol"):
        compare(silent, sides)


def test_names_of_any_bytes(tmp_path, capsys):
    paths = [os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/a\xff.npz", b"/b.npz", b"/c.npz")]
    for seed, path in enumerate(paths):
        drawn(50, seed).save(path)
    assert compare(paths[1], [paths[0], paths[2]]).differences
    assert fastfid.compute_fid(paths[0], paths[1]) > 0


# ------------------------------------------------------------------------------------------------------------- records


def record(fake, fid, **changes):
    return {
        "schema": 2,
        "fid": fid,
        "standard_error": 0.05,
        "relative_error_of_standard_error": 0.02,
        "bias": 0.5,
        "n": {"real": 5000, "fake": 1000},
        "dims": 64,
        "real": "real.npz",
        "fake": fake,
        **{key: {"real": "same", "fake": "same"} for key in ("protocol", "extractor", "precision")},
        **changes,
    }


def written(tmp_path, *records, lines=False):
    if lines:
        path = tmp_path / "results.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in records))
        return [path]
    paths = [tmp_path / f"{k}.json" for k in range(len(records))]
    for path, one in zip(paths, records, strict=True):
        path.write_text(json.dumps(one, indent=2))
    return paths


@pytest.mark.parametrize("lines", [False, True])
def test_records(tmp_path, lines):
    found = compare_records(written(tmp_path, record("A", 3.0), record("B", 2.0), lines=lines))
    assert found.note == "the noise of the reference does not cancel"
    assert [one.name for one in found.candidates] == ["B", "A"]
    assert found.differences[0].standard_error == pytest.approx(0.05 * 2**0.5, rel=FEW_ROUNDINGS)
    assert found.differences[0].verdict == "B is better by 14.1 standard errors"


def test_records_of_one_folder_at_different_times(tmp_path):
    found = compare_records(written(tmp_path, record("A", 3.0), record("A", 2.0), lines=True))
    assert found.candidates[0].name == f"A ({tmp_path / 'results.jsonl'}:2)"


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (
            record("B", 2.0, real="other.npz"),
            '1.json: real is "other.npz", but "real.npz" in .*0.json: they cannot be compared',
        ),
        (record("B", 2.0, dims=2048), "1.json: dims is 2048, but 64"),
        (record("B", 2.0, protocol={"real": "clean", "fake": "clean"}), '1.json: protocol.real is "clean", but "same"'),
        (record("B", 2.0, n={"real": 50, "fake": 1000}), "1.json: n.real is 50, but 5000"),
        *(
            (record("B", 2.0, **{key: {"real": "same", "fake": "other"}}), f'1.json: {key}.fake is "other", but "same"')
            for key in ("protocol", "extractor", "precision")
        ),
        ({"value": 1.0}, "1.json: is no record of an FID as fastfid --json prints it: schema is missing"),
        ({"schema": 2, "candidates": []}, "1.json: is no record of an FID as fastfid --json prints it: fid is missing"),
        (record("B", 2.0, schema=3), r"1.json: was written by another version \(schema 3, expected 2\)"),
        (record("B", 2.0, schema=True), r"1.json: was written by another version \(schema true"),
        ([1, 2], "1.json: record 1: is no record of an FID as fastfid --json prints it: it is 1"),
        ([], "1.json: holds no record: it is an empty list"),
    ],
)
def test_records_that_do_not_go_together(tmp_path, second, text):
    with pytest.raises(ValueError, match=text):
        compare_records(written(tmp_path, record("A", 3.0), second))


def test_files_that_hold_no_records(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(record("A", 1.0)) + "\n{half\n")
    with pytest.raises(ValueError, match=r"bad.jsonl:2: no JSON"):
        compare_records([bad])
    with pytest.raises(FileNotFoundError):
        compare_records([tmp_path / "none.json"])
    with pytest.raises(ValueError, match="expected two records or more, got 1"):
        compare_records(written(tmp_path, record("A", 1.0)))
    without = written(tmp_path, record("A", 1.0), record("B", 2.0, standard_error=None))
    assert compare_records(without).differences[0].verdict == "no verdict: B: the record has no standard error"


def sides(real, fake):
    return {"real": real, "fake": fake}


COUNTS = (True, 1.0, 0, -3, "5", [], 10**30, float("nan"))
WRONG = {
    "fid": (True, None, "1", [1], float("nan"), float("inf"), 10**400, -(10**6000), 1e308),
    "standard_error": (True, "1", -0.1, float("nan"), float("inf"), 10**400, {}),
    "relative_error_of_standard_error": (True, "1", -0.1, 10, float("nan"), float("inf")),
    "no_standard_error": (1, [], True),
    "bias": (True, "1", float("nan"), float("-inf"), 10**400),
    "dims": (None, *COUNTS),
    "num": COUNTS,
    "real": (None, 1, ["a"]),
    "fake": (None, 1, {}),
    **dict.fromkeys(("n", "protocol", "extractor", "precision"), (None, 1, "same", [], {"real": None})),
    "options": (1, []),
    "inputs": (1, {"fake": None}),
    "assumed_protocol": ("clean", {}),
}
WRONG_INSIDE = {
    "n.real": (sides(wrong, 1000) for wrong in COUNTS),
    "n.fake": (sides(5000, wrong) for wrong in COUNTS),
    "options.force": ({"force": wrong} for wrong in (1, "yes", {})),
    "inputs.real": (sides(wrong, None) for wrong in (1, "a")),
    "inputs.real.sha256": (sides({"sha256": wrong}, None) for wrong in (1, [])),
}
for _key in ("protocol", "extractor", "precision", "assumed_protocol"):
    WRONG_INSIDE[f"{_key}.real"] = (sides(wrong, "same") for wrong in (1, True, []))
    WRONG_INSIDE[f"{_key}.fake"] = (sides("same", wrong) for wrong in (1, True, {}))


def as_json(value):
    """Of an integer of any number of digits, which str() refuses."""
    if isinstance(value, int) and abs(value) >= 10**400:
        return ("-" if value < 0 else "") + "1" + "0" * 6000
    return json.dumps(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for table in (WRONG, WRONG_INSIDE) for key, values in table.items() for value in values],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_every_key_is_checked(tmp_path, key, value):
    path = tmp_path / "results.jsonl"
    outer = key.partition(".")[0]
    changed = json.dumps({**record("B", 2.0), outer: "HERE"}).replace('"HERE"', as_json(value))
    path.write_text(json.dumps(record("A", 1.0)) + "\n" + changed + "\n")
    with pytest.raises(ValueError, match=rf"results.jsonl:2: key {key} is wrong: expected .*, got .*") as error:
        compare_records([path])
    assert len(str(error.value)) < len(str(path)) + 200


@pytest.mark.parametrize("key", ["fid", "dims", "n", "protocol"])
def test_a_missing_key_is_named(tmp_path, key):
    one = {name: value for name, value in record("A", 1.0).items() if name != key}
    text = "fid is missing" if key == "fid" else f"key {key} is wrong: expected .*, got nothing"
    with pytest.raises(ValueError, match=text):
        compare_records(written(tmp_path, record("B", 2.0), one))


def test_the_largest_and_smallest_numbers_are_compared(tmp_path):
    """Every number that is accepted has a verdict and is written as JSON."""
    sizes = (0, 1e-200, 1e100)
    for error in sizes:
        for relative in (None, 0, 1e-200, 9.99):
            changes = {"standard_error": error, "relative_error_of_standard_error": relative, "bias": 1e100}
            for n in (1, 1000, 2**63 - 1):
                pair = [
                    record("A", -1e100, **changes, dims=2**63 - 1),
                    record("B", 1e100, **changes, dims=2**63 - 1, n=sides(5000, n)),
                ]
                found = compare_records(written(tmp_path, *pair))
                assert json.dumps(found.to_dict(), allow_nan=False)
                assert found.table()


def test_a_candidate_with_almost_no_noise(tmp_path):
    """The degrees of freedom of a sum have no limit."""
    sure = record("A", 1.0, standard_error=1e-9, relative_error_of_standard_error=0.02)
    noisy = record("B", 4.0, standard_error=1.0, relative_error_of_standard_error=0)
    (difference,) = compare_records(written(tmp_path, sure, noisy)).differences
    assert difference.verdict == "A is better by 3.0 standard errors"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "bad.json: holds no record: it is empty"),
        (b" \n\n", "bad.json: holds no record: it is empty"),
        (b"\x89PNG\r\n\x1a\n\0", "bad.json: holds no JSON: byte 0 is not UTF-8 text"),
        (b"[" * 100_000, "bad.json: is no record: it is nested too deeply"),
        (b"{}\n" + b'{"a":' * 100_000, "bad.json:2: is no record: it is nested too deeply"),
        (b"null", "bad.json: is no record of an FID as fastfid --json prints it: it is null"),
        (b"\0" * 50, "bad.json:1: no JSON"),
    ],
    ids=["empty", "blank", "binary", "deep", "deep-line", "null", "zeros"],
)
def test_files_of_something_else(tmp_path, data, text):
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=text) as error:
        compare_records([path])
    assert "\n" not in str(error.value)


def test_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is not a regular file"):
        compare_records([tmp_path / "pipe"])
    with pytest.raises(IsADirectoryError):
        compare_records([tmp_path])


def test_a_byte_order_mark_and_line_separators_in_strings(tmp_path):
    path = tmp_path / "results.jsonl"
    names = ("A\u2028\x85x", "B")
    lines = [json.dumps(record(name, 1.0), ensure_ascii=False) for name in names]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode())
    assert {one.name for one in compare_records([path]).candidates} == set(names)


def test_an_array_of_records(tmp_path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps([record("A", 3.0), record("B", 2.0)], indent=1))
    assert [one.name for one in compare_records([path]).candidates] == ["B", "A"]
    path.write_text(json.dumps([record("A", 3.0), record("B", "2")]))
    with pytest.raises(ValueError, match=r"all.json: record 2: key fid is wrong"):
        compare_records([path])


def hashed(fake, fid, digest, **changes):
    return record(fake, fid, inputs=sides({"files": 1, "bytes": 1, "sha256": digest}, None), **changes)


def test_references_are_known_by_their_hashes(tmp_path):
    equal = compare_records(written(tmp_path, hashed("A", 1.0, "00"), hashed("B", 2.0, "00", real="moved/real.npz")))
    assert equal.reference == "real.npz"
    with pytest.raises(ValueError, match=r'1.json: inputs.real.sha256 is "11", but "00" in .*0.json'):
        compare_records(written(tmp_path, hashed("A", 1.0, "00"), hashed("B", 2.0, "11")))
    between = [record("A", 1.0), hashed("B", 2.0, "00"), hashed("C", 2.0, "11")]
    with pytest.raises(ValueError, match=r'2.json: inputs.real.sha256 is "11", but "00" in .*1.json'):
        compare_records(written(tmp_path, *between))
    with pytest.raises(ValueError, match=r"1.json: real is"):
        compare_records(written(tmp_path, hashed("A", 1.0, "00"), record("B", 2.0, real="moved/real.npz")))


def test_known_references_are_known_by_their_names(tmp_path):
    """Files of other formats have other hashes, and hold the numbers of one known reference."""

    def known(fake, fid, name, digest, **changes):
        return hashed(fake, fid, digest, known_as=sides(name, None), **changes)

    equal = [known("A", 1.0, "cifar10", "00"), known("B", 2.0, "cifar10", "11", real="other.npz")]
    assert len(compare_records(written(tmp_path, *equal)).candidates) == 2
    with pytest.raises(ValueError, match=r'1.json: known_as.real is "ffhq", but "cifar10" in .*0.json'):
        compare_records(written(tmp_path, known("A", 1.0, "cifar10", "00"), known("B", 2.0, "ffhq", "00")))
    with pytest.raises(ValueError, match=r"1.json: inputs.real.sha256 is"):
        compare_records(written(tmp_path, known("A", 1.0, "cifar10", "00"), known("B", 2.0, None, "11")))


def test_what_a_candidate_does_not_say_is_not_compared(tmp_path):
    silent = record("B", 2.0, protocol=sides("same", None))
    assert compare_records(written(tmp_path, silent, record("A", 1.0))).candidates[0].name == "A"
    with pytest.raises(ValueError, match=r'2.json: protocol.fake is "other", but "same" in .*1.json'):
        compare_records(written(tmp_path, silent, record("A", 1.0), record("C", 1.0, protocol=sides("same", "other"))))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"options": {"force": True}}, "1.json: was forced"),
        ({"num": 1000}, "1.json: num is 1000, but null in .*0.json"),
        ({"assumed_protocol": sides(None, "clean")}, '1.json: assumed_protocol.fake is "clean", but null in .*0.json'),
    ],
)
def test_circumstances_are_said(tmp_path, changes, text):
    with pytest.warns(SuspiciousInputWarning, match=text) as said:
        compare_records(written(tmp_path, record("A", 1.0), record("B", 2.0, **changes)))
    assert len(said) == 1


def test_records_without_an_fid_are_left_out(tmp_path):
    kid = {"schema": 2, "value": 0.1, "metrics": [{"metric": "kid"}]}
    with pytest.warns(FastfidWarning, match=r"results.jsonl:2: is left out: it has no FID"):
        found = compare_records(written(tmp_path, record("A", 1.0), kid, record("B", 2.0), lines=True))
    assert len(found.candidates) == 2
    with (
        pytest.warns(FastfidWarning, match="has no FID"),
        pytest.raises(ValueError, match="expected two records or more, got 1"),
    ):
        compare_records(written(tmp_path, record("A", 1.0), kid))


def test_a_record_counts_once(tmp_path):
    again = dict(reversed(record("A", 1.0).items()))
    with pytest.warns(
        FastfidWarning, match=r"results.jsonl:3: is left out: it is the same record as .*results.jsonl:1"
    ):
        found = compare_records(written(tmp_path, record("A", 1.0), record("B", 2.0), again, lines=True))
    assert [one.name for one in found.candidates] == ["A", "B"]


@pytest.mark.parametrize("bias", [None, 0.5])
@pytest.mark.parametrize("other", [None, 1000])
def test_unknown_numbers_of_images(tmp_path, bias, other):
    unknown = record("B", 2.0, n=sides(5000, None), bias=bias)
    found = compare_records(written(tmp_path, record("A", 1.0, n=sides(5000, other)), unknown))
    name = "B" if other else "A"
    assert found.differences[0].verdict == f"no verdict: {name}: its number of images is unknown"
    assert found.differences[0].difference == 1
    assert "unknown" in found.table()


def test_names_are_not_doubled(tmp_path):
    why = {"standard_error": None, "no_standard_error": "im2: n = 10 <= d = 64; sampling bias dominates"}
    found = compare_records(written(tmp_path, record("A", 1.0), record("im2", 2.0, **why)))
    assert found.differences[0].verdict == "no verdict: im2: n = 10 <= d = 64; sampling bias dominates"


def test_the_whole_bias_is_taken_off(tmp_path):
    """That of the reference's n too: it is the same in all."""
    found = compare_records(written(tmp_path, record("A", 3.0), record("B", 2.0, n=sides(5000, 2000), bias=0.25)))
    assert {one.name: one.value for one in found.candidates} == {"A": 2.5, "B": 1.75}


# -------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def files(tmp_path):
    for name, seed, shift in (("real", 1, 0.0), ("a", 2, 0.2), ("b", 3, 0.5)):
        drawn(1000, seed, shift).save(tmp_path / f"{name}.npz")
    return [str(tmp_path / f"{name}.npz") for name in ("real", "a", "b")]


def run(capsys, *words):
    from fastfid.cli import main

    code = main(["compare", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command(files, capsys):
    code, out, err = run(capsys, *files)
    assert (code, err) == (0, "")
    assert f"{files[1]} and {files[2]}: {files[1]} is better by" in out
    code, out, _ = run(capsys, *files, "--json")
    found = json.loads(out)
    assert [one["name"] for one in found["candidates"]] == files[1:]
    assert set(found["candidates"][0]) == {"name", "value", "fid", "standard_error", "n"}
    assert set(found["differences"][0]) == {"a", "b", "difference", "standard_error", "verdict"}
    assert found["reference"] == files[0]
    page = (Path(__file__).parents[1] / "docs" / "json.md").read_text().partition("## `fastfid compare --json`")[2]
    for key in {*found, *found["candidates"][0], *found["differences"][0]}:
        assert f"`{key}`" in page


def test_the_command_takes_records(tmp_path, capsys):
    paths = written(tmp_path, record("A", 3.0), record("B", 2.0))
    code, out, err = run(capsys, "--records", *map(str, paths))
    assert code == 0
    assert "B and A: B is better by 14.1 standard errors" in out
    assert "the noise of the reference does not cancel" in err


def test_wrong_usage(files, capsys):
    for words, text in (
        (files[:2], "a reference and two candidates or more are needed"),
        ([*files, "--records", files[0]], "--records: takes no other paths"),
    ):
        with pytest.raises(SystemExit) as end:
            run(capsys, *words)
        assert end.value.code == 2
        assert text in capsys.readouterr().err
    code, _, err = run(capsys, files[0], files[1], "none")
    assert code == 1
    assert "Invalid path: none" in err
