#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Statistics of paired measurements: pure functions, nothing is read or written.

    import paired

A pair is what two programs did in the same round, one right after the other, so that what the
machine did to both is not in their ratio. All is reckoned in logarithms of ratios, where twice as
fast and half as fast lie equally far from 0; what is told are ratios.

When is a difference shown? verdict() wants three things at once:

  - the bootstrap 95 % interval of the median ratio does not contain 1;
  - p < 0.01 by Wilcoxon's signed-rank test, which looks at all pairs, not at the middle ones
    only, and is not moved by how far off an outlier is;
  - the median is further from 1 than the floor of noise: than the median of a program against
    itself, measured in the same rounds. Should that comparison show a difference itself, which
    happens by chance in one of a hundred, the machine is not to be trusted, and the far end of
    its interval is the floor.

The second keeps wrong findings at one in a hundred. The first is nearly implied by it, but keeps
what is printed free of contradiction: no difference is told whose interval contains 1. The floor
costs next to nothing where the machine is as good as the test believes, and is there for where it
is not. To want the median beyond the floor's whole interval would lose a tenth to two fifths of the
findings below that are hard to make: the floor, of single runs, has twice the variance of the
comparison, of means of two.

p < 0.01 takes 8 rounds at least: with 7 the smallest p is 2 / 2^7. ROUNDS_NEEDED says so.

How often a difference is shown, in 4000 simulated tries of 20 rounds A B B A (the means of the two
runs of each make a pair), between a program and itself, and one that is 3 % slower:

    noise of a single run                           2 %           3 %           4 %
    normal                                      0.8   99.5    0.7   86.2    0.7   58.8
    heavy tails (t with 3 degrees)              0.9   99.5    0.7   94.4    0.8   74.8
    half of it a drift, half heavy tails        0.7  100.0    0.6   99.0    0.5   93.2
    a run in twelve slowed by twice the noise   0.4   99.2    0.7   92.2    0.9   76.2

A B then B A, one run of each a round and no floor, finds 56 instead of 86, 76 instead of 94, 94
instead of 99 and 82 instead of 92 of a hundred at 3 %: as many as A against A first and then A
against B would, which takes as long as A B B A. Where 4 % do not drift, it takes more rounds, or
longer runs, to find 3 % reliably. Of several sides, each has its own chance of one in a hundred.
"""

import collections
import dataclasses
import functools
import itertools
import math
import random

RESAMPLES = 10000
SEED = 1
COVERAGE = 0.95
SIGNIFICANT = 0.01  # p must be below
ROUNDS_NEEDED = 8  # the fewest pairs whose p can be
EXACT_LIMIT = 50  # beyond so many pairs the normal approximation is as good
DIGITS = 12  # of a logarithm that count: what differs further on is rounding, and a tie

SAME = "no difference shown"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Median of paired ratios, its interval, p of Wilcoxon's test, the number of pairs."""

    ratio: float
    low: float
    high: float
    p: float
    n: int


