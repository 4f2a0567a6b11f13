/* SPDX-License-Identifier: MIT */
/*
 * A lock that spins briefly and then parks through the platform.
 *
 * Three states, after Drepper, "Futexes Are Tricky" (2011): free, held, held with a thread
 * that may be parked. Its counters are changed by the holder only.
 *
 * Lock order, outermost first: caches (arena), class (slab), magazines (depot), trim, space
 * (superslab), stack (stack_locked.c). No callback of the host is called with a lock held; the
 * platform is, for metadata, and for slabs that a class's runs do not use yet (hk_slab_trim()).
 */
#ifndef HK_LOCK_H
#define HK_LOCK_H

#include <platform/platform.h>
#include <stdatomic.h>

#define HK_LOCK_FREE 0u
#define HK_LOCK_HELD 1u
#define HK_LOCK_PARKED 2u

struct hk_lock {
	_Atomic uint32_t state;
	uint32_t waited;   /* how often it was held by another */
	uint64_t acquired; /* how often it was taken */
};

void hk_lock_wait(struct hk_lock *lock, const struct hk_platform *platform);
void hk_lock_wake(struct hk_lock *lock, const struct hk_platform *platform);

static inline void hk_lock_acquire(struct hk_lock *lock, const struct hk_platform *platform)
{
	uint32_t expected = HK_LOCK_FREE;

	/* pairs with the release in hk_lock_release() */
	if (!atomic_compare_exchange_strong_explicit(&lock->state, &expected, HK_LOCK_HELD,
						     memory_order_acquire, memory_order_relaxed))
		hk_lock_wait(lock, platform);
	lock->acquired++;
}

static inline void hk_lock_release(struct hk_lock *lock, const struct hk_platform *platform)
{
	/* pairs with the acquires in hk_lock_acquire() and hk_lock_wait() */
	if (atomic_exchange_explicit(&lock->state, HK_LOCK_FREE, memory_order_release) ==
	    HK_LOCK_PARKED)
		hk_lock_wake(lock, platform);
}

#endif /* HK_LOCK_H */
