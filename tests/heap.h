/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the public functions share: an arena with one cache that must be clean at
 * the end, and the sizes at which something changes.
 */
#ifndef TESTS_HEAP_H
#define TESTS_HEAP_H

#include "helper.h"

/* For loops: Criterion's own assertions cost a message each, passed or not. */
#define must(cond, ...)                                                                            \
	do {                                                                                       \
		if (!(cond))                                                                       \
			cr_assert_fail(__VA_ARGS__);                                               \
	} while (0)

struct heap {
	struct test_reports reports;
	struct hk_arena *arena;
	struct hk_cache *cache;
};

TEST_HELPER void heap_open(struct heap *heap, size_t limit)
{
	memset(heap, 0, sizeof(*heap));
	heap->arena = test_arena(&heap->reports, limit);
	cr_assert_eq(hk_cache_create(heap->arena, &heap->cache), 0);
	cr_assert_not_null(heap->cache);
}

TEST_HELPER size_t heap_live_blocks(const struct heap *heap)
{
	struct hk_stats stats;

	hk_arena_stats(heap->arena, &stats);
	return stats.live_blocks;
}

/* All blocks must have been freed, no fault reported but @faults that the test expected. */
TEST_HELPER void heap_close(struct heap *heap, size_t faults)
{
	hk_cache_flush(heap->cache);
	cr_assert_eq(hk_arena_check(heap->arena), 0, "%s", heap->reports.last.what);
	cr_assert_eq(heap_live_blocks(heap), 0, "%zu blocks leaked", heap_live_blocks(heap));
	cr_assert_eq(heap->reports.count, faults, "%zu reports, %zu expected, the last: %s",
		     heap->reports.count, faults, heap->reports.last.what);
	hk_arena_destroy(heap->arena);
	cr_assert_eq(heap->reports.count, faults, "destroy reported");
}

#define EDGES_MAX 400

/*
 * 0, 1, each class bound with its neighbours, and what lies beyond the classes up to 8 MiB.
 * The bounds are found by hk_good_size(), so that a wrong table shows in the tests of it.
 */
TEST_HELPER size_t test_edges(size_t sizes[EDGES_MAX])
{
	static const size_t large[] = {
		HK_CLASS_MAX + 1,
		589823,
		589824,
		589825,
		((size_t)1 << 20) - 1,
		(size_t)1 << 20,
		((size_t)1 << 20) + 1,
		(size_t)3 << 20,
		((size_t)2 << 20) - 1,
		(size_t)2 << 20,
		((size_t)2 << 20) + 1,
		(size_t)8 << 20,
	};
	size_t count = 0;
	size_t bound;
	size_t i;

	sizes[count++] = 0;
	sizes[count++] = 1;
	for (bound = hk_good_size(1); bound <= HK_CLASS_MAX; bound = hk_good_size(bound + 1)) {
		must(count + 3 < EDGES_MAX - sizeof(large) / sizeof(large[0]), "too many classes");
		sizes[count++] = bound - 1;
		sizes[count++] = bound;
		if (bound < HK_CLASS_MAX)
			sizes[count++] = bound + 1;
	}
	for (i = 0; i < sizeof(large) / sizeof(large[0]); i++)
		sizes[count++] = large[i];
	return count;
}

#endif /* TESTS_HEAP_H */
