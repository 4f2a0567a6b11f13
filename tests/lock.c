/* SPDX-License-Identifier: MIT */
/* The lock: one thread at a time, spinning or parked, and counters that say what happened. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#include <hakmem/lock.h>

#include "heap.h"

#define THREADS 4

/* A platform of nothing but park and wake, which counts them. */
static struct {
	struct hk_platform system;
	_Atomic unsigned parks;
	_Atomic unsigned wakes;
	bool sleepless; /* park returns at once, as it may */
} parking;

static struct hk_platform platform;
static struct hk_lock lock;

static void count_park(void *context, uint32_t *word, uint32_t value)
{
	(void)context;
	parking.parks++;
	if (parking.sleepless)
		sched_yield();
	else
		parking.system.park(parking.system.context, word, value);
}

static void count_wake(void *context, uint32_t *word)
{
	(void)context;
	parking.wakes++;
	parking.system.wake(parking.system.context, word);
}

static void open_lock(bool park, bool sleepless)
{
	memset(&lock, 0, sizeof(lock));
	memset(&platform, 0, sizeof(platform));
	cr_assert_eq(hk_platform_system(&parking.system), 0);
	parking.parks = 0;
	parking.wakes = 0;
	parking.sleepless = sleepless;
	if (!park)
		return;
	cr_assert_not_null(parking.system.park);
	platform.park = count_park;
	platform.wake = count_wake;
}

Test(lock, alone_never_calls_the_platform)
{
	int i;

	open_lock(true, false);
	for (i = 0; i < 1000; i++) {
		hk_lock_acquire(&lock, &platform);
		cr_assert_eq(lock.state, HK_LOCK_HELD);
		hk_lock_release(&lock, &platform);
		cr_assert_eq(lock.state, HK_LOCK_FREE);
	}
	cr_assert_eq(lock.acquired, 1000);
	cr_assert_eq(lock.waited, 0);
	cr_assert_eq(parking.parks, 0);
	cr_assert_eq(parking.wakes, 0);
}

static _Atomic unsigned inside;

static void *enter_once(void *unused)
{
	hk_lock_acquire(&lock, &platform);
	inside++;
	hk_lock_release(&lock, &platform);
	return unused;
}

static void wait_for(_Atomic unsigned *count, unsigned value)
{
	while (*count < value)
		sched_yield();
}

/* All wait before the lock is released, so that each of them must be woken. */
static void hold_against(unsigned threads)
{
	pthread_t waiting[THREADS];
	unsigned i;

	open_lock(true, false);
	inside = 0;
	hk_lock_acquire(&lock, &platform);
	for (i = 0; i < threads; i++)
		cr_assert_eq(pthread_create(&waiting[i], NULL, enter_once, NULL), 0);
	wait_for(&parking.parks, threads);
	cr_assert_eq(inside, 0);
	cr_assert_eq(lock.state, HK_LOCK_PARKED);
	cr_assert_eq(parking.wakes, 0);
	hk_lock_release(&lock, &platform);
	for (i = 0; i < threads; i++)
		cr_assert_eq(pthread_join(waiting[i], NULL), 0);
	cr_assert_eq(inside, threads);
	cr_assert_eq(lock.acquired, threads + 1);
	cr_assert_eq(lock.waited, threads);
	cr_assert_eq(lock.state, HK_LOCK_FREE);
	cr_assert_geq(parking.wakes, threads);
}

Test(lock, parks_a_thread_and_wakes_it, .timeout = 20)
{
	hold_against(1);
	/* by the holder, and by the one woken, who cannot know that it was the last */
	cr_assert_leq(parking.wakes, 2);
}

Test(lock, wakes_all_that_are_parked, .timeout = 20)
{
	hold_against(THREADS);
}

Test(lock, without_park_keeps_others_out, .timeout = 20)
{
	pthread_t waiting;
	int i;

	open_lock(false, false);
	inside = 0;
	hk_lock_acquire(&lock, &platform);
	cr_assert_eq(pthread_create(&waiting, NULL, enter_once, NULL), 0);
	for (i = 0; i < 200; i++) {
		sched_yield();
		cr_assert_eq(inside, 0);
	}
	cr_assert_eq(lock.state, HK_LOCK_HELD, "nobody may park");
	hk_lock_release(&lock, &platform);
	cr_assert_eq(pthread_join(waiting, NULL), 0);
	cr_assert_eq(inside, 1);
	cr_assert_eq(lock.acquired, 2);
}

static struct {
	unsigned rounds;
	unsigned plain; /* not atomic: lost updates show */
	_Atomic unsigned overlaps;
	pthread_barrier_t start;
} counting;

static void *count_up(void *unused)
{
	unsigned i;

	/* else the first may have ended before the last begins */
	pthread_barrier_wait(&counting.start);
	for (i = 0; i < counting.rounds; i++) {
		unsigned before;

		hk_lock_acquire(&lock, &platform);
		counting.overlaps += inside++ != 0;
		before = counting.plain;
		if (i % 64 == 0)
			sched_yield(); /* or two processors may never meet */
		counting.plain = before + 1;
		inside--;
		hk_lock_release(&lock, &platform);
	}
	return unused;
}

static void count_with_threads(unsigned rounds)
{
	pthread_t threads[THREADS];
	int i;

	memset(&counting, 0, sizeof(counting));
	counting.rounds = rounds;
	inside = 0;
	cr_assert_eq(pthread_barrier_init(&counting.start, NULL, THREADS), 0);
	for (i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, count_up, NULL), 0);
	for (i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	pthread_barrier_destroy(&counting.start);
	cr_assert_eq(counting.overlaps, 0);
	cr_assert_eq(counting.plain, THREADS * rounds);
	cr_assert_eq(lock.acquired, THREADS * rounds);
	cr_assert_gt(lock.waited, 0);
	cr_assert_leq(lock.waited, lock.acquired);
	cr_assert_eq(lock.state, HK_LOCK_FREE);
}

Test(lock, excludes_with_park, .timeout = 60)
{
	open_lock(true, false);
	count_with_threads(20000);
	cr_assert_gt(parking.parks, 0);
	cr_assert_gt(parking.wakes, 0);
}

Test(lock, excludes_when_park_returns_for_no_reason, .timeout = 60)
{
	open_lock(true, true);
	count_with_threads(20000);
	cr_assert_gt(parking.parks, 0);
}

Test(lock, excludes_without_park, .timeout = 60)
{
	open_lock(false, false);
	count_with_threads(500);
}
