/* SPDX-License-Identifier: MIT */
/*
 * See fault_platform.h. Every call but park and wake runs under one lock, so that the books and
 * the memory behind them change together.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <hakmem/hakmem.h>
#include <tests/fault_platform.h>

#define FRESH_GARBAGE 0xa5 /* in memory just committed */
#define STALE_GARBAGE 0xdb /* in memory whose decommit failed, or that must not be read */

const char *fault_function_name(enum fault_function function)
{
	static const char *const names[FAULT_FUNCTIONS] = {
		"reserve",  "commit", "decommit",    "release", "now_ns",
		"populate", "move",   "large_pages", "park",	"wake",
	};

	return (unsigned)function < FAULT_FUNCTIONS ? names[function] : "unknown";
}

__attribute__((format(printf, 2, 3))) static void violate(struct fault_platform *fault,
							  const char *format, ...)
{
	va_list arguments;

	if (fault->violations++)
		return;
	va_start(arguments, format);
	vsnprintf(fault->violation, sizeof(fault->violation), format, arguments);
	va_end(arguments);
}

/* Return: true when this call is to fail. */
static bool enter(struct fault_platform *fault, enum fault_function function)
{
	unsigned only = fault->fail_only ? fault->fail_only : FAULT_FALLIBLE;

	pthread_mutex_lock(&fault->lock);
	fault->calls++;
	fault->counts[function]++;
	if (!(FAULT_BIT(function) & FAULT_FALLIBLE & only))
		return false;
	fault->steps++;
	if (fault->steps != fault->fail_at &&
	    (!fault->fail_from || fault->steps < fault->fail_from))
		return false;
	fault->injected++;
	fault->failed |= FAULT_BIT(function);
	return true;
}

static void leave(struct fault_platform *fault)
{
	pthread_mutex_unlock(&fault->lock);
}

static bool page_bit(const struct fault_reservation *book, size_t page)
{
	return book->bits[page / 64] >> page % 64 & 1;
}

/*
 * Sets or clears the bits of a range and keeps the sums right. Return: pages that changed.
 */
static size_t account(struct fault_platform *fault, struct fault_reservation *book,
		      unsigned char *ptr, size_t size, bool committed)
{
	size_t page_size = fault->platform.page_size, changed = 0, page;
	size_t first = (size_t)(ptr - book->base) / page_size;

	for (page = first; page < first + size / page_size; page++) {
		if (page_bit(book, page) == committed)
			continue;
		book->bits[page / 64] ^= (uint64_t)1 << page % 64;
		changed++;
	}
	if (committed) {
		book->committed += changed * page_size;
		fault->committed += changed * page_size;
	} else {
		book->committed -= changed * page_size;
		fault->committed -= changed * page_size;
	}
	if (fault->committed > fault->peak)
		fault->peak = fault->committed;
	return changed;
}

static size_t pages_committed(struct fault_platform *fault, struct fault_reservation *book,
			      unsigned char *ptr, size_t size)
{
	size_t page_size = fault->platform.page_size, count = 0, page;
	size_t first = (size_t)(ptr - book->base) / page_size;

	for (page = first; page < first + size / page_size; page++)
		count += page_bit(book, page);
	return count;
}

/* Writes to those pages of a range that the books have as @committed. */
static void scribble(struct fault_platform *fault, struct fault_reservation *book,
		     unsigned char *ptr, size_t size, bool committed, int garbage)
{
	size_t page_size = fault->platform.page_size, at;

	for (at = 0; at < size; at += page_size)
		if (page_bit(book, (size_t)(ptr + at - book->base) / page_size) == committed)
			memset(ptr + at, garbage, page_size);
}

static struct fault_reservation *find(struct fault_platform *fault, const unsigned char *ptr,
				      size_t size)
{
	struct fault_reservation *book;
	size_t i;

	for (i = 0; i < FAULT_RESERVATIONS; i++) {
		book = &fault->books[i];
		if (book->base && ptr >= book->base && size <= book->size &&
		    (size_t)(ptr - book->base) <= book->size - size)
			return book;
	}
	return NULL;
}

/* The reservation of a range that a caller hands in, or NULL where it breaks the contract. */
static struct fault_reservation *find_checked(struct fault_platform *fault,
					      enum fault_function function, void *ptr, size_t size)
{
	struct fault_reservation *book = find(fault, ptr, size);

