/* SPDX-License-Identifier: MIT */
/* Arenas and their caches, from creation to destruction; see arena.h. */
#include <hakmem/arena.h>
#include <string.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

#define ADDRESS_SPACE_MIN (512 * KIB)
#define ADDRESS_SPACE_DEFAULT (sizeof(void *) == 8 ? (size_t)16 << 10 : (size_t)128)
#define ADDRESS_SPACE_HALVED_MIN (64 * MIB)
/* From here on superslabs are aligned to their size, which large pages need. */
#define ALIGNED_FROM (64 * MIB)
#define CACHES_DEFAULT 1024u
#define LEAKS_TOLD 8u
#define DELAY_DEFAULT 256u

/* Offsets and sizes of what lies in a reservation. */
struct layout {
	size_t caches, caches_size;
	size_t classes, classes_size;
	size_t headers, headers_size;
	size_t links, links_size;
	size_t magazines, magazines_size;
	size_t bitmaps;
	size_t slabs;
	uint32_t slabs_max;
	uint32_t magazines_max;
	uint32_t bitmap_group;
	uint32_t caches_max;
};

static uint32_t clamp(size_t value, uint32_t low, uint32_t high)
{
	return value < low ? low : value > high ? high : (uint32_t)value;
}

/* Lays out a reservation: false when it is too small. */
static bool lay_out(struct layout *layout, const struct hk_memory *memory, unsigned caches_max)
{
	size_t page = memory->platform.page_size, slabs = memory->size / HK_SLAB_SIZE, end;
	size_t superslabs = (slabs + HK_SUPERSLAB_SLABS - 1) / HK_SUPERSLAB_SLABS;
	size_t gap = memory->platform.flags & HK_PLATFORM_OPEN ? 0 : HK_SLAB_SIZE;
	/* for the sake of large pages, which an open platform has or has not wherever slabs lie */
	size_t align = memory->size >= ALIGNED_FROM && gap ? HK_SUPERSLAB_SIZE : HK_SLAB_SIZE;

	layout->caches_max = caches_max ? caches_max : clamp(slabs / 4, 8, CACHES_DEFAULT);
	layout->magazines_max = clamp(32 + 2 * slabs, 0, (uint32_t)1 << 29);
	layout->bitmap_group = clamp(page / HK_SUPERSLAB_BITMAPS, 1, 4);
	layout->caches = 0;
	layout->caches_size = hk_round_up(hk_front_offset(layout->caches_max), page);
	layout->classes = layout->caches + layout->caches_size;
	layout->classes_size = hk_round_up(slabs, page);
	layout->headers = layout->classes + layout->classes_size;
	layout->headers_size = hk_round_up(superslabs * sizeof(struct hk_superslab), page);
	layout->links = layout->headers + layout->headers_size;
	layout->links_size = hk_round_up(layout->magazines_max * sizeof(struct hk_link), page);
	layout->magazines = layout->links + layout->links_size;
	layout->magazines_size = hk_round_up(layout->magazines_max * HK_MAGAZINE_BYTES, page);
	layout->bitmaps = layout->magazines + layout->magazines_size;
	end = layout->bitmaps +
	      hk_round_up(superslabs, layout->bitmap_group) * HK_SUPERSLAB_BITMAPS + gap;
	end = hk_round_up((uintptr_t)memory->base + end, align) - (uintptr_t)memory->base;
	layout->slabs = end;
	if (end + gap + HK_SLAB_SIZE > memory->size)
		return false;
	layout->slabs_max = (uint32_t)((memory->size - gap - end) / HK_SLAB_SIZE);
	return true;
}

static bool is_power_of_two(size_t value)
{
	return value && !(value & (value - 1));
}

static int check_platform(const struct hk_platform *platform)
{
	if (!platform->reserve || !platform->commit || !platform->decommit || !platform->release)
		return HK_ERROR_PLATFORM;
	if (!platform->park != !platform->wake)
		return HK_ERROR_PLATFORM;
	if (!is_power_of_two(platform->page_size) || platform->page_size < 4 * KIB ||
	    platform->page_size > HK_SLAB_SIZE)
		return HK_ERROR_PLATFORM;
	if (!is_power_of_two(platform->granularity) || platform->granularity < platform->page_size)
		return HK_ERROR_PLATFORM;
	return 0;
}

static size_t base_align(const struct hk_platform *platform)
{
	return platform->granularity > HK_SUPERSLAB_SIZE ? platform->granularity
							 : HK_SUPERSLAB_SIZE;
}

