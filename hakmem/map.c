/* SPDX-License-Identifier: MIT */
/* Runs of set bits and the tree that finds them; see map.h. */
#include <hakmem/map.h>
#include <hakmem/hakmem.h>
#include <string.h>

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

/* The longest run of set bits: by halves, as run_starts() looks for one of a given length. */
static uint32_t longest_run(uint32_t bits)
{
	uint32_t starts[5], step, have = 1;
	unsigned power = 0;

	if (!bits)
		return 0;
	/* most often there is just one: the carry goes through all of it */
	if (!(bits & (bits + (bits & (0 - bits)))))
		return 32 - (uint32_t)__builtin_clz(bits) - (uint32_t)__builtin_ctz(bits);
	/* starts[n]: where runs of 2^n begin */
	for (starts[0] = bits; power < 4; power++) {
		step = 1u << power;
		starts[power + 1] = starts[power] & starts[power] >> step;
		if (!starts[power + 1])
			break;
	}
	have = 1u << power;
	for (bits = starts[power]; power-- > 0;) {
		uint32_t longer = bits & starts[power] >> have;

		if (!longer)
			continue;
		bits = longer;
		have += 1u << power;
	}
	return have;
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
	static const struct hk_map_node clear = { 0, 0, 0 };

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
	return node;
}

static unsigned top_level(const struct hk_map *map)
{
	return map->leaves > 1 ? 32 - (unsigned)__builtin_clz(map->leaves - 1) : 0;
}

static struct hk_map_node node_joined(const struct hk_map *map, unsigned level, uint32_t index)
{
	uint32_t number = node_number(level, index), step = 1u << (level - 1);
	uint32_t half = HK_MAP_LEAF_BITS << (level - 1);

	/* in the order of the numbers, both children lie a step beside their parent */
	if (HK_LIKELY(number + step < 2 * map->leaves))
		return node_join(*node_at(map, number - step), *node_at(map, number + step), half);
	return node_join(*node_at(map, number - step), node_get(map, level - 1, 2 * index + 1),
			 half);
}

static uint8_t *longest_at(const struct hk_map *map, uint32_t leaf)
{
	return &hk_map_leaf(map, leaf / HK_MAP_GROUP * HK_MAP_GROUP)->longest[leaf % HK_MAP_GROUP];
}

/* What the group's first leaf should say of this one. */
static uint32_t longest_in(const struct hk_map *map, uint32_t leaf)
{
	uint32_t bits = hk_map_leaf(map, leaf)->bits;

	return bits == UINT32_MAX ? 0 : longest_run(bits);
}

static struct hk_map_node leaf_node(const struct hk_map *map, uint32_t leaf)
{
	uint32_t bits = hk_map_leaf(map, leaf)->bits;
	struct hk_map_node node = { 32, 32, 32 };

	if (bits == UINT32_MAX)
		return node;
	node.start = (uint32_t)__builtin_ctz(~bits);
	node.end = (uint32_t)__builtin_clz(~bits);
	node.best = *longest_at(map, leaf);
	return node;
}

static bool node_equal(struct hk_map_node a, struct hk_map_node b)
{
	return a.start == b.start && a.best == b.best && a.end == b.end;
}

/* Writes a node; whether it changed. */
static bool node_set(struct hk_map_node *node, struct hk_map_node now)
{
	bool changed = !node_equal(*node, now);

	*node = now;
	return changed;
}

/*
 * Puts the tree right above leaves @first to @last, up to the first level on which nothing
 * changes. With @all up to the top: when the edge moves, nodes above change whose children did
 * not.
 */
static void update(struct hk_map *map, uint32_t first, uint32_t last, bool all)
{
	unsigned level, top = top_level(map);
	bool changed = all;
	uint32_t index;

	for (index = first; index <= last; index++)
		changed |= node_set(node_at(map, 2 * index), leaf_node(map, index));
	for (level = 1; level <= top && changed; level++) {
		first >>= 1;
		last >>= 1;
		changed = all;
		for (index = first; index <= last; index++) {
			/* for a node that is missing its left part stands, and that has changed */
			if (node_number(level, index) >= 2 * map->leaves)
				changed = true;
			else
				changed |= node_set(node_at(map, node_number(level, index)),
						    node_joined(map, level, index));
		}
	}
}

