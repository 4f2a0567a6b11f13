/* SPDX-License-Identifier: MIT */
/* Every invariant of every layer, each layer by its own function. */
#include <hakmem/arena.h>

static size_t tell(struct hk_arena *arena, size_t broken, const char *what)
{
	struct hk_report report = {
		.fault = HK_FAULT_CORRUPT,
		.what = what,
		.count = broken,
	};

	if (broken)
		hk_report(&arena->reporter, &report);
	return broken;
}

/* Every committed byte is one of a section, a bitmap or a slab; a limit may have been lowered. */
static size_t check_memory(struct hk_arena *arena)
{
	size_t committed = hk_memory_committed(&arena->memory);
	size_t sum =
		arena->caches.committed + arena->depot.links.committed +
		arena->depot.magazines.committed + hk_superslabs_metadata(&arena->space) +
		atomic_load_explicit(&arena->space.committed, memory_order_relaxed) * HK_SLAB_SIZE;

	return (size_t)(committed != sum) + (hk_budget_peak(&arena->memory.own) < committed);
}

static size_t check_caches(struct hk_arena *arena, size_t *magazines)
{
	size_t broken = 0, alive = 0, free = 0;
	uint32_t slot, next;

	for (slot = 0; slot < arena->cache_slots; slot++) {
		struct hk_front *front = hk_arena_front(arena, slot);

		if (!front->alive)
			continue;
		alive++;
		*magazines += hk_front_magazines(front, &broken);
		broken += front->slot != slot || front->arena != arena;
		broken += front->hot.bound > hk_space_bound(&arena->space);
	}
	for (next = arena->cache_free; next && free < arena->cache_slots; free++)
		next = hk_arena_front(arena, next - 1)->next_free;
	broken += alive != arena->cache_count || alive + free != arena->cache_slots;
	return broken;
}

size_t hk_arena_check(struct hk_arena *arena)
{
	size_t magazines = 0, broken;

	broken = tell(arena, check_memory(arena), "bytes committed are not those counted");
	broken += tell(arena, hk_superslabs_check(&arena->space), "superslabs disagree");
	broken += tell(arena, hk_slab_check(&arena->slabs), "slabs or their bitmaps disagree");
	broken += tell(arena, check_caches(arena, &magazines), "caches disagree");
	broken += tell(arena, hk_depot_check(&arena->depot, magazines), "the depot disagrees");
	return broken;
}
