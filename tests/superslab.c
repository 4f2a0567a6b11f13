/* SPDX-License-Identifier: MIT */
/* Runs of slabs: which ones are taken, when they are committed, what is known to be zero. */
#include <stdint.h>
#include <string.h>

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SLABS_MAX 1500u
#define SHORT_RUN 8u /* up to so many slabs go where a superslab is in use already */

/* What every slab is, by plain means. */
static struct {
	unsigned char used[SLABS_MAX];
	unsigned char had[SLABS_MAX];	/* committed before the call */
	unsigned char dirty[SLABS_MAX]; /* used since its commit */
	unsigned char kept[SLABS_MAX];	/* free, and not to be found in the maps before the call */
	struct {
		uint32_t first;
		uint32_t count;
	} runs[64];
} plain;

static uint64_t seed;

static void look(void)
{
	uint32_t slab, index;

	memset(plain.kept, 0, sizeof(plain.kept));
	for (index = 0; index < space->kept.count; index++)
		memset(plain.kept + space->kept.runs[index].first, 1,
		       space->kept.runs[index].count);
	for (slab = 0; slab < space->slabs_max; slab++) {
		must(!plain.kept[slab] || !plain.used[slab], "slab %u is used and kept", slab);
		plain.had[slab] = is_committed(slab);
		if (!plain.had[slab])
			plain.dirty[slab] = 0;
	}
}

enum {
	FREE = 1,
	READY = 2,
	FOUND = 4
};

/* The lowest run that is free, READY, and to be FOUND in the maps, as far as that is asked for. */
static uint32_t plain_find(uint32_t count, size_t align, unsigned what)
{
	uint32_t run = 0, slab;

	for (slab = 0; slab < space->slabs_max; slab++) {
		run = plain.used[slab] || (what & READY && !plain.had[slab]) ||
				      (what & FOUND && plain.kept[slab])
			      ? 0
			      : run + 1;
		if (run >= count &&
		    !((uintptr_t)hk_slab_address(space, slab + 1 - count) & (align - 1)))
			return slab + 1 - count;
	}
	return HK_MAP_NONE;
}

/* The lowest run that is ready, within one superslab whose 32 slabs are not all ready. */
static uint32_t plain_find_broken(uint32_t count)
{
	uint32_t first, slab;

	for (first = 0; first < space->slabs_max; first += 32) {
		uint32_t run = 0, ready = 0, found = HK_MAP_NONE;

		for (slab = first; slab < first + 32 && slab < space->slabs_max; slab++) {
			bool is_ready = !plain.used[slab] && !plain.kept[slab] && plain.had[slab];

			ready += is_ready;
			run = is_ready ? run + 1 : 0;
			if (run == count && found == HK_MAP_NONE)
				found = slab + 1 - count;
		}
		if (ready < 32 && found != HK_MAP_NONE)
			return found;
	}
	return HK_MAP_NONE;
}

/* The shortest run kept that is long enough, the lowest of these. */
static uint32_t plain_find_kept(uint32_t count)
{
	uint32_t best = HK_MAP_NONE, best_length = UINT32_MAX, slab, end;

	for (slab = 0; slab < space->slabs_max; slab = end + 1) {
		for (end = slab; end < space->slabs_max && plain.kept[end]; end++)
			;
		if (end - slab < count || end - slab >= best_length)
			continue;
		best = slab;
		best_length = end - slab;
	}
	return best;
}

