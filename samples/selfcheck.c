/* SPDX-License-Identifier: MIT */
/*
 * selfcheck: exercises every public function of the library, on any platform.
 *
 * It needs a C library and threads, no test framework, so that it runs where those do not: on
 * other systems, under emulators, under ThreadSanitizer. Sizes of address ranges are small by
 * default for the same reason.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "selfcheck.h"

#define LEAST_ADDRESS_SPACE (32 * SELF_MIB)

const size_t self_edges[SELF_EDGES] = {
	0,    1,    15,	  16,	 17,	32,    33,     255,    1008,   1009,   1024,	1025,
	1152, 4096, 4097, 32768, 32769, 65536, 100000, 262145, 524288, 524289, 1048576, 5242881,
};

/* The checks' outcome; atomic for the threads of self_stress(). */
static atomic_ulong passed;
static atomic_ulong failed;
/* Where failed checks are printed: stderr when stdout takes JSON. */
static FILE *failures;

bool self_check(bool good, const char *file, int line, const char *expression)
{
	if (good) {
		atomic_fetch_add_explicit(&passed, 1, memory_order_relaxed);
		return true;
	}
	atomic_fetch_add_explicit(&failed, 1, memory_order_relaxed);
	fprintf(failures, "%s:%d: failed: %s\n", file, line, expression);
	fflush(failures); /* a failed check may be the last word before a crash */
	return false;
}

static void on_report(void *context, const struct hk_report *report)
{
	struct self_arena *self = context;

	self->last = *report;
	self->count++;
	if (report->fault == HK_FAULT_LEAK)
		self->leaks++;
}

bool self_open_config(struct self_arena *self, const struct self_options *options,
		      struct hk_arena_config config)
{
	int error;

	memset(self, 0, sizeof(*self));
	config.name = "selfcheck";
	config.context = self;
	config.on_report = on_report;
	if (!config.address_space && !config.platform)
		config.address_space = options->address_space;
	error = hk_arena_create(&self->arena, &config);
	if (!CHECK(error == HK_OK))
		goto out_error;
	error = hk_cache_create(self->arena, &self->cache);
	if (!CHECK(error == HK_OK))
		goto out_destroy;
	return true;

out_destroy:
	hk_arena_destroy(self->arena);
out_error:
	fprintf(failures, "no arena: %s\n", hk_error_name(error));
	return false;
}

bool self_open(struct self_arena *self, const struct self_options *options)
{
	return self_open_config(self, options, (struct hk_arena_config){ 0 });
}

void self_close(struct self_arena *self)
{
	hk_cache_destroy(self->cache);
	CHECK(self_live(self) == 0);
	CHECK(hk_arena_check(self->arena) == 0);
	CHECK(self->count == 0);
	hk_arena_destroy(self->arena);
	CHECK(self->leaks == 0);
}

bool self_reported(struct self_arena *self, enum hk_fault fault, const void *address)
{
	const struct hk_report *last = &self->last;
	bool good = self->count == 1 && last->fault == fault && last->address == address &&
		    last->arena == self->arena && last->what && last->what[0] &&
		    strcmp(last->arena_name, "selfcheck") == 0;

	if (!good)
		fprintf(failures, "reports: %zu, wanted one of \"%s\"; the last: \"%s\" (%s)\n",
			self->count, hk_fault_name(fault), hk_fault_name(last->fault),
			last->what ? last->what : "none");
	self->count = 0;
	return good;
}

size_t self_exhaust(struct self_arena *self, size_t size, size_t limit)
{
	struct link {
		struct link *next;
	} *first = NULL, *link;
	size_t count = 0, beyond = 0, damaged = 0, i;

	while ((link = hk_alloc(self->cache, size))) {
		link->next = first;
		first = link;
		self_fill(link + 1, size - sizeof(*link), count++);
		beyond += hk_arena_used(self->arena) > limit;
	}
	CHECK(beyond == 0);
	CHECK(self_reported(self, HK_FAULT_EXHAUSTED, NULL));
	CHECK(self->last.size == size);
	CHECK(self_live(self) == count);
	for (i = count; first; first = link) {
		link = first->next;
		damaged += !self_holds(first + 1, size - sizeof(*first), --i);
		hk_free(self->cache, first);
	}
	CHECK(damaged == 0);
	CHECK(self_live(self) == 0);
	return count;
}

size_t self_live(const struct self_arena *self)
{
	struct hk_stats stats;

	hk_arena_stats(self->arena, &stats);
	return stats.live_blocks;
}

size_t self_cached(const struct self_arena *self)
{
	struct hk_stats stats;

	hk_arena_stats(self->arena, &stats);
	return stats.cached_bytes;
}

struct hk_counters self_counters(const struct self_arena *self)
{
	struct hk_stats stats;

	hk_arena_stats(self->arena, &stats);
	return stats.counters;
}

size_t self_hidden(size_t value)
{
	volatile size_t hidden = value;

	return hidden;
}

void *self_hidden_pointer(void *ptr)
{
	void *volatile hidden = ptr;

	return hidden;
}

