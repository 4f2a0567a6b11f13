/* SPDX-License-Identifier: MIT */
/*
 * MODE_NOTED: live bytes are counted; with --verify every block is filled with a pattern that no
 * other block has, and looked at before it is freed or resized.
 */
#include "workload.h"

#include <samples/pattern.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static bool verifies(const struct worker *worker)
{
	return worker->run->options->verify && worker->run->heap != WORKLOAD_NULL;
}

static void count(struct worker *worker, int64_t bytes)
{
	int64_t live = atomic_load_explicit(&worker->live, memory_order_relaxed);

	atomic_store_explicit(&worker->live, live + bytes, memory_order_relaxed);
}

static void note_broken(struct worker *worker, const char *format, ...)
{
	char what[96];
	va_list args;

	if (worker->broken++ || worker->failed)
		return;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	snprintf(worker->text, sizeof(worker->text), "worker %u, operation %" PRIu64 ": %s",
		 worker->index, (uint64_t)worker->done, what);
}

static void check_address(struct worker *worker, const void *block, size_t align)
{
	if ((uintptr_t)block & (align - 1))
		note_broken(worker, "the block at %p is not aligned to %zu bytes", block, align);
}

void workload_note_new(struct worker *worker, void *block, struct note *note, size_t size,
		       size_t align, bool zeroed)
{
	size_t at;

	count(worker, (int64_t)size);
	note->size = size;
	if (!verifies(worker))
		return;
	check_address(worker, block, align);
	at = zeroed ? pattern_find_not_zero(block, size) : size;
	if (at < size)
		note_broken(worker, "byte %zu of %zu is not zero", at, size);
	note->tag = pattern_tag((uint64_t)worker->index << 48 ^ ++worker->sequence);
	pattern_fill(block, note->tag, 0, size);
}

void workload_note_old(struct worker *worker, const void *block, struct note *note)
{
	size_t at;

	count(worker, -(int64_t)note->size);
	if (!verifies(worker))
		return;
	at = pattern_find_change(block, note->tag, (size_t)note->size);
	if (at < note->size)
		note_broken(worker, "byte %zu of %" PRIu64 " was changed by someone else", at,
			    note->size);
}

void workload_note_resized(struct worker *worker, void *block, struct note *note, size_t size,
			   size_t align)
{
	size_t kept = note->size < size ? (size_t)note->size : size, at;

	count(worker, (int64_t)size);
	note->size = size;
	if (!verifies(worker))
		return;
	check_address(worker, block, align);
	at = pattern_find_change(block, note->tag, kept);
	if (at < kept)
		note_broken(worker, "resizing to %zu bytes did not keep byte %zu", size, at);
	pattern_fill(block, note->tag, kept, size);
}
