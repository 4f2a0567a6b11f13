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

static void list_move(struct hk_slabs *slabs, struct hk_slab_class *class, struct hk_slab *run,
		      uint32_t number, unsigned list)
{
	list_remove(slabs, class, run);
	list_insert(slabs, class, run, number, list);
}

static inline void list_update(struct hk_slabs *slabs, struct hk_slab_class *class,
			       struct hk_slab *run, uint32_t number)
{
	unsigned list = hk_slab_list(run->free, run->usable);

	if (HK_UNLIKELY(list != run->list))
		list_move(slabs, class, run, number, list);
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

/* Hands out a block: the one behind it. */
static inline unsigned char *take_one(unsigned char *block, size_t size, void **slot)
{
	*slot = block;
	block += size;
	/* else the multiples of @size get a register each, saved and restored by every call */
	HK_FORGET(block);
	return block;
}

/*
 * Hands out neighbours, lowest first, downwards from @end. Eight at once: most of a first pass is
 * this.
 */
static void take_row(unsigned char *block, size_t size, size_t count, void **end)
{
	for (; count >= 8; count -= 8, end -= 8) {
		block = take_one(block, size, end - 1);
		block = take_one(block, size, end - 2);
		block = take_one(block, size, end - 3);
		block = take_one(block, size, end - 4);
		block = take_one(block, size, end - 5);
		block = take_one(block, size, end - 6);
		block = take_one(block, size, end - 7);
		block = take_one(block, size, end - 8);
	}
	for (; count; count--)
		block = take_one(block, size, --end);
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

/*
 * Hands out blocks that never were, at least @least and at most @most, as far as there are: whole
 * groups, or what is left of the last one goes into the bitmap.
 */
static size_t take_fresh(struct hk_slabs *slabs, struct hk_slab *run, uint32_t number,
			 const struct hk_class_info *info, void **end, size_t least, size_t most)
{
	unsigned char *block = hk_slab_address(slabs->space, number) + run->fresh * info->size;
	uint32_t first = run->fresh, behind = (first + (uint32_t)least + 31) & ~31u, word;
	uint32_t *at = NULL;
	size_t taken;

	if (behind > run->usable)
		behind = run->usable;
	taken = behind - first < most ? behind - first : most;
	run->fresh = (uint16_t)behind;
	take_row(block, info->size, taken, end);
	/* what was handed out of the first word before is out still: see take_from_run() */
	for (word = first / 32; word * 32 < behind; word++, at++) {
		if (!at || word % HK_BITMAP_LINE == 0)
			at = hk_run_word(slabs, number, info, word);
		*at = 0;
	}
	first += (uint32_t)taken;
	if (first < behind)
		word_store(slabs, number, info, word - 1, hk_mask(first % 32, behind - first));
	return taken;
}

/* Hands out blocks that were returned, those of the lowest words first: how many. */
static HK_NOINLINE size_t take_returned(struct hk_slabs *slabs, struct hk_slab *run,
					uint32_t number, const struct hk_class_info *info,
					void **end, size_t want)
{
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
	return taken;
}

static size_t take_from_run(struct hk_slabs *slabs, struct hk_slab *run, uint32_t number,
			    const struct hk_class_info *info, void **end, size_t want)
{
	size_t taken = 0;

	/* runs that are new have none */
	if (run->free > run->usable - run->fresh)
		taken = take_returned(slabs, run, number, info, end, want);
	/* a group is split only when little else was found */
	if (taken <= want / 2 && run->fresh < run->usable)
		taken += take_fresh(slabs, run, number, info, end - taken, want / 2 + 1 - taken,
				    want - taken);
	run->free = (uint16_t)(run->free - taken);
	return taken;
}

/*
 * Blocks that were just taken are zero no more, or not for long: whether they were. Known only
 * of the largest classes, where it saves clearing.
 */
static HK_NOINLINE bool forget_zero(struct hk_slabs *slabs, struct hk_slab *run, uint32_t number,
				    const struct hk_class_info *info, void *const *blocks,
				    size_t count)
{
	const unsigned char *base = hk_slab_address(slabs->space, number);
	unsigned taken = 0;
	bool were;

	for (; count; count--, blocks++)
		taken |= 1u << hk_class_index(info, (size_t)((unsigned char *)*blocks - base));
	were = (run->zeroed & taken) == taken;
	run->zeroed &= (uint8_t)~taken;
	return were;
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

/* A new run in a class's lists: its number plus one, or 0. Class lock held, but not meanwhile. */
static uint32_t add_run(struct hk_slabs *slabs, unsigned size_class)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	struct hk_slab *run;
	uint32_t number;
	bool done;

	class_unlock(slabs, size_class);
	done = new_run(slabs, size_class, &number);
	class_lock(slabs, size_class);
	if (!done)
		return 0;
	run = hk_slab(slabs->space, number);
	hk_classes_set(slabs->space, number, info->slabs, size_class);
	list_insert(slabs, class, run, number, HK_SLAB_LISTS);
	if (run->usable < info->blocks)
		growing_push(class, run, number);
	class->blocks_free += run->usable;
	class->slabs += info->slabs;
	atomic_fetch_add_explicit(&class->new_runs, 1, memory_order_relaxed);
	return number + 1;
}

static void give_run(struct hk_slabs *slabs, unsigned size_class, struct hk_slab *run,
		     uint32_t number);

/*
 * Backs as many more slabs of a run as hold another block: whether it could. Class lock held, but
 * not meanwhile.
 */
static bool grow_run(struct hk_slabs *slabs, unsigned size_class, uint32_t number)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t backed = hk_run_slabs(info, run->usable),
		 want = hk_run_slabs(info, run->usable + 1u);
	uint16_t usable = hk_run_blocks(info, want);
	bool zeroed;
	int error;

	class_unlock(slabs, size_class);
	error = hk_run_back(slabs->space, number + backed, want - backed, &zeroed);
	class_lock(slabs, size_class);
	run->pinned = false;
	if (error || usable < info->blocks)
		growing_push(class, run, number);
	if (error) {
		/* its blocks may all have come back */
		if (run->free == run->usable)
			give_run(slabs, size_class, run, number);
		return false;
	}
	if (!zeroed)
		run->zeroed &= (uint8_t)hk_mask(0, run->usable);
	run->free = (uint16_t)(run->free + usable - run->usable);
	class->blocks_free += (size_t)usable - run->usable;
	run->usable = usable;
	list_update(slabs, class, run, number);
	return true;
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

/* The fullest run that has free blocks: its number plus one, or 0. */
static inline uint32_t partial_run(const struct hk_slab_class *class)
{
	unsigned list;

	for (list = 0; list < HK_SLAB_LISTS; list++)
		if (class->list[list])
			return class->list[list];
	return 0;
}

/*
 * A run with free blocks, grown or new, where no list has one: its number plus one, or 0. Class
 * lock held, but not meanwhile; from when it is held again the run should not stay wholly free.
 */
static HK_NOINLINE uint32_t more_blocks(struct hk_slabs *slabs, unsigned size_class)
{
	uint32_t growing = growing_pop(slabs, size_class), number;

	if (growing && grow_run(slabs, size_class, growing - 1))
		return growing;
	number = add_run(slabs, size_class);
	/* where there is no memory, blocks may have come back meanwhile */
	return number ? number : partial_run(&slabs->classes[size_class]);
}

size_t hk_slab_take(struct hk_slabs *slabs, unsigned size_class, void **blocks, size_t want,
		    bool *zeroed)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	void **end = blocks + want;
	size_t taken = 0;
	bool all_zeroed = true;

	class_lock(slabs, size_class);
	while (taken <= want / 2) {
		uint32_t number = partial_run(class);
		struct hk_slab *run;
		size_t got;

		if (!number && !taken)
			number = more_blocks(slabs, size_class);
		if (!number--)
			break;
		run = hk_slab(slabs->space, number);
		HK_FORGET(run); /* else it is worked out anew for each use */
		got = take_from_run(slabs, run, number, info, end, want - taken);
		end -= got;
		taken += got;
		all_zeroed &= run->zeroed && forget_zero(slabs, run, number, info, end, got);
		class->blocks_free -= got;
		list_update(slabs, class, run, number);
	}
	count_out(class, taken);
	class->batches += taken != 0;
	class_unlock(slabs, size_class);
	if (HK_UNLIKELY(taken < want))
		memmove(blocks, end, taken * sizeof(*blocks));
	if (zeroed)
		*zeroed = all_zeroed;
	return taken;
}

/* The number of the run that @ptr lies in, which is one of a class. */
static inline uint32_t run_of(const struct hk_superslabs *space, const void *ptr)
{
	uint32_t slab = (uint32_t)hk_slab_number(space, ptr);

	return slab - hk_slab(space, slab)->head;
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

		if (HK_UNLIKELY(!hk_is_block(info, offset, &block)))
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
		} while (offset < bytes && hk_is_block(info, offset, &block) &&
			 block / 32 == index && block < run->fresh && !(bits >> block % 32 & 1));
		*word = bits;
		if (hk_run_has_bitmap(info))
			run->summary[index / 32] |= 1u << index % 32;
		run->free = (uint16_t)(run->free + (next - from));
		batch->returned += (size_t)(next - from);
		if (HK_UNLIKELY(run->free == run->usable && !run->pinned)) {
			give_run(slabs, size_class, run, number);
			break;
		}
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
		 hk_is_start(slabs->space, size_class, ptr);
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
	return hk_is_start(slabs->space, byte, ptr) ? HK_FAULT_NONE : HK_FAULT_INTERIOR;
}
