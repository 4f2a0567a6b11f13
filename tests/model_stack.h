/* SPDX-License-Identifier: MIT */
/*
 * Stacks of magazines under the explorer: model_stack.c has the code and makes the calls,
 * model_stack_checks.c says what must be so, model_stack_main.c what is explored.
 */
#ifndef TESTS_MODEL_STACK_H
#define TESTS_MODEL_STACK_H

#include "explore.h"

#define MAGAZINES 4
#define STACKS 2
#define CALLS_MAX 5

/* The explorer's names of what is atomic: heads, then next, depth and blocks of each link. */
#define LINK_LOCATION(index, field) (STACKS + 3 * (index) + (field))
#define LOCK_LOCATION LINK_LOCATION(MAGAZINES, 0)
#define LOCATIONS (LOCK_LOCATION + 1)

/* What a thread can do; of what it has it pushes what it got first, or last. */
enum call {
	END,
	POP,
	PUSH,
	PUSH_LAST,
	PUSH_TO_2, /* unless it is two deep */
	SIZE,
	POP_OTHER, /* of the other stack */
	PUSH_OTHER,
};

/* Bugs that the hooks can make, and orders that they can weaken. */
enum plant {
	NONE,
	TAG_IGNORED,
	TAG_KEPT,
	PUSH_UNRELEASED,
	POP_UNACQUIRED,
	POP_LOOKS_RELAXED,
	POP_FAILS_RELAXED,
	POP_TAKES_RELAXED,
	PUSH_LOOKS_RELAXED,
	PUSH_FAILS_RELAXED,
	SIZE_LOOKS_RELAXED,
	SIZE_READS_RELAXED,
	SIZE_LOOKS_ONCE,
	LINKS_UNRELEASED,
	LOCKED,
};

/**
 * struct scenario - what is explored
 * @threads: what each does.
 * @filled: how many magazines lie in each stack at first.
 * @hands: how many each thread has at first.
 * @spurious, @stops: see struct ex_program.
 * @least: states that there must be, of a scenario that holds.
 */
struct scenario {
	const char *name;
	enum call threads[EX_THREADS][CALLS_MAX];
	uint8_t filled[STACKS];
	uint8_t hands[EX_THREADS];
	uint8_t spurious;
	bool stops;
	uint64_t least;
};

/* Magazines by their index, the lowest first. */
struct pile {
	uint8_t count;
	uint8_t magazines[MAGAZINES];
};

/**
 * struct ghost - what the checks know, in struct ex_state
 * @stacks: what lies in each.
 * @hands: what each thread has; what it pushes is its own until the exchange.
 * @content, @rounds: of each magazine, as last written.
 * @busy: per thread, index plus one of the magazine it pushes.
 * @got: per thread, index plus one of the magazine that its call took or gave; 0: none.
 * @magazines: that there are.
 */
struct ghost {
	struct pile stacks[STACKS];
	struct pile hands[EX_THREADS];
	uint8_t content[MAGAZINES];
	uint8_t rounds[MAGAZINES];
	uint8_t busy[EX_THREADS];
	uint8_t got[EX_THREADS];
	uint8_t magazines;
};

_Static_assert(sizeof(struct ghost) <= EX_OWN, "EX_OWN is too small");
_Static_assert(LOCATIONS <= EX_LOCATIONS, "EX_LOCATIONS is too small");
_Static_assert(2 * MAGAZINES <= EX_PLAINS, "EX_PLAINS is too small");

static inline struct ghost *ghost_of(struct ex_state *state)
{
	return (struct ghost *)(void *)state->own;
}

/* What a location was last set to. */
static inline uint64_t *latest(struct ex_state *state, unsigned location)
{
	struct ex_location *object = &state->locations[location];

	return &object->messages[object->count - 1].value;
}

static inline char letter(uint32_t index_plus_one)
{
	return "-ABCD?"[index_plus_one > MAGAZINES ? MAGAZINES + 1 : index_plus_one];
}

/* A thread's call, PUSH for all that push, POP, SIZE; END: none. */
struct call_parts {
	enum call verb;
	unsigned stack;
	uint32_t depth_max; /* 0: none */
	bool last;
};

struct call_parts parts_of(enum call call);

/* What the piles say: @end, of a call; a pile as a message's note; all is done. */
void check_pop(struct ex_state *state, unsigned thread, uint32_t got);
void check_push(struct ex_state *state, unsigned thread, bool pushed, uint32_t depth_max);
void check_size(struct ex_state *state, unsigned thread, uint32_t depth, uint32_t blocks);
void check_end(struct ex_state *state);
uint32_t note_of(const struct ghost *ghost, unsigned stack);
void put(struct pile *pile, unsigned index);

/* The head of a stack was exchanged in such a call. */
uint32_t check_exchange(struct ex_state *state, unsigned thread, unsigned location,
			struct call_parts call, uint64_t old, uint64_t value);

/* Explores a scenario with a bug planted. A trace of what fails is printed to @trace. */
struct ex_result model_stack(const struct scenario *what, enum plant bug, FILE *trace);

#endif /* TESTS_MODEL_STACK_H */
