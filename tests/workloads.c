/* SPDX-License-Identifier: MIT */
/*
 * The workload runner's parts that are not recipes: histograms, distributions of sizes, the table
 * of workloads; and whole runs, on the real allocators.
 */
#include "workload_recorder.h"

#include <samples/workloads/random.h>

#include <stdio.h>
#include <string.h>

#define SAMPLES 200000
#define MIB ((size_t)1 << 20)

#define POINTS(...)                                                                                \
	((const size_t[]){ __VA_ARGS__ }), sizeof((size_t[]){ __VA_ARGS__ }) / sizeof(size_t)

/* Each bucket begins behind the end of the one before, and has its ends and nothing else. */
Test(histogram, buckets_follow_each_other)
{
	uint64_t begin = 0, end;
	unsigned i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		end = histogram_bucket_end(i);
		must(end >= begin, "bucket %u ends before it begins", i);
		must(histogram_bucket(begin) == i, "%llu falls into %u, not %u",
		     (unsigned long long)begin, histogram_bucket(begin), i);
		must(histogram_bucket(end) == i, "%llu falls into %u, not %u",
		     (unsigned long long)end, histogram_bucket(end), i);
		must(end - begin <= begin / 16, "bucket %u is too wide", i);
		begin = end + 1;
	}
	cr_assert_eq(begin, 0, "the last bucket ends at UINT64_MAX");
}

Test(histogram, sixteen_steps_to_a_power_of_two)
{
	unsigned power;

	cr_assert_eq(histogram_bucket(0), 0);
	cr_assert_eq(histogram_bucket(1), 1);
	cr_assert_eq(histogram_bucket(15), 15);
	cr_assert_eq(histogram_bucket(16), 16);
	cr_assert_eq(histogram_bucket(17), 17);
	cr_assert_eq(histogram_bucket(31), 31);
	cr_assert_eq(histogram_bucket(32), 32);
	cr_assert_eq(histogram_bucket(33), 32);
	cr_assert_eq(histogram_bucket(34), 33);
	cr_assert_eq(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
	for (power = 4; power < 64; power++) {
		must(histogram_bucket((uint64_t)1 << power) == (power - 3) * 16, "2^%u", power);
		must(histogram_bucket(((uint64_t)1 << power) - 1) == (power - 3) * 16 - 1,
		     "2^%u - 1", power);
	}
}

Test(histogram, percentiles)
{
	static struct histogram histogram;
	static const unsigned per_10000[] = { 1, 100, 1234, 5000, 9000, 9900, 9999, 10000 };
	uint64_t value, exact;
	size_t i;

	cr_assert_eq(histogram_percentile(&histogram, 5000), 0, "of nothing");
	histogram_add(&histogram, 12345);
	for (i = 0; i < 8; i++)
		cr_assert_eq(histogram_percentile(&histogram, per_10000[i]), 12345, "of one");
	memset(&histogram, 0, sizeof(histogram));
	for (i = 0; i < 1000; i++)
		histogram_add(&histogram, 777777);
	for (i = 0; i < 8; i++)
		cr_assert_eq(histogram_percentile(&histogram, per_10000[i]), 777777, "of equals");
	memset(&histogram, 0, sizeof(histogram));
	for (value = 10000; value; value--)
		histogram_add(&histogram, value);
	cr_assert_eq(histogram.count, 10000);
	cr_assert_eq(histogram.max, 10000);
	for (i = 0; i < 8; i++) {
		exact = per_10000[i];
		value = histogram_percentile(&histogram, per_10000[i]);
		must(value >= exact && value <= exact + exact / 16, "%llu, not %llu",
		     (unsigned long long)value, (unsigned long long)exact);
	}
	/* what has a bucket of its own is exact: the rank is rounded up */
	for (i = 1; i <= 31; i++)
		must(histogram_percentile(&histogram, (unsigned)i) == i, "rank %zu", i);
	cr_assert_eq(histogram_percentile(&histogram, 10000), 10000, "the largest is exact");
}

/* With few values the rank is rounded up; with very many it does not overflow. */
Test(histogram, ranks)
{
	static struct histogram histogram;
	uint64_t value;

	for (value = 1; value <= 3; value++)
		histogram_add(&histogram, value);
	cr_assert_eq(histogram_percentile(&histogram, 1), 1);
	cr_assert_eq(histogram_percentile(&histogram, 3333), 1);
	cr_assert_eq(histogram_percentile(&histogram, 3334), 2);
	cr_assert_eq(histogram_percentile(&histogram, 6666), 2);
	cr_assert_eq(histogram_percentile(&histogram, 6667), 3);
	memset(&histogram, 0, sizeof(histogram));
	histogram.buckets[3] = (uint64_t)1 << 62;
	histogram.buckets[5] = (uint64_t)1 << 62;
	histogram.count = (uint64_t)1 << 63;
	histogram.max = 5;
	cr_assert_eq(histogram_percentile(&histogram, 5000), 3);
	cr_assert_eq(histogram_percentile(&histogram, 5001), 5);
}

Test(histogram, merge)
{
	static struct histogram a, b, both;
	uint64_t i, value;

	for (i = 0; i < 1000; i++) {
		value = i * i * i;
		histogram_add(i % 3 ? &a : &b, value);
		histogram_add(&both, value);
	}
	histogram_merge(&a, &b);
	cr_assert_eq(memcmp(&a, &both, sizeof(a)), 0);
	memset(&b, 0, sizeof(b));
	histogram_merge(&a, &b);
	cr_assert_eq(memcmp(&a, &both, sizeof(a)), 0, "nothing added");
	histogram_merge(&b, &a);
	cr_assert_eq(memcmp(&b, &both, sizeof(b)), 0, "the maximum, too");
}

/* Numbers from each generator; @powers is for random_log. */
static size_t numbers[SAMPLES];

static double mean(void)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < SAMPLES; i++)
		sum += (double)numbers[i];
	return sum / SAMPLES;
}

