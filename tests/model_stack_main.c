/* SPDX-License-Identifier: MIT */
/*
 * model_stack: explores scenarios of stacks of magazines, which must hold, then bugs planted in
 * them, which must be found. Some plants are none: orders that the code could do without. Before
 * that, litmus tests show that the explorer knows C11.
 *
 * Without --help or --traces it takes no arguments. Exit code: 0: all is so, 1: not so, 2: usage.
 */
#include <inttypes.h>
#include <string.h>

#include "explore_litmus.h"
#include "model_stack.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* A name's threads are told apart by "|"; "push<2" is refused by a stack two deep; calls of the
 * other stack are in capitals. The least of states is two thirds of those there are now. */
static const struct scenario scenarios[] = {
	{
		.name = "pop | pop",
		.threads = { { POP }, { POP } },
		.filled = { 1 },
		.spurious = 2,
		.least = 48,
	},
	{
		.name = "push | push",
		.threads = { { PUSH }, { PUSH } },
		.hands = { 1, 1 },
		.spurious = 2,
		.least = 240,
	},
	{
		.name = "pop | push",
		.threads = { { POP }, { PUSH } },
		.filled = { 1 },
		.hands = { 0, 1 },
		.spurious = 2,
		.least = 160,
	},
	{
		.name = "pop | pop pop push",
		.threads = { { POP }, { POP, POP, PUSH } },
		.filled = { 2 },
		.spurious = 2,
		.least = 880,
	},
	{
		.name = "pop pop push | pop pop push",
		.threads = { { POP, POP, PUSH }, { POP, POP, PUSH } },
		.filled = { 3 },
		.spurious = 2,
		.least = 13000,
	},
	{
		.name = "pop push push | pop push pop",
		.threads = { { POP, PUSH, PUSH }, { POP, PUSH_LAST, POP } },
		.filled = { 2 },
		.hands = { 1, 1 },
		.spurious = 2,
		.least = 44000,
	},
	{
		.name = "pop push | pop push | pop push",
		.threads = { { POP, PUSH }, { POP, PUSH }, { POP, PUSH } },
		.filled = { 2 },
		.spurious = 1,
		.least = 350000,
	},
	{
		.name = "push | push | size pop",
		.threads = { { PUSH }, { PUSH }, { SIZE, POP } },
		.filled = { 1 },
		.hands = { 1, 1 },
		.spurious = 1,
		.least = 4100,
	},
	{
		.name = "size | pop PUSH",
		.threads = { { SIZE }, { POP, PUSH_OTHER } },
		.filled = { 2, 2 },
		.spurious = 2,
		.least = 690,
	},
	{
		.name = "size | pop pop push push",
		.threads = { { SIZE }, { POP, POP, PUSH, PUSH } },
		.filled = { 3 },
		.spurious = 2,
		.least = 5100,
	},
	{
		.name = "size size | pop PUSH | POP push",
		.threads = { { SIZE, SIZE }, { POP, PUSH_OTHER }, { POP_OTHER, PUSH } },
		.filled = { 2, 1 },
		.spurious = 1,
		.least = 420000,
	},
	{
		.name = "push<2 | push<2 | pop",
		.threads = { { PUSH_TO_2 }, { PUSH_TO_2 }, { POP } },
		.filled = { 1 },
		.hands = { 1, 1 },
		.spurious = 1,
		.least = 1800,
	},
	{
		.name = "push<2 | pop pop push push",
		.threads = { { PUSH_TO_2 }, { POP, POP, PUSH, PUSH } },
		.filled = { 2 },
		.hands = { 1 },
		.spurious = 2,
		.least = 8700,
	},
	{
		.name = "push<2 | pop PUSH",
		.threads = { { PUSH_TO_2 }, { POP, PUSH_OTHER } },
		.filled = { 1, 1 },
		.hands = { 1 },
		.spurious = 2,
		.least = 1400,
	},
	{
		.name = "one stops: pop push | pop push size",
		.threads = { { POP, PUSH }, { POP, PUSH, SIZE } },
		.filled = { 2 },
		.spurious = 1,
		.stops = true,
		.least = 7500,
	},
	{
		.name = "one stops: pop | push<2 | pop push",
		.threads = { { POP }, { PUSH_TO_2 }, { POP, PUSH } },
		.filled = { 2 },
		.hands = { 0, 1 },
		.spurious = 1,
		.stops = true,
		.least = 13000,
	},
	{
		.name = "one stops: size | pop PUSH | push",
		.threads = { { SIZE }, { POP, PUSH_OTHER }, { PUSH } },
		.filled = { 2, 1 },
		.hands = { 0, 0, 1 },
		.spurious = 1,
		.stops = true,
		.least = 30000,
	},
	{
		.name = "one stops: pop | pop",
		.threads = { { POP }, { POP } },
		.filled = { 2 },
		.stops = true,
		.least = 22,
	},
};

