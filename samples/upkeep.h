/* SPDX-License-Identifier: MIT */
/* What the parts of upkeep share. */
#ifndef SAMPLES_UPKEEP_H
#define SAMPLES_UPKEEP_H

#include <hakmem/hakmem.h>

/* @name tells what it is, @value what was measured, which is to be no more than @bar. */
void note(const char *name, double value, double bar, const char *unit);

/* An arena with one cache: 0 or an error, which is told. */
int open_arena(struct hk_arena **arena, struct hk_cache **cache, struct hk_arena_config config);

/* upkeep_arenas.c: resets and destroys, and a thousand arenas at once: 0, or -1. */
int ends(void);
int crowd(void);

#endif /* SAMPLES_UPKEEP_H */
