/* SPDX-License-Identifier: MIT */
/* Superslabs: memory committed and faulted in before it is asked for. */
#include <hakmem/superslab.h>

/* Superslabs looked at in one call. */
#define LOOKS 64u

/*
 * Bytes faulted in between two looks at the clock. A page takes 1.4 to 2 us where it comes from a
 * virtual machine's host, and up to some hundred where that has none at hand.
 */
#define POPULATE_STEP ((size_t)16 << 10)

/*
 * The lowest free slabs that are not committed, at most @most in a row: how many. Space lock held.
 */
static uint32_t find_cold(struct hk_superslabs *space, uint32_t most, uint32_t *first)
{
	uint32_t looks, bits, bit, count;

	for (looks = 0; looks < LOOKS && space->cold_start < space->free.leaves; looks++) {
		const struct hk_superslab *superslab = hk_superslab(space, space->cold_start);

		bits = superslab->free.bits & ~superslab->ready.bits;
		if (!bits) {
			space->cold_start++;
			continue;
		}
		bit = (uint32_t)__builtin_ctz(bits);
		for (count = 1; count < most && bit + count < 32 && bits >> (bit + count) & 1;
		     count++)
			;
		*first = space->cold_start * 32 + bit;
		return count;
	}
	return 0;
}

/* The same, hidden from allocations; a superslab is added where all others are committed. */
static uint32_t hide_cold(struct hk_superslabs *space, uint32_t most, uint32_t *first, int *error)
{
	uint32_t count = 0;

	*error = 0;
	hk_space_lock(space);
	if (space->cold_start >= space->free.leaves)
		*error = hk_space_add(space, (size_t)space->free.leaves * 32 + 1);
	if (!*error)
		count = find_cold(space, most, first);
	if (count)
		*error = hk_space_publish(space, *first + count);
	if (*error)
		count = 0;
	if (count)
		hk_space_mark_used(space, *first, count);
	hk_space_unlock(space);
	return count;
}

/* Faults slabs in until time is over: all, where there is no clock. */
static int populate_in(struct hk_superslabs *space, uint32_t first, uint32_t count,
		       struct hk_deadline deadline)
{
	const struct hk_platform *platform = &space->memory->platform;
	unsigned char *ptr = hk_slab_address(space, first);
	size_t left = count * HK_SLAB_SIZE, step = left;
	int error;

	if (deadline.end_ns && platform->now_ns && platform->page_size <= POPULATE_STEP)
		step = POPULATE_STEP;
	do {
		error = hk_memory_populate(space->memory, ptr, step);
		ptr += step;
		left -= step;
	} while (left && !error && !hk_deadline_over(space->memory, deadline));
	return error;
}

uint32_t hk_space_warm(struct hk_superslabs *space, uint32_t most, struct hk_deadline deadline,
		       int *error)
{
	uint32_t first = 0, count;

	hk_space_step_begin(space);
	count = hide_cold(space, most, &first, error);
	if (count) {
		*error = hk_bitmap_commit(space, first);
		if (!*error)
			*error = hk_space_commit(space, first, count);
		if (!*error)
			*error = populate_in(space, first, count, deadline);
		hk_space_unmark(space, first, count);
	}
	hk_space_step_end(space);
	return *error ? 0 : count;
}

/* What is committed of one superslab. Trim lock held. */
static int populate_superslab(struct hk_superslabs *space, uint32_t index)
{
	uint32_t bits = hk_space_committed_bits(space, index * 32), bit, count;
	int error = 0;

	for (; bits && !error; bits &= ~hk_mask(bit, count)) {
		bit = (uint32_t)__builtin_ctz(bits);
		count = ~(bits >> bit) ? (uint32_t)__builtin_ctz(~(bits >> bit)) : 32;
		error = hk_memory_populate(space->memory, hk_slab_address(space, index * 32 + bit),
					   count * HK_SLAB_SIZE);
	}
	return error;
}

/* The bitmaps that begin with a superslab's, where they are committed. Trim lock held. */
static int populate_bitmaps(struct hk_superslabs *space, uint32_t index)
{
	bool committed;

	if (index % space->bitmap_group)
		return 0;
	hk_space_lock(space);
	committed = hk_superslab(space, index)->bitmaps;
	hk_space_unlock(space);
	return committed ? hk_memory_populate(space->memory,
					      space->bitmaps + index * HK_SUPERSLAB_BITMAPS,
					      space->bitmap_group * HK_SUPERSLAB_BITMAPS)
			 : 0;
}

static int populate_sections(struct hk_superslabs *space)
{
	size_t headers, classes;
	int error;

	hk_space_lock(space);
	headers = space->headers.committed;
	classes = space->classes.committed;
	hk_space_unlock(space);
	error = hk_memory_populate(space->memory, space->headers.base, headers);
	return error ? error : hk_memory_populate(space->memory, space->classes.base, classes);
}

/* One superslab; behind the last, what is known of all: whether there is more. Trim lock held. */
static bool populate_next(struct hk_superslabs *space, uint32_t index, int *error)
{
	uint32_t end;

	hk_space_lock(space);
	end = space->free.leaves;
	hk_space_unlock(space);
	*error = index < end ? populate_bitmaps(space, index) : populate_sections(space);
	if (index < end && !*error)
		*error = populate_superslab(space, index);
	return index < end && !*error;
}

int hk_superslabs_commit_bitmaps(struct hk_superslabs *space)
{
	uint32_t index, end;
	int error = 0;

	hk_lock_acquire(&space->trim_lock, &space->memory->platform);
	hk_space_lock(space);
	end = space->free.leaves;
	hk_space_unlock(space);
	for (index = 0; index < end && !error; index++)
		if (hk_space_committed_bits(space, index * 32))
			error = hk_bitmap_commit(space, index * 32);
	hk_lock_release(&space->trim_lock, &space->memory->platform);
	return error;
}

int hk_superslabs_populate(struct hk_superslabs *space)
{
	const struct hk_platform *platform = &space->memory->platform;
	uint32_t index = 0;
	bool more;
	int error;

	do {
		/* a trim waits for a superslab, not for all */
		hk_lock_acquire(&space->trim_lock, platform);
		more = populate_next(space, index++, &error);
		hk_lock_release(&space->trim_lock, platform);
	} while (more);
	return error;
}
