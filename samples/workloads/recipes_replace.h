/* SPDX-License-Identifier: MIT */
/* Recipes that replace blocks at random: larson, churn, varsize, large. */
#ifndef SAMPLES_RECIPES_REPLACE_H
#define SAMPLES_RECIPES_REPLACE_H

#include "cells.h"

RECIPE size_t replace_size(struct worker *worker, enum workload_recipe recipe, uint64_t min,
			   uint64_t max, double powers)
{
	if (recipe == RECIPE_CHURN)
		return random_square(&worker->random, min, max);
	if (recipe == RECIPE_VARSIZE)
		return random_log(&worker->random, min, max, powers);
	return random_between(&worker->random, min, max);
}

/* log2, to 2^-20, without the library of mathematics. */
static inline double powers_between(uint64_t min, uint64_t max)
{
	double ratio = (double)max / (double)min, step = 1, powers = 0;

	for (; ratio >= 2; ratio /= 2)
		powers++;
	while (step > 0x1p-20) {
		step /= 2;
		ratio *= ratio;
		if (ratio >= 2) {
			powers += step;
			ratio /= 2;
		}
	}
	return powers;
}

/*
 * The slots are divided up among the arenas, in turn: the cache that serves one. Modulo a
 * constant, since dividing by a variable would take longer than a hit; so of 16 slots some arenas
 * may have one more than others.
 */
RECIPE void *replace_front(const struct worker *worker, size_t slot, bool in_turn)
{
	return in_turn ? worker->fronts[slot % WORKLOAD_ARENAS] : worker->front;
}

/* Replaces blocks until @ops are done or the worker is to end, which is told. */
RECIPE bool replace_among(struct worker *worker, enum workload_mode mode,
			  enum workload_recipe recipe, uint64_t ops, bool in_turn)
{
	const uint64_t *parameters = worker->run->options->parameters;
	uint64_t slots = parameters[REPLACE_SLOTS];
	uint64_t min = parameters[REPLACE_MIN], max = parameters[REPLACE_MAX];
	double powers = recipe == RECIPE_VARSIZE ? powers_between(min, max) : 0;
	struct cells cells = worker->cells;

	for (; ops; ops--) {
		size_t slot = random_below(&worker->random, slots);
		size_t size = replace_size(worker, recipe, min, max, powers);
		void *front = replace_front(worker, slot, in_turn);

		cell_free_at(worker, mode, front, &cells, slot);
		cell_alloc_at(worker, mode, front, &cells, slot, size);
		if (!more(worker, 1))
			return false;
	}
	return true;
}

/* A loop of its own for each, so that with one arena nothing is asked. */
RECIPE bool replace_some(struct worker *worker, enum workload_mode mode,
			 enum workload_recipe recipe, uint64_t ops)
{
	return worker->run->arena_count > 1 ? replace_among(worker, mode, recipe, ops, true)
					    : replace_among(worker, mode, recipe, ops, false);
}

RECIPE void replace_fill(struct worker *worker, enum workload_mode mode,
			 enum workload_recipe recipe)
{
	const uint64_t *parameters = worker->run->options->parameters;
	uint64_t min = parameters[REPLACE_MIN], max = parameters[REPLACE_MAX];
	double powers = recipe == RECIPE_VARSIZE ? powers_between(min, max) : 0;
	size_t i;

	for (i = 0; i < worker->cells.count; i++)
		cell_alloc_at(worker, mode, replace_front(worker, i, worker->run->arena_count > 1),
			      &worker->cells, i, replace_size(worker, recipe, min, max, powers));
}

RECIPE void replace_drain(struct worker *worker, enum workload_mode mode)
{
	size_t i;

	for (i = 0; i < worker->cells.count; i++) {
		worker->front = replace_front(worker, i, worker->run->arena_count > 1);
		if (worker->front)
			cells_drain(worker, mode, &worker->cells, i, i + 1);
	}
}

/* Caches, one in each arena, told by @fronts over and over: false when one could not be had. */
static bool open_fronts(struct worker *worker)
{
	unsigned arenas = worker->run->arena_count, i;
	bool all = true;

	for (i = 0; i < WORKLOAD_ARENAS; i++) {
		worker->fronts[i] = i < arenas ? front_open(worker, i) : worker->fronts[i - arenas];
		all = all && worker->fronts[i];
	}
	worker->front = worker->fronts[0];
	return all;
}

/*
 * Larson: after so many operations a worker's blocks pass to a fresh thread with a fresh cache,
 * which it starts itself, as its last deed but for giving its own cache back. (Larson and Krishnan,
 * 1998, whose benchmark does the same.) The worker's first thread joins them one after the other.
 */
static void larson_turn(struct worker *worker, unsigned turn);

static void larson_next(void *argument)
{
	struct worker *worker = argument;

	if (!open_fronts(worker))
		workload_note_failed(worker, 0);
	larson_turn(worker, worker->turn);
}

static void larson_end(struct worker *worker, unsigned turn)
{
	worker->end_ns = os_now_ns();
	workload_last_checkpoint(worker);
	worker->relay[turn % WORKLOAD_RELAYS].last = true;
}

static void larson_turn(struct worker *worker, unsigned turn)
{
	uint64_t ops = worker->run->options->parameters[REPLACE_HANDOVER];
	struct relay *next = &worker->relay[(turn + 1) % WORKLOAD_RELAYS];
	unsigned arenas = worker->run->arena_count, round = 0, i;
	void *fronts[WORKLOAD_ARENAS];
	bool going = true;

	for (i = 0; i < arenas; i++) {
		fronts[i] = worker->fronts[i];
		going = going && fronts[i];
	}
	if (worker->run->mode == MODE_PLAIN)
		going = going && replace_some(worker, MODE_PLAIN, RECIPE_LARSON, ops);
	else if (worker->run->mode == MODE_NOTED)
		going = going && replace_some(worker, MODE_NOTED, RECIPE_LARSON, ops);
	else
		going = going && replace_some(worker, MODE_TIMED, RECIPE_LARSON, ops);
	if (!going) {
		larson_end(worker, turn);
		return;
	}
	while (turn + 1 - atomic_load_explicit(&worker->joined, memory_order_acquire) >=
	       WORKLOAD_RELAYS)
		os_wait(round++);
	worker->turn = turn + 1;
	/* from here on the worker is the other thread's */
	if (os_thread_start(&next->thread, larson_next, worker)) {
		workload_note_failed(worker, 0);
		larson_end(worker, turn);
		return;
	}
	for (i = 0; i < arenas; i++)
		front_close(worker, fronts[i]);
}

RECIPE void larson(struct worker *worker)
{
	unsigned turn;

	worker->relay[0].last = false;
	larson_turn(worker, 0);
	for (turn = 0; !worker->relay[turn % WORKLOAD_RELAYS].last; turn++) {
		worker->relay[turn % WORKLOAD_RELAYS].last = false;
		os_thread_join(&worker->relay[(turn + 1) % WORKLOAD_RELAYS].thread);
		atomic_store_explicit(&worker->joined, turn + 1, memory_order_release);
	}
}

#endif /* SAMPLES_RECIPES_REPLACE_H */
