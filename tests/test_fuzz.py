"""The fuzzers' seeds and committed corpus are run once, so that fixed errors stay fixed."""

import importlib.util
from pathlib import Path

import pytest

from fastfid import compare_records
from fastfid.sources import open_source

FOLDER = Path(__file__).resolve().parents[1] / "fuzz"


def load_readers():
    spec = importlib.util.spec_from_file_location("fuzz_readers", FOLDER / "readers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readers = load_readers()


@pytest.mark.parametrize("target", readers.TARGETS)
def test_the_corpus_holds(target):
    assert readers.replay(target) >= len(readers.seeds(target)) > 0


@pytest.mark.filterwarnings("ignore:TIFF-F. is a float picture")  # one of the seeds
@pytest.mark.parametrize("target", [target for target in readers.TARGETS if target != "state_dict"])
def test_the_seeds_are_sound(target, tmp_path):
    """A corpus that begins with refused inputs would find little."""
    if target == "weights":
        from fastfid.features.weights.state_dict import unpickle

        for name, data in readers.seeds(target).items():
            if name != "zip":
                import io

                assert unpickle(io.BytesIO(data))
        return
    if target == "checkpoint":
        from fastfid.features.known.checkpoint import read_checkpoint

        for name in ("zip", "safetensors"):  # the others are pickles as such files have them
            with readers.file_of(readers.seeds(target)[name], ".safetensors") as path:
                assert [tensor.size for tensor in read_checkpoint(path).values()] == [2]
        return
    if target == "spec":
        from fastfid import InputSpec

        for data in readers.seeds(target).values():
            with readers.file_of(data, ".json") as path:
                assert InputSpec.load(path).shorter_side == 40
        return
    if target == "onnx_tensors":
        from fastfid.features.onnx_file import tensor_files

        assert [tensor_files(data) for data in readers.seeds(target).values()] == [["t.bin"]]
        return
    if target == "plan":
        from fastfid.scale.plan import Plan

        for data in readers.seeds(target).values():
            with readers.file_of(data, ".json") as path:
                assert [task.count for task in Plan.load(Path(path)).tasks] == [32, 8]
        return
    if target == "part":
        from fastfid.scale.part import Part

        for data in readers.seeds(target).values():
            with readers.file_of(data, ".npz") as path:
                assert Part.load(Path(path), readers.task_of_seeds()).n == 3
        return
    if target == "part_meta":
        readers.part_meta(readers.seeds(target)["rows"])  # asserts that it is a Part
        return
    if target == "records":
        for data in readers.seeds(target).values():
            (tmp_path / "r.jsonl").write_bytes(data)
            found = compare_records([tmp_path / "r.jsonl"])
            assert sorted(one.name for one in found.candidates) == ["a", "b"]
        return
    if target in ("dataset_json", "labels_csv"):
        for name, data in readers.seeds(target).items():
            file = "dataset.json" if target == "dataset_json" else "labels.csv"
            (tmp_path / file).write_bytes(data)
            for picture in ("a.png", "b.png"):
                (tmp_path / picture).touch()
            source = open_source(tmp_path, labels="auto" if target == "dataset_json" else str(tmp_path / file))
            assert source.has_labels == (name != "null")
        return
    if target == "picture":
        from fastfid.sources.picture import Decoder

        for name, data in readers.seeds(target).items():
            assert Decoder().decode_bytes(data, name).shape == (8, 9, 3)
        return
    from fastfid import Statistics

    for name, data in readers.seeds(target).items():
        with readers.file_of(data, f".{target}") as path:
            if name in ("statistics", "spatial"):
                known = Statistics.load(path)
                assert (known.d, known.spatial is not None) == (2, name == "spatial")
            else:
                assert all(item.load().size for item in open_source(path))
