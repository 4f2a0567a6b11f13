/* SPDX-License-Identifier: MIT */
/* Recipes of whole programs: a game's frames, and recorded traces. */
#ifndef SAMPLES_RECIPES_FRAMES_H
#define SAMPLES_RECIPES_FRAMES_H

#include "recipes_batch.h"

/*
 * Where frames keeps its cells: worker 0 its temporaries and the level's blocks in @cells, entities
 * in @more. Messages are in the run's @shared: for each of two frames in turn one part for each
 * worker. The run's @index has the free entity cells, the first entity to die in each of the coming
 * frames, and for each entity the next that dies in the same.
 */
struct calendar {
	uint32_t *free;
	uint32_t free_count;
	uint32_t *first; /* number plus one, by frame modulo @days */
	uint32_t *next;	 /* " */
	uint32_t days;
};

RECIPE struct calendar calendar_of(struct run *run)
{
	size_t entities = run->workers[0].more.count, i;
	struct calendar calendar = {
		.free = run->index,
		.free_count = (uint32_t)entities,
		.first = run->index + 2 * entities,
		.next = run->index + entities,
		.days = (uint32_t)(2 * run->options->parameters[FRAMES_LIFE]),
	};

	for (i = 0; i < entities; i++)
		calendar.free[i] = (uint32_t)(entities - 1 - i);
	for (i = 0; i < calendar.days; i++)
		calendar.first[i] = 0;
	return calendar;
}

/* Entities that die in this frame, then those that are born: a life of 1 to 2 * mean - 1 frames. */
RECIPE uint64_t frame_entities(struct worker *worker, enum workload_mode mode,
			       struct calendar *calendar, uint64_t frame)
{
	const uint64_t *parameters = worker->run->options->parameters;
	uint32_t *today = &calendar->first[frame % calendar->days], *day, entity, next;
	void *front = worker->fronts[FRAME_WORLD];
	uint64_t births = parameters[FRAMES_BIRTHS], i;

	for (entity = *today; entity; entity = next) {
		next = calendar->next[entity - 1];
		cell_free_at(worker, mode, front, &worker->more, entity - 1);
		worker->more.blocks[entity - 1] = NULL;
		calendar->free[calendar->free_count++] = entity - 1;
	}
	*today = 0;
	for (i = 0; i < births; i++) {
		day = &calendar->first[(frame +
					random_between(&worker->random, 1, calendar->days - 1)) %
				       calendar->days];
		entity = calendar->free[--calendar->free_count];
		calendar->next[entity] = *day;
		*day = entity + 1;
		cell_alloc_at(worker, mode, front, &worker->more, entity,
			      random_between(&worker->random, parameters[FRAMES_ENTITY_MIN],
					     parameters[FRAMES_ENTITY_MAX]));
	}
	return births;
}

/* Blocks that all go at once, by a reset where the allocator has one; then nothing is left. */
RECIPE void frame_drop(struct worker *worker, enum workload_mode mode, unsigned arena, size_t from,
		       size_t to, size_t step)
{
	struct run *run = worker->run;
	uint64_t start = mode == MODE_TIMED ? os_ticks() : 0;
	size_t i;

	if (mode == MODE_NOTED && !run->options->no_reset)
		for (i = from; i < to; i += step)
			cell_empty(worker, mode, &worker->cells, i);
	if (!run->options->no_reset && heap_reset(run, arena)) {
		if (mode == MODE_TIMED)
			worker->timings->frame_ticks += os_ticks() - start;
		return;
	}
	for (i = from; i < to; i += step) {
		/* noted above */
		if (mode == MODE_NOTED && run->options->no_reset)
			cell_empty(worker, mode, &worker->cells, i);
		block_free_at(worker, mode, worker->fronts[arena], worker->cells.blocks[i]);
	}
}

/*
 * What the level had goes back to the system: the next one will touch other pages. Where the
 * allocator can stop before the end, a part in each frame; true: there may be more.
 */
RECIPE bool frame_trim(struct worker *worker, enum workload_mode mode)
{
	uint64_t start = mode == MODE_TIMED ? os_ticks() : 0;
	bool rest;

	rest = heap_trim_some(worker->run, FRAME_LEVEL);
	if (mode == MODE_TIMED)
		worker->timings->frame_ticks += os_ticks() - start;
	return rest;
}