static const struct planted {
	enum plant plant;
	bool is_none;
	const char *scenario;
	const char *what;
} plants[] = {
	{ TAG_IGNORED, false, "pop | pop pop push", "exchanges do not compare the tag" },
	{ TAG_KEPT, false, "pop | pop pop push", "exchanges leave the tag as it is" },
	{ PUSH_UNRELEASED, false, "pop | push", "a push releases nothing" },
	{ POP_UNACQUIRED, false, "pop | push", "a pop acquires nothing" },
	{ POP_LOOKS_RELAXED, false, "pop | push", "a pop's first look is relaxed" },
	{ POP_FAILS_RELAXED, false, "pop | push", "a pop that fails is relaxed" },
	/* what it reads was read with acquire before; C11 wants no less than of a failure */
	{ POP_TAKES_RELAXED, true, "pop push push | pop push pop",
	  "a pop that succeeds is relaxed" },
	{ PUSH_LOOKS_RELAXED, false, "push | push", "a push's first look is relaxed" },
	{ PUSH_FAILS_RELAXED, false, "push | push", "a push that fails is relaxed" },
	{ SIZE_LOOKS_RELAXED, false, "push | push | size pop", "a size's looks are relaxed" },
	{ SIZE_READS_RELAXED, false, "size | pop PUSH", "a size's reads of the link are relaxed" },
	{ SIZE_LOOKS_ONCE, false, "size | pop PUSH", "a size does not look again" },
	{ LINKS_UNRELEASED, false, "size | pop PUSH", "links are written relaxed" },
	{ LOCKED, false, "one stops: pop | pop", "a lock goes round it all" },
};

static unsigned passed, failed;

static void print_row(const char *name, const struct ex_result *result, bool good,
		      const char *outcome)
{
	printf("%-44s %8" PRIu64 " %10.4g %6" PRIu64 " %6u %7u  %s%s\n", name, result->states,
	       result->executions, result->cut, result->call_steps, result->steps,
	       good ? "" : "FAILED: ", outcome);
	fflush(stdout);
	passed += good;
	failed += !good;
}

static void print_head(const char *what)
{
	printf("%-44s %8s %10s %6s %6s %7s  result\n", what, "states", "executions", "cut",
	       "a call", "steps");
}

static void explore_scenario(const struct scenario *scenario)
{
	struct ex_result result = model_stack(scenario, NONE, stdout);
	const char *outcome = result.failure;

	if (!*outcome && result.cut)
		outcome = "calls that do not come to an end";
	if (!*outcome && result.states < scenario->least)
		outcome = "too little was explored";
	print_row(scenario->name, &result, !*outcome, *outcome ? outcome : "holds");
}

static const struct scenario *scenario_of(const char *name)
{
	const struct scenario *scenario = scenarios;

	while (strcmp(scenario->name, name) != 0)
		scenario++;
	return scenario;
}

static void explore_planted(const struct planted *planted, bool traces)
{
	const struct scenario *scenario = scenario_of(planted->scenario);
	struct ex_result result = model_stack(scenario, planted->plant, traces ? stdout : NULL);
	const char *outcome = result.failure;
	bool found = *outcome != 0;

	if (!found)
		outcome = planted->is_none ? "is none" : "not found";
	print_row(planted->what, &result, found != planted->is_none, outcome);
}

static void run_litmus(void)
{
	struct litmus litmus;
	unsigned i;

	for (i = 0; ex_litmus(i, &litmus); i++)
		print_row(litmus.name, &litmus.result, litmus.right, litmus.outcome);
}

static int usage(FILE *out, int code)
{
	fprintf(out,
		"usage: model_stack [--traces | --help]\n\n"
		"Explores all that few threads can do to stacks of magazines, by C11's memory\n"
		"model: every order of their steps, every store that a load may read, up to two\n"
		"exchanges that fail without need. The code is that of hakmem/stack.c.\n\n"
		"A line says of a scenario, or of a planted bug up to where it was found:\n"
		"states      that differ\n"
		"executions  ways through them from the start to an end\n"
		"cut         calls given up since they took too many steps\n"
		"a call      steps of the longest\n"
		"steps       of the longest execution, or of the one that failed\n\n"
		"In a scenario's name calls of threads are told apart by |; push<2 is refused by\n"
		"a stack two deep; POP and PUSH are of another stack than pop, push and size.\n"
		"A scenario that fails prints its execution: each step with what it read or wrote.\n"
		"--traces prints that for planted bugs too.\n");
	return code;
}

int main(int argc, char **argv)
{
	bool traces = argc == 2 && !strcmp(argv[1], "--traces");
	unsigned i;

	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (argc > 1 && !traces)
		return usage(stderr, 2);
	print_head("litmus test of the explorer");
	run_litmus();
	printf("\n");
	print_head("scenario");
	for (i = 0; i < COUNT(scenarios); i++)
		explore_scenario(&scenarios[i]);
	printf("\n");
	print_head("planted bug");
	for (i = 0; i < COUNT(plants); i++)
		explore_planted(&plants[i], traces);
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