/* Where a run should be found that begins at any slab, or where it is aligned perhaps. */
static uint32_t plain_place(uint32_t count, size_t align)
{
	uint32_t found = HK_MAP_NONE;
	size_t kept = 0, used = 0;
	unsigned what = FOUND;
	uint32_t slab;

	if (count > SHORT_RUN && count <= space->slabs_max / 32 && align == SLAB) {
		found = plain_find_kept(count);
		if (found == HK_MAP_NONE)
			found = plain_find(count, align, READY | FOUND);
		/* what is kept was given up by now, unless this is within what was ever used */
		if (found == HK_MAP_NONE || found + count > space->high) {
			found = plain_find(count, align, READY);
			what = FREE;
		} else {
			/* it is kept now, as one with what was kept before it */
			while (found && plain.kept[found - 1])
				found--;
		}
		return found != HK_MAP_NONE ? found : plain_find(count, align, what);
	}
	for (slab = 0; slab < space->slabs_max; slab++) {
		kept += plain.kept[slab];
		used += plain.used[slab];
	}
	if (count <= SHORT_RUN && align == SLAB)
		found = plain_find_broken(count);
	if (found == HK_MAP_NONE)
		found = plain_find(count, align, READY | FOUND);
	if (found == HK_MAP_NONE)
		found = plain_find(count, align, FOUND);
	/* what is kept stays while superslabs in use have room, and it is little or none is new */
	if (found != HK_MAP_NONE && found + count <= (space->high + 31) / 32 * 32 &&
	    /* a trim may have taken the last ones away again */
	    found + count <= space->free.leaves * 32 &&
	    (found + count <= space->high || kept <= (used + kept) / 8))
		return found;
	memset(plain.kept, 0, sizeof(plain.kept));
	if (count <= SHORT_RUN && align == SLAB)
		found = plain_find_broken(count);
	else
		found = HK_MAP_NONE;
	if (found == HK_MAP_NONE)
		found = plain_find(count, align, READY);
	return found != HK_MAP_NONE ? found : plain_find(count, align, FREE);
}

static bool is_zero(const unsigned char *bytes, size_t count)
{
	size_t at;

	for (at = 0; at < count; at += at + 512 < count ? 512 : count - at)
		if (bytes[at])
			return false;
	return !count || !bytes[count - 1];
}

/* Marks a run as used, by a byte in each of its pages. */
static void occupy(uint32_t first, uint32_t count, unsigned char mark)
{
	size_t at;

	for (at = 0; at < count * SLAB; at += 4096)
		hk_slab_address(space, first)[at] = mark;
	memset(plain.used + first, mark, count);
	memset(plain.dirty + first, 1, count);
}

static void vacate(uint32_t first, uint32_t count, unsigned char mark)
{
	size_t at;

	for (at = 0; at < count * SLAB; at += 4096)
		must(hk_slab_address(space, first)[at] == mark, "run of slab %u, byte %zu", first,
		     at);
	memset(plain.used + first, 0, count);
	give(first, count);
}

static void take_random(unsigned index)
{
	uint32_t count = 1 + (uint32_t)(test_random(&seed) % (1u << test_random(&seed) % 8));
	size_t align = SLAB << (test_random(&seed) % 3 ? 0 : test_random(&seed) % 9);
	size_t zero_bytes =
		test_random(&seed) % 3 ? 0 : (size_t)test_random(&seed) % (count * SLAB);
	uint32_t ready, free, first = 0, slab, want;
	bool zeroed = false, expected = fault.platform.flags & HK_PLATFORM_ZEROED;
	bool charged = fault.platform.flags & HK_PLATFORM_CHARGED;
	size_t had = space->committed;
	int error;

	look();
	want = charged ? plain_find(count, align, FREE) : plain_place(count, align);
	ready = plain_find(count, align, READY | FOUND);
	free = plain_find(count, align, FREE);
	error = hk_run_take(space, count, align, zero_bytes, &first, &zeroed);
	must((error == 0) == (free != HK_MAP_NONE), "%u slabs: %s", count, hk_error_name(error));
	if (error) {
		must(error == HK_ERROR_ADDRESS_SPACE, "%s", hk_error_name(error));
		return;
	}
	hk_classes_set(space, first, count, 1);
	verify();
	must(align != SLAB || first == want, "%u slabs from %u, not %u", count, first, want);
	must(!((uintptr_t)hk_slab_address(space, first) & (align - 1)), "slab %u", first);
	for (slab = first; slab < first + count; slab++) {
		must(slab < space->slabs_max && !plain.used[slab], "slab %u is used", slab);
		must(charged || plain.had[slab] || ready == HK_MAP_NONE, "slab %u was not ready",
		     slab);
		had += !plain.had[slab];
		must(is_committed(slab), "slab %u", slab);
		expected &= !plain.dirty[slab];
	}
	must(!charged || space->committed == had, "slabs were committed that are not needed");
	must(zeroed == expected, "%u slabs from %u", count, first);
	must(is_zero(hk_slab_address(space, first), zeroed ? count * SLAB : zero_bytes),
	     "%u slabs from %u, the first %zu bytes", count, first, zero_bytes);
	occupy(first, count, (unsigned char)(index + 1));
	plain.runs[index].first = first;
	plain.runs[index].count = count;
}

