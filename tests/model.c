/* SPDX-License-Identifier: MIT */
/*
 * Hundreds of thousands of random calls on three arenas at once, held against the model: one
 * arena with room, one at its limit, one whose platform fails; on every platform of model.h. A
 * failure tells seed and step.
 */
#define _POSIX_C_SOURCE 200809L
#undef HK_DEBUG
#define HK_DEBUG 0 /* the inline path of hk_free_sized(), whatever the build says */

#include <string.h>

#include "model.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define ARENAS 3
#define BULK 40

static struct model models[ARENAS];

static size_t random_size(uint64_t *seed)
{
	uint64_t kind = test_random(seed) % 100;
	size_t most = kind < 50	  ? 1100
		      : kind < 75 ? 9000
		      : kind < 90 ? 70000
		      : kind < 97 ? 600000
				  : 3 * MIB;
	size_t size = (size_t)(test_random(seed) % most);

	/* class bounds and their neighbours more often than chance has it */
	if (kind % 5 == 0)
		size = hk_good_size(size) + (size_t)(kind / 5 % 3) - 1;
	return size;
}

static struct hk_cache *random_cache(struct model *model, uint64_t *seed)
{
	size_t first = (size_t)(test_random(seed) % MODEL_CACHES);
	size_t i;

	for (i = 0; i < MODEL_CACHES; i++)
		if (model->caches[(first + i) % MODEL_CACHES])
			return model->caches[(first + i) % MODEL_CACHES];
	return NULL;
}

static void may_fail(struct model *model, const char *what, size_t size)
{
	must(model_may_fail(model), "seed %llu, step %zu: %s of %zu bytes failed",
	     (unsigned long long)model->where, model->step, what, size);
}

