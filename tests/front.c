/* SPDX-License-Identifier: MIT */
/* A cache from within: two magazines a class, exchanged with the depot and filled from slabs. */
#include "front.h"

Test(front, a_new_one_holds_nothing)
{
	unsigned i;

	open_fronts(NULL);
	cr_assert_eq(held_by(front), 0);
	for (i = 1; i < HK_CLASSES; i++)
		cr_assert_eq(hk_front_blocks(front, i), 0);
	for (i = 0; i < HK_TOPS; i++) {
		void **top = front->hot.top[i];

		cr_assert_null(*top, "entry %u is not empty", i);
		cr_assert_eq((uintptr_t)(top + 1) % HK_MAGAZINE_BYTES, 0, "entry %u is not full",
			     i);
	}
	cr_assert_eq(front->hot.base, (uintptr_t)arena->space.base);
	cr_assert_neq(front, other);
	hk_front_flush(front, false);
	close_fronts();
}

Test(front, a_batch_is_handed_out_in_order_of_address)
{
	size_t i, n, batch;

	open_fronts(NULL);
	alloc_blocks(front, 4, 64);
	/* one at a time, then 4, 8, 16 and 32: the last to the caller, the others to the magazine */
	cr_assert_eq(class_of(4)->batches, COLD_USES + 4);
	cr_assert_eq(hk_front_blocks(front, 4), 0, "the last of them is out");
	for (i = 0; i < COLD_USES; i++)
		cr_assert_eq(blocks[i], arena->space.base + i * 64, "block %zu", i);
	for (batch = 4; i < 64; i += batch, batch *= 2) {
		cr_assert_eq(blocks[i], arena->space.base + (i + batch - 1) * 64, "block %zu", i);
		for (n = 1; n < batch; n++)
			cr_assert_eq(blocks[i + n], arena->space.base + (i + n - 1) * 64,
				     "block %zu", i + n);
	}
	push_blocks(front, 4, 64);
	close_fronts();
}

/* A full magazine of the depot serves a cold class too; what follows it begins small. */
Test(front, a_cold_class_takes_what_the_depot_has)
{
	open_fronts(NULL);
	alloc_blocks(other, 4, 4 * ROUNDS);
	hk_front_flush(other, false);
	push_blocks(other, 4, 4 * ROUNDS);
	cr_assert_eq(hk_depot_blocks(&arena->depot, 4), 2 * ROUNDS);
	alloc_blocks(front, 4, 2 * ROUNDS);
	cr_assert_eq(front->gets[4], 2);
	cr_assert_eq(hk_front_blocks(front, 4), 0);
	blocks[2 * ROUNDS] = hk_front_alloc(front, 4);
	cr_assert_not_null(blocks[2 * ROUNDS]);
	cr_assert_eq(hk_front_blocks(front, 4), BATCH_FIRST - 1);
	hk_front_push(front, 4, blocks[2 * ROUNDS]);
	push_blocks(front, 4, 2 * ROUNDS);
	close_fronts();
}

/* Workers that begin together have lines of their own, and pairs of lines. */
Test(front, the_first_batch_has_lines_for_itself)
{
	unsigned i;
	size_t n;

	open_fronts(NULL);
	for (i = 1; i < FIRST_COLD; i++) {
		size_t batch = i == 1 ? 128 / 16 : BATCH_FIRST;
		uintptr_t end = 0;

		for (n = 0; n < 2 * batch; n += 2) {
			blocks[n] = hk_front_alloc(front, i);
			blocks[n + 1] = hk_front_alloc(other, i);
			if (end < (uintptr_t)blocks[n] + hk_class_size(i))
				end = (uintptr_t)blocks[n] + hk_class_size(i);
		}
		for (n = 1; n < 2 * batch; n += 2)
			must((uintptr_t)blocks[n] >= end, "class %u", i);
		/* the last of a batch leaves first */
		must(i == 3 || (uintptr_t)blocks[3] % 128 == 0, "class %u", i);
		for (n = 0; n < 2 * batch; n += 2) {
			hk_front_push(front, i, blocks[n]);
			hk_front_push(other, i, blocks[n + 1]);
		}
	}
	close_fronts();
}

