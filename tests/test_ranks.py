"""Several processes on one command line, as torchrun and srun start them, print what one process prints.

tests/scale has what needs torchrun itself, and signals.
"""

import itertools
import json
import os
import socket
import sys

import launching
import pytest
from stubs import AllOutputs

from fastfid import Statistics, cli, compute_statistics, evaluate
from fastfid.cli.launch import Launch, first_host, launched
from fastfid.errors import WeightsError
from fastfid.metrics.several import Accumulators
from fastfid.scale import ranks
from fastfid.scale.places import place_of
from fastfid.sources import open_source

SOON_MISSING = {"NAMED_S": 0.7, "GIVEN_UP_S": 1.5}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return launching.make_pictures(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def expected(pictures):
    return launching.expected(pictures)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_ranks_prints_once_what_one_process_prints(pictures, expected, tmp_path, size):
    ranks = launching.start(tmp_path, launching.words(pictures), launching.variables_of_ranks(size))
    (code, out, err), *others = launching.ended(ranks)
    assert (code, launching.values(out)) == (0, expected), err
    assert [other for other in others if other != (0, "", "")] == []
    launching.check_clean(tmp_path)


def test_an_error_is_said_once(pictures, tmp_path):
    fake = tmp_path / "fake"
    fake.mkdir()
    for path in pictures[1].iterdir():
        (fake / path.name).write_bytes(path.read_bytes() if path.name != "040.png" else b"no picture")
    # Rank 0 is so slow that rank 1 reads nearly all.
    ranks = launching.start(
        tmp_path, launching.words([pictures[0], fake]), launching.variables_of_ranks(2), {"slow": {"0": 0.1}}
    )
    (code, out, err), other = launching.ended(ranks)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"fastfid: error: rank 1: {fake}/040.png: ")
    assert other == (1, "", "")
    launching.check_clean(tmp_path)


def test_wrong_usage_is_said_once(pictures, tmp_path):
    ranks = launching.start(tmp_path, [*pictures, "--metrics", "fud"], launching.variables_of_ranks(2))
    (code, out, err), other = launching.ended(ranks)
    assert (code, out) == (2, "")
    assert "argument --metrics: expected names among" in err
    assert other == (2, "", "")


def test_different_arguments_run_by_themselves(pictures, tmp_path):
    each = [launching.words(pictures), launching.words(pictures[::-1])]
    found = launching.ended(launching.start(tmp_path, each, launching.variables_of_ranks(2)))
    for (code, out, err), (real, fake) in zip(found, (pictures, pictures[::-1]), strict=True):
        assert code == 0, err
        truth = evaluate(real, fake, metrics=launching.METRICS, extractor=AllOutputs())
        assert launching.values(out) == {name: one.value for name, one in truth.items()}
    remarks = [err.count("the 2 ranks have different arguments, so each runs by itself\n") for _, _, err in found]
    assert remarks == [1, 0]


@pytest.mark.parametrize("there", [0, 1])
def test_a_missing_rank_is_named(pictures, tmp_path, there):
    variables = launching.variables_of_ranks(2)[there : there + 1]
    ((code, out, err),) = launching.ended(launching.start(tmp_path, launching.words(pictures), variables, SOON_MISSING))
    assert (code, out) == (1, "")
    waiting, failed = err.splitlines()
    missing = 1 - there
    assert waiting.startswith(f"fastfid: waiting for rank {missing} of 2; if this process is not one of several, unset")
    assert failed == f"fastfid: error: rank {missing} of 2 did not come within 2 s"


def test_what_is_not_divided_is_done_by_rank_0(pictures, tmp_path):
    files = []
    for path in pictures:
        files.append(tmp_path / f"{path.name}.npz")
        code = cli.main(["stats", str(path), "--dims", "64", "--quiet", "-o", str(files[-1])])
        assert code == 0
    (code, out, err), other = launching.ended(launching.start(tmp_path, [*files], launching.variables_of_ranks(2)))
    assert (code, out.count("FID:"), other) == (0, 1, (0, "", "")), err
    assert "rank" not in err
    words = ["compare", files[0], files[1], files[1]]
    (code, out, err), other = launching.ended(launching.start(tmp_path, words, launching.variables_of_ranks(2)))
    assert (code, other) == (0, (0, "", "")), err
    assert "fastfid: fastfid compare is not divided among ranks: rank 0 does it, and the other 1 wait\n" in err


