/* SPDX-License-Identifier: MIT */
/*
 * The fault sweep: one scripted session that makes the arena call the platform in every way it
 * does, run again and again with the first, second, third ... call failing until the script
 * passes untouched, and once more with all calls failing from there on. Whatever fails, the
 * arena must stay whole, agree with the platform's books byte by byte, tell the host, serve
 * the next request and leave nothing behind.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include <criterion/criterion.h>
#include <hakmem/hakmem.h>
#include <tests/fault_platform.h>
#include <tests/heap.h>

#define MIB ((size_t)1 << 20)
#define SMALL_BLOCKS 100
#define LARGE_BLOCKS 12

/*
 * An arena that has large pages moves none of them. So each sweep hides the one or the other of
 * the two functions; the arena asks for large pages always, which must be nothing where there
 * are none.
 */
#define NO_LARGE_PAGES FAULT_BIT(FAULT_LARGE_PAGES)
#define NO_MOVE FAULT_BIT(FAULT_MOVE)

/*
 * Failures that the host must hear of. To go without moved pages, without large pages or with a
 * reservation that is less aligned is none.
 */
#define MUST_TELL (FAULT_BIT(FAULT_COMMIT) | FAULT_BIT(FAULT_DECOMMIT))

/*
 * One run of the script.
 *
 * @empty: bytes committed with a cache and nothing else.
 * @refusals: calls that returned an error or NULL.
 * @lasting: what fails goes on failing, so that nothing is expected of a second try.
 */
struct session {
	struct fault_platform fault;
	struct test_reports reports;
	struct hk_arena *arena;
	struct hk_cache *cache;
	size_t empty;
	size_t top;
	size_t refusals;
	bool lasting;
	void *small[SMALL_BLOCKS];
	unsigned char *large[LARGE_BLOCKS];
};

/* After every step: all invariants hold, and the two books agree. */
static void settle(struct session *session, const char *step)
{
	struct fault_platform *fault = &session->fault;

	must(fault->violations == 0, "%s: %s", step, fault->violation);
	if (!session->arena) {
		must(fault->reservations == 0, "%s left a reservation behind", step);
		must(fault->committed == 0, "%s left %zu bytes behind", step, fault->committed);
		return;
	}
	must(hk_arena_check(session->arena) == 0, "%s: %s", step, session->reports.last.what);
	must(hk_arena_used(session->arena) == fault->committed,
	     "%s: the arena says %zu bytes, the platform %zu", step, hk_arena_used(session->arena),
	     fault->committed);
	must(session->reports.count == session->reports.by_fault[HK_FAULT_PLATFORM] +
					       session->reports.by_fault[HK_FAULT_EXHAUSTED],
	     "%s: %s", step, session->reports.last.what);
}

/* A call said no: something must have been made to fail. Return: whether to try again. */
static bool refused(struct session *session, const char *step)
{
	must(session->fault.injected, "%s failed by itself", step);
	must(session->refusals == 0 || session->lasting, "%s fails after the fault", step);
	session->refusals++;
	return !session->lasting;
}

static bool open_arena(struct session *session)
{
	struct hk_arena_config config = {
		.name = "faults",
		.address_space = 1024 * MIB,
		.platform = &session->fault.platform,
		.context = &session->reports,
		.on_report = test_on_report,
		.large_pages = true,
	};
	int error;

	do {
		error = hk_arena_create(&session->arena, &config);
		must(!error == !!session->arena, "%s, but an arena", hk_error_name(error));
		settle(session, "hk_arena_create");
	} while (error && refused(session, "hk_arena_create"));
	if (error)
		return false;
	do {
		error = hk_cache_create(session->arena, &session->cache);
		must(!error == !!session->cache, "%s, but a cache", hk_error_name(error));
		settle(session, "hk_cache_create");
	} while (error && refused(session, "hk_cache_create"));
	session->empty = session->fault.committed;
	return !error;
}

enum how {
	PLAIN,
	ZEROED,
	ALIGNED,
	WITHOUT_CACHE,
};

