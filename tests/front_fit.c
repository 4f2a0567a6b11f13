/* SPDX-License-Identifier: MIT */
/* How much a magazine holds: more where more blocks of its class are in use. */
#include "front.h"

#define MEDIUM 110u /* 96 KiB: no magazine at first */
#define KIB ((size_t)1 << 10)

static unsigned capacity(unsigned size_class)
{
	return hk_depot_capacity(&arena->depot, size_class);
}

static unsigned first_capacity(unsigned size_class)
{
	return hk_class_infos[size_class].capacity;
}

/* What a 4096th of all memory in use comes to, of classes that have a magazine at first. */
static size_t share_of_all(unsigned size_class)
{
	size_t bytes = arena->space.used * HK_SLAB_SIZE / 4096;

	return first_capacity(size_class) ? bytes / hk_class_size(size_class) : 0;
}

/*
 * By what is in use when a refill comes to the slabs, up to so many rounds and bytes. Two caches
 * are alive.
 */
static void follows(unsigned size_class, size_t part, unsigned most)
{
	size_t live, want;

	open_fronts(NULL);
	cr_assert_eq(capacity(size_class), first_capacity(size_class));
	for (live = 1; live <= 70 * part && live < COUNT(blocks) &&
		       live * hk_class_size(size_class) < 128 * KIB * KIB;
	     live++) {
		want = class_of(size_class)->blocks_out / part;
		if (want < share_of_all(size_class))
			want = share_of_all(size_class);
		want = want < most ? want : most;
		if (want < first_capacity(size_class))
			want = first_capacity(size_class);
		hk_depot_fit(&arena->depot, size_class);
		must(capacity(size_class) == want, "class %u, %zu blocks: %u, not %zu", size_class,
		     live, capacity(size_class), want);
		blocks[live - 1] = hk_front_alloc(front, size_class);
		memset(blocks[live - 1], (int)((live - 1) & 127), 16);
	}
	if (live > most * part)
		cr_assert_eq(capacity(size_class), most);
	push_blocks(front, size_class, live - 1);
	hk_front_flush(front, false);
	hk_depot_drain(&arena->depot);
	hk_depot_fit(&arena->depot, size_class);
	cr_assert_eq(capacity(size_class), first_capacity(size_class), "none is in use");
	close_fronts();
}

Test(front, magazines_follow_the_blocks_in_use)
{
	follows(4, 64, ROUNDS);
	follows(72, 64, ROUNDS);
	follows(80, 64, ROUNDS);
	follows(104, 64, 16);
	follows(MEDIUM, 2 * 8, 21);
	follows(120, 2 * 8, 4);
	follows(128, 2 * 8, 2);
}

/* What caches hold of medium blocks is shared among them, and less where the range is small. */
Test(front, magazines_of_medium_blocks_are_for_all_caches_together)
{
	struct hk_cache *third;

	open_fronts(NULL);
	class_of(MEDIUM)->blocks_out = 48;
	hk_depot_fit(&arena->depot, MEDIUM);
	cr_assert_eq(capacity(MEDIUM), 3);
	cr_assert_eq(hk_cache_create(arena, &third), 0);
	hk_depot_fit(&arena->depot, MEDIUM);
	cr_assert_eq(capacity(MEDIUM), 2);
	hk_cache_destroy(third);
	hk_depot_fit(&arena->depot, MEDIUM);
	cr_assert_eq(capacity(MEDIUM), 3);
	cr_assert_eq(hk_arena_set_limits(arena, 127 * KIB * KIB, 0), 0);
	hk_depot_fit(&arena->depot, MEDIUM);
	cr_assert_eq(capacity(MEDIUM), 1);
	class_of(MEDIUM)->blocks_out = 1000;
	hk_depot_fit(&arena->depot, MEDIUM);
	cr_assert_eq(capacity(MEDIUM), 5);
	hk_depot_fit(&arena->depot, 128);
	cr_assert_eq(capacity(128), 0);
	class_of(MEDIUM)->blocks_out = 0;
	close_fronts();
}

