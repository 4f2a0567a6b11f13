/* SPDX-License-Identifier: MIT */
/* The memory of the explorer: messages and views; see explore.h. */
#include <string.h>

#include "explore.h"

static bool acquires(memory_order order)
{
	return order != memory_order_relaxed && order != memory_order_release;
}

static bool releases(memory_order order)
{
	return order == memory_order_release || order == memory_order_acq_rel ||
	       order == memory_order_seq_cst;
}

static void join(struct ex_view *view, const struct ex_view *other)
{
	unsigned i;

	for (i = 0; i < EX_LOCATIONS; i++)
		if (view->at[i] < other->at[i])
			view->at[i] = other->at[i];
	for (i = 0; i < EX_THREADS; i++)
		if (view->clock[i] < other->clock[i])
			view->clock[i] = other->clock[i];
}

/* Reads a message, which is in view. */
static void look_at(struct ex_thread *thread, const struct ex_location *object, unsigned location,
		    unsigned message, memory_order order)
{
	thread->view.at[location] = (uint8_t)message;
	if (acquires(order))
		join(&thread->view, &object->messages[message].view);
}

/* Calls @visit with all that a state's views say of a location. */
static void each_at(struct ex_state *state, unsigned location,
		    void (*visit)(uint8_t *at, unsigned message), unsigned message)
{
	unsigned i, j;

	for (i = 0; i < EX_THREADS; i++) {
		visit(&state->threads[i].view.at[location], message);
		if (state->threads[i].marked == location)
			visit(&state->threads[i].mark, message);
	}
	for (i = 0; i < EX_LOCATIONS; i++)
		for (j = 0; j < state->locations[i].count; j++)
			visit(&state->locations[i].messages[j].view.at[location], message);
}

static void make_room(uint8_t *at, unsigned message)
{
	if (*at >= message)
		(*at)++;
}

static void close_up(uint8_t *at, unsigned dropped)
{
	*at = (uint8_t)(*at > dropped ? *at - dropped : 0);
}

/* Makes room for a message between others: it has a value and no view yet. */
static struct ex_message *insert(struct ex_state *state, unsigned location, unsigned message,
				 uint64_t value)
{
	struct ex_location *object = &state->locations[location];
	struct ex_message *made = &object->messages[message];

	if (object->count == EX_MESSAGES) {
		ex_fail("EX_MESSAGES is too small");
		return &object->messages[EX_MESSAGES - 1];
	}
	if (message < object->count) {
		each_at(state, location, make_room, message);
		memmove(made + 1, made, (object->count - message) * sizeof(*made));
	}
	object->count++;
	memset(made, 0, sizeof(*made));
	made->value = value;
	return made;
}

static void write_message(struct ex_state *state, struct ex_thread *thread, unsigned message)
{
	const struct ex_request *request = &thread->request;
	struct ex_message *made = insert(state, request->location, message, request->value);

	thread->view.at[request->location] = (uint8_t)message;
	if (releases(request->order))
		made->view = thread->view;
	made->view.at[request->location] = (uint8_t)message;
}

static void exchange(const struct ex_program *program, struct ex_state *state, unsigned number,
		     unsigned read)
{
	struct ex_thread *thread = &state->threads[number];
	const struct ex_request *request = &thread->request;
	unsigned location = request->location;
	struct ex_location *object = &state->locations[location];
	struct ex_message *made = insert(state, location, read + 1, request->value);

	look_at(thread, object, location, read, request->order);
	thread->view.at[location] = (uint8_t)(read + 1);
	made->view = object->messages[read].view;
	if (releases(request->order))
		join(&made->view, &thread->view);
	made->view.at[location] = (uint8_t)(read + 1);
	made->exchanged = true;
	made->note = program->exchanged(state, number, location, object->messages[read].value,
					request->value);
}

static bool is_bound(const struct ex_location *object, unsigned message)
{
	return message < object->count && object->messages[message].exchanged;
}

