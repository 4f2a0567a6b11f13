/* SPDX-License-Identifier: MIT */
/* Allocation of every size and alignment, zeroed, in bulk; freeing with the size known. */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB ((size_t)1 << 20)

/* Not constants, so that the compiler does not warn of what is tried on purpose. */
static volatile size_t too_large = (size_t)PTRDIFF_MAX + 1;
static volatile size_t largest = PTRDIFF_MAX;

Test(alloc, classes_and_their_waste)
{
	size_t classes = 0;
	size_t previous = 0;
	size_t size = 1;
	size_t good;

	for (; size <= HK_CLASS_MAX; size = good + 1) {
		good = hk_good_size(size);
		must(good > previous && good >= size, "size %zu gives %zu", size, good);
		must(hk_good_size(good) == good, "bound %zu", good);
		must(good % 16 == 0, "bound %zu", good);
		if (good <= HK_SMALL_MAX)
			must(good - previous == 16, "bound %zu", good);
		else if (good <= HK_EIGHTH_MAX)
			must((good - size) * 8 <= size, "%zu for %zu", good, size);
		else
			must((good - size) * 5 <= good, "%zu for %zu", good, size);
		must(hk_size_class(size) == classes + 1, "size %zu", size);
		must(hk_size_class(good) == classes + 1, "size %zu", good);
		previous = good;
		classes++;
	}
	cr_assert_eq(previous, HK_CLASS_MAX);
	cr_assert_eq(classes, HK_CLASSES - 1);
}

Test(alloc, good_size_of_every_size)
{
	size_t size;

	for (size = 1; size <= HK_CLASS_MAX; size++) {
		size_t good = hk_good_size(size);

		must(good >= size && good - size < 131072, "size %zu gives %zu", size, good);
		must(hk_good_size(size - 1) <= good, "size %zu", size);
	}
	for (size = HK_CLASS_MAX + 1; size < 4 * MIB; size += 4093)
		must(hk_good_size(size) == ((size + 65535) & ~(size_t)65535), "size %zu", size);
	cr_assert_eq(hk_good_size(0), hk_good_size(1));
	cr_assert_geq(hk_good_size(PTRDIFF_MAX), (size_t)PTRDIFF_MAX);
	cr_assert_eq(hk_good_size(too_large), 0);
	cr_assert_eq(hk_good_size(SIZE_MAX), 0);
}

/* All edges live at once, through each door: no overlap, aligned, as large as promised. */
static void every_size(void *(*alloc)(struct heap *heap, size_t size),
		       void (*release)(struct heap *heap, void *ptr, size_t size))
{
	size_t sizes[EDGES_MAX];
	void *blocks[EDGES_MAX];
	size_t count = test_edges(sizes);
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < count; i++) {
		blocks[i] = alloc(&heap, sizes[i]);
		must(blocks[i], "size %zu", sizes[i]);
		must((uintptr_t)blocks[i] % 16 == 0, "size %zu at %p", sizes[i], blocks[i]);
		must(hk_usable_size(heap.arena, blocks[i]) == hk_good_size(sizes[i]), "size %zu",
		     sizes[i]);
		must(hk_arena_owns(heap.arena, blocks[i]), "size %zu", sizes[i]);
		test_fill(blocks[i], hk_good_size(sizes[i]), i);
	}
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	for (i = 0; i < count; i++)
		must(test_holds(blocks[i], hk_good_size(sizes[i]), i), "size %zu", sizes[i]);
	for (i = 0; i < count; i++)
		release(&heap, blocks[i], sizes[i]);
	heap_close(&heap, 0);
}

static void *by_cache(struct heap *heap, size_t size)
{
	return hk_alloc(heap->cache, size);
}

static void *by_arena(struct heap *heap, size_t size)
{
	return hk_arena_alloc(heap->arena, size);
}

static void *by_symbol(struct heap *heap, size_t size)
{
	return hk_alloc_fn(heap->cache, size);
}

static void *by_one_in_bulk(struct heap *heap, size_t size)
{
	void *block = heap;

	return hk_alloc_bulk(heap->cache, size, 1, &block) ? block : NULL;
}

