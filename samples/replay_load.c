/* SPDX-License-Identifier: MIT */
/*
 * Loading a trace for replay: it is read twice, first to check and count, then to fill arrays
 * of the right size. With recorded threads the events are sorted by thread, and each that needs
 * a slot which another thread had last is told which event of that thread to wait for. Waiting
 * is always for an earlier event of the recording, so no two threads wait for each other.
 */
#include "replay.h"

#include "cli.h"

#include <inttypes.h>
#include <string.h>

/* Who had a slot last, @position is 0 where nobody had it; and how large a block is in it. */
struct last_use {
	uint32_t thread;
	uint32_t position;
	uint64_t block_bytes;
};

/* What the first reading counts, and the second needs while it fills. */
struct load {
	struct replay *replay;
	struct trace_reader reader;
	struct trace_error *error;
	uint64_t *sizes;
	size_t sizes_mapped;
	struct last_use *last;
	size_t last_mapped;
	uint32_t *counts; /* events per thread, in the second reading: so far */
	size_t counts_mapped;
	uint64_t wide;
	uint64_t handovers;
	uint64_t live_block_bytes;
};

void *replay_map(struct replay *replay, uint64_t count, size_t each)
{
	struct replay_mapping *map = &replay->maps[replay->map_count];

	if (replay->map_count == sizeof(replay->maps) / sizeof(replay->maps[0]))
		return NULL;
	map->memory = cli_array(count, each, &map->size);
	if (map->memory)
		replay->map_count++;
	return map->memory;
}

void replay_unload(struct replay *replay)
{
	while (replay->map_count > 0) {
		replay->map_count--;
		os_unmap(replay->maps[replay->map_count].memory,
			 replay->maps[replay->map_count].size);
	}
}

static int refuse(struct load *load, const char *why)
{
	load->error->fault = TRACE_OK;
	snprintf(load->error->text, sizeof(load->error->text), "%s", why);
	return -1;
}

static bool is_wide(const struct trace_event *event)
{
	return event->op != TRACE_FREE && event->size >= UINT32_MAX;
}

/* The worker that does what a thread of the trace did. */
static unsigned worker_of(const struct replay *replay, unsigned thread)
{
	if (!replay->options.threads)
		return 0;
	return replay->options.workers ? thread % replay->options.workers : thread;
}

/* Notes that the event has its slot now. True when another worker had it last. */
static bool take_slot(struct load *load, const struct trace_event *event, uint32_t position,
		      struct last_use *before)
{
	struct last_use *last = &load->last[event->slot];

	*before = *last;
	last->thread = event->thread;
	last->position = position;
	return before->position &&
	       worker_of(load->replay, before->thread) != worker_of(load->replay, event->thread);
}

/* What is live, as blocks: for a size that this machine cannot have it need not be right. */
static void count_block(struct load *load, const struct trace_event *event)
{
	struct last_use *last = &load->last[event->slot];
	struct replay *replay = load->replay;

	load->live_block_bytes -= last->block_bytes;
	last->block_bytes = event->op == TRACE_FREE ? 0 : hk_good_size((size_t)event->size);
	load->live_block_bytes += last->block_bytes;
	if (load->live_block_bytes > replay->peak_block_bytes)
		replay->peak_block_bytes = load->live_block_bytes;
}

