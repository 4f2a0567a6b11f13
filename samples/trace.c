/* SPDX-License-Identifier: MIT */
/* Reader of heap traces, see trace.h. */
#include "trace.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static void trace_fail(struct trace_reader *reader, enum trace_fault fault, uint64_t offset,
		       const char *format, ...)
{
	struct trace_error *error = &reader->error;
	va_list args;

	error->fault = fault;
	error->event = reader->read;
	error->offset = offset;
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
}

static uint64_t trace_get_u64(const unsigned char *bytes)
{
	uint64_t value = 0;
	unsigned i;

	for (i = 8; i-- > 0;)
		value = value << 8 | bytes[i];
	return value;
}

static void trace_put_u64(unsigned char *bytes, uint64_t value)
{
	unsigned i;

	for (i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(value >> (8 * i));
}

/*
 * A varint at @at, which is moved behind it. Padding with zero groups is allowed as LEB128
 * allows it, up to the ten bytes that 64 bits can take.
 */
static bool trace_get_varint(struct trace_reader *reader, uint64_t *at, uint64_t *value)
{
	uint64_t begin = *at;
	unsigned shift = 0;
	unsigned char byte;

	*value = 0;
	do {
		if (*at == reader->size) {
			trace_fail(reader, TRACE_ENDS_EARLY, *at, "the file ends inside an event");
			return false;
		}
		byte = reader->bytes[(*at)++];
		if (shift == 63 && byte > 1) {
			trace_fail(reader, TRACE_BAD_NUMBER, begin,
				   "a number has more than 64 bits");
			return false;
		}
		*value |= (uint64_t)(byte & 127) << shift;
		shift += 7;
	} while (byte & 128);
	return true;
}

int trace_open(struct trace_reader *reader, const void *bytes, size_t size)
{
	memset(reader, 0, sizeof(*reader));
	reader->bytes = bytes;
	reader->size = size;
	reader->error.in_header = true;
	if (size >= 8 && memcmp(bytes, TRACE_MAGIC, 8) != 0) {
		trace_fail(reader, TRACE_BAD_MAGIC, 0, "this is no heap trace (no %s)",
			   TRACE_MAGIC);
		return -1;
	}
	if (size < TRACE_HEADER) {
		trace_fail(reader, TRACE_SHORT_HEADER, size, "the file ends inside the header");
		return -1;
	}
	reader->events = trace_get_u64(reader->bytes + 8);
	reader->slots = trace_get_u64(reader->bytes + 16);
	reader->threads = trace_get_u64(reader->bytes + 24);
	if (reader->slots > TRACE_MAX_SLOTS) {
		trace_fail(reader, TRACE_BAD_HEADER, 16,
			   "%" PRIu64 " slots are more than this reader takes (%" PRIu64 ")",
			   reader->slots, (uint64_t)TRACE_MAX_SLOTS);
		return -1;
	}
	if (reader->threads > TRACE_MAX_THREADS) {
		trace_fail(reader, TRACE_BAD_HEADER, 24,
			   "%" PRIu64 " threads are more than this reader takes (%u)",
			   reader->threads, TRACE_MAX_THREADS);
		return -1;
	}
	if (trace_get_u64(reader->bytes + 32) != 0) {
		trace_fail(reader, TRACE_BAD_HEADER, 32, "the last field is %" PRIu64 ", not 0",
			   trace_get_u64(reader->bytes + 32));
		return -1;
	}
	reader->error.in_header = false;
	return 0;
}

void trace_start(struct trace_reader *reader, uint64_t *sizes)
{
	reader->sizes = sizes;
	reader->offset = TRACE_HEADER;
	reader->read = 0;
	reader->thread = 0;
	reader->used_slots = 0;
	reader->used_threads = 0;
	reader->live_blocks = 0;
	reader->live_bytes = 0;
	reader->peak_bytes = 0;
	reader->marks = 0;
	memset(&reader->error, 0, sizeof(reader->error));
}

static bool trace_get_thread(struct trace_reader *reader, unsigned char byte, uint64_t *at)
{
	uint64_t begin = *at;
	uint64_t thread = reader->thread;

	if (byte & TRACE_NEW_THREAD) {
		if (!trace_get_varint(reader, at, &thread))
			return false;
	} else {
		begin--;
	}
	if (thread >= reader->threads) {
		trace_fail(reader, TRACE_BAD_THREAD, begin,
			   "thread %" PRIu64 " is out of range (the header says %" PRIu64 ")",
			   thread, reader->threads);
		return false;
	}
	reader->thread = (unsigned)thread;
	if (thread >= reader->used_threads)
		reader->used_threads = (unsigned)thread + 1;
	return true;
}

/* The slot's range, and that it is empty or live as the operation needs it. */
static bool trace_get_slot(struct trace_reader *reader, uint64_t *at, struct trace_event *event)
{
	bool needs_block = event->op == TRACE_FREE || event->op == TRACE_REALLOC;
	uint64_t begin = *at;
	uint64_t slot;

	if (!trace_get_varint(reader, at, &slot))
		return false;
	if (slot >= reader->slots) {
		trace_fail(reader, TRACE_BAD_SLOT, begin,
			   "slot %" PRIu64 " is out of range (the header says %" PRIu64 ")", slot,
			   reader->slots);
		return false;
	}
	if (needs_block && !reader->sizes[slot]) {
		trace_fail(reader, TRACE_SLOT_EMPTY, begin, "slot %" PRIu64 " is %s but empty",
			   slot, event->op == TRACE_FREE ? "freed" : "resized");
		return false;
	}
	if (!needs_block && reader->sizes[slot]) {
		trace_fail(reader, TRACE_SLOT_LIVE, begin,
			   "slot %" PRIu64 " is allocated but live already", slot);
		return false;
	}
	event->slot = (uint32_t)slot;
	return true;
}

static bool trace_get_fields(struct trace_reader *reader, uint64_t *at, struct trace_event *event)
{
	uint64_t log2 = 0;
	uint64_t begin;

	if (event->op == TRACE_MARK)
		return trace_get_varint(reader, at, &event->size);
	if (!trace_get_slot(reader, at, event))
		return false;
	if (event->op == TRACE_FREE) {
		event->size = reader->sizes[event->slot] - 1;
		return true;
	}
	begin = *at;
	if (event->op == TRACE_ALIGNED && !trace_get_varint(reader, at, &log2))
		return false;
	if (log2 > 63) {
		trace_fail(reader, TRACE_BAD_ALIGNMENT, begin,
			   "an alignment of 2 to the power of %" PRIu64 " is out of range", log2);
		return false;
	}
	event->log2 = (unsigned)log2;
	begin = *at;
	if (!trace_get_varint(reader, at, &event->size))
		return false;
	if (event->size > TRACE_MAX_SIZE) {
		trace_fail(reader, TRACE_BAD_SIZE, begin, "a size of %" PRIu64 " is out of range",
			   event->size);
		return false;
	}
	return true;
}

static void trace_account(struct trace_reader *reader, const struct trace_event *event)
{
	uint64_t *size;

	if (event->op == TRACE_MARK) {
		reader->marks++;
		return;
	}
	if (event->slot >= reader->used_slots)
		reader->used_slots = (uint64_t)event->slot + 1;
	size = &reader->sizes[event->slot];
	if (*size) {
		reader->live_bytes -= *size - 1;
		reader->live_blocks--;
		*size = 0;
	}
	if (event->op != TRACE_FREE) {
		reader->live_bytes += event->size;
		reader->live_blocks++;
		*size = event->size + 1;
	}
	if (reader->live_bytes > reader->peak_bytes)
		reader->peak_bytes = reader->live_bytes;
}

bool trace_next(struct trace_reader *reader, struct trace_event *event)
{
	uint64_t at = reader->offset;
	unsigned char byte;

	if (reader->error.fault)
		return false;
	if (at == reader->size) {
		if (reader->read != reader->events)
			trace_fail(reader, TRACE_FEW_EVENTS, at,
				   "the file ends after %" PRIu64
				   " events, the header says %" PRIu64,
				   reader->read, reader->events);
		return false;
	}
	if (reader->read == reader->events) {
		trace_fail(reader, TRACE_MANY_EVENTS, at,
			   "the file goes on after the %" PRIu64 " events that the header says",
			   reader->events);
		return false;
	}
	byte = reader->bytes[at++];
	if (byte >> 4 != 0 || (byte & 7) > TRACE_MARK) {
		trace_fail(reader, TRACE_BAD_OP, at - 1, "operation 0x%02x is out of range", byte);
		return false;
	}
	memset(event, 0, sizeof(*event));
	event->op = (enum trace_op)(byte & 7);
	if (!trace_get_thread(reader, byte, &at) || !trace_get_fields(reader, &at, event))
		return false;
	event->thread = reader->thread;
	trace_account(reader, event);
	reader->offset = at;
	reader->read++;
	return true;
}

int trace_print_error(FILE *file, const struct trace_error *error)
{
	if (error->in_header)
		return fprintf(file, "header, byte %" PRIu64 ": %s", error->offset, error->text);
	return fprintf(file, "event %" PRIu64 ", byte %" PRIu64 ": %s", error->event, error->offset,
		       error->text);
}

void trace_put_header(unsigned char *bytes, const struct trace_header *header)
{
	memcpy(bytes, TRACE_MAGIC, 8);
	trace_put_u64(bytes + 8, header->events);
	trace_put_u64(bytes + 16, header->slots);
	trace_put_u64(bytes + 24, header->threads);
	trace_put_u64(bytes + 32, 0);
}
