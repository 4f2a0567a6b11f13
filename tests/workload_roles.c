/* SPDX-License-Identifier: MIT */
/*
 * The workloads' recipes, as an allocator sees them: those in which blocks pass between workers,
 * and those of whole programs. See workload_recipes.c for the others.
 */
#define _POSIX_C_SOURCE 200809L

#include "workload_recorder.h"
#include "trace_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZES_MAX (1 << 18)

#define POINTS(...) ((const size_t[]){ __VA_ARGS__ }), 3

static size_t sizes[SIZES_MAX];

static const struct recorded *block(size_t number)
{
	return &recorder.blocks[number];
}

static unsigned maker(const struct recorded *of)
{
	return recorder.fronts[of->front].worker;
}

static unsigned freer(const struct recorded *of)
{
	return recorder.fronts[of->freed_by].worker;
}

static unsigned arena_of(const struct recorded *of)
{
	return recorder.fronts[of->front].arena;
}

/* Of worker @who, blocks are freed in the order in which they were made. */
static void expect_in_order(unsigned who)
{
	uint64_t died = 0;
	size_t i;

	for (i = 0; i < recorder.count; i++) {
		if (maker(block(i)) != who)
			continue;
		must(block(i)->died > died, "block %zu is freed before one that was made earlier",
		     i);
		died = block(i)->died;
	}
}

/* Worker 2n makes what worker 2n + 1 frees; in stretches of 64 bytes, and of 8 to 2048. */
static void expect_handoff(unsigned pairs, size_t each, size_t stretch)
{
	size_t made[4] = { 0 }, mixed = 0, i;
	unsigned who;

	for (i = 0; i < recorder.count; i++) {
		who = maker(block(i));
		must(who % 2 == 0 && freer(block(i)) == who + 1, "worker %u frees what %u made",
		     freer(block(i)), who);
		if (made[who]++ / stretch % 2 == 0)
			must(block(i)->size == 64, "a block of %zu bytes", block(i)->size);
		else
			sizes[mixed++] = block(i)->size;
	}
	for (who = 0; who < 2 * pairs; who += 2) {
		cr_assert_eq(made[who], each, "worker %u made %zu blocks", who, made[who]);
		expect_in_order(who);
	}
	cr_assert_eq(mixed, pairs * each / 2);
	expect_distribution(sizes, mixed, below_uniform, 8, 2048, POINTS(212, 1028, 1844));
}

Test(workload_roles, handoff_between_pairs, .timeout = 60)
{
	trial_begin("handoff", 2, 32768);
	trial_set("stretch", 8192);
	recorder.hold = 4096;
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(trial_ops(), 32768);
	cr_assert_eq(recorder.peak_blocks, 4096, "%zu blocks were under way", recorder.peak_blocks);
	expect_handoff(1, 32768, 8192);
	trial_end();
	trial_begin("handoff", 4, 16384);
	trial_set("stretch", 2048);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_leq(recorder.peak_blocks, 2 * 4096);
	expect_handoff(2, 8192, 2048);
	trial_end();
}

/* One worker has both roles, three have four: nobody waits for ever. */
Test(workload_roles, handoff_by_any_number, .timeout = 60)
{
	unsigned workers;

	for (workers = 1; workers <= 5; workers += 2) {
		trial_begin("handoff", workers, 9600);
		trial_set("queue", 64);
		trial_run(MODE_PLAIN);
		trial_expect_sound();
		cr_assert_geq(trial_ops(), 9600);
		cr_assert_eq(recorder.count, trial_ops());
		cr_assert_leq(recorder.peak_blocks, 64 * (workers + 1) / 2);
		trial_end();
	}
}

Test(workload_roles, mesh_of_eight, .timeout = 60)
{
	static const size_t four[] = { 48, 64, 96, 128 };
	size_t counts[4] = { 0 }, made[8] = { 0 }, freed[8] = { 0 }, i, j;

	trial_begin("mesh", 8, 60000);
	recorder.hold = 2800;
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_geq(trial_ops(), 60000);
	cr_assert_leq(trial_ops(), 60000 + 3 * 15);
	cr_assert_eq(trial_ops(), recorder.count);
	cr_assert_leq(recorder.peak_blocks, 4096);
	cr_assert_geq(recorder.peak_blocks, 2800);
	for (i = 0; i < recorder.count; i++) {
		for (j = 0; j < 4; j++)
			counts[j] += block(i)->size == four[j];
		made[maker(block(i))]++;
		freed[freer(block(i))]++;
	}
	cr_assert_eq(counts[0] + counts[1] + counts[2] + counts[3], recorder.count);
	for (j = 0; j < 4; j++) /* batches are chosen: six standard deviations */
		cr_assert_float_eq((double)counts[j], 15000, 2200, "%zu have %zu bytes", counts[j],
				   four[j]);
	for (i = 0; i < 8; i++) {
		must(i < 3 ? made[i] >= 20000 && made[i] < 20016 : made[i] == 0,
		     "worker %zu makes %zu blocks", i, made[i]);
		must(i < 5 ? freed[i] == 0 : freed[i] > 2000, "worker %zu frees %zu blocks", i,
		     freed[i]);
	}
	trial_end();
}