static void extend_random(unsigned index)
{
	uint32_t first = plain.runs[index].first, count = plain.runs[index].count, end, slab;
	uint32_t more = 1 + (uint32_t)test_random(&seed) % 40;
	int error = extend(first, count, more);

	end = first + count;
	for (slab = end; slab < end + more && slab < space->slabs_max && !plain.used[slab]; slab++)
		;
	must((error == 0) == (slab == end + more), "%u behind %u: %s", more, end,
	     hk_error_name(error));
	if (error)
		return;
	occupy(end, more, (unsigned char)(index + 1));
	plain.runs[index].count += more;
}

static void random_runs(const struct fault_options *options, uint32_t slabs_max, int steps)
{
	struct hk_deadline never = { 0 };
	int step;

	open_space(options, slabs_max);
	memset(&plain, 0, sizeof(plain));
	for (step = 0; step < steps; step++) {
		unsigned index = (unsigned)test_random(&seed) % COUNT(plain.runs);
		size_t keep = (size_t)test_random(&seed) % (8 * MIB);

		switch (test_random(&seed) % 40) {
		case 0:
			hk_superslabs_trim(space, keep, never);
			break;
		case 1:
			if (step % 16)
				break;
			hk_superslabs_reset(space);
			memset(plain.used, 0, sizeof(plain.used));
			memset(plain.runs, 0, sizeof(plain.runs));
			break;
		case 2:
		case 3:
		case 4:
			if (plain.runs[index].count)
				extend_random(index);
			break;
		default:
			if (!plain.runs[index].count) {
				take_random(index);
				break;
			}
			vacate(plain.runs[index].first, plain.runs[index].count,
			       (unsigned char)(index + 1));
			plain.runs[index].count = 0;
		}
		verify();
	}
	close_space();
}

Test(superslab, random_runs_agree_with_a_plain_model, .timeout = 60)
{
	seed = 1;
	random_runs(&(struct fault_options){ .forbid = true }, 1400, 500);
	random_runs(&(struct fault_options){ .forbid = true }, 333, 1000);
	random_runs(&(struct fault_options){ .garbage = true }, 333, 500);
	random_runs(&(struct fault_options){ .page_size = 64 * KIB }, 70, 1000);
	random_runs(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED, .forbid = true }, 1400,
		    500);
	random_runs(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED }, 333, 1000);
}

Test(superslab, ready_runs_come_before_lower_ones_that_are_not)
{
	struct hk_deadline never = { 0 };
	uint32_t low, wall, high;

	open_space(NULL, 400);
	low = taken(4);
	wall = taken(1);
	give(low, 4);
	hk_superslabs_trim(space, 0, never);
	cr_assert_not(is_committed(low));
	high = taken(6);
	give(high, 6);
	cr_assert_gt(high, wall);
	cr_assert_eq(taken(5), high, "the lowest that is long enough and ready");
	cr_assert_eq(taken(2), low, "one is ready still, too few");
	cr_assert_eq(taken(1), high + 5);
	close_space();
}

/* Four superslabs, all ready but for what is used of the second and the fourth. */
static void lay_out_four(void)
{
	cr_assert_eq(taken(128), 0);
	give(0, 32);
	give(40, 10);
	give(64, 32);
	give(100, 15);
	drop_kept();
}