	if (((uintptr_t)ptr | size) & (fault->platform.page_size - 1)) {
		violate(fault, "%s: %p, %zu bytes: not whole pages", fault_function_name(function),
			ptr, size);
		return NULL;
	}
	if (!book)
		violate(fault, "%s: %p, %zu bytes: in no reservation",
			fault_function_name(function), ptr, size);
	return book;
}

/* Makes memory that is given back look so. */
static void take_away(struct fault_platform *fault, unsigned char *ptr, size_t size)
{
	if (fault->inner.flags & HK_PLATFORM_OPEN) {
		memset(ptr, STALE_GARBAGE, size);
		return;
	}
	if (fault->options.forbid && mprotect(ptr, size, PROT_NONE))
		violate(fault, "mprotect failed, %p, %zu bytes", (void *)ptr, size);
}

static struct fault_reservation *reserve_checked(struct fault_platform *fault, size_t size,
						 size_t align)
{
	size_t granularity = fault->platform.granularity, i;

	if (!size || size & (granularity - 1))
		violate(fault, "reserve: %zu bytes is no multiple of the granularity", size);
	else if (align < granularity || align & (align - 1))
		violate(fault, "reserve: alignment %zu is impossible", align);
	else
		for (i = 0; i < FAULT_RESERVATIONS; i++)
			if (!fault->books[i].base)
				return &fault->books[i];
	return NULL;
}

static void *fault_reserve(void *context, size_t size, size_t align)
{
	struct fault_platform *fault = context;
	struct fault_reservation *book;
	unsigned char *ptr = NULL;
	size_t pages;

	if (enter(fault, FAULT_RESERVE))
		goto out_leave;
	book = reserve_checked(fault, size, align);
	if (!book)
		goto out_leave;
	ptr = fault->inner.reserve(fault->inner.context, size, align);
	if (!ptr) {
		fault->inner_failures++;
		goto out_leave;
	}
	if ((uintptr_t)ptr & (align - 1))
		violate(fault, "inner reserve: %p is not aligned to %zu", (void *)ptr, align);
	pages = size / fault->platform.page_size;
	book->bits = calloc(pages / 64 + 1, sizeof(*book->bits));
	if (!book->bits) {
		fault->inner.release(fault->inner.context, ptr, size);
		ptr = NULL;
		goto out_leave;
	}
	book->base = ptr;
	book->size = size;
	book->committed = 0;
	fault->reserved += size;
	fault->reservations++;
out_leave:
	leave(fault);
	return ptr;
}

static int fault_commit(void *context, void *ptr, size_t size)
{
	struct fault_platform *fault = context;
	struct fault_reservation *book;
	size_t pages = size / fault->platform.page_size, old;
	bool fail = enter(fault, FAULT_COMMIT);
	int error = -1;

	book = find_checked(fault, FAULT_COMMIT, ptr, size);
	if (fail || !book)
		goto out_leave;
	old = pages_committed(fault, book, ptr, size);
	if (fault->quota && old < pages &&
	    fault->committed + (pages - old) * fault->platform.page_size > fault->quota) {
		fault->injected++;
		fault->failed |= FAULT_BIT(FAULT_COMMIT);
		goto out_leave;
	}
	error = fault->inner.commit(fault->inner.context, ptr, size);
	if (error) {
		fault->inner_failures++;
		goto out_leave;
	}
	if (fault->options.garbage)
		scribble(fault, book, ptr, size, false, FRESH_GARBAGE);
	account(fault, book, ptr, size, true);
	fault->again += old;
out_leave:
	leave(fault);
	return error;
}

static int fault_decommit(void *context, void *ptr, size_t size)
{
	struct fault_platform *fault = context;
	struct fault_reservation *book;
	bool fail = enter(fault, FAULT_DECOMMIT);
	int error = -1;

	book = find_checked(fault, FAULT_DECOMMIT, ptr, size);
	if (!book)
		goto out_leave;
	if (!fail) {
		error = fault->inner.decommit(fault->inner.context, ptr, size);
		fault->inner_failures += error != 0;
	}
	if (error) {
		scribble(fault, book, ptr, size, true, STALE_GARBAGE);
		goto out_leave;
	}
	fault->idle += size / fault->platform.page_size - account(fault, book, ptr, size, false);
	take_away(fault, ptr, size);
out_leave:
	leave(fault);
	return error;
}

