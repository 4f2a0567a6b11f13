/* SPDX-License-Identifier: MIT */
/* The stock of magazines; see depot.h. */
#include <hakmem/depot.h>

static const struct hk_platform *platform_of(struct hk_depot *depot)
{
	return &depot->slabs->space->memory->platform;
}

static struct hk_stacks stacks_of(struct hk_depot *depot)
{
	struct hk_stacks stacks = { (struct hk_link *)(void *)depot->links.base,
				    platform_of(depot) };

	return stacks;
}

static void **magazine_at(struct hk_depot *depot, uint32_t index)
{
	return (void **)(void *)(depot->magazines.base + index * HK_MAGAZINE_BYTES);
}

static uint32_t index_of(struct hk_depot *depot, void **slot)
{
	return (uint32_t)((size_t)((unsigned char *)slot - depot->magazines.base) /
			  HK_MAGAZINE_BYTES);
}

static void depot_lock(struct hk_depot *depot)
{
	hk_lock_acquire(&depot->lock, platform_of(depot));
}

static void depot_unlock(struct hk_depot *depot)
{
	hk_lock_release(&depot->lock, platform_of(depot));
}

/* Magazines, with their links, that are committed and not yet carved. */
static void count_ahead(struct hk_depot *depot)
{
	size_t magazines = depot->magazines.committed / HK_MAGAZINE_BYTES;
	size_t links = depot->links.committed / sizeof(struct hk_link);
	size_t usable = magazines < links ? magazines : links;

	if (usable > depot->count_max)
		usable = depot->count_max;
	atomic_store_explicit(&depot->ahead, (uint32_t)usable - depot->count, memory_order_relaxed);
}

void hk_depot_grow(struct hk_depot *depot)
{
	struct hk_memory *memory = depot->slabs->space->memory;
	size_t count;

	depot_lock(depot);
	count = (size_t)depot->count + 2 * HK_MAGAZINES_AHEAD;
	if (count > depot->count_max)
		count = depot->count_max;
	if (!hk_section_grow(memory, &depot->links, count * sizeof(struct hk_link)))
		hk_section_grow(memory, &depot->magazines, count * HK_MAGAZINE_BYTES);
	count_ahead(depot);
	if (atomic_load_explicit(&depot->ahead, memory_order_relaxed) < HK_MAGAZINES_AHEAD)
		atomic_store_explicit(&depot->pause, HK_MAGAZINES_PAUSE, memory_order_relaxed);
	depot_unlock(depot);
}

/* Carves a magazine out of the section: its index plus one, or 0. */
static uint32_t carve(struct hk_depot *depot)
{
	uint32_t got = 0;

	if (!atomic_load_explicit(&depot->ahead, memory_order_relaxed))
		return 0;
	depot_lock(depot);
	if (atomic_load_explicit(&depot->ahead, memory_order_relaxed)) {
		got = ++depot->count;
		count_ahead(depot);
	}
	depot_unlock(depot);
	return got;
}

void **hk_magazine_get(struct hk_depot *depot, unsigned size_class)
{
	uint32_t got = hk_stack_pop(stacks_of(depot), &depot->empty);
	void **bottom;

	if (!got)
		got = carve(depot);
	if (!got)
		return NULL;
	bottom = hk_magazine_bottom(size_class, magazine_at(depot, got - 1));
	*bottom = NULL;
	return bottom;
}

void hk_magazine_put(struct hk_depot *depot, void **slot)
{
	hk_stack_push(stacks_of(depot), &depot->empty, index_of(depot, slot), UINT32_MAX);
}

void **hk_depot_get(struct hk_depot *depot, unsigned size_class)
{
	uint32_t got = hk_stack_pop(stacks_of(depot), &depot->full[size_class]);

	return got ? magazine_at(depot, got - 1) + HK_MAGAZINE_ROUNDS : NULL;
}

static uint32_t depth_max(unsigned size_class)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	size_t depth = 1;

	if (info->capacity)
		depth = HK_DEPOT_BYTES / ((size_t)info->size * info->capacity);
	return depth ? (uint32_t)depth : 1;
}

