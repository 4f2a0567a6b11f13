/* SPDX-License-Identifier: MIT */
/* Work on the host's time: memory made ready ahead of need, and given back; see maintain.h. */
#include <hakmem/arena.h>

/* Slabs committed at once, without a bound and with one. */
#define WARM_STEP 32u
#define WARM_STEP_TIMED 1u
#define COOL_STEP 4u

/* Most slabs that are committed ahead, and the part of what is committed. */
#define AHEAD_MAX 512u
#define AHEAD_PART 8u

/* Bytes of memory made ready for which there is a magazine more. */
#define MAGAZINE_BYTES_READY ((size_t)16 << 10)

/* Caches looked at in a call. */
#define CACHES_STEP 64u

/* Cache structs beyond the last use, when none is alive. */
static size_t trim_caches(struct hk_arena *arena)
{
	size_t freed = 0;

	hk_caches_lock(arena);
	if (!arena->cache_count) {
		arena->cache_slots = 0;
		arena->cache_free = 0;
		freed = hk_section_shrink(&arena->memory, &arena->caches, sizeof(*arena));
	}
	hk_caches_unlock(arena);
	return freed;
}

/* What the reserve is to be made of may be kept, or wait for blocks in magazines. */
static void refill_reserve(struct hk_arena *arena, struct hk_deadline deadline)
{
	if (!arena->reserve_slabs || !hk_reserve_fill(&arena->space, arena->reserve_slabs, true))
		return;
	hk_depot_drain_in(&arena->depot, deadline);
	hk_superslabs_drop_kept(&arena->space);
	hk_reserve_fill(&arena->space, arena->reserve_slabs, true);
}

size_t hk_arena_trim(struct hk_arena *arena, size_t keep_bytes, uint64_t budget_ns)
{
	struct hk_memory *memory = &arena->memory;
	struct hk_deadline deadline = hk_deadline_in(memory, budget_ns);
	size_t freed = 0;
	bool drained;

	refill_reserve(arena, deadline);
	if (hk_arena_used(arena) > keep_bytes) {
		drained = hk_depot_drain_in(&arena->depot, deadline);
		freed = hk_slab_trim(&arena->slabs, keep_bytes, deadline);
		if (hk_deadline_allows(memory, deadline, freed))
			freed = hk_freed(freed,
					 hk_superslabs_trim(&arena->space, keep_bytes, deadline));
		if (hk_arena_used(arena) > keep_bytes &&
		    hk_deadline_allows(memory, deadline, freed))
			freed = hk_freed(freed, hk_depot_trim(&arena->depot, deadline));
		if (hk_arena_used(arena) > keep_bytes &&
		    hk_deadline_allows(memory, deadline, freed))
			freed = hk_freed(freed, trim_caches(arena));
		if (!freed && !drained)
			freed = 1;
	}
	hk_reporter_flush(&arena->reporter);
	return freed;
}

/*
 * Commits until @bytes are, or less than a slab is open of what there may be; SIZE_MAX: all that
 * there may be.
 */
static int commit_up_to(struct hk_arena *arena, size_t bytes)
{
	const struct hk_deadline never = { 0 };
	uint32_t step = WARM_STEP;
	size_t used, missing = 0;
	int error = 0;

	while (!error && (used = hk_arena_used(arena)) < bytes) {
		missing = (bytes - used + HK_SLAB_SIZE - 1) / HK_SLAB_SIZE;
		hk_space_warm(&arena->space, missing < step ? (uint32_t)missing : step, never,
			      &error);
		if (error == HK_ERROR_LIMIT && step > 1) {
			step /= 2;
			error = 0;
		}
	}
	if (bytes == SIZE_MAX)
		return error == HK_ERROR_LIMIT || error == HK_ERROR_ADDRESS_SPACE ? 0 : error;
	return error == HK_ERROR_LIMIT && missing == 1 ? 0 : error;
}

/* Memory, the bitmaps of what is there, and magazines for it, as far as limits allow. */
static int commit_all(struct hk_arena *arena, size_t bytes)
{
	size_t used = hk_arena_used(arena), left = hk_memory_left(&arena->memory), range;
	int error;

	if (used >= bytes)
		return 0;
	range = (size_t)arena->space.slabs_max * HK_SLAB_SIZE;
	if (left > range)
		left = range;
	if (left > bytes - used)
		left = bytes - used;
	error = hk_superslabs_commit_bitmaps(&arena->space);
	if (!error)
		error = hk_depot_warm(&arena->depot, left / MAGAZINE_BYTES_READY);
	/* neither bitmaps nor magazines are worth a slab */
	if (!error || error == HK_ERROR_LIMIT)
		error = commit_up_to(arena, bytes);
	return error;
}

/* The same, then faults all that is committed in. */
static int warm(struct hk_arena *arena, size_t bytes)
{
	int error = commit_all(arena, bytes);

	if (!error)
		error = hk_depot_populate(&arena->depot);
	if (!error)
		error = hk_superslabs_populate(&arena->space);
	if (error)
		return error;
	hk_caches_lock(arena);
	error = hk_memory_populate(&arena->memory, arena->caches.base, arena->caches.committed);
	hk_caches_unlock(arena);
	return error;
}

int hk_arena_prewarm(struct hk_arena *arena, size_t bytes)
{
	int error = warm(arena, bytes);

	atomic_store_explicit(&arena->upkeep.warm, bytes, memory_order_relaxed);
	hk_reporter_flush(&arena->reporter);
	return error;
}

