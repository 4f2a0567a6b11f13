/* SPDX-License-Identifier: MIT */
/* The search of the explorer; see explore.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

#define STEPS_MAX 250

_Static_assert(sizeof(struct ex_message) == 32, "padding would be hashed");
_Static_assert(offsetof(struct ex_thread, exchanged) == 24, "padding would be hashed");
_Static_assert(EX_ANSWERS <= 64, "a bit for each");

struct hash {
	uint64_t a, b;
};

/* A state that was gone on from to all its ends. */
struct known {
	struct hash hash;
	double executions;
};

/* On the way from the start to where the search is. */
struct node {
	struct ex_state state;
	struct ex_choice choice; /* that led here */
	unsigned thread;
};

/* The exploration that is at work. */
static struct {
	const struct ex_program *program;
	struct ex_result result;
	FILE *trace; /* while one is printed */
	unsigned failed_at;
	struct node *path;
	struct known *known;
	uint64_t room;
} ex;

/* The call that is made. */
static struct {
	struct ex_thread *thread;
	unsigned number;
	unsigned answer; /* how many steps have got theirs */
	jmp_buf leave;
} now;

void ex_fail(const char *format, ...)
{
	va_list arguments;

	if (ex.result.failure[0])
		return;
	va_start(arguments, format);
	vsnprintf(ex.result.failure, sizeof(ex.result.failure), format, arguments);
	va_end(arguments);
}

void ex_tell(const char *format, ...)
{
	va_list arguments;

	if (!ex.trace)
		return;
	va_start(arguments, format);
	vfprintf(ex.trace, format, arguments);
	va_end(arguments);
}

const char *ex_plain_name(unsigned plain)
{
	return ex.program->plain_names[plain];
}

bool ex_is_new(void)
{
	return now.answer == now.thread->answers;
}

/* What the next step of the call read; the call is left where it has not been taken yet. */
static uint64_t answer_to(const struct ex_request *request)
{
	if (ex_is_new()) {
		now.thread->request = *request;
		longjmp(now.leave, 1);
	}
	return now.thread->values[now.answer++];
}

uint64_t ex_load(unsigned location, memory_order order)
{
	struct ex_request request = { .kind = EX_LOAD,
				      .location = (uint8_t)location,
				      .order = order };

	return answer_to(&request);
}

void ex_store(unsigned location, uint64_t value, memory_order order)
{
	struct ex_request request = {
		.kind = EX_STORE, .location = (uint8_t)location, .value = value, .order = order
	};

	answer_to(&request);
}

bool ex_exchange(unsigned location, uint64_t *expected, uint64_t value, uint64_t mask,
		 memory_order success, memory_order failure)
{
	struct ex_request request = {
		.kind = EX_EXCHANGE,
		.location = (uint8_t)location,
		.expected = *expected,
		.value = value,
		.mask = mask,
		.order = success,
		.failure = failure,
	};
	uint64_t read = answer_to(&request);

	if (now.thread->exchanged >> (now.answer - 1) & 1)
		return true;
	*expected = read;
	return false;
}

/* Makes the call a thread is in: whether it comes to its end with the answers there are. */
static bool make_call(struct ex_state *state, unsigned thread)
{
	now.thread = &state->threads[thread];
	now.number = thread;
	now.answer = 0;
	if (setjmp(now.leave))
		return false;
	ex.program->run(state, thread);
	return true;
}

/* Begins a thread's next call, or those that follow where one takes no step. */
static void begin(struct ex_state *state, unsigned thread)
{
	struct ex_thread *taker = &state->threads[thread];

	do {
		if (taker->answers > ex.result.call_steps)
			ex.result.call_steps = taker->answers;
		memset(taker->values, 0, sizeof(taker->values));
		taker->answers = 0;
		taker->exchanged = 0;
		taker->mark = 0;
		if (!ex.program->start(state, thread)) {
			memset(taker, 0, sizeof(*taker));
			taker->life = EX_FINISHED;
			return;
		}
		taker->mark = taker->view.at[taker->marked];
		ex_tell("thread %u begins ", thread);
		if (ex.trace)
			ex.program->print_call(ex.trace, state, thread);
		ex_tell("\n");
	} while (make_call(state, thread));
}

