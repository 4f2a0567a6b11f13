/* SPDX-License-Identifier: MIT */
/* The depot: stacks of magazines that many threads take from and give to, and their section. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>

#include "depot.h"

#define THREADS 4

Test(depot, an_empty_magazine_has_its_capacity)
{
	unsigned i, n;

	open_depot();
	for (i = 1; i < HK_CLASSES && capacity_of(i); i++) {
		void **bottom = empty_one(i), **slot = bottom;

		must(!*bottom, "class %u: not empty", i);
		must((uintptr_t)hk_magazine(bottom) % HK_MAGAZINE_BYTES == 0, "class %u", i);
		for (n = 0; n <= capacity_of(i); n++, slot++) {
			must(hk_magazine_rounds(depot, slot) == n, "class %u", i);
			must(((uintptr_t)(slot + 1) % HK_MAGAZINE_BYTES == 0) ==
				     (n == capacity_of(i)),
			     "class %u: full at %u", i, n);
		}
		memset(hk_magazine(bottom), 0xff, HK_MAGAZINE_BYTES);
		hk_magazine_put(depot, bottom + n / 2);
		held--;
		agree();
	}
	cr_assert_eq(depot->count, 1, "one was enough");
	close_depot();
}

Test(depot, a_stack_gives_what_it_got_last)
{
	static const unsigned classes[] = { 1, 2, 10, 20 };
	void **slots[COUNT(classes)][4], **slot;
	size_t i, n;

	open_depot();
	for (i = 0; i < COUNT(classes); i++)
		cr_assert_null(get(classes[i]));
	for (n = 0; n < 4; n++) {
		for (i = 0; i < COUNT(classes); i++) {
			slots[i][n] = full_one(classes[i], 1000 * (i + 1) + 100 * n);
			cr_assert(put(classes[i], slots[i][n]));
			cr_assert_eq(hk_depot_blocks(depot, classes[i]),
				     (n + 1) * capacity_of(classes[i]));
		}
	}
	for (i = 0; i < COUNT(classes); i++) {
		for (n = 4; n-- > 0;) {
			slot = get(classes[i]);
			cr_assert_eq(slot, slots[i][n], "class %u, number %zu", classes[i], n);
			cr_assert(holds(slot, classes[i], 1000 * (i + 1) + 100 * n));
			cr_assert_eq(hk_depot_blocks(depot, classes[i]),
				     n * capacity_of(classes[i]));
		}
		cr_assert_null(get(classes[i]));
	}
	close_depot();
}

/* What is less than full comes back as it was, and its blocks count. */
Test(depot, magazines_need_not_be_full)
{
	static const unsigned classes[] = { 1, 30, 104 };
	size_t i, blocks;
	unsigned n;

	open_depot();
	for (i = 0; i < COUNT(classes); i++) {
		unsigned size_class = classes[i], most = capacity_of(size_class) < 4 ? 1 : 4;

		for (n = 1, blocks = 0; n <= most; blocks += n++)
			cr_assert(put(size_class, filled_one(size_class, 1000 * n, n)));
		cr_assert_eq(hk_depot_blocks(depot, size_class), blocks);
		while (--n) {
			void **slot = get(size_class);

			cr_assert_eq(hk_magazine_rounds(depot, slot), n);
			cr_assert(holds_some(slot, n, 1000 * n));
			blocks -= n;
			cr_assert_eq(hk_depot_blocks(depot, size_class), blocks);
		}
		cr_assert_null(get(size_class));
	}
	close_depot();
}

/* Bounded by bytes; what it refuses stays the caller's. */
Test(depot, has_enough_at_some_depth)
{
	static const unsigned classes[] = { 1, 8, 64, 90, 104 };
	size_t i, n, most;

	open_depot();
	hk_depot_drain(depot); /* it is not generous from then on */
	for (i = 0; i < COUNT(classes); i++) {
		unsigned size_class = classes[i];
		void **slot;

		most = HK_DEPOT_BYTES / (hk_class_size(size_class) * capacity_of(size_class));
		for (n = 0; n < most; n++)
			cr_assert(put(size_class, full_one(size_class, n + 1)), "class %u at %zu",
				  size_class, n);
		slot = full_one(size_class, 77);
		cr_assert_not(put(size_class, slot), "class %u: deeper than %zu", size_class, most);
		cr_assert(holds(slot, size_class, 77));
		cr_assert_not_null(get(size_class));
		cr_assert(put(size_class, slot));
		cr_assert_eq(hk_depot_blocks(depot, size_class), most * capacity_of(size_class));
	}
	close_depot();
}

