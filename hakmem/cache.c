/* SPDX-License-Identifier: MIT */
/* What a cache does when the magazine at hand cannot serve; see cache.h. */
#include <hakmem/cache.h>
#include <string.h>

/* So often a class goes without a magazine; then the first batch has so many blocks. */
#define BATCH_FIRST 4u

#define CACHE_LINE 64u
#define BATCH_FIRST_BYTES (2 * CACHE_LINE) /* and so many bytes: some fetch lines in pairs */

/*
 * The magazine of classes that have none yet: empty, as its slots are NULL, and full, as top
 * points to its last slot. Never written.
 */
static _Alignas(HK_MAGAZINE_BYTES) void *const no_magazine[HK_MAGAZINE_SLOTS];

static void **no_top(void)
{
	return (void **)(uintptr_t)&no_magazine[HK_MAGAZINE_SLOTS - 1];
}

static bool is_none(void **top)
{
	return top == no_top();
}

static bool is_empty(void **top)
{
	return !*top;
}

static bool is_full(void **top)
{
	return !((uintptr_t)(top + 1) & (HK_MAGAZINE_BYTES - 1));
}

static void set_top(struct hk_front *front, unsigned size_class, void **top)
{
	HK_STORE_TOP(&front->hot.top[size_class], top);
}

static void set_spare(struct hk_front *front, unsigned size_class, void **top)
{
	HK_STORE_TOP(&front->spare[size_class], top);
}

/* Moves a count; only the owner changes the small one. */
static void fold(uint64_t *sum, _Atomic uint16_t *counter)
{
	unsigned count = atomic_load_explicit(counter, memory_order_relaxed);

	if (!count)
		return;
	*sum += count;
	atomic_store_explicit(counter, 0, memory_order_relaxed);
}

void hk_front_fold(struct hk_front *front)
{
	struct hk_depot *depot = front->depot;
	const struct hk_platform *platform = &depot->slabs->space->memory->platform;
	unsigned size_class;

	hk_lock_acquire(&depot->lock, platform);
	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		fold(&depot->gets[size_class], &front->gets[size_class]);
		fold(&depot->puts[size_class], &front->puts[size_class]);
	}
	hk_lock_release(&depot->lock, platform);
}

/*
 * Counts an exchange with the depot. The counters are small: long before they are full, their
 * counts go to the depot's.
 */
static void count_exchange(struct hk_front *front, _Atomic uint16_t *counter)
{
	unsigned count = atomic_load_explicit(counter, memory_order_relaxed) + 1u;

	atomic_store_explicit(counter, (uint16_t)count, memory_order_relaxed);
	if (count >> 15)
		hk_front_fold(front);
}

void hk_front_reset(struct hk_front *front)
{
	unsigned index;

	for (index = 0; index < HK_TOPS; index++)
		set_top(front, index, no_top());
	for (index = 0; index < HK_CLASSES; index++)
		set_spare(front, index, no_top());
	front->stash = 0;
	front->large = 0;
	front->rest = 0;
	front->resting = false;
	front->hot.bound = 0;
	front->stage = HK_STAGE_HIT;
}

void hk_front_init(struct hk_front *front, struct hk_depot *depot, struct hk_arena *arena)
{
	struct hk_superslabs *space = depot->slabs->space;

	front->hot.base = (uintptr_t)space->base;
	front->hot.classes = space->classes.base;
	front->depot = depot;
	front->arena = arena;
	hk_front_reset(front);
}

void hk_front_refresh(struct hk_front *front)
{
	front->hot.bound = hk_space_bound(front->depot->slabs->space);
}

static void note_refused(struct hk_front *front, const struct hk_bad *bad, size_t refused)
{
	if (!refused)
		return;
	atomic_store_explicit(&front->refused,
			      atomic_load_explicit(&front->refused, memory_order_relaxed) + refused,
			      memory_order_relaxed);
	hk_report_bad(front->depot->slabs->space->memory->reporter, bad, refused);
}