static void *allocate_once(struct session *session, enum how how, size_t size)
{
	switch (how) {
	case ZEROED:
		return hk_zalloc(session->cache, size);
	case ALIGNED:
		return hk_alloc_aligned(session->cache, size, 4 * MIB);
	case WITHOUT_CACHE:
		return hk_arena_alloc(session->arena, size);
	default:
		return hk_alloc(session->cache, size);
	}
}

/* Memory that the platform does not have on its books would crash here, or be caught. */
static void use(struct session *session, void *ptr, enum how how, size_t size)
{
	unsigned char *byte = ptr;
	size_t i;

	must(fault_platform_is_committed(&session->fault, ptr, size),
	     "a block of %zu bytes that the platform knows nothing of", size);
	must(how != ALIGNED || (uintptr_t)ptr % (4 * MIB) == 0, "not aligned");
	for (i = 0; how == ZEROED && i < size; i++)
		must(byte[i] == 0, "byte %zu of %zu is not zero", i, size);
	memset(ptr, 0xee, size < 65536 ? size : 65536);
	byte[size - 1] = 0xee;
}

static void *allocate(struct session *session, enum how how, size_t size)
{
	void *ptr;

	do
		ptr = allocate_once(session, how, size);
	while (!ptr && refused(session, "an allocation"));
	if (ptr)
		use(session, ptr, how, size);
	return ptr;
}

static void allocate_some(struct session *session)
{
	static const struct {
		enum how how;
		size_t size;
	} large[LARGE_BLOCKS] = {
		{ PLAIN, 40000 },	   { PLAIN, 500000 }, { PLAIN, MIB },
		{ ZEROED, 100000 },	   { ZEROED, MIB },   { ALIGNED, MIB },
		{ WITHOUT_CACHE, 200000 }, { ALIGNED, 100 },  { PLAIN, 5 * MIB },
		{ ZEROED, MIB },	   { PLAIN, 300000 }, { WITHOUT_CACHE, 2 * MIB },
	};
	size_t i;

	for (i = 0; i < SMALL_BLOCKS; i++) {
		session->small[i] = allocate(session, PLAIN, 16 + i * 111 % 30000);
		if (i % 25 == 0)
			settle(session, "small blocks");
	}
	for (i = 0; i < LARGE_BLOCKS; i++) {
		session->large[i] = allocate(session, large[i].how, large[i].size);
		settle(session, "large blocks");
	}
}

static void free_some(struct session *session)
{
	size_t i;

	for (i = 0; i < SMALL_BLOCKS; i++) {
		hk_free(session->cache, session->small[i]);
		session->small[i] = NULL;
	}
	for (i = 0; i < LARGE_BLOCKS; i++) {
		hk_free(session->cache, session->large[i]);
		session->large[i] = NULL;
	}
	settle(session, "freeing");
	hk_cache_flush(session->cache);
	settle(session, "hk_cache_flush");
}

/* Where content is looked for: every 64 KiB of the first 4 MiB, then sparsely, for speed. */
static size_t next_stamp(size_t at)
{
	return at < 4 * MIB ? at + 65536 : at + at / 4;
}

static void stamp(unsigned char *ptr, size_t from, size_t size)
{
	size_t at;

	for (at = 0; at < size; at = next_stamp(at))
		if (at >= from)
			ptr[at] = test_byte(at, 1);
	ptr[size - 1] = 0x77;
}

static void assert_stamped(const unsigned char *ptr, size_t size)
{
	size_t at;

	for (at = 0; at < size; at = next_stamp(at))
		must(ptr[at] == test_byte(at, 1), "byte %zu of %zu is lost", at, size);
	must(ptr[size - 1] == 0x77, "the last of %zu bytes is lost", size);
}

static unsigned char *grow(struct session *session, unsigned char *block, size_t size)
{
	unsigned char *grown;

	if (!block)
		return NULL;
	do {
		grown = hk_realloc(session->cache, block, size);
		settle(session, "hk_realloc");
		assert_stamped(grown ? grown : block, size / 2);
	} while (!grown && refused(session, "hk_realloc"));
	if (!grown)
		return block;
	must(fault_platform_is_committed(&session->fault, grown, size), "grown beyond the books");
	stamp(grown, size / 2, size);
	return grown;
}

/*
 * Two blocks that grow in turn are in each other's way, so that they must move. One of them
 * stops early: each step of a large trim is one more round of the sweep.
 */
