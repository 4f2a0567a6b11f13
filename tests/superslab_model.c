/* SPDX-License-Identifier: MIT */
/* Runs of slabs at random, held against a plain model: which ones are taken, what is kept. */
#include <stdint.h>
#include <string.h>

#include "space.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SLABS_MAX 2800u
#define SHORT_RUN 8u /* up to so many slabs go where a superslab is in use already */

/* What every slab is, by plain means. */
static struct {
	unsigned char used[SLABS_MAX];
	unsigned char had[SLABS_MAX];	/* committed before the call */
	unsigned char dirty[SLABS_MAX]; /* used since its commit */
	unsigned char kept[SLABS_MAX];	/* LOOSE or PILED: free, not to be found before the call */
	uint32_t given[SLABS_MAX];	/* when the run that begins there was given back last */
	uint32_t now;
	struct hk_kept_run last; /* of those kept that was taken last; no slabs: none */
	bool from_kept;		 /* the run that is about to be taken */
	struct {
		uint32_t first;
		uint32_t count;
	} runs[200];
} plain;

enum {
	LOOSE = 1,
	PILED = 2
};

static uint64_t seed;

/* The run of @count slabs in a pile that was given back last. */
static uint32_t plain_find_piled(uint32_t count)
{
	uint32_t *pile = hk_kept_pile(&space->kept, count), best = HK_MAP_NONE, next;

	for (next = pile ? *pile : 0; next; next = hk_slab(space, next - 1)->next)
		if (plain.kept[next - 1] == PILED &&
		    (best == HK_MAP_NONE || plain.given[next - 1] > plain.given[best]))
			best = next - 1;
	return best;
}

