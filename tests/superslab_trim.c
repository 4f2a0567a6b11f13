/* SPDX-License-Identifier: MIT */
/* Slabs given back to the platform, moved by it, all freed at once, and what is known of them. */
#include <stdint.h>
#include <string.h>

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static const struct hk_deadline never;

static bool is_filled(const unsigned char *bytes, size_t count, unsigned char with)
{
	while (count && bytes[count - 1] == with)
		count--;
	return !count;
}

/* A run of its own, its first @zero_bytes zero: whether all of it is known to be. */
static bool take_zero(uint32_t count, size_t zero_bytes, uint32_t *first)
{
	bool zeroed = false;

	cr_assert_eq(hk_run_take(space, count, SLAB, zero_bytes, first, &zeroed), 0);
	hk_classes_set(space, *first, count, 1);
	verify();
	cr_assert(is_filled(hk_slab_address(space, *first), zero_bytes, 0));
	return zeroed;
}

/* Which slabs below @end are committed, one character each. */
static const char *picture(uint32_t end)
{
	static char text[200];
	uint32_t slab;

	for (slab = 0; slab < end; slab++)
		text[slab] = is_committed(slab) ? '#' : '.';
	text[end] = 0;
	return text;
}

/* 40 slabs, 10 to 12 and 33 of them used; the rest free and committed. */
static void lay_out_forty(void)
{
	cr_assert_eq(taken(40), 0);
	give(0, 10);
	give(13, 20);
	give(34, 6);
}

Test(superslab_trim, goes_from_the_top_and_stops_at_what_is_kept)
{
	static const uint32_t kept[] = { 40, 39, 34, 34, 29, 14, 13 };
	uint32_t before;
	size_t i;

	open_space(&(struct fault_options){ .forbid = true }, 400);
	lay_out_forty();
	for (i = 0; i < COUNT(kept); i++) {
		size_t others = fault.committed - space->committed * SLAB;
		uint32_t slab, free = 0;

		before = (uint32_t)space->committed;
		cr_assert_eq(hk_superslabs_trim(space, others + kept[i] * SLAB, never),
			     (before - kept[i]) * SLAB, "to %u", kept[i]);
		verify();
		cr_assert_eq(space->committed, kept[i]);
		/* of the free ones, the lowest are left */
		for (slab = 0; slab < 40; slab++) {
			bool used = (slab >= 10 && slab < 13) || slab == 33;

			free += !used;
			cr_assert_eq(is_committed(slab), used || free <= kept[i] - 4, "%u kept: %s",
				     kept[i], picture(40));
		}
	}
	close_space();
}

/* Bytes to be kept that are no whole number of slabs: not below, not a slab above. */
Test(superslab_trim, keeps_what_is_asked_for)
{
	size_t keep, before;

	open_space(&(struct fault_options){ .forbid = true }, 400);
	cr_assert_eq(taken(120), 0);
	give(0, 120);
	for (keep = 7 * MIB; keep > 1 * MIB; keep -= 377 * KIB + 77) {
		before = fault.committed;
		cr_assert_eq(hk_superslabs_trim(space, keep, never), before - fault.committed);
		verify();
		cr_assert_leq(fault.committed, keep);
		cr_assert_gt(fault.committed + SLAB, keep);
		cr_assert_eq(hk_superslabs_trim(space, keep, never), 0);
	}
	cr_assert_eq(hk_superslabs_trim(space, SIZE_MAX, never), 0);
	close_space();
}

Test(superslab_trim, to_nothing_leaves_nothing)
{
	size_t empty;

	open_space(&(struct fault_options){ .forbid = true }, 400);
	empty = fault.committed;
	cr_assert_eq(taken(100), 0);
	cr_assert_eq(hk_bitmap_commit(space, 70), 0);
	give(0, 100);
	hk_superslabs_trim(space, 0, never);
	verify();
	cr_assert_eq(space->committed, 0);
	cr_assert_eq(space->free.leaves, 0);
	cr_assert_eq(space->ready.leaves, 0);
	cr_assert_eq(space->bitmap_bytes, 0);
	/* frees may still look at class bytes, till a reset */
	cr_assert_eq(fault.committed, empty + space->classes.committed);
	hk_superslabs_reset(space);
	hk_superslabs_trim(space, 0, never);
	verify();
	cr_assert_eq(fault.committed, empty);
	cr_assert_eq(hk_class_at(space, hk_slab_address(space, 3)), 0);
	cr_assert_eq(taken(100), 0);
	close_space();
}

