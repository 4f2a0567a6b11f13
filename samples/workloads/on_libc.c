/* SPDX-License-Identifier: MIT */
/* Workloads on malloc as the program finds it, a preloaded one included. */
#include <samples/heap_libc.h>

#include "workload.h"

/* Anything but NULL. */
static void *front_open(struct worker *worker, unsigned arena)
{
	(void)arena;
	return worker;
}

static void front_close(struct worker *worker, void *front)
{
	(void)worker;
	(void)front;
}

static bool heap_reset(struct run *run, unsigned arena)
{
	(void)run;
	(void)arena;
	return false;
}

static void heap_trim(struct run *run, unsigned arena)
{
	(void)run;
	(void)arena;
	os_malloc_trim();
}

/* None has a call that stops before the end. */
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

void workload_on_libc(struct worker *worker)
{
	whole_run_in_its_mode(worker);
}
