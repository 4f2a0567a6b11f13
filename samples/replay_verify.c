/* SPDX-License-Identifier: MIT */
/*
 * replay --verify: every block is filled with a pattern that no other block has, and looked at
 * again before it is freed or resized. Two blocks that overlap, or an allocator that writes
 * into a block, are found when the one that was written over is looked at.
 */
#include "replay.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define WORD sizeof(uint64_t)
#define CHUNK 256 /* bytes compared at once */

/* A bijection: tags differ where slots do, and in all bytes, for blocks shorter than a tag. */
static uint64_t scramble(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* The pattern's word at @index: differs along the block, so that moved content shows. */
static uint64_t pattern(uint64_t tag, size_t index)
{
	return tag + index * 0x9e3779b97f4a7c15u;
}

static void note_broken(struct replay_worker *worker, const struct replay_event *event,
			const char *format, ...)
{
	uint32_t number = replay_event_number(worker, event);
	char where[40] = "after the last event";
	char what[96];
	va_list args;

	if (worker->broken++ || worker->failed)
		return;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	if (number != UINT32_MAX)
		snprintf(where, sizeof(where), "event %" PRIu32, number);
	snprintf(worker->text, sizeof(worker->text), "%s, slot %" PRIu32 ": %s", where, event->slot,
		 what);
}

/* The pattern's words for CHUNK bytes from @at, which is a multiple of it. */
static void make_chunk(uint64_t *chunk, uint64_t tag, size_t at)
{
	size_t i;

	for (i = 0; i < CHUNK / WORD; i++)
		chunk[i] = pattern(tag, at / WORD + i);
}

/* Bytes from @at to the chunk's end, or to @to where that comes first. */
static size_t chunk_bytes(size_t at, size_t to)
{
	size_t length = CHUNK - at % CHUNK;

	return to - at < length ? to - at : length;
}

/* Fills bytes @from to @to. */
static void fill(unsigned char *bytes, uint64_t tag, size_t from, size_t to)
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
static size_t find_change(const unsigned char *bytes, uint64_t tag, size_t size)
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
static size_t find_not_zero(const unsigned char *bytes, size_t size)
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

static void verify_address(struct replay_worker *worker, const struct replay_event *event,
			   const void *block, size_t align)
{
	if ((uintptr_t)block & (align - 1))
		note_broken(worker, event, "the block at %p is not aligned to %zu bytes", block,
			    align);
}

void replay_verify_new(struct replay_worker *worker, const struct replay_event *event, void *block,
		       size_t size, size_t align, bool zeroed)
{
	struct replay_block *state = &worker->replay->blocks[event->slot];
	size_t at;

	verify_address(worker, event, block, align);
	at = zeroed ? find_not_zero(block, size) : size;
	if (at < size)
		note_broken(worker, event, "byte %zu of %zu is not zero", at, size);
	state->generation++;
	state->tag = scramble((uint64_t)event->slot << 32 ^ state->generation);
	state->size = size;
	fill(block, state->tag, 0, size);
}

void replay_verify_old(struct replay_worker *worker, const struct replay_event *event,
		       const void *block)
{
	const struct replay_block *state = &worker->replay->blocks[event->slot];
	size_t at;

	/* Its allocation failed. */
	if (!block)
		return;
	at = find_change(block, state->tag, (size_t)state->size);
	if (at < state->size)
		note_broken(worker, event, "byte %zu of %" PRIu64 " was changed by someone else",
			    at, state->size);
}

void replay_verify_resized(struct replay_worker *worker, const struct replay_event *event,
			   void *block, size_t size, size_t align)
{
	struct replay_block *state = &worker->replay->blocks[event->slot];
	size_t kept = state->size < size ? (size_t)state->size : size;
	size_t at;

	verify_address(worker, event, block, align);
	at = find_change(block, state->tag, kept);
	if (at < kept)
		note_broken(worker, event, "resizing to %zu bytes did not keep byte %zu", size, at);
	fill(block, state->tag, kept, size);
	state->size = size;
}
