/* SPDX-License-Identifier: MIT */
/*
 * The workloads with --verify, on an allocator that is broken on purpose, and on a sound one; and
 * on one that has no memory.
 */
#include "workload_recorder.h"

#include <string.h>

/* A trial small enough for blocks that are filled whole; the recipe's shape stays. */
static const struct {
	const char *name;
	unsigned workers;
	uint64_t ops;
	const char *parameters[4];
	uint64_t values[4];
} small[] = {
	{ "larson", 2, 6000, { "slots", "handover" }, { 200, 1000 } },
	{ "larson-wide", 1, 6000, { "slots", "handover" }, { 200, 1000 } },
	{ "churn", 1, 5000, { "slots" }, { 500 } },
	{ "burst", 1, 2000, { "count", "size" }, { 100, 20 } },
	{ "storm", 1, 1000, { "blocks" }, { 500 } },
	{ "lifetime", 1, 6000, { "ring" }, { 500 } },
	{ "varsize", 1, 500, { "slots", "max-size" }, { 100, 1 << 16 } },
	{ "handoff", 2, 5000, { "queue", "stretch" }, { 64, 500 } },
	{ "mesh", 8, 8000, { "under-way" }, { 512 } },
	{ "scratch", 2, 0, { "rounds" }, { 100 } },
	{ "workers", 4, 0, { "rounds", "slots" }, { 4, 100 } },
	{ "large", 1, 10, { "slots", "min-size", "max-size" }, { 3, 3 << 20, 5 << 20 } },
	{ "grow",
	  1,
	  0,
	  { "vectors", "last", "alone-first", "rounds" },
	  { 10, 1 << 16, 1 << 20, 2 } },
	{ "pairs", 1, 0, { "bytes", "rounds" }, { 1 << 20, 2 } },
	{ "pinned", 1, 0, { "rounds", "block", "blocks" }, { 3, 1 << 16, 500 } },
	{ "frames",
	  2,
	  0,
	  { "frames", "temporaries-max", "level-frames", "level-blocks" },
	  { 10, 3000, 5, 20 } },
	{ "replay", 2, 0, { "passes" }, { 1 } },
};

#define SMALL_COUNT (sizeof(small) / sizeof(small[0]))

/* Where the recordings are not at hand, replay is left to the tests that write their own. */
static bool begin_small(size_t i)
{
	size_t j;

	trial_begin(small[i].name, small[i].workers, small[i].ops);
	for (j = 0; j < 4 && small[i].parameters[j]; j++)
		trial_set(small[i].parameters[j], small[i].values[j]);
	if (strcmp(small[i].name, "grow") == 0)
		trial_set("alone-last", 1 << 20);
	trial.options.verify = true;
	return strcmp(small[i].name, "replay") != 0;
}

static size_t number_of(const char *name)
{
	size_t i;

	for (i = 0; i < SMALL_COUNT && strcmp(small[i].name, name) != 0; i++)
		;
	cr_assert_lt(i, SMALL_COUNT, "%s", name);
	return i;
}

/* What travels between workers, cells and arenas keeps what is noted of it. */
Test(workload_verify, sound_allocator_passes, .timeout = 60)
{
	unsigned resets;
	size_t i;

	cr_assert_eq(SMALL_COUNT, workload_count);
	for (i = 0; i < SMALL_COUNT; i++) {
		for (resets = 0; resets < 3; resets++) {
			if (!begin_small(i))
				continue;
			recorder.cannot_reset = resets == 1;
			trial.options.no_reset = resets == 2;
			trial_run(MODE_NOTED);
			trial_expect_sound();
			cr_assert_gt(trial_ops(), 0);
			trial_end();
			if (strcmp(small[i].name, "frames") != 0)
				break;
		}
	}
}

/* The bug strikes once, and is told so. */
static void expect_found(const char *name, enum recorder_bug bug, size_t at, const char *text)
{
	begin_small(number_of(name));
	/* all roles on one thread: else the block before may be gone when its byte is changed */
	if (strcmp(name, "handoff") == 0 || strcmp(name, "mesh") == 0)
		trial.options.workers = 1;
	recorder.bug = bug;
	recorder.bug_at = at;
	trial_run(MODE_NOTED);
	must(recorder.struck, "%s: the bug did not strike", name);
	must(trial_broken() > 0, "%s: bug %d was not found", name, (int)bug);
	must(strstr(trial_text(), text), "%s: %s", name, trial_text());
	trial_end();
}

