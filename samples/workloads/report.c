/* SPDX-License-Identifier: MIT */
/* What workload prints of a run: for people, or as JSON; and the list of workloads. */
#include "workload.h"

#include <samples/json.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MIB (1024.0 * 1024.0)

/* Stages as the counters call them. */
static const char *const stage_keys[] = {
	[HK_STAGE_HIT] = "hit",
	[HK_STAGE_SPARE] = "spare_swap",
	[HK_STAGE_DEPOT] = "depot_swap",
	[HK_STAGE_SLAB] = "slab_batch",
	[HK_STAGE_NEW_SLAB] = "new_slab",
	[HK_STAGE_LARGE] = "large",
	[HK_STAGE_PLATFORM] = "platform_call",
	[HK_STAGE_NEW_SUPERSLAB] = "new_superslab",
};

#define STAGES (sizeof(stage_keys) / sizeof(stage_keys[0]))

static const struct {
	const char *key;
	unsigned per_10000;
} percentiles[] = {
	{ "p50_ns", 5000 },    { "p99_ns", 9900 },  { "p99_9_ns", 9990 },
	{ "p99_99_ns", 9999 }, { "max_ns", 10000 },
};

#define PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

static void json_known(const char *key, bool known, uint64_t value)
{
	if (known)
		printf("  \"%s\": %" PRIu64 ",\n", key, value);
	else
		printf("  \"%s\": null,\n", key);
}

static void json_signed(const char *key, int64_t value)
{
	json_known(key, value >= 0, (uint64_t)value);
}

static void json_rate(const char *key, uint64_t ops, double seconds)
{
	if (seconds > 0)
		printf("  \"%s\": %.1f,\n", key, (double)ops / seconds);
	else
		printf("  \"%s\": null,\n", key);
}

static double nanoseconds(const struct workload_result *result, const struct histogram *histogram,
			  size_t percentile)
{
	return (double)histogram_percentile(histogram, percentiles[percentile].per_10000) /
	       result->ticks_per_ns;
}

static void json_histogram(const struct workload_result *result, const struct histogram *histogram)
{
	size_t i;

	printf("{\"count\": %" PRIu64, histogram->count);
	for (i = 0; i < PERCENTILES; i++)
		printf(", \"%s\": %.1f", percentiles[i].key, nanoseconds(result, histogram, i));
	printf("}");
}

/* All calls of a kind, then by stage those that occurred, where the allocator has stages. */
static void json_stages(const char *key, const struct workload_options *options,
			const struct workload_result *result, const struct histogram *stages)
{
	static struct histogram all;
	size_t i;

	memset(&all, 0, sizeof(all));
	for (i = 0; i < STAGES; i++)
		histogram_merge(&all, &stages[i]);
	printf("    \"%s\": {\n      \"all\": ", key);
	json_histogram(result, &all);
	for (i = 0; options->heap == WORKLOAD_HAKMEM && i < STAGES; i++) {
		if (!stages[i].count)
			continue;
		printf(",\n      \"%s\": ", stage_keys[i]);
		json_histogram(result, &stages[i]);
	}
	printf("\n    },\n");
}

static void json_latency(const struct workload_options *options,
			 const struct workload_result *result)
{
	const struct timings *timings = result->timings;
	size_t i;

	for (i = 0; i < PERCENTILES; i++)
		printf("  \"%s\": %.1f,\n", percentiles[i].key,
		       nanoseconds(result, &timings->all, i));
	printf("  \"latency\": {\n    \"timer_ns\": %.1f,\n", result->timer_ns);
	json_stages("alloc", options, result, timings->alloc);
	json_stages("free", options, result, timings->free);
	printf("    \"frame\": ");
	if (timings->frame.count)
		json_histogram(result, &timings->frame);
	else
		printf("null");
	printf("\n  },\n");
}

static void json_checkpoints(const struct workload_result *result)
{
	unsigned i;

	printf("  \"checkpoints\": [");
	for (i = 0; i < result->checkpoint_count; i++) {
		const struct workload_checkpoint *at = &result->checkpoints[i];

		printf("%s\n    {\"ops\": %" PRIu64 ", \"seconds\": %.6f, ", i ? "," : "", at->ops,
		       at->seconds);
		if (at->resident_bytes >= 0)
			printf("\"resident_bytes\": %" PRId64 ", ", at->resident_bytes);
		else
			printf("\"resident_bytes\": null, ");
		printf("\"live_bytes\": %" PRId64 ", ", at->live_bytes);
		if (result->has_arena)
			printf("\"committed_bytes\": %" PRIu64 "}", at->committed_bytes);
		else
			printf("\"committed_bytes\": null}");
	}
	printf("\n  ],\n");
}

