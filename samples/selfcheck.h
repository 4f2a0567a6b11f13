/* SPDX-License-Identifier: MIT */
/*
 * What the parts of selfcheck share. Each part holds a table of public functions, each with the
 * code that exercises it; selfcheck.c runs the tables and counts.
 */
#ifndef SAMPLES_SELFCHECK_H
#define SAMPLES_SELFCHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hakmem/hakmem.h>

#define SELF_KIB ((size_t)1024)
#define SELF_MIB ((size_t)1024 * 1024)

/* What an empty arena may need; where a page is larger than 32 KiB, two pages are more. */
#define SELF_EMPTY_MAX(page) ((page) > 32 * SELF_KIB ? 2 * (page) : 64 * SELF_KIB)

struct self_options {
	size_t address_space;
	unsigned threads;
	unsigned long operations;
};

/**
 * struct self_function - a public function and the code that exercises it
 * @name: of the function.
 * @is_inline: it lives in the header and is no symbol of the library.
 * @run: makes at least one check.
 */
struct self_function {
	const char *name;
	bool is_inline;
	void (*run)(const struct self_options *options);
};

/* The tables end with an entry without a name. */
extern const struct self_function self_blocks[];
extern const struct self_function self_resizes[];
extern const struct self_function self_arenas[];
extern const struct self_function self_states[];
extern const struct self_function self_budgets[], self_upkeep[];
extern const struct self_function self_platforms[];

/* Threads that allocate, free and hand blocks over; no function of its own. */
void self_stress(const struct self_options *options);

/* Counts a check and prints it when it failed; any thread. Returns @good. */
bool self_check(bool good, const char *file, int line, const char *expression);
#define CHECK(expression) self_check(!!(expression), __FILE__, __LINE__, #expression)

/**
 * struct self_arena - an arena, a cache of it, and what it reported
 * @count: reports since self_reported() was last called.
 * @leaks: leak reports, which come when the arena is gone.
 */
struct self_arena {
	struct hk_arena *arena;
	struct hk_cache *cache;
	struct hk_report last;
	size_t count;
	size_t leaks;
};

/* An arena with these choices; name, callbacks and a missing address space are filled in. */
bool self_open_config(struct self_arena *self, const struct self_options *options,
		      struct hk_arena_config config);
bool self_open(struct self_arena *self, const struct self_options *options);

/* Checks that nothing is live, reported or broken, and destroys. */
void self_close(struct self_arena *self);

/* Was there one report since the last call, of this fault and about this address? */
bool self_reported(struct self_arena *self, enum hk_fault fault, const void *address);

/*
 * Allocates until NULL, with more than @limit bytes committed at no time; checks what each
 * block holds and frees it. Returns the number of blocks.
 */
size_t self_exhaust(struct self_arena *self, size_t size, size_t limit);

size_t self_live(const struct self_arena *self);
size_t self_cached(const struct self_arena *self);
struct hk_counters self_counters(const struct self_arena *self);

/* The argument, by a way that no compiler sees through: for sizes that it would warn of. */
size_t self_hidden(size_t value);
void *self_hidden_pointer(void *ptr);

static inline bool self_aligned(const void *ptr, size_t align)
{
	return ((uintptr_t)ptr & (align - 1)) == 0;
}

void self_fill(void *ptr, size_t size, uint64_t seed);
bool self_holds(const void *ptr, size_t size, uint64_t seed);
bool self_is_zero(const void *ptr, size_t size);
uint64_t self_random(uint64_t *state);

/* Sizes at the edges of what is done differently, without those beyond any arena. */
#define SELF_EDGES 24
extern const size_t self_edges[SELF_EDGES];

#endif /* SAMPLES_SELFCHECK_H */
