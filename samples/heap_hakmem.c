/* SPDX-License-Identifier: MIT */
/* replay --allocator hakmem: one arena, one cache for each thread of the trace. */
#include "heap_hakmem.h"
#include "replay.h"

#include <inttypes.h>

#define REPORTS_PRINTED 10

#include "replay_loop.h"

static void print_report(void *context, const struct hk_report *report)
{
	struct replay *replay = context;

	if (atomic_fetch_add(&replay->faults, 1) >= REPORTS_PRINTED)
		return;
	fprintf(stderr, "replay: hakmem reports %s: %s (address %p, %zu bytes, %zu blocks)\n",
		hk_fault_name(report->fault), report->what, report->address, report->size,
		report->count);
}

int heap_hakmem_open(struct replay *replay, const char **why)
{
	struct hk_arena_config config = {
		.name = "replay",
		.limit = (size_t)replay->options.limit,
		.address_space = (size_t)replay->options.address_space,
		.context = replay,
		.on_report = print_report,
	};
	struct hk_cache *cache;
	unsigned i;
	int error;

	if (replay->thread_count > 1024)
		config.max_caches = replay->thread_count;
	error = hk_arena_create(&replay->arena, &config);
	for (i = 0; !error && i < replay->thread_count; i++) {
		error = hk_cache_create(replay->arena, &cache);
		replay->fronts[i] = cache;
	}
	if (!error)
		return 0;
	*why = hk_error_name(error);
	heap_hakmem_close(replay);
	return -1;
}

void heap_hakmem_run(struct replay_worker *worker, const struct replay_event *event,
		     const struct replay_event *end)
{
	replay_events(worker, event, end);
}

void heap_hakmem_measure(struct replay *replay, struct replay_result *result, bool first)
{
	struct hk_stats stats;

	hk_arena_stats(replay->arena, &stats);
	if (first)
		result->first_platform_calls = stats.counters.platform_call;
	result->has_arena = true;
	result->committed_bytes = stats.committed_bytes;
	result->metadata_bytes = stats.metadata_bytes;
	result->peak_committed_bytes = stats.peak_committed_bytes;
	result->counters = stats.counters;
}

void heap_hakmem_check(struct replay *replay, struct replay_result *result, uint64_t live)
{
	struct hk_stats stats;
	size_t broken;

	hk_arena_stats(replay->arena, &stats);
	if (stats.live_blocks != live) {
		fprintf(stderr, "replay: %" PRIu64 " blocks are live, the statistics say %zu\n",
			live, stats.live_blocks);
		result->broken++;
	}
	broken = hk_arena_check(replay->arena);
	if (broken)
		fprintf(stderr, "replay: %zu invariants of the arena are broken\n", broken);
	result->broken += broken;
}

void heap_hakmem_close(struct replay *replay)
{
	hk_arena_destroy(replay->arena);
	replay->arena = NULL;
}
