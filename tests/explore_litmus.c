/* SPDX-License-Identifier: MIT */
/* Litmus tests of the explorer; see explore_litmus.h. Their names are those of the literature. */
#include <string.h>

#include "explore_litmus.h"

#define STEPS 2
#define RELAXED memory_order_relaxed
#define ACQUIRE memory_order_acquire
#define RELEASE memory_order_release

/* One step: of X or Y, which are 0 at first. An exchange is of @value for one less. */
struct step {
	enum {
		NOTHING,
		READ,
		WRITE,
		EXCHANGE
	} what;
	enum {
		X,
		Y
	} location;
	uint8_t value; /* of a read: the one that is asked about */
	memory_order order;
};

/**
 * struct test - a program
 * @last: what X and Y are to be in the end besides; 0: any.
 * @happens: there is an execution in which all reads read what is asked about, by C11 (C++20 in
 *	the matter of release sequences), and all exchanges succeed.
 */
struct test {
	const char *name;
	struct step threads[EX_THREADS][STEPS];
	uint8_t last[2];
	bool happens;
};

static const struct test tests[] = {
	{
		.name = "SB: both read what was before",
		.threads = { { { WRITE, X, 1, RELEASE }, { READ, Y, 0, ACQUIRE } },
			     { { WRITE, Y, 1, RELEASE }, { READ, X, 0, ACQUIRE } } },
		.happens = true,
	},
	{
		.name = "MP: release, acquire",
		.threads = { { { WRITE, X, 1, RELAXED }, { WRITE, Y, 1, RELEASE } },
			     { { READ, Y, 1, ACQUIRE }, { READ, X, 0, RELAXED } } },
	},
	{
		.name = "MP: relaxed, acquire",
		.threads = { { { WRITE, X, 1, RELAXED }, { WRITE, Y, 1, RELAXED } },
			     { { READ, Y, 1, ACQUIRE }, { READ, X, 0, RELAXED } } },
		.happens = true,
	},
	{
		.name = "MP: release, relaxed",
		.threads = { { { WRITE, X, 1, RELAXED }, { WRITE, Y, 1, RELEASE } },
			     { { READ, Y, 1, RELAXED }, { READ, X, 0, RELAXED } } },
		.happens = true,
	},
	{
		.name = "MP: by a relaxed exchange of a third",
		.threads = { { { WRITE, X, 1, RELAXED }, { WRITE, Y, 1, RELEASE } },
			     { { EXCHANGE, Y, 2, RELAXED } },
			     { { READ, Y, 2, ACQUIRE }, { READ, X, 0, RELAXED } } },
	},
	{
		.name = "MP: by a relaxed write of a third",
		.threads = { { { WRITE, X, 1, RELAXED }, { WRITE, Y, 1, RELEASE } },
			     { { READ, Y, 1, ACQUIRE }, { WRITE, Y, 2, RELAXED } },
			     { { READ, Y, 2, ACQUIRE }, { READ, X, 0, RELAXED } } },
		.happens = true,
	},
	{
		.name = "WRC: release, acquire twice",
		.threads = { { { WRITE, X, 1, RELAXED } },
			     { { READ, X, 1, RELAXED }, { WRITE, Y, 1, RELEASE } },
			     { { READ, Y, 1, ACQUIRE }, { READ, X, 0, RELAXED } } },
	},
	{
		.name = "CoRR: a later read reads the earlier write",
		.threads = { { { WRITE, X, 1, RELAXED }, { WRITE, X, 2, RELAXED } },
			     { { READ, X, 2, RELAXED }, { READ, X, 1, RELAXED } } },
	},
	{
		.name = "CoRR2: two read two writes in two orders",
		.threads = { { { WRITE, X, 1, RELAXED } },
			     { { READ, X, 1, RELAXED }, { WRITE, X, 2, RELAXED } },
			     { { READ, X, 2, RELAXED }, { READ, X, 1, RELAXED } } },
	},
	{
		.name = "2+2W: the first writes come last",
		.threads = { { { WRITE, X, 1, RELAXED }, { WRITE, Y, 2, RELAXED } },
			     { { WRITE, Y, 1, RELAXED }, { WRITE, X, 2, RELAXED } } },
		.last = { 1, 1 },
		.happens = true,
	},
	{
		.name = "2+2W: with release only",
		.threads = { { { WRITE, X, 1, RELEASE }, { WRITE, Y, 2, RELEASE } },
			     { { WRITE, Y, 1, RELEASE }, { WRITE, X, 2, RELEASE } } },
		.last = { 1, 1 },
		.happens = true,
	},
	{
		.name = "R: a write that is read too late",
		.threads = { { { WRITE, X, 1, RELEASE }, { WRITE, Y, 1, RELEASE } },
			     { { WRITE, Y, 2, RELEASE }, { READ, X, 0, ACQUIRE } } },
		.last = { 0, 2 },
		.happens = true,
	},
	{
		.name = "S: release, acquire, then a write",
		.threads = { { { WRITE, X, 2, RELAXED }, { WRITE, Y, 1, RELEASE } },
			     { { READ, Y, 1, ACQUIRE }, { WRITE, X, 1, RELAXED } } },
		.last = { 2, 0 },
	},
	{
		.name = "two exchanges of the same value",
		.threads = { { { EXCHANGE, X, 1, RELAXED } }, { { EXCHANGE, X, 1, RELAXED } } },
	},
	{
		.name = "a write between an exchange and what it read",
		.threads = { { { EXCHANGE, X, 1, RELAXED } },
			     { { WRITE, X, 2, RELAXED }, { READ, X, 1, RELAXED } } },
	},
	{
		.name = "a write after an exchange that ran later",
		.threads = { { { WRITE, X, 2, RELAXED } }, { { EXCHANGE, X, 1, RELAXED } } },
		.last = { 2, 0 },
		.happens = true,
	},
	{
		/* C11 has it; explore.h says why it is not here */
		.name = "LB: both read what comes after",
		.threads = { { { READ, X, 1, RELAXED }, { WRITE, Y, 1, RELAXED } },
			     { { READ, Y, 1, RELAXED }, { WRITE, X, 1, RELAXED } } },
	},
};

