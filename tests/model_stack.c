/* SPDX-License-Identifier: MIT */
/*
 * Explores what two and three threads can do to stacks of magazines: the code of stack.c itself.
 *
 * stack.c is compiled into this file with hooks in place of the macros of stdatomic.h, which
 * takes each of its atomic operations to the explorer (explore.h). Other operations than those
 * it has now are made not to compile. What it does without them, link->rounds, shows by the
 * value that changed, and is plain data to the explorer, as is the content of a magazine, which
 * its owner writes before a push and reads after a pop.
 *
 * Not explored: hk_stack_clear(), with which nothing else runs; tags that come round after 2^32
 * exchanges; stores that a load reads before they are made (see explore.h). The last cannot be
 * here: each load but one is an acquire, which nothing that follows can overtake, and that one,
 * of the next link, is what the exchange after it stores, if it succeeds; and if it fails, that
 * is an acquire again.
 */
#include <string.h>

/* All that is to have true atomics, before the hooks. */
#include <hakmem/lock.h>

#include "model_stack.h"

static uint64_t hook_load(const volatile void *object, memory_order order);
static void hook_store(const volatile void *object, uint64_t value, memory_order order);
static bool hook_exchange(const volatile void *object, uint64_t *expected, uint64_t value,
			  memory_order success, memory_order failure);

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_compare_exchange_weak_explicit
#define atomic_load_explicit(object, order)                                                        \
	((__typeof__(*(object) + 0))hook_load((object), (order)))
#define atomic_store_explicit(object, value, order) hook_store((object), (value), (order))
#define atomic_compare_exchange_weak_explicit(object, expected, value, success, failure)           \
	hook_exchange((object), (expected), (value), (success), (failure))

#undef atomic_load
#undef atomic_store
#undef atomic_init
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_thread_fence
#pragma GCC poison atomic_load atomic_store atomic_init atomic_exchange atomic_exchange_explicit
#pragma GCC poison atomic_compare_exchange_weak atomic_compare_exchange_strong
#pragma GCC poison atomic_compare_exchange_strong_explicit atomic_fetch_add atomic_fetch_sub
#pragma GCC poison atomic_fetch_add_explicit atomic_fetch_sub_explicit atomic_thread_fence

/* The one without a lock, wherever this is built. */
#undef HK_STACK_LOCKED
#define HK_STACK_LOCKED 0
#include <hakmem/stack.c>

/* What the code under test gets; its values are not looked at, but for rounds. */
static struct hk_stack heads[STACKS];
static struct hk_link links[MAGAZINES];
static const struct hk_stacks stacks = { links, NULL };

static const struct scenario *scenario;
static enum plant plant;

/* The call that is made; @direct: to the memory as it is, before anything else runs. */
static struct {
	struct ex_state *state;
	unsigned thread;
	enum call verb;
	bool direct;
	bool looked; /* at the head */
	uint64_t head;
	uint32_t rounds[MAGAZINES];
} now;

static const char *const location_names[] = {
	"head 0", "head 1",  "A.next",	 "A.depth", "A.blocks", "B.next",   "B.depth", "B.blocks",
	"C.next", "C.depth", "C.blocks", "D.next",  "D.depth",	"D.blocks", "lock",
};
static const char *const plain_names[] = {
	"A's content", "B's content", "C's content", "D's content",
	"A.rounds",    "B.rounds",    "C.rounds",    "D.rounds",
};

static unsigned location_of(const volatile void *object)
{
	size_t offset = (size_t)((const volatile char *)object - (const volatile char *)links);
	unsigned stack;

	for (stack = 0; stack < STACKS; stack++)
		if (object == &heads[stack].head)
			return stack;
	return LINK_LOCATION((unsigned)(offset / sizeof(*links)),
			     (unsigned)(offset % sizeof(*links) / sizeof(uint32_t)));
}

/* link->rounds is written between two hooks, and every push has others. */
static void notice_rounds(void)
{
	unsigned i;

	for (i = 0; i < MAGAZINES; i++) {
		if (links[i].rounds == now.rounds[i])
			continue;
		now.rounds[i] = links[i].rounds;
		if (!now.direct && !ex_is_new())
			continue;
		ghost_of(now.state)->rounds[i] = (uint8_t)links[i].rounds;
		if (now.direct)
			now.state->plains[MAGAZINES + i].value = (uint8_t)links[i].rounds;
		else
			ex_write(now.state, now.thread, MAGAZINES + i, (uint8_t)links[i].rounds);
	}
}