bool hk_depot_put(struct hk_depot *depot, unsigned size_class, void **slot)
{
	return hk_stack_push(stacks_of(depot), &depot->full[size_class], index_of(depot, slot),
			     depth_max(size_class));
}

size_t hk_magazine_drain(struct hk_depot *depot, unsigned size_class, void **top,
			 struct hk_bad *bad)
{
	size_t rounds = hk_magazine_rounds(top, hk_class_infos[size_class].capacity);

	return hk_slab_return(depot->slabs, top + 1 - rounds, rounds, bad);
}

void hk_depot_drain(struct hk_depot *depot)
{
	struct hk_reporter *reporter = depot->slabs->space->memory->reporter;
	struct hk_bad bad[HK_BATCH_MAX];
	unsigned size_class;
	void **top;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		while ((top = hk_depot_get(depot, size_class)) != NULL) {
			size_t refused = hk_magazine_drain(depot, size_class, top, bad);

			hk_magazine_put(depot, top);
			hk_report_bad(reporter, bad, refused);
		}
	}
}

size_t hk_depot_blocks(struct hk_depot *depot, unsigned size_class)
{
	return (size_t)hk_stack_depth(stacks_of(depot), &depot->full[size_class]) *
	       hk_class_infos[size_class].capacity;
}

void hk_depot_reset(struct hk_depot *depot)
{
	unsigned size_class;

	hk_stack_clear(&depot->empty);
	for (size_class = 1; size_class < HK_CLASSES; size_class++)
		hk_stack_clear(&depot->full[size_class]);
	depot->count = 0;
	atomic_store_explicit(&depot->pause, 0, memory_order_relaxed);
	count_ahead(depot);
}

void hk_depot_add_locks(struct hk_depot *depot, uint64_t *acquired, uint64_t *waited)
{
	unsigned size_class;

	hk_stack_add_lock(stacks_of(depot), &depot->empty, acquired, waited);
	for (size_class = 1; size_class < HK_CLASSES; size_class++)
		hk_stack_add_lock(stacks_of(depot), &depot->full[size_class], acquired, waited);
}

size_t hk_depot_trim(struct hk_depot *depot)
{
	struct hk_memory *memory = depot->slabs->space->memory;
	size_t freed;

	/* magazines once carved stay in use until a reset, so no link beyond is looked at */
	depot_lock(depot);
	freed = hk_section_shrink(memory, &depot->links, depot->count * sizeof(struct hk_link));
	freed += hk_section_shrink(memory, &depot->magazines, depot->count * HK_MAGAZINE_BYTES);
	count_ahead(depot);
	depot_unlock(depot);
	return freed;
}

/* One stack: depths count down, a full magazine has its rounds. */
static size_t check_stack(struct hk_depot *depot, struct hk_stack *stack, unsigned size_class,
			  size_t *magazines)
{
	struct hk_stacks stacks = stacks_of(depot);
	uint32_t next = (uint32_t)stack->head, depth = hk_stack_depth(stacks, stack);
	size_t broken = 0;

	for (; next; depth--) {
		struct hk_link *link = &stacks.links[next - 1];
		void **magazine = magazine_at(depot, next - 1);
		unsigned slot;

		if (next > depot->count || *magazines >= depot->count)
			return broken + 1;
		(*magazines)++;
		broken += atomic_load_explicit(&link->depth, memory_order_relaxed) != depth;
		for (slot = 0; size_class && slot < hk_class_infos[size_class].capacity; slot++)
			broken += !magazine[HK_MAGAZINE_ROUNDS - slot];
		next = atomic_load_explicit(&link->next, memory_order_relaxed);
	}
	return broken + (depth != 0);
}

size_t hk_depot_check(struct hk_depot *depot, size_t held)
{
	size_t magazines = 0, broken = check_stack(depot, &depot->empty, 0, &magazines);
	unsigned size_class;

	for (size_class = 1; size_class < HK_CLASSES; size_class++)
		broken += check_stack(depot, &depot->full[size_class], size_class, &magazines);
	return broken + (magazines + held != depot->count);
}