Test(superslab_trim, with_a_deadline_takes_small_steps)
{
	struct hk_deadline deadline;
	size_t given, all = 0;

	open_space(&(struct fault_options){ .fake_clock = true }, 400);
	cr_assert_eq(taken(100), 0);
	give(0, 100);
	fault.tick = 10;
	do {
		deadline = hk_deadline_in(&arena->memory, 10);
		given = hk_superslabs_trim(space, 0, deadline);
		verify();
		all += given / SLAB;
		must(given <= 8 * SLAB || space->committed == 0, "%zu at once", given);
	} while (space->committed);
	cr_assert_eq(all, 100);
	/* time for two of them */
	cr_assert_eq(taken(100), 0);
	give(0, 100);
	deadline = hk_deadline_in(&arena->memory, 20);
	cr_assert_eq(hk_superslabs_trim(space, 0, deadline) / SLAB, 8 + 4);
	/* ample time: all that may pass between two looks at once, and less at the end */
	fault.tick = 30000;
	deadline = hk_deadline_in(&arena->memory, 200000);
	cr_assert_eq(hk_superslabs_trim(space, 0, deadline) / SLAB, 8 + 8 + 8 + 4 + 4);
	close_space();
}

/* Each call interrupts other threads: 400 slabs in parts of 128, across superslabs. */
Test(superslab_trim, without_a_deadline_makes_few_calls)
{
	open_space(&(struct fault_options){ .forbid = true }, 400);
	cr_assert_eq(taken(300), 0);
	give(0, 300);
	fault_platform_rewind(&fault);
	cr_assert_geq(hk_superslabs_trim(space, 0, never), 300 * SLAB);
	cr_assert_eq(space->committed, 0);
	verify();
	cr_assert_leq(fault.counts[FAULT_DECOMMIT], 3 + 3, "%llu calls",
		      (unsigned long long)fault.counts[FAULT_DECOMMIT]);
	close_space();
}

/* After the platform refused a large part, smaller ones are tried, from the same end. */
Test(superslab_trim, a_refusal_is_of_a_part)
{
	open_space(&(struct fault_options){ .forbid = true }, 400);
	cr_assert_eq(taken(300), 0);
	give(0, 300);
	fault_platform_rewind(&fault);
	fault.fail_at = 1;
	hk_superslabs_trim(space, 0, never);
	cr_assert_eq(fault.injected, 1);
	verify();
	cr_assert_eq(space->committed, 0);
	close_space();
}

static struct hk_space_use seen_meanwhile;
static int (*real_decommit)(void *context, void *ptr, size_t size);

static int look_and_decommit(void *context, void *ptr, size_t size)
{
	/* metadata go with the lock held */
	if (!space->hidden)
		return real_decommit(context, ptr, size);
	seen_meanwhile = hk_space_use(space);
	return real_decommit(context, ptr, size);
}

/* Else maintenance took it for demand, and committed anew what is being given back. */
Test(superslab_trim, what_a_step_hides_is_not_in_use)
{
	open_space(&(struct fault_options){ 0 }, 400);
	cr_assert_eq(taken(300), 0);
	give(0, 300);
	hk_superslabs_drop_kept(space);
	hk_space_use(space);
	hk_space_use(space);
	real_decommit = space->memory->platform.decommit;
	space->memory->platform.decommit = look_and_decommit;
	seen_meanwhile.used = 1;
	hk_superslabs_trim(space, 0, never);
	space->memory->platform.decommit = real_decommit;
	cr_assert_eq(seen_meanwhile.used, 0);
	cr_assert_eq(seen_meanwhile.high, 0);
	close_space();
}

Test(superslab_trim, what_cannot_be_given_back_is_kept_and_zero_no_more)
{
	uint32_t first;

	open_space(&(struct fault_options){ .forbid = true }, 400);
	while (space->committed < 48 || space->committed == space->used)
		taken(1);
	first = (uint32_t)space->used; /* committed ahead, never used */
	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	cr_assert_eq(hk_superslabs_trim(space, 0, never), 0);
	verify();
	cr_assert_gt(fault.injected, 0);
	cr_assert(is_committed(first));
	fault_platform_rewind(&fault);
	cr_assert_not(take_zero(1, SLAB, &first), "its content is gone");
	cr_assert_eq(first, space->used - 1);
	close_space();
}

