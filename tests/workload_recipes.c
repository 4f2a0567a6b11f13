/* SPDX-License-Identifier: MIT */
/*
 * The workloads' recipes, as an allocator sees them: sizes, order, what is live. Here those whose
 * workers share nothing; the others are in workload_roles.c.
 */
#include "workload_recorder.h"

#include <string.h>

#define KIB ((size_t)1024)
#define MIB (KIB * KIB)
#define SIZES_MAX (1 << 17)

#define POINTS(...) ((const size_t[]){ __VA_ARGS__ }), 3

static size_t sizes[SIZES_MAX];

/* The sizes of all blocks are from @min to @max; how many are less than the points. */
static void expect_sizes(double (*below)(double x, double min, double max), size_t min, size_t max,
			 const size_t *points, size_t point_count)
{
	size_t i;

	must(recorder.count <= SIZES_MAX, "too many blocks for this test");
	for (i = 0; i < recorder.count; i++)
		sizes[i] = recorder.blocks[i].size;
	expect_distribution(sizes, recorder.count, below, min, max, points, point_count);
}

static const struct recorded *block(size_t number)
{
	return &recorder.blocks[number];
}

/* Each of @slots per worker is filled, then @ops blocks take the place of others. */
static void run_replacing(const char *name, unsigned workers, size_t slots, uint64_t ops)
{
	trial_begin(name, workers, ops);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(trial_ops(), ops);
	cr_assert_eq(recorder.count, workers * slots + ops);
	cr_assert_eq(recorder.frees, recorder.count);
	cr_assert_eq(recorder.null_frees, 0);
	cr_assert_eq(recorder.peak_blocks, workers * slots);
}

/* Slots are chosen by lot: of the fill, (1 - 1 / slots)^n are there after n operations. */
static void expect_random_slots(size_t slots, uint64_t ops)
{
	size_t i, left = 0;
	uint64_t n;
	double share = 1;

	for (n = 0; n < ops; n++)
		share *= 1 - 1 / (double)slots;
	for (i = 0; i < slots; i++)
		left += block(i)->died > slots + 2 * ops;
	must(is_share(left, slots, share), "%zu of %zu are left after %d operations, not %.1f",
	     left, slots, (int)ops, share * (double)slots);
}

/* Neighbours in time are replaced by a block that is allocated right after one was freed. */
static void expect_replacement(size_t slots, uint64_t ops)
{
	size_t i;

	for (i = 0; i < ops; i++)
		must(block(slots + i)->born == block(slots - 1)->born + 2 * (i + 1),
		     "operation %zu is not one free, one allocation", i);
}

/* Of the pages of a block: all were written, or none but those at its ends. */
static void expect_pages(bool all)
{
	size_t i, inner, seen = 0;

	for (i = 0; i < recorder.count; i++) {
		inner = block(i)->size > 1 ? (block(i)->size - 2) / 4096 : 0;
		if (inner > 15)
			inner = 15;
		seen += inner;
		must(block(i)->inner == (all ? inner : 0), "%d pages of %zu bytes were written",
		     block(i)->inner, block(i)->size);
	}
	must(seen, "no block is so large");
}

Test(workload_recipes, larson_replaces_at_random)
{
	run_replacing("larson", 1, 1024, 35000);
	expect_sizes(below_uniform, 8, 128, POINTS(20, 68, 116));
	expect_random_slots(1024, 700);
	trial_end();
	run_replacing("larson-wide", 1, 5000, 25000);
	expect_sizes(below_uniform, 8, 1000, POINTS(107, 504, 901));
	trial_end();
}

