/* SPDX-License-Identifier: MIT */
/*
 * One test of the contract that runs against any platform, and the tests that run it on those
 * that come with the library. What only one platform promises is in tests/posix.c and
 * tests/platforms.c.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <hakmem/hakmem.h>
#include <platform/platform.h>
#include <tests/contract.h>
#include <tests/fault_platform.h>
#include <tests/helper.h>

#define ROOM_PAGES 256
#define WORKERS 4
#define WORKER_ROUNDS 100

/* One reservation under test. */
struct room {
	const struct hk_platform *platform;
	unsigned char *base;
	size_t size;
	size_t page;
};

static void room_open(struct room *room, const struct hk_platform *platform)
{
	size_t granularity = platform->granularity;

	room->platform = platform;
	room->page = platform->page_size;
	room->size = (ROOM_PAGES * room->page + granularity - 1) & ~(granularity - 1);
	room->base = platform->reserve(platform->context, room->size, granularity);
	cr_assert_not_null(room->base, "reserve refuses %zu bytes", room->size);
	cr_assert_eq((uintptr_t)room->base & (granularity - 1), 0, "not aligned");
}

static void room_close(struct room *room)
{
	room->platform->release(room->platform->context, room->base, room->size);
}

static unsigned char *page_at(const struct room *room, size_t page)
{
	return room->base + page * room->page;
}

static void commit(const struct room *room, size_t first, size_t count)
{
	cr_assert_eq(room->platform->commit(room->platform->context, page_at(room, first),
					    count * room->page),
		     0, "commit of pages %zu to %zu fails", first, first + count);
}

static void decommit(const struct room *room, size_t first, size_t count)
{
	cr_assert_eq(room->platform->decommit(room->platform->context, page_at(room, first),
					      count * room->page),
		     0, "decommit of pages %zu to %zu fails", first, first + count);
}

static void fill(const struct room *room, size_t first, size_t count, uint64_t seed)
{
	test_fill(page_at(room, first), count * room->page, seed);
}

static void assert_holds(const struct room *room, size_t first, size_t count, uint64_t seed,
			 const char *when)
{
	cr_assert(test_holds(page_at(room, first), count * room->page, seed),
		  "pages %zu to %zu lost their content: %s", first, first + count, when);
}

/* Holds a platform that promises zeroed memory to it; of others nothing is asked. */
static void assert_fresh(const struct room *room, size_t first, size_t count, const char *when)
{
	const unsigned char *byte = page_at(room, first);
	size_t i;

	if (!(room->platform->flags & HK_PLATFORM_ZEROED))
		return;
	for (i = 0; i < count * room->page; i++)
		cr_assert_eq(byte[i], 0, "page %zu is not zero: %s", first + i / room->page, when);
}

bool contract_can_read(const void *ptr)
{
	ssize_t written;
	int ends[2];

	cr_assert_eq(pipe(ends), 0);
	written = write(ends[1], ptr, 1);
	close(ends[0]);
	close(ends[1]);
	return written == 1;
}

static void check_fields(const struct hk_platform *platform)
{
	size_t page = platform->page_size, granularity = platform->granularity;

	cr_assert(page >= 4096 && page <= 65536 && (page & (page - 1)) == 0, "page_size %zu", page);
	cr_assert(granularity >= page && (granularity & (granularity - 1)) == 0, "granularity %zu",
		  granularity);
	cr_assert_not_null(platform->reserve);
	cr_assert_not_null(platform->commit);
	cr_assert_not_null(platform->decommit);
	cr_assert_not_null(platform->release);
	cr_assert_eq(!platform->park, !platform->wake, "park and wake come together");
	cr_assert_eq(platform->address_space & (page - 1), 0, "address_space is in pages");
}