static void look(void)
{
	uint32_t slab, index, next;

	memset(plain.kept, 0, sizeof(plain.kept));
	for (index = 0; index < space->kept.count; index++)
		memset(plain.kept + space->kept.runs[index].first, LOOSE,
		       space->kept.runs[index].count);
	for (index = 0; index < HK_KEPT_PILES; index++)
		for (next = space->kept.piles[index]; next; next = hk_slab(space, next - 1)->next)
			memset(plain.kept + next - 1, PILED, HK_KEPT_SHORTEST + index);
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

/* Where in a kept run: at its start, or for a longer one right behind the last taken at its end. */
static uint32_t plain_part(uint32_t from, uint32_t length, uint32_t count)
{
	const struct hk_kept_run *last = &plain.last;

	return last->count && last->first + last->count == from && count * 2 >= last->count * 3
		       ? from + length - count
		       : from;
}

/* The shortest run kept in no pile that is long enough, the lowest of these. */
static uint32_t plain_find_kept(uint32_t count)
{
	uint32_t best = HK_MAP_NONE, best_length = UINT32_MAX, slab, end;

	for (slab = 0; slab < space->slabs_max; slab = end + 1) {
		for (end = slab; end < space->slabs_max && plain.kept[end] == LOOSE; end++)
			;
		if (end - slab < count || end - slab >= best_length)
			continue;
		best = slab;
		best_length = end - slab;
	}
	return best == HK_MAP_NONE ? best : plain_part(best, best_length, count);
}

/* In what is kept from now on: free slabs from @found on, as one with what is kept beside them. */
static uint32_t plain_keep(uint32_t found, uint32_t count)
{
	uint32_t end = found + count;

	while (end < space->high && end < found + count + 512 && plain.had[end] &&
	       !plain.used[end] && !plain.kept[end])
		end++;
	while (end < space->slabs_max && plain.kept[end] == LOOSE)
		end++;
	while (found && plain.kept[found - 1] == LOOSE)
		found--;
	return plain_part(found, end - found, count);
}

/* Slabs that are kept so. */
static uint32_t plain_count(unsigned char kept)
{
	uint32_t slab, count = 0;

	for (slab = 0; slab < space->slabs_max; slab++)
		count += plain.kept[slab] == kept;
	return count;
}

/* Used or kept. */
static uint32_t plain_all(void)
{
	uint32_t slab, count = 0;

	for (slab = 0; slab < space->slabs_max; slab++)
		count += plain.used[slab] || plain.kept[slab];
	return count;
}

static void plain_drop_loose(void)
{
	uint32_t slab;

	for (slab = 0; slab < space->slabs_max; slab++)
		if (plain.kept[slab] == LOOSE)
			plain.kept[slab] = 0;
}

/* Gives 32 runs in piles up, the longest first, of these the newest: whether there was one. */
static bool plain_drop_piled(void)
{
	uint32_t count = HK_KEPT_SHORTEST + HK_KEPT_PILES - 1, dropped = 0, first;

	while (dropped < 32 && count >= HK_KEPT_SHORTEST) {
		first = plain_find_piled(count);
		if (first == HK_MAP_NONE) {
			count--;
			continue;
		}
		memset(plain.kept + first, 0, count);
		dropped++;
	}
	return dropped != 0;
}

/* What the maps have, as far as superslabs go. */
static uint32_t plain_find_free(uint32_t count, size_t align)
{
	uint32_t found = HK_MAP_NONE;

	if (count <= SHORT_RUN && align == SLAB)
		found = plain_find_broken(count);
	if (found == HK_MAP_NONE)
		found = plain_find(count, align, READY | FOUND);
	if (found == HK_MAP_NONE)
		found = plain_find(count, align, FOUND);
	return found;
}

/*
 * Whether @kept slabs make way for a run: not while superslabs in use have room, and it is little
 * or the run is within what was used. (A trim may have taken the last superslabs away.)
 */
static bool plain_is_reason(uint32_t found, uint32_t count, uint32_t kept)
{
	return found == HK_MAP_NONE || found + count > (space->high + 31) / 32 * 32 ||
	       found + count > space->free.leaves * 32 ||
	       (found + count > space->high && kept > plain_all() / 8);
}

/* Of what is in piles: where much is used, not before it is a quarter or the range is at its end. */
static bool plain_is_reason_for_piles(uint32_t found, uint32_t count)
{
	uint32_t piled = plain_count(PILED), all = plain_all();

	if (all <= 1024)
		return plain_is_reason(found, count, piled);
	return found == HK_MAP_NONE || (found + count > space->high && piled > all / 4);
}

/* Where a run should be found that begins at any slab, or where it is aligned perhaps. */
static uint32_t plain_place(uint32_t count, size_t align)
{
	uint32_t found = HK_MAP_NONE;

	plain.from_kept = count > SHORT_RUN && count <= space->slabs_max / 32 && align == SLAB;
	if (plain.from_kept) {
		found = plain_find_piled(count);
		if (found == HK_MAP_NONE)
			found = plain_find_kept(count);
		if (found != HK_MAP_NONE)
			return found;
		found = plain_find(count, align, READY | FOUND);
		if (found == HK_MAP_NONE || found + count > space->high) {
			plain_drop_loose();
			found = plain_find(count, align, READY | FOUND);
		}
		if (found != HK_MAP_NONE && found + count <= space->high)
			return plain_keep(found, count);
		plain.from_kept = false;
	}
	found = plain_find_free(count, align);
	if (plain_is_reason(found, count, plain_count(LOOSE))) {
		plain_drop_loose();
		found = plain_find_free(count, align);
	}
	while (plain_is_reason_for_piles(found, count) && plain_drop_piled())
		found = plain_find_free(count, align);
	return found;
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
	plain.given[first] = ++plain.now;
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
	if (!charged && plain.from_kept)
		plain.last = (struct hk_kept_run){ first, count };
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

static void random_runs(const struct fault_options *options, uint32_t slabs_max, unsigned runs,
			int steps)
{
	struct hk_deadline never = { 0 };
	int step;

	open_space(options, slabs_max);
	memset(&plain, 0, sizeof(plain));
	for (step = 0; step < steps; step++) {
		unsigned index = (unsigned)test_random(&seed) % runs;
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
			memset(&plain.last, 0, sizeof(plain.last));
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
	random_runs(&(struct fault_options){ .forbid = true }, 1400, 64, 500);
	random_runs(&(struct fault_options){ .forbid = true }, 333, 64, 1000);
	random_runs(&(struct fault_options){ .garbage = true }, 333, 64, 500);
	random_runs(&(struct fault_options){ .page_size = 64 * KIB }, 70, 64, 1000);
	random_runs(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED, .forbid = true }, 1400,
		    64, 500);
	random_runs(&(struct fault_options){ .flags = HK_PLATFORM_CHARGED }, 333, 64, 1000);
	/* so much is used that piles are left alone for a while */
	random_runs(&(struct fault_options){ 0 }, SLABS_MAX, COUNT(plain.runs), 3000);
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