/* A few to begin with, then twice as many each time, up to a magazine and one. */
Test(front, batches_grow_up_to_a_magazine)
{
	unsigned i;

	open_fronts(NULL);
	for (i = FIRST_COLD; i < HK_CLASSES && hk_class_infos[i].capacity; i++) {
		size_t most = hk_class_infos[i].capacity + 1u, want = BATCH_FIRST;
		size_t group = hk_class_infos[i].blocks < 32 ? hk_class_infos[i].blocks : 32;
		size_t n, before = COLD_USES, largest = 0;
		uint64_t batches;

		/* none of the first has company */
		for (n = 0; n < COLD_USES; n++) {
			blocks[n] = hk_front_alloc(front, i);
			must(blocks[n] && class_of(i)->blocks_out == n + 1, "class %u", i);
		}
		batches = class_of(i)->batches;

		for (; n < COLD_USES + 6 * most; n++) {
			blocks[n] = hk_front_alloc(front, i);
			must(blocks[n], "class %u", i);
			if (class_of(i)->batches == batches)
				continue;
			want = want < most ? want : most;
			must(class_of(i)->blocks_out - before <= want, "class %u: %zu at once", i,
			     class_of(i)->blocks_out - before);
			/* fewer only where a group ends */
			must(before + want > group || class_of(i)->blocks_out == before + want,
			     "class %u: %zu, not %zu at once", i, class_of(i)->blocks_out - before,
			     want);
			if (largest < class_of(i)->blocks_out - before)
				largest = class_of(i)->blocks_out - before;
			before = class_of(i)->blocks_out;
			batches = class_of(i)->batches;
			want *= 2;
		}
		must(2 * largest >= most, "class %u: at most %zu at once", i, largest);
		while (n)
			hk_front_push(front, i, blocks[--n]);
		agree();
		hk_front_flush(front, false);
		hk_depot_drain(&arena->depot);
	}
	close_fronts();
}

Test(front, every_class_passes_through_magazines_and_depot, .timeout = 60)
{
	unsigned i;

	open_fronts(&(struct fault_options){ .forbid = true });
	for (i = 1; i < HK_CLASSES; i++) {
		size_t capacity = hk_class_infos[i].capacity;
		size_t count = 5 * capacity + 3;

		alloc_blocks(front, i, count);
		cr_assert_eq(class_of(i)->blocks_out, count + hk_front_blocks(front, i));
		push_blocks(other, i, count);
		cr_assert_leq(hk_front_blocks(other, i), 2 * capacity);
		cr_assert_eq(class_of(i)->blocks_out,
			     hk_front_blocks(front, i) + hk_front_blocks(other, i) +
				     hk_depot_blocks(&arena->depot, i),
			     "class %u", i);
		if (!capacity)
			cr_assert_eq(class_of(i)->blocks_out, 0, "class %u is not cached", i);
		alloc_blocks(front, i, count);
		push_blocks(front, i, count);
		hk_front_flush(front, false);
		hk_front_flush(other, false);
		agree();
		cr_assert_eq(held_by(front) + held_by(other), 0);
		hk_depot_drain(&arena->depot);
		agree();
		cr_assert_eq(class_of(i)->blocks_out, 0, "class %u", i);
	}
	cr_assert_eq(arena->space.used, arena->space.kept.slabs);
	close_fronts();
}

