/* SPDX-License-Identifier: MIT */
/*
 * Kept runs: long runs of slabs that were given back lately. They stay out of the maps of free
 * slabs, so that large blocks come and go, are split and merged, without these.
 *
 * Of those that blocks of half a MiB to a whole one leave, the shortest there are, each length has
 * a pile: the one that was given last is the next one, whole, so that blocks of a size go through
 * the same pages. Longer ones are few: the shortest run that is long enough serves, of these the
 * lowest, and each call looks at all of them.
 *
 * A block takes the start of a kept run; but its end, where that run lies right behind the one that
 * was taken last, and the block needs half as much again or more. So does a block that grows by
 * being copied: the run before is given back next, and is then one with the rest (if need be after
 * piles were given up), where the next one fits. (Minetest's buffers, 0.5, 1 and 2 MiB: 56 of 1831
 * pages less are touched in its first pass.)
 *
 * Guarded by the lock of who owns it.
 */
#ifndef HK_KEPT_H
#define HK_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HK_KEPT_MAX 32u

/* Lengths that have a pile, from the shortest that is kept. */
#define HK_KEPT_SHORTEST 9u
#define HK_KEPT_PILES 8u

/* Slabs in piles at most, fewer than 200 runs: an allocation may have to give all of them up. */
#define HK_KEPT_PILED_MAX 1536u

struct hk_kept_run {
	uint32_t first;
	uint32_t count;
};

struct hk_kept {
	uint32_t count;		 /* runs in no pile */
	uint32_t slabs;		 /* of all of them, those in piles too */
	uint32_t piled;		 /* of those */
	struct hk_kept_run last; /* that was taken, from a pile too; no slabs: none */
	struct hk_kept_run runs[HK_KEPT_MAX];
	uint32_t piles[HK_KEPT_PILES]; /* the run on top, plus one; linked by their headers */
};

/* The pile of runs of @count slabs; NULL: they have none. */
static inline uint32_t *hk_kept_pile(struct hk_kept *kept, uint32_t count)
{
	uint32_t index = count - HK_KEPT_SHORTEST;

	return index < HK_KEPT_PILES ? &kept->piles[index] : NULL;
}

/* Slabs in no pile. */
static inline uint32_t hk_kept_loose(const struct hk_kept *kept)
{
	return kept->slabs - kept->piled;
}

/* Takes a run of @count slabs from those in no pile: false where none is long enough. */
bool hk_kept_take(struct hk_kept *kept, uint32_t count, uint32_t *first);

/* Keeps a run, in no pile: false when there are as many as can be. */
bool hk_kept_give(struct hk_kept *kept, uint32_t first, uint32_t count);

#endif /* HK_KEPT_H */
