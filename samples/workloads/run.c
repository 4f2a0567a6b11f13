/* SPDX-License-Identifier: MIT */
/*
 * Runs a workload: on the allocator, then on none. The second run does as many operations as the
 * first did; it tells what the recipe itself costs, and what it touches. A third, on none as well,
 * counts the bytes that are live at each checkpoint, so that the first need not.
 */
#include "workload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_NS 1000000u /* about so often a worker looks at clock and checkpoints */
#define PROGRESS_NS 100000000u
#define TIMER_TRIES 1000

void workload_note_failed(struct worker *worker, size_t size)
{
	if (worker->failed++ || worker->broken)
		return;
	if (size)
		snprintf(worker->text, sizeof(worker->text), "worker %u: no memory for %zu bytes",
			 worker->index, size);
	else
		snprintf(worker->text, sizeof(worker->text),
			 "worker %u: no cache, or no thread, to go on with", worker->index);
}

void workload_write(void *block, uint64_t writes)
{
	volatile unsigned char *byte = block;

	for (; writes; writes--)
		*byte = (unsigned char)writes;
}

void workload_meet(struct run *run)
{
	uint64_t here = atomic_fetch_add_explicit(&run->arrived, 1, memory_order_acq_rel);
	uint64_t gate = here / run->threads + 1;
	unsigned round = 0;

	/* release, acquire: what each did before the barrier is seen by all behind it */
	if (here + 1 == gate * run->threads) {
		atomic_store_explicit(&run->passed, gate, memory_order_release);
		return;
	}
	while (atomic_load_explicit(&run->passed, memory_order_acquire) < gate)
		os_wait(round++);
}

bool workload_time_is_over(const struct worker *worker)
{
	uint64_t seconds = worker->run->options->seconds;

	return seconds && !worker->run->targets &&
	       os_now_ns() - worker->start_ns >= seconds * 1000000000u;
}

static int64_t private_bytes(void)
{
	uint64_t now;

	return os_private(&now) ? (int64_t)now : -1;
}

static int64_t live_bytes(const struct run *run)
{
	int64_t live = 0;
	unsigned i;

	for (i = 0; i < run->worker_count; i++)
		live += atomic_load_explicit(&run->workers[i].live, memory_order_relaxed);
	return live;
}

/* The worker's own clock stands still meanwhile. */
static void take_checkpoint(struct worker *worker)
{
	struct run *run = worker->run;
	struct workload_checkpoint *at = &run->checkpoints[run->checkpoint_count++];
	uint64_t now = os_now_ns();
	int64_t bytes;

	at->ops = atomic_load_explicit(&worker->done, memory_order_relaxed);
	at->seconds = (double)(now - worker->start_ns - worker->paused_ns) * 1e-9;
	at->resident_bytes = -1;
	if (run->heap == WORKLOAD_HAKMEM)
		at->committed_bytes = workload_committed_hakmem(run);
	if (run->mode == MODE_NOTED)
		at->live_bytes = live_bytes(run);
	bytes = run->private_bytes < 0 ? -1 : private_bytes();
	if (bytes >= 0)
		at->resident_bytes = bytes > run->private_bytes ? bytes - run->private_bytes : 0;
	worker->paused_ns += os_now_ns() - now;
}

/* At how many operations the next checkpoint is due; by time, UINT64_MAX. */
static uint64_t next_checkpoint(const struct worker *worker)
{
	const struct run *run = worker->run;
	uint64_t all = worker->target < UINT64_MAX ? worker->target : run->expected;
	unsigned number;

	if (worker->index || run->checkpoint_count >= WORKLOAD_CHECKPOINTS - 1)
		return UINT64_MAX;
	number = run->checkpoint_count;
	if (run->positions)
		return run->positions[number];
	if (run->options->seconds)
		return UINT64_MAX;
	return all / WORKLOAD_CHECKPOINTS * (number + 1) +
	       all % WORKLOAD_CHECKPOINTS * (number + 1) / WORKLOAD_CHECKPOINTS;
}

