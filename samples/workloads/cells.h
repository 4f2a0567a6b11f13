/* SPDX-License-Identifier: MIT */
/*
 * What the recipes are made of: a block goes into a cell and leaves it. An allocator (on_*.c)
 * includes its heap_*.h first, defines
 *
 *	static void *front_open(struct worker *worker, unsigned arena);	NULL: none to be had
 *	static void front_close(struct worker *worker, void *front);
 *	static bool heap_reset(struct run *run, unsigned arena);	false: it cannot
 *	static void heap_trim(struct run *run, unsigned arena);
 *	static bool heap_trim_some(struct run *run, unsigned arena); (true: there may be more)
 *	static inline int heap_stage(void *front);			-1: it has no stages
 *
 * and then includes recipes.h. Everything is inlined into one function for each mode, so that no
 * call through a pointer, and no test of the mode, stands between a recipe and an allocator.
 */
#ifndef SAMPLES_CELLS_H
#define SAMPLES_CELLS_H

#include "random.h"
#include "workload.h"

/* Where nobody measures, copies of everything would only take the compiler's time. */
#if defined(__GNUC__) && defined(NDEBUG)
#define RECIPE static inline __attribute__((always_inline, unused))
#elif defined(__GNUC__)
#define RECIPE static inline __attribute__((unused))
#else
#define RECIPE static inline
#endif

/* As the first and last byte of a block: written although nobody reads it. */
RECIPE void touch(struct worker *worker, void *block, size_t size)
{
	volatile unsigned char *bytes = block;
	size_t at;

	if (worker->touch)
		for (at = worker->touch; at < size; at += worker->touch)
			bytes[at] = 1;
	if (size) {
		bytes[0] = 1;
		bytes[size - 1] = 1;
	}
}

/* A call took so many ticks; its stage is asked for where the allocator has stages. */
RECIPE void note_time(struct worker *worker, void *front, struct histogram *by_stage,
		      uint64_t ticks)
{
	int stage = heap_stage(front);

	histogram_add(&worker->timings->all, ticks);
	worker->timings->frame_ticks += ticks;
	histogram_add(&by_stage[stage < 0 ? 0 : stage], ticks);
}

/* Bytes that are live more, or less. */
RECIPE void count_live(struct worker *worker, int64_t bytes)
{
	int64_t live = atomic_load_explicit(&worker->live, memory_order_relaxed);

	atomic_store_explicit(&worker->live, live + bytes, memory_order_relaxed);
}

/* What remains of an allocation once the block is there. */
RECIPE void cell_fill(struct worker *worker, enum workload_mode mode, struct cells *cells, size_t i,
		      void *block, size_t size, size_t align, bool zeroed)
{
	cells->blocks[i] = block;
	if (HK_UNLIKELY(!block))
		workload_note_failed(worker, size);
	else if (mode == MODE_NOTED)
		workload_note_new(worker, block, &cells->notes[i], size, align, zeroed);
	else
		touch(worker, block, size);
}

/* Through which cache: the worker's in its first arena, but for recipes with several. */
RECIPE void cell_alloc_at(struct worker *worker, enum workload_mode mode, void *front,
			  struct cells *cells, size_t i, size_t size)
{
	uint64_t start;
	void *block;

	if (mode == MODE_TIMED) {
		start = os_ticks();
		block = heap_alloc(front, size);
		note_time(worker, front, worker->timings->alloc, os_ticks() - start);
	} else {
		block = heap_alloc(front, size);
	}
	cell_fill(worker, mode, cells, i, block, size, HEAP_ALIGNMENT, false);
}

RECIPE void cell_zalloc_at(struct worker *worker, enum workload_mode mode, void *front,
			   struct cells *cells, size_t i, size_t size)
{
	uint64_t start;
	void *block;

	if (mode == MODE_TIMED) {
		start = os_ticks();
		block = heap_zalloc(front, size);
		note_time(worker, front, worker->timings->alloc, os_ticks() - start);
	} else {
		block = heap_zalloc(front, size);
	}
	cell_fill(worker, mode, cells, i, block, size, HEAP_ALIGNMENT, true);
}

RECIPE void cell_aligned_at(struct worker *worker, enum workload_mode mode, void *front,
			    struct cells *cells, size_t i, size_t size, size_t align)
{
	uint64_t start;
	void *block;

