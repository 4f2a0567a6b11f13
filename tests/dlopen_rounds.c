/* SPDX-License-Identifier: MIT */
/*
 * dlopen_rounds LIBRARY: loads the shared library, uses it and unloads it, 100 times; the
 * process must then have the very mappings that it had before. What the library forgot to give
 * back, or kept for itself in a way that forbids unloading, shows as a line too many.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hakmem/hakmem.h>

#define ROUNDS 100
#define MAPS_MAX (256 * 1024)
#define BLOCKS 600

struct library {
	void *handle;
	int (*arena_create)(struct hk_arena **arena, const struct hk_arena_config *config);
	void (*arena_destroy)(struct hk_arena *arena);
	int (*cache_create)(struct hk_arena *arena, struct hk_cache **cache);
	void (*cache_destroy)(struct hk_cache *cache);
	void *(*alloc)(struct hk_cache *cache, size_t size);
	void (*free)(struct hk_cache *cache, void *ptr);
};

static char maps_before[MAPS_MAX];
static char maps_after[MAPS_MAX];

/* By read() into static memory: reading must not itself change what is read. */
static void read_maps(char *text)
{
	int file = open("/proc/self/maps", O_RDONLY);
	size_t used = 0;
	ssize_t got = 0;

	if (file < 0) {
		perror("/proc/self/maps");
		exit(1);
	}
	while (used < MAPS_MAX - 1 && (got = read(file, text + used, MAPS_MAX - 1 - used)) > 0)
		used += (size_t)got;
	close(file);
	if (got < 0 || !used) {
		fprintf(stderr, "dlopen_rounds: cannot read /proc/self/maps\n");
		exit(1);
	}
	text[used] = '\0';
}

/* A pointer to an object becomes one to a function; C has no cast for that, POSIX demands it. */
static void find(struct library *library, const char *name, void *function)
{
	void *symbol = dlsym(library->handle, name);

	if (!symbol) {
		fprintf(stderr, "dlopen_rounds: %s\n", dlerror());
		exit(1);
	}
	memcpy(function, &symbol, sizeof(symbol));
}

static void load(struct library *library, const char *path)
{
	library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library->handle) {
		fprintf(stderr, "dlopen_rounds: %s\n", dlerror());
		exit(1);
	}
	find(library, "hk_arena_create", &library->arena_create);
	find(library, "hk_arena_destroy", &library->arena_destroy);
	find(library, "hk_cache_create", &library->cache_create);
	find(library, "hk_cache_destroy", &library->cache_destroy);
	find(library, "hk_alloc_fn", &library->alloc);
	find(library, "hk_free_fn", &library->free);
}

/* Small, medium and large blocks; half of them are still live when the arena goes. */
static void use(const struct library *library)
{
	static void *blocks[BLOCKS];
	struct hk_arena *arena;
	struct hk_cache *cache;
	unsigned i;

	if (library->arena_create(&arena, NULL) || library->cache_create(arena, &cache)) {
		fprintf(stderr, "dlopen_rounds: no arena\n");
		exit(1);
	}
	for (i = 0; i < BLOCKS; i++) {
		size_t size = i % 60 ? (size_t)i * 37 : (size_t)(i + 1) << 13;

		blocks[i] = library->alloc(cache, size);
		if (!blocks[i]) {
			fprintf(stderr, "dlopen_rounds: no block of %zu bytes\n", size);
			exit(1);
		}
		memset(blocks[i], 0x5a, size);
	}
	for (i = 0; i < BLOCKS; i += 2)
		library->free(cache, blocks[i]);
	library->cache_destroy(cache);
	library->arena_destroy(arena);
}

int main(int argc, char **argv)
{
	struct library library;
	unsigned round;

	if (argc != 2) {
		fprintf(stderr, "usage: dlopen_rounds LIBRARY\n");
		return 2;
	}
	/* The first round is for the loader, which keeps what it allocated for itself. */
	for (round = 0; round <= ROUNDS; round++) {
		if (round == 1)
			read_maps(maps_before);
		load(&library, argv[1]);
		use(&library);
		if (dlclose(library.handle)) {
			fprintf(stderr, "dlopen_rounds: %s\n", dlerror());
			return 1;
		}
		if (dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD)) {
			fprintf(stderr, "dlopen_rounds: the library stays after dlclose\n");
			return 1;
		}
	}
	read_maps(maps_after);
	if (strcmp(maps_before, maps_after) != 0) {
		fprintf(stderr, "dlopen_rounds: mappings before:\n%s\nand after %d rounds:\n%s",
			maps_before, ROUNDS, maps_after);
		return 1;
	}
	return 0;
}