static bool is_zero(const unsigned char *bytes, size_t size)
{
	return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static void allocate(struct model *model, struct hk_cache *cache, uint64_t *seed, unsigned how)
{
	size_t size = random_size(seed);
	size_t align = 0;
	void *block;

	if (how == 0) {
		block = hk_zalloc(cache, size);
		must(!block || is_zero(block, size), "seed %llu, step %zu: %zu bytes not zero",
		     (unsigned long long)model->where, model->step, size);
	} else if (how == 1) {
		align = (size_t)1 << test_random(seed) % 19;
		block = hk_alloc_aligned(cache, size, align);
	} else if (how == 2) {
		block = hk_arena_alloc(model->arena, size);
	} else {
		block = hk_alloc(cache, size);
	}
	if (block)
		model_add(model, block, size, align, !align);
	else
		may_fail(model, "allocation", size);
}

static void release(struct model *model, struct hk_cache *cache, uint64_t *seed, unsigned how)
{
	struct model_block block;

	if (!model->count) {
		hk_free(cache, NULL);
		return;
	}
	block = model_remove(model, (size_t)(test_random(seed) % model->count));
	memset(block.ptr, 0xdb, block.size < 256 ? block.size : 256);
	/* a block that shrank in place is told by its larger size: its class is not of its size */
	if (how == 0 && !block.align && block.usable == hk_good_size(block.size))
		hk_free_sized(cache, block.ptr, block.size);
	else if (how == 1)
		hk_arena_free(model->arena, block.ptr);
	else
		hk_free(cache, block.ptr);
}

static void resize(struct model *model, struct hk_cache *cache, uint64_t *seed, bool aligned)
{
	size_t index = (size_t)(test_random(seed) % (model->count + 1));
	size_t align = aligned ? (size_t)1 << test_random(seed) % 18 : 0;
	struct model_block block = { 0 };
	size_t size = random_size(seed);
	size_t kept;
	void *moved;

	if (index < model->count)
		block = model_remove(model, index);
	kept = block.size < size ? block.size : size;
	moved = aligned ? hk_realloc_aligned(cache, block.ptr, size, align)
			: hk_realloc(cache, block.ptr, size);
	if (!moved) {
		may_fail(model, "resizing", size);
		must(size > block.usable || aligned || !block.ptr,
		     "seed %llu, step %zu: shrinking %zu to %zu failed",
		     (unsigned long long)model->where, model->step, block.usable, size);
		if (!block.ptr)
			return;
		moved = block.ptr;
		size = block.size;
		kept = block.size;
		align = block.align;
	}
	/* a block that stays is what it was: of a class, or large for its alignment's sake */
	if (moved == block.ptr && block.align > align)
		align = block.align;
	must(model_holds(moved, block.size, kept, block.seed),
	     "seed %llu, step %zu: content lost from %zu to %zu", (unsigned long long)model->where,
	     model->step, block.size, size);
	model_add(model, moved, size, align, !align && !model_may_fail(model));
}

static void expand(struct model *model, struct hk_cache *cache, uint64_t *seed)
{
	struct model_block block;
	size_t size;

	if (!model->count)
		return;
	block = model_remove(model, (size_t)(test_random(seed) % model->count));
	size = block.usable + random_size(seed) - 500;
	if (hk_expand(cache, block.ptr, size)) {
		must(hk_usable_size(model->arena, block.ptr) >= size, "seed %llu, step %zu",
		     (unsigned long long)model->where, model->step);
		must(model_holds(block.ptr, block.size, block.size, block.seed),
		     "seed %llu, step %zu", (unsigned long long)model->where, model->step);
		if (size > block.usable)
			block.size = size;
	} else {
		must(size > block.usable, "seed %llu, step %zu", (unsigned long long)model->where,
		     model->step);
		must(hk_usable_size(model->arena, block.ptr) == block.usable, "seed %llu, step %zu",
		     (unsigned long long)model->where, model->step);
	}
	model_add(model, block.ptr, block.size, block.align, false);
}

static void allocate_bulk(struct model *model, struct hk_cache *cache, uint64_t *seed)
{
	void *blocks[BULK];
	size_t count = (size_t)(test_random(seed) % BULK);
	size_t size = random_size(seed) % 20000;
	size_t i;

	memset(blocks, 0xff, sizeof(blocks));
	if (hk_alloc_bulk(cache, size, count, blocks)) {
		for (i = 0; i < count; i++)
			model_add(model, blocks[i], size, 0, true);
		return;
	}
	may_fail(model, "bulk", size * count);
	for (i = 0; i < count; i++)
		must(!blocks[i], "seed %llu, step %zu: not NULL", (unsigned long long)model->where,
		     model->step);
}

static void release_bulk(struct model *model, struct hk_cache *cache, uint64_t *seed)
{
	void *blocks[BULK];
	size_t count = (size_t)(test_random(seed) % BULK);
	size_t i;

	for (i = 0; i < count; i++) {
		blocks[i] = NULL;
		if (model->count && test_random(seed) % 8)
			blocks[i] =
				model_remove(model, (size_t)(test_random(seed) % model->count)).ptr;
	}
	hk_free_bulk(cache, count, blocks);
}

static void rarities(struct model *model, struct hk_cache *cache, uint64_t *seed)
{
	size_t i = (size_t)(test_random(seed) % MODEL_CACHES);
	int error;

	switch (test_random(seed) % 32) {
	case 0:
		hk_arena_reset(model->arena);
		model_forget(model);
		break;
	case 1:
		model_replace(model);
		break;
	case 2:
	case 3:
		hk_arena_trim(model->arena, 0, 0);
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		hk_arena_trim(model->arena, model->bytes + (size_t)(test_random(seed) % (8 * MIB)),
			      test_random(seed) % 3 * 1000);
		break;
	case 8:
	case 9:
	case 10:
	case 11:
	case 12:
	case 13:
		hk_cache_destroy(model->caches[i]);
		model->caches[i] = NULL;
		break;
	case 14:
	case 15:
	case 16:
		model->fault.fail_at = 0;
		model->fault.fail_from = 0;
		if (model->options.failures && test_random(seed) % 2)
			model->fault.fail_at = model->fault.steps + 1 + test_random(seed) % 4;
		else if (model->options.failures)
			model->fault.fail_from = model->fault.steps + 1;
		break;
	case 17:
		error = hk_arena_prewarm(model->arena,
					 model->bytes + (size_t)(test_random(seed) % (8 * MIB)));
		if (error)
			may_fail(model, "prewarming", 0);
		break;
	case 18:
	case 19:
		if (model->caches[i])
			hk_cache_rest(model->caches[i]);
		break;
	case 20:
	case 21:
		if (cache && hk_cache_prefill(cache, random_size(seed) % 9000,
					      (size_t)(test_random(seed) % 100)))
			may_fail(model, "prefilling", 0);
		break;
	default:
		hk_cache_flush(cache);
	}
	for (i = 0; i < MODEL_CACHES; i++) {
		if (model->caches[i])
			continue;
		error = hk_cache_create(model->arena, &model->caches[i]);
		must(!error == (model->caches[i] != NULL), "step %zu", model->step);
		if (error)
			may_fail(model, "a cache", 0);
	}
}

static void step(struct model *model, uint64_t *seed)
{
	struct hk_cache *cache = random_cache(model, seed);
	uint64_t what = test_random(seed) % 100;

	/* keeps the number of blocks and their bytes in bounds */
	if (model->count > MODEL_BLOCKS - BULK - 1 || model->bytes > 40 * MIB)
		what = 60 + what % 20;
	if (!cache) {
		if (what % 2)
			allocate(model, NULL, seed, 2);
		else if (model->count)
			release(model, NULL, seed, 1);
		rarities(model, NULL, seed);
		return;
	}
	if (what < 27)
		allocate(model, cache, seed, 3);
	else if (what < 40)
		allocate(model, cache, seed, (unsigned)what % 3);
	else if (what < 47)
		resize(model, cache, seed, false);
	else if (what < 52)
		resize(model, cache, seed, true);
	else if (what < 58)
		expand(model, cache, seed);
	else if (what < 90)
		release(model, cache, seed, (unsigned)what % 4);
	else if (what < 93)
		allocate_bulk(model, cache, seed);
	else if (what < 97)
		release_bulk(model, cache, seed);
	else if (what < 98)
		hk_cache_flush(cache);
	else if (what < 99 && test_random(seed) % 4)
		hk_arena_maintain(model->arena, test_random(seed) % 3 * 1000);
	else if (what < 99)
		hk_cache_rest(cache);
	else
		rarities(model, cache, seed);
}

static void run(const struct model_options options[ARENAS], uint64_t first_seed, size_t steps)
{
	uint64_t seed = first_seed;
	size_t i;
	size_t j;

	for (i = 0; i < ARENAS; i++) {
		model_open(&models[i], &options[i]);
		models[i].where = first_seed;
	}
	for (i = 0; i < steps; i++) {
		struct model *model = &models[test_random(&seed) % ARENAS];

		model->step = i;
		step(model, &seed);
		if (i % 400 == 0)
			for (j = 0; j < ARENAS; j++)
				model_check(&models[j]);
		if (i % 4000 == 0)
			for (j = 0; j < ARENAS; j++)
				model_check_content(&models[j]);
	}
	for (i = 0; i < ARENAS; i++) {
		/* a long run has tried nothing unless limits were hit and the platform failed */
		if (steps > 50000) {
			cr_assert_eq(options[i].failures, models[i].fault.injected > 0);
			cr_assert_eq(model_may_fail(&models[i]), models[i].exhausted > 0);
		}
		model_close(&models[i]);
	}
}

/* With room, at a limit, and on a platform that fails. */
static void run_on(struct model_platform platform, uint64_t seed, size_t steps)
{
	struct model_options options[ARENAS] = {
		{ .fault = { .forbid = true }, .region = 4 * MIB + 12345 },
		{ .fault = { .copy_move = true }, .region = 32 * MIB, .limit = 6 * MIB },
		{ .fault = { .garbage = true, .fake_clock = true },
		  .region = 16 * MIB,
		  .failures = true },
	};
	size_t i;

	for (i = 0; i < ARENAS; i++)
		options[i].platform = platform;
	run(options, seed, steps);
}

#define RUN(name, ...)                                                                             \
	Test(model, name, .timeout = 300)                                                          \
	{                                                                                          \
		run_on((struct model_platform){ __VA_ARGS__ }, sizeof(#name), 60000);              \
	}

MODEL_PLATFORMS(RUN)

Test(model, other_seeds, .timeout = 300)
{
	uint64_t seed;

	for (seed = 100; seed < 110; seed++)
		run_on((struct model_platform){ .page_size = 4 * KIB }, seed, 6000);
}
