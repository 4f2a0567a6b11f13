/* SPDX-License-Identifier: MIT */
/*
 * Reader of heap traces: the heap calls of one program, in the order in which they happened.
 * README.md describes the format. The reader works on a file's bytes in memory, checks every
 * rule of the format as it goes, and allocates nothing.
 *
 *	struct trace_reader reader;
 *	struct trace_event event;
 *
 *	if (trace_open(&reader, bytes, size))
 *		... reader.error
 *	trace_start(&reader, sizes);		zeroed, one for each of reader.slots
 *	while (trace_next(&reader, &event))
 *		...
 *	if (reader.error.fault)
 *		...
 */
#ifndef SAMPLES_TRACE_H
#define SAMPLES_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TRACE_MAGIC "HKTRACE1"
#define TRACE_HEADER 40 /* bytes */
#define TRACE_MAX_SLOTS UINT32_MAX
#define TRACE_MAX_THREADS 65536u
#define TRACE_MAX_SIZE ((uint64_t)INT64_MAX)
#define TRACE_NEW_THREAD 8 /* bit of an event's first byte: a thread index follows */

enum trace_op {
	TRACE_ALLOC = 0,
	TRACE_FREE,
	TRACE_REALLOC,
	TRACE_ZALLOC,
	TRACE_ALIGNED,
	TRACE_MARK,
};

/* What can be wrong with a file. */
enum trace_fault {
	TRACE_OK = 0,
	TRACE_SHORT_HEADER, /* less than a header */
	TRACE_BAD_MAGIC,
	TRACE_BAD_HEADER, /* a count beyond what the reader takes, or a non-zero last field */
	TRACE_ENDS_EARLY, /* the file ends inside an event */
	TRACE_BAD_NUMBER, /* a varint of more than 64 bits or more than 10 bytes */
	TRACE_BAD_OP,
	TRACE_BAD_THREAD,
	TRACE_BAD_SLOT,
	TRACE_BAD_SIZE,
	TRACE_BAD_ALIGNMENT,
	TRACE_SLOT_LIVE,   /* a live slot allocated again */
	TRACE_SLOT_EMPTY,  /* an empty slot freed or resized */
	TRACE_FEW_EVENTS,  /* fewer than the header says */
	TRACE_MANY_EVENTS, /* more than the header says */
};

/**
 * struct trace_error - the first thing that is wrong with a file
 * @fault: what kind; TRACE_OK when there is nothing.
 * @in_header: it is in the header, and @event says nothing.
 * @event: the event concerned, counted from 0.
 * @offset: byte of the file: where the field concerned begins; the end of the file where that
 *	came too early.
 * @text: the rest of the message.
 */
struct trace_error {
	enum trace_fault fault;
	bool in_header;
	uint64_t event;
	uint64_t offset;
	char text[120];
};

/**
 * struct trace_event - one event
 * @op: what to do.
 * @thread: index of the thread that did it.
 * @log2: of the alignment, for TRACE_ALIGNED.
 * @slot: which block; unused for TRACE_MARK.
 * @size: bytes; the number for TRACE_MARK; for TRACE_FREE what the block had.
 */
struct trace_event {
	enum trace_op op;
	unsigned thread;
	unsigned log2;
	uint32_t slot;
	uint64_t size;
};

/**
 * struct trace_reader - a file being read
 * @bytes: the file.
 * @size: its size.
 * @offset: of the next event.
 * @events: as the header says.
 * @slots: "
 * @threads: "
 * @read: events read.
 * @thread: of the event before the next.
 * @used_slots: largest slot index seen, plus 1.
 * @used_threads: largest thread index seen, plus 1.
 * @live_blocks: after the last event read.
 * @live_bytes: as requested, after the last event read.
 * @peak_bytes: the most that @live_bytes was.
 * @marks: marks read.
 * @sizes: per slot the size of the live block plus 1, or 0; the caller's.
 * @error: what is wrong.
 */
struct trace_reader {
	const unsigned char *bytes;
	uint64_t size;
	uint64_t offset;
	uint64_t events;
	uint64_t slots;
	uint64_t threads;
	uint64_t read;
	unsigned thread;
	uint64_t used_slots;
	unsigned used_threads;
	uint64_t live_blocks;
	uint64_t live_bytes;
	uint64_t peak_bytes;
	uint64_t marks;
	uint64_t *sizes;
	struct trace_error error;
};

/* The numbers of a header. */
struct trace_header {
	uint64_t events;
	uint64_t slots;
	uint64_t threads;
};

/* Reads the header. 0, or -1 with reader->error set. */
int trace_open(struct trace_reader *reader, const void *bytes, size_t size);

/* Goes to the first event. @sizes: zeroed, reader->slots entries, kept by the caller. */
void trace_start(struct trace_reader *reader, uint64_t *sizes);

/*
 * Reads and checks the next event. False at the end of the file, where the count is checked
 * against the header's, and where something is wrong: reader->error tells the two apart. After
 * an error nothing more is read.
 */
bool trace_next(struct trace_reader *reader, struct trace_event *event);

/* "event 3, byte 57: slot 9 is out of range ..." without a newline; returns what printf does. */
int trace_print_error(FILE *file, const struct trace_error *error);

/* Writes a header of TRACE_HEADER bytes. */
void trace_put_header(unsigned char *bytes, const struct trace_header *header);

#endif /* SAMPLES_TRACE_H */
