/* SPDX-License-Identifier: MIT */
/* Runs of equal blocks and their bitmaps; see slab.h. */
#include <hakmem/slab.h>

static void class_lock(struct hk_slabs *slabs, unsigned size_class)
{
	hk_lock_acquire(&slabs->classes[size_class].lock, &slabs->space->memory->platform);
}

static void class_unlock(struct hk_slabs *slabs, unsigned size_class)
{
	hk_lock_release(&slabs->classes[size_class].lock, &slabs->space->memory->platform);
}

/* The list for a run with @free of @blocks free: 1 holds the fullest; 0 is none. */
static unsigned list_for(uint32_t free, uint32_t blocks)
{
	if (!free)
		return 0;
	return 1 + (free * HK_SLAB_LISTS - 1) / blocks;
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
			uint32_t number, uint32_t blocks)
{
	unsigned list = list_for(run->free, blocks);

	if (list == run->list)
		return;
	list_remove(slabs, class, run);
	list_insert(slabs, class, run, number, list);
}

/*
 * Up to 128 blocks a run's bitmap is its summary itself, in its header; smaller blocks have one
 * out of line, and the summary says which of its words have a bit set.
 */
static bool has_bitmap(const struct hk_class_info *info)
{
	return info->blocks > 128;
}

/* The word of a run's bitmap that has the bits of blocks 32 * @word and on. */
static uint32_t *word_of(const struct hk_slabs *slabs, uint32_t number,
			 const struct hk_class_info *info, uint32_t word)
{
	return has_bitmap(info) ? hk_bitmap_word(slabs->space, number, word)
				: &hk_slab(slabs->space, number)->summary[word];
}

static void word_store(struct hk_slabs *slabs, uint32_t number, const struct hk_class_info *info,
		       uint32_t word, uint32_t bits)
{
	struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t bit = 1u << word % 32;

	*word_of(slabs, number, info, word) = bits;
	if (!has_bitmap(info))
		return;
	if (bits)
		run->summary[word / 32] |= bit;
	else
		run->summary[word / 32] &= ~bit;
}

/* Hands out blocks of one bitmap word, lowest first: how many. */
static size_t take_word(struct hk_slabs *slabs, uint32_t number, const struct hk_class_info *info,
			uint32_t word, void **blocks, size_t want)
{
	unsigned char *base = hk_slab_address(slabs->space, number) + word * 32 * info->size;
	uint32_t bits = *word_of(slabs, number, info, word);
	size_t taken = 0;

	while (bits && taken < want) {
		blocks[taken++] = base + (size_t)__builtin_ctz(bits) * info->size;
		bits &= bits - 1;
	}
	word_store(slabs, number, info, word, bits);
	return taken;
}

/* Hands out blocks that never were: what of their group is left goes into the bitmap. */
static size_t take_fresh(struct hk_slabs *slabs, uint32_t number, const struct hk_class_info *info,
			 void **blocks, size_t want)
{
	struct hk_slab *run = hk_slab(slabs->space, number);
	unsigned char *block = hk_slab_address(slabs->space, number) + run->fresh * info->size;
	uint32_t word = run->fresh / 32u, taken;
	uint32_t left = (uint32_t)info->blocks - run->fresh, group = left < 32 ? left : 32;

	run->fresh = (uint16_t)(run->fresh + group);
	for (taken = 0; taken < group && taken < want; taken++, block += info->size)
		blocks[taken] = block;
	word_store(slabs, number, info, word, taken < group ? hk_mask(taken, group - taken) : 0);
	return taken;
}

static size_t take_from_run(struct hk_slabs *slabs, uint32_t number,
			    const struct hk_class_info *info, void **blocks, size_t want)
{
	struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t index, word;
	size_t taken = 0;

	for (index = 0; index < 4 && taken < want; index++) {
		while (run->summary[index] && taken < want) {
			word = index;
			if (has_bitmap(info))
				word = index * 32 + (uint32_t)__builtin_ctz(run->summary[index]);
			taken += take_word(slabs, number, info, word, blocks + taken, want - taken);
		}
	}
	/* a group is split only when little else was found */
	while (taken < want && taken <= want / 2 && run->fresh < info->blocks)
		taken += take_fresh(slabs, number, info, blocks + taken, want - taken);
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
	void **blocks;
	size_t want;
	size_t taken;
	bool zeroed; /* all blocks so far */
};