static void to_cache(struct heap *heap, void *ptr, size_t size)
{
	(void)size;
	hk_free(heap->cache, ptr);
}

static void to_cache_sized(struct heap *heap, void *ptr, size_t size)
{
	hk_free_sized(heap->cache, ptr, size);
}

static void to_symbol(struct heap *heap, void *ptr, size_t size)
{
	(void)size;
	hk_free_fn(heap->cache, ptr);
}

static void to_symbol_sized(struct heap *heap, void *ptr, size_t size)
{
	hk_free_sized_fn(heap->cache, ptr, size);
}

static void to_arena(struct heap *heap, void *ptr, size_t size)
{
	(void)size;
	hk_arena_free(heap->arena, ptr);
}

Test(alloc, every_size)
{
	every_size(by_cache, to_cache);
}

Test(alloc, every_size_freed_with_its_size)
{
	every_size(by_cache, to_cache_sized);
}

Test(alloc, every_size_by_symbols)
{
	every_size(by_symbol, to_symbol);
}

Test(alloc, every_size_freed_with_its_size_by_symbol)
{
	every_size(by_symbol, to_symbol_sized);
}

Test(alloc, every_size_by_arena)
{
	every_size(by_arena, to_arena);
}

Test(alloc, every_size_bulk_of_one_to_arena)
{
	every_size(by_one_in_bulk, to_arena);
}

Test(alloc, every_size_by_arena_to_cache)
{
	every_size(by_arena, to_cache);
}

/* Constant sizes are folded into their class by the compiler, on a path of their own. */
#define CONSTANT_SIZE(heap, size)                                                                  \
	do {                                                                                       \
		void *first = hk_alloc((heap)->cache, (size));                                     \
		void *second = hk_alloc((heap)->cache, (size));                                    \
                                                                                                   \
		must(first &&second &&first != second, "size %zu", (size_t)(size));                \
		must(hk_usable_size((heap)->arena, first) == hk_good_size(size), "size %zu",       \
		     (size_t)(size));                                                              \
		hk_free_sized((heap)->cache, first, (size));                                       \
		hk_free_sized((heap)->cache, second, (size));                                      \
	} while (0)

Test(alloc, constant_sizes)
{
	struct heap heap;
	int round;

	heap_open(&heap, 0);
	for (round = 0; round < 3; round++) {
		CONSTANT_SIZE(&heap, 0);
		CONSTANT_SIZE(&heap, 1);
		CONSTANT_SIZE(&heap, 16);
		CONSTANT_SIZE(&heap, 17);
		CONSTANT_SIZE(&heap, 1008);
		CONSTANT_SIZE(&heap, 1009);
		CONSTANT_SIZE(&heap, 1024);
		CONSTANT_SIZE(&heap, 1025);
		CONSTANT_SIZE(&heap, 1152);
		CONSTANT_SIZE(&heap, 1153);
		CONSTANT_SIZE(&heap, 2048);
		CONSTANT_SIZE(&heap, 2049);
		CONSTANT_SIZE(&heap, 32768);
		CONSTANT_SIZE(&heap, 32769);
		CONSTANT_SIZE(&heap, 40960);
		CONSTANT_SIZE(&heap, 40961);
		CONSTANT_SIZE(&heap, 524288);
		CONSTANT_SIZE(&heap, 524289);
		CONSTANT_SIZE(&heap, 5000000);
	}
	heap_close(&heap, 0);
}

Test(alloc, null_is_freed_by_every_door)
{
	struct heap heap;
	void *nothing[3] = { NULL, NULL, NULL };

	heap_open(&heap, 0);
	hk_free(heap.cache, NULL);
	hk_free_fn(heap.cache, NULL);
	hk_free_sized(heap.cache, NULL, 0);
	hk_free_sized(heap.cache, NULL, 16);
	hk_free_sized(heap.cache, NULL, 2000);
	hk_free_sized(heap.cache, NULL, 2 * MIB);
	hk_free_sized_fn(heap.cache, NULL, 16);
	hk_arena_free(heap.arena, NULL);
	hk_free_bulk(heap.cache, 3, nothing);
	hk_free_bulk(heap.cache, 0, nothing);
	cr_assert_eq(hk_usable_size(heap.arena, NULL), 0);
	heap_close(&heap, 0);
}