/* The tree learns of the leaves that changed. */
static void settle(struct hk_map *map)
{
	uint32_t index;

	for (index = 0; index < map->stale_count; index++) {
		hk_map_leaf(map, map->stale[index])->stale = false;
		update(map, map->stale[index], map->stale[index], false);
	}
	map->spent += map->stale_count;
	map->stale_count = 0;
}

/* The tree is about to be asked. */
static void ask(struct hk_map *map)
{
	if (map->unknown)
		hk_map_rebuild(map);
	else
		settle(map);
	map->spent = 0;
}

/* A leaf's bits have changed. */
static void note(struct hk_map *map, uint32_t leaf)
{
	uint8_t *at = longest_at(map, leaf);
	uint32_t longest = longest_in(map, leaf), count;

	for (count = *at + 1u; count <= longest && count <= HK_MAP_SHORT; count++)
		if (map->group[count] > leaf / HK_MAP_GROUP)
			map->group[count] = leaf / HK_MAP_GROUP;
	*at = (uint8_t)longest;
}

/* The tree will learn of it. */
static void note_stale(struct hk_map *map, uint32_t leaf)
{
	if (map->unknown || hk_map_leaf(map, leaf)->stale)
		return;
	if (map->stale_count == HK_MAP_STALE)
		settle(map);
	if (map->spent > map->leaves) {
		map->unknown = true;
		return;
	}
	hk_map_leaf(map, leaf)->stale = true;
	map->stale[map->stale_count++] = leaf;
}

/* Neighbours have most of the tree above in common: it learns of them at once. */
static void note_many(struct hk_map *map, uint32_t first, uint32_t last)
{
	if (map->unknown)
		return;
	update(map, first, last, false);
	map->spent += last - first;
	if (map->spent > map->leaves)
		map->unknown = true;
}

void hk_map_grow(struct hk_map *map)
{
	static const struct hk_map_node clear = { 0, 0, 0 };
	struct hk_map_leaf *leaf = hk_map_leaf(map, map->leaves);

	leaf->bits = 0;
	leaf->stale = false;
	leaf->node[0] = leaf->node[1] = clear;
	if (map->leaves % HK_MAP_GROUP == 0)
		memset(leaf->longest, 0, sizeof(leaf->longest));
	map->leaves++;
	update(map, map->leaves - 1, map->leaves - 1, true);
}

void hk_map_shrink(struct hk_map *map)
{
	settle(map);
	map->leaves--;
	*longest_at(map, map->leaves) = 0;
	if (map->leaves && !map->unknown)
		update(map, map->leaves - 1, map->leaves - 1, true);
}

void hk_map_rebuild(struct hk_map *map)
{
	unsigned level, top = top_level(map);
	uint32_t index;

	for (index = 0; index < map->leaves; index++) {
		*longest_at(map, index) = (uint8_t)longest_in(map, index);
		*node_at(map, 2 * index) = leaf_node(map, index);
		hk_map_leaf(map, index)->stale = false;
	}
	map->unknown = false;
	map->spent = 0;
	map->stale_count = 0;
	for (index = 0; index <= HK_MAP_SHORT; index++)
		map->group[index] = 0;
	for (level = 1; level <= top; level++)
		for (index = 0; node_number(level, index) < 2 * map->leaves; index++)
			*node_at(map, node_number(level, index)) = node_joined(map, level, index);
}

static void change(struct hk_map *map, uint32_t from, uint32_t count, bool set)
{
	uint32_t first = from / HK_MAP_LEAF_BITS, last = (from + count - 1) / HK_MAP_LEAF_BITS;
	bool many = last - first > 2;

	while (count) {
		uint32_t leaf = from / HK_MAP_LEAF_BITS, bit = from % HK_MAP_LEAF_BITS;
		uint32_t here = HK_MAP_LEAF_BITS - bit < count ? HK_MAP_LEAF_BITS - bit : count;
		uint32_t mask = hk_mask(bit, here);

		if (set)
			hk_map_leaf(map, leaf)->bits |= mask;
		else
			hk_map_leaf(map, leaf)->bits &= ~mask;
		note(map, leaf);
		if (!many)
			note_stale(map, leaf);
		from += here;
		count -= here;
	}
	if (many)
		note_many(map, first, last);
}

