/* SPDX-License-Identifier: MIT */
/* Long runs that were given back lately; see kept.h. */
#include <hakmem/kept.h>

static void drop(struct hk_kept *kept, uint32_t index)
{
	kept->runs[index] = kept->runs[--kept->count];
}

/* Whether @run lies right behind that which was taken last. */
static bool follows(const struct hk_kept_run *run, const struct hk_kept_run *last)
{
	return last->count && last->first + last->count == run->first;
}

bool hk_kept_take(struct hk_kept *kept, uint32_t count, uint32_t *first)
{
	struct hk_kept_run *best = NULL, *run;

	for (run = kept->runs; run < kept->runs + kept->count; run++) {
		if (run->count < count)
			continue;
		if (!best || run->count < best->count ||
		    (run->count == best->count && run->first < best->first))
			best = run;
	}
	if (!best)
		return false;
	*first = best->first;
	best->count -= count;
	if (follows(best, &kept->last) && 2 * count >= 3 * kept->last.count)
		*first += best->count;
	else
		best->first += count;
	kept->last = (struct hk_kept_run){ *first, count };
	kept->slabs -= count;
	if (!best->count)
		drop(kept, (uint32_t)(best - kept->runs));
	return true;
}

bool hk_kept_give(struct hk_kept *kept, uint32_t first, uint32_t count)
{
	struct hk_kept_run *run, *left = NULL, *right = NULL;

	for (run = kept->runs; run < kept->runs + kept->count; run++) {
		if (run->first + run->count == first)
			left = run;
		else if (run->first == first + count)
			right = run;
	}
	if (!left && !right && kept->count == HK_KEPT_MAX)
		return false;
	kept->slabs += count;
	if (left && right) {
		left->count += count + right->count;
		drop(kept, (uint32_t)(right - kept->runs));
	} else if (left) {
		left->count += count;
	} else if (right) {
		right->first = first;
		right->count += count;
	} else {
		kept->runs[kept->count++] = (struct hk_kept_run){ first, count };
	}
	return true;
}
