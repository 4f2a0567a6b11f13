/* SPDX-License-Identifier: MIT */
/*
 * The workload runner's parts. table.c lists the workloads and their parameters; prepare.c lays out
 * what they need beside the allocator; the recipes*.h are what they do, each allocator includes
 * them (on_*.c) over cells.h; run.c runs one on its workers, and on the null allocator beside it;
 * verify.c fills and checks blocks, report.c prints, main.c reads the command line.
 *
 * All memory of the runner itself comes from os_map() and is touched before the run, so that
 * neither malloc nor the measured memory knows of it.
 */
#ifndef SAMPLES_WORKLOAD_H
#define SAMPLES_WORKLOAD_H

#include "histogram.h"

#include <samples/os.h>
#include <samples/replay.h>

#include <hakmem/hakmem.h>

#include <stdatomic.h>

#define WORKLOAD_CHECKPOINTS 32
#define WORKLOAD_PARAMETERS 16
#define WORKLOAD_ARENAS 16
#define WORKLOAD_LINE 64
#define WORKLOAD_RELAYS 16
#define WORKLOAD_PAGE 4096u

enum workload_heap {
	WORKLOAD_HAKMEM,
	WORKLOAD_LIBC,
	WORKLOAD_NULL,
};

/* How a recipe is compiled; each is a copy of its own, so that none pays for the others. */
enum workload_mode {
	MODE_PLAIN,
	MODE_NOTED, /* live bytes are counted, and blocks verified where asked for */
	MODE_TIMED, /* each call is timed */
};

enum workload_recipe {
	RECIPE_LARSON,
	RECIPE_CHURN,
	RECIPE_BURST,
	RECIPE_STORM,
	RECIPE_LIFETIME,
	RECIPE_VARSIZE,
	RECIPE_HANDOFF,
	RECIPE_MESH,
	RECIPE_SCRATCH,
	RECIPE_WORKERS,
	RECIPE_LARGE,
	RECIPE_GROW,
	RECIPE_PAIRS,
	RECIPE_PINNED,
	RECIPE_FRAMES,
	RECIPE_REPLAY,
};

/* A number that a recipe depends on, an option of the command line. */
struct workload_parameter {
	const char *name;
	const char *about;
	uint64_t value;
	uint64_t min;
	uint64_t max;
};

/**
 * struct workload - one of the workloads
 * @name: on the command line.
 * @about: a line.
 * @recipe: what its workers do.
 * @workers: by default.
 * @ops: operations of all workers, by default; 0: the recipe has a length of its own.
 * @largest: index of the parameter that is its largest block.
 * @parameters: up to one without a name; indices are those of the recipe's enum.
 */
struct workload {
	const char *name;
	const char *about;
	enum workload_recipe recipe;
	unsigned workers;
	uint64_t ops;
	unsigned largest;
	struct workload_parameter parameters[WORKLOAD_PARAMETERS];
};

/* Roles and queues of a mesh: each sender, and each receiver, has one with each forwarder. */
enum {
	MESH_SENDERS = 3,
	MESH_FORWARDERS = 2,
	MESH_RECEIVERS = 3,
	MESH_ROLES = MESH_SENDERS + MESH_FORWARDERS + MESH_RECEIVERS,
	MESH_QUEUES = (MESH_SENDERS + MESH_RECEIVERS) * MESH_FORWARDERS,
};

/* The arenas of frames. Temporaries go to two of them in turn. */
enum {
	FRAME_RENDER,
	FRAME_SCRIPT,
	FRAME_WORLD,
	FRAME_JOBS,
	FRAME_LEVEL,
	FRAME_ARENAS,
};

