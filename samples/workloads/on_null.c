/* SPDX-License-Identifier: MIT */
/* Workloads on no allocator: what the recipes themselves cost. */
#include <samples/heap_null.h>

#include "workload.h"

static void *front_open(struct worker *worker, unsigned arena)
{
	struct run *run = worker->run;

	(void)arena;
	return run->scratch + worker->index * run->scratch_bytes;
}

static void front_close(struct worker *worker, void *front)
{
	(void)worker;
	(void)front;
}

/* As whatever is compared with it: frames is told by no_reset. */
static bool heap_reset(struct run *run, unsigned arena)
{
	(void)run;
	(void)arena;
	return true;
}

static void heap_trim(struct run *run, unsigned arena)
{
	(void)run;
	(void)arena;
}

static bool heap_trim_some(struct run *run, unsigned arena)
{
	heap_trim(run, arena);
	return false;
}

static inline int heap_stage(void *front)
{
	(void)front;
	return -1;
}

#include "recipes.h"

void workload_on_null(struct worker *worker)
{
	whole_run_in_its_mode(worker);
}
