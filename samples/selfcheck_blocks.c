/* SPDX-License-Identifier: MIT */
/*
 * selfcheck: allocating and freeing, sizes and classes.
 */
#include "selfcheck.h"

#define TOO_LARGE ((size_t)PTRDIFF_MAX + 1)

typedef void *(*alloc_function)(struct hk_cache *cache, size_t size);
typedef void (*free_sized_function)(struct hk_cache *cache, void *ptr, size_t size);

static void *alloc_inline(struct hk_cache *cache, size_t size)
{
	return hk_alloc(cache, size);
}

static void free_sized_inline(struct hk_cache *cache, void *ptr, size_t size)
{
	hk_free_sized(cache, ptr, size);
}

/* Two blocks of each size at the edges: own memory, aligned, as large as they should be. */
static void check_alloc(const struct self_options *options, alloc_function alloc)
{
	struct hk_counters before, after;
	struct self_arena self;
	void *first, *second;
	size_t i, size;

	if (!self_open(&self, options))
		return;
	before = self_counters(&self);
	for (i = 0; i < SELF_EDGES; i++) {
		size = self_edges[i];
		first = alloc(self.cache, size);
		second = alloc(self.cache, size);
		if (!CHECK(first && second))
			break;
		CHECK(self_aligned(first, 16) && self_aligned(second, 16));
		self_fill(first, hk_usable_size(self.arena, first), 1);
		self_fill(second, hk_usable_size(self.arena, second), 2);
		CHECK(self_holds(first, hk_usable_size(self.arena, first), 1));
		CHECK(hk_usable_size(self.arena, first) == hk_good_size(size));
		CHECK(self_live(&self) == 2);
		hk_free(self.cache, first);
		hk_free(self.cache, second);
	}
	after = self_counters(&self);
	CHECK(after.slab_batch > before.slab_batch);
	CHECK(after.large_alloc > before.large_alloc);
	CHECK(self.count == 0);

	CHECK(!alloc(self.cache, self_hidden(TOO_LARGE)));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	CHECK(self.last.size == TOO_LARGE);
	CHECK(!alloc(self.cache, self_hidden(SIZE_MAX)));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	CHECK(!alloc(self.cache, self_hidden(PTRDIFF_MAX)));
	CHECK(self_reported(&self, HK_FAULT_EXHAUSTED, NULL));
	self_close(&self);
}

static void run_alloc(const struct self_options *options)
{
	struct self_arena self;
	void *a, *b, *c;

	check_alloc(options, alloc_inline);

	/* Sizes that the compiler knows take a path of their own. */
	if (!self_open(&self, options))
		return;
	a = hk_alloc(self.cache, 1024);
	b = hk_alloc(self.cache, 1025);
	c = hk_alloc(self.cache, 524288);
	if (CHECK(a && b && c)) {
		CHECK(hk_usable_size(self.arena, a) == 1024);
		CHECK(hk_usable_size(self.arena, b) == 1152);
		CHECK(hk_usable_size(self.arena, c) == 524288);
	}
	hk_free_sized(self.cache, a, 1024);
	hk_free_sized(self.cache, b, 1025);
	hk_free_sized(self.cache, c, 524288);
	self_close(&self);
}

static void run_alloc_fn(const struct self_options *options)
{
	check_alloc(options, hk_alloc_fn);
}

/* Where hk_alloc() goes when the magazine is empty, for what is above 1 KiB, and beyond. */
static void run_alloc_slow(const struct self_options *options)
{
	struct self_arena self;
	void *blocks[SELF_EDGES];
	size_t i;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < SELF_EDGES; i++) {
		hk_cache_flush(self.cache);
		CHECK(self_cached(&self) == 0);
		blocks[i] = hk_alloc_slow(self.cache, self_edges[i]);
		if (!CHECK(blocks[i]))
			continue;
		CHECK(hk_usable_size(self.arena, blocks[i]) == hk_good_size(self_edges[i]));
		self_fill(blocks[i], hk_good_size(self_edges[i]), i);
	}
	for (i = 0; i < SELF_EDGES; i++) {
		CHECK(!blocks[i] || self_holds(blocks[i], hk_good_size(self_edges[i]), i));
		hk_free(self.cache, blocks[i]);
	}
	CHECK(!hk_alloc_slow(self.cache, self_hidden(TOO_LARGE)));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	self_close(&self);
}