static bool occurs(size_t number)
{
	size_t i;

	for (i = 0; i < SAMPLES; i++)
		if (numbers[i] == number)
			return true;
	return false;
}

Test(generators, between_has_both_ends)
{
	uint64_t state = 1;
	size_t i, counts[11] = { 0 };

	for (i = 0; i < SAMPLES; i++) {
		numbers[i] = random_between(&state, 20, 30);
		must(numbers[i] >= 20 && numbers[i] <= 30, "%zu", numbers[i]);
		counts[numbers[i] - 20]++;
	}
	for (i = 0; i < 11; i++)
		must(is_share(counts[i], SAMPLES, 1.0 / 11), "%zu: %zu", 20 + i, counts[i]);
	for (i = 0; i < SAMPLES; i++)
		numbers[i] = random_between(&state, 8, 1000);
	expect_distribution(numbers, SAMPLES, below_uniform, 8, 1000,
			    POINTS(9, 108, 256, 504, 900, 1000));
	cr_assert(occurs(8) && occurs(1000));
	cr_assert_eq(random_between(&state, 7, 7), 7);
	/* the widest: all of 32 bits, and halves of them */
	for (i = 0; i < SAMPLES; i++)
		numbers[i] = random_below(&state, (uint64_t)1 << 32);
	expect_distribution(numbers, SAMPLES, below_uniform, 0, UINT32_MAX,
			    POINTS(429496729, 2147483648, 3865470566));
}

/* Neighbours do not go together: a pair falls into each of 16 squares as often. */
Test(generators, neighbours_are_independent)
{
	uint64_t state = 1;
	size_t i, counts[16] = { 0 };

	for (i = 0; i < SAMPLES; i++) {
		size_t row = random_below(&state, 4), column = random_below(&state, 4);

		counts[4 * row + column]++;
	}
	for (i = 0; i < 16; i++)
		must(is_share(counts[i], SAMPLES, 1.0 / 16), "square %zu: %zu", i, counts[i]);
}

Test(generators, falling_is_linear)
{
	uint64_t state = 1;
	size_t i;

	for (i = 0; i < SAMPLES; i++)
		numbers[i] = random_falling(&state, 16, 16000);
	expect_distribution(numbers, SAMPLES, below_falling, 16, 16000,
			    POINTS(836, 1704, 4698, 8008, 10945, 14400));
	/* a third of the way up; its deviation is 3768 / sqrt(200,000) */
	cr_assert_float_eq(mean(), 16 + 15984 / 3.0, 40);
	for (i = 0; i < SAMPLES; i++)
		numbers[i] = random_falling(&state, 1, 4);
	expect_distribution(numbers, SAMPLES, below_falling, 1, 4, POINTS(2, 3, 4));
}

