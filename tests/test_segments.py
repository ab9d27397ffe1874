"""The moments of a source do not depend on who reads which images; slices of sources; the sample of the rows."""

import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans
from tolerances import COVARIANCE, MOMENTS

from fastfid import Moments, compute_statistics, evaluate, evaluate_extractors, segments
from fastfid.errors import SkippedImagesWarning
from fastfid.metrics.moments import FeatureMoments
from fastfid.pipeline import extract
from fastfid.reservoir import RowReservoir
from fastfid.segments import RADIX, SEGMENT, SegmentedMoments
from fastfid.sources import open_source


def features(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32) + 3


def digest(moments):
    return [moments.n, moments.mean.tobytes(), moments.covariance().tobytes()]


def read(rows, indices, cuts=(), d=None):
    """The moments of rows that come in several updates."""
    out = SegmentedMoments(d or rows.shape[1])
    for part, at in zip(np.split(rows, list(cuts)), np.split(indices, list(cuts)), strict=True):
        out.update(part, at)
    return out


@pytest.fixture
def small(monkeypatch):
    """Segments of 100 images, four of which are a node."""
    monkeypatch.setattr(segments, "SEGMENT", 100)
    monkeypatch.setattr(segments, "RADIX", 4)


def test_a_segment_is_whole_blocks_of_the_core():
    """A full segment has no pending rows."""
    moments = Moments(3)
    moments.update(features(SEGMENT, 3))
    assert moments.state()["pending"].shape == (0, 3)
    assert RADIX == 16


def test_one_segment_is_one_stream():
    rows = features(SEGMENT, 5)
    stream = Moments(5)
    stream.update(rows)
    assert digest(read(rows, np.arange(SEGMENT), [7, 400]).total()) == digest(stream)


def test_rows_are_exact_while_n_is_no_more_than_d(small):
    rows = features(250, 300)
    total = read(rows, np.arange(250), [30, 130]).total()
    np.testing.assert_array_equal(total.rows, rows)


def test_the_tree_is_the_one_that_is_described(small):
    """Left folds of four, of 27 segments: 4 x 4 + 4 + 4 + 3."""
    rows = features(2650, 8)

    def fold(nodes):
        total = Moments(8)
        for node in nodes:
            total.merge(node)
        return total

    leaves = [read(rows[start : start + 100], np.arange(100)).total() for start in range(0, 2650, 100)]
    nodes = [fold(leaves[start : start + 4]) for start in range(0, 27, 4)]
    expected = fold([fold(nodes[:4]), fold(nodes[4:])])
    total = read(rows, np.arange(2650)).total()
    assert digest(total) == digest(expected)
    exact = rows.astype(np.longdouble)
    np.testing.assert_allclose(total.mean, exact.mean(axis=0).astype(float), rtol=MOMENTS, atol=0)
    np.testing.assert_allclose(total.covariance(), np.cov(exact.astype(float), rowvar=False), rtol=0, atol=COVARIANCE)


