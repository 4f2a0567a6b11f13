/* SPDX-License-Identifier: MIT */
/*
 * A map of slabs: one bit each, and how to find the lowest run of n set bits.
 *
 * A leaf is the 32 slabs of one superslab. Long runs are found by a tree. A node of it says of its
 * range how long the run of set bits at its start, at its end, and the longest within is, as the page allocator of
 * Go's runtime does ("Scaling the Go page allocator", 2019). The binary tree is laid out in
 * order: the node of level l over its j-th range is number ((2j + 1) << l) - 1, so leaf i and
 * the node after it live together, a map of n leaves uses the first 2n numbers, and it grows at
 * its end without moving anything. The tree is put right before it is asked, not whenever a bit
 * changes: till then the leaves that changed are listed. When the list is full the tree learns of
 * them; when that has cost as much as to build it anew, it waits to be built anew instead, so that
 * a tree that is never asked costs nothing.
 *
 * Short runs, which come and go most often, need no tree. Of each group of 32 leaves the first
 * has the longest run within each leaf, a byte each; the map remembers, for each length, before
 * which group there is none.
 *
 * A map is guarded by the lock of who owns it. It holds no memory: the leaves lie in the
 * superslab headers.
 */
#ifndef HK_MAP_H
#define HK_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HK_MAP_LEAF_BITS 32u
#define HK_MAP_NONE UINT32_MAX
#define HK_MAP_GROUP 32u /* leaves */
#define HK_MAP_SHORT 16u /* the longest of the short runs */
#define HK_MAP_STALE 32u /* leaves that the tree need not know of */

struct hk_map_node {
	uint32_t start; /* set bits at the start of the range */
	uint32_t best;	/* the longest run of set bits in it */
	uint32_t end;	/* set bits at its end */
};

struct hk_map_leaf {
	uint32_t bits;
	bool stale;		    /* in the map's list: the tree does not know its bits */
	struct hk_map_node node[2]; /* the leaf itself, and the node after it */
	/* in the first leaf of a group, of each leaf the longest run; 0 too where all is set */
	uint8_t longest[HK_MAP_GROUP];
};

struct hk_map {
	unsigned char *first; /* the first leaf */
	size_t stride;	      /* bytes from one leaf to the next */
	uint32_t leaves;
	bool unknown;	/* the tree is to be built anew before it is asked */
	uint32_t spent; /* leaves that it learned of since it was last asked */
	uint32_t stale_count;
	uint32_t stale[HK_MAP_STALE];
	uint32_t group[HK_MAP_SHORT + 1]; /* per length: no group before has such a run */
};

static inline struct hk_map_leaf *hk_map_leaf(const struct hk_map *map, uint32_t index)
{
	return (struct hk_map_leaf *)(void *)(map->first + index * map->stride);
}

/* A mask of @count bits from bit @from on; @count 1 to 32. */
static inline uint32_t hk_mask(uint32_t from, uint32_t count)
{
	return (UINT32_MAX >> (32 - count)) << from;
}

/* Adds a leaf at the end, all clear; drops the last. */
void hk_map_grow(struct hk_map *map);
void hk_map_shrink(struct hk_map *map);

/* Sets or clears @count bits from bit @from on. */
void hk_map_set(struct hk_map *map, uint32_t from, uint32_t count);
void hk_map_clear(struct hk_map *map, uint32_t from, uint32_t count);

/* Replaces a whole leaf; all else is put right by hk_map_rebuild(). */
static inline void hk_map_store(struct hk_map *map, uint32_t leaf, uint32_t bits)
{
	hk_map_leaf(map, leaf)->bits = bits;
}

void hk_map_rebuild(struct hk_map *map);

/* The lowest run of @count set bits: its first bit, or HK_MAP_NONE. */
uint32_t hk_map_find(struct hk_map *map, uint32_t count);

/* A short run in the first leaf that has one and is not all set: keeps whole leaves whole. */
uint32_t hk_map_find_broken(struct hk_map *map, uint32_t count);

/* Whether @count bits from bit @from on are all set; bits beyond the end are not. */
bool hk_map_is_set(const struct hk_map *map, uint32_t from, uint32_t count);

/* Set bits from bit @from on, at most @most. */
uint32_t hk_map_run(const struct hk_map *map, uint32_t from, uint32_t most);

/* Set bits at the end of the map. */
uint32_t hk_map_end(const struct hk_map *map);

/* What disagrees with the bits. */
size_t hk_map_check(struct hk_map *map);

#endif /* HK_MAP_H */
