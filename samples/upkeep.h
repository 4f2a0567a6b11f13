/* SPDX-License-Identifier: MIT */
/* What the parts of upkeep share. */
#ifndef SAMPLES_UPKEEP_H
#define SAMPLES_UPKEEP_H

#include <hakmem/hakmem.h>

/* @name tells what it is, @value what was measured, no more than @bar is wanted; 0: no bar. */
void note(const char *name, double value, double bar, const char *unit);

/* An arena with one cache: 0 or an error, which is told. */
int open_arena(struct hk_arena **arena, struct hk_cache **cache, struct hk_arena_config config);

/* upkeep_slices.c: calls of maintain and of trim with a heap of @bytes: 0, or -1. */
int slices_at(size_t bytes, uint64_t calls);

/* upkeep_arenas.c: resets and destroys, and a thousand arenas at once: 0, or -1. */
int ends(void);
int crowd(void);

#endif /* SAMPLES_UPKEEP_H */