/* Every 10,000 operations another thread and another cache go on with a worker's blocks. */
Test(workload_recipes, larson_hands_over)
{
	const struct recorder_front *front, *before[2] = { NULL, NULL };
	size_t i, turns[2] = { 0, 0 };

	run_replacing("larson", 2, 1024, 70000);
	cr_assert_eq(recorder.front_count, 8);
	cr_assert_eq(recorder.closed, 6);
	for (i = 0; i < 8; i++) {
		front = &recorder.fronts[i];
		must(front->worker < 2, "there is no worker %u", front->worker);
		turns[front->worker]++;
		if (turns[front->worker] == 1) {
			cr_assert_eq(front->calls, 1024 + 2 * 10000);
		} else if (turns[front->worker] < 4) {
			cr_assert_eq(front->calls, 2 * 10000);
		} else {
			cr_assert_eq(front->calls, 2 * 5000 + 1024);
			cr_assert_eq(front->closed, 0);
		}
		if (before[front->worker])
			cr_assert_neq(front->thread, before[front->worker]->thread);
		before[front->worker] = front;
	}
	for (i = 0; i < recorder.count; i++)
		must(recorder.fronts[block(i)->front].worker ==
			     recorder.fronts[block(i)->freed_by].worker,
		     "block %zu passed to another worker", i);
	trial_end();
}

/* Of each slot the blocks come from one arena, and go back to it. */
static void expect_arenas(size_t slots, unsigned arenas)
{
	const struct recorder_front *fronts = recorder.fronts;
	size_t i;

	for (i = 0; i < slots; i++)
		must(fronts[block(i)->front].arena == i % WORKLOAD_ARENAS % arenas,
		     "slot %zu has a block of arena %u", i, fronts[block(i)->front].arena);
	for (i = 0; i < recorder.count; i++)
		must(fronts[block(i)->front].arena == fronts[block(i)->freed_by].arena,
		     "block %zu passed to another arena", i);
}

Test(workload_recipes, slots_are_divided_up_among_arenas)
{
	size_t i;

	trial_begin("churn", 1, 16000);
	trial_set("arenas", 3);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(recorder.front_count, 3);
	cr_assert_eq(recorder.frees, recorder.count);
	expect_arenas(1024, 3);
	/* of 16 slots the first has six, the others five */
	for (i = 0; i < 3; i++)
		must(is_share(recorder.fronts[i].calls, 2 * (1024 + 16000),
			      i ? 5 / 16.0 : 6 / 16.0),
		     "%u calls in arena %zu", (unsigned)recorder.fronts[i].calls, i);
	trial_end();

	trial_begin("larson", 1, 25000);
	trial_set("arenas", 2);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	/* three lives, of which the last keeps its caches */
	cr_assert_eq(recorder.front_count, 6);
	cr_assert_eq(recorder.closed, 4);
	expect_arenas(1024, 2);
	trial_end();
}

Test(workload_recipes, churn_has_many_small_blocks)
{
	run_replacing("churn", 1, 1024, 60000);
	expect_sizes(below_square, 4, 32768, POINTS(5, 8, 40));
	expect_sizes(below_square, 4, 32768, POINTS(6, 400, 4000));
	expect_random_slots(1024, 700);
	expect_replacement(1024, 60000);
	expect_pages(true);
	trial_end();
}

Test(workload_recipes, varsize_has_each_power_of_two)
{
	run_replacing("varsize", 1, 2000, 6000);
	expect_sizes(below_log, 8, MIB, POINTS(32, 2896, 32 * KIB));
	expect_sizes(below_log, 8, MIB, POINTS(64, 4096, 256 * KIB));
	expect_random_slots(2000, 1400);
	expect_pages(false);
	trial_end();
}

Test(workload_recipes, large_blocks)
{
	run_replacing("large", 1, 20, 2000);
	expect_sizes(below_uniform, 5 * MIB, 25 * MIB, POINTS(7 * MIB, 15 * MIB, 23 * MIB));
	expect_random_slots(20, 14);
	expect_pages(false);
	trial_end();
}

