/* SPDX-License-Identifier: MIT */
/*
 * upkeep: what keeping an arena in order costs, against the bars that this project sets itself.
 *
 * Slices: see upkeep_slices.c. Arenas: see upkeep_arenas.c. Levels: a recorded program is played
 * 100 times, each time the arena is reset or made anew; in the first two the caches learn how their
 * classes are used, which a reset does not make them forget. Hand-over: one thread allocates a
 * million blocks a second, another frees them late; against the same on one thread.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <hakmem/hakmem.h>

#include "cli.h"
#include "os.h"
#include "replay.h"
#include "upkeep.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SMALL_HEAP (8 * MIB)
#define LEVELS 100
#define SETTLED 2 /* caches learn in the first levels how their classes are used */
#define RATE 1000000u
#define ON_ITS_WAY 100000u /* blocks between producer and consumer, at most */
#define ROWS_MAX 24

struct row {
	char name[96];
	double value;
	double bar;
	const char *unit;
};

static struct row rows[ROWS_MAX];
static unsigned row_count;
static uint64_t heap_bytes = 1024 * MIB, slices = 10000, seconds = 5;
static bool as_json;
static const char *trace_path;

void note(const char *name, double value, double bar, const char *unit)
{
	struct row *row = &rows[row_count];

	if (row_count == ROWS_MAX)
		return;
	row_count++;
	snprintf(row->name, sizeof(row->name), "%s", name);
	row->value = value;
	row->bar = bar;
	row->unit = unit;
	if (os_stderr_is_terminal())
		fprintf(stderr, "\r%-78s", row->name);
}

int open_arena(struct hk_arena **arena, struct hk_cache **cache, struct hk_arena_config config)
{
	int error = hk_arena_create(arena, &config);

	if (!error)
		error = hk_cache_create(*arena, cache);
	if (error)
		fprintf(stderr, "upkeep: %s\n", hk_error_name(error));
	return error;
}

static void play_event(struct replay *replay, struct hk_cache *cache,
		       const struct replay_event *event)
{
	size_t size = event->op & REPLAY_WIDE ? (size_t)replay->wide[event->size] : event->size;
	void **slot = &replay->slots[event->slot], *moved;

	switch (event->op & REPLAY_OP) {
	case TRACE_ALLOC:
		*slot = hk_alloc(cache, size);
		break;
	case TRACE_FREE:
		hk_free(cache, *slot);
		break;
	case TRACE_REALLOC:
		moved = hk_realloc(cache, *slot, size);
		*slot = moved ? moved : *slot;
		break;
	case TRACE_ZALLOC:
		*slot = hk_zalloc(cache, size);
		break;
	case TRACE_ALIGNED:
		*slot = hk_alloc_aligned(cache, size, (size_t)1 << event->log2);
		break;
	default: /* a mark */
		break;
	}
}

/* What a level has committed at its end, before it is unloaded, and after. */
struct level {
	size_t full;
	size_t unloaded;
};

static int play_levels(struct replay *replay, bool anew, struct level levels[LEVELS])
{
	struct hk_arena *arena = NULL;
	struct hk_cache *cache = NULL;
	unsigned level;
	uint32_t i;

	for (level = 0; level < LEVELS; level++) {
		if (!arena && open_arena(&arena, &cache, (struct hk_arena_config){ 0 }))
			return -1;
		for (i = 0; i < replay->event_count; i++)
			play_event(replay, cache, &replay->events[i]);
		levels[level].full = hk_arena_used(arena);
		if (anew) {
			hk_arena_destroy(arena);
			arena = NULL;
			continue;
		}
		hk_arena_reset(arena);
		hk_arena_trim(arena, 0, 0);
		levels[level].unloaded = hk_arena_used(arena);
	}
	hk_arena_destroy(arena);
	return 0;
}