/*
 * How many blocks of one size come after each other, on average. A batch of 1 to 16 has one of
 * four sizes, and the next has the same with 1/4: 8.5 / (3/4).
 */
static void expect_batches(void)
{
	size_t last = 0, runs = 0, i;

	for (i = 0; i < recorder.count; i++) {
		runs += block(i)->size != last;
		last = block(i)->size;
	}
	cr_assert_float_eq((double)recorder.count / (double)runs, 8.5 * 4 / 3, 0.5);
}

Test(workload_roles, mesh_by_any_number, .timeout = 60)
{
	static const unsigned workers[] = { 1, 3, 9 };
	size_t i;

	for (i = 0; i < 3; i++) {
		trial_begin("mesh", workers[i], 30000);
		if (workers[i] > 1)
			trial_set("under-way", 512);
		trial_run(MODE_PLAIN);
		trial_expect_sound();
		cr_assert_geq(trial_ops(), 30000);
		if (workers[i] == 1)
			expect_batches();
		cr_assert_leq(recorder.peak_blocks, (workers[i] + 7) / 8 * 4096);
		if (workers[i] > 1)
			cr_assert_leq(recorder.peak_blocks, (workers[i] + 7) / 8 * 512);
		trial_end();
	}
}

/* Worker 0 gives each a block, which it frees half-way between its own, one at a time. */
Test(workload_roles, scratch_with_gifts)
{
	size_t i, own[2] = { 0 }, after[2] = { 0 };
	const struct recorded *of;

	trial_begin("scratch", 2, 0);
	trial_set("rounds", 50);
	trial_set("writes", 1000);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(trial_ops(), 2 * 2 * 50);
	cr_assert_eq(recorder.count, 2 + 2 * 2 * 50);
	for (i = 0; i < recorder.count; i++) {
		of = block(i);
		must(of->size == 8, "a block of %zu bytes", of->size);
		if (i < 2) {
			must(maker(of) == 0 && freer(of) == i, "gift %zu", i);
			continue;
		}
		must(maker(of) == freer(of), "a block passes to another worker");
		own[maker(of)]++;
		after[maker(of)] += of->born > block(maker(of))->died;
	}
	for (i = 0; i < 2; i++) {
		cr_assert_eq(own[i], 2 * 50);
		cr_assert_eq(after[i], 50);
	}
	cr_assert_leq(recorder.peak_blocks, 2 + 2);
	trial_end();
}

/* A life: a cache of its own, so many zeroed blocks, each for one that was in a shared slot. */
Test(workload_roles, workers_have_short_lives)
{
	const struct recorder_front *front;
	size_t i, j, before;

	trial_begin("workers", 10, 0);
	trial_set("rounds", 3);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(trial_ops(), 3 * 10 * 1000);
	cr_assert_eq(recorder.count, 3 * 10 * 1000);
	cr_assert_geq(recorder.peak_blocks, 1000);
	cr_assert_leq(recorder.peak_blocks, 1000 + 10);
	cr_assert_eq(recorder.front_count, 1 + 3 * 10);
	cr_assert_eq(recorder.closed, 3 * 10);
	for (i = 1; i < recorder.front_count; i++) {
		front = &recorder.fronts[i];
		/* the lives of a round before are over; of the first, the slots were empty */
		before = (i - 1) / 10 * 10;
		for (j = 1; j < i; j++)
			must(j > before || recorder.fronts[j].closed < front->opened,
			     "rounds overlap");
		for (j = 0; j < i; j++)
			must(recorder.fronts[j].thread != front->thread, "a thread comes back");
		must(front->calls <= 2000 && front->calls >= (i > 10 ? 2000 : 1000),
		     "a life of %llu calls", (unsigned long long)front->calls);
	}
	for (i = 0, before = 0; i < recorder.count; i++) {
		must(block(i)->size == 128 && block(i)->kind == RECORDED_ZALLOC,
		     "another kind of block");
		before += block(i)->freed_by == 0;
	}
	cr_assert_eq(before, 1000, "%zu were left in the slots", before);
	trial_end();
}

