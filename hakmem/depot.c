/* SPDX-License-Identifier: MIT */
/* The stock of magazines; see depot.h. */
#include <hakmem/depot.h>

/* Magazines drained between two looks at the clock: some 20 us. */
#define DRAIN_STEP 4u

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

/* Commits magazines until so many are ahead, as far as there may be: 0 or an error. Lock held. */
static int grow(struct hk_depot *depot, size_t ahead)
{
	struct hk_memory *memory = depot->slabs->space->memory;
	size_t count = depot->count + ahead;
	int error;

	if (count > depot->count_max)
		count = depot->count_max;
	error = hk_section_grow(memory, &depot->links, count * sizeof(struct hk_link));
	if (!error)
		error = hk_section_grow(memory, &depot->magazines, count * HK_MAGAZINE_BYTES);
	count_ahead(depot);
	return error;
}

void hk_depot_grow(struct hk_depot *depot)
{
	uint32_t missed;

	hk_depot_lock(depot);
	missed = atomic_load_explicit(&depot->missed, memory_order_relaxed);
	atomic_store_explicit(&depot->missed, 0, memory_order_relaxed);
	grow(depot, 2 * HK_MAGAZINES_AHEAD + missed);
	if (atomic_load_explicit(&depot->ahead, memory_order_relaxed) < HK_MAGAZINES_AHEAD)
		atomic_store_explicit(&depot->pause, HK_MAGAZINES_PAUSE, memory_order_relaxed);
	hk_depot_unlock(depot);
}

int hk_depot_warm(struct hk_depot *depot, size_t ahead)
{
	int error;

	hk_depot_lock(depot);
	error = grow(depot, ahead);
	hk_depot_unlock(depot);
	return error;
}

int hk_depot_populate(struct hk_depot *depot)
{
	struct hk_memory *memory = depot->slabs->space->memory;
	int error;

	hk_depot_lock(depot);
	error = hk_memory_populate(memory, depot->links.base, depot->links.committed);
	if (!error)
		error = hk_memory_populate(memory, depot->magazines.base,
					   depot->magazines.committed);
	hk_depot_unlock(depot);
	return error;
}

/* Carves a magazine out of the section: its index plus one, or 0. */
static uint32_t carve(struct hk_depot *depot)
{
	uint32_t got = 0;

	if (!atomic_load_explicit(&depot->ahead, memory_order_relaxed))
		return 0;
	hk_depot_lock(depot);
	if (atomic_load_explicit(&depot->ahead, memory_order_relaxed)) {
		got = ++depot->count;
		count_ahead(depot);
	}
	hk_depot_unlock(depot);
	return got;
}

static void **make_empty(struct hk_depot *depot, unsigned capacity, void **slot)
{
	void **bottom;

	/* a link shares its line with others' */
	if (hk_magazine_capacity(depot, slot) != capacity)
		atomic_store_explicit(&hk_depot_stacks(depot)
					       .links[hk_magazine_index(depot, slot)]
					       .capacity,
				      (uint16_t)capacity, memory_order_relaxed);
	bottom = hk_magazine(slot) + HK_MAGAZINE_ROUNDS - capacity;
	*bottom = NULL;
	return bottom;
}

void **hk_magazine_empty(struct hk_depot *depot, unsigned size_class, void **slot)
{
	unsigned capacity = hk_depot_capacity(depot, size_class);

	/* at least a round: whoever has a magazine puts blocks into it */
	return make_empty(depot, capacity + !capacity, slot);
}

void **hk_magazine_whole(struct hk_depot *depot, void **slot)
{
	return make_empty(depot, HK_MAGAZINE_ROUNDS, slot);
}

