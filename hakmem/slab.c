/* SPDX-License-Identifier: MIT */
/* Runs of equal blocks and their bitmaps; see slab.h. */
#include <hakmem/slab.h>
#include <string.h>

static void class_lock(struct hk_slabs *slabs, unsigned size_class)
{
	hk_lock_acquire(&slabs->classes[size_class].lock, &slabs->space->memory->platform);
}

static void class_unlock(struct hk_slabs *slabs, unsigned size_class)
{
	hk_lock_release(&slabs->classes[size_class].lock, &slabs->space->memory->platform);
}

/* More blocks, or fewer, are not in slabs. Class lock held: no locked instruction. */
static void count_out(struct hk_slab_class *class, size_t more)
{
	size_t out = atomic_load_explicit(&class->blocks_out, memory_order_relaxed);

	atomic_store_explicit(&class->blocks_out, out + more, memory_order_relaxed);
}

static void list_remove(struct hk_slabs *slabs, struct hk_slab_class *class, struct hk_slab *run)
{
	if (!run->list)
		return;
	if (run->next)
		hk_slab(slabs->space, run->next - 1)->prev = run->prev;
	if (run->prev)
		hk_slab(slabs->space, run->prev - 1)->next = run->next;
	else
		class->list[run->list - 1] = run->next;
	run->list = 0;
}

static void list_insert(struct hk_slabs *slabs, struct hk_slab_class *class, struct hk_slab *run,
			uint32_t number, unsigned list)
{
	run->list = (uint8_t)list;
	if (!list)
		return;
	run->prev = 0;
	run->next = class->list[list - 1];
	if (run->next)
		hk_slab(slabs->space, run->next - 1)->prev = number + 1;
	class->list[list - 1] = number + 1;
}

static void list_update(struct hk_slabs *slabs, struct hk_slab_class *class, struct hk_slab *run,
			uint32_t number)
{
	unsigned list = hk_slab_list(run->free, run->usable);

	if (list == run->list)
		return;
	list_remove(slabs, class, run);
	list_insert(slabs, class, run, number, list);
}

static void growing_push(struct hk_slab_class *class, struct hk_slab *run, uint32_t number)
{
	run->grow = class->growing;
	class->growing = number + 1;
}

/* The list is short: it has two when a run could not be backed, or while another was. */
static void growing_remove(struct hk_slabs *slabs, struct hk_slab_class *class, uint32_t number)
{
	uint32_t *link = &class->growing;

	while (*link && *link != number + 1)
		link = &hk_slab(slabs->space, *link - 1)->grow;
	if (*link)
		*link = hk_slab(slabs->space, number)->grow;
}

static void word_store(struct hk_slabs *slabs, uint32_t number, const struct hk_class_info *info,
		       uint32_t word, uint32_t bits)
{
	struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t bit = 1u << word % 32;

	*hk_run_word(slabs, number, info, word) = bits;
	if (!hk_run_has_bitmap(info))
		return;
	if (bits)
		run->summary[word / 32] |= bit;
	else
		run->summary[word / 32] &= ~bit;
}

/*
 * Hands out neighbours, lowest first, downwards from @end. Four at once: most first passes are
 * this.
 */
static void take_row(unsigned char *block, size_t size, size_t count, void **end)
{
	for (; count >= 4; count -= 4, end -= 4, block += 4 * size) {
		end[-1] = block;
		end[-2] = block + size;
		end[-3] = block + 2 * size;
		end[-4] = block + 3 * size;
	}
	for (; count; count--, block += size)
		*--end = block;
}

/* Hands out blocks of one bitmap word, lowest first, downwards from @end: how many. */
static size_t take_word(struct hk_slabs *slabs, uint32_t number, const struct hk_class_info *info,
			uint32_t word, void **end, size_t want)
{
	unsigned char *base = hk_slab_address(slabs->space, number) + word * 32 * info->size;
	uint32_t bits = *hk_run_word(slabs, number, info, word), lowest = bits & (0 - bits);
	size_t taken = 0;

	/* they are neighbours where the carry goes through all of them */
	if (!(bits & (bits + lowest))) {
		unsigned bit = (unsigned)__builtin_ctz(bits),
			 row = 32 - (unsigned)__builtin_clz(bits) - bit;

		taken = row < want ? row : want;
		take_row(base + bit * info->size, info->size, taken, end);
		bits &= ~hk_mask(bit, (uint32_t)taken);
	}
	while (bits && taken < want) {
		*--end = base + (size_t)__builtin_ctz(bits) * info->size;
		taken++;
		bits &= bits - 1;
	}
	word_store(slabs, number, info, word, bits);
	return taken;
}

