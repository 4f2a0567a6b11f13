/* SPDX-License-Identifier: MIT */
/* The reader of traces: what is damaged is found, at the right event and byte. */
#include "trace_file.h"

#include <stdlib.h>
#include <string.h>

/* Reads @size bytes to their end; a copy of just that size lets sanitizers see overreads. */
static struct trace_reader read_bytes(const unsigned char *bytes, size_t size)
{
	unsigned char *copy = malloc(size ? size : 1);
	struct trace_reader reader;
	struct trace_event event;
	uint64_t *sizes = NULL;

	cr_assert_not_null(copy);
	memcpy(copy, bytes, size);
	if (trace_open(&reader, copy, size) == 0) {
		sizes = calloc(reader.slots ? (size_t)reader.slots : 1, sizeof(*sizes));
		cr_assert_not_null(sizes);
		trace_start(&reader, sizes);
		while (trace_next(&reader, &event))
			;
		cr_assert_not(trace_next(&reader, &event), "the end is the end");
	}
	free(sizes);
	free(copy);
	return reader;
}

static void expect(struct file *file, enum trace_fault fault, uint64_t event, uint64_t offset)
{
	struct trace_reader reader = read_bytes(file->bytes, file->size);

	cr_assert_eq(reader.error.fault, fault, "fault %d, not %d: %s", reader.error.fault, fault,
		     reader.error.text);
	if (!fault)
		return;
	cr_assert_not(reader.error.in_header);
	cr_assert_eq(reader.error.event, event, "event %u: %s", (unsigned)reader.error.event,
		     reader.error.text);
	cr_assert_eq(reader.error.offset, offset, "byte %u: %s", (unsigned)reader.error.offset,
		     reader.error.text);
	cr_assert_gt(strlen(reader.error.text), 0);
}

Test(trace, reads_each_operation)
{
	static const struct trace_event expected[] = {
		{ TRACE_ALLOC, 0, 0, 0, 100 },	  { TRACE_ZALLOC, 2, 0, 3, 300 },
		{ TRACE_ALIGNED, 2, 8, 1, 5000 }, { TRACE_MARK, 2, 0, 0, 7 },
		{ TRACE_REALLOC, 0, 0, 3, 40 },	  { TRACE_FREE, 0, 0, 0, 100 },
		{ TRACE_ALLOC, 2, 0, 0, 0 },	  { TRACE_MARK, 2, 0, 0, UINT64_MAX },
		{ TRACE_FREE, 2, 0, 1, 5000 },
	};
	struct file file = each_operation();
	struct trace_reader reader;
	struct trace_event event;
	uint64_t sizes[4] = { 0 };
	size_t i;

	cr_assert_eq(trace_open(&reader, file.bytes, file.size), 0);
	cr_assert_eq(reader.slots, 4);
	cr_assert_eq(reader.threads, 3);
	trace_start(&reader, sizes);
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		cr_assert(trace_next(&reader, &event), "event %zu", i);
		cr_assert_eq(event.op, expected[i].op, "event %zu", i);
		cr_assert_eq(event.thread, expected[i].thread, "event %zu", i);
		cr_assert_eq(event.log2, expected[i].log2, "event %zu", i);
		cr_assert_eq(event.slot, expected[i].slot, "event %zu", i);
		cr_assert_eq(event.size, expected[i].size, "event %zu", i);
	}
	cr_assert_not(trace_next(&reader, &event));
	cr_assert_eq(reader.error.fault, TRACE_OK);
	cr_assert_eq(reader.live_blocks, 2);
	cr_assert_eq(reader.live_bytes, 40);
	cr_assert_eq(reader.peak_bytes, 5400);
	cr_assert_eq(reader.used_slots, 4);
	cr_assert_eq(reader.used_threads, 3);
	cr_assert_eq(reader.marks, 2);
}

Test(trace, empty_trace_is_good)
{
	struct file file = begin(0, 0);

	expect(end(&file), TRACE_OK, 0, 0);
}