void **hk_magazine_get(struct hk_depot *depot, unsigned size_class)
{
	uint32_t got = hk_stack_pop(hk_depot_stacks(depot), &depot->empty), missed;

	if (!got)
		got = carve(depot);
	if (got)
		return hk_magazine_empty(depot, size_class, hk_magazine_at(depot, got - 1));
	missed = atomic_load_explicit(&depot->missed, memory_order_relaxed);
	if (missed < HK_MAGAZINES_SHORT)
		atomic_store_explicit(&depot->missed, missed + 1, memory_order_relaxed);
	return NULL;
}

void hk_magazine_put(struct hk_depot *depot, void **slot)
{
	hk_stack_push(hk_depot_stacks(depot), &depot->empty, hk_magazine_index(depot, slot), 0,
		      UINT32_MAX);
}

void **hk_depot_get(struct hk_depot *depot, unsigned size_class)
{
	uint32_t got = hk_stack_pop(hk_depot_stacks(depot), &depot->filled[size_class]), left;

	if (!got)
		return NULL;
	/* what its link says of those below it */
	left = atomic_load_explicit(&hk_depot_link(depot, got - 1)->depth, memory_order_relaxed) -
	       1;
	if (left < atomic_load_explicit(&depot->low[size_class], memory_order_relaxed))
		atomic_store_explicit(&depot->low[size_class], (uint16_t)left,
				      memory_order_relaxed);
	return hk_magazine_filled(depot, got - 1);
}

/* Bytes of a class that the depot may have at most. */
static size_t bytes_max(const struct hk_depot *depot)
{
	const struct hk_superslabs *space = depot->slabs->space;
	size_t most = (size_t)space->slabs_max * HK_SLAB_SIZE;
	size_t limit = hk_memory_limit(space->memory);

	if (most > limit)
		most = limit;
	most /= HK_DEPOT_PART;
	if (most < HK_DEPOT_BYTES)
		return HK_DEPOT_BYTES;
	return most < HK_DEPOT_BYTES_MAX ? most : HK_DEPOT_BYTES_MAX;
}

/* Rounds that a magazine may have: of a class that has some at first, more; of others, any. */
static size_t rounds_of_small(const struct hk_depot *depot, const struct hk_class_info *info,
			      size_t live)
{
	size_t all = hk_space_used(depot->slabs->space) * HK_SLAB_SIZE;
	size_t rounds = live / HK_MAGAZINE_PART, most = HK_MAGAZINE_BYTES_MAX / info->size;

	if (rounds < all / HK_MAGAZINE_PART_ALL / info->size)
		rounds = all / HK_MAGAZINE_PART_ALL / info->size;
	if (rounds > most)
		rounds = most;
	return rounds < info->capacity ? info->capacity : rounds;
}

/* Where the range is small, half: what is held back breaks runs that others could have. */
static size_t rounds_of_medium(const struct hk_depot *depot, const struct hk_class_info *info,
			       size_t live)
{
	bool is_small = bytes_max(depot) < HK_DEPOT_BYTES_MAX;
	size_t caches = atomic_load_explicit(&depot->caches, memory_order_relaxed);
	size_t rounds = live / HK_MAGAZINE_PART_MEDIUM / (caches + !caches);
	size_t most = is_small ? HK_MAGAZINE_BYTES_MAX : HK_DEPOT_BYTES_MAX;

	rounds = is_small ? rounds / 2 : rounds;
	return rounds < most / info->size ? rounds : most / info->size;
}

void hk_depot_fit(struct hk_depot *depot, unsigned size_class)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	size_t live = atomic_load_explicit(&depot->slabs->classes[size_class].blocks_out,
					   memory_order_relaxed);
	size_t rounds = info->capacity ? rounds_of_small(depot, info, live)
				       : rounds_of_medium(depot, info, live);

	if (rounds > HK_MAGAZINE_ROUNDS)
		rounds = HK_MAGAZINE_ROUNDS;
	if (rounds != hk_depot_capacity(depot, size_class))
		atomic_store_explicit(&depot->capacity[size_class], (uint8_t)rounds,
				      memory_order_relaxed);
}

