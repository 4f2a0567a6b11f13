/* SPDX-License-Identifier: MIT */
/*
 * selfcheck: changing the size of blocks.
 */
#include "selfcheck.h"

#define TOO_LARGE ((size_t)PTRDIFF_MAX + 1)

static const size_t sizes[] = {
	0, 1, 16, 17, 100, 1024, 1025, 5000, 32768, 32769, 100000, 524288, 524289, 3000000,
};

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* What every resize refuses, the block staying as it was. */
static void check_refusals(struct self_arena *self,
			   void *(*resize)(struct hk_cache *cache, void *ptr, size_t size))
{
	unsigned char *block = hk_alloc(self->cache, 200);
	int local = 0;

	if (!CHECK(block))
		return;
	self_fill(block, 200, 9);
	CHECK(!resize(self->cache, block, self_hidden(TOO_LARGE)));
	CHECK(self->count == 1 && self->last.fault == HK_FAULT_ARGUMENT);
	self->count = 0;
	CHECK(!resize(self->cache, block, self_hidden(PTRDIFF_MAX)));
	CHECK(self->count == 1 && self->last.fault == HK_FAULT_EXHAUSTED);
	self->count = 0;
	CHECK(!resize(self->cache, self_hidden_pointer(&local), 10));
	CHECK(self_reported(self, HK_FAULT_FOREIGN, &local));
	CHECK(!resize(self->cache, self_hidden_pointer(block + 16), 10));
	CHECK(self_reported(self, HK_FAULT_INTERIOR, block + 16));
	CHECK(self_holds(block, 200, 9));
	CHECK(self_live(self) == 1);
	hk_free(self->cache, block);
}

static void run_realloc(const struct self_options *options)
{
	struct self_arena self;
	size_t i, j, size;
	void *block, *resized;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < SIZES; i++) {
		for (j = 0; j < SIZES; j++) {
			block = hk_realloc(self.cache, NULL, sizes[i]);
			if (!CHECK(block))
				goto out_close;
			CHECK(hk_usable_size(self.arena, block) == hk_good_size(sizes[i]));
			self_fill(block, sizes[i], i * SIZES + j);
			resized = hk_realloc(self.cache, block, sizes[j]);
			if (!CHECK(resized)) {
				hk_free(self.cache, block);
				goto out_close;
			}
			size = smaller(sizes[i], sizes[j]);
			CHECK(self_holds(resized, size, i * SIZES + j));
			CHECK(self_aligned(resized, 16));
			CHECK(hk_usable_size(self.arena, resized) >= sizes[j]);
			self_fill(resized, hk_usable_size(self.arena, resized), 3);
			CHECK(self_live(&self) == 1);
			hk_free(self.cache, resized);
		}
	}
	/* In place as long as the class stays. */
	block = hk_alloc(self.cache, 17);
	resized = hk_realloc(self.cache, block, 32);
	CHECK(resized == block);
	block = hk_realloc(self.cache, resized, 0);
	CHECK(hk_usable_size(self.arena, block) == 16);
	hk_free(self.cache, block);
	check_refusals(&self, hk_realloc);
	CHECK(!hk_realloc(self.cache, NULL, self_hidden(TOO_LARGE)));
	CHECK(self_reported(&self, HK_FAULT_ARGUMENT, NULL));
out_close:
	self_close(&self);
}

static void *realloc_aligned_64(struct hk_cache *cache, void *ptr, size_t size)
{
	return hk_realloc_aligned(cache, ptr, size, 64);
}

