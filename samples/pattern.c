/* SPDX-License-Identifier: MIT */
/* Patterns for blocks, see pattern.h. */
#include "pattern.h"

#include <string.h>

#define WORD sizeof(uint64_t)
#define CHUNK 256 /* bytes compared at once */

/* Of splitmix64. */
uint64_t pattern_tag(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* The pattern's word at @index: differs along the block, so that moved content shows. */
static uint64_t word(uint64_t tag, size_t index)
{
	return tag + index * 0x9e3779b97f4a7c15u;
}

/* The pattern's words for CHUNK bytes from @at, which is a multiple of it. */
static void make_chunk(uint64_t *chunk, uint64_t tag, size_t at)
{
	size_t i;

	for (i = 0; i < CHUNK / WORD; i++)
		chunk[i] = word(tag, at / WORD + i);
}

/* Bytes from @at to the chunk's end, or to @to where that comes first. */
static size_t chunk_bytes(size_t at, size_t to)
{
	size_t length = CHUNK - at % CHUNK;

	return to - at < length ? to - at : length;
}

/* Fills bytes @from to @to. */
void pattern_fill(unsigned char *bytes, uint64_t tag, size_t from, size_t to)
{
	uint64_t chunk[CHUNK / WORD];
	size_t length;
	size_t at;

	for (at = from; at < to; at += length) {
		length = chunk_bytes(at, to);
		make_chunk(chunk, tag, at / CHUNK * CHUNK);
		memcpy(bytes + at, (const unsigned char *)chunk + at % CHUNK, length);
	}
}

/* The first of @size bytes that differs from @expected, or @size. */
static size_t find_difference(const unsigned char *bytes, const void *expected, size_t size)
{
	const unsigned char *other = expected;
	size_t at = 0;

	if (memcmp(bytes, expected, size) == 0)
		return size;
	while (bytes[at] == other[at])
		at++;
	return at;
}

/* The first of @size bytes that is not as filled, or @size. */
size_t pattern_find_change(const unsigned char *bytes, uint64_t tag, size_t size)
{
	uint64_t chunk[CHUNK / WORD];
	size_t length;
	size_t found;
	size_t at;

	for (at = 0; at < size; at += CHUNK) {
		length = chunk_bytes(at, size);
		make_chunk(chunk, tag, at);
		found = find_difference(bytes + at, chunk, length);
		if (found < length)
			return at + found;
	}
	return size;
}

/* The first of @size bytes that is not zero, or @size. */
size_t pattern_find_not_zero(const unsigned char *bytes, size_t size)
{
	static const uint64_t zeros[CHUNK / WORD];
	size_t length;
	size_t found;
	size_t at;

	for (at = 0; at < size; at += CHUNK) {
		length = chunk_bytes(at, size);
		found = find_difference(bytes + at, zeros, length);
		if (found < length)
			return at + found;
	}
	return size;
}
