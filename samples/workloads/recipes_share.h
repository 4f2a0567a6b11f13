/* SPDX-License-Identifier: MIT */
/* Recipes in which blocks pass between workers: handoff, mesh, scratch, workers. */
#ifndef SAMPLES_RECIPES_SHARE_H
#define SAMPLES_RECIPES_SHARE_H

#include "cells.h"

/*
 * Roles: handoff has pairs of a sender and a receiver, mesh three senders, two forwarders and three
 * receivers. Worker w has the roles w, w + workers, w + 2 * workers and so on, each a step at a time
 * that never waits, so that any number of workers can do it. Senders count the operations.
 */

enum step {
	STEP_IDLE, /* nothing to do now */
	STEP_DONE,
	STEP_OVER, /* nothing to do any more */
};

/* Whether there is room for so many, asked by the sender. */
RECIPE bool queue_has_room(struct queue *queue, size_t count)
{
	uint64_t written = atomic_load_explicit(&queue->written, memory_order_relaxed);

	/* acquire: what was read is the sender's to write again */
	if (written + count - queue->seen_read > queue->cells.count)
		queue->seen_read = atomic_load_explicit(&queue->read, memory_order_acquire);
	return written + count - queue->seen_read <= queue->cells.count;
}

/* Blocks for the receiver, at most @want. */
RECIPE size_t queue_ready(struct queue *queue, size_t want)
{
	uint64_t read = atomic_load_explicit(&queue->read, memory_order_relaxed);
	size_t ready;

	/* acquire: the cells, and what the sender wrote into the blocks */
	if (queue->seen_written == read)
		queue->seen_written = atomic_load_explicit(&queue->written, memory_order_acquire);
	ready = (size_t)(queue->seen_written - read);
	return ready < want ? ready : want;
}

RECIPE void queue_wrote(struct queue *queue, size_t count)
{
	uint64_t written = atomic_load_explicit(&queue->written, memory_order_relaxed);

	atomic_store_explicit(&queue->written, written + count, memory_order_release);
}

RECIPE void queue_took(struct queue *queue, size_t count)
{
	uint64_t read = atomic_load_explicit(&queue->read, memory_order_relaxed);

	atomic_store_explicit(&queue->read, read + count, memory_order_release);
}

RECIPE size_t queue_cell(const struct queue *queue, uint64_t position)
{
	return (size_t)position & (queue->cells.count - 1);
}

/* Closed, and everything was taken. */
RECIPE bool queue_is_over(struct queue *queue)
{
	return atomic_load_explicit(&queue->closed, memory_order_acquire) &&
	       atomic_load_explicit(&queue->read, memory_order_relaxed) ==
		       atomic_load_explicit(&queue->written, memory_order_relaxed);
}

RECIPE enum step receive(struct worker *worker, enum workload_mode mode, struct queue *queue,
			 size_t most)
{
	uint64_t read = atomic_load_explicit(&queue->read, memory_order_relaxed);
	size_t count = queue_ready(queue, most), i;

	if (!count)
		return queue_is_over(queue) ? STEP_OVER : STEP_IDLE;
	for (i = 0; i < count; i++)
		cell_free(worker, mode, &queue->cells, queue_cell(queue, read + i));
	queue_took(queue, count);
	return STEP_DONE;
}

/* @size 0: of each block anew. */
RECIPE void send(struct worker *worker, enum workload_mode mode, struct queue *queue, size_t count,
		 size_t min, size_t max)
{
	uint64_t written = atomic_load_explicit(&queue->written, memory_order_relaxed);
	size_t i;

	for (i = 0; i < count; i++)
		cell_alloc(worker, mode, &queue->cells, queue_cell(queue, written + i),
			   random_between(&worker->random, min, max));
	queue_wrote(queue, count);
}

#define HANDOFF_STEP 16 /* blocks between two looks at the other side */

/* Stretches of blocks of one size alternate with stretches of mixed sizes. */
RECIPE enum step handoff_step(struct worker *worker, enum workload_mode mode, unsigned role)
{
	const uint64_t *parameters = worker->run->options->parameters;
	struct queue *queue = &worker->run->queues[role / 2];
	uint64_t size = parameters[HANDOFF_SIZE], written;

	if (role % 2)
		return receive(worker, mode, queue, HANDOFF_STEP);
	if (atomic_load_explicit(&queue->closed, memory_order_relaxed))
		return STEP_OVER;
	if (!queue_has_room(queue, HANDOFF_STEP))
		return STEP_IDLE;
	written = atomic_load_explicit(&queue->written, memory_order_relaxed);
	if (written / parameters[HANDOFF_STRETCH] % 2)
		send(worker, mode, queue, HANDOFF_STEP, (size_t)parameters[HANDOFF_MIN],
		     (size_t)parameters[HANDOFF_MAX]);
	else
		send(worker, mode, queue, HANDOFF_STEP, (size_t)size, (size_t)size);
	if (more(worker, HANDOFF_STEP))
		return STEP_DONE;
	atomic_store_explicit(&queue->closed, true, memory_order_release);
	return STEP_OVER;
}

