/* SPDX-License-Identifier: MIT */
/*
 * Lays out what a recipe needs beside the allocator: workers, cells, queues, the trace. All of it is
 * touched here, so that the run finds it resident and its page faults are the allocator's.
 */
#include "workload.h"

#include <samples/cli.h>
#include <samples/pattern.h>

#include <stdio.h>
#include <string.h>

/* Cells and numbers that the recipe wants. */
struct wants {
	uint64_t cells; /* of each worker */
	uint64_t more;	/* of each worker; of the first alone, where only_first */
	bool only_first;
	uint64_t shared;
	uint64_t queues;
	uint64_t queue_cells;
	uint64_t index;
};

void *workload_map(struct run *run, uint64_t count, size_t each)
{
	struct replay_mapping *map = &run->maps[run->map_count];

	if (run->map_count == sizeof(run->maps) / sizeof(run->maps[0]))
		return NULL;
	map->memory = cli_array(count, each, &map->size);
	if (!map->memory)
		return NULL;
	run->map_count++;
	/* zeroed already: this makes it resident */
	memset(map->memory, 0, map->size);
	return map->memory;
}

void workload_release(struct run *run)
{
	if (run->workload->recipe == RECIPE_REPLAY)
		replay_unload(&run->replay);
	while (run->map_count > 0) {
		run->map_count--;
		os_unmap(run->maps[run->map_count].memory, run->maps[run->map_count].size);
	}
}

static bool map_cells(struct run *run, struct cells *cells, uint64_t count)
{
	cells->count = (size_t)count;
	cells->blocks = workload_map(run, count, sizeof(*cells->blocks));
	if (run->mode == MODE_NOTED)
		cells->notes = workload_map(run, count, sizeof(*cells->notes));
	return cells->blocks && (cells->notes || run->mode != MODE_NOTED);
}

/* A stretch of cells that others have a part of, too. */
static struct cells part_of(const struct cells *all, uint64_t first, uint64_t count)
{
	struct cells part = { all->blocks + first, all->notes ? all->notes + first : NULL,
			      (size_t)count };

	return part;
}

static uint64_t cells_of_pairs(uint64_t bytes, uint64_t size)
{
	uint64_t cells = 0;

	for (; bytes / 2 / size; size *= 2) {
		cells += bytes / 2 / size * 2;
		bytes -= bytes / 2 / size * size;
	}
	return cells;
}

static uint64_t steps_of_growth(uint64_t first, uint64_t last)
{
	uint64_t steps = 0;

	for (; first < last; steps++)
		first = first / 2 < last - first ? first + first / 2 : last;
	return steps;
}

static uint64_t divide_up(uint64_t of_all, uint64_t workers)
{
	return (of_all + workers - 1) / workers;
}

static unsigned queue_pairs(unsigned workers)
{
	return (workers + 1) / 2;
}

static unsigned meshes(unsigned workers)
{
	return (workers + MESH_ROLES - 1) / MESH_ROLES;
}

static uint64_t power_of_two_below(uint64_t value)
{
	uint64_t power = 1;

	while (power <= value / 2)
		power *= 2;
	return power;
}

static struct wants wants_of(const struct run *run)
{
	const uint64_t *parameters = run->options->parameters;
	unsigned workers = run->worker_count;
	struct wants wants = { 0 };

