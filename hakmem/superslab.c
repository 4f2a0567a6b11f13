/* SPDX-License-Identifier: MIT */
/* Runs of slabs: found, committed, given back; see superslab.h. */
#include <hakmem/superslab.h>
#include <string.h>

/* Slabs decommitted between two looks at the clock, 512 KiB. */
#define TRIM_STEP 8u

static void space_lock(struct hk_superslabs *space)
{
	hk_lock_acquire(&space->lock, &space->memory->platform);
}

static void space_unlock(struct hk_superslabs *space)
{
	hk_lock_release(&space->lock, &space->memory->platform);
}

/* The slabs that superslab @index has: fewer than 32 at the end of the range. */
static uint32_t superslab_mask(const struct hk_superslabs *space, uint32_t index)
{
	uint32_t left = space->slabs_max - index * HK_SUPERSLAB_SLABS;

	return left < HK_SUPERSLAB_SLABS ? hk_mask(0, left) : UINT32_MAX;
}

static bool is_committed(const struct hk_superslabs *space, uint32_t slab)
{
	return atomic_load_explicit(&hk_superslab(space, slab / 32)->committed,
				    memory_order_relaxed) >>
		       slab % 32 &
	       1;
}

/* Calls of set_bits() and clear_bits() concern slabs that the caller owns, or hold the lock. */
static void set_bits(struct hk_superslabs *space, uint32_t from, uint32_t count, bool zero)
{
	for (; count; from++, count--) {
		struct hk_superslab *superslab = hk_superslab(space, from / 32);

		atomic_fetch_or_explicit(&superslab->committed, 1u << from % 32,
					 memory_order_relaxed);
		if (zero)
			atomic_fetch_or_explicit(&superslab->zero, 1u << from % 32,
						 memory_order_relaxed);
	}
}

static void clear_bits(struct hk_superslabs *space, uint32_t from, uint32_t count, bool committed)
{
	while (count) {
		struct hk_superslab *superslab = hk_superslab(space, from / 32);
		uint32_t here = 32 - from % 32 < count ? 32 - from % 32 : count;
		uint32_t keep = ~hk_mask(from % 32, here);

		atomic_fetch_and_explicit(&superslab->zero, keep, memory_order_relaxed);
		if (committed)
			atomic_fetch_and_explicit(&superslab->committed, keep,
						  memory_order_relaxed);
		from += here;
		count -= here;
	}
}

static void mark_used(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	hk_map_clear(&space->free, first, count);
	hk_map_clear(&space->ready, first, count);
	space->used += count;
}

static void mark_free(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t end = first + count, from = first;

	hk_map_set(&space->free, first, count);
	space->used -= count;
	while (from < end) {
		uint32_t to = from;

		while (to < end && is_committed(space, to))
			to++;
		if (to > from)
			hk_map_set(&space->ready, from, to - from);
		from = to + 1;
	}
}

void hk_classes_set(struct hk_superslabs *space, uint32_t first, uint32_t count, unsigned value)
{
	for (; count; first++, count--)
		atomic_store_explicit(hk_class_byte(space, first), (unsigned char)value,
				      memory_order_relaxed);
}

enum hk_fault hk_unused_fault(struct hk_superslabs *space, const void *ptr)
{
	size_t slab = hk_slab_number(space, ptr);
	unsigned was = 0;

	space_lock(space);
	if (slab < (size_t)space->free.leaves * 32)
		was = hk_slab(space, (uint32_t)slab)->was;
	space_unlock(space);
	return was ? HK_FAULT_DOUBLE_FREE : HK_FAULT_FOREIGN;
}

/* The first slab from @from on whose address is a multiple of @align; SIZE_MAX: none. */
static size_t aligned_slab(const struct hk_superslabs *space, size_t from, size_t align)
{
	uintptr_t address = (uintptr_t)space->base + from * HK_SLAB_SIZE;
	uintptr_t aligned = (address + align - 1) & ~(uintptr_t)(align - 1);
	size_t slab;

	if (aligned < address)
		return SIZE_MAX;
	slab = (aligned - (uintptr_t)space->base) >> HK_SLAB_SHIFT;
	return slab < space->slabs_max ? slab : SIZE_MAX;
}

