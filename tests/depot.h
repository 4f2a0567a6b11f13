/* SPDX-License-Identifier: MIT */
/* What depot.c and depot_depth.c share: a depot over a platform that keeps books. */
#ifndef TESTS_DEPOT_H
#define TESTS_DEPOT_H

#include <stdint.h>
#include <string.h>

#include <hakmem/arena.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct fault_platform fault;
static struct test_reports reports;
static struct hk_arena *arena; /* for its layout */
static struct hk_depot *depot;
static size_t held; /* magazines in the test's hands */

TEST_HELPER void open_depot_on(unsigned flags, size_t address_space, size_t limit)
{
	const struct fault_options options = { .flags = flags, .forbid = true };
	struct hk_arena_config config = {
		.platform = &fault.platform,
		.address_space = address_space,
		.limit = limit,
		.context = &reports,
		.on_report = test_on_report,
	};

	memset(&reports, 0, sizeof(reports));
	cr_assert_eq(fault_platform_init(&fault, &options), 0);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	depot = &arena->depot;
	held = 0;
	fault_platform_rewind(&fault);
}

TEST_HELPER void open_depot(void)
{
	open_depot_on(0, (size_t)32 << 20, 0);
}

TEST_HELPER void agree(void)
{
	must(hk_depot_check(depot, held) == 0, "%zu, with %zu held", hk_depot_check(depot, held),
	     held);
	must(hk_memory_committed(&arena->memory) == fault.committed, "other bytes are committed");
}

/* Whatever lies in the depot may be no blocks at all. */
TEST_HELPER void close_depot(void)
{
	agree();
	hk_depot_reset(depot);
	held = 0;
	agree();
	hk_arena_destroy(arena);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

TEST_HELPER unsigned capacity_of(unsigned size_class)
{
	return hk_class_infos[size_class].capacity;
}

TEST_HELPER uint32_t index_of(void **slot)
{
	return (uint32_t)((size_t)((unsigned char *)slot - depot->magazines.base) /
			  HK_MAGAZINE_BYTES);
}

TEST_HELPER void **empty_one(unsigned size_class)
{
	void **bottom;

	if (depot->ahead < HK_MAGAZINES_AHEAD)
		hk_depot_grow(depot);
	bottom = hk_magazine_get(depot, size_class);
	must(bottom, "no magazine");
	held++;
	return bottom;
}

/* A magazine with some blocks, which are numbers: its topmost slot in use. */
TEST_HELPER void **filled_one(unsigned size_class, uintptr_t number, unsigned rounds)
{
	void **slot = empty_one(size_class);
	unsigned i;

	for (i = 0; i < rounds; i++)
		*++slot = (void *)(number + i);
	return slot;
}

TEST_HELPER void **full_one(unsigned size_class, uintptr_t number)
{
	return filled_one(size_class, number, capacity_of(size_class));
}

TEST_HELPER bool holds_some(void **top, unsigned rounds, uintptr_t number)
{
	for (; rounds-- > 0; top--)
		if (*top != (void *)(number + rounds))
			return false;
	return !*top;
}

TEST_HELPER bool holds(void **top, unsigned size_class, uintptr_t number)
{
	return holds_some(top, capacity_of(size_class), number);
}

TEST_HELPER bool put(unsigned size_class, void **slot)
{
	bool done = hk_depot_put(depot, size_class, slot);

	held -= done;
	agree();
	return done;
}

TEST_HELPER void **get(unsigned size_class)
{
	void **slot = hk_depot_get(depot, size_class);

	held += slot != NULL;
	agree();
	return slot;
}

#endif /* TESTS_DEPOT_H */
