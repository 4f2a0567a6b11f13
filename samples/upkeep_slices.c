/* SPDX-License-Identifier: MIT */
/*
 * hk_arena_maintain() and hk_arena_trim() with 200 us each, at a heap of some size; of each call
 * the processor time of its thread. Between them the platform does the same without an arena.
 */
#include <inttypes.h>
#include <stdio.h>

#include <hakmem/hakmem.h>
#include <platform/platform.h>

#include "cli.h"
#include "os.h"
#include "upkeep.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SLICE_NS 200000
#define BAR_NS 300000

/* As the library does it: such steps, and none begins in the last quarter. */
#define POPULATE_STEP (16 * KIB)
#define DECOMMIT_STEP (512 * KIB)
#define ALONE_NS 150000
#define ALONE_SIZE (64 * MIB)

static uint64_t roll(uint64_t *random, uint64_t below)
{
	*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (*random >> 33) % below;
}

/* Blocks of 16 bytes to 64 KiB, small ones more often, written to in each page. */
static size_t fill(struct hk_cache *cache, void **blocks, size_t most, size_t bytes,
		   uint64_t *random)
{
	size_t count = 0, sum = 0;

	while (count < most && sum < bytes) {
		size_t size = 16 + (size_t)roll(random, (uint64_t)1 << (6 + roll(random, 11)));
		size_t at;
		volatile unsigned char *block = hk_alloc(cache, size);

		if (!block)
			break;
		for (at = 0; at < size; at += 4096)
			block[at] = 1;
		blocks[count++] = (void *)(uintptr_t)block;
		sum += size;
	}
	return count;
}

struct slices {
	uint64_t worst_ns;
	uint64_t calls;
	uint64_t longer; /* than the bar */
};

static uint64_t note_slice(struct slices *found, uint64_t start)
{
	uint64_t ns = os_thread_cpu_ns() - start;

	found->calls++;
	found->longer += ns > BAR_NS;
	if (ns > found->worst_ns)
		found->worst_ns = ns;
	return ns;
}

static void tell_slices(const char *what, size_t bytes, const struct slices *found, uint64_t bar_ns)
{
	char name[96];

	snprintf(name, sizeof(name), "%s at %zu MiB, worst of %" PRIu64 " (%" PRIu64 " longer)",
		 what, bytes / MIB, found->calls, found->longer);
	note(name, (double)found->worst_ns / 1000, (double)bar_ns / 1000, "us");
}

/* Some of the blocks go, others come, and now and then an eighth goes at once. */
static void churn(struct hk_cache *cache, void **blocks, size_t *count, uint64_t *random, bool much)
{
	size_t part = much ? *count / 8 : 200, i;

	for (i = 0; i < part && *count; i++) {
		size_t victim = (size_t)roll(random, *count);

		hk_free(cache, blocks[victim]);
		blocks[victim] = blocks[--*count];
	}
	if (!much)
		*count += fill(cache, blocks + *count, part, SIZE_MAX, random);
}

/*
 * The platform alone, for as long as the call before took: what the machine adds to a call. A
 * virtual one takes some pages, or a processor's time, without telling.
 */
struct alone {
	struct hk_platform platform;
	unsigned char *range;
	size_t at; /* what is populated, or was given back, ends here */
	struct slices populates, decommits;
};

static bool alone_open(struct alone *alone)
{
	struct hk_platform *platform = &alone->platform;

	if (hk_platform_system(platform) || !platform->populate || !platform->now_ns)
		return false;
	alone->range = platform->reserve(platform->context, ALONE_SIZE, platform->granularity);
	return alone->range && !platform->commit(platform->context, alone->range, ALONE_SIZE);
}

static void alone_close(struct alone *alone)
{
	if (alone->range)
		alone->platform.release(alone->platform.context, alone->range, ALONE_SIZE);
}

