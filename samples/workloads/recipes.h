/* SPDX-License-Identifier: MIT */
/*
 * All recipes, and what a worker does with one: it opens its caches, fills its cells, waits for the
 * others, works for as long as is timed, and frees what is left. See cells.h for what an allocator
 * must define before it includes this.
 */
#ifndef SAMPLES_RECIPES_H
#define SAMPLES_RECIPES_H

#include "recipes_batch.h"
#include "recipes_frames.h"
#include "recipes_replace.h"
#include "recipes_share.h"

RECIPE void set_up(struct worker *worker, enum workload_mode mode)
{
	switch (worker->run->workload->recipe) {
	case RECIPE_LARSON:
		replace_fill(worker, mode, RECIPE_LARSON);
		break;
	case RECIPE_CHURN:
		replace_fill(worker, mode, RECIPE_CHURN);
		break;
	case RECIPE_VARSIZE:
		replace_fill(worker, mode, RECIPE_VARSIZE);
		break;
	case RECIPE_LARGE:
		replace_fill(worker, mode, RECIPE_LARGE);
		break;
	case RECIPE_STORM:
		storm_fill(worker, mode);
		break;
	case RECIPE_SCRATCH:
		scratch_gifts(worker, mode);
		break;
	default:
		break;
	}
}

RECIPE void work(struct worker *worker, enum workload_mode mode)
{
	switch (worker->run->workload->recipe) {
	case RECIPE_LARSON:
		larson(worker);
		break;
	case RECIPE_CHURN:
		while (replace_some(worker, mode, RECIPE_CHURN, UINT64_MAX))
			;
		break;
	case RECIPE_VARSIZE:
		while (replace_some(worker, mode, RECIPE_VARSIZE, UINT64_MAX))
			;
		break;
	case RECIPE_LARGE:
		while (replace_some(worker, mode, RECIPE_LARGE, UINT64_MAX))
			;
		break;
	case RECIPE_BURST:
		burst(worker, mode);
		break;
	case RECIPE_STORM:
		storm(worker, mode);
		break;
	case RECIPE_LIFETIME:
		lifetime(worker, mode);
		break;
	case RECIPE_HANDOFF:
		play_roles(worker, mode, false);
		break;
	case RECIPE_MESH:
		play_roles(worker, mode, true);
		break;
	case RECIPE_SCRATCH:
		scratch(worker, mode);
		break;
	case RECIPE_WORKERS:
		workers(worker);
		break;
	case RECIPE_GROW:
		grow(worker, mode);
		break;
	case RECIPE_PAIRS:
		pairs(worker, mode);
		break;
	case RECIPE_PINNED:
		pinned(worker, mode);
		break;
	case RECIPE_FRAMES:
		frames(worker, mode);
		break;
	case RECIPE_REPLAY:
		replay(worker, mode);
		break;
	}
}

/* Frees what is left, each block through a cache of its arena; worker 0 also what is shared. */
RECIPE void tear_down(struct worker *worker, enum workload_mode mode)
{
	struct run *run = worker->run;
	uint32_t i;

	workload_meet(run);
	switch (run->workload->recipe) {
	case RECIPE_REPLAY:
		for (i = 0; worker->index == 0 && i < run->replay.leftover_count; i++)
			replay_event(worker, mode, &run->replay.leftovers[i]);
		return;
	case RECIPE_FRAMES:
		worker->front = worker->fronts[FRAME_WORLD];
		cells_drain(worker, mode, &worker->more, 0, worker->more.count);
		worker->front = worker->fronts[FRAME_JOBS];
		if (worker->index == 0)
			cells_drain(worker, mode, &run->shared, 0, run->shared.count);
		return;
	case RECIPE_LARSON:
	case RECIPE_CHURN:
	case RECIPE_VARSIZE:
	case RECIPE_LARGE:
		replace_drain(worker, mode);
		return;
	case RECIPE_BURST:
	case RECIPE_GROW: /* nothing is left, whatever stands in the cells */
		return;
	default:
		if (!worker->front)
			return;
		cells_drain(worker, mode, &worker->cells, 0, worker->cells.count);
		cells_drain(worker, mode, &worker->more, 0, worker->more.count);
		if (worker->index == 0)
			cells_drain(worker, mode, &run->shared, 0, run->shared.count);
	}
}

/* Caches: one in each arena, those of replay for each recorded thread. */
static bool open_all(struct worker *worker)
{
	struct run *run = worker->run;
	unsigned i;

	if (run->workload->recipe != RECIPE_REPLAY)
		return open_fronts(worker);
	for (i = worker->index; i < run->replay.thread_count; i += run->worker_count) {
		run->replay.fronts[i] = front_open(worker, 0);
		if (!run->replay.fronts[i])
			return false;
	}
	return true;
}

RECIPE void whole_run(struct worker *worker, enum workload_mode mode)
{
	struct run *run = worker->run;

	if (!open_all(worker)) {
		workload_note_failed(worker, 0);
		atomic_store(&run->cancelled, true);
	}
	workload_meet(run);
	if (atomic_load(&run->cancelled))
		return;
	set_up(worker, mode);
	workload_start(worker);
	work(worker, mode);
	workload_end(worker);
	tear_down(worker, mode);
}

static void whole_run_in_its_mode(struct worker *worker)
{
	if (worker->run->mode == MODE_PLAIN)
		whole_run(worker, MODE_PLAIN);
	else if (worker->run->mode == MODE_NOTED)
		whole_run(worker, MODE_NOTED);
	else
		whole_run(worker, MODE_TIMED);
}

#endif /* SAMPLES_RECIPES_H */
