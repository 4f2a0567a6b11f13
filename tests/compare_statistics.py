# SPDX-License-Identifier: MIT
"""The part of check_compare.py that is about statistics: paired.py against published tables,
against brute force and against simulated machines.

Each function takes the Checks of check_compare.py, which calls all of PARTS.
"""

import itertools
import math
import random
import statistics

import compare
import paired


def check_middle(checks):
    """Medians, means, ratios."""
    checks.equal(paired.median([3]), 3, "median of one")
    checks.equal(paired.median([9, 1, 5]), 5, "median of three")
    checks.equal(paired.median([9, 1, 5, 2]), 3.5, "median of four")
    for call in (paired.median, paired.bootstrap_interval, paired.geometric_mean, paired.compare):
        checks.raises(ValueError, call, [])
    checks.near(paired.geometric_mean([2, 0.5]), 1, "mean of 2 and 1/2")
    checks.near(paired.geometric_mean([1, 2, 4]), 2, "mean of 1, 2, 4")
    logs = paired.log_ratios([2, 5], [1, 10])
    checks.near(logs[0], math.log(2), "log ratio")
    checks.near(logs[1], -math.log(2), "log ratio, the other way")
    checks.raises(ValueError, paired.log_ratios, [1], [1, 2])


def check_exact_p(checks):
    """Wilcoxon's test on few pairs, against tables and brute force."""
    # Two-sided critical values as published: the largest rank sum whose p is at most so much.
    table = {
        0.05: {6: 0, 7: 2, 8: 3, 9: 5, 10: 8, 11: 10, 12: 13, 15: 25, 16: 29, 20: 52, 25: 89},
        0.01: {8: 0, 9: 1, 10: 3, 11: 5, 12: 7, 15: 15, 16: 19, 20: 37, 25: 68},
    }
    for level, sums in table.items():
        for count, critical in sums.items():
            for total, small in ((critical, True), (critical + 1, False)):
                p = paired.signed_rank_p(with_rank_sum(count, total))
                checks.check((p <= level) == small, f"p of n {count}, sum {total}: {p}")
    for count in range(1, 13):
        p = paired.signed_rank_p(range(1, count + 1))
        checks.near(p, 2 / 2**count, f"p of {count}, all positive")
    checks.near(paired.signed_rank_p([1, 2, 3, 4, -5]), 0.625, "p, n 5, sum 5: 2 * 10 / 32")
    checks.equal(paired.signed_rank_p([1, 2, -3]), 1.0, "p is at most 1")
    draw = random.Random(3)
    for count in (4, 7, 10):
        values = [draw.gauss(0.5, 1) for _ in range(count)]
        checks.near(paired.signed_rank_p(values), brute_p(values), f"p of {values}")
    long = [draw.gauss(0.2, 1) for _ in range(50)]
    checks.near(paired.signed_rank_p(long), normal_p(long), "n 50, exact and normal", 0.05)
    checks.check(paired.signed_rank_p(long) != normal_p(long), "n 50 is exact")
    checks.equal(paired.ROUNDS_NEEDED, 8, "rounds needed")


def with_rank_sum(count, total):
    """1..@count with signs so that the positive ones sum up to @total."""
    values = [-rank for rank in range(1, count + 1)]
    for rank in range(count, 0, -1):
        if rank <= total:
            values[rank - 1] = rank
            total -= rank
    return values


def ranks_of(values):
    """The mean rank of each by size."""
    sizes = [abs(value) for value in values]
    return [
        sum(other < size for other in sizes) + (sizes.count(size) + 1) / 2 for size in sizes
    ]


def brute_p(values):
    """p by trying all signs."""
    ranks = ranks_of(values)
    mean = sum(ranks) / 2
    seen = abs(sum(rank for rank, value in zip(ranks, values) if value > 0) - mean)
    ways = list(itertools.product((0, 1), repeat=len(values)))
    extreme = sum(
        abs(sum(rank for rank, sign in zip(ranks, signs) if sign) - mean) >= seen - 1e-9
        for signs in ways
    )
    return extreme / len(ways)


def normal_p(values):
    """p by the normal approximation, the variance from the ranks themselves."""
    ranks = ranks_of(values)
    seen = sum(rank for rank, value in zip(ranks, values) if value > 0)
    deviation = math.sqrt(sum(rank**2 for rank in ranks) / 4)
    distance = max(0, abs(seen - sum(ranks) / 2) - 0.5)
    return 2 * (1 - statistics.NormalDist().cdf(distance / deviation))


