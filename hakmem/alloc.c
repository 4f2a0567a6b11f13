/* SPDX-License-Identifier: MIT */
/*
 * The calls that allocate, resize and free, beyond the inline hits.
 *
 * A request becomes a class, or a large block; a class's block comes from the cache, or straight
 * from the slabs for a caller without one. When there is none, room is made and it is tried
 * again (hk_arena_make_room()).
 */
#include <hakmem/arena.h>
#include <string.h>

/* Blocks up to this size are cleared as they are; what is known of larger ones is looked at. */
#define ZERO_AT_ONCE 32768u

static struct hk_arena *arena_of(struct hk_cache *cache)
{
	return hk_front(cache)->arena;
}

/* A size that no block can have: reported, true. */
static bool is_impossible(struct hk_arena *arena, const void *ptr, size_t size)
{
	if (HK_LIKELY(size <= PTRDIFF_MAX))
		return false;
	hk_report_fault(&arena->reporter, HK_FAULT_ARGUMENT, "a size is beyond PTRDIFF_MAX", ptr,
			size);
	return true;
}

/*
 * A request, once its size is known to be possible. Handed on by address: a copy is read sixteen
 * bytes at once right after eight of them were written, which a processor can do only once all that
 * the program wrote before is in the cache.
 */
struct request {
	size_t size;
	size_t align;
	bool zero;
	unsigned size_class; /* 0: a large block */
};

static struct request request_for(size_t size, size_t align, bool zero)
{
	struct request request = { size ? size : 1, align, zero, 0 };

	if (size > HK_CLASS_MAX || align > HK_SLAB_SIZE)
		return request;
	/*
	 * Runs begin at slabs, so a class has the alignment of its size, and that of a size which
	 * is a multiple of the alignment is one too: classes step by powers of two.
	 */
	size = hk_round_up(request.size, align);
	if (size <= HK_CLASS_MAX)
		request.size_class = hk_size_class(size);
	return request;
}

static int try_large(struct hk_arena *arena, struct hk_front *front, const struct request *request,
		     void **block)
{
	struct hk_slab_marks marks = hk_slab_marks(&arena->slabs, 0);
	int error;

	if (front && front->large && request->align <= HK_SLAB_SIZE) {
		*block = hk_large_unstash(&arena->large, request->size, &front->large);
		hk_front_note(front, HK_STAGE_LARGE);
		if (*block && request->zero)
			memset(*block, 0, request->size);
		if (*block)
			return 0;
	}
	error = hk_large_alloc(&arena->large, request->size, request->align,
			       request->zero ? request->size : 0, block);
	if (front)
		hk_front_note(front, hk_slab_stage(&arena->slabs, 0, marks));
	return error;
}

/* Why a class has no block: the range may have no such place at all. */
static int class_error(const struct hk_arena *arena, unsigned size_class)
{
	return hk_run_is_possible(&arena->space, hk_class_infos[size_class].slabs, HK_SLAB_SIZE)
		       ? HK_ERROR_MEMORY
		       : HK_ERROR_ARGUMENT;
}

/* One try, without making room: 0, with a block, or an error. */
static int try_alloc(struct hk_arena *arena, struct hk_front *front, const struct request *request,
		     void **block)
{
	if (!request->size_class)
		return try_large(arena, front, request, block);
	*block = NULL;
	if (!front)
		hk_slab_take(&arena->slabs, request->size_class, block, 1, NULL);
	else if (request->zero)
		*block = hk_front_zalloc(front, request->size_class, request->size);
	else
		*block = hk_front_alloc(front, request->size_class);
	return *block ? 0 : class_error(arena, request->size_class);
}

/* Makes room after a try that failed, and tries again, until there is a block or no hope. */
static void *alloc_hard(struct hk_arena *arena, struct hk_front *front,
			const struct request *request, int error)
{
	unsigned round = 0;
	void *block;

	do {
		/* the range has no such address: no reason for alarm */
		if (error == HK_ERROR_ARGUMENT && request->align > HK_SUPERSLAB_SIZE)
			return NULL;
		if (!hk_arena_make_room(arena, front, request->size, error, round++))
			return NULL;
		error = try_alloc(arena, front, request, &block);
		hk_reporter_flush(&arena->reporter);
	} while (error);
	return block;
}

static void *alloc(struct hk_arena *arena, struct hk_front *front, const struct request *request)
{
	void *block;
	int error = try_alloc(arena, front, request, &block);

	hk_reporter_flush(&arena->reporter);
	return HK_LIKELY(!error) ? block : alloc_hard(arena, front, request, error);
}

