/* SPDX-License-Identifier: MIT */
/* Waiting for the event before, where another worker has it; see replay_load.c. */
#include "replay.h"

size_t replay_before(struct replay_worker *worker, const struct replay_event *event)
{
	const struct replay *replay = worker->replay;
	const struct replay_handover *handover;
	struct replay_worker *other;
	unsigned round = 0;

	if (event->op & REPLAY_WAIT) {
		handover = &replay->handovers[event->wait];
		other = &replay->workers[handover->worker];
		/* Pairs with the release in replay_events(). */
		while (atomic_load_explicit(&other->done, memory_order_acquire) <
		       handover->position)
			os_wait(round++);
	}
	if (event->op & REPLAY_WIDE)
		return (size_t)replay->wide[event->size];
	return event->size;
}