static void take_run(struct hk_slabs *slabs, unsigned size_class, uint32_t number,
		     struct batch *batch)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	void **blocks = batch->blocks + batch->taken;
	size_t got = take_from_run(slabs, number, info, blocks, batch->want - batch->taken);

	batch->zeroed &= forget_zero(slabs, number, info, blocks, got);
	batch->taken += got;
	class->blocks_free -= got;
	class->blocks_out += got;
	list_update(slabs, class, hk_slab(slabs->space, number), number, info->blocks);
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
	struct hk_slab *run;
	uint32_t index;
	bool zeroed;

	if (hk_run_take(space, info->slabs, HK_SLAB_SIZE, 0, number, &zeroed))
		return false;
	if (has_bitmap(info) && hk_bitmap_commit(space, *number)) {
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
	run->free = info->blocks;
	run->fresh = 0;
	run->list = 0;
	run->zeroed = zeroed && info->blocks <= 8 ? (uint8_t)hk_mask(0, info->blocks) : 0;
	for (index = 0; index < 4; index++)
		run->summary[index] = 0;
	return true;
}

size_t hk_slab_take(struct hk_slabs *slabs, unsigned size_class, void **blocks, size_t want,
		    bool *zeroed)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	struct batch batch = { blocks, want, 0, true };
	uint32_t number;

	class_lock(slabs, size_class);
	take_partial(slabs, size_class, &batch);
	class_unlock(slabs, size_class);
	if (!batch.taken && new_run(slabs, size_class, &number)) {
		class_lock(slabs, size_class);
		hk_classes_set(slabs->space, number, info->slabs, size_class);
		list_insert(slabs, class, hk_slab(slabs->space, number), number, HK_SLAB_LISTS);
		class->blocks_free += info->blocks;
		class->slabs += info->slabs;
		class->new_runs++;
		/* from this run, whatever others returned meanwhile: none stays wholly free */
		take_run(slabs, size_class, number, &batch);
		class->batches++;
		class_unlock(slabs, size_class);
	}
	if (zeroed)
		*zeroed = batch.zeroed;
	return batch.taken;
}

/* Where a pointer lies in a class's run: the run, the block, whether it is the block's start. */
struct place {
	uint32_t run;
	uint32_t block;
	bool start;
};

static struct place find_place(const struct hk_superslabs *space, unsigned size_class,
			       const void *ptr)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	uint32_t slab = (uint32_t)hk_slab_number(space, ptr);
	struct place place = { .run = slab - hk_slab(space, slab)->head };
	size_t offset = (size_t)((const unsigned char *)ptr - hk_slab_address(space, place.run));

	place.block = hk_class_index(info, offset);
	place.start = offset == (size_t)place.block * info->size && place.block < info->blocks;
	return place;
}

/* All blocks of a run are free: the class gives it up. Class lock held. */
static void give_run(struct hk_slabs *slabs, unsigned size_class, struct hk_slab *run,
		     uint32_t number)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];

	list_remove(slabs, class, run);
	class->blocks_free -= info->blocks;
	class->slabs -= info->slabs;
	class->runs_emptied++;
	hk_classes_set(slabs->space, number, info->slabs, 0);
	hk_run_give(slabs->space, number, info->slabs);
}