/* Two hashes that have nothing in common but their input. */
static void hash_bytes(struct hash *hash, const void *bytes, size_t size)
{
	const unsigned char *from = bytes;

	for (; size; size -= size < 8 ? size : 8, from += 8) {
		uint64_t word = 0;

		memcpy(&word, from, size < 8 ? size : 8);
		hash->a = (hash->a ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		hash->a ^= hash->a >> 29;
		hash->b = (hash->b + word) * UINT64_C(0xff51afd7ed558ccd);
		hash->b ^= hash->b >> 32;
	}
}

static struct hash hash_of(const struct ex_state *state)
{
	const struct ex_program *program = ex.program;
	struct hash hash = { 1, 2 };
	unsigned i;

	hash_bytes(&hash, state, offsetof(struct ex_state, threads));
	for (i = 0; i < program->threads; i++) {
		const struct ex_thread *thread = &state->threads[i];

		hash_bytes(&hash, thread,
			   offsetof(struct ex_thread, values) +
				   thread->answers * sizeof(*thread->values));
	}
	for (i = 0; i < program->locations; i++) {
		const struct ex_location *object = &state->locations[i];

		hash_bytes(&hash, &object->count, sizeof(object->count));
		hash_bytes(&hash, object->messages, object->count * sizeof(*object->messages));
	}
	return hash;
}

/* Where a state stands in the table, or would. */
static struct known *find(struct hash hash)
{
	uint64_t at = (hash.a ^ hash.b * UINT64_C(0xc4ceb9fe1a85ec53)) >> 7;

	for (;; at++) {
		struct known *known = &ex.known[at & (ex.room - 1)];

		if ((known->hash.a == hash.a && known->hash.b == hash.b) ||
		    (!known->hash.a && !known->hash.b))
			return known;
	}
}

static void *must_have(void *memory)
{
	if (!memory) {
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	return memory;
}

static void remember(struct hash hash, double executions)
{
	struct known *old = ex.known, *known;
	uint64_t i, room = ex.room;

	if (ex.result.states * 5 >= room * 3) {
		ex.room = 4 * room;
		ex.known = must_have(calloc(ex.room, sizeof(*ex.known)));
		for (i = 0; i < room; i++)
			if (old[i].hash.a || old[i].hash.b)
				*find(old[i].hash) = old[i];
		free(old);
	}
	known = find(hash);
	known->hash = hash;
	known->executions = executions;
	ex.result.states++;
}

/* Goes on from a state by one step. */
static void go_on(struct ex_state *state, unsigned thread, struct ex_choice choice)
{
	ex_step(ex.program, state, thread, choice);
	if (choice.outcome != EX_STOP && make_call(state, thread))
		begin(state, thread);
	ex_forget(ex.program, state);
}

static double visit(unsigned depth);

/* All ways on that begin with a step of @thread: how many executions. */
static double visit_steps(unsigned depth, unsigned thread)
{
	const struct node *node = &ex.path[depth];
	struct node *next = &ex.path[depth + 1];
	struct ex_choice choices[EX_CHOICES + 1];
	unsigned i, count = ex_choices(&node->state, thread, choices);
	double executions = 0;

	if (node->state.threads[thread].answers == EX_ANSWERS || depth + 1 == STEPS_MAX) {
		ex.result.cut++;
		if (node->state.stopped)
			ex_fail("thread %u does not come to an end after another has stopped",
				thread);
		ex.failed_at = depth;
		return 0;
	}
	if (ex.program->stops && !node->state.stopped)
		choices[count++].outcome = EX_STOP;
	for (i = 0; i < count && !ex.result.failure[0]; i++) {
		next->state = node->state;
		next->thread = thread;
		next->choice = choices[i];
		go_on(&next->state, thread, choices[i]);
		ex.failed_at = depth + 1;
		if (!ex.result.failure[0])
			executions += visit(depth + 1);
	}
	return executions;
}

/* All ways on from a state: how many executions. The thread that brought it on comes first. */
static double visit(unsigned depth)
{
	struct node *node = &ex.path[depth];
	struct hash hash = hash_of(&node->state);
	const struct known *known = find(hash);
	unsigned i, alive = 0;
	double executions = 0;

	if (known->hash.a || known->hash.b)
		return known->executions;
	if (depth > ex.result.steps)
		ex.result.steps = depth;
	for (i = 0; i < ex.program->threads && !ex.result.failure[0]; i++) {
		unsigned thread = (node->thread + i) % ex.program->threads;

		if (node->state.threads[thread].life != EX_ALIVE)
			continue;
		alive++;
		executions += visit_steps(depth, thread);
	}
	if (!alive) {
		executions = 1;
		ex.failed_at = depth;
		ex.program->ended(&node->state);
	}
	remember(hash, executions);
	return executions;
}

static const char *const order_names[] = {
	[memory_order_relaxed] = "relaxed", [memory_order_consume] = "consume",
	[memory_order_acquire] = "acquire", [memory_order_release] = "release",
	[memory_order_acq_rel] = "acq_rel", [memory_order_seq_cst] = "seq_cst",
};

static void print_value(unsigned location, uint64_t value)
{
	ex.program->print_value(ex.trace, location, value);
}

/* One step, before it is taken. */
static void print_step(const struct ex_state *state, unsigned thread, struct ex_choice choice)
{
	static const char *const words[] = {
		[EX_READ] = "reads",
		[EX_WRITE] = "writes",
		[EX_SUCCESS] = "exchanges",
		[EX_FAILURE] = "fails to exchange",
		[EX_SPURIOUS] = "fails, without need, to exchange",
	};
	const struct ex_request *request = &state->threads[thread].request;
	const struct ex_location *object = &state->locations[request->location];
	unsigned behind = object->count - 1u - choice.message;

	if (choice.outcome == EX_STOP) {
		ex_tell("thread %u stops for ever\n", thread);
		return;
	}
	ex_tell("thread %u     %s %s: ", thread, words[choice.outcome],
		ex.program->location_names[request->location]);
	if (request->kind != EX_STORE)
		print_value(request->location, object->messages[choice.message].value);
	if (request->kind == EX_EXCHANGE) {
		ex_tell(choice.outcome == EX_SUCCESS ? ", by " : ", expected ");
		print_value(request->location,
			    choice.outcome == EX_SUCCESS ? request->value : request->expected);
	}
	if (request->kind == EX_STORE)
		print_value(request->location, request->value);
	ex_tell(" (%s)",
		order_names[choice.outcome < EX_FAILURE ? request->order : request->failure]);
	if (request->kind != EX_STORE && behind)
		ex_tell(", %u behind the newest", behind);
	ex_tell("\n");
}

static void begin_all(struct ex_state *state)
{
	unsigned i;

	for (i = 0; i < ex.program->threads; i++)
		begin(state, i);
}

/* Goes the failed way once more, and tells of it. */
static void print_trace(const struct ex_state *first, FILE *trace)
{
	struct ex_state *state = &ex.path[0].state;
	unsigned i;

	ex.trace = trace;
	*state = *first;
	begin_all(state);
	for (i = 1; i <= ex.failed_at; i++) {
		print_step(state, ex.path[i].thread, ex.path[i].choice);
		go_on(state, ex.path[i].thread, ex.path[i].choice);
	}
	ex.trace = NULL;
}

struct ex_result ex_explore(const struct ex_program *program, const struct ex_state *first,
			    FILE *trace)
{
	struct ex_state *start;

	memset(&ex, 0, sizeof(ex));
	ex.program = program;
	ex.room = 1 << 12;
	ex.known = must_have(calloc(ex.room, sizeof(*ex.known)));
	ex.path = must_have(calloc(STEPS_MAX + 1, sizeof(*ex.path)));
	start = &ex.path[0].state;
	*start = *first;
	start->spurious = (uint8_t)program->spurious;
	begin_all(start);
	ex.result.executions = ex.result.failure[0] ? 0 : visit(0);
	if (ex.result.failure[0]) {
		ex.result.steps = ex.failed_at;
		if (trace)
			print_trace(first, trace);
	}
	free(ex.known);
	free(ex.path);
	return ex.result;
}
