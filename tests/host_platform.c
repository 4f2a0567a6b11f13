/* SPDX-License-Identifier: MIT */
/* See host_platform.h. */
#define _POSIX_C_SOURCE 200809L

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <hakmem/hakmem.h>

#include "helper.h"
#include "host_platform.h"

#define COMMITTED 1u
#define BUSY 2u /* within a call */

static void breach(struct host *host, const char *what)
{
	const char *none = NULL;

	atomic_compare_exchange_strong(&host->breach, &none, what);
}

/* Threads share the sequence, and each gets another part of it in every run. */
static uint64_t host_random(struct host *host)
{
	uint64_t state = atomic_fetch_add(&host->random, UINT64_C(0x9e3779b97f4a7c15));

	return test_random(&state);
}

static void take_time(struct host *host)
{
	struct timespec sleep = { 0, 20000 };
	uint64_t kind = host_random(host) % 16;

	if (!host->slow || kind < 4)
		return;
	if (kind < 6)
		nanosleep(&sleep, NULL);
	else
		sched_yield();
}

/* Return: whether this call is to fail. */
static bool enter(struct host *host, enum fault_function function)
{
	unsigned inside = atomic_fetch_add(&host->inside, 1) + 1;
	unsigned most = host->most_inside, only = host->only ? host->only : FAULT_FALLIBLE;
	unsigned long long step;
	bool fail;

	host->calls++;
	host->counts[function]++;
	while (most < inside && !atomic_compare_exchange_weak(&host->most_inside, &most, inside))
		;
	take_time(host);
	if (!(FAULT_BIT(function) & FAULT_FALLIBLE & only))
		return false;
	step = atomic_fetch_add(&host->steps, 1) + 1;
	fail = step == host->at || (host->nth && step % host->nth == 0) ||
	       host_random(host) % 1000 < host->per_mille;
	host->failed[function] += fail;
	return fail;
}

static void leave(struct host *host)
{
	take_time(host);
	atomic_fetch_sub(&host->inside, 1);
}

/* Marks a range as worked on: its first page, HOST_PAGES where it is none of this host's. */
static size_t begin(struct host *host, const unsigned char *ptr, size_t size)
{
	size_t first, page;

	if (!host->base || ptr < host->base || size > host->size ||
	    (size_t)(ptr - host->base) > host->size - size || ((uintptr_t)ptr | size) % HOST_PAGE) {
		breach(host, "a range that is not in the reservation, or not of whole pages");
		return HOST_PAGES;
	}
	first = (size_t)(ptr - host->base) / HOST_PAGE;
	for (page = first; page < first + size / HOST_PAGE; page++)
		if (atomic_fetch_or(&host->pages[page], BUSY) & BUSY)
			breach(host, "two calls for one page at the same time");
	return first;
}

/* The end of the work; where it is done, the range is @state from now on. */
static void end(struct host *host, size_t first, size_t size, bool done, unsigned char state)
{
	size_t page;

	for (page = first; page < first + size / HOST_PAGE; page++) {
		unsigned char old = host->pages[page];

		if (!done)
			state = old & COMMITTED;
		if (!(old & COMMITTED) && state == COMMITTED)
			atomic_fetch_add(&host->committed, HOST_PAGE);
		if (old & COMMITTED && state != COMMITTED)
			atomic_fetch_sub(&host->committed, HOST_PAGE);
		host->pages[page] = state;
	}
}

static void *host_reserve(void *context, size_t size, size_t align)
{
	struct host *host = context;
	unsigned char *ptr = NULL;

	if (host->base || size > HOST_RANGE)
		breach(host, "a second reservation, or a larger one than was asked for");
	else if (!enter(host, FAULT_RESERVE))
		ptr = host->memory ? host->memory
				   : host->inner.reserve(host->inner.context, size, align);
	if (ptr) {
		host->base = ptr;
		host->size = size;
	}
	leave(host);
	return ptr;
}

static int host_commit(void *context, void *ptr, size_t size)
{
	struct host *host = context;
	bool fail = enter(host, FAULT_COMMIT);
	size_t first = begin(host, ptr, size);
	int error = -1;

	if (first == HOST_PAGES)
		goto out_leave;
	if (!fail)
		error = host->memory ? 0 : host->inner.commit(host->inner.context, ptr, size);
	end(host, first, size, !error, COMMITTED);
out_leave:
	leave(host);
	return error;
}

