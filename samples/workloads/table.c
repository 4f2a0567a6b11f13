/* SPDX-License-Identifier: MIT */
/* The workloads: a line about each, and their parameters, whose values are those of the recipe. */
#include "workload.h"

#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define MOST (UINT64_C(1) << 30)

#define REPLACE(slots_, min_, max_, touch_)                                                        \
	[REPLACE_SLOTS] = { "slots", "blocks that each worker holds", slots_, 1, 1 << 24 },        \
	[REPLACE_MIN] = { "min-size", "bytes of the smallest", min_, 1, MOST },                    \
	[REPLACE_MAX] = { "max-size", "bytes of the largest", max_, 1, MOST },                     \
	[REPLACE_TOUCH] = { "touch", "1: every page of a block is written", touch_, 0, 1 },        \
	[REPLACE_ARENAS] = { "arenas", "that each worker uses, its slots in turn", 1, 1,           \
			     WORKLOAD_ARENAS }

#define LARSON(slots_, max_)                                                                       \
	{                                                                                          \
		REPLACE(slots_, 8, max_, 0), [REPLACE_HANDOVER] = {                                \
			"handover",                                                                \
			"operations, then a fresh thread has the blocks",                          \
			10000,                                                                     \
			1,                                                                         \
			UINT64_MAX                                                                 \
		}                                                                                  \
	}