/* A burst of @count blocks from number @first on: born in order, freed in order and in reverse. */
static void expect_burst(size_t first, size_t count, size_t size)
{
	uint64_t start = block(first)->born, died;
	size_t i;

	for (i = 0; i < count; i++) {
		died = start + count + (i < count / 2 ? i : count / 2 + count - 1 - i);
		must(block(first + i)->born == start + i, "block %zu is not of the burst",
		     first + i);
		must(block(first + i)->died == died, "block %zu of %zu is freed at another time", i,
		     count);
		must(size ? block(first + i)->size == size
			  : block(first + i)->size >= 8 && block(first + i)->size <= 128,
		     "a block of %zu bytes", block(first + i)->size);
	}
}

Test(workload_recipes, burst_frees_in_order_and_in_reverse)
{
	static const size_t counts[] = { 25, 100, 400, 1600, 20000 }, kinds[] = { 16, 32, 64, 0 };
	size_t first = 0, kind, n, done, i;

	trial_begin("burst", 1, 4 * (4 * 20000 + 20800));
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	for (kind = 0; kind < 4; kind++) {
		for (n = 0; n < 5; n++)
			for (done = 0; done < 20000; done += counts[n], first += counts[n])
				expect_burst(first, counts[n], kinds[kind]);
	}
	cr_assert_eq(recorder.count, first);
	cr_assert_eq(trial_ops(), first);
	for (i = 0; i < 20000; i++)
		sizes[i] = block(first - 20000 + i)->size;
	expect_distribution(sizes, 20000, below_uniform, 8, 128, POINTS(20, 68, 116));
	trial_end();
}

/* Blocks @from to @to that died in this time. */
static size_t died_between(size_t from, size_t to, uint64_t begin, uint64_t end)
{
	size_t count = 0;

	for (; from < to; from++)
		count += block(from)->died > begin && block(from)->died < end;
	return count;
}

/* Each loop frees half of what is there, and allocates as much: a look at two loops. */
Test(workload_recipes, storm_frees_half_at_random)
{
	const size_t slots = 6000;
	size_t first, second, both;
	uint64_t start, middle, end;

	trial_begin("storm", 1, 2 * slots);
	trial_set("blocks", slots);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(trial_ops(), 2 * slots);
	cr_assert_eq(recorder.count, 3 * slots);
	cr_assert_eq(recorder.peak_blocks, slots);
	expect_sizes(below_falling, 16, 16000, POINTS(836, 4698, 10945));
	/* nothing but frees, then as many allocations, the next being the first of the new */
	start = block(slots - 1)->born;
	first = block(slots)->born - start - 1;
	cr_assert(is_share(first, slots, 0.5), "%zu of %zu are freed", first, slots);
	middle = block(slots + first - 1)->born;
	cr_assert_eq(middle, start + 2 * first);
	second = block(slots + first)->born - middle - 1;
	end = block(slots + first + second - 1)->born;
	cr_assert_eq(end, middle + 2 * second);
	cr_assert(is_share(second, slots, 0.5), "%zu of %zu are freed", second, slots);
	/* each time others */
	cr_assert_eq(died_between(0, slots, start, middle), first);
	both = died_between(0, slots, middle, end);
	cr_assert(is_share(both, slots, 0.25), "of those that stayed %zu are freed", both);
	/* those of all workers together */
	trial_end();
	trial_begin("storm", 3, 300);
	trial_set("blocks", slots);
	trial_run(MODE_PLAIN);
	cr_assert_eq(recorder.peak_blocks, slots);
	trial_end();
}

/* The ring of lifetime, by the numbers of its blocks plus one; 0: empty. */
struct ring_model {
	uint32_t cells[10000];
	size_t fifth; /* that survives next */
	uint64_t now;
};

static void free_cell(struct ring_model *ring, size_t cell)
{
	uint32_t number = ring->cells[cell];

	must(number && block(number - 1)->died == ++ring->now, "cell %zu is freed out of turn",
	     cell);
	ring->cells[cell] = 0;
}