/* Hands out blocks that never were: what of their group is left goes into the bitmap. */
static size_t take_fresh(struct hk_slabs *slabs, uint32_t number, const struct hk_class_info *info,
			 void **end, size_t want)
{
	struct hk_slab *run = hk_slab(slabs->space, number);
	unsigned char *block = hk_slab_address(slabs->space, number) + run->fresh * info->size;
	uint32_t word = run->fresh / 32u, bit = run->fresh % 32u;
	uint32_t left = (uint32_t)run->usable - run->fresh;
	uint32_t group = left < 32 - bit ? left : 32 - bit;
	uint32_t taken = group < want ? group : (uint32_t)want;

	run->fresh = (uint16_t)(run->fresh + group);
	take_row(block, info->size, taken, end);
	/* what was handed out of this word before is out still: see take_from_run() */
	word_store(slabs, number, info, word,
		   taken < group ? hk_mask(bit + taken, group - taken) : 0);
	return taken;
}

static size_t take_from_run(struct hk_slabs *slabs, uint32_t number,
			    const struct hk_class_info *info, void **end, size_t want)
{
	struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t index, word;
	size_t taken = 0;

	for (index = 0; index < 4 && taken < want; index++) {
		while (run->summary[index] && taken < want) {
			word = index;
			if (hk_run_has_bitmap(info))
				word = index * 32 + (uint32_t)__builtin_ctz(run->summary[index]);
			taken += take_word(slabs, number, info, word, end - taken, want - taken);
		}
	}
	/* a group is split only when little else was found */
	while (taken < want && taken <= want / 2 && run->fresh < run->usable)
		taken += take_fresh(slabs, number, info, end - taken, want - taken);
	run->free = (uint16_t)(run->free - taken);
	return taken;
}

/*
 * Blocks that were just taken are zero no more, or not for long: whether they were. Known only
 * of the largest classes, where it saves clearing.
 */
static bool forget_zero(struct hk_slabs *slabs, uint32_t number, const struct hk_class_info *info,
			void *const *blocks, size_t count)
{
	struct hk_slab *run = hk_slab(slabs->space, number);
	const unsigned char *base = hk_slab_address(slabs->space, number);
	unsigned taken = 0;
	bool were;

	if (!run->zeroed)
		return false;
	for (; count; count--, blocks++)
		taken |= 1u << hk_class_index(info, (size_t)((unsigned char *)*blocks - base));
	were = (run->zeroed & taken) == taken;
	run->zeroed &= (uint8_t)~taken;
	return were;
}

/* A batch as it comes together: class lock held. */
struct batch {
	void **end; /* of where blocks go, filled downwards */
	size_t want;
	size_t taken;
	bool zeroed; /* all blocks so far */
};

static void take_run(struct hk_slabs *slabs, unsigned size_class, uint32_t number,
		     struct batch *batch)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	void **end = batch->end - batch->taken;
	size_t got = take_from_run(slabs, number, info, end, batch->want - batch->taken);

	batch->zeroed &= forget_zero(slabs, number, info, end - got, got);
	batch->taken += got;
	class->blocks_free -= got;
	count_out(class, got);
	list_update(slabs, class, hk_slab(slabs->space, number), number);
}

static void take_partial(struct hk_slabs *slabs, unsigned size_class, struct batch *batch)
{
	struct hk_slab_class *class = &slabs->classes[size_class];
	unsigned list;

	for (list = 0; list < HK_SLAB_LISTS; list++)
		while (class->list[list] && batch->taken <= batch->want / 2)
			take_run(slabs, size_class, class->list[list] - 1, batch);
	class->batches += batch->taken != 0;
}

