"""The trace of the matrix square root of a product of covariances, beside what the peers call for it.

`scipy.linalg.sqrtm` is what pytorch-fid, clean-fid and TTUR call; `torch.linalg.eigvals` what torchmetrics and
torch-fidelity call on the product; `scipy.linalg.eigh`: the root of one covariance by its eigenvectors, then the
eigenvalues of the symmetric product, the textbook's way. "Busy" runs one spinning process per core beside the call.
"""

import functools
import timeit
from collections.abc import Iterator, Mapping

import numpy as np
import scipy.linalg

from benchmarks import tools
from benchmarks.environment import use_peers
from benchmarks.harness import Agreement, Check, Config, Measured, Result, Target, busy, compare, faster
from fastfid import _core

THREADS = (1, 2)
BUDGET_S = 15.0  # a contender: sqrtm at d = 2048 is timed once, and eigvals beyond

FULL_RANK = Agreement(relative=1e-9, why="full rank: every route is exact to rounding")


@functools.cache
def features(n: int, d: int, seed: int) -> np.ndarray:
    """Gaussian rows whose covariance has condition 2e4, that of Inception features of thousands of photographs."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(d).standard_normal((d, d)))[0]
    return ((rng.standard_normal((n, d)) * np.logspace(0, -1.6, d)) @ rotation).astype(np.float32)


@functools.cache
def covariances(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sample covariances of 3 d and 4 d rows."""
    return tuple(np.cov(features(k * d, d, k).astype(np.float64), rowvar=False) for k in (3, 4))


def products_at_most(polar: Mapping[str, _core.TraceResult], limit: float) -> Check:
    """Target: the code counted at most `limit` full products for a bracket of 1e-6. The case fills `polar`."""

    def check(_: Mapping[str, Measured]) -> Target:
        result = polar["result"]
        width = (result.upper - result.lower) / result.value
        met = result.gemms <= limit and width <= 1e-6
        text = f"Newton-Schulz: at most {limit:g} products for a bracket of 1e-6 (came: {width:.1e})"
        return Target(text, result.gemms, limit, met)

    return check