static void *reserve(struct hk_memory *memory)
{
	const struct hk_platform *platform = &memory->platform;
	void *base;

	hk_memory_count_call(memory);
	base = platform->reserve(platform->context, memory->size, base_align(platform));
	if (base || platform->granularity > HK_SLAB_SIZE)
		return base;
	hk_memory_count_call(memory);
	return platform->reserve(platform->context, memory->size, HK_SLAB_SIZE);
}

static int do_nothing(void *context, void *ptr, size_t size)
{
	(void)context;
	(void)ptr;
	(void)size;
	return 0;
}

/*
 * All of the range is taken, so the host must have named its size and allowed that much. What
 * is committed and given back of it from now on is so in the arena's books only, as in a fixed
 * region.
 */
static void *reserve_large(struct hk_memory *memory)
{
	struct hk_platform *platform = &memory->platform;
	void *base;

	/* all of it is taken at once, which a budget would not know of */
	if (!platform->reserve_large || memory->own.parent ||
	    memory->size > hk_memory_limit(memory))
		return NULL;
	hk_memory_count_call(memory);
	base = platform->reserve_large(platform->context, memory->size, base_align(platform));
	if (!base)
		return NULL;
	platform->flags = HK_PLATFORM_OPEN;
	platform->commit = do_nothing;
	platform->decommit = do_nothing;
	platform->move = NULL;
	platform->large_pages = NULL;
	return base;
}

static void release(struct hk_memory *memory)
{
	hk_memory_count_call(memory);
	memory->platform.release(memory->platform.context, memory->base, memory->size);
}

/* Reserves the address range, by halves where the default is refused. */
static int reserve_range(struct hk_memory *memory, size_t named, bool large)
{
	const struct hk_platform *platform = &memory->platform;
	size_t unit = platform->granularity, size = named;

	if (named && (named < ADDRESS_SPACE_MIN || named > PTRDIFF_MAX - unit))
		return HK_ERROR_ARGUMENT;
	if (named >> HK_SLAB_SHIFT > INT32_MAX)
		return HK_ERROR_ADDRESS_SPACE;
	if (!named) {
		size = ADDRESS_SPACE_DEFAULT * MIB;
		if (platform->address_space && platform->address_space < size)
			size = platform->address_space & ~(unit - 1);
	}
	memory->size = hk_round_up(size, unit);
	memory->base = named && large ? reserve_large(memory) : NULL;
	if (!memory->base)
		memory->base = reserve(memory);
	if (memory->base)
		return 0;
	while (!named && !memory->base && memory->size / 2 >= ADDRESS_SPACE_HALVED_MIN &&
	       memory->size / 2 >= unit) {
		memory->size = memory->size / 2 & ~(unit - 1);
		memory->base = reserve(memory);
	}
	if (!memory->base)
		return HK_ERROR_ADDRESS_SPACE;
	/* the system is short of address space: half of what it has is the host's */
	release(memory);
	if (memory->size / 2 >= unit)
		memory->size = memory->size / 2 & ~(unit - 1);
	memory->base = reserve(memory);
	return memory->base ? 0 : HK_ERROR_ADDRESS_SPACE;
}

static void set_section(struct hk_section *section, unsigned char *base, size_t offset, size_t size)
{
	section->base = base + offset;
	section->size = size;
}

/* Called before memory is committed: what is kept, though free, is given back. */
static void shrink(void *context)
{
	struct hk_arena *arena = context;

	hk_depot_shrink(&arena->depot);
}

/* Fills in the layers of an arena whose memory is zero. */
static void init_layers(struct hk_arena *arena, const struct layout *layout)
{
	unsigned char *base = arena->memory.base;

	arena->cache_slots_max = layout->caches_max;
	arena->space.memory = &arena->memory;
	arena->space.base = base + layout->slabs;
	arena->space.bitmaps = base + layout->bitmaps;
	arena->space.slabs_max = layout->slabs_max;
	arena->space.bitmap_group = layout->bitmap_group;
	set_section(&arena->space.classes, base, layout->classes, layout->classes_size);
	set_section(&arena->space.headers, base, layout->headers, layout->headers_size);
	arena->space.free.first = base + layout->headers + offsetof(struct hk_superslab, free);
	arena->space.free.stride = sizeof(struct hk_superslab);
	arena->space.ready.first = base + layout->headers + offsetof(struct hk_superslab, ready);
	arena->space.ready.stride = sizeof(struct hk_superslab);
	arena->space.shrink = shrink;
	arena->space.shrink_context = arena;
	arena->large.space = &arena->space;
	arena->slabs.space = &arena->space;
	arena->slabs.large = &arena->large;
	arena->depot.slabs = &arena->slabs;
	arena->depot.count_max = layout->magazines_max;
	set_section(&arena->depot.links, base, layout->links, layout->links_size);
	set_section(&arena->depot.magazines, base, layout->magazines, layout->magazines_size);
	hk_depot_reset(&arena->depot);
}