void hk_front_return(struct hk_front *front, void *const *blocks, size_t count)
{
	struct hk_bad bad[HK_BATCH_MAX];

	hk_front_note(front, HK_STAGE_SLAB);
	note_refused(front, bad, hk_slab_return(front->depot->slabs, blocks, count, bad));
}

/* Returns a magazine's blocks to their slabs. The caller has set its top to the bottom first. */
static void drain(struct hk_front *front, void **top)
{
	struct hk_bad bad[HK_BATCH_MAX];

	hk_front_note(front, HK_STAGE_SLAB);
	note_refused(front, bad, hk_magazine_drain(front->depot, top, bad));
}

/*
 * Whether a class is cold: this worker has hardly used it. A block then goes to and from its
 * slab directly: no magazine, no page of its own, nothing kept that another could use. Not so
 * where blocks share cache lines: workers that begin together would take them in turns, while
 * batches from the first one on have their lines for themselves.
 */
static bool is_cold(struct hk_front *front, unsigned size_class)
{
	if (front->batch[size_class] >= BATCH_FIRST || hk_class_size(size_class) < CACHE_LINE)
		return false;
	front->batch[size_class]++;
	return true;
}

/* A magazine for a class that has none; NULL: it does without. */
static void **first_magazine(struct hk_front *front, unsigned size_class)
{
	if (!hk_depot_capacity(front->depot, size_class) || is_cold(front, size_class))
		return NULL;
	hk_front_note(front, HK_STAGE_DEPOT);
	return hk_magazine_get(front->depot, size_class);
}

/* How many blocks to take from the slabs for a magazine: few to begin with, then twice as many. */
static size_t next_batch(struct hk_front *front, unsigned size_class, unsigned capacity)
{
	unsigned most = capacity + 1u, batch = front->batch[size_class];
	unsigned pair = BATCH_FIRST_BYTES / (unsigned)hk_class_size(size_class);

	if (batch < BATCH_FIRST)
		batch = pair > BATCH_FIRST ? pair : BATCH_FIRST;
	/* never below the first batch again, which would mean a class that is cold */
	front->batch[size_class] = (uint8_t)(batch < most ? 2 * batch : batch);
	return batch < most ? batch : most;
}

/* Returns a magazine that was set aside to the slabs. */
static void drop_stashed(struct hk_front *front, unsigned size_class)
{
	void **top = hk_stash_pop(front->depot, &front->stash, size_class);

	drain(front, top);
	hk_magazine_put(front->depot, top);
}

/* An empty magazine, committed if need be; NULL: no memory. */
static void **new_magazine(struct hk_front *front, unsigned size_class)
{
	void **empty = hk_magazine_get(front->depot, size_class);

	if (empty)
		return empty;
	hk_depot_grow(front->depot);
	return hk_magazine_get(front->depot, size_class);
}

/* Sets a magazine aside, with @want blocks or as many as it may have: false: no memory. */
static bool prefill_one(struct hk_front *front, unsigned size_class, size_t want)
{
	struct hk_depot *depot = front->depot;
	void **bottom = new_magazine(front, size_class);
	unsigned capacity;
	size_t got;

	if (!bottom)
		return false;
	capacity = hk_magazine_capacity(depot, bottom);
	got = hk_slab_take(depot->slabs, size_class, bottom + 1, want < capacity ? want : capacity,
			   NULL);
	if (got)
		hk_stash_push(depot, &front->stash, size_class, bottom + got);
	else
		hk_magazine_put(depot, bottom);
	return got != 0;
}

bool hk_front_prefill(struct hk_front *front, unsigned size_class, size_t count)
{
	size_t before = hk_stash_blocks(front->depot, front->stash, size_class), have = before;

	while (have < count && prefill_one(front, size_class, count - have))
		have = hk_stash_blocks(front->depot, front->stash, size_class);
	hk_front_refresh(front);
	if (have >= count)
		return true;
	while (hk_stash_blocks(front->depot, front->stash, size_class) > before)
		drop_stashed(front, size_class);
	return false;
}

