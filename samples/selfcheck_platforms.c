/* SPDX-License-Identifier: MIT */
/*
 * selfcheck: the platforms that come with the library, and one of a host's own.
 */
#include <string.h>

#include <platform/platform.h>

#include "os.h"
#include "selfcheck.h"

/* All of a range goes and comes back, from one end to the other. */
static void check_whole(const struct hk_platform *platform, unsigned char *range, size_t size)
{
	void *context = platform->context;

	self_fill(range, size / 2, 3);
	/* One half is committed already and keeps its content. */
	CHECK(platform->commit(context, range, size) == 0);
	CHECK(self_holds(range, size / 2, 3));
	if (platform->flags & HK_PLATFORM_ZEROED)
		CHECK(self_is_zero(range + size / 2, size / 2));
	self_fill(range, size, 4);
	CHECK(platform->decommit(context, range, size) == 0);
	CHECK(platform->commit(context, range, size) == 0);
	if (platform->flags & HK_PLATFORM_ZEROED)
		CHECK(self_is_zero(range, size));
	self_fill(range, size, 5);
	CHECK(self_holds(range, size, 5));
}

/* Several at once, so that not one lies well by chance. */
static void check_alignment(const struct hk_platform *platform)
{
	size_t align, size = platform->granularity;
	unsigned char *ranges[4];
	unsigned i;

	for (align = size; align <= 64 * SELF_MIB; align *= 8) {
		for (i = 0; i < 4; i++) {
			ranges[i] = platform->reserve(platform->context, size, align);
			CHECK(ranges[i] && self_aligned(ranges[i], align));
		}
		for (i = 0; i < 4; i++)
			if (ranges[i])
				platform->release(platform->context, ranges[i], size);
	}
}

/* Large pages are for those who may have them; who gets them gets memory. */
static void check_reserve_large(const struct hk_platform *platform)
{
	size_t size = 4 * SELF_MIB;
	unsigned char *range;

	if (!platform->reserve_large)
		return;
	range = platform->reserve_large(platform->context, size, platform->granularity);
	if (!range)
		return;
	CHECK(self_aligned(range, platform->granularity));
	self_fill(range, size, 6);
	CHECK(self_holds(range, size, 6));
	platform->release(platform->context, range, size);
}

/*
 * Where the system charges what is committed, and tells: the charge comes with commit and goes
 * with decommit. The pages are written meanwhile, since some systems tell only of those.
 */
static void check_charge(const struct hk_platform *platform)
{
	size_t size = 32 * SELF_MIB, slack = 4 * SELF_MIB;
	uint64_t start, reserved, committed, decommitted;
	void *context = platform->context;
	unsigned char *range;

	if (!(platform->flags & HK_PLATFORM_CHARGED) || !os_committed(&start))
		return;
	range = platform->reserve(context, size, platform->granularity);
	if (!CHECK(range))
		return;
	CHECK(os_committed(&reserved) && reserved < start + slack);
	CHECK(platform->commit(context, range, size) == 0);
	self_fill(range, size, 7);
	CHECK(os_committed(&committed) && committed + slack > reserved + size);
	CHECK(platform->decommit(context, range, size) == 0);
	CHECK(os_committed(&decommitted) && decommitted < reserved + slack);
	platform->release(context, range, size);
}

/* The functions of a platform, on one reservation. */
static void check_functions(const struct hk_platform *platform)
{
	void *context = platform->context;
	size_t page = platform->page_size;
	size_t half = 16 * page > platform->granularity ? 16 * page : platform->granularity;
	uint32_t word = 1;
	unsigned char *range;
	uint64_t now;

	range = platform->reserve(context, 2 * half, platform->granularity);
	if (!CHECK(range))
		return;
	CHECK(self_aligned(range, platform->granularity));
	CHECK(platform->commit(context, range, half) == 0);
	if (platform->flags & HK_PLATFORM_ZEROED)
		CHECK(self_is_zero(range, half));
	self_fill(range, half, 1);
	CHECK(platform->commit(context, range, half) == 0);
	CHECK(self_holds(range, half, 1));
	if (platform->populate) {
		platform->populate(context, range, half);
		CHECK(self_holds(range, half, 1));
	}
	if (platform->large_pages) {
		platform->large_pages(context, range, half, true);
		platform->large_pages(context, range, half, false);
		CHECK(self_holds(range, half, 1));
	}
	if (platform->move) {
		CHECK(platform->commit(context, range + half, half) == 0);
		if (platform->move(context, range, half, range + half, half) == 0)
			CHECK(self_holds(range + half, half, 1));
		self_fill(range, half, 1);
		CHECK(platform->decommit(context, range + half, half) == 0);
	}
	/* One page in the middle goes and comes back, its neighbours stay. */
	CHECK(platform->decommit(context, range + page, page) == 0);
	CHECK(platform->commit(context, range + page, page) == 0);
	if (platform->flags & HK_PLATFORM_ZEROED)
		CHECK(self_is_zero(range + page, page));
	self_fill(range + page, page, 2);
	CHECK(self_holds(range, page, 1));
	CHECK(self_holds(range + page, page, 2));
	check_whole(platform, range, 2 * half);
	if (platform->now_ns) {
		now = platform->now_ns(context);
		CHECK(platform->now_ns(context) >= now);
	}
	CHECK(!platform->park == !platform->wake);
	if (platform->park && platform->wake) {
		/* The word is another than the value, so that nobody sleeps. */
		platform->park(context, &word, 2);
		platform->wake(context, &word);
		CHECK(word == 1);
	}
	platform->release(context, range, 2 * half);

	/* A region that is given is no larger than it is. */
	range = platform->reserve(context, 2 * half, 16 * half);
	CHECK(!range || self_aligned(range, 16 * half));
	if (range)
		platform->release(context, range, 2 * half);
	check_reserve_large(platform);
	check_charge(platform);
}

