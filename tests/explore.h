/* SPDX-License-Identifier: MIT */
/*
 * Explores everything that a few threads can do with shared memory, by the rules of C11.
 *
 * A program is a few threads, each with a list of calls. What they do to atomic objects goes
 * through ex_load(), ex_store() and ex_exchange(), which stand in for those of stdatomic.h. Each
 * of these is a step. After each step it is open which thread takes the next, which store a load
 * reads, and whether a weak compare-exchange fails though it need not: all of it is tried.
 *
 * How a call waits for its turn: it does not. It is made from its start for each of its steps,
 * with the answers to its earlier steps as they were, and left by longjmp() at the first step
 * that has no answer yet. So a state of the whole is a plain struct that can be copied, compared
 * and gone on from, and a state that was reached on two ways is gone on from once.
 *
 * The memory (explore_memory.c) is that of views (Kang and others, "A Promising Semantics for
 * Relaxed-Memory Concurrency", 2017, without its promises). A location is the list of its stores
 * in modification order, called messages. A thread's view says per location which is the oldest
 * message that it may still read. A release puts the view into the message, an acquire takes it
 * from there, an exchange hands on the view of the message it read (a release sequence; not so a
 * later store of the same thread, which C11 has and C++20 has not). A store may come anywhere
 * in modification order beyond the thread's view. Data that is not atomic is to be read and
 * written in an order that happens-before gives, by a clock in each view, else it is a race.
 *
 * These are the executions of RC11 (Lahav and others, "Repairing Sequential Consistency in
 * C/C++11", 2017) of relaxed, acquire and release operations: all of C11's but those in which a
 * load reads what comes into being only after it, by way of what other threads read. Compilers
 * and processors do this to a relaxed load and an independent store behind it (load buffering).
 * What is explored must argue by itself that it has no such pair. Not modelled: fences, consume,
 * seq_cst, which would count as acquire and release; addresses that are recycled.
 *
 * States are told apart by a hash of 128 bits, and two that share one would be taken for one:
 * for n states that is likely by less than n * n / 2^129, 10^-25 for ten million, as far as the
 * hash mixes well; it is not made to resist anybody.
 */
#ifndef TESTS_EXPLORE_H
#define TESTS_EXPLORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EX_THREADS 3
#define EX_LOCATIONS 15
#define EX_PLAINS 8
#define EX_MESSAGES 12 /* of a location, as far as a thread may still read them */
#define EX_ANSWERS 48  /* steps of a call */
#define EX_OWN 64

/**
 * struct ex_view - what a thread knows of
 * @at: per location, the oldest message that may be read.
 * @clock: per thread, how many of its accesses of plain data happened before.
 */
struct ex_view {
	uint8_t at[EX_LOCATIONS];
	uint8_t clock[EX_THREADS];
};

/* No struct in a state has padding, since its bytes are hashed. */
struct ex_message {
	uint64_t value;
	uint32_t note; /* the program's, of an exchange */
	struct ex_view view;
	uint8_t exchanged; /* by a compare-exchange, so that nothing comes between it and the last */
	uint8_t unused;
};

struct ex_location {
	struct ex_message messages[EX_MESSAGES];
	uint8_t count;
};

/**
 * struct ex_plain - data that is not atomic
 * @writer: one more than the thread that wrote last; 0: before all.
 * @written: that thread's clock then.
 * @read: per thread, its clock when it last read since.
 */
struct ex_plain {
	uint8_t value;
	uint8_t writer;
	uint8_t written;
	uint8_t read[EX_THREADS];
};

enum ex_kind {
	EX_LOAD,
	EX_STORE,
	EX_EXCHANGE,
};

/* A step that a thread is about to take. */
struct ex_request {
	uint64_t expected;
	uint64_t value;
	uint64_t mask; /* bits that an exchange compares: all, unless that is a planted bug */
	enum ex_kind kind;
	memory_order order;
	memory_order failure;
	uint8_t location;
};

enum ex_life {
	EX_ALIVE,
	EX_FINISHED,
	EX_STOPPED, /* for ever, wherever it was */
};

/**
 * struct ex_thread - a thread
 * @view: what it knows of.
 * @call: which of its calls it is in.
 * @marked: a location, for @start to name; @mark: what @view had of it then. It keeps messages
 *	from that on from being forgotten.
 * @life: enum ex_life.
 * @answers: how many steps the call has taken.
 * @exchanged: a bit for each, whether it is an exchange that succeeded.
 * @values: what each read.
 * @request: the next.
 */
