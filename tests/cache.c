/* SPDX-License-Identifier: MIT */
/* Caches: handed over, flushed, given up, and blocks that come home through another's. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* So often a class goes without a magazine at first. */
#define COLD_USES 4

static void *blocks[4000];

static size_t cached_bytes(struct hk_arena *arena)
{
	struct hk_stats stats;

	hk_arena_stats(arena, &stats);
	return stats.cached_bytes;
}

Test(cache, block_is_freed_through_another_cache_and_through_the_arena)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct hk_cache *other;
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	cr_assert_eq(hk_cache_create(heap.arena, &other), 0);
	for (i = 0; i < count; i++) {
		void *first = hk_alloc(heap.cache, sizes[i]);
		void *second = hk_alloc(heap.cache, sizes[i]);
		void *third = hk_alloc(other, sizes[i]);

		must(first && second && third, "size %zu", sizes[i]);
		hk_free(other, first);
		hk_arena_free(heap.arena, second);
		hk_free_sized(heap.cache, third, sizes[i]);
		must(heap_live_blocks(&heap) == 0, "size %zu", sizes[i]);
	}
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	hk_cache_destroy(other);
	heap_close(&heap, 0);
}

/* The other cache reuses what it was given, so that one-way traffic does not pile up. */
Test(cache, block_freed_through_another_cache_is_used_there)
{
	struct hk_cache *other;
	struct heap heap;
	void *block;

	heap_open(&heap, 0);
	cr_assert_eq(hk_cache_create(heap.arena, &other), 0);
	block = hk_alloc(heap.cache, 200);
	hk_free(other, hk_alloc(other, 200));
	hk_free(other, block);
	cr_assert_eq(hk_alloc(other, 200), block, "the block freed last is the first to be used");
	hk_free(other, block);
	hk_cache_destroy(other);
	heap_close(&heap, 0);
}

static void *next_thread(void *argument)
{
	struct heap *heap = argument;
	size_t i;

	for (i = 0; i < COUNT(blocks); i++) {
		size_t size = 16 + i % 3000;

		if (blocks[i] && !test_holds(blocks[i], size, i))
			return heap;
		hk_free(heap->cache, blocks[i]);
		blocks[i] = hk_alloc(heap->cache, size);
		if (!blocks[i])
			return heap;
		test_fill(blocks[i], size, i);
	}
	return NULL;
}

/* A fiber that wakes elsewhere, a worker that passes its cache on: no thread owns a cache. */
Test(cache, is_handed_from_thread_to_thread)
{
	struct heap heap;
	int round;

	heap_open(&heap, 0);
	for (round = 0; round < 20; round++) {
		pthread_t thread;
		void *failed;

		cr_assert_eq(pthread_create(&thread, NULL, next_thread, &heap), 0);
		cr_assert_eq(pthread_join(thread, &failed), 0);
		cr_assert_null(failed, "round %d", round);
		cr_assert_null(next_thread(&heap), "round %d", round);
		cr_assert_eq(hk_arena_check(heap.arena), 0);
	}
	hk_free_bulk(heap.cache, COUNT(blocks), blocks);
	heap_close(&heap, 0);
}

/* One life of a cache, with blocks of many classes and some in the magazines at the end. */
static void life(struct hk_arena *arena, size_t step)
{
	struct hk_cache *cache;
	size_t i;

	must(hk_cache_create(arena, &cache) == 0, "step %zu", step);
	for (i = 0; i < 40; i++) {
		blocks[i] = hk_zalloc(cache, 128 + i % 8 * 300);
		must(blocks[i], "step %zu", step);
	}
	for (i = 0; i < 40; i++)
		hk_free(cache, blocks[i]);
	hk_cache_destroy(cache);
}

