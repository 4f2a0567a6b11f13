/* SPDX-License-Identifier: MIT */
/* Superslabs as a whole: emptied by a reset, given back by a trim, checked; their bitmaps. */
#include <hakmem/superslab.h>
#include <string.h>

/*
 * Slabs decommitted at once. Each call interrupts the processors that other threads run on, some
 * 15 us, and a page takes 0.3: without a deadline so many that this no longer shows. With one as
 * much as may pass between two looks at it; and a part of that shortly before it, since slabs that
 * are used to the last page take 50 us, and more where the machine is shared.
 */
#define TRIM_STEP 128u
#define TRIM_STEP_REFUSED 32u /* after the platform refused more */
#define TRIM_STEP_TIMED 8u
#define TRIM_STEP_LATE 4u
#define TRIM_LATE_NS 70000u

/* Superslabs looked at between two looks at the clock. */
#define LOOKS 64u

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
		hk_map_store(&space->free, index, hk_superslab_mask(space, index));
		hk_map_store(&space->ready, index, committed);
	}
	if (space->free.leaves) {
		hk_map_rebuild(&space->free);
		hk_map_rebuild(&space->ready);
	}
	atomic_store_explicit(&space->used, 0, memory_order_relaxed);
	space->high = 0;
	space->ready_end = space->ready.leaves;
	space->cold_start = 0;
	space->swept = 0;
	space->used_high = 0;
	memset(&space->kept, 0, sizeof(space->kept));
	space->reserve.count = 0;
	atomic_store_explicit(&space->unbacked, 0, memory_order_relaxed);
	if (bound)
		memset(space->classes.base, 0, bound);
	/* grows again with the slabs used; till then hk_superslabs_trim() may take the table */
	atomic_store_explicit(&space->bound, 0, memory_order_relaxed);
}

bool hk_superslabs_drop_some(struct hk_superslabs *space)
{
	bool any;

	hk_space_lock(space);
	any = hk_space_drop_some(space);
	hk_space_unlock(space);
	return any;
}

void hk_superslabs_drop_kept(struct hk_superslabs *space)
{
	/* in one go, so that others who keep more meanwhile do not prolong it */
	hk_space_lock(space);
	while (hk_space_drop_some(space))
		;
	hk_space_unlock(space);
}

/* Counts the beginning or the end of a step; trim lock held. */
static void count_step(struct hk_superslabs *space)
{
	atomic_fetch_add_explicit(&space->trim_steps, 1, memory_order_release);
}

void hk_space_step_begin(struct hk_superslabs *space)
{
	hk_lock_acquire(&space->trim_lock, &space->memory->platform);
	count_step(space);
}

void hk_space_step_end(struct hk_superslabs *space)
{
	count_step(space);
	hk_lock_release(&space->trim_lock, &space->memory->platform);
}

/* What a step gave back that the platform refused. */
#define REFUSED 1u

/* Gives back the last ready slabs of a superslab and those right before, at most @most: bytes. */
static size_t trim_some(struct hk_superslabs *space, uint32_t index, size_t most)
{
	uint32_t bits = 0, end, count;
	int error;

	hk_space_lock(space);
	if (index < space->ready.leaves)
		bits = hk_superslab(space, index)->ready.bits;
	if (!bits) {
		hk_space_unlock(space);
		return 0;
	}
	end = index * 32 + 32 - (uint32_t)__builtin_clz(bits);
	for (count = 1; count < most && count < end; count++)
		if (!hk_map_is_set(&space->ready, end - count - 1, 1))
			break;
	hk_space_mark_used(space, end - count, count);
	space->hidden = count;
	hk_space_unlock(space);

	error = hk_memory_decommit(space->memory, hk_slab_address(space, end - count),
				   count * HK_SLAB_SIZE);
	hk_space_clear_bits(space, end - count, count, !error);
	if (!error) {
		atomic_fetch_sub_explicit(&space->committed, count, memory_order_relaxed);
		space->swept = 0; /* its bitmaps may be free, too */
	}
	hk_space_lock(space);
	hk_space_mark_free(space, end - count, count);
	space->hidden = 0;
	hk_space_unlock(space);
	return error ? REFUSED : count * HK_SLAB_SIZE;
}