/* Blocks of all classes at once, each stamped, freed in another order than allocated. */
static void check_free(const struct self_options *options,
		       void (*release)(struct hk_cache *cache, void *ptr))
{
	enum {
		COUNT = 2000
	};
	struct hk_counters before, after;
	struct self_arena self;
	uint64_t random = 7;
	void *blocks[COUNT];
	size_t sizes[COUNT];
	size_t i, j, bad;
	int local = 0;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < COUNT; i++) {
		sizes[i] = (size_t)(self_random(&random) % (i % 50 ? 1500 : 70000));
		blocks[i] = hk_alloc(self.cache, sizes[i]);
		if (!blocks[i])
			break;
		self_fill(blocks[i], sizes[i], i);
	}
	CHECK(i == COUNT);
	CHECK(self_live(&self) == i);
	before = self_counters(&self);
	bad = 0;
	for (j = 0; j < i; j++) {
		size_t k = (j * 7) % COUNT;

		if (k >= i)
			continue;
		bad += !self_holds(blocks[k], sizes[k], k);
		release(self.cache, blocks[k]);
	}
	CHECK(bad == 0);
	CHECK(self_live(&self) == 0 || i < COUNT);
	after = self_counters(&self);
	CHECK(after.magazine_to_depot > before.magazine_to_depot);

	release(self.cache, NULL);
	CHECK(self_counters(&self).free_null == after.free_null + 1);
	CHECK(self.count == 0);
	release(self.cache, self_hidden_pointer(&local));
	CHECK(self_reported(&self, HK_FAULT_FOREIGN, &local));
	CHECK(self_counters(&self).refused == after.refused + 1);
	self_close(&self);
}

static void free_inline(struct hk_cache *cache, void *ptr)
{
	hk_free(cache, ptr);
}

/* What is wrong within a slab shows when the block gets there, the rest of it goes on. */
static void check_misuse(const struct self_options *options)
{
	struct self_arena self;
	unsigned char *block, *neighbour, *large;

	if (!self_open(&self, options))
		return;
	block = hk_alloc(self.cache, 100);
	neighbour = hk_alloc(self.cache, 100);
	large = hk_alloc(self.cache, 3 * SELF_MIB);
	if (!CHECK(block && neighbour && large))
		goto out_close;

	hk_free(self.cache, self_hidden_pointer(block + 16));
	hk_cache_flush(self.cache);
	CHECK(self_reported(&self, HK_FAULT_INTERIOR, block + 16));
	CHECK(self.last.size_class == hk_size_class(100));
	CHECK(self_live(&self) == 3);
	hk_free(self.cache, self_hidden_pointer(block + 1));
	hk_cache_flush(self.cache);
	CHECK(self_reported(&self, HK_FAULT_INTERIOR, block + 1));
	hk_free(self.cache, self_hidden_pointer(block));
	hk_free(self.cache, self_hidden_pointer(block));
	hk_cache_flush(self.cache);
	CHECK(self_reported(&self, HK_FAULT_DOUBLE_FREE, block));
	CHECK(self.last.size == hk_good_size(100));
	CHECK(self_live(&self) == 2);
	hk_free(self.cache, neighbour);

	hk_free(self.cache, self_hidden_pointer(large + 16));
	CHECK(self_reported(&self, HK_FAULT_INTERIOR, large + 16));
	hk_free(self.cache, self_hidden_pointer(large + SELF_MIB));
	CHECK(self_reported(&self, HK_FAULT_INTERIOR, large + SELF_MIB));
	hk_free(self.cache, self_hidden_pointer(large));
	CHECK(self.count == 0);
	/* Its slabs hold no block any more, so that nobody can tell what it was. */
	hk_free(self.cache, self_hidden_pointer(large));
	CHECK(self.count == 1);
	CHECK(self.last.fault == HK_FAULT_FOREIGN || self.last.fault == HK_FAULT_DOUBLE_FREE);
	CHECK(self.last.address == large);
	self.count = 0;
	CHECK(hk_arena_check(self.arena) == 0);
	CHECK(self_live(&self) == 0);
out_close:
	self_close(&self);
}

static void run_free(const struct self_options *options)
{
	check_free(options, free_inline);
	check_misuse(options);
}

static void run_free_fn(const struct self_options *options)
{
	check_free(options, hk_free_fn);
}

