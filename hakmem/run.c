/* SPDX-License-Identifier: MIT */
/* Runs of slabs: found, committed, kept, extended, given back; see superslab.h. */
#include <hakmem/superslab.h>
#include <string.h>

/* Runs up to this long go into superslabs that are not all ready anyway, most of them in use. */
#define SMALL_RUN 8u

/* Of the slabs in use one in so many may stay kept while others are used for the first time. */
#define KEPT_SHARE 8u

/* Where more slabs than these are used, such a part of them may stay in piles. */
#define PILES_LARGE 1024u
#define PILES_SHARE 4u

_Static_assert(SMALL_RUN < HK_MAP_SHORT, "found without the tree");

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

static uint32_t find(const struct hk_superslabs *space, struct hk_map *map, uint32_t count,
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

/*
 * Up to this many slabs half of what is committed is committed at once, and from then on so
 * many, up to the second bound an eighth: a commit takes as long whatever its size, and what is
 * never touched takes no memory. With a quarter Minetest's first pass made 42 platform calls, not
 * 33, and took 0.8 % longer. With 32 at most, loading 650 MiB made a commit of one allocation
 * in 14, and these were the slowest ten-thousandth of all calls of `workload frames`.
 */
#define AHEAD_SMALL 32u
#define AHEAD_LARGE 256u
#define AHEAD_LEFT                                                                                 \
	((size_t)4 << 20) /* bytes; with less left of a limit superslabs come one by one */

/* Slabs to commit at once: a power of two, fewer near the limit. */
static uint32_t commit_step(const struct hk_superslabs *space)
{
	size_t have = atomic_load_explicit(&((struct hk_superslabs *)space)->committed,
					   memory_order_relaxed);
	size_t left = hk_memory_left(space->memory);
	size_t small = have / 2 < AHEAD_SMALL ? have / 2 : AHEAD_SMALL;
	size_t large = have / 8 < AHEAD_LARGE ? have / 8 : AHEAD_LARGE;
	size_t step = small > large ? small : large;

	if (left != SIZE_MAX && left / 4 / HK_SLAB_SIZE < step)
		step = left / 4 / HK_SLAB_SIZE;
	while (step & (step - 1))
		step &= step - 1;
	return (uint32_t)step;
}

/* Where a run at the end of the superslabs there are would end; SIZE_MAX: beyond the range. */
static size_t end_with(const struct hk_superslabs *space, uint32_t count, size_t align)
{
	size_t slab = (size_t)space->free.leaves * 32 - hk_map_end(&space->free);

	slab = aligned_slab(space, slab, align);
	return slab < space->slabs_max && count <= space->slabs_max - slab ? slab + count
									   : SIZE_MAX;
}

/*
 * Adds superslabs so that a run is found at the end of those there are; a large arena many, for
 * what is committed ahead with it. No more: each takes a microsecond, since its header is touched
 * for the first time; with four times as many these were the slowest calls of `workload frames`.
 */
static int add_room(struct hk_superslabs *space, uint32_t count, size_t align)
{
	size_t slab = end_with(space, count, align), step, end;

	if (slab == SIZE_MAX)
		return HK_ERROR_ADDRESS_SPACE;
	if (hk_memory_left(space->memory) < AHEAD_LEFT)
		return hk_space_add(space, slab);
	step = commit_step(space);
	end = (slab + step - 1) & ~(step - 1);
	if (step > AHEAD_SMALL && !hk_space_is_charged(space) && end <= space->slabs_max &&
	    !hk_space_add(space, end))
		return 0;
	return hk_space_add(space, slab);
}

/* Slabs up to @end are used; space lock held. */
static void note_use(struct hk_superslabs *space, uint32_t end)
{
	size_t used = hk_space_used(space) - space->kept.slabs - space->hidden;

	if (space->high < end)
		space->high = end;
	if (space->used_high < used)
		space->used_high = used;
}

/* Slabs to commit beyond a run: up to the next multiple of the step. */
static uint32_t commit_ahead(const struct hk_superslabs *space, uint32_t end)
{
	uint32_t step = commit_step(space), slab;

	/* not where another allocation might miss what is marked used for the time */
	if (hk_space_is_charged(space) || step < 2 ||
	    space->slabs_max - hk_space_used(space) < 8 * step)
		return 0;
	/* as far as it is free and not committed */
	for (slab = end; slab % step; slab++)
		if (!hk_map_is_set(&space->free, slab, 1) || hk_space_is_committed(space, slab))
			break;
	return slab - end;
}

/* Commits a run and what is to be committed ahead behind it, which is given back as free. */
static int commit_with_ahead(struct hk_superslabs *space, uint32_t first, uint32_t count,
			     uint32_t ahead)
{
	int error = hk_space_commit(space, first, count + ahead);

	if (ahead)
		hk_space_unmark(space, first + count, ahead);
	if (error && ahead)
		error = hk_space_commit(space, first, count);
	return error;
}

static void zero_run(struct hk_superslabs *space, uint32_t first, size_t bytes)
{
	for (; bytes; first++) {
		size_t here = bytes < HK_SLAB_SIZE ? bytes : HK_SLAB_SIZE;

		if (!hk_space_is_zeroed(space, first, 1))
			memset(hk_slab_address(space, first), 0, here);
		bytes -= here;
	}
}

bool hk_run_is_possible(const struct hk_superslabs *space, size_t count, size_t align)
{
	size_t first = aligned_slab(space, 0, align);

	return first < space->slabs_max && count <= space->slabs_max - first;
}

/* Whether the limit forbids @count slabs for ever, beside the metadata there is. */
static bool is_beyond_limit(const struct hk_superslabs *space, uint32_t count)
{
	size_t slabs = atomic_load_explicit(&((struct hk_superslabs *)space)->committed,
					    memory_order_relaxed);
	size_t used = hk_memory_committed(space->memory);
	/* a trim uncharges slabs before it counts them off */
	size_t metadata = used > slabs * HK_SLAB_SIZE ? used - slabs * HK_SLAB_SIZE : 0;
	size_t limit = hk_memory_limit(space->memory);

	/* one that was lowered may be less than the metadata alone */
	return limit != SIZE_MAX && (metadata > limit || count > (limit - metadata) / HK_SLAB_SIZE);
}

/*
 * A free run that needs no commit. Where commits are charged it is looked for last, see
 * take_ready(): the lowest free run is taken, whatever it needs, so that a reset arena does as
 * one that is new.
 */
static uint32_t find_ready(struct hk_superslabs *space, uint32_t count, size_t align)
{
	uint32_t found = HK_MAP_NONE;

	if (hk_space_is_charged(space))
		return HK_MAP_NONE;
	if (count <= SMALL_RUN && align == HK_SLAB_SIZE)
		found = hk_map_find_broken(&space->ready, count);
	return found != HK_MAP_NONE ? found : find(space, &space->ready, count, align);
}

/* A free run: one that needs no commit, if need be any. Space lock held. */
static uint32_t find_run(struct hk_superslabs *space, uint32_t count, size_t align)
{
	uint32_t found = find_ready(space, count, align);

	return found != HK_MAP_NONE ? found : find(space, &space->free, count, align);
}

/*
 * Whether a run is reason to give up what is kept, @slabs of it: it would reach into a superslab
 * where nothing was used so far, or beyond all that was used while much is kept. A little stays
 * kept, since else short runs nibble at it, and the next large block goes beyond all the same.
 *
 * Not whether it takes a commit, or a superslab more: an arena that was reset has more of these
 * than one that is new, and should do the same.
 */
static bool is_reason(const struct hk_superslabs *space, uint32_t found, uint32_t count,
		      uint32_t slabs)
{
	uint32_t high = space->high;

	if (found == HK_MAP_NONE || found + count > (high + 31) / 32 * 32)
		return true;
	return found + count > high && slabs > hk_space_used(space) / KEPT_SHARE;
}

/*
 * The same for piles: once much memory is used they are worth a superslab more, as long as they are
 * not too much. With the first rule for all, `varsize` takes 1.7 times the page faults; with this
 * one for all, 16 blocks of 32 KiB to 8 MiB, replaced at random, take 56 to 60 MiB, not 50 to 56.
 */
static bool is_reason_for_piles(const struct hk_superslabs *space, uint32_t found, uint32_t count,
				size_t align)
{
	size_t used = hk_space_used(space);

	if (used <= PILES_LARGE)
		return is_reason(space, found, count, space->kept.piled);
	if (found != HK_MAP_NONE && found + count <= space->high)
		return false;
	return space->kept.piled > used / PILES_SHARE ||
	       (found == HK_MAP_NONE && end_with(space, count, align) == SIZE_MAX);
}

/* A free run, after what is kept made way for it as far as there is reason. Space lock held. */
static uint32_t find_or_drop(struct hk_superslabs *space, uint32_t count, size_t align)
{
	uint32_t found = find_run(space, count, align);

	if (is_reason(space, found, count, hk_kept_loose(&space->kept)) &&
	    hk_space_drop_loose(space))
		found = find_run(space, count, align);
	while (is_reason_for_piles(space, found, count, align) && hk_space_drop_piled(space))
		found = find_run(space, count, align);
	return found;
}

/*
 * The same, and where it would take a commit, after what other layers keep was given back too.
 * Space lock held, but not meanwhile.
 */
static uint32_t find_or_shrink(struct hk_superslabs *space, uint32_t count, uint32_t backed,
			       size_t align)
{
	uint32_t found = find_or_drop(space, count, align);

	if (found != HK_MAP_NONE && !hk_run_unbacked(space, found, backed))
		return found;
	if (!space->shrink || is_beyond_limit(space, backed))
		return found;
	hk_space_unlock(space);
	space->shrink(space->shrink_context);
	hk_space_lock(space);
	/* others may have taken what was found */
	return find_run(space, count, align);
}

/* Takes a run and commits the first @backed of its slabs. */
static int take(struct hk_superslabs *space, uint32_t count, uint32_t backed, size_t align,
		uint32_t *first)
{
	uint32_t found, cold, ahead = 0;
	int error = 0;

	hk_space_lock(space);
	if (align == HK_SLAB_SIZE && hk_space_take_kept(space, count, first)) {
		note_use(space, *first + count);
		hk_space_unlock(space);
		return 0;
	}
	found = find_or_shrink(space, count, backed, align);
	if (found == HK_MAP_NONE) {
		error = HK_ERROR_LIMIT;
		if (!is_beyond_limit(space, backed))
			error = add_room(space, count, align);
		if (!error)
			found = find(space, &space->free, count, align);
		if (found == HK_MAP_NONE)
			goto out_unlock;
	}
	cold = hk_run_unbacked(space, found, backed);
	if (cold)
		ahead = commit_ahead(space, found + count);
	error = hk_space_publish(space, found + count);
	if (error)
		goto out_unlock;
	hk_space_mark_used(space, found, count);
	note_use(space, found + count);
	if (ahead)
		hk_space_mark_used(space, found + count, ahead);
	hk_space_unlock(space);

	/* there is nothing ahead where a run is backed in part: neither is where it is charged */
	if (cold)
		error = commit_with_ahead(space, found, backed, ahead);
	if (error)
		hk_space_unmark(space, found, count);
	*first = found;
	return error;

out_unlock:
	hk_space_unlock(space);
	return error ? error : HK_ERROR_ADDRESS_SPACE;
}

/*
 * Whether a trim hid slabs since @steps was read, so that it is worth trying again; waits until
 * its step is over.
 */
static bool wait_for_trim(struct hk_superslabs *space, size_t steps)
{
	/* acquire: pairs with the releases in trim_step() */
	if (!(steps & 1) && steps == atomic_load_explicit(&space->trim_steps, memory_order_acquire))
		return false;
	hk_lock_acquire(&space->trim_lock, &space->memory->platform);
	hk_lock_release(&space->trim_lock, &space->memory->platform);
	return true;
}

/* Takes a run that is committed, after the commit of another was refused. */
static int take_ready(struct hk_superslabs *space, uint32_t count, size_t align, uint32_t *first)
{
	int error = HK_ERROR_ADDRESS_SPACE;

	hk_space_lock(space);
	*first = find(space, &space->ready, count, align);
	if (*first != HK_MAP_NONE)
		error = hk_space_publish(space, *first + count);
	if (!error) {
		hk_space_mark_used(space, *first, count);
		note_use(space, *first + count);
	}
	hk_space_unlock(space);
	return error;
}

/* Takes a run, again while a trim hides what there is. */
static int take_or_wait(struct hk_superslabs *space, uint32_t count, uint32_t backed, size_t align,
			uint32_t *first)
{
	size_t steps;
	int error;

	do {
		steps = atomic_load_explicit(&space->trim_steps, memory_order_acquire);
		error = take(space, count, backed, align, first);
		if (error && hk_space_is_charged(space) && !take_ready(space, count, align, first))
			error = 0;
	} while (error && wait_for_trim(space, steps));
	return error;
}

int hk_run_take(struct hk_superslabs *space, uint32_t count, size_t align, size_t zero_bytes,
		uint32_t *first, bool *zeroed)
{
	int error = take_or_wait(space, count, count, align, first);

	if (error)
		return error;
	if (zeroed)
		*zeroed = hk_space_is_zeroed(space, *first, count);
	zero_run(space, *first, zero_bytes);
	hk_space_clear_bits(space, *first, count, false);
	return 0;
}

int hk_run_take_backed(struct hk_superslabs *space, uint32_t count, uint32_t *backed,
		       uint32_t *first, bool *zeroed)
{
	int error;

	if (!hk_space_is_charged(space))
		*backed = count;
	error = take_or_wait(space, count, *backed, HK_SLAB_SIZE, first);
	if (error)
		return error;
	/* what follows may be committed from an earlier use, which must not show */
	if (*backed < count)
		atomic_fetch_add_explicit(&space->unbacked, hk_run_unbacked(space, *first, count),
					  memory_order_relaxed);
	*zeroed = hk_space_is_zeroed(space, *first, *backed);
	hk_space_clear_bits(space, *first, count, false);
	return 0;
}

int hk_run_back(struct hk_superslabs *space, uint32_t first, uint32_t count, bool *zeroed)
{
	uint32_t missing = hk_run_unbacked(space, first, count);
	int error = hk_space_commit(space, first, count);

	*zeroed = hk_space_is_zeroed(space, first, count);
	missing -= hk_run_unbacked(space, first, count);
	atomic_fetch_sub_explicit(&space->unbacked, missing, memory_order_relaxed);
	hk_space_clear_bits(space, first, count, false);
	return error;
}

size_t hk_run_trim(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	size_t freed = 0;

	for (; count; first++, count--) {
		if (!hk_space_is_committed(space, first) ||
		    hk_memory_decommit(space->memory, hk_slab_address(space, first), HK_SLAB_SIZE))
			continue;
		atomic_fetch_add_explicit(&space->unbacked, 1, memory_order_relaxed);
		hk_space_clear_bits(space, first, 1, true);
		atomic_fetch_sub_explicit(&space->committed, 1, memory_order_relaxed);
		freed += HK_SLAB_SIZE;
	}
	return freed;
}

void hk_run_give(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t unbacked = hk_run_unbacked(space, first, count);

	if (unbacked)
		atomic_fetch_sub_explicit(&space->unbacked, unbacked, memory_order_relaxed);
	hk_space_lock(space);
	if (unbacked || !hk_space_keep(space, first, count))
		hk_space_mark_given(space, first, count);
	hk_space_unlock(space);
}

/* Whether what is kept may be what lies behind a run: not if there is a block. */
static bool is_kept_behind(const struct hk_superslabs *space, uint32_t end, uint32_t more)
{
	uint32_t last = space->free.leaves * 32, slab;
	size_t bound = hk_space_bound(space);

	if (more > last - end)
		more = last - end;
	if (!space->kept.slabs || !more || hk_map_is_set(&space->free, end, more))
		return false;
	for (slab = end; slab < end + more && slab < bound; slab++)
		if (atomic_load_explicit(hk_class_byte(space, slab), memory_order_relaxed))
			return false;
	return true;
}

static int extend(struct hk_superslabs *space, uint32_t first, uint32_t count, uint32_t more)
{
	uint32_t end = first + count, last;
	int error = HK_ERROR_ADDRESS_SPACE;

	hk_space_lock(space);
	last = space->free.leaves * 32;
	if (more > space->slabs_max - end)
		goto out_unlock;
	if (is_beyond_limit(space, count + more)) {
		error = HK_ERROR_LIMIT;
		goto out_unlock;
	}
	while (is_kept_behind(space, end, more) && hk_space_drop_some(space))
		;
	if (end + more > last) {
		/* only the free end of the superslabs there are can be lengthened */
		if (end < last && !hk_map_is_set(&space->free, end, last - end))
			goto out_unlock;
		error = hk_space_add(space, end + more);
		if (error)
			goto out_unlock;
	}
	error = HK_ERROR_ADDRESS_SPACE;
	if (!hk_map_is_set(&space->free, end, more))
		goto out_unlock;
	error = hk_space_publish(space, end + more);
	if (error)
		goto out_unlock;
	hk_space_mark_used(space, end, more);
	note_use(space, end + more);
	hk_space_unlock(space);

	error = hk_space_commit(space, end, more);
	if (error)
		hk_space_unmark(space, end, more);
	else
		hk_space_clear_bits(space, end, more, false);
	return error;

out_unlock:
	hk_space_unlock(space);
	return error;
}

/* Again where what follows was hidden. */
int hk_run_extend(struct hk_superslabs *space, uint32_t first, uint32_t count, uint32_t more)
{
	size_t steps;
	int error;

	do {
		steps = atomic_load_explicit(&space->trim_steps, memory_order_acquire);
		error = extend(space, first, count, more);
	} while (error == HK_ERROR_ADDRESS_SPACE && wait_for_trim(space, steps));
	return error;
}

int hk_reserve_fill(struct hk_superslabs *space, uint32_t count, bool ready)
{
	uint32_t first = 0, have;
	int error;

	hk_space_lock(space);
	have = space->reserve.count;
	hk_space_unlock(space);
	if (have || !count)
		return 0;
	error = ready ? take_ready(space, count, HK_SLAB_SIZE, &first)
		      : take_or_wait(space, count, count, HK_SLAB_SIZE, &first);
	if (error)
		return error;
	hk_space_clear_bits(space, first, count, false);
	hk_space_lock(space);
	have = space->reserve.count;
	if (!have)
		space->reserve = (struct hk_kept_run){ first, count };
	hk_space_unlock(space);
	/* another thread was quicker */
	if (have)
		hk_run_give(space, first, count);
	return 0;
}

bool hk_reserve_give(struct hk_superslabs *space)
{
	struct hk_kept_run reserve;

	hk_space_lock(space);
	reserve = space->reserve;
	space->reserve.count = 0;
	hk_space_unlock(space);
	if (reserve.count)
		hk_run_give(space, reserve.first, reserve.count);
	return reserve.count != 0;
}