Test(alloc, size_zero_is_a_block_of_its_own)
{
	struct heap heap;
	void *blocks[100];
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < COUNT(blocks); i++) {
		blocks[i] = hk_alloc(heap.cache, 0);
		must(blocks[i], "block %zu", i);
		memset(blocks[i], (int)i, hk_usable_size(heap.arena, blocks[i]));
	}
	for (i = 0; i < COUNT(blocks); i++)
		must(*(unsigned char *)blocks[i] == i, "block %zu was given twice", i);
	cr_assert_eq(heap_live_blocks(&heap), COUNT(blocks));
	hk_free_bulk(heap.cache, COUNT(blocks), blocks);
	heap_close(&heap, 0);
}

static void try_size(struct heap *heap, size_t size, enum hk_fault fault)
{
	void *kept = hk_alloc(heap->cache, 100);
	void *blocks[2] = { kept, kept };
	size_t before;

	test_fill(kept, 100, 1);
	before = heap->reports.by_fault[fault];
	cr_assert_null(hk_alloc(heap->cache, size));
	cr_assert_null(hk_alloc_fn(heap->cache, size));
	cr_assert_null(hk_zalloc(heap->cache, size));
	cr_assert_null(hk_alloc_aligned(heap->cache, size, 64));
	cr_assert_null(hk_realloc(heap->cache, NULL, size));
	cr_assert_null(hk_realloc(heap->cache, kept, size));
	cr_assert_null(hk_realloc_aligned(heap->cache, NULL, size, 64));
	cr_assert_null(hk_realloc_aligned(heap->cache, kept, size, 64));
	cr_assert_null(hk_arena_alloc(heap->arena, size));
	cr_assert_not(hk_alloc_bulk(heap->cache, size, 2, blocks));
	cr_assert(!blocks[0] && !blocks[1]);
	cr_assert_eq(heap->reports.by_fault[fault] - before, 10, "%zu reports of %s",
		     heap->reports.by_fault[fault] - before, hk_fault_name(fault));
	cr_assert_eq(heap->reports.last.size, size);
	cr_assert_eq(heap->reports.count, heap->reports.by_fault[fault]);
	cr_assert_not(hk_expand(heap->cache, kept, size));
	cr_assert(test_holds(kept, 100, 1));
	cr_assert_eq(hk_usable_size(heap->arena, kept), hk_good_size(100));
	hk_free(heap->cache, kept);
}

Test(alloc, sizes_beyond_ptrdiff_max_are_refused)
{
	struct heap heap;

	heap_open(&heap, 0);
	try_size(&heap, too_large, HK_FAULT_ARGUMENT);
	try_size(&heap, SIZE_MAX, HK_FAULT_ARGUMENT);
	try_size(&heap, SIZE_MAX - 15, HK_FAULT_ARGUMENT);
	heap_close(&heap, heap.reports.count);
}

Test(alloc, sizes_beyond_the_range_are_exhaustion)
{
	struct heap heap;

	heap_open(&heap, 0);
	try_size(&heap, largest, HK_FAULT_EXHAUSTED);
	try_size(&heap, (size_t)1 << 40, HK_FAULT_EXHAUSTED);
	try_size(&heap, (size_t)1 << 30, HK_FAULT_EXHAUSTED);
	heap_close(&heap, heap.reports.count);
}

static void aligned(struct heap *heap, size_t size, size_t align)
{
	unsigned char *block = hk_alloc_aligned(heap->cache, size, align);
	size_t usable = hk_usable_size(heap->arena, block);

	must(block, "size %zu align %zu", size, align);
	must((uintptr_t)block % align == 0 && (uintptr_t)block % 16 == 0, "size %zu align %zu: %p",
	     size, align, (void *)block);
	must(usable >= size, "size %zu align %zu: %zu", size, align, usable);
	memset(block, 0x5a, size);
	hk_free(heap->cache, block);
}