/* The queue from a sender to a forwarder, or from a forwarder to a receiver, of a mesh. */
RECIPE struct queue *mesh_queue(struct run *run, unsigned mesh, unsigned side, unsigned end,
				unsigned forwarder)
{
	unsigned first = mesh * MESH_QUEUES + side * MESH_SENDERS * MESH_FORWARDERS;

	return &run->queues[first + end * MESH_FORWARDERS + forwarder];
}

RECIPE enum step mesh_send(struct worker *worker, enum workload_mode mode, unsigned mesh,
			   unsigned sender)
{
	static const size_t parts[4] = { 3, 4, 6, 8 }; /* of 8: 48, 64, 96 and 128 bytes */
	const uint64_t *parameters = worker->run->options->parameters;
	unsigned i, forwarder = (unsigned)random_below(&worker->random, MESH_FORWARDERS);
	struct queue *queue = mesh_queue(worker->run, mesh, 0, sender, forwarder);
	size_t count, size;

	if (atomic_load_explicit(&queue->closed, memory_order_relaxed))
		return STEP_OVER;
	/* for any batch, lest small ones come more often where there is little room */
	if (!queue_has_room(queue, (size_t)parameters[MESH_BATCH]))
		return STEP_IDLE;
	count = random_between(&worker->random, 1, parameters[MESH_BATCH]);
	size = (size_t)parameters[MESH_SIZE] * parts[random_below(&worker->random, 4)] / 8;
	send(worker, mode, queue, count, size, size);
	if (more(worker, count))
		return STEP_DONE;
	for (i = 0; i < MESH_FORWARDERS; i++)
		atomic_store_explicit(&mesh_queue(worker->run, mesh, 0, sender, i)->closed, true,
				      memory_order_release);
	return STEP_OVER;
}

/* A batch from any sender to a receiver by lot. */
RECIPE enum step mesh_forward(struct worker *worker, enum workload_mode mode, unsigned mesh,
			      unsigned forwarder)
{
	unsigned first = (unsigned)random_below(&worker->random, MESH_SENDERS), i, over = 0;
	struct queue *from, *to;
	uint64_t read, written;
	size_t count, n;

	for (i = 0; i < MESH_SENDERS; i++) {
		from = mesh_queue(worker->run, mesh, 0, (first + i) % MESH_SENDERS, forwarder);
		to = mesh_queue(worker->run, mesh, 1,
				(unsigned)random_below(&worker->random, MESH_RECEIVERS), forwarder);
		count = queue_ready(from, (size_t)worker->run->options->parameters[MESH_BATCH]);
		over += !count && queue_is_over(from);
		if (!count || !queue_has_room(to, count))
			continue;
		read = atomic_load_explicit(&from->read, memory_order_relaxed);
		written = atomic_load_explicit(&to->written, memory_order_relaxed);
		for (n = 0; n < count; n++)
			cell_move(mode, &to->cells, queue_cell(to, written + n), &from->cells,
				  queue_cell(from, read + n));
		queue_took(from, count);
		queue_wrote(to, count);
		return STEP_DONE;
	}
	if (over < MESH_SENDERS)
		return STEP_IDLE;
	for (i = 0; i < MESH_RECEIVERS; i++)
		atomic_store_explicit(&mesh_queue(worker->run, mesh, 1, i, forwarder)->closed, true,
				      memory_order_release);
	return STEP_OVER;
}

RECIPE enum step mesh_receive(struct worker *worker, enum workload_mode mode, unsigned mesh,
			      unsigned receiver)
{
	size_t most = (size_t)worker->run->options->parameters[MESH_BATCH];
	enum step step, all = STEP_OVER;
	unsigned i;

	for (i = 0; i < MESH_FORWARDERS; i++) {
		step = receive(worker, mode, mesh_queue(worker->run, mesh, 1, receiver, i), most);
		if (step == STEP_DONE)
			return STEP_DONE;
		if (step == STEP_IDLE)
			all = STEP_IDLE;
	}
	return all;
}

RECIPE enum step mesh_step(struct worker *worker, enum workload_mode mode, unsigned role)
{
	unsigned mesh = role / MESH_ROLES, part = role % MESH_ROLES;

	if (part < MESH_SENDERS)
		return mesh_send(worker, mode, mesh, part);
	part -= MESH_SENDERS;
	if (part < MESH_FORWARDERS)
		return mesh_forward(worker, mode, mesh, part);
	return mesh_receive(worker, mode, mesh, part - MESH_FORWARDERS);
}

/* All roles of a worker, until all are over. */
RECIPE void play_roles(struct worker *worker, enum workload_mode mode, bool mesh)
{
	unsigned workers = worker->run->worker_count, over = 0, mine = 0, role, idle = 0, round = 0;
	unsigned roles = mesh ? worker->run->queue_count / MESH_QUEUES * MESH_ROLES
			      : worker->run->queue_count * 2;
	enum step step;

	for (role = worker->index; role < roles; role += workers)
		mine++;
	while (over < mine) {
		over = idle = 0;
		for (role = worker->index; role < roles; role += workers) {
			step = mesh ? mesh_step(worker, mode, role)
				    : handoff_step(worker, mode, role);
			over += step == STEP_OVER;
			idle += step != STEP_DONE;
		}
		if (idle < mine)
			round = 0;
		else
			os_wait(round++);
	}
}