RECIPE uint64_t frame_temporaries(struct worker *worker, enum workload_mode mode)
{
	const uint64_t *parameters = worker->run->options->parameters;
	size_t count = random_between(&worker->random, parameters[FRAMES_TEMPORARIES_MIN],
				      parameters[FRAMES_TEMPORARIES_MAX]);
	size_t i;

	for (i = 0; i < count; i++)
		cell_alloc_at(worker, mode, worker->fronts[i % 2 ? FRAME_SCRIPT : FRAME_RENDER],
			      &worker->cells, i,
			      random_between(&worker->random, parameters[FRAMES_MIN],
					     parameters[FRAMES_MAX]));
	frame_drop(worker, mode, FRAME_RENDER, 0, count, 2);
	frame_drop(worker, mode, FRAME_SCRIPT, 1, count, 2);
	return count;
}

RECIPE uint64_t frame_level(struct worker *worker, enum workload_mode mode)
{
	const uint64_t *parameters = worker->run->options->parameters;
	size_t count = (size_t)parameters[FRAMES_LEVEL_BLOCKS], i;

	for (i = 0; i < count; i++)
		cell_alloc_at(worker, mode, worker->fronts[FRAME_LEVEL], &worker->cells, i,
			      random_between(&worker->random, parameters[FRAMES_LEVEL_MIN],
					     parameters[FRAMES_LEVEL_MAX]));
	frame_drop(worker, mode, FRAME_LEVEL, 0, count, 1);
	return count;
}

/* A worker's part of the messages of a frame; worker 0 has one only when it is alone. */
RECIPE void frame_part(const struct worker *worker, uint64_t frame, size_t *from, size_t *to)
{
	size_t all = (size_t)worker->run->options->parameters[FRAMES_MESSAGES];
	size_t others = worker->run->worker_count - 1, index = worker->index;
	size_t first = frame % 2 ? all : 0;

	*from = first + (others ? all * (index - 1) / others : 0);
	*to = first + (others ? all * index / others : all);
}

RECIPE void frame_send(struct worker *worker, enum workload_mode mode, uint64_t frame)
{
	const uint64_t *parameters = worker->run->options->parameters;
	size_t from, to;

	frame_part(worker, frame, &from, &to);
	for (; from < to; from++)
		cell_alloc_at(worker, mode, worker->fronts[FRAME_JOBS], &worker->run->shared, from,
			      random_between(&worker->random, parameters[FRAMES_MIN],
					     parameters[FRAMES_MAX]));
}

/* Worker 0 frees what the others sent in the frame before. */
RECIPE void frame_receive(struct worker *worker, enum workload_mode mode, uint64_t frame)
{
	size_t all = (size_t)worker->run->options->parameters[FRAMES_MESSAGES];
	size_t i = frame % 2 ? all : 0, end = i + all;

	for (; i < end; i++) {
		cell_free_at(worker, mode, worker->fronts[FRAME_JOBS], &worker->run->shared, i);
		worker->run->shared.blocks[i] = NULL;
	}
}

RECIPE void frames_of_others(struct worker *worker, enum workload_mode mode)
{
	struct run *run = worker->run;
	uint64_t seen = 0, frame;
	unsigned round = 0;

	for (;;) {
		/* acquire: the cells are empty */
		frame = atomic_load_explicit(&run->frame, memory_order_acquire);
		if (frame == UINT64_MAX)
			return;
		if (frame == seen) {
			os_wait(round++);
			continue;
		}
		seen = frame;
		round = 0;
		frame_send(worker, mode, frame);
		/* release: the blocks, for worker 0 */
		atomic_fetch_add_explicit(&run->frames_done, 1, memory_order_release);
	}
}

RECIPE void frame_wait(struct run *run, uint64_t frame)
{
	unsigned round = 0;

	while (atomic_load_explicit(&run->frames_done, memory_order_acquire) <
	       frame * (run->worker_count - 1))
		os_wait(round++);
}