void hk_front_drop_stash(struct hk_front *front)
{
	while (front->stash)
		drop_stashed(front, hk_stash_class(front->depot, front->stash));
}

/*
 * A batch from the slabs, straight into the magazine: the last block, which lies where its NULL is,
 * is the caller's, and the lowest is on top, so that blocks leave in the order of their addresses.
 */
static void *refill_from_slabs(struct hk_front *front, unsigned size_class)
{
	struct hk_depot *depot = front->depot;
	struct hk_slab_marks marks = hk_slab_marks(depot->slabs, size_class);
	void **top = front->hot.top[size_class], *block = NULL;
	size_t count = 1;

	hk_depot_reserve(depot);
	hk_depot_missed(depot, size_class);
	hk_depot_fit(depot, size_class);
	top = is_none(top) ? first_magazine(front, size_class)
			   : hk_magazine_empty(depot, size_class, top);
	if (!top) {
		count = hk_slab_take(depot->slabs, size_class, &block, 1, NULL);
	} else {
		/* of the largest, only what comes back is kept at hand */
		if (hk_class_infos[size_class].capacity)
			count = next_batch(front, size_class, hk_magazine_capacity(depot, top));
		count = hk_slab_take(depot->slabs, size_class, top, count, NULL);
		if (count)
			block = *top;
		*top = NULL;
		set_top(front, size_class, count ? top + count - 1 : top);
	}
	hk_depot_refilled(depot, size_class, count);
	hk_front_note(front, hk_slab_stage(depot->slabs, size_class, marks));
	if (count)
		hk_front_refresh(front);
	return block;
}

/* Of a magazine that was laid down: it was the spare one. */
#define MARK_SPARE 256u

/* An empty magazine is nobody's. */
static void lay_down(struct hk_front *front, uint32_t *list, uint32_t mark, void **top)
{
	struct hk_depot *depot = front->depot;

	if (is_none(top))
		return;
	if (is_empty(top)) {
		hk_magazine_put(depot, top);
		return;
	}
	hk_rest_push(depot, list, mark, top);
	atomic_fetch_add_explicit(&depot->stashed[mark % MARK_SPARE],
				  (uint32_t)hk_magazine_rounds(depot, top), memory_order_relaxed);
}

void hk_front_rest(struct hk_front *front, uint32_t now)
{
	uint32_t list = 0;
	unsigned size_class;

	if (front->resting)
		return;
	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		void **top = front->hot.top[size_class], **spare = front->spare[size_class];

		set_top(front, size_class, no_top());
		set_spare(front, size_class, no_top());
		lay_down(front, &list, size_class, top);
		lay_down(front, &list, size_class + MARK_SPARE, spare);
	}
	front->resting = true;
	hk_depot_lock(front->depot);
	front->rest = list;
	front->rested = now;
	hk_depot_unlock(front->depot);
}

/* One that was laid down; NULL: none is left. Depot's lock held. */
static void **pick_up(struct hk_front *front, uint32_t *mark)
{
	struct hk_depot *depot = front->depot;
	void **top;

	if (!front->rest)
		return NULL;
	top = hk_rest_pop(depot, &front->rest, mark);
	atomic_fetch_sub_explicit(&depot->stashed[*mark % MARK_SPARE],
				  (uint32_t)hk_magazine_rounds(depot, top), memory_order_relaxed);
	return top;
}

/* The cache is used again. */
static void take_up(struct hk_front *front)
{
	uint32_t mark;
	void **top;

	front->resting = false;
	hk_front_note(front, HK_STAGE_DEPOT);
	hk_depot_lock(front->depot);
	while ((top = pick_up(front, &mark))) {
		if (mark & MARK_SPARE)
			set_spare(front, mark % MARK_SPARE, top);
		else
			set_top(front, mark, top);
	}
	hk_depot_unlock(front->depot);
	hk_front_refresh(front);
}

