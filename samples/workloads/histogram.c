/* SPDX-License-Identifier: MIT */
/* Counts of values by size, see histogram.h. */
#include "histogram.h"

void histogram_merge(struct histogram *to, const struct histogram *from)
{
	unsigned i;

	to->count += from->count;
	if (from->max > to->max)
		to->max = from->max;
	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
}

uint64_t histogram_bucket_end(unsigned bucket)
{
	unsigned shift;

	if (bucket < HISTOGRAM_STEPS)
		return bucket;
	shift = bucket / HISTOGRAM_STEPS - 1;
	/* the last of all ends at the largest number: the sum wraps round to it */
	return (((uint64_t)bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS + 1) << shift) - 1;
}

uint64_t histogram_percentile(const struct histogram *histogram, unsigned per_10000)
{
	/* rounded up without overflow: the rank of the value, from 1 */
	uint64_t count = histogram->count;
	uint64_t rank = count / 10000 * per_10000 + (count % 10000 * per_10000 + 9999) / 10000;
	uint64_t seen = 0, end;
	unsigned i;

	if (!count)
		return 0;
	if (!rank)
		rank = 1;
	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= rank)
			break;
	}
	end = histogram_bucket_end(i);
	return end < histogram->max ? end : histogram->max;
}