/* Called as hk_free() does: when the magazine is full or the pointer is not a class's. */
static void run_free_slow(const struct self_options *options)
{
	struct hk_counters before, after;
	struct self_arena self;
	void *blocks[100];
	void *large;
	size_t i;

	if (!self_open(&self, options))
		return;
	large = hk_alloc(self.cache, 2 * SELF_MIB);
	for (i = 0; i < 100; i++)
		blocks[i] = hk_alloc(self.cache, 48);
	CHECK(self_live(&self) == 101);
	before = self_counters(&self);
	for (i = 0; i < 100; i++)
		hk_free(self.cache, blocks[i]);
	hk_free_slow(self.cache, large);
	after = self_counters(&self);
	CHECK(self_live(&self) == 0);
	CHECK(after.magazine_to_depot > before.magazine_to_depot);
	CHECK(after.large_free == before.large_free + 1);
	hk_free_slow(self.cache, NULL);
	CHECK(self_counters(&self).free_null == after.free_null + 1);
	self_close(&self);
}

static void check_free_sized(const struct self_options *options, free_sized_function release)
{
	struct self_arena self;
	void *blocks[SELF_EDGES];
	size_t i, size;
	int local = 0;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < SELF_EDGES; i++)
		blocks[i] = hk_alloc(self.cache, self_edges[i]);
	CHECK(self_live(&self) == SELF_EDGES);
	for (i = 0; i < SELF_EDGES; i++)
		release(self.cache, blocks[i], self_edges[i]);
	CHECK(self_live(&self) == 0);

	/* The size that counts is the last one asked for, in place or moved. */
	for (i = 0; i < SELF_EDGES; i++) {
		size = self_edges[SELF_EDGES - 1 - i];
		blocks[i] = hk_realloc(self.cache, hk_alloc(self.cache, self_edges[i]), size);
		release(self.cache, blocks[i], size);
	}
	CHECK(self_live(&self) == 0);
	release(self.cache, NULL, 16);
	CHECK(self.count == 0);
	release(self.cache, self_hidden_pointer(&local), sizeof(local));
	CHECK(self_reported(&self, HK_FAULT_FOREIGN, &local));
	hk_cache_flush(self.cache);
	CHECK(hk_arena_check(self.arena) == 0);
	self_close(&self);
}

static void run_free_sized(const struct self_options *options)
{
	check_free_sized(options, free_sized_inline);
}

static void run_free_sized_fn(const struct self_options *options)
{
	check_free_sized(options, hk_free_sized_fn);
}

/* Where hk_free_sized() always goes in a host's debug build: it checks the size. */
static void run_free_sized_slow(const struct self_options *options)
{
	struct self_arena self;
	void *block;

	check_free_sized(options, hk_free_sized_slow);
	if (!self_open(&self, options))
		return;
	block = hk_alloc(self.cache, 100);
	hk_free_sized_slow(self.cache, block, 200);
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, block));
	CHECK(self_live(&self) == 1);
	hk_free_sized_slow(self.cache, block, 100);
	CHECK(self_live(&self) == 0);
	self_close(&self);
}

static void run_zalloc(const struct self_options *options)
{
	enum {
		COUNT = 40
	};
	struct self_arena self;
	void *blocks[COUNT];
	size_t i, j, count, size, bad;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < SELF_EDGES; i++) {
		size = self_edges[i];
		count = size > 100000 ? 2 : COUNT;
		for (j = 0; j < count; j++) {
			blocks[j] = hk_alloc(self.cache, size);
			if (blocks[j])
				self_fill(blocks[j], hk_usable_size(self.arena, blocks[j]), j);
		}
		hk_free_bulk(self.cache, count, blocks);
		bad = 0;
		for (j = 0; j < count; j++) {
			blocks[j] = hk_zalloc(self.cache, size);
			bad += !blocks[j] || !self_is_zero(blocks[j], size);
			if (blocks[j])
				self_fill(blocks[j], size, j);
		}
		CHECK(bad == 0);
		if (i % 2)
			hk_free_bulk(self.cache, count, blocks);
		else
			hk_arena_reset(self.arena);
		if (i % 3 == 0)
			hk_arena_trim(self.arena, 0, 0);
	}
	CHECK(!hk_zalloc(self.cache, self_hidden(TOO_LARGE)));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	CHECK(!hk_zalloc(self.cache, self_hidden(PTRDIFF_MAX)));
	CHECK(self_reported(&self, HK_FAULT_EXHAUSTED, NULL));
	self_close(&self);
}

