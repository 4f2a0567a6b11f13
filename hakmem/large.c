/* SPDX-License-Identifier: MIT */
/* Large blocks; see large.h. */
#include <hakmem/large.h>

static size_t slabs_of(size_t size)
{
	return (size + HK_SLAB_SIZE - 1) >> HK_SLAB_SHIFT;
}

static void count_add(_Atomic size_t *counter, size_t add)
{
	atomic_fetch_add_explicit(counter, add, memory_order_relaxed);
}

static void count_sub(_Atomic size_t *counter, size_t sub)
{
	atomic_fetch_sub_explicit(counter, sub, memory_order_relaxed);
}

void hk_large_adopt(struct hk_large *large, uint32_t first, uint32_t count)
{
	struct hk_superslabs *space = large->space;

	hk_slab(space, first)->length = count;
	atomic_store_explicit(&hk_slab(space, first)->was, HK_CLASS_LARGE, memory_order_relaxed);
	count_add(&large->blocks, 1);
	count_add(&large->slabs, count);
	count_add(&large->allocs, 1);
	/* the first byte last: from then on it can be freed */
	hk_classes_set(space, first + 1, count - 1, HK_CLASS_INSIDE);
	hk_classes_set(space, first, 1, HK_CLASS_LARGE);
}

/* A live block becomes a run without an owner: its first byte is not LARGE any more. */
static uint32_t unmake_block(struct hk_large *large, uint32_t first)
{
	uint32_t length = hk_slab(large->space, first)->length;

	hk_classes_set(large->space, first, length, 0);
	count_sub(&large->blocks, 1);
	count_sub(&large->slabs, length);
	return length;
}

int hk_large_alloc(struct hk_large *large, size_t size, size_t align, size_t zero_bytes,
		   void **block)
{
	struct hk_superslabs *space = large->space;
	uint32_t first, count;
	int error;

	if (align < HK_SLAB_SIZE)
		align = HK_SLAB_SIZE;
	/* before rounding up, which would overflow */
	if (size > (size_t)space->slabs_max * HK_SLAB_SIZE)
		return HK_ERROR_ARGUMENT;
	count = (uint32_t)slabs_of(size);
	if (!hk_run_is_possible(space, count, align))
		return HK_ERROR_ARGUMENT;
	error = hk_run_take(space, count, align, zero_bytes, &first, NULL);
	if (error)
		return error;
	hk_large_adopt(large, first, count);
	*block = hk_slab_address(space, first);
	return 0;
}

enum hk_fault hk_large_fault(const struct hk_large *large, const void *ptr)
{
	const struct hk_superslabs *space = large->space;
	unsigned byte = hk_class_at(space, ptr);

	if (byte == HK_CLASS_LARGE)
		return (uintptr_t)ptr % HK_SLAB_SIZE ? HK_FAULT_INTERIOR : HK_FAULT_NONE;
	if (byte == HK_CLASS_INSIDE)
		return HK_FAULT_INTERIOR;
	return hk_last_class(large->space, ptr) ? HK_FAULT_DOUBLE_FREE : HK_FAULT_FOREIGN;
}

enum hk_fault hk_large_free(struct hk_large *large, void *ptr)
{
	struct hk_superslabs *space = large->space;
	enum hk_fault fault = hk_large_fault(large, ptr);
	unsigned char expected = HK_CLASS_LARGE;
	uint32_t first, length;

	if (fault)
		return fault;
	first = (uint32_t)hk_slab_number(space, ptr);
	if (!atomic_compare_exchange_strong_explicit(hk_class_byte(space, first), &expected,
						     HK_CLASS_INSIDE, memory_order_acquire,
						     memory_order_relaxed))
		return HK_FAULT_DOUBLE_FREE;
	length = unmake_block(large, first);
	count_add(&large->frees, 1);
	hk_run_give(space, first, length);
	return HK_FAULT_NONE;
}

size_t hk_large_size(const struct hk_large *large, const void *ptr)
{
	const struct hk_superslabs *space = large->space;

	if (hk_large_fault(large, ptr))
		return 0;
	return hk_slab(space, (uint32_t)hk_slab_number(space, ptr))->length * HK_SLAB_SIZE;
}

