/* SPDX-License-Identifier: MIT */
/*
 * Runs a loaded trace, pass after pass. The first worker is the caller's thread; the others are
 * OS threads that live through all passes, so that an allocator which keeps something per
 * thread keeps it. Between passes they wait, and the first worker frees what is still live.
 */
#include "replay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 65536u /* events between two looks at the clock for the progress line */
#define PROGRESS_NS 100000000u

uint32_t replay_event_number(const struct replay_worker *worker, const struct replay_event *event)
{
	const struct replay *replay = worker->replay;

	if (event < replay->events || event >= replay->events + replay->event_count)
		return UINT32_MAX;
	if (!replay->numbers)
		return (uint32_t)(event - replay->events);
	return replay->numbers[event - replay->events];
}

void replay_note_failed(struct replay_worker *worker, const struct replay_event *event, size_t size)
{
	if (worker->failed++ || worker->broken)
		return;
	snprintf(worker->text, sizeof(worker->text),
		 "event %" PRIu32 ", slot %" PRIu32 ": no memory for %zu bytes",
		 replay_event_number(worker, event), event->slot, size);
}

static void run_events(struct replay_worker *worker, const struct replay_event *event,
		       const struct replay_event *end)
{
	switch (worker->replay->options.heap) {
	case REPLAY_HAKMEM:
		heap_hakmem_run(worker, event, end);
		break;
	case REPLAY_LIBC:
		heap_libc_run(worker, event, end);
		break;
	case REPLAY_NULL:
		heap_null_run(worker, event, end);
		break;
	}
}

static int open_heap(struct replay *replay, const char **why)
{
	switch (replay->options.heap) {
	case REPLAY_HAKMEM:
		return heap_hakmem_open(replay, why);
	case REPLAY_LIBC:
		return heap_libc_open(replay, why);
	case REPLAY_NULL:
		return heap_null_open(replay, why);
	}
	return -1;
}

static void print_progress(struct replay *replay)
{
	uint64_t now = os_now_ns();
	uint64_t done = 0;
	unsigned i;

	if (now - replay->progress_ns < PROGRESS_NS)
		return;
	replay->progress_ns = now;
	for (i = 0; i < replay->worker_count; i++)
		done += atomic_load_explicit(&replay->workers[i].reported, memory_order_relaxed);
	fprintf(stderr,
		"\rpass %" PRIu64 " of %" PRIu64 ": %" PRIu64 " of %" PRIu32 " events, %" PRIu64
		" %%  ",
		(uint64_t)atomic_load_explicit(&replay->pass, memory_order_relaxed),
		replay->options.repeat, done, replay->event_count,
		done * 100 / replay->event_count);
}

static void run_worker(struct replay_worker *worker)
{
	struct replay *replay = worker->replay;
	uint32_t begin;
	uint32_t end;

	for (begin = 0; begin < worker->count; begin = end) {
		end = worker->count - begin > CHUNK ? begin + CHUNK : worker->count;
		run_events(worker, worker->events + begin, worker->events + end);
		atomic_store_explicit(&worker->reported, end, memory_order_relaxed);
		if (replay->options.progress && worker->index == 0)
			print_progress(replay);
	}
	worker->end_ns = os_now_ns();
}

static void thread_main(void *argument)
{
	struct replay_worker *worker = argument;
	struct replay *replay = worker->replay;
	unsigned round;
	uint64_t pass;

	for (pass = 1;; pass++) {
		round = 0;
		while (atomic_load_explicit(&replay->pass, memory_order_acquire) < pass)
			os_wait(round++);
		if (replay->stop)
			return;
		run_worker(worker);
		atomic_fetch_add_explicit(&replay->finished, 1, memory_order_release);
	}
}

static void stop_threads(struct replay *replay)
{
	unsigned i;

	replay->stop = true;
	atomic_fetch_add_explicit(&replay->pass, 1, memory_order_release);
	for (i = 1; i < replay->worker_count; i++)
		if (replay->workers[i].started)
			os_thread_join(&replay->workers[i].thread);
}

static int start_threads(struct replay *replay)
{
	struct replay_worker *worker;
	unsigned i;

	for (i = 1; i < replay->worker_count; i++) {
		worker = &replay->workers[i];
		if (os_thread_start(&worker->thread, thread_main, worker)) {
			stop_threads(replay);
			return -1;
		}
		worker->started = true;
	}
	return 0;
}

/* One pass on all workers; its time in seconds. */
static double run_pass(struct replay *replay, uint64_t *start_ns)
{
	unsigned round = 0;
	uint64_t end_ns;
	unsigned i;

	atomic_store_explicit(&replay->finished, 0, memory_order_relaxed);
	for (i = 0; i < replay->worker_count; i++) {
		atomic_store_explicit(&replay->workers[i].done, 0, memory_order_relaxed);
		atomic_store_explicit(&replay->workers[i].reported, 0, memory_order_relaxed);
	}
	*start_ns = os_now_ns();
	/* The others start: pairs with the acquire in thread_main(). */
	atomic_fetch_add_explicit(&replay->pass, 1, memory_order_release);
	run_worker(&replay->workers[0]);
	while (atomic_load_explicit(&replay->finished, memory_order_acquire) <
	       replay->worker_count - 1) {
		os_wait(round++);
		if (replay->options.progress)
			print_progress(replay);
	}
	end_ns = *start_ns;
	for (i = 0; i < replay->worker_count; i++)
		if (replay->workers[i].end_ns > end_ns)
			end_ns = replay->workers[i].end_ns;
	return (double)(end_ns - *start_ns) * 1e-9;
}

