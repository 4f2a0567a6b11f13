/* SPDX-License-Identifier: MIT */
/*
 * rounds LIBRARY: loads the shared library, uses it and unloads it, 100 times, as a game does
 * that reloads a plugin. The process must then have the very mappings, threads and files that
 * it had before: what the library forgot to give back, or kept for itself in a way that forbids
 * unloading, shows as a line too many. hakmem lies in third_party/hakmem, and `ninja` has run
 * there.
 *
 *	$ cc -O2 -Ithird_party/hakmem rounds.c -ldl -o rounds
 *	$ ./rounds third_party/hakmem/build/release/libhakmem.so
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hakmem/hakmem.h>

#define ROUNDS 100
#define BLOCKS 600
#define STATE_MAX (256 * 1024)

struct library {
	void *handle;
	int (*arena_create)(struct hk_arena **arena, const struct hk_arena_config *config);
	void (*arena_destroy)(struct hk_arena *arena);
	int (*cache_create)(struct hk_arena *arena, struct hk_cache **cache);
	void (*cache_destroy)(struct hk_cache *cache);
	void *(*alloc)(struct hk_cache *cache, size_t size);
	void (*free)(struct hk_cache *cache, void *ptr);
};

/* What the process has, a line for each mapping, thread and open file. */
struct state {
	char text[STATE_MAX];
	size_t used;
};

static struct state before, after;

static _Noreturn void fail(const char *what, const char *why)
{
	fprintf(stderr, "rounds: %s: %s\n", what, why);
	exit(1);
}

static void add_names(struct state *state, const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;

	if (!folder)
		fail(path, "cannot be read");
	while ((entry = readdir(folder))) {
		size_t left = STATE_MAX - state->used;
		int length =
			snprintf(state->text + state->used, left, "%s/%s\n", path, entry->d_name);

		if (length < 0 || (size_t)length >= left)
			fail(path, "is too long");
		state->used += (size_t)length;
	}
	closedir(folder);
}

/* By read() into static memory: reading must not itself change what is read. */
static void add_mappings(struct state *state)
{
	static const char path[] = "/proc/self/maps";
	int file = open(path, O_RDONLY);
	ssize_t got;

	if (file < 0)
		fail(path, "cannot be opened");
	do {
		got = read(file, state->text + state->used, STATE_MAX - 1 - state->used);
		if (got < 0)
			fail(path, "cannot be read");
		state->used += (size_t)got;
	} while (got);
	close(file);
	if (state->used == STATE_MAX - 1)
		fail(path, "is too long");
	state->text[state->used] = '\0';
}

static void look(struct state *state)
{
	memset(state, 0, sizeof(*state));
	add_names(state, "/proc/self/task");
	add_names(state, "/proc/self/fd");
	add_mappings(state);
}

/* A pointer to an object becomes one to a function; C has no cast for that, POSIX demands it. */
static void find(struct library *library, const char *name, void *function)
{
	void *symbol = dlsym(library->handle, name);

	if (!symbol)
		fail(name, dlerror());
	memcpy(function, &symbol, sizeof(symbol));
}

static void load(struct library *library, const char *path)
{
	library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library->handle)
		fail("dlopen", dlerror());
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

	if (library->arena_create(&arena, NULL) || library->cache_create(arena, &cache))
		fail("hk_arena_create", "no arena");
	for (i = 0; i < BLOCKS; i++) {
		size_t size = i % 60 ? (size_t)i * 37 : (size_t)(i + 1) << 13;

		blocks[i] = library->alloc(cache, size);
		if (!blocks[i])
			fail("hk_alloc_fn", "no block");
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
		fprintf(stderr, "usage: rounds LIBRARY\n");
		return 2;
	}
	/* The first round is for the loader and libc, which keep what they allocated. */
	for (round = 0; round <= ROUNDS; round++) {
		if (round <= 1)
			look(&before);
		load(&library, argv[1]);
		use(&library);
		if (dlclose(library.handle))
			fail("dlclose", dlerror());
		if (dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD))
			fail(argv[1], "stays loaded after dlclose");
	}
	look(&after);
	if (strcmp(before.text, after.text) != 0) {
		fprintf(stderr, "rounds: the process before:\n%s\nand after %d rounds:\n%s",
			before.text, ROUNDS, after.text);
		return 1;
	}
	printf("rounds: %d rounds, nothing is left\n", ROUNDS);
	return 0;
}
