/* SPDX-License-Identifier: MIT */
/* What the arena holds and what it did, added up from all layers. */
#include <hakmem/arena.h>
#include <string.h>

static size_t load(const _Atomic size_t *counter)
{
	return atomic_load_explicit((_Atomic size_t *)counter, memory_order_relaxed);
}

static void add_lock(struct hk_counters *counters, const struct hk_lock *lock)
{
	counters->lock_acquired += lock->acquired;
	counters->lock_waited += lock->waited;
}

/* One class: what is in slabs under its lock, what is in magazines as far as others let us. */
static void add_class(struct hk_arena *arena, unsigned size_class, struct hk_stats *stats)
{
	const struct hk_platform *platform = &arena->memory.platform;
	struct hk_slab_class *class = &arena->slabs.classes[size_class];
	struct hk_class_stats *out = &stats->classes[size_class];
	struct hk_counters *counters = &stats->counters;
	size_t blocks_out;
	uint32_t slot;

	out->block_size = hk_class_size(size_class);
	for (slot = 0; slot < arena->cache_slots; slot++) {
		struct hk_front *front = hk_arena_front(arena, slot);

		if (!front->alive)
			continue;
		out->cached_blocks += hk_front_blocks(front, size_class);
		out->depot_swap +=
			atomic_load_explicit(&front->gets[size_class], memory_order_relaxed);
		out->magazine_to_depot +=
			atomic_load_explicit(&front->puts[size_class], memory_order_relaxed);
	}
	out->cached_blocks += hk_depot_blocks(&arena->depot, size_class);
	out->cached_blocks +=
		atomic_load_explicit(&arena->depot.stashed[size_class], memory_order_relaxed);

	hk_lock_acquire(&class->lock, platform);
	blocks_out = class->blocks_out;
	out->free_blocks = class->blocks_free;
	out->slabs = class->slabs;
	stats->free_bytes += hk_slab_idle(&arena->slabs, size_class) * HK_SLAB_SIZE;
	out->slab_batch = class->batches;
	out->new_slab = load(&class->new_runs);
	out->depot_to_slab = class->returns;
	out->slab_emptied = class->runs_emptied;
	out->lock_acquired = class->lock.acquired;
	add_lock(counters, &class->lock);
	hk_lock_release(&class->lock, platform);

	/* blocks on their way between the two are counted in both, or in none */
	if (out->cached_blocks > blocks_out)
		out->cached_blocks = blocks_out;
	out->live_blocks = blocks_out - out->cached_blocks;
	out->live_bytes = out->live_blocks * out->block_size;
	stats->cached_bytes += out->cached_blocks * out->block_size;
	stats->free_bytes += out->free_blocks * out->block_size;
}

static size_t less(size_t all, size_t part)
{
	return all > part ? all - part : 0;
}

static void add_large(struct hk_arena *arena, struct hk_stats *stats)
{
	struct hk_class_stats *large = &stats->classes[0];
	size_t stashed = load(&arena->large.stashed_blocks);
	size_t stashed_slabs = load(&arena->large.stashed_slabs);

	large->cached_blocks = stashed;
	large->live_blocks = less(load(&arena->large.blocks), stashed);
	large->slabs = load(&arena->large.slabs);
	large->live_bytes = less(large->slabs, stashed_slabs) * HK_SLAB_SIZE;
	stats->cached_bytes += stashed_slabs * HK_SLAB_SIZE;
}

static void add_fronts(struct hk_arena *arena, struct hk_counters *counters)
{
	uint32_t slot;

	counters->spare_swap = arena->gone.spare_swap;
	counters->free_null = arena->gone.free_null;
	counters->refused = arena->gone.refused + load(&arena->refused);
	counters->exhausted = arena->gone.exhausted + load(&arena->exhausted);
	for (slot = 0; slot < arena->cache_slots; slot++) {
		struct hk_front *front = hk_arena_front(arena, slot);

		if (!front->alive)
			continue;
		counters->spare_swap += load(&front->spare_swap);
		counters->free_null += load(&front->free_null);
		counters->refused += load(&front->refused);
		counters->exhausted += load(&front->exhausted);
	}
}

static void add_space(struct hk_arena *arena, struct hk_stats *stats)
{
	const struct hk_platform *platform = &arena->memory.platform;
	struct hk_superslabs *space = &arena->space;
	size_t committed, backed;

	hk_lock_acquire(&space->lock, platform);
	committed = load(&space->committed);
	backed = hk_space_used(space) - space->kept.slabs - load(&space->unbacked);
	stats->counters.new_superslab = load(&space->new_superslabs);
	stats->counters.superslab_emptied = space->superslabs_emptied;
	stats->reserve_bytes = space->reserve.count * HK_SLAB_SIZE;
	/* a slab that is used and not yet committed is about to be */
	if (committed > backed)
		stats->free_bytes += (committed - backed) * HK_SLAB_SIZE;
	add_lock(&stats->counters, &space->lock);
	hk_lock_release(&space->lock, platform);

	stats->committed_bytes = hk_memory_committed(&arena->memory);
	stats->peak_committed_bytes = hk_budget_peak(&arena->memory.own);
	stats->reserved_bytes = arena->memory.size;
	committed *= HK_SLAB_SIZE;
	if (stats->committed_bytes > committed)
		stats->metadata_bytes = stats->committed_bytes - committed;
}

void hk_arena_stats(const struct hk_arena *const_arena, struct hk_stats *stats)
{
	struct hk_arena *arena = (struct hk_arena *)const_arena; /* for its locks */
	const struct hk_platform *platform = &arena->memory.platform;
	struct hk_counters *counters = &stats->counters;
	unsigned size_class;

	memset(stats, 0, sizeof(*stats));
	hk_lock_acquire(&arena->lock, platform);
	hk_lock_acquire(&arena->depot.lock, platform);
	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		stats->classes[size_class].depot_swap = arena->depot.gets[size_class];
		stats->classes[size_class].magazine_to_depot = arena->depot.puts[size_class];
	}
	add_lock(counters, &arena->depot.lock);
	hk_lock_release(&arena->depot.lock, platform);
	hk_depot_add_locks(&arena->depot, &counters->lock_acquired, &counters->lock_waited);
	for (size_class = 1; size_class < HK_CLASSES; size_class++)
		add_class(arena, size_class, stats);
	add_fronts(arena, counters);
	stats->cache_count = arena->cache_count;
	add_lock(counters, &arena->lock);
	hk_lock_release(&arena->lock, platform);
	add_space(arena, stats);

	add_large(arena, stats);
	for (size_class = 0; size_class < HK_CLASSES; size_class++) {
		const struct hk_class_stats *class = &stats->classes[size_class];

		stats->live_blocks += class->live_blocks;
		stats->live_bytes += class->live_bytes;
		counters->depot_swap += class->depot_swap;
		counters->slab_batch += class->slab_batch;
		counters->new_slab += class->new_slab;
		counters->magazine_to_depot += class->magazine_to_depot;
		counters->depot_to_slab += class->depot_to_slab;
		counters->slab_emptied += class->slab_emptied;
	}
	counters->large_alloc = load(&arena->large.allocs);
	counters->large_free = load(&arena->large.frees);
	counters->arena_alloc = load(&arena->allocs);
	counters->arena_free = load(&arena->frees);
	counters->oom_calls = load(&arena->oom_calls);
	counters->platform_call = load(&arena->memory.calls);
}
