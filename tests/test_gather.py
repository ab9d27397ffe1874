"""``gather()`` in three real processes of torch.distributed, one of which has no images."""

import json

import gather_ranks
import launching
import numpy as np
import pytest
from stubs import AllOutputs, GridMeans
from tolerances import ANOTHER_ORDER

from fastfid import FID, Evaluator, compute_fid

RANKS = range(3)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank got, by case."""
    command = (str(launching.TESTS / "gather_ranks.py"),)
    variables = launching.variables_of_ranks(3)
    ranks = launching.start(tmp_path_factory.mktemp("ranks"), [""], variables, command=command)
    each = []
    for code, out, err in launching.ended(ranks):
        assert code == 0, err
        each.append(json.loads(out.splitlines()[-1]))
    return {case: [one[case] for one in each] for case in each[0]}


def merged(make, ranks=RANKS, sides=(True, False)):
    """The parts of the ranks, merged in this process."""
    total = gather_ranks.filled(make(), ranks[0], sides)
    for rank in ranks[1:]:
        total.merge(gather_ranks.filled(make(), rank, sides))
    return total


def test_every_rank_gets_the_images_of_all_in_the_order_of_ranks(found):
    expected = gather_ranks.summary(merged(lambda: FID(extractor=AllOutputs())))
    assert "real=45, fake=45" in expected[0]
    assert found["fid"] == [expected] * 3
    assert found["again"] == [expected] * 3
    assert found["left alone"] == [True] * 3


def test_one_rank_gets_them(found):
    assert found["one rank"] == [None, found["fid"][0], None]


def test_the_images_are_those_of_one_process(found):
    every = [np.concatenate([gather_ranks.share(rank, real) for rank in RANKS]) for real in (True, False)]
    fid = merged(lambda: FID(extractor=AllOutputs())).compute()
    assert fid == pytest.approx(compute_fid(*every, extractor=AllOutputs()), rel=ANOTHER_ORDER)


def test_metrics_of_rows(found):
    total = merged(lambda: Evaluator(gather_ranks.METRICS, extractor=AllOutputs()))
    assert found["evaluator"] == [gather_ranks.evaluation(total)] * 3
    total = merged(lambda: Evaluator("all", extractor=AllOutputs()))
    assert found["all"] == [gather_ranks.evaluation(total), None, None]


def test_a_fixed_real_side_is_not_added_up(found):
    total = merged(lambda: FID(real=gather_ranks.fixed(), extractor=GridMeans()), sides=(False,))
    assert found["fixed"] == [[45, total.compute()]] * 3


def test_real_images_that_are_given_once_count_once(found):
    real = gather_ranks.share(2, True)
    total = merged(lambda: Evaluator(gather_ranks.METRICS, real=real, extractor=AllOutputs()), sides=(False,))
    expected = gather_ranks.evaluation(total)
    assert found["real images once"] == [expected] * 3
    assert found["real images read"] == [expected] * 3


def test_a_group_of_some_ranks(found):
    """Rank 1 of the group is rank 2 of all."""
    outside, *inside = found["group"]
    assert outside == "ValueError: group: this process is not in it"
    assert inside == [None, gather_ranks.summary(merged(lambda: FID(extractor=AllOutputs()), [1, 2]))]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("dst", "dst: expected a rank from 0 to 2, got 3"),
        ("network", "what lower ranks have was made with dims 12, that of rank 1 with 27"),
        ("real side", "gather: rank 0 and rank 2 do not have the same fixed real side"),
        ("no real side", "gather: rank 0 and rank 1 do not have the same fixed real side"),
        ("metrics", "do not have the same metrics: ['fid', 'kid', 'prdc'] and ['fid', 'kid']"),
        ("class", "gather: rank 0 and rank 1 do not have the same class: Evaluator and FID"),
    ],
)
def test_what_does_not_go_together_is_refused_by_all(found, case, message):
    for said in found[case]:
        assert said.startswith("ValueError: ")
        assert message in said


@pytest.mark.parametrize("what", ["give", "take"])
def test_an_error_of_one_rank_is_an_error_of_all(found, what):
    why = "integer division or modulo by zero"
    first, failed, last = found[what]
    assert failed == f"ZeroDivisionError: {why}"
    assert first == last == f"RuntimeError: gather: rank 1: {why}"


def test_one_process_gets_a_copy(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    fid = gather_ranks.filled(FID(extractor=AllOutputs()), 2)
    total = fid.gather()
    assert gather_ranks.summary(total) == gather_ranks.summary(fid)
    fid.reset()
    assert total.fake.n == 40
    total.update(gather_ranks.share(1, False), real=False)
    assert total.fake.n == 45


def test_ranks_without_a_process_group_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, and there is no process group: call"):
        FID(extractor=AllOutputs()).gather()