static void grow_large(struct session *session)
{
	unsigned char *blocks[2];
	size_t i, size;

	for (i = 0; i < 2; i++) {
		blocks[i] = allocate(session, PLAIN, MIB);
		if (blocks[i])
			stamp(blocks[i], 0, MIB);
	}
	for (size = 2 * MIB; size <= session->top; size *= 2)
		for (i = 0; i < (size <= session->top / 8 ? 2 : 1); i++) {
			if (blocks[i] && hk_usable_size(session->arena, blocks[i]) < size / 2)
				continue; /* could not keep up */
			blocks[i] = grow(session, blocks[i], size);
		}
	for (i = 0; i < 2; i++)
		hk_free(session->cache, blocks[i]);
	settle(session, "freeing what grew");
}

/* Each look at the fake clock lets a microsecond go by: many calls, each of a few steps. */
static void trim_in_slices(struct session *session)
{
	unsigned idle = 0;

	session->fault.tick = 1000;
	while (idle < 3) {
		idle += hk_arena_trim(session->arena, 16 * MIB, 5000) == 0;
		settle(session, "hk_arena_trim in slices");
	}
	if (!session->lasting)
		must(session->fault.committed <= 16 * MIB, "trim keeps %zu bytes",
		     session->fault.committed);
}

/* A step that failed is made good by the next call. */
static void trim_all(struct session *session)
{
	unsigned i;

	hk_arena_reset(session->arena);
	settle(session, "hk_arena_reset");
	for (i = 0; i < 3; i++) {
		hk_arena_trim(session->arena, 0, 0);
		settle(session, "hk_arena_trim");
	}
	if (!session->lasting)
		must(session->fault.committed <= session->empty, "trim keeps %zu bytes, not %zu",
		     session->fault.committed, session->empty);
}

static void run_script(struct session *session)
{
	struct hk_stats stats;

	if (!open_arena(session))
		goto out_destroy;
	allocate_some(session);
	grow_large(session);
	free_some(session);
	trim_in_slices(session);
	allocate_some(session);
	trim_all(session);
	allocate_some(session);
	free_some(session);

	/* The platform saw the calls of all arenas, failed creations too. */
	hk_arena_stats(session->arena, &stats);
	must(stats.peak_committed_bytes == session->fault.peak, "peak %zu, not %zu",
	     stats.peak_committed_bytes, session->fault.peak);
	if (!session->fault.injected)
		must(stats.counters.platform_call == session->fault.calls,
		     "%llu platform calls, not %llu",
		     (unsigned long long)stats.counters.platform_call,
		     (unsigned long long)session->fault.calls);
out_destroy:
	hk_arena_destroy(session->arena);
	session->arena = NULL;
	settle(session, "hk_arena_destroy");
}

static struct session session;
static struct hk_platform behind; /* the fault platform of the session */

/* With large pages in earnest each byte touched would cost the clearing of 2 MiB. */
static int ignore_large_pages(void *context, void *ptr, size_t size, bool enable)
{
	(void)context;
	(void)ptr;
	(void)size;
	(void)enable;
	return 0;
}

/* One run. Return: the calls that can fail. */
static uint64_t run(struct fault_options options, size_t top, uint64_t fail_at, uint64_t fail_from)
{
	struct fault_platform *fault = &session.fault;

	memset(&session, 0, sizeof(session));
	cr_assert_eq(hk_platform_system(&behind), 0);
	behind.large_pages = ignore_large_pages;
	options.inner = &behind;
	options.forbid = true;
	options.fake_clock = true;
	options.copy_move = !behind.move;
	cr_assert_eq(fault_platform_init(fault, &options), 0);
	fault->fail_at = fail_at;
	fault->fail_from = fail_from;
	session.lasting = fail_from != 0;
	session.top = top;
	run_script(&session);

	if (fault->failed & MUST_TELL || (session.lasting && fault->failed))
		must(session.reports.by_fault[HK_FAULT_PLATFORM] || session.refusals,
		     "call %llu failed and nobody was told",
		     (unsigned long long)(fail_at ? fail_at : fail_from));
	must(!session.reports.count || fault->injected, "a failure is reported where none was");
	must(fault_platform_end(fault) == 0, "%s", fault->violation);
	return fault->steps;
}

