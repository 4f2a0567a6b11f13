/* SPDX-License-Identifier: MIT */
/* Slabs as a whole: emptied by a reset, trimmed, walked, checked. */
#include <hakmem/slab.h>

void hk_slab_reset(struct hk_slabs *slabs)
{
	unsigned size_class, list;

	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		struct hk_slab_class *class = &slabs->classes[size_class];

		for (list = 0; list < HK_SLAB_LISTS; list++)
			class->list[list] = 0;
		class->growing = 0;
		class->blocks_out = 0;
		class->blocks_free = 0;
		class->slabs = 0;
	}
}

static bool block_is_out(const struct hk_slabs *slabs, uint32_t number,
			 const struct hk_class_info *info, uint32_t block)
{
	return block < hk_slab(slabs->space, number)->fresh &&
	       !(*hk_run_word(slabs, number, info, block / 32) >> block % 32 & 1);
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

/* The slabs of a growing run beyond those that its blocks need. */
static uint32_t beyond_blocks(const struct hk_slabs *slabs, unsigned size_class, uint32_t number,
			      uint32_t *count)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	uint32_t backed = hk_run_slabs(info, hk_slab(slabs->space, number)->usable);

	*count = info->slabs - backed;
	return number + backed;
}

size_t hk_slab_idle(const struct hk_slabs *slabs, unsigned size_class)
{
	uint32_t next = slabs->classes[size_class].growing, first, count;
	size_t idle = 0;

	for (; next; next = hk_slab(slabs->space, next - 1)->grow) {
		first = beyond_blocks(slabs, size_class, next - 1, &count);
		idle += count - hk_run_unbacked(slabs->space, first, count);
	}
	return idle;
}

static size_t trim_class(struct hk_slabs *slabs, unsigned size_class)
{
	struct hk_slab_class *class = &slabs->classes[size_class];
	const struct hk_platform *platform = &slabs->space->memory->platform;
	uint32_t next, first, count;
	size_t freed = 0;

	hk_lock_acquire(&class->lock, platform);
	/* against hk_superslabs_populate(), which looks at what is committed and then touches it */
	hk_lock_acquire(&slabs->space->trim_lock, platform);
	for (next = class->growing; next; next = hk_slab(slabs->space, next - 1)->grow) {
		first = beyond_blocks(slabs, size_class, next - 1, &count);
		freed += hk_run_trim(slabs->space, first, count);
	}
	hk_lock_release(&slabs->space->trim_lock, platform);
	hk_lock_release(&class->lock, platform);
	return freed;
}

size_t hk_slab_trim(struct hk_slabs *slabs, size_t keep, struct hk_deadline deadline)
{
	struct hk_memory *memory = slabs->space->memory;
	size_t freed = 0, step;
	unsigned size_class;

	if (!(memory->platform.flags & HK_PLATFORM_CHARGED))
		return 0;
	for (size_class = 1; size_class < HK_CLASSES; size_class++) {
		if (hk_memory_committed(memory) <= keep)
			break;
		step = trim_class(slabs, size_class);
		freed += step;
		if (step && hk_deadline_over(memory, deadline))
			break;
	}
	return freed;
}

/* One run: its bitmap, its summary, its count and its list agree. */
static size_t check_run(const struct hk_slabs *slabs, unsigned size_class, uint32_t number)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	const struct hk_slab *run = hk_slab(slabs->space, number);
	uint32_t word, free = (uint32_t)run->usable - run->fresh;
	size_t broken = 0;

	for (word = 0; word < (hk_run_has_bitmap(info) ? 128u : 4u); word++) {
		uint32_t bits = 0;

		if (word * 32 < run->fresh)
			bits = *hk_run_word(slabs, number, info, word);

		free += (uint32_t)__builtin_popcount(bits);
		if (hk_run_has_bitmap(info))
			broken += (run->summary[word / 32] >> word % 32 & 1) != (bits != 0);
		if (bits && (uint32_t)info->blocks - word * 32 < 32)
			broken += (bits >> (info->blocks - word * 32)) != 0;
	}
	/* whole groups were handed out, or all that was backed at the time */
	broken += run->fresh > run->usable;
	broken += run->fresh % 32 &&
		  run->fresh != hk_run_blocks(info, hk_run_slabs(info, run->fresh));
	broken += run->free != free || free == run->usable || run->length != info->slabs;
	broken += run->usable > info->blocks || run->list != hk_slab_list(run->free, run->usable);
	broken += hk_run_unbacked(slabs->space, number, hk_run_slabs(info, run->usable));
	broken += run->pinned;
	for (word = 0; word < info->slabs; word++) {
		broken += *hk_class_byte(slabs->space, number + word) != size_class;
		broken += hk_slab(slabs->space, number + word)->head != word;
	}
	return broken;
}

/* The runs that grow: each in the list once, and none that is backed as a whole. */
static size_t check_growing(const struct hk_slabs *slabs, unsigned size_class, size_t runs)
{
	const struct hk_class_info *info = &hk_class_infos[size_class];
	uint32_t next = slabs->classes[size_class].growing;
	size_t bound = hk_space_slabs(slabs->space);

	for (; next && runs && next <= bound; runs--) {
		if (*hk_class_byte(slabs->space, next - 1) != size_class ||
		    hk_slab(slabs->space, next - 1)->usable == info->blocks)
			return 1;
		next = hk_slab(slabs->space, next - 1)->grow;
	}
	return next || runs;
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
	size_t usable[HK_CLASSES] = { 0 }, growing[HK_CLASSES] = { 0 };
	uint32_t number, bound = hk_space_slabs(slabs->space);
	unsigned size_class;
	size_t broken = 0;

	for (number = 0; number < bound; number++) {
		size_class = *hk_class_byte(slabs->space, number);
		if (!hk_is_block_class(size_class))
			continue;
		broken += check_run(slabs, size_class, number);
		partial[size_class] += hk_slab(slabs->space, number)->list != 0;
		free[size_class] += hk_slab(slabs->space, number)->free;
		usable[size_class] += hk_slab(slabs->space, number)->usable;
		growing[size_class] +=
			hk_slab(slabs->space, number)->usable < hk_class_infos[size_class].blocks;
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
		broken += usable[size_class] != class->blocks_out + class->blocks_free;
		broken += check_growing(slabs, size_class, growing[size_class]);
	}
	return broken + hk_large_check(slabs->large);
}
