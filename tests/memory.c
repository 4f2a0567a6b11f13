/* SPDX-License-Identifier: MIT */
/* Charges against the limit, commits that fail, sections that grow and shrink, deadlines. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include <hakmem/memory.h>

#include "fault_platform.h"
#include "heap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define THREADS 4

static struct fault_platform fault;
static struct test_reports reports;
static struct hk_reporter reporter;
static struct hk_memory memory;

static void open_memory(const struct fault_options *options, size_t limit)
{
	struct hk_memory from = { .size = 16 * MIB };

	cr_assert_eq(fault_platform_init(&fault, options), 0);
	memset(&reports, 0, sizeof(reports));
	reporter = (struct hk_reporter){ .name = "",
					 .context = &reports,
					 .on_report = test_on_report };
	from.platform = fault.platform;
	from.base = fault.platform.reserve(&fault, from.size, from.platform.granularity);
	cr_assert_not_null(from.base);
	cr_assert_eq(hk_budget_init(&from.own, NULL), 0);
	from.own.limit = limit;
	hk_memory_init(&memory, &from, &reporter);
	atomic_store(&memory.calls, 0); /* it counts the reserve */
	fault_platform_rewind(&fault);
}

static void close_memory(void)
{
	fault.platform.release(&fault, memory.base, memory.size);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

static struct hk_section section_at(size_t offset, size_t size)
{
	struct hk_section section = { .base = memory.base + offset, .size = size };

	return section;
}

static bool is_filled(const unsigned char *bytes, size_t count, unsigned char with)
{
	while (count && bytes[count - 1] == with)
		count--;
	return !count;
}

Test(memory, charges_up_to_the_limit_and_no_byte_beyond)
{
	open_memory(NULL, 1000);
	cr_assert_eq(hk_memory_charge(&memory, 1001), HK_ERROR_LIMIT);
	cr_assert_eq(hk_memory_committed(&memory), 0);
	cr_assert_eq(hk_memory_charge(&memory, 600), 0);
	cr_assert_eq(hk_memory_charge(&memory, 401), HK_ERROR_LIMIT);
	cr_assert_eq(hk_memory_charge(&memory, SIZE_MAX), HK_ERROR_LIMIT, "it wraps round");
	cr_assert_eq(hk_memory_charge(&memory, SIZE_MAX - 599), HK_ERROR_LIMIT, "it wraps round");
	cr_assert_eq(hk_memory_committed(&memory), 600);
	cr_assert_eq(hk_memory_charge(&memory, 400), 0);
	cr_assert_eq(hk_memory_charge(&memory, 1), HK_ERROR_LIMIT);
	cr_assert_eq(hk_memory_charge(&memory, 0), 0);
	hk_memory_uncharge(&memory, 1);
	cr_assert_eq(hk_memory_charge(&memory, 1), 0);
	hk_memory_uncharge(&memory, 1000);
	cr_assert_eq(hk_memory_committed(&memory), 0);
	/* as when a limit is lowered below what is in use */
	cr_assert_eq(hk_memory_charge(&memory, 700), 0);
	memory.own.limit = 500;
	cr_assert_eq(hk_memory_charge(&memory, 1), HK_ERROR_LIMIT);
	cr_assert_eq(hk_memory_committed(&memory), 700);
	cr_assert_eq(fault.calls, 0, "a charge is no platform call");
	close_memory();
}

static struct {
	size_t limit;
	_Atomic size_t beyond;
	_Atomic size_t refused;
	_Atomic size_t granted;
} racing;

static void *charge_and_commit(void *number)
{
	uint64_t seed = (uint64_t)(uintptr_t)number + 1;
	unsigned char *mine = memory.base + (uintptr_t)number * MIB;
	size_t page = memory.platform.page_size;
	int i;

	for (i = 0; i < 3000; i++) {
		size_t bytes = (1 + (size_t)(test_random(&seed) % 12)) * page;
		int error = hk_memory_commit(&memory, mine, bytes);

		racing.beyond += hk_memory_committed(&memory) > racing.limit;
		if (error) {
			racing.refused++;
			continue;
		}
		racing.granted++;
		mine[bytes - 1] = 1;
		if (hk_memory_decommit(&memory, mine, bytes))
			racing.beyond++;
	}
	return NULL;
}

/* Some of the requests are too much even alone, two at once often are: nobody is let past. */
Test(memory, threads_never_pass_the_limit, .timeout = 60)
{
	pthread_t threads[THREADS];
	size_t limit;
	uintptr_t i;

	open_memory(&(struct fault_options){ .forbid = true }, SIZE_MAX);
	limit = memory.own.limit = 10 * memory.platform.page_size;
	memset(&racing, 0, sizeof(racing));
	racing.limit = limit;
	for (i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, charge_and_commit, (void *)i), 0);
	for (i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_assert_eq(racing.beyond, 0);
	cr_assert_leq(fault.peak, limit);
	cr_assert_leq(memory.own.peak, limit);
	cr_assert_geq(memory.own.peak, fault.peak, "the peak was missed");
	cr_assert_eq(hk_memory_committed(&memory), 0);
	cr_assert_gt(racing.granted, 0);
	cr_assert_gt(racing.refused, 0);
	cr_assert_eq(memory.calls, 2 * racing.granted);
	cr_assert_eq(memory.refusals, 0, "the limit is no refusal of the platform");
	close_memory();
}

Test(memory, a_commit_is_charged_before_and_undone_when_it_fails)
{
	size_t page;

	open_memory(&(struct fault_options){ .forbid = true }, 64 * KIB);
	page = memory.platform.page_size;
	cr_assert_eq(hk_memory_commit(&memory, memory.base, 64 * KIB + page), HK_ERROR_LIMIT);
	cr_assert_eq(fault.calls, 0, "the platform was asked all the same");
	cr_assert_eq(memory.calls, 0);
	fault.fail_at = 1;
	cr_assert_eq(hk_memory_commit(&memory, memory.base, page), HK_ERROR_MEMORY);
	cr_assert_eq(hk_memory_committed(&memory), 0);
	cr_assert_eq(memory.own.peak, 0);
	cr_assert_eq(memory.refusals, 1);
	cr_assert_eq(memory.calls, 1);
	cr_assert_eq(reports.count, 0, "reports wait until no lock is held");
	hk_reporter_flush(&reporter);
	cr_assert_eq(reports.by_fault[HK_FAULT_PLATFORM], 1);
	hk_reporter_flush(&reporter);
	cr_assert_eq(reports.count, 1, "told twice");
	cr_assert_eq(hk_memory_commit(&memory, memory.base, 64 * KIB), 0);
	cr_assert(fault_platform_is_committed(&fault, memory.base, 64 * KIB));
	cr_assert_eq(memory.refusals, 0, "it grants memory again");
	cr_assert_eq(hk_memory_committed(&memory), 64 * KIB);
	close_memory();
}

Test(memory, a_decommit_that_fails_stays_charged)
{
	open_memory(NULL, SIZE_MAX);
	cr_assert_eq(hk_memory_commit(&memory, memory.base, 64 * KIB), 0);
	fault_platform_rewind(&fault);
	fault.fail_at = 1;
	cr_assert_eq(hk_memory_decommit(&memory, memory.base, 64 * KIB), HK_ERROR_PLATFORM);
	cr_assert_eq(hk_memory_committed(&memory), 64 * KIB);
	cr_assert_eq(reports.count, 0);
	hk_reporter_flush(&reporter);
	cr_assert_eq(reports.by_fault[HK_FAULT_PLATFORM], 1);
	cr_assert_eq(memory.refusals, 0, "only commits are refused");
	cr_assert_eq(hk_memory_decommit(&memory, memory.base, 64 * KIB), 0);
	cr_assert_eq(hk_memory_committed(&memory), 0);
	cr_assert_eq(memory.calls, 3);
	close_memory();
}

Test(memory, the_peak_rises_only)
{
	size_t page;

	open_memory(NULL, SIZE_MAX);
	page = memory.platform.page_size;
	cr_assert_eq(hk_memory_commit(&memory, memory.base, 5 * page), 0);
	cr_assert_eq(memory.own.peak, 5 * page);
	cr_assert_eq(hk_memory_decommit(&memory, memory.base, 3 * page), 0);
	cr_assert_eq(memory.own.peak, 5 * page);
	cr_assert_eq(hk_memory_commit(&memory, memory.base, 2 * page), 0);
	cr_assert_eq(memory.own.peak, 5 * page);
	cr_assert_eq(hk_memory_commit(&memory, memory.base + 8 * page, 2 * page), 0);
	cr_assert_eq(memory.own.peak, 6 * page);
	close_memory();
}

/* Failures of several commits before anybody could tell are one report that counts them. */
Test(memory, failures_are_told_in_one_report)
{
	open_memory(NULL, SIZE_MAX);
	fault.fail_from = 1;
	cr_assert_eq(hk_memory_commit(&memory, memory.base, 64 * KIB), HK_ERROR_MEMORY);
	cr_assert_eq(hk_memory_commit(&memory, memory.base, 64 * KIB), HK_ERROR_MEMORY);
	hk_reporter_flush(&reporter);
	cr_assert_eq(reports.count, 1);
	cr_assert_eq(reports.last.fault, HK_FAULT_PLATFORM);
	cr_assert_eq(reports.last.count, 2);
	close_memory();
}

static void grow_and_shrink(size_t page, bool garbage)
{
	struct fault_options options = { .page_size = page, .garbage = garbage, .forbid = true };
	struct hk_section section;

	open_memory(&options, SIZE_MAX);
	section = section_at(MIB, 5 * page);
	cr_assert_eq(hk_section_grow(&memory, &section, 0), 0);
	cr_assert_eq(section.committed, 0);
	cr_assert_eq(hk_section_grow(&memory, &section, 1), 0);
	cr_assert_eq(section.committed, page);
	cr_assert(is_filled(section.base, page, 0));
	memset(section.base, 7, page);
	cr_assert_eq(hk_section_grow(&memory, &section, page), 0);
	cr_assert_eq(section.committed, page, "it had that much");
	cr_assert_eq(hk_section_grow(&memory, &section, 2 * page + 1), 0);
	cr_assert_eq(section.committed, 3 * page);
	cr_assert(is_filled(section.base, page, 7), "what it had was cleared");
	cr_assert(is_filled(section.base + page, 2 * page, 0));
	cr_assert_eq(hk_section_grow(&memory, &section, 5 * page), 0);
	cr_assert_eq(hk_section_grow(&memory, &section, 5 * page + 1), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(section.committed, 5 * page);
	cr_assert_eq(hk_memory_committed(&memory), 5 * page);
	cr_assert_eq(fault.committed, 5 * page);
	cr_assert_eq(fault.again, 0, "committed twice");
	memset(section.base, 7, section.committed);

	cr_assert_eq(hk_section_shrink(&memory, &section, 5 * page), 0);
	cr_assert_eq(hk_section_shrink(&memory, &section, 4 * page + 1), 0, "the page is used");
	cr_assert_eq(hk_section_shrink(&memory, &section, 4 * page), page);
	cr_assert_eq(hk_section_shrink(&memory, &section, page + 1), 2 * page);
	cr_assert_eq(section.committed, 2 * page);
	cr_assert_eq(fault.committed, 2 * page);
	cr_assert(is_filled(section.base, 2 * page, 7));
	cr_assert_eq(hk_section_grow(&memory, &section, 4 * page), 0);
	cr_assert(is_filled(section.base, 2 * page, 7));
	cr_assert(is_filled(section.base + 2 * page, 2 * page, 0), "old content came back");
	cr_assert_eq(hk_section_shrink(&memory, &section, 0), 4 * page);
	cr_assert_eq(section.committed, 0);
	cr_assert_eq(fault.committed, 0);
	cr_assert_eq(hk_memory_committed(&memory), 0);
	cr_assert_eq(fault.idle, 0, "decommitted what was not committed");
	close_memory();
}

Test(memory, sections_grow_and_shrink_by_pages)
{
	static const size_t pages[] = { 4 * KIB, 16 * KIB, 64 * KIB };
	size_t i;

	for (i = 0; i < COUNT(pages); i++) {
		grow_and_shrink(pages[i], false);
		grow_and_shrink(pages[i], true);
	}
}

Test(memory, a_section_that_cannot_grow_is_as_before)
{
	struct hk_section section;
	size_t page;

	open_memory(&(struct fault_options){ .forbid = true }, SIZE_MAX);
	page = memory.platform.page_size;
	memory.own.limit = 4 * page;
	section = section_at(0, MIB);
	cr_assert_eq(hk_section_grow(&memory, &section, page), 0);
	memset(section.base, 7, page);
	cr_assert_eq(hk_section_grow(&memory, &section, 4 * page + 1), HK_ERROR_LIMIT);
	fault_platform_rewind(&fault);
	fault.fail_at = 1;
	cr_assert_eq(hk_section_grow(&memory, &section, 2 * page), HK_ERROR_MEMORY);
	cr_assert_eq(section.committed, page);
	cr_assert_eq(hk_memory_committed(&memory), page);
	cr_assert(is_filled(section.base, page, 7));
	cr_assert_eq(hk_section_grow(&memory, &section, 4 * page), 0);
	cr_assert_eq(section.committed, 4 * page);
	close_memory();
}

/* The platform leaves rubbish where it failed to decommit: a section's rest must be zero. */
Test(memory, a_section_that_cannot_shrink_is_whole_and_zero_beyond)
{
	struct hk_section section;
	size_t page;

	open_memory(&(struct fault_options){ .forbid = true }, SIZE_MAX);
	page = memory.platform.page_size;
	section = section_at(0, MIB);
	cr_assert_eq(hk_section_grow(&memory, &section, 4 * page), 0);
	memset(section.base, 7, 4 * page);
	fault_platform_rewind(&fault);
	fault.fail_at = 1;
	cr_assert_eq(hk_section_shrink(&memory, &section, page), 0);
	cr_assert_eq(section.committed, 4 * page);
	cr_assert_eq(hk_memory_committed(&memory), 4 * page);
	cr_assert(is_filled(section.base, page, 7), "the part in use was touched");
	cr_assert(is_filled(section.base + page, 3 * page, 0), "it will be taken for zero");
	close_memory();
}

Test(memory, deadlines_by_the_clock)
{
	struct hk_deadline deadline;

	open_memory(&(struct fault_options){ .fake_clock = true }, SIZE_MAX);
	fault.now = 1000;
	deadline = hk_deadline_in(&memory, 0);
	fault.now = UINT64_MAX;
	cr_assert_not(hk_deadline_over(&memory, deadline), "without a bound it is never over");
	cr_assert_eq(fault.counts[FAULT_NOW], 0, "nor is there a need to look");
	fault.now = 1000;
	deadline = hk_deadline_in(&memory, 50);
	cr_assert_not(hk_deadline_over(&memory, deadline));
	fault.now = 1037;
	cr_assert_not(hk_deadline_over(&memory, deadline));
	fault.now = 1038;
	cr_assert(hk_deadline_over(&memory, deadline), "a quarter is left for the last step");
	fault.now = 1000;
	deadline = hk_deadline_in(&memory, 1000000);
	fault.now = 1000 + 1000000 - 50001;
	cr_assert_not(hk_deadline_over(&memory, deadline));
	fault.now++;
	cr_assert(hk_deadline_over(&memory, deadline), "50 us at most");
	fault.now = 0;
	deadline = hk_deadline_in(&memory, 1);
	cr_assert_not(hk_deadline_over(&memory, deadline), "a clock may start at zero");
	/* an end beyond all time is none that has passed */
	fault.now = UINT64_MAX - 10;
	deadline = hk_deadline_in(&memory, 100);
	cr_assert_not(hk_deadline_over(&memory, deadline));
	fault.now = UINT64_MAX - 11;
	deadline = hk_deadline_in(&memory, 11);
	cr_assert_not(hk_deadline_over(&memory, deadline));
	cr_assert_eq(memory.calls, fault.counts[FAULT_NOW]);
	close_memory();
}

Test(memory, deadlines_without_a_clock_are_over_at_once)
{
	open_memory(&(struct fault_options){ .hide = FAULT_BIT(FAULT_NOW) }, SIZE_MAX);
	cr_assert_null(memory.platform.now_ns);
	cr_assert(hk_deadline_over(&memory, hk_deadline_in(&memory, UINT64_MAX)));
	cr_assert(hk_deadline_over(&memory, hk_deadline_in(&memory, 1)));
	cr_assert_not(hk_deadline_over(&memory, hk_deadline_in(&memory, 0)));
	cr_assert_eq(memory.calls, 0);
	close_memory();
}