/* Returns one block to its run. Class lock held. */
static enum hk_fault return_block(struct hk_slabs *slabs, unsigned size_class, const void *ptr)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	struct hk_slab_class *class = &slabs->classes[size_class];
	struct place place = find_place(slabs->space, size_class, ptr);
	struct hk_slab *run = hk_slab(slabs->space, place.run);
	uint32_t word = place.block / 32, bit = 1u << place.block % 32, bits;

	if (!place.start)
		return HK_FAULT_INTERIOR;
	if (place.block >= run->fresh)
		return HK_FAULT_FOREIGN; /* never handed out */
	bits = *word_of(slabs, place.run, info, word);
	if (bits & bit)
		return HK_FAULT_DOUBLE_FREE;
	word_store(slabs, place.run, info, word, bits | bit);
	run->free++;
	class->blocks_out--;
	class->blocks_free++;
	if (run->free == info->blocks)
		give_run(slabs, size_class, run, place.run);
	else
		list_update(slabs, class, run, place.run, info->blocks);
	return HK_FAULT_NONE;
}

static bool is_block_class(unsigned byte)
{
	return byte && byte < HK_CLASSES;
}

/* The block's class, its lock now held instead of @held's; 0, and no lock, for other slabs. */
static unsigned switch_lock(struct hk_slabs *slabs, const void *ptr, unsigned held)
{
	for (;;) {
		unsigned byte = hk_class_at(slabs->space, ptr);

		if (held && byte == held)
			return held;
		if (held)
			class_unlock(slabs, held);
		if (!is_block_class(byte))
			return 0;
		class_lock(slabs, byte);
		/* look again: with the lock held the byte can't change from or to its class */
		held = byte;
	}
}

size_t hk_slab_return(struct hk_slabs *slabs, void *const *blocks, size_t count, struct hk_bad *bad)
{
	size_t index, refused = 0;
	unsigned held = 0;

	for (index = 0; index < count; index++) {
		unsigned before = held;
		enum hk_fault fault;

		held = switch_lock(slabs, blocks[index], held);
		if (held) {
			fault = return_block(slabs, held, blocks[index]);
			slabs->classes[held].returns += held != before;
		} else {
			fault = hk_large_free(slabs->large, blocks[index]);
		}
		if (fault)
			bad[refused++] = (struct hk_bad){
				blocks[index], fault,
				held ? held : hk_last_class(slabs->space, blocks[index])
			};
	}
	if (held)
		class_unlock(slabs, held);
	return refused;
}

enum hk_fault hk_slab_fault(const struct hk_slabs *slabs, const void *ptr)
{
	unsigned byte = hk_class_at(slabs->space, ptr);

	if (!is_block_class(byte))
		return hk_large_fault(slabs->large, ptr);
	return find_place(slabs->space, byte, ptr).start ? HK_FAULT_NONE : HK_FAULT_INTERIOR;
}

size_t hk_slab_block_size(const struct hk_slabs *slabs, const void *ptr)
{
	unsigned byte = hk_class_at(slabs->space, ptr);

	if (!is_block_class(byte))
		return byte ? hk_large_size(slabs->large, ptr) : 0;
	return find_place(slabs->space, byte, ptr).start ? hk_class_size(byte) : 0;
}

void hk_slab_reset(struct hk_slabs *slabs)
{
	unsigned size_class, list;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		struct hk_slab_class *class = &slabs->classes[size_class];

		for (list = 0; list < HK_SLAB_LISTS; list++)
			class->list[list] = 0;
		class->blocks_out = 0;
		class->blocks_free = 0;
		class->slabs = 0;
	}
}

static bool block_is_out(const struct hk_slabs *slabs, uint32_t number,
			 const struct hk_class_info *info, uint32_t block)
{
	return block < hk_slab(slabs->space, number)->fresh &&
	       !(*word_of(slabs, number, info, block / 32) >> block % 32 & 1);
}

