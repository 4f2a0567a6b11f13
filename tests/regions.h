/* SPDX-License-Identifier: MIT */
/*
 * What the tests of arenas in fixed regions share: a region with canaries around it, an arena in
 * it whose reports are counted, and checks that neither allocate nor print.
 */
#ifndef TESTS_REGIONS_H
#define TESTS_REGIONS_H

#include <stdatomic.h>

#include <platform/platform.h>

#include "model.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* For functions that return NULL, or what is wrong as a constant string. */
#define expect(cond)                                                                               \
	do {                                                                                       \
		if (!(cond))                                                                       \
			return __FILE__ ":" STRING(__LINE__) ": " #cond;                           \
	} while (0)

/**
 * struct region_place - a region and the arena in it
 * @mapping: the region with canaries around it.
 * @mapped: bytes of it.
 * @region: the region.
 * @platform: that of the region.
 * @arena: NULL before region_open().
 * @cache: one of the arena's.
 * @told: reports of each fault, since the arena was opened.
 * @size_told: that of the last report.
 */
struct region_place {
	unsigned char *mapping;
	size_t mapped;
	struct hk_fixed_region region;
	struct hk_platform platform;
	struct hk_arena *arena;
	struct hk_cache *cache;
	atomic_size_t told[HK_FAULT_PLATFORM + 1];
	atomic_size_t size_told;
};

/* A region full of garbage whose first byte lies @offset beyond a multiple of 2 MiB. */
void region_make(struct region_place *place, size_t size, size_t offset);

/* Looks at the canaries and frees the region. */
void region_drop(struct region_place *place);

/* Makes the arena and its cache. */
const char *region_open(struct region_place *place);

/* Whether the bytes lie in the region. */
bool region_has(const struct region_place *place, const void *ptr, size_t size);

/* From creation to destruction, all that there is used up again and again in every way. */
const char *region_live(struct region_place *place);

#endif /* TESTS_REGIONS_H */
