"""Mean and covariance of features in one pass: from rows to covariance, rows a second into a warm accumulator, memory.

The limit is dsyrk on rows that are centred float64 at hand. np.cov calls it too, after centring a copy. torchmetrics:
the sums of its `update`, and the last step of its `compute`, on the same rows.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import scipy.linalg.blas

import fastfid
from benchmarks.harness import Agreement, Config, Measured, Result, Target, compare, faster, keeps_up, probe

THREADS = (1, 2)
BATCH = 1000  # rows a call of update
BUDGET_S = 10.0  # a contender and case
DSYRK = "dsyrk on centred float64 rows"
COV = "np.cov of float64 rows"
TORCHMETRICS = "torchmetrics' sums"


def features(n: int, d: int) -> np.ndarray:
    """Return rows that look like Inception features: not negative, correlated, (n, d) float32."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((64, d), np.float32)
    return np.maximum(rng.standard_normal((n, 64), np.float32) @ mixing * np.float32(0.05) + np.float32(0.3), 0)


def stream(rows: int, d: int) -> list[float]:
    """Add `rows` rows by adding one batch repeatedly, and return a few of the variances."""
    batch = features(BATCH, d)
    moments = fastfid.Moments(d)
    for _ in range(rows // BATCH):
        moments.update(batch)
    return [float(x) for x in moments.covariance().diagonal()[:4]]


class _Sums:
    """What torchmetrics' FrechetInceptionDistance does with features in update() and compute()."""

    def __init__(self, d: int) -> None:
        import torch

        self.n = 0
        self.total, self.products = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)

    def update(self, rows: np.ndarray) -> None:
        import torch

        x = torch.from_numpy(rows).double()
        self.n += len(rows)
        self.total += x.sum(dim=0)
        self.products += x.t().mm(x)

    def covariance(self) -> np.ndarray:
        mean = (self.total / self.n).unsqueeze(0)
        return ((self.products - self.n * mean.t().mm(mean)) / (self.n - 1)).numpy()


def _feed(sink: "fastfid.Moments | _Sums", rows: np.ndarray, batch: int = BATCH) -> "fastfid.Moments | _Sums":
    for i in range(0, len(rows), batch):
        sink.update(rows[i : i + batch])
    return sink


def _whole(config: Config, rows: np.ndarray) -> Result:
    """From rows to the covariance, everything included."""
    n, d = rows.shape
    rows64 = rows.astype(np.float64)
    centred = rows64 - rows64.mean(0)
    # A sample of the lower triangle is the answer: comparing all of it would take longer than computing it.
    pick = np.random.default_rng(1).integers(0, d, (2, 1000))
    sample = (np.maximum(*pick), np.minimum(*pick))
    return compare(
        config,
        f"from rows to covariance, n = {n}, d = {d}",
        {
            "fastfid": lambda: _feed(fastfid.Moments(d), rows).covariance()[sample],
            "fastfid, 50 rows a call": lambda: _feed(fastfid.Moments(d), rows, 50).covariance()[sample],
            COV: lambda: np.cov(rows64, rowvar=False)[sample],
            TORCHMETRICS: lambda: _feed(_Sums(d), rows).covariance()[sample],
            # centred.T is Fortran-ordered, as BLAS wants it: no copy.
            DSYRK: lambda: scipy.linalg.blas.dsyrk(1.0, centred.T, lower=True)[sample] / (n - 1),
        },
        against=COV,
        agree=Agreement(absolute=1e-13, relative=1e-12, why="float64 sums in another order"),
        count=n,
        unit="rows/s",
        budget_s=BUDGET_S,
        targets=[faster("fastfid", than=COV, times=1.6)] if d == 2048 else [],
        facts={"n": n, "d": d},
    )


def _rate(config: Config, rows: np.ndarray) -> Result:
    """Rows a second into accumulators that exist already, as a long run sees them."""
    n, d = rows.shape
    centred = rows.astype(np.float64)
    centred -= centred.mean(0)
    moments, sums = _feed(fastfid.Moments(d), rows), _feed(_Sums(d), rows)
    scatter = scipy.linalg.blas.dsyrk(1.0, centred.T, lower=True)
    passes = [1]

    def dsyrk() -> None:
        scipy.linalg.blas.dsyrk(1.0, centred.T, beta=1.0, c=scatter, overwrite_c=True, lower=True)
        passes[0] += 1

    def into(sink: "fastfid.Moments | _Sums") -> Callable[[], None]:
        return lambda: _feed(sink, rows) and None

    result = compare(
        config,
        f"into a warm accumulator, n = {n}, d = {d}",
        {"fastfid": into(moments), TORCHMETRICS: into(sums), DSYRK: dsyrk},
        against=DSYRK,
        agree=None,  # the contenders have added the rows a different number of times: compared below, per row
        repeats=config.pick(3, 11),
        count=n,
        unit="rows/s",
        budget_s=BUDGET_S,
        targets=[keeps_up("fastfid", with_=DSYRK, share=0.92)] if d == 2048 else [],
        facts={"n": n, "d": d},
    )
    expected = np.tril(scatter) / (passes[0] * n)
    for covariance in (moments.covariance(ddof=0), sums.covariance() * ((sums.n - 1) / sums.n)):
        np.testing.assert_allclose(np.tril(covariance), expected, rtol=1e-11, atol=1e-12)
    return result


def _memory(config: Config, n: int, d: int) -> Result:
    def limit(measured: Mapping[str, Measured]) -> Target:
        grew = measured["fastfid"].peak_mib or 0.0
        return Target("peak memory grows by at most 200 MB", grew, 200e6 / 2**20, grew <= 200e6 / 2**20)

    done = probe(config, stream, rows=n, d=d)
    one = features(BATCH, d)[:, :4].astype(np.float64)
    np.testing.assert_allclose(done.answer, np.var(one, axis=0) * n / (n - 1), rtol=1e-11)
    measured = Measured("fastfid", [done.seconds], rate=n / done.seconds, peak_mib=done.grew_mib)
    return Result(
        f"growth of the peak memory, n = {n}, d = {d}",
        [measured],
        against="fastfid",
        threads=config.threads,
        unit="rows/s",
        targets=[limit({"fastfid": measured})],
        facts={"n": n, "d": d},
    )


def run(config: Config) -> Iterator[Result]:
    for n, d in config.pick([(5000, 2048)], [(5000, 2048), (20_000, 2048), (20_000, 768), (200_000, 64)]):
        rows = features(n, d)
        yield _whole(config, rows)
        yield _rate(config, rows)
    if config.threads == THREADS[-1]:
        yield _memory(config, config.pick(100_000, 1_000_000), 2048)