void hk_slab_walk(struct hk_slabs *slabs,
		  bool (*visit)(void *context, void *block, size_t size, unsigned size_class),
		  void *context)
{
	const struct hk_superslabs *space = slabs->space;
	uint32_t number, block, bound = hk_space_slabs(space);
	unsigned size_class;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		const struct hk_class_info *info = &hk_class_infos[size_class];

		if (!slabs->classes[size_class].blocks_out)
			continue;
		for (number = 0; number < bound; number++) {
			if (*hk_class_byte(space, number) != size_class)
				continue;
			for (block = 0; block < info->blocks; block++)
				if (block_is_out(slabs, number, info, block) &&
				    !visit(context,
					   hk_slab_address(space, number) + block * info->size,
					   info->size, size_class))
					return;
			number += info->slabs - 1u;
		}
	}
	for (number = 0; number < bound; number++)
		if (*hk_class_byte(space, number) == HK_CLASS_LARGE &&
		    !visit(context, hk_slab_address(space, number),
			   hk_slab(space, number)->length * HK_SLAB_SIZE, 0))
			return;
}

/* One run: its bitmap, its summary, its count and its list agree. */
static size_t check_run(const struct hk_slabs *slabs, unsigned size_class, uint32_t number)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	const struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t word, free = (uint32_t)info->blocks - run->fresh;
	size_t broken = 0;

	for (word = 0; word < (has_bitmap(info) ? 128u : 4u); word++) {
		uint32_t bits = 0;

		if (word * 32 < run->fresh)
			bits = *word_of(slabs, number, info, word);

		free += (uint32_t)__builtin_popcount(bits);
		if (has_bitmap(info))
			broken += (run->summary[word / 32] >> word % 32 & 1) != (bits != 0);
		if (bits && (uint32_t)info->blocks - word * 32 < 32)
			broken += (bits >> (info->blocks - word * 32)) != 0;
	}
	broken += run->fresh > info->blocks || (run->fresh % 32 && run->fresh != info->blocks);
	broken += run->free != free || free == info->blocks || run->length != info->slabs;
	broken += run->list != list_for(run->free, info->blocks);
	for (word = 0; word < info->slabs; word++) {
		broken += *hk_class_byte(slabs->space, number + word) != size_class;
		broken += hk_slab(slabs->space, number + word)->head != word;
	}
	return broken;
}

/* The runs in a class's lists, and whether each says that it is there. */
static size_t check_lists(const struct hk_slabs *slabs, unsigned size_class, size_t *partial)
{
	const struct hk_slab_class *class = &slabs->classes[size_class];
	size_t bound = hk_space_slabs(slabs->space), broken = 0;
	unsigned list;

	for (list = 0; list < HK_SLAB_LISTS; list++) {
		uint32_t prev = 0, next;

		for (next = class->list[list]; next; next = hk_slab(slabs->space, prev - 1)->next) {
			const struct hk_slab *run = hk_slab(slabs->space, next - 1);

			/* a list that leads elsewhere or round in a circle ends the walk */
			if (next > bound || *partial > bound || run->prev != prev ||
			    run->list != list + 1)
				return broken + 1;
			(*partial)++;
			prev = next;
		}
	}
	return broken;
}

size_t hk_slab_check(struct hk_slabs *slabs)
{
	size_t runs[HK_CLASSES] = { 0 }, partial[HK_CLASSES] = { 0 }, free[HK_CLASSES] = { 0 };
	uint32_t number, bound = hk_space_slabs(slabs->space);
	unsigned size_class;
	size_t broken = 0;

	for (number = 0; number < bound; number++) {
		size_class = *hk_class_byte(slabs->space, number);
		if (!is_block_class(size_class))
			continue;
		broken += check_run(slabs, size_class, number);
		partial[size_class] += hk_slab(slabs->space, number)->list != 0;
		free[size_class] += hk_slab(slabs->space, number)->free;
		runs[size_class]++;
		number += hk_class_infos[size_class].slabs - 1u;
	}
	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		const struct hk_class_info *info = &hk_class_infos[size_class];
		const struct hk_slab_class *class = &slabs->classes[size_class];
		size_t listed = 0;

		broken += check_lists(slabs, size_class, &listed);
		broken += listed != partial[size_class] || free[size_class] != class->blocks_free;
		broken += runs[size_class] * info->slabs != class->slabs;
		broken += runs[size_class] * info->blocks != class->blocks_out + class->blocks_free;
	}
	return broken + hk_large_check(slabs->large);
}