/* Rounds of a magazine that the depth counts in: as they are at first. */
static unsigned unit_of(unsigned size_class)
{
	unsigned capacity = hk_class_infos[size_class].capacity;

	return capacity ? capacity : 1;
}

/* Magazines of a class that have so many bytes. */
static uint16_t depth_of(unsigned size_class, size_t bytes)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	size_t depth = bytes / ((size_t)info->size * unit_of(size_class));

	if (depth > HK_DEPOT_DEPTH_MAX)
		depth = HK_DEPOT_DEPTH_MAX;
	/* medium blocks stand in the way of others where there is little room */
	if (!info->capacity)
		return bytes > HK_DEPOT_BYTES ? (uint16_t)depth : 0;
	return depth ? (uint16_t)depth : 1;
}

bool hk_depot_put(struct hk_depot *depot, unsigned size_class, void **top)
{
	size_t rounds = hk_magazine_rounds(depot, top);
	uint32_t most = atomic_load_explicit(&depot->depth_max[size_class], memory_order_relaxed);
	unsigned unit = unit_of(size_class), capacity = hk_magazine_capacity(depot, top), away;

	if (HK_UNLIKELY(capacity > unit))
		most = most * unit / capacity + (most && most * unit < capacity);
	if (hk_stack_push(hk_depot_stacks(depot), &depot->filled[size_class],
			  hk_magazine_index(depot, top), (uint32_t)rounds, most))
		return true;
	away = atomic_load_explicit(&depot->turned_away[size_class], memory_order_relaxed);
	if (away < UINT16_MAX)
		atomic_store_explicit(&depot->turned_away[size_class], (uint16_t)(away + 1),
				      memory_order_relaxed);
	return false;
}

void hk_depot_take_back(struct hk_depot *depot, unsigned size_class, void **top)
{
	struct hk_bad bad[HK_BATCH_MAX];
	size_t refused;

	if (hk_depot_put(depot, size_class, top))
		return;
	refused = hk_magazine_drain(depot, top, bad);
	hk_magazine_put(depot, top);
	hk_report_bad(depot->slabs->space->memory->reporter, bad, refused);
}

/*
 * The same of a class that has shown that this is too little, see hk_depot_missed(): as much as is
 * in use outside the depot, about, where the range is not small. `varsize`, with blocks of all
 * sizes, so takes half the page faults: blocks that come back are the next ones, not others.
 */
static size_t bytes_in_use(struct hk_depot *depot, unsigned size_class)
{
	size_t most = bytes_max(depot);
	size_t out = atomic_load_explicit(&depot->slabs->classes[size_class].blocks_out,
					  memory_order_relaxed) *
		     hk_class_size(size_class) / 2;

	/* @out has those in the depot too: up to half of them are these */
	return most > HK_DEPOT_BYTES && out > most ? out : most;
}

void hk_depot_missed(struct hk_depot *depot, unsigned size_class)
{
	uint32_t away, depth, more, most;

	away = atomic_load_explicit(&depot->turned_away[size_class], memory_order_relaxed);
	if (HK_LIKELY(!away))
		return;
	depth = atomic_load_explicit(&depot->depth_max[size_class], memory_order_relaxed);
	most = depth_of(size_class, bytes_in_use(depot, size_class));
	more = depth ? 2 * depth : 1;
	if (more > most)
		more = most;
	if (depth < most)
		atomic_store_explicit(&depot->depth_max[size_class], (uint16_t)more,
				      memory_order_relaxed);
	/* what the new depth has room for is not turned away next time */
	away = depth < most && away > more - depth ? away - (more - depth) : 0;
	atomic_store_explicit(&depot->turned_away[size_class], (uint16_t)away,
			      memory_order_relaxed);
}

/*
 * Drains a class down to @blocks, at most @most magazines: how many. In blocks, since magazines
 * hold more or less.
 */