	switch (run->workload->recipe) {
	case RECIPE_LARSON:
	case RECIPE_CHURN:
	case RECIPE_VARSIZE:
	case RECIPE_LARGE:
		wants.cells = parameters[REPLACE_SLOTS];
		break;
	case RECIPE_BURST:
		wants.cells = 20000;
		break;
	case RECIPE_STORM:
		wants.cells = divide_up(parameters[STORM_BLOCKS], workers);
		break;
	case RECIPE_LIFETIME:
		wants.cells = parameters[LIFETIME_RING];
		break;
	case RECIPE_HANDOFF:
		wants.queues = queue_pairs(workers);
		wants.queue_cells = power_of_two_below(parameters[HANDOFF_QUEUE]);
		break;
	case RECIPE_MESH:
		wants.queues = (uint64_t)meshes(workers) * MESH_QUEUES;
		wants.queue_cells = power_of_two_below(parameters[MESH_UNDER_WAY] / MESH_QUEUES);
		break;
	case RECIPE_SCRATCH:
		wants.cells = 1;
		wants.shared = workers;
		break;
	case RECIPE_WORKERS:
		wants.cells = 1;
		wants.shared = parameters[WORKERS_SLOTS];
		wants.index = parameters[WORKERS_SLOTS];
		break;
	case RECIPE_GROW:
		wants.cells = divide_up(parameters[GROW_VECTORS], workers);
		break;
	case RECIPE_PAIRS:
		wants.cells = cells_of_pairs(divide_up(parameters[PAIRS_BYTES], workers),
					     parameters[PAIRS_FIRST]);
		break;
	case RECIPE_PINNED:
		wants.cells = parameters[PINNED_BLOCKS];
		wants.more = parameters[PINNED_BLOCKS] / parameters[PINNED_KEEP] *
			     divide_up(parameters[PINNED_ROUNDS], workers);
		break;
	case RECIPE_FRAMES:
		wants.cells = parameters[FRAMES_TEMPORARIES_MAX];
		if (wants.cells < parameters[FRAMES_LEVEL_BLOCKS])
			wants.cells = parameters[FRAMES_LEVEL_BLOCKS];
		wants.more = parameters[FRAMES_BIRTHS] * 2 * parameters[FRAMES_LIFE] + 1;
		wants.only_first = true;
		wants.shared = 2 * parameters[FRAMES_MESSAGES];
		wants.index = 2 * wants.more + 2 * parameters[FRAMES_LIFE];
		break;
	case RECIPE_REPLAY:
		wants.shared = run->replay.slot_count;
		break;
	}
	return wants;
}

/* Operations of a recipe that has a length of its own; not more than it does, but hardly fewer. */
static uint64_t expected_ops(const struct run *run)
{
	const uint64_t *parameters = run->options->parameters;
	unsigned workers = run->worker_count;
	uint64_t frame;

	switch (run->workload->recipe) {
	case RECIPE_SCRATCH:
		return 2 * parameters[SCRATCH_ROUNDS];
	case RECIPE_WORKERS:
		return parameters[WORKERS_ROUNDS] * (workers - 1) * parameters[WORKERS_SLOTS];
	case RECIPE_GROW:
		return parameters[GROW_ROUNDS] *
		       (parameters[GROW_VECTORS] / workers *
				steps_of_growth(parameters[GROW_FIRST], parameters[GROW_LAST]) +
			steps_of_growth(parameters[GROW_ALONE_FIRST],
					parameters[GROW_ALONE_LAST] / workers));
	case RECIPE_PAIRS:
		return parameters[PAIRS_ROUNDS] *
		       cells_of_pairs(parameters[PAIRS_BYTES] / workers, parameters[PAIRS_FIRST]);
	case RECIPE_PINNED:
		return parameters[PINNED_ROUNDS] / workers * (parameters[PINNED_BLOCKS] + 1);
	case RECIPE_FRAMES:
		frame = (parameters[FRAMES_TEMPORARIES_MIN] + parameters[FRAMES_TEMPORARIES_MAX]) /
				2 +
			parameters[FRAMES_MESSAGES] + parameters[FRAMES_BIRTHS];
		return parameters[FRAMES_FRAMES] * frame + parameters[FRAMES_FRAMES] /
								   parameters[FRAMES_LEVEL_FRAMES] *
								   parameters[FRAMES_LEVEL_BLOCKS];
	case RECIPE_REPLAY:
		return run->passes < UINT64_MAX ? run->passes * run->replay.workers[0].count : 0;
	default:
		return 0;
	}
}