static bool checkpoint_is_due(const struct worker *worker, uint64_t done, uint64_t now)
{
	const struct run *run = worker->run;
	uint64_t share = run->options->seconds * (1000000000u / WORKLOAD_CHECKPOINTS);

	if (worker->index || run->checkpoint_count >= WORKLOAD_CHECKPOINTS - 1)
		return false;
	if (run->positions || !run->options->seconds)
		return done >= next_checkpoint(worker);
	return now - worker->start_ns >= share * (run->checkpoint_count + 1);
}

static void print_progress(struct worker *worker, uint64_t done, uint64_t now)
{
	struct run *run = worker->run;
	uint64_t all = worker->target < UINT64_MAX ? worker->target : run->expected;
	uint64_t percent = all ? done * 100 / all : 0;

	if (worker->index || !run->options->progress || now - run->progress_ns < PROGRESS_NS)
		return;
	run->progress_ns = now;
	if (run->options->seconds && !run->targets)
		percent = (now - worker->start_ns) / (run->options->seconds * 10000000u);
	fprintf(stderr, "\r%s on %s: %" PRIu64 " operations, %" PRIu64 " %%   ",
		run->workload->name, workload_heap_name(run->heap), done,
		percent > 100 ? 100 : percent);
}

/* Wastes a share of the time since the last look. */
static uint64_t waste(const struct worker *worker, uint64_t now)
{
	uint64_t until = now + (now - worker->looked_ns) * worker->run->options->slowdown / 100;

	if (worker->run->heap == WORKLOAD_NULL)
		return now;
	while (now < until)
		now = os_now_ns();
	return now;
}

bool workload_look(struct worker *worker)
{
	uint64_t done = atomic_load_explicit(&worker->done, memory_order_relaxed);
	uint64_t now = waste(worker, os_now_ns()), took = now - worker->looked_ns + 1, next;

	while (checkpoint_is_due(worker, done, now))
		take_checkpoint(worker);
	print_progress(worker, done, now);
	if (done >= worker->target || workload_time_is_over(worker))
		return false;
	/* twice as far, or half as far, at a time */
	if (took < LOOK_NS / 2 && worker->interval < (uint64_t)1 << 32)
		worker->interval *= 2;
	else if (took > LOOK_NS * 2 && worker->interval > 1)
		worker->interval /= 2;
	worker->looked_ns = os_now_ns();
	next = next_checkpoint(worker);
	worker->look = done + worker->interval;
	if (worker->look > worker->target)
		worker->look = worker->target;
	if (worker->look > next)
		worker->look = next;
	return true;
}

void workload_start(struct worker *worker)
{
	struct run *run = worker->run;

	workload_meet(run);
	/* calls that filled cells are not of the recipe */
	if (worker->timings)
		memset(worker->timings, 0, sizeof(*worker->timings));
	worker->start_ns = os_now_ns();
	worker->looked_ns = worker->start_ns;
	worker->end_ns = 0;
	worker->look = 1;
	worker->interval = 1;
}

void workload_last_checkpoint(struct worker *worker)
{
	struct run *run = worker->run;
	uint64_t paused = worker->paused_ns;

	while (worker->index == 0 && run->checkpoint_count < WORKLOAD_CHECKPOINTS)
		take_checkpoint(worker);
	/* the clock has stopped already */
	worker->paused_ns = paused;
}

void workload_end(struct worker *worker)
{
	/* larson's worker has ended on another thread */
	if (!worker->end_ns)
		worker->end_ns = os_now_ns();
	workload_last_checkpoint(worker);
}

static void run_worker(void *argument)
{
	struct worker *worker = argument;

	switch (worker->run->heap) {
	case WORKLOAD_HAKMEM:
		workload_on_hakmem(worker);
		break;
	case WORKLOAD_LIBC:
		workload_on_libc(worker);
		break;
	case WORKLOAD_NULL:
		workload_on_null(worker);
		break;
	}
}

/* What one run measured of itself. */
struct measured {
	double seconds;
	int64_t peak_bytes;
	int64_t page_faults;
	uint64_t targets[1024];
};