/* Indices of the parameters, by recipe. */
enum { /* larson, churn, varsize, large */
	REPLACE_SLOTS,
	REPLACE_MIN,
	REPLACE_MAX,
	REPLACE_TOUCH,
	REPLACE_ARENAS,
	REPLACE_HANDOVER,
};
enum {
	BURST_COUNT,
	BURST_SIZE,
	BURST_MIN,
	BURST_MAX,
};
enum {
	STORM_BLOCKS,
	STORM_MIN,
	STORM_MAX,
};
enum {
	LIFETIME_RING,
	LIFETIME_MAX,
	LIFETIME_SMALL,
	LIFETIME_SMALL_COUNT,
	LIFETIME_COUNT,
};
enum {
	HANDOFF_SIZE,
	HANDOFF_MIN,
	HANDOFF_MAX,
	HANDOFF_QUEUE,
	HANDOFF_STRETCH,
};
enum {
	MESH_UNDER_WAY,
	MESH_BATCH,
	MESH_SIZE, /* the largest of four */
};
enum {
	SCRATCH_SIZE,
	SCRATCH_ROUNDS,
	SCRATCH_WRITES,
};
enum {
	WORKERS_ROUNDS,
	WORKERS_SLOTS,
	WORKERS_SIZE,
};
enum {
	GROW_VECTORS,
	GROW_FIRST,
	GROW_LAST,
	GROW_ALONE_FIRST,
	GROW_ALONE_LAST,
	GROW_TOUCH,
	GROW_ROUNDS,
};
enum {
	PAIRS_BYTES,
	PAIRS_FIRST,
	PAIRS_ROUNDS,
};
enum {
	PINNED_ROUNDS,
	PINNED_BLOCK,
	PINNED_BLOCKS,
	PINNED_SIZE,
	PINNED_KEEP,
};
enum {
	FRAMES_FRAMES,
	FRAMES_TEMPORARIES_MIN,
	FRAMES_TEMPORARIES_MAX,
	FRAMES_MIN,
	FRAMES_MAX,
	FRAMES_BIRTHS,
	FRAMES_LIFE,
	FRAMES_ENTITY_MIN,
	FRAMES_ENTITY_MAX,
	FRAMES_MESSAGES,
	FRAMES_LEVEL_FRAMES,
	FRAMES_LEVEL_BLOCKS,
	FRAMES_LEVEL_MIN,
	FRAMES_LEVEL_MAX,
	FRAMES_LEVEL_TRIM,
};
enum {
	REPLAY_PASSES,
};

struct workload_options {
	enum workload_heap heap;
	unsigned workers;
	uint64_t seed;
	uint64_t ops;	  /* of all workers; 0: the recipe's length */
	uint64_t seconds; /* 0: no bound */
	bool verify;
	bool latency;
	bool no_reset;
	bool large_pages; /* in each arena */
	bool progress;
	uint64_t limit;		/* of each arena, 0: none */
	uint64_t address_space; /* " 0: the default */
	uint64_t slowdown;	/* percent of the time that are wasted on purpose */
	const char *trace;
	uint64_t parameters[WORKLOAD_PARAMETERS];
};

/* With MODE_NOTED: what a block was filled with. */
struct note {
	uint64_t tag;
	uint64_t size;
};

/* Where blocks are kept; @notes are looked at in MODE_NOTED only. */
struct cells {
	void **blocks;
	struct note *notes;
	size_t count;
};

struct workload_checkpoint {
	uint64_t ops;
	double seconds;
	int64_t resident_bytes; /* since before the run; -1: not known */
	int64_t live_bytes;	/* as requested */
	uint64_t committed_bytes;
};

/* What MODE_TIMED knows of a worker's calls, by stage. */
struct timings {
	struct histogram all;
	struct histogram alloc[HK_STAGE_NEW_SUPERSLAB + 1];
	struct histogram free[HK_STAGE_NEW_SUPERSLAB + 1];
	struct histogram frame;
	uint64_t frame_ticks; /* of the frame at work */
};

/* One of the OS threads that take turns as one worker. */
struct relay {
	struct os_thread thread;
	bool last; /* no other follows */
};

struct run;