/* A class of which little is in use has larger ones, too, where much else is. */
Test(front, magazines_follow_all_memory_in_use)
{
	open_fronts(NULL);
	alloc_blocks(front, 120, 128);
	cr_assert_geq(share_of_all(80), 4);
	hk_depot_fit(&arena->depot, 80);
	cr_assert_eq(capacity(80), share_of_all(80));
	hk_depot_fit(&arena->depot, 4);
	cr_assert_eq(capacity(4), ROUNDS, "no more than there is room for");
	hk_depot_fit(&arena->depot, MEDIUM);
	cr_assert_eq(capacity(MEDIUM), 0);
	push_blocks(front, 120, 128);
	hk_front_flush(front, false);
	hk_depot_drain(&arena->depot);
	hk_depot_fit(&arena->depot, 80);
	cr_assert_eq(capacity(80), first_capacity(80));
	close_fronts();
}

/* A refill does so by itself, and an empty magazine at hand holds more from then on. */
Test(front, an_empty_magazine_follows_too)
{
	const unsigned size_class = 80;
	void **magazine;

	open_fronts(NULL);
	alloc_blocks(front, size_class, 8);
	magazine = hk_magazine(front->hot.top[size_class]);
	cr_assert_eq(hk_magazine_capacity(&arena->depot, magazine), 2);
	push_blocks(front, size_class, 1);
	alloc_blocks(front, size_class, 64 * 10);
	cr_assert_eq(hk_magazine(front->hot.top[size_class]), magazine);
	cr_assert_geq(hk_magazine_capacity(&arena->depot, magazine), 9);
	hk_arena_reset(arena);
	cr_assert_eq(capacity(size_class), first_capacity(size_class));
	close_fronts();
}

/* Statistics and checks know each magazine's own size. */
Test(front, magazines_of_two_sizes)
{
	const unsigned size_class = 80;
	size_t i;

	open_fronts(NULL);
	alloc_blocks(front, size_class, 64 * 10);
	for (i = 0; i < 5; i++) {
		hk_front_push(other, size_class, blocks[i]);
		agree();
	}
	/* the first is one of four cold uses and then full or not */
	cr_assert_eq(hk_front_blocks(other, size_class), 5 - COLD_USES);
	for (; i < 64 * 10; i++)
		hk_front_push(other, size_class, blocks[i]);
	cr_assert_leq(hk_front_blocks(other, size_class), 2 * 10);
	cr_assert_gt(hk_front_blocks(other, size_class), 10);
	agree();
	cr_assert_eq(class_of(size_class)->blocks_out - hk_front_blocks(front, size_class),
		     hk_front_blocks(other, size_class) +
			     hk_depot_blocks(&arena->depot, size_class));
	close_fronts();
}

/* The depot's bound is one of bytes, whatever a magazine holds. */
Test(front, large_magazines_are_fewer_in_the_depot)
{
	const unsigned size_class = 80;

	open_fronts(NULL);
	hk_depot_drain(&arena->depot); /* it is not generous from then on */
	alloc_blocks(front, size_class, 64 * 20);
	cr_assert_geq(capacity(size_class), 19);
	hk_front_flush(front, false);
	push_blocks(other, size_class, 64 * 20);
	cr_assert_geq(hk_depot_blocks(&arena->depot, size_class), 1);
	cr_assert_leq(hk_depot_blocks(&arena->depot, size_class) * 4 * KIB,
		      HK_DEPOT_BYTES + 20 * 4 * KIB);
	close_fronts();
}