static const struct test *test;
static bool seen;

static bool start_step(struct ex_state *state, unsigned thread)
{
	struct ex_thread *taker = &state->threads[thread];

	if (taker->call == STEPS || !test->threads[thread][taker->call].what)
		return false;
	taker->call++;
	return true;
}

/* Whether it went as asked is noted in the state: how many did not. */
static void run_step(struct ex_state *state, unsigned thread)
{
	const struct step *step = &test->threads[thread][state->threads[thread].call - 1];
	uint64_t expected = step->value - 1u;

	if (step->what == READ)
		state->own[0] |= ex_load(step->location, step->order) != step->value;
	else if (step->what == WRITE)
		ex_store(step->location, step->value, step->order);
	else
		state->own[0] |= !ex_exchange(step->location, &expected, step->value, UINT64_MAX,
					      step->order, RELAXED);
}

static uint32_t no_note(struct ex_state *state, unsigned thread, unsigned location, uint64_t old,
			uint64_t value)
{
	(void)state;
	(void)thread;
	(void)location;
	(void)old;
	(void)value;
	return 0;
}

static void look_back(struct ex_state *state)
{
	bool so = !state->own[0];
	unsigned i;

	for (i = 0; i < 2; i++) {
		const struct ex_location *object = &state->locations[i];

		if (test->last[i])
			so = so && object->messages[object->count - 1].value == test->last[i];
	}
	seen |= so;
}

bool ex_litmus(unsigned number, struct litmus *litmus)
{
	struct ex_program program = {
		.locations = 2,
		.start = start_step,
		.run = run_step,
		.exchanged = no_note,
		.ended = look_back,
	};
	struct ex_state first;

	if (number == sizeof(tests) / sizeof(*tests))
		return false;
	test = &tests[number];
	seen = false;
	while (program.threads < EX_THREADS && test->threads[program.threads][0].what)
		program.threads++;
	memset(&first, 0, sizeof(first));
	first.locations[X].count = 1;
	first.locations[Y].count = 1;
	litmus->name = test->name;
	litmus->result = ex_explore(&program, &first, NULL);
	litmus->right = seen == test->happens && !litmus->result.failure[0];
	litmus->outcome = seen ? "seen" : "never";
	return true;
}
