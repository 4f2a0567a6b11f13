/* SPDX-License-Identifier: MIT */
/*
 * The replayer: what an allocator does wrong is found by --verify, here with allocators that do
 * it; blocks that pass between threads are waited for; and whole runs, on the real ones.
 */
#include "trace_file.h"

#include <samples/replay.h>

#include <string.h>

/* An allocator with a choice of bugs, for the replayer's own loop. */
enum bug {
	BUG_NONE,
	BUG_SAME_BLOCK,	  /* two live blocks at one address */
	BUG_SCRIBBLE,	  /* an allocation changes the last byte of the block before */
	BUG_DIRTY,	  /* zalloc does not clear the last byte */
	BUG_LOST_CONTENT, /* realloc moves all but the last byte that must stay */
	BUG_MISALIGNED,
	BUG_NO_MEMORY,
};

enum {
	HEAP_ALIGNMENT = 16,
	POOL_BYTES = 1 << 20
};

static struct {
	enum bug bug;
	unsigned char *pool;
	size_t used;
	unsigned char *before;
	size_t before_size;
	size_t freed;
	size_t align; /* that heap_aligned() was last asked for */
} heap;

static void *take(size_t size, size_t align)
{
	unsigned char *block;

	if (heap.bug == BUG_NO_MEMORY)
		return NULL;
	if (heap.bug == BUG_SCRIBBLE && heap.before)
		heap.before[heap.before_size - 1] ^= 0x40;
	heap.used = (heap.used + align - 1) / align * align;
	if (heap.bug == BUG_MISALIGNED)
		heap.used += align / 2;
	block = heap.bug == BUG_SAME_BLOCK ? heap.pool : heap.pool + heap.used;
	heap.used += size;
	heap.before = block;
	heap.before_size = size;
	return block;
}

static inline void *heap_alloc(void *front, size_t size)
{
	(void)front;
	return take(size, HEAP_ALIGNMENT);
}

static inline void *heap_zalloc(void *front, size_t size)
{
	unsigned char *block = heap_alloc(front, size);

	if (block)
		memset(block, 0, size);
	if (block && heap.bug == BUG_DIRTY)
		block[size - 1] = 1;
	return block;
}

static inline void *heap_aligned(void *front, size_t size, size_t align)
{
	(void)front;
	heap.align = align;
	return take(size, align);
}

static inline void *heap_realloc(void *front, void *block, size_t size)
{
	unsigned char *to;

	/* BUG_SCRIBBLE changes what lies still, not what is about to move. */
	heap.before = NULL;
	to = heap_alloc(front, size);
	/* The pool is larger than all blocks: what is beyond the old one's end may be read. */
	if (to)
		memmove(to, block, size);
	if (to && heap.bug == BUG_LOST_CONTENT)
		to[size - 1] ^= 1;
	return to;
}

static inline void heap_free(void *front, void *block)
{
	(void)front;
	(void)block;
	heap.freed++;
}

#include <samples/replay_loop.h>

static void load(struct replay *replay, struct file *file, const struct replay_options *options)
{
	struct trace_error error;

	end(file);
	cr_assert_eq(replay_load(replay, options, file->bytes, file->size, &error), 0, "%s",
		     error.text);
}

Test(replay, damaged_trace_is_refused)
{
	static const struct replay_options options = { .repeat = 1 };
	struct file file = each_operation();
	struct trace_error error;
	struct replay replay;

	cr_assert_eq(replay_load(&replay, &options, file.bytes, file.size - 1, &error), -1);
	cr_assert_eq(error.fault, TRACE_ENDS_EARLY);
	cr_assert_eq(error.event, 8);
	cr_assert_eq(error.offset, file.size - 1);
	cr_assert_eq(replay.map_count, 0);
}

