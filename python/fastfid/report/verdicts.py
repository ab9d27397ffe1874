"""Which of many comparisons are beyond noise, where one in many is so by chance."""

from collections.abc import Sequence
from statistics import NormalDist

from fastfid.report.header import FEWEST_ERRORS

__all__ = ["FALSE_ALARM", "beyond_noise"]

# Of comparisons of equal sets any one is called different with this probability at most.
FALSE_ALARM = 0.01


def beyond_noise(ratios: Sequence[float]) -> list[bool]:
    """Return which comparisons find a difference, by the procedure of Holm (1979).

    With the comparisons in the order of their ratios, the largest of k is beyond noise where a normal variable exceeds
    it with a probability of at most FALSE_ALARM / k, the next one where FALSE_ALARM / (k - 1) is that, and so on, until
    one is not. Then at most FALSE_ALARM of all such lists name any set that does not differ, however the comparisons
    depend on one another. None below FEWEST_ERRORS standard errors is named, as in the head of a report.

    Parameters
    ----------
    ratios : list of float
        How many of its standard errors each comparison is from 0.

    Returns
    -------
    list of bool

    Examples
    --------
    >>> beyond_noise([9.0, 3.1, 3.1, 0.5])
    [True, True, True, False]
    >>> beyond_noise([3.1] * 20)[0]  # one of 20 has to be 3.29 standard errors from 0
    False
    """
    found = [False] * len(ratios)
    left = len(ratios)
    for place in sorted(range(left), key=lambda i: -ratios[i]):
        ratio = ratios[place]
        if ratio < FEWEST_ERRORS or NormalDist().cdf(-ratio) > FALSE_ALARM / left:
            break
        found[place] = True
        left -= 1
    return found
