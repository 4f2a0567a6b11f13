/* SPDX-License-Identifier: MIT */
/*
 * hk_arena_check() finds damage wherever it is done. Each test damages one thing of a busy
 * arena, looks for the report of the right layer, and undoes it.
 */
#include <stdint.h>
#include <string.h>

#include <hakmem/arena.h>

#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define MEMORY "bytes committed are not those counted"
#define SPACE "superslabs disagree"
#define SLABS "slabs or their bitmaps disagree"
#define CACHES "caches disagree"
#define DEPOT "the depot disagrees"

#define SMALL 2u   /* 32 bytes: bitmaps out of line */
#define MIDDLE 40u /* 640 bytes: the bitmap is the summary */

static struct hk_arena *arena;
static struct hk_cache *cache, *idle;
static struct hk_front *front;
static unsigned char *small[1000], *middle[400], *large[3];
static struct hk_slab *full_run, *partial_run, *other_run; /* of SMALL, MIDDLE, MIDDLE */
static uint32_t full_number, partial_number;

/* What was reported since tell() was last cleared. */
static struct {
	const char *texts[16];
	size_t count;
	size_t wrong;
	size_t broken;
} told;

static void on_report(void *context, const struct hk_report *report)
{
	(void)context;
	if (report->fault != HK_FAULT_CORRUPT || told.count == COUNT(told.texts)) {
		told.wrong++;
		return;
	}
	told.texts[told.count++] = report->what;
	told.broken += report->count;
}

static bool was_told(const char *text)
{
	size_t i;

	for (i = 0; i < told.count; i++)
		if (!strcmp(told.texts[i], text))
			return true;
	return false;
}

static bool is_sound(void)
{
	memset(&told, 0, sizeof(told));
	return hk_arena_check(arena) == 0 && told.count == 0 && told.wrong == 0;
}

static void must_be_found(const char *what, const char *text)
{
	size_t broken;

	memset(&told, 0, sizeof(told));
	broken = hk_arena_check(arena);
	must(broken > 0, "%s: not found", what);
	must(was_told(text), "%s: \"%s\" was not told, but \"%s\"", what, text, told.texts[0]);
	must(told.broken == broken, "%s: %zu told of %zu", what, told.broken, broken);
	must(told.wrong == 0, "%s: told as something else", what);
}

/* Flips bits of a thing of some width, and back; for 0 the thing becomes 0. */
static void damage(const char *what, const char *text, volatile void *at, size_t width,
		   uint64_t flip)
{
	unsigned char before[8];
	uint64_t value = 0;

	memcpy(before, (void *)(uintptr_t)at, width);
	memcpy(&value, before, width);
	must(flip || value, "%s: is zero already", what);
	value = flip ? value ^ flip : 0;
	memcpy((void *)(uintptr_t)at, &value, width);
	must_be_found(what, text);
	memcpy((void *)(uintptr_t)at, before, width);
	must(is_sound(), "%s: not undone", what);
}

#define DAMAGE(text, thing, flip) damage(#thing, text, &(thing), sizeof(thing), flip)

/* An arena that has something of everything, nothing at its very end. */
static void open_busy(void)
{
	struct hk_arena_config config = { .address_space = (size_t)256 << 20,
					  .on_report = on_report };
	size_t i;

	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(hk_cache_create(arena, &cache), 0);
	cr_assert_eq(hk_cache_create(arena, &idle), 0);
	front = hk_front(cache);
	for (i = 0; i < COUNT(small); i++)
		small[i] = hk_alloc(cache, 32);
	for (i = 0; i < COUNT(middle); i++)
		middle[i] = hk_alloc(cache, 640);
	for (i = 0; i < COUNT(large); i++)
		large[i] = hk_alloc(cache, (i + 1) * 600000);
	hk_free(cache, large[1]);
	/* several magazines to the depot, and single holes in runs */
	for (i = 0; i < 200; i++)
		hk_free(cache, small[i]);
	for (i = 0; i < 5; i++)
		hk_arena_free(arena, middle[10 * i]);
	for (i = 0; i < 3; i++)
		hk_arena_free(arena, middle[200 + 10 * i]);
	full_number = (uint32_t)hk_slab_number(&arena->space, small[0]);
	full_run = hk_slab(&arena->space, full_number);
	partial_number = (uint32_t)hk_slab_number(&arena->space, middle[0]);
	partial_number -= hk_slab(&arena->space, partial_number)->head;
	partial_run = hk_slab(&arena->space, partial_number);
	i = hk_slab_number(&arena->space, middle[200]);
	other_run = hk_slab(&arena->space, (uint32_t)i - hk_slab(&arena->space, (uint32_t)i)->head);
	cr_assert_eq(partial_run->list, 1);
	cr_assert_eq(other_run->list, 1);
	cr_assert_neq(partial_run, other_run);
	cr_assert(is_sound(), "%s", told.texts[0]);
}

