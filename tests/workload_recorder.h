/* SPDX-License-Identifier: MIT */
/*
 * An allocator that the workloads' recipes run on in tests: it never gives an address twice, notes
 * what it was asked for and when, and has a choice of bugs. And a trial: a recipe at a small size,
 * run on it.
 */
#ifndef TESTS_WORKLOAD_RECORDER_H
#define TESTS_WORKLOAD_RECORDER_H

#include "heap.h"

#include <samples/workloads/workload.h>

/* Each strikes once, at the first call from the @bug_at-th on at which it can. */
enum recorder_bug {
	RECORDER_SOUND,
	RECORDER_SAME_BLOCK, /* two live blocks at one address */
	RECORDER_OVERLAP,    /* a block begins with the last byte of the one before */
	RECORDER_SCRIBBLE,   /* an allocation changes the last byte of the block before */
	RECORDER_MISALIGNED,
	RECORDER_DIRTY, /* zalloc does not clear the last byte */
	RECORDER_LOST,	/* realloc changes the last byte that must stay */
};

enum recorded_kind {
	RECORDED_ALLOC,
	RECORDED_ZALLOC,
	RECORDED_ALIGNED,
	RECORDED_RESIZE,
};

/**
 * struct recorded - a block, live or not
 * @block: where.
 * @size: as asked for.
 * @born: number of the event that made it, from 1: allocations, frees, resets, trims, caches.
 * @died: of the one that ended it, 0: none yet.
 * @kind: what made it.
 * @align: as asked for.
 * @dropped: a reset ended it.
 * @written: at its end the first and the last byte were not zero.
 * @inner: of the bytes 4096, 8192 and so on before the last, up to the 15th, how many were not.
 * @from: with RECORDED_RESIZE, its number before plus one; 0: none.
 * @into: its number after a resize plus one; 0: none.
 * @front: number of the cache that made it.
 * @freed_by: of the one that ended it.
 * @thread: that made it.
 * @born_frame: resets of arena 0 until then.
 * @died_frame: "
 */
struct recorded {
	unsigned char *block;
	size_t size;
	uint64_t born;
	uint64_t died;
	enum recorded_kind kind;
	uint32_t align;
	bool dropped;
	bool written;
	uint8_t inner;
	uint32_t from;
	uint32_t into;
	uint32_t front;
	uint32_t freed_by;
	uint32_t thread;
	uint32_t born_frame;
	uint32_t died_frame;
};

/* A cache: @opened and @closed are events, @thread opened it, and @calls were made through it. */
struct recorder_front {
	unsigned arena;
	unsigned worker;
	unsigned thread;
	uint64_t opened;
	uint64_t closed;
	uint64_t calls;
};

#define RECORDER_TRIMS 8

/**
 * struct recorder - what was asked of it so far, and how it is to be
 * @bug: one.
 * @bug_at: the number of the allocation from which on.
 * @struck: it did.
 * @refuse_from: allocations and resizes from this number, from 1, give NULL; 0: none
 * @refuse_to: before this number.
 * @refuse_front: a cache, the one of this number, from 1, cannot be opened; 0: all can.
 * @cannot_reset: as malloc.
 * @hold: frees wait until so many blocks are live; then, for a moment, whether there will be more.
 * @asked: allocations and resizes.
 * @blocks: all that ever were, by number.
 * @count: of them.
 * @live_blocks: now; @peak_blocks: the most.
 * @live_bytes: now; @peak_bytes: the most.
 * @frees: of blocks; @null_frees: of none.
 * @resets: by arena.
 * @trims: their number; @trimmed: events of the first few.
 * @fronts: caches, by number; @front_count: their number; @closed: those that were closed.
 * @events: so far.
 * @wrong: what no recipe may do: free what is not live, use a cache that is closed.
 */
struct recorder {
	enum recorder_bug bug;
	size_t bug_at;
	bool struck;
	size_t refuse_from;
	size_t refuse_to;
	size_t refuse_front;
	bool cannot_reset;
	size_t hold;
	size_t asked;
	struct recorded *blocks;
	size_t count;
	size_t live_blocks;
	size_t peak_blocks;
	size_t live_bytes;
	size_t peak_bytes;
	size_t frees;
	size_t null_frees;
	size_t resets[WORKLOAD_ARENAS];
	size_t trims;
	uint64_t trimmed[RECORDER_TRIMS];
	struct recorder_front *fronts;
	size_t front_count;
	size_t closed;
	uint64_t events;
	size_t wrong;
};

extern struct recorder recorder;

/* A workload, with its options, on the recorder. */
struct trial {
	struct workload_options options;
	struct run run;
};

extern struct trial trial;

/*
 * The defaults of a workload, and a fresh recorder, which may be changed before trial_run(). @ops
 * 0: the recipe's length.
 */
void trial_begin(const char *name, unsigned workers, uint64_t ops);
/* Of the workload's parameters, the one of this name. */
void trial_set(const char *parameter, uint64_t value);
/* The whole run, until all is freed; what was recorded stays until trial_end(). */
void trial_run(enum workload_mode mode);
void trial_end(void);

/* Of all workers: operations, failed allocations, failed checks; in MODE_NOTED, live bytes. */
uint64_t trial_ops(void);
uint64_t trial_failed(void);
uint64_t trial_broken(void);
int64_t trial_live(void);
/* What was told of the first that failed. */
const char *trial_text(void);
/* All went well, everything was freed, and by those that may. */
void trial_expect_sound(void);

/*
 * @count of @all are what was expected of a share of @share: closer than four and a half standard
 * deviations, or one.
 */
TEST_HELPER bool is_share(size_t count, size_t all, double share)
{
	double off = (double)count - share * (double)all;

	return off * off <= 20 * (double)all * share * (1 - share) + 1;
}

/* Of what share of the numbers from @min to @max is less than @x; for each distribution. */
TEST_HELPER double below_uniform(double x, double min, double max)
{
	return (x - min) / (max - min + 1);
}

TEST_HELPER double below_falling(double x, double min, double max)
{
	double above = 1 - (x - min) / (max - min + 1);

	return 1 - above * above;
}

TEST_HELPER double below_square(double x, double min, double max)
{
	return (max - min * max / x) / (max - min);
}

/* For powers of two times @min, and for halves between them; @max is @min times a power, too. */
TEST_HELPER double below_log(double x, double min, double max)
{
	double powers = 0, all = 0;

	for (; x >= 2 * min; x /= 2)
		powers++;
	for (; max >= 2 * min; max /= 2)
		all++;
	return (powers + (x > 1.2 * min ? 0.5 : 0)) / all;
}

/* That numbers are from @min to @max, and so distributed, as seen at some points. */
TEST_HELPER void expect_distribution(const size_t *numbers, size_t count,
				     double (*below)(double x, double min, double max), size_t min,
				     size_t max, const size_t *points, size_t point_count)
{
	size_t i, j, less;
	double share;

	for (i = 0; i < count; i++)
		must(numbers[i] >= min && numbers[i] <= max, "%zu is not of %zu to %zu", numbers[i],
		     min, max);
	for (j = 0; j < point_count; j++) {
		less = 0;
		for (i = 0; i < count; i++)
			less += numbers[i] < points[j];
		share = below((double)points[j], (double)min, (double)max);
		must(is_share(less, count, share), "%zu of %zu are less than %zu, expected %.1f",
		     less, count, points[j], share * (double)count);
	}
}

#endif /* TESTS_WORKLOAD_RECORDER_H */