/* Gets a run for a class, not yet in its lists: true, and its number. No lock is held. */
static bool new_run(struct hk_slabs *slabs, unsigned size_class, uint32_t *number)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_superslabs *space = slabs->space;
	uint32_t index, backed = hk_run_slabs(info, 1);
	struct hk_slab *run;
	bool zeroed;

	if (hk_run_take_backed(space, info->slabs, &backed, number, &zeroed))
		return false;
	if (hk_run_has_bitmap(info) && hk_bitmap_commit(space, *number)) {
		hk_run_give(space, *number, info->slabs);
		return false;
	}
	for (index = 0; index < info->slabs; index++) {
		hk_slab(space, *number + index)->head = (uint8_t)index;
		atomic_store_explicit(&hk_slab(space, *number + index)->was, (uint8_t)size_class,
				      memory_order_relaxed);
	}
	run = hk_slab(space, *number);
	run->length = info->slabs;
	run->usable = hk_run_blocks(info, backed);
	run->free = run->usable;
	run->fresh = 0;
	run->list = 0;
	run->pinned = false;
	run->zeroed = zeroed && info->blocks <= 8 ? (uint8_t)hk_mask(0, info->blocks) : 0;
	for (index = 0; index < 4; index++)
		run->summary[index] = 0;
	return true;
}

static void take_new(struct hk_slabs *slabs, unsigned size_class, uint32_t number,
		     struct batch *batch)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	struct hk_slab *run = hk_slab(slabs->space, number);

	class_lock(slabs, size_class);
	hk_classes_set(slabs->space, number, info->slabs, size_class);
	list_insert(slabs, class, run, number, HK_SLAB_LISTS);
	if (run->usable < info->blocks)
		growing_push(class, run, number);
	class->blocks_free += run->usable;
	class->slabs += info->slabs;
	atomic_fetch_add_explicit(&class->new_runs, 1, memory_order_relaxed);
	/* from this run, whatever others returned meanwhile: none stays wholly free */
	take_run(slabs, size_class, number, batch);
	class->batches++;
	class_unlock(slabs, size_class);
}

static void give_run(struct hk_slabs *slabs, unsigned size_class, struct hk_slab *run,
		     uint32_t number);

/* Backs as many more slabs of a run as hold another block, and takes from it. No lock is held. */
static void take_grown(struct hk_slabs *slabs, unsigned size_class, uint32_t number,
		       struct batch *batch)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t backed = hk_run_slabs(info, run->usable),
		 want = hk_run_slabs(info, run->usable + 1u);
	uint16_t usable = hk_run_blocks(info, want);
	bool zeroed;
	int error = hk_run_back(slabs->space, number + backed, want - backed, &zeroed);

	class_lock(slabs, size_class);
	run->pinned = false;
	if (error || usable < info->blocks)
		growing_push(class, run, number);
	if (error) {
		/* its blocks may all have come back */
		if (run->free == run->usable)
			give_run(slabs, size_class, run, number);
		goto out_unlock;
	}
	if (!zeroed)
		run->zeroed &= (uint8_t)hk_mask(0, run->usable);
	run->free = (uint16_t)(run->free + usable - run->usable);
	class->blocks_free += (size_t)usable - run->usable;
	run->usable = usable;
	list_update(slabs, class, run, number);
	take_run(slabs, size_class, number, batch);
	class->batches++;

out_unlock:
	class_unlock(slabs, size_class);
}

/* Takes a run out of the list of those that grow: one that needs no commit, else the first. */
static uint32_t growing_pop(struct hk_slabs *slabs, unsigned size_class)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	uint32_t found = class->growing, next;

	for (next = found; next; next = hk_slab(slabs->space, next - 1)->grow) {
		uint32_t want = hk_slab(slabs->space, next - 1)->usable + 1u;

		if (!hk_run_unbacked(slabs->space, next - 1, hk_run_slabs(info, want))) {
			found = next;
			break;
		}
	}
	if (found) {
		growing_remove(slabs, class, found - 1);
		hk_slab(slabs->space, found - 1)->pinned = true;
	}
	return found;
}

size_t hk_slab_take(struct hk_slabs *slabs, unsigned size_class, void **blocks, size_t want,
		    bool *zeroed)
{
	struct batch batch = { blocks + want, want, 0, true };
	uint32_t number, growing = 0;

	class_lock(slabs, size_class);
	take_partial(slabs, size_class, &batch);
	if (!batch.taken)
		growing = growing_pop(slabs, size_class);
	class_unlock(slabs, size_class);
	if (growing)
		take_grown(slabs, size_class, growing - 1, &batch);
	if (!batch.taken && new_run(slabs, size_class, &number))
		take_new(slabs, size_class, number, &batch);
	if (HK_UNLIKELY(batch.taken < want))
		memmove(blocks, batch.end - batch.taken, batch.taken * sizeof(*blocks));
	if (zeroed)
		*zeroed = batch.zeroed;
	return batch.taken;
}