@pytest.mark.parametrize("more", [["--spatial"], ["--run-dir", "run"], None])
def test_statistics_are_divided(pictures, tmp_path, monkeypatch, more):
    """By fastfid stats, and by --save-stats (None). Rank 1 reads nearly all, as rank 0 is slow."""
    words = ["stats", pictures[0], "-o", tmp_path / "out.npz", *(more or [])]
    words = words if more is not None else [pictures[0], tmp_path / "out.npz", "--save-stats"]
    words += ["--extractor", "tiny.onnx"]
    monkeypatch.chdir(tmp_path)
    two = launching.start(tmp_path, words, launching.variables_of_ranks(2), {"slow": {"0": 0.1}})
    (code, out, err), other = launching.ended(two)
    assert (code, out, other) == (0, "", (0, "", "")), err
    assert err.count("n = 130") == 1
    assert "rank 0 does it" not in err
    truth = compute_statistics(pictures[0], extractor=AllOutputs(), spatial=more == ["--spatial"])
    found = Statistics.load(tmp_path / "out.npz")
    for one, other in ((found, truth), (found.spatial, truth.spatial)):
        assert (one is None) == (other is None)
        assert one is None or (one.mu.tobytes(), one.sigma.tobytes()) == (other.mu.tobytes(), other.sigma.tobytes())
    launching.check_clean(tmp_path)


def test_an_output_that_is_there_is_refused_once(pictures, tmp_path):
    (tmp_path / "out.npz").touch()
    words = ["stats", pictures[0], "-o", tmp_path / "out.npz", "--extractor", "tiny.onnx"]
    (code, out, err), other = launching.ended(launching.start(tmp_path, words, launching.variables_of_ranks(2)))
    assert (code, out, other) == (1, "", (1, "", ""))
    assert err == f"fastfid: error: Existing output file: {tmp_path}/out.npz (--overwrite replaces it)\n"


def test_a_process_of_a_plan_is_no_rank(pictures, tmp_path, weights):
    """fastfid part has an index of its own, and torchrun may start it all the same."""
    run = tmp_path / "run"
    assert cli.main(["plan", *map(str, pictures), "--dims", "64", "--run-dir", str(run), "--quiet"]) == 0
    words = [["part", "--run-dir", run, "--index", index, "--of", 2] for index in range(2)]
    found = launching.ended(launching.start(tmp_path, words, launching.variables_of_ranks(2)))
    assert [(code, out) for code, out, _ in found] == [(0, "")] * 2
    assert [err.splitlines()[-1] for _, _, err in found] == [f"fastfid: {run}: 4 tasks done"] * 2


def test_the_traceback_of_another_rank_is_for_who_asks(pictures, tmp_path):
    fake = tmp_path / "fake"
    fake.mkdir()
    for path in pictures[1].iterdir():
        (fake / path.name).write_bytes(path.read_bytes() if path.name != "040.png" else b"no picture")
    variables = launching.variables_of_ranks(2, FASTFID_TRACEBACK=1)
    ranks = launching.start(tmp_path, launching.words([pictures[0], fake]), variables, {"slow": {"0": 0.1}})
    (code, out, err), (of_other, out_of_other, err_of_other) = launching.ended(ranks)
    assert (code, out, of_other, out_of_other) == (1, "", 1, "")
    assert err.splitlines()[-1].startswith(f"fastfid.scale.ranks.RankFailed: rank 1: {fake}/040.png: ")
    assert err_of_other.splitlines()[0] == "Traceback (most recent call last):"
    assert err_of_other.splitlines()[-1].startswith(f"fastfid.errors.ImageError: {fake}/040.png: ")


