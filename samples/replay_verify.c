/* SPDX-License-Identifier: MIT */
/*
 * replay --verify: every block is filled with a pattern that no other block has, and looked at
 * again before it is freed or resized. Two blocks that overlap, or an allocator that writes
 * into a block, are found when the one that was written over is looked at.
 */
#include "pattern.h"
#include "replay.h"

#include <inttypes.h>
#include <stdarg.h>

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
	at = zeroed ? pattern_find_not_zero(block, size) : size;
	if (at < size)
		note_broken(worker, event, "byte %zu of %zu is not zero", at, size);
	state->generation++;
	state->tag = pattern_tag((uint64_t)event->slot << 32 ^ state->generation);
	state->size = size;
	pattern_fill(block, state->tag, 0, size);
}

void replay_verify_old(struct replay_worker *worker, const struct replay_event *event,
		       const void *block)
{
	const struct replay_block *state = &worker->replay->blocks[event->slot];
	size_t at;

	/* Its allocation failed. */
	if (!block)
		return;
	at = pattern_find_change(block, state->tag, (size_t)state->size);
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
	at = pattern_find_change(block, state->tag, kept);
	if (at < kept)
		note_broken(worker, event, "resizing to %zu bytes did not keep byte %zu", size, at);
	pattern_fill(block, state->tag, kept, size);
	state->size = size;
}
