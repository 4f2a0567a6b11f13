/* SPDX-License-Identifier: MIT */
/* The command line and the table of the engine sample: what is not about embedding. */
#ifndef SAMPLES_ENGINE_SHOW_H
#define SAMPLES_ENGINE_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hakmem/hakmem.h>

struct engine_options {
	uint64_t frames;
	uint64_t workers;
	uint64_t seed;
	bool json;
};

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

/* Reads the command line. False: the program is to end, with *status. */
bool engine_parse(struct engine_options *options, uint64_t max_workers, int argc, char **argv,
		  int *status);

/* A line that says how far the run is, where a person watches; ends with the last frame. */
void engine_progress(const struct engine_options *options, uint64_t frame);

/* The table. @faults: reports, leaks and broken invariants. */
void engine_show(const struct engine_options *options, const struct engine_row *rows, size_t count,
		 uint64_t evicted, uint64_t faults);

#endif /* SAMPLES_ENGINE_SHOW_H */