/* A block goes into the first empty cell; where there is none, four fifths are emptied after. */
static void fill_cell(struct ring_model *ring, size_t *cell, uint32_t number)
{
	size_t i, from = ring->fifth * 2000, to = from + 2000;

	while (ring->cells[*cell])
		++*cell;
	ring->cells[*cell] = number + 1;
	must(block(number)->born == ++ring->now, "block %u comes out of turn", number);
	for (i = *cell; i < 10000 && ring->cells[i]; i++)
		;
	if (i < 10000)
		return;
	for (i = 0; i < from; i++)
		free_cell(ring, i);
	for (i = 10000; i > to; i--)
		free_cell(ring, i - 1);
	ring->fifth = (ring->fifth + 1) % 5;
	*cell = 0;
}

Test(workload_recipes, lifetime_keeps_a_moving_fifth)
{
	static struct ring_model ring;
	size_t base, size, cell = 0, i;
	uint32_t number = 0;

	trial_begin("lifetime", 1, 120000);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	memset(&ring, 0, sizeof(ring));
	ring.now = 1; /* the cache */
	for (base = 1; number < recorder.count; base = base * 3 / 2 + 1) {
		if (base > 1000)
			base = 1;
		for (size = base; size && number < recorder.count; size /= 2) {
			for (i = 0; i < (size < 100 ? 250u : 50u); i++, number++) {
				must(block(number)->size == size, "block %u has %zu bytes, not %zu",
				     number, block(number)->size, size);
				fill_cell(&ring, &cell, number);
			}
		}
	}
	cr_assert_geq(number, 120000);
	cr_assert_lt(number, 120250);
	cr_assert_eq(trial_ops(), number);
	cr_assert_eq(recorder.peak_blocks, 10000);
	trial_end();
}

/* Vectors grow in turns, from block @first on: the number of the block after them. */
static size_t expect_growth(size_t first, size_t vectors, size_t size, size_t last)
{
	size_t i, from = 0;
	bool resized = false;

	for (;;) {
		for (i = 0; i < vectors; i++) {
			must(block(first + i)->size == size, "a vector of %zu bytes, not %zu",
			     block(first + i)->size, size);
			must((block(first + i)->kind == RECORDED_RESIZE) == resized,
			     "a vector is made anew");
			must(!resized || block(first + i)->from == from + i + 1,
			     "vectors grow out of turn");
		}
		from = first;
		first += vectors;
		if (size >= last)
			return first;
		size += size / 2;
		if (size > last)
			size = last;
		resized = true;
	}
}

Test(workload_recipes, grow_by_half_in_turns)
{
	size_t after, ops = 0, i;

	trial_begin("grow", 1, 0);
	trial_set("vectors", 20);
	trial_set("rounds", 2);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	after = expect_growth(0, 20, 16, MIB);
	cr_assert_eq(block(after - 1)->size, MIB);
	cr_assert_leq(block(after - 20)->died, block(after)->born + 20, "vectors go first");
	cr_assert_lt(block(after - 1)->died, block(after)->born);
	after = expect_growth(after, 1, 256 * KIB, 512 * MIB);
	cr_assert_eq(block(after - 1)->size, 512 * MIB);
	after = expect_growth(after, 20, 16, MIB);
	after = expect_growth(after, 1, 256 * KIB, 512 * MIB);
	cr_assert_eq(after, recorder.count);
	for (i = 0; i < recorder.count; i++)
		ops += block(i)->kind == RECORDED_RESIZE;
	cr_assert_eq(trial_ops(), ops);
	cr_assert_eq(trial.run.expected, ops);
	cr_assert_eq(recorder.count, ops + recorder.frees);
	expect_pages(false);
	trial_end();
}

/* c is 1, 2, 4 ...: M / (2cn) pairs of c * n bytes, of which one in each pair goes. */
static size_t expect_pairs(size_t first, size_t bytes)
{
	size_t size, pairs, i, stays = first, more;

	for (size = 512; (pairs = bytes / (2 * size)) > 0; size *= 2) {
		for (i = 0; i < 2 * pairs; i++)
			must(block(first + i)->size == size, "a block of %zu bytes, not %zu",
			     block(first + i)->size, size);
		first += 2 * pairs;
		for (i = 0; i < pairs; i++)
			must(block(first - 2 * pairs + 2 * i)->died ==
				     block(first - 1)->born + 1 + i,
			     "pair %zu is not halved in turn", i);
		bytes -= pairs * size;
	}
	more = (size_t)block(first - 1)->born;
	for (; stays < first; stays++)
		must(block(stays)->died > more || block(stays + 1)->died > more,
		     "of a pair nothing stays to the end");
	return first;
}