/* The first trace through an allocator with a bug; the number of things found wrong. */
static uint64_t run_bug(enum bug bug, struct file *file, char *text)
{
	static const struct replay_options options = { .verify = true, .repeat = 1 };
	struct replay_worker *worker;
	struct replay replay;
	uint64_t found;

	load(&replay, file, &options);
	heap.bug = bug;
	heap.pool = os_map(POOL_BYTES);
	heap.used = 0;
	heap.before = NULL;
	heap.freed = 0;
	worker = &replay.workers[0];
	replay_events(worker, replay.events, replay.events + replay.event_count);
	replay_events(worker, replay.leftovers, replay.leftovers + replay.leftover_count);
	found = worker->broken + worker->failed;
	memcpy(text, worker->text, sizeof(worker->text));
	os_unmap(heap.pool, POOL_BYTES);
	replay_unload(&replay);
	return found;
}

static struct file two_blocks(void)
{
	struct file file = begin(2, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, 100);
	put_block(&file, 0, TRACE_ALLOC, 1, 1000);
	put_block(&file, 0, TRACE_FREE, 0, 0);
	put_block(&file, 0, TRACE_FREE, 1, 0);
	return file;
}

static void expect_bug(enum bug bug, struct file file, const char *begins)
{
	char text[sizeof(((struct replay_worker *)0)->text)];
	struct file copy = file;

	cr_assert_eq(run_bug(BUG_NONE, &copy, text), 0, "without a bug: %s", text);
	cr_assert_gt(run_bug(bug, &file, text), 0);
	cr_assert_eq(strncmp(text, begins, strlen(begins)), 0, "%s", text);
}

Test(replay, verify_finds_overlap)
{
	expect_bug(BUG_SAME_BLOCK, two_blocks(), "event 2, slot 0: byte 0 of 100 was changed");
}

Test(replay, verify_finds_a_changed_last_byte)
{
	expect_bug(BUG_SCRIBBLE, two_blocks(), "event 2, slot 0: byte 99 of 100 was changed");
}

Test(replay, verify_looks_at_leftovers)
{
	struct file file = begin(2, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, 1);
	put_block(&file, 0, TRACE_ALLOC, 1, 600);
	expect_bug(BUG_SCRIBBLE, file, "after the last event, slot 0: byte 0 of 1 was changed");
	cr_assert_eq(heap.freed, 2);
}

Test(replay, verify_looks_at_a_block_before_it_is_resized)
{
	struct file file = begin(2, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, 700);
	put_block(&file, 0, TRACE_ALLOC, 1, 1);
	put_block(&file, 0, TRACE_REALLOC, 0, 1); /* the byte that changed is not kept */
	expect_bug(BUG_SCRIBBLE, file, "event 2, slot 0: byte 699 of 700 was changed");
}

Test(replay, verify_finds_what_is_not_zero)
{
	struct file file = begin(1, 1);

	put_block(&file, 0, TRACE_ZALLOC, 0, 777);
	expect_bug(BUG_DIRTY, file, "event 0, slot 0: byte 776 of 777 is not zero");
}

Test(replay, verify_finds_lost_content)
{
	struct file file = begin(1, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, 700);
	put_block(&file, 0, TRACE_REALLOC, 0, 333);
	expect_bug(BUG_LOST_CONTENT, file, "event 1, slot 0: resizing to 333 bytes");
}

Test(replay, verify_fills_what_a_resize_added)
{
	struct file file = begin(2, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, 11);
	put_block(&file, 0, TRACE_REALLOC, 0, 500);
	put_block(&file, 0, TRACE_ALLOC, 1, 20);
	expect_bug(BUG_SCRIBBLE, file, "after the last event, slot 0: byte 499 of 500");
}

Test(replay, verify_finds_misalignment)
{
	struct file file = begin(1, 1);

	put_block(&file, 0, TRACE_ALLOC, 0, 1);
	expect_bug(BUG_MISALIGNED, file, "event 0, slot 0: the block at");
	file = begin(1, 1);
	put_block(&file, 0, TRACE_ALIGNED, 0, 1); /* 256: off by 128, which 16 divides */
	expect_bug(BUG_MISALIGNED, file, "event 0, slot 0: the block at");
	cr_assert_eq(heap.align, 256);
}

Test(replay, no_memory_is_told_and_survived)
{
	struct file file = begin(2, 1);

	put_block(&file, 0, TRACE_ZALLOC, 0, 5000);
	put_block(&file, 0, TRACE_REALLOC, 0, 50);
	put_block(&file, 0, TRACE_ALIGNED, 1, 50);
	put_block(&file, 0, TRACE_FREE, 0, 0);
	expect_bug(BUG_NO_MEMORY, file, "event 0, slot 0: no memory for 5000 bytes");
}