/* Without HK_PLATFORM_ZEROED all is rubbish until it is cleared. */
Test(superslab_trim, nothing_is_zero_that_the_platform_did_not_clear)
{
	uint32_t first;

	open_space(&(struct fault_options){ .garbage = true }, 400);
	cr_assert_not(take_zero(3, 2 * SLAB + 100, &first));
	cr_assert_neq(hk_slab_address(space, first)[2 * SLAB + 100], 0, "cleared for nothing");
	close_space();
}

/* What was used is dirty until the platform has had it again; what was not is as delivered. */
Test(superslab_trim, zero_is_what_was_never_used_since_its_commit)
{
	uint32_t first, slab;

	open_space(&(struct fault_options){ .forbid = true }, 400);
	cr_assert(take_zero(3, 0, &first));
	memset(hk_slab_address(space, first), 7, 3 * SLAB);
	give(first, 3);
	cr_assert_not(take_zero(1, 0, &first));
	cr_assert_eq(*hk_slab_address(space, first), 7);
	cr_assert_not(take_zero(2, SLAB + 1, &first));
	cr_assert_eq(hk_slab_address(space, first)[SLAB + 1], 7, "cleared for nothing");
	give(0, 3);
	/* one dirty slab among clean ones; only it is cleared */
	cr_assert_not(take_zero(40, 40 * SLAB, &first));
	cr_assert_eq(first, 0);
	give(0, 40);
	hk_superslabs_trim(space, 0, never);
	cr_assert(take_zero(40, 0, &first), "the platform has cleared it");
	/* extended slabs are dirty too */
	cr_assert_eq(extend(0, 40, 5), 0);
	memset(hk_slab_address(space, 40), 7, 5 * SLAB);
	give(40, 5);
	cr_assert_not(take_zero(5, 5 * SLAB, &first));
	cr_assert_eq(first, 40);
	/* committed ahead and still untouched after a reset */
	while (space->committed == space->used)
		taken(1);
	slab = (uint32_t)space->used;
	hk_superslabs_reset(space);
	verify();
	cr_assert_not(take_zero(slab, 0, &first));
	cr_assert_eq(first, 0);
	cr_assert(take_zero(1, 0, &first), "slab %u was never used", slab);
	cr_assert_eq(first, slab);
	close_space();
}

/* Moves @size bytes from one run to another: whether that was done, and rightly. */
static bool moves(uint32_t from, uint32_t to, size_t size)
{
	uint64_t calls = fault.counts[FAULT_MOVE];
	bool done;

	test_fill(hk_slab_address(space, from), size, from);
	done = hk_space_move(space, hk_slab_address(space, from), size, hk_slab_address(space, to),
			     size);
	verify();
	if (done) {
		must(test_holds(hk_slab_address(space, to), size, from), "content is lost");
		must(fault.counts[FAULT_MOVE] == calls + 1, "not moved by the platform");
	} else {
		must(test_holds(hk_slab_address(space, from), size, from), "content is lost");
	}
	return done;
}

Test(superslab_trim, moves_whole_pages_from_128_kib_on)
{
	uint32_t first, second;
	size_t page;

	open_space(&(struct fault_options){ .copy_move = true, .forbid = true }, 400);
	page = fault.platform.page_size;
	first = taken(5);
	second = taken(5);
	cr_assert_not(moves(first, second, 2 * SLAB - page));
	cr_assert_not(moves(first, second, 2 * SLAB + page / 2));
	cr_assert_not(hk_space_move(space, hk_slab_address(space, first) + page / 2, 2 * SLAB,
				    hk_slab_address(space, second), 2 * SLAB));
	cr_assert_not(hk_space_move(space, hk_slab_address(space, first), 2 * SLAB,
				    hk_slab_address(space, second) + page / 2, 2 * SLAB));
	cr_assert_eq(fault.counts[FAULT_MOVE], 0);
	fault_platform_rewind(&fault);
	fault.fail_only = FAULT_BIT(FAULT_MOVE);
	fault.fail_at = 1;
	cr_assert_not(moves(first, second, 2 * SLAB));
	cr_assert_eq(space->moved, 0);
	cr_assert(moves(first, second, 2 * SLAB));
	cr_assert(moves(second, first, 2 * SLAB + page));
	cr_assert(is_committed(first) && is_committed(second + 2), "both stay committed");
	close_space();

	open_space(&(struct fault_options){ .hide = FAULT_BIT(FAULT_MOVE) }, 400);
	first = taken(5);
	cr_assert_not(moves(first, taken(5), 5 * SLAB));
	close_space();
}