static uint32_t drain_to(struct hk_depot *depot, unsigned size_class, size_t blocks, uint32_t most)
{
	struct hk_stacks stacks = hk_depot_stacks(depot);
	struct hk_reporter *reporter = depot->slabs->space->memory->reporter;
	struct hk_bad bad[HK_BATCH_MAX];
	uint32_t drained;
	void **top;

	for (drained = 0; drained < most; drained++) {
		size_t refused;

		if (hk_stack_size(stacks, &depot->filled[size_class]).blocks <= blocks)
			break;
		top = hk_depot_get(depot, size_class);
		if (!top)
			break;
		refused = hk_magazine_drain(depot, top, bad);
		hk_magazine_put(depot, top);
		hk_report_bad(reporter, bad, refused);
	}
	return drained;
}

bool hk_depot_is_excess(struct hk_depot *depot)
{
	size_t most = hk_memory_committed(depot->slabs->space->memory) / HK_DEPOT_SHARE;
	unsigned size_class;
	size_t excess = 0;

	for (size_class = 1; size_class < HK_CLASSES && excess <= most; size_class++) {
		size_t bytes = hk_depot_blocks(depot, size_class) * hk_class_size(size_class);

		if (bytes > HK_DEPOT_BYTES)
			excess += bytes - HK_DEPOT_BYTES;
	}
	return excess > most;
}

void hk_depot_shrink(struct hk_depot *depot)
{
	uint32_t left = HK_DEPOT_STEP;
	unsigned tries;

	if (!hk_depot_is_excess(depot))
		return;
	for (tries = 1; left && tries < HK_CLASSES; tries++) {
		unsigned size_class = 1 + atomic_load_explicit(&depot->way, memory_order_relaxed) %
						  (HK_CLASSES - 1);
		uint16_t first = depth_of(size_class, HK_DEPOT_BYTES);
		size_t blocks = (size_t)first * unit_of(size_class);

		if (hk_depot_blocks(depot, size_class) > blocks) {
			/* first, so that nobody fills it up again meanwhile */
			atomic_store_explicit(&depot->depth_max[size_class], first,
					      memory_order_relaxed);
			left -= drain_to(depot, size_class, blocks, left);
		}
		if (left)
			atomic_store_explicit(&depot->way, size_class, memory_order_relaxed);
	}
}

size_t hk_magazine_drain(struct hk_depot *depot, void **top, struct hk_bad *bad)
{
	size_t rounds = hk_magazine_rounds(depot, top);

	return hk_slab_return(depot->slabs, top + 1 - rounds, rounds, bad);
}

bool hk_depot_drain_in(struct hk_depot *depot, struct hk_deadline deadline)
{
	uint32_t step = deadline.end_ns ? DRAIN_STEP : UINT32_MAX, drained = 0;
	unsigned size_class;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		atomic_store_explicit(&depot->depth_max[size_class],
				      depth_of(size_class, HK_DEPOT_BYTES), memory_order_relaxed);
		for (;;) {
			drained += drain_to(depot, size_class, 0, step - drained);
			if (drained < step)
				break;
			if (hk_deadline_over(depot->slabs->space->memory, deadline))
				return false;
			drained = 0;
		}
	}
	return true;
}

void hk_depot_drain(struct hk_depot *depot)
{
	const struct hk_deadline never = { 0 };

	hk_depot_drain_in(depot, never);
}

size_t hk_depot_blocks(struct hk_depot *depot, unsigned size_class)
{
	return hk_stack_size(hk_depot_stacks(depot), &depot->filled[size_class]).blocks;
}

static void init_depths(struct hk_depot *depot)
{
	size_t bytes = bytes_max(depot);
	unsigned size_class;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		atomic_store_explicit(&depot->depth_max[size_class], depth_of(size_class, bytes),
				      memory_order_relaxed);
		atomic_store_explicit(&depot->turned_away[size_class], 0, memory_order_relaxed);
		atomic_store_explicit(&depot->low[size_class], 0, memory_order_relaxed);
		atomic_store_explicit(&depot->refilled[size_class], 0, memory_order_relaxed);
		depot->stock.excess[size_class] = 0;
		atomic_store_explicit(&depot->stashed[size_class], 0, memory_order_relaxed);
		atomic_store_explicit(&depot->capacity[size_class],
				      hk_class_infos[size_class].capacity, memory_order_relaxed);
	}
	atomic_store_explicit(&depot->way, 0, memory_order_relaxed);
}