static void drop(struct fault_platform *fault, struct fault_reservation *book)
{
	fault->inner.release(fault->inner.context, book->base, book->size);
	fault->committed -= book->committed;
	fault->reserved -= book->size;
	fault->reservations--;
	free(book->bits);
	memset(book, 0, sizeof(*book));
}

static void fault_release(void *context, void *ptr, size_t size)
{
	struct fault_platform *fault = context;
	struct fault_reservation *book;

	enter(fault, FAULT_RELEASE);
	book = find(fault, ptr, 1);
	if (book && book->base == ptr && book->size == size)
		drop(fault, book);
	else
		violate(fault, "release: %p, %zu bytes: is no reservation", ptr, size);
	leave(fault);
}

static uint64_t fault_now_ns(void *context)
{
	struct fault_platform *fault = context;
	uint64_t now;

	enter(fault, FAULT_NOW);
	if (fault->options.fake_clock) {
		now = fault->now;
		fault->now += fault->tick;
	} else {
		now = fault->inner.now_ns(fault->inner.context);
	}
	leave(fault);
	return now;
}

/* For populate and move, which take memory that is committed. */
static bool all_committed(struct fault_platform *fault, enum fault_function function,
			  struct fault_reservation *book, void *ptr, size_t size)
{
	if (pages_committed(fault, book, ptr, size) == size / fault->platform.page_size)
		return true;
	violate(fault, "%s: %p, %zu bytes: not all committed", fault_function_name(function), ptr,
		size);
	return false;
}

static int fault_populate(void *context, void *ptr, size_t size)
{
	struct fault_platform *fault = context;
	struct fault_reservation *book;
	bool fail = enter(fault, FAULT_POPULATE);
	int error = -1;

	book = find_checked(fault, FAULT_POPULATE, ptr, size);
	if (book && all_committed(fault, FAULT_POPULATE, book, ptr, size) && !fail)
		error = fault->inner.populate(fault->inner.context, ptr, size);
	fault->inner_failures += error && !fail;
	leave(fault);
	return error;
}

/* Nobody should miss what else there was. */
static int move_by_copy(void *from, size_t from_size, void *to, size_t to_size)
{
	memset(to, 0xdb, to_size);
	memcpy(to, from, from_size);
	return 0;
}

static int fault_move(void *context, void *from, size_t from_size, void *to, size_t to_size)
{
	struct fault_platform *fault = context;
	struct fault_reservation *source, *target;
	bool fail = enter(fault, FAULT_MOVE);
	int error = -1;

	source = find_checked(fault, FAULT_MOVE, from, from_size);
	target = find_checked(fault, FAULT_MOVE, to, to_size);
	if (!source || !target)
		goto out_leave;
	if (source != target || from_size > to_size ||
	    ((unsigned char *)from < (unsigned char *)to + to_size &&
	     (unsigned char *)to < (unsigned char *)from + from_size))
		violate(fault,
			"move: %p to %p, %zu bytes: two reservations, too much, or not disjoint",
			from, to, from_size);
	else if (all_committed(fault, FAULT_MOVE, source, from, from_size) &&
		 all_committed(fault, FAULT_MOVE, target, to, to_size) && !fail)
		error = fault->options.copy_move ? move_by_copy(from, from_size, to, to_size)
						 : fault->inner.move(fault->inner.context, from,
								     from_size, to, to_size);
	if (error)
		fault->inner_failures += !fail;
	else
		memset(from, 0xdb, from_size); /* nobody should miss it */
out_leave:
	leave(fault);
	return error;
}

static int fault_large_pages(void *context, void *ptr, size_t size, bool enable)
{
	struct fault_platform *fault = context;
	bool fail = enter(fault, FAULT_LARGE_PAGES);
	int error = -1;

	if (find_checked(fault, FAULT_LARGE_PAGES, ptr, size) && !fail)
		error = fault->inner.large_pages(fault->inner.context, ptr, size, enable);
	fault->inner_failures += error && !fail;
	leave(fault);
	return error;
}

