/* SPDX-License-Identifier: MIT */
/* Small programs of which it is known what C11 lets happen: does the explorer find just that? */
#ifndef TESTS_EXPLORE_LITMUS_H
#define TESTS_EXPLORE_LITMUS_H

#include "explore.h"

/**
 * struct litmus - how one went
 * @result: of the exploration.
 * @right: its outcome was seen where C11 has it, and else was not.
 * @outcome: that, in words.
 */
struct litmus {
	const char *name;
	struct ex_result result;
	bool right;
	const char *outcome;
};

/* Runs one by its number; false: there are no more. */
bool ex_litmus(unsigned number, struct litmus *litmus);

#endif /* TESTS_EXPLORE_LITMUS_H */
