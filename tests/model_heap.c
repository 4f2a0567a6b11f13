/* SPDX-License-Identifier: MIT */
/* The model's books; see model.h. */
#define _POSIX_C_SOURCE 200809L

#include <stdlib.h>
#include <string.h>

#include "model.h"

#define EDGE 64
#define PAGE 4096

/* Like must(), with the seed and the step that lead there again. */
#define model_must(model, cond, what)                                                              \
	must(cond, "seed %llu, step %zu: %s", (unsigned long long)(model)->where, (model)->step,   \
	     what)

static bool is_stamped(size_t index, size_t size)
{
	return index < EDGE || index + EDGE >= size || index % PAGE < 8;
}

/* The next index after one that is stamped; @size when there is none. */
static size_t next_stamped(size_t index, size_t size)
{
	size_t page;

	index++;
	if (index >= size || is_stamped(index, size))
		return index;
	page = (index / PAGE + 1) * PAGE;
	return page < size - EDGE ? page : size - EDGE;
}

void model_stamp(unsigned char *ptr, size_t size, uint64_t seed)
{
	size_t i;

	for (i = 0; i < size; i = next_stamped(i, size))
		ptr[i] = test_byte(i, seed);
}

bool model_holds(const unsigned char *ptr, size_t size, size_t kept, uint64_t seed)
{
	size_t i;

	for (i = 0; i < size && i < kept; i = next_stamped(i, size))
		if (ptr[i] != test_byte(i, seed))
			return false;
	return true;
}

static void on_report(void *context, const struct hk_report *report)
{
	struct model *model = context;

	if (report->fault == HK_FAULT_LEAK && model->reports.by_fault[HK_FAULT_LEAK] == 0)
		model->leak = *report;
	model->exhausted += report->fault == HK_FAULT_EXHAUSTED;
	test_on_report(&model->reports, report);
}

static void create(struct model *model)
{
	struct hk_arena_config config = {
		.name = "model",
		.address_space = model->options.platform.open ? 0 : (size_t)256 << 20,
		.limit = model->options.limit,
		.platform = &model->fault.platform,
		.context = model,
		.on_report = on_report,
		.maintain_delay = 6,
	};
	size_t i;

	model->fault.fail_at = 0;
	model->fault.fail_from = 0;
	model->calls_before = model->fault.calls;
	memset(&model->reports, 0, sizeof(model->reports));
	model_must(model, hk_arena_create(&model->arena, &config) == 0, "no arena");
	for (i = 0; i < MODEL_CACHES; i++)
		model_must(model, hk_cache_create(model->arena, &model->caches[i]) == 0,
			   "no cache");
}

void model_platform_init(struct fault_platform *fault, const struct model_platform *platform,
			 struct fault_options options, struct hk_fixed_region *region)
{
	struct hk_platform inner;
	int error = platform->open ? hk_platform_fixed(&inner, region) : hk_platform_system(&inner);

	cr_assert_eq(error, 0);
	if (inner.page_size > platform->page_size)
		cr_skip_test("the system's pages are larger");
	if (inner.granularity < platform->granularity)
		inner.granularity = platform->granularity;
	inner.flags |= platform->flags;
	options.inner = &inner;
	options.page_size = platform->page_size;
	options.garbage |= platform->garbage;
	cr_assert_eq(fault_platform_init(fault, &options), 0);
}

void model_open(struct model *model, const struct model_options *options)
{
	memset(model, 0, sizeof(*model));
	model->options = *options;
	if (options->platform.open) {
		model->region_memory = malloc(options->region);
		cr_assert_not_null(model->region_memory);
		memset(model->region_memory, 0xcd, options->region);
		model->region.memory = model->region_memory;
		model->region.size = options->region;
	}
	model_platform_init(&model->fault, &options->platform, options->fault, &model->region);
	create(model);
}

bool model_may_fail(const struct model *model)
{
	return model->options.limit || model->options.platform.open || model->options.failures;
}