Test(generators, square_falls_by_the_square)
{
	uint64_t state = 1;
	size_t i;

	for (i = 0; i < SAMPLES; i++)
		numbers[i] = random_square(&state, 4, 32768);
	expect_distribution(numbers, SAMPLES, below_square, 4, 32768,
			    POINTS(5, 6, 8, 16, 40, 400, 4000, 16384));
	cr_assert(occurs(4));
	cr_assert_eq(random_square(&state, 100, 100), 100);
}

/* Each of 17 powers; within one, the parabola leaves 2^x by less than 0.3 %. */
Test(generators, log_has_each_power_as_often)
{
	uint64_t state = 1;
	size_t i, less;

	for (i = 0; i < SAMPLES; i++)
		numbers[i] = random_log(&state, 8, MIB, 17);
	expect_distribution(numbers, SAMPLES, below_log, 8, MIB,
			    POINTS(16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768,
				   65536, 131072, 262144, 524288));
	expect_distribution(numbers, SAMPLES, below_log, 8, MIB,
			    POINTS(724, 5793, 46341, 370728, 741455));
	cr_assert(occurs(8));
	for (i = 0; i < SAMPLES; i++)
		numbers[i] = random_log(&state, 100, 102, 0.0285);
	must(occurs(100) && occurs(101) && !occurs(103), "the largest is a bound");
	/* in the middle of a power it is the square root of two */
	for (i = 0, less = 0; i < SAMPLES; i++)
		less += random_log(&state, MIB, 2 * MIB, 1) < 1482911;
	cr_assert(is_share(less, SAMPLES, 0.5), "%zu are in the lower half", less);
}

/* The recipes' numbers: in the order of the parameters; UINT64_MAX: there are no more. */
#define END UINT64_MAX

static const struct {
	const char *name;
	unsigned workers;
	uint64_t parameters[WORKLOAD_PARAMETERS];
} recipes[] = {
	{ "larson", 1, { 1024, 8, 128, 0, 1, 10000, END } },
	{ "larson-wide", 1, { 5000, 8, 1000, 0, 1, 10000, END } },
	{ "churn", 1, { 1024, 4, 32768, 1, 1, END } },
	{ "burst", 1, { 0, 0, 8, 128, END } },
	{ "storm", 1, { 150000, 16, 16000, END } },
	{ "lifetime", 1, { 10000, 1000, 100, 250, 50, END } },
	{ "varsize", 1, { 2000, 8, 1048576, 0, 1, END } },
	{ "handoff", 2, { 64, 8, 2048, 4096, 65536, END } },
	{ "mesh", 8, { 4096, 16, 128, END } },
	{ "scratch", 2, { 8, 1000, 2000000, END } },
	{ "workers", 10, { 500, 1000, 128, END } },
	{ "large", 1, { 20, 5242880, 26214400, 0, 1, END } },
	{ "grow", 1, { 1000, 16, 1048576, 262144, 536870912, 0, 3, END } },
	{ "pairs", 1, { 134217728, 512, 10, END } },
	{ "pinned", 1, { 100, 33554432, 33500, 1000, 50, END } },
	{ "frames",
	  2,
	  { 3600, 2000, 10000, 16, 512, 200, 300, 64, 1024, 500, 300, 5000, 4096, 262144, 1,
	    END } },
	{ "replay", 1, { 60, END } },
};

Test(workloads, table_has_the_recipes_numbers)
{
	const struct workload *workload;
	unsigned i, j;

	cr_assert_eq(workload_count, 17);
	cr_assert_null(workload_find("larso"));
	cr_assert_null(workload_find(""));
	for (i = 0; i < 17; i++) {
		workload = &workload_table[i];
		cr_assert_eq(workload_find(recipes[i].name), workload, "%s", recipes[i].name);
		cr_assert_eq(workload->workers, recipes[i].workers, "%s", workload->name);
		for (j = 0; recipes[i].parameters[j] != END; j++) {
			must(workload->parameters[j].name, "%s has %u parameters", workload->name,
			     j);
			must(workload->parameters[j].value == recipes[i].parameters[j], "%s --%s",
			     workload->name, workload->parameters[j].name);
		}
		cr_assert_null(workload->parameters[j].name, "%s has more", workload->name);
	}
}

static struct workload_result result;

static void begin(const char *name, enum workload_heap heap, unsigned workers, uint64_t ops)
{
	trial_begin(name, workers, ops);
	trial.options.heap = heap;
}

