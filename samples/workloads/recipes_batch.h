/* SPDX-License-Identifier: MIT */
/* Recipes that work in batches: burst, storm, lifetime, grow, pairs, pinned. */
#ifndef SAMPLES_RECIPES_BATCH_H
#define SAMPLES_RECIPES_BATCH_H

#include "cells.h"

/* What a recipe has once, its workers share: the part of this one. */
RECIPE uint64_t share(const struct worker *worker, uint64_t of_all)
{
	uint64_t workers = worker->run->worker_count, begin = of_all * worker->index / workers;

	return of_all * (worker->index + 1) / workers - begin;
}

#define BURST_COUNTS 5
#define BURST_KINDS 4

/* One burst: half is freed in order, half in reverse. */
RECIPE bool burst_once(struct worker *worker, enum workload_mode mode, size_t count, size_t min,
		       size_t max)
{
	struct cells cells = worker->cells;
	size_t i;

	for (i = 0; i < count; i++)
		cell_alloc(worker, mode, &cells, i, random_between(&worker->random, min, max));
	for (i = 0; i < count / 2; i++)
		cell_free(worker, mode, &cells, i);
	for (i = count; i-- > count / 2;)
		cell_free(worker, mode, &cells, i);
	return more(worker, count);
}

/* Each count with each size, so often that all have as many blocks. */
RECIPE void burst(struct worker *worker, enum workload_mode mode)
{
	static const size_t counts[BURST_COUNTS] = { 25, 100, 400, 1600, 20000 };
	static const size_t sizes[BURST_KINDS] = { 16, 32, 64, 0 };
	const uint64_t *parameters = worker->run->options->parameters;
	size_t i, count, size, repeat;

	for (i = 0;; i = (i + 1) % (BURST_COUNTS * BURST_KINDS)) {
		count = (size_t)parameters[BURST_COUNT];
		if (!count)
			count = counts[i % BURST_COUNTS];
		size = (size_t)parameters[BURST_SIZE];
		if (!size)
			size = sizes[i / BURST_COUNTS];
		for (repeat = 0; repeat < 20000; repeat += count)
			if (!burst_once(worker, mode, count,
					size ? size : (size_t)parameters[BURST_MIN],
					size ? size : (size_t)parameters[BURST_MAX]))
				return;
	}
}

RECIPE size_t storm_size(struct worker *worker)
{
	const uint64_t *parameters = worker->run->options->parameters;

	return random_falling(&worker->random, parameters[STORM_MIN], parameters[STORM_MAX]);
}

RECIPE void storm_fill(struct worker *worker, enum workload_mode mode)
{
	size_t i;

	for (i = 0; i < worker->cells.count; i++)
		cell_alloc(worker, mode, &worker->cells, i, storm_size(worker));
}

/* Half of all, by a coin for each, is freed; then all that are missing come back. */
RECIPE void storm(struct worker *worker, enum workload_mode mode)
{
	struct cells cells = worker->cells;
	size_t i, bits = 0;

	for (;;) {
		for (i = 0; i < cells.count; i++) {
			if (i % 32 == 0)
				bits = (size_t)random_next(&worker->random);
			if (bits >> i % 32 & 1) {
				cell_free(worker, mode, &cells, i);
				cells.blocks[i] = NULL;
			}
		}
		for (i = 0; i < cells.count; i++) {
			if (cells.blocks[i])
				continue;
			cell_alloc(worker, mode, &cells, i, storm_size(worker));
			if (!more(worker, 1))
				return;
		}
	}
}

struct ring {
	size_t at;
	size_t kept_from;
	size_t kept_to;
};

/*
 * The ring is full: the next fifth of it survives this time; what lies below is freed in order,
 * what lies above in reverse. (sh6bench by MicroQuill does so.)
 */
RECIPE void lifetime_wrap(struct worker *worker, enum workload_mode mode, struct ring *ring)
{
	struct cells cells = worker->cells;
	size_t i;

	ring->kept_from = ring->kept_to >= cells.count ? 0 : ring->kept_to;
	ring->kept_to = ring->kept_from + cells.count / 5;
	if (ring->kept_to > cells.count)
		ring->kept_to = cells.count;
	for (i = 0; i < ring->kept_from; i++)
		cell_free(worker, mode, &cells, i);
	for (i = cells.count; i-- > ring->kept_to;)
		cell_free(worker, mode, &cells, i);
	for (i = 0; i < cells.count; i++)
		if (i < ring->kept_from || i >= ring->kept_to)
			cells.blocks[i] = NULL;
	ring->at = ring->kept_from ? 0 : ring->kept_to;
}

RECIPE bool lifetime_add(struct worker *worker, enum workload_mode mode, struct ring *ring,
			 size_t size, uint64_t count)
{
	struct cells cells = worker->cells;
	uint64_t i;

	for (i = 0; i < count; i++) {
		cell_alloc(worker, mode, &cells, ring->at++, size);
		/* over what survived; its end may be the ring's */
		if (ring->at == ring->kept_from && ring->kept_to > ring->kept_from)
			ring->at = ring->kept_to;
		if (ring->at >= cells.count)
			lifetime_wrap(worker, mode, ring);
	}
	return more(worker, count);
}