Test(cache, created_and_destroyed_5000_times_leaves_nothing)
{
	struct test_reports reports = { 0 };
	struct hk_arena *arena = test_arena(&reports, 0);
	struct hk_stats stats;
	size_t used;
	size_t i;

	for (i = 0; i < 20; i++)
		life(arena, i);
	used = hk_arena_used(arena);
	for (; i < 5000; i++)
		life(arena, i);
	cr_assert_eq(hk_arena_used(arena), used, "%zu bytes more", hk_arena_used(arena) - used);
	/* what a cache gave to the depot is the arena's */
	hk_arena_trim(arena, 0, 0);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.cache_count, 0);
	cr_assert_eq(stats.live_blocks, 0);
	cr_assert_eq(stats.cached_bytes, 0);
	cr_assert_eq(hk_arena_check(arena), 0);
	cr_assert_eq(reports.count, 0);
	hk_cache_destroy(NULL);
	hk_arena_destroy(arena);
}

Test(cache, flush_returns_every_block)
{
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct hk_stats stats;
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	/* past the first uses every class has a magazine */
	for (i = 0; i < (COLD_USES / 2 + 1) * count; i++)
		hk_free(heap.cache, hk_alloc(heap.cache, sizes[i % count]));
	hk_arena_stats(heap.arena, &stats);
	for (i = 1; i < HK_CLASSES; i++)
		must((stats.classes[i].cached_blocks > 0) ==
			     (stats.classes[i].block_size <= 32 * KIB),
		     "class %zu: %zu blocks", i, stats.classes[i].cached_blocks);
	cr_assert_eq(stats.counters.magazine_to_depot, 0, "one block each fills no magazine");
	hk_cache_flush(heap.cache);
	cr_assert_eq(cached_bytes(heap.arena), 0);
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	hk_cache_flush(heap.cache);
	cr_assert_eq(cached_bytes(heap.arena), 0);
	for (i = 0; i < count; i++) {
		blocks[i] = hk_alloc(heap.cache, sizes[i]);
		must(blocks[i], "size %zu", sizes[i]);
	}
	hk_free_bulk(heap.cache, count, blocks);
	heap_close(&heap, 0);
}

/* Both magazines, the loaded and the spare, at every filling of the two. */
Test(cache, flush_returns_the_spare_magazine_too)
{
	struct hk_stats stats;
	struct heap heap;
	size_t many;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < COLD_USES; i++)
		hk_free(heap.cache, hk_arena_alloc(heap.arena, 80));
	cr_assert_eq(cached_bytes(heap.arena), 0, "of the first uses nothing is kept");
	for (many = 1; many <= 126; many++) {
		for (i = 0; i < many; i++)
			blocks[i] = hk_arena_alloc(heap.arena, 80);
		for (i = 0; i < many; i++)
			hk_free(heap.cache, blocks[i]);
		hk_arena_stats(heap.arena, &stats);
		must(stats.cached_bytes == many * 80, "%zu blocks", many);
		must(stats.classes[hk_size_class(80)].cached_blocks == many, "%zu blocks", many);
		hk_cache_flush(heap.cache);
		must(cached_bytes(heap.arena) == 0, "%zu blocks", many);
	}
	heap_close(&heap, 0);
}

Test(cache, destroy_returns_every_block)
{
	struct hk_cache *other;
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	cr_assert_eq(hk_cache_create(heap.arena, &other), 0);
	for (i = 0; i < 90; i++)
		blocks[i] = hk_alloc(heap.cache, 700);
	for (i = 0; i < 90; i++)
		hk_free(other, blocks[i]);
	hk_cache_flush(heap.cache);
	cr_assert_gt(cached_bytes(heap.arena), 0);
	hk_cache_destroy(other);
	/* the depot has what is worth an exchange: two magazines of 46 but for four blocks, cold */
	cr_assert_eq(cached_bytes(heap.arena), 86 * 704);
	for (i = 0; i < 86; i++)
		blocks[i] = hk_alloc(heap.cache, 700);
	cr_assert_eq(cached_bytes(heap.arena), 0, "the next cache gets them");
	hk_free_bulk(heap.cache, 86, blocks);
	hk_cache_flush(heap.cache);
	hk_arena_trim(heap.arena, 0, 0);
	cr_assert_eq(cached_bytes(heap.arena), 0);
	heap_close(&heap, 0);
}