def product_seconds(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """Return the seconds of one product, the smallest of five measurements: the limit in the plot."""
    return min(timeit.repeat(lambda: sigma1 @ sigma2, number=1, repeat=5))


def trace_by_eigh(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """Return tr((S1^(1/2) S2 S1^(1/2))^(1/2))."""
    values, vectors = scipy.linalg.eigh(sigma1)
    root = (vectors * np.sqrt(values)) @ vectors.T
    return float(np.sqrt(scipy.linalg.eigvalsh(root @ sigma2 @ root)).sum())


def full_rank(config: Config, d: int, eigvals) -> Result:
    sigma1, sigma2 = covariances(d)
    polar: dict[str, _core.TraceResult] = {}

    def newton_schulz() -> float:
        # Its point estimate is as accurate as the requested bracket.
        tol = 1e-9 if d <= 64 else 1e-6
        polar["result"] = _core.trace_sqrt_product(sigma1, sigma2, method="newton-schulz", tol=tol)
        return polar["result"].value

    contenders = {
        "fastfid": lambda: _core.trace_sqrt_product(sigma1, sigma2).value,
        "fastfid newton-schulz": newton_schulz,
        "torch.linalg.eigvals": lambda: eigvals(sigma1, sigma2),
        "scipy.linalg.eigh": lambda: trace_by_eigh(sigma1, sigma2),
    }
    targets = []
    against = "torch.linalg.eigvals"
    if d <= 2048:  # sqrtm takes minutes beyond
        against = "scipy.linalg.sqrtm"
        contenders[against] = lambda: np.trace(scipy.linalg.sqrtm(sigma1 @ sigma2)).real
    if d == 2048:
        targets = [
            faster("fastfid", than="scipy.linalg.sqrtm", times=12 if config.threads == 1 else 15),
            faster("fastfid", than="torch.linalg.eigvals", times=5),
            products_at_most(polar, 23),
        ]
    result = compare(
        config,
        f"d = {d}, full rank",
        contenders,
        against=against,
        budget_s=BUDGET_S,
        agree=Agreement(relative=1e-6, why="Newton-Schulz stops at a bracket of 1e-6; the others agree to 1e-9")
        if d > 64
        else FULL_RANK,
        targets=targets,
        facts={"d": d, "gemm": product_seconds(sigma1, sigma2)},
    )
    found = polar["result"]
    if not found.lower <= _core.trace_sqrt_product(sigma1, sigma2).value <= found.upper:
        raise AssertionError(f"d = {d}: the certified bracket does not hold the value of `auto`")
    result.facts |= {"gemms": found.gemms, "iterations": found.iterations, "width": found.upper - found.lower}
    return result


def thin(config: Config, n: int, d: int) -> Result:
    x, y = features(n, d, 11), features(n, d, 12)
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    mu1, mu2 = wide_x.mean(axis=0), wide_y.mean(axis=0)

    def sqrtm_of_covariances() -> float:
        sigma1, sigma2 = np.cov(wide_x, rowvar=False), np.cov(wide_y, rowvar=False)
        root = scipy.linalg.sqrtm(sigma1 @ sigma2)
        return float(((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root).real)

    return compare(
        config,
        f"d = {d}, distance of {n} against {n} rows",
        {
            "fastfid": lambda: _core.frechet_distance(_core.Gaussian(mu1, rows=x), _core.Gaussian(mu2, rows=y)).value,
            "fastfid from covariances": lambda: (
                _core.frechet_distance(
                    _core.Gaussian(mu1, np.cov(wide_x, rowvar=False)), _core.Gaussian(mu2, np.cov(wide_y, rowvar=False))
                ).value
            ),
            "scipy.linalg.sqrtm": sqrtm_of_covariances,
        },
        against="scipy.linalg.sqrtm",
        agree=Agreement(absolute=tools.THIN.absolute, reference="fastfid", why=tools.THIN.why),
        repeats=config.pick(1, 2),
        budget_s=BUDGET_S,
        facts={"d": d, "n": n},
    )


def beside_a_busy_process(config: Config, d: int) -> Result:
    """Each method quiet and with one spinning process per core: at most three times as long, in every run."""
    sigma1, sigma2 = covariances(d)
    contenders = {
        "fastfid": lambda: _core.trace_sqrt_product(sigma1, sigma2).value,
        "fastfid newton-schulz": lambda: _core.trace_sqrt_product(sigma1, sigma2, method="newton-schulz").value,
    }
    agree = Agreement(relative=1e-6, why="Newton-Schulz stops at a bracket of 1e-6")
    repeats = config.pick(3, 5)
    case = f"d = {d}, quiet and beside one busy process per core"
    quiet = compare(config, case, contenders, against="fastfid", agree=agree, repeats=repeats)
    with busy(config.threads):
        loaded = compare(config, case, contenders, against="fastfid", agree=agree, repeats=repeats)

    def at_most_three_times(name: str) -> Target:
        calm = next(m for m in quiet.measured if m.name == name).median
        worst = max(next(m for m in loaded.measured if m.name == name).seconds)
        return Target(f"{name}: no call beyond 3 x its quiet time", worst / calm, 3, worst <= 3 * calm)

    quiet.targets = [at_most_three_times(name) for name in contenders]
    for measured in loaded.measured:
        measured.name += ", busy"
    quiet.measured += loaded.measured
    quiet.facts = {"d": d, "busy": config.threads}
    return quiet


def run(config: Config) -> Iterator[Result]:
    use_peers(config, weights=False)
    import torch

    def eigvals(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
        a, b = torch.from_numpy(sigma1), torch.from_numpy(sigma2)
        return torch.linalg.eigvals(a @ b).sqrt().real.sum().item()

    for d in config.pick((64, 768), (64, 192, 768, 1024, 2048)):
        yield full_rank(config, d, eigvals)
    if config.threads == THREADS[-1]:
        if config.full:
            yield full_rank(config, 4096, eigvals)
        for n in config.pick((200,), (500, 1000, 2000)):
            yield thin(config, n, config.pick(768, 2048))
        # Several spinning threads become very slow if other processes use the cores. One thread does not.
        yield beside_a_busy_process(config, config.pick(768, 2048))