Test(replay, blocks_are_written_at_ends_and_pages)
{
	static const struct replay_options options = { .repeat = 1 };
	struct file file = begin(1, 1);
	struct replay replay;
	size_t written = 0;
	size_t i;

	put_block(&file, 0, TRACE_ALLOC, 0, 3 * REPLAY_PAGE + 5);
	load(&replay, &file, &options);
	heap.pool = os_map(POOL_BYTES);
	replay_events(&replay.workers[0], replay.events, replay.events + 1);
	for (i = 0; i < POOL_BYTES; i++)
		written += heap.pool[i];
	cr_assert_eq(written, 5);
	for (i = 0; i < 4; i++)
		cr_assert_eq(heap.pool[i * REPLAY_PAGE], 1, "page %zu", i);
	cr_assert_eq(heap.pool[3 * REPLAY_PAGE + 4], 1);
	replay_unload(&replay);
}

Test(replay, sizes_beyond_32_bits)
{
	static const struct replay_options options = { .repeat = 1 };
	static const uint64_t sizes[] = { UINT32_MAX - 1, UINT32_MAX, 0x1234567890u };
	struct file file = begin(3, 1);
	struct replay replay;
	size_t i;

	for (i = 0; i < 3; i++)
		put_block(&file, 0, TRACE_ALLOC, i, sizes[i]);
	load(&replay, &file, &options);
	cr_assert_eq(replay.largest, sizes[2]);
	for (i = 0; i < 3; i++) {
		cr_assert_eq(!!(replay.events[i].op & REPLAY_WIDE), i > 0);
		cr_assert_eq(replay_before(&replay.workers[0], &replay.events[i]), sizes[i]);
	}
	replay_unload(&replay);
}

Test(replay, marks_tell_events_and_live_bytes)
{
	static const struct replay_options options = { .repeat = 1, .marks = true };
	struct file file = each_operation();
	struct replay replay;

	load(&replay, &file, &options);
	cr_assert_eq(replay.peak_bytes, 5400);
	cr_assert_eq(replay.peak_events, 3);
	cr_assert_eq(replay.mark_count, 2);
	cr_assert_eq(replay.marks[0].number, 7);
	cr_assert_eq(replay.marks[0].event, 3);
	cr_assert_eq(replay.marks[0].live_bytes, 5400);
	cr_assert_eq(replay.marks[1].number, UINT64_MAX);
	cr_assert_eq(replay.marks[1].event, 7);
	cr_assert_eq(replay.marks[1].live_bytes, 5040);
	replay_unload(&replay);
}

static void expect_event(const struct replay *replay, size_t at, unsigned thread, uint32_t number,
			 unsigned flags)
{
	const struct replay_event *event = &replay->events[at];

	cr_assert_eq(event->thread, thread, "event %zu", at);
	cr_assert_eq(replay->numbers[at], number, "event %zu", at);
	cr_assert_eq(event->op & ~(unsigned)REPLAY_OP, flags, "event %zu has flags %u", at,
		     event->op & ~(unsigned)REPLAY_OP);
	cr_assert_eq(replay_event_number(&replay->workers[thread], event), number);
}

/* A slot passes from thread 0 to 1, and free, back to 0; another stays with 0. */
static struct file handed_over(void)
{
	struct file file = begin(2, 2);

	put_block(&file, 0, TRACE_ALLOC, 0, 10);
	put_block(&file, 0, TRACE_ALLOC, 1, 20);
	put_block(&file, 1, TRACE_FREE, 0, 0);
	put_block(&file, 0, TRACE_FREE, 1, 0);
	put_block(&file, 0, TRACE_ALLOC, 0, 30);
	put_block(&file, 0, TRACE_FREE, 0, 0);
	return file;
}

