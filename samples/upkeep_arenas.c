/* SPDX-License-Identifier: MIT */
/*
 * upkeep: what arenas as a whole cost, without the time in the platform. A reset and a destroy of a
 * million blocks; a thousand arenas alive, each used, made one after the other and destroyed in
 * another order.
 */
#include <stdio.h>
#include <string.h>

#include <platform/platform.h>

#include "os.h"
#include "upkeep.h"

#define END_BLOCKS 1000000u
#define END_TRIES 5
#define BAR_END_NS 100000
#define CROWD 1000u
#define CROWD_BLOCKS 100u
#define CROWD_TRIES 5
#define CROWD_STRIDE 389u /* prime to CROWD */
#define BAR_CROWD_NS 20000

/* A platform that adds up the time spent in it. */
struct clocked {
	struct hk_platform own;
	struct hk_platform inner;
	uint64_t ns;
};

static void *clocked_reserve(void *context, size_t size, size_t align)
{
	struct clocked *clocked = context;
	uint64_t start = os_now_ns();
	void *got = clocked->inner.reserve(clocked->inner.context, size, align);

	clocked->ns += os_now_ns() - start;
	return got;
}

static int clocked_commit(void *context, void *ptr, size_t size)
{
	struct clocked *clocked = context;
	uint64_t start = os_now_ns();
	int error = clocked->inner.commit(clocked->inner.context, ptr, size);

	clocked->ns += os_now_ns() - start;
	return error;
}

static int clocked_decommit(void *context, void *ptr, size_t size)
{
	struct clocked *clocked = context;
	uint64_t start = os_now_ns();
	int error = clocked->inner.decommit(clocked->inner.context, ptr, size);

	clocked->ns += os_now_ns() - start;
	return error;
}

static void clocked_release(void *context, void *ptr, size_t size)
{
	struct clocked *clocked = context;
	uint64_t start = os_now_ns();

	clocked->inner.release(clocked->inner.context, ptr, size);
	clocked->ns += os_now_ns() - start;
}

static int clocked_open(struct clocked *clocked)
{
	int error = hk_platform_system(&clocked->inner);

	memset(&clocked->own, 0, sizeof(clocked->own));
	clocked->own.context = clocked;
	clocked->own.page_size = clocked->inner.page_size;
	clocked->own.granularity = clocked->inner.granularity;
	clocked->own.flags = clocked->inner.flags;
	clocked->own.address_space = clocked->inner.address_space;
	clocked->own.reserve = clocked_reserve;
	clocked->own.commit = clocked_commit;
	clocked->own.decommit = clocked_decommit;
	clocked->own.release = clocked_release;
	clocked->ns = 0;
	return error;
}

/* The best of some: what else runs on the machine only adds to it. */
int ends(void)
{
	uint64_t best_reset = UINT64_MAX, best_destroy = UINT64_MAX, ns;
	struct clocked clocked;
	struct hk_arena *arena;
	struct hk_cache *cache;
	unsigned try;
	size_t i;

	for (try = 0; try < 2 * END_TRIES; try++) {
		if (clocked_open(&clocked) ||
		    open_arena(&arena, &cache,
			       (struct hk_arena_config){ .platform = &clocked.own }))
			return -1;
		for (i = 0; i < END_BLOCKS; i++)
			if (!hk_alloc(cache, 16 + i % 32 * 16))
				return -1;
		clocked.ns = 0;
		ns = os_now_ns();
		if (try % 2)
			hk_arena_reset(arena);
		else
			hk_arena_destroy(arena);
		ns = os_now_ns() - ns - clocked.ns;
		if (try % 2 && ns < best_reset)
			best_reset = ns;
		if (try % 2 == 0 && ns < best_destroy)
			best_destroy = ns;
		if (try % 2)
			hk_arena_destroy(arena);
	}
	note("reset of 1,000,000 blocks beyond the platform, best of 5", (double)best_reset / 1000,
	     (double)BAR_END_NS / 1000, "us");
	note("destroy of 1,000,000 live blocks beyond the platform, best of 5",
	     (double)best_destroy / 1000, (double)BAR_END_NS / 1000, "us");
	return 0;
}

/* A thousand arenas: the mean of a create, with its cache, and of a destroy. */
static int crowd_once(uint64_t *create_ns, uint64_t *destroy_ns)
{
	static struct hk_arena *arenas[CROWD];
	struct clocked clocked;
	struct hk_cache *cache;
	uint64_t start;
	unsigned i, block;

	if (clocked_open(&clocked))
		return -1;
	*create_ns = 0;
	for (i = 0; i < CROWD; i++) {
		clocked.ns = 0;
		start = os_now_ns();
		if (open_arena(&arenas[i], &cache,
			       (struct hk_arena_config){ .platform = &clocked.own,
							 .address_space = (size_t)64 << 20 }))
			return -1;
		*create_ns += os_now_ns() - start - clocked.ns;
		for (block = 0; block < CROWD_BLOCKS; block++)
			if (!hk_alloc(cache, 16 + block * 37 % 2000))
				return -1;
	}
	clocked.ns = 0;
	start = os_now_ns();
	for (i = 0; i < CROWD; i++)
		hk_arena_destroy(arenas[i * CROWD_STRIDE % CROWD]);
	*destroy_ns = (os_now_ns() - start - clocked.ns) / CROWD;
	*create_ns /= CROWD;
	return 0;
}

int crowd(void)
{
	uint64_t best_create = UINT64_MAX, best_destroy = UINT64_MAX, create, destroy;
	unsigned try;

	for (try = 0; try < CROWD_TRIES; try++) {
		if (crowd_once(&create, &destroy))
			return -1;
		best_create = create < best_create ? create : best_create;
		best_destroy = destroy < best_destroy ? destroy : best_destroy;
	}
	note("create, 1000 arenas alive, each used: beyond the platform, best of 5",
	     (double)best_create / 1000, (double)BAR_CROWD_NS / 1000, "us");
	note("destroy, 1000 arenas alive, each used: beyond the platform, best of 5",
	     (double)best_destroy / 1000, (double)BAR_CROWD_NS / 1000, "us");
	return 0;
}
