/* SPDX-License-Identifier: MIT */
/*
 * region: all memory that a game may use is one array; hakmem makes no system call for it.
 * Built against an installed hakmem (`ninja install`), with the shared library
 *
 *	$ cc -O2 region.c $(pkg-config --cflags --libs hakmem) -o region
 *	$ ./region
 *
 * or with the static one, which the place where it runs need not have:
 *
 *	$ cc -O2 region.c $(pkg-config --cflags hakmem) "$(pkg-config --variable=libdir hakmem)/libhakmem.a" -o region-static
 *	$ ./region-static
 */
#include <stdio.h>

#include <hakmem/hakmem.h>
#include <platform/platform.h>

#define ROUNDS 100
#define OBJECTS 300

static unsigned char memory[8 << 20];

static void on_report(void *context, const struct hk_report *report)
{
	fprintf(stderr, "region: arena %s: %s: %s\n", report->arena_name,
		hk_fault_name(report->fault), report->what);
	++*(unsigned *)context;
}

int main(void)
{
	struct hk_fixed_region region = { .memory = memory, .size = sizeof(memory) };
	struct hk_platform platform;
	unsigned faults = 0, round, i;
	struct hk_arena_config config = {
		.name = "game",
		.platform = &platform,
		.context = &faults,
		.on_report = on_report,
	};
	void *objects[OBJECTS];
	struct hk_arena *arena;
	struct hk_cache *cache;

	/* The shared library may be another than the one whose header this was compiled with. */
	if (hk_version() != HK_VERSION) {
		fprintf(stderr, "region: built for version %u, runs with %u\n", HK_VERSION,
			hk_version());
		return 1;
	}
	if (hk_platform_fixed(&platform, &region) || hk_arena_create(&arena, &config) ||
	    hk_cache_create(arena, &cache))
		return 1;
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < OBJECTS; i++) {
			unsigned char *object = hk_zalloc(cache, 16 + (size_t)i * 20);

			if (object < memory || object >= memory + sizeof(memory) || object[15])
				return 1;
			object[15] = 1;
			objects[i] = object;
		}
		hk_free_bulk(cache, OBJECTS, objects);
	}
	printf("region: %u rounds of %u objects in %zu KiB\n", round, i,
	       hk_arena_used(arena) >> 10);
	hk_arena_destroy(arena); /* reports what still lives */
	return faults ? 1 : 0;
}