/* Where a block belongs in the list. */
static size_t find(const struct model *model, const unsigned char *ptr)
{
	size_t low = 0;
	size_t high = model->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (model->blocks[middle].ptr < ptr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool has_odd_class(const struct model_block *block)
{
	return block->align > 65536;
}

static void count_block(struct model *model, const struct model_block *block, int sign)
{
	size_t *class = &model->classes[0];

	if (has_odd_class(block)) {
		model->odd += (size_t)sign;
	} else {
		/* beyond, resizes make large blocks of those that a class had */
		if (block->usable <= HK_QUARTER_MAX)
			class = &model->classes[hk_size_class(block->usable)];
		*class += (size_t)sign;
	}
	model->bytes += (size_t)sign * block->usable;
}

void model_add(struct model *model, void *ptr, size_t size, size_t align, bool exact)
{
	struct model_block block = { .ptr = ptr, .size = size, .align = align };
	size_t index = find(model, ptr);

	model_must(model, ptr && model->count < MODEL_BLOCKS, "no block");
	block.usable = hk_usable_size(model->arena, ptr);
	block.seed = ++model->next_seed;
	model_must(model, (uintptr_t)ptr % 16 == 0, "not aligned to 16");
	model_must(model, !align || (uintptr_t)ptr % align == 0, "not aligned");
	model_must(model, block.usable >= size, "smaller than asked for");
	model_must(model, !exact || block.usable == hk_good_size(size), "not of the good size");
	model_must(model, hk_arena_owns(model->arena, ptr), "not the arena's");
	if (index > 0)
		model_must(model,
			   model->blocks[index - 1].ptr + model->blocks[index - 1].usable <=
				   block.ptr,
			   "overlaps the block before");
	if (index < model->count)
		model_must(model, block.ptr + block.usable <= model->blocks[index].ptr,
			   "overlaps the block behind");
	memmove(&model->blocks[index + 1], &model->blocks[index],
		(model->count - index) * sizeof(block));
	model->blocks[index] = block;
	model->count++;
	count_block(model, &block, 1);
	model_stamp(block.ptr, size, block.seed);
}

struct model_block model_remove(struct model *model, size_t index)
{
	struct model_block block = model->blocks[index];

	model_must(model, model_holds(block.ptr, block.size, block.size, block.seed),
		   "content is lost");
	model->count--;
	memmove(&model->blocks[index], &model->blocks[index + 1],
		(model->count - index) * sizeof(block));
	count_block(model, &block, -1);
	return block;
}

void model_forget(struct model *model)
{
	model->count = 0;
	model->bytes = 0;
	model->odd = 0;
	memset(model->classes, 0, sizeof(model->classes));
}

void model_check_content(struct model *model)
{
	size_t i;

	for (i = 0; i < model->count; i++) {
		const struct model_block *block = &model->blocks[i];

		model_must(model, model_holds(block->ptr, block->size, block->size, block->seed),
			   "content is lost");
		model_must(model, hk_usable_size(model->arena, block->ptr) == block->usable,
			   "usable size has changed");
	}
}

void model_check(struct model *model)
{
	const size_t *by_fault = model->reports.by_fault;
	struct hk_stats stats;
	unsigned i;

	model_must(model, hk_arena_check(model->arena) == 0, model->reports.last.what);
	hk_arena_stats(model->arena, &stats);
	model_must(model, stats.live_blocks == model->count, "live blocks");
	model_must(model, stats.live_bytes == model->bytes, "live bytes");
	for (i = hk_size_class(HK_QUARTER_MAX) + 1; i < HK_CLASSES; i++)
		stats.classes[0].live_blocks += stats.classes[i].live_blocks;
	for (i = 0; i <= hk_size_class(HK_QUARTER_MAX) && !model->odd; i++)
		model_must(model, stats.classes[i].live_blocks == model->classes[i],
			   "live blocks of a class");
	model_must(model, stats.committed_bytes == model->fault.committed, "committed bytes");
	model_must(model, stats.peak_committed_bytes >= stats.committed_bytes, "peak");
	model_must(model,
		   stats.live_bytes + stats.cached_bytes + stats.free_bytes +
				   stats.metadata_bytes <=
			   stats.committed_bytes,
		   "more there than committed");
	model_must(model, stats.counters.platform_call == model->fault.calls - model->calls_before,
		   "platform calls");
	model_must(model, !model->options.limit || model->fault.peak <= model->options.limit,
		   "the limit was passed");
	model_must(model,
		   model->reports.count ==
			   by_fault[HK_FAULT_EXHAUSTED] + by_fault[HK_FAULT_PLATFORM],
		   model->reports.last.what);
	model_must(model, model_may_fail(model) || model->reports.count == 0,
		   "reported for no reason");
	model_must(model, model->options.failures || by_fault[HK_FAULT_PLATFORM] == 0,
		   "the platform did not fail");
	model_must(model, model->fault.violations == 0, model->fault.violation);
}

static void destroy(struct model *model)
{
	size_t told = model->count < 8 ? model->count : 8;

	model->fault.fail_at = 0;
	model->fault.fail_from = 0;
	memset(&model->reports, 0, sizeof(model->reports));
	hk_arena_destroy(model->arena);
	model_must(model, model->reports.count == (model->count ? told + 1 : 0), "leak reports");
	model_must(model,
		   !model->count ||
			   (model->leak.count == model->count && model->leak.size == model->bytes),
		   "leaks miscounted");
	model_must(model, model->fault.reserved == 0, "not released");
	memset(model->caches, 0, sizeof(model->caches));
	model_forget(model);
}

void model_replace(struct model *model)
{
	destroy(model);
	create(model);
}

void model_close(struct model *model)
{
	size_t i;

	model_check_content(model);
	while (model->count) {
		struct model_block block = model_remove(model, model->count - 1);

		hk_arena_free(model->arena, block.ptr);
	}
	for (i = 0; i < MODEL_CACHES; i++)
		if (model->caches[i])
			hk_cache_flush(model->caches[i]);
	model_check(model);
	destroy(model);
	cr_assert_eq(fault_platform_end(&model->fault), 0, "%s", model->fault.violation);
	free(model->region_memory);
}