static const char changed[] = " was changed by someone else";

/* Wherever a block is freed, it is looked at before. */
Test(workload_verify, a_changed_byte_is_found_in_every_recipe, .timeout = 60)
{
	size_t i;

	for (i = 0; i < SMALL_COUNT; i++) {
		if (strcmp(small[i].name, "replay") == 0 || strcmp(small[i].name, "scratch") == 0 ||
		    strcmp(small[i].name, "large") == 0)
			continue;
		expect_found(small[i].name, RECORDER_SCRIBBLE, 50, changed);
	}
	/* of gifts, before there is anything else */
	expect_found("scratch", RECORDER_SCRIBBLE, 2, changed);
}

/* After the last operation, too: the last block but one, the 450th of the last round. */
Test(workload_verify, what_is_left_is_looked_at)
{
	expect_found("larson-wide", RECORDER_SCRIBBLE, 200 + 6000, changed);
	expect_found("pinned", RECORDER_SCRIBBLE, 2 * 501 + 1 + 451, changed);
}

Test(workload_verify, a_block_of_two_owners_is_found)
{
	expect_found("larson", RECORDER_SAME_BLOCK, 1000, changed);
	expect_found("churn", RECORDER_SAME_BLOCK, 1000, changed);
	expect_found("pairs", RECORDER_SAME_BLOCK, 1000, changed);
	expect_found("frames", RECORDER_SAME_BLOCK, 1000, changed);
}

Test(workload_verify, blocks_that_overlap_by_a_byte_are_found)
{
	expect_found("larson", RECORDER_OVERLAP, 1000, changed);
	expect_found("larson-wide", RECORDER_OVERLAP, 1000, changed);
	expect_found("lifetime", RECORDER_OVERLAP, 1000, changed);
}

Test(workload_verify, misaligned_blocks_are_found)
{
	expect_found("larson", RECORDER_MISALIGNED, 1000, "is not aligned to 16 bytes");
	expect_found("workers", RECORDER_MISALIGNED, 1000, "is not aligned to 16 bytes");
	expect_found("frames", RECORDER_MISALIGNED, 1000, "is not aligned to 16 bytes");
	expect_found("grow", RECORDER_MISALIGNED, 50, "is not aligned to 16 bytes");
}

Test(workload_verify, what_is_not_zero_is_found)
{
	expect_found("workers", RECORDER_DIRTY, 700, "byte 127 of 128 is not zero");
}

Test(workload_verify, lost_content_is_found)
{
	expect_found("grow", RECORDER_LOST, 11, "resizing to 24 bytes did not keep byte 15");
	expect_found("grow", RECORDER_LOST, 100, "did not keep byte");
}

/* Where there is no memory recipes go on, and lose nothing of what they had. */
static void run_without_memory(size_t i, size_t from, size_t to, enum workload_mode mode)
{
	if (!begin_small(i))
		return;
	trial.options.verify = mode == MODE_NOTED;
	recorder.refuse_from = from;
	recorder.refuse_to = to;
	trial_run(mode);
	must(trial_failed() > 0, "%s: nothing failed", small[i].name);
	must(trial_broken() == 0, "%s: %s", small[i].name, trial_text());
	must(strstr(trial_text(), "no memory for "), "%s: %s", small[i].name, trial_text());
	must(recorder.wrong == 0, "%s: what failed was freed", small[i].name);
	must(recorder.live_blocks == 0, "%s: %zu blocks are left", small[i].name,
	     recorder.live_blocks);
	must(trial_live() == 0, "%s: %lld bytes are counted that are not there", small[i].name,
	     (long long)trial_live());
	trial_end();
}