static void close_busy(void)
{
	cr_assert(is_sound());
	hk_arena_reset(arena);
	cr_assert(is_sound());
	hk_arena_destroy(arena);
}

Test(check, bytes_of_memory)
{
	open_busy();
	DAMAGE(MEMORY, arena->memory.own.used, 4096);
	DAMAGE(MEMORY, arena->memory.own.peak, 0);
	DAMAGE(MEMORY, arena->caches.committed, 4096);
	DAMAGE(MEMORY, arena->depot.links.committed, 4096);
	DAMAGE(MEMORY, arena->depot.magazines.committed, 4096);
	DAMAGE(MEMORY, arena->space.headers.committed, 65536);
	close_busy();
}

Test(check, superslabs)
{
	struct hk_superslab *first;
	uint32_t bit;

	open_busy();
	first = hk_superslab(&arena->space, 0);
	for (bit = 0; bit < 32; bit += 5) {
		DAMAGE(SPACE, first->free.bits, 1u << bit);
		DAMAGE(SPACE, first->ready.bits, 1u << bit);
		DAMAGE(SPACE, first->committed, 1u << bit);
	}
	DAMAGE(SPACE, first->zero, 1u << (full_number % 32));
	DAMAGE(SPACE, first->free.node[0].best, 64);
	DAMAGE(SPACE, first->free.node[0].start, 64);
	DAMAGE(SPACE, first->free.node[1].end, 64);
	DAMAGE(SPACE, first->ready.node[0].end, 64);
	DAMAGE(SPACE, first->bitmaps, 1);
	DAMAGE(SPACE, arena->space.used, 1);
	DAMAGE(SPACE, arena->space.bitmap_bytes, 4096);
	DAMAGE(SPACE, arena->space.committed, 1);
	/* a used slab without a class, a free one with */
	damage("class byte", SPACE, hk_class_byte(&arena->space, full_number), 1, 0);
	damage("class byte of a free slab", SPACE,
	       hk_class_byte(&arena->space, hk_slab_number(&arena->space, large[1])), 1, 5);
	close_busy();
}

Test(check, slabs)
{
	struct hk_slab_class *class;
	uint32_t word;

	open_busy();
	for (word = 0; word < 8; word++)
		damage("bitmap", SLABS, hk_bitmap_word(&arena->space, full_number, word), 4,
		       1u << (word * 3));
	for (word = 0; word < 4; word++)
		DAMAGE(SLABS, full_run->summary[word], 1u << (word * 7));
	DAMAGE(SLABS, partial_run->summary[0], 1u << 9);
	DAMAGE(SLABS, partial_run->free, 1);
	DAMAGE(SLABS, partial_run->fresh, 32);
	DAMAGE(SLABS, partial_run->fresh, 1);
	DAMAGE(SLABS, partial_run->length, 1);
	DAMAGE(SLABS, partial_run->head, 1);
	DAMAGE(SLABS, partial_run->list, 3);
	DAMAGE(SLABS, partial_run->list, 0);
	DAMAGE(SLABS, partial_run->prev, full_number + 1);
	DAMAGE(SLABS, other_run->prev, full_number + 1);
	class = &arena->slabs.classes[MIDDLE];
	DAMAGE(SLABS, class->blocks_out, 1);
	DAMAGE(SLABS, class->blocks_free, 1);
	DAMAGE(SLABS, class->slabs, 1);
	DAMAGE(SLABS, class->list[0], 0);
	DAMAGE(SLABS, class->list[0], 1u << 20);
	damage("class byte", SLABS, hk_class_byte(&arena->space, full_number), 1, 1);
	damage("class byte within a run", SLABS, hk_class_byte(&arena->space, partial_number), 1,
	       1);
	close_busy();
}

/* Makes a list of MIDDLE another one, which must be empty. */
static void move_list(unsigned from, unsigned to)
{
	uint32_t *lists = arena->slabs.classes[MIDDLE].list, number;

	cr_assert_eq(lists[to], 0);
	lists[to] = lists[from];
	lists[from] = 0;
	for (number = lists[to]; number; number = hk_slab(&arena->space, number - 1)->next)
		hk_slab(&arena->space, number - 1)->list = (uint8_t)(to + 1);
}

