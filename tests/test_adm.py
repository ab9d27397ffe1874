"""``fastfid adm``: the numbers of guided-diffusion's evaluator, by its formulas in tests/adm_evaluator.py."""

import json
import re
import warnings

import numpy as np
import pytest
from adm_evaluator import frechet, gaussian, inception_score, precision_recall
from metric_cases import CLASSIFIER
from PIL import Image
from stubs import GridMeans, TwoGrids
from tolerances import SCIPYS_ROOT_SMALL, SCORE_FLOAT32

from fastfid import Statistics
from fastfid.cli import main
from fastfid.errors import FastfidWarning, SuspiciousInputWarning, WeightsError
from fastfid.evaluation.adm import LABELS, evaluate_adm

# Features are grey levels: without the factor, the evaluator's probabilities are 0 and its score NaN.
MATRIX = CLASSIFIER / np.float32(64)


class Network(TwoGrids):
    """Says that it reads images as the evaluator does, so that files without a protocol go with it."""

    protocol = "tensorflow"

    def classifier(self):
        return MATRIX


class WithoutClassifier(Network):
    def classifier(self):
        raise WeightsError("weights.pt: holds the network without its classifier; other.pth has it")


def images(n, seed, high=256):
    return np.random.default_rng((n, seed)).integers(0, high, (n, 9, 12, 3), dtype=np.uint8)


def rows_of(pictures, cells=2):
    return np.stack([GridMeans(cells).prepare(image) for image in pictures]).astype(float)


REAL, FAKE = images(40, 1), images(33, 2, 200)
# Statistics of another, larger set, as the references of guided-diffusion have them.
WHOLE = images(90, 3, 230)
STORED, STORED_S = gaussian(rows_of(WHOLE)), gaussian(rows_of(WHOLE, 3))
FEATURES = {"mu": STORED[0], "sigma": np.cov(rows_of(WHOLE).T)}
SPATIAL = {"mu_s": STORED_S[0], "sigma_s": np.cov(rows_of(WHOLE, 3).T)}


@pytest.fixture
def file(tmp_path):
    def save(name, **arrays):
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return save