	if (align < HEAP_ALIGNMENT)
		align = HEAP_ALIGNMENT;
	if (mode == MODE_TIMED) {
		start = os_ticks();
		block = heap_aligned(front, size, align);
		note_time(worker, front, worker->timings->alloc, os_ticks() - start);
	} else {
		block = heap_aligned(front, size, align);
	}
	cell_fill(worker, mode, cells, i, block, size, align, false);
}

/* The block is gone from where it is noted; not yet freed. */
RECIPE void cell_empty(struct worker *worker, enum workload_mode mode, struct cells *cells,
		       size_t i)
{
	if (mode == MODE_NOTED && cells->blocks[i])
		workload_note_old(worker, cells->blocks[i], &cells->notes[i]);
}

RECIPE void block_free_at(struct worker *worker, enum workload_mode mode, void *front, void *block)
{
	uint64_t start;

	if (mode == MODE_TIMED) {
		start = os_ticks();
		heap_free(front, block);
		note_time(worker, front, worker->timings->free, os_ticks() - start);
	} else {
		heap_free(front, block);
	}
}

/* What is in the cell afterwards means nothing. */
RECIPE void cell_free_at(struct worker *worker, enum workload_mode mode, void *front,
			 struct cells *cells, size_t i)
{
	cell_empty(worker, mode, cells, i);
	block_free_at(worker, mode, front, cells->blocks[i]);
}

/* Where that fails the block is as it was. */
RECIPE void cell_realloc_at(struct worker *worker, enum workload_mode mode, void *front,
			    struct cells *cells, size_t i, size_t size)
{
	uint64_t start;
	void *block;

	if (mode == MODE_NOTED && cells->blocks[i])
		workload_note_old(worker, cells->blocks[i], &cells->notes[i]);
	if (mode == MODE_TIMED) {
		start = os_ticks();
		block = heap_realloc(front, cells->blocks[i], size);
		note_time(worker, front, worker->timings->alloc, os_ticks() - start);
	} else {
		block = heap_realloc(front, cells->blocks[i], size);
	}
	if (HK_UNLIKELY(!block)) {
		workload_note_failed(worker, size);
		if (mode == MODE_NOTED && cells->blocks[i])
			count_live(worker, (int64_t)cells->notes[i].size);
		return;
	}
	/* resized from nothing, where there was no memory before: what is noted is of another */
	if (mode == MODE_NOTED && cells->blocks[i])
		workload_note_resized(worker, block, &cells->notes[i], size, HEAP_ALIGNMENT);
	else
		cell_fill(worker, mode, cells, i, block, size, HEAP_ALIGNMENT, false);
	cells->blocks[i] = block;
}

RECIPE void cell_alloc(struct worker *worker, enum workload_mode mode, struct cells *cells,
		       size_t i, size_t size)
{
	cell_alloc_at(worker, mode, worker->front, cells, i, size);
}

RECIPE void cell_free(struct worker *worker, enum workload_mode mode, struct cells *cells, size_t i)
{
	cell_free_at(worker, mode, worker->front, cells, i);
}

/* A block passes from one cell to another. */
RECIPE void cell_move(enum workload_mode mode, struct cells *to, size_t at, struct cells *from,
		      size_t i)
{
	to->blocks[at] = from->blocks[i];
	if (mode == MODE_NOTED)
		to->notes[at] = from->notes[i];
}

/* So many more operations are done: whether to go on. */
RECIPE bool more(struct worker *worker, uint64_t ops)
{
	uint64_t done = atomic_load_explicit(&worker->done, memory_order_relaxed) + ops;

	atomic_store_explicit(&worker->done, done, memory_order_relaxed);
	return HK_LIKELY(done < worker->look) || workload_look(worker);
}

/* Frees what is in cells @from to @to, after the timed part; a cell may be empty. */
RECIPE void cells_drain(struct worker *worker, enum workload_mode mode, struct cells *cells,
			size_t from, size_t to)
{
	for (; from < to; from++) {
		cell_empty(worker, mode, cells, from);
		heap_free(worker->front, cells->blocks[from]);
		cells->blocks[from] = NULL;
	}
}

#endif /* SAMPLES_CELLS_H */