Test(replay, handovers_wait_for_the_event_before)
{
	static const struct replay_options options = { .repeat = 1, .threads = true };
	struct file file = handed_over();
	const struct replay_handover *handover;
	struct replay replay;

	load(&replay, &file, &options);
	cr_assert_eq(replay.worker_count, 2);
	cr_assert_eq(replay.workers[0].count, 5);
	cr_assert_eq(replay.workers[1].count, 1);
	cr_assert_eq(replay.workers[1].events, replay.events + 5);
	expect_event(&replay, 0, 0, 0, REPLAY_AWAITED);
	expect_event(&replay, 1, 0, 1, 0);
	expect_event(&replay, 2, 0, 3, 0);
	expect_event(&replay, 3, 0, 4, REPLAY_WAIT);
	expect_event(&replay, 4, 0, 5, 0);
	expect_event(&replay, 5, 1, 2, REPLAY_WAIT | REPLAY_AWAITED);
	handover = &replay.handovers[replay.events[5].wait];
	cr_assert_eq(handover->worker, 0);
	cr_assert_eq(handover->position, 1);
	handover = &replay.handovers[replay.events[3].wait];
	cr_assert_eq(handover->worker, 1);
	cr_assert_eq(handover->position, 1);
	replay_unload(&replay);
}

Test(replay, one_thread_waits_for_nobody)
{
	static const struct replay_options options = { .repeat = 1 };
	struct file file = handed_over();
	struct replay replay;
	size_t i;

	load(&replay, &file, &options);
	cr_assert_eq(replay.worker_count, 1);
	cr_assert_eq(replay.thread_count, 2);
	for (i = 0; i < 6; i++)
		cr_assert_eq(replay.events[i].op & ~(unsigned)REPLAY_OP, 0, "event %zu", i);
	replay_unload(&replay);
}

/*
 * Three threads pass blocks round; some stay live, one of them of no size. Every event but the
 * first few waits.
 */
static struct file passed_round(void)
{
	struct file file = begin(8, 3);
	unsigned i;

	for (i = 0; i < 8; i++)
		put_block(&file, 0, i % 2 ? TRACE_ALLOC : TRACE_ZALLOC, i, 5 + 700 * i);
	for (i = 0; i < 600; i++) {
		put_block(&file, (i + 1) % 3, TRACE_FREE, i % 8, 0);
		put_block(&file, (i + 2) % 3, i % 5 ? TRACE_ALLOC : TRACE_ALIGNED, i % 8, 599 - i);
	}
	return file;
}

static void run_all(enum replay_heap kind, bool threads)
{
	struct replay_options options = {
		.heap = kind,
		.threads = threads,
		.verify = true,
		.repeat = 3,
	};
	struct file file = passed_round();
	struct replay_result result;
	struct replay replay;

	load(&replay, &file, &options);
	cr_assert_eq(replay_run(&replay, &result), 0, "%s", result.text);
	cr_assert(replay_is_well(&result), "%s", result.text);
	cr_assert_eq(result.has_arena, kind == REPLAY_HAKMEM);
	if (kind == REPLAY_HAKMEM) {
		cr_assert_gt(result.metadata_bytes, 0);
		cr_assert_lt(result.metadata_bytes, result.committed_bytes);
	}
	replay_unload(&replay);
}

Test(replay, runs_on_one_thread)
{
	run_all(REPLAY_HAKMEM, false);
	run_all(REPLAY_LIBC, false);
}

Test(replay, runs_on_recorded_threads, .timeout = 60)
{
	run_all(REPLAY_HAKMEM, true);
	run_all(REPLAY_LIBC, true);
}

Test(replay, limit_is_told)
{
	static const struct replay_options options = { .repeat = 1, .limit = 1 << 20 };
	struct file file = begin(2, 1);
	struct replay_result result;
	struct replay replay;

	put_block(&file, 0, TRACE_ALLOC, 0, 1000);
	put_block(&file, 0, TRACE_ALLOC, 1, 8 << 20);
	load(&replay, &file, &options);
	cr_assert_eq(replay_run(&replay, &result), 0, "%s", result.text);
	cr_assert_eq(result.failed, 1);
	cr_assert_not(replay_is_well(&result));
	cr_assert_leq(result.peak_committed_bytes, options.limit);
	replay_unload(&replay);
}
