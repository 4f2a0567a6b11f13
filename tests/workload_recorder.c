/* SPDX-License-Identifier: MIT */
/* The recording allocator, with the recipes over it, and trials; see workload_recorder.h. */
#include "workload_recorder.h"

#include <samples/os.h>

#include <string.h>

enum {
	HEAP_ALIGNMENT = 16,
	PAGE = 4096,
	INNER_MAX = 15,
	BIG_LIVE_MAX = 512,
	FRONTS_MAX = 4096,
	BLOCKS_MAX = 1 << 20,
};

/* Blocks of this size have a mapping of their own, and are moved by their ends alone. */
#define BIG ((size_t)1 << 20)
#define SPACE_BYTES ((size_t)1 << 30)
#define INDEX_BYTES (SPACE_BYTES / HEAP_ALIGNMENT * sizeof(uint32_t))
#define HOLD_NS 20000000000u
#define LINGER_NS 10000000u

struct recorder recorder;
struct trial trial;

/* The rest of blocks: one after the other, never again where one was. */
static struct {
	unsigned char *space;
	size_t used;
	uint32_t *index; /* by address: the block's number plus one */
	uint32_t big[BIG_LIVE_MAX];
	size_t big_count;
	size_t reset_from[WORKLOAD_ARENAS];
	atomic_flag lock;
	atomic_uint threads;
} store = { .lock = ATOMIC_FLAG_INIT };

static _Thread_local unsigned thread_number;

static void lock(void)
{
	unsigned round = 0;

	while (atomic_flag_test_and_set_explicit(&store.lock, memory_order_acquire))
		os_wait(round++);
}

static void unlock(void)
{
	atomic_flag_clear_explicit(&store.lock, memory_order_release);
}

static unsigned this_thread(void)
{
	if (!thread_number)
		thread_number = atomic_fetch_add(&store.threads, 1) + 1;
	return thread_number;
}

static void use_front(struct recorder_front *front)
{
	front->calls++;
	recorder.wrong += front->closed != 0;
}

static bool strikes(enum recorder_bug bug, bool can)
{
	if (recorder.bug != bug || recorder.struck || recorder.asked < recorder.bug_at || !can)
		return false;
	recorder.struck = true;
	return true;
}

/*
 * The block that was made last, if it is live and not too large to be in the space; and if it is of
 * the same worker, which has filled it.
 */
static struct recorded *latest(const struct recorder_front *front)
{
	struct recorded *last = recorder.count ? &recorder.blocks[recorder.count - 1] : NULL;

	if (!last || last->died || !last->size || last->size >= BIG)
		return NULL;
	return recorder.fronts[last->front].worker == front->worker ? last : NULL;
}

static unsigned char *place(const struct recorder_front *front, size_t size, size_t align)
{
	struct recorded *last = latest(front);
	unsigned char *block;

	if (size >= BIG)
		return align <= PAGE ? os_map(size) : NULL;
	if (strikes(RECORDER_SAME_BLOCK, last && last->size >= size))
		return last->block;
	if (strikes(RECORDER_SCRIBBLE, last))
		last->block[last->size - 1] ^= 0x40;
	store.used = (store.used + align - 1) / align * align;
	if (strikes(RECORDER_OVERLAP, last && size && last->size % HEAP_ALIGNMENT == 1))
		store.used = (size_t)(last->block - store.space) + last->size - 1;
	if (strikes(RECORDER_MISALIGNED, true))
		store.used += align / 2;
	if (store.used + size + HEAP_ALIGNMENT > SPACE_BYTES)
		return NULL;
	block = store.space + store.used;
	store.used += size ? size : 1;
	return block;
}

static void note_place(unsigned char *block, size_t size, uint32_t number)
{
	if (size < BIG)
		store.index[(size_t)(block - store.space) / HEAP_ALIGNMENT] = number + 1;
	else if (store.big_count < BIG_LIVE_MAX)
		store.big[store.big_count++] = number;
	else
		recorder.wrong++;
}

/* A live block by its address, or NULL. */
static struct recorded *find(const unsigned char *block)
{
	struct recorded *found = NULL;
	uint32_t number;
	size_t i;