static void run(void)
{
	result.timings = NULL;
	cr_assert_eq(workload_run(trial.run.workload, &trial.options, &result), 0, "%s",
		     result.text);
}

static void run_well(void)
{
	unsigned i;

	run();
	cr_assert(workload_is_well(&result), "%s", result.text);
	cr_assert_eq(result.checkpoint_count, WORKLOAD_CHECKPOINTS);
	for (i = 1; i < WORKLOAD_CHECKPOINTS; i++) {
		must(result.checkpoints[i].ops >= result.checkpoints[i - 1].ops &&
			     result.checkpoints[i].seconds >= result.checkpoints[i - 1].seconds,
		     "checkpoint %u comes before the one before", i);
	}
	must(result.checkpoints[31].ops <= result.ops, "a checkpoint is beyond the end");
	must(result.has_arena == (trial.options.heap == WORKLOAD_HAKMEM), "an arena");
	must(result.seconds > 0 && result.null_seconds > 0, "time stands still");
}

static const enum workload_heap heaps[] = { WORKLOAD_HAKMEM, WORKLOAD_LIBC };

Test(workloads, operations_are_those_asked_for, .timeout = 60)
{
	size_t i, j;

	for (i = 0; i < 2; i++) {
		for (j = 1; j <= 4; j *= 2) {
			begin("larson", heaps[i], (unsigned)j, 30000);
			trial_set("handover", 2000);
			run_well();
			cr_assert_eq(result.ops, 30000);
		}
		begin("churn", heaps[i], 3, 12346);
		run_well();
		cr_assert_eq(result.ops, 12346);
		/* the recipe's own length */
		begin("workers", heaps[i], 3, 0);
		trial_set("rounds", 4);
		trial_set("slots", 50);
		run_well();
		cr_assert_eq(result.ops, 4 * 3 * 50);
		begin("scratch", heaps[i], 2, 0);
		trial_set("rounds", 50);
		trial_set("writes", 100);
		run_well();
		cr_assert_eq(result.ops, 2 * 2 * 50);
	}
}

/* Checkpoints are equally far from each other, the last at the end. */
Test(workloads, checkpoints_are_spread)
{
	unsigned i;

	begin("larson", WORKLOAD_HAKMEM, 1, 32000);
	run_well();
	for (i = 0; i < WORKLOAD_CHECKPOINTS; i++)
		must(result.checkpoints[i].ops == 1000 * (i + 1), "checkpoint %u is at %llu", i,
		     (unsigned long long)result.checkpoints[i].ops);
	begin("pairs", WORKLOAD_HAKMEM, 1, 0);
	trial_set("rounds", 40);
	trial_set("bytes", 1 << 16);
	run_well();
	/* where a recipe tells of many operations at once, soon after */
	for (i = 0; i < WORKLOAD_CHECKPOINTS; i++)
		must(result.checkpoints[i].ops >= result.ops / 32 * (i + 1) &&
			     result.checkpoints[i].ops <= result.ops / 32 * (i + 1) + 300,
		     "checkpoint %u is at %llu of %llu", i,
		     (unsigned long long)result.checkpoints[i].ops, (unsigned long long)result.ops);
	cr_assert_eq(result.checkpoints[31].ops, result.ops);
}

/* Bytes as requested, wherever they come from. */
Test(workloads, live_bytes_are_those_requested, .timeout = 60)
{
	unsigned i, j;

	for (i = 0; i < 2; i++) {
		begin("larson", heaps[i], 1, 20000);
		trial_set("min-size", 100);
		trial_set("max-size", 100);
		run_well();
		for (j = 0; j < WORKLOAD_CHECKPOINTS; j++)
			must(result.checkpoints[j].live_bytes == 1024 * 100, "%lld bytes",
			     (long long)result.checkpoints[j].live_bytes);
		cr_assert_eq(result.live_bytes, 1024 * 100);
		begin("pinned", heaps[i], 1, 0);
		trial_set("rounds", 32);
		trial_set("block", 100000);
		trial_set("blocks", 500);
		run_well();
		for (j = 0; j < WORKLOAD_CHECKPOINTS; j++)
			must(result.checkpoints[j].live_bytes == 10000 * (int64_t)(j + 1),
			     "round %u: %lld bytes", j,
			     (long long)result.checkpoints[j].live_bytes);
		/* half of 64 KiB stays of the first pairs, and so on; at the end nothing */
		begin("pairs", heaps[i], 1, 0);
		trial_set("rounds", 32);
		trial_set("bytes", 1 << 16);
		run_well();
		cr_assert_gt(result.live_bytes, 0);
		cr_assert_leq(result.live_bytes, 1 << 16);
		if (heaps[i] != WORKLOAD_HAKMEM)
			continue;
		cr_assert_gt(result.committed_bytes, 0);
		cr_assert_geq(result.peak_committed_bytes, result.committed_bytes);
	}
}

