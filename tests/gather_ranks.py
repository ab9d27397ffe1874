"""What each of three processes does with ``gather()``: it prints what it got, which tests/test_gather.py checks."""

import hashlib
import json
import sys

import numpy as np
from stubs import AllOutputs, GridMeans

from fastfid import FID, Evaluator, Statistics
from fastfid.batches import gathering

# Images of each rank: one has none, and one has more than dims.
SHARES = (0, 5, 40)
METRICS = ["fid", "kid", "prdc"]


def share(rank, real):
    return np.random.default_rng([rank, real]).integers(0, 256 - 60 * real, (SHARES[rank], 9, 11, 3), dtype=np.uint8)


def filled(one, rank, sides=(True, False)):
    for real in sides if SHARES[rank] else ():
        one.update(share(rank, real), real=real)
    return one


def fixed(seed=0):
    return Statistics.from_features(np.random.default_rng(seed).normal(100, 9, (50, 12)), {"protocol": "none"})


def summary(one):
    """What tells two objects apart: numbers of images, and every bit of what was accumulated."""
    if one is None:
        return None
    bits = hashlib.sha256()
    for real in (True, False):
        for array in gathering._arrays_of(one._accumulated(real).state()):
            bits.update(np.ascontiguousarray(array).tobytes())
    return [repr(one), bits.hexdigest()]


def evaluation(one):
    return None if one is None else {name: found.value for name, found in one.compute().items()}


def refused(call):
    """Type and message of the error that a call raises."""
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def cases(rank, distributed):
    """(name, what this rank gets) of each case; the cases are collective."""
    fid = filled(FID(extractor=AllOutputs()), rank)
    before = summary(fid)
    yield "fid", summary(fid.gather())
    yield "again", summary(fid.gather())
    yield "left alone", summary(fid) == before
    yield "one rank", summary(fid.gather(dst=1))
    several = filled(Evaluator(METRICS, extractor=AllOutputs()), rank)
    yield "evaluator", evaluation(several.gather())
    yield "all", evaluation(filled(Evaluator("all", extractor=AllOutputs()), rank).gather(dst=0))
    yield "fixed", evaluation_of_fixed(rank)
    once = filled(Evaluator(METRICS, real=share(2, True), extractor=AllOutputs()), rank, (False,))
    yield "real images once", evaluation(once.gather())
    if rank == 2:
        once.compute()  # has read the real images, and the others have not
    yield "real images read", evaluation(once.gather())
    group = distributed.new_group([1, 2])
    yield "group", refused(lambda: fid.gather(group=group)) if rank == 0 else summary(fid.gather(1, group=group))
    yield "dst", refused(lambda: fid.gather(3))
    yield "network", refused(filled(FID(extractor=GridMeans(2 + (rank == 1))), rank).gather)
    yield "real side", refused(FID(real=fixed(rank == 2), extractor=GridMeans()).gather)
    yield "no real side", refused(FID(real=fixed() if rank else None, extractor=GridMeans()).gather)
    yield "metrics", refused(Evaluator(METRICS[: 2 + (rank == 0)], extractor=AllOutputs()).gather)
    yield "class", refused((FID if rank == 1 else Evaluator)(extractor=AllOutputs()).gather)

    class Failing(FID):
        fails_to = None

        def _shared_state(self):
            return 1 // 0 if self.fails_to == "give" else super()._shared_state()

        def _take_over(self, state):
            return 1 // 0 if self.fails_to == "take" else super()._take_over(state)

    for what in ("give", "take"):
        failing = Failing(extractor=AllOutputs())
        failing.fails_to = what if rank == 1 else None
        try:
            failing.gather()
        except (ZeroDivisionError, RuntimeError) as error:
            yield what, f"{type(error).__name__}: {error}"


def evaluation_of_fixed(rank):
    fid = filled(FID(real=fixed(), extractor=GridMeans()), rank, (False,)).gather()
    return [fid.fake.n, fid.compute()]


def main():
    import torch.distributed as distributed

    gathering._CHUNK = 1000  # an array goes in many parts
    distributed.init_process_group("gloo")
    try:
        found = dict(cases(distributed.get_rank(), distributed))
        distributed.barrier()  # no rank is left in a collective of before
        print(json.dumps(found))
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