/* A block of a class from the loaded magazine, NULL where that is empty: hk_alloc()'s hit. */
static inline void *hit(struct hk_cache *cache, unsigned size_class)
{
	void **top = cache->top[size_class], *block = *top;

	if (HK_LIKELY(block))
		HK_STORE_TOP(&cache->top[size_class], top - 1);
	return block;
}

/*
 * The class has nothing in its loaded magazine, or the block is a large one. Apart, so that the hit
 * in hk_alloc_slow() saves no registers.
 */
static HK_NOINLINE void *alloc_missed(struct hk_front *front, size_t size)
{
	struct hk_arena *arena = front->arena;
	struct request request;
	void *block;

	if (HK_UNLIKELY(is_impossible(arena, NULL, size)))
		return NULL;
	/* most come with a size that has a class: they need no request */
	if (HK_LIKELY(size <= HK_CLASS_MAX)) {
		block = hk_front_alloc(front, hk_size_class(size ? size : 1));
		hk_reporter_flush(&arena->reporter);
		if (HK_LIKELY(block))
			return block;
		request = request_for(size, 16, false);
		return alloc_hard(arena, front, &request, class_error(arena, request.size_class));
	}
	request = request_for(size, 16, false);
	return alloc(arena, front, &request);
}

void *hk_alloc_slow(struct hk_cache *cache, size_t size)
{
	void *block;

	/* beyond HK_SMALL_MAX a hit comes here too, unless the size is constant */
	if (HK_LIKELY(size - 1 < HK_CLASS_MAX)) {
		block = hit(cache, hk_size_class(size));
		if (HK_LIKELY(block))
			return block;
	}
	return alloc_missed(hk_front(cache), size);
}

/* Apart for the same reason. */
static HK_NOINLINE void *zalloc_missed(struct hk_front *front, size_t size)
{
	struct request request;

	if (is_impossible(front->arena, NULL, size))
		return NULL;
	request = request_for(size, 16, true);
	return alloc(front->arena, front, &request);
}

void *hk_zalloc(struct hk_cache *cache, size_t size)
{
	void *block;

	/* larger ones may be zero still, and are worth asking */
	if (HK_LIKELY(size <= ZERO_AT_ONCE)) {
		block = hit(cache, hk_size_class(size ? size : 1));
		if (HK_LIKELY(block))
			return memset(block, 0, size);
	}
	return zalloc_missed(hk_front(cache), size);
}

void *hk_arena_alloc(struct hk_arena *arena, size_t size)
{
	struct request request;

	if (is_impossible(arena, NULL, size))
		return NULL;
	atomic_fetch_add_explicit(&arena->allocs, 1, memory_order_relaxed);
	request = request_for(size, 16, false);
	return alloc(arena, NULL, &request);
}

/* An alignment as it is used, or 0 when it is none: reported. */
static size_t good_align(struct hk_arena *arena, size_t align)
{
	if (HK_LIKELY(align && !(align & (align - 1))))
		return align < 16 ? 16 : align;
	hk_report_fault(&arena->reporter, HK_FAULT_ARGUMENT, "an alignment is no power of two",
			NULL, align);
	return 0;
}

void *hk_alloc_aligned(struct hk_cache *cache, size_t size, size_t align)
{
	struct hk_arena *arena = arena_of(cache);
	struct request request;
	void *block;

	align = good_align(arena, align);
	if (!align || is_impossible(arena, NULL, size))
		return NULL;
	request = request_for(size, align, false);
	block = hit(cache, request.size_class);
	return HK_LIKELY(block) ? block : alloc(arena, hk_front(cache), &request);
}

static void refuse(struct hk_front *front, enum hk_fault fault, void *ptr)
{
	struct hk_superslabs *space = front->depot->slabs->space;
	struct hk_bad bad = { ptr, fault, hk_class_at(space, ptr) };

	if (!bad.size_class)
		bad.size_class = hk_last_class(space, ptr);
	hk_count(&front->refused);
	hk_report_bad(&front->arena->reporter, &bad, 1);
}

void hk_free_slow(struct hk_cache *cache, void *ptr)
{
	struct hk_front *front = hk_front(cache);
	enum hk_fault fault;
	unsigned byte;

	if (!ptr) {
		hk_count(&front->free_null);
		return;
	}
	hk_front_refresh(front);
	byte = hk_class_at(front->depot->slabs->space, ptr);
	if (byte && byte < HK_CLASSES) {
		hk_front_push(front, byte, ptr);
		return;
	}
	fault = hk_large_free(&front->arena->large, ptr);
	hk_front_note(front, HK_STAGE_LARGE);
	if (fault)
		refuse(front, fault, ptr);
}

