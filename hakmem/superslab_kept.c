/* SPDX-License-Identifier: MIT */
/* Runs that are kept, out of the maps: taken, given, given up; see superslab.h and kept.h. */
#include <hakmem/superslab.h>

/* Slabs behind a run that are kept with it, so that the next one needs no search. */
#define KEPT_BEHIND 512u

/* Runs in piles given up at once: 0.3 us each in an arena of a GiB, 2 us in one of 64. */
#define PILED_STEP 32u

/* Runs up to this part of the range are kept. */
#define KEPT_PART 32u

void hk_space_mark_given(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t index;

	hk_space_mark_free(space, first, count);
	for (index = first / 32; index <= (first + count - 1) / 32; index++)
		if (hk_superslab(space, index)->free.bits == hk_superslab_mask(space, index))
			space->superslabs_emptied++;
}

/* Takes a run of just @count slabs that is kept in a pile. */
static bool pile_take(struct hk_superslabs *space, uint32_t count, uint32_t *first)
{
	uint32_t *pile = hk_kept_pile(&space->kept, count);

	if (!pile || !*pile)
		return false;
	*first = *pile - 1;
	*pile = hk_slab(space, *first)->next;
	space->kept.slabs -= count;
	space->kept.piled -= count;
	return true;
}

static bool pile_give(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	uint32_t *pile = hk_kept_pile(&space->kept, count);

	if (!pile || space->kept.piled + count > HK_KEPT_PILED_MAX)
		return false;
	hk_slab(space, first)->next = *pile;
	*pile = first + 1;
	space->kept.slabs += count;
	space->kept.piled += count;
	return true;
}

/* Gives some of the runs in piles up, the longest first: whether there was one. */
bool hk_space_drop_piled(struct hk_superslabs *space)
{
	uint32_t count = HK_KEPT_SHORTEST + HK_KEPT_PILES - 1, dropped = 0, first;

	for (; count >= HK_KEPT_SHORTEST; count--)
		for (; dropped < PILED_STEP && pile_take(space, count, &first); dropped++)
			hk_space_mark_given(space, first, count);
	return dropped != 0;
}

/* Gives the runs in no pile up: whether there was one. */
bool hk_space_drop_loose(struct hk_superslabs *space)
{
	struct hk_kept *kept = &space->kept;
	bool any = kept->count != 0;

	while (kept->count) {
		const struct hk_kept_run *last = &kept->runs[--kept->count];

		hk_space_mark_given(space, last->first, last->count);
	}
	kept->slabs = kept->piled;
	return any;
}

bool hk_space_drop_some(struct hk_superslabs *space)
{
	return hk_space_drop_loose(space) || hk_space_drop_piled(space);
}

/*
 * Whether runs of @count slabs are kept. None is where commits are charged, see find_ready(), and
 * none that is a large part of the range, where it matters more that blocks lie close together.
 */
static bool is_for_keeping(const struct hk_superslabs *space, uint32_t count)
{
	return count >= HK_KEPT_SHORTEST && count <= space->slabs_max / KEPT_PART &&
	       !hk_space_is_charged(space);
}

static void keep_loose(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	if (hk_kept_give(&space->kept, first, count))
		return;
	hk_space_drop_loose(space);
	hk_kept_give(&space->kept, first, count);
}

/*
 * Keeps a free run that needs no commit, if one is long enough, with what is free behind it, but
 * nothing beyond what is used at all: so an arena that was reset does as one that is new.
 */
static bool keep_ready(struct hk_superslabs *space, uint32_t count)
{
	uint32_t first = hk_map_find(&space->ready, count);
	uint32_t most = count;

	if (first == HK_MAP_NONE || first + count > space->high)
		return false;
	most = space->high - first;
	if (most > count + KEPT_BEHIND)
		most = count + KEPT_BEHIND;
	count = hk_map_run(&space->ready, first, most);
	hk_space_mark_used(space, first, count);
	keep_loose(space, first, count);
	return true;
}

/* Takes a run from those kept; where none serves, from what they are together with what is free. */
bool hk_space_take_kept(struct hk_superslabs *space, uint32_t count, uint32_t *first)
{
	if (!is_for_keeping(space, count))
		return false;
	if (pile_take(space, count, first)) {
		space->kept.last = (struct hk_kept_run){ *first, count };
		return true;
	}
	if (hk_kept_take(&space->kept, count, first))
		return true;
	return (keep_ready(space, count) ||
		(hk_space_drop_loose(space) && keep_ready(space, count))) &&
	       hk_kept_take(&space->kept, count, first);
}

bool hk_space_keep(struct hk_superslabs *space, uint32_t first, uint32_t count)
{
	if (!is_for_keeping(space, count))
		return false;
	if (!pile_give(space, first, count))
		keep_loose(space, first, count);
	return true;
}