/* Of all operations, those of a worker: senders count them, and the first worker of some. */
static uint64_t weight_of(const struct run *run, unsigned worker)
{
	unsigned workers = run->worker_count, roles, role, weight = 0;

	switch (run->workload->recipe) {
	case RECIPE_HANDOFF:
		roles = 2 * queue_pairs(workers);
		for (role = worker; role < roles; role += workers)
			weight += role % 2 == 0;
		return weight;
	case RECIPE_MESH:
		roles = MESH_ROLES * meshes(workers);
		for (role = worker; role < roles; role += workers)
			weight += role % MESH_ROLES < MESH_SENDERS;
		return weight;
	case RECIPE_FRAMES:
	case RECIPE_WORKERS:
		return worker == 0;
	default:
		return 1;
	}
}

static void set_targets(struct run *run)
{
	uint64_t weights = 0, before = 0, ops = run->options->ops, weight;
	unsigned i;

	for (i = 0; i < run->worker_count; i++)
		weights += weight_of(run, i);
	for (i = 0; i < run->worker_count; i++) {
		weight = weight_of(run, i);
		run->workers[i].target = UINT64_MAX;
		if (ops && run->workload->recipe != RECIPE_REPLAY)
			run->workers[i].target = ops / weights * weight +
						 ops % weights * (before + weight) / weights -
						 ops % weights * before / weights;
		if (!run->workers[i].target)
			run->workers[i].target = weight ? 1 : UINT64_MAX;
		before += weight;
	}
}

static int load_trace(struct run *run, const char **why)
{
	static char text[256];
	const struct workload_options *options = run->options;
	struct replay_options replay = { .repeat = 1,
					 .threads = options->workers > 1,
					 .workers = options->workers };
	const char *path = options->trace ? options->trace : "samples/traces/minetest.hkt";
	struct trace_error error;
	unsigned char *bytes;
	size_t mapped, size;
	int failed;

	if (cli_read_file(path, &bytes, &size, &mapped, why)) {
		snprintf(text, sizeof(text), "%.150s: %s (--trace FILE)", path, *why);
		*why = text;
		return -1;
	}
	failed = replay_load(&run->replay, &replay, bytes, size, &error);
	os_unmap(bytes, mapped);
	if (failed) {
		snprintf(text, sizeof(text), "%.100s: event %llu, byte %llu: %.100s", path,
			 (unsigned long long)error.event, (unsigned long long)error.offset,
			 error.text);
		*why = text;
		return -1;
	}
	run->worker_count = run->replay.worker_count;
	run->passes = options->parameters[REPLAY_PASSES];
	if (options->seconds)
		run->passes = UINT64_MAX;
	else if (options->ops && run->replay.event_count)
		run->passes = divide_up(options->ops, run->replay.event_count);
	if (!run->replay.event_count)
		run->passes = 1;
	return 0;
}

static size_t largest_block(const struct run *run)
{
	const uint64_t *parameters = run->options->parameters;
	uint64_t alone;

	switch (run->workload->recipe) {
	case RECIPE_REPLAY:
		return (size_t)run->replay.largest;
	case RECIPE_PAIRS:
		return 1 << 20;
	case RECIPE_GROW:
		alone = parameters[GROW_ALONE_LAST] / run->worker_count + 1;
		return (size_t)(alone > parameters[GROW_LAST] ? alone : parameters[GROW_LAST]);
	default:
		return (size_t)parameters[run->workload->largest];
	}
}

/* A block for each worker, aligned as strictly as a trace asks. */
static bool map_scratch(struct run *run)
{
	size_t align = WORKLOAD_PAGE;

	if (run->workload->recipe == RECIPE_REPLAY && (size_t)1 << run->replay.largest_log2 > align)
		align = (size_t)1 << run->replay.largest_log2;
	run->scratch_bytes = (largest_block(run) + align) / align * align;
	run->scratch =
		workload_map(run, (uint64_t)run->scratch_bytes * run->worker_count + align, 1);
	if (!run->scratch)
		return false;
	run->scratch += (size_t)(-(uintptr_t)run->scratch & (uintptr_t)(align - 1));
	return true;
}

