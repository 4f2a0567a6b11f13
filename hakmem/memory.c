/* SPDX-License-Identifier: MIT */
/* Charging, committing and giving back; see memory.h. */
#include <hakmem/memory.h>
#include <string.h>

/* Bytes of a section that are given back between two looks at the clock. */
#define STEP ((size_t)512 << 10)

/*
 * So long before its time is over bounded work begins no more steps, a quarter of the time at
 * most: a step takes 2 to 60 us where pages are faulted in or given back.
 */
#define LAST_STEP_NS 50000u

int hk_memory_charge(struct hk_memory *memory, size_t bytes)
{
	uint32_t pressed;
	int error = hk_charge(&memory->own, bytes, &pressed);

	if (pressed)
		hk_reporter_press(memory->reporter, pressed);
	return error;
}

void hk_memory_uncharge(struct hk_memory *memory, size_t bytes)
{
	hk_uncharge(&memory->own, bytes);
}

int hk_memory_commit(struct hk_memory *memory, void *ptr, size_t size)
{
	int error = hk_memory_charge(memory, size);

	if (error)
		return error;
	hk_memory_count_call(memory);
	if (memory->platform.commit(memory->platform.context, ptr, size)) {
		hk_memory_uncharge(memory, size);
		atomic_fetch_add_explicit(&memory->refusals, 1, memory_order_relaxed);
		hk_reporter_note(memory->reporter);
		return HK_ERROR_MEMORY;
	}
	hk_charge_settled(&memory->own);
	if (atomic_load_explicit(&memory->refusals, memory_order_relaxed))
		atomic_store_explicit(&memory->refusals, 0, memory_order_relaxed);
	return 0;
}

int hk_memory_decommit(struct hk_memory *memory, void *ptr, size_t size)
{
	hk_memory_count_call(memory);
	if (memory->platform.decommit(memory->platform.context, ptr, size)) {
		hk_reporter_note(memory->reporter);
		return HK_ERROR_PLATFORM;
	}
	hk_memory_uncharge(memory, size);
	return 0;
}

int hk_section_grow(struct hk_memory *memory, struct hk_section *section, size_t bytes)
{
	size_t target;
	int error;

	if (bytes <= section->committed)
		return 0;
	if (bytes > section->size)
		return HK_ERROR_ADDRESS_SPACE;
	target = hk_round_up(bytes, memory->platform.page_size);
	error = hk_memory_commit(memory, section->base + section->committed,
				 target - section->committed);
	if (error)
		return error;
	if (!hk_memory_is_zeroed(memory))
		memset(section->base + section->committed, 0, target - section->committed);
	section->committed = target;
	return 0;
}

size_t hk_section_shrink(struct hk_memory *memory, struct hk_section *section, size_t bytes)
{
	size_t target = hk_round_up(bytes, memory->platform.page_size);
	size_t freed;

	if (target >= section->committed)
		return 0;
	freed = section->committed - target;
	if (hk_memory_decommit(memory, section->base + target, freed)) {
		/* still committed, but its content may be gone */
		memset(section->base + target, 0, freed);
		return 0;
	}
	section->committed = target;
	return freed;
}

size_t hk_section_trim(struct hk_memory *memory, struct hk_section *section, size_t bytes,
		       struct hk_deadline deadline)
{
	size_t freed = 0, step, to;

	do {
		to = section->committed;
		to = deadline.end_ns && to > bytes + STEP ? to - STEP : bytes;
		step = hk_section_shrink(memory, section, to);
		freed += step;
	} while (step && to > bytes && !hk_deadline_over(memory, deadline));
	return freed;
}

int hk_memory_populate(struct hk_memory *memory, void *ptr, size_t size)
{
	if (!memory->platform.populate || !size)
		return 0;
	hk_memory_count_call(memory);
	if (!memory->platform.populate(memory->platform.context, ptr, size))
		return 0;
	hk_reporter_note(memory->reporter);
	return HK_ERROR_MEMORY;
}

struct hk_deadline hk_deadline_in(struct hk_memory *memory, uint64_t budget_ns)
{
	struct hk_deadline deadline = { 0 };

	if (!budget_ns)
		return deadline;
	budget_ns -= budget_ns / 4 < LAST_STEP_NS ? budget_ns / 4 : LAST_STEP_NS;
	deadline.end_ns = 1;
	if (memory->platform.now_ns) {
		hk_memory_count_call(memory);
		deadline.end_ns = memory->platform.now_ns(memory->platform.context);
		deadline.end_ns = deadline.end_ns + budget_ns < budget_ns
					  ? UINT64_MAX
					  : deadline.end_ns + budget_ns;
	}
	return deadline;
}

uint64_t hk_deadline_left(struct hk_memory *memory, struct hk_deadline deadline)
{
	uint64_t now;

	if (!deadline.end_ns)
		return UINT64_MAX;
	if (!memory->platform.now_ns)
		return 0;
	hk_memory_count_call(memory);
	now = memory->platform.now_ns(memory->platform.context);
	return now < deadline.end_ns ? deadline.end_ns - now : 0;
}

bool hk_deadline_over(struct hk_memory *memory, struct hk_deadline deadline)
{
	return !hk_deadline_left(memory, deadline);
}
