/* SPDX-License-Identifier: MIT */
/*
 * Arenas that ask for large pages on a platform that has them for whole ranges only
 * (hk_platform.reserve_large), as Windows: when it is asked, what the arena does with a range
 * that it gets, and that it goes on without one. The platform here is the system's, with a
 * range that is committed at once and full of rubbish in the place of large pages.
 */
#include <string.h>

#include <criterion/criterion.h>
#include <hakmem/hakmem.h>
#include <platform/platform.h>
#include <tests/helper.h>

#define MIB ((size_t)1 << 20)
#define SPACE (32 * MIB)

/**
 * struct whole - the platform behind the arena of a test
 * @system: what does the work.
 * @refuse: reserve_large fails.
 * @asked: calls of reserve_large.
 * @reserves: calls of reserve.
 * @commits: calls of commit, decommit, move and large_pages.
 * @releases: calls of release.
 * @base: of the last range, as reserved; @size: its bytes; @align: what was asked for.
 */
struct whole {
	struct hk_platform system;
	bool refuse;
	unsigned asked;
	unsigned reserves;
	unsigned commits;
	unsigned releases;
	void *base;
	size_t size;
	size_t align;
};

static void *whole_reserve(void *context, size_t size, size_t align)
{
	struct whole *whole = context;

	whole->reserves++;
	whole->size = size;
	whole->base = whole->system.reserve(whole->system.context, size, align);
	return whole->base;
}

static void *whole_reserve_large(void *context, size_t size, size_t align)
{
	struct whole *whole = context;

	whole->asked++;
	if (whole->refuse || size > SPACE)
		return NULL;
	whole->align = align;
	whole->size = size;
	whole->base = whole->system.reserve(whole->system.context, size, align);
	cr_assert_not_null(whole->base);
	cr_assert_eq(whole->system.commit(whole->system.context, whole->base, size), 0);
	memset(whole->base, 0xa5, size);
	return whole->base;
}

static int whole_commit(void *context, void *ptr, size_t size)
{
	struct whole *whole = context;

	whole->commits++;
	return whole->system.commit(whole->system.context, ptr, size);
}

static int whole_decommit(void *context, void *ptr, size_t size)
{
	struct whole *whole = context;

	whole->commits++;
	return whole->system.decommit(whole->system.context, ptr, size);
}

static int whole_move(void *context, void *from, size_t from_size, void *to, size_t to_size)
{
	struct whole *whole = context;

	(void)from;
	(void)from_size;
	(void)to;
	(void)to_size;
	whole->commits++;
	return -1;
}

static int whole_large_pages(void *context, void *ptr, size_t size, bool enable)
{
	struct whole *whole = context;

	(void)ptr;
	(void)size;
	(void)enable;
	whole->commits++;
	return 0;
}

static void whole_release(void *context, void *ptr, size_t size)
{
	struct whole *whole = context;

	whole->releases++;
	cr_assert_eq(ptr, whole->base);
	cr_assert_eq(size, whole->size);
	whole->system.release(whole->system.context, ptr, size);
}

static void whole_open(struct whole *whole, struct hk_platform *platform)
{
	memset(whole, 0, sizeof(*whole));
	cr_assert_eq(hk_platform_system(&whole->system), 0);
	*platform = (struct hk_platform){
		.context = whole,
		.page_size = whole->system.page_size,
		.granularity = whole->system.granularity,
		.flags = whole->system.flags,
		.reserve = whole_reserve,
		.commit = whole_commit,
		.decommit = whole_decommit,
		.release = whole_release,
		.move = whole_move,
		.large_pages = whole_large_pages,
		.reserve_large = whole_reserve_large,
	};
}

static void expect_zero(const unsigned char *block, size_t size)
{
	size_t i;

	cr_assert_not_null(block);
	for (i = 0; i < size; i++)
		if (block[i])
			cr_assert_fail("byte %zu of %zu is not zero", i, size);
}