Test(trace, header_is_little_endian)
{
	static const unsigned char expected[TRACE_HEADER] = "HKTRACE1\x08\x07\x06\x05\x04\x03\x02"
							    "\x01\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0";
	static const struct trace_header header = { 0x0102030405060708u, 5, 6 };
	unsigned char bytes[TRACE_HEADER];

	memset(bytes, 0xff, sizeof(bytes));
	trace_put_header(bytes, &header);
	cr_assert_eq(memcmp(bytes, expected, sizeof(bytes)), 0);
}

Test(trace, header_too_short_at_every_byte)
{
	struct file file = each_operation();
	struct trace_reader reader;
	size_t size;

	for (size = 0; size < TRACE_HEADER; size++) {
		reader = read_bytes(file.bytes, size);
		cr_assert_eq(reader.error.fault, TRACE_SHORT_HEADER, "%zu bytes", size);
		cr_assert(reader.error.in_header);
		cr_assert_eq(reader.error.offset, size);
	}
}

static void expect_header(size_t at, unsigned char byte, enum trace_fault fault, uint64_t offset)
{
	struct file file = each_operation();
	struct trace_reader reader;

	file.bytes[at] = byte;
	reader = read_bytes(file.bytes, file.size);
	cr_assert_eq(reader.error.fault, fault, "byte %zu", at);
	cr_assert(reader.error.in_header);
	cr_assert_eq(reader.error.offset, offset);
}

Test(trace, header_out_of_range)
{
	expect_header(0, 'h', TRACE_BAD_MAGIC, 0);
	expect_header(7, '2', TRACE_BAD_MAGIC, 0);
	expect_header(20, 1, TRACE_BAD_HEADER, 16); /* 2^32 slots */
	expect_header(31, 1, TRACE_BAD_HEADER, 24);
	expect_header(32, 1, TRACE_BAD_HEADER, 32);
	expect_header(39, 1, TRACE_BAD_HEADER, 32);
}

Test(trace, fewer_events_than_the_header_says)
{
	struct file file = each_operation();

	file.header.events++;
	expect(end(&file), TRACE_FEW_EVENTS, 9, file.size);
}

Test(trace, more_events_than_the_header_says)
{
	struct file file = each_operation();

	file.header.events--;
	/* The last event has two bytes. */
	expect(end(&file), TRACE_MANY_EVENTS, 8, file.size - 2);
}

Test(trace, truncated_at_every_byte)
{
	struct file file = each_operation();
	uint64_t begins[16] = { 0 };
	struct trace_reader reader;
	struct trace_event event;
	uint64_t sizes[4] = { 0 };
	enum trace_fault fault;
	size_t count = 0;
	size_t size;
	size_t i;

	cr_assert_eq(trace_open(&reader, file.bytes, file.size), 0);
	trace_start(&reader, sizes);
	do
		begins[count++] = reader.offset;
	while (trace_next(&reader, &event));
	for (size = TRACE_HEADER; size < file.size; size++) {
		for (i = 0; begins[i + 1] <= size; i++)
			;
		fault = begins[i] == size ? TRACE_FEW_EVENTS : TRACE_ENDS_EARLY;
		reader = read_bytes(file.bytes, size);
		cr_assert_eq(reader.error.fault, fault, "%zu bytes", size);
		cr_assert_eq(reader.error.event, i, "%zu bytes", size);
		cr_assert_eq(reader.error.offset, size, "%zu bytes", size);
	}
}

Test(trace, any_bit_wrong_is_survived)
{
	struct file good = each_operation();
	struct trace_reader reader;
	struct file file;
	size_t bit;

	for (bit = 0; bit < good.size * 8; bit++) {
		/* Other numbers of slots take other arrays, to no end here. */
		if (bit / 8 >= 16 && bit / 8 < 24)
			continue;
		file = good;
		file.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
		reader = read_bytes(file.bytes, file.size);
		cr_assert_leq(reader.error.offset, file.size, "bit %zu", bit);
		if (!reader.error.fault) {
			cr_assert_eq(reader.read, reader.events, "bit %zu", bit);
			cr_assert_eq(reader.offset, file.size, "bit %zu", bit);
		}
	}
}

static void expect_op(unsigned char byte)
{
	struct file file = begin(4, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, 1);
	put_op(&file, 0, TRACE_FREE);
	file.bytes[43] = byte;
	put_number(&file, 0);
	expect(end(&file), TRACE_BAD_OP, 1, 43);
}