/* At the edge of a magazine a worker goes to and fro between its two, and no further. */
Test(front, to_and_fro_at_an_edge_stays_within)
{
	uint64_t batches, returns;
	size_t swaps, first;
	void *across[8];
	int i, n;

	open_fronts(NULL);
	alloc_blocks(front, 4, 3 * ROUNDS);
	/* one magazine full, two blocks in the other */
	for (first = 0; hk_front_blocks(front, 4) != ROUNDS + 2; first++)
		hk_front_push(front, 4, blocks[first]);
	batches = class_of(4)->batches;
	returns = class_of(4)->returns;
	swaps = front->spare_swap;
	for (i = 0; i < 100; i++) {
		/* across the edge and back */
		for (n = 0; n < 8; n++)
			across[n] = hk_front_alloc(front, 4);
		for (n = 0; n < 8; n++)
			hk_front_push(front, 4, across[n]);
		agree();
	}
	cr_assert_eq(class_of(4)->batches, batches);
	cr_assert_eq(class_of(4)->returns, returns);
	cr_assert_eq(front->gets[4] + front->puts[4], 0);
	cr_assert_gt(front->spare_swap, swaps);
	cr_assert_eq(held_by(front), 2);
	for (; first < 3 * ROUNDS; first++)
		hk_front_push(front, 4, blocks[first]);
	close_fronts();
}

/* What one frees another gets: whole magazines by way of the depot, no slab is asked. */
Test(front, full_magazines_go_from_one_to_another)
{
	uint64_t batches, calls, returns;

	open_fronts(NULL);
	warm(other, 4);
	alloc_blocks(front, 4, 10 * ROUNDS);
	batches = class_of(4)->batches;
	returns = class_of(4)->returns;
	calls = fault.calls;
	push_blocks(other, 4, 10 * ROUNDS);
	cr_assert_eq(other->puts[4], 8, "two it keeps");
	cr_assert_eq(class_of(4)->returns, returns);
	cr_assert_eq(hk_depot_blocks(&arena->depot, 4), 8 * ROUNDS);
	cr_assert_eq(fault.calls, calls, "a free called the platform");
	hk_front_flush(front, false);
	alloc_blocks(front, 4, 8 * ROUNDS);
	cr_assert_eq(front->gets[4], 8);
	cr_assert_eq(class_of(4)->batches, batches);
	cr_assert_eq(hk_depot_blocks(&arena->depot, 4), 0);
	push_blocks(front, 4, 8 * ROUNDS);
	close_fronts();
}

Test(front, what_the_depot_does_not_take_goes_to_the_slabs)
{
	const unsigned size_class = 104; /* 32 KiB: one a magazine */
	const uint32_t most = HK_DEPOT_BYTES / 32768, many = 20;
	uint64_t returns;

	open_fronts(NULL);
	hk_depot_drain(&arena->depot); /* it is not generous from then on */
	warm(other, size_class);
	cr_assert_eq(hk_class_infos[size_class].capacity, 1);
	alloc_blocks(front, size_class, many);
	returns = class_of(size_class)->returns;
	push_blocks(other, size_class, many);
	cr_assert_eq(other->puts[size_class], most);
	cr_assert_eq(hk_front_blocks(other, size_class), 2);
	cr_assert_eq(class_of(size_class)->returns - returns, many - 2 - most);
	close_fronts();
}

/* With no magazine at all, with one, with two and so on: never worse than slower. */
Test(front, works_with_as_few_magazines_as_there_are)
{
	static const unsigned classes[] = { 1, 4, 64, 80, 104, 110 };
	uint32_t most;
	size_t i;

	for (most = 0; most < 8; most++) {
		open_fronts(NULL);
		arena->depot.count = 0;
		arena->depot.count_max = most;
		arena->depot.ahead = most;
		for (i = 0; i < COUNT(classes); i++) {
			alloc_blocks(front, classes[i], 200);
			if (!most)
				cr_assert_eq(class_of(classes[i])->blocks_out, 200);
			push_blocks(i % 2 ? front : other, classes[i], 200);
			cr_assert_leq(arena->depot.count, most);
			if (!most)
				cr_assert_eq(class_of(classes[i])->blocks_out, 0);
		}
		hk_front_flush(front, false);
		hk_front_flush(other, false);
		hk_depot_drain(&arena->depot);
		agree();
		cr_assert_eq(arena->space.used, 0, "%u magazines", most);
		close_fronts();
	}
}

