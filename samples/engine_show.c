/* SPDX-License-Identifier: MIT */
/* The command line and the table of the engine sample, see engine_show.h. */
#include "engine_show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "os.h"

#define MAX_FRAMES 10000000
#define MIB (1024.0 * 1024.0)

static const char usage[] =
	"usage: engine [options]\n"
	"Plays the frames of a game whose five subsystems have an arena each, and prints what\n"
	"each arena holds after the last frame.\n"
	"\n"
	"  --frames N    frames to play (2000)\n"
	"  --workers N   threads that do the work of a frame, 1 to 16 (4)\n"
	"  --seed N      of the random numbers: with the same seed, frames and workers every\n"
	"                run makes the same allocations (1)\n"
	"  --allocator A hakmem; or libc: the blocks come from malloc, to compare times, and the\n"
	"                arenas stay empty (hakmem)\n"
	"  --cold        nothing is made ready before the first frame, nor between frames\n"
	"  --faults      count page faults within frames: two system calls for each worker's\n"
	"                part of one, getrusage()\n"
	"  --json        the same as JSON; bytes and nanoseconds\n"
	"  --help        this text\n"
	"\n"
	"Exit status: 0 well, 1 an arena reported a fault, 2 wrong usage.\n";

static bool allocator(struct cli *cli, const char *argument, bool *libc)
{
	const char *name = NULL;

	if (!cli_value(cli, argument, "--allocator", &name) || !name)
		return false;
	*libc = strcmp(name, "libc") == 0;
	return *libc || strcmp(name, "hakmem") == 0;
}

static bool flag(const char *argument, const char *name, bool *value)
{
	bool is_it = strcmp(argument, name) == 0;

	*value = *value || is_it;
	return is_it;
}

bool engine_parse(struct engine_options *options, uint64_t max_workers, int argc, char **argv,
		  int *status)
{
	struct cli cli = { .argc = argc, .argv = argv, .at = 1 };
	const char *argument;
	bool is_option;

	while ((argument = cli_next(&cli, &is_option))) {
		if (is_option && strcmp(argument, "--help") == 0) {
			fputs(usage, stdout);
			*status = CLI_WELL;
			return false;
		}
		if (is_option && (flag(argument, "--json", &options->json) ||
				  flag(argument, "--cold", &options->cold) ||
				  flag(argument, "--faults", &options->faults)))
			continue;
		if (is_option && allocator(&cli, argument, &options->libc))
			continue;
		if (is_option &&
		    (cli_number_option(&cli, argument, "--frames", 1, MAX_FRAMES,
				       &options->frames) ||
		     cli_number_option(&cli, argument, "--workers", 1, max_workers,
				       &options->workers) ||
		     cli_number_option(&cli, argument, "--seed", 0, UINT64_MAX, &options->seed)))
			continue;
		fprintf(stderr, "engine: cannot use \"%s\" so\n%s", argument, usage);
		*status = CLI_USAGE;
		return false;
	}
	return true;
}

void engine_progress(const struct engine_options *options, uint64_t frame)
{
	if ((frame % 100 && frame < options->frames) || !os_stderr_is_terminal())
		return;
	fprintf(stderr, "\rframe %" PRIu64 " of %" PRIu64 "%s", frame, options->frames,
		frame == options->frames ? "\n" : "");
}

static const struct {
	const char *key;
	unsigned per_10000;
} percentiles[] = {
	{ "p50_ns", 5000 },    { "p99_ns", 9900 },  { "p99_9_ns", 9990 },
	{ "p99_99_ns", 9999 }, { "max_ns", 10000 },
};

#define PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

static double nanoseconds(const struct histogram *histogram, size_t percentile, double ticks_per_ns)
{
	return (double)histogram_percentile(histogram, percentiles[percentile].per_10000) /
	       ticks_per_ns;
}

static void json_times(const struct histogram *histogram, double ticks_per_ns)
{
	size_t i;

	printf("{\"count\": %" PRIu64, histogram->count);
	for (i = 0; i < PERCENTILES; i++)
		printf(", \"%s\": %.1f", percentiles[i].key,
		       nanoseconds(histogram, i, ticks_per_ns));
	printf("}");
}

/* As `workload --latency` has it. */
static void json_latency(const struct engine_times *times, double ticks_per_ns)
{
	printf(" \"latency\": {\"timer_ns\": null, \"alloc\": {\"all\": ");
	json_times(&times->allocs, ticks_per_ns);
	printf("},\n  \"free\": {\"all\": ");
	json_times(&times->frees, ticks_per_ns);
	printf("},\n  \"frame\": ");
	json_times(&times->frames, ticks_per_ns);
	printf("},\n");
}