/* A run that leads to itself, or to one of another class: the walk must come to an end. */
Test(check, lists_that_lead_astray, .timeout = 20)
{
	struct hk_slab *head;
	uint32_t number, before;

	open_busy();
	number = arena->slabs.classes[MIDDLE].list[0];
	head = hk_slab(&arena->space, number - 1);
	cr_assert_neq(head->next, 0);
	before = head->next;
	head->next = number;
	must_be_found("a circle", SLABS);
	head->next = full_number + 1;
	must_be_found("a run of another class", SLABS);
	head->next = 0;
	must_be_found("a run lost", SLABS);
	head->next = before;
	cr_assert(is_sound());
	/* a list in order, but of runs that are fuller than it says */
	move_list(0, 3);
	must_be_found("the wrong list", SLABS);
	move_list(3, 0);
	close_busy();
}

Test(check, large_blocks)
{
	size_t number;

	open_busy();
	number = hk_slab_number(&arena->space, large[2]);
	damage("first byte", SLABS, hk_class_byte(&arena->space, number), 1,
	       HK_CLASS_LARGE ^ HK_CLASS_INSIDE);
	damage("inside byte", SLABS, hk_class_byte(&arena->space, number + 1), 1,
	       HK_CLASS_LARGE ^ HK_CLASS_INSIDE);
	damage("last byte", SLABS,
	       hk_class_byte(&arena->space,
			     number + hk_slab(&arena->space, (uint32_t)number)->length - 1),
	       1, HK_CLASS_LARGE ^ HK_CLASS_INSIDE);
	damage("length", SLABS, &hk_slab(&arena->space, (uint32_t)number)->length, 4, 1);
	DAMAGE(SLABS, arena->large.blocks, 1);
	DAMAGE(SLABS, arena->large.slabs, 1);
	close_busy();
}

Test(check, caches)
{
	struct hk_front *second;

	open_busy();
	second = hk_front(idle);
	DAMAGE(CACHES, second->slot, 1);
	DAMAGE(CACHES, second->arena, 64);
	DAMAGE(CACHES, second->alive, 1);
	DAMAGE(CACHES, arena->cache_count, 1);
	DAMAGE(CACHES, arena->cache_free, 2);
	DAMAGE(CACHES, front->hot.bound, (uint64_t)1 << 40);
	damage("a hole in a magazine", CACHES, front->hot.top[SMALL], sizeof(void *), 0);
	damage("a hole in a spare", CACHES, front->spare[SMALL] - 3, sizeof(void *), 0);
	DAMAGE(CACHES, front->hot.top[0], 256);
	close_busy();
}

/* The free list of cache slots, which a circle must not make endless. */
Test(check, cache_slots, .timeout = 20)
{
	struct hk_cache *third;

	open_busy();
	cr_assert_eq(hk_cache_create(arena, &third), 0);
	hk_cache_destroy(third);
	hk_cache_destroy(idle);
	cr_assert(is_sound());
	DAMAGE(CACHES, arena->cache_free, 0);
	DAMAGE(CACHES, hk_front(idle)->next_free, 0);
	DAMAGE(CACHES, hk_front(third)->next_free, 3);
	close_busy();
}

Test(check, depot)
{
	struct hk_link *links;
	uint32_t top;
	void **magazine;

	open_busy();
	links = (struct hk_link *)(void *)arena->depot.links.base;
	top = (uint32_t)arena->depot.filled[SMALL].head;
	cr_assert_neq(top, 0);
	magazine = (void **)(void *)(arena->depot.magazines.base + (top - 1) * HK_MAGAZINE_BYTES);
	DAMAGE(DEPOT, magazine[HK_MAGAZINE_ROUNDS], 0);
	DAMAGE(DEPOT, magazine[1], 0);
	DAMAGE(DEPOT, links[top - 1].depth, 1);
	DAMAGE(DEPOT, links[top - 1].next, 0);
	DAMAGE(DEPOT, links[top - 1].next, 1024);
	DAMAGE(DEPOT, arena->depot.count, 1);
	DAMAGE(DEPOT, arena->depot.filled[SMALL].head, 0);
	/* a cache that lost a magazine */
	cr_assert_neq(front->spare[SMALL], front->hot.top[0]);
	DAMAGE(DEPOT, front->spare[SMALL],
	       (uintptr_t)front->spare[SMALL] ^ (uintptr_t)front->hot.top[0]);
	close_busy();
}