/* Of what is made in frame @frame of arenas 0 and 1: all of it goes at the frame's end. */
static size_t expect_temporaries(uint32_t frame)
{
	size_t i, count = 0, by_arena[2] = { 0 };
	const struct recorded *of;

	for (i = 0; i < recorder.count; i++) {
		of = block(i);
		if (arena_of(of) > 1 || of->born_frame != frame)
			continue;
		must(of->dropped != recorder.cannot_reset, "block %zu ends another way", i);
		must(of->died_frame == frame + 1, "block %zu outlives its frame", i);
		by_arena[arena_of(of)]++;
		sizes[count++] = of->size;
	}
	expect_distribution(sizes, count, below_uniform, 16, 512, POINTS(66, 264, 462));
	must(count >= 2000 && count <= 10000, "%zu temporaries", count);
	must(by_arena[0] - by_arena[1] <= 1, "arenas take turns");
	return count;
}

/* Worker 0 frees in each frame what others sent it in the frame before. */
static void expect_messages(unsigned frames)
{
	size_t i, by_frame[32] = { 0 };
	const struct recorded *of;

	for (i = 0; i < recorder.count; i++) {
		of = block(i);
		if (arena_of(of) != 3)
			continue;
		must(maker(of) == 1 && freer(of) == 0, "a message from %u to %u", maker(of),
		     freer(of));
		must(of->size >= 16 && of->size <= 512, "a message of %zu bytes", of->size);
		must(of->died_frame == frames || of->died_frame - of->born_frame <= 2,
		     "a message of frame %u is freed in %u", of->born_frame, of->died_frame);
		by_frame[0]++;
	}
	cr_assert_eq(by_frame[0], frames * 500);
}

/* A level comes after every 10th frame here, and goes at once. */
static void expect_levels(size_t levels, size_t blocks)
{
	size_t i, count = 0;
	const struct recorded *of;

	for (i = 0; i < recorder.count; i++) {
		of = block(i);
		if (arena_of(of) != 4)
			continue;
		must(of->born_frame % 10 == 0 && of->died_frame == of->born_frame,
		     "a level in frame %u", of->born_frame);
		sizes[count++] = of->size;
	}
	cr_assert_eq(count, levels * blocks);
	expect_distribution(sizes, count, below_uniform, 4096, 256 << 10,
			    POINTS(29901, 133121, 236338));
}

static void run_frames(bool cannot_reset, bool no_reset)
{
	size_t temporaries = 0, least = SIZE_MAX, most = 0, count;
	uint32_t frame;

	trial_begin("frames", 2, 0);
	trial_set("frames", 20);
	trial_set("level-frames", 10);
	trial_set("level-blocks", 400);
	trial.options.no_reset = no_reset;
	recorder.cannot_reset = cannot_reset;
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	cr_assert_eq(recorder.front_count, 2 * 5);
	cr_assert_eq(recorder.closed, 0);
	cr_assert_eq(recorder.trims, 3 + 1, "a part a frame, until the run ends");
	if (no_reset) {
		cr_assert_eq(recorder.resets[0], 0);
		cr_assert_eq(recorder.frees, recorder.count);
		trial_end();
		return;
	}
	cr_assert_eq(recorder.resets[0], 20);
	cr_assert_eq(recorder.resets[1], 20);
	cr_assert_eq(recorder.resets[2], 0);
	cr_assert_eq(recorder.resets[3], 0);
	cr_assert_eq(recorder.resets[4], 2);
	for (frame = 0; frame < 20; frame++) {
		count = cannot_reset ? 0 : expect_temporaries(frame);
		temporaries += count;
		least = count < least ? count : least;
		most = count > most ? count : most;
	}
	expect_messages(20);
	expect_levels(2, 400);
	if (cannot_reset) {
		cr_assert_eq(recorder.frees, recorder.count);
	} else {
		/* of 20 of 2000 to 10,000: those at the ends, the mean to a quarter */
		cr_assert_lt(least, 3600);
		cr_assert_gt(most, 8400);
		cr_assert_float_eq((double)temporaries / 20, 6000, 1500);
		cr_assert_eq(trial_ops(), temporaries + 20 * (500 + 200) + 2 * 400);
		cr_assert_eq(recorder.frees, 20 * (500 + 200));
	}
	trial_end();
}

Test(workload_roles, frames_use_five_arenas, .timeout = 60)
{
	run_frames(false, false);
	run_frames(true, false);
	run_frames(false, true);
}

