/* SPDX-License-Identifier: MIT */
/*
 * A plain model of an arena: the list of its live blocks in the order of their addresses, each
 * with what was written to it. Whatever the arena does is held against it.
 */
#ifndef TESTS_MODEL_H
#define TESTS_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "fault_platform.h"
#include "heap.h"

#define MODEL_CACHES 4
#define MODEL_BLOCKS 1200

/**
 * struct model_block - a live block
 * @ptr: its address.
 * @size: bytes asked for.
 * @usable: bytes it has.
 * @align: what was asked for beyond 16, or 0.
 * @seed: of its content.
 */
struct model_block {
	unsigned char *ptr;
	size_t size;
	size_t usable;
	size_t align;
	uint64_t seed;
};

/**
 * struct model_platform - what a platform is like
 * @page_size: bytes.
 * @granularity: bytes, at least @page_size; 0: as little as can be.
 * @open: memory of the test's own, hk_platform_fixed(); else the system's.
 * @garbage: memory just committed is full of garbage, and HK_PLATFORM_ZEROED is not set.
 * @flags: enum hk_platform_flag, beyond those that it has anyway.
 */
struct model_platform {
	size_t page_size;
	size_t granularity;
	bool open;
	bool garbage;
	unsigned flags;
};

/* The platforms that the models run on, with and without threads: one line adds one. */
#define MODEL_PLATFORMS(RUN)                                                                       \
	RUN(pages_of_4_kib, .page_size = 4096)                                                     \
	RUN(pages_of_8_kib, .page_size = 8192)                                                     \
	RUN(pages_of_16_kib, .page_size = 16384)                                                   \
	RUN(pages_of_32_kib, .page_size = 32768)                                                   \
	RUN(pages_of_64_kib, .page_size = 65536)                                                   \
	RUN(pages_of_4_kib_by_64_kib, .page_size = 4096, .granularity = 65536)                     \
	RUN(pages_of_8_kib_by_1_mib, .page_size = 8192, .granularity = 1 << 20)                    \
	RUN(pages_of_64_kib_by_4_mib, .page_size = 65536, .granularity = 4 << 20)                  \
	RUN(garbage, .page_size = 4096, .garbage = true)                                           \
	RUN(garbage_in_pages_of_32_kib, .page_size = 32768, .garbage = true)                       \
	RUN(charged, .page_size = 4096, .flags = HK_PLATFORM_CHARGED)                              \
	RUN(charged_garbage, .page_size = 16384, .flags = HK_PLATFORM_CHARGED, .garbage = true)    \
	RUN(fixed_regions, .page_size = 4096, .open = true)                                        \
	RUN(fixed_regions_of_pages_of_16_kib, .page_size = 16384, .open = true)                    \
	RUN(fixed_regions_of_pages_of_64_kib, .page_size = 65536, .open = true)

/**
 * struct model_options - what an arena is put on
 * @platform: the platform behind.
 * @fault: the one in front of it.
 * @region: bytes of memory, where @platform is open.
 * @limit: of the arena; 0: none.
 * @failures: platform calls are made to fail now and then.
 */
struct model_options {
	struct model_platform platform;
	struct fault_options fault;
	size_t region;
	size_t limit;
	bool failures;
};

/**
 * struct model - an arena, its caches, and what they should hold
 * @options: what it was made with.
 * @fault: its platform.
 * @region: the region and its memory, where it is on one.
 * @calls_before: of the platform, when the arena was made.
 * @arena: the arena.
 * @caches: NULL where creation failed.
 * @reports: what the arena reported.
 * @leak: the first report of leaks.
 * @exhausted: reports of exhaustion, of all arenas there were.
 * @blocks: live blocks in the order of their addresses.
 * @count: their number.
 * @bytes: of these, usable.
 * @classes: live blocks per class.
 * @odd: blocks whose class only the arena knows (aligned beyond a slab).
 * @next_seed: for the next block's content.
 * @where: for messages: the test's seed and step.
 * @step: "
 */
struct model {
	struct model_options options;
	struct fault_platform fault;
	struct hk_fixed_region region;
	void *region_memory;
	uint64_t calls_before;
	struct hk_arena *arena;
	struct hk_cache *caches[MODEL_CACHES];
	struct test_reports reports;
	struct hk_report leak;
	size_t exhausted;
	struct model_block blocks[MODEL_BLOCKS];
	size_t count;
	size_t bytes;
	size_t classes[HK_CLASSES];
	size_t odd;
	uint64_t next_seed;
	uint64_t where;
	size_t step;
};

/* Writes a block's content: its ends, and a word in each page. */
void model_stamp(unsigned char *ptr, size_t size, uint64_t seed);

/* Whether the first @kept bytes of a block that was stamped with @size have their content. */
bool model_holds(const unsigned char *ptr, size_t size, size_t kept, uint64_t seed);

/* A platform of the given kind; @region is used where it is open. */
void model_platform_init(struct fault_platform *fault, const struct model_platform *platform,
			 struct fault_options options, struct hk_fixed_region *region);

/* An arena and its platform; model_close() frees all, and nothing may be left. */
void model_open(struct model *model, const struct model_options *options);
void model_close(struct model *model);

/* The arena is destroyed as it stands, and made anew. */
void model_replace(struct model *model);

/* Whether an allocation may fail: a limit, a small range or failures injected. */
bool model_may_fail(const struct model *model);

/*
 * A block that the arena gave: checked, stamped and entered. @exact: its usable size must be
 * that of hk_good_size().
 */
void model_add(struct model *model, void *ptr, size_t size, size_t align, bool exact);

/* Checks a block's content and takes it out of the list; it is the caller's to free. */
struct model_block model_remove(struct model *model, size_t index);

/* Takes all out, as a reset does. */
void model_forget(struct model *model);

/* Holds the arena's statistics, invariants and reports against the model. */
void model_check(struct model *model);

/* Checks every block's content. */
void model_check_content(struct model *model);

#endif /* TESTS_MODEL_H */