def median(values):
    """The middle value, or halfway between the middle two."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("the median of no values")
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def log_ratios(over, under):
    """log(a / b) of each pair; both lists must be equally long, all values above 0."""
    if len(over) != len(under):
        raise ValueError(f"{len(over)} and {len(under)} values are no pairs")
    return [math.log(above / below) for above, below in zip(over, under)]


def geometric_mean(ratios):
    """The mean for ratios: that of 2 and 1/2 is 1."""
    logs = [math.log(ratio) for ratio in ratios]
    if not logs:
        raise ValueError("the mean of no ratios")
    return math.exp(math.fsum(logs) / len(logs))


@functools.lru_cache(maxsize=64)
def middle_ranks(count, resamples, seed):
    """Which ranks of @count values are in the middle of each resample: ((low, high), times).

    This does not depend on the values, so it is drawn once for all lists of one length.
    """
    draw = random.Random(seed)
    ranks, middles = range(count), collections.Counter()
    for _ in range(resamples):
        drawn = sorted(draw.choices(ranks, k=count))
        middles[drawn[(count - 1) // 2], drawn[count // 2]] += 1
    return tuple(middles.items())


def nth(counted, index):
    """The value at @index of a sorted list that is given as (value, how often)."""
    for value, times in counted:
        index -= times
        if index < 0:
            return value
    raise IndexError("beyond the last value")


def bootstrap_interval(values, resamples=RESAMPLES, seed=SEED):
    """The 95 % interval of the median by the percentile method: (low, high)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("an interval of no values")
    medians = sorted(
        ((ordered[low] + ordered[high]) / 2, times)
        for (low, high), times in middle_ranks(len(ordered), resamples, seed)
    )
    tail = round(resamples * (1 - COVERAGE) / 2)  # as many medians lie outside on either side
    return nth(medians, tail), nth(medians, resamples - 1 - tail)


@functools.lru_cache(maxsize=64)
def rank_sum_ways(count):
    """In how many ways some of the ranks 1..count sum up to 0, 1, 2..."""
    ways = [1]
    for rank in range(1, count + 1):
        ways += [0] * rank
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    return tuple(ways)


def signed_ranks(differences):
    """Sum of the positive differences' ranks, and of t^3 - t over the groups of t ties."""
    ordered = sorted(differences, key=abs)
    positive, before, ties = 0.0, 0, 0
    for _, group in itertools.groupby(ordered, key=abs):
        group = list(group)
        mean_rank = before + (len(group) + 1) / 2
        positive += mean_rank * sum(value > 0 for value in group)
        ties += len(group) ** 3 - len(group)
        before += len(group)
    return positive, ties


def signed_rank_p(values):
    """Two-sided p of Wilcoxon's signed-rank test that @values lie symmetrically around 0.

    Zeros are dropped; when nothing is left, p is 1. Up to 50 values without zeros and ties it is
    exact, else the normal approximation with corrections for ties and for continuity.
    """
    rounded = [round(value, DIGITS) for value in values]
    differences = [value for value in rounded if value]
    count = len(differences)
    if not count:
        return 1.0
    positive, ties = signed_ranks(differences)
    if count <= EXACT_LIMIT and not ties and count == len(rounded):
        smaller = int(min(positive, count * (count + 1) / 2 - positive))
        return min(1.0, 2 * sum(rank_sum_ways(count)[: smaller + 1]) / 2**count)
    mean = count * (count + 1) / 4
    variance = count * (count + 1) * (2 * count + 1) / 24 - ties / 48
    distance = max(0.0, abs(positive - mean) - 0.5)
    return math.erfc(distance / math.sqrt(2 * variance))


def compare(logs):
    """The Comparison of paired log ratios."""
    logs = list(logs)
    low, high = bootstrap_interval(logs)
    p = signed_rank_p(logs)
    return Comparison(math.exp(median(logs)), math.exp(low), math.exp(high), p, len(logs))


def differs(comparison):
    """Is it a difference by its interval and its p?"""
    outside = comparison.low > 1 or comparison.high < 1
    return outside and comparison.p < SIGNIFICANT


def floor_of(comparison):
    """How far from 1, as a logarithm, a program came from itself."""
    seen = [comparison.ratio]
    if differs(comparison):
        seen += [comparison.low, comparison.high]
    return max(abs(math.log(ratio)) for ratio in seen)


def verdict(comparison, floor=None, lower=False):
    """ "faster", "slower" or "no difference shown" (SAME), by the rule above.

    @comparison is of the one over the other, @floor that of the other with itself, None where
    there is none; @lower: lower values are better.
    """
    if not differs(comparison):
        return SAME
    if floor is not None and abs(math.log(comparison.ratio)) <= floor_of(floor):
        return SAME
    return "faster" if (comparison.ratio > 1) != lower else "slower"