	if (block >= store.space && block < store.space + SPACE_BYTES) {
		number = store.index[(size_t)(block - store.space) / HEAP_ALIGNMENT];
		found = number ? &recorder.blocks[number - 1] : NULL;
		return found && found->block == block && !found->died ? found : NULL;
	}
	for (i = 0; i < store.big_count; i++)
		if (recorder.blocks[store.big[i]].block == block)
			return &recorder.blocks[store.big[i]];
	return NULL;
}

static uint32_t number_of(const struct recorded *block)
{
	return (uint32_t)(block - recorder.blocks);
}

static uint32_t front_number(const void *front)
{
	return (uint32_t)((const struct recorder_front *)front - recorder.fronts);
}

/* With the lock held. */
static unsigned char *make(void *front, size_t size, size_t align, enum recorded_kind kind)
{
	struct recorded *made = &recorder.blocks[recorder.count];
	unsigned char *block;

	use_front(front);
	recorder.asked++;
	if (recorder.asked >= recorder.refuse_from && recorder.asked < recorder.refuse_to)
		return NULL;
	block = recorder.count < BLOCKS_MAX ? place(front, size, align) : NULL;
	if (!block)
		return NULL;
	note_place(block, size, (uint32_t)recorder.count);
	recorder.count++;
	made->block = block;
	made->size = size;
	made->born = ++recorder.events;
	made->kind = kind;
	made->align = (uint32_t)align;
	made->front = front_number(front);
	made->thread = this_thread();
	made->born_frame = (uint32_t)recorder.resets[0];
	recorder.live_blocks++;
	recorder.live_bytes += size;
	if (recorder.live_blocks > recorder.peak_blocks)
		recorder.peak_blocks = recorder.live_blocks;
	if (recorder.live_bytes > recorder.peak_bytes)
		recorder.peak_bytes = recorder.live_bytes;
	return block;
}

static void look_at_bytes(struct recorded *block)
{
	size_t i, at;

	block->written = !block->size || (block->block[0] && block->block[block->size - 1]);
	for (i = 1, at = PAGE; i <= INNER_MAX && at + 1 < block->size; i++, at += PAGE)
		block->inner = (uint8_t)(block->inner + (block->block[at] != 0));
}

/* With the lock held. */
static void unmake(struct recorded *block, uint32_t front)
{
	size_t i;

	look_at_bytes(block);
	block->died = ++recorder.events;
	block->freed_by = front;
	block->died_frame = (uint32_t)recorder.resets[0];
	recorder.live_blocks--;
	recorder.live_bytes -= block->size;
	if (block->size < BIG)
		return;
	for (i = 0; store.big[i] != number_of(block); i++)
		;
	store.big[i] = store.big[--store.big_count];
	os_unmap(block->block, block->size);
}

static void *alloc(void *front, size_t size, size_t align, enum recorded_kind kind)
{
	unsigned char *block;

	lock();
	block = make(front, size, align, kind);
	if (block && strikes(RECORDER_DIRTY, kind == RECORDED_ZALLOC && size))
		block[size - 1] = 1;
	unlock();
	return block;
}

static inline void *heap_alloc(void *front, size_t size)
{
	return alloc(front, size, HEAP_ALIGNMENT, RECORDED_ALLOC);
}

/* What nobody had before is zero. */
static inline void *heap_zalloc(void *front, size_t size)
{
	return alloc(front, size, HEAP_ALIGNMENT, RECORDED_ZALLOC);
}

static inline void *heap_aligned(void *front, size_t size, size_t align)
{
	return alloc(front, size, align, RECORDED_ALIGNED);
}

static void move(unsigned char *to, const unsigned char *from, size_t size)
{
	size_t end = size < BIG / 2 ? size : PAGE;

	memcpy(to, from, end);
	memcpy(to + size - end, from + size - end, end);
}

