/* SPDX-License-Identifier: MIT */
/* What is known of each slab, and superslabs added; see superslab.h. Runs are in run.c. */
#include <hakmem/superslab.h>
#include <string.h>

/* Slabs marked as moved: each may have cost the process two of its 65,530 mappings (Linux). */
#define MOVED_MAX 4096u

/* Class bytes, as many as a register holds. */
typedef _Atomic size_t __attribute__((may_alias)) class_word;

/* How many of @count slabs from @from on lie in its superslab; @mask has their bits. */
static uint32_t part_of(uint32_t from, uint32_t count, uint32_t *mask)
{
	uint32_t here = 32 - from % 32 < count ? 32 - from % 32 : count;

	*mask = hk_mask(from % 32, here);
	return here;
}

/* How many of @count slabs from @from on are, like the first, committed or not. */
static uint32_t count_alike(const struct hk_superslabs *space, uint32_t from, uint32_t count)
{
	bool first = hk_space_is_committed(space, from);
	uint32_t alike = 0, mask, here, other;

	while (alike < count) {
		here = part_of(from + alike, count - alike, &mask);
		other = hk_space_committed_bits(space, from + alike);
		other = (first ? ~other : other) & mask;
		if (other)
			return alike + (uint32_t)__builtin_ctz(other) - (from + alike) % 32;
		alike += here;
	}
	return count;
}

/* Slabs that the caller owns are committed now. */
static void set_bits(struct hk_superslabs *space, uint32_t from, uint32_t count, bool zero)
{
	uint32_t here, mask;

	for (; count; from += here, count -= here) {
		struct hk_superslab *superslab = hk_superslab(space, from / 32);

		here = part_of(from, count, &mask);
		atomic_fetch_or_explicit(&superslab->committed, mask, memory_order_relaxed);
		if (zero)
			atomic_fetch_or_explicit(&superslab->zero, mask, memory_order_relaxed);
	}
}

void hk_space_clear_bits(struct hk_superslabs *space, uint32_t from, uint32_t count, bool committed)
{
	uint32_t here, mask;

	for (; count; from += here, count -= here) {
		struct hk_superslab *superslab = hk_superslab(space, from / 32);

		here = part_of(from, count, &mask);
		/* most are known to be used: a locked instruction less */
		if (atomic_load_explicit(&superslab->zero, memory_order_relaxed) & mask)
			atomic_fetch_and_explicit(&superslab->zero, ~mask, memory_order_relaxed);
		if (committed)
			atomic_fetch_and_explicit(&superslab->committed, ~mask,
						  memory_order_relaxed);
	}
}

/* With the lock held, so that no locked instruction is needed. */
static void add_used(struct hk_superslabs *space, size_t count)
{
	atomic_store_explicit(&space->used, hk_space_used(space) + count, memory_order_relaxed);
}

void hk_space_mark_used(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	hk_map_clear(&space->free, first, count);
	hk_map_clear(&space->ready, first, count);
	add_used(space, count);
}

void hk_space_mark_free(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t alike;

	hk_map_set(&space->free, first, count);
	add_used(space, 0 - (size_t)count);
	for (; count; first += alike, count -= alike) {
		alike = count_alike(space, first, count);
		if (!hk_space_is_committed(space, first)) {
			if (space->cold_start > first / 32)
				space->cold_start = first / 32;
			continue;
		}
		hk_map_set(&space->ready, first, alike);
		if (space->ready_end <= (first + alike - 1) / 32)
			space->ready_end = (first + alike - 1) / 32 + 1;
	}
}

uint32_t hk_run_unbacked(const struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t unbacked = 0, here, mask;

	for (; count; first += here, count -= here) {
		here = part_of(first, count, &mask);
		mask &= ~hk_space_committed_bits(space, first);
		/* mostly none; to count is costly where no instruction does it */
		if (mask)
			unbacked += (uint32_t)__builtin_popcount(mask);
	}
	return unbacked;
}

void hk_classes_set(struct hk_superslabs *space, uint32_t first, uint32_t count, unsigned value)
{
	_Atomic unsigned char *byte = hk_class_byte(space, first), *end = byte + count;
	const size_t word = value * (SIZE_MAX / 0xff), size = sizeof(word);

	for (; byte < end && (uintptr_t)byte % size; byte++)
		atomic_store_explicit(byte, (unsigned char)value, memory_order_relaxed);
	/* large blocks have hundreds: as many at once as a register holds */
	for (; byte + size <= end; byte += size)
		atomic_store_explicit((class_word *)(void *)byte, word, memory_order_relaxed);
	for (; byte < end; byte++)
		atomic_store_explicit(byte, (unsigned char)value, memory_order_relaxed);
}

