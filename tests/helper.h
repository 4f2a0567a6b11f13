/* SPDX-License-Identifier: MIT */
/*
 * Small helpers that the Criterion tests share: an arena whose reports are counted, random
 * numbers that repeat, and patterns that tell whether a block kept its content.
 */
#ifndef TESTS_HELPER_H
#define TESTS_HELPER_H

#include <stddef.h>
#include <stdint.h>

#include <criterion/criterion.h>
#include <hakmem/hakmem.h>

/* One test uses some of these and leaves others. */
#if defined(__GNUC__)
#define TEST_HELPER static inline __attribute__((unused))
#else
#define TEST_HELPER static inline
#endif

/**
 * struct test_reports - what an arena told its on_report
 * @count: reports.
 * @last: the latest.
 * @by_fault: reports of each enum hk_fault; those beyond the array fall into the last entry.
 */
struct test_reports {
	size_t count;
	struct hk_report last;
	size_t by_fault[16];
};

/* The on_report of a test arena; the config's context is the struct test_reports. */
TEST_HELPER void test_on_report(void *context, const struct hk_report *r)
{
	struct test_reports *reports = context;
	size_t fault = (size_t)r->fault;

	reports->count++;
	reports->last = *r;
	reports->by_fault[fault < 16 ? fault : 15]++;
}

/* An arena of 1 GiB of address space; @limit 0: none; @reports NULL: faults stop the test. */
TEST_HELPER struct hk_arena *test_arena(struct test_reports *reports, size_t limit)
{
	struct hk_arena_config config = {
		.name = "test",
		.address_space = (size_t)1 << 30,
		.limit = limit,
		.context = reports,
		.on_report = reports ? test_on_report : NULL,
	};
	struct hk_arena *arena = NULL;
	int error = hk_arena_create(&arena, &config);

	cr_assert_eq(error, 0, "hk_arena_create: %s", hk_error_name(error));
	cr_assert_not_null(arena);
	return arena;
}

/* xorshift64*; a state of 0 is taken as 1, for it would stay 0. */
TEST_HELPER uint64_t test_random(uint64_t *state)
{
	uint64_t x = *state ? *state : 1;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

/*
 * The byte at an index depends on the seed and on the index beyond any power of two, so that
 * content that moved by a page or by a slab does not pass for the right one.
 */
TEST_HELPER unsigned char test_byte(size_t index, uint64_t seed)
{
	uint64_t x = (seed + index / 8) * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned char)((x ^ x >> 32) >> index % 8 * 8);
}

TEST_HELPER void test_fill(void *ptr, size_t size, uint64_t seed)
{
	unsigned char *bytes = ptr;
	size_t i;

	for (i = 0; i < size; i++)
		bytes[i] = test_byte(i, seed);
}

TEST_HELPER bool test_holds(const void *ptr, size_t size, uint64_t seed)
{
	const unsigned char *bytes = ptr;
	size_t i;

	for (i = 0; i < size; i++)
		if (bytes[i] != test_byte(i, seed))
			return false;
	return true;
}

#endif /* TESTS_HELPER_H */
