/* SPDX-License-Identifier: MIT */
/*
 * Out of memory: room is made with what the arena has, the reserve is given up, the host is asked.
 * See hk_arena_make_room() in arena.h.
 */
#include <hakmem/arena.h>

/* What a try to make room is for: an allocation fails for good, and the host is told. */
static bool give_up(struct hk_arena *arena, struct hk_front *front, size_t size, bool tell)
{
	if (front)
		hk_count(&front->exhausted);
	else
		atomic_fetch_add_explicit(&arena->exhausted, 1, memory_order_relaxed);
	if (tell)
		hk_report_fault(&arena->reporter, HK_FAULT_EXHAUSTED,
				"an allocation found no memory", NULL, size);
	return false;
}

/*
 * The host's last word, with what the reserve had at hand; where it has none to say, that is
 * tried.
 */
static bool ask_host(struct hk_arena *arena, struct hk_front *front, size_t size, bool released)
{
	bool again;

	/* within the callback: by its cache; without one, whichever thread's it is */
	if (front && front->in_oom)
		return released || give_up(arena, front, size, false);
	if (!front && atomic_load_explicit(&arena->oom_running, memory_order_relaxed))
		return released || give_up(arena, front, size, true);
	if (!arena->on_oom)
		return released || give_up(arena, front, size, true);
	atomic_fetch_add_explicit(&arena->oom_calls, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&arena->oom_running, 1, memory_order_relaxed);
	if (front)
		front->in_oom = true;
	again = arena->on_oom(arena->context, arena, size);
	if (front)
		front->in_oom = false;
	atomic_fetch_sub_explicit(&arena->oom_running, 1, memory_order_relaxed);
	return again || give_up(arena, front, size, true);
}

/*
 * Free slabs that are committed stand in the way of the limit, or of what the platform has; not
 * where there is room for the request within all limits, and only the range is full.
 */
static void trim_for(struct hk_arena *arena, size_t size)
{
	size_t committed = hk_memory_committed(&arena->memory);
	/* with headers and the class table */
	size_t most = HK_QUARTER_MAX;
	size_t need = size > most ? size + size / 1024 + most : 2 * most;
	struct hk_deadline never = { 0 };

	if (hk_memory_left(&arena->memory) >= need &&
	    !atomic_load_explicit(&arena->memory.refusals, memory_order_relaxed))
		return;
	need = committed > need ? committed - need : 0;
	hk_slab_trim(&arena->slabs, need, never);
	hk_superslabs_trim(&arena->space, need, never);
	hk_reporter_flush(&arena->reporter);
}

bool hk_arena_make_room(struct hk_arena *arena, struct hk_front *front, size_t size, int error,
			unsigned round)
{
	/* what can never be, or no free slab would help: the host may know better */
	bool hopeless = error == HK_ERROR_ARGUMENT || size > hk_memory_limit(&arena->memory);

	switch (round % HK_ROUNDS) {
	case 0:
		/* free blocks in magazines may be all that their slabs wait for */
		if (!hopeless && front)
			hk_front_flush(front, false);
		if (!hopeless) {
			hk_depot_drain(&arena->depot);
			hk_superslabs_drop_kept(&arena->space);
		}
		return true;
	case 1:
		if (!hopeless && error != HK_ERROR_ADDRESS_SPACE)
			trim_for(arena, size);
		return true;
	default:
		return ask_host(arena, front, size, !hopeless && hk_reserve_give(&arena->space));
	}
}