static bool is_zero(const unsigned char *bytes, size_t count)
{
	while (count && !bytes[count - 1])
		count--;
	return !count;
}

Test(front, zeroed_blocks_are_zero_wherever_they_come_from)
{
	unsigned i, round;

	open_fronts(&(struct fault_options){ .garbage = true });
	for (i = 1; i < HK_CLASSES; i += i < 60 ? 7 : 3) {
		size_t size = hk_class_size(i);

		/* from the slabs, the magazine, the spare, the depot and used slabs again */
		for (round = 0; round < 4; round++) {
			size_t count = 3u * hk_class_infos[i].capacity + 2, n;

			for (n = 0; n < count; n++) {
				blocks[n] = hk_front_zalloc(front, i, size - n % 3);
				must(is_zero(blocks[n], size - n % 3), "class %u, block %zu", i, n);
				memset(blocks[n], 0xee, size);
			}
			for (n = 0; n < count; n++)
				hk_front_push(front, i, blocks[n]);
			agree();
			if (round == 1)
				hk_front_flush(front, false);
			if (round == 2)
				hk_depot_drain(&arena->depot);
		}
		hk_front_flush(front, false);
	}
	close_fronts();
}

/* A platform that delivers zeroes: what it delivered is not cleared, what was used is. */
Test(front, zeroed_blocks_of_the_largest_classes_are_known_to_be)
{
	unsigned char *block;
	size_t size = HK_CLASS_MAX;

	open_fronts(NULL);
	block = hk_front_zalloc(front, HK_CLASSES - 1, size);
	cr_assert(is_zero(block, size));
	memset(block, 0xee, size);
	hk_front_push(front, HK_CLASSES - 1, block);
	cr_assert_eq(hk_front_zalloc(front, HK_CLASSES - 1, size - 1), block);
	cr_assert(is_zero(block, size - 1));
	cr_assert_eq(block[size - 1], 0xee, "cleared beyond its size");
	hk_front_push(front, HK_CLASSES - 1, block);
	close_fronts();
}

Test(front, what_slabs_refuse_is_counted_and_told)
{
	size_t i;

	open_fronts(NULL);
	alloc_blocks(front, 4, 10);
	push_blocks(front, 4, 10);
	hk_front_push(front, 4, blocks[3]);
	cr_assert_eq(reports.count, 0, "a magazine takes anything");
	hk_front_flush(front, false);
	cr_assert_eq(reports.count, 1);
	cr_assert_eq(reports.last.fault, HK_FAULT_DOUBLE_FREE);
	cr_assert_eq(reports.last.address, blocks[3]);
	cr_assert_eq(front->refused, 1);
	agree();
	cr_assert_eq(class_of(4)->blocks_out, 0, "the others returned");
	/* past the magazines: two of three */
	alloc_blocks(front, 4, 3);
	blocks[1] = (unsigned char *)blocks[1] + 16;
	hk_front_return(front, blocks, 3);
	agree();
	cr_assert_eq(reports.last.fault, HK_FAULT_INTERIOR);
	cr_assert_eq(front->refused, 2);
	blocks[1] = (unsigned char *)blocks[1] - 16;
	for (i = 1; i < 2; i++)
		hk_front_push(front, 4, blocks[i]);
	close_fronts();
}

/* Frees sort by what the cache knows of the class table; it learns when it comes here. */
Test(front, learns_how_far_the_class_table_goes)
{
	open_fronts(NULL);
	cr_assert_eq(front->hot.bound, 0);
	hk_front_refresh(front);
	cr_assert_eq(front->hot.bound, 0);
	alloc_blocks(other, 4, 1);
	cr_assert_gt(other->hot.bound, 0);
	cr_assert_eq(front->hot.bound, 0, "nobody writes to another's cache");
	hk_front_refresh(front);
	cr_assert_eq(front->hot.bound, other->hot.bound);
	hk_front_push(other, 4, blocks[0]);
	close_fronts();
}