/* One slice up to @end: @step bytes at a time, as far as the time of the call before goes. */
static void alone_slice(struct alone *alone, struct slices *found, size_t end, size_t step,
			int (*work)(void *, void *, size_t), uint64_t most_ns)
{
	const struct hk_platform *platform = &alone->platform;
	uint64_t start = os_thread_cpu_ns(), end_ns;

	end_ns = platform->now_ns(platform->context);
	end_ns += most_ns < ALONE_NS ? most_ns : ALONE_NS;
	do {
		work(platform->context, alone->range + alone->at, step);
		alone->at += step;
	} while (alone->at < end && platform->now_ns(platform->context) < end_ns);
	note_slice(found, start);
}

static void populate_alone(struct alone *alone, uint64_t most_ns)
{
	const struct hk_platform *platform = &alone->platform;

	alone_slice(alone, &alone->populates, ALONE_SIZE, POPULATE_STEP, platform->populate,
		    most_ns);
	if (alone->at < ALONE_SIZE / 2)
		return;
	platform->decommit(platform->context, alone->range, ALONE_SIZE);
	platform->commit(platform->context, alone->range, ALONE_SIZE);
	alone->at = 0;
}

/* Of what is there: what the slice before gave back, and a step more. */
static void decommit_alone(struct alone *alone, uint64_t most_ns)
{
	const struct hk_platform *platform = &alone->platform;
	size_t end = alone->at < ALONE_SIZE ? alone->at + DECOMMIT_STEP : ALONE_SIZE, at;

	platform->commit(platform->context, alone->range, ALONE_SIZE);
	for (at = 0; at < end; at += platform->page_size)
		((volatile unsigned char *)alone->range)[at] = 1;
	alone->at = 0;
	alone_slice(alone, &alone->decommits, end, DECOMMIT_STEP, platform->decommit, most_ns);
}

int slices_at(size_t bytes, uint64_t calls)
{
	struct slices trims = { 0 }, maintains = { 0 };
	struct alone alone = { .range = NULL };
	bool compares = alone_open(&alone);
	size_t most = bytes / 512, count, mapped, again;
	void **blocks = cli_array(most, sizeof(*blocks), &mapped);
	struct hk_arena *arena;
	struct hk_cache *cache;
	uint64_t random = 1, start, ns;
	int error = -1;

	if (!blocks) {
		alone_close(&alone);
		return fprintf(stderr, "upkeep: no memory\n");
	}
	if (open_arena(&arena, &cache,
		       (struct hk_arena_config){ .address_space = 2 * bytes + 256 * MIB,
						 .maintain_delay = 64 }))
		goto out_unmap;
	count = fill(cache, blocks, most, bytes, &random);
	while (maintains.calls < calls) {
		churn(cache, blocks, &count, &random, maintains.calls % 512 == 511);
		start = os_thread_cpu_ns();
		hk_arena_maintain(arena, SLICE_NS);
		ns = note_slice(&maintains, start);
		if (compares)
			populate_alone(&alone, ns);
		if (maintains.calls % 1024 == 0)
			count += fill(cache, blocks + count, most - count,
				      bytes - hk_arena_used(arena) < bytes
					      ? bytes - hk_arena_used(arena)
					      : 0,
				      &random);
	}
	alone.at = 0;
	/* a level goes, and comes again, and goes, until there were calls enough */
	while (trims.calls < calls) {
		hk_free_bulk(cache, count, blocks);
		hk_cache_flush(cache);
		do {
			start = os_thread_cpu_ns();
			again = hk_arena_trim(arena, 0, SLICE_NS);
			ns = note_slice(&trims, start);
			if (compares)
				decommit_alone(&alone, ns);
		} while (again && trims.calls < calls);
		count = trims.calls < calls ? fill(cache, blocks, most, bytes, &random) : 0;
	}
	tell_slices("hk_arena_maintain(200 us)", bytes, &maintains, BAR_NS);
	if (compares)
		tell_slices("  the platform's populate alone", bytes, &alone.populates, 0);
	tell_slices("hk_arena_trim(200 us)", bytes, &trims, BAR_NS);
	if (compares)
		tell_slices("  the platform's decommit alone", bytes, &alone.decommits, 0);
	hk_arena_reset(arena);
	error = hk_arena_check(arena) != 0;
	hk_arena_destroy(arena);

out_unmap:
	alone_close(&alone);
	os_unmap(blocks, mapped);
	return error;
}
