/* SPDX-License-Identifier: MIT */
/*
 * The platform over one region that the host already has: a console's memory pool, a static
 * array, a part of another heap. It makes no system call. The region's memory is there from the
 * start, so that commit and decommit have nothing to do and nothing to give back.
 */
#include <hakmem/hakmem.h>
#include <platform/platform.h>

#define FIXED_PAGE_SIZE 4096u
#define FIXED_ALIGN 65536u /* of the first byte that is ever used: that of a slab */

/* Bytes to the next multiple of @align, a power of two. */
static size_t bytes_to_align(const struct hk_fixed_region *region, size_t align)
{
	return (size_t)(-(uintptr_t)region->memory & (align - 1));
}

static void *fixed_reserve(void *context, size_t size, size_t align)
{
	struct hk_fixed_region *region = context;
	uint32_t untaken = 0;
	size_t skip;

	skip = bytes_to_align(region, align > FIXED_ALIGN ? align : FIXED_ALIGN);
	if (skip > region->size || size > region->size - skip)
		return NULL;
	/* Pairs with the store in fixed_release(): what the last owner wrote came before. */
	if (!__atomic_compare_exchange_n(&region->taken, &untaken, 1, false, __ATOMIC_ACQUIRE,
					 __ATOMIC_RELAXED))
		return NULL;
	return (unsigned char *)region->memory + skip;
}

static int fixed_commit(void *context, void *ptr, size_t size)
{
	(void)context;
	(void)ptr;
	(void)size;
	return 0;
}

static int fixed_decommit(void *context, void *ptr, size_t size)
{
	(void)context;
	(void)ptr;
	(void)size;
	return 0;
}

static void fixed_release(void *context, void *ptr, size_t size)
{
	struct hk_fixed_region *region = context;

	(void)ptr;
	(void)size;
	__atomic_store_n(&region->taken, 0, __ATOMIC_RELEASE);
}

int hk_platform_fixed(struct hk_platform *platform, struct hk_fixed_region *region)
{
	size_t skip, size;

	if (!region || !region->memory)
		return HK_ERROR_ARGUMENT;
	skip = bytes_to_align(region, FIXED_ALIGN);
	if (region->size <= skip)
		return HK_ERROR_ARGUMENT;
	size = (region->size - skip) & ~(size_t)(FIXED_PAGE_SIZE - 1);
	if (!size)
		return HK_ERROR_ARGUMENT;
	*platform = (struct hk_platform){
		.context = region,
		.page_size = FIXED_PAGE_SIZE,
		.granularity = FIXED_PAGE_SIZE,
		.flags = HK_PLATFORM_OPEN,
		.reserve = fixed_reserve,
		.commit = fixed_commit,
		.decommit = fixed_decommit,
		.release = fixed_release,
		.address_space = size,
	};
	return 0;
}