/**
 * struct worker - who does a part of a workload
 * @done: operations so far; stored by the worker, read by who samples.
 * @look: at this many operations the worker looks at clock and checkpoints.
 * @target: at this many it ends.
 * @random: state of its generator.
 * @live: bytes that it allocated less those that it freed, in MODE_NOTED; read by others.
 * @run: what it is part of.
 * @index: its number.
 * @touch: bytes between two that are written in a new block, beside its first and last; 0: none.
 * @front: what the allocator keeps for it in the first arena.
 * @fronts: in each arena; of recipes that replace, over and over up to the end.
 * @cells: its blocks.
 * @more: more of them.
 * @thread: the OS thread; not of worker 0, which is the caller's thread, unless @started.
 * @relay: the OS threads that take turns, where a recipe's worker is several.
 * @turn: of them, which is at work.
 * @joined: so many of them have ended, and been joined.
 * @next_checkpoint: of the worker that samples.
 * @interval: operations from one look to the next.
 * @looked_ns: when it last looked.
 * @start_ns: when its timed part began.
 * @end_ns: when it ended.
 * @paused_ns: of that, spent on sampling.
 * @sequence: blocks verified so far.
 * @timings: in MODE_TIMED.
 * @failed: allocations that gave NULL.
 * @broken: checks that failed.
 * @text: the first of either.
 */
struct worker {
	_Alignas(WORKLOAD_LINE) _Atomic uint64_t done;
	uint64_t look;
	uint64_t target;
	uint64_t random;
	_Atomic int64_t live;
	struct run *run;
	unsigned index;
	size_t touch;
	void *front;
	void *fronts[WORKLOAD_ARENAS];
	struct cells cells;
	struct cells more;
	struct os_thread thread;
	bool started;
	struct relay relay[WORKLOAD_RELAYS];
	unsigned turn;
	_Atomic unsigned joined;
	unsigned next_checkpoint;
	uint64_t interval;
	uint64_t looked_ns;
	uint64_t start_ns;
	uint64_t end_ns;
	uint64_t paused_ns;
	uint64_t sequence;
	struct timings *timings;
	uint64_t failed;
	uint64_t broken;
	char text[160];
};

/*
 * A bounded queue of blocks between two roles: cells, and on lines of their own the next to be
 * written (stored with release by the sender) and to be read (by the receiver).
 */
struct queue {
	_Alignas(WORKLOAD_LINE) _Atomic uint64_t written;
	uint64_t seen_read; /* the sender's: as it last saw it */
	_Alignas(WORKLOAD_LINE) _Atomic uint64_t read;
	uint64_t seen_written;
	struct cells cells;
	_Atomic bool closed; /* nothing more will be written */
};

/**
 * struct run - a workload at work on an allocator
 * @workload: which.
 * @options: as given.
 * @heap: the allocator.
 * @mode: how.
 * @workers: each with a thread, but for what @threads says.
 * @worker_count: their number.
 * @threads: of them, those that the runner starts; the others are the recipe's.
 * @arenas: hakmem's.
 * @arena_count: how many the recipe uses.
 * @scratch: the null allocator's block, one per worker.
 * @scratch_bytes: of each.
 * @queues: of the recipes that hand blocks over.
 * @queue_count: their number.
 * @shared: blocks that workers share.
 * @index: numbers that the recipe keeps, @index_count of them.
 * @replay: the trace, of RECIPE_REPLAY.
 * @passes: of it; settled by worker 0 at the end of each where a time is the bound.
 * @expected: operations that the recipe's own length comes to, at least nearly.
 * @targets: where given, of each worker, the operations to do; the run repeats another.
 * @positions: where given, of the worker that samples, where it does.
 * @cancelled: a worker found no cache: none begins.
 * @frame: what the main worker announces, see recipes_frames.h; @frames_done: others are done.
 * @arrived: how often a worker came to the barrier; @passed: how often all had.
 * @private_bytes: of the process, before the run; -1: not known.
 * @checkpoints: taken so far, and how many.
 * @trimmed: resident bytes are those after a trim, which the recipe does.
 * @faults: reports of the allocator.
 * @progress_ns: when the progress line was last written.
 */
struct run {
	const struct workload *workload;
	const struct workload_options *options;
	enum workload_heap heap;
	enum workload_mode mode;
	struct worker *workers;
	unsigned worker_count;
	unsigned threads;
	struct hk_arena *arenas[WORKLOAD_ARENAS];
	unsigned arena_count;
	unsigned char *scratch;
	size_t scratch_bytes;
	struct queue *queues;
	unsigned queue_count;
	struct cells shared;
	uint32_t *index;
	size_t index_count;
	struct replay replay;
	uint64_t passes;
	uint64_t expected;
	const uint64_t *targets;
	const uint64_t *positions;
	_Atomic bool cancelled;
	_Atomic uint64_t frame;
	_Atomic uint64_t frames_done;
	_Atomic uint64_t arrived;
	_Atomic uint64_t passed;
	int64_t private_bytes;
	struct workload_checkpoint checkpoints[WORKLOAD_CHECKPOINTS];
	unsigned checkpoint_count;
	atomic_uint_least64_t faults;
	uint64_t progress_ns;
	struct replay_mapping maps[512];
	unsigned map_count;
};