static size_t trim_step(struct hk_superslabs *space, uint32_t index, size_t most)
{
	size_t freed;

	hk_space_step_begin(space);
	freed = trim_some(space, index, most);
	hk_space_step_end(space);
	return freed;
}

/*
 * The last superslab below @below that has ready slabs, plus one; 0: none. Or, where @cut then says
 * so, one that need not, after a look at many.
 */
static uint32_t last_ready(struct hk_superslabs *space, uint32_t below, bool *cut)
{
	uint32_t index, looks;

	hk_space_lock(space);
	index = below < space->ready.leaves ? below : space->ready.leaves;
	for (looks = 0; index && looks < LOOKS && !hk_superslab(space, index - 1)->ready.bits;
	     looks++, index--)
		if (space->ready_end == index)
			space->ready_end--;
	*cut = looks == LOOKS;
	hk_space_unlock(space);
	return index;
}

size_t hk_space_cool(struct hk_superslabs *space, uint32_t most)
{
	uint32_t index;
	size_t freed;
	bool cut;

	hk_space_lock(space);
	index = space->ready_end;
	hk_space_unlock(space);
	for (index = last_ready(space, index, &cut); index;
	     index = last_ready(space, index, &cut)) {
		freed = cut ? 0 : trim_step(space, index - 1, most);
		if (freed)
			return freed == REFUSED ? 0 : freed;
		index -= !cut;
	}
	return 0;
}

int hk_bitmap_commit(struct hk_superslabs *space, uint32_t slab)
{
	uint32_t group = slab / 32 / space->bitmap_group;
	size_t size = space->bitmap_group * HK_SUPERSLAB_BITMAPS;
	struct hk_superslab *leader = hk_superslab(space, group * space->bitmap_group);
	int error = 0;

	hk_space_lock(space);
	if (!leader->bitmaps) {
		error = hk_memory_commit(space->memory, space->bitmaps + group * size, size);
		if (!error) {
			leader->bitmaps = 1;
			space->bitmap_bytes += size;
		}
	}
	hk_space_unlock(space);
	return error;
}

static bool group_is_free(const struct hk_superslabs *space, uint32_t first)
{
	uint32_t index;

	for (index = first; index < first + space->bitmap_group; index++)
		if (index < space->free.leaves &&
		    hk_superslab(space, index)->free.bits != hk_superslab_mask(space, index))
			return false;
	return true;
}

static size_t moved_slabs(const struct hk_superslab *superslab)
{
	return (size_t)__builtin_popcount(
		atomic_load_explicit(&superslab->moved, memory_order_relaxed));
}

/* The bitmaps of a group of superslabs that are all free: bytes. Space lock held. */
static size_t trim_bitmaps(struct hk_superslabs *space, uint32_t first)
{
	size_t size = space->bitmap_group * HK_SUPERSLAB_BITMAPS;
	struct hk_superslab *leader = hk_superslab(space, first);

	if (!leader->bitmaps || !group_is_free(space, first) ||
	    hk_memory_decommit(space->memory, space->bitmaps + first * HK_SUPERSLAB_BITMAPS, size))
		return 0;
	leader->bitmaps = 0;
	space->bitmap_bytes -= size;
	return size;
}

/* Those of all groups: false when time is over before, and the next call goes on from there. */
static bool sweep_bitmaps(struct hk_superslabs *space, struct hk_deadline deadline, size_t *freed)
{
	uint32_t index = space->swept, looks = 0;

	if (!deadline.end_ns || !index || index > space->free.leaves)
		index = space->free.leaves;
	while (index) {
		size_t size;

		index = (index - 1) / space->bitmap_group * space->bitmap_group;
		size = trim_bitmaps(space, index);
		*freed += size;
		space->swept = index;
		if ((size || ++looks % LOOKS == 0) && index &&
		    hk_deadline_over(space->memory, deadline))
			return false;
	}
	return true;
}

/* Forgets the last superslabs, as far as they hold nothing: false when time is over before. */
static bool drop_superslabs(struct hk_superslabs *space, struct hk_deadline deadline)
{
	uint32_t index, looks = 0;

	for (index = space->free.leaves; index; index--) {
		struct hk_superslab *last = hk_superslab(space, index - 1);

		if (last->bitmaps || last->free.bits != hk_superslab_mask(space, index - 1) ||
		    atomic_load_explicit(&last->committed, memory_order_relaxed))
			break;
		atomic_fetch_sub_explicit(&space->moved, moved_slabs(last), memory_order_relaxed);
		hk_map_shrink(&space->free);
		hk_map_shrink(&space->ready);
		if (++looks % LOOKS == 0 && hk_deadline_over(space->memory, deadline))
			return false;
	}
	return true;
}

