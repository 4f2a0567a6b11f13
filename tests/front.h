/* SPDX-License-Identifier: MIT */
/* What front.c and front_cold.c share: two caches, from within. */
#ifndef TESTS_FRONT_H
#define TESTS_FRONT_H

#include <stdint.h>
#include <string.h>

#include <hakmem/arena.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ROUNDS HK_MAGAZINE_ROUNDS
#define COLD_USES 4u   /* so often a class goes without a magazine at first */
#define BATCH_FIRST 4u /* then the first batch has so many blocks */
#define FIRST_COLD 4u  /* the class of a cache line: smaller ones do not begin so */

static struct fault_platform fault;
static struct test_reports reports;
static struct hk_arena *arena;
static struct hk_front *front, *other;
static void *blocks[40 * HK_MAGAZINE_SLOTS];

TEST_HELPER void open_fronts(const struct fault_options *options)
{
	struct hk_arena_config config = {
		.platform = &fault.platform,
		.address_space = (size_t)256 << 20,
		.context = &reports,
		.on_report = test_on_report,
	};
	struct hk_cache *cache;

	memset(&reports, 0, sizeof(reports));
	cr_assert_eq(fault_platform_init(&fault, options), 0);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	front = hk_front(cache);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	other = hk_front(cache);
}

TEST_HELPER void agree(void)
{
	must(hk_arena_check(arena) == 0, "%s", reports.last.what);
}

TEST_HELPER void close_fronts(void)
{
	agree();
	hk_arena_destroy(arena);
	cr_assert_eq(reports.by_fault[HK_FAULT_LEAK], 0);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

TEST_HELPER struct hk_slab_class *class_of(unsigned size_class)
{
	return &arena->slabs.classes[size_class];
}

TEST_HELPER void alloc_blocks(struct hk_front *from, unsigned size_class, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		blocks[i] = hk_front_alloc(from, size_class);
		must(blocks[i], "class %u, block %zu", size_class, i);
		must(hk_class_at(&arena->space, blocks[i]) == size_class, "class %u", size_class);
		/* its own until it is pushed: overlapping blocks would show */
		memset(blocks[i], (int)(i & 127), 16);
	}
	agree();
}

TEST_HELPER void push_blocks(struct hk_front *to, unsigned size_class, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		must(*(unsigned char *)blocks[i] == (i & 127), "class %u, block %zu", size_class,
		     i);
		hk_front_push(to, size_class, blocks[i]);
	}
	agree();
}

TEST_HELPER size_t held_by(struct hk_front *by)
{
	size_t broken = 0, held = hk_front_magazines(by, &broken);

	cr_assert_eq(broken, 0);
	return held;
}

/* Uses a class until the next use takes a magazine. */
TEST_HELPER void warm(struct hk_front *by, unsigned size_class)
{
	unsigned i;

	for (i = 0; i < COLD_USES / 2; i++)
		hk_front_push(by, size_class, hk_front_alloc(by, size_class));
	cr_assert_eq(hk_front_blocks(by, size_class), 0);
	agree();
}

#endif /* TESTS_FRONT_H */