def check_normal_p(checks):
    """Wilcoxon's test with ties, with zeros and on many pairs."""
    checks.equal(paired.signed_rank_p([0, 0, 0]), 1.0, "p of zeros")
    checks.equal(paired.signed_rank_p([]), 1.0, "p of nothing")
    tied = [0.02] * 20
    checks.near(paired.signed_rank_p(tied), 8.556e-6, "20 equal pairs", 1e-3)
    for values in (
        [1, 1, 2, 3, -2, 5, 6, 7, 8, 8],
        [1, -1, 2, 2, -2, 2, 9, 3, 3, 4, 5],
        [4, 4, 4, -4, -4, 4, 4, 4, 4],
        list(range(1, 41)) + [-value for value in range(41, 61)],
    ):
        checks.near(paired.signed_rank_p(values), normal_p(values), f"p of {values}")
    few = [1, 2, 3, 4, 5, 6, 7, 8]
    checks.near(paired.signed_rank_p(few + [0, 0, 0]), normal_p(few), "zeros are dropped")
    nearly = [0.01 + share * 1e-17 for share in range(20)]
    checks.near(paired.signed_rank_p(nearly), paired.signed_rank_p(tied), "rounding is a tie")
    # The approximation must not find in 7 pairs what the exact test cannot.
    checks.check(paired.signed_rank_p([1] * 7) > 0.01, "7 equal pairs")
    checks.check(paired.signed_rank_p([1] * 8) < 0.01, "8 equal pairs")


def slow_bootstrap(values, seed):
    """The interval by the book."""
    draw = random.Random(seed)
    medians = sorted(
        statistics.median(draw.choices(values, k=len(values))) for _ in range(10000)
    )
    return medians[250], medians[9749]


def check_bootstrap(checks):
    """The interval of the median."""
    interval = paired.bootstrap_interval
    checks.equal(interval([4]), (4, 4), "interval of one")
    checks.equal(interval([2.5] * 20), (2.5, 2.5), "interval of equal values")
    checks.equal(interval([3, 1, 2]), (1, 3), "interval of three: an end has 7 of 27")
    checks.equal(interval([0] * 19 + [100]), (0, 0), "one outlier of 20")
    values = list(range(-10, 0)) + list(range(1, 11))
    low, high = interval(values)
    checks.check(abs(low + high) <= 1, f"interval of symmetric values: {low}, {high}")
    checks.equal(interval(values), (low, high), "the same again")
    checks.equal(interval(values[::-1]), (low, high), "the order does not matter")
    checks.equal(interval([2 * value for value in values]), (2 * low, 2 * high), "scaled")
    counted = [paired.nth([("a", 2), ("b", 1), ("c", 2)], index) for index in range(5)]
    checks.equal("".join(counted), "aabcc", "each value as often as it occurs")
    draw = random.Random(11)
    for count in (7, 20, 21):
        values = sorted(draw.gauss(0, 1) for _ in range(count))
        for mine, book in zip(interval(values), slow_bootstrap(values, 99)):
            between = sum(min(mine, book) < value < max(mine, book) for value in values)
            checks.check(between <= 1, f"n {count}: {mine} and by the book {book}")
    # The sixth from either end of 20 encloses the median in 95.9 of 100.
    low, high = interval(list(range(1, 21)))
    checks.check(5.5 <= low <= 7 and 14 <= high <= 15.5, f"ends of 20: {low}, {high}")
    hits = 0
    for _ in range(400):
        low, high = interval([draw.gauss(0, 1) for _ in range(20)])
        hits += low <= 0 <= high
    checks.check(0.91 <= hits / 400 <= 0.98, f"the interval holds the median in {hits} of 400")