@pytest.fixture(autouse=True)
def remarks_of_the_protocol():
    """That a file does not say its protocol is said, and tested in tests/test_fid.py."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* does not say its protocol", category=FastfidWarning)
        yield


def truth(stored=None, spatial=None):
    """The five values; `stored` and `spatial` are statistics of the reference, which else are those of its images."""
    x, y = rows_of(REAL), rows_of(FAKE)
    precision, recall = precision_recall(x, y)
    return {
        "is:adm": inception_score(y @ MATRIX.T.astype(float)),
        "fid": frechet(stored or gaussian(x), gaussian(y)),
        "sfid": frechet(spatial or gaussian(rows_of(REAL, 3)), gaussian(rows_of(FAKE, 3))),
        "precision:adm": precision,
        "recall:adm": recall,
    }


def expect(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        relative = SCORE_FLOAT32 if name == "is:adm" else SCIPYS_ROOT_SMALL
        assert found[name].value == pytest.approx(value, rel=relative)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({}, truth()),
        ({**FEATURES, **SPATIAL}, truth(STORED, STORED_S)),
        (FEATURES, truth(STORED)),
    ],
    ids=["images", "statistics of another set too", "no spatial statistics"],
)
def test_the_five_numbers(file, stored, expected):
    reference, samples = file("ref.npz", arr_0=REAL, **stored), file("samples.npz", arr_0=FAKE)
    network = Network()
    found = evaluate_adm(reference, samples, extractor=network)
    expect(found, expected)
    assert list(found) == list(LABELS)
    assert (found.missing, network.seen) == ({}, len(REAL) + len(FAKE))  # each image once


def test_statistics_of_the_samples_count_too(file):
    """As for the evaluator. Precision, recall and the Inception Score are those of the images."""
    reference = file("ref.npz", arr_0=REAL)
    found = evaluate_adm(reference, file("samples.npz", arr_0=FAKE, **FEATURES, **SPATIAL), extractor=Network())
    expected = truth()
    expected["fid"] = frechet(STORED, gaussian(rows_of(REAL)))
    expected["sfid"] = frechet(STORED_S, gaussian(rows_of(REAL, 3)))
    expect(found, expected)


def test_blocks_of_5000_samples_in_their_order():
    samples = np.sort(images(5003, 4).reshape(5003, -1), axis=0).reshape(5003, 9, 12, 3)  # dark ones first
    samples = samples[:, :2, :2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SuspiciousInputWarning)
        found = evaluate_adm(REAL[:, :2, :2], samples, extractor=Network())
    logits = rows_of(samples) @ MATRIX.T.astype(float)
    assert found["is:adm"].value == pytest.approx(inception_score(logits), rel=SCORE_FLOAT32)
    assert found["is:adm"].details["splits"] == 2


def test_samples_that_are_sorted_are_a_warning():
    rng = np.random.default_rng(5)
    red, blue = (np.zeros((5000, 2, 2, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = rng.integers(200, 256, (2, 5000, 2, 2))
    samples = np.concatenate([red, blue])
    with pytest.warns(SuspiciousInputWarning, match="the order of rows matters"):
        found = evaluate_adm(REAL[:, :2, :2], samples, extractor=Network())
    logits = rows_of(samples) @ MATRIX.T.astype(float)
    assert found["is:adm"].value == pytest.approx(inception_score(logits), rel=SCORE_FLOAT32)
    assert inception_score(logits, 10000) > 1.2 * found["is:adm"].value


def test_without_the_classifier_the_other_four_come():
    found = evaluate_adm(REAL, FAKE, extractor=WithoutClassifier())
    expect(found, {name: value for name, value in truth().items() if name != "is:adm"})
    assert found.missing == {"is:adm": "weights.pt: holds the network without its classifier; other.pth has it"}


def test_a_reference_without_images(file):
    network = Network()
    found = evaluate_adm(file("ref.npz", **FEATURES, **SPATIAL), file("samples.npz", arr_0=FAKE), extractor=network)
    expected = truth(STORED, STORED_S)
    expect(found, {name: expected[name] for name in ("is:adm", "fid", "sfid")})
    assert list(found.missing) == ["precision:adm", "recall:adm"]
    assert all("ref.npz holds statistics only" in why for why in found.missing.values())
    assert network.seen == len(FAKE)


def test_files_of_statistics_alone(file):
    a = file("a.npz", **FEATURES, **SPATIAL)
    rows = rows_of(REAL)
    b = file("b.npz", mu=rows.mean(axis=0), sigma=np.cov(rows.T))
    with pytest.warns(FastfidWarning, match=r"neither .*a\.npz nor .*b\.npz says its protocol"):
        found = evaluate_adm(a, b)  # without a network
    assert found["fid"].value == pytest.approx(frechet(STORED, gaussian(rows_of(REAL))), rel=SCIPYS_ROOT_SMALL)
    assert list(found.missing) == ["is:adm", "sfid", "precision:adm", "recall:adm"]
    assert "b.npz holds no statistics of the spatial features" in found.missing["sfid"]


def test_too_few_images_for_balls():
    found = evaluate_adm(REAL, FAKE[:3], extractor=Network())
    assert list(found.missing) == ["precision:adm", "recall:adm"]
    assert "k = 3 needs at least 4 images, got 3" in found.missing["recall:adm"]


def test_the_record_has_the_n_of_each_number(file):
    reference = file("ref.npz", arr_0=REAL, **FEATURES, **SPATIAL)
    record = evaluate_adm(reference, FAKE, extractor=Network()).to_dict()
    rows = {row["metric"]: row for row in record["metrics"]}
    assert list(rows) == ["is", "fid", "sfid", "precision", "recall"]
    assert {name: row["n_real"] for name, row in rows.items() if name != "is"} == {
        "fid": None,
        "sfid": None,
        "precision": 40,
        "recall": 40,
    }
    assert {row["n_generated"] for row in rows.values()} == {33}
    assert [row["convention"] for row in rows.values()] == ["adm", None, None, "adm", "adm"]
    assert rows["fid"]["standard_error_of"] == "generated"
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_store_takes_an_interrupted_run_up(file, tmp_path):
    arguments = file("ref.npz", arr_0=REAL, **FEATURES), file("samples.npz", arr_0=FAKE)
    first, second = Network(), Network()
    fresh = evaluate_adm(*arguments, extractor=first, store=tmp_path / "store")
    again = evaluate_adm(*arguments, extractor=second, store=tmp_path / "store")
    expect(fresh, truth(STORED))
    assert dict(again) == dict(fresh)
    assert (first.seen, second.seen) == (len(REAL) + len(FAKE), 0)


def test_stores_instead_of_images(file, tmp_path):
    arguments = file("ref.npz", arr_0=REAL), file("samples.npz", arr_0=FAKE)
    plain = evaluate_adm(*arguments, extractor=Network(), store=tmp_path / "store")
    stores = [str(next((tmp_path / "store").glob(f"{name}-*"))) for name in ("ref", "samples")]
    found = evaluate_adm(*stores)
    assert dict(found) == {name: result for name, result in plain.items() if name != "is:adm"}
    assert list(found.missing) == ["is:adm"]  # a store of features has no classifier but Inception's


def test_one_file_on_both_sides_is_a_warning(file):
    path = file("ref.npz", arr_0=REAL)
    with pytest.warns(SuspiciousInputWarning, match="both sides are the same"):
        evaluate_adm(path, path, extractor=Network())


def test_statistics_of_another_protocol_are_refused(file, tmp_path):
    known = Statistics(*FEATURES.values(), 90, {"protocol": "clean"}, spatial=Statistics(*SPATIAL.values()))
    path = known.save(tmp_path / "clean.npz")
    network = Network()
    with pytest.raises(ValueError, match=r"clean\.npz was made with protocol clean"):
        evaluate_adm(path, FAKE, extractor=network)
    assert network.seen == 0
    assert evaluate_adm(path, FAKE, extractor=network, force=True)["sfid"].value > 0


# ------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command with a network of small dims; returns code, stdout, stderr."""

    def call(*argv, network=Network):
        monkeypatch.setattr("fastfid.evaluation.networks.make_extractor", lambda *_: network())
        code = main(["adm", *map(str, argv)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def files(file):
    return file("ref.npz", arr_0=REAL), file("samples.npz", arr_0=FAKE)


def test_the_lines_are_the_evaluators(run, files):
    code, out, _ = run(*files)
    assert code == 0
    lines = dict(line.split(": ") for line in out.splitlines())
    assert list(lines) == ["Inception Score", "FID", "sFID", "Precision", "Recall"]
    expected = evaluate_adm(REAL, FAKE, extractor=Network())
    assert [float(value) for value in lines.values()] == [result.value for result in expected.values()]
    code, out, _ = run(*files, "--json", "--quiet")
    record = json.loads(out)
    assert [row["value"] for row in record["metrics"]] == [float(value) for value in lines.values()]
    assert record["command"][:2] == ["fastfid", "adm"]
    assert record["metrics"][1]["standard_error"] > 0


def test_a_number_that_cannot_be_computed_has_the_reason_on_its_line(run, files):
    code, out, _ = run(*files, network=WithoutClassifier)
    first, *others = out.splitlines()
    assert (
        first == "Inception Score: not computed: weights.pt: holds the network without its classifier; other.pth has it"
    )
    assert (code, len(others)) == (0, 4)


def test_what_comes_from_where_is_said(run, file, capfd, monkeypatch):
    reference = file("ref.npz", arr_0=REAL, **FEATURES, **SPATIAL)
    evaluate_adm(reference, FAKE, extractor=Network())
    assert "ref.npz: FID and sFID of its statistics, the other numbers of its 40 images" in capfd.readouterr().err
    evaluate_adm(file("half.npz", arr_0=REAL, **FEATURES), FAKE, extractor=Network())
    assert "half.npz: FID of its statistics, the other numbers of its 40 images" in capfd.readouterr().err


def test_samples_in_a_folder(run, files, tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    for i, image in enumerate(FAKE):
        Image.fromarray(image).save(folder / f"{i:03}.png")
    assert run(files[0], folder)[1] == run(*files)[1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": FAKE}, r"samples\.npz: expected images under arr_0, or statistics under mu and sigma"),
        ({"arr_0": FAKE.astype(np.float32)}, r"samples\.npz: arr_0: expected uint8 images with values 0\.\.255"),
        ({"arr_0": FAKE[..., 0]}, r"samples\.npz: arr_0: expected images \(n, h, w, 3\)"),
        ({"arr_0": FAKE[:1]}, r"samples\.npz: a covariance needs at least 2 images, got 1"),
        ({"mu": STORED[0]}, r"samples\.npz: no sigma in it"),
        ({"arr_0": FAKE, **FEATURES, "mu_s": STORED_S[0], "sigma_s": np.eye(3)}, r"samples\.npz: .*sigma_s"),
        ({"arr_0": FAKE, **FEATURES, "mu": STORED[0] * np.nan}, r"samples\.npz: mu: has NaN"),
    ],
)
def test_bad_files_are_one_sentence(run, files, file, arrays, message):
    code, out, err = run(files[0], file("samples.npz", **arrays), "--quiet")
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"fastfid: error: .*{message}.*\n", err)


def test_a_file_that_is_not_there(run, files):
    code, out, err = run(files[0], "nowhere.npz", "--quiet")
    assert (code, out, err) == (1, "", "fastfid: error: Invalid path: nowhere.npz\n")


def test_options_that_the_protocol_has_not(capfd):
    with pytest.raises(SystemExit) as ended:
        main(["adm", "a", "b", "--dims", "64"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --dims 64" in capfd.readouterr().err


def test_features_of_another_protocol_are_refused():
    """Also where both sides have one and the same."""
    meta = {"protocol": "clean"}
    known = [Statistics.from_features(rows_of(pictures), meta, "f.npz") for pictures in (REAL, FAKE)]
    with pytest.raises(ValueError, match=r"f\.npz was made with protocol clean, and these numbers are of tensorflow: "):
        evaluate_adm(*known)
    assert evaluate_adm(*known, protocol="clean")["fid"].value == evaluate_adm(*known, force=True)["fid"].value


def test_reference_of_other_dims_is_refused():
    known = Statistics.from_features(rows_of(REAL), {"protocol": "tensorflow"}, "f.npz")
    with pytest.raises(ValueError, match=r"f\.npz has 12 dims, and these numbers are of 2048"):
        evaluate_adm(known, FAKE)