/* Two magazines go round: each exchange has a tag of its own. */
Test(depot, tags_tell_a_magazine_from_itself)
{
	struct hk_stack *stack;
	uint64_t before;
	void **slot;
	int i;

	open_depot();
	stack = &depot->filled[1];
	cr_assert(put(1, full_one(1, 1)));
	before = stack->head;
	for (i = 1; i < 100; i++) {
		slot = get(1);
		cr_assert_eq(stack->head >> 32, (before >> 32) + 2 * (uint64_t)i - 1);
		cr_assert(put(1, slot));
		cr_assert_eq(stack->head >> 32, (before >> 32) + 2 * (uint64_t)i);
		cr_assert_eq((uint32_t)stack->head, (uint32_t)before);
	}
	/* a tag that has come round touches no index */
	stack->head |= (uint64_t)UINT32_MAX << 32;
	slot = get(1);
	cr_assert_eq(stack->head, 0);
	cr_assert(put(1, slot));
	cr_assert_eq(stack->head, (uint64_t)1 << 32 | (uint32_t)before);
	before = stack->head;
	hk_depot_reset(depot);
	held = 0;
	cr_assert_eq((uint32_t)stack->head, 0);
	cr_assert_gt(stack->head >> 32, before >> 32, "a reset is an exchange too");
	close_depot();
}

Test(depot, magazines_are_committed_ahead_and_only_then)
{
	uint64_t calls;
	uint32_t n, ahead;

	open_depot();
	cr_assert_null(hk_magazine_get(depot, 1));
	cr_assert_eq(fault.calls, 0, "a free may come here");
	hk_depot_reserve(depot);
	agree();
	calls = fault.calls;
	ahead = depot->ahead;
	cr_assert_geq(ahead, HK_MAGAZINES_AHEAD);
	hk_depot_reserve(depot);
	cr_assert_eq(fault.calls, calls, "there were enough");
	for (n = 0; n < ahead; n++) {
		void **bottom = hk_magazine_get(depot, 1);

		must(bottom && index_of(bottom) == n, "number %u", n);
		memset(hk_magazine(bottom), 0x11, HK_MAGAZINE_BYTES);
		held++;
		agree();
		must(depot->ahead == ahead - n - 1, "number %u", n);
	}
	cr_assert_null(hk_magazine_get(depot, 1));
	cr_assert_eq(fault.calls, calls);
	hk_depot_reserve(depot);
	cr_assert_gt(fault.calls, calls);
	cr_assert_not_null(hk_magazine_get(depot, 1));
	held++;
	close_depot();
}

Test(depot, there_are_no_more_than_the_section_holds)
{
	size_t n;

	open_depot();
	depot->count_max = 40;
	for (n = 0; n < 40; n++)
		empty_one(1);
	hk_depot_reserve(depot);
	cr_assert_eq(depot->ahead, 0);
	cr_assert_null(hk_magazine_get(depot, 1));
	agree();
	/* all that the layout has */
	depot->count_max = (uint32_t)(depot->magazines.size / HK_MAGAZINE_BYTES);
	for (; n < depot->count_max; n++)
		empty_one(1);
	hk_depot_reserve(depot);
	cr_assert_null(hk_magazine_get(depot, 1));
	cr_assert_eq(fault.injected + fault.inner_failures, 0);
	close_depot();
}

/* Links and magazines are two commits: with either failing there are no more than before. */
Test(depot, does_without_magazines_where_memory_is_short)
{
	uint64_t failing, calls;
	uint32_t n;

	for (failing = 1; failing <= 2; failing++) {
		open_depot();
		fault.fail_at = failing;
		hk_depot_reserve(depot);
		agree();
		cr_assert_eq(fault.injected, 1);
		cr_assert_eq(depot->ahead, 0);
		cr_assert_null(hk_magazine_get(depot, 1));
		arena->memory.own.limit = fault.committed;
		hk_depot_grow(depot);
		agree();
		cr_assert_null(hk_magazine_get(depot, 1));
		arena->memory.own.limit = SIZE_MAX;
		/* it is not asked again by each refill that follows */
		calls = fault.calls;
		for (n = 0; n < HK_MAGAZINES_PAUSE; n++)
			hk_depot_reserve(depot);
		cr_assert_eq(fault.calls, calls);
		hk_depot_reserve(depot);
		cr_assert_gt(fault.calls, calls);
		cr_assert_not_null(empty_one(1));
		close_depot();
	}
}

