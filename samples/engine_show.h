/* SPDX-License-Identifier: MIT */
/* The command line and the table of the engine sample: what is not about embedding. */
#ifndef SAMPLES_ENGINE_SHOW_H
#define SAMPLES_ENGINE_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hakmem/hakmem.h>

#include "workloads/histogram.h"

struct engine_options {
	uint64_t frames;
	uint64_t workers;
	uint64_t seed;
	bool libc;
	bool cold;
	bool faults;
	bool json;
};

/**
 * struct engine_times - what the allocator took of a worker's time, in ticks of os_ticks()
 * @allocs: each call that allocates.
 * @frees: each that frees; a reset is one.
 * @frames: all calls of a frame.
 * @frame: of the frame at work.
 */
struct engine_times {
	struct histogram allocs;
	struct histogram frees;
	struct histogram frames;
	uint64_t frame;
};

static inline void engine_note_alloc(struct engine_times *times, uint64_t ticks)
{
	histogram_add(&times->allocs, ticks);
	times->frame += ticks;
}

static inline void engine_note_free(struct engine_times *times, uint64_t ticks)
{
	histogram_add(&times->frees, ticks);
	times->frame += ticks;
}

static inline void engine_end_frame(struct engine_times *times)
{
	histogram_add(&times->frames, times->frame);
	times->frame = 0;
}

/**
 * struct engine_row - an arena
 * @name: of the subsystem.
 * @budget: bytes.
 * @allocations: in all frames.
 * @worst_ns: the longest that one worker's part of one frame took in that subsystem.
 * @stats: after the last frame.
 */
struct engine_row {
	const char *name;
	size_t budget;
	uint64_t allocations;
	uint64_t worst_ns;
	struct hk_stats stats;
};

/**
 * struct engine_totals - all of the engine
 * @evicted: assets that made way.
 * @pressures: how often memory in use came to the soft limit.
 * @faults: reports, leaks and broken invariants.
 * @used_bytes: of all arenas together, after the last frame; @peak_bytes: at most.
 * @limit_bytes: of all arenas together.
 * @page_faults: within frames; -1: not known.
 * @times: of all workers.
 */
struct engine_totals {
	uint64_t evicted, pressures, faults;
	size_t used_bytes, peak_bytes, limit_bytes;
	int64_t page_faults;
	struct engine_times times;
};

/* Reads the command line. False: the program is to end, with *status. */
bool engine_parse(struct engine_options *options, uint64_t max_workers, int argc, char **argv,
		  int *status);

/* A line that says how far the run is, where a person watches; ends with the last frame. */
void engine_progress(const struct engine_options *options, uint64_t frame);

/* The table. */
void engine_show(const struct engine_options *options, const struct engine_row *rows, size_t count,
		 const struct engine_totals *totals);

#endif /* SAMPLES_ENGINE_SHOW_H */
