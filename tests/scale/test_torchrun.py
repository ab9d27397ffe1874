"""torchrun, and ranks that are killed, stopped and interrupted. ``tools/scale_engines.sh`` runs these tests."""

import os
import signal

import launching
import psutil
import pytest

from fastfid import cli

SLOW = 0.02  # seconds an image
SOON_SILENT = {"BEAT_S": 0.1, "SILENT_S": 3}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return launching.make_pictures(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def expected(pictures):
    return launching.expected(pictures)


def test_torchrun_with_inception(pictures, tmp_path, capsys, weights):
    assert cli.main([*map(str, pictures), "--dims", "64"]) == 0
    plain = capsys.readouterr()
    run = launching.torchrun(tmp_path, [*pictures, "--dims", "64"], 2, command=("-m", "fastfid"))
    ((code, out, err),) = launching.ended([run])
    assert (code, out) == (0, plain.out), err
    assert [line for line in err.splitlines() if line.startswith("fastfid")] == plain.err.splitlines()
    launching.check_clean(tmp_path)


def slow_torchrun(pictures, folder, restarts):
    """Start two ranks, wait for Parts, and return torchrun, its ranks in order, and the run directory."""
    run = folder / "run"
    settings = {"slow": {"0": SLOW, "1": SLOW}}
    process = launching.torchrun(folder, launching.words(pictures, "--run-dir", run), 2, settings, restarts)
    launching.wait_until(lambda: len(launching.parts(run)) >= 3)
    ranks = psutil.Process(process.pid).children()
    by_rank = {one.environ()["RANK"]: one for one in ranks if "RANK" in one.environ()}
    return process, [by_rank["0"], by_rank["1"]], run


def test_a_killed_rank_ends_the_run_which_goes_on_with_other_ranks(pictures, expected, tmp_path):
    process, ranks, run = slow_torchrun(pictures, tmp_path, restarts=0)
    ranks[1].kill()
    ((code, out, _),) = launching.ended([process])
    assert code != 0
    assert out == ""
    kept = launching.parts(run)
    assert 3 <= len(kept) < 8
    again = launching.start(tmp_path, launching.words(pictures, "--run-dir", run), launching.variables_of_ranks(3))
    (code, out, err), *_ = launching.ended(again)
    assert (code, launching.values(out)) == (0, expected), err
    assert kept.items() <= launching.parts(run).items()  # none was written again
    of_real = sum("/real/" in str(path) for path in kept)
    assert f"fastfid: {pictures[0]}: {of_real} of 5 tasks were done before\n" in err
    launching.check_clean(tmp_path)


def test_torchrun_starts_the_ranks_again(pictures, expected, tmp_path):
    process, ranks, run = slow_torchrun(pictures, tmp_path, restarts=1)
    kept = launching.parts(run)
    ranks[0].kill()
    ((code, out, err),) = launching.ended([process])
    assert (code, launching.values(out)) == (0, expected), err
    assert kept.items() <= launching.parts(run).items()


def test_a_stopped_rank_is_named_and_its_run_goes_on_later(pictures, expected, tmp_path):
    run = tmp_path / "run"
    settings = {**SOON_SILENT, "slow": {"0": SLOW, "1": 10 * SLOW}}
    ranks = launching.start(
        tmp_path, launching.words(pictures, "--run-dir", run), launching.variables_of_ranks(2), settings
    )
    launching.wait_until((tmp_path / "temporary" / "begun-1").exists)
    launching.wait_until(lambda: launching.parts(run))
    ranks[1].send_signal(signal.SIGSTOP)
    ((code, out, err),) = launching.ended(ranks[:1])
    ranks[1].kill()
    launching.ended(ranks[1:])
    assert (code, out) == (1, "")
    host = os.uname().nodename
    assert f"fastfid: error: rank 1 on {host} has given no sign of life for 3 s; images " in err.splitlines()[-1]
    ((code, out, err),) = launching.ended(
        launching.start(tmp_path, launching.words(pictures, "--run-dir", run), launching.variables_of_ranks(1))
    )
    assert (code, launching.values(out)) == (0, expected), err


def test_a_stopped_rank_0_is_named_by_the_others(pictures, tmp_path):
    """Beside torchrun the store is in the agent, which goes on."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = launching.variables_of_ranks(2, TORCHELASTIC_USE_AGENT_STORE=True, MASTER_PORT=store.port)
    ranks = launching.start(tmp_path, launching.words(pictures), variables, {**SOON_SILENT, "slow": {"0": SLOW}})
    launching.wait_until(lambda: list(tmp_path.rglob("*.npz")))
    ranks[0].send_signal(signal.SIGSTOP)
    ((code, out, err),) = launching.ended(ranks[1:])
    ranks[0].kill()
    launching.ended(ranks[:1])
    host = os.uname().nodename
    assert (code, out, err) == (1, "", f"fastfid: error: rank 0 on {host} has given no sign of life for 3 s\n")


def test_an_interrupt_leaves_nothing(pictures, tmp_path):
    shared = set(os.listdir("/dev/shm"))
    settings = {"slow": {"0": SLOW, "1": SLOW}}
    process = launching.torchrun(tmp_path, launching.words(pictures), 2, settings)
    launching.wait_until(lambda: list(tmp_path.rglob("*.npz")))
    ranks = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    ((code, out, err),) = launching.ended([process])
    assert code != 0
    assert out == ""
    assert err.count("fastfid: interrupted\n") == 1
    assert [one for one in ranks if one.is_running()] == []
    assert set(os.listdir("/dev/shm")) <= shared
    launching.check_clean(tmp_path)