/* Whether a live block may have been given @size; tells when not. */
static bool check_size(struct hk_front *front, void *ptr, size_t size)
{
	size_t usable = hk_slab_block_size(front->depot->slabs, ptr);
	/* where shrinking found no smaller block, some are larger than their size says */
	bool kept = atomic_load_explicit(&front->arena->kept, memory_order_relaxed);

	if (!usable || hk_good_size(size) == usable || (kept && size <= usable))
		return true;
	hk_report_fault(&front->arena->reporter, HK_FAULT_ARGUMENT,
			"hk_free_sized() was told a size that is not the block's", ptr, size);
	return false;
}

void hk_free_sized_slow(struct hk_cache *cache, void *ptr, size_t size)
{
	/* here, where time is spent anyway, or a debug build of the host always comes */
	if (check_size(hk_front(cache), ptr, size))
		hk_free_slow(cache, ptr);
}

void hk_arena_free(struct hk_arena *arena, void *ptr)
{
	struct hk_bad bad[1];

	if (!ptr)
		return;
	if (!hk_slab_return(&arena->slabs, &ptr, 1, bad)) {
		atomic_fetch_add_explicit(&arena->frees, 1, memory_order_relaxed);
		return;
	}
	atomic_fetch_add_explicit(&arena->refused, 1, memory_order_relaxed);
	hk_report_bad(&arena->reporter, bad, 1);
}

/* A large block made larger or smaller where it is, with what the arena can do for it. */
static bool resize_large(struct hk_front *front, void *ptr, size_t size)
{
	struct hk_arena *arena = front->arena;
	struct hk_slab_marks marks = hk_slab_marks(&arena->slabs, 0);
	int error = hk_large_resize(&arena->large, ptr, size);
	unsigned round;

	for (round = 0; (error == HK_ERROR_LIMIT || error == HK_ERROR_MEMORY) && round < 2;
	     round++) {
		hk_arena_make_room(arena, front, size, error, round);
		error = hk_large_resize(&arena->large, ptr, size);
	}
	hk_front_note(front, hk_slab_stage(&arena->slabs, 0, marks));
	return !error;
}

/*
 * What is wrong with a block that is to be resized, and is @old bytes long. One that has a run of
 * its own and lies in this very cache was freed: resized, its run would go while it lies there.
 */
static enum hk_fault resize_fault(struct hk_front *front, unsigned byte, void *ptr, size_t old)
{
	if (!old) {
		enum hk_fault fault = hk_slab_fault(front->depot->slabs, ptr);

		/* what another thread has got there meanwhile is not the caller's */
		return fault ? fault : HK_FAULT_FOREIGN;
	}
	if (old > HK_QUARTER_MAX && hk_is_block_class(byte) && hk_front_holds(front, byte, ptr))
		return HK_FAULT_DOUBLE_FREE;
	return HK_FAULT_NONE;
}

/* Whether a block has a run of its own, large or now made so, that can be resized. */
static bool is_resizable(struct hk_front *front, const void *ptr)
{
	struct hk_slabs *slabs = front->depot->slabs;

	return hk_class_at(slabs->space, ptr) == HK_CLASS_LARGE || hk_slab_make_large(slabs, ptr);
}

/* Whether a block can stay where it is: its class does, or the end of its run moves. */
static bool resize_in_place(struct hk_front *front, unsigned byte, void *ptr,
			    const struct request *request)
{
	if (byte == request->size_class)
		return true;
	/* one that is large by its alignment may be shorter */
	return (request->size > HK_QUARTER_MAX || !request->size_class) &&
	       is_resizable(front, ptr) && resize_large(front, ptr, request->size);
}

static void *resize(struct hk_front *front, void *ptr, size_t size, size_t align)
{
	struct hk_arena *arena = front->arena;
	unsigned byte = hk_class_at(&arena->space, ptr);
	size_t old = hk_slab_size_of(&arena->slabs, byte, ptr);
	struct request request = request_for(size, align, false);
	enum hk_fault fault = resize_fault(front, byte, ptr, old);
	bool aligned = !((uintptr_t)ptr & (align - 1));
	void *block;

	if (fault) {
		refuse(front, fault, ptr);
		return NULL;
	}
	if (aligned && resize_in_place(front, byte, ptr, &request))
		return ptr;
	block = hit(&front->hot, request.size_class);
	if (HK_LIKELY(block)) {
		/* the rest of this is for misses */
	} else if (aligned && size <= old) {
		/* a smaller block is welcome, but the host need not hear when there is none */
		if (try_alloc(arena, front, &request, &block)) {
			atomic_fetch_add_explicit(&arena->kept, 1, memory_order_relaxed);
			return ptr;
		}
	} else {
		block = alloc(arena, front, &request);
		if (!block)
			return NULL;
	}
	if (size > old && old >= HK_MOVE_MIN &&
	    hk_space_move(&arena->space, ptr, old, block, hk_slab_block_size(&arena->slabs, block)))
		hk_front_note(front, HK_STAGE_PLATFORM);
	else
		memcpy(block, ptr, size < old ? size : old);
	hk_free(&front->hot, ptr);
	return block;
}