/* The order that a planted bug leaves of a load's, or of an exchange's that fails. */
static memory_order weaken_look(memory_order order, bool of_head, bool again)
{
	bool weak = plant == POP_UNACQUIRED && now.verb == POP;

	weak |= plant == POP_LOOKS_RELAXED && now.verb == POP && !again;
	weak |= plant == POP_FAILS_RELAXED && now.verb == POP && again;
	weak |= plant == PUSH_LOOKS_RELAXED && now.verb == PUSH && !again && of_head;
	weak |= plant == PUSH_FAILS_RELAXED && now.verb == PUSH && again;
	weak |= plant == SIZE_LOOKS_RELAXED && now.verb == SIZE && of_head;
	weak |= plant == SIZE_READS_RELAXED && now.verb == SIZE && !of_head;
	return weak ? memory_order_relaxed : order;
}

static uint64_t hook_load(const volatile void *object, memory_order order)
{
	unsigned location = location_of(object);
	bool of_head = location < STACKS;

	notice_rounds();
	if (now.direct)
		return *latest(now.state, location);
	if (of_head && now.looked && plant == SIZE_LOOKS_ONCE)
		return now.head;
	if (!of_head)
		return ex_load(location, weaken_look(order, false, false));
	now.looked = true;
	now.head = ex_load(location, weaken_look(order, true, false));
	return now.head;
}

static void hook_store(const volatile void *object, uint64_t value, memory_order order)
{
	unsigned location = location_of(object);

	notice_rounds();
	if (plant == LINKS_UNRELEASED)
		order = memory_order_relaxed;
	if (now.direct)
		*latest(now.state, location) = value;
	else
		ex_store(location, value, order);
}