/* The script is worth nothing where it does not make all the calls. */
static void assert_script_is_complete(const struct fault_options *options)
{
	static const enum fault_function called[] = {
		FAULT_RESERVE, FAULT_COMMIT, FAULT_DECOMMIT,	FAULT_RELEASE,
		FAULT_NOW,     FAULT_MOVE,   FAULT_LARGE_PAGES,
	};
	size_t i;

	for (i = 0; i < sizeof(called) / sizeof(called[0]); i++)
		if (!(options->hide & FAULT_BIT(called[i])))
			cr_assert_gt(session.fault.counts[called[i]], 0,
				     "the script never calls %s", fault_function_name(called[i]));
}

static void sweep(struct fault_options options, size_t top)
{
	unsigned failed = 0;
	uint64_t n, steps;

	steps = run(options, top, 0, 0);
	cr_assert_eq(session.reports.count, 0, "%s", session.reports.last.what);
	assert_script_is_complete(&options);
	for (n = 1;; n++) {
		run(options, top, n, 0);
		if (!session.fault.injected)
			break;
		failed |= session.fault.failed;
	}
	cr_assert_gt(n, steps, "the sweep ended at call %llu of %llu", (unsigned long long)n,
		     (unsigned long long)steps);
	cr_assert_eq(failed, FAULT_FALLIBLE & ~FAULT_BIT(FAULT_POPULATE) & ~options.hide,
		     "not every function was made to fail");
}

static void sweep_lasting(struct fault_options options, size_t top)
{
	uint64_t n;

	for (n = 1;; n++) {
		run(options, top, 0, n);
		if (!session.fault.injected)
			break;
	}
	cr_assert_gt(n, 20);
}

Test(faults, sweep_4k_pages, .timeout = 120)
{
	sweep((struct fault_options){ .page_size = 4096, .hide = NO_LARGE_PAGES }, 64 * MIB);
}

Test(faults, sweep_16k_pages, .timeout = 120)
{
	sweep((struct fault_options){ .page_size = 16384, .hide = NO_LARGE_PAGES }, 64 * MIB);
}

Test(faults, sweep_64k_pages, .timeout = 120)
{
	sweep((struct fault_options){ .page_size = 65536, .hide = NO_LARGE_PAGES }, 64 * MIB);
}

Test(faults, sweep_large_pages, .timeout = 120)
{
	sweep((struct fault_options){ .hide = NO_MOVE }, 64 * MIB);
}

/* A platform of the barest kind, whose memory comes with what others left in it. */
Test(faults, sweep_garbage, .timeout = 120)
{
	sweep((struct fault_options){ .garbage = true, .hide = NO_MOVE | NO_LARGE_PAGES }, 4 * MIB);
}

Test(faults, sweep_charged, .timeout = 120)
{
	sweep((struct fault_options){ .flags = HK_PLATFORM_CHARGED, .hide = NO_LARGE_PAGES },
	      64 * MIB);
}

Test(faults, all_fails_from_some_call_on_4k_pages, .timeout = 120)
{
	sweep_lasting((struct fault_options){ .page_size = 4096, .hide = NO_LARGE_PAGES }, 8 * MIB);
}

Test(faults, all_fails_from_some_call_on_16k_pages, .timeout = 120)
{
	sweep_lasting((struct fault_options){ .page_size = 16384, .hide = NO_LARGE_PAGES },
		      8 * MIB);
}

Test(faults, all_fails_from_some_call_on_64k_pages, .timeout = 120)
{
	sweep_lasting((struct fault_options){ .page_size = 65536, .hide = NO_LARGE_PAGES },
		      8 * MIB);
}

#define GRANTED ((size_t)64 << 20) /* the most that this system reserves */

static struct hk_platform spacious;

static void *reserve_little(void *context, size_t size, size_t align)
{
	return size <= GRANTED ? spacious.reserve(context, size, align) : NULL;
}