static int count_events(struct load *load)
{
	struct replay *replay = load->replay;
	struct trace_reader *reader = &load->reader;
	struct last_use before;
	struct trace_event event;
	uint32_t position;

	trace_start(reader, load->sizes);
	while (trace_next(reader, &event)) {
		if (reader->read >= UINT32_MAX)
			return refuse(load, "there are more events than this program takes");
		if (reader->peak_bytes > replay->peak_bytes) {
			replay->peak_bytes = reader->peak_bytes;
			replay->peak_events = reader->read;
		}
		position = ++load->counts[worker_of(replay, event.thread)];
		load->wide += is_wide(&event);
		if (event.op == TRACE_MARK)
			continue;
		load->handovers += take_slot(load, &event, position, &before);
		count_block(load, &event);
		if (event.size > replay->largest)
			replay->largest = event.size;
		if (event.log2 > replay->largest_log2)
			replay->largest_log2 = event.log2;
	}
	if (reader->error.fault) {
		*load->error = reader->error;
		return -1;
	}
	if (replay->largest > PTRDIFF_MAX || replay->largest_log2 >= sizeof(size_t) * 8)
		return refuse(load, "there is a block too large for this machine");
	replay->event_count = (uint32_t)reader->read;
	replay->slot_count = reader->used_slots;
	replay->thread_count = reader->used_threads ? reader->used_threads : 1;
	replay->mark_count = (uint32_t)reader->marks;
	replay->leftover_count = (uint32_t)reader->live_blocks;
	return 0;
}

static int map_arrays(struct load *load)
{
	struct replay *replay = load->replay;
	bool threads = replay->options.threads;
	uint64_t handovers = threads ? load->handovers : 0;

	replay->worker_count = threads ? replay->thread_count : 1;
	if (replay->options.workers && replay->options.workers < replay->worker_count)
		replay->worker_count = replay->options.workers;
	replay->events = replay_map(replay, replay->event_count, sizeof(*replay->events));
	replay->leftovers = replay_map(replay, replay->leftover_count, sizeof(*replay->leftovers));
	replay->wide = replay_map(replay, load->wide, sizeof(*replay->wide));
	replay->handovers = replay_map(replay, handovers + 1, sizeof(*replay->handovers));
	replay->slots = replay_map(replay, replay->slot_count, sizeof(*replay->slots));
	replay->marks = replay_map(replay, replay->mark_count, sizeof(*replay->marks));
	replay->fronts = replay_map(replay, replay->thread_count, sizeof(*replay->fronts));
	replay->workers = replay_map(replay, replay->worker_count, sizeof(*replay->workers));
	if (!replay->events || !replay->leftovers || !replay->wide || !replay->handovers ||
	    !replay->slots || !replay->marks || !replay->fronts || !replay->workers)
		return refuse(load, "there is not enough memory for the trace");
	if (threads) {
		replay->numbers = replay_map(replay, replay->event_count, sizeof(uint32_t));
		if (!replay->numbers)
			return refuse(load, "there is not enough memory for the trace");
	}
	if (replay->options.verify) {
		replay->blocks = replay_map(replay, replay->slot_count, sizeof(*replay->blocks));
		if (!replay->blocks)
			return refuse(load, "there is not enough memory for the trace");
	}
	return 0;
}

/* Each worker's stretch of the array of events; load->counts starts anew. */
static void share_events(struct load *load)
{
	struct replay *replay = load->replay;
	struct replay_worker *worker;
	uint32_t begin = 0;
	unsigned i;

	for (i = 0; i < replay->worker_count; i++) {
		worker = &replay->workers[i];
		worker->replay = replay;
		worker->index = i;
		worker->events = replay->events + begin;
		worker->count = replay->options.threads ? load->counts[i] : replay->event_count;
		begin += worker->count;
	}
	memset(load->counts, 0, replay->thread_count * sizeof(*load->counts));
}

/* Where the event goes, and its position (from 1) among its worker's. */
static struct replay_event *place_event(struct load *load, const struct trace_event *event,
					uint32_t number, uint32_t *position)
{
	struct replay *replay = load->replay;
	unsigned worker = worker_of(replay, event->thread);
	size_t at;

	if (!replay->options.threads) {
		*position = number + 1;
		return &replay->events[number];
	}
	*position = ++load->counts[worker];
	at = (size_t)(replay->workers[worker].events - replay->events) + *position - 1;
	replay->numbers[at] = number;
	return &replay->events[at];
}