/* The arena's own limit, within the budget that the host named. */
static int init_budget(struct hk_budget *own, const struct hk_arena_config *config)
{
	const struct hk_budget_config limits = {
		.parent = config->budget,
		.limit = config->limit,
		.soft_limit = config->soft_limit,
		.context = config->context,
		.on_pressure = config->on_pressure,
	};

	return hk_budget_init(own, &limits);
}

int hk_arena_create(struct hk_arena **result, const struct hk_arena_config *config)
{
	static const struct hk_arena_config defaults;
	struct hk_reporter reporter = { 0 };
	struct hk_memory memory = { .reporter = &reporter };
	struct hk_section caches = { 0 };
	struct layout layout;
	struct hk_arena *arena;
	size_t reserve;
	int error;

	*result = NULL;
	if (!config)
		config = &defaults;
	if (config->max_caches > 1u << 20)
		return HK_ERROR_ARGUMENT;
	if (config->platform)
		memory.platform = *config->platform;
	else if (hk_platform_system(&memory.platform))
		return HK_ERROR_PLATFORM;
	error = check_platform(&memory.platform);
	if (error)
		return error;
	reserve = config->reserve / HK_SLAB_SIZE + (config->reserve % HK_SLAB_SIZE != 0);
	if (reserve > UINT32_MAX)
		return HK_ERROR_ARGUMENT;
	error = init_budget(&memory.own, config);
	if (error)
		return error;
	reporter.budget = &memory.own;
	error = reserve_range(&memory, config->address_space, config->large_pages);
	if (error)
		goto out_leave;
	error = HK_ERROR_ADDRESS_SPACE;
	if (!lay_out(&layout, &memory, config->max_caches))
		goto out_release;
	set_section(&caches, memory.base, layout.caches, layout.caches_size);
	error = hk_section_grow(&memory, &caches, sizeof(*arena));
	if (error)
		goto out_release;

	/* zero, as a section is; what an arena never uses of it need not be touched */
	arena = (struct hk_arena *)(void *)memory.base;
	hk_memory_init(&arena->memory, &memory, &arena->reporter);
	arena->caches = caches;
	arena->reporter.arena = arena;
	arena->reporter.name = config->name ? config->name : "";
	arena->reporter.context = config->context;
	arena->reporter.on_report = config->on_report;
	arena->reporter.budget = &arena->memory.own;
	arena->context = config->context;
	arena->on_oom = config->on_oom;
	init_layers(arena, &layout);
	if (config->large_pages && memory.platform.large_pages) {
		hk_memory_count_call(&arena->memory);
		memory.platform.large_pages(memory.platform.context, arena->space.base,
					    layout.slabs_max * HK_SLAB_SIZE, true);
		/* what a move leaves would have small pages for ever, and a mapping of its own */
		arena->memory.platform.move = NULL;
		if (memory.platform.decommit_large)
			arena->memory.platform.decommit = memory.platform.decommit_large;
	}
	arena->upkeep.delay = config->maintain_delay ? config->maintain_delay : DELAY_DEFAULT;
	arena->reserve_slabs = (uint32_t)reserve;
	error = hk_reserve_fill(&arena->space, arena->reserve_slabs, false);
	if (error) {
		/* the host hears of it by the error, not of an arena that it does not know */
		atomic_store(&arena->reporter.pressed, 0);
		hk_arena_destroy(arena);
		return error;
	}
	*result = arena;
	/* what was charged so far may have come to a soft limit */
	hk_reporter_press(&arena->reporter, atomic_load(&reporter.pressed));
	hk_reporter_flush(&arena->reporter);
	return 0;

out_release:
	release(&memory);
out_leave:
	hk_budget_leave(memory.own.parent, 0); /* nothing is charged by now */
	return error;
}

void hk_arena_reset(struct hk_arena *arena)
{
	uint32_t slot;

	hk_depot_reset(&arena->depot);
	hk_slab_reset(&arena->slabs);
	hk_large_reset(&arena->large);
	hk_superslabs_reset(&arena->space);
	for (slot = 0; slot < arena->cache_slots; slot++)
		if (hk_arena_front(arena, slot)->alive)
			hk_front_reset(hk_arena_front(arena, slot));
	hk_reserve_fill(&arena->space, arena->reserve_slabs, true);
}

/* A cache gives up all that it holds, what was set aside too. */
static void empty(struct hk_front *front, bool to_depot)
{
	hk_front_flush(front, to_depot);
	hk_front_drop_stash(front);
	hk_large_drop_stash(&front->arena->large, &front->large);
}

struct leak_walk {
	struct hk_reporter *reporter;
	unsigned left;
};