static uint32_t find(const struct hk_superslabs *space, const struct hk_map *map, uint32_t count,
		     size_t align)
{
	size_t step = align >> HK_SLAB_SHIFT, slab;
	uint32_t found;

	if (step == 1)
		return hk_map_find(map, count);
	if (step < space->slabs_max) {
		found = hk_map_find(map, count + (uint32_t)step - 1);
		if (found != HK_MAP_NONE)
			return (uint32_t)aligned_slab(space, found, align);
	}
	/* no run is long enough wherever it begins: try those that begin well */
	slab = aligned_slab(space, 0, align);
	for (; slab < (size_t)map->leaves * 32; slab += step)
		if (hk_map_is_set(map, (uint32_t)slab, count))
			return (uint32_t)slab;
	return HK_MAP_NONE;
}

static int add_superslab(struct hk_superslabs *space)
{
	uint32_t index = space->free.leaves;
	int error = hk_section_grow(space->memory, &space->headers,
				    (index + 1) * sizeof(struct hk_superslab));

	if (error)
		return error;
	memset(hk_superslab(space, index), 0, sizeof(struct hk_superslab));
	hk_map_grow(&space->free);
	hk_map_grow(&space->ready);
	hk_map_set(&space->free, index * 32,
		   (uint32_t)__builtin_popcount(superslab_mask(space, index)));
	space->new_superslabs++;
	return 0;
}

/* Adds superslabs until the first @slabs of the range belong to one. */
static int add_superslabs(struct hk_superslabs *space, size_t slabs)
{
	int error = 0;

	if (slabs > space->slabs_max)
		return HK_ERROR_ADDRESS_SPACE;
	while (!error && (size_t)space->free.leaves * 32 < slabs)
		error = add_superslab(space);
	return error;
}

/* Adds superslabs so that a run is found at the end of those there are. */
static int make_room(struct hk_superslabs *space, uint32_t count, size_t align)
{
	size_t slab = (size_t)space->free.leaves * 32 - hk_map_end(&space->free);

	slab = aligned_slab(space, slab, align);
	if (slab == SIZE_MAX)
		return HK_ERROR_ADDRESS_SPACE;
	return add_superslabs(space, slab + count);
}

static int publish_classes(struct hk_superslabs *space, uint32_t slabs)
{
	size_t bound;
	int error;

	if (slabs <= atomic_load_explicit(&space->bound, memory_order_relaxed))
		return 0;
	error = hk_section_grow(space->memory, &space->classes, slabs);
	if (error)
		return error;
	bound = space->classes.committed;
	if (bound > space->slabs_max)
		bound = space->slabs_max;
	/* pairs with hk_space_bound() */
	atomic_store_explicit(&space->bound, bound, memory_order_release);
	return 0;
}

/* Slabs to commit beyond a run: more the larger the arena, none near the limit. */
static uint32_t commit_ahead(const struct hk_superslabs *space, uint32_t end)
{
	size_t have = atomic_load_explicit(&((struct hk_superslabs *)space)->committed,
					   memory_order_relaxed);
	size_t left = space->memory->limit - hk_memory_committed(space->memory);
	uint32_t step = have / 4 < 32 ? (uint32_t)(have / 4) : 32, slab;

	if (space->memory->limit != SIZE_MAX && left / 4 / HK_SLAB_SIZE < step)
		step = (uint32_t)(left / 4 / HK_SLAB_SIZE);
	while (step & (step - 1))
		step &= step - 1;
	if (step < 2)
		return 0;
	/* up to the next multiple of the step, as far as it is free and not committed */
	for (slab = end; slab % step; slab++)
		if (!hk_map_is_set(&space->free, slab, 1) || is_committed(space, slab))
			break;
	return slab - end;
}