/* All threads, from the first cache to the last free: 0, or -1 with *why. */
static int run_threads(struct run *run, const char **why)
{
	unsigned i, started;

	for (i = 1; i < run->threads; i++)
		if (os_thread_start(&run->workers[i].thread, run_worker, &run->workers[i]))
			break;
	started = i;
	if (started < run->threads) {
		/* those that run wait for all: let them find that none begins */
		atomic_store(&run->cancelled, true);
		for (i = started; i < run->threads; i++)
			atomic_fetch_add(&run->arrived, 1);
		*why = "the threads cannot be started: no memory for a stack, or too many";
	}
	run_worker(&run->workers[0]);
	for (i = 1; i < started; i++)
		os_thread_join(&run->workers[i].thread);
	return started < run->threads ? -1 : 0;
}

static void sum_up(const struct run *run, struct measured *measured)
{
	const struct worker *worker;
	unsigned i;

	measured->seconds = 0;
	for (i = 0; i < run->threads; i++) {
		double seconds;

		worker = &run->workers[i];
		seconds = (double)(worker->end_ns - worker->start_ns - worker->paused_ns) * 1e-9;
		if (seconds > measured->seconds)
			measured->seconds = seconds;
	}
	for (i = 0; i < run->worker_count; i++)
		measured->targets[i] =
			atomic_load_explicit(&run->workers[i].done, memory_order_relaxed);
}

static int run_once(struct run *run, struct measured *measured, struct workload_result *result,
		    const char **why)
{
	uint64_t before = 0, loading = 0, now = 0, peak = 0;
	int64_t faults;
	bool reset, known;
	int error;

	reset = os_reset_peak();
	known = os_resident(&before, &loading);
	run->private_bytes = private_bytes();
	faults = os_page_faults();
	if (run->heap == WORKLOAD_HAKMEM && workload_open_hakmem(run, why))
		return -1;
	error = run_threads(run, why);
	measured->page_faults = faults < 0 ? -1 : os_page_faults() - faults;
	measured->peak_bytes = -1;
	/* Without a reset the peak may be that of loading, unless it has risen since. */
	if (known && os_resident(&now, &peak) && (reset || peak > loading))
		measured->peak_bytes = peak > before ? (int64_t)(peak - before) : 0;
	if (run->heap == WORKLOAD_HAKMEM) {
		if (result)
			workload_measure_hakmem(run, result);
		if (run->options->verify && !error)
			workload_check_hakmem(run);
		workload_close_hakmem(run);
	}
	if (!error)
		sum_up(run, measured);
	return error;
}

static int open_run(struct run *run, const struct workload *workload,
		    const struct workload_options *options, enum workload_heap heap,
		    enum workload_mode mode, const char **why)
{
	memset(run, 0, sizeof(*run));
	run->workload = workload;
	run->options = options;
	run->heap = heap;
	run->mode = mode;
	return workload_prepare(run, why);
}

static void clear_progress(const struct run *run)
{
	if (run->options->progress)
		fprintf(stderr, "\r%70s\r", "");
}

/* The first run: on the allocator itself. */
static int run_real(struct run *run, struct workload_result *result, struct measured *measured,
		    uint64_t *positions, const char **why)
{
	const struct worker *worker;
	unsigned i;

	if (run_once(run, measured, result, why))
		return -1;
	clear_progress(run);
	result->seconds = measured->seconds;
	result->page_faults = measured->page_faults;
	result->peak_bytes = measured->peak_bytes;
	result->checkpoint_count = run->checkpoint_count;
	memcpy(result->checkpoints, run->checkpoints, sizeof(run->checkpoints));
	for (i = 0; i < run->checkpoint_count; i++)
		positions[i] = run->checkpoints[i].ops;
	for (i = 0; i < run->worker_count; i++) {
		worker = &run->workers[i];
		result->ops += measured->targets[i];
		result->failed += worker->failed;
		result->broken += worker->broken;
		if (!result->text[0])
			memcpy(result->text, worker->text, sizeof(result->text));
		if (!result->timings)
			continue;
		histogram_merge(&result->timings->all, &worker->timings->all);
		histogram_merge(&result->timings->frame, &worker->timings->frame);
		for (unsigned stage = 0; stage <= HK_STAGE_NEW_SUPERSLAB; stage++) {
			histogram_merge(&result->timings->alloc[stage],
					&worker->timings->alloc[stage]);
			histogram_merge(&result->timings->free[stage],
					&worker->timings->free[stage]);
		}
	}
	result->faults = atomic_load(&run->faults);
	return 0;
}