RECIPE void frames(struct worker *worker, enum workload_mode mode)
{
	struct run *run = worker->run;
	const uint64_t *parameters = run->options->parameters;
	struct calendar calendar;
	uint64_t frame, ops;
	bool going = true, trims = false;

	if (worker->index) {
		frames_of_others(worker, mode);
		return;
	}
	calendar = calendar_of(run);
	for (frame = 1; going && !is_over(worker, frame - 1, parameters[FRAMES_FRAMES]); frame++) {
		if (mode == MODE_TIMED)
			worker->timings->frame_ticks = 0;
		atomic_store_explicit(&run->frame, frame, memory_order_release);
		if (run->worker_count == 1)
			frame_send(worker, mode, frame);
		ops = frame_temporaries(worker, mode) + parameters[FRAMES_MESSAGES];
		ops += frame_entities(worker, mode, &calendar, frame);
		if (frame % parameters[FRAMES_LEVEL_FRAMES] == 0) {
			ops += frame_level(worker, mode);
			trims = parameters[FRAMES_LEVEL_TRIM] != 0;
		}
		trims = trims && frame_trim(worker, mode);
		frame_receive(worker, mode, frame - 1);
		frame_wait(run, frame);
		if (mode == MODE_TIMED)
			histogram_add(&worker->timings->frame, worker->timings->frame_ticks);
		going = more(worker, ops);
	}
	atomic_store_explicit(&run->frame, UINT64_MAX, memory_order_release);
}

/* An event of a trace. */
RECIPE void replay_event(struct worker *worker, enum workload_mode mode,
			 const struct replay_event *event)
{
	struct run *run = worker->run;
	struct replay_worker *self = &run->replay.workers[worker->index];
	void *front = run->replay.fronts[event->thread];
	size_t size = event->size;

	if (HK_UNLIKELY(event->op & REPLAY_SPECIAL))
		size = replay_before(self, event);
	switch (event->op & REPLAY_OP) {
	case TRACE_ALLOC:
		cell_alloc_at(worker, mode, front, &run->shared, event->slot, size);
		break;
	case TRACE_FREE:
		cell_free_at(worker, mode, front, &run->shared, event->slot);
		break;
	case TRACE_REALLOC:
		cell_realloc_at(worker, mode, front, &run->shared, event->slot, size);
		break;
	case TRACE_ZALLOC:
		cell_zalloc_at(worker, mode, front, &run->shared, event->slot, size);
		break;
	case TRACE_ALIGNED:
		cell_aligned_at(worker, mode, front, &run->shared, event->slot, size,
				(size_t)1 << event->log2);
		break;
	default: /* a mark */
		break;
	}
	/* Pairs with the acquire in replay_before(): the cell and the block with it. */
	if (HK_UNLIKELY(event->op & REPLAY_AWAITED))
		atomic_store_explicit(&self->done, (uint32_t)(event - self->events) + 1,
				      memory_order_release);
}

#define REPLAY_STEP 64 /* events */

/* Passes; between two of them all workers meet, and worker 0 frees what is live. */
RECIPE void replay(struct worker *worker, enum workload_mode mode)
{
	struct run *run = worker->run;
	struct replay_worker *self = &run->replay.workers[worker->index];
	const struct replay_event *event, *end = self->events + self->count;
	uint64_t pass, ops;
	uint32_t i;

	for (pass = 0; pass < run->passes; pass++) {
		for (event = self->events; event < end; event += ops) {
			ops = end - event < REPLAY_STEP ? (uint64_t)(end - event) : REPLAY_STEP;
			for (i = 0; i < ops; i++)
				replay_event(worker, mode, event + i);
			more(worker, ops);
		}
		workload_meet(run);
		if (worker->index == 0 && workload_time_is_over(worker))
			run->passes = pass + 1;
		if (worker->index == 0 && pass + 1 < run->passes)
			for (i = 0; i < run->replay.leftover_count; i++)
				replay_event(worker, mode, &run->replay.leftovers[i]);
		atomic_store_explicit(&self->done, 0, memory_order_relaxed);
		workload_meet(run);
	}
}

#endif /* SAMPLES_RECIPES_FRAMES_H */