/* Commits what is not committed of slabs that the caller owns. */
static int commit_run(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t end = first + count, from = first;

	while (from < end) {
		uint32_t to = from;
		int error;

		while (to < end && !is_committed(space, to))
			to++;
		if (to == from) {
			from++;
			continue;
		}
		error = hk_memory_commit(space->memory, hk_slab_address(space, from),
					 (size_t)(to - from) * HK_SLAB_SIZE);
		if (error)
			return error;
		set_bits(space, from, to - from, hk_memory_is_zeroed(space->memory));
		atomic_fetch_add_explicit(&space->committed, to - from, memory_order_relaxed);
		from = to;
	}
	return 0;
}

/* Commits a run and what is to be committed ahead behind it, which is given back as free. */
static int commit_with_ahead(struct hk_superslabs *space, uint32_t first, uint32_t count,
			     uint32_t ahead)
{
	int error = commit_run(space, first, count + ahead);

	if (ahead) {
		space_lock(space);
		mark_free(space, first + count, ahead);
		space_unlock(space);
	}
	if (error && ahead)
		error = commit_run(space, first, count);
	return error;
}

static bool is_zeroed(const struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	for (; count; first++, count--)
		if (!(atomic_load_explicit(&hk_superslab(space, first / 32)->zero,
					   memory_order_relaxed) >>
			      first % 32 &
		      1))
			return false;
	return true;
}

static void zero_run(struct hk_superslabs *space, uint32_t first, size_t bytes)
{
	for (; bytes; first++) {
		size_t here = bytes < HK_SLAB_SIZE ? bytes : HK_SLAB_SIZE;

		if (!is_zeroed(space, first, 1))
			memset(hk_slab_address(space, first), 0, here);
		bytes -= here;
	}
}

int hk_run_take(struct hk_superslabs *space, uint32_t count, size_t align, size_t zero_bytes,
		uint32_t *first, bool *zeroed)
{
	uint32_t found, ahead = 0;
	int error = 0;

	space_lock(space);
	found = find(space, &space->ready, count, align);
	if (found == HK_MAP_NONE) {
		found = find(space, &space->free, count, align);
		if (found == HK_MAP_NONE) {
			error = make_room(space, count, align);
			if (!error)
				found = find(space, &space->free, count, align);
		}
		if (found == HK_MAP_NONE)
			goto out_unlock;
		ahead = commit_ahead(space, found + count);
	}
	error = publish_classes(space, found + count);
	if (error)
		goto out_unlock;
	mark_used(space, found, count + ahead);
	space_unlock(space);

	error = commit_with_ahead(space, found, count, ahead);
	if (error) {
		hk_run_give(space, found, count);
		return error;
	}
	if (zeroed)
		*zeroed = is_zeroed(space, found, count);
	zero_run(space, found, zero_bytes);
	clear_bits(space, found, count, false);
	*first = found;
	return 0;

out_unlock:
	space_unlock(space);
	return error ? error : HK_ERROR_ADDRESS_SPACE;
}

void hk_run_give(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t index;

	space_lock(space);
	mark_free(space, first, count);
	for (index = first / 32; index <= (first + count - 1) / 32; index++)
		if (hk_superslab(space, index)->free.bits == superslab_mask(space, index))
			space->superslabs_emptied++;
	space_unlock(space);
}

