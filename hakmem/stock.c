/* SPDX-License-Identifier: MIT */
/*
 * The depot's stock made to follow its use, on the host's time: see hk_depot_look().
 *
 * A steady program takes magazines from the depot and brings as many back; what it takes from the
 * slabs is what the stock was short of. So the refills of some time are how many magazines more are
 * wanted the next time; and what lies in the stack at its lowest was not needed.
 */
#include <hakmem/depot.h>

/* Magazines wanted of a class, or taken for excess at once, at most. */
#define STOCK_MAX 255u

static uint32_t at_most(uint32_t magazines)
{
	return magazines < STOCK_MAX ? magazines : STOCK_MAX;
}

static uint32_t depth(struct hk_depot *depot, unsigned size_class)
{
	return hk_stack_size(hk_depot_stacks(depot), &depot->filled[size_class]).depth;
}

/* Magazines that would have had what came from the slabs since the last time. */
static uint32_t missing(struct hk_depot *depot, unsigned size_class)
{
	unsigned capacity = hk_depot_capacity(depot, size_class);
	uint32_t blocks =
		atomic_exchange_explicit(&depot->refilled[size_class], 0, memory_order_relaxed);
	uint32_t magazines;

	/* none of medium blocks: they stand in the way of others */
	if (!blocks || !hk_class_infos[size_class].capacity)
		return 0;
	magazines = (blocks + capacity - 1) / capacity;
	return at_most(magazines);
}

void hk_depot_look(struct hk_depot *depot, bool window)
{
	struct hk_stock *stock = &depot->stock;
	unsigned size_class;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		uint32_t want = stock->want[size_class], low, more;

		if (window) {
			want -= (want + 3) / 4;
			low = atomic_load_explicit(&depot->low[size_class], memory_order_relaxed);
			stock->excess[size_class] = (uint8_t)at_most(low > want ? low - want : 0);
			atomic_store_explicit(&depot->low[size_class],
					      (uint16_t)depth(depot, size_class),
					      memory_order_relaxed);
		}
		more = missing(depot, size_class);
		if (more)
			stock->excess[size_class] = 0;
		stock->want[size_class] = (uint8_t)(want > more ? want : more);
	}
}

/* A magazine of a class into the depot: whether it is there. */
static bool fill(struct hk_depot *depot, unsigned size_class)
{
	struct hk_bad bad[HK_BATCH_MAX];
	size_t got = 0, more, capacity;
	void **bottom;

	hk_depot_reserve(depot);
	bottom = hk_magazine_get(depot, size_class);
	if (!bottom)
		return false;
	capacity = hk_magazine_capacity(depot, bottom);
	do {
		more = hk_slab_take(depot->slabs, size_class, bottom + 1 + got, capacity - got,
				    NULL);
		got += more;
	} while (more && got < capacity);
	if (got && hk_depot_put(depot, size_class, bottom + got))
		return true;
	if (got)
		hk_slab_return(depot->slabs, bottom + 1, got, bad);
	hk_magazine_put(depot, bottom);
	return false;
}

bool hk_depot_fill_one(struct hk_depot *depot)
{
	struct hk_stock *stock = &depot->stock;
	unsigned tries;

	/* nor is there to be more while what there is would be given up for it */
	if (hk_depot_is_excess(depot))
		return false;
	for (tries = 0; tries < HK_CLASSES; tries++) {
		unsigned size_class = 1 + stock->next % (HK_CLASSES - 1);

		if (depth(depot, size_class) < stock->want[size_class]) {
			/* no room, or no memory: not before it is missed again */
			if (!fill(depot, size_class))
				stock->want[size_class] = 0;
			return true;
		}
		stock->next = size_class;
	}
	return false;
}

bool hk_depot_drain_one(struct hk_depot *depot)
{
	struct hk_stock *stock = &depot->stock;
	struct hk_bad bad[HK_BATCH_MAX];
	unsigned tries;
	void **top;

	for (tries = 0; tries < HK_CLASSES; tries++) {
		unsigned size_class = 1 + stock->next % (HK_CLASSES - 1);

		top = NULL;
		if (stock->excess[size_class] && depth(depot, size_class) > stock->want[size_class])
			top = hk_depot_get(depot, size_class);
		if (top) {
			stock->excess[size_class]--;
			hk_report_bad(depot->slabs->space->memory->reporter, bad,
				      hk_magazine_drain(depot, top, bad));
			hk_magazine_put(depot, top);
			return true;
		}
		stock->excess[size_class] = 0;
		stock->next = size_class;
	}
	return false;
}