/* Whole ones are for large blocks, as long as there is room for the small elsewhere. */
Test(superslab, a_short_run_leaves_whole_superslabs_whole)
{
	open_space(NULL, 400);
	lay_out_four();
	cr_assert_eq(taken(1), 40);
	cr_assert_eq(taken(SHORT_RUN), 41);
	cr_assert_eq(taken(2), 100, "one is left in the second");
	cr_assert_eq(taken(1), 49);
	cr_assert_eq(taken(SHORT_RUN), 102);
	cr_assert_eq(taken(5), 110);
	cr_assert(hk_map_is_set(&space->ready, 0, 32) && hk_map_is_set(&space->ready, 64, 32));
	/* no room elsewhere: the lowest breaks, and only that one */
	cr_assert_eq(taken(3), 0);
	cr_assert_eq(taken(SHORT_RUN), 3);
	cr_assert_eq(taken(21), 11);
	cr_assert(hk_map_is_set(&space->ready, 64, 32));
	close_space();
	/* a longer run, and one that is aligned, takes the lowest there is */
	open_space(NULL, 400);
	lay_out_four();
	cr_assert_eq(taken(SHORT_RUN + 1), 0);
	cr_assert_eq(taken(32), 64);
	close_space();
}

Test(superslab, alignment_beyond_superslabs)
{
	size_t align;
	uint32_t first, wall;

	open_space(NULL, 1400);
	/* a base that is no multiple of a superslab */
	space->base += 5 * SLAB;
	space->slabs_max -= 5;
	for (align = SLAB; align <= 8 * HK_SUPERSLAB_SIZE; align *= 2) {
		wall = taken(1);
		cr_assert_eq(take(3, align, &first), 0, "alignment %zu", align);
		cr_assert_eq((uintptr_t)hk_slab_address(space, first) % align, 0);
		give(first, 3);
		/* once more, now that it is there: no run of alignment and size is needed */
		cr_assert_eq(take(3, align, &first), 0, "alignment %zu", align);
		cr_assert_eq((uintptr_t)hk_slab_address(space, first) % align, 0);
		give(first, 3);
		give(wall, 1);
	}
	/* beyond what the range has, and beyond what addresses have */
	cr_assert_eq(take(1, (size_t)1 << 46, &first), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(take(1, SIZE_MAX / 2 + 1, &first), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(space->used, 0);
	close_space();
}

/* Told without looking at what is free: as the empty range would have it. */
Test(superslab, knows_which_runs_can_never_be)
{
	size_t align;
	uint32_t count;

	open_space(NULL, 300);
	space->base += 5 * SLAB;
	space->slabs_max = 100;
	memset(&plain, 0, sizeof(plain));
	for (align = SLAB; align <= 16 * HK_SUPERSLAB_SIZE; align *= 2)
		for (count = 1; count <= 101; count++)
			must(hk_run_is_possible(space, count, align) ==
				     (plain_find(count, align, false) != HK_MAP_NONE),
			     "%u slabs, alignment %zu", count, align);
	cr_assert_not(hk_run_is_possible(space, 1, SIZE_MAX / 2 + 1));
	cr_assert_not(hk_run_is_possible(space, SIZE_MAX, SLAB));
	close_space();
}

/* Where only one aligned place is left, it is found, though no longer run is. */
Test(superslab, alignment_that_just_fits)
{
	uint32_t first, all;

	open_space(NULL, 256);
	all = taken(256);
	cr_assert_eq(all, 0);
	give(131, 2);
	cr_assert_eq(take(2, 2 * SLAB, &first), HK_ERROR_ADDRESS_SPACE);
	give(192, 3);
	cr_assert_eq(take(4, 4 * SLAB, &first), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(take(3, HK_SUPERSLAB_SIZE, &first), 0);
	cr_assert_eq(first, 192);
	close_space();
}

Test(superslab, the_whole_range_can_be_used)
{
	static const uint32_t sizes[] = { 1, 31, 32, 33, 45, 64, 70 };
	uint32_t first, count;
	size_t i;

	for (i = 0; i < COUNT(sizes); i++) {
		open_space(&(struct fault_options){ .forbid = true }, sizes[i]);
		cr_assert_eq(take(sizes[i] + 1, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(taken(sizes[i]), 0);
		cr_assert_eq(take(1, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(extend(0, sizes[i], 1), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(space->used, sizes[i]);
		cr_assert_eq(space->new_superslabs, (sizes[i] + 31) / 32);
		give(0, sizes[i]);
		drop_kept();
		cr_assert_eq(space->superslabs_emptied, (sizes[i] + 31) / 32);
		/* a last superslab that is cut short is never whole: its slabs go first */
		for (count = 0; take(1, SLAB, &first) == 0; count++)
			cr_assert_eq(first, (sizes[i] / 32 * 32 + count) % sizes[i]);
		cr_assert_eq(count, sizes[i]);
		give(sizes[i] / 2, 1);
		cr_assert_eq(take(2, SLAB, &first), HK_ERROR_ADDRESS_SPACE);
		cr_assert_eq(taken(1), sizes[i] / 2);
		close_space();
	}
}

Test(superslab, extends_where_what_follows_is_free)
{
	uint32_t wall;

	open_space(&(struct fault_options){ .forbid = true }, 109);
	cr_assert_eq(taken(10), 0);
	cr_assert_eq(extend(0, 10, 5), 0);
	cr_assert(is_committed(14));
	cr_assert_eq(extend(0, 15, 33), 0, "into a superslab that was not there");
	cr_assert_eq(space->free.leaves, 2);
	wall = taken(1);
	cr_assert_eq(wall, 48);
	cr_assert_eq(extend(0, 48, 1), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(extend(0, 48, 40), HK_ERROR_ADDRESS_SPACE, "a used slab is in between");
	cr_assert_eq(space->free.leaves, 2, "superslabs were added for nothing");
	give(wall, 1);
	cr_assert_eq(extend(0, 48, 62), HK_ERROR_ADDRESS_SPACE, "beyond the range");
	cr_assert_eq(extend(0, 48, UINT32_MAX - 20), HK_ERROR_ADDRESS_SPACE, "wraps round");
	cr_assert_eq(extend(0, 48, 61), 0, "up to the last slab");
	cr_assert_eq(space->used, 109);
	close_space();
}

/* The free map, slab by slab: as it must be after a failure. */
static void only_the_first_are_used(uint32_t count)
{
	uint32_t slab;

	cr_assert_eq(space->used, count);
	for (slab = 0; slab < space->free.leaves * 32 && slab < space->slabs_max; slab++)
		cr_assert_eq(hk_map_is_set(&space->free, slab, 1), slab >= count, "slab %u", slab);
}

Test(superslab, a_take_that_fails_takes_nothing)
{
	static const enum hk_error errors[] = { HK_ERROR_MEMORY, HK_ERROR_LIMIT };
	uint64_t failing;
	uint32_t first;
	size_t i;

	/* headers, class table, the slabs: three commits */
	for (failing = 1; failing <= 3; failing++) {
		for (i = 0; i < COUNT(errors); i++) {
			open_space(&(struct fault_options){ .forbid = true }, 400);
			if (errors[i] == HK_ERROR_MEMORY)
				fault.fail_at = failing;
			else
				arena->memory.own.limit = fault.committed + (failing - 1) * 4096;
			cr_assert_eq(take(1, SLAB, &first), errors[i], "commit %llu",
				     (unsigned long long)failing);
			only_the_first_are_used(0);
			cr_assert_eq(space->committed, 0);
			arena->memory.own.limit = SIZE_MAX;
			cr_assert_eq(taken(1), 0);
			close_space();
		}
	}
	open_space(NULL, 400);
	taken(1);
	cr_assert_eq(fault.counts[FAULT_COMMIT], 3, "the first take commits otherwise");
	close_space();
}

Test(superslab, an_extend_that_fails_extends_nothing)
{
	uint64_t failing;
	int error;

	for (failing = 1;; failing++) {
		open_space(&(struct fault_options){ .forbid = true }, 1400);
		cr_assert_eq(taken(20), 0);
		fault_platform_rewind(&fault);
		fault.fail_at = failing;
		error = extend(0, 20, 1000);
		if (!error)
			break;
		cr_assert_eq(error, HK_ERROR_MEMORY);
		only_the_first_are_used(20);
		cr_assert_eq(extend(0, 20, 1000), 0);
		close_space();
	}
	cr_assert_geq(failing, 3, "headers and slabs are two commits");
	close_space();
}
