/* SPDX-License-Identifier: MIT */
/*
 * Numbers that look random and cost a multiplication: the upper half of a linear congruential
 * generator of 64 bits (Knuth's MMIX).
 */
#ifndef SAMPLES_RANDOM_H
#define SAMPLES_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* 32 bits. */
static inline uint64_t random_next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 32;
}

/* From 0 to below @below, which is at most 2^32. */
static inline size_t random_below(uint64_t *state, uint64_t below)
{
	return (size_t)((random_next(state) * below) >> 32);
}

/* @min to @max, both included, each as likely. */
static inline size_t random_between(uint64_t *state, uint64_t min, uint64_t max)
{
	return (size_t)min + random_below(state, max - min + 1);
}

/* The lesser of two is linearly less likely the larger it is. */
static inline size_t random_falling(uint64_t *state, uint64_t min, uint64_t max)
{
	size_t a = random_between(state, min, max), b = random_between(state, min, max);

	return a < b ? a : b;
}

/* @min to @max, with a density like size^-2. */
static inline size_t random_square(uint64_t *state, uint64_t min, uint64_t max)
{
	double u = (double)random_next(state) * 0x1p-32;
	double a = (double)min, b = (double)max;

	return (size_t)(a * b / (b - u * (b - a)));
}

/*
 * @min to @max, each power of two as likely as the next; @powers is how many of them lie between.
 * Within a power, a parabola stands for 2^x: off by 0.3 % at most.
 */
static inline size_t random_log(uint64_t *state, uint64_t min, uint64_t max, double powers)
{
	double x = (double)random_next(state) * 0x1p-32 * powers;
	unsigned whole = (unsigned)x;
	double part = x - (double)whole, scale = (double)((uint64_t)1 << whole);
	size_t size;

	size = (size_t)((double)min * scale * (1 + part * (0.6565 + 0.3435 * part)));
	return size < max ? size : (size_t)max;
}

#endif /* SAMPLES_RANDOM_H */