static void fault_park(void *context, uint32_t *word, uint32_t value)
{
	struct fault_platform *fault = context;

	enter(fault, FAULT_PARK);
	leave(fault);
	fault->inner.park(fault->inner.context, word, value);
}

static void fault_wake(void *context, uint32_t *word)
{
	struct fault_platform *fault = context;

	enter(fault, FAULT_WAKE);
	leave(fault);
	fault->inner.wake(fault->inner.context, word);
}

/* What the platform behind lacks, and what the options hide, stays NULL. */
static void add_optional(struct fault_platform *fault)
{
	const struct hk_platform *inner = &fault->inner;
	const struct fault_options *options = &fault->options;
	struct hk_platform *platform = &fault->platform;

	if ((inner->now_ns || options->fake_clock) && !(options->hide & FAULT_BIT(FAULT_NOW)))
		platform->now_ns = fault_now_ns;
	if (inner->populate && !(options->hide & FAULT_BIT(FAULT_POPULATE)))
		platform->populate = fault_populate;
	if ((inner->move || options->copy_move) && !(options->hide & FAULT_BIT(FAULT_MOVE)))
		platform->move = fault_move;
	if (inner->large_pages && !(options->hide & FAULT_BIT(FAULT_LARGE_PAGES)))
		platform->large_pages = fault_large_pages;
	if (inner->park && inner->wake && !(options->hide & FAULT_BIT(FAULT_PARK))) {
		platform->park = fault_park;
		platform->wake = fault_wake;
	}
}

int fault_platform_init(struct fault_platform *fault, const struct fault_options *options)
{
	size_t page_size, inner_page;
	int error;

	memset(fault, 0, sizeof(*fault));
	if (options)
		fault->options = *options;
	if (fault->options.inner) {
		fault->inner = *fault->options.inner;
	} else {
		error = hk_platform_system(&fault->inner);
		if (error)
			return error;
	}
	inner_page = fault->inner.page_size;
	page_size = fault->options.page_size ? fault->options.page_size : inner_page;
	if (page_size < inner_page || page_size & (page_size - 1))
		return HK_ERROR_ARGUMENT;

	fault->platform = (struct hk_platform){
		.context = fault,
		.page_size = page_size,
		.granularity =
			fault->inner.granularity > page_size ? fault->inner.granularity : page_size,
		.flags = fault->inner.flags | fault->options.flags,
		.reserve = fault_reserve,
		.commit = fault_commit,
		.decommit = fault_decommit,
		.release = fault_release,
		.address_space = fault->inner.address_space & ~(page_size - 1),
	};
	if (fault->options.garbage)
		fault->platform.flags &= ~(unsigned)HK_PLATFORM_ZEROED;
	add_optional(fault);
	return pthread_mutex_init(&fault->lock, NULL) ? HK_ERROR_PLATFORM : 0;
}

void fault_platform_rewind(struct fault_platform *fault)
{
	memset(fault->counts, 0, sizeof(fault->counts));
	fault->fail_at = 0;
	fault->fail_from = 0;
	fault->fail_only = 0;
	fault->calls = 0;
	fault->steps = 0;
	fault->injected = 0;
	fault->failed = 0;
	fault->inner_failures = 0;
}

uint64_t fault_platform_end(struct fault_platform *fault)
{
	size_t i;

	for (i = 0; i < FAULT_RESERVATIONS; i++) {
		if (!fault->books[i].base)
			continue;
		violate(fault, "end: %p, %zu bytes were never released",
			(void *)fault->books[i].base, fault->books[i].size);
		drop(fault, &fault->books[i]);
	}
	pthread_mutex_destroy(&fault->lock);
	return fault->violations;
}

bool fault_platform_is_committed(struct fault_platform *fault, const void *ptr, size_t size)
{
	size_t page_size = fault->platform.page_size;
	uintptr_t before = (uintptr_t)ptr & (page_size - 1);
	unsigned char *first = (unsigned char *)(uintptr_t)ptr - before;
	struct fault_reservation *book;
	bool committed;

	size = (size + before + page_size - 1) & ~(page_size - 1);
	pthread_mutex_lock(&fault->lock);
	book = find(fault, first, size);
	committed = book && pages_committed(fault, book, first, size) == size / page_size;
	pthread_mutex_unlock(&fault->lock);
	return committed;
}