static void run_alloc_aligned(const struct self_options *options)
{
	static const size_t sizes[] = { 0, 1, 100, 4096, 70000, 600000, 3000000 };
	struct self_arena self;
	size_t align, i, wrong;
	void *first, *second;

	if (!self_open(&self, options))
		return;
	for (align = 1; align <= 4 * SELF_MIB; align *= 2) {
		for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			first = hk_alloc_aligned(self.cache, sizes[i], align);
			second = hk_alloc_aligned(self.cache, sizes[i], align);
			if (!CHECK(first && second))
				goto out_close;
			CHECK(self_aligned(first, align < 16 ? 16 : align));
			CHECK(self_aligned(second, align < 16 ? 16 : align));
			CHECK(hk_usable_size(self.arena, first) >= sizes[i]);
			self_fill(first, sizes[i], 1);
			self_fill(second, sizes[i], 2);
			CHECK(self_holds(first, sizes[i], 1));
			hk_free(self.cache, first);
			hk_free(self.cache, second);
		}
	}
	CHECK(self_live(&self) == 0 && self.count == 0);
	for (wrong = 3; wrong < 100; wrong = wrong * 2 + 1) {
		CHECK(!hk_alloc_aligned(self.cache, 100, self_hidden(wrong)));
		CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	}
	CHECK(!hk_alloc_aligned(self.cache, self_hidden(TOO_LARGE), 64));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	/* No address of the range is such a multiple; whether that is reported is left open. */
	CHECK(!hk_alloc_aligned(self.cache, 100, self_hidden(TOO_LARGE)));
	self.count = 0;
out_close:
	hk_cache_flush(self.cache);
	self_close(&self);
}

static void run_alloc_bulk(const struct self_options *options)
{
	static const size_t counts[] = { 0, 1, 31, 32, 33, 64, 1000 };
	static const size_t sizes[] = { 0, 16, 48, 1024, 5000, 100000, 600000 };
	enum {
		MOST = 4000
	};
	struct self_arena self;
	void *blocks[MOST];
	size_t i, j, k, count, bad;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (j = 0; j < sizeof(counts) / sizeof(counts[0]); j++) {
			count = counts[j];
			if (count > 33 && sizes[i] > 5000)
				continue;
			if (sizes[i] * count > options->address_space / 4)
				continue;
			if (!CHECK(hk_alloc_bulk(self.cache, sizes[i], count, blocks)))
				continue;
			CHECK(self_live(&self) == count);
			bad = 0;
			for (k = 0; k < count; k++) {
				bad += !self_aligned(blocks[k], 16);
				self_fill(blocks[k], hk_good_size(sizes[i]), k);
			}
			for (k = 0; k < count; k++)
				bad += !self_holds(blocks[k], hk_good_size(sizes[i]), k);
			CHECK(bad == 0);
			hk_free_bulk(self.cache, count, blocks);
			CHECK(self_live(&self) == 0);
		}
	}
	for (k = 0; k < 5; k++)
		blocks[k] = &self;
	CHECK(!hk_alloc_bulk(self.cache, self_hidden(TOO_LARGE), 5, blocks));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
	for (k = 0; k < 5; k++)
		CHECK(!blocks[k]);
	self_close(&self);

	/* All or nothing: half of it fits, so none is given. */
	if (!self_open_config(&self, options, (struct hk_arena_config){ .limit = 2 * SELF_MIB }))
		return;
	blocks[MOST - 1] = &self;
	CHECK(!hk_alloc_bulk(self.cache, 1024, MOST, blocks));
	CHECK(self_reported(&self, HK_FAULT_EXHAUSTED, NULL));
	CHECK(self_live(&self) == 0);
	bad = 0;
	for (k = 0; k < MOST; k++)
		bad += blocks[k] != NULL;
	CHECK(bad == 0);
	if (CHECK(hk_alloc_bulk(self.cache, 1024, MOST / 4, blocks)))
		hk_free_bulk(self.cache, MOST / 4, blocks);
	self_close(&self);
}

static void run_free_bulk(const struct self_options *options)
{
	struct self_arena self;
	void *blocks[SELF_EDGES * 3];
	size_t i;
	int local = 0;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < SELF_EDGES * 3; i++)
		blocks[i] = i % 3 == 2 ? NULL : hk_alloc(self.cache, self_edges[i / 3]);
	CHECK(self_live(&self) == SELF_EDGES * 2);
	hk_free_bulk(self.cache, 0, blocks);
	CHECK(self_live(&self) == SELF_EDGES * 2);
	hk_free_bulk(self.cache, SELF_EDGES * 3, blocks);
	CHECK(self_live(&self) == 0);
	blocks[0] = hk_alloc(self.cache, 10);
	blocks[1] = self_hidden_pointer(&local);
	blocks[2] = hk_alloc(self.cache, 10);
	hk_free_bulk(self.cache, 3, blocks);
	CHECK(self_reported(&self, HK_FAULT_FOREIGN, &local));
	CHECK(self_live(&self) == 0);
	self_close(&self);
}