Test(front, counts_of_exchanges_outlive_small_counters)
{
	const uint16_t nearly = INT16_MAX;

	open_fronts(NULL);
	alloc_blocks(front, 4, 6 * ROUNDS);
	front->puts[4] = nearly;
	push_blocks(front, 4, 6 * ROUNDS);
	cr_assert_eq(arena->depot.puts[4] + front->puts[4],
		     nearly + hk_depot_blocks(&arena->depot, 4) / ROUNDS);
	cr_assert_gt(arena->depot.puts[4], 0);
	cr_assert_lt(front->puts[4], 10);
	hk_front_flush(front, false);
	front->gets[4] = (uint16_t)(nearly - 1);
	alloc_blocks(front, 4, 2 * ROUNDS);
	cr_assert_eq(arena->depot.gets[4] + front->gets[4], (uint64_t)nearly + 1);
	cr_assert_eq(front->gets[4], 0);
	push_blocks(front, 4, 2 * ROUNDS);
	front->gets[9] = 5;
	hk_front_fold(front);
	hk_front_fold(front);
	cr_assert_eq(arena->depot.gets[9], 5);
	close_fronts();
}

Test(front, reset_forgets_all)
{
	unsigned i;

	open_fronts(NULL);
	for (i = 1; i < 100; i += 9) {
		alloc_blocks(front, i, 100);
		push_blocks(other, i, 50);
	}
	hk_arena_reset(arena);
	agree();
	cr_assert_eq(held_by(front) + held_by(other), 0);
	cr_assert_eq(front->hot.bound, 0);
	for (i = 1; i < HK_CLASSES; i++)
		cr_assert_eq(hk_front_blocks(front, i) + hk_front_blocks(other, i), 0);
	alloc_blocks(front, 40, 100);
	push_blocks(front, 40, 100);
	close_fronts();
}

Test(front, no_memory_is_no_block)
{
	open_fronts(NULL);
	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	cr_assert_null(hk_front_alloc(front, 4));
	cr_assert_null(hk_front_zalloc(front, 4, 64));
	cr_assert_null(hk_front_alloc(front, 120));
	cr_assert_null(hk_front_zalloc(front, 120, 64));
	agree();
	fault_platform_rewind(&fault);
	alloc_blocks(front, 4, 50);
	push_blocks(front, 4, 50);
	close_fronts();
}

Test(front, magazines_of_a_wrong_shape_are_found)
{
	size_t broken = 0;
	void **top, *block;

	open_fronts(NULL);
	alloc_blocks(front, 70, 2 * HK_MAGAZINE_SLOTS);
	push_blocks(front, 70, 2 * HK_MAGAZINE_SLOTS);
	alloc_blocks(front, 70, 3);
	cr_assert_eq(held_by(front), 2);
	top = front->hot.top[70];
	block = top[-1];
	top[-1] = NULL;
	hk_front_magazines(front, &broken);
	cr_assert_eq(broken, 1, "a hole");
	top[-1] = block;
	front->spare[70]--;
	broken = 0;
	hk_front_magazines(front, &broken);
	front->spare[70]++;
	cr_assert_eq(broken, 0, "a spare may be anything between");
	front->hot.top[HK_CLASS_LARGE] = top;
	hk_front_magazines(front, &broken);
	cr_assert_eq(broken, 1, "large blocks must not be cached");
	front->hot.top[HK_CLASS_LARGE] = front->hot.top[0];
	front->hot.top[70] = hk_magazine(top);
	broken = 0;
	hk_front_magazines(front, &broken);
	cr_assert_gt(broken, 0, "below its bottom");
	front->hot.top[70] = top;
	push_blocks(front, 70, 3);
	close_fronts();
}