static void check_commit(const struct hk_platform *platform)
{
	struct room room;

	room_open(&room, platform);
	if (!(platform->flags & HK_PLATFORM_OPEN)) {
		cr_assert_not(contract_can_read(page_at(&room, 0)), "accessible before commit");
		cr_assert_not(contract_can_read(page_at(&room, ROOM_PAGES) - 1),
			      "accessible at the end");
	}
	commit(&room, 10, 20);
	if (!(platform->flags & HK_PLATFORM_OPEN)) {
		cr_assert_not(contract_can_read(page_at(&room, 10) - 1),
			      "committed too much before");
		cr_assert_not(contract_can_read(page_at(&room, 30)), "committed too much behind");
	}
	assert_fresh(&room, 10, 20, "first commit");
	fill(&room, 10, 20, 1);
	commit(&room, 15, 1);
	assert_holds(&room, 10, 20, 1, "commit of a committed page");
	commit(&room, 0, 40);
	assert_holds(&room, 10, 20, 1, "commit that overlaps");
	assert_fresh(&room, 0, 10, "commit that overlaps");
	assert_fresh(&room, 30, 10, "commit that overlaps");
	commit(&room, 0, ROOM_PAGES);
	assert_holds(&room, 10, 20, 1, "commit of all");
	fill(&room, 0, ROOM_PAGES, 2);
	assert_holds(&room, 0, ROOM_PAGES, 2, "all is written");
	room_close(&room);
}

static void check_decommit(const struct hk_platform *platform)
{
	struct room room;

	room_open(&room, platform);
	commit(&room, 0, 100);
	fill(&room, 0, 100, 3);
	decommit(&room, 50, 1);
	assert_holds(&room, 0, 50, 3, "decommit of the page behind");
	test_fill(page_at(&room, 51), 49 * room.page, 4);
	decommit(&room, 20, 30);
	assert_holds(&room, 0, 20, 3, "decommit behind");
	assert_holds(&room, 51, 49, 4, "decommit before");
	commit(&room, 20, 31);
	assert_fresh(&room, 20, 31, "commit after decommit");
	assert_holds(&room, 0, 20, 3, "commit behind");
	fill(&room, 20, 31, 5);
	assert_holds(&room, 20, 31, 5, "used again");
	decommit(&room, 0, 100);
	commit(&room, 99, 1);
	assert_fresh(&room, 99, 1, "commit of one page after decommit of many");
	room_close(&room);

	/* The next reservation may well be the same range: nothing of the old may show. */
	room_open(&room, platform);
	commit(&room, 0, ROOM_PAGES);
	assert_fresh(&room, 0, ROOM_PAGES, "new reservation");
	room_close(&room);
}

/* 256 TiB in sum, twice what a process has; or 256 GiB where it has 4. */
static void check_reserve_leaks(const struct hk_platform *platform)
{
	size_t size = SIZE_MAX > UINT32_MAX ? SIZE_MAX >> 28 : SIZE_MAX >> 6;
	bool granted = false;
	unsigned char *ptr;
	unsigned i;

	if (platform->address_space)
		size = platform->address_space;
	size &= ~(platform->granularity - 1);
	for (i = 0; i < 4096; i++) {
		ptr = platform->reserve(platform->context, size, platform->granularity);
		if (ptr)
			platform->release(platform->context, ptr, size);
		cr_assert(ptr || !granted, "a released range is gone, round %u", i);
		granted = ptr;
	}
}