static bool map_all(struct run *run)
{
	struct wants wants = wants_of(run);
	struct cells cells, more, queue_cells;
	struct timings *timings = NULL;
	unsigned i;

	if (!map_cells(run, &cells, wants.cells * run->worker_count) ||
	    !map_cells(run, &more, wants.more * (wants.only_first ? 1 : run->worker_count)) ||
	    !map_cells(run, &run->shared, wants.shared) ||
	    !map_cells(run, &queue_cells, wants.queue_cells * wants.queues))
		return false;
	run->queues = workload_map(run, wants.queues, sizeof(*run->queues));
	run->queue_count = (unsigned)wants.queues;
	run->index = workload_map(run, wants.index, sizeof(*run->index));
	run->index_count = (size_t)wants.index;
	if (run->mode == MODE_TIMED) {
		timings = workload_map(run, run->worker_count, sizeof(*timings));
		if (!timings)
			return false;
	}
	if (!run->queues || !run->index || (run->heap == WORKLOAD_NULL && !map_scratch(run)))
		return false;
	for (i = 0; i < run->queue_count; i++)
		run->queues[i].cells =
			part_of(&queue_cells, i * wants.queue_cells, wants.queue_cells);
	for (i = 0; i < run->worker_count; i++) {
		struct worker *worker = &run->workers[i];

		worker->cells = part_of(&cells, i * wants.cells, wants.cells);
		if (!wants.only_first || i == 0)
			worker->more = part_of(&more, i * wants.more, wants.more);
		worker->timings = timings ? &timings[i] : NULL;
	}
	return true;
}

static void init_workers(struct run *run)
{
	const struct workload *workload = run->workload;
	unsigned i, touch = WORKLOAD_PARAMETERS;

	for (i = 0; i < WORKLOAD_PARAMETERS && workload->parameters[i].name; i++)
		if (strcmp(workload->parameters[i].name, "touch") == 0)
			touch = i;
	for (i = 0; i < run->worker_count; i++) {
		struct worker *worker = &run->workers[i];

		worker->run = run;
		worker->index = i;
		worker->random = pattern_tag(run->options->seed * 4096 + i);
		/* the replayer writes so, to be comparable */
		if (workload->recipe == RECIPE_REPLAY ||
		    (touch < WORKLOAD_PARAMETERS && run->options->parameters[touch]))
			worker->touch = WORKLOAD_PAGE;
	}
}

static unsigned arenas_of(const struct run *run)
{
	switch (run->workload->recipe) {
	case RECIPE_FRAMES:
		return FRAME_ARENAS;
	case RECIPE_LARSON:
	case RECIPE_CHURN:
	case RECIPE_VARSIZE:
	case RECIPE_LARGE:
		return (unsigned)run->options->parameters[REPLACE_ARENAS];
	default:
		return 1;
	}
}

int workload_prepare(struct run *run, const char **why)
{
	const struct workload *workload = run->workload;

	run->worker_count = run->options->workers;
	/* the first starts the others, and has no life of its own */
	if (workload->recipe == RECIPE_WORKERS)
		run->worker_count++;
	if (workload->recipe == RECIPE_REPLAY && load_trace(run, why))
		return -1;
	run->threads = workload->recipe == RECIPE_WORKERS ? 1 : run->worker_count;
	run->arena_count = arenas_of(run);
	run->workers = workload_map(run, run->worker_count, sizeof(*run->workers));
	if (!run->workers || !map_all(run)) {
		*why = "there is not enough memory for what the recipe needs";
		workload_release(run);
		return -1;
	}
	init_workers(run);
	set_targets(run);
	run->expected = expected_ops(run);
	return 0;
}
