/* SPDX-License-Identifier: MIT */
/*
 * The replayer's parts. replay_load.c turns a trace into events that need no decoding,
 * replay_run.c runs passes of them, heap_*.c are the allocators: each includes replay_loop.h,
 * the same loop for all, after it said what an allocation and a free are. replay_verify.c
 * fills and checks blocks, replay_report.c prints, replay.c is main().
 *
 * All memory of the replayer itself comes from os_map() and is touched before the first pass,
 * so that neither malloc nor the measured peak of memory knows of it.
 */
#ifndef SAMPLES_REPLAY_H
#define SAMPLES_REPLAY_H

#include "os.h"
#include "trace.h"

#include <hakmem/hakmem.h>

#include <stdatomic.h>

#define REPLAY_PAGE 4096u /* one byte in each so many bytes of a block is written */
#define REPLAY_LINE 64

enum replay_heap {
	REPLAY_HAKMEM,
	REPLAY_LIBC,
	REPLAY_NULL,
};

/* What stands in replay_event.op beside an enum trace_op. */
enum replay_flag {
	REPLAY_OP = 7,	     /* mask of the operation */
	REPLAY_WIDE = 8,     /* @size is an index into replay.wide */
	REPLAY_WAIT = 16,    /* another thread had the slot: @wait is an index of handovers */
	REPLAY_AWAITED = 32, /* another thread will wait for this event */
	REPLAY_SPECIAL = REPLAY_WIDE | REPLAY_WAIT,
};

/* One event, decoded; @wait of a mark is its place in replay.marks. */
struct replay_event {
	uint32_t slot;
	uint32_t size;
	uint32_t wait;
	uint16_t thread;
	uint8_t op;
	uint8_t log2;
};

_Static_assert(sizeof(struct replay_event) == 16, "four events share a cache line");

/* An event that must be done first: the @position-th of @worker, from 1. */
struct replay_handover {
	uint32_t worker;
	uint32_t position;
};

/* With verify: what a slot's block was filled with. */
struct replay_block {
	uint64_t tag;
	uint64_t size;
	uint64_t generation;
};

/**
 * struct replay_mark - a mark of the trace
 * @number: the trace's own.
 * @event: the mark's event.
 * @live_bytes: as requested, at the mark.
 * @reached_ns: os_now_ns() when the last pass came to it.
 */
struct replay_mark {
	uint64_t number;
	uint64_t event;
	uint64_t live_bytes;
	uint64_t reached_ns;
};

struct replay_options {
	enum replay_heap heap;
	bool threads;	  /* as many as recorded; else one */
	unsigned workers; /* with threads: no more than this; 0: no bound */
	bool verify;
	bool marks; /* note the time at each mark */
	bool progress;
	uint64_t repeat;
	uint64_t limit;		/* of the arena, 0: none */
	uint64_t address_space; /* of the arena, 0: the default */
};

struct replay;

/**
 * struct replay_worker - an OS thread that runs events
 * @done: position of the last awaited event that is done; others wait for it. Stored with
 *	release, pairs with the acquire in replay_before().
 * @reported: events done in this pass, for the progress line.
 * @replay: what it is part of.
 * @events: its events, in order.
 * @count: their number.
 * @index: of the trace's thread.
 * @thread: the OS thread; not for the first worker, which is the caller's thread.
 * @started: @thread must be joined.
 * @end_ns: when it ended the pass.
 * @failed: allocations that gave NULL.
 * @broken: blocks found not to be as they should.
 * @text: the first of either.
 */
struct replay_worker {
	_Alignas(REPLAY_LINE) atomic_uint_least32_t done;
	atomic_uint_least32_t reported;
	struct replay *replay;
	const struct replay_event *events;
	uint32_t count;
	unsigned index;
	struct os_thread thread;
	bool started;
	uint64_t end_ns;
	uint64_t failed;
	uint64_t broken;
	char text[160];
};

struct replay_mapping {
	void *memory;
	size_t size;
};

/**
 * struct replay - a loaded trace and its run
 * @options: as given.
 * @events: all events; by thread with options.threads, else as recorded.
 * @numbers: with options.threads: of each of @events, its number in the trace.
 * @event_count: of the trace.
 * @leftovers: frees of what is live after the last event.
 * @leftover_count: their number.
 * @wide: sizes of 2^32 - 1 and more.
 * @handovers: see struct replay_handover; entry 0 is unused.
 * @slots: the blocks.
 * @blocks: per slot, with options.verify; else NULL.
 * @marks: the trace's marks.
 * @mark_count: their number.
 * @slot_count: slots in use.
 * @thread_count: of the trace.
 * @peak_bytes: the most bytes requested and live at once.
 * @peak_events: events until it was so for the first time, the last of them included.
 * @peak_block_bytes: the most bytes live, each request counted as the block that hakmem has for it.
 * @largest: size of the largest block.
 * @largest_log2: of the strictest alignment.
 * @fronts: per thread of the trace, what the heap keeps for it: a cache, say.
 * @arena: hakmem's.
 * @workers: the OS threads.
 * @worker_count: their number.
 * @pass: number of the pass that may run; raised by the first worker with release, the others
 *	read it with acquire.
 * @finished: other workers that are done with the pass; raised with release, read by the
 *	first worker with acquire.
 * @stop: no pass will follow; goes with @pass.
 * @faults: reports of the allocator.
 * @progress_ns: when the progress line was last written.
 * @maps: everything allocated.
 * @map_count: their number.
 */