static int compare_seconds(const void *a, const void *b)
{
	const double *x = a;
	const double *y = b;

	return (*x > *y) - (*x < *y);
}

static double median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare_seconds);
	if (count % 2)
		return values[count / 2];
	return (values[count / 2 - 1] + values[count / 2]) / 2;
}

static uint64_t count_failed(const struct replay *replay)
{
	uint64_t failed = 0;
	unsigned i;

	for (i = 0; i < replay->worker_count; i++)
		failed += replay->workers[i].failed;
	return failed;
}

/* With verify: what the arena says of itself, while nothing runs on it. */
static void check_heap(struct replay *replay, struct replay_result *result, uint64_t live)
{
	if (replay->options.heap != REPLAY_HAKMEM || !replay->options.verify)
		return;
	/* After a failed allocation less is live than the trace says. */
	if (count_failed(replay) == 0)
		heap_hakmem_check(replay, result, live);
}

/* Bytes that the process has committed, -1 where the system does not count them. */
static int64_t committed(void)
{
	uint64_t now;

	return os_committed(&now) ? (int64_t)now : -1;
}

static int64_t committed_since(int64_t before)
{
	int64_t now = committed();

	return now > before ? now - before : 0;
}

/* @committed_before: what the process had committed before the heap was opened. */
static void run_passes(struct replay *replay, struct replay_result *result, double *seconds,
		       int64_t committed_before)
{
	bool is_hakmem = replay->options.heap == REPLAY_HAKMEM;
	int64_t faults = os_page_faults();
	uint64_t pass;

	result->page_faults = -1;
	result->process_committed_bytes = -1;
	for (pass = 0; pass < replay->options.repeat; pass++) {
		seconds[pass] = run_pass(replay, &result->pass_start_ns);
		result->total_seconds += seconds[pass];
		if (pass == 0 && faults >= 0)
			result->page_faults = os_page_faults() - faults;
		if (pass == 0 && committed_before >= 0)
			result->process_committed_bytes = committed_since(committed_before);
		if (is_hakmem && (pass == 0 || pass == replay->options.repeat - 1))
			heap_hakmem_measure(replay, result, pass == 0);
		check_heap(replay, result, replay->leftover_count);
		run_events(&replay->workers[0], replay->leftovers,
			   replay->leftovers + replay->leftover_count);
		check_heap(replay, result, 0);
	}
	if (replay->options.progress)
		fprintf(stderr, "\r%70s\r", "");
}

static void sum_up(struct replay *replay, struct replay_result *result, double *seconds)
{
	const struct replay_worker *worker;
	unsigned i;

	result->first_seconds = seconds[0];
	result->seconds = seconds[0];
	if (replay->options.repeat > 1)
		result->seconds = median(seconds + 1, (size_t)replay->options.repeat - 1);
	for (i = 0; i < replay->worker_count; i++) {
		worker = &replay->workers[i];
		result->failed += worker->failed;
		result->broken += worker->broken;
		if (!result->text[0])
			memcpy(result->text, worker->text, sizeof(result->text));
	}
	result->faults = atomic_load(&replay->faults);
}

int replay_run(struct replay *replay, struct replay_result *result)
{
	const char *why = "the threads cannot be started: no memory for a stack, or too many";
	uint64_t loading = 0;
	uint64_t before = 0;
	uint64_t peak = 0;
	uint64_t now = 0;
	int64_t committed_before;
	double *seconds;
	bool measured;
	bool reset;

	memset(result, 0, sizeof(*result));
	result->peak_bytes = -1;
	seconds = replay_map(replay, replay->options.repeat, sizeof(*seconds));
	if (!seconds) {
		why = "there is not enough memory";
		goto out_failed;
	}
	/* Resident before the first pass. */
	memset(seconds, 0, (size_t)replay->options.repeat * sizeof(*seconds));
	if (start_threads(replay))
		goto out_failed;
	reset = os_reset_peak();
	measured = os_resident(&before, &loading);
	committed_before = committed();
	if (open_heap(replay, &why)) {
		stop_threads(replay);
		goto out_failed;
	}
	run_passes(replay, result, seconds, committed_before);
	/* Without a reset the peak may be that of loading, unless it has risen since. */
	measured = measured && os_resident(&now, &peak) && (reset || peak > loading);
	if (measured)
		result->peak_bytes = peak > before ? (int64_t)(peak - before) : 0;
	stop_threads(replay);
	if (replay->options.heap == REPLAY_HAKMEM)
		heap_hakmem_close(replay);
	sum_up(replay, result, seconds);
	return 0;

out_failed:
	snprintf(result->text, sizeof(result->text), "%s", why);
	return -1;
}

bool replay_is_well(const struct replay_result *result)
{
	return !result->failed && !result->broken && !result->faults;
}
