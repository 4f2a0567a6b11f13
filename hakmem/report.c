/* SPDX-License-Identifier: MIT */
/* Hands reports to the host, or stops the program where going on would harm. */
#include <hakmem/report.h>
#include <hakmem/size_class.h>

static bool is_fatal(enum hk_fault fault)
{
	return fault == HK_FAULT_FOREIGN || fault == HK_FAULT_INTERIOR ||
	       fault == HK_FAULT_DOUBLE_FREE || fault == HK_FAULT_CORRUPT;
}

void hk_report(struct hk_reporter *reporter, const struct hk_report *report)
{
	struct hk_report full = *report;

	if (!reporter->on_report) {
		if (is_fatal(report->fault))
			__builtin_trap();
		return;
	}
	full.arena = reporter->arena;
	full.arena_name = reporter->name;
	reporter->on_report(reporter->context, &full);
}

void hk_report_fault(struct hk_reporter *reporter, enum hk_fault fault, const char *what,
		     const void *address, size_t size)
{
	struct hk_report report = {
		.fault = fault, .what = what, .address = address, .size = size, .count = 1
	};

	hk_report(reporter, &report);
}

static const char *bad_text(enum hk_fault fault)
{
	switch (fault) {
	case HK_FAULT_FOREIGN:
		return "a pointer that is no block of this arena was refused";
	case HK_FAULT_INTERIOR:
		return "a pointer into a block, not to its start, was refused";
	case HK_FAULT_DOUBLE_FREE:
		return "a block that is free already was freed";
	default:
		return "a block was refused";
	}
}

void hk_report_bad(struct hk_reporter *reporter, const struct hk_bad *bad, size_t count)
{
	for (; count; count--, bad++) {
		struct hk_report report = {
			.fault = bad->fault,
			.what = bad_text(bad->fault),
			.address = bad->block,
			.count = 1,
		};

		if (bad->size_class < HK_CLASSES) {
			report.size_class = bad->size_class;
			report.size = hk_class_size(bad->size_class);
		}
		hk_report(reporter, &report);
	}
}

static void send_failures(struct hk_reporter *reporter)
{
	size_t count =
		atomic_exchange_explicit(&reporter->platform_failures, 0, memory_order_relaxed);
	struct hk_report report = {
		.fault = HK_FAULT_PLATFORM,
		.what = "a call of the platform for memory failed",
		.count = count,
	};

	if (count)
		hk_report(reporter, &report);
}

static void tell_pressure(struct hk_reporter *reporter, uint32_t pressed)
{
	const struct hk_budget *budget = reporter->budget;

	for (; pressed; pressed >>= 1, budget = budget->parent)
		if (pressed & 1)
			budget->on_pressure(budget->context, (struct hk_arena *)reporter->arena,
					    hk_budget_used(budget),
					    hk_budget_load(&budget->soft_limit));
}

/*
 * One thread at a time for an arena, and not within the callback: what is pressed meanwhile is told
 * by whoever is at it. Sequentially consistent: either that one sees it, or this one is let in.
 */
static void send_pressure(struct hk_reporter *reporter)
{
	while (atomic_load(&reporter->pressed) && !atomic_exchange(&reporter->pressing, true)) {
		tell_pressure(reporter, atomic_exchange(&reporter->pressed, 0));
		atomic_store(&reporter->pressing, false);
	}
}

void hk_reporter_send_noted(struct hk_reporter *reporter)
{
	send_failures(reporter);
	send_pressure(reporter);
}