/* The same again on no allocator: its time and memory; with MODE_NOTED its live bytes. */
static int run_null(struct run *run, const struct run *real, const struct measured *measured,
		    const uint64_t *positions, enum workload_mode mode,
		    struct workload_result *result, const char **why)
{
	struct measured null;
	unsigned i;
	int error;

	error = open_run(run, real->workload, real->options, WORKLOAD_NULL, mode, why);
	if (error)
		return error;
	run->targets = measured->targets;
	run->positions = positions;
	run->passes = real->passes;
	for (i = 0; i < run->worker_count; i++)
		if (run->workers[i].target)
			run->workers[i].target = measured->targets[i];
	error = run_once(run, &null, NULL, why);
	clear_progress(run);
	if (error)
		goto out_release;
	for (i = 0; i < result->checkpoint_count; i++) {
		struct workload_checkpoint *at = &result->checkpoints[i];

		if (mode == MODE_NOTED)
			at->live_bytes = run->checkpoints[i].live_bytes;
		else if (at->resident_bytes >= 0 && run->checkpoints[i].resident_bytes >= 0)
			at->resident_bytes -= run->checkpoints[i].resident_bytes;
		if (at->resident_bytes < 0 && run->checkpoints[i].resident_bytes >= 0)
			at->resident_bytes = 0;
	}
	if (mode == MODE_NOTED)
		goto out_release;
	result->null_seconds = null.seconds;
	if (result->peak_bytes >= 0 && null.peak_bytes >= 0)
		result->peak_bytes -=
			null.peak_bytes < result->peak_bytes ? null.peak_bytes : result->peak_bytes;

out_release:
	workload_release(run);
	return error;
}

/* What a measurement of nothing shows. */
static void measure_timer(struct workload_result *result)
{
	static struct histogram empty;
	uint64_t start;
	unsigned i;

	memset(&empty, 0, sizeof(empty));
	for (i = 0; i < TIMER_TRIES; i++) {
		start = os_ticks();
		histogram_add(&empty, os_ticks() - start);
	}
	result->ticks_per_ns = os_ticks_per_ns();
	result->timer_ns = (double)histogram_percentile(&empty, 5000) / result->ticks_per_ns;
}

static void sum_up_memory(struct workload_result *result)
{
	unsigned i;

	result->live_bytes = -1;
	result->resident_bytes = -1;
	result->fragmentation = -1;
	for (i = 0; i < result->checkpoint_count; i++) {
		const struct workload_checkpoint *at = &result->checkpoints[i];

		if (at->live_bytes > result->live_bytes)
			result->live_bytes = at->live_bytes;
		result->resident_bytes = at->resident_bytes;
		if (at->live_bytes > 0 && at->resident_bytes >= 0 &&
		    (double)at->resident_bytes / (double)at->live_bytes > result->fragmentation)
			result->fragmentation = (double)at->resident_bytes / (double)at->live_bytes;
	}
}

static enum workload_mode mode_of(const struct workload_options *options)
{
	if (options->verify)
		return MODE_NOTED;
	return options->latency ? MODE_TIMED : MODE_PLAIN;
}

int workload_run(const struct workload *workload, const struct workload_options *options,
		 struct workload_result *result)
{
	uint64_t positions[WORKLOAD_CHECKPOINTS] = { 0 };
	static struct measured measured;
	static struct run real, null;
	const char *why = "there is not enough memory";
	struct timings *timings = result->timings;
	int error = -1;

	memset(result, 0, sizeof(*result));
	result->timings = timings;
	if (timings) {
		memset(timings, 0, sizeof(*timings));
		measure_timer(result);
	}
	if (open_run(&real, workload, options, options->heap, mode_of(options), &why))
		goto out;
	if (run_real(&real, result, &measured, positions, &why))
		goto out_release;
	if (!result->failed &&
	    (run_null(&null, &real, &measured, positions, MODE_PLAIN, result, &why) ||
	     run_null(&null, &real, &measured, positions, MODE_NOTED, result, &why)))
		goto out_release;
	sum_up_memory(result);
	error = 0;

out_release:
	workload_release(&real);
out:
	if (error)
		snprintf(result->text, sizeof(result->text), "%s", why);
	return error;
}

bool workload_is_well(const struct workload_result *result)
{
	return !result->failed && !result->broken && !result->faults;
}