/*
 * The metadata of what is free and not committed: bitmaps, headers, after a reset classes. With the
 * trim lock, so that who faults metadata in does not find it gone.
 */
static size_t trim_metadata(struct hk_superslabs *space, struct hk_deadline deadline)
{
	size_t freed = 0;
	bool done;

	hk_lock_acquire(&space->trim_lock, &space->memory->platform);
	hk_space_lock(space);
	done = sweep_bitmaps(space, deadline, &freed) && drop_superslabs(space, deadline);
	if (space->ready_end > space->free.leaves)
		space->ready_end = space->free.leaves;
	if (space->cold_start > space->free.leaves)
		space->cold_start = space->free.leaves;
	if (done && hk_deadline_allows(space->memory, deadline, freed))
		freed +=
			hk_section_trim(space->memory, &space->headers,
					space->free.leaves * sizeof(struct hk_superslab), deadline);
	if (done && !atomic_load_explicit(&space->bound, memory_order_relaxed) &&
	    hk_deadline_allows(space->memory, deadline, freed))
		freed += hk_section_trim(space->memory, &space->classes, 0, deadline);
	hk_space_unlock(space);
	hk_lock_release(&space->trim_lock, &space->memory->platform);
	return freed ? freed : !done;
}

size_t hk_superslabs_trim(struct hk_superslabs *space, size_t keep, struct hk_deadline deadline)
{
	uint32_t index, step_max = deadline.end_ns ? TRIM_STEP_TIMED : TRIM_STEP;
	bool cut, refused = false;
	size_t freed = 0;
	uint64_t left;

	if (deadline.end_ns)
		hk_superslabs_drop_some(space);
	else
		hk_superslabs_drop_kept(space);
	hk_space_lock(space);
	index = space->ready_end;
	hk_space_unlock(space);
	while ((index = last_ready(space, index, &cut))) {
		size_t now = hk_memory_committed(space->memory), step, most;

		if (now <= keep)
			return freed;
		/* where the platform refuses there is no end to wait for */
		if (cut && hk_deadline_over(space->memory, deadline))
			return freed ? freed : !refused;
		most = (now - keep + HK_SLAB_SIZE - 1) / HK_SLAB_SIZE;
		step = trim_step(space, index - 1, most < step_max ? most : step_max);
		refused = refused || step == REFUSED;
		if (step == REFUSED && step_max > TRIM_STEP_REFUSED) {
			step_max = TRIM_STEP_REFUSED;
			continue;
		}
		index -= step <= REFUSED;
		freed = step > REFUSED ? freed + step : freed;
		if (!step)
			continue;
		left = hk_deadline_left(space->memory, deadline);
		if (!left)
			return freed;
		if (left < TRIM_LATE_NS)
			step_max = TRIM_STEP_LATE;
	}
	if (hk_memory_committed(space->memory) <= keep)
		return freed;
	/* in parts, each followed by steps: whoever keeps more meanwhile delays no step */
	if (deadline.end_ns && hk_superslabs_drop_some(space))
		return hk_freed(freed, 1);
	return hk_freed(freed, trim_metadata(space, deadline));
}

struct hk_space_use hk_space_use(struct hk_superslabs *space)
{
	struct hk_space_use use;
	size_t backed;

	hk_space_lock(space);
	use.committed = atomic_load_explicit(&space->committed, memory_order_relaxed);
	use.used = hk_space_used(space) - space->kept.slabs - space->hidden;
	use.high = space->used_high > use.used ? space->used_high : use.used;
	space->used_high = use.used;
	backed = use.used - atomic_load_explicit(&space->unbacked, memory_order_relaxed);
	use.idle = use.committed > backed ? use.committed - backed : 0;
	hk_space_unlock(space);
	return use;
}

size_t hk_superslabs_metadata(const struct hk_superslabs *space)
{
	return space->classes.committed + space->headers.committed + space->bitmap_bytes;
}