static void link_events(struct load *load, struct replay_event *to, const struct last_use *before)
{
	struct replay *replay = load->replay;
	unsigned index = worker_of(replay, before->thread);
	const struct replay_worker *worker = &replay->workers[index];
	size_t at = (size_t)(worker->events - replay->events) + before->position - 1;

	load->handovers++;
	to->op |= REPLAY_WAIT;
	to->wait = (uint32_t)load->handovers;
	replay->handovers[load->handovers].worker = index;
	replay->handovers[load->handovers].position = before->position;
	replay->events[at].op |= REPLAY_AWAITED;
}

static void fill_mark(struct load *load, const struct trace_event *event, struct replay_event *to)
{
	struct replay_mark *mark;

	to->wait = (uint32_t)load->reader.marks - 1;
	mark = &load->replay->marks[to->wait];
	mark->number = event->size;
	mark->event = load->reader.read - 1;
	mark->live_bytes = load->reader.live_bytes;
}

static void fill_events(struct load *load)
{
	struct replay *replay = load->replay;
	struct trace_event event;
	struct replay_event *to;
	struct last_use before;
	uint32_t position;

	memset(load->sizes, 0, (size_t)replay->slot_count * sizeof(*load->sizes));
	memset(load->last, 0, (size_t)replay->slot_count * sizeof(*load->last));
	load->wide = 0;
	load->handovers = 0;
	trace_start(&load->reader, load->sizes);
	while (trace_next(&load->reader, &event)) {
		to = place_event(load, &event, (uint32_t)load->reader.read - 1, &position);
		to->op = (uint8_t)event.op;
		to->thread = (uint16_t)event.thread;
		if (event.op == TRACE_MARK) {
			fill_mark(load, &event, to);
			continue;
		}
		to->log2 = (uint8_t)event.log2;
		to->slot = event.slot;
		to->size = event.op == TRACE_FREE ? 0 : (uint32_t)event.size;
		if (is_wide(&event)) {
			to->op |= REPLAY_WIDE;
			to->size = (uint32_t)load->wide;
			replay->wide[load->wide++] = event.size;
		}
		if (take_slot(load, &event, position, &before) && replay->options.threads)
			link_events(load, to, &before);
		/* Resident before the first pass. */
		replay->slots[event.slot] = NULL;
		if (replay->blocks)
			replay->blocks[event.slot].tag = 0;
	}
}

static void fill_leftovers(struct load *load)
{
	struct replay *replay = load->replay;
	struct replay_event *to = replay->leftovers;
	uint64_t slot;

	for (slot = 0; slot < replay->slot_count; slot++) {
		if (!load->sizes[slot])
			continue;
		to->op = TRACE_FREE;
		to->slot = (uint32_t)slot;
		to->thread = (uint16_t)load->last[slot].thread;
		to++;
	}
}

int replay_load(struct replay *replay, const struct replay_options *options, const void *bytes,
		size_t size, struct trace_error *error)
{
	struct load load = { .replay = replay, .error = error };
	int failed = -1;

	memset(replay, 0, sizeof(*replay));
	memset(error, 0, sizeof(*error));
	replay->options = *options;
	if (trace_open(&load.reader, bytes, size)) {
		*error = load.reader.error;
		return -1;
	}
	load.sizes = cli_array(load.reader.slots, sizeof(*load.sizes), &load.sizes_mapped);
	load.last = cli_array(load.reader.slots, sizeof(*load.last), &load.last_mapped);
	load.counts = cli_array(load.reader.threads, sizeof(*load.counts), &load.counts_mapped);
	if (!load.sizes || !load.last || !load.counts) {
		refuse(&load, "there is not enough memory for the trace");
		goto out_unmap;
	}
	if (count_events(&load) || map_arrays(&load))
		goto out_unmap;
	share_events(&load);
	fill_events(&load);
	fill_leftovers(&load);
	failed = 0;

out_unmap:
	os_unmap(load.sizes, load.sizes_mapped);
	os_unmap(load.last, load.last_mapped);
	os_unmap(load.counts, load.counts_mapped);
	if (failed)
		replay_unload(replay);
	return failed;
}