/* A bounded queue between two threads; the errors are told after both have ended. */
static struct {
	struct heap heap;
	struct hk_cache *consumer_cache;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned char *queue[256];
	size_t head;
	size_t tail;
	size_t errors;
	size_t most_used;
} pipe_line;

#define PIPE_BLOCKS 100000

static size_t pipe_size(size_t index)
{
	return 8 + index * 7919 % 2040;
}

static void *produce(void *argument)
{
	size_t i;

	(void)argument;
	for (i = 0; i < PIPE_BLOCKS; i++) {
		unsigned char *block = hk_alloc(pipe_line.heap.cache, pipe_size(i));

		if (!block) {
			pipe_line.errors++;
			break;
		}
		block[0] = (unsigned char)i;
		block[pipe_size(i) - 1] = (unsigned char)(i >> 8);
		pthread_mutex_lock(&pipe_line.lock);
		while (pipe_line.head - pipe_line.tail == COUNT(pipe_line.queue))
			pthread_cond_wait(&pipe_line.changed, &pipe_line.lock);
		pipe_line.queue[pipe_line.head++ % COUNT(pipe_line.queue)] = block;
		pthread_cond_signal(&pipe_line.changed);
		pthread_mutex_unlock(&pipe_line.lock);
	}
	return NULL;
}

static void *consume(void *argument)
{
	size_t i;

	(void)argument;
	for (i = 0; i < PIPE_BLOCKS; i++) {
		unsigned char *block;

		pthread_mutex_lock(&pipe_line.lock);
		while (pipe_line.head == pipe_line.tail)
			pthread_cond_wait(&pipe_line.changed, &pipe_line.lock);
		block = pipe_line.queue[pipe_line.tail++ % COUNT(pipe_line.queue)];
		pthread_cond_signal(&pipe_line.changed);
		pthread_mutex_unlock(&pipe_line.lock);
		if (block[pipe_size(i) - 1] != (unsigned char)(i >> 8) ||
		    (pipe_size(i) > 1 && block[0] != (unsigned char)i))
			pipe_line.errors++;
		hk_free(pipe_line.consumer_cache, block);
		if (hk_arena_used(pipe_line.heap.arena) > pipe_line.most_used)
			pipe_line.most_used = hk_arena_used(pipe_line.heap.arena);
	}
	return NULL;
}

Test(cache, producer_and_consumer_take_bounded_memory, .timeout = 120)
{
	pthread_t threads[2];

	heap_open(&pipe_line.heap, 0);
	cr_assert_eq(hk_cache_create(pipe_line.heap.arena, &pipe_line.consumer_cache), 0);
	pthread_mutex_init(&pipe_line.lock, NULL);
	pthread_cond_init(&pipe_line.changed, NULL);
	cr_assert_eq(pthread_create(&threads[0], NULL, produce, NULL), 0);
	cr_assert_eq(pthread_create(&threads[1], NULL, consume, NULL), 0);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	cr_assert_eq(pipe_line.errors, 0);
	/* A hundred megabytes passed; what is under way and cached is a few. */
	cr_assert_leq(pipe_line.most_used, 16 * MIB, "%zu", pipe_line.most_used);
	hk_cache_destroy(pipe_line.consumer_cache);
	heap_close(&pipe_line.heap, 0);
}

