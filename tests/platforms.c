/* SPDX-License-Identifier: MIT */
/*
 * What the fixed platform takes of its region (tests/regions.c has arenas in it), and a test of the
 * platform that the tests use to inject faults. That of POSIX systems is in tests/posix.c.
 */
#include <criterion/criterion.h>
#include <hakmem/hakmem.h>
#include <platform/platform.h>
#include <tests/fault_platform.h>

#define MIB ((size_t)1 << 20)

static unsigned char region_memory[4 << 20];

Test(fixed, serves_one_reservation_at_a_time)
{
	struct hk_fixed_region region = { region_memory, sizeof(region_memory), 0 };
	struct hk_platform platform;
	void *ptr;

	cr_assert_eq(hk_platform_fixed(&platform, &region), 0);
	ptr = platform.reserve(&region, 65536, 65536);
	cr_assert_not_null(ptr);
	cr_assert_null(platform.reserve(&region, 65536, 65536));
	platform.release(&region, ptr, 65536);
	cr_assert_eq(platform.reserve(&region, 65536, 65536), ptr);
}

Test(fixed, uses_the_region_to_its_last_page)
{
	uintptr_t start = ((uintptr_t)region_memory + 65535) & ~(uintptr_t)65535;
	struct hk_fixed_region region = { (void *)(start + 1), 65535 + 20480 + 4095, 0 };
	struct hk_platform platform;
	unsigned char *ptr;

	cr_assert_eq(hk_platform_fixed(&platform, &region), 0);
	cr_assert_eq(platform.address_space, 20480);
	ptr = platform.reserve(&region, 20480, 65536);
	cr_assert_eq((uintptr_t)ptr, start + 65536);
	platform.release(&region, ptr, 20480);

	cr_assert_null(platform.reserve(&region, 4096, (size_t)1 << 40));
	cr_assert_eq(region.taken, 0, "a reserve that fails takes the region");
}

Test(fixed, refuses_a_region_without_a_page)
{
	uintptr_t start = ((uintptr_t)region_memory + 65535) & ~(uintptr_t)65535;
	struct hk_fixed_region region = { NULL, 1 << 20, 0 };
	struct hk_platform platform;

	cr_assert_eq(hk_platform_fixed(&platform, NULL), HK_ERROR_ARGUMENT);
	cr_assert_eq(hk_platform_fixed(&platform, &region), HK_ERROR_ARGUMENT);
	region.memory = (void *)start;
	region.size = 0;
	cr_assert_eq(hk_platform_fixed(&platform, &region), HK_ERROR_ARGUMENT);
	region.size = 4095;
	cr_assert_eq(hk_platform_fixed(&platform, &region), HK_ERROR_ARGUMENT);
	region.size = 4096;
	cr_assert_eq(hk_platform_fixed(&platform, &region), 0);
	region.memory = (void *)(start + 1);
	region.size = 65535 + 4095;
	cr_assert_eq(hk_platform_fixed(&platform, &region), HK_ERROR_ARGUMENT);
	region.size = 65000; /* less than alignment takes */
	cr_assert_eq(hk_platform_fixed(&platform, &region), HK_ERROR_ARGUMENT);
}

/* The judge is judged: each breach of the contract is seen, and nothing else is. */
Test(fault_platform, sees_breaches_of_the_contract)
{
	struct fault_platform fault;
	struct hk_platform *platform = &fault.platform;
	unsigned char *ptr;

	cr_assert_eq(fault_platform_init(&fault, &(struct fault_options){ .page_size = 16384 }), 0);
	ptr = platform->reserve(&fault, MIB, MIB);
	cr_assert_eq(platform->commit(&fault, ptr, MIB / 2), 0);
	cr_assert_eq(platform->commit(&fault, ptr + 16384, 32768), 0);
	cr_assert_eq(fault.committed, MIB / 2);
	cr_assert_eq(fault.again, 2);
	cr_assert_eq(platform->decommit(&fault, ptr + MIB / 2 - 16384, 32768), 0);
	cr_assert_eq(fault.committed, MIB / 2 - 16384);
	cr_assert_eq(fault.idle, 1);
	cr_assert_eq(fault.peak, MIB / 2);
	cr_assert_eq(fault.violations, 0, "%s", fault.violation);

	platform->commit(&fault, ptr + 4096, 16384);
	cr_assert_eq(fault.violations, 1, "unaligned");
	platform->decommit(&fault, ptr, 4096);
	cr_assert_eq(fault.violations, 2, "unaligned size");
	platform->commit(&fault, ptr + MIB - 16384, 32768);
	cr_assert_eq(fault.violations, 3, "over the end");
	platform->populate(&fault, ptr, MIB);
	cr_assert_eq(fault.violations, 4, "not committed");
	cr_assert_null(platform->reserve(&fault, MIB + 4096, MIB));
	cr_assert_eq(fault.violations, 5, "granularity");
	cr_assert_null(platform->reserve(&fault, MIB, 4096));
	cr_assert_eq(fault.violations, 6, "alignment");
	platform->release(&fault, ptr, MIB / 2);
	cr_assert_eq(fault.violations, 7, "a part");
	platform->release(&fault, ptr, MIB);
	cr_assert_eq(fault.committed, 0);
	platform->release(&fault, ptr, MIB);
	cr_assert_eq(fault.violations, 8, "twice");
	platform->commit(&fault, ptr, 16384);
	cr_assert_eq(fault.violations, 9, "after release");
	cr_assert_not_null(platform->reserve(&fault, MIB, MIB));
	cr_assert_eq(fault_platform_end(&fault), 10, "a leak");
}

Test(fault_platform, fails_what_it_is_asked_to_fail)
{
	struct fault_platform fault;
	struct hk_platform *platform = &fault.platform;
	unsigned char *ptr;

	cr_assert_eq(fault_platform_init(&fault, NULL), 0);
	fault.fail_at = 2;
	ptr = platform->reserve(&fault, MIB, MIB);
	cr_assert_neq(platform->commit(&fault, ptr, MIB), 0);
	cr_assert_eq(fault.committed, 0);
	cr_assert_eq(platform->commit(&fault, ptr, MIB), 0);
	cr_assert_eq(fault.injected, 1);
	cr_assert_eq(fault.failed, FAULT_BIT(FAULT_COMMIT));

	fault_platform_rewind(&fault);
	fault.fail_from = 2;
	fault.fail_only = FAULT_BIT(FAULT_DECOMMIT);
	ptr[MIB / 2] = 1;
	cr_assert_eq(platform->decommit(&fault, ptr, MIB / 2), 0);
	cr_assert_neq(platform->decommit(&fault, ptr + MIB / 2, MIB / 2), 0);
	cr_assert_neq(ptr[MIB / 2], 1, "content of what could not be given back is undefined");
	cr_assert_eq(fault.committed, MIB / 2);
	cr_assert_eq(platform->commit(&fault, ptr, MIB), 0);

	fault_platform_rewind(&fault);
	fault.quota = MIB / 2 + 4096;
	cr_assert_eq(platform->commit(&fault, ptr, MIB), 0, "no more than before");
	cr_assert_eq(platform->decommit(&fault, ptr, MIB), 0);
	cr_assert_neq(platform->commit(&fault, ptr, MIB), 0);
	cr_assert_eq(platform->commit(&fault, ptr, MIB / 2), 0);
	cr_assert_eq(fault.injected, 1);
	platform->release(&fault, ptr, MIB);
	cr_assert_eq(fault_platform_end(&fault), 0, "%s", fault.violation);
}
