/* SPDX-License-Identifier: MIT */
/*
 * Kept runs: long runs of slabs that were given back lately. They stay out of the maps of free
 * slabs, so that large blocks come and go, are split and merged, without these.
 *
 * The shortest run that is long enough serves, of these the lowest. There are few: each call
 * looks at all of them. Guarded by the lock of who owns it.
 */
#ifndef HK_KEPT_H
#define HK_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HK_KEPT_MAX 32u

struct hk_kept_run {
	uint32_t first;
	uint32_t count;
};

struct hk_kept {
	uint32_t count; /* runs */
	uint32_t slabs; /* in all of them */
	struct hk_kept_run runs[HK_KEPT_MAX];
};

/* Takes a run of @count slabs: false where none is long enough. */
bool hk_kept_take(struct hk_kept *kept, uint32_t count, uint32_t *first);

/* Keeps a run: false when there are as many as can be. */
bool hk_kept_give(struct hk_kept *kept, uint32_t first, uint32_t count);

#endif /* HK_KEPT_H */
