/* SPDX-License-Identifier: MIT */
/* The contended half of the lock: spin, then park until the holder wakes us. */
#include <hakmem/lock.h>

/* Spins before parking: about as long as the longest critical section, a batch of 32. */
#define SPINS 100

#if defined(__x86_64__) || defined(__i386__)
static inline void cpu_relax(void)
{
	__builtin_ia32_pause();
}
#elif defined(__aarch64__)
static inline void cpu_relax(void)
{
	__asm__ volatile("isb" ::: "memory");
}
#else
static inline void cpu_relax(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}
#endif

static bool try_acquire(struct hk_lock *lock)
{
	uint32_t expected = HK_LOCK_FREE;

	return atomic_load_explicit(&lock->state, memory_order_relaxed) == HK_LOCK_FREE &&
	       atomic_compare_exchange_weak_explicit(&lock->state, &expected, HK_LOCK_HELD,
						     memory_order_acquire, memory_order_relaxed);
}

void hk_lock_wait(struct hk_lock *lock, const struct hk_platform *platform)
{
	unsigned spins;

	for (spins = 0; spins < SPINS || !platform->park; spins++) {
		if (try_acquire(lock))
			goto out;
		cpu_relax();
	}
	/*
	 * Who has parked takes the lock as PARKED, since others may be parked still: one wake
	 * too many at worst.
	 */
	while (atomic_exchange_explicit(&lock->state, HK_LOCK_PARKED, memory_order_acquire) !=
	       HK_LOCK_FREE)
		platform->park(platform->context, (uint32_t *)&lock->state, HK_LOCK_PARKED);
out:
	lock->waited++;
}

void hk_lock_wake(struct hk_lock *lock, const struct hk_platform *platform)
{
	platform->wake(platform->context, (uint32_t *)&lock->state);
}