/* Of the largest classes what came back is at hand, and nothing else: no run is taken ahead. */
Test(front, of_medium_blocks_only_those_that_came_back_are_kept_at_hand)
{
	uint64_t batches, returns;
	size_t i;

	open_fronts(NULL);
	for (i = 0; i < 40; i++) {
		blocks[i] = hk_front_alloc(front, MEDIUM);
		memset(blocks[i], (int)i, 16);
		cr_assert_eq(class_of(MEDIUM)->blocks_out, i + 1);
	}
	cr_assert_eq(capacity(MEDIUM), 2);
	batches = class_of(MEDIUM)->batches;
	returns = class_of(MEDIUM)->returns;
	/* two magazines of two */
	for (i = 40; i-- > 36;)
		hk_front_push(front, MEDIUM, blocks[i]);
	cr_assert_eq(hk_front_blocks(front, MEDIUM), 4);
	cr_assert_eq(class_of(MEDIUM)->returns, returns);
	for (i = 36; i < 40; i++)
		cr_assert_eq(hk_front_alloc(front, MEDIUM), blocks[i], "the last first");
	cr_assert_eq(class_of(MEDIUM)->batches, batches);
	cr_assert_eq(class_of(MEDIUM)->blocks_out, 40);
	push_blocks(front, MEDIUM, 40);
	cr_assert_leq(hk_front_blocks(front, MEDIUM), 4);
	cr_assert_geq(hk_depot_blocks(&arena->depot, MEDIUM), 8, "the depot keeps a few");
	cr_assert_leq(hk_depot_blocks(&arena->depot, MEDIUM) * 96 * KIB, HK_DEPOT_BYTES_MAX);
	hk_front_flush(front, true);
	hk_depot_drain(&arena->depot);
	cr_assert_eq(class_of(MEDIUM)->blocks_out, 0);
	close_fronts();

	open_fronts(NULL);
	hk_depot_drain(&arena->depot); /* it is not generous from then on */
	alloc_blocks(front, MEDIUM, 40);
	push_blocks(front, MEDIUM, 40);
	cr_assert_eq(hk_depot_blocks(&arena->depot, MEDIUM), 0);
	/* what it turned away it had better kept */
	for (i = 0; i < 4; i++) {
		alloc_blocks(front, MEDIUM, 40);
		push_blocks(front, MEDIUM, 40);
	}
	cr_assert_geq(hk_depot_blocks(&arena->depot, MEDIUM), 8);
	close_fronts();
}

/* When there are few again, a magazine at hand still takes what comes back. */
Test(front, a_class_that_has_no_magazine_any_more)
{
	open_fronts(NULL);
	alloc_blocks(front, MEDIUM, 40);
	push_blocks(front, MEDIUM, 40);
	cr_assert_gt(held_by(front), 0);
	while (hk_front_blocks(front, MEDIUM))
		hk_front_return(front, (void *[]){ hk_front_alloc(front, MEDIUM) }, 1);
	hk_depot_drain(&arena->depot);
	hk_depot_fit(&arena->depot, MEDIUM);
	cr_assert_eq(capacity(MEDIUM), 0);
	alloc_blocks(front, MEDIUM, 3);
	push_blocks(front, MEDIUM, 3);
	agree();
	cr_assert_geq(hk_front_blocks(front, MEDIUM), 1);
	close_fronts();
}

/* What large magazines hold is excess like any other: it makes way, though they are few. */
Test(front, excess_in_large_magazines_makes_way)
{
	unsigned size_class;
	size_t before = 0, after = 0;

	open_fronts(NULL);
	for (size_class = 80; size_class < 84; size_class++) {
		unsigned round;

		/* the second time, magazines that were missed are there */
		for (round = 0; round < 3; round++) {
			alloc_blocks(front, size_class, 64 * 16);
			push_blocks(other, size_class, 64 * 16);
		}
		before += hk_depot_blocks(&arena->depot, size_class) * 4 * KIB;
	}
	cr_assert_gt(before, hk_arena_used(arena) / HK_DEPOT_SHARE + 4 * HK_DEPOT_BYTES);
	for (size_class = 0; size_class < 100; size_class++)
		hk_depot_shrink(&arena->depot);
	for (size_class = 80; size_class < 84; size_class++)
		after += hk_depot_blocks(&arena->depot, size_class) * 4 * KIB;
	cr_assert_lt(after, before);
	cr_assert_leq(after, hk_arena_used(arena) / HK_DEPOT_SHARE + 4 * HK_DEPOT_BYTES);
	agree();
	close_fronts();
}