static void run_good_size(const struct self_options *options)
{
	size_t size, good, before = 0, bad = 0, step;

	(void)options;
	CHECK(hk_good_size(0) == 16);
	CHECK(hk_good_size(16) == 16 && hk_good_size(17) == 32);
	CHECK(hk_good_size(HK_SMALL_MAX + 1) == 1152);
	CHECK(hk_good_size(HK_EIGHTH_MAX + 1) == 40960);
	CHECK(hk_good_size(HK_CLASS_MAX) == HK_CLASS_MAX);
	CHECK(hk_good_size(HK_CLASS_MAX + 1) == HK_CLASS_MAX + 65536);
	CHECK(hk_good_size(TOO_LARGE) == 0);
	CHECK(hk_good_size(SIZE_MAX) == 0);
	CHECK(hk_good_size(PTRDIFF_MAX) >= PTRDIFF_MAX);
	for (size = 1; size <= HK_CLASS_MAX + 200000; size++) {
		good = hk_good_size(size);
		bad += good < size || good < before || good % 16 || hk_good_size(good) != good;
		if (size <= HK_SMALL_MAX)
			step = 16;
		else if (size <= HK_EIGHTH_MAX)
			step = good / 9 + 1;
		else
			step = size <= HK_CLASS_MAX ? good / 5 + 1 : 65536;
		bad += good - size >= step;
		before = good;
	}
	CHECK(bad == 0);
}

static void run_size_class(const struct self_options *options)
{
	unsigned size_class, before = 0;
	size_t size, bad = 0;

	(void)options;
	CHECK(hk_size_class(1) == 1 && hk_size_class(16) == 1 && hk_size_class(17) == 2);
	CHECK(hk_size_class(HK_SMALL_MAX) == HK_SMALL_MAX / 16);
	CHECK(hk_size_class(HK_CLASS_MAX) == HK_CLASSES - 1);
	for (size = 1; size <= HK_CLASS_MAX; size++) {
		size_class = hk_size_class(size);
		bad += size_class != before && size_class != before + 1;
		bad += hk_size_class(hk_good_size(size)) != size_class;
		before = size_class;
	}
	CHECK(bad == 0);
}

static void run_usable_size(const struct self_options *options)
{
	struct self_arena self;
	unsigned char *block;
	int local = 0;
	size_t i;

	if (!self_open(&self, options))
		return;
	CHECK(hk_usable_size(self.arena, NULL) == 0);
	CHECK(hk_usable_size(self.arena, &local) == 0);
	for (i = 0; i < SELF_EDGES; i++) {
		block = hk_alloc(self.cache, self_edges[i]);
		if (!CHECK(block))
			continue;
		CHECK(hk_usable_size(self.arena, block) == hk_good_size(self_edges[i]));
		CHECK(hk_usable_size(self.arena, block + 1) == 0);
		hk_free(self.cache, block);
	}
	CHECK(self.count == 0);
	self_close(&self);
}

const struct self_function self_blocks[] = {
	{ "hk_good_size", false, run_good_size },
	{ "hk_size_class", true, run_size_class },
	{ "hk_usable_size", false, run_usable_size },
	{ "hk_alloc", true, run_alloc },
	{ "hk_alloc_fn", false, run_alloc_fn },
	{ "hk_alloc_slow", false, run_alloc_slow },
	{ "hk_zalloc", false, run_zalloc },
	{ "hk_alloc_aligned", false, run_alloc_aligned },
	{ "hk_alloc_bulk", false, run_alloc_bulk },
	{ "hk_free", true, run_free },
	{ "hk_free_fn", false, run_free_fn },
	{ "hk_free_slow", false, run_free_slow },
	{ "hk_free_sized", true, run_free_sized },
	{ "hk_free_sized_fn", false, run_free_sized_fn },
	{ "hk_free_sized_slow", false, run_free_sized_slow },
	{ "hk_free_bulk", false, run_free_bulk },
	{ NULL, false, NULL },
};