bool hk_front_rested(struct hk_front *front, uint32_t *since)
{
	bool any;

	hk_depot_lock(front->depot);
	any = front->rest != 0;
	*since = front->rested;
	hk_depot_unlock(front->depot);
	return any;
}

void **hk_front_take_rest(struct hk_front *front, unsigned *size_class)
{
	uint32_t mark = 0;
	void **top;

	hk_depot_lock(front->depot);
	top = pick_up(front, &mark);
	hk_depot_unlock(front->depot);
	*size_class = mark % MARK_SPARE;
	return top;
}

static void *refill(struct hk_front *front, unsigned size_class)
{
	void **top = front->hot.top[size_class], **spare = front->spare[size_class], **full;
	void *block;

	if (HK_UNLIKELY(front->resting)) {
		take_up(front);
		return hk_front_alloc(front, size_class);
	}
	if (!is_empty(spare)) {
		set_spare(front, size_class, top);
		hk_count(&front->spare_swap);
		hk_front_note(front, HK_STAGE_SPARE);
	} else {
		/* one by one: in a magazine frees and flushes would come upon them */
		block = hk_stash_take(front->depot, &front->stash, size_class);
		if (block) {
			hk_front_note(front, HK_STAGE_SPARE);
			return block;
		}
		full = hk_depot_get(front->depot, size_class);
		if (!full)
			return refill_from_slabs(front, size_class);
		count_exchange(front, &front->gets[size_class]);
		hk_front_note(front, HK_STAGE_DEPOT);
		if (is_none(spare))
			set_spare(front, size_class, top);
		else if (!is_none(top))
			hk_magazine_put(front->depot, top);
		spare = full;
		hk_front_refresh(front);
	}
	set_top(front, size_class, spare - 1);
	return *spare;
}

/* Both magazines are full: makes room by giving the spare to the depot or to the slabs. */
static void **make_room(struct hk_front *front, unsigned size_class)
{
	void **top = front->hot.top[size_class], **spare = front->spare[size_class], **empty;

	empty = hk_magazine_get(front->depot, size_class);
	if (empty && !is_none(spare)) {
		if (hk_depot_put(front->depot, size_class, spare)) {
			count_exchange(front, &front->puts[size_class]);
			hk_front_note(front, HK_STAGE_DEPOT);
		} else {
			hk_magazine_put(front->depot, empty);
			empty = NULL;
		}
	}
	if (empty) {
		set_spare(front, size_class, top);
		set_top(front, size_class, empty);
		return empty;
	}
	/* no magazine to be had, or enough in the depot: the older one goes to the slabs */
	if (is_none(spare)) {
		empty = hk_magazine_bottom(front->depot, top);
		set_top(front, size_class, empty);
		drain(front, top);
		return empty;
	}
	empty = hk_magazine_bottom(front->depot, spare);
	set_spare(front, size_class, top);
	set_top(front, size_class, empty);
	drain(front, spare);
	return empty;
}

void hk_front_push(struct hk_front *front, unsigned size_class, void *ptr)
{
	void **top = front->hot.top[size_class], **spare = front->spare[size_class];

	if (HK_UNLIKELY(front->resting)) {
		take_up(front);
		hk_front_push(front, size_class, ptr);
		return;
	}
	if (!is_full(top)) {
		/* the class table was longer than this cache knew */
	} else if (is_none(top)) {
		top = first_magazine(front, size_class);
		if (!top) {
			hk_front_return(front, &ptr, 1);
			return;
		}
	} else if (!is_full(spare)) {
		set_spare(front, size_class, top);
		top = spare;
		hk_count(&front->spare_swap);
		hk_front_note(front, HK_STAGE_SPARE);
	} else {
		top = make_room(front, size_class);
	}
	*++top = ptr;
	set_top(front, size_class, top);
}