int hk_run_extend(struct hk_superslabs *space, uint32_t first, uint32_t count, uint32_t more)
{
	uint32_t end = first + count, last;
	int error = HK_ERROR_ADDRESS_SPACE;

	space_lock(space);
	last = space->free.leaves * 32;
	if (more > space->slabs_max - end)
		goto out_unlock;
	if (end + more > last) {
		/* only the free end of the superslabs there are can be lengthened */
		if (end < last && !hk_map_is_set(&space->free, end, last - end))
			goto out_unlock;
		error = add_superslabs(space, end + more);
		if (error)
			goto out_unlock;
	}
	error = HK_ERROR_ADDRESS_SPACE;
	if (!hk_map_is_set(&space->free, end, more))
		goto out_unlock;
	error = publish_classes(space, end + more);
	if (error)
		goto out_unlock;
	mark_used(space, end, more);
	space_unlock(space);

	error = commit_run(space, end, more);
	if (error)
		hk_run_give(space, end, more);
	else
		clear_bits(space, end, more, false);
	return error;

out_unlock:
	space_unlock(space);
	return error;
}

void hk_run_moved(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	clear_bits(space, first, count, true);
	atomic_fetch_sub_explicit(&space->committed, count, memory_order_relaxed);
	hk_memory_uncharge(space->memory, count * HK_SLAB_SIZE);
}

int hk_bitmap_commit(struct hk_superslabs *space, uint32_t slab)
{
	uint32_t group = slab / 32 / space->bitmap_group;
	size_t size = space->bitmap_group * HK_SUPERSLAB_BITMAPS;
	struct hk_superslab *leader = hk_superslab(space, group * space->bitmap_group);
	int error = 0;

	space_lock(space);
	if (!leader->bitmaps) {
		error = hk_memory_commit(space->memory, space->bitmaps + group * size, size);
		if (!error) {
			leader->bitmaps = 1;
			space->bitmap_bytes += size;
		}
	}
	space_unlock(space);
	return error;
}

void hk_superslabs_reset(struct hk_superslabs *space)
{
	size_t bound = hk_space_bound(space);
	uint32_t index;

	for (index = 0; index < space->free.leaves; index++) {
		struct hk_superslab *superslab = hk_superslab(space, index);
		uint32_t committed =
			atomic_load_explicit(&superslab->committed, memory_order_relaxed);

		/* what was never used since its commit is zero still */
		atomic_fetch_and_explicit(&superslab->zero, superslab->free.bits,
					  memory_order_relaxed);
		hk_map_store(&space->free, index, superslab_mask(space, index));
		hk_map_store(&space->ready, index, committed);
	}
	if (space->free.leaves) {
		hk_map_rebuild(&space->free);
		hk_map_rebuild(&space->ready);
	}
	space->used = 0;
	if (bound)
		memset(space->classes.base, 0, bound);
	/* grows again with the slabs used; till then hk_superslabs_trim() may take the table */
	atomic_store_explicit(&space->bound, 0, memory_order_relaxed);
}

/* Gives the highest ready slabs of one superslab back, at most @most: bytes, 0: none. */
static size_t trim_step(struct hk_superslabs *space, uint32_t index, size_t most)
{
	uint32_t bits = 0, end, count;
	int error;

	space_lock(space);
	if (index < space->ready.leaves)
		bits = hk_superslab(space, index)->ready.bits;
	if (!bits) {
		space_unlock(space);
		return 0;
	}
	end = 32 - (uint32_t)__builtin_clz(bits);
	for (count = 1; count < most && count < end && bits >> (end - count - 1) & 1; count++)
		;
	end += index * 32;
	mark_used(space, end - count, count);
	space_unlock(space);

	error = hk_memory_decommit(space->memory, hk_slab_address(space, end - count),
				   count * HK_SLAB_SIZE);
	clear_bits(space, end - count, count, !error);
	if (!error)
		atomic_fetch_sub_explicit(&space->committed, count, memory_order_relaxed);
	space_lock(space);
	mark_free(space, end - count, count);
	space_unlock(space);
	return error ? 0 : count * HK_SLAB_SIZE;
}

static bool group_is_free(const struct hk_superslabs *space, uint32_t first)
{
	uint32_t index;

	for (index = first; index < first + space->bitmap_group; index++)
		if (index < space->free.leaves &&
		    hk_superslab(space, index)->free.bits != superslab_mask(space, index))
			return false;
	return true;
}

