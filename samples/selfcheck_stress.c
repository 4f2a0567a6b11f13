/* SPDX-License-Identifier: MIT */
/*
 * selfcheck: threads that share an arena, each with a cache of its own. They allocate, resize
 * and free at random, and hand blocks to one another through mailboxes, so that most blocks
 * are freed by another thread than the one that allocated them. Every block holds a pattern
 * from its birth to its death. Now and then a thread flushes its cache or lays it down, asks for
 * statistics, or trims, maintains or warms the arena while the others go on.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include <platform/platform.h>

#include "os.h"
#include "selfcheck.h"

#define SLOTS 64 /* of a mailbox */
#define HELD 200 /* blocks that a thread holds at most */

/* At the start of every block; the pattern follows it. */
struct parcel {
	size_t size;
	uint64_t seed;
};

struct mailbox {
	_Atomic(struct parcel *) slots[SLOTS];
};

struct stress {
	const struct self_options *options;
	struct hk_arena *arena;
	struct mailbox *mailboxes;
	atomic_size_t reports;
};

struct stress_thread {
	struct stress *stress;
	struct hk_cache *cache;
	unsigned index;
	uint64_t random;
	struct parcel *held[HELD];
	size_t damaged;
	size_t refused;
	size_t unsteady;
	struct os_thread os;
};

static void on_report(void *context, const struct hk_report *report)
{
	struct stress *stress = context;

	/* The leak reports of destroy would come with the others. */
	(void)report;
	atomic_fetch_add_explicit(&stress->reports, 1, memory_order_relaxed);
}

/* Mostly small, sometimes of a medium class, seldom large. */
static size_t random_size(struct stress_thread *thread)
{
	uint64_t random = self_random(&thread->random);
	size_t size = sizeof(struct parcel) + (size_t)(random >> 20) % 1000;

	if (random % 64 == 0)
		size += (size_t)(random >> 24) % 40000;
	if (random % 2048 == 0)
		size += 600000;
	return size;
}

static void pack(struct parcel *parcel, size_t size, uint64_t seed)
{
	parcel->size = size;
	parcel->seed = seed;
	self_fill(parcel + 1, size - sizeof(*parcel), seed);
}

static bool is_whole(const struct parcel *parcel)
{
	return self_holds(parcel + 1, parcel->size - sizeof(*parcel), parcel->seed);
}

static struct parcel *take_new(struct stress_thread *thread)
{
	size_t size = random_size(thread);
	struct parcel *parcel;

	if (size % 8 == 0)
		parcel = hk_alloc_aligned(thread->cache, size, (size_t)16 << size / 8 % 8);
	else
		parcel = hk_alloc(thread->cache, size);
	if (parcel)
		pack(parcel, size, thread->random);
	else
		thread->refused++;
	return parcel;
}

static void drop(struct stress_thread *thread, struct parcel *parcel)
{
	if (!parcel)
		return;
	thread->damaged += !is_whole(parcel);
	if (thread->random % 16 == 0)
		hk_arena_free(thread->stress->arena, parcel);
	else
		hk_free(thread->cache, parcel);
}

static struct parcel *resize(struct stress_thread *thread, struct parcel *parcel)
{
	size_t size = random_size(thread);
	struct parcel *resized;
	uint64_t seed;
	size_t kept;

	if (!parcel)
		return take_new(thread);
	seed = parcel->seed;
	kept = parcel->size < size ? parcel->size : size;
	resized = hk_realloc(thread->cache, parcel, size);
	if (!resized) {
		thread->refused++;
		return parcel;
	}
	thread->damaged += !self_holds(resized + 1, kept - sizeof(*resized), seed);
	pack(resized, size, seed + 1);
	return resized;
}

/* Puts a block into some other thread's mailbox, and gets what lay in that slot. */
static struct parcel *send(struct stress_thread *thread, struct parcel *parcel)
{
	unsigned threads = thread->stress->options->threads;
	uint64_t random = self_random(&thread->random);
	unsigned to = (thread->index + 1 + (unsigned)(random >> 40) % threads) % threads;

	return atomic_exchange_explicit(&thread->stress->mailboxes[to].slots[random % SLOTS],
					parcel, memory_order_acq_rel);
}

static struct parcel *receive(struct stress_thread *thread)
{
	uint64_t random = self_random(&thread->random);
	struct mailbox *mailbox = &thread->stress->mailboxes[thread->index];

	return atomic_exchange_explicit(&mailbox->slots[random % SLOTS], NULL,
					memory_order_acq_rel);
}