/* What a run on an allocator, and on none beside it, measured; -1 is what could not be. */
struct workload_result {
	uint64_t ops;
	double seconds;
	double null_seconds;
	int64_t peak_bytes;
	int64_t live_bytes; /* most at a checkpoint */
	int64_t resident_bytes;
	double fragmentation;
	int64_t page_faults;
	bool has_arena;
	uint64_t committed_bytes;
	uint64_t peak_committed_bytes;
	struct hk_counters counters;
	struct workload_checkpoint checkpoints[WORKLOAD_CHECKPOINTS];
	unsigned checkpoint_count;
	struct timings *timings; /* with latency; of all workers; the caller's */
	double ticks_per_ns;
	double timer_ns;
	uint64_t failed;
	uint64_t broken;
	uint64_t faults;
	char text[160];
};

/* table.c */
extern const struct workload workload_table[];
extern const unsigned workload_count;
const struct workload *workload_find(const char *name);
const char *workload_heap_name(enum workload_heap heap);

/* prepare.c */

/* Lays out what a recipe needs: 0, or -1 with *why. */
int workload_prepare(struct run *run, const char **why);
void workload_release(struct run *run);
/* Memory that lives until then, all of it touched; NULL: none. */
void *workload_map(struct run *run, uint64_t count, size_t each);

/* run.c */

/* Runs a workload as the options say: 0, or -1 with result->text. */
int workload_run(const struct workload *workload, const struct workload_options *options,
		 struct workload_result *result);
bool workload_is_well(const struct workload_result *result);

/*
 * For cells.h: a worker has done as much as worker->look says. Samples where a checkpoint is due;
 * false when it is to end.
 */
bool workload_look(struct worker *worker);
/* Whether the time that was asked for is over; false where none was. */
bool workload_time_is_over(const struct worker *worker);
/* Takes what checkpoints are left, at the end of the timed part. */
void workload_last_checkpoint(struct worker *worker);
/* The timed part begins, for all workers at once; and ends, for each by itself. */
void workload_start(struct worker *worker);
void workload_end(struct worker *worker);
/*
 * Writes a block over and over: slow where another worker's block shares its cache line. One copy
 * for all allocators: where this loop lies in the code changes its speed twofold.
 */
void workload_write(void *block, uint64_t writes);

/* Waits until all of the runner's threads have come here. */
void workload_meet(struct run *run);
void workload_note_failed(struct worker *worker, size_t size);

/* verify.c: a new block, and one about to be freed or resized. */
void workload_note_new(struct worker *worker, void *block, struct note *note, size_t size,
		       size_t align, bool zeroed);
void workload_note_old(struct worker *worker, const void *block, struct note *note);
void workload_note_resized(struct worker *worker, void *block, struct note *note, size_t size,
			   size_t align);

/*
 * on_*.c: what run.c and the recipes need of an allocator. A worker's part, set-up included;
 * arenas opened, 0 or -1 with *why; measured; checked, for @live blocks; closed.
 */
void workload_on_hakmem(struct worker *worker);
int workload_open_hakmem(struct run *run, const char **why);
void workload_measure_hakmem(struct run *run, struct workload_result *result);
uint64_t workload_committed_hakmem(struct run *run);
void workload_check_hakmem(struct run *run);
void workload_close_hakmem(struct run *run);
void workload_on_libc(struct worker *worker);
void workload_on_null(struct worker *worker);

/* report.c */
void workload_report(const struct workload *workload, const struct workload_options *options,
		     const struct workload_result *result, bool memory, bool as_json);
void workload_list(bool as_json);

#endif /* SAMPLES_WORKLOAD_H */