static bool hook_exchange(const volatile void *object, uint64_t *expected, uint64_t value,
			  memory_order success, memory_order failure)
{
	unsigned location = location_of(object);
	uint64_t mask = plant == TAG_IGNORED ? UINT32_MAX : UINT64_MAX;

	notice_rounds();
	if (now.direct) {
		*latest(now.state, location) = value;
		return true;
	}
	if (plant == TAG_KEPT)
		value = (*expected & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
	if (now.verb == POP && (plant == POP_UNACQUIRED || plant == POP_TAKES_RELAXED))
		success = memory_order_relaxed;
	if (now.verb == PUSH && plant == PUSH_UNRELEASED)
		success = memory_order_relaxed;
	return ex_exchange(location, expected, value, mask, success,
			   weaken_look(failure, true, true));
}

struct call_parts parts_of(enum call call)
{
	static const struct call_parts parts[] = {
		[END] = { END, 0, 0, false },	     [POP] = { POP, 0, 0, false },
		[PUSH] = { PUSH, 0, 0, false },	     [PUSH_LAST] = { PUSH, 0, 0, true },
		[PUSH_TO_2] = { PUSH, 0, 2, false }, [SIZE] = { SIZE, 0, 0, false },
		[POP_OTHER] = { POP, 1, 0, false },  [PUSH_OTHER] = { PUSH, 1, 0, false },
	};

	return parts[call];
}

static struct call_parts call_of(const struct ex_state *state, unsigned thread)
{
	return parts_of(scenario->threads[thread][state->threads[thread].call - 1]);
}

/* Of @thread and its call: rounds or content that no other push gives. */
static uint8_t number_of(const struct ex_state *state, unsigned thread)
{
	return (uint8_t)(1 + thread * CALLS_MAX + state->threads[thread].call);
}

/* A thread that has nothing to push goes on with its next call. */
static bool start_call(struct ex_state *state, unsigned thread)
{
	struct ghost *ghost = ghost_of(state);
	struct ex_thread *taker = &state->threads[thread];
	const struct pile *hand = &ghost->hands[thread];
	struct call_parts call;
	unsigned index;

	ghost->busy[thread] = 0;
	ghost->got[thread] = 0;
	do {
		if (taker->call == CALLS_MAX || !scenario->threads[thread][taker->call])
			return false;
		taker->call++;
		call = call_of(state, thread);
	} while (call.verb == PUSH && !hand->count);
	taker->marked = (uint8_t)call.stack;
	if (call.verb != PUSH)
		return true;
	index = hand->magazines[call.last ? hand->count - 1 : 0];
	ghost->busy[thread] = (uint8_t)(index + 1);
	ghost->content[index] = number_of(state, thread);
	ex_write(state, thread, index, ghost->content[index]);
	return true;
}

/* For LOCKED: what a lock instead would be. */
static void lock_stack(void)
{
	uint64_t expected;

	if (plant != LOCKED)
		return;
	do
		expected = 0;
	while (!ex_exchange(LOCK_LOCATION, &expected, 1, UINT64_MAX, memory_order_acquire,
			    memory_order_relaxed));
}

static void prepare(struct ex_state *state, unsigned thread, enum call verb)
{
	unsigned i;

	now.state = state;
	now.thread = thread;
	now.verb = verb;
	now.looked = false;
	for (i = 0; i < MAGAZINES; i++)
		now.rounds[i] = links[i].rounds = UINT16_MAX;
}

/* The last step of a call has been taken: from here on it is not made again. */
static void unlock_stack(void)
{
	notice_rounds();
	if (plant == LOCKED)
		ex_store(LOCK_LOCATION, 0, memory_order_release);
}

static void run_pop(struct hk_stack *stack)
{
	uint32_t got = hk_stack_pop(stacks, stack);

	unlock_stack();
	ex_tell("thread %u     has got %c\n", now.thread, letter(got));
	check_pop(now.state, now.thread, got);
}

static void run_push(struct hk_stack *stack, uint32_t depth_max)
{
	uint32_t index = ghost_of(now.state)->busy[now.thread] - 1u;
	bool pushed = hk_stack_push(stacks, stack, index, number_of(now.state, now.thread),
				    depth_max ? depth_max : UINT32_MAX);

	unlock_stack();
	ex_tell("thread %u     %s\n", now.thread, pushed ? "has pushed it" : "is refused");
	check_push(now.state, now.thread, pushed, depth_max);
}

static void run_size(struct hk_stack *stack)
{
	struct hk_stack_size size = hk_stack_size(stacks, stack);

	unlock_stack();
	ex_tell("thread %u     is told %u deep, %u blocks\n", now.thread, size.depth, size.blocks);
	check_size(now.state, now.thread, size.depth, size.blocks);
}

static void run_call(struct ex_state *state, unsigned thread)
{
	struct call_parts call = call_of(state, thread);
	struct hk_stack *stack = &heads[call.stack];

	prepare(state, thread, call.verb);
	lock_stack();
	if (call.verb == POP)
		run_pop(stack);
	else if (call.verb == PUSH)
		run_push(stack, call.depth_max);
	else
		run_size(stack);
}

static uint32_t exchanged(struct ex_state *state, unsigned thread, unsigned location, uint64_t old,
			  uint64_t value)
{
	if (location == LOCK_LOCATION)
		return 0;
	return check_exchange(state, thread, location, call_of(state, thread), old, value);
}

/* What is there at first is pushed by the code itself, before anything else runs. */
static void fill(struct ex_state *state)
{
	struct ghost *ghost = ghost_of(state);
	unsigned i, j, index = 0;

	memset(state, 0, sizeof(*state));
	for (i = 0; i < LOCATIONS; i++)
		state->locations[i].count = 1;
	now.direct = true;
	for (i = 0; i < STACKS; i++) {
		for (j = 0; j < scenario->filled[i]; j++, index++) {
			prepare(state, 0, PUSH);
			hk_stack_push(stacks, &heads[i], index, 64 + index, UINT32_MAX);
			put(&ghost->stacks[i], index);
		}
		state->locations[i].messages[0].note = note_of(ghost, i);
	}
	for (i = 0; i < EX_THREADS; i++)
		for (j = 0; j < scenario->hands[i]; j++)
			put(&ghost->hands[i], index++);
	now.direct = false;
	ghost->magazines = (uint8_t)index;
}

static void print_call(FILE *out, const struct ex_state *state, unsigned thread)
{
	struct call_parts call = call_of(state, thread);
	uint8_t busy = ((const struct ghost *)(const void *)state->own)->busy[thread];

	if (call.verb == PUSH)
		fprintf(out, "a push of %c, which has %u blocks, to", letter(busy),
			number_of(state, thread));
	else
		fprintf(out, call.verb == POP ? "a pop from" : "to look at the size of");
	fprintf(out, " stack %u", call.stack);
	if (call.depth_max)
		fprintf(out, ", at most %u deep", call.depth_max);
}

static void print_value(FILE *out, unsigned location, uint64_t value)
{
	if (location < STACKS)
		fprintf(out, "%c tag %u", letter((uint32_t)value), (unsigned)(value >> 32));
	else if (location < LOCK_LOCATION && (location - STACKS) % 3 == 0)
		fprintf(out, "%c", letter((uint32_t)value));
	else
		fprintf(out, "%u", (unsigned)value);
}

struct ex_result model_stack(const struct scenario *what, enum plant bug, FILE *trace)
{
	struct ex_program program = {
		.locations = LOCATIONS,
		.plains = 2 * MAGAZINES,
		.spurious = what->spurious,
		.stops = what->stops,
		.start = start_call,
		.run = run_call,
		.exchanged = exchanged,
		.ended = check_end,
		.print_call = print_call,
		.print_value = print_value,
		.location_names = location_names,
		.plain_names = plain_names,
	};
	struct ex_state first;

	scenario = what;
	plant = bug;
	while (program.threads < EX_THREADS && what->threads[program.threads][0])
		program.threads++;
	fill(&first);
	return ex_explore(&program, &first, trace);
}
