/* SPDX-License-Identifier: MIT */
/*
 * Patterns that no two blocks share: filled in when a block is allocated and looked at before it is
 * freed, they show blocks that overlap and allocators that write into them.
 */
#ifndef SAMPLES_PATTERN_H
#define SAMPLES_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/*
 * A tag from a number that no other block has. A bijection, so that tags differ where numbers do;
 * they do so in all bytes, for blocks shorter than a tag.
 */
uint64_t pattern_tag(uint64_t x);

/* Fills bytes @from to @to of a block. */
void pattern_fill(unsigned char *bytes, uint64_t tag, size_t from, size_t to);

/* The first of @size bytes that is not as filled, or @size. */
size_t pattern_find_change(const unsigned char *bytes, uint64_t tag, size_t size);

/* The first of @size bytes that is not zero, or @size. */
size_t pattern_find_not_zero(const unsigned char *bytes, size_t size);

#endif /* SAMPLES_PATTERN_H */
