/* SPDX-License-Identifier: MIT */
/*
 * Counts of values by size, 16 steps to a power of two: a value is known to 6 %, however large.
 */
#ifndef SAMPLES_HISTOGRAM_H
#define SAMPLES_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 16u
#define HISTOGRAM_BUCKETS ((64 - 4 + 1) * HISTOGRAM_STEPS)

struct histogram {
	uint64_t count;
	uint64_t max;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* Values below 16 have a bucket each; from there on the four bits behind the first decide. */
static inline unsigned histogram_bucket(uint64_t value)
{
	unsigned shift;

	if (value < HISTOGRAM_STEPS)
		return (unsigned)value;
	shift = 63u - (unsigned)__builtin_clzll(value) - 4;
	return shift * HISTOGRAM_STEPS + (unsigned)(value >> shift);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->count++;
	histogram->buckets[histogram_bucket(value)]++;
	if (value > histogram->max)
		histogram->max = value;
}

/* Adds the counts of another. */
void histogram_merge(struct histogram *to, const struct histogram *from);

/* The largest value of a bucket. */
uint64_t histogram_bucket_end(unsigned bucket);

/*
 * The value that @per_10000 of 10,000 values do not pass: of its bucket the largest, or the
 * largest of all where that is less. 0 where there are no values.
 */
uint64_t histogram_percentile(const struct histogram *histogram, unsigned per_10000);

#endif /* SAMPLES_HISTOGRAM_H */