/* Whether the depot takes a magazine as it is: one that is worth an exchange. */
static bool pass_on(struct hk_front *front, unsigned size_class, void **top)
{
	unsigned capacity = hk_magazine_capacity(front->depot, top);

	if (hk_magazine_rounds(front->depot, top) < capacity / 4 + 1u ||
	    !hk_depot_put(front->depot, size_class, top))
		return false;
	count_exchange(front, &front->puts[size_class]);
	return true;
}

static void give_magazine(struct hk_front *front, unsigned size_class, void **top, bool to_depot)
{
	if (is_none(top) || (to_depot && pass_on(front, size_class, top)))
		return;
	drain(front, top);
	hk_magazine_put(front->depot, top);
}

void hk_front_flush(struct hk_front *front, bool to_depot)
{
	unsigned size_class;

	if (front->resting)
		take_up(front);
	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		void **top = front->hot.top[size_class], **spare = front->spare[size_class];

		set_top(front, size_class, no_top());
		set_spare(front, size_class, no_top());
		give_magazine(front, size_class, top, to_depot);
		give_magazine(front, size_class, spare, to_depot);
	}
}

static size_t rounds_of(struct hk_front *front, void **top)
{
	return is_none(top) ? 0 : hk_magazine_rounds(front->depot, top);
}

void *hk_front_alloc(struct hk_front *front, unsigned size_class)
{
	void **top = front->hot.top[size_class];

	if (is_empty(top))
		return refill(front, size_class);
	set_top(front, size_class, top - 1);
	return *top;
}

void *hk_front_zalloc(struct hk_front *front, unsigned size_class, size_t size)
{
	struct hk_slabs *slabs = front->depot->slabs;
	struct hk_slab_marks marks;
	bool zeroed = false;
	void *block = NULL;

	/* the largest may be zero still, and are worth asking: past the magazines */
	if (!hk_class_infos[size_class].capacity &&
	    !hk_stash_blocks(front->depot, front->stash, size_class)) {
		marks = hk_slab_marks(slabs, size_class);
		hk_slab_take(slabs, size_class, &block, 1, &zeroed);
		hk_front_note(front, hk_slab_stage(slabs, size_class, marks));
	} else {
		block = hk_front_alloc(front, size_class);
	}
	if (block && !zeroed)
		memset(block, 0, size);
	return block;
}

size_t hk_front_blocks(struct hk_front *front, unsigned size_class)
{
	return rounds_of(front, HK_LOAD_TOP(&front->hot.top[size_class])) +
	       rounds_of(front, HK_LOAD_TOP(&front->spare[size_class]));
}

static bool has_block(struct hk_front *front, void **top, const void *block)
{
	size_t rounds = rounds_of(front, top);

	for (; rounds && *top != block; rounds--)
		top--;
	return rounds;
}

bool hk_front_holds(struct hk_front *front, unsigned size_class, const void *block)
{
	return has_block(front, front->hot.top[size_class], block) ||
	       has_block(front, front->spare[size_class], block);
}

static size_t check_magazine(struct hk_front *front, void **top)
{
	void **slot = hk_magazine_bottom(front->depot, top);
	size_t broken = *slot != NULL;

	if (top < slot)
		return broken + 1;
	while (++slot <= top)
		broken += !*slot;
	return broken;
}

size_t hk_front_magazines(struct hk_front *front, size_t *broken)
{
	unsigned size_class;
	size_t held = 0;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		void **top = front->hot.top[size_class], **spare = front->spare[size_class];

		if (!is_none(top)) {
			held++;
			*broken += check_magazine(front, top);
		}
		if (!is_none(spare)) {
			held++;
			*broken += check_magazine(front, spare);
		}
	}
	*broken += !is_none(front->hot.top[0]);
	*broken += !is_none(front->hot.top[HK_CLASS_LARGE]);
	*broken += !is_none(front->hot.top[HK_CLASS_INSIDE]);
	*broken += front->rest && !front->resting;
	return held + hk_stash_check(front->depot, front->stash, broken) +
	       hk_rest_check(front->depot, front->rest, broken);
}
