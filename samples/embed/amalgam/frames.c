/* SPDX-License-Identifier: MIT */
/*
 * frames: a frame loop on two arenas, built from two files. `ninja amalgam`, in hakmem's folder,
 * writes hakmem.h and hakmem.c to build/amalgam; put them beside this file, then
 *
 *	$ cc -O2 frames.c hakmem.c -o frames
 *	$ ./frames
 *
 * Entities live as long as they like. What a frame needs for itself is freed all at once, when
 * the frame is over.
 */
#include <stdio.h>
#include <string.h>

#include "hakmem.h"

#define FRAMES 600
#define ENTITIES 250
#define DRAWS 40

struct entity {
	unsigned points;
	float *path;
};

static void on_report(void *context, const struct hk_report *report)
{
	fprintf(stderr, "frames: arena %s: %s: %s\n", report->arena_name,
		hk_fault_name(report->fault), report->what);
	++*(unsigned *)context;
}

static struct entity *spawn(struct hk_cache *cache, unsigned points)
{
	struct entity *entity = hk_alloc(cache, sizeof(*entity));

	if (!entity)
		return NULL;
	entity->points = points;
	entity->path = hk_zalloc(cache, points * sizeof(*entity->path));
	if (!entity->path) {
		hk_free(cache, entity);
		return NULL;
	}
	return entity;
}

static void kill(struct hk_cache *cache, struct entity *entity)
{
	if (!entity)
		return;
	hk_free(cache, entity->path);
	hk_free_sized(cache, entity, sizeof(*entity));
}

int main(void)
{
	static struct entity *entities[ENTITIES];
	unsigned faults = 0, frame, i;
	struct hk_arena_config config = { .context = &faults, .on_report = on_report };
	struct hk_arena *world, *scratch;
	struct hk_cache *world_cache, *scratch_cache;

	config.name = "world";
	config.limit = 8u << 20;
	if (hk_arena_create(&world, &config) || hk_cache_create(world, &world_cache))
		return 1;
	config.name = "scratch";
	config.limit = 8u << 20;
	if (hk_arena_create(&scratch, &config) || hk_cache_create(scratch, &scratch_cache))
		return 1;

	for (frame = 0; frame < FRAMES; frame++) {
		/* The oldest entity dies, and a new one takes its place. */
		struct entity **entity = &entities[frame % ENTITIES];

		kill(world_cache, *entity);
		*entity = spawn(world_cache, 10 + frame % 50);
		if (!*entity)
			return 1;
		for (i = 0; i < DRAWS; i++) {
			void *command = hk_alloc(scratch_cache, 200 + 10 * i);

			if (!command)
				return 1;
			memset(command, (int)i, 200 + 10 * i);
		}
		hk_arena_reset(scratch);
	}
	printf("frames: %u frames, world %zu KiB, scratch %zu KiB\n", frame,
	       hk_arena_used(world) >> 10, hk_arena_used(scratch) >> 10);

	for (i = 0; i < ENTITIES; i++)
		kill(world_cache, entities[i]);
	hk_arena_destroy(scratch);
	hk_arena_destroy(world); /* reports what still lives */
	return faults ? 1 : 0;
}