/* Each place that was moved to may be a mapping of its own: they are counted, and bounded. */
Test(superslab_trim, counts_the_places_that_were_moved_to)
{
	uint32_t a, b, c;
	size_t page;

	open_space(&(struct fault_options){ .copy_move = true, .forbid = true }, 400);
	page = fault.platform.page_size;
	a = taken(40);
	b = taken(40);
	c = taken(40);
	cr_assert(moves(a, b, 40 * SLAB));
	cr_assert_eq(space->moved, 1);
	cr_assert(moves(a, b, 2 * SLAB), "the same place");
	cr_assert_eq(space->moved, 1);
	cr_assert(moves(a, b + 2, 2 * SLAB));
	cr_assert_eq(space->moved, 2);
	cr_assert(moves(b, c, 40 * SLAB), "all of it is joined to its neighbours");
	cr_assert_eq(space->moved, 1);
	/* where a block begins within a slab, it is the next one that is marked, and its own */
	cr_assert(hk_space_move(space, hk_slab_address(space, a) + page, 2 * SLAB,
				hk_slab_address(space, b) + page, 2 * SLAB));
	verify();
	cr_assert_eq(hk_superslab(space, (b + 1) / 32)->moved >> (b + 1) % 32 & 1, 1);
	cr_assert(hk_space_move(space, hk_slab_address(space, b) + SLAB + page, 2 * SLAB,
				hk_slab_address(space, a), 2 * SLAB),
		  "begins behind that mark");
	cr_assert_eq(space->moved, 3);
	atomic_fetch_add(&space->moved, 4096 - 3);
	cr_assert_not(hk_space_move(space, hk_slab_address(space, c), 40 * SLAB,
				    hk_slab_address(space, a), 40 * SLAB));
	atomic_fetch_sub(&space->moved, 1);
	cr_assert(hk_space_move(space, hk_slab_address(space, c), 20 * SLAB,
				hk_slab_address(space, a + 4), 36 * SLAB));
	atomic_fetch_sub(&space->moved, 4096 - 4);
	verify();
	/* a reset does not join them, nor does a trim, but where the headers go nothing is known */
	hk_superslabs_reset(space);
	verify();
	cr_assert_neq(space->moved, 0);
	hk_superslabs_trim(space, 0, never);
	cr_assert_eq(space->moved, 0);
	close_space();
}

Test(superslab_trim, reset_frees_all_and_keeps_it_committed)
{
	static const uint32_t sizes[] = { 1, 32, 45, 64, 100 };
	size_t committed, i;
	uint64_t calls;
	uint32_t slab;

	for (i = 0; i < COUNT(sizes); i++) {
		open_space(NULL, sizes[i]);
		hk_superslabs_reset(space);
		verify();
		cr_assert_eq(taken(sizes[i]), 0);
		hk_slab(space, 0)->was = 9;
		committed = fault.committed;
		calls = fault.calls;
		hk_superslabs_reset(space);
		verify();
		cr_assert_eq(fault.calls, calls);
		cr_assert_eq(space->used, 0);
		cr_assert_eq(fault.committed, committed);
		for (slab = 0; slab < sizes[i]; slab++)
			cr_assert_eq(hk_class_at(space, hk_slab_address(space, slab)), 0);
		/* a last superslab that is cut short is never whole: its slabs go first */
		for (slab = 0; slab < sizes[i]; slab++)
			cr_assert_eq(taken(1), (sizes[i] / 32 * 32 + slab) % sizes[i]);
		cr_assert_eq(fault.calls, calls, "all of it was committed");
		close_space();
	}
}