/* A run that is kept: committed, not free, used by nobody. */
static size_t check_kept_run(const struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	size_t broken = hk_run_unbacked(space, first, count) != 0;
	uint32_t slab;

	for (slab = first; slab < first + count; slab++)
		broken += hk_map_is_set(&space->free, slab, 1) || *hk_class_byte(space, slab);
	return broken;
}

/* The runs kept. That none is kept twice shows in a sum. */
static size_t check_kept(const struct hk_superslabs *space)
{
	const struct hk_kept *kept = &space->kept;
	uint32_t index, next, count, end = hk_space_slabs(space);
	size_t broken = 0, slabs = 0, piled = 0;

	if (kept->count > HK_KEPT_MAX || kept->piled > HK_KEPT_PILED_MAX)
		return 1;
	for (index = 0; index < kept->count; index++) {
		const struct hk_kept_run *run = &kept->runs[index];

		if (!run->count || run->first >= end || run->count > end - run->first)
			return 1;
		broken += check_kept_run(space, run->first, run->count);
		slabs += run->count;
	}
	for (index = 0; index < HK_KEPT_PILES; index++) {
		count = HK_KEPT_SHORTEST + index;
		next = kept->piles[index];
		for (; next; next = hk_slab(space, next - 1)->next) {
			piled += count;
			if (piled > kept->piled || next > end || count > end - (next - 1))
				return broken + 1;
			broken += check_kept_run(space, next - 1, count);
		}
	}
	return broken + (piled != kept->piled) + (slabs + piled != kept->slabs);
}

/* What is set aside is used by nobody, and committed. */
static size_t check_reserve(const struct hk_superslabs *space)
{
	const struct hk_kept_run *run = &space->reserve;
	uint32_t slab, end = hk_space_slabs(space);
	size_t broken = 0;

	if (!run->count)
		return 0;
	if (run->first >= end || run->count > end - run->first)
		return 1;
	for (slab = run->first; slab < run->first + run->count; slab++)
		broken += hk_map_is_set(&space->free, slab, 1) || *hk_class_byte(space, slab);
	return broken + (hk_run_unbacked(space, run->first, run->count) != 0);
}

size_t hk_superslabs_check(struct hk_superslabs *space)
{
	size_t broken = hk_map_check(&space->free) + hk_map_check(&space->ready);
	size_t used = 0, unbacked = 0, committed = 0, bitmap_bytes = 0, kept = 0, moved = 0;
	size_t bound = hk_space_bound(space);
	uint32_t index, bit;

	for (index = 0; index < space->free.leaves; index++) {
		struct hk_superslab *superslab = hk_superslab(space, index);
		uint32_t mask = hk_superslab_mask(space, index), free = superslab->free.bits;
		uint32_t have = atomic_load_explicit(&superslab->committed, memory_order_relaxed);
		uint32_t zero = atomic_load_explicit(&superslab->zero, memory_order_relaxed);

		broken += (free & ~mask) != 0;
		broken += superslab->ready.bits != (free & have);
		broken += superslab->ready.bits && index >= space->ready_end;
		broken += (free & ~have) && index < space->cold_start;
		unbacked += (size_t)__builtin_popcount(~free & mask & ~have);
		broken += (zero & ~have) != 0;
		used += (size_t)__builtin_popcount(~free & mask);
		committed += (size_t)__builtin_popcount(have);
		moved += moved_slabs(superslab);
		if (superslab->bitmaps)
			bitmap_bytes += space->bitmap_group * HK_SUPERSLAB_BITMAPS;
		for (bit = 0; bit < 32 && index * 32 + bit < bound; bit++) {
			unsigned byte = *hk_class_byte(space, index * 32 + bit);

			if (!(mask >> bit & 1))
				continue;
			broken += (free >> bit & 1) && byte;
			broken += (zero >> bit & 1) && byte;
			kept += !(free >> bit & 1) && !byte;
		}
	}
	broken += check_kept(space) + check_reserve(space);
	broken += kept != space->kept.slabs + space->reserve.count;
	broken += unbacked != atomic_load_explicit(&space->unbacked, memory_order_relaxed);
	broken += used != hk_space_used(space) || bitmap_bytes != space->bitmap_bytes;
	broken += moved != atomic_load_explicit(&space->moved, memory_order_relaxed);
	broken += committed != atomic_load_explicit(&space->committed, memory_order_relaxed);
	return broken;
}