void hk_map_set(struct hk_map *map, uint32_t from, uint32_t count)
{
	if (count)
		change(map, from, count, true);
}

void hk_map_clear(struct hk_map *map, uint32_t from, uint32_t count)
{
	if (count)
		change(map, from, count, false);
}

uint32_t hk_map_find(struct hk_map *map, uint32_t count)
{
	unsigned level = top_level(map);
	uint32_t index = 0, starts;

	ask(map);
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

/* The first leaf of a group whose longest run has @count bits; HK_MAP_GROUP: none. */
static uint32_t first_with(const uint8_t *longest, uint32_t count)
{
	const uint64_t ones = 0x0101010101010101u;
	uint32_t index, part;

	for (index = 0; index < HK_MAP_GROUP; index += 8) {
		uint64_t bytes;

		/* eight at once: they are below 32, so that none carries into the next */
		memcpy(&bytes, longest + index, sizeof(bytes));
		if (!((bytes + (0x80 - count) * ones) & 0x80 * ones))
			continue;
		for (part = index; longest[part] < count; part++)
			;
		return part;
	}
	return HK_MAP_GROUP;
}

uint32_t hk_map_find_broken(struct hk_map *map, uint32_t count)
{
	uint32_t groups = (map->leaves + HK_MAP_GROUP - 1) / HK_MAP_GROUP;
	uint32_t group = map->group[count], leaf = HK_MAP_GROUP;

	for (; group < groups; group++) {
		leaf = first_with(hk_map_leaf(map, group * HK_MAP_GROUP)->longest, count);
		if (leaf < HK_MAP_GROUP)
			break;
	}
	map->group[count] = group;
	if (group >= groups)
		return HK_MAP_NONE;
	leaf += group * HK_MAP_GROUP;
	return leaf * HK_MAP_LEAF_BITS +
	       (uint32_t)__builtin_ctz(run_starts(hk_map_leaf(map, leaf)->bits, count));
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

uint32_t hk_map_run(const struct hk_map *map, uint32_t from, uint32_t most)
{
	uint32_t count = 0, here, clear;

	while (count < most && from + count < map->leaves * HK_MAP_LEAF_BITS) {
		here = HK_MAP_LEAF_BITS - (from + count) % HK_MAP_LEAF_BITS;
		clear = ~hk_map_leaf(map, (from + count) / HK_MAP_LEAF_BITS)->bits;
		clear >>= HK_MAP_LEAF_BITS - here;
		if (clear)
			here = (uint32_t)__builtin_ctz(clear);
		count += here;
		if (clear)
			break;
	}
	return count < most ? count : most;
}

uint32_t hk_map_end(const struct hk_map *map)
{
	uint32_t leaf = map->leaves, end = 0;

	while (leaf && hk_map_leaf(map, leaf - 1)->bits == UINT32_MAX) {
		end += HK_MAP_LEAF_BITS;
		leaf--;
	}
	return leaf ? end + (uint32_t)__builtin_clz(~hk_map_leaf(map, leaf - 1)->bits) : end;
}

/* The bytes of the groups, and what is remembered of them. */
static size_t check_longest(const struct hk_map *map)
{
	uint32_t leaf, count;
	size_t broken = 0;

	for (leaf = 0; leaf < map->leaves; leaf++) {
		uint32_t longest = longest_in(map, leaf);

		broken += *longest_at(map, leaf) != longest;
		for (count = 1; count <= longest && count <= HK_MAP_SHORT; count++)
			broken += map->group[count] > leaf / HK_MAP_GROUP;
	}
	for (; leaf % HK_MAP_GROUP; leaf++)
		broken += *longest_at(map, leaf) != 0;
	return broken;
}

size_t hk_map_check(struct hk_map *map)
{
	unsigned level, top = top_level(map);
	size_t broken = check_longest(map);
	uint32_t index;

	ask(map);
	for (index = 0; index < map->leaves; index++) {
		broken += !node_equal(*node_at(map, 2 * index), leaf_node(map, index));
		broken += hk_map_leaf(map, index)->stale;
	}
	for (level = 1; level <= top; level++)
		for (index = 0; node_number(level, index) < 2 * map->leaves; index++)
			broken += !node_equal(*node_at(map, node_number(level, index)),
					      node_joined(map, level, index));
	return broken;
}