static void tell_levels(const char *how, const char *trace, const struct level *levels)
{
	const struct level *first = &levels[SETTLED], *last = &levels[LEVELS - 1];
	char name[96];

	snprintf(name, sizeof(name), "%s, %s: growth of a full level from the 3rd to the 100th",
		 trace, how);
	note(name, 100 * ((double)last->full / (double)first->full - 1), 10, "%");
	if (!first->unloaded)
		return;
	snprintf(name, sizeof(name), "%s, %s and trimmed: drift of what stays committed", trace,
		 how);
	note(name, 100 * ((double)last->unloaded / (double)first->unloaded - 1), 2, "%");
}

static int levels(const char *path)
{
	static struct level found[LEVELS];
	struct replay_options options = { .heap = REPLAY_HAKMEM };
	const char *why, *name = strrchr(path, '/');
	static struct replay replay;
	struct trace_error error;
	unsigned char *bytes;
	size_t size, mapped;
	int failed;

	if (cli_read_file(path, &bytes, &size, &mapped, &why)) {
		fprintf(stderr, "upkeep: %s: %s\n", path, why);
		return -1;
	}
	failed = replay_load(&replay, &options, bytes, size, &error);
	os_unmap(bytes, mapped);
	if (failed) {
		fprintf(stderr, "upkeep: %s: cannot be played\n", path);
		return -1;
	}
	name = name ? name + 1 : path;
	failed = play_levels(&replay, false, found);
	if (!failed)
		tell_levels("reset", name, found);
	memset(found, 0, sizeof(found));
	if (!failed)
		failed = play_levels(&replay, true, found);
	if (!failed)
		tell_levels("made anew", name, found);
	replay_unload(&replay);
	return failed;
}

struct belt {
	struct hk_arena *arena;
	struct hk_cache *caches[2];
	_Atomic(void *) *slots; /* ON_ITS_WAY of them */
	_Atomic uint64_t made, freed;
	uint64_t all;
};

static void *make(struct hk_cache *cache, uint64_t number)
{
	return hk_alloc(cache, (size_t)(16 + number * 37 % 497));
}

/* Frees what was made, but leaves as much on its way as there is room for: it is late. */
static void consume(void *argument)
{
	struct belt *belt = argument;
	unsigned round = 0;

	while (belt->freed < belt->all) {
		uint64_t made = belt->made, late = made < belt->all ? ON_ITS_WAY * 9 / 10 : 0;

		if (made - belt->freed <= late) {
			os_wait(round++);
			continue;
		}
		round = 0;
		hk_free(belt->caches[1], belt->slots[belt->freed % ON_ITS_WAY]);
		belt->freed++;
	}
}

static size_t hand_over(bool threads, uint64_t all, bool *well)
{
	struct belt belt = { .all = all };
	struct os_thread consumer;
	uint64_t number, start, due;
	struct hk_stats stats = { 0 };
	size_t mapped;
	unsigned round;

	*well = false;
	belt.slots = cli_array(ON_ITS_WAY, sizeof(*belt.slots), &mapped);
	if (!belt.slots)
		return 0;
	if (open_arena(&belt.arena, &belt.caches[0], (struct hk_arena_config){ 0 }))
		goto out_unmap;
	if (hk_cache_create(belt.arena, &belt.caches[1]) ||
	    (threads && os_thread_start(&consumer, consume, &belt)))
		goto out_destroy;
	start = os_now_ns();
	for (number = 0; number < all; number++) {
		for (round = 0; threads && number - belt.freed >= ON_ITS_WAY; round++)
			os_wait(round);
		if (!threads && number >= ON_ITS_WAY)
			hk_free(belt.caches[0], belt.slots[number % ON_ITS_WAY]);
		belt.slots[number % ON_ITS_WAY] = make(belt.caches[0], number);
		belt.made = number + 1;
		if (number % 1000)
			continue;
		due = start + number * (1000000000 / RATE);
		for (round = 0; threads && os_now_ns() < due; round++)
			os_wait(round);
	}
	if (threads)
		os_thread_join(&consumer);
	hk_arena_stats(belt.arena, &stats);
	hk_arena_reset(belt.arena);
	*well = true;

out_destroy:
	hk_arena_destroy(belt.arena);
out_unmap:
	os_unmap((void *)(uintptr_t)belt.slots, mapped);
	return stats.peak_committed_bytes;
}