Test(depot, trim_keeps_the_magazines_in_use)
{
	const struct hk_deadline unbounded = { 0 };
	size_t page, before, given, n;
	void **last = NULL;

	open_depot();
	page = fault.platform.page_size;
	for (n = 0; n < 3 * page / HK_MAGAZINE_BYTES + 1; n++)
		last = full_one(1, n + 1);
	hk_depot_grow(depot);
	before = fault.committed;
	given = hk_depot_trim(depot, unbounded);
	agree();
	cr_assert_eq(before - fault.committed, given);
	cr_assert_gt(given, 0);
	cr_assert_eq(depot->magazines.committed, 4 * page);
	cr_assert(holds(last, 1, n));
	cr_assert(fault_platform_is_committed(&fault, hk_magazine(last), HK_MAGAZINE_BYTES));
	cr_assert_eq(depot->ahead, 4 * page / HK_MAGAZINE_BYTES - n, "of the last page");
	while (depot->ahead) {
		cr_assert_not_null(hk_magazine_get(depot, 1));
		held++;
	}
	agree();
	/* after a reset none is in use */
	hk_depot_reset(depot);
	held = 0;
	cr_assert_gt(depot->ahead, 0);
	hk_depot_trim(depot, unbounded);
	agree();
	cr_assert_eq(depot->ahead, 0);
	cr_assert_eq(depot->magazines.committed + depot->links.committed, 0);
	close_depot();
}

/* Blocks of several classes; one has been freed twice. */
Test(depot, drains_into_the_slabs)
{
	static const unsigned classes[] = { 1, 30, 70, 104 };
	void *blocks[HK_BATCH_MAX], **slot;
	size_t i, n, made = 0;

	open_depot();
	for (i = 0; i < COUNT(classes); i++) {
		for (n = 0; n < 2; n++) {
			size_t want = capacity_of(classes[i]), had = 0;

			while (had < want)
				had += hk_slab_take(&arena->slabs, classes[i], blocks + had,
						    want - had, NULL);
			slot = full_one(classes[i], 1);
			memcpy(slot + 1 - want, blocks, want * sizeof(*blocks));
			if (i == 1 && n == 1)
				slot[-3] = slot[-5];
			cr_assert(put(classes[i], slot));
			made++;
		}
	}
	hk_depot_drain(depot);
	agree();
	cr_assert_eq(reports.count, 1);
	cr_assert_eq(reports.last.fault, HK_FAULT_DOUBLE_FREE);
	for (i = 0; i < COUNT(classes); i++) {
		cr_assert_eq(arena->slabs.classes[classes[i]].blocks_out, i == 1, "class %u",
			     classes[i]);
		cr_assert_eq(hk_depot_blocks(depot, classes[i]), 0);
	}
	cr_assert_eq(hk_slab_check(&arena->slabs), 0);
	/* the magazines are empty ones now */
	while (made--)
		must(index_of(empty_one(1)) < 8, "a new magazine");
	close_depot();
	cr_assert_eq(reports.by_fault[HK_FAULT_LEAK], 2, "a block was lost to the double free");
}