Test(workload_recipes, pairs_leave_one_of_two)
{
	const size_t bytes = 16 * MIB;
	size_t after;

	trial_begin("pairs", 1, 0);
	trial_set("bytes", bytes);
	trial_set("rounds", 2);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(recorder.peak_bytes, bytes);
	after = expect_pairs(0, bytes);
	after = expect_pairs(after, bytes);
	cr_assert_eq(after, recorder.count);
	cr_assert_eq(trial_ops(), after);
	cr_assert_eq(trial.run.expected, after);
	trial_end();
}

/* A round: a block of 32 MiB comes and goes, then 33,500 of which every 50th stays; a trim. */
static void expect_pinned_round(size_t round)
{
	size_t first = round * 33501, i, kept = 0;
	uint64_t start = block(first)->born, at = start + 33502;

	cr_assert_eq(block(first)->size, 32 * MIB);
	cr_assert_eq(block(first)->died, start + 1);
	for (i = 0; i < 33500; i++) {
		must(block(first + 1 + i)->size == 1000, "a block of another size");
		must(block(first + 1 + i)->born == start + 2 + i, "a block out of turn");
		if (i % 50 == 49) {
			kept += block(first + 1 + i)->died > recorder.trimmed[1];
			continue;
		}
		must(block(first + 1 + i)->died == at++, "block %zu is not freed in turn", i);
	}
	cr_assert_eq(kept, 670);
	cr_assert_eq(recorder.trimmed[round], at);
}

Test(workload_recipes, pinned_keeps_every_50th)
{
	trial_begin("pinned", 1, 0);
	trial_set("rounds", 2);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(recorder.trims, 2);
	expect_pinned_round(0);
	expect_pinned_round(1);
	cr_assert_eq(recorder.count, 2 * 33501);
	cr_assert_eq(trial_ops(), 2 * 33501);
	cr_assert_eq(recorder.peak_blocks, 670 + 33500);
	trial_end();
}

/* What a recipe has once its workers share. */
Test(workload_recipes, workers_share)
{
	trial_begin("grow", 3, 0);
	trial_set("vectors", 10);
	trial_set("last", 4096);
	trial_set("alone-last", 3 * MIB);
	trial_set("rounds", 1);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(recorder.frees, 10 + 3);
	cr_assert_eq(trial_ops(), recorder.count - recorder.frees);
	cr_assert_geq(trial_ops(), trial.run.expected);
	trial_end();
	trial_begin("pinned", 3, 0);
	trial_set("rounds", 5);
	trial_set("blocks", 99);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(recorder.count, 5 * 100);
	cr_assert_eq(recorder.trims, 5);
	trial_end();
	trial_begin("pairs", 3, 0);
	trial_set("bytes", 3 * MIB + 1);
	trial_set("rounds", 1);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_leq(recorder.peak_bytes, 3 * MIB);
	cr_assert_geq(trial_ops(), trial.run.expected);
	trial_end();
}

/* Asked for more than their length, recipes begin anew, and hold no more than they may. */
Test(workload_recipes, recipes_go_on_as_long_as_asked)
{
	trial_begin("pinned", 1, 50 * 101);
	trial_set("rounds", 3);
	trial_set("blocks", 100);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(recorder.trims, 50);
	cr_assert_leq(recorder.peak_blocks, 3 * 2 + 100);
	trial_end();
	trial_begin("pairs", 1, 5000);
	trial_set("bytes", 1 << 16);
	trial_set("rounds", 1);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_geq(trial_ops(), 5000);
	cr_assert_leq(recorder.peak_bytes, 1 << 16);
	trial_end();
}