const struct workload workload_table[] = {
	{ .name = "larson",
	  .about = "replaces blocks at random; from time to time they pass to a fresh thread",
	  .recipe = RECIPE_LARSON,
	  .workers = 1,
	  .ops = 40000000,
	  .largest = REPLACE_MAX,
	  .parameters = LARSON(1024, 128) },
	{ .name = "larson-wide",
	  .about = "the same with more blocks of more sizes, beyond the first caches",
	  .recipe = RECIPE_LARSON,
	  .workers = 1,
	  .ops = 25000000,
	  .largest = REPLACE_MAX,
	  .parameters = LARSON(5000, 1000) },
	{ .name = "churn",
	  .about = "replaces blocks at random, many small and a few large, every page written",
	  .recipe = RECIPE_CHURN,
	  .workers = 1,
	  .ops = 25000000,
	  .largest = REPLACE_MAX,
	  .parameters = { REPLACE(1024, 4, 32768, 1) } },
	{ .name = "burst",
	  .about = "many blocks at once, then freed, half in order and half in reverse",
	  .recipe = RECIPE_BURST,
	  .workers = 1,
	  .ops = 40000000,
	  .largest = BURST_MAX,
	  .parameters = { [BURST_COUNT] = { "count", "blocks; 0: 25, 100, 400, 1600, 20000", 0, 0,
					    20000 },
			  [BURST_SIZE] = { "size", "bytes; 0: 16, 32, 64, and mixed", 0, 0, MIB },
			  [BURST_MIN] = { "min-size", "of mixed sizes, the smallest", 8, 1, MIB },
			  [BURST_MAX] = { "max-size", "of mixed sizes, the largest", 128, 1,
					  MIB } } },
	{ .name = "storm",
	  .about = "half of many blocks is freed at random, and allocated again",
	  .recipe = RECIPE_STORM,
	  .workers = 1,
	  .ops = 4000000,
	  .largest = STORM_MAX,
	  .parameters = { [STORM_BLOCKS] = { "blocks", "of all workers together", 150000, 1,
					     1 << 26 },
			  [STORM_MIN] = { "min-size", "bytes of the smallest, the most frequent",
					  16, 1, MOST },
			  [STORM_MAX] = { "max-size", "bytes of the largest", 16000, 1, MOST } } },
	{ .name = "lifetime",
	  .about = "a ring of blocks of falling sizes, of which a moving fifth survives",
	  .recipe = RECIPE_LIFETIME,
	  .workers = 1,
	  .ops = 30000000,
	  .largest = LIFETIME_MAX,
	  .parameters = { [LIFETIME_RING] = { "ring", "blocks at most live", 10000, 5, 1 << 24 },
			  [LIFETIME_MAX] = { "max-size", "bytes of the largest", 1000, 1, MIB },
			  [LIFETIME_SMALL] = { "small", "bytes, from which fewer are allocated",
					       100, 0, MIB },
			  [LIFETIME_SMALL_COUNT] = { "small-count", "blocks of each size below",
						     250, 1, 1 << 24 },
			  [LIFETIME_COUNT] = { "count", "blocks of each other size", 50, 1,
					       1 << 24 } } },
	{ .name = "varsize",
	  .about = "replaces blocks of 8 bytes to 1 MiB, each power of two as likely",
	  .recipe = RECIPE_VARSIZE,
	  .workers = 1,
	  .ops = 4000000,
	  .largest = REPLACE_MAX,
	  .parameters = { REPLACE(2000, 8, MIB, 0) } },
	{ .name = "handoff",
	  .about = "one worker allocates, another frees, with a bounded queue between them",
	  .recipe = RECIPE_HANDOFF,
	  .workers = 2,
	  .ops = 15000000,
	  .largest = HANDOFF_MAX,
	  .parameters = { [HANDOFF_SIZE] = { "size", "bytes, in every other stretch", 64, 1, MIB },
			  [HANDOFF_MIN] = { "min-size", "of the mixed stretches, the smallest", 8,
					    1, MIB },
			  [HANDOFF_MAX] = { "max-size", "of the mixed stretches, the largest", 2048,
					    1, MIB },
			  [HANDOFF_QUEUE] = { "queue", "blocks between a pair, a power of two",
					      4096, 16, 1 << 20 },
			  [HANDOFF_STRETCH] = { "stretch", "blocks until the sizes change", 65536,
						16, UINT64_MAX } } },
	{ .name = "mesh",
	  .about = "three allocate, two forward in batches, three free",
	  .recipe = RECIPE_MESH,
	  .workers = 8,
	  .ops = 10000000,
	  .largest = MESH_SIZE,
	  .parameters = { [MESH_UNDER_WAY] = { "under-way", "blocks between the workers, at most",
					       4096, 512, 1 << 20 },
			  [MESH_BATCH] = { "batch", "blocks at once, at most", 16, 1, 16 },
			  [MESH_SIZE] = { "max-size", "bytes; also 3, 4 and 6 eighths of it", 128,
					  8, MIB } } },
	{ .name = "scratch",
	  .about = "each worker writes to one small block over and over: false sharing",
	  .recipe = RECIPE_SCRATCH,
	  .workers = 2,
	  .largest = SCRATCH_SIZE,
	  .parameters = { [SCRATCH_SIZE] = { "size", "bytes", 8, 1, MIB },
			  [SCRATCH_ROUNDS] = { "rounds", "blocks, with a gift and without", 1000, 1,
					       MOST },
			  [SCRATCH_WRITES] = { "writes", "to a block, of all workers together",
					       2000000, 1, MOST } } },
	{ .name = "workers",
	  .about = "short lives: new threads with new caches swap blocks into shared slots",
	  .recipe = RECIPE_WORKERS,
	  .workers = 10,
	  .largest = WORKERS_SIZE,
	  .parameters = { [WORKERS_ROUNDS] = { "rounds", "of new workers", 500, 1, MOST },
			  [WORKERS_SLOTS] = { "slots", "shared, and filled by each worker", 1000, 1,
					      1 << 20 },
			  [WORKERS_SIZE] = { "size", "bytes, zeroed", 128, 1, MIB } } },
	{ .name = "large",
	  .about = "replaces blocks of 5 to 25 MiB at random",
	  .recipe = RECIPE_LARGE,
	  .workers = 1,
	  .ops = 200000,
	  .largest = REPLACE_MAX,
	  .parameters = { REPLACE(20, 5 * MIB, 25 * MIB, 0) } },
	{ .name = "grow",
	  .about = "vectors grow by half in turns, to 1 MiB each; then one to 512 MiB",
	  .recipe = RECIPE_GROW,
	  .workers = 1,
	  .largest = GROW_LAST,
	  .parameters = { [GROW_VECTORS] = { "vectors", "of all workers together", 1000, 1,
					     1 << 20 },
			  [GROW_FIRST] = { "first", "bytes to begin with", 16, 2, MIB },
			  [GROW_LAST] = { "last", "bytes at the end", MIB, 2, MOST },
			  [GROW_ALONE_FIRST] = { "alone-first", "the one: bytes to begin with",
						 256 * KIB, 2, MIB },
			  [GROW_ALONE_LAST] = { "alone-last", "bytes at the end, of all workers",
						512 * MIB, MIB, 4 * MOST },
			  [GROW_TOUCH] = { "touch", "1: every page of a block is written", 0, 0,
					   1 },
			  [GROW_ROUNDS] = { "rounds", "from the start to the end", 3, 1, MOST } } },
	{ .name = "pairs",
	  .about = "frees one of each pair of blocks, then needs blocks of twice the size",
	  .recipe = RECIPE_PAIRS,
	  .workers = 1,
	  .largest = PAIRS_BYTES,
	  .parameters = { [PAIRS_BYTES] = { "bytes", "at once, of all workers together", 128 * MIB,
					    65536, 4 * MOST },
			  [PAIRS_FIRST] = { "first", "bytes of a block, to begin with", 512, 1,
					    65536 },
			  [PAIRS_ROUNDS] = { "rounds", "from the start to the end", 10, 1,
					     MOST } } },
	{ .name = "pinned",
	  .about = "a block in every fifty stays behind; then a trim. Resident memory is after it",
	  .recipe = RECIPE_PINNED,
	  .workers = 1,
	  .largest = PINNED_BLOCK,
	  .parameters = { [PINNED_ROUNDS] = { "rounds", "of all workers together", 100, 1, 10000 },
			  [PINNED_BLOCK] = { "block", "bytes of the one that comes first", 32 * MIB,
					     1, MOST },
			  [PINNED_BLOCKS] = { "blocks", "of a round", 33500, 1, 1 << 20 },
			  [PINNED_SIZE] = { "size", "bytes of each", 1000, 1, MIB },
			  [PINNED_KEEP] = { "keep", "one in so many stays", 50, 1, 1 << 20 } } },
	{ .name = "frames",
	  .about = "a game's frames on five arenas: temporaries, entities, jobs, levels",
	  .recipe = RECIPE_FRAMES,
	  .workers = 2,
	  .largest = FRAMES_LEVEL_MAX,
	  .parameters = { [FRAMES_FRAMES] = { "frames", "of the run", 3600, 1, MOST },
			  [FRAMES_TEMPORARIES_MIN] = { "temporaries-min", "of a frame, at least",
						       2000, 0, 1 << 20 },
			  [FRAMES_TEMPORARIES_MAX] = { "temporaries-max", "of a frame, at most",
						       10000, 1, 1 << 20 },
			  [FRAMES_MIN] = { "min-size", "bytes of a temporary or message, at least",
					   16, 1, MIB },
			  [FRAMES_MAX] = { "max-size", "at most", 512, 1, MIB },
			  [FRAMES_BIRTHS] = { "births", "of entities in a frame; as many die", 200,
					      0, 100000 },
			  [FRAMES_LIFE] = { "life", "of an entity: frames, on average", 300, 1,
					    10000 },
			  [FRAMES_ENTITY_MIN] = { "entity-min", "bytes of an entity, at least", 64,
						  1, MIB },
			  [FRAMES_ENTITY_MAX] = { "entity-max", "at most", 1024, 1, MIB },
			  [FRAMES_MESSAGES] = { "messages", "from other workers to the first", 500,
						0, 1 << 20 },
			  [FRAMES_LEVEL_FRAMES] = { "level-frames", "from one level to the next",
						    300, 1, MOST },
			  [FRAMES_LEVEL_BLOCKS] = { "level-blocks", "loaded and dropped", 5000, 0,
						    1 << 20 },
			  [FRAMES_LEVEL_MIN] = { "level-min", "bytes of such, at least", 4 * KIB, 1,
						 MIB },
			  [FRAMES_LEVEL_MAX] = { "level-max", "at most", 256 * KIB, 1, MOST },
			  [FRAMES_LEVEL_TRIM] = { "level-trim",
						  "whether trims follow where one is dropped", 1, 0,
						  1 } } },
	{ .name = "replay",
	  .about = "a recorded trace, on one worker or on as many as there are threads in it",
	  .recipe = RECIPE_REPLAY,
	  .workers = 1,
	  .largest = WORKLOAD_PARAMETERS,
	  .parameters = { [REPLAY_PASSES] = { "passes", "of the whole trace", 60, 1, MOST } } },
};

const unsigned workload_count = sizeof(workload_table) / sizeof(workload_table[0]);

const struct workload *workload_find(const char *name)
{
	unsigned i;

	for (i = 0; i < workload_count; i++)
		if (strcmp(workload_table[i].name, name) == 0)
			return &workload_table[i];
	return NULL;
}

const char *workload_heap_name(enum workload_heap heap)
{
	static const char *const names[] = { "hakmem", "libc", "null" };

	return names[heap];
}