void *hk_realloc(struct hk_cache *cache, void *ptr, size_t size)
{
	void *block;

	if (!ptr)
		return hk_alloc(cache, size);
	if (is_impossible(arena_of(cache), ptr, size))
		return NULL;
	block = resize(hk_front(cache), ptr, size, 16);
	hk_reporter_flush(&arena_of(cache)->reporter);
	return block;
}

void *hk_realloc_aligned(struct hk_cache *cache, void *ptr, size_t size, size_t align)
{
	struct hk_arena *arena = arena_of(cache);
	void *block;

	if (!ptr)
		return hk_alloc_aligned(cache, size, align);
	align = good_align(arena, align);
	if (!align || is_impossible(arena, ptr, size))
		return NULL;
	block = resize(hk_front(cache), ptr, size, align);
	hk_reporter_flush(&arena->reporter);
	return block;
}

bool hk_expand(struct hk_cache *cache, void *ptr, size_t size)
{
	struct hk_front *front = hk_front(cache);
	struct hk_slabs *slabs = front->depot->slabs;
	unsigned byte = hk_class_at(slabs->space, ptr);
	size_t old = hk_slab_size_of(slabs, byte, ptr);
	enum hk_fault fault = resize_fault(front, byte, ptr, old);
	bool done;

	if (fault) {
		refuse(front, fault, ptr);
		return false;
	}
	if (size <= old)
		return true;
	done = size <= PTRDIFF_MAX && is_resizable(front, ptr) && resize_large(front, ptr, size);
	hk_reporter_flush(&front->arena->reporter);
	return done;
}

bool hk_alloc_bulk(struct hk_cache *cache, size_t size, size_t count, void **blocks)
{
	size_t done;

	for (done = 0; done < count; done++) {
		blocks[done] = hk_alloc(cache, size);
		if (!blocks[done])
			goto out_free;
	}
	return true;

out_free:
	hk_free_bulk(cache, done, blocks);
	for (done = 0; done < count; done++)
		blocks[done] = NULL;
	return false;
}

static int prefill_large(struct hk_front *front, size_t size, size_t count)
{
	struct hk_large *large = &front->arena->large;
	uint32_t before = front->large;
	size_t have = hk_large_stashed(large, size, before);
	int error = 0;

	for (; have < count && !error; have++)
		error = hk_large_stash(large, size, &front->large);
	/* as many as before: what was added stands in front */
	while (error && front->large != before)
		hk_large_free(large, hk_large_unstash(large, size, &front->large));
	hk_front_refresh(front);
	return error;
}

int hk_cache_prefill(struct hk_cache *cache, size_t size, size_t count)
{
	struct hk_front *front = hk_front(cache);
	struct hk_arena *arena = front->arena;
	struct request request;
	unsigned round = 0;
	int error;

	if (is_impossible(arena, NULL, size) || count > UINT32_MAX / 2)
		return HK_ERROR_ARGUMENT;
	request = request_for(size, 16, false);
	for (;;) {
		if (!request.size_class)
			error = prefill_large(front, request.size, count);
		else
			error = hk_front_prefill(front, request.size_class, count)
					? 0
					: HK_ERROR_MEMORY;
		hk_reporter_flush(&arena->reporter);
		if (!error || !hk_arena_make_room(arena, front, size, error, round++))
			return error;
	}
}

void hk_free_bulk(struct hk_cache *cache, size_t count, void **blocks)
{
	for (; count; count--, blocks++)
		hk_free(cache, *blocks);
}

void *hk_alloc_fn(struct hk_cache *cache, size_t size)
{
	return hk_alloc(cache, size);
}

void hk_free_fn(struct hk_cache *cache, void *ptr)
{
	hk_free(cache, ptr);
}

void hk_free_sized_fn(struct hk_cache *cache, void *ptr, size_t size)
{
	hk_free_sized(cache, ptr, size);
}

enum hk_stage hk_cache_stage(struct hk_cache *cache)
{
	struct hk_front *front = hk_front(cache);
	enum hk_stage stage = (enum hk_stage)front->stage;

	front->stage = HK_STAGE_HIT;
	return stage;
}

bool hk_arena_owns(const struct hk_arena *arena, const void *ptr)
{
	return hk_class_at(&arena->space, ptr) != 0;
}

size_t hk_usable_size(const struct hk_arena *arena, const void *ptr)
{
	return hk_slab_block_size(&arena->slabs, ptr);
}
