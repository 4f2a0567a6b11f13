/* SPDX-License-Identifier: MIT */
/* Runs of slabs: found, committed, given back; see superslab.h. */
#include <hakmem/superslab.h>
#include <string.h>

/* Runs up to this long go into superslabs that are not all ready anyway, most of them in use. */
#define SMALL_RUN 8u

_Static_assert(SMALL_RUN < HK_MAP_SHORT, "found without the tree");

/* Class bytes, as many as a register holds. */
typedef _Atomic size_t __attribute__((may_alias)) class_word;

static uint32_t committed_bits(const struct hk_superslabs *space, uint32_t slab)
{
	return atomic_load_explicit(&hk_superslab(space, slab / 32)->committed,
				    memory_order_relaxed);
}

static bool is_committed(const struct hk_superslabs *space, uint32_t slab)
{
	return committed_bits(space, slab) >> slab % 32 & 1;
}

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
	bool first = is_committed(space, from);
	uint32_t alike = 0, mask, here, other;

	while (alike < count) {
		here = part_of(from + alike, count - alike, &mask);
		other = committed_bits(space, from + alike);
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

void hk_space_mark_used(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	hk_map_clear(&space->free, first, count);
	hk_map_clear(&space->ready, first, count);
	space->used += count;
}

static void mark_free(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t alike;

	hk_map_set(&space->free, first, count);
	space->used -= count;
	for (; count; first += alike, count -= alike) {
		alike = count_alike(space, first, count);
		if (is_committed(space, first))
			hk_map_set(&space->ready, first, alike);
	}
}

uint32_t hk_run_unbacked(const struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t unbacked = 0, here, mask;

	for (; count; first += here, count -= here) {
		here = part_of(first, count, &mask);
		unbacked += (uint32_t)__builtin_popcount(~committed_bits(space, first) & mask);
	}
	return unbacked;
}

void hk_classes_set(struct hk_superslabs *space, uint32_t first, uint32_t count, unsigned value)
{
	const size_t ones = SIZE_MAX / 0xff;

	/* large blocks have hundreds: as many at once as a register holds */
	while (count) {
		_Atomic unsigned char *byte = hk_class_byte(space, first);
		uint32_t here = 1;

		if (count >= sizeof(size_t) && (uintptr_t)byte % sizeof(size_t) == 0) {
			here = sizeof(size_t);
			atomic_store_explicit((class_word *)(void *)byte, value * ones,
					      memory_order_relaxed);
		} else {
			atomic_store_explicit(byte, (unsigned char)value, memory_order_relaxed);
		}
		first += here;
		count -= here;
	}
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
static int add_superslabs(struct hk_superslabs *space, size_t slabs)
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

/* Adds superslabs so that a run is found at the end of those there are. */
static int add_room(struct hk_superslabs *space, uint32_t count, size_t align)
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

static bool is_charged(const struct hk_superslabs *space)
{
	return space->memory->platform.flags & HK_PLATFORM_CHARGED;
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
	/* not where another allocation might miss what is marked used for the time */
	if (is_charged(space) || step < 2 || space->slabs_max - space->used < 8 * step)
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
	uint32_t alike;
	int error;

	for (; count; first += alike, count -= alike) {
		alike = count_alike(space, first, count);
		if (is_committed(space, first))
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
	mark_free(space, first, count);
	hk_space_unlock(space);
}

/* Commits a run and what is to be committed ahead behind it, which is given back as free. */
static int commit_with_ahead(struct hk_superslabs *space, uint32_t first, uint32_t count,
			     uint32_t ahead)
{
	int error = commit_run(space, first, count + ahead);

	if (ahead)
		hk_space_unmark(space, first + count, ahead);
	if (error && ahead)
		error = commit_run(space, first, count);
	return error;
}

static bool is_zeroed(const struct hk_superslabs *space, uint32_t first, uint32_t count)
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

static void zero_run(struct hk_superslabs *space, uint32_t first, size_t bytes)
{
	for (; bytes; first++) {
		size_t here = bytes < HK_SLAB_SIZE ? bytes : HK_SLAB_SIZE;

		if (!is_zeroed(space, first, 1))
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
	size_t metadata = hk_memory_committed(space->memory) - slabs * HK_SLAB_SIZE;

	return space->memory->limit != SIZE_MAX &&
	       count > (space->memory->limit - metadata) / HK_SLAB_SIZE;
}

/*
 * A free run that needs no commit. Where commits are charged it is looked for last, see
 * take_ready(): the lowest free run is taken, whatever it needs, so that a reset arena does as
 * one that is new.
 */
static uint32_t find_ready(struct hk_superslabs *space, uint32_t count, size_t align)
{
	uint32_t found = HK_MAP_NONE;

	if (is_charged(space))
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
 * The same; where it would take a commit, after what other layers keep was given back. Space lock
 * held, but not meanwhile.
 */
static uint32_t find_or_shrink(struct hk_superslabs *space, uint32_t count, uint32_t backed,
			       size_t align)
{
	uint32_t found = find_run(space, count, align);

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
	uint32_t found, ahead = 0;
	int error = 0;

	hk_space_lock(space);
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
	if (hk_run_unbacked(space, found, backed))
		ahead = commit_ahead(space, found + count);
	error = publish_classes(space, found + count);
	if (error)
		goto out_unlock;
	hk_space_mark_used(space, found, count + ahead);
	hk_space_unlock(space);

	/* there is nothing ahead where a run is backed in part: neither is where it is charged */
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
		error = publish_classes(space, *first + count);
	if (!error)
		hk_space_mark_used(space, *first, count);
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
		if (error && is_charged(space) && !take_ready(space, count, align, first))
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
		*zeroed = is_zeroed(space, *first, count);
	zero_run(space, *first, zero_bytes);
	hk_space_clear_bits(space, *first, count, false);
	return 0;
}

int hk_run_take_backed(struct hk_superslabs *space, uint32_t count, uint32_t *backed,
		       uint32_t *first, bool *zeroed)
{
	int error;

	if (!is_charged(space))
		*backed = count;
	error = take_or_wait(space, count, *backed, HK_SLAB_SIZE, first);
	if (error)
		return error;
	/* what follows may be committed from an earlier use, which must not show */
	atomic_fetch_add_explicit(&space->unbacked, hk_run_unbacked(space, *first, count),
				  memory_order_relaxed);
	*zeroed = is_zeroed(space, *first, *backed);
	hk_space_clear_bits(space, *first, count, false);
	return 0;
}

int hk_run_back(struct hk_superslabs *space, uint32_t first, uint32_t count, bool *zeroed)
{
	uint32_t missing = hk_run_unbacked(space, first, count);
	int error = commit_run(space, first, count);

	*zeroed = is_zeroed(space, first, count);
	missing -= hk_run_unbacked(space, first, count);
	atomic_fetch_sub_explicit(&space->unbacked, missing, memory_order_relaxed);
	hk_space_clear_bits(space, first, count, false);
	return error;
}

size_t hk_run_trim(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	size_t freed = 0;

	for (; count; first++, count--) {
		if (!is_committed(space, first) ||
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
	uint32_t index;

	atomic_fetch_sub_explicit(&space->unbacked, hk_run_unbacked(space, first, count),
				  memory_order_relaxed);
	hk_space_lock(space);
	mark_free(space, first, count);
	for (index = first / 32; index <= (first + count - 1) / 32; index++)
		if (hk_superslab(space, index)->free.bits == hk_superslab_mask(space, index))
			space->superslabs_emptied++;
	hk_space_unlock(space);
}

int hk_run_extend(struct hk_superslabs *space, uint32_t first, uint32_t count, uint32_t more)
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
	hk_space_mark_used(space, end, more);
	hk_space_unlock(space);

	error = commit_run(space, end, more);
	if (error)
		hk_space_unmark(space, end, more);
	else
		hk_space_clear_bits(space, end, more, false);
	return error;

out_unlock:
	hk_space_unlock(space);
	return error;
}

void hk_run_moved(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	hk_space_clear_bits(space, first, count, true);
	atomic_fetch_add_explicit(&space->unbacked, count, memory_order_relaxed);
	atomic_fetch_sub_explicit(&space->committed, count, memory_order_relaxed);
	hk_memory_uncharge(space->memory, count * HK_SLAB_SIZE);
}