struct hk_slab_marks hk_slab_marks(const struct hk_slabs *const_slabs, unsigned size_class)
{
	struct hk_slabs *slabs = (struct hk_slabs *)const_slabs; /* for its atomics */
	struct hk_superslabs *space = slabs->space;
	struct hk_slab_marks marks = {
		atomic_load_explicit(&space->memory->calls, memory_order_relaxed),
		atomic_load_explicit(&space->new_superslabs, memory_order_relaxed),
		atomic_load_explicit(&slabs->classes[size_class].new_runs, memory_order_relaxed),
	};

	return marks;
}

enum hk_stage hk_slab_stage(const struct hk_slabs *slabs, unsigned size_class,
			    struct hk_slab_marks before)
{
	struct hk_slab_marks after = hk_slab_marks(slabs, size_class);

	if (after.superslabs != before.superslabs)
		return HK_STAGE_NEW_SUPERSLAB;
	if (after.calls != before.calls)
		return HK_STAGE_PLATFORM;
	if (!size_class)
		return HK_STAGE_LARGE;
	return after.runs != before.runs ? HK_STAGE_NEW_SLAB : HK_STAGE_SLAB;
}

/* The number of the run that @ptr lies in, which is one of a class. */
static inline uint32_t run_of(const struct hk_superslabs *space, const void *ptr)
{
	uint32_t slab = (uint32_t)hk_slab_number(space, ptr);

	return slab - hk_slab(space, slab)->head;
}

/* Whether a block, live or free, begins at @offset of a run: which. */
static inline bool is_block(const struct hk_class_info *info, size_t offset, uint32_t *block)
{
	*block = hk_class_index(info, offset);
	return offset == (size_t)*block * info->size && *block < info->blocks;
}

static bool is_start(const struct hk_superslabs *space, unsigned size_class, const void *ptr)
{
	const unsigned char *base = hk_slab_address(space, run_of(space, ptr));
	uint32_t block;

	return is_block(&hk_class_infos[size_class], (size_t)((const unsigned char *)ptr - base),
			&block);
}

/* All blocks of a run are free: the class gives it up. Class lock held. */
static void give_run(struct hk_slabs *slabs, unsigned size_class, struct hk_slab *run,
		     uint32_t number)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];

	list_remove(slabs, class, run);
	if (run->usable < info->blocks)
		growing_remove(slabs, class, number);
	class->blocks_free -= run->usable;
	class->slabs -= info->slabs;
	class->runs_emptied++;
	hk_classes_set(slabs->space, number, info->slabs, 0);
	hk_run_give(slabs->space, number, info->slabs);
}

/* What could not be returned. */
struct refused {
	struct hk_bad *bad;
	size_t count;
};

static void leave_out(struct hk_slabs *slabs, struct refused *refused, const void *ptr,
		      enum hk_fault fault, unsigned size_class)
{
	if (!size_class)
		size_class = hk_last_class(slabs->space, ptr);
	refused->bad[refused->count++] =
		(struct hk_bad){ (void *)(uintptr_t)ptr, fault, size_class };
}

/* Blocks to return, the next one first; and what became of them. */
struct return_batch {
	void *const *blocks;
	size_t count;
	size_t returned;
	struct refused *refused;
};

/*
 * Returns blocks of one run, up to the first that lies elsewhere or until the run is given up: all
 * of a word of the bitmap at once, since what is freed one after the other are neighbours most
 * often. Class lock held.
 */