static bool is_power_of_two(size_t value)
{
	return value && !(value & (value - 1));
}

/**
 * struct watch - a host's own platform: the system's, counted
 * @fail_reserve, @fail_commit: refuse.
 */
struct watch {
	struct hk_platform system;
	size_t reserved;
	size_t calls;
	bool fail_reserve;
	bool fail_commit;
};

static void *watch_reserve(void *context, size_t size, size_t align)
{
	struct watch *watch = context;
	void *range;

	watch->calls++;
	if (watch->fail_reserve)
		return NULL;
	range = watch->system.reserve(watch->system.context, size, align);
	if (range)
		watch->reserved += size;
	return range;
}

static int watch_commit(void *context, void *ptr, size_t size)
{
	struct watch *watch = context;

	watch->calls++;
	if (watch->fail_commit)
		return -1;
	return watch->system.commit(watch->system.context, ptr, size);
}

static int watch_decommit(void *context, void *ptr, size_t size)
{
	struct watch *watch = context;

	watch->calls++;
	return watch->system.decommit(watch->system.context, ptr, size);
}

static void watch_release(void *context, void *ptr, size_t size)
{
	struct watch *watch = context;

	watch->calls++;
	watch->reserved -= size;
	watch->system.release(watch->system.context, ptr, size);
}

static int create_error(const struct hk_platform *platform, size_t address_space)
{
	struct hk_arena_config config = { .platform = platform, .address_space = address_space };
	struct hk_arena *arena;
	int error = hk_arena_create(&arena, &config);

	if (error == HK_OK)
		hk_arena_destroy(arena);
	return error;
}

/* The least that a platform can be: no clock, no moving, no parking. */
static void check_watched(const struct self_options *options)
{
	struct watch watch = { .reserved = 0 };
	struct hk_platform platform = {
		.context = &watch,
		.reserve = watch_reserve,
		.commit = watch_commit,
		.decommit = watch_decommit,
		.release = watch_release,
	};
	size_t space = options->address_space;
	struct hk_platform broken;
	struct self_arena self;
	void *block;
	size_t calls;

	CHECK(hk_platform_system(&watch.system) == HK_OK);
	platform.page_size = watch.system.page_size;
	platform.granularity = watch.system.granularity;
	platform.flags = watch.system.flags;

	if (self_open_config(&self, options,
			     (struct hk_arena_config){ .address_space = space,
						       .platform = &platform })) {
		block = hk_alloc(self.cache, 3 * SELF_MIB);
		CHECK(block);
		CHECK(watch.reserved >= space);
		CHECK(self_counters(&self).platform_call == watch.calls);
		calls = watch.calls;
		hk_free(self.cache, block);
		CHECK(watch.calls == calls);
		hk_arena_trim(self.arena, 0, 0);
		CHECK(watch.calls > calls);
		CHECK(self_counters(&self).platform_call == watch.calls);

		watch.fail_commit = true;
		CHECK(!hk_alloc(self.cache, 4 * SELF_MIB));
		CHECK(self.count > 0);
		watch.fail_commit = false;
		self.count = 0;
		CHECK(hk_arena_check(self.arena) == 0);
		block = hk_alloc(self.cache, 4 * SELF_MIB);
		CHECK(block);
		hk_free(self.cache, block);
		self_close(&self);
	}
	CHECK(watch.reserved == 0);

	watch.fail_commit = true;
	CHECK(create_error(&platform, space) == HK_ERROR_MEMORY);
	watch.fail_commit = false;
	watch.fail_reserve = true;
	CHECK(create_error(&platform, space) == HK_ERROR_ADDRESS_SPACE);
	watch.fail_reserve = false;
	broken = platform;
	broken.reserve = NULL;
	CHECK(create_error(&broken, space) == HK_ERROR_PLATFORM);
	broken = platform;
	broken.commit = NULL;
	CHECK(create_error(&broken, space) == HK_ERROR_PLATFORM);
	broken = platform;
	broken.decommit = NULL;
	CHECK(create_error(&broken, space) == HK_ERROR_PLATFORM);
	broken = platform;
	broken.release = NULL;
	CHECK(create_error(&broken, space) == HK_ERROR_PLATFORM);
	broken = platform;
	broken.page_size = 0;
	CHECK(create_error(&broken, space) == HK_ERROR_PLATFORM);
	broken.page_size = 3 * 4096;
	CHECK(create_error(&broken, space) == HK_ERROR_PLATFORM);
	broken.page_size = 128 * SELF_KIB;
	broken.granularity = 128 * SELF_KIB;
	CHECK(create_error(&broken, space) == HK_ERROR_PLATFORM);
	CHECK(create_error(&platform, space) == HK_OK);
	CHECK(watch.reserved == 0);
}

