/* SPDX-License-Identifier: MIT */
/*
 * The contract of platform/platform.h as a test, for whoever writes a platform: call
 * contract_run() from a Criterion test of your own and link tests/contract.c.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include <stdbool.h>

#include <platform/platform.h>

/**
 * contract_run() - hold a platform to its contract
 * @platform: what to test. It must be able to reserve 256 of its pages, all that the test
 *	needs; every reservation is released again.
 *
 * Fails the running Criterion test at the first clause that is broken. Runs for a fraction of
 * a second; calls the platform from four threads at once for a part of it.
 */
void contract_run(const struct hk_platform *platform);

/**
 * contract_can_read() - is there memory behind a pointer?
 * @ptr: any address.
 *
 * The system looks at the byte in our stead, and says EFAULT where we would crash.
 */
bool contract_can_read(const void *ptr);

#endif /* CONTRACT_H */