static void return_to_run(struct hk_slabs *slabs, unsigned size_class, struct return_batch *batch)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	uint32_t number = run_of(slabs->space, *batch->blocks), block;
	struct hk_slab *run = hk_slab(slabs->space, number);
	uintptr_t base = (uintptr_t)hk_slab_address(slabs->space, number);
	void *const *next = batch->blocks, *const *end = next + batch->count;
	size_t bytes = info->slabs * HK_SLAB_SIZE, offset;

	while (next < end && (offset = (uintptr_t)*next - base) < bytes) {
		enum hk_fault fault = HK_FAULT_NONE;
		void *const *from = next;
		uint32_t *word, bits, index;

		if (HK_UNLIKELY(!is_block(info, offset, &block)))
			fault = HK_FAULT_INTERIOR;
		else if (HK_UNLIKELY(block >= run->fresh))
			fault = HK_FAULT_FOREIGN; /* never handed out */
		index = block / 32;
		word = hk_run_word(slabs, number, info, index);
		if (!fault && HK_UNLIKELY(*word >> block % 32 & 1))
			fault = HK_FAULT_DOUBLE_FREE;
		if (HK_UNLIKELY(fault)) {
			leave_out(slabs, batch->refused, *next++, fault, size_class);
			continue;
		}
		/* one that is wrong ends it, and is looked at again above */
		bits = *word;
		do {
			bits |= 1u << block % 32;
			if (++next == end)
				break;
			offset = (uintptr_t)*next - base;
		} while (offset < bytes && is_block(info, offset, &block) && block / 32 == index &&
			 block < run->fresh && !(bits >> block % 32 & 1));
		*word = bits;
		if (hk_run_has_bitmap(info))
			run->summary[index / 32] |= 1u << index % 32;
		run->free = (uint16_t)(run->free + (next - from));
		batch->returned += (size_t)(next - from);
		if (HK_UNLIKELY(run->free == run->usable && !run->pinned)) {
			give_run(slabs, size_class, run, number);
			break;
		}
		if (HK_UNLIKELY(hk_slab_list(run->free, run->usable) != run->list))
			list_update(slabs, &slabs->classes[size_class], run, number);
	}
	batch->count = (size_t)(end - next);
	batch->blocks = next;
}

/* Returns blocks of one class, up to the first that is not of it: how many. */
static size_t return_class(struct hk_slabs *slabs, unsigned size_class, void *const *blocks,
			   size_t count, struct refused *refused)
{
	struct hk_slab_class *class = &slabs->classes[size_class];
	struct return_batch batch = { blocks, count, 0, refused };

	class_lock(slabs, size_class);
	/* looked at again: with the lock held a class's byte can't change */
	while (batch.count && hk_class_at(slabs->space, *batch.blocks) == size_class)
		return_to_run(slabs, size_class, &batch);
	count_out(class, 0 - batch.returned);
	class->blocks_free += batch.returned;
	class->returns += batch.count != count;
	class_unlock(slabs, size_class);
	return count - batch.count;
}

size_t hk_slab_return(struct hk_slabs *slabs, void *const *blocks, size_t count, struct hk_bad *bad)
{
	struct refused refused = { bad, 0 };
	enum hk_fault fault;

	while (count) {
		unsigned byte = hk_class_at(slabs->space, *blocks);
		size_t done = 1;

		if (hk_is_block_class(byte)) {
			done = return_class(slabs, byte, blocks, count, &refused);
		} else {
			fault = hk_large_free(slabs->large, *blocks);
			if (fault)
				leave_out(slabs, &refused, *blocks, fault, 0);
		}
		blocks += done;
		count -= done;
	}
	return refused.count;
}

bool hk_slab_make_large(struct hk_slabs *slabs, const void *ptr)
{
	unsigned size_class = hk_class_at(slabs->space, ptr);
	struct hk_slab_class *class;
	bool is_one;

	if (!hk_is_block_class(size_class) || hk_class_size(size_class) <= HK_QUARTER_MAX)
		return false;
	class = &slabs->classes[size_class];
	class_lock(slabs, size_class);
	/* looked at again: another thread may have freed it */
	is_one = hk_class_at(slabs->space, ptr) == size_class &&
		 is_start(slabs->space, size_class, ptr);
	if (is_one) {
		class->slabs -= hk_class_infos[size_class].slabs;
		class->runs_emptied++;
		count_out(class, 0 - (size_t)1);
		hk_large_adopt(slabs->large, run_of(slabs->space, ptr),
			       hk_class_infos[size_class].slabs);
	}
	class_unlock(slabs, size_class);
	return is_one;
}

enum hk_fault hk_slab_fault(const struct hk_slabs *slabs, const void *ptr)
{
	unsigned byte = hk_class_at(slabs->space, ptr);

	if (!hk_is_block_class(byte))
		return hk_large_fault(slabs->large, ptr);
	return is_start(slabs->space, byte, ptr) ? HK_FAULT_NONE : HK_FAULT_INTERIOR;
}

size_t hk_slab_block_size(const struct hk_slabs *slabs, const void *ptr)
{
	unsigned byte = hk_class_at(slabs->space, ptr);

	if (!hk_is_block_class(byte))
		return byte ? hk_large_size(slabs->large, ptr) : 0;
	return is_start(slabs->space, byte, ptr) ? hk_class_size(byte) : 0;
}