Test(depot, check_finds_what_is_damaged)
{
	struct hk_link *links;
	uint64_t head;
	void **slot;
	void *block;

	open_depot();
	empty_one(1);
	hk_magazine_put(depot, empty_one(1));
	held--;
	put(5, full_one(5, 1));
	put(5, full_one(5, 1));
	put(5, slot = full_one(5, 1));
	links = (struct hk_link *)(void *)depot->links.base;
	cr_assert_gt(hk_depot_check(depot, held + 1), 0, "a magazine too many");
	cr_assert_gt(hk_depot_check(depot, held - 1), 0, "a magazine lost");
	links[index_of(slot)].depth++;
	cr_assert_gt(hk_depot_check(depot, held), 0, "depth");
	links[index_of(slot)].depth--;
	links[0].depth++; /* held: nobody's */
	agree();
	head = links[index_of(slot)].next;
	links[index_of(slot)].next = index_of(slot) + 1;
	cr_assert_gt(hk_depot_check(depot, held), 0, "a circle");
	links[index_of(slot)].next = 0;
	cr_assert_gt(hk_depot_check(depot, held), 0, "cut off");
	links[index_of(slot)].next = depot->count + 1;
	cr_assert_gt(hk_depot_check(depot, held), 0, "beyond the last");
	links[index_of(slot)].next = (uint32_t)head;
	agree();
	block = slot[-7];
	slot[-7] = NULL;
	cr_assert_gt(hk_depot_check(depot, held), 0, "not full");
	slot[-7] = block;
	agree();
	/* one magazine in two stacks */
	head = depot->filled[6].head;
	depot->filled[6].head = depot->filled[5].head;
	cr_assert_gt(hk_depot_check(depot, held), 0, "twice");
	depot->filled[6].head = head;
	close_depot();
}

static struct {
	_Atomic unsigned char owned[256];
	_Atomic unsigned twice;
	_Atomic unsigned torn;
	_Atomic unsigned kept;
} stress;

static void own(void **slot)
{
	stress.twice += atomic_exchange(&stress.owned[index_of(slot)], 1) != 0;
}

static void disown(void **slot)
{
	atomic_store(&stress.owned[index_of(slot)], 0);
}

/* Takes and gives magazines of three classes and empty ones; the content says whose they are. */
static void *exchange(void *number)
{
	uint64_t seed = (uint64_t)(uintptr_t)number + 1;
	void **mine[4];
	size_t count = 0;
	int i;

	for (i = 0; i < 30000; i++) {
		unsigned size_class = 1 + (unsigned)(test_random(&seed) % 4);
		uintptr_t stamp = (uintptr_t)number << 24 | (uintptr_t)(i + 1) << 8;
		unsigned n, most;
		void **slot;

		if (count < COUNT(mine) && (!count || test_random(&seed) % 2)) {
			slot = size_class < 4 ? hk_depot_get(depot, size_class)
					      : hk_magazine_get(depot, 1);
			if (!slot)
				continue;
			own(slot);
			n = (unsigned)hk_magazine_rounds(depot, slot);
			if (size_class < 4)
				stress.torn +=
					!n || !holds_some(slot, n, (uintptr_t)slot[1 - (int)n]);
			mine[count++] = slot;
			continue;
		}
		slot = hk_magazine(mine[--count]);
		most = 1 + (unsigned)(test_random(&seed) % HK_MAGAZINE_ROUNDS);
		for (n = 0; n < most; n++)
			*++slot = (void *)(stamp + n);
		disown(slot);
		if (size_class < 4 && !hk_depot_put(depot, size_class, slot))
			hk_magazine_put(depot, slot);
		else if (size_class == 4)
			hk_magazine_put(depot, slot);
	}
	while (count) {
		disown(mine[--count]);
		hk_magazine_put(depot, mine[count]);
		stress.kept++;
	}
	return NULL;
}

Test(depot, no_magazine_is_lost_or_seen_twice, .timeout = 60)
{
	pthread_t threads[THREADS];
	uintptr_t i;
	size_t all;

	open_depot();
	memset(&stress, 0, sizeof(stress));
	hk_depot_reserve(depot);
	all = depot->ahead;
	cr_assert_leq(all, COUNT(stress.owned));
	for (i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, exchange, (void *)i), 0);
	for (i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_assert_eq(stress.twice, 0);
	cr_assert_eq(stress.torn, 0);
	agree();
	cr_assert_eq(depot->count + depot->ahead, all);
	/* each of them can be had once more, and none twice */
	for (i = 1; i < 4; i++) {
		void **slot;

		while ((slot = get((unsigned)i)) != NULL)
			own(slot);
	}
	while (held < all) {
		void **slot = hk_magazine_get(depot, 1);

		cr_assert_not_null(slot, "%zu of %zu", held, all);
		own(slot);
		held++;
	}
	cr_assert_eq(stress.twice, 0);
	cr_assert_null(hk_magazine_get(depot, 1));
	close_depot();
}