static void check_reserve(const struct hk_platform *platform)
{
	size_t granularity = platform->granularity, align, size;
	size_t impossible = (SIZE_MAX / 2 + 1) & ~(granularity - 1);
	struct room room, other;
	unsigned char *ptr;

	cr_assert_null(platform->reserve(platform->context, impossible, granularity));
	cr_assert_null(platform->reserve(platform->context, granularity, impossible));
	if (platform->address_space) {
		size = platform->address_space & ~(granularity - 1);
		cr_assert_null(platform->reserve(platform->context, size + granularity,
						 granularity),
			       "reserve grants more than address_space");
		ptr = platform->reserve(platform->context, size, granularity);
		cr_assert_not_null(ptr, "reserve refuses address_space");
		platform->release(platform->context, ptr, size);
	}
	for (align = granularity; align <= (size_t)8 << 20; align *= 2) {
		ptr = platform->reserve(platform->context, granularity, align);
		if (!ptr && platform->address_space)
			continue;
		cr_assert_not_null(ptr, "reserve refuses alignment %zu", align);
		cr_assert_eq((uintptr_t)ptr & (align - 1), 0, "not aligned to %zu", align);
		platform->release(platform->context, ptr, granularity);
	}
	check_reserve_leaks(platform);

	room_open(&room, platform);
	other = room;
	other.base = platform->reserve(platform->context, room.size, granularity);
	cr_assert(other.base || platform->address_space, "no second reservation");
	commit(&room, 0, 4);
	fill(&room, 0, 4, 6);
	if (other.base) {
		commit(&other, 0, 4);
		fill(&other, 0, 4, 7);
		assert_holds(&room, 0, 4, 6, "two reservations overlap");
		room_close(&other);
		assert_holds(&room, 0, 4, 6, "release of another reservation");
	}
	room_close(&room);
}

static void check_clock(const struct hk_platform *platform)
{
	uint64_t first, last, now;
	unsigned i;

	if (!platform->now_ns)
		return;
	first = last = platform->now_ns(platform->context);
	for (i = 0; i < 10000000 && (i < 1000 || last == first); i++) {
		now = platform->now_ns(platform->context);
		cr_assert_geq(now, last, "the clock goes back");
		last = now;
	}
	cr_assert_gt(last, first, "the clock stands still");
}

static void check_populate(const struct hk_platform *platform)
{
	struct room room;

	if (!platform->populate)
		return;
	room_open(&room, platform);
	commit(&room, 0, 64);
	fill(&room, 0, 32, 8);
	cr_assert_eq(platform->populate(platform->context, room.base, 64 * room.page), 0);
	assert_holds(&room, 0, 32, 8, "populate");
	assert_fresh(&room, 32, 32, "populate");
	room_close(&room);
}

static void check_large_pages(const struct hk_platform *platform)
{
	struct room room;

	if (!platform->large_pages)
		return;
	room_open(&room, platform);
	commit(&room, 0, 64);
	fill(&room, 0, 64, 9);
	platform->large_pages(platform->context, room.base, room.size, true);
	assert_holds(&room, 0, 64, 9, "large pages asked for");
	commit(&room, 64, 64);
	assert_fresh(&room, 64, 64, "large pages asked for");
	fill(&room, 64, 64, 10);
	platform->large_pages(platform->context, room.base, room.size, false);
	assert_holds(&room, 0, 64, 9, "large pages ruled out");
	assert_holds(&room, 64, 64, 10, "large pages ruled out");
	room_close(&room);
}

/*
 * Moves pages and checks both ends, whether the platform did it or said no. Return: true when
 * it did.
 */
static bool move(const struct room *room, size_t from, size_t count, size_t to, size_t more,
		 uint64_t seed)
{
	const struct hk_platform *platform = room->platform;
	int error;

	error = platform->move(platform->context, page_at(room, from), count * room->page,
			       page_at(room, to), more * room->page);
	if (error) {
		assert_holds(room, from, count, seed, "a move that failed");
		fill(room, from, count, seed);
		return false;
	}
	assert_holds(room, to, count, seed, "moved");
	fill(room, to, more, seed + 100);
	fill(room, from, count, seed);
	assert_holds(room, to, more, seed + 100, "the place it came from written again");
	return true;
}