/* What was used since the last call, and at the end of a window what was not. */
static void look(struct hk_arena *arena, bool window)
{
	struct hk_upkeep *upkeep = &arena->upkeep;
	struct hk_space_use use = hk_space_use(&arena->space);
	size_t more = use.high > upkeep->used ? use.high - upkeep->used : 0, needed;

	hk_depot_look(&arena->depot, window);
	if (upkeep->high < use.high)
		upkeep->high = use.high;
	if (window)
		upkeep->ahead -= (upkeep->ahead + 3) / 4;
	if (more > use.committed / AHEAD_PART)
		more = use.committed / AHEAD_PART;
	if (more > AHEAD_MAX)
		more = AHEAD_MAX;
	if (upkeep->ahead < more)
		upkeep->ahead = more;
	/* what is committed and not used is the host's loss there */
	if (hk_space_is_charged(&arena->space))
		upkeep->ahead = 0;
	if (window) {
		needed = upkeep->high + upkeep->ahead;
		upkeep->spare = use.committed > needed ? use.committed - needed : 0;
		upkeep->high = use.used;
	}
	upkeep->used = use.used;
	upkeep->idle = use.idle;
}

/* A slab ahead of need: whether one was made ready, or is still to be found. */
static bool commit_one(struct hk_arena *arena, struct hk_deadline deadline)
{
	struct hk_upkeep *upkeep = &arena->upkeep;
	int error;

	if (upkeep->idle >= upkeep->ahead)
		return false;
	upkeep->idle += hk_space_warm(&arena->space, WARM_STEP_TIMED, deadline, &error);
	if (error)
		upkeep->ahead = 0; /* until there is need of it again */
	return !error;
}

/* A magazine of a cache that rests since before the window: its topmost slot in use, or NULL. */
static void **find_rest(struct hk_arena *arena, unsigned *size_class)
{
	struct hk_upkeep *upkeep = &arena->upkeep;
	uint32_t calls = atomic_load_explicit(&upkeep->calls, memory_order_relaxed);
	uint32_t since, looks;
	void **top = NULL;

	hk_caches_lock(arena);
	if (upkeep->looks > arena->cache_slots)
		upkeep->looks = arena->cache_slots;
	for (looks = 0; looks < CACHES_STEP && upkeep->looks; looks++) {
		struct hk_front *front;

		if (upkeep->slot >= arena->cache_slots)
			upkeep->slot = 0;
		front = hk_arena_front(arena, upkeep->slot);
		if (front->alive && hk_front_rested(front, &since) &&
		    calls - since >= upkeep->delay)
			top = hk_front_take_rest(front, size_class);
		if (top)
			break;
		upkeep->slot++;
		upkeep->looks--;
	}
	hk_caches_unlock(arena);
	return top;
}

/* Whether one was, or there are caches that were not looked at in this call. */
static bool drain_one_cache(struct hk_arena *arena)
{
	unsigned size_class;
	void **top = find_rest(arena, &size_class);

	/* with no lock held: what it has may be misuse, and the host be told */
	if (top)
		hk_depot_take_back(&arena->depot, size_class, top);
	return top || arena->upkeep.looks;
}

/* Some of what the last window did not need. */
static bool give_some(struct hk_arena *arena)
{
	struct hk_upkeep *upkeep = &arena->upkeep;
	size_t warm = atomic_load_explicit(&upkeep->warm, memory_order_relaxed);
	size_t used = hk_arena_used(arena), over = used > warm ? (used - warm) / HK_SLAB_SIZE : 0;
	uint32_t most = COOL_STEP;
	size_t freed;

	if (upkeep->spare > over)
		upkeep->spare = over;
	if (most > upkeep->spare)
		most = (uint32_t)upkeep->spare;
	if (!most)
		return false;
	freed = hk_space_cool(&arena->space, most);
	/* it may be kept, and is looked for again in the next step */
	if (!freed && hk_superslabs_drop_some(&arena->space))
		return true;
	upkeep->spare = freed ? upkeep->spare - freed / HK_SLAB_SIZE : 0;
	return freed != 0;
}

/* One step of the most urgent work there is. */
static bool work(struct hk_arena *arena, struct hk_deadline deadline)
{
	return hk_depot_fill_one(&arena->depot) || commit_one(arena, deadline) ||
	       drain_one_cache(arena) || hk_depot_drain_one(&arena->depot) || give_some(arena);
}

bool hk_arena_maintain(struct hk_arena *arena, uint64_t budget_ns)
{
	struct hk_deadline deadline = hk_deadline_in(&arena->memory, budget_ns);
	struct hk_upkeep *upkeep = &arena->upkeep;
	uint32_t calls;
	bool more;

	/* pairs with the release below */
	if (atomic_exchange_explicit(&upkeep->busy, 1, memory_order_acquire))
		return false;
	calls = atomic_load_explicit(&upkeep->calls, memory_order_relaxed) + 1;
	atomic_store_explicit(&upkeep->calls, calls, memory_order_relaxed);
	upkeep->looks = UINT32_MAX;
	look(arena, calls % upkeep->delay == 0);
	do
		more = work(arena, deadline);
	while (more && !hk_deadline_over(&arena->memory, deadline));
	atomic_store_explicit(&upkeep->busy, 0, memory_order_release);
	hk_reporter_flush(&arena->reporter);
	return more;
}

void hk_cache_rest(struct hk_cache *cache)
{
	struct hk_front *front = hk_front(cache);

	hk_front_rest(front,
		      atomic_load_explicit(&front->arena->upkeep.calls, memory_order_relaxed));
}