static void json_parameters(const struct workload *workload, const struct workload_options *options)
{
	unsigned i;

	printf("  \"parameters\": {");
	for (i = 0; i < WORKLOAD_PARAMETERS && workload->parameters[i].name; i++)
		printf("%s\"%s\": %" PRIu64, i ? ", " : "", workload->parameters[i].name,
		       options->parameters[i]);
	printf("},\n");
}

static void report_json(const struct workload *workload, const struct workload_options *options,
			const struct workload_result *result, bool memory)
{
	printf("{\n  \"workload\": \"%s\",\n  \"allocator\": \"%s\",\n", workload->name,
	       workload_heap_name(options->heap));
	json_known("workers", true, options->workers);
	json_known("seed", true, options->seed);
	json_known("ops", true, result->ops);
	printf("  \"seconds\": %.9f,\n", result->seconds);
	json_rate("ops_per_second", result->ops, result->seconds);
	json_rate("null_ops_per_second", result->ops, result->null_seconds);
	json_signed("peak_bytes", result->peak_bytes);
	json_signed("live_bytes", result->live_bytes);
	json_signed("resident_bytes", result->resident_bytes);
	json_known("committed_bytes", result->has_arena, result->committed_bytes);
	json_known("peak_committed_bytes", result->has_arena, result->peak_committed_bytes);
	if (result->fragmentation >= 0)
		printf("  \"fragmentation\": %.4f,\n", result->fragmentation);
	else
		printf("  \"fragmentation\": null,\n");
	json_signed("page_faults", result->page_faults);
	json_known("platform_calls", result->has_arena, result->counters.platform_call);
	if (result->timings)
		json_latency(options, result);
	if (memory)
		json_checkpoints(result);
	json_parameters(workload, options);
	printf("  \"verify\": %s,\n", options->verify ? "true" : "false");
	json_known("failed_allocations", true, result->failed);
	json_known("failed_checks", options->verify, result->broken);
	json_known("reports", options->heap == WORKLOAD_HAKMEM, result->faults);
	printf("  \"counters\": ");
	json_counters(result->has_arena ? &result->counters : NULL, "  ");
	printf("\n}\n");
}

static void print_bytes(const char *what, int64_t bytes)
{
	if (bytes >= 0)
		printf("  %-16s %10.1f MiB\n", what, (double)bytes / MIB);
}

static void print_rate(const char *what, uint64_t ops, double seconds)
{
	double rate = seconds > 0 ? (double)ops / seconds : 0;

	if (rate >= 1e5)
		printf("  %-16s %10.2f million operations/s\n", what, rate / 1e6);
	else if (rate > 0)
		printf("  %-16s %10.0f operations/s\n", what, rate);
}

static void print_stages(const struct workload_result *result, const char *kind,
			 const struct histogram *stages)
{
	size_t i, j;

	for (i = 0; i < STAGES; i++) {
		if (!stages[i].count)
			continue;
		printf("  %-5s %-14s %12" PRIu64, kind, hk_stage_name((enum hk_stage)i),
		       stages[i].count);
		for (j = 0; j < PERCENTILES; j++)
			printf(" %10.0f", nanoseconds(result, &stages[i], j));
		printf("\n");
	}
}

static void print_latency(const struct workload_options *options,
			  const struct workload_result *result)
{
	const struct timings *timings = result->timings;
	size_t j;

	printf("  time of a call in ns; an empty measurement shows %.0f\n  %-33s", result->timer_ns,
	       "");
	printf(" %10s %10s %10s %10s %10s\n", "p50", "p99", "p99.9", "p99.99", "worst");
	if (options->heap == WORKLOAD_HAKMEM) {
		print_stages(result, "alloc", timings->alloc);
		print_stages(result, "free", timings->free);
	}
	printf("  %-20s %12" PRIu64, "all calls", timings->all.count);
	for (j = 0; j < PERCENTILES; j++)
		printf(" %10.0f", nanoseconds(result, &timings->all, j));
	if (timings->frame.count) {
		printf("\n  %-20s %12" PRIu64, "all of a frame", timings->frame.count);
		for (j = 0; j < PERCENTILES; j++)
			printf(" %10.0f", nanoseconds(result, &timings->frame, j));
	}
	printf("\n");
}