/* Halves are tried where the host named no size, and half of what is granted is left to it. */
Test(faults, a_reservation_refused_is_tried_by_halves)
{
	struct fault_platform fault;
	struct hk_arena_config config = { .platform = &fault.platform };
	struct hk_arena *arena = NULL;
	struct hk_platform narrow;
	struct hk_stats stats;

	cr_assert_eq(hk_platform_system(&spacious), 0);
	narrow = spacious;
	narrow.reserve = reserve_little;
	cr_assert_eq(fault_platform_init(&fault, &(struct fault_options){ .inner = &narrow }), 0);
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(fault.reservations, 1);
	cr_assert_eq(fault.reserved, GRANTED / 2);
	hk_arena_stats(arena, &stats);
	cr_assert_eq(stats.reserved_bytes, fault.reserved);
	hk_arena_destroy(arena);

	config.address_space = GRANTED;
	cr_assert_eq(hk_arena_create(&arena, &config), 0);
	cr_assert_eq(fault.reserved, GRANTED, "a size that is named is taken as it is");
	hk_arena_destroy(arena);
	config.address_space = 2 * GRANTED;
	cr_assert_eq(hk_arena_create(&arena, &config), HK_ERROR_ADDRESS_SPACE);
	cr_assert_null(arena);
	cr_assert_eq(fault.reservations, 0);

	fault.fail_from = 1;
	config.address_space = 0;
	cr_assert_eq(hk_arena_create(&arena, &config), HK_ERROR_ADDRESS_SPACE);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}

/*
 * One thread is within commit, and so within a lock of the arena, until the other one parks or
 * has its block without waiting.
 */
struct meeting {
	struct fault_platform fault;
	struct hk_arena *arena;
	int (*commit)(void *context, void *ptr, size_t size);
	uint32_t inside;
	uint32_t over;
};

static struct meeting meeting;

static int commit_that_waits(void *context, void *ptr, size_t size)
{
	uint32_t none = 0;

	if (__atomic_compare_exchange_n(&meeting.inside, &none, 1, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		while (!__atomic_load_n(&meeting.fault.counts[FAULT_PARK], __ATOMIC_SEQ_CST) &&
		       !__atomic_load_n(&meeting.over, __ATOMIC_SEQ_CST))
			sched_yield();
	return meeting.commit(context, ptr, size);
}

static void *second_thread(void *argument)
{
	void *block;

	(void)argument;
	while (!__atomic_load_n(&meeting.inside, __ATOMIC_SEQ_CST))
		sched_yield();
	block = hk_arena_alloc(meeting.arena, 8 * MIB);
	__atomic_store_n(&meeting.over, 1, __ATOMIC_SEQ_CST);
	return block;
}

Test(faults, who_waits_for_a_lock_parks_and_is_woken, .timeout = 60)
{
	struct hk_arena_config config = { .address_space = 256 * MIB };
	struct hk_platform platform;
	pthread_t thread;
	void *blocks[2];

	cr_assert_eq(fault_platform_init(&meeting.fault, NULL), 0);
	platform = meeting.fault.platform;
	if (!platform.park)
		cr_skip_test("a platform that cannot park");
	meeting.commit = platform.commit;
	platform.commit = commit_that_waits;
	config.platform = &platform;
	meeting.inside = 1; /* creation may commit what it likes */
	cr_assert_eq(hk_arena_create(&meeting.arena, &config), 0);
	__atomic_store_n(&meeting.inside, 0, __ATOMIC_SEQ_CST);

	cr_assert_eq(pthread_create(&thread, NULL, second_thread, NULL), 0);
	blocks[0] = hk_arena_alloc(meeting.arena, 8 * MIB);
	pthread_join(thread, &blocks[1]);
	cr_assert(blocks[0] && blocks[1] && blocks[0] != blocks[1]);
	cr_assert_gt(meeting.fault.counts[FAULT_PARK], 0, "nobody parked");
	cr_assert_gt(meeting.fault.counts[FAULT_WAKE], 0, "nobody was woken");
	hk_arena_free(meeting.arena, blocks[0]);
	hk_arena_free(meeting.arena, blocks[1]);
	cr_assert_eq(hk_arena_check(meeting.arena), 0);
	hk_arena_destroy(meeting.arena);
	cr_assert_eq(fault_platform_end(&meeting.fault), 0, "%s", meeting.fault.violation);
}