static void run_realloc_aligned(const struct self_options *options)
{
	static const size_t aligns[] = { 1, 64, 4096, 65536, 2 * 1024 * 1024 };
	struct self_arena self;
	size_t i, j, k, align;
	void *block, *resized;

	if (!self_open(&self, options))
		return;
	for (k = 0; k < sizeof(aligns) / sizeof(aligns[0]); k++) {
		align = aligns[k] < 16 ? 16 : aligns[k];
		for (i = 0; i < SIZES; i += 2) {
			for (j = 1; j < SIZES; j += 3) {
				block = hk_realloc_aligned(self.cache, NULL, sizes[i], aligns[k]);
				if (!CHECK(block))
					goto out_close;
				CHECK(self_aligned(block, align));
				self_fill(block, sizes[i], i + j);
				resized =
					hk_realloc_aligned(self.cache, block, sizes[j], aligns[k]);
				if (!CHECK(resized)) {
					hk_free(self.cache, block);
					goto out_close;
				}
				CHECK(self_aligned(resized, align));
				CHECK(self_holds(resized, smaller(sizes[i], sizes[j]), i + j));
				CHECK(hk_usable_size(self.arena, resized) >= sizes[j]);
				hk_free(self.cache, resized);
			}
		}
	}
	/* The block need not have had the alignment before: the next one of 48 bytes has not. */
	block = hk_alloc(self.cache, 48);
	resized = hk_alloc(self.cache, 48);
	if (CHECK(block && resized)) {
		self_fill(resized, 48, 5);
		resized = hk_realloc_aligned(self.cache, resized, 48, 1024);
		CHECK(resized && self_aligned(resized, 1024) && self_holds(resized, 48, 5));
		CHECK(!hk_realloc_aligned(self.cache, resized, 48, self_hidden(48)));
		CHECK(self.count == 1 && self.last.fault == HK_FAULT_ARGUMENT);
		self.count = 0;
		CHECK(self_holds(resized, 48, 5));
	}
	hk_free(self.cache, block);
	hk_free(self.cache, resized);
	check_refusals(&self, realloc_aligned_64);
out_close:
	self_close(&self);
}

static void run_expand(const struct self_options *options)
{
	unsigned char *apart, *first, *second, *end;
	struct self_arena self;
	size_t i, usable;
	int local = 0;

	if (!self_open(&self, options))
		return;
	for (i = 0; i < SIZES; i++) {
		/* the first of a batch may lie apart from those that follow */
		apart = hk_alloc(self.cache, sizes[i]);
		first = hk_alloc(self.cache, sizes[i]);
		second = hk_alloc(self.cache, sizes[i]);
		if (!CHECK(apart && first && second))
			break;
		hk_free(self.cache, apart);
		usable = hk_usable_size(self.arena, first);
		self_fill(first, usable, i);
		self_fill(second, usable, i);
		CHECK(hk_expand(self.cache, first, 0));
		CHECK(hk_expand(self.cache, first, sizes[i]));
		CHECK(hk_expand(self.cache, first, usable));
		CHECK(hk_usable_size(self.arena, first) == usable);
		/* The lower of two neighbours cannot grow. */
		end = first < second ? first + usable : second + usable;
		if (end == first || end == second)
			CHECK(!hk_expand(self.cache, end - usable, usable + 1));
		if (hk_expand(self.cache, second, usable + 100000)) {
			CHECK(usable > HK_QUARTER_MAX);
			CHECK(hk_usable_size(self.arena, second) >= usable + 100000);
			self_fill(second + usable, 100000, 1);
		} else {
			CHECK(hk_usable_size(self.arena, second) == usable);
		}
		CHECK(!hk_expand(self.cache, first, self_hidden(PTRDIFF_MAX)));
		self.count = 0;
		CHECK(self_holds(first, usable, i));
		CHECK(self_holds(second, usable, i));
		CHECK(self_live(&self) == 2);
		hk_free(self.cache, first);
		hk_free(self.cache, second);
		CHECK(self.count == 0);
	}
	/* With nothing behind it a large block grows. */
	first = hk_alloc(self.cache, SELF_MIB);
	if (CHECK(first)) {
		self_fill(first, SELF_MIB, 1);
		CHECK(hk_expand(self.cache, first, SELF_MIB + 65536));
		CHECK(hk_usable_size(self.arena, first) == SELF_MIB + 65536);
		CHECK(self_holds(first, SELF_MIB, 1));
		self_fill(first, SELF_MIB + 65536, 2);
		CHECK(self_live(&self) == 1);
	}
	hk_free(self.cache, first);
	CHECK(!hk_expand(self.cache, self_hidden_pointer(&local), 10));
	CHECK(self_reported(&self, HK_FAULT_FOREIGN, &local));
	self_close(&self);
}

const struct self_function self_resizes[] = {
	{ "hk_realloc", false, run_realloc },
	{ "hk_realloc_aligned", false, run_realloc_aligned },
	{ "hk_expand", false, run_expand },
	{ NULL, false, NULL },
};
