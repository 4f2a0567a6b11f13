/* SPDX-License-Identifier: MIT */
/*
 * level: loads three levels one after the other into an arena that has room for one. See
 * build.ninja for how it is built.
 */
#include <stdio.h>
#include <string.h>

#include <hakmem/hakmem.h>

#define LEVELS 3
#define TEXTURES 40
#define BUDGET (8u << 20)

static void on_report(void *context, const struct hk_report *report)
{
	fprintf(stderr, "level: arena %s: %s: %s\n", report->arena_name,
		hk_fault_name(report->fault), report->what);
	++*(unsigned *)context;
}

static int load(struct hk_cache *cache, unsigned level, unsigned char **textures)
{
	unsigned i;

	for (i = 0; i < TEXTURES; i++) {
		size_t size = (size_t)(level + 1) << (10 + i % 9);

		textures[i] = hk_alloc_aligned(cache, size, 64);
		if (!textures[i])
			return -1;
		memset(textures[i], (int)(level * TEXTURES + i), size);
	}
	return 0;
}

static int unload(struct hk_cache *cache, unsigned level, unsigned char **textures)
{
	unsigned i;

	for (i = 0; i < TEXTURES; i++) {
		if (textures[i][0] != level * TEXTURES + i)
			return -1;
		hk_free(cache, textures[i]);
	}
	return 0;
}

int main(void)
{
	unsigned char *textures[TEXTURES];
	unsigned faults = 0, level;
	struct hk_arena_config config = {
		.name = "assets",
		.limit = BUDGET,
		.context = &faults,
		.on_report = on_report,
	};
	struct hk_arena *arena;
	struct hk_cache *cache;
	size_t used;

	if (hk_arena_create(&arena, &config) || hk_cache_create(arena, &cache))
		return 1;
	for (level = 0; level < LEVELS; level++) {
		if (load(cache, level, textures))
			return 1;
		used = hk_arena_used(arena);
		if (used > BUDGET || unload(cache, level, textures))
			return 1;
		hk_cache_flush(cache);
		hk_arena_trim(arena, 0, 0);
		printf("level %u: %zu KiB loaded, %zu KiB kept\n", level + 1, used >> 10,
		       hk_arena_used(arena) >> 10);
	}
	hk_arena_destroy(arena); /* reports what still lives */
	return faults ? 1 : 0;
}