static int hand_overs(void)
{
	bool well, also_well;
	size_t alone = hand_over(false, RATE * seconds, &well);
	size_t two = hand_over(true, RATE * seconds, &also_well);
	char name[96];

	if (!well || !also_well)
		return -1;
	snprintf(name, sizeof(name),
		 "a million blocks a second for %" PRIu64
		 " s, freed late by another: committed, to one thread's",
		 seconds);
	note(name, (double)two / (double)alone, 1.25, "");
	return 0;
}

static const char usage[] =
	"usage: upkeep [options] [TRACE]\n"
	"Measures what keeping an arena in order costs, against the project's own bars.\n"
	"\n"
	"  --heap BYTES  of the larger heap, K, M and G behind it (1G)\n"
	"  --slices N    calls of maintain and of trim, at each heap (10000)\n"
	"  --seconds N   of the hand-over (5)\n"
	"  --json        the same as JSON\n"
	"  --help        this text\n"
	"\n"
	"TRACE, a recorded program, is played 100 times; without, that is left out.\n"
	"Exit status: 0 measured, whether or not the bars are met; 1 it cannot be run; 2 wrong\n"
	"usage.\n";

static bool parse(int argc, char **argv, int *status)
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
		if (is_option && strcmp(argument, "--json") == 0)
			as_json = true;
		else if (!is_option && !trace_path)
			trace_path = argument;
		else if (!is_option ||
			 (!cli_number_option(&cli, argument, "--heap", SMALL_HEAP, SIZE_MAX / 8,
					     &heap_bytes) &&
			  !cli_number_option(&cli, argument, "--slices", 1, 100000000, &slices) &&
			  !cli_number_option(&cli, argument, "--seconds", 1, 86400, &seconds))) {
			fprintf(stderr, "upkeep: cannot use \"%s\" so\n%s", argument, usage);
			*status = CLI_USAGE;
			return false;
		}
	}
	return true;
}

static void show(void)
{
	const struct row *row;
	unsigned missed = 0;

	if (os_stderr_is_terminal())
		fprintf(stderr, "\r%-78s\r", "");
	printf(as_json ? "{\"rows\": [" : "");
	for (row = rows; row < rows + row_count; row++) {
		bool judged = row->bar > 0, met = !judged || row->value <= row->bar;

		missed += !met;
		if (as_json && !judged)
			printf("%s\n  {\"name\": \"%s\", \"value\": %.3f, \"unit\": \"%s\"}",
			       row > rows ? "," : "", row->name, row->value, row->unit);
		else if (as_json)
			printf("%s\n  {\"name\": \"%s\", \"value\": %.3f, \"bar\": %.3f, "
			       "\"unit\": \"%s\", \"met\": %s}",
			       row > rows ? "," : "", row->name, row->value, row->bar, row->unit,
			       met ? "true" : "false");
		else if (!judged)
			printf("%-74s %9.2f  no bar, %s\n", row->name, row->value, row->unit);
		else
			printf("%-74s %9.2f  %s %g %s\n", row->name, row->value,
			       met ? "met:   " : "missed:", row->bar, row->unit);
	}
	printf(as_json ? "\n], \"missed\": %u}\n" : "%u missed\n", missed);
}

int main(int argc, char **argv)
{
	int status;

	if (!parse(argc, argv, &status))
		return status;
	if (os_thread_cpu_ns() &&
	    (slices_at(SMALL_HEAP, slices) || slices_at((size_t)heap_bytes, slices)))
		return CLI_BAD;
	if (ends() || crowd() || (trace_path && levels(trace_path)) || hand_overs())
		return CLI_BAD;
	show();
	return CLI_WELL;
}