static void show_times(const char *what, const struct histogram *histogram, double ticks_per_ns)
{
	size_t i;

	printf("%-28s", what);
	for (i = 0; i < PERCENTILES; i++)
		printf(" %10.2f", nanoseconds(histogram, i, ticks_per_ns) / 1000);
	printf("\n");
}

static void show_json(const struct engine_options *options, const struct engine_row *rows,
		      size_t count, const struct engine_totals *totals)
{
	double ticks_per_ns = os_ticks_per_ns();
	const struct engine_row *row;

	printf("{\"allocator\": \"%s\",\n \"page_faults\": ", options->libc ? "libc" : "hakmem");
	if (totals->page_faults < 0)
		printf("null,\n");
	else
		printf("%" PRId64 ",\n", totals->page_faults);
	json_latency(&totals->times, ticks_per_ns);
	printf(" \"frames\": %" PRIu64 ", \"workers\": %" PRIu64 ", \"seed\": %" PRIu64 ",\n"
	       " \"evicted\": %" PRIu64 ", \"faults\": %" PRIu64 ", \"pressures\": %" PRIu64 ",\n"
	       " \"used_bytes\": %zu, \"peak_bytes\": %zu, \"limit_bytes\": %zu,\n"
	       " \"arenas\": [",
	       options->frames, options->workers, options->seed, totals->evicted, totals->faults,
	       totals->pressures, totals->used_bytes, totals->peak_bytes, totals->limit_bytes);
	for (row = rows; row < rows + count; row++)
		printf("%s\n  {\"name\": \"%s\", \"live_bytes\": %zu, \"committed_bytes\": %zu, "
		       "\"peak_bytes\": %zu, \"budget_bytes\": %zu, \"allocations\": %" PRIu64 ", "
		       "\"allocations_per_frame\": %.2f, \"platform_calls\": %" PRIu64 ", "
		       "\"worst_frame_ns\": %" PRIu64 "}",
		       row > rows ? "," : "", row->name, row->stats.live_bytes,
		       row->stats.committed_bytes, row->stats.peak_committed_bytes, row->budget,
		       row->allocations, (double)row->allocations / (double)options->frames,
		       row->stats.counters.platform_call, row->worst_ns);
	printf("]}\n");
}

static void show_text(const struct engine_options *options, const struct engine_row *rows,
		      size_t count, const struct engine_totals *totals)
{
	double ticks_per_ns = os_ticks_per_ns();
	const struct engine_row *row;

	printf("%" PRIu64 " frames, %" PRIu64 " workers, seed %" PRIu64 ": %" PRIu64
	       " assets evicted, %" PRIu64 " faults\n\n",
	       options->frames, options->workers, options->seed, totals->evicted, totals->faults);
	printf("arena    live MiB  committed  peak  budget  allocations  platform  worst frame\n"
	       "                                              per frame     calls       in us\n");
	for (row = rows; row < rows + count; row++)
		printf("%-8s %8.2f %10.2f %5.1f %7.0f %12.1f %9" PRIu64 " %12.0f\n", row->name,
		       (double)row->stats.live_bytes / MIB,
		       (double)row->stats.committed_bytes / MIB,
		       (double)row->stats.peak_committed_bytes / MIB, (double)row->budget / MIB,
		       (double)row->allocations / (double)options->frames,
		       row->stats.counters.platform_call, (double)row->worst_ns / 1000);
	printf("all                 %10.2f %5.1f %7.0f    %" PRIu64 " times under pressure\n",
	       (double)totals->used_bytes / MIB, (double)totals->peak_bytes / MIB,
	       (double)totals->limit_bytes / MIB, totals->pressures);
	printf("\n%-28s %10s %10s %10s %10s %10s\n",
	       options->libc ? "malloc's time in us" : "hakmem's time in us", "p50", "p99", "p99.9",
	       "p99.99", "worst");
	show_times("a call that allocates", &totals->times.allocs, ticks_per_ns);
	show_times("a call that frees", &totals->times.frees, ticks_per_ns);
	show_times("a worker's part of a frame", &totals->times.frames, ticks_per_ns);
	if (totals->page_faults >= 0)
		printf("page faults within frames: %" PRId64 "\n", totals->page_faults);
	printf("\n"
	       "live, committed: after the last frame. worst frame: the longest that one worker's\n"
	       "part of a frame took in that subsystem, its writing to its blocks included.\n");
}

void engine_show(const struct engine_options *options, const struct engine_row *rows, size_t count,
		 const struct engine_totals *totals)
{
	if (options->json)
		show_json(options, rows, count, totals);
	else
		show_text(options, rows, count, totals);
}