def check_verdict(checks):
    """Each part of the rule by itself."""

    def verdict(ratio, low, high, p, floor=None, lower=False):
        floor = floor and paired.Comparison(*floor, 20)
        return paired.verdict(paired.Comparison(ratio, low, high, p, 20), floor, lower)

    same = paired.SAME
    checks.equal(same, "no difference shown", "the words")
    checks.equal(verdict(1.1, 1.05, 1.2, 0.001), "faster", "faster")
    checks.equal(verdict(0.9, 0.8, 0.95, 0.001), "slower", "slower")
    checks.equal(verdict(1.1, 1.05, 1.2, 0.001, lower=True), "slower", "more seconds")
    checks.equal(verdict(0.9, 0.8, 0.95, 0.001, lower=True), "faster", "fewer seconds")
    checks.equal(verdict(1.1, 0.99, 1.2, 0.001), same, "the interval holds 1")
    checks.equal(verdict(1.1, 1.0, 1.2, 0.001), same, "the interval begins with 1")
    checks.equal(verdict(0.9, 0.8, 1.0, 0.001), same, "the interval ends with 1")
    checks.equal(verdict(1.1, 1.05, 1.2, 0.01), same, "p is not below 0.01")
    checks.equal(verdict(1.1, 1.05, 1.2, 0.0099), "faster", "p is below 0.01")
    noise = (1.03, 0.99, 1.06, 0.2)
    checks.equal(verdict(1.02, 1.01, 1.04, 0.001, noise), same, "within the floor")
    checks.equal(verdict(0.98, 0.97, 0.99, 0.001, noise), same, "within it on the other side")
    checks.equal(verdict(1.04, 1.01, 1.05, 0.001, noise), "faster", "beyond the floor")
    checks.equal(verdict(0.96, 0.95, 0.98, 0.001, noise), "slower", "beyond it, other side")
    shaky = (0.97, 0.94, 0.99, 0.001)
    checks.equal(verdict(1.05, 1.04, 1.06, 0.001, shaky), same, "A differs from itself: its end")
    checks.equal(verdict(1.07, 1.04, 1.08, 0.001, shaky), "faster", "beyond that end")
    comparison = paired.compare([math.log(1.02)] * 20)
    checks.near(comparison.ratio, 1.02, "ratio of 20 equal pairs")
    checks.equal((comparison.low, comparison.high), (comparison.ratio,) * 2, "their interval")
    checks.equal(comparison.n, 20, "their number")
    few = paired.compare([math.log(1.5 + share / 100) for share in range(7)])
    checks.equal(paired.verdict(few), same, "7 rounds show nothing")


def tries(draw, noise, slower, count):
    """In how many of @count simulated comparisons of 20 rounds A B B A a difference is shown."""
    shown = 0
    for _ in range(count):
        place, runs = draw.gauss(0, 1), {"A": [], "B": []}
        for name in "ABBA" * 20:  # half of the noise drifts, the rest has heavy tails (t, 3)
            place = 0.9 * place + math.sqrt(0.19) * draw.gauss(0, 1)
            tail = draw.gauss(0, 1) / math.sqrt(draw.gammavariate(1.5, 2))
            speed = math.exp(noise * math.sqrt(0.5) * (place + tail))
            runs[name].append(speed / (slower if name == "B" else 1))
        logs = [compare.rounds_of(runs[name], 2) for name in "BA"]
        comparison = paired.compare([over - under for over, under in zip(*logs)])
        verdict = paired.verdict(comparison, compare.against_itself(runs["A"]))
        shown += verdict == ("slower" if slower > 1 else "faster")
        shown += verdict == "slower" and slower == 1
    return shown


def check_simulated(checks):
    """The rule on machines with noise."""
    draw = random.Random(20)
    wrong = {noise: tries(draw, noise, 1, 400) for noise in (0.02, 0.04)}
    for noise, shown in wrong.items():
        checks.check(shown <= 12, f"noise {noise}: {shown} of 400 differ from themselves")
    checks.check(sum(wrong.values()) > 0, "no difference at all: the rule is not this one")
    for noise, least in ((0.02, 198), (0.03, 190), (0.04, 175)):
        shown = tries(draw, noise, 1.03, 200)
        checks.check(shown >= least, f"noise {noise}: 3 % is found in {shown} of 200")
    # A machine that steadily slows down: A B B A has none of it, A against A half of the time.
    runs = {"A": [], "B": []}
    for at, name in enumerate("ABBA" * 20):
        runs[name].append(1000 * 0.99**at)
    logs = [compare.rounds_of(runs[name], 2) for name in "BA"]
    for over, under in zip(*logs):
        checks.near(over, under, "a steady drift")
    floor = compare.against_itself(runs["A"])
    checks.near(floor.ratio, 1, "A against A under a steady drift")
    checks.check(floor.low < 0.98 and floor.high > 1.02, f"its interval shows the drift: {floor}")


PARTS = (check_middle, check_exact_p, check_normal_p, check_bootstrap, check_verdict,
         check_simulated)