RECIPE void lifetime(struct worker *worker, enum workload_mode mode)
{
	const uint64_t *parameters = worker->run->options->parameters;
	struct ring ring = { 0, 0, 0 };
	size_t base, size;
	uint64_t count;

	for (base = 1;; base = base * 3 / 2 + 1) {
		if (base > parameters[LIFETIME_MAX])
			base = 1;
		for (size = base; size; size /= 2) {
			count = parameters[LIFETIME_COUNT];
			if (size < parameters[LIFETIME_SMALL])
				count = parameters[LIFETIME_SMALL_COUNT];
			if (!lifetime_add(worker, mode, &ring, size, count))
				return;
		}
	}
}

RECIPE size_t grown(size_t size, size_t last)
{
	return size / 2 < last - size ? size + size / 2 : last;
}

/* Vectors that grow in turns, all of them by one step; then one alone. */
RECIPE bool grow_once(struct worker *worker, enum workload_mode mode)
{
	const uint64_t *parameters = worker->run->options->parameters;
	size_t vectors = (size_t)share(worker, parameters[GROW_VECTORS]);
	size_t last = (size_t)parameters[GROW_LAST], size = (size_t)parameters[GROW_FIRST];
	struct cells cells = worker->cells;
	bool going = true;
	size_t i;

	for (i = 0; i < vectors; i++)
		cell_alloc(worker, mode, &cells, i, size);
	while (size < last && going) {
		size = grown(size, last);
		for (i = 0; i < vectors; i++)
			cell_realloc_at(worker, mode, worker->front, &cells, i, size);
		going = more(worker, vectors);
	}
	for (i = 0; i < vectors; i++)
		cell_free(worker, mode, &cells, i);
	size = (size_t)parameters[GROW_ALONE_FIRST];
	last = (size_t)share(worker, parameters[GROW_ALONE_LAST]);
	cell_alloc(worker, mode, &cells, 0, size);
	while (size < last && going) {
		size = grown(size, last);
		cell_realloc_at(worker, mode, worker->front, &cells, 0, size);
		going = more(worker, 1);
	}
	cell_free(worker, mode, &cells, 0);
	return going;
}

/*
 * A recipe with a length of its own goes on beyond it only where operations or a time are asked
 * for.
 */
RECIPE bool is_over(const struct worker *worker, uint64_t round, uint64_t rounds)
{
	const struct run *run = worker->run;

	return round >= rounds && !run->options->ops && !run->options->seconds && !run->targets;
}

RECIPE void grow(struct worker *worker, enum workload_mode mode)
{
	uint64_t round;

	for (round = 0; !is_over(worker, round, worker->run->options->parameters[GROW_ROUNDS]);
	     round++)
		if (!grow_once(worker, mode))
			break;
}

/*
 * Pairs of blocks, of each one is freed: what stays pins its neighbourhood for blocks of twice the
 * size. (Robson's worst case, 1971, in a form that all allocators can run.)
 */
RECIPE bool pairs_once(struct worker *worker, enum workload_mode mode)
{
	const uint64_t *parameters = worker->run->options->parameters;
	uint64_t left = share(worker, parameters[PAIRS_BYTES]), size = parameters[PAIRS_FIRST];
	struct cells cells = worker->cells;
	size_t used = 0, i, pairs;
	bool going = true;

	for (; going && left / 2 / size; size *= 2) {
		pairs = (size_t)(left / 2 / size);
		for (i = used; i < used + 2 * pairs; i++)
			cell_alloc(worker, mode, &cells, i, (size_t)size);
		for (i = used; i < used + 2 * pairs; i += 2) {
			cell_free(worker, mode, &cells, i);
			cells.blocks[i] = NULL;
		}
		used += 2 * pairs;
		left -= pairs * size;
		going = more(worker, 2 * pairs);
	}
	for (i = 1; i < used; i += 2) {
		cell_free(worker, mode, &cells, i);
		cells.blocks[i] = NULL;
	}
	return going;
}

RECIPE void pairs(struct worker *worker, enum workload_mode mode)
{
	uint64_t round;

	for (round = 0; !is_over(worker, round, worker->run->options->parameters[PAIRS_ROUNDS]);
	     round++)
		if (!pairs_once(worker, mode))
			break;
}

/*
 * Each round leaves one block in every 50 behind. Their cells are those of @more; when it is full,
 * a run that is longer than the recipe begins anew.
 */
RECIPE void pinned(struct worker *worker, enum workload_mode mode)
{
	const uint64_t *parameters = worker->run->options->parameters;
	size_t blocks = (size_t)parameters[PINNED_BLOCKS], keep = (size_t)parameters[PINNED_KEEP];
	size_t size = (size_t)parameters[PINNED_SIZE], kept = 0, i;
	uint64_t rounds = share(worker, parameters[PINNED_ROUNDS]), round;
	struct cells cells = worker->cells;
	bool going = true;

	for (round = 0; going && !is_over(worker, round, rounds); round++) {
		if (kept + blocks / keep > worker->more.count) {
			cells_drain(worker, mode, &worker->more, 0, kept);
			kept = 0;
		}
		cell_alloc(worker, mode, &cells, 0, (size_t)parameters[PINNED_BLOCK]);
		cell_free(worker, mode, &cells, 0);
		for (i = 0; i < blocks; i++)
			cell_alloc(worker, mode, &cells, i, size);
		for (i = 0; i < blocks; i++) {
			if (i % keep == keep - 1)
				cell_move(mode, &worker->more, kept++, &cells, i);
			else
				cell_free(worker, mode, &cells, i);
			cells.blocks[i] = NULL;
		}
		heap_trim(worker->run, 0);
		going = more(worker, blocks + 1);
	}
}

#endif /* SAMPLES_RECIPES_BATCH_H */