/* Each call is in the percentiles once, and with hakmem under its stage. */
Test(workloads, latency_counts_calls, .timeout = 60)
{
	static struct timings timings;
	uint64_t allocs, frees;
	unsigned i, stage;

	for (i = 0; i < 2; i++) {
		begin("burst", heaps[i], 2, 20000);
		trial_set("count", 100);
		trial.options.latency = true;
		result.timings = &timings;
		cr_assert_eq(workload_run(trial.run.workload, &trial.options, &result), 0);
		cr_assert_eq(result.ops, 20000);
		allocs = frees = 0;
		for (stage = 0; stage <= HK_STAGE_NEW_SUPERSLAB; stage++) {
			allocs += timings.alloc[stage].count;
			frees += timings.free[stage].count;
		}
		cr_assert_eq(allocs, 20000);
		cr_assert_eq(frees, 20000);
		cr_assert_eq(timings.all.count, 40000);
		cr_assert_gt(timings.alloc[0].count, i ? 19999u : 0u);
		cr_assert_gt(result.ticks_per_ns, 0);
		cr_assert_gt(result.timer_ns, 0);
		if (heaps[i] == WORKLOAD_HAKMEM)
			cr_assert_lt(timings.alloc[0].count, 20000, "all of them were hits");
	}
}

Test(workloads, verified_runs, .timeout = 60)
{
	static const char *const names[] = { "larson", "workers", "grow", "frames", "mesh" };
	size_t i, j;

	for (i = 0; i < 2; i++) {
		for (j = 0; j < 5; j++) {
			begin(names[j], heaps[i], workload_find(names[j])->workers, 3000);
			if (j == 2) {
				trial_set("vectors", 20);
				trial_set("last", 65536);
				trial_set("alone-last", MIB);
			}
			trial.options.verify = true;
			run_well();
		}
	}
}

/* Too little memory is told, and nothing crashes. */
Test(workloads, limit_is_told, .timeout = 60)
{
	static const struct {
		const char *name;
		const char *parameter;
		uint64_t value;
	} needy[] = {
		{ "larson-wide", "slots", 5000 }, { "storm", "blocks", 3000 },
		{ "varsize", "slots", 2000 },	  { "large", "slots", 20 },
		{ "grow", "vectors", 100 },	  { "pairs", "bytes", 4 * MIB },
		{ "pinned", "blocks", 3000 },	  { "frames", "level-frames", 1 },
	};
	const char *name;
	unsigned i, arenas;

	/* each report is printed */
	cr_assert_not_null(freopen("/dev/null", "w", stderr));
	for (i = 0; i < 8; i++) {
		name = needy[i].name;
		begin(name, WORKLOAD_HAKMEM, 2, 5000);
		trial_set(needy[i].parameter, needy[i].value);
		trial.options.limit = MIB;
		run();
		must(result.failed > 0 && result.faults > 0 && result.broken == 0, "%s: %s", name,
		     result.text);
		must(strstr(result.text, "no memory for "), "%s: %s", name, result.text);
		must(!workload_is_well(&result), "%s went well", name);
		must(result.ops >= 5000, "%s ends too soon", name);
		arenas = strcmp(name, "frames") == 0 ? FRAME_ARENAS : 1;
		must(result.peak_committed_bytes <= arenas * MIB, "beyond the limit");
	}
	/* no room for an arena at all */
	begin("storm", WORKLOAD_HAKMEM, 1, 5000);
	trial.options.limit = 1;
	cr_assert_eq(workload_run(trial.run.workload, &trial.options, &result), -1);
	cr_assert_neq(result.text[0], '\0');
}

Test(workloads, no_trace_is_told)
{
	begin("replay", WORKLOAD_LIBC, 1, 0);
	trial.options.trace = "no/such/trace.hkt";
	cr_assert_eq(workload_run(trial.run.workload, &trial.options, &result), -1);
	cr_assert_not_null(strstr(result.text, "no/such/trace.hkt"), "%s", result.text);
}