Test(alloc, aligned_to_every_power_of_two)
{
	static const size_t sizes[] = {
		0,     1,     16,    17,    48,	   100,	   1000,   1024,   1025,   4096,    5000,
		20000, 32768, 32769, 65536, 70000, 131073, 400000, 524288, 524289, 1048577, 3000000,
	};
	struct heap heap;
	size_t align;
	size_t i;

	heap_open(&heap, 0);
	for (align = 1; align <= 64 * MIB; align *= 2) {
		for (i = 0; i < COUNT(sizes); i++)
			aligned(&heap, sizes[i], align);
		must(hk_arena_check(heap.arena) == 0, "align %zu", align);
	}
	heap_close(&heap, 0);
}

/* Many at once, so that not the first place alone is right, and none lies in another. */
Test(alloc, aligned_blocks_do_not_overlap)
{
	static unsigned char *blocks[600];
	static size_t sizes[COUNT(blocks)];
	uint64_t seed = 7;
	struct heap heap;
	size_t i;

	heap_open(&heap, 0);
	for (i = 0; i < COUNT(blocks); i++) {
		size_t align = (size_t)1 << test_random(&seed) % 18;

		sizes[i] = (size_t)(test_random(&seed) % 3000) << test_random(&seed) % 6;
		blocks[i] = hk_alloc_aligned(heap.cache, sizes[i], align);
		must(blocks[i] && (uintptr_t)blocks[i] % align == 0, "block %zu", i);
		test_fill(blocks[i], sizes[i], i);
	}
	cr_assert_eq(hk_arena_check(heap.arena), 0);
	for (i = 0; i < COUNT(blocks); i++) {
		must(test_holds(blocks[i], sizes[i], i), "block %zu", i);
		hk_free(heap.cache, blocks[i]);
	}
	heap_close(&heap, 0);
}

Test(alloc, alignment_that_is_no_power_of_two_is_refused)
{
	static const size_t aligns[] = { 0, 3, 24, 48, 4095, 4097, 3 << 20, SIZE_MAX };
	struct heap heap;
	void *kept;
	size_t i;

	heap_open(&heap, 0);
	kept = hk_alloc(heap.cache, 50);
	test_fill(kept, 50, 3);
	for (i = 0; i < COUNT(aligns); i++) {
		volatile size_t align = aligns[i];
		void *volatile block = hk_alloc_aligned(heap.cache, 100, align);

		cr_assert_null(block, "align %zu", align);
		block = hk_realloc_aligned(heap.cache, kept, 20, align);
		cr_assert_null(block, "align %zu", align);
		cr_assert_eq(heap.reports.by_fault[HK_FAULT_ARGUMENT], 2 * i + 2, "align %zu",
			     align);
	}
	cr_assert(test_holds(kept, 50, 3));
	hk_free(heap.cache, kept);
	heap_close(&heap, 2 * COUNT(aligns));
}

/* No user address is a multiple of these but 0. */
Test(alloc, alignment_without_room_gives_null_and_no_trap)
{
	struct hk_arena *arena = test_arena(NULL, 0);
	struct hk_cache *cache;
	void *block;
	size_t shift;

	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	for (shift = sizeof(size_t) * 8 - 17; shift < sizeof(size_t) * 8; shift++)
		cr_assert_null(hk_alloc_aligned(cache, 100, (size_t)1 << shift));
	block = hk_alloc_aligned(cache, 100, 4096);
	cr_assert_not_null(block);
	hk_free(cache, block);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_destroy(arena);
}

