/* SPDX-License-Identifier: MIT */
/* Workloads on hakmem: one or more arenas, and a cache for each worker and arena. */
#include <samples/heap_hakmem.h>

#include "workload.h"

#include <inttypes.h>

#define REPORTS_PRINTED 10

static void *front_open(struct worker *worker, unsigned arena)
{
	struct hk_cache *cache;

	return hk_cache_create(worker->run->arenas[arena], &cache) ? NULL : cache;
}

static void front_close(struct worker *worker, void *front)
{
	(void)worker;
	hk_cache_destroy(front);
}

static bool heap_reset(struct run *run, unsigned arena)
{
	hk_arena_reset(run->arenas[arena]);
	return true;
}

static void heap_trim(struct run *run, unsigned arena)
{
	hk_arena_trim(run->arenas[arena], 0, 0);
}

/* So much in a frame: an engine has time between frames, but not much at once. */
#define TRIMMED_AT_ONCE ((size_t)32 << 20)

/* By bytes, not by time: fewer calls of the platform, each of which interrupts the others. */
static bool heap_trim_some(struct run *run, unsigned arena)
{
	size_t used = hk_arena_used(run->arenas[arena]);
	size_t keep = used > TRIMMED_AT_ONCE ? used - TRIMMED_AT_ONCE : 0;

	return hk_arena_trim(run->arenas[arena], keep, 0) != 0;
}

static inline int heap_stage(void *front)
{
	return (int)hk_cache_stage(front);
}

#include "recipes.h"

void workload_on_hakmem(struct worker *worker)
{
	whole_run_in_its_mode(worker);
}

static void print_report(void *context, const struct hk_report *report)
{
	struct run *run = context;

	if (report->fault == HK_FAULT_PLATFORM ||
	    atomic_fetch_add(&run->faults, 1) >= REPORTS_PRINTED)
		return;
	fprintf(stderr, "workload: hakmem reports %s: %s (address %p, %zu bytes, %zu blocks)\n",
		hk_fault_name(report->fault), report->what, report->address, report->size,
		report->count);
}

int workload_open_hakmem(struct run *run, const char **why)
{
	struct hk_arena_config config = {
		.name = run->workload->name,
		.limit = (size_t)run->options->limit,
		.address_space = (size_t)run->options->address_space,
		.large_pages = run->options->large_pages,
		.context = run,
		.on_report = print_report,
		.max_caches = 2 * run->worker_count + run->replay.thread_count + 64,
	};
	unsigned i;
	int error;

	for (i = 0; i < run->arena_count; i++) {
		error = hk_arena_create(&run->arenas[i], &config);
		if (error) {
			*why = hk_error_name(error);
			workload_close_hakmem(run);
			return -1;
		}
	}
	return 0;
}

static void add_counters(struct hk_counters *to, const struct hk_counters *from)
{
	uint64_t *sums = (uint64_t *)(void *)to;
	const uint64_t *more = (const uint64_t *)(const void *)from;
	size_t i;

	_Static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "all of them are uint64_t");
	for (i = 0; i < sizeof(*to) / sizeof(uint64_t); i++)
		sums[i] += more[i];
}

void workload_measure_hakmem(struct run *run, struct workload_result *result)
{
	struct hk_stats stats;
	unsigned i;

	result->has_arena = true;
	for (i = 0; i < run->arena_count; i++) {
		hk_arena_stats(run->arenas[i], &stats);
		result->committed_bytes += stats.committed_bytes;
		result->peak_committed_bytes += stats.peak_committed_bytes;
		add_counters(&result->counters, &stats.counters);
	}
}

uint64_t workload_committed_hakmem(struct run *run)
{
	uint64_t bytes = 0;
	unsigned i;

	for (i = 0; i < run->arena_count; i++)
		bytes += hk_arena_used(run->arenas[i]);
	return bytes;
}

/* After all was freed. */
void workload_check_hakmem(struct run *run)
{
	struct worker *worker = &run->workers[0];
	struct hk_stats stats;
	size_t broken;
	unsigned i;

	for (i = 0; i < run->arena_count; i++) {
		hk_arena_stats(run->arenas[i], &stats);
		broken = hk_arena_check(run->arenas[i]);
		if (broken)
			fprintf(stderr, "workload: %zu invariants of an arena are broken\n",
				broken);
		if (stats.live_blocks)
			fprintf(stderr, "workload: %zu blocks are live after all were freed\n",
				stats.live_blocks);
		worker->broken += broken + (stats.live_blocks != 0);
	}
}

void workload_close_hakmem(struct run *run)
{
	unsigned i;

	for (i = 0; i < run->arena_count; i++) {
		hk_arena_destroy(run->arenas[i]);
		run->arenas[i] = NULL;
	}
}