static void print_checkpoints(const struct workload_result *result)
{
	unsigned i;

	printf("  %14s %10s %14s %14s %14s\n", "operations", "seconds", "resident MiB", "live MiB",
	       "committed MiB");
	for (i = 0; i < result->checkpoint_count; i++) {
		const struct workload_checkpoint *at = &result->checkpoints[i];

		printf("  %14" PRIu64 " %10.3f %14.1f %14.1f ", at->ops, at->seconds,
		       (double)at->resident_bytes / MIB, (double)at->live_bytes / MIB);
		if (result->has_arena)
			printf("%14.1f\n", (double)at->committed_bytes / MIB);
		else
			printf("%14s\n", "-");
	}
}

static void report_text(const struct workload *workload, const struct workload_options *options,
			const struct workload_result *result, bool memory)
{
	const struct hk_counters *count = &result->counters;

	printf("%s on %s, %u worker%s: %" PRIu64 " operations in %.3f s%s\n", workload->name,
	       workload_heap_name(options->heap), options->workers,
	       options->workers == 1 ? "" : "s", result->ops, result->seconds,
	       options->verify ? ", verified" : "");
	print_rate("speed", result->ops, result->seconds);
	print_rate("on no allocator", result->ops, result->null_seconds);
	print_bytes("peak memory", result->peak_bytes);
	print_bytes("live, at most", result->live_bytes);
	print_bytes("resident, at end", result->resident_bytes);
	if (result->fragmentation >= 0)
		printf("  %-16s %10.2f times what was live, at worst\n", "resident",
		       result->fragmentation);
	if (result->page_faults >= 0)
		printf("  %-16s %10" PRId64 "\n", "page faults", result->page_faults);
	if (result->has_arena) {
		print_bytes("committed", (int64_t)result->committed_bytes);
		printf("  %-16s %10" PRIu64 "\n", "platform calls", count->platform_call);
		printf("  %-16s %10" PRIu64 " from spare magazines, %" PRIu64
		       " from the depot, %" PRIu64 " from slabs\n",
		       "refills", count->spare_swap, count->depot_swap, count->slab_batch);
		printf("  %-16s %10" PRIu64 ", %" PRIu64 " of them waited for\n", "locks taken",
		       count->lock_acquired, count->lock_waited);
	}
	if (result->timings)
		print_latency(options, result);
	if (memory)
		print_checkpoints(result);
}

void workload_report(const struct workload *workload, const struct workload_options *options,
		     const struct workload_result *result, bool memory, bool as_json)
{
	if (as_json)
		report_json(workload, options, result, memory);
	else
		report_text(workload, options, result, memory);
}

static void list_parameters(const struct workload *workload)
{
	const struct workload_parameter *parameter = workload->parameters;
	unsigned i;

	for (i = 0; i < WORKLOAD_PARAMETERS && parameter[i].name; i++)
		printf("%s\n      {\"name\": \"%s\", \"default\": %" PRIu64 ", \"about\": \"%s\"}",
		       i ? "," : "", parameter[i].name, parameter[i].value, parameter[i].about);
}

void workload_list(bool as_json)
{
	unsigned i;

	for (i = 0; i < workload_count && !as_json; i++)
		printf("%-12s %s\n", workload_table[i].name, workload_table[i].about);
	if (!as_json)
		return;
	printf("{\"workloads\": [");
	for (i = 0; i < workload_count; i++) {
		const struct workload *workload = &workload_table[i];

		printf("%s\n  {\"name\": \"%s\", \"about\": \"%s\", \"workers\": %u, \"ops\": ",
		       i ? "," : "", workload->name, workload->about, workload->workers);
		if (workload->ops)
			printf("%" PRIu64, workload->ops);
		else
			printf("null");
		printf(", \"parameters\": [");
		list_parameters(workload);
		printf("]}");
	}
	printf("\n]}\n");
}