unsigned ex_choices(const struct ex_state *state, unsigned thread, struct ex_choice *choices)
{
	const struct ex_request *request = &state->threads[thread].request;
	const struct ex_location *object = &state->locations[request->location];
	unsigned count = 0, at, oldest = state->threads[thread].view.at[request->location];

	if (request->kind == EX_STORE)
		for (at = object->count; at > oldest; at--)
			if (!is_bound(object, at))
				choices[count++] = (struct ex_choice){ EX_WRITE, (uint8_t)at };
	if (request->kind == EX_STORE)
		return count;
	for (at = object->count; at-- > oldest;) {
		uint64_t differ = object->messages[at].value ^ request->expected;
		struct ex_choice choice = { EX_READ, (uint8_t)at };

		if (request->kind == EX_EXCHANGE)
			choice.outcome = differ & request->mask ? EX_FAILURE : EX_SPURIOUS;
		if (choice.outcome == EX_SPURIOUS && !is_bound(object, at + 1))
			choices[count++] = (struct ex_choice){ EX_SUCCESS, (uint8_t)at };
		if (choice.outcome != EX_SPURIOUS || state->spurious)
			choices[count++] = choice;
	}
	return count;
}

void ex_step(const struct ex_program *program, struct ex_state *state, unsigned thread,
	     struct ex_choice choice)
{
	struct ex_thread *taker = &state->threads[thread];
	const struct ex_request *request = &taker->request;
	struct ex_location *object = &state->locations[request->location];

	if (choice.outcome == EX_STOP) {
		memset(taker, 0, sizeof(*taker));
		taker->life = EX_STOPPED;
		state->stopped = true;
		return;
	}
	taker->values[taker->answers] = object->messages[choice.message].value;
	switch (choice.outcome) {
	case EX_READ:
		look_at(taker, object, request->location, choice.message, request->order);
		break;
	case EX_WRITE:
		taker->values[taker->answers] = 0;
		write_message(state, taker, choice.message);
		break;
	case EX_SUCCESS:
		taker->exchanged |= (uint64_t)1 << taker->answers;
		exchange(program, state, thread, choice.message);
		break;
	default:
		state->spurious = (uint8_t)(state->spurious - (choice.outcome == EX_SPURIOUS));
		look_at(taker, object, request->location, choice.message, request->failure);
		break;
	}
	taker->answers++;
}

void ex_forget(const struct ex_program *program, struct ex_state *state)
{
	unsigned location, i;

	for (location = 0; location < program->locations; location++) {
		struct ex_location *object = &state->locations[location];
		uint8_t oldest = (uint8_t)(object->count - 1);

		for (i = 0; i < program->threads && oldest; i++) {
			const struct ex_thread *thread = &state->threads[i];

			if (thread->life != EX_ALIVE)
				continue;
			if (thread->view.at[location] < oldest)
				oldest = thread->view.at[location];
			if (thread->marked == location && thread->mark < oldest)
				oldest = thread->mark;
		}
		if (!oldest)
			continue;
		object->count = (uint8_t)(object->count - oldest);
		memmove(object->messages, object->messages + oldest,
			object->count * sizeof(*object->messages));
		each_at(state, location, close_up, oldest);
	}
}

static void check_race(const struct ex_state *state, unsigned thread, unsigned plain,
		       const char *doing)
{
	const struct ex_plain *data = &state->plains[plain];
	const uint8_t *clock = state->threads[thread].view.clock;

	ex_tell("thread %u %s %s\n", thread, doing, ex_plain_name(plain));
	if (data->writer && clock[data->writer - 1] < data->written)
		ex_fail("thread %u %s %s in a race with thread %u, which wrote it", thread, doing,
			ex_plain_name(plain), data->writer - 1u);
}

void ex_write(struct ex_state *state, unsigned thread, unsigned plain, uint8_t value)
{
	struct ex_plain *data = &state->plains[plain];
	uint8_t *clock = state->threads[thread].view.clock;
	unsigned i;

	check_race(state, thread, plain, "writes");
	for (i = 0; i < EX_THREADS; i++)
		if (clock[i] < data->read[i])
			ex_fail("thread %u writes %s in a race with thread %u, which read it",
				thread, ex_plain_name(plain), i);
	clock[thread]++;
	memset(data, 0, sizeof(*data));
	data->value = value;
	data->writer = (uint8_t)(thread + 1);
	data->written = clock[thread];
}

uint8_t ex_read(struct ex_state *state, unsigned thread, unsigned plain)
{
	struct ex_plain *data = &state->plains[plain];
	uint8_t *clock = state->threads[thread].view.clock;

	check_race(state, thread, plain, "reads");
	clock[thread]++;
	data->read[thread] = clock[thread];
	return data->value;
}