Test(cache, no_more_than_the_config_allows)
{
	struct hk_arena_config config = { .address_space = 64 * MIB, .max_caches = 4 };
	struct hk_cache *caches[4];
	struct hk_cache *extra;
	struct hk_arena *arena;
	struct hk_stats stats;
	size_t used;
	size_t i;

	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	for (i = 0; i < COUNT(caches); i++)
		cr_assert_eq(hk_cache_create(arena, &caches[i]), 0);
	used = hk_arena_used(arena);
	for (i = 0; i < COUNT(caches); i++) {
		struct hk_cache *old = caches[i];

		extra = old;
		cr_assert_eq(hk_cache_create(arena, &extra), HK_ERROR_LIMIT);
		cr_assert_null(extra);
		hk_cache_destroy(caches[i]);
		hk_arena_stats(arena, &stats);
		cr_assert_eq(stats.cache_count, COUNT(caches) - 1);
		cr_assert_eq(hk_cache_create(arena, &caches[i]), 0);
		cr_assert_eq(caches[i], old, "the slot given up is the one taken");
		blocks[i] = hk_alloc(caches[i], 10);
		cr_assert_not_null(blocks[i]);
	}
	for (i = 0; i < COUNT(caches); i++)
		hk_free(caches[COUNT(caches) - 1 - i], blocks[i]);
	cr_assert_geq(hk_arena_used(arena), used);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_destroy(arena);
}

Test(cache, many_at_once_with_the_default)
{
	static struct hk_cache *caches[1024];
	struct hk_cache *extra;
	struct test_reports reports = { 0 };
	struct hk_arena *arena = test_arena(&reports, 0);
	size_t before;
	size_t taken;
	size_t i;

	for (i = 0; i < 24; i++)
		must(hk_cache_create(arena, &caches[i]) == 0, "cache %zu", i);
	before = hk_arena_used(arena);
	for (; i < COUNT(caches); i++)
		must(hk_cache_create(arena, &caches[i]) == 0, "cache %zu", i);
	taken = hk_arena_used(arena) - before;
	cr_assert_leq(taken, 1000 * 3 * KIB + 16 * KIB, "%zu bytes for 1000 caches", taken);
	cr_assert_eq(hk_cache_create(arena, &extra), HK_ERROR_LIMIT);
	for (i = 0; i < COUNT(caches); i++) {
		void *block = hk_alloc(caches[i], 64);

		must(block, "cache %zu", i);
		hk_free(caches[COUNT(caches) - 1 - i], block);
	}
	cr_assert_eq(hk_arena_check(arena), 0);
	for (i = 0; i < COUNT(caches); i++)
		hk_cache_destroy(caches[i]);
	cr_assert_eq(cached_bytes(arena), 0);
	cr_assert_eq(reports.count, 0);
	hk_arena_destroy(arena);
}

/* Allocates each size until NULL, frees all through the cache; nothing may need a magazine. */
static void starve(struct hk_cache *cache, size_t size)
{
	size_t count;
	size_t i;

	for (count = 0; count < COUNT(blocks); count++) {
		blocks[count] = hk_alloc(cache, size);
		if (!blocks[count])
			break;
		test_fill(blocks[count], size, count);
	}
	for (i = 0; i < count; i++) {
		must(test_holds(blocks[i], size, i), "size %zu", size);
		hk_free(cache, blocks[i]);
	}
	hk_cache_flush(cache);
}

/* Every limit from what an empty arena needs, page by page: cache, magazine, slab may lack. */
Test(cache, works_with_any_limit)
{
	static struct fault_platform fault;
	struct hk_arena_config config = { .platform = &fault.platform, .address_space = 64 * MIB };
	size_t limit = 4096;
	size_t served = 0;

	for (; limit <= 768 * KIB; limit += 4096) {
		struct hk_arena *arena;
		struct hk_cache *cache;
		struct hk_stats stats;
		void *block;
		int error;

		cr_assert_eq(fault_platform_init(&fault, NULL), 0);
		config.limit = limit;
		error = hk_arena_create(&arena, &config);
		if (error) {
			must(error == HK_ERROR_LIMIT && limit < 64 * KIB, "limit %zu: %s", limit,
			     hk_error_name(error));
			continue;
		}
		block = hk_arena_alloc(arena, 40);
		error = hk_cache_create(arena, &cache);
		hk_arena_free(arena, block);
		if (error) {
			must(error == HK_ERROR_LIMIT, "limit %zu: %s", limit, hk_error_name(error));
		} else {
			starve(cache, 48);
			starve(cache, 1000);
			starve(cache, 1500);
			starve(cache, 30000);
			starve(cache, 48);
			starve(cache, 200000);
			block = hk_alloc(cache, 16);
			served += block != NULL;
			hk_free(cache, block);
			hk_cache_flush(cache);
		}
		must(hk_arena_check(arena) == 0, "limit %zu", limit);
		hk_arena_stats(arena, &stats);
		must(stats.live_blocks == 0, "limit %zu", limit);
		must(fault.peak <= limit, "limit %zu: %zu", limit, fault.peak);
		hk_arena_destroy(arena);
		must(fault_platform_end(&fault) == 0, "limit %zu: %s", limit, fault.violation);
	}
	cr_assert_gt(served, 100);
}