/* 20 entities are born in each frame; each lives for 1 to 599 frames. */
Test(workload_roles, entities_live_for_300_frames)
{
	size_t i, count = 0, entities = 0;
	const struct recorded *of;

	trial_begin("frames", 1, 0);
	trial_set("frames", 1300);
	trial_set("births", 20);
	trial_set("messages", 0);
	trial_set("temporaries-min", 0);
	trial_set("temporaries-max", 1);
	trial_set("level-blocks", 0);
	trial_run(MODE_PLAIN);
	trial_expect_sound();
	for (i = 0; i < recorder.count; i++) {
		of = block(i);
		if (arena_of(of) != 2)
			continue;
		must(of->size >= 64 && of->size <= 1024, "an entity of %zu bytes", of->size);
		must(!of->dropped, "an entity dies of a reset");
		entities++;
		if (of->born_frame <= 700)
			sizes[count++] = of->died_frame - of->born_frame;
	}
	cr_assert_eq(entities, 1300 * 20);
	cr_assert_eq(count, 700 * 20);
	expect_distribution(sizes, count, below_uniform, 1, 599, POINTS(61, 300, 540));
	/* as many die: once all ages are there, 300 frames' births are alive */
	cr_assert_lt(recorder.peak_blocks, 20 * 300 * 11 / 10);
	cr_assert_gt(recorder.peak_blocks, 20 * 300 * 9 / 10);
	trial_end();
}

static char trace_path[512];

static void write_trace(const struct file *file)
{
	const char *folder = getenv("TMPDIR");
	int fd;

	snprintf(trace_path, sizeof(trace_path), "%.400s/hakmem-trace-XXXXXX",
		 folder ? folder : "/tmp");
	fd = mkstemp(trace_path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, file->bytes, file->size), (ssize_t)file->size);
	close(fd);
}

static void begin_replay(struct file file, unsigned workers, uint64_t passes)
{
	end(&file);
	write_trace(&file);
	trial_begin("replay", workers, 0);
	trial.options.trace = trace_path;
	trial_set("passes", passes);
	trial_run(MODE_PLAIN);
	remove(trace_path);
	trial_expect_sound();
}

static void expect_made(size_t number, enum recorded_kind kind, size_t size, size_t align,
			unsigned front, unsigned freed_by)
{
	const struct recorded *of = block(number);

	must(of->kind == kind && of->size == size && of->align == align,
	     "block %zu of %zu bytes, aligned to %u", number, of->size, of->align);
	must(of->front == front && of->freed_by == freed_by, "block %zu: %u made, %u freed it",
	     number, of->front, of->freed_by);
}

/* Each event through the cache of its thread, which is one for each thread of the trace. */
Test(workload_roles, replay_does_each_event)
{
	size_t i;

	begin_replay(each_operation(), 1, 2);
	cr_assert_eq(recorder.front_count, 3);
	cr_assert_eq(trial_ops(), 2 * 9);
	cr_assert_eq(recorder.count, 2 * 5);
	for (i = 0; i < 10; i += 5) {
		expect_made(i, RECORDED_ALLOC, 100, 16, 0, 0);
		expect_made(i + 1, RECORDED_ZALLOC, 300, 16, 2, 0);
		expect_made(i + 2, RECORDED_ALIGNED, 5000, 256, 2, 2);
		expect_made(i + 3, RECORDED_RESIZE, 40, 16, 0, 0);
		expect_made(i + 4, RECORDED_ALLOC, 0, 16, 2, 2);
		cr_assert_eq(block(i + 3)->from, i + 2);
		cr_assert_eq(block(i + 2)->inner, 1, "each page is written");
	}
	/* what is left after a pass is freed before the next */
	cr_assert_lt(block(4)->died, block(5)->born);
	cr_assert_eq(recorder.peak_blocks, 4, "of a resize both are there");
	trial_end();
}

/* Blocks that go round three threads: in the recorded order, on as many workers, or on two. */
Test(workload_roles, replay_on_workers, .timeout = 60)
{
	unsigned workers, slot, i;
	struct file file;
	const struct recorded *of;

	for (workers = 1; workers <= 4; workers++) {
		file = begin(1, 3);
		for (i = 0; i < 300; i++) {
			put_block(&file, i % 3, TRACE_ALLOC, 0, i + 1);
			put_block(&file, (i + 1) % 3, TRACE_FREE, 0, 0);
		}
		put_block(&file, 2, TRACE_ALLOC, 0, 500);
		begin_replay(file, workers, 2);
		cr_assert_eq(trial.run.worker_count, workers < 3 ? workers : 3);
		cr_assert_eq(recorder.front_count, 3);
		cr_assert_eq(recorder.count, 2 * 301);
		cr_assert_eq(recorder.peak_blocks, 1);
		for (slot = 0; slot < 301; slot++) {
			of = block(slot);
			must(of->size == (slot < 300 ? slot + 1 : 500), "event %u", slot);
			/* a cache is that of its trace's thread, opened by who does its events */
			must(recorder.fronts[of->front].thread == of->thread, "event %u", slot);
			if (slot >= 3 && slot < 300)
				must(of->front == block(slot - 3)->front, "event %u", slot);
		}
		trial_end();
	}
}
