/* SPDX-License-Identifier: MIT */
/* Runs of set bits and the tree that finds them; see map.h. */
#include <hakmem/map.h>

/* Whether @bits has @count neighbouring ones; returns the starts of all such runs. */
static uint32_t run_starts(uint32_t bits, uint32_t count)
{
	uint32_t have = 1;

	while (have < count && bits) {
		uint32_t step = have < count - have ? have : count - have;

		bits &= bits >> step;
		have += step;
	}
	return bits;
}

static struct hk_map_node leaf_node(uint32_t bits)
{
	struct hk_map_node node = { 32, 32, 32, 0 };

	if (bits == UINT32_MAX)
		return node;
	node.start = (uint32_t)__builtin_ctz(~bits);
	node.end = (uint32_t)__builtin_clz(~bits);
	node.best = 0;
	for (; bits; bits &= bits << 1)
		node.best++;
	node.broken = node.best;
	return node;
}

static struct hk_map_node *node_at(const struct hk_map *map, uint32_t number)
{
	return &hk_map_leaf(map, number >> 1)->node[number & 1];
}

static uint32_t node_number(unsigned level, uint32_t index)
{
	return ((2 * index + 1) << level) - 1;
}

/*
 * The node of @level over range @index. At the right edge a node may be missing whose left part
 * exists: that part then stands for it, since all beyond is clear.
 */
static struct hk_map_node node_get(const struct hk_map *map, unsigned level, uint32_t index)
{
	static const struct hk_map_node clear = { 0, 0, 0, 0 };

	while (node_number(level, index) >= 2 * map->leaves) {
		if (!level)
			return clear;
		level--;
		index *= 2;
	}
	return *node_at(map, node_number(level, index));
}

static struct hk_map_node node_join(struct hk_map_node left, struct hk_map_node right,
				    uint32_t half)
{
	struct hk_map_node node = left;
	uint32_t across = left.end + right.start;

	if (left.start == half)
		node.start = half + right.start;
	node.end = right.end == half ? half + left.end : right.end;
	if (node.best < right.best)
		node.best = right.best;
	if (node.best < across)
		node.best = across;
	if (node.broken < right.broken)
		node.broken = right.broken;
	return node;
}

static unsigned top_level(const struct hk_map *map)
{
	unsigned level = 0;

	while ((1u << level) < map->leaves)
		level++;
	return level;
}

static struct hk_map_node node_joined(const struct hk_map *map, unsigned level, uint32_t index)
{
	return node_join(node_get(map, level - 1, 2 * index),
			 node_get(map, level - 1, 2 * index + 1), HK_MAP_LEAF_BITS << (level - 1));
}

static bool node_equal(struct hk_map_node a, struct hk_map_node b)
{
	return a.start == b.start && a.best == b.best && a.end == b.end && a.broken == b.broken;
}

/*
 * Puts the tree right above one leaf, up to the first node that does not change. With @all up to
 * the top: when the edge moves, nodes above change whose children did not.
 */
static void update(struct hk_map *map, uint32_t leaf, bool all)
{
	unsigned level, top = top_level(map);
	struct hk_map_node *node = node_at(map, 2 * leaf);
	struct hk_map_node now = leaf_node(hk_map_leaf(map, leaf)->bits);

	for (level = 0;;) {
		if (node) {
			if (!all && node_equal(*node, now))
				return;
			*node = now;
		}
		if (++level > top)
			return;
		leaf >>= 1;
		node = NULL;
		if (node_number(level, leaf) < 2 * map->leaves) {
			node = node_at(map, node_number(level, leaf));
			now = node_joined(map, level, leaf);
		}
	}
}

void hk_map_grow(struct hk_map *map)
{
	static const struct hk_map_node clear = { 0, 0, 0, 0 };
	struct hk_map_leaf *leaf = hk_map_leaf(map, map->leaves);

	leaf->bits = 0;
	leaf->node[0] = leaf->node[1] = clear;
	map->leaves++;
	update(map, map->leaves - 1, true);
}

void hk_map_shrink(struct hk_map *map)
{
	map->leaves--;
	if (map->leaves)
		update(map, map->leaves - 1, true);
}