static inline void *heap_realloc(void *front, void *block, size_t size)
{
	struct recorded *old;
	unsigned char *to;
	uint32_t number;
	size_t kept;

	lock();
	number = (uint32_t)recorder.count;
	to = make(front, size, HEAP_ALIGNMENT, RECORDED_RESIZE);
	old = to && block ? find(block) : NULL;
	recorder.wrong += to && block && !old;
	if (old) {
		kept = old->size < size ? old->size : size;
		move(to, block, kept);
		if (strikes(RECORDER_LOST, kept > 0))
			to[kept - 1] ^= 1;
		old->into = number + 1;
		recorder.blocks[number].from = number_of(old) + 1;
		unmake(old, front_number(front));
	}
	unlock();
	return to;
}

/* Frees wait until nothing more can be allocated, so that it shows how much can. */
static void hold_on(void)
{
	uint64_t start = os_now_ns();
	bool reached;

	do {
		os_wait(1000);
		lock();
		reached = recorder.peak_blocks >= recorder.hold;
		unlock();
	} while (!reached && os_now_ns() - start < HOLD_NS);
	for (start = os_now_ns(); os_now_ns() - start < LINGER_NS;)
		os_wait(1000);
}

static inline void heap_free(void *front, void *block)
{
	struct recorded *old;
	bool held;

	lock();
	held = recorder.hold && block;
	unlock();
	if (held)
		hold_on();
	lock();
	if (held)
		recorder.hold = 0;
	use_front(front);
	if (block) {
		old = find(block);
		recorder.frees++;
		recorder.wrong += !old;
		if (old)
			unmake(old, front_number(front));
	} else {
		recorder.null_frees++;
	}
	unlock();
}

static void *front_open(struct worker *worker, unsigned arena)
{
	struct recorder_front *front = NULL;

	lock();
	if (recorder.front_count + 1 == recorder.refuse_front) {
		recorder.refuse_front = 0;
	} else if (recorder.front_count < FRONTS_MAX) {
		front = &recorder.fronts[recorder.front_count++];
		front->arena = arena;
		front->worker = worker->index;
		front->thread = this_thread();
		front->opened = ++recorder.events;
	}
	unlock();
	return front;
}

static void front_close(struct worker *worker, void *front)
{
	struct recorder_front *closing = front;

	(void)worker;
	lock();
	recorder.wrong += closing->closed != 0 || closing->thread != this_thread();
	closing->closed = ++recorder.events;
	recorder.closed++;
	unlock();
}

static bool heap_reset(struct run *run, unsigned arena)
{
	size_t i;

	(void)run;
	lock();
	recorder.resets[arena]++;
	recorder.events++;
	for (i = store.reset_from[arena]; !recorder.cannot_reset && i < recorder.count; i++) {
		struct recorded *block = &recorder.blocks[i];

		if (block->died || recorder.fronts[block->front].arena != arena)
			continue;
		block->dropped = true;
		unmake(block, block->front);
	}
	store.reset_from[arena] = recorder.count;
	unlock();
	return !recorder.cannot_reset;
}

static void heap_trim(struct run *run, unsigned arena)
{
	(void)arena;
	(void)run;
	lock();
	recorder.events++;
	if (recorder.trims < RECORDER_TRIMS)
		recorder.trimmed[recorder.trims] = recorder.events;
	recorder.trims++;
	unlock();
}

/* In three parts. */
static bool heap_trim_some(struct run *run, unsigned arena)
{
	heap_trim(run, arena);
	return recorder.trims % 3 != 0;
}

static inline int heap_stage(void *front)
{
	(void)front;
	return -1;
}

#include <samples/workloads/recipes.h>

static void run_worker(void *argument)
{
	whole_run_in_its_mode(argument);
}

void trial_begin(const char *name, unsigned workers, uint64_t ops)
{
	unsigned i;

	memset(&recorder, 0, sizeof(recorder));
	memset(&trial, 0, sizeof(trial));
	trial.run.workload = workload_find(name);
	cr_assert_not_null(trial.run.workload, "no workload %s", name);
	trial.options.heap = WORKLOAD_LIBC;
	trial.options.workers = workers;
	trial.options.seed = 1;
	trial.options.ops = ops;
	for (i = 0; i < WORKLOAD_PARAMETERS; i++)
		trial.options.parameters[i] = trial.run.workload->parameters[i].value;
}