/* Whoever still uses what is given back is to notice. */
static void spoil(const struct host *host, void *ptr, size_t size, bool gone)
{
	if (host->memory || !gone)
		memset(ptr, 0xdb, size);
	else if (mprotect(ptr, size, PROT_NONE))
		abort();
}

static int host_decommit(void *context, void *ptr, size_t size)
{
	struct host *host = context;
	bool fail = enter(host, FAULT_DECOMMIT);
	size_t first = begin(host, ptr, size), page;
	int error = -1;

	if (first == HOST_PAGES)
		goto out_leave;
	for (page = first; page < first + size / HOST_PAGE; page++)
		if (!(host->pages[page] & COMMITTED))
			breach(host, "a decommit of what is not committed");
	if (!fail)
		error = host->memory ? 0 : host->inner.decommit(host->inner.context, ptr, size);
	spoil(host, ptr, size, !error);
	end(host, first, size, !error, 0);
out_leave:
	leave(host);
	return error;
}

static void host_release(void *context, void *ptr, size_t size)
{
	struct host *host = context;
	size_t page;

	enter(host, FAULT_RELEASE);
	if (ptr != host->base || size != host->size)
		breach(host, "a release of what is no reservation");
	for (page = 0; page < size / HOST_PAGE; page++)
		if (host->pages[page] & BUSY)
			breach(host, "a release while a call is at work");
	end(host, 0, size, true, 0);
	if (!host->memory)
		host->inner.release(host->inner.context, ptr, size);
	host->base = NULL;
	leave(host);
}

static uint64_t host_now_ns(void *context)
{
	struct host *host = context;
	uint64_t now;

	enter(host, FAULT_NOW);
	now = host->inner.now_ns(host->inner.context);
	leave(host);
	return now;
}

static int host_move(void *context, void *from, size_t from_size, void *to, size_t to_size)
{
	struct host *host = context;
	bool fail = enter(host, FAULT_MOVE);
	size_t source = begin(host, from, from_size), target = begin(host, to, to_size);
	int error = -1;

	if (source == HOST_PAGES || target == HOST_PAGES)
		goto out_leave;
	if (!fail)
		error = host->inner.move(host->inner.context, from, from_size, to, to_size);
	if (!error)
		spoil(host, from, from_size, false);
	end(host, source, from_size, !error, COMMITTED);
	end(host, target, to_size, !error, COMMITTED);
out_leave:
	leave(host);
	return error;
}

/* May return at any time, and often does. */
static void host_park(void *context, uint32_t *word, uint32_t value)
{
	struct host *host = context;

	enter(host, FAULT_PARK);
	if (host_random(host) % 2)
		host->inner.park(host->inner.context, word, value);
	leave(host);
}

static void host_wake(void *context, uint32_t *word)
{
	struct host *host = context;

	enter(host, FAULT_WAKE);
	host->inner.wake(host->inner.context, word);
	leave(host);
}

int host_make(struct host *host, bool own_memory, uint64_t seed)
{
	unsigned char *memory = host->memory;
	int error;

	if (own_memory && !memory) {
		memory = aligned_alloc((size_t)2 << 20, HOST_RANGE);
		if (!memory)
			return HK_ERROR_MEMORY;
		memset(memory, 0xa5, HOST_RANGE);
	}
	memset(host, 0, sizeof(*host));
	host->memory = memory;
	host->random = seed;
	error = hk_platform_system(&host->inner);
	if (error)
		return error;
	host->platform = (struct hk_platform){
		.context = host,
		.page_size = HOST_PAGE,
		.granularity = 65536,
		.flags = own_memory ? HK_PLATFORM_OPEN : host->inner.flags,
		.reserve = host_reserve,
		.commit = host_commit,
		.decommit = host_decommit,
		.release = host_release,
	};
	if (own_memory)
		return 0;
	host->platform.now_ns = host_now_ns;
	host->platform.move = host->inner.move ? host_move : NULL;
	host->platform.park = host->inner.park ? host_park : NULL;
	host->platform.wake = host->inner.wake ? host_wake : NULL;
	return host->inner.page_size == HOST_PAGE ? 0 : HK_ERROR_PLATFORM;
}

void host_disarm(struct host *host)
{
	host->nth = 0;
	host->per_mille = 0;
	host->at = 0;
}

unsigned long long host_failures(const struct host *host)
{
	return host->failed[FAULT_COMMIT] + host->failed[FAULT_DECOMMIT];
}