void hk_depot_reset(struct hk_depot *depot)
{
	unsigned size_class;

	hk_stack_clear(&depot->empty);
	for (size_class = 1; size_class < HK_CLASSES; size_class++)
		hk_stack_clear(&depot->filled[size_class]);
	init_depths(depot);
	depot->count = 0;
	atomic_store_explicit(&depot->pause, 0, memory_order_relaxed);
	atomic_store_explicit(&depot->missed, 0, memory_order_relaxed);
	count_ahead(depot);
}

void hk_depot_add_locks(struct hk_depot *depot, uint64_t *acquired, uint64_t *waited)
{
	unsigned size_class;

	hk_stack_add_lock(hk_depot_stacks(depot), &depot->empty, acquired, waited);
	for (size_class = 1; size_class < HK_CLASSES; size_class++)
		hk_stack_add_lock(hk_depot_stacks(depot), &depot->filled[size_class], acquired,
				  waited);
}

size_t hk_depot_trim(struct hk_depot *depot, struct hk_deadline deadline)
{
	struct hk_memory *memory = depot->slabs->space->memory;
	size_t freed;

	/* magazines once carved stay in use until a reset, so no link beyond is looked at */
	hk_depot_lock(depot);
	freed = hk_section_trim(memory, &depot->links, depot->count * sizeof(struct hk_link),
				deadline);
	if (hk_deadline_allows(memory, deadline, freed))
		freed += hk_section_trim(memory, &depot->magazines,
					 depot->count * HK_MAGAZINE_BYTES, deadline);
	count_ahead(depot);
	hk_depot_unlock(depot);
	return freed;
}

/* One stack: what the links say of depth and blocks adds up, a magazine has its rounds. */
static size_t check_stack(struct hk_depot *depot, struct hk_stack *stack, unsigned size_class,
			  size_t *magazines)
{
	struct hk_stacks stacks = hk_depot_stacks(depot);
	struct hk_stack_size size = hk_stack_size(stacks, stack);
	uint32_t next = (uint32_t)stack->head;
	size_t broken = 0;

	for (; next; size.depth--) {
		struct hk_link *link = &stacks.links[next - 1];
		void **bottom;
		uint32_t slot;

		if (next > depot->count || *magazines >= depot->count ||
		    link->capacity > HK_MAGAZINE_ROUNDS)
			return broken + 1;
		bottom = hk_magazine_bottom(depot, hk_magazine_at(depot, next - 1));
		(*magazines)++;
		broken += atomic_load_explicit(&link->depth, memory_order_relaxed) != size.depth;
		broken += atomic_load_explicit(&link->blocks, memory_order_relaxed) != size.blocks;
		broken += (link->rounds != 0) != (size_class != 0) || link->rounds > link->capacity;
		for (slot = 1; slot <= link->rounds && slot <= HK_MAGAZINE_ROUNDS; slot++)
			broken += !bottom[slot];
		size.blocks -= link->rounds;
		next = atomic_load_explicit(&link->next, memory_order_relaxed);
	}
	return broken + (size.depth != 0) + (size.blocks != 0);
}

size_t hk_depot_check(struct hk_depot *depot, size_t held)
{
	size_t magazines = 0, broken = check_stack(depot, &depot->empty, 0, &magazines);
	unsigned size_class;

	for (size_class = 1; size_class < HK_CLASSES; size_class++)
		broken += check_stack(depot, &depot->filled[size_class], size_class, &magazines);
	return broken + (magazines + held != depot->count);
}