/* The metadata of what is free and not committed: bitmaps, headers, after a reset classes. */
static size_t trim_metadata(struct hk_superslabs *space)
{
	size_t freed = 0, size = space->bitmap_group * HK_SUPERSLAB_BITMAPS;
	uint32_t index;

	space_lock(space);
	for (index = 0; index < space->free.leaves; index += space->bitmap_group) {
		struct hk_superslab *leader = hk_superslab(space, index);

		if (!leader->bitmaps || !group_is_free(space, index) ||
		    hk_memory_decommit(space->memory, space->bitmaps + index * HK_SUPERSLAB_BITMAPS,
				       size))
			continue;
		leader->bitmaps = 0;
		space->bitmap_bytes -= size;
		freed += size;
	}
	for (index = space->free.leaves; index; index--) {
		struct hk_superslab *last = hk_superslab(space, index - 1);

		if (last->bitmaps || last->free.bits != superslab_mask(space, index - 1) ||
		    atomic_load_explicit(&last->committed, memory_order_relaxed))
			break;
		hk_map_shrink(&space->free);
		hk_map_shrink(&space->ready);
	}
	freed += hk_section_shrink(space->memory, &space->headers,
				   space->free.leaves * sizeof(struct hk_superslab));
	if (!atomic_load_explicit(&space->bound, memory_order_relaxed))
		freed += hk_section_shrink(space->memory, &space->classes, 0);
	space_unlock(space);
	return freed;
}

size_t hk_superslabs_trim(struct hk_superslabs *space, size_t keep, struct hk_deadline deadline)
{
	size_t freed = 0;
	uint32_t index;

	space_lock(space);
	index = space->free.leaves;
	space_unlock(space);
	while (index-- > 0) {
		for (;;) {
			size_t now = hk_memory_committed(space->memory), step, most;

			if (now <= keep)
				return freed;
			most = (now - keep + HK_SLAB_SIZE - 1) / HK_SLAB_SIZE;
			step = trim_step(space, index, most < TRIM_STEP ? most : TRIM_STEP);
			if (!step)
				break;
			freed += step;
			if (hk_deadline_over(space->memory, deadline))
				return freed;
		}
	}
	return freed + trim_metadata(space);
}

size_t hk_superslabs_metadata(const struct hk_superslabs *space)
{
	return space->classes.committed + space->headers.committed + space->bitmap_bytes;
}

size_t hk_superslabs_check(struct hk_superslabs *space)
{
	size_t broken = hk_map_check(&space->free) + hk_map_check(&space->ready);
	size_t used = 0, committed = 0, bitmap_bytes = 0, bound = hk_space_bound(space);
	uint32_t index, bit;

	for (index = 0; index < space->free.leaves; index++) {
		struct hk_superslab *superslab = hk_superslab(space, index);
		uint32_t mask = superslab_mask(space, index), free = superslab->free.bits;
		uint32_t have = atomic_load_explicit(&superslab->committed, memory_order_relaxed);
		uint32_t zero = atomic_load_explicit(&superslab->zero, memory_order_relaxed);

		broken += (free & ~mask) != 0;
		broken += superslab->ready.bits != (free & have);
		broken += (~free & mask & ~have) != 0; /* used, but not committed */
		broken += (zero & ~(free & have)) != 0;
		used += (size_t)__builtin_popcount(~free & mask);
		committed += (size_t)__builtin_popcount(have);
		if (superslab->bitmaps)
			bitmap_bytes += space->bitmap_group * HK_SUPERSLAB_BITMAPS;
		for (bit = 0; bit < 32 && index * 32 + bit < bound; bit++) {
			unsigned byte = *hk_class_byte(space, index * 32 + bit);

			broken += (free >> bit & 1) != (byte == 0) && (mask >> bit & 1);
		}
	}
	broken += used != space->used || bitmap_bytes != space->bitmap_bytes;
	broken += committed != atomic_load_explicit(&space->committed, memory_order_relaxed);
	return broken;
}