static void check_move(const struct hk_platform *platform)
{
	struct room room;

	if (!platform->move)
		return;
	room_open(&room, platform);
	commit(&room, 0, 64);
	fill(&room, 0, 16, 11);
	fill(&room, 16, 32, 12);
	fill(&room, 48, 16, 13);
	commit(&room, 128, 40);
	move(&room, 16, 32, 128, 40, 12);
	assert_holds(&room, 0, 16, 11, "move of the pages behind");
	assert_holds(&room, 48, 16, 13, "move of the pages before");

	/* Over pages that are committed and written. */
	commit(&room, 160, 8);
	fill(&room, 160, 8, 14);
	move(&room, 0, 4, 160, 4, 11);
	assert_holds(&room, 164, 4, 14 + 4 * room.page / 8, "move in front");

	/* What was moved has grown since, and goes on. */
	commit(&room, 64, 128);
	fill(&room, 128, 64, 15);
	move(&room, 128, 64, 64, 64, 15);

	/* Never touched. */
	commit(&room, 200, 8);
	commit(&room, 230, 8);
	if (platform->move(platform->context, page_at(&room, 200), 8 * room.page,
			   page_at(&room, 230), 8 * room.page) == 0) {
		assert_fresh(&room, 230, 8, "moved, never touched");
		fill(&room, 230, 8, 16);
		fill(&room, 200, 8, 17);
		assert_holds(&room, 230, 8, 16, "moved, never touched before");
	}
	room_close(&room);

	room_open(&room, platform);
	commit(&room, 0, ROOM_PAGES);
	assert_fresh(&room, 0, ROOM_PAGES, "new reservation after moves");
	room_close(&room);
}

/* A worker's part of the room, and what it saw. */
struct worker {
	struct room room;
	size_t first;
	size_t count;
	const char *failure;
};

static bool worker_round(struct worker *worker, uint64_t seed)
{
	const struct hk_platform *platform = worker->room.platform;
	unsigned char *ptr = page_at(&worker->room, worker->first);
	size_t size = worker->count * worker->room.page, half = size / 2, i;

	worker->failure = "commit fails";
	if (platform->commit(platform->context, ptr, size))
		return false;
	worker->failure = "memory is not zero";
	for (i = 0; platform->flags & HK_PLATFORM_ZEROED && i < size; i += 512)
		if (ptr[i])
			return false;
	worker->failure = "content is lost";
	for (i = 0; i < size; i += 512)
		ptr[i] = (unsigned char)(seed + i / 512);
	if (platform->populate)
		platform->populate(platform->context, ptr, size);
	if (platform->decommit(platform->context, ptr + half, half))
		return false;
	for (i = 0; i < half; i += 512)
		if (ptr[i] != (unsigned char)(seed + i / 512))
			return false;
	worker->failure = "decommit fails";
	if (platform->decommit(platform->context, ptr, half))
		return false;
	worker->failure = NULL;
	return true;
}

/* Criterion's assertions belong to the main thread. */
static void *worker_run(void *argument)
{
	struct worker *worker = argument;
	unsigned i;

	for (i = 0; i < WORKER_ROUNDS; i++)
		if (!worker_round(worker, worker->first + i))
			break;
	return NULL;
}

static void check_threads(const struct hk_platform *platform)
{
	struct worker workers[WORKERS];
	pthread_t threads[WORKERS];
	struct room room;
	size_t i;

	room_open(&room, platform);
	for (i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ .room = room, .first = i * 16, .count = 16 };
		cr_assert_eq(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
	}
	for (i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < WORKERS; i++)
		cr_assert_null(workers[i].failure, "thread %zu: %s", i, workers[i].failure);
	room_close(&room);
}

struct sleeper {
	const struct hk_platform *platform;
	uint32_t word;
	uint32_t answer;
};

static void *sleeper_run(void *argument)
{
	struct sleeper *sleeper = argument;
	const struct hk_platform *platform = sleeper->platform;
	uint32_t turn;

	for (turn = 0; turn < 1000; turn++) {
		while (__atomic_load_n(&sleeper->word, __ATOMIC_ACQUIRE) == turn)
			platform->park(platform->context, &sleeper->word, turn);
		__atomic_store_n(&sleeper->answer, turn + 1, __ATOMIC_RELEASE);
		platform->wake(platform->context, &sleeper->answer);
	}
	return NULL;
}