/* Bitmaps are committed by the page: of as many superslabs as share one, no more. */
Test(superslab_trim, bitmaps_come_and_go_by_groups)
{
	static const size_t pages[] = { 4 * KIB, 16 * KIB, 64 * KIB };
	uint32_t slab, group, word;
	size_t i;

	for (i = 0; i < COUNT(pages); i++) {
		open_space(&(struct fault_options){ .page_size = pages[i], .forbid = true }, 300);
		group = space->bitmap_group * 32;
		cr_assert_eq(space->bitmap_group, pages[i] == 64 * KIB ? 4 : 1);
		cr_assert_eq(taken(300), 0);
		for (slab = 0; slab < 300; slab++) {
			cr_assert_eq(hk_bitmap_commit(space, slab), 0);
			for (word = 0; word < HK_BITMAP_BYTES / 4; word++)
				*hk_bitmap_word(space, slab, word) = slab << 8 | word;
			must(space->bitmap_bytes == (slab / group + 1) * group * HK_BITMAP_BYTES,
			     "slab %u: %zu", slab, space->bitmap_bytes);
			verify();
		}
		for (slab = 0; slab < 300; slab++)
			for (word = 0; word < HK_BITMAP_BYTES / 4; word++)
				must(*hk_bitmap_word(space, slab, word) == (slab << 8 | word),
				     "slab %u, word %u", slab, word);
		/* all of the second group, and all but the first slab of the third */
		give(group, group);
		give(2 * group + 1, (3 * group < 300 ? 3 * group : 300) - 2 * group - 1);
		hk_superslabs_trim(space, 0, never);
		cr_assert(fault_platform_is_committed(&fault, hk_bitmap_word(space, 0, 0), 4));
		cr_assert_not(
			fault_platform_is_committed(&fault, hk_bitmap_word(space, group, 0), 4));
		cr_assert(fault_platform_is_committed(&fault, hk_bitmap_word(space, 2 * group, 0),
						      4));
		verify();
		close_space();
	}
}

Test(superslab_trim, a_bitmap_that_cannot_be_committed_is_none)
{
	open_space(&(struct fault_options){ .forbid = true }, 300);
	cr_assert_eq(taken(40), 0);
	fault_platform_rewind(&fault);
	fault.fail_at = 1;
	cr_assert_eq(hk_bitmap_commit(space, 35), HK_ERROR_MEMORY);
	cr_assert_eq(space->bitmap_bytes, 0);
	verify();
	arena->memory.own.limit = fault.committed;
	cr_assert_eq(hk_bitmap_commit(space, 35), HK_ERROR_LIMIT);
	verify();
	arena->memory.own.limit = SIZE_MAX;
	cr_assert_eq(hk_bitmap_commit(space, 35), 0);
	cr_assert_eq(hk_bitmap_commit(space, 36), 0);
	cr_assert_eq(fault.counts[FAULT_COMMIT], 2, "the second is there already");
	close_space();
}

Test(superslab_trim, pointers_from_elsewhere_have_no_class)
{
	unsigned char *end;

	open_space(NULL, 300);
	cr_assert_eq(hk_class_at(space, space->base), 0, "before anything was taken");
	cr_assert_eq(taken(300), 0);
	end = hk_slab_address(space, 300);
	cr_assert_eq(hk_class_at(space, space->base), 1);
	cr_assert_eq(hk_class_at(space, end - 1), 1);
	cr_assert_eq(hk_class_at(space, space->base - 1), 0);
	cr_assert_eq(hk_class_at(space, space->base - SLAB), 0);
	cr_assert_eq(hk_class_at(space, end), 0);
	cr_assert_eq(hk_class_at(space, NULL), 0);
	cr_assert_eq(hk_class_at(space, (void *)UINTPTR_MAX), 0);
	cr_assert_eq(hk_class_at(space, &end), 0);
	cr_assert_eq(hk_slab_number(space, end - 1), 299);
	/* what a slab was, for pointers that dangle */
	hk_slab(space, 299)->was = 7;
	cr_assert_eq(hk_last_class(space, end - 1), 7);
	cr_assert_eq(hk_last_class(space, space->base), 0);
	cr_assert_eq(hk_last_class(space, space->base - 1), 0);
	cr_assert_eq(hk_last_class(space, hk_slab_address(space, 320)), 0);
	cr_assert_eq(hk_last_class(space, NULL), 0);
	close_space();
}