static bool report_leak(void *context, void *block, size_t size, unsigned size_class)
{
	struct leak_walk *walk = context;
	struct hk_report report = {
		.fault = HK_FAULT_LEAK,
		.what = "this block was still live when its arena was destroyed",
		.address = block,
		.size = size,
		.count = 1,
		.size_class = size_class,
	};

	hk_report(walk->reporter, &report);
	return --walk->left;
}

static void report_leaks(struct hk_arena *arena)
{
	struct leak_walk walk = { &arena->reporter, LEAKS_TOLD };
	struct hk_report report = {
		.fault = HK_FAULT_LEAK,
		.what = "blocks were still live when their arena was destroyed",
		.size = arena->large.slabs * HK_SLAB_SIZE,
		.count = arena->large.blocks,
	};
	unsigned size_class;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		size_t out = arena->slabs.classes[size_class].blocks_out;

		report.count += out;
		report.size += out * hk_class_size(size_class);
	}
	if (!report.count || !arena->reporter.on_report)
		return;
	hk_report(&arena->reporter, &report);
	hk_slab_walk(&arena->slabs, report_leak, &walk);
}

void hk_arena_destroy(struct hk_arena *arena)
{
	struct hk_platform platform;
	struct hk_budget *budget;
	size_t used;
	uint32_t slot;

	if (!arena)
		return;
	for (slot = 0; slot < arena->cache_slots; slot++)
		if (hk_arena_front(arena, slot)->alive)
			empty(hk_arena_front(arena, slot), false);
	hk_depot_drain(&arena->depot);
	hk_reporter_flush(&arena->reporter);
	report_leaks(arena);
	platform = arena->memory.platform;
	budget = arena->memory.own.parent;
	used = hk_arena_used(arena);
	platform.release(platform.context, arena->memory.base, arena->memory.size);
	hk_budget_leave(budget, used);
}

int hk_arena_set_limits(struct hk_arena *arena, size_t limit, size_t soft_limit)
{
	return hk_budget_set_limits(&arena->memory.own, limit, soft_limit);
}

/* One more or less is alive; caches lock held. */
static void count_cache(struct hk_arena *arena, int add)
{
	arena->cache_count += (size_t)add;
	atomic_store_explicit(&arena->depot.caches, (uint32_t)arena->cache_count,
			      memory_order_relaxed);
}

int hk_cache_create(struct hk_arena *arena, struct hk_cache **cache)
{
	struct hk_front *front = NULL;
	uint32_t slot;
	int error = 0;

	*cache = NULL;
	hk_caches_lock(arena);
	if (arena->cache_free) {
		slot = arena->cache_free - 1;
		arena->cache_free = hk_arena_front(arena, slot)->next_free;
	} else if (arena->cache_slots < arena->cache_slots_max) {
		slot = arena->cache_slots;
		error = hk_section_grow(&arena->memory, &arena->caches, hk_front_offset(slot + 1));
		if (error)
			goto out_unlock;
		arena->cache_slots++;
	} else {
		error = HK_ERROR_LIMIT;
		goto out_unlock;
	}
	front = hk_arena_front(arena, slot);
	memset(front, 0, sizeof(*front));
	hk_front_init(front, &arena->depot, arena);
	front->slot = slot;
	front->alive = true;
	count_cache(arena, 1);
	*cache = &front->hot;

out_unlock:
	hk_caches_unlock(arena);
	if (!error)
		hk_depot_reserve(&arena->depot);
	hk_reporter_flush(&arena->reporter);
	return error;
}

void hk_cache_flush(struct hk_cache *cache)
{
	empty(hk_front(cache), false);
	hk_reporter_flush(&hk_front(cache)->arena->reporter);
}

void hk_cache_destroy(struct hk_cache *cache)
{
	struct hk_front *front;
	struct hk_arena *arena;

	if (!cache)
		return;
	front = hk_front(cache);
	arena = front->arena;
	if (!front->alive) {
		hk_report_fault(&arena->reporter, HK_FAULT_ARGUMENT,
				"a cache was destroyed that is not alive", cache, 0);
		return;
	}
	/* the next cache begins with what this one had at hand */
	empty(front, true);
	hk_reporter_flush(&arena->reporter);
	hk_caches_lock(arena);
	hk_front_fold(front);
	arena->gone.spare_swap += front->spare_swap;
	arena->gone.free_null += front->free_null;
	arena->gone.refused += front->refused;
	arena->gone.exhausted += front->exhausted;
	front->alive = false;
	front->next_free = arena->cache_free;
	arena->cache_free = front->slot + 1;
	count_cache(arena, -1);
	hk_caches_unlock(arena);
}

size_t hk_arena_used(const struct hk_arena *arena)
{
	return hk_memory_committed(&arena->memory);
}