Test(workload_verify, no_memory_is_told_and_survived, .timeout = 60)
{
	size_t i;

	for (i = 0; i < SMALL_COUNT; i++) {
		run_without_memory(i, 2, 10, MODE_PLAIN);
		run_without_memory(i, 5, SIZE_MAX, MODE_PLAIN);
		run_without_memory(i, 5, SIZE_MAX, MODE_TIMED);
		run_without_memory(i, 5, SIZE_MAX, MODE_NOTED);
		run_without_memory(i, 2, 10, MODE_NOTED);
	}
}

/* A block that could not be had is resized from nothing: it has no old content. */
Test(workload_verify, what_was_in_a_cell_before_is_not_looked_for)
{
	size_t i, round = 0;

	for (i = 0; i < 2; i++) {
		begin_small(number_of("grow"));
		trial_set("rounds", 1 + i);
		recorder.refuse_from = round + 1;
		recorder.refuse_to = round ? round + 2 : 0;
		trial_run(MODE_NOTED);
		cr_assert_eq(trial_failed(), i);
		cr_assert_eq(trial_broken(), 0, "%s", trial_text());
		cr_assert_eq(trial.run.workers[0].live, 0);
		round = recorder.asked;
		trial_end();
	}
}

/* Where a worker finds no cache none begins; where a fresh thread finds none its worker ends. */
Test(workload_verify, no_cache_is_told_and_survived, .timeout = 60)
{
	size_t i;

	for (i = 0; i < SMALL_COUNT; i++) {
		if (!begin_small(i))
			continue;
		recorder.refuse_front = 1;
		trial_run(MODE_PLAIN);
		must(trial_failed() > 0 && strstr(trial_text(), "no cache"), "%s: %s",
		     small[i].name, trial_text());
		must(recorder.count == 0 && trial_ops() == 0, "%s began", small[i].name);
		trial_end();
	}
	begin_small(number_of("larson"));
	recorder.refuse_front = 4;
	trial_run(MODE_PLAIN);
	cr_assert_eq(trial_failed(), 1);
	cr_assert_eq(recorder.wrong, 0);
	cr_assert_lt(trial_ops(), 6000);
	trial_end();
	/* of two arenas: what a worker has in the one with a cache is freed all the same */
	begin_small(number_of("larson"));
	trial_set("arenas", 2);
	recorder.refuse_front = 2 * trial.options.workers + 1;
	trial_run(MODE_PLAIN);
	cr_assert_eq(trial_failed(), 1);
	cr_assert_eq(recorder.wrong, 0);
	cr_assert_gt(recorder.live_blocks, 0);
	for (i = 0; i < recorder.count; i++)
		must(recorder.blocks[i].died ||
			     recorder.fronts[recorder.blocks[i].front].arena == 0,
		     "block %zu of an arena that has a cache is left", i);
	trial_end();
	begin_small(number_of("workers"));
	recorder.refuse_front = 4;
	trial_run(MODE_PLAIN);
	cr_assert_gt(trial_failed(), 0);
	cr_assert_eq(recorder.wrong, 0);
	cr_assert_eq(recorder.live_blocks, 0);
	trial_end();
}

/* Each call is timed: of the recipe, not of filling before and freeing after. */
Test(workload_verify, each_call_is_timed)
{
	const struct timings *timings;

	begin_small(number_of("burst"));
	trial.options.verify = false;
	trial.options.latency = true;
	trial_run(MODE_TIMED);
	trial_expect_sound();
	timings = trial.run.workers[0].timings;
	cr_assert_eq(timings->alloc[0].count, recorder.count);
	cr_assert_eq(timings->free[0].count, recorder.count);
	cr_assert_eq(timings->all.count, 2 * recorder.count);
	cr_assert_eq(timings->frame.count, 0);
	trial_end();
	begin_small(number_of("churn"));
	trial.options.verify = false;
	trial.options.latency = true;
	trial_run(MODE_TIMED);
	timings = trial.run.workers[0].timings;
	cr_assert_eq(timings->alloc[0].count, 5000);
	cr_assert_eq(timings->free[0].count, 5000);
	trial_end();
	begin_small(number_of("frames"));
	trial.options.verify = false;
	trial.options.latency = true;
	trial_run(MODE_TIMED);
	cr_assert_eq(trial.run.workers[0].timings->frame.count, 10);
	trial_end();
}