unsigned hk_last_class(struct hk_superslabs *space, const void *ptr)
{
	size_t slab = hk_slab_number(space, ptr);
	unsigned was = 0;

	hk_space_lock(space);
	if (slab < (size_t)space->free.leaves * 32)
		was = atomic_load_explicit(&hk_slab(space, (uint32_t)slab)->was,
					   memory_order_relaxed);
	hk_space_unlock(space);
	return was;
}

static void add_superslab(struct hk_superslabs *space)
{
	uint32_t index = space->free.leaves;

	memset(hk_superslab(space, index), 0, sizeof(struct hk_superslab));
	hk_map_grow(&space->free);
	hk_map_grow(&space->ready);
	hk_map_set(&space->free, index * 32,
		   (uint32_t)__builtin_popcount(hk_superslab_mask(space, index)));
	atomic_fetch_add_explicit(&space->new_superslabs, 1, memory_order_relaxed);
}

/* Adds superslabs until the first @slabs of the range belong to one. */
int hk_space_add(struct hk_superslabs *space, size_t slabs)
{
	size_t superslabs = (slabs + 31) / 32;
	int error;

	if (slabs > space->slabs_max)
		return HK_ERROR_ADDRESS_SPACE;
	error = hk_section_grow(space->memory, &space->headers,
				superslabs * sizeof(struct hk_superslab));
	if (error)
		return error;
	while (space->free.leaves < superslabs)
		add_superslab(space);
	return 0;
}

int hk_space_publish(struct hk_superslabs *space, uint32_t slabs)
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

/* Commits what is not committed of slabs that the caller owns. */
int hk_space_commit(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t alike;
	int error;

	for (; count; first += alike, count -= alike) {
		alike = count_alike(space, first, count);
		if (hk_space_is_committed(space, first))
			continue;
		error = hk_memory_commit(space->memory, hk_slab_address(space, first),
					 alike * HK_SLAB_SIZE);
		if (error)
			return error;
		set_bits(space, first, alike, hk_memory_is_zeroed(space->memory));
		atomic_fetch_add_explicit(&space->committed, alike, memory_order_relaxed);
	}
	return 0;
}

void hk_space_unmark(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	hk_space_lock(space);
	hk_space_mark_free(space, first, count);
	hk_space_unlock(space);
}

bool hk_space_is_zeroed(const struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t here, mask;

	for (; count; first += here, count -= here) {
		here = part_of(first, count, &mask);
		if (mask & ~atomic_load_explicit(&hk_superslab(space, first / 32)->zero,
						 memory_order_relaxed))
			return false;
	}
	return true;
}

/* The first slab that begins at @ptr or behind it: of its bits the block there is the owner. */
static uint32_t slab_behind(const struct hk_superslabs *space, const void *ptr)
{
	return (uint32_t)hk_slab_number(space, (const unsigned char *)ptr + HK_SLAB_SIZE - 1);
}

/* Slabs that the caller owns lie among their neighbours again. */
static void clear_moved(struct hk_superslabs *space, uint32_t from, uint32_t count)
{
	uint32_t here, mask;

	for (; count; from += here, count -= here) {
		_Atomic uint32_t *moved = &hk_superslab(space, from / 32)->moved;

		here = part_of(from, count, &mask);
		if (!(atomic_load_explicit(moved, memory_order_relaxed) & mask))
			continue;
		mask &= atomic_fetch_and_explicit(moved, ~mask, memory_order_relaxed);
		atomic_fetch_sub_explicit(&space->moved, (size_t)__builtin_popcount(mask),
					  memory_order_relaxed);
	}
}

static void set_moved(struct hk_superslabs *space, uint32_t slab)
{
	uint32_t bit = UINT32_C(1) << slab % 32;

	if (atomic_fetch_or_explicit(&hk_superslab(space, slab / 32)->moved, bit,
				     memory_order_relaxed) &
	    bit)
		return;
	atomic_fetch_add_explicit(&space->moved, 1, memory_order_relaxed);
}

bool hk_space_move(struct hk_superslabs *space, void *from, size_t from_size, void *to,
		   size_t to_size)
{
	const struct hk_platform *platform = &space->memory->platform;
	uintptr_t all = (uintptr_t)from | from_size | (uintptr_t)to | to_size;
	uint32_t first = slab_behind(space, from);

	if (!platform->move || from_size < HK_MOVE_MIN || all & (platform->page_size - 1) ||
	    atomic_load_explicit(&space->moved, memory_order_relaxed) >= MOVED_MAX)
		return false;
	hk_memory_count_call(space->memory);
	if (platform->move(platform->context, from, from_size, to, to_size))
		return false;
	clear_moved(space, first, slab_behind(space, (unsigned char *)from + from_size) - first);
	set_moved(space, slab_behind(space, to));
	return true;
}
