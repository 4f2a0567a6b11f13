/* SPDX-License-Identifier: MIT */
/*
 * script: what a script engine does all day, on a budget: strings and tables that grow, and a
 * collection when the budget is used up. See CMakeLists.txt for how it is built.
 */
#include <stdio.h>
#include <string.h>

#include <hakmem/hakmem.h>

#define VALUES 400
#define STEPS 50000
#define BUDGET (1u << 20)

struct script {
	struct hk_cache *cache;
	char *values[VALUES];
	size_t lengths[VALUES];
	unsigned collections, faults;
};

static void on_report(void *context, const struct hk_report *report)
{
	struct script *script = context;

	fprintf(stderr, "script: arena %s: %s: %s\n", report->arena_name,
		hk_fault_name(report->fault), report->what);
	script->faults++;
}

static void drop(struct script *script, unsigned i)
{
	hk_free(script->cache, script->values[i]);
	script->values[i] = NULL;
	script->lengths[i] = 0;
}

/* The budget is used up: forget every second value, and have the allocation tried again. */
static bool on_oom(void *context, struct hk_arena *arena, size_t size)
{
	struct script *script = context;
	unsigned i, dropped = 0;

	(void)arena;
	(void)size;
	for (i = script->collections & 1; i < VALUES; i += 2) {
		dropped += script->values[i] != NULL;
		drop(script, i);
	}
	script->collections++;
	return dropped > 0;
}

/* Makes a value longer by one piece; it may move, or be collected meanwhile. */
static int append(struct script *script, unsigned i, size_t piece)
{
	size_t length = script->lengths[i];
	char *value = script->values[i];
	char *grown;

	/* Out of the collection's reach while it grows. */
	script->values[i] = NULL;
	grown = hk_realloc(script->cache, value, length + piece);
	if (!grown) {
		hk_free(script->cache, value);
		script->lengths[i] = 0;
		return -1;
	}
	memset(grown + length, 'a' + (int)(i % 26), piece);
	script->values[i] = grown;
	script->lengths[i] = length + piece;
	return grown[0] == 'a' + (int)(i % 26) ? 0 : -1;
}

int main(void)
{
	static struct script script;
	struct hk_arena_config config = {
		.name = "script",
		.limit = BUDGET,
		.context = &script,
		.on_oom = on_oom,
		.on_report = on_report,
	};
	struct hk_arena *arena;
	size_t used;
	unsigned i;

	if (hk_arena_create(&arena, &config) || hk_cache_create(arena, &script.cache))
		return 1;
	for (i = 0; i < STEPS; i++) {
		if (append(&script, i * 7919 % VALUES, 1 + i % 90)) {
			fprintf(stderr, "script: step %u: no memory, or another's\n", i);
			return 1;
		}
	}
	used = hk_arena_used(arena);
	printf("script: %u steps, %u collections, %zu of %u KiB\n", i, script.collections,
	       used >> 10, BUDGET >> 10);
	for (i = 0; i < VALUES; i++)
		drop(&script, i);
	hk_arena_destroy(arena); /* reports what still lives */
	return script.faults || !script.collections || used > BUDGET ? 1 : 0;
}