static void run_system(const struct self_options *options)
{
	struct hk_platform platform;

	memset(&platform, 0xff, sizeof(platform));
	if (!CHECK(hk_platform_system(&platform) == HK_OK))
		return;
	CHECK(is_power_of_two(platform.page_size));
	CHECK(platform.page_size >= 4 * SELF_KIB && platform.page_size <= 64 * SELF_KIB);
	CHECK(is_power_of_two(platform.granularity));
	CHECK(platform.granularity >= platform.page_size);
	CHECK(platform.reserve && platform.commit && platform.decommit && platform.release);
	CHECK(!(platform.flags & HK_PLATFORM_OPEN));
	check_functions(&platform);
	check_alignment(&platform);
	check_watched(options);
}

/* Memory that a host has from the start; its address is odd on purpose. */
static unsigned char memory[SELF_MIB + 1];

static void run_fixed(const struct self_options *options)
{
	struct hk_fixed_region region = { .memory = memory + 1, .size = SELF_MIB };
	struct hk_fixed_region empty = { .memory = memory, .size = 0 };
	struct hk_fixed_region missing = { .memory = NULL, .size = SELF_MIB };
	struct hk_platform platform;
	struct self_arena self;
	size_t first, second;
	unsigned char *block;
	unsigned round;

	CHECK(hk_platform_fixed(&platform, NULL) == HK_ERROR_ARGUMENT);
	CHECK(hk_platform_fixed(&platform, &empty) == HK_ERROR_ARGUMENT);
	CHECK(hk_platform_fixed(&platform, &missing) == HK_ERROR_ARGUMENT);
	memset(&platform, 0xff, sizeof(platform));
	if (!CHECK(hk_platform_fixed(&platform, &region) == HK_OK))
		return;
	CHECK(platform.flags & HK_PLATFORM_OPEN);
	CHECK(!platform.now_ns && !platform.park && !platform.wake);
	check_functions(&platform);

	for (round = 0; round < 2; round++) {
		/* What the region held before is nobody's zeroes. */
		memset(memory, 0xa5, sizeof(memory));
		if (!self_open_config(&self, options,
				      (struct hk_arena_config){ .platform = &platform }))
			return;
		CHECK(create_error(&platform, 0) == HK_ERROR_ADDRESS_SPACE);
		block = hk_alloc(self.cache, 100);
		CHECK(block > memory && block + 100 <= memory + sizeof(memory));
		hk_free(self.cache, block);
		first = self_exhaust(&self, 3000, SELF_MIB);
		second = self_exhaust(&self, 3000, SELF_MIB);
		CHECK(first >= 150);
		CHECK(second == first);
		hk_cache_flush(self.cache);
		CHECK(self_exhaust(&self, 100000, SELF_MIB) >= 4);
		CHECK(self_exhaust(&self, 40, SELF_MIB) > 10000);
		hk_arena_reset(self.arena);
		CHECK(self_exhaust(&self, 3000, SELF_MIB) == first);
		self_close(&self);
	}
	CHECK(memory[0] == 0xa5);
}

const struct self_function self_platforms[] = {
	{ "hk_platform_system", false, run_system },
	{ "hk_platform_fixed", false, run_fixed },
	{ NULL, false, NULL },
};