uint64_t self_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* Differs from word to word over any block, so that content that moved is not taken for right. */
static uint64_t pattern(size_t word, uint64_t seed)
{
	uint64_t x = (seed + word) * UINT64_C(0x9e3779b97f4a7c15);

	return x ^ x >> 32;
}

void self_fill(void *ptr, size_t size, uint64_t seed)
{
	unsigned char *bytes = ptr;
	uint64_t word;
	size_t i;

	for (i = 0; i < size; i += sizeof(word)) {
		word = pattern(i / sizeof(word), seed);
		memcpy(bytes + i, &word, size - i < sizeof(word) ? size - i : sizeof(word));
	}
}

bool self_holds(const void *ptr, size_t size, uint64_t seed)
{
	const unsigned char *bytes = ptr;
	uint64_t word;
	size_t i;

	for (i = 0; i < size; i += sizeof(word)) {
		word = pattern(i / sizeof(word), seed);
		if (memcmp(bytes + i, &word, size - i < sizeof(word) ? size - i : sizeof(word)))
			return false;
	}
	return true;
}

bool self_is_zero(const void *ptr, size_t size)
{
	const unsigned char *bytes = ptr;
	size_t i;

	for (i = 0; i < size; i++)
		if (bytes[i])
			return false;
	return true;
}

static const struct self_function *const tables[] = {
	self_blocks,  self_resizes, self_arenas,    self_states,
	self_budgets, self_upkeep,  self_platforms,
};

#define TABLES (sizeof(tables) / sizeof(tables[0]))

static void list(void)
{
	const struct self_function *function;
	size_t i;

	for (i = 0; i < TABLES; i++)
		for (function = tables[i]; function->name; function++)
			printf("%s%s\n", function->name, function->is_inline ? " inline" : "");
}

/* Returns the number of functions exercised; one whose code checked nothing is a failure. */
static unsigned run(const struct self_options *options)
{
	const struct self_function *function;
	unsigned functions = 0;
	unsigned long before;
	size_t i;

	for (i = 0; i < TABLES; i++) {
		for (function = tables[i]; function->name; function++) {
			before = passed + failed;
			function->run(options);
			if (!CHECK(passed + failed > before))
				fprintf(failures, "%s: nothing checked\n", function->name);
			functions++;
		}
	}
	self_stress(options);
	return functions;
}

static void usage(FILE *file)
{
	fputs("usage: selfcheck [options]\n"
	      "Exercises every public function of hakmem and checks what it promises.\n"
	      "\n"
	      "  --threads N            threads of the stress part, 1 to 64 (4)\n"
	      "  --operations N         operations of each of these threads (20000)\n"
	      "  --address-space BYTES  address range of most arenas, at least 32 MiB (256 MiB)\n"
	      "  --json                 the outcome as JSON; failed checks go to stderr\n"
	      "  --list                 the functions exercised, one a line; \"inline\" follows\n"
	      "                         those that are no symbols of the library\n"
	      "  --help                 this text\n"
	      "\n"
	      "Exit status: 0 all passed, 1 some failed, 2 wrong usage.\n",
	      file);
}

/* A decimal number from @least to @most; false for anything else. */
static bool parse(const char *text, uint64_t least, uint64_t most, uint64_t *value)
{
	char *end;

	if (!text || text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return !errno && !*end && *value >= least && *value <= most;
}

int main(int argc, char **argv)
{
	struct self_options options = { 256 * SELF_MIB, 4, 20000 };
	const char *name, *text;
	unsigned functions;
	bool json = false;
	uint64_t value;
	int i;

	for (i = 1; i < argc; i++) {
		name = argv[i];
		if (strcmp(name, "--help") == 0) {
			usage(stdout);
			return 0;
		}
		if (strcmp(name, "--list") == 0) {
			list();
			return 0;
		}
		if (strcmp(name, "--json") == 0) {
			json = true;
			continue;
		}
		text = i + 1 < argc ? argv[++i] : NULL;
		if (strcmp(name, "--threads") == 0 && parse(text, 1, 64, &value)) {
			options.threads = (unsigned)value;
		} else if (strcmp(name, "--operations") == 0 &&
			   parse(text, 1, 1000000000, &value)) {
			options.operations = (unsigned long)value;
		} else if (strcmp(name, "--address-space") == 0 &&
			   parse(text, LEAST_ADDRESS_SPACE, PTRDIFF_MAX, &value)) {
			options.address_space = (size_t)value;
		} else {
			fprintf(stderr, "selfcheck: cannot use \"%s%s%s\"\n", name, text ? " " : "",
				text ? text : "");
			usage(stderr);
			return 2;
		}
	}

	failures = json ? stderr : stdout;
	functions = run(&options);
	if (json)
		printf("{\"version\": %u, \"functions\": %u, \"threads\": %u, "
		       "\"operations\": %lu, \"passed\": %lu, \"failed\": %lu}\n",
		       hk_version(), functions, options.threads, options.operations,
		       (unsigned long)passed, (unsigned long)failed);
	else
		printf("%lu passed, %lu failed\n", (unsigned long)passed, (unsigned long)failed);
	return failed ? 1 : 0;
}