/* Blocks of each kind come, go and come again; what must be zero is. */
static void use_arena(struct hk_arena *arena)
{
	static const size_t sizes[] = { 1, 100, 3000, 40000, 600000, 3 * MIB };
	struct hk_cache *cache;
	unsigned char *block, *behind;
	unsigned round;
	size_t i;

	for (round = 0; round < 3; round++) {
		cr_assert_eq(hk_cache_create(arena, &cache), 0);
		for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			block = hk_zalloc(cache, sizes[i]);
			expect_zero(block, sizes[i]);
			test_fill(block, sizes[i], i);
			block = hk_realloc(cache, block, 2 * sizes[i]);
			cr_assert_not_null(block);
			cr_assert(test_holds(block, sizes[i], i));
			memset(block, 0xa5, 2 * sizes[i]);
			hk_free(cache, block);
		}
		/* a large block that can grow only elsewhere */
		block = hk_alloc(cache, MIB);
		behind = hk_alloc(cache, MIB);
		cr_assert(block && behind);
		test_fill(block, MIB, round);
		block = hk_realloc(cache, block, 5 * MIB);
		cr_assert_not_null(block);
		cr_assert(test_holds(block, MIB, round));
		hk_free(cache, block);
		hk_free(cache, behind);
		hk_cache_destroy(cache);
		cr_assert_eq(hk_arena_check(arena), 0);
		/* given back in the first round, forgotten in the second */
		if (round == 0)
			cr_assert_gt(hk_arena_trim(arena, 0, 0), 0);
		else
			hk_arena_reset(arena);
	}
}

Test(large_pages, a_whole_range_is_used_as_it_is)
{
	struct hk_platform platform;
	struct hk_arena_config config = { .platform = &platform,
					  .address_space = SPACE,
					  .large_pages = true };
	struct hk_arena *arena;
	struct whole whole;
	size_t empty;

	whole_open(&whole, &platform);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(whole.asked, 1);
	cr_assert_eq(whole.size, SPACE);
	cr_assert_eq(whole.align, 2 * MIB);
	empty = hk_arena_used(arena);
	use_arena(arena);
	hk_arena_trim(arena, 0, 0);
	cr_assert_leq(hk_arena_used(arena), empty, "the arena's books go on as ever");
	hk_arena_destroy(arena);
	cr_assert_eq(whole.reserves, 0);
	cr_assert_eq(whole.commits, 0, "%u calls that the platform cannot do", whole.commits);
	cr_assert_eq(whole.releases, 1);
}

/* Under a limit the budget holds within the range, and the range itself is no more. */
Test(large_pages, all_of_a_whole_range_counts_against_the_limit)
{
	struct test_reports reports = { 0 };
	struct hk_platform platform;
	struct hk_arena_config config = {
		.platform = &platform,
		.address_space = SPACE,
		.large_pages = true,
		.limit = SPACE - 1,
		.context = &reports,
		.on_report = test_on_report,
	};
	struct hk_arena *arena;
	struct whole whole;

	whole_open(&whole, &platform);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(whole.asked, 0, "the range is one byte beyond the limit");
	cr_assert_eq(whole.reserves, 1);
	hk_arena_destroy(arena);

	config.limit = SPACE;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(whole.asked, 1);
	cr_assert_eq(whole.reserves, 1);
	cr_assert_null(hk_arena_alloc(arena, SPACE));
	cr_assert_eq(reports.by_fault[HK_FAULT_EXHAUSTED], 1);
	use_arena(arena);
	hk_arena_destroy(arena);
	cr_assert_eq(reports.count, 1);
	cr_assert_eq(whole.releases, 2);
}

Test(large_pages, a_refused_range_leaves_the_arena_as_it_would_be)
{
	struct hk_platform platform;
	struct hk_arena_config config = { .platform = &platform,
					  .address_space = SPACE,
					  .large_pages = true };
	struct hk_arena *arena;
	struct whole whole;

	whole_open(&whole, &platform);
	whole.refuse = true;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(whole.asked, 1);
	cr_assert_eq(whole.reserves, 1);
	use_arena(arena);
	hk_arena_destroy(arena);
	cr_assert_gt(whole.commits, 3);
	cr_assert_eq(whole.releases, 1);
}

Test(large_pages, a_whole_range_is_taken_only_where_it_is_asked_for_by_size)
{
	struct hk_platform platform;
	struct hk_arena_config config = { .platform = &platform, .address_space = SPACE };
	struct hk_arena *arena;
	struct whole whole;

	whole_open(&whole, &platform);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	hk_arena_destroy(arena);
	config.address_space = 0;
	config.large_pages = true;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	hk_arena_destroy(arena);
	cr_assert_eq(whole.asked, 0);
	cr_assert_eq(whole.reserves, 2);
}
