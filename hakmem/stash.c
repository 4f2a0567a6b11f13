/* SPDX-License-Identifier: MIT */
/* Magazines that a cache keeps for itself: set aside by a prefill, or laid down to rest. */
#include <hakmem/depot.h>

unsigned hk_stash_class(struct hk_depot *depot, uint32_t stash)
{
	return hk_class_at(depot->slabs->space, *hk_magazine_filled(depot, stash - 1));
}

/* Where the pile of a class is named: the stash itself, or the link of the pile before. */
static uint32_t find_pile(struct hk_depot *depot, uint32_t stash, unsigned size_class,
			  uint32_t *before)
{
	*before = 0;
	while (stash && hk_stash_class(depot, stash) != size_class) {
		*before = stash;
		stash = atomic_load_explicit(&hk_depot_link(depot, stash - 1)->next,
					     memory_order_relaxed);
	}
	return stash;
}

static void name_pile(struct hk_depot *depot, uint32_t *stash, uint32_t before, uint32_t pile)
{
	if (before)
		atomic_store_explicit(&hk_depot_link(depot, before - 1)->next, pile,
				      memory_order_relaxed);
	else
		*stash = pile;
}

/* Others may look at the links, of magazines that they saw in a stack before: hence the atomics. */
void hk_stash_push(struct hk_depot *depot, uint32_t *stash, unsigned size_class, void **top)
{
	uint32_t index = hk_magazine_index(depot, top), before, blocks = 0, next = *stash;
	uint32_t rounds = (uint32_t)hk_magazine_rounds(depot, top);
	uint32_t pile = find_pile(depot, *stash, size_class, &before);
	struct hk_link *link = hk_depot_link(depot, index), *under;

	link->rounds = (uint16_t)rounds;
	if (pile) {
		under = hk_depot_link(depot, pile - 1);
		blocks = atomic_load_explicit(&under->blocks, memory_order_relaxed);
		next = atomic_load_explicit(&under->next, memory_order_relaxed);
	} else {
		before = 0;
	}
	atomic_store_explicit(&link->next, next, memory_order_relaxed);
	/* release: as in hk_link_set(), for who takes this for the size of the stack it lay in */
	atomic_store_explicit(&link->depth, pile, memory_order_release);
	atomic_store_explicit(&link->blocks, blocks + rounds, memory_order_release);
	name_pile(depot, stash, before, index + 1);
	atomic_fetch_add_explicit(&depot->stashed[size_class], (uint32_t)rounds,
				  memory_order_relaxed);
}

void **hk_stash_pop(struct hk_depot *depot, uint32_t *stash, unsigned size_class)
{
	uint32_t before, pile = find_pile(depot, *stash, size_class, &before), below, next;
	struct hk_link *link;

	if (!pile)
		return NULL;
	link = hk_depot_link(depot, pile - 1);
	below = atomic_load_explicit(&link->depth, memory_order_relaxed);
	next = atomic_load_explicit(&link->next, memory_order_relaxed);
	if (below)
		atomic_store_explicit(&hk_depot_link(depot, below - 1)->next, next,
				      memory_order_relaxed);
	name_pile(depot, stash, before, below ? below : next);
	/* a host that resized what it had freed may have made a large block of it */
	if (HK_LIKELY(hk_is_block_class(size_class)))
		atomic_fetch_sub_explicit(&depot->stashed[size_class], link->rounds,
					  memory_order_relaxed);
	return hk_magazine_filled(depot, pile - 1);
}

void *hk_stash_take(struct hk_depot *depot, uint32_t *stash, unsigned size_class)
{
	uint32_t before, pile = find_pile(depot, *stash, size_class, &before), blocks;
	struct hk_link *link;
	void **top, *block;

	if (!pile)
		return NULL;
	link = hk_depot_link(depot, pile - 1);
	top = hk_magazine_filled(depot, pile - 1);
	block = *top;
	if (link->rounds == 1) {
		hk_stash_pop(depot, stash, size_class);
		hk_magazine_put(depot, top);
		return block;
	}
	link->rounds--;
	blocks = atomic_load_explicit(&link->blocks, memory_order_relaxed);
	atomic_store_explicit(&link->blocks, blocks - 1, memory_order_release); /* as above */
	atomic_fetch_sub_explicit(&depot->stashed[size_class], 1, memory_order_relaxed);
	return block;
}

size_t hk_stash_blocks(struct hk_depot *depot, uint32_t stash, unsigned size_class)
{
	uint32_t before, pile = find_pile(depot, stash, size_class, &before);

	return pile ? atomic_load_explicit(&hk_depot_link(depot, pile - 1)->blocks,
					   memory_order_relaxed)
		    : 0;
}

/* A pile: how many magazines. */
static size_t check_pile(struct hk_depot *depot, uint32_t pile, size_t *broken)
{
	uint32_t blocks =
		atomic_load_explicit(&hk_depot_link(depot, pile - 1)->blocks, memory_order_relaxed);
	unsigned size_class = hk_stash_class(depot, pile);
	size_t held = 0;

	while (pile && pile <= depot->count && held < depot->count) {
		struct hk_link *link = hk_depot_link(depot, pile - 1);
		void **bottom = hk_magazine_bottom(depot, hk_magazine_at(depot, pile - 1));
		uint32_t slot;

		*broken += !link->rounds || link->rounds > link->capacity ||
			   hk_stash_class(depot, pile) != size_class ||
			   atomic_load_explicit(&link->blocks, memory_order_relaxed) != blocks;
		for (slot = 1; slot <= link->rounds && slot <= HK_MAGAZINE_ROUNDS; slot++)
			*broken += !bottom[slot];
		blocks -= link->rounds;
		pile = atomic_load_explicit(&link->depth, memory_order_relaxed);
		held++;
	}
	*broken += pile || blocks;
	return held;
}

size_t hk_stash_check(struct hk_depot *depot, uint32_t stash, size_t *broken)
{
	size_t held = 0, piles;

	for (piles = 0; stash && stash <= depot->count && piles < HK_CLASSES; piles++) {
		held += check_pile(depot, stash, broken);
		stash = atomic_load_explicit(&hk_depot_link(depot, stash - 1)->next,
					     memory_order_relaxed);
	}
	*broken += stash != 0;
	return held;
}

/* The atomics as in hk_stash_push(). */
void hk_rest_push(struct hk_depot *depot, uint32_t *list, uint32_t mark, void **top)
{
	uint32_t index = hk_magazine_index(depot, top);
	struct hk_link *link = hk_depot_link(depot, index);

	link->rounds = (uint16_t)hk_magazine_rounds(depot, top);
	atomic_store_explicit(&link->next, *list, memory_order_relaxed);
	atomic_store_explicit(&link->depth, mark, memory_order_release);
	*list = index + 1;
}

void **hk_rest_pop(struct hk_depot *depot, uint32_t *list, uint32_t *mark)
{
	uint32_t index = *list - 1;
	struct hk_link *link = hk_depot_link(depot, index);

	*mark = atomic_load_explicit(&link->depth, memory_order_relaxed);
	*list = atomic_load_explicit(&link->next, memory_order_relaxed);
	return hk_magazine_filled(depot, index);
}

size_t hk_rest_check(struct hk_depot *depot, uint32_t list, size_t *broken)
{
	size_t held = 0;

	while (list && list <= depot->count && held < depot->count) {
		struct hk_link *link = hk_depot_link(depot, list - 1);

		*broken += !link->rounds || link->rounds > link->capacity;
		list = atomic_load_explicit(&link->next, memory_order_relaxed);
		held++;
	}
	*broken += list != 0;
	return held;
}