/* What may run while others allocate. */
static void housekeep(struct stress_thread *thread, unsigned what)
{
	struct hk_arena *arena = thread->stress->arena;
	struct hk_stats stats;

	switch (what) {
	case 0:
		hk_cache_flush(thread->cache);
		break;
	case 1:
		hk_arena_stats(arena, &stats);
		/* Differences that went below zero would be enormous. */
		thread->unsteady += stats.live_bytes > stats.reserved_bytes ||
				    stats.cached_bytes > stats.reserved_bytes ||
				    stats.committed_bytes > stats.reserved_bytes;
		break;
	case 2:
		hk_arena_trim(arena, 0, 100000);
		break;
	case 3:
	case 4:
		hk_arena_maintain(arena, 100000);
		break;
	case 5:
		hk_cache_rest(thread->cache);
		break;
	case 6:
		thread->refused += hk_arena_prewarm(arena, hk_arena_used(arena)) != HK_OK;
		break;
	default:
		thread->unsteady += hk_arena_used(arena) == 0;
		break;
	}
}

static void work(void *argument)
{
	struct stress_thread *thread = argument;
	unsigned long i;
	uint64_t random;
	size_t slot;

	for (i = 0; i < thread->stress->options->operations; i++) {
		random = self_random(&thread->random);
		slot = (size_t)(random >> 32) % HELD;
		switch (random % 8) {
		case 0:
			thread->held[slot] = resize(thread, thread->held[slot]);
			break;
		case 1:
		case 2:
			thread->held[slot] = send(thread, thread->held[slot]);
			break;
		case 3:
			drop(thread, thread->held[slot]);
			thread->held[slot] = receive(thread);
			break;
		default:
			drop(thread, thread->held[slot]);
			thread->held[slot] = take_new(thread);
			break;
		}
		if (random >> 8 & 1 && i % 512 == 0)
			housekeep(thread, (unsigned)(random >> 9 & 7));
	}
	for (slot = 0; slot < HELD; slot++)
		drop(thread, thread->held[slot]);
	/* Even threads leave their cache to the arena, others give it up themselves. */
	if (thread->index % 2)
		hk_cache_destroy(thread->cache);
}

/* What is left in the mailboxes, through the arena; returns how many were damaged. */
static size_t empty_mailboxes(struct stress *stress)
{
	struct parcel *parcel;
	size_t damaged = 0;
	unsigned i, j;

	for (i = 0; i < stress->options->threads; i++) {
		for (j = 0; j < SLOTS; j++) {
			parcel = atomic_load(&stress->mailboxes[i].slots[j]);
			if (!parcel)
				continue;
			damaged += !is_whole(parcel);
			hk_arena_free(stress->arena, parcel);
		}
	}
	return damaged;
}

static void stress_on(const struct self_options *options, const struct hk_platform *platform)
{
	struct stress stress = { .options = options };
	struct hk_arena_config config = {
		.name = "stress",
		.address_space = options->address_space,
		.platform = platform,
		.context = &stress,
		.on_report = on_report,
		.maintain_delay = 3,
	};
	size_t damaged = 0, refused = 0, unsteady = 0;
	struct stress_thread *threads;
	struct hk_stats stats;
	unsigned i, started;

	threads = calloc(options->threads, sizeof(*threads));
	stress.mailboxes = calloc(options->threads, sizeof(*stress.mailboxes));
	if (!CHECK(threads && stress.mailboxes))
		goto out_free;
	if (!CHECK(hk_arena_create(&stress.arena, &config) == HK_OK))
		goto out_free;
	for (started = 0; started < options->threads; started++) {
		threads[started].stress = &stress;
		threads[started].index = started;
		threads[started].random = started + 1;
		if (!CHECK(hk_cache_create(stress.arena, &threads[started].cache) == HK_OK))
			break;
		/* A cache that served this thread is handed over with what it holds. */
		hk_free(threads[started].cache, hk_alloc(threads[started].cache, 200));
		if (!CHECK(os_thread_start(&threads[started].os, work, &threads[started]) == 0))
			break;
	}
	for (i = 0; i < started; i++) {
		os_thread_join(&threads[i].os);
		damaged += threads[i].damaged;
		refused += threads[i].refused;
		unsteady += threads[i].unsteady;
		/* And back. */
		if (i % 2 == 0)
			hk_cache_flush(threads[i].cache);
	}
	damaged += empty_mailboxes(&stress);
	CHECK(damaged == 0);
	CHECK(refused == 0);
	CHECK(unsteady == 0);
	hk_arena_stats(stress.arena, &stats);
	CHECK(stats.live_blocks == 0 && stats.live_bytes == 0);
	CHECK(stats.cache_count == (started + 1) / 2);
	CHECK(hk_arena_check(stress.arena) == 0);
	hk_arena_destroy(stress.arena);
	CHECK(atomic_load(&stress.reports) == 0);

out_free:
	free(stress.mailboxes);
	free(threads);
}

/* On the system as it is, and as if it charged for what is committed; some do. */
void self_stress(const struct self_options *options)
{
	struct hk_platform charged;

	stress_on(options, NULL);
	if (!CHECK(hk_platform_system(&charged) == HK_OK))
		return;
	charged.flags |= HK_PLATFORM_CHARGED;
	stress_on(options, &charged);
}
