/* SPDX-License-Identifier: MIT */
/* What replay prints of a run: for people, or as JSON. */
#include "json.h"
#include "replay.h"

#include <inttypes.h>

#define MIB (1024.0 * 1024.0)

const char *replay_heap_name(enum replay_heap heap)
{
	static const char *const names[] = { "hakmem", "libc", "null" };

	return names[heap];
}

static double rate(const struct replay *replay, double seconds)
{
	return seconds > 0 ? replay->event_count / seconds : 0;
}

static void json_rate(const char *key, double value)
{
	if (value > 0)
		printf("  \"%s\": %.0f,\n", key, value);
	else
		printf("  \"%s\": null,\n", key);
}

static void json_number(const char *key, bool known, uint64_t value)
{
	if (known)
		printf("  \"%s\": %" PRIu64 ",\n", key, value);
	else
		printf("  \"%s\": null,\n", key);
}

static double mark_seconds(const struct replay_result *result, const struct replay_mark *mark)
{
	return (double)(mark->reached_ns - result->pass_start_ns) * 1e-9;
}

/* Events since the mark before; the marks themselves are not counted. */
static uint64_t mark_events(const struct replay *replay, uint32_t index)
{
	uint64_t begin = index ? replay->marks[index - 1].event + 1 : 0;

	return replay->marks[index].event - begin;
}

static void json_marks(const struct replay *replay, const struct replay_result *result)
{
	const struct replay_mark *mark;
	uint32_t i;

	printf("  \"marks\": [");
	for (i = 0; i < replay->mark_count; i++) {
		mark = &replay->marks[i];
		printf("%s\n    {\"number\": %" PRIu64 ", \"events\": %" PRIu64
		       ", \"live_bytes\": %" PRIu64 ", \"seconds\": %.9f}",
		       i ? "," : "", mark->number, mark_events(replay, i), mark->live_bytes,
		       mark_seconds(result, mark));
	}
	printf("],\n");
}

static void report_json(const struct replay *replay, const struct replay_result *result,
			const char *path)
{
	const struct replay_options *options = &replay->options;
	bool has_arena = result->has_arena;

	printf("{\n  \"file\": ");
	json_string(path);
	printf(",\n  \"allocator\": \"%s\",\n", replay_heap_name(options->heap));
	json_number("threads", true, replay->worker_count);
	json_number("recorded_threads", true, replay->thread_count);
	json_number("slots", true, replay->slot_count);
	json_number("repeat", true, options->repeat);
	printf("  \"verify\": %s,\n", options->verify ? "true" : "false");
	json_number("events", true, replay->event_count);
	printf("  \"seconds\": %.9f,\n", result->total_seconds);
	json_rate("events_per_second", rate(replay, result->seconds));
	json_rate("first_pass_events_per_second", rate(replay, result->first_seconds));
	json_number("peak_bytes", result->peak_bytes >= 0, (uint64_t)result->peak_bytes);
	json_number("live_bytes", true, replay->peak_bytes);
	json_number("live_bytes_events", true, replay->peak_events);
	json_number("live_block_bytes", true, replay->peak_block_bytes);
	json_number("process_committed_bytes", result->process_committed_bytes >= 0,
		    (uint64_t)result->process_committed_bytes);
	json_number("committed_bytes", has_arena, result->committed_bytes);
	json_number("metadata_bytes", has_arena, result->metadata_bytes);
	json_number("peak_committed_bytes", has_arena, result->peak_committed_bytes);
	json_number("page_faults", result->page_faults >= 0, (uint64_t)result->page_faults);
	json_number("platform_calls", has_arena, result->counters.platform_call);
	json_number("first_pass_platform_calls", has_arena, result->first_platform_calls);
	json_number("failed_allocations", true, result->failed);
	json_number("failed_checks", options->verify, result->broken);
	json_number("reports", options->heap == REPLAY_HAKMEM, result->faults);
	if (options->marks)
		json_marks(replay, result);
	printf("  \"counters\": ");
	json_counters(has_arena ? &result->counters : NULL, "  ");
	printf("\n");
	printf("}\n");
}

static void print_rate(const char *what, const struct replay *replay, double seconds)
{
	if (seconds > 0)
		printf("  %-16s %9.1f million events/s\n", what, rate(replay, seconds) / 1e6);
	else
		printf("  %-16s %9s\n", what, "-");
}

static void print_marks(const struct replay *replay, const struct replay_result *result)
{
	const struct replay_mark *mark;
	uint32_t i;

	printf("  %12s %10s %14s %14s\n", "mark", "events", "live bytes", "reached, ms");
	for (i = 0; i < replay->mark_count; i++) {
		mark = &replay->marks[i];
		printf("  %12" PRIu64 " %10" PRIu64 " %14" PRIu64 " %14.3f\n", mark->number,
		       mark_events(replay, i), mark->live_bytes, mark_seconds(result, mark) * 1e3);
	}
}

static void print_arena(const struct replay_result *result)
{
	const struct hk_counters *count = &result->counters;

	printf("  %-16s %9.1f MiB\n", "committed", (double)result->committed_bytes / MIB);
	printf("  %-16s %9" PRIu64 ", %" PRIu64 " of them in the first pass\n", "platform calls",
	       count->platform_call, result->first_platform_calls);
	printf("  %-16s %9" PRIu64 " from spare magazines, %" PRIu64 " from the depot, %" PRIu64
	       " from slabs\n",
	       "refills", count->spare_swap, count->depot_swap, count->slab_batch);
	printf("  %-16s %9" PRIu64 ", %" PRIu64 " of them waited for\n", "locks taken",
	       count->lock_acquired, count->lock_waited);
}

static void report_text(const struct replay *replay, const struct replay_result *result,
			const char *path)
{
	const struct replay_options *options = &replay->options;

	printf("%s: %" PRIu32 " events, %" PRIu64 " slots, %u threads, at most %.1f MiB live\n",
	       path, replay->event_count, replay->slot_count, replay->thread_count,
	       (double)replay->peak_bytes / MIB);
	printf("%s on %u thread%s%s\n", replay_heap_name(options->heap), replay->worker_count,
	       replay->worker_count == 1 ? "" : "s", options->verify ? ", verified" : "");
	print_rate("first pass", replay, result->first_seconds);
	if (options->repeat > 1)
		print_rate("further passes", replay, result->seconds);
	if (result->peak_bytes >= 0)
		printf("  %-16s %9.1f MiB\n", "peak memory", (double)result->peak_bytes / MIB);
	if (result->page_faults >= 0)
		printf("  %-16s %9" PRId64 " in the first pass\n", "page faults",
		       result->page_faults);
	if (result->has_arena)
		print_arena(result);
	if (options->marks)
		print_marks(replay, result);
}

void replay_report(const struct replay *replay, const struct replay_result *result,
		   const char *path, bool as_json)
{
	if (as_json)
		report_json(replay, result, path);
	else
		report_text(replay, result, path);
}