void hk_map_rebuild(struct hk_map *map)
{
	unsigned level, top = top_level(map);
	uint32_t index;

	for (index = 0; index < map->leaves; index++)
		*node_at(map, 2 * index) = leaf_node(hk_map_leaf(map, index)->bits);
	for (level = 1; level <= top; level++)
		for (index = 0; node_number(level, index) < 2 * map->leaves; index++)
			*node_at(map, node_number(level, index)) = node_joined(map, level, index);
}

static void change(struct hk_map *map, uint32_t from, uint32_t count, bool set)
{
	while (count) {
		uint32_t leaf = from / HK_MAP_LEAF_BITS, bit = from % HK_MAP_LEAF_BITS;
		uint32_t here = HK_MAP_LEAF_BITS - bit < count ? HK_MAP_LEAF_BITS - bit : count;
		uint32_t mask = hk_mask(bit, here);

		if (set)
			hk_map_leaf(map, leaf)->bits |= mask;
		else
			hk_map_leaf(map, leaf)->bits &= ~mask;
		update(map, leaf, false);
		from += here;
		count -= here;
	}
}

void hk_map_set(struct hk_map *map, uint32_t from, uint32_t count)
{
	change(map, from, count, true);
}

void hk_map_clear(struct hk_map *map, uint32_t from, uint32_t count)
{
	change(map, from, count, false);
}

uint32_t hk_map_find(const struct hk_map *map, uint32_t count)
{
	unsigned level = top_level(map);
	uint32_t index = 0, starts;

	if (!map->leaves || node_get(map, level, 0).best < count)
		return HK_MAP_NONE;
	while (level) {
		struct hk_map_node left = node_get(map, --level, 2 * index);
		struct hk_map_node right = node_get(map, level, 2 * index + 1);

		index *= 2;
		if (left.best >= count)
			continue;
		if (left.end + right.start >= count)
			return (index + 1) * (HK_MAP_LEAF_BITS << level) - left.end;
		index++;
	}
	starts = run_starts(hk_map_leaf(map, index)->bits, count);
	return index * HK_MAP_LEAF_BITS + (uint32_t)__builtin_ctz(starts);
}

uint32_t hk_map_find_broken(const struct hk_map *map, uint32_t count)
{
	unsigned level = top_level(map);
	uint32_t index = 0, starts;

	if (!map->leaves || node_get(map, level, 0).broken < count)
		return HK_MAP_NONE;
	while (level) {
		index *= 2;
		if (node_get(map, --level, index).broken < count)
			index++;
	}
	starts = run_starts(hk_map_leaf(map, index)->bits, count);
	return index * HK_MAP_LEAF_BITS + (uint32_t)__builtin_ctz(starts);
}

bool hk_map_is_set(const struct hk_map *map, uint32_t from, uint32_t count)
{
	if (count > map->leaves * HK_MAP_LEAF_BITS || from > map->leaves * HK_MAP_LEAF_BITS - count)
		return false;
	while (count) {
		uint32_t leaf = from / HK_MAP_LEAF_BITS, bit = from % HK_MAP_LEAF_BITS;
		uint32_t here = HK_MAP_LEAF_BITS - bit < count ? HK_MAP_LEAF_BITS - bit : count;

		if (~hk_map_leaf(map, leaf)->bits & hk_mask(bit, here))
			return false;
		from += here;
		count -= here;
	}
	return true;
}

uint32_t hk_map_end(const struct hk_map *map)
{
	uint32_t leaf = map->leaves, end = 0;

	while (leaf && hk_map_leaf(map, leaf - 1)->bits == UINT32_MAX) {
		end += HK_MAP_LEAF_BITS;
		leaf--;
	}
	return leaf ? end + hk_map_leaf(map, leaf - 1)->node[0].end : end;
}

size_t hk_map_check(const struct hk_map *map)
{
	unsigned level, top = top_level(map);
	uint32_t index;
	size_t broken = 0;

	for (index = 0; index < map->leaves; index++)
		if (!node_equal(*node_at(map, 2 * index), leaf_node(hk_map_leaf(map, index)->bits)))
			broken++;
	for (level = 1; level <= top; level++)
		for (index = 0; node_number(level, index) < 2 * map->leaves; index++)
			if (!node_equal(*node_at(map, node_number(level, index)),
					node_joined(map, level, index)))
				broken++;
	return broken;
}