/* All of the limit is in blocks; a cache that never had a magazine allocates what one frees. */
Test(cache, allocates_when_no_magazine_is_to_be_had)
{
	static void *held[60000];
	struct heap heap;
	size_t count;
	size_t i;

	heap_open(&heap, MIB);
	for (count = 0; count < COUNT(held); count++) {
		held[count] = hk_arena_alloc(heap.arena, 64);
		if (!held[count])
			break;
	}
	cr_assert(count > 1000 && count < COUNT(held), "%zu", count);
	for (i = 0; i < 100; i++)
		hk_arena_free(heap.arena, held[i]);
	for (i = 0; i < 100; i++) {
		held[i] = hk_alloc(heap.cache, 64);
		must(held[i], "block %zu", i);
	}
	for (i = 0; i < count; i++)
		hk_free(heap.cache, held[i]);
	heap_close(&heap, 1);
}

/* How many slabs can be had when blocks of many classes are in the magazines. */
static size_t slabs_left(struct heap *heap, bool flush)
{
	size_t i, count = 0;

	for (i = 0; i < 8 * (COLD_USES / 2 + 1); i++)
		hk_free(heap->cache, hk_alloc(heap->cache, 100 * (1 + i % 8)));
	cr_assert_gt(cached_bytes(heap->arena), 0);
	if (flush)
		hk_cache_flush(heap->cache);
	while ((blocks[count] = hk_alloc(heap->cache, 64 * KIB)) != NULL)
		count++;
	for (i = 0; i < count; i++)
		hk_free(heap->cache, blocks[i]);
	return count;
}

/* At the limit what the cache keeps makes room by itself: each of its classes holds a slab. */
Test(cache, its_blocks_make_room_at_the_limit)
{
	size_t count, flushed;
	struct heap heap;

	heap_open(&heap, MIB);
	count = slabs_left(&heap, false);
	hk_cache_flush(heap.cache);
	flushed = slabs_left(&heap, true);
	cr_assert_gt(count, 8);
	cr_assert_eq(count, flushed, "%zu, but %zu after a flush", count, flushed);
	heap_close(&heap, 2);
}

Test(cache, creation_tells_a_limit_from_a_platform_that_refuses)
{
	static struct fault_platform fault;
	struct hk_arena_config config = { .platform = &fault.platform, .address_space = 64 * MIB };
	struct hk_cache *cache = NULL;
	struct hk_arena *arena;
	size_t i;
	int error = 0;

	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	fault.fail_from = 1;
	for (i = 0; i < 100 && !error; i++)
		error = hk_cache_create(arena, &cache);
	cr_assert_eq(error, HK_ERROR_MEMORY, "%s", hk_error_name(error));
	cr_assert_null(cache);
	cr_assert_eq(hk_arena_check(arena), 0);
	fault_platform_rewind(&fault);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	hk_arena_destroy(arena);
	config.limit = 64 * KIB;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	for (i = 0, error = 0; i < 100 && !error; i++)
		error = hk_cache_create(arena, &cache);
	cr_assert_eq(error, HK_ERROR_LIMIT, "%s", hk_error_name(error));
	cr_assert_null(cache);
	hk_arena_destroy(arena);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}