struct replay {
	struct replay_options options;
	struct replay_event *events;
	uint32_t *numbers;
	uint32_t event_count;
	struct replay_event *leftovers;
	uint32_t leftover_count;
	uint64_t *wide;
	struct replay_handover *handovers;
	void **slots;
	struct replay_block *blocks;
	struct replay_mark *marks;
	uint32_t mark_count;
	uint64_t slot_count;
	unsigned thread_count;
	uint64_t peak_bytes;
	uint64_t peak_events;
	uint64_t peak_block_bytes;
	uint64_t largest;
	unsigned largest_log2;
	void **fronts;
	struct hk_arena *arena;
	struct replay_worker *workers;
	unsigned worker_count;
	atomic_uint_least64_t pass;
	atomic_uint finished;
	bool stop;
	atomic_uint_least64_t faults;
	uint64_t progress_ns;
	struct replay_mapping maps[16];
	unsigned map_count;
};

/**
 * struct replay_result - what a run measured; -1 is what could not be
 * @first_seconds: time of the first pass.
 * @seconds: median time of the others; of the first where it is the only one.
 * @total_seconds: of all passes.
 * @pass_start_ns: when the last pass began.
 * @peak_bytes: resident memory at its peak, less that before the first pass.
 * @page_faults: of the first pass.
 * @process_committed_bytes: what the process has committed after the first pass, less what it
 *	had before the heap was opened.
 * @has_arena: the fields that follow are known.
 * @committed_bytes: after the last pass, before what was live then is freed.
 * @metadata_bytes: of these, the arena's own.
 * @peak_committed_bytes: the most that was.
 * @first_platform_calls: until the end of the first pass.
 * @counters: until the end of the last pass.
 * @failed: allocations that gave NULL.
 * @broken: checks that failed.
 * @faults: reports of the allocator.
 * @text: the first of the failed or broken.
 */
struct replay_result {
	double first_seconds;
	double seconds;
	double total_seconds;
	uint64_t pass_start_ns;
	int64_t peak_bytes;
	int64_t page_faults;
	int64_t process_committed_bytes;
	bool has_arena;
	uint64_t committed_bytes;
	uint64_t metadata_bytes;
	uint64_t peak_committed_bytes;
	uint64_t first_platform_calls;
	struct hk_counters counters;
	uint64_t failed;
	uint64_t broken;
	uint64_t faults;
	char text[160];
};

/* replay_load.c */

/*
 * Decodes a trace. 0; or -1 with error->fault set where the trace is damaged, or with
 * TRACE_OK and error->text where this machine or program cannot run it.
 */
int replay_load(struct replay *replay, const struct replay_options *options, const void *bytes,
		size_t size, struct trace_error *error);
void replay_unload(struct replay *replay);

/* Memory that lives until replay_unload(); NULL: none. */
void *replay_map(struct replay *replay, uint64_t count, size_t each);

/* replay_run.c, replay_wait.c */

/* Runs all passes. 0; or -1 with result->text: the run could not be set up. */
int replay_run(struct replay *replay, struct replay_result *result);

/* Whether all allocations and checks went well. */
bool replay_is_well(const struct replay_result *result);

/* For replay_loop.h: waits where the event must, and gives its size. */
size_t replay_before(struct replay_worker *worker, const struct replay_event *event);

/* Notes an allocation that gave NULL. */
void replay_note_failed(struct replay_worker *worker, const struct replay_event *event,
			size_t size);

/* An event's number in the trace; UINT32_MAX for one of the leftovers. */
uint32_t replay_event_number(const struct replay_worker *worker, const struct replay_event *event);

/* replay_verify.c: each notes in the worker what it finds wrong. */

/* A new block: aligned, zero if @zeroed; then filled with a pattern of its own. */
void replay_verify_new(struct replay_worker *worker, const struct replay_event *event, void *block,
		       size_t size, size_t align, bool zeroed);
/* A block that is about to be freed or resized: still as it was filled. */
void replay_verify_old(struct replay_worker *worker, const struct replay_event *event,
		       const void *block);
/* A block that was resized: content kept, then filled to its new end. */
void replay_verify_resized(struct replay_worker *worker, const struct replay_event *event,
			   void *block, size_t size, size_t align);

/* heap_*.c: open makes replay->fronts, 0 or -1 with *why; run does a stretch of events. */
int heap_hakmem_open(struct replay *replay, const char **why);
void heap_hakmem_run(struct replay_worker *worker, const struct replay_event *event,
		     const struct replay_event *end);
/* Fills in what the arena knows; @first: after the first pass. */
void heap_hakmem_measure(struct replay *replay, struct replay_result *result, bool first);
/* Invariants, and that @live blocks are live; problems are added to result->broken. */
void heap_hakmem_check(struct replay *replay, struct replay_result *result, uint64_t live);
void heap_hakmem_close(struct replay *replay);

int heap_libc_open(struct replay *replay, const char **why);
void heap_libc_run(struct replay_worker *worker, const struct replay_event *event,
		   const struct replay_event *end);

int heap_null_open(struct replay *replay, const char **why);
void heap_null_run(struct replay_worker *worker, const struct replay_event *event,
		   const struct replay_event *end);

/* replay_report.c */

/* With @as_json one JSON object, else text; on stdout. */
void replay_report(const struct replay *replay, const struct replay_result *result,
		   const char *path, bool as_json);
const char *replay_heap_name(enum replay_heap heap);

#endif /* SAMPLES_REPLAY_H */