Test(trace, operation_out_of_range)
{
	expect_op(6);
	expect_op(7);
	expect_op(TRACE_FREE | 0x10);
	expect_op(TRACE_FREE | 0x80);
}

Test(trace, thread_out_of_range)
{
	struct file file = begin(4, 3);

	put_block(&file, 2, TRACE_ALLOC, 0, 1);
	put_block(&file, 3, TRACE_FREE, 0, 0);
	expect(end(&file), TRACE_BAD_THREAD, 1, 45);
	file = begin(4, 0);
	put_block(&file, 0, TRACE_ALLOC, 0, 1);
	expect(end(&file), TRACE_BAD_THREAD, 0, 40);
}

Test(trace, slot_out_of_range)
{
	struct file file = begin(4, 1);

	put_block(&file, 0, TRACE_ALLOC, 3, 1);
	put_block(&file, 0, TRACE_ALLOC, 4, 1);
	expect(end(&file), TRACE_BAD_SLOT, 1, 44);
}

static void expect_live(enum trace_op op)
{
	struct file file = begin(4, 1);

	put_block(&file, 0, TRACE_ALLOC, 1, 0); /* live, though of no size */
	put_block(&file, 0, op, 1, 8);
	expect(end(&file), TRACE_SLOT_LIVE, 1, 44);
}

Test(trace, live_slot_allocated)
{
	expect_live(TRACE_ALLOC);
	expect_live(TRACE_ZALLOC);
	expect_live(TRACE_ALIGNED);
}

static void expect_empty(enum trace_op op)
{
	struct file file = begin(4, 1);

	put_block(&file, 0, op, 2, 8);
	expect(end(&file), TRACE_SLOT_EMPTY, 0, 41);
	file = begin(4, 1);
	put_block(&file, 0, TRACE_ALLOC, 2, 8);
	put_block(&file, 0, TRACE_FREE, 2, 0);
	put_block(&file, 0, op, 2, 8);
	expect(end(&file), TRACE_SLOT_EMPTY, 2, 46);
}

Test(trace, empty_slot_freed_or_resized)
{
	expect_empty(TRACE_FREE);
	expect_empty(TRACE_REALLOC);
}

Test(trace, size_out_of_range)
{
	struct file file = begin(1, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, INT64_MAX);
	expect(end(&file), TRACE_OK, 0, 0);
	put_block(&file, 0, TRACE_REALLOC, 0, (uint64_t)INT64_MAX + 1);
	expect(end(&file), TRACE_BAD_SIZE, 1, 53);
}

Test(trace, alignment_out_of_range)
{
	struct file file = begin(1, 1);

	put_op(&file, 0, TRACE_ALIGNED);
	put_number(&file, 0);
	put_number(&file, 63);
	put_number(&file, 1);
	expect(end(&file), TRACE_OK, 0, 0);
	file.bytes[42] = 64;
	expect(end(&file), TRACE_BAD_ALIGNMENT, 0, 42);
}

/* A mark whose number is @count bytes of @byte and then @last. */
static struct file long_number(size_t count, unsigned char byte, unsigned char last)
{
	struct file file = begin(0, 1);
	size_t i;

	put_op(&file, 0, TRACE_MARK);
	for (i = 0; i < count; i++)
		put(&file, byte);
	put(&file, last);
	return *end(&file);
}

Test(trace, numbers_of_64_bits_and_no_more)
{
	struct file file = long_number(9, 0xff, 1);

	expect(&file, TRACE_OK, 0, 0);
	file = long_number(9, 0x80, 0); /* zero, padded to ten bytes */
	expect(&file, TRACE_OK, 0, 0);
	file = long_number(9, 0xff, 2);
	expect(&file, TRACE_BAD_NUMBER, 0, 41);
	file = long_number(9, 0x80, 0x40);
	expect(&file, TRACE_BAD_NUMBER, 0, 41);
	file = long_number(10, 0x80, 0);
	expect(&file, TRACE_BAD_NUMBER, 0, 41);
	file = long_number(1000, 0x80, 0);
	expect(&file, TRACE_BAD_NUMBER, 0, 41);
}