@pytest.mark.parametrize("n", [1, 99, 100, 101, 400, 401, 1600, 2650, 6500])
def test_any_cut_gives_the_same_bits(small, n):
    rows, indices = features(n, 6, n), np.arange(n)
    whole = digest(read(rows, indices).total()) if n > 1 else read(rows, indices).total().mean.tobytes()
    rng = np.random.default_rng(n)
    for _ in range(3):
        found = read(rows, indices, np.sort(rng.integers(0, n + 1, 9)))
        assert found.n == n
        total = found.total()
        assert (digest(total) if n > 1 else total.mean.tobytes()) == whole
        assert (digest(found.total()) if n > 1 else whole) == whole  # the first call has changed nothing


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("lost", [0, 30, 450])
def test_nodes_that_were_made_elsewhere_give_the_same_bits(small, level, lost):
    """Also with images that were left out, a whole segment of them and more."""
    keep = np.ones(6450, bool)
    keep[210 : 210 + lost] = False
    rows, indices = features(6450, 6)[keep], np.flatnonzero(keep)
    size = 100 * 4**level
    out = SegmentedMoments(6)
    for node in range(-(-6450 // size)):
        inside = indices // size == node
        out.push(pickle.loads(pickle.dumps(read(rows[inside], indices[inside]).total())), node, level)
    assert digest(out.total()) == digest(read(rows, indices).total())
    out.update(features(70, 6, 1), np.arange(6450, 6520) + (size if level else 50))  # rows may follow
    assert out.n == keep.sum() + 70


def test_the_sample_of_parts_is_that_of_the_whole():
    rows, indices = features(9000, 3), np.delete(np.arange(9500), np.arange(2000, 2500))
    whole = RowReservoir(3)
    whole.update(rows, indices)
    parts = []
    for cut in np.split(np.arange(9000), [5, 4000, 4000, 8200]):
        parts.append(RowReservoir(3))
        parts[-1].update(rows[cut], indices[cut])
    joined = parts.pop(2)
    for part in parts[::-1]:
        joined.join(part)
    assert joined.n == whole.n
    np.testing.assert_array_equal(joined.rows, whole.rows)
    np.testing.assert_array_equal(joined.keys, whole.keys)
    with pytest.raises(ValueError, match="other: expected rows of 3 features, got 4"):
        joined.join(RowReservoir(4))


def test_states_of_parts_join_to_what_one_process_has(small):
    rows = features(2650, 8)
    whole = FeatureMoments(8)
    whole.update_at({"features": rows}, np.arange(2650))
    joined = FeatureMoments(8)
    for node in range(7):
        part = FeatureMoments(8)
        here = np.arange(node * 400, min(node * 400 + 400, 2650))
        part.update_at({"features": rows[here]}, here)
        joined.join(FeatureMoments.from_state(part.state()), node, 1)
    assert joined.n == whole.n == 2650
    a, b = (one.statistics({}, "x") for one in (whole, joined))
    assert (a.mu.tobytes(), a.sigma.tobytes()) == (b.mu.tobytes(), b.sigma.tobytes())
    np.testing.assert_array_equal(a.reservoir.rows, b.reservoir.rows)
    whole.merge(joined)
    assert whole.n == 5300
    assert pickle.loads(pickle.dumps(joined)).n == 2650
    joined.reset()
    assert joined.n == 0


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(230):
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


def packed(folder, kind, tmp_path):
    """The pictures of a folder, as another kind of source."""
    paths = sorted(folder.iterdir())
    if kind == "folder":
        return str(folder)
    if kind == "glob":
        return f"{folder}/*.png"
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for path in paths:
                archive.write(path, path.name)
        return str(tmp_path / "a.zip")
    if kind in ("npy", "npz"):
        images = np.stack([np.asarray(Image.open(path)) for path in paths])
        np.save(tmp_path / "a.npy", images)
        np.savez(tmp_path / "a.npz", arr_0=images)
        return str(tmp_path / f"a.{kind}")
    suffix, number = {"tar": ("tar", 1), "tar.gz": ("tar.gz", 1), "shards": ("tar", 4)}[kind]
    for shard in range(number):
        mode = "w:gz" if suffix == "tar.gz" else "w"
        with tarfile.open(tmp_path / f"{kind}{shard}.{suffix}", mode) as archive:
            for path in paths[shard * 70 : shard * 70 + 70 if number > 1 else None]:
                archive.add(path, path.name)
    return f"{tmp_path}/{kind}{{0..{number - 1}}}.{suffix}" if number > 1 else str(tmp_path / f"{kind}0.{suffix}")


KINDS = ("folder", "glob", "zip", "tar", "tar.gz", "shards", "npy", "npz")


@pytest.mark.parametrize("kind", KINDS)
def test_slices_have_the_items_that_the_whole_has(pictures, tmp_path, kind):
    source = open_source(packed(pictures, kind, tmp_path))
    names, images = zip(*((item.name, item.load()) for item in source), strict=True)
    assert len(names) == 230
    for first, count in ((0, 230), (0, 1), (69, 3), (140, 90), (229, 1), (230, 0), (60, None)):
        part = source.slice(first, count)
        found = [(item.name, item.load()) for item in part]
        assert len(found) == len(part) == (170 if count is None else count)
        for offset, (name, image) in enumerate(found):
            assert name == names[first + offset]
            np.testing.assert_array_equal(image, images[first + offset])
        if part.first < 230:
            assert set(part.files()) <= set(source.files())
        inner = part.slice(len(part) // 2)
        assert [item.name for item in inner] == [name for name, _ in found[len(part) // 2 :]]
        assert inner.first == first + len(part) // 2
    with pytest.raises(ValueError, match="has 230 images; a slice ends at 231"):
        source.slice(200, 31)
    with pytest.raises(ValueError, match="expected a slice of numbers from 0 on"):
        source.slice(-1)


@pytest.mark.parametrize("kind", ["tar.gz", "npz"])
def test_slices_in_order_take_one_pass(pictures, tmp_path, kind):
    """And no more than one file stays open."""
    path = packed(pictures, kind, tmp_path)
    source = open_source(path)
    names = [item.name for item in source]
    passes = []
    whole = type(source).__iter__

    def counted(self):
        passes.append(self)
        return whole(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(source), "__iter__", counted)
        for first in range(0, 200, 40):
            assert [item.name for item in source.slice(first, 30)] == names[first : first + 30]
        assert len(passes) == 1
        assert [item.name for item in source.slice(3, 5)] == names[3:8]  # before it
        next(iter(source.slice(8, 5)))  # not to its end
        assert [item.name for item in source.slice(13, 5)] == names[13:18]
        assert len(passes) == 3
        other = open_source(path)
        assert [item.name for item in other.slice(18, 5)] == names[18:23]
        assert [item.name for item in source.slice(23, 2)] == names[23:25]


def test_slices_have_the_files_of_their_items(pictures, tmp_path):
    assert list(open_source(str(pictures)).slice(3, 2).files()) == [f"{pictures}/003.png", f"{pictures}/004.png"]
    shards = open_source(packed(pictures, "shards", tmp_path))
    assert [path[-6:] for path in shards.slice(139, 2).files()] == ["s1.tar", "s2.tar"]
    assert [path[-6:] for path in shards.slice(140, 2).files()] == ["s2.tar"]


def test_slices_of_subsets_and_labelled_sources(pictures):
    subset = open_source(str(pictures), num=50, seed=3)
    assert [item.name for item in subset.slice(20, 9)] == [item.name for item in subset][20:29]
    labelled = open_source(str(pictures), labels=list(range(230)))
    part = labelled.slice(200, 4)
    assert [item.label for item in part] == [200, 201, 202, 203]
    assert [item.label for item in part.slice(1)] == [201, 202, 203]
    assert list(part.files()) == [item.name for item in part] == [f"{pictures}/{i}.png" for i in range(200, 204)]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pipeline_says_which_images_gave_the_outputs(pictures, workers):
    (pictures / "101.png").write_bytes(b"no picture")
    seen = []
    options = {"num_workers": workers, "on_error": "skip"}
    part = open_source(str(pictures)).slice(97, 8)
    report = extract(
        part, GridMeans(), lambda outputs, indices: seen.append((len(outputs["features"]), indices)), **options
    )
    assert all(count == len(indices) for count, indices in seen)
    assert np.concatenate([indices for _, indices in seen]).tolist() == [97, 98, 99, 100, 102, 103, 104]
    assert (report.n, report.skipped_at) == (7, [101])


def test_all_kinds_of_sources_give_the_same_bits(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 20)
    monkeypatch.setattr(segments, "RADIX", 3)
    np.save(tmp_path / "other.npy", np.random.default_rng(1).integers(0, 200, (90, 6, 5, 3), dtype=np.uint8))
    sources = [packed(pictures, kind, tmp_path) for kind in KINDS]
    found = [evaluate(source, tmp_path / "other.npy", extractor=GridMeans()).results["fid"] for source in sources]
    for one in found:
        assert (one.value, one.standard_error) == (found[0].value, found[0].standard_error)


def test_a_store_gives_the_bits_of_its_source(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 20)
    (pictures / "030.png").write_bytes(b"no picture")
    other = tmp_path / "other.npy"
    np.save(other, np.random.default_rng(1).integers(0, 200, (90, 6, 5, 3), dtype=np.uint8))

    def run(**options):
        with pytest.warns(SkippedImagesWarning):
            return dict(evaluate(pictures, other, extractor=GridMeans(), on_error="skip", **options))

    plain = run()
    assert run(store=tmp_path / "features") == plain
    assert run(store=tmp_path / "features") == plain  # of the store alone
    with pytest.warns(SkippedImagesWarning):
        whole = compute_statistics(pictures, extractor=GridMeans(), on_error="skip")
    with pytest.warns(SkippedImagesWarning):
        stored = compute_statistics(next((tmp_path / "features").glob("pictures-*")))
    assert (stored.mu.tobytes(), stored.sigma.tobytes()) == (whole.mu.tobytes(), whole.sigma.tobytes())
    np.testing.assert_array_equal(stored.reservoir.keys, whole.reservoir.keys)


def test_several_extractors_have_the_bits_of_each_alone(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 20)
    monkeypatch.setattr(segments, "RADIX", 3)
    (pictures / "030.png").write_bytes(b"no picture")
    other = tmp_path / "other.npy"
    np.save(other, np.random.default_rng(1).integers(0, 200, (90, 6, 5, 3), dtype=np.uint8))
    extractors = {"2": GridMeans(), "3": GridMeans(3)}
    for one in extractors.values():
        one.input_shape = (one.dims,)
    with pytest.warns(SkippedImagesWarning):
        found = evaluate_extractors(pictures, other, extractors, on_error="skip")
    for name, extractor in extractors.items():
        with pytest.warns(SkippedImagesWarning):
            assert dict(found[name]) == dict(evaluate(pictures, other, extractor=extractor, on_error="skip"))
