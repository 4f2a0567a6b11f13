/* SPDX-License-Identifier: MIT */
/* Traces written by tests, event by event. */
#ifndef TESTS_TRACE_FILE_H
#define TESTS_TRACE_FILE_H

#include "helper.h"

#include <samples/trace.h>

/* A trace being written. */
struct file {
	unsigned char bytes[8192];
	size_t size;
	struct trace_header header;
	unsigned thread;
};

TEST_HELPER void put(struct file *file, unsigned char byte)
{
	cr_assert_lt(file->size, sizeof(file->bytes));
	file->bytes[file->size++] = byte;
}

TEST_HELPER void put_number(struct file *file, uint64_t number)
{
	for (; number > 127; number >>= 7)
		put(file, (unsigned char)(number | 128));
	put(file, (unsigned char)number);
}

TEST_HELPER struct file begin(uint64_t slots, uint64_t threads)
{
	struct file file = { .size = TRACE_HEADER };

	file.header.slots = slots;
	file.header.threads = threads;
	return file;
}

/* The event's byte and thread; its fields are the caller's. */
TEST_HELPER void put_op(struct file *file, unsigned thread, enum trace_op op)
{
	bool other = thread != file->thread;

	put(file, (unsigned char)(op | (other ? TRACE_NEW_THREAD : 0)));
	if (other)
		put_number(file, thread);
	file->thread = thread;
	file->header.events++;
}

TEST_HELPER void put_block(struct file *file, unsigned thread, enum trace_op op, uint64_t slot,
			   uint64_t size)
{
	put_op(file, thread, op);
	put_number(file, slot);
	if (op == TRACE_ALIGNED)
		put_number(file, 8);
	if (op != TRACE_FREE)
		put_number(file, size);
}

TEST_HELPER void put_mark(struct file *file, uint64_t number)
{
	put_op(file, file->thread, TRACE_MARK);
	put_number(file, number);
}

TEST_HELPER struct file *end(struct file *file)
{
	trace_put_header(file->bytes, &file->header);
	return file;
}

/* A trace with each operation, two threads, and two blocks live at its end. */
TEST_HELPER struct file each_operation(void)
{
	struct file file = begin(4, 3);

	put_block(&file, 0, TRACE_ALLOC, 0, 100);
	put_block(&file, 2, TRACE_ZALLOC, 3, 300);
	put_block(&file, 2, TRACE_ALIGNED, 1, 5000);
	put_mark(&file, 7);
	put_block(&file, 0, TRACE_REALLOC, 3, 40);
	put_block(&file, 0, TRACE_FREE, 0, 0);
	put_block(&file, 2, TRACE_ALLOC, 0, 0);
	put_mark(&file, UINT64_MAX);
	put_block(&file, 2, TRACE_FREE, 1, 0);
	return *end(&file);
}

#endif /* TESTS_TRACE_FILE_H */