def test_several_machines_need_a_run_directory(pictures, tmp_path):
    settings = {"host": {"0": "first", "1": "second"}}
    (code, out, err), other = launching.ended(
        launching.start(tmp_path, launching.words(pictures), launching.variables_of_ranks(2), settings)
    )
    assert (code, out, other) == (2, "", (2, "", ""))
    assert "--run-dir: is needed where the ranks are on several machines, here first, second: give a folder" in err


def slurm(size, rank, job):
    """What srun sets, beside much else, for two tasks on one machine."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_ID": 0,
        "SLURM_NTASKS": size,
        "SLURM_STEP_NUM_TASKS": size,
        "SLURM_STEP_NUM_NODES": 1,
        "SLURM_STEP_NODELIST": "node7",
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
    }


def slurm_variables(job):
    return {name: str(value) for name, value in slurm(2, 0, job).items()}


def test_srun(pictures, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    # The port follows from the numbers of job and step.
    jobs = (job for job in itertools.count(os.getpid()) if launching.is_free(launched(slurm_variables(job)).port))
    job = next(jobs)
    ranks = launching.start(tmp_path, launching.words(pictures), [slurm(2, rank, job) for rank in range(2)])
    (code, out, err), other = launching.ended(ranks)
    assert (code, launching.values(out), other) == (0, expected, (0, "", "")), err


def test_a_batch_script_without_srun_is_one_process(pictures, expected, tmp_path):
    variables = {"SLURM_JOB_ID": 5, "SLURM_NTASKS": 16, "SLURM_NPROCS": 16, "SLURM_PROCID": 0, "SLURM_LOCALID": 0}
    settings = {"without_torch": True}
    ((code, out, err),) = launching.ended(launching.start(tmp_path, launching.words(pictures), [variables], settings))
    assert (code, launching.values(out)) == (0, expected), err


def test_ranks_need_torch(pictures, tmp_path):
    variables = launching.variables_of_ranks(2)[:1]
    ((code, out, err),) = launching.ended(
        launching.start(tmp_path, launching.words(pictures), variables, {"without_torch": True})
    )
    assert (code, out) == (1, "")
    assert "there are 2 ranks, which find each other through torch, and torch is not installed" in err


def test_only_the_command_line_looks_for_ranks(pictures, tmp_path):
    code = "import sys, fastfid; fastfid.compute_fid(*sys.argv[1:], dims=64); print('torch' in sys.modules)"
    variables = launching.variables_of_ranks(2)[:1]
    ((code, out, err),) = launching.ended(launching.start(tmp_path, [*pictures], variables, command=("-c", code)))
    assert (code, out) == (0, "False\n"), err


def in_this_process(rank, size):
    """A rank whose messages stay in this process."""
    from torch.distributed import HashStore

    found = ranks.Ranks(HashStore(), rank, size)
    found.hosts = [f"host{one}" for one in range(size)]
    return found


def test_a_folder_that_is_not_shared_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "_VISIBLE_S", 0)
    second = in_this_process(1, 2)
    second.tell("todo", {})
    with pytest.raises(ValueError, match=r"plan\.json: rank 1 on host1 does not see it, and rank 0 has written it"):
        ranks.RankDirectory(tmp_path, second).begin({}, {})


def test_fresh_does_not_start_over_where_the_launcher_starts_ranks_again(pictures, tmp_path):
    evaluate(*pictures, extractor=AllOutputs(), run_dir=tmp_path)
    for is_restarted, kept in ((True, 8), (False, 0)):
        options = {"changed": "fresh", "is_restarted": is_restarted}
        run = ranks.RankDirectory(tmp_path, in_this_process(0, 1), **options)
        evaluate(*pictures, extractor=AllOutputs(), run_dir=run)
        assert (run.found, run.done) == (kept, 8 - kept)
    run = ranks.RankDirectory(tmp_path, in_this_process(0, 1), changed="fresh", is_restarted=True)
    evaluate(*pictures, extractor=AllOutputs(), alpha=True, run_dir=run)  # of something else
    assert (run.found, run.done) == (0, 8)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), "rank 1: /x: No such file or directory"),
        (ValueError("x: is wrong"), "rank 1: x: is wrong"),
        (WeightsError("no weights", "a step"), "rank 1: no weights"),
        (KeyError("x"), "rank 1: KeyError: x"),
        (AssertionError(), "rank 1: AssertionError: AssertionError"),
    ],
)
def test_the_first_error_of_a_rank_is_a_sentence(error, sentence):
    rank = in_this_process(1, 2)
    rank.check()
    rank.fail(error)
    rank.fail(ValueError("a later one"))
    with pytest.raises(ranks.RankFailed) as found:
        rank.check()
    assert str(found.value) == sentence


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        said = f"MASTER_ADDR, MASTER_PORT: 127.0.0.1:{port} cannot be used: "
        with pytest.raises(RuntimeError, match=said):
            ranks.open_store(0, 2, "127.0.0.1", port, hosts=True, space="x")


def test_what_rank_0_says_before_it_ends_is_heard(monkeypatch):
    """Also if it is said between the question for it and the question whether the run is over."""
    second = in_this_process(1, 2)

    def is_over():
        second.tell("folder", "run")
        return True

    monkeypatch.setattr(second, "is_over", is_over)
    assert second.wait("folder") == "run"
    with pytest.raises(ranks.Over):
        second.wait("todo")


def test_a_rank_that_gives_no_sign_of_life_is_named(monkeypatch):
    monkeypatch.setattr(ranks, "SILENT_S", -1)
    first = in_this_process(0, 2)
    first.check_alive(1, "")
    first.count("beat/1", 1)
    first.check_alive(1, "")
    with pytest.raises(ranks.RankFailed, match="rank 1 on host1 has given no sign of life for -1 s; images"):
        first.check_alive(1, "; images 0 to 9 are not done")


def test_a_file_that_appears_is_waited_for(tmp_path, monkeypatch):
    """In a folder, and at a URL, which nobody lists."""
    for place in (tmp_path / "a.npz", place_of(f"file://{tmp_path}/b.npz")):
        path = tmp_path / str(place).rpartition("/")[2]
        monkeypatch.setattr("fastfid.scale.ranks.time.sleep", lambda seconds, path=path: path.touch())
        ranks._wait_for_file(place, "rank 0 does not see it")
        assert path.exists()


def test_a_task_is_done_once(pictures, tmp_path, monkeypatch):
    """Whoever has done it before: this launch, another one, or a process of the same run without a launcher."""
    plain = evaluate(*pictures, extractor=AllOutputs(), run_dir=tmp_path)
    monkeypatch.setattr(AllOutputs, "forward", None)  # nothing is left to do
    run = ranks.RankDirectory(tmp_path, in_this_process(0, 1))
    assert dict(evaluate(*pictures, extractor=AllOutputs(), run_dir=run)) == dict(plain)

    # Of another rank: the tasks were missing when rank 0 looked, and are there when their tickets are drawn.
    second = in_this_process(1, 2)
    source = open_source(pictures[0])
    second.tell("todo", {side: list(range(len(one.tasks))) for side, one in run.plan.sides.items()})
    other = ranks.RankDirectory(tmp_path, second)
    other.begin({"real": source, "fake": open_source(pictures[1])}, run.plan.decides)
    other.read("real", source, AllOutputs(), {}, Accumulators({}), max_errors=None, progress=False)
    drawn = [second.heard(f"done/real/{place + 1}") for place in range(second.count("done/real"))]
    assert drawn == list(range(len(run.plan.sides["real"].tasks)))

    # On rank 0: tickets of tasks that are no longer missing are drawn, and nothing is done for them.
    alone = in_this_process(0, 1)
    tickets = ranks.Tickets(alone, run.file_of)
    tasks = run.plan.sides["real"].tasks
    tickets.todo = {"real": tasks}
    assert list(tickets.run([], None)) == []
    assert list(tickets.run(tasks[1:3], lambda task: task.first)) == [(task, task.first) for task in tasks[1:3]]
    assert alone.count("ticket/real") == len(tasks) + 1


STEP = {name: str(value) for name, value in slurm(16, 3, 1001).items()}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, None),
        ({"WORLD_SIZE": "8"}, None),
        ({**TORCHRUN, "WORLD_SIZE": "1"}, None),
        (TORCHRUN, (1, 8, "host", 29500, False)),
        ({**TORCHRUN, "RANK": "0"}, (0, 8, "host", 29500, True)),
        ({**TORCHRUN, "RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}, (0, 8, "host", 29500, False)),
        ({**STEP, **TORCHRUN}, (1, 8, "host", 29500, False)),
        (STEP, (3, 16, "127.0.0.1", 17007, False)),
        ({**STEP, "SLURM_PROCID": "0", "MASTER_PORT": "5"}, (0, 16, "127.0.0.1", 5, True)),
        ({**STEP, "SLURM_STEP_NUM_NODES": "2"}, (3, 16, "node7", 17007, False)),
        ({**STEP, "MASTER_ADDR": "other"}, (3, 16, "other", 17007, False)),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({name: value for name, value in STEP.items() if name != "SLURM_STEP_NUM_TASKS"}, None),
        ({**STEP, "SLURM_STEP_ID": "4294967290"}, None),  # salloc's shell
    ],
)
def test_what_the_variables_of_launchers_say(given, found, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    launch = launched(given)
    assert (launch and (launch.rank, launch.size, launch.address, launch.port, launch.hosts_store)) == found


def test_a_shell_at_a_terminal_is_one_process(monkeypatch):
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    assert launched(STEP) is None
    assert isinstance(launched(TORCHRUN), Launch)


def test_a_variable_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="WORLD_SIZE: expected an integer, got 'all'"):
        launched({**TORCHRUN, "WORLD_SIZE": "all"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node7", "node7"),
        ("node7,node8", "node7"),
        ("node[03-05,7],other", "node03"),
        ("rack[1-2]node[08,09]-ib", "rack1node08-ib"),
        ("", "127.0.0.1"),
    ],
)
def test_the_first_host_of_slurms_list(nodes, host):
    assert first_host(nodes) == host


def test_classes_go_through_a_run_directory(pictures, tmp_path):
    """The ranks agree that rows and labels are kept."""
    sets = [tmp_path / path.name for path in pictures]
    for path, there in zip(sets, pictures, strict=True):
        for i, picture in enumerate(sorted(there.iterdir())):
            (path / f"class-{i % 2}").mkdir(parents=True, exist_ok=True)
            (path / f"class-{i % 2}" / picture.name).write_bytes(picture.read_bytes())
    more = ["--recursive", "--labels", "folder", "--per-class", "--run-dir", tmp_path / "run"]
    started = launching.start(tmp_path, launching.words(sets, *more), launching.variables_of_ranks(2))
    (code, out, err), other = launching.ended(started)
    assert (code, other) == (0, (0, "", "")), err
    options = {"recursive": True, "labels": "folder", "per_class": True}
    truth = evaluate(*sets, metrics=launching.METRICS, extractor=AllOutputs(), **options)
    found, expected = json.loads(out), truth.to_dict()
    assert {one["class"] for one in expected["metrics"]} == {None, "class-0", "class-1"}
    assert found["metrics"] == expected["metrics"]


def test_a_run_directory_at_a_url_of_files(pictures, expected, tmp_path):
    more = ["--run-dir", f"file://{tmp_path}/run"]
    started = launching.start(tmp_path, launching.words(pictures, *more), launching.variables_of_ranks(2))
    (code, out, err), other = launching.ended(started)
    assert (code, launching.values(out), other) == (0, expected, (0, "", "")), err
    assert (tmp_path / "run" / "plan.json").exists()