struct ex_thread {
	struct ex_view view;
	uint8_t call;
	uint8_t marked;
	uint8_t mark;
	uint8_t life;
	uint8_t answers;
	uint8_t unused;
	uint64_t exchanged;
	uint64_t values[EX_ANSWERS];
	struct ex_request request;
};

/**
 * struct ex_state - where an execution has come to
 * @own: the program's: what it needs for its checks, plain bytes.
 * @spurious: how many exchanges may still fail that need not.
 * @stopped: a thread has stopped for ever.
 */
struct ex_state {
	_Alignas(uint64_t) uint8_t own[EX_OWN];
	struct ex_plain plains[EX_PLAINS];
	uint8_t spurious;
	uint8_t stopped;
	struct ex_thread threads[EX_THREADS];
	struct ex_location locations[EX_LOCATIONS];
};

/**
 * struct ex_program - what is explored
 * @threads: how many there are; and so on.
 * @spurious: how many exchanges of an execution may fail that need not.
 * @stops: one thread may stop for ever, at any step.
 * @start: a thread's next call begins: once for each call; false: it has no more.
 * @run: makes the call; as often as it has steps. What follows its last step is done once.
 * @exchanged: an exchange succeeded; what comes back becomes the message's note.
 * @ended: every thread has finished or stopped.
 * @print_call, @print_value: for the trace, of a call, and of a value of a location.
 */
struct ex_program {
	unsigned threads, locations, plains;
	unsigned spurious;
	bool stops;
	bool (*start)(struct ex_state *state, unsigned thread);
	void (*run)(struct ex_state *state, unsigned thread);
	uint32_t (*exchanged)(struct ex_state *state, unsigned thread, unsigned location,
			      uint64_t old, uint64_t value);
	void (*ended)(struct ex_state *state);
	void (*print_call)(FILE *out, const struct ex_state *state, unsigned thread);
	void (*print_value)(FILE *out, unsigned location, uint64_t value);
	const char *const *location_names;
	const char *const *plain_names;
};

/**
 * struct ex_result - how it went
 * @states: that differ.
 * @executions: ways through them from the start to an end.
 * @cut: calls that were given up after EX_ANSWERS steps.
 * @call_steps: of the longest call that came to its end.
 * @steps: of the longest execution, or of the one that failed.
 * @failure: of the first check that failed; empty: none.
 */
struct ex_result {
	uint64_t states;
	double executions;
	uint64_t cut;
	unsigned call_steps;
	unsigned steps;
	char failure[160];
};

/* Explores all from @first on, until a check fails; then that execution is printed to @trace. */
struct ex_result ex_explore(const struct ex_program *program, const struct ex_state *first,
			    FILE *trace);

/* For @run: the steps. */
uint64_t ex_load(unsigned location, memory_order order);
void ex_store(unsigned location, uint64_t value, memory_order order);
bool ex_exchange(unsigned location, uint64_t *expected, uint64_t value, uint64_t mask,
		 memory_order success, memory_order failure);

/* Is the call beyond the steps that it has taken before, for the first time? */
bool ex_is_new(void);

/* For all but @print_call and @print_value: a check failed; the first one counts. */
__attribute__((format(printf, 1, 2))) void ex_fail(const char *format, ...);

/* For @start, @run: accesses of plain data. */
void ex_write(struct ex_state *state, unsigned thread, unsigned plain, uint8_t value);
uint8_t ex_read(struct ex_state *state, unsigned thread, unsigned plain);

/* For the trace, where one is printed now. */
__attribute__((format(printf, 1, 2))) void ex_tell(const char *format, ...);

/* From here on what explore.c and explore_memory.c have of each other. */

const char *ex_plain_name(unsigned plain);

/**
 * struct ex_choice - a way to take a step
 * @outcome: what happens.
 * @message: the one read; of a store, the one it becomes.
 */
struct ex_choice {
	enum ex_outcome {
		EX_READ,
		EX_WRITE,
		EX_SUCCESS,
		EX_FAILURE,
		EX_SPURIOUS,
		EX_STOP,
	} outcome;
	uint8_t message;
};

#define EX_CHOICES (2 * EX_MESSAGES + 1)

/* All ways a thread can take its next step, the newest message first: how many. */
unsigned ex_choices(const struct ex_state *state, unsigned thread, struct ex_choice *choices);

/* Takes it. */
void ex_step(const struct ex_program *program, struct ex_state *state, unsigned thread,
	     struct ex_choice choice);

/* Forgets messages that nobody can read any more, so that states do not differ in them. */
void ex_forget(const struct ex_program *program, struct ex_state *state);

#endif /* TESTS_EXPLORE_H */