static bool all_zero(const unsigned char *bytes, size_t size)
{
	return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static size_t zeroed_wanted(size_t size)
{
	return size <= 4096 ? 80 : size <= 65536 ? 12 : 3;
}

/* Dirties blocks, gives them back as @back says, and wants zeroes from the same places. */
static void zero_after(const struct hk_platform *platform, void (*back)(struct heap *heap))
{
	struct hk_arena_config config = {
		.address_space = 256 * MIB,
		.platform = platform,
		.on_report = test_on_report,
	};
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	unsigned char *blocks[80];
	struct heap heap;
	size_t i;
	size_t j;

	memset(&heap, 0, sizeof(heap));
	config.context = &heap.reports;
	cr_assert_eq(hk_arena_create(&heap.arena, &config), 0);
	cr_assert_eq(hk_cache_create(heap.arena, &heap.cache), 0);
	for (i = 0; i < count; i += 2) {
		for (j = 0; j < zeroed_wanted(sizes[i]); j++) {
			blocks[j] = hk_alloc(heap.cache, sizes[i]);
			must(blocks[j], "size %zu", sizes[i]);
			memset(blocks[j], 0xa5, hk_good_size(sizes[i]));
		}
		for (j = 0; j < zeroed_wanted(sizes[i]); j++)
			hk_free(heap.cache, blocks[j]);
		back(&heap);
		for (j = 0; j < zeroed_wanted(sizes[i]); j++) {
			blocks[j] = hk_zalloc(heap.cache, sizes[i]);
			must(blocks[j], "size %zu", sizes[i]);
			must(all_zero(blocks[j], sizes[i]), "size %zu, block %zu", sizes[i], j);
			memset(blocks[j], 0x5a, hk_good_size(sizes[i]));
		}
		for (j = 0; j < zeroed_wanted(sizes[i]); j++)
			hk_free(heap.cache, blocks[j]);
	}
	heap_close(&heap, 0);
}

static void back_to_magazines(struct heap *heap)
{
	(void)heap;
}

static void back_to_slabs(struct heap *heap)
{
	hk_cache_flush(heap->cache);
}

static void back_by_reset(struct heap *heap)
{
	hk_arena_reset(heap->arena);
}

static void back_to_platform(struct heap *heap)
{
	hk_cache_flush(heap->cache);
	hk_arena_trim(heap->arena, 0, 0);
}

Test(alloc, zalloc_of_recycled_blocks)
{
	zero_after(NULL, back_to_magazines);
}

Test(alloc, zalloc_after_flush)
{
	zero_after(NULL, back_to_slabs);
}

Test(alloc, zalloc_after_reset)
{
	zero_after(NULL, back_by_reset);
}

Test(alloc, zalloc_after_trim)
{
	zero_after(NULL, back_to_platform);
}

Test(alloc, zalloc_where_fresh_memory_is_garbage)
{
	static struct fault_platform fault;

	cr_assert_eq(fault_platform_init(&fault, &(struct fault_options){ .garbage = true }), 0);
	zero_after(&fault.platform, back_to_platform);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* The host's own memory is as dirty as it comes, and stays so when it is given back. */
Test(alloc, zalloc_in_a_dirty_region)
{
	static unsigned char memory[64 << 20];
	struct hk_fixed_region region = { .memory = memory, .size = sizeof(memory) };
	struct hk_platform platform;
	struct hk_arena *arena;
	struct hk_cache *cache;
	size_t sizes[EDGES_MAX];
	size_t count = test_edges(sizes);
	size_t i;

	memset(memory, 0xa5, sizeof(memory));
	cr_assert_eq(hk_platform_fixed(&platform, &region), 0);
	cr_assert_eq(hk_arena_create(&arena, &(struct hk_arena_config){ .platform = &platform }),
		     0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	for (i = 0; i < count; i++) {
		unsigned char *block = hk_zalloc(cache, sizes[i]);

		must(block, "size %zu", sizes[i]);
		must(all_zero(block, sizes[i]), "size %zu", sizes[i]);
	}
	hk_arena_reset(arena);
	hk_arena_destroy(arena);
}

static long faults_taken(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

Test(alloc, fresh_large_zalloc_touches_no_page)
{
	struct heap heap;
	unsigned char *block;
	long before;
	long after;

	heap_open(&heap, 0);
	before = faults_taken();
	block = hk_zalloc(heap.cache, 64 * MIB);
	after = faults_taken();
	cr_assert_not_null(block);
	cr_assert_lt(after - before, 100, "%ld page faults", after - before);
	cr_assert(block[0] == 0 && block[32 * MIB] == 0 && block[64 * MIB - 1] == 0);
	hk_free(heap.cache, block);
	heap_close(&heap, 0);
}
