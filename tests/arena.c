/* SPDX-License-Identifier: MIT */
/* Arenas from creation to destruction: what is refused, what is left, what is reported. */
#define _POSIX_C_SOURCE 200809L

#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static struct fault_platform fault;

static void fault_open(const struct fault_options *options)
{
	cr_assert_eq(fault_platform_init(&fault, options), 0);
}

static void fault_close(void)
{
	cr_assert_eq(fault.reserved, 0, "%zu bytes still reserved", fault.reserved);
	cr_assert_eq(fault.committed, 0, "%zu bytes still committed", fault.committed);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/* Creation must fail with @error, leave NULL, and leave nothing of the platform's. */
static void refused(const struct hk_arena_config *config, int error, const char *what)
{
	struct hk_arena *arena = (struct hk_arena *)&fault;
	int got = hk_arena_create(&arena, config);

	cr_assert_eq(got, error, "%s: %s, not %s", what, hk_error_name(got), hk_error_name(error));
	cr_assert_null(arena, "%s", what);
	cr_assert_eq(fault.reserved, 0, "%s: %zu bytes still reserved", what, fault.reserved);
}

Test(arena, names_and_version)
{
	int error;
	int fault_kind;
	int stage;

	cr_assert_eq(hk_version(), HK_VERSION);
	for (error = 0; error >= HK_ERROR_STATE; error--) {
		cr_assert_str_neq(hk_error_name(error), "");
		cr_assert_str_neq(hk_error_name(error), "unknown error");
		cr_assert(error == 0 || strcmp(hk_error_name(error), hk_error_name(error + 1)));
	}
	cr_assert_str_eq(hk_error_name(HK_ERROR_STATE - 1), "unknown error");
	cr_assert_str_eq(hk_error_name(1), "unknown error");
	cr_assert_str_eq(hk_error_name(INT_MIN), "unknown error");
	for (fault_kind = 0; fault_kind <= HK_FAULT_PLATFORM; fault_kind++) {
		cr_assert_str_neq(hk_fault_name((enum hk_fault)fault_kind), "");
		cr_assert_str_neq(hk_fault_name((enum hk_fault)fault_kind), "unknown fault");
	}
	cr_assert_str_eq(hk_fault_name((enum hk_fault)(HK_FAULT_PLATFORM + 1)), "unknown fault");
	for (stage = 0; stage <= HK_STAGE_NEW_SUPERSLAB; stage++) {
		cr_assert_str_neq(hk_stage_name((enum hk_stage)stage), "");
		cr_assert_str_neq(hk_stage_name((enum hk_stage)stage), "unknown stage");
	}
	cr_assert_str_eq(hk_stage_name((enum hk_stage)stage), "unknown stage");
}

Test(arena, defaults)
{
	struct hk_stats stats;
	struct hk_arena *arena;
	void *block;

	cr_assert_eq(hk_arena_create(&arena, NULL), 0);
	hk_arena_stats(arena, &stats);
	cr_assert_geq(stats.reserved_bytes, 32 * MIB);
	block = hk_arena_alloc(arena, 100);
	cr_assert_not_null(block);
	hk_arena_free(arena, block);
	cr_assert_eq(hk_arena_check(arena), 0);
	hk_arena_destroy(arena);
	hk_arena_destroy(NULL);
}

Test(arena, impossible_configs_are_refused)
{
	struct hk_arena_config config = { .platform = &fault.platform };
	int got;
	struct hk_arena *arena;

	fault_open(NULL);
	config.address_space = 1;
	refused(&config, HK_ERROR_ARGUMENT, "1 byte of range");
	config.address_space = 512 * KIB - 1;
	refused(&config, HK_ERROR_ARGUMENT, "a byte too little range");
	config.address_space = SIZE_MAX;
	got = hk_arena_create(&arena, &config);
	cr_assert(got == HK_ERROR_ARGUMENT || got == HK_ERROR_ADDRESS_SPACE, "%d", got);
	cr_assert_null(arena);
	config.address_space = (size_t)1 << 60;
	refused(&config, HK_ERROR_ADDRESS_SPACE, "2^60 bytes of range");
	config.address_space = 64 * MIB;
	config.limit = 1;
	refused(&config, HK_ERROR_LIMIT, "limit of a byte");
	config.limit = 4 * KIB - 1;
	refused(&config, HK_ERROR_LIMIT, "limit below a page");
	fault_close();
}

Test(arena, impossible_platforms_are_refused)
{
	static const size_t pages[] = { 0, 1, 2048, 3000, 4096 + 16, 131072, (size_t)1 << 30 };
	struct hk_platform platform;
	struct hk_arena_config config = { .platform = &platform, .address_space = 64 * MIB };
	size_t i;

	fault_open(NULL);
	platform = fault.platform;
	platform.reserve = NULL;
	refused(&config, HK_ERROR_PLATFORM, "no reserve");
	platform = fault.platform;
	platform.commit = NULL;
	refused(&config, HK_ERROR_PLATFORM, "no commit");
	platform = fault.platform;
	platform.decommit = NULL;
	refused(&config, HK_ERROR_PLATFORM, "no decommit");
	platform = fault.platform;
	platform.release = NULL;
	refused(&config, HK_ERROR_PLATFORM, "no release");
	for (i = 0; i < COUNT(pages); i++) {
		platform = fault.platform;
		platform.page_size = pages[i];
		platform.granularity = (size_t)1 << 30;
		refused(&config, HK_ERROR_PLATFORM, "page size");
	}
	platform = fault.platform;
	platform.granularity = 0;
	refused(&config, HK_ERROR_PLATFORM, "no granularity");
	platform.granularity = 3 * fault.platform.page_size;
	refused(&config, HK_ERROR_PLATFORM, "granularity that is no power of two");
	platform.granularity = fault.platform.page_size / 2;
	refused(&config, HK_ERROR_PLATFORM, "granularity below a page");
	cr_assert_eq(fault.calls, 0, "a platform that is refused is not called");
	fault_close();
}

Test(arena, works_without_the_optional_functions)
{
	struct fault_options options = {
		.hide = FAULT_BIT(FAULT_NOW) | FAULT_BIT(FAULT_POPULATE) | FAULT_BIT(FAULT_MOVE) |
			FAULT_BIT(FAULT_LARGE_PAGES) | FAULT_BIT(FAULT_PARK),
	};
	struct hk_arena_config config = { .platform = &fault.platform, .large_pages = true };
	struct hk_arena *arena;
	void *block;

	fault_open(&options);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	block = hk_arena_alloc(arena, 3 * MIB);
	cr_assert_not_null(block);
	hk_arena_free(arena, block);
	cr_assert_gt(hk_arena_trim(arena, 0, 0), 0);
	hk_arena_destroy(arena);
	fault_close();
}

Test(arena, refusing_platform_is_told_apart)
{
	struct hk_arena_config config = { .platform = &fault.platform, .address_space = 64 * MIB };

	fault_open(NULL);
	fault.fail_from = 1;
	fault.fail_only = FAULT_BIT(FAULT_RESERVE);
	refused(&config, HK_ERROR_ADDRESS_SPACE, "reserve fails");
	config.address_space = 0;
	refused(&config, HK_ERROR_ADDRESS_SPACE, "reserve fails for every half");
	fault_platform_rewind(&fault);
	fault.fail_from = 1;
	fault.fail_only = FAULT_BIT(FAULT_COMMIT);
	refused(&config, HK_ERROR_MEMORY, "commit fails");
	cr_assert_gt(fault.counts[FAULT_RELEASE], 0);
	fault_close();
}

/* Reservations above a bound are refused, as by RLIMIT_AS. */
static size_t most_to_reserve;

static void *reserve_little(void *context, size_t size, size_t align)
{
	if (size > most_to_reserve)
		return NULL;
	return fault.platform.reserve(context, size, align);
}

Test(arena, takes_what_the_system_grants_and_leaves_half)
{
	struct hk_platform platform;
	struct hk_arena_config config = { .platform = &platform };
	struct hk_arena *arena;
	struct hk_stats stats;
	void *block;

	fault_open(NULL);
	platform = fault.platform;
	platform.reserve = reserve_little;
	most_to_reserve = (size_t)1 << 30;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	hk_arena_stats(arena, &stats);
	cr_assert_leq(stats.reserved_bytes, most_to_reserve / 2);
	cr_assert_geq(stats.reserved_bytes, most_to_reserve / 4);
	cr_assert_eq(fault.reserved, stats.reserved_bytes);
	cr_assert_eq(fault.reservations, 1);
	block = hk_arena_alloc(arena, MIB);
	cr_assert_not_null(block);
	hk_arena_free(arena, block);
	hk_arena_destroy(arena);
	config.address_space = (size_t)2 << 30;
	refused(&config, HK_ERROR_ADDRESS_SPACE, "a named size is taken as it is or refused");
	config.address_space = 0;
	most_to_reserve = 16 * MIB;
	refused(&config, HK_ERROR_ADDRESS_SPACE, "halves are tried down to 64 MiB");
	platform.address_space = 8 * MIB;
	cr_assert_eq(hk_arena_create(&arena, &config), 0, "the platform's own maximum");
	hk_arena_stats(arena, &stats);
	cr_assert_leq(stats.reserved_bytes, 8 * MIB);
	hk_arena_destroy(arena);
	fault_close();
}

Test(arena, range_is_as_large_as_named)
{
	static const size_t sizes[] = { 512 * KIB,	 512 * KIB + 1, MIB,	 3 * MIB + 5,
					2 * MIB - 65536, 64 * MIB,	1 << 30, (size_t)1 << 33 };
	struct hk_arena_config config = { .platform = &fault.platform };
	struct hk_stats stats;
	size_t i;

	fault_open(NULL);
	for (i = 0; i < COUNT(sizes); i++) {
		size_t granularity = fault.platform.granularity;
		struct hk_arena *arena;
		void *block;

		config.address_space = sizes[i];
		cr_assert_eq(hk_arena_create(&arena, &config), 0, "%zu", sizes[i]);
		hk_arena_stats(arena, &stats);
		cr_assert_eq(stats.reserved_bytes,
			     (sizes[i] + granularity - 1) / granularity * granularity, "%zu: %zu",
			     sizes[i], stats.reserved_bytes);
		cr_assert_eq(fault.reserved, stats.reserved_bytes);
		block = hk_arena_alloc(arena, 100);
		cr_assert_not_null(block, "%zu", sizes[i]);
		cr_assert_gt((uintptr_t)block, (uintptr_t)arena);
		hk_arena_free(arena, block);
		cr_assert_eq(hk_arena_check(arena), 0);
		hk_arena_destroy(arena);
	}
	fault_close();
}

Test(arena, one_that_was_never_used_takes_little)
{
	static const size_t pages[] = { 4 * KIB, 16 * KIB, 64 * KIB };
	struct hk_arena_config config = { .platform = &fault.platform };
	size_t i;

	for (i = 0; i < COUNT(pages); i++) {
		struct fault_options options = { .page_size = pages[i] };
		size_t most = 2 * pages[i] > 64 * KIB ? 2 * pages[i] : 64 * KIB;
		struct hk_arena *arena;
		size_t empty;

		fault_open(&options);
		config.limit = 0;
		cr_assert_eq(hk_arena_create(&arena, &config), 0);
		empty = hk_arena_used(arena);
		cr_assert_leq(empty, most, "page size %zu: %zu", pages[i], empty);
		cr_assert_eq(empty, fault.committed);
		hk_arena_destroy(arena);
		config.limit = empty;
		cr_assert_eq(hk_arena_create(&arena, &config), 0, "a limit of just that");
		cr_assert_null(hk_arena_alloc(arena, 100));
		cr_assert_leq(fault.peak, most);
		hk_arena_destroy(arena);
		config.limit = empty - 1;
		refused(&config, HK_ERROR_LIMIT, "a byte less");
		fault_close();
	}
}

Test(arena, two_share_nothing)
{
	static struct fault_platform second;
	struct hk_arena_config first_config = { .platform = &fault.platform };
	struct hk_arena_config second_config = { .platform = &second.platform };
	struct hk_arena *arenas[2];
	struct hk_cache *caches[2];
	void *blocks[2][500];
	uint64_t calls;
	size_t i;

	fault_open(NULL);
	cr_assert_eq(fault_platform_init(&second, NULL), 0);
	cr_assert_eq(hk_arena_create(&arenas[0], &first_config), 0);
	cr_assert_eq(hk_arena_create(&arenas[1], &second_config), 0);
	cr_assert_eq(hk_cache_create(arenas[0], &caches[0]), 0);
	cr_assert_eq(hk_cache_create(arenas[1], &caches[1]), 0);
	for (i = 0; i < COUNT(blocks[0]); i++) {
		blocks[0][i] = hk_alloc(caches[0], 40 * (i + 1));
		blocks[1][i] = hk_alloc(caches[1], 40 * (i + 1));
		test_fill(blocks[0][i], 40 * (i + 1), i);
		test_fill(blocks[1][i], 40 * (i + 1), ~i);
		must(!hk_arena_owns(arenas[0], blocks[1][i]), "block %zu", i);
		must(!hk_arena_owns(arenas[1], blocks[0][i]), "block %zu", i);
		must(hk_usable_size(arenas[0], blocks[1][i]) == 0, "block %zu", i);
	}
	calls = second.calls;
	hk_arena_reset(arenas[0]);
	hk_arena_destroy(arenas[0]);
	cr_assert_eq(second.calls, calls);
	fault_close();
	for (i = 0; i < COUNT(blocks[1]); i++) {
		must(test_holds(blocks[1][i], 40 * (i + 1), ~i), "block %zu", i);
		hk_free(caches[1], blocks[1][i]);
	}
	cr_assert_eq(hk_arena_check(arenas[1]), 0);
	hk_arena_destroy(arenas[1]);
	cr_assert_eq(fault_platform_end(&second), 0, "%s", second.violation);
}

Test(arena, reset_keeps_memory_and_caches)
{
	struct hk_arena_config config = { .platform = &fault.platform };
	struct hk_cache *caches[3];
	struct hk_arena *arena;
	struct hk_stats stats;
	uint64_t seed = 5;
	int round;
	int i;

	fault_open(&(struct fault_options){ .forbid = true });
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	for (i = 0; i < 3; i++)
		cr_assert_eq(hk_cache_create(arena, &caches[i]), 0);
	for (round = 0; round < 20; round++) {
		size_t used;
		uint64_t calls;

		for (i = 0; i < 3000; i++) {
			size_t size = (size_t)(test_random(&seed) % 4096) << test_random(&seed) % 7;
			unsigned char *block = hk_alloc(caches[i % 3], size);

			must(block, "round %d", round);
			block[0] = 1;
			if (i % 3 == 1)
				hk_free(caches[i / 3 % 3], block);
		}
		used = hk_arena_used(arena);
		calls = fault.calls;
		hk_arena_reset(arena);
		cr_assert_eq(fault.calls, calls, "reset called the platform");
		cr_assert_eq(hk_arena_used(arena), used);
		cr_assert_eq(hk_arena_check(arena), 0);
		hk_arena_stats(arena, &stats);
		cr_assert_eq(stats.live_blocks, 0);
		cr_assert_eq(stats.live_bytes, 0);
		cr_assert_eq(stats.cached_bytes, 0, "caches are empty after a reset");
		cr_assert_eq(stats.cache_count, 3);
	}
	hk_arena_destroy(arena);
	fault_close();
}

/* One pass of calls; the offsets of all results from the arena itself. */
static void pass(struct hk_arena *arena, struct hk_cache *cache, uint64_t seed, ptrdiff_t *offsets,
		 size_t count)
{
	static char *blocks[200];
	size_t i;

	memset(blocks, 0, sizeof(blocks));
	for (i = 0; i < count; i++) {
		size_t slot = (size_t)(test_random(&seed) % COUNT(blocks));
		size_t size = (size_t)(test_random(&seed) % 2048) << test_random(&seed) % 10;

		switch (test_random(&seed) % 8) {
		case 0:
			hk_free(cache, blocks[slot]);
			blocks[slot] = hk_alloc_aligned(cache, size, (size_t)1 << size % 20);
			break;
		case 1:
			blocks[slot] = hk_realloc(cache, blocks[slot], size);
			break;
		case 2:
			hk_arena_free(arena, blocks[slot]);
			blocks[slot] = hk_arena_alloc(arena, size);
			break;
		case 3:
			hk_cache_flush(cache);
			break;
		default:
			hk_free(cache, blocks[slot]);
			blocks[slot] = hk_alloc(cache, size);
		}
		offsets[i] = blocks[slot] ? blocks[slot] - (char *)arena : 0;
	}
}

Test(arena, same_calls_give_the_same_offsets)
{
	static ptrdiff_t offsets[2][3][5000];
	struct hk_arena *arenas[2];
	int i;

	for (i = 0; i < 2; i++) {
		struct hk_cache *cache;

		arenas[i] = test_arena(NULL, 0);
		cr_assert_eq(hk_cache_create(arenas[i], &cache), 0);
		cr_assert_eq((char *)cache - (char *)arenas[i], (char *)cache - (char *)arenas[i]);
		pass(arenas[i], cache, 1, offsets[i][0], COUNT(offsets[0][0]));
		hk_arena_reset(arenas[i]);
		pass(arenas[i], cache, 2, offsets[i][1], COUNT(offsets[0][0]));
		hk_arena_reset(arenas[i]);
		hk_arena_trim(arenas[i], 0, 0);
		pass(arenas[i], cache, 3, offsets[i][2], COUNT(offsets[0][0]));
	}
	for (i = 0; i < 3; i++)
		cr_assert_eq(memcmp(offsets[0][i], offsets[1][i], sizeof(offsets[0][i])), 0,
			     "pass %d", i);
	hk_arena_reset(arenas[0]);
	hk_arena_reset(arenas[1]);
	hk_arena_destroy(arenas[0]);
	hk_arena_destroy(arenas[1]);
}

/* Once the caches know how the classes are used, which a reset does not make them forget. */
Test(arena, after_a_reset_the_same_calls_give_the_same_offsets)
{
	static ptrdiff_t offsets[2][3000];
	struct hk_arena *arena = test_arena(NULL, 0);
	struct hk_cache *cache;
	int i;

	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	for (i = 0; i < 40; i++) {
		pass(arena, cache, 1, offsets[i % 2], COUNT(offsets[0]));
		hk_arena_reset(arena);
	}
	cr_assert_arr_eq(offsets[0], offsets[1], sizeof(offsets[0]));
	hk_arena_destroy(arena);
}

Test(arena, owns_what_lies_in_its_slabs_and_nothing_else)
{
	struct heap heap;
	struct heap other;
	char *small;
	char *second;
	char *large;
	char local;

	heap_open(&heap, 0);
	heap_open(&other, 0);
	small = hk_alloc(heap.cache, 100);
	second = hk_alloc(heap.cache, 100);
	large = hk_alloc(heap.cache, 3 * MIB);
	cr_assert(hk_arena_owns(heap.arena, small));
	cr_assert(hk_arena_owns(heap.arena, small + 5));
	cr_assert(hk_arena_owns(heap.arena, large));
	cr_assert(hk_arena_owns(heap.arena, large + 3 * MIB - 1));
	hk_free(heap.cache, second);
	hk_cache_flush(heap.cache);
	cr_assert(hk_arena_owns(heap.arena, second), "a free block in a slab that holds others");
	cr_assert_not(hk_arena_owns(heap.arena, NULL));
	cr_assert_not(hk_arena_owns(heap.arena, &local));
	cr_assert_not(hk_arena_owns(heap.arena, heap.arena), "metadata is no slab");
	cr_assert_not(hk_arena_owns(heap.arena, heap.cache));
	cr_assert_not(hk_arena_owns(heap.arena, (char *)heap.arena - 1));
	cr_assert_not(hk_arena_owns(heap.arena, large + 64 * MIB), "never used");
	cr_assert_not(hk_arena_owns(heap.arena, large + ((size_t)1 << 30)), "beyond");
	cr_assert_not(hk_arena_owns(heap.arena, (void *)UINTPTR_MAX));
	cr_assert_not(hk_arena_owns(other.arena, small));
	hk_free(heap.cache, small);
	hk_free(heap.cache, large);
	heap_close(&other, 0);
	heap_close(&heap, 0);
}

Test(arena, a_thousand_at_once)
{
	static struct hk_arena *arenas[1000];
	static struct hk_cache *caches[COUNT(arenas)];
	static unsigned *blocks[COUNT(arenas)];
	struct hk_arena_config config = { .address_space = 4 * MIB };
	size_t i;

	for (i = 0; i < COUNT(arenas); i++) {
		must(hk_arena_create(&arenas[i], &config) == 0, "arena %zu", i);
		must(hk_cache_create(arenas[i], &caches[i]) == 0, "arena %zu", i);
		blocks[i] = hk_alloc(caches[i], sizeof(*blocks[i]));
		must(blocks[i], "arena %zu", i);
		*blocks[i] = (unsigned)i;
	}
	for (i = 0; i < COUNT(arenas); i += 2)
		hk_arena_destroy(arenas[i]);
	for (i = 1; i < COUNT(arenas); i += 2) {
		must(*blocks[i] == i, "arena %zu", i);
		must(hk_arena_check(arenas[i]) == 0, "arena %zu", i);
		hk_arena_destroy(arenas[i]);
	}
}

Test(arena, destroy_gives_every_byte_back)
{
	static const size_t pages[] = { 4 * KIB, 16 * KIB, 64 * KIB };
	struct hk_arena_config config = { .platform = &fault.platform };
	size_t i;
	int j;

	for (i = 0; i < COUNT(pages); i++) {
		struct fault_options options = { .page_size = pages[i], .forbid = true };
		struct hk_cache *cache;
		struct hk_arena *arena;
		uint64_t seed = i + 1;

		fault_open(&options);
		cr_assert_eq(hk_arena_create(&arena, &config), 0);
		cr_assert_eq(hk_cache_create(arena, &cache), 0);
		for (j = 0; j < 2000; j++) {
			size_t size = (size_t)(test_random(&seed) % 1000)
				      << test_random(&seed) % 12;

			must(hk_zalloc(cache, size), "size %zu", size);
		}
		cr_assert_eq(hk_arena_used(arena), fault.committed);
		hk_arena_destroy(arena);
		cr_assert_eq(fault.counts[FAULT_RELEASE], fault.counts[FAULT_RESERVE]);
		fault_close();
	}
}