/* A wake that is lost, or a park that sleeps while the word differs, hangs: see .timeout. */
static void check_park(const struct hk_platform *platform)
{
	struct sleeper sleeper = { .platform = platform };
	pthread_t thread;
	uint32_t turn;

	if (!platform->park)
		return;
	platform->park(platform->context, &sleeper.word, 1);
	platform->wake(platform->context, &sleeper.word);
	cr_assert_eq(pthread_create(&thread, NULL, sleeper_run, &sleeper), 0);
	for (turn = 0; turn < 1000; turn++) {
		__atomic_store_n(&sleeper.word, turn + 1, __ATOMIC_RELEASE);
		platform->wake(platform->context, &sleeper.word);
		while (__atomic_load_n(&sleeper.answer, __ATOMIC_ACQUIRE) == turn)
			platform->park(platform->context, &sleeper.answer, turn);
	}
	pthread_join(thread, NULL);
	cr_assert_eq(sleeper.answer, 1000);
}

void contract_run(const struct hk_platform *platform)
{
	check_fields(platform);
	check_commit(platform);
	check_decommit(platform);
	check_reserve(platform);
	check_clock(platform);
	check_populate(platform);
	check_large_pages(platform);
	check_move(platform);
	check_threads(platform);
	check_park(platform);
}

Test(contract, system, .timeout = 60)
{
	struct hk_platform platform;

	cr_assert_eq(hk_platform_system(&platform), 0);
	contract_run(&platform);
}

static unsigned char region_memory[24 << 20];

Test(contract, fixed, .timeout = 60)
{
	struct hk_fixed_region region = { region_memory, sizeof(region_memory), 0 };
	struct hk_platform platform;

	cr_assert_eq(hk_platform_fixed(&platform, &region), 0);
	contract_run(&platform);
	cr_assert_eq(region.taken, 0);
}

Test(contract, fixed_region_at_an_odd_address, .timeout = 60)
{
	struct hk_fixed_region region = { region_memory + 12345, (2 << 20) + 54321, 0 };
	struct hk_platform platform;

	cr_assert_eq(hk_platform_fixed(&platform, &region), 0);
	contract_run(&platform);
}

static void run_fault_platform(struct fault_options options)
{
	static const size_t page_sizes[] = { 4096, 16384, 65536 };
	struct fault_platform fault;
	size_t i;

	for (i = 0; i < sizeof(page_sizes) / sizeof(page_sizes[0]); i++) {
		options.page_size = page_sizes[i];
		cr_assert_eq(fault_platform_init(&fault, &options), 0);
		cr_assert_eq(fault.platform.page_size, page_sizes[i]);
		fault.tick = 1;
		contract_run(&fault.platform);
		cr_assert_eq(fault.committed, 0);
		cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
	}
}

Test(contract, fault_platform_passing_through, .timeout = 60)
{
	run_fault_platform((struct fault_options){ .copy_move = false });
}

Test(contract, fault_platform_that_forbids, .timeout = 60)
{
	run_fault_platform((struct fault_options){ .forbid = true, .copy_move = true });
}

Test(contract, fault_platform_with_garbage, .timeout = 60)
{
	run_fault_platform((struct fault_options){
		.garbage = true, .fake_clock = true, .hide = FAULT_BIT(FAULT_MOVE) });
}

Test(contract, fault_platform_before_a_fixed_region, .timeout = 60)
{
	struct hk_fixed_region region = { region_memory, sizeof(region_memory), 0 };
	struct hk_platform fixed;

	cr_assert_eq(hk_platform_fixed(&fixed, &region), 0);
	run_fault_platform((struct fault_options){ .inner = &fixed });
}