static void count_large_stashed(struct hk_large *large, uint32_t slabs)
{
	count_add(&large->stashed_blocks, 1);
	count_add(&large->stashed_slabs, slabs);
}

int hk_large_stash(struct hk_large *large, size_t size, uint32_t *list)
{
	struct hk_superslabs *space = large->space;
	uint32_t first;
	void *block;
	int error = hk_large_alloc(large, size, HK_SLAB_SIZE, 0, &block);

	if (error)
		return error;
	first = (uint32_t)hk_slab_number(space, block);
	count_large_stashed(large, hk_slab(space, first)->length);
	hk_slab(space, first)->next = *list;
	*list = first + 1;
	return 0;
}

void *hk_large_unstash(struct hk_large *large, size_t size, uint32_t *list)
{
	struct hk_superslabs *space = large->space;
	struct hk_slab *slab;
	uint32_t first;

	for (; *list; list = &slab->next) {
		first = *list - 1;
		slab = hk_slab(space, first);
		if (slab->length != slabs_of(size))
			continue;
		*list = slab->next;
		count_sub(&large->stashed_blocks, 1);
		count_sub(&large->stashed_slabs, slab->length);
		return hk_slab_address(space, first);
	}
	return NULL;
}

void hk_large_drop_stash(struct hk_large *large, uint32_t *list)
{
	struct hk_superslabs *space = large->space;

	while (*list) {
		struct hk_slab *slab = hk_slab(space, *list - 1);
		void *block = hk_slab_address(space, *list - 1);

		*list = slab->next;
		count_sub(&large->stashed_blocks, 1);
		count_sub(&large->stashed_slabs, slab->length);
		hk_large_free(large, block);
	}
}

size_t hk_large_stashed(const struct hk_large *large, size_t size, uint32_t list)
{
	const struct hk_slab *slab;
	size_t count = 0;

	for (; list; list = slab->next) {
		slab = hk_slab(large->space, list - 1);
		count += slab->length == slabs_of(size);
	}
	return count;
}

int hk_large_resize(struct hk_large *large, void *ptr, size_t size)
{
	struct hk_superslabs *space = large->space;
	uint32_t first = (uint32_t)hk_slab_number(space, ptr), have, want;
	int error;

	if (size > (size_t)space->slabs_max * HK_SLAB_SIZE)
		return HK_ERROR_ARGUMENT;
	have = hk_slab(space, first)->length;
	want = (uint32_t)slabs_of(size);
	if (want > have) {
		error = hk_run_extend(space, first, have, want - have);
		if (error)
			return error;
		hk_classes_set(space, first + have, want - have, HK_CLASS_INSIDE);
		count_add(&large->slabs, want - have);
	} else if (want < have) {
		hk_classes_set(space, first + want, have - want, 0);
		count_sub(&large->slabs, have - want);
		hk_run_give(space, first + want, have - want);
	}
	hk_slab(space, first)->length = want;
	return 0;
}

void hk_large_reset(struct hk_large *large)
{
	atomic_store_explicit(&large->blocks, 0, memory_order_relaxed);
	atomic_store_explicit(&large->slabs, 0, memory_order_relaxed);
	atomic_store_explicit(&large->stashed_blocks, 0, memory_order_relaxed);
	atomic_store_explicit(&large->stashed_slabs, 0, memory_order_relaxed);
}

size_t hk_large_check(struct hk_large *large)
{
	struct hk_superslabs *space = large->space;
	size_t inside = 0, blocks = 0, slabs = 0, broken = 0;
	uint32_t slab, end = hk_space_slabs(space);

	/* a large block's bytes are LARGE and then INSIDE, as many as its length says */
	for (slab = 0; slab < end; slab++) {
		unsigned byte = *hk_class_byte(space, slab);

		if (inside) {
			broken += byte != HK_CLASS_INSIDE;
			inside--;
		} else if (byte == HK_CLASS_LARGE) {
			inside = hk_slab(space, slab)->length - 1;
			blocks++;
			slabs += inside + 1;
		} else {
			broken += byte == HK_CLASS_INSIDE;
		}
	}
	broken += inside != 0;
	broken += blocks != atomic_load_explicit(&large->blocks, memory_order_relaxed);
	broken += slabs != atomic_load_explicit(&large->slabs, memory_order_relaxed);
	return broken;
}