/*
 * First every worker has blocks of its own alone: active false sharing shows. Then it frees the one
 * that worker 0 gave it (prepared in scratch_gifts()): passive false sharing shows when that comes
 * back, beside another's.
 */
RECIPE void scratch(struct worker *worker, enum workload_mode mode)
{
	const uint64_t *parameters = worker->run->options->parameters;
	uint64_t writes = parameters[SCRATCH_WRITES] / worker->run->worker_count, round;
	size_t size = (size_t)parameters[SCRATCH_SIZE];
	struct cells cells = worker->cells;

	for (round = 0; round < 2 * parameters[SCRATCH_ROUNDS] || worker->run->options->ops ||
			worker->run->options->seconds || worker->run->targets;
	     round++) {
		if (round == parameters[SCRATCH_ROUNDS]) {
			cell_free(worker, mode, &worker->run->shared, worker->index);
			worker->run->shared.blocks[worker->index] = NULL;
		}
		cell_alloc(worker, mode, &cells, 0, size);
		if (cells.blocks[0] && size)
			workload_write(cells.blocks[0], mode == MODE_NOTED ? 0 : writes);
		cell_free(worker, mode, &cells, 0);
		cells.blocks[0] = NULL;
		if (!more(worker, 1))
			return;
	}
}

RECIPE void scratch_gifts(struct worker *worker, enum workload_mode mode)
{
	size_t size = (size_t)worker->run->options->parameters[SCRATCH_SIZE];
	unsigned i;

	for (i = 0; worker->index == 0 && i < worker->run->worker_count; i++)
		cell_alloc(worker, mode, &worker->run->shared, i, size);
	workload_meet(worker->run);
}

/* In MODE_NOTED a block and what is noted of it change places together. */
static void swap_noted(struct run *run, size_t slot, struct cells *mine)
{
	_Atomic uint32_t *lock = (_Atomic uint32_t *)(void *)&run->index[slot];
	struct note note = mine->notes[0];
	void *block = mine->blocks[0];

	while (atomic_exchange_explicit(lock, 1, memory_order_acquire))
		os_wait(100);
	mine->blocks[0] = run->shared.blocks[slot];
	mine->notes[0] = run->shared.notes[slot];
	run->shared.blocks[slot] = block;
	run->shared.notes[slot] = note;
	atomic_store_explicit(lock, 0, memory_order_release);
}

static void *swap_block(struct run *run, size_t slot, void *block)
{
	/* both ways: what was written into the block goes with it */
	return atomic_exchange_explicit((_Atomic(void *) *)(void *)&run->shared.blocks[slot], block,
					memory_order_acq_rel);
}

/* One of the many short lives: a cache of its own, a block into each shared slot, the old one freed. */
RECIPE void newcomer(struct worker *worker, enum workload_mode mode)
{
	struct run *run = worker->run;
	size_t size = (size_t)run->options->parameters[WORKERS_SIZE], i;
	struct cells cells = worker->cells;

	for (i = 0; i < run->shared.count; i++) {
		cell_zalloc_at(worker, mode, worker->front, &cells, 0, size);
		if (mode == MODE_NOTED)
			swap_noted(run, i, &cells);
		else
			cells.blocks[0] = swap_block(run, i, cells.blocks[0]);
		if (cells.blocks[0])
			cell_free(worker, mode, &cells, 0);
	}
}

static void newcomer_life(void *argument)
{
	struct worker *worker = argument;

	worker->front = front_open(worker, 0);
	if (!worker->front) {
		workload_note_failed(worker, 0);
		return;
	}
	if (worker->run->mode == MODE_PLAIN)
		newcomer(worker, MODE_PLAIN);
	else if (worker->run->mode == MODE_NOTED)
		newcomer(worker, MODE_NOTED);
	else
		newcomer(worker, MODE_TIMED);
	front_close(worker, worker->front);
}

/* Worker 0 starts the others, round after round. */
RECIPE void workers(struct worker *worker)
{
	struct run *run = worker->run;
	uint64_t rounds = run->options->parameters[WORKERS_ROUNDS], round;
	unsigned i, started;
	bool going = true;

	for (round = 0; going && (round < rounds || run->options->ops || run->options->seconds ||
				  run->targets);
	     round++) {
		for (i = 1; i < run->worker_count; i++)
			if (os_thread_start(&run->workers[i].thread, newcomer_life,
					    &run->workers[i]))
				break;
		started = i;
		if (started < run->worker_count)
			workload_note_failed(worker, 0);
		for (i = 1; i < started; i++)
			os_thread_join(&run->workers[i].thread);
		going = more(worker, (run->worker_count - 1) * run->shared.count) &&
			started == run->worker_count;
	}
}

#endif /* SAMPLES_RECIPES_SHARE_H */