void trial_set(const char *parameter, uint64_t value)
{
	const struct workload_parameter *parameters = trial.run.workload->parameters;
	unsigned i;

	for (i = 0; i < WORKLOAD_PARAMETERS && parameters[i].name; i++) {
		if (strcmp(parameters[i].name, parameter) == 0) {
			must(value >= parameters[i].min && value <= parameters[i].max,
			     "--%s cannot be so", parameter);
			trial.options.parameters[i] = value;
			return;
		}
	}
	cr_assert_fail("%s has no --%s", trial.run.workload->name, parameter);
}

static void open_recorder(void)
{
	store.space = os_map(SPACE_BYTES);
	store.used = 0;
	store.index = os_map(INDEX_BYTES);
	store.big_count = 0;
	memset(store.reset_from, 0, sizeof(store.reset_from));
	recorder.blocks = os_map(BLOCKS_MAX * sizeof(*recorder.blocks));
	recorder.fronts = os_map(FRONTS_MAX * sizeof(*recorder.fronts));
	must(store.space && store.index && recorder.blocks && recorder.fronts, "no memory");
}

void trial_run(enum workload_mode mode)
{
	struct run *run = &trial.run;
	const char *why = "";
	unsigned i;

	open_recorder();
	run->options = &trial.options;
	run->heap = trial.options.heap;
	run->mode = mode;
	run->private_bytes = -1;
	cr_assert_eq(workload_prepare(run, &why), 0, "%s", why);
	for (i = 1; i < run->threads; i++)
		must(os_thread_start(&run->workers[i].thread, run_worker, &run->workers[i]) == 0,
		     "no thread");
	run_worker(&run->workers[0]);
	for (i = 1; i < run->threads; i++)
		os_thread_join(&run->workers[i].thread);
}

void trial_end(void)
{
	workload_release(&trial.run);
	while (store.big_count) {
		store.big_count--;
		os_unmap(recorder.blocks[store.big[store.big_count]].block,
			 recorder.blocks[store.big[store.big_count]].size);
	}
	os_unmap(store.space, SPACE_BYTES);
	os_unmap(store.index, INDEX_BYTES);
	os_unmap(recorder.blocks, BLOCKS_MAX * sizeof(*recorder.blocks));
	os_unmap(recorder.fronts, FRONTS_MAX * sizeof(*recorder.fronts));
}

uint64_t trial_ops(void)
{
	uint64_t ops = 0;
	unsigned i;

	for (i = 0; i < trial.run.worker_count; i++)
		ops += trial.run.workers[i].done;
	return ops;
}

uint64_t trial_failed(void)
{
	uint64_t failed = 0;
	unsigned i;

	for (i = 0; i < trial.run.worker_count; i++)
		failed += trial.run.workers[i].failed;
	return failed;
}

uint64_t trial_broken(void)
{
	uint64_t broken = 0;
	unsigned i;

	for (i = 0; i < trial.run.worker_count; i++)
		broken += trial.run.workers[i].broken;
	return broken;
}

int64_t trial_live(void)
{
	int64_t live = 0;
	unsigned i;

	for (i = 0; i < trial.run.worker_count; i++)
		live += trial.run.workers[i].live;
	return live;
}

const char *trial_text(void)
{
	unsigned i;

	for (i = 0; i < trial.run.worker_count; i++)
		if (trial.run.workers[i].text[0])
			return trial.run.workers[i].text;
	return "";
}

void trial_expect_sound(void)
{
	const char *name = trial.run.workload->name;
	size_t i;

	must(trial_failed() == 0 && trial_broken() == 0, "%s: %s", name, trial_text());
	must(recorder.wrong == 0, "%s: %zu times a block or a cache was not what it should be",
	     name, recorder.wrong);
	must(recorder.live_blocks == 0, "%s: %zu blocks are left", name, recorder.live_blocks);
	must(trial_live() == 0, "%s: %lld bytes are counted that are not there", name,
	     (long long)trial_live());
	for (i = 0; i < recorder.count && trial.run.mode == MODE_PLAIN; i++)
		must(recorder.blocks[i].written, "%s: block %zu of %zu bytes was not written", name,
		     i, recorder.blocks[i].size);
}
