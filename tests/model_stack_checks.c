/* SPDX-License-Identifier: MIT */
/*
 * What must be so of stacks of magazines.
 *
 * Beside the stack's memory goes a pile of magazines per stack, which changes with each exchange
 * of the head: what is popped must have lain on top, what is pushed must have the links that fit
 * below it. What a call says in the end is held against the piles that there were while it ran,
 * from the oldest one it could still have seen when it began.
 *
 * (A push that looks at the depth of the magazine on top, and is refused for it, may not go by
 * the depth that this magazine has in another stack meanwhile.)
 */
#include <string.h>

#include "model_stack.h"

void put(struct pile *pile, unsigned index)
{
	pile->magazines[pile->count++] = (uint8_t)index;
}

static void take(struct pile *pile, unsigned index)
{
	unsigned i, kept = 0;

	for (i = 0; i < pile->count; i++)
		if (pile->magazines[i] != index)
			pile->magazines[kept++] = pile->magazines[i];
	memset(pile->magazines + kept, 0, MAGAZINES - kept);
	pile->count = (uint8_t)kept;
}

/* A pile's topmost magazine: index plus one, or 0. */
static uint32_t top_of(const struct pile *pile)
{
	return pile->count ? pile->magazines[pile->count - 1] + 1u : 0;
}

static uint32_t blocks_of(const struct ghost *ghost, const struct pile *pile)
{
	uint32_t i, blocks = 0;

	for (i = 0; i < pile->count; i++)
		blocks += ghost->rounds[pile->magazines[i]];
	return blocks;
}

uint32_t note_of(const struct ghost *ghost, unsigned stack)
{
	return (uint32_t)ghost->stacks[stack].count << 16 | blocks_of(ghost, &ghost->stacks[stack]);
}

/* Was a stack so deep, or deeper, at any time since the call began, with so many blocks? */
static bool has_been(const struct ex_state *state, unsigned thread, uint32_t depth, uint32_t blocks,
		     bool or_more)
{
	const struct ex_thread *taker = &state->threads[thread];
	const struct ex_location *head = &state->locations[taker->marked];
	unsigned i;

	for (i = taker->mark; i < head->count; i++) {
		uint32_t note = head->messages[i].note;

		if (or_more ? note >> 16 >= depth : note == (depth << 16 | blocks))
			return true;
	}
	return false;
}

void check_pop(struct ex_state *state, unsigned thread, uint32_t got)
{
	struct ghost *ghost = ghost_of(state);
	uint32_t index = got - 1;

	if (got != ghost->got[thread]) {
		ex_fail("thread %u has popped %c, and is told %c", thread,
			letter(ghost->got[thread]), letter(got));
		return;
	}
	if (!got) {
		if (!has_been(state, thread, 0, 0, false))
			ex_fail("thread %u found a stack empty that was not", thread);
		return;
	}
	if (ex_read(state, thread, index) != ghost->content[index])
		ex_fail("thread %u got %c with another content", thread, letter(got));
	if (ex_read(state, thread, MAGAZINES + index) != ghost->rounds[index])
		ex_fail("thread %u got %c with other rounds", thread, letter(got));
}

void check_push(struct ex_state *state, unsigned thread, bool pushed, uint32_t depth_max)
{
	if (pushed != (ghost_of(state)->got[thread] != 0))
		ex_fail("thread %u is told that a push was%s done", thread, pushed ? "" : " not");
	else if (!pushed && !depth_max)
		ex_fail("thread %u was refused without a bound", thread);
	else if (!pushed && !has_been(state, thread, depth_max, 0, true))
		ex_fail("thread %u was refused, and the stack was never so deep", thread);
}

void check_size(struct ex_state *state, unsigned thread, uint32_t depth, uint32_t blocks)
{
	if (!has_been(state, thread, depth, blocks, false))
		ex_fail("thread %u was told a size that the stack never had", thread);
}

/* A head has changed: the links are to fit the pile. */
static void check_links(struct ex_state *state, unsigned stack)
{
	struct ghost *ghost = ghost_of(state);
	struct pile pile = ghost->stacks[stack];
	uint32_t next = (uint32_t)*latest(state, stack);

	for (; pile.count; pile.count--) {
		uint32_t index = pile.magazines[pile.count - 1];

		if (next != index + 1) {
			ex_fail("stack %u has %c where %c should be", stack, letter(next),
				letter(index + 1));
			return;
		}
		if (*latest(state, LINK_LOCATION(index, 1)) != pile.count ||
		    *latest(state, LINK_LOCATION(index, 2)) != blocks_of(ghost, &pile))
			ex_fail("depth and blocks of %c do not add up", letter(index + 1));
		next = (uint32_t)*latest(state, LINK_LOCATION(index, 0));
	}
	if (next)
		ex_fail("stack %u has %c at its end", stack, letter(next));
}

uint32_t check_exchange(struct ex_state *state, unsigned thread, unsigned location,
			struct call_parts call, uint64_t old, uint64_t value)
{
	struct ghost *ghost = ghost_of(state);
	struct pile *pile = &ghost->stacks[location], *hand = &ghost->hands[thread];
	uint32_t moved = (uint32_t)(call.verb == POP ? old : value);

	if (location != call.stack || ghost->got[thread])
		ex_fail("thread %u exchanged what it should not", thread);
	ghost->got[thread] = (uint8_t)moved;
	if (call.verb == POP) {
		if (!moved || moved != top_of(pile)) {
			ex_fail("thread %u took %c where %c is on top", thread, letter(moved),
				letter(top_of(pile)));
			return 0;
		}
		take(pile, moved - 1);
		put(hand, moved - 1);
	} else {
		if (moved != ghost->busy[thread]) {
			ex_fail("thread %u pushed %c for %c", thread, letter(moved),
				letter(ghost->busy[thread]));
			return 0;
		}
		take(hand, moved - 1);
		put(pile, moved - 1);
		if (call.depth_max && pile->count > call.depth_max)
			ex_fail("stack %u is too deep", location);
	}
	check_links(state, location);
	return note_of(ghost, location);
}

/* All is done: every magazine lies in one stack or hand, by the links as by the piles. */
void check_end(struct ex_state *state)
{
	const struct ghost *ghost = ghost_of(state);
	unsigned count[MAGAZINES + 1] = { 0 };
	unsigned i, j;

	for (i = 0; i < EX_THREADS; i++)
		for (j = 0; j < ghost->hands[i].count; j++)
			count[ghost->hands[i].magazines[j] + 1]++;
	for (i = 0; i < STACKS; i++) {
		uint32_t next = (uint32_t)*latest(state, i);

		for (j = 0; next && next <= MAGAZINES && j < MAGAZINES; j++) {
			count[next]++;
			next = (uint32_t)*latest(state, LINK_LOCATION(next - 1, 0));
		}
		check_links(state, i);
	}
	for (i = 1; i <= MAGAZINES; i++)
		if (count[i] > 1 || (!count[i] && i <= ghost->magazines))
			ex_fail("%c is there %u times", letter(i), count[i]);
}
