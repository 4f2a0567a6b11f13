/* SPDX-License-Identifier: MIT */
/* The version, and enums in words. */
#include <hakmem/hakmem.h>

unsigned hk_version(void)
{
	return HK_VERSION;
}

const char *hk_error_name(int error)
{
	static const char *const names[] = {
		"no error",
		"an argument or a config value is impossible",
		"the platform would not commit memory",
		"no address space",
		"a limit is reached or too small",
		"the platform lacks a function or has an impossible page size",
		"the call is not allowed now",
	};

	if (error > 0 || error < HK_ERROR_STATE)
		return "unknown error";
	return names[-error];
}

const char *hk_stage_name(enum hk_stage stage)
{
	static const char *const names[] = {
		"hit",	    "spare magazine", "depot",	  "slab",
		"new slab", "large block",    "platform", "new superslab",
	};

	if ((unsigned)stage >= sizeof(names) / sizeof(names[0]))
		return "unknown stage";
	return names[stage];
}

const char *hk_fault_name(enum hk_fault fault)
{
	static const char *const names[] = {
		"no fault",	    "foreign pointer", "interior pointer",
		"double free",	    "bad argument",    "leak",
		"broken invariant", "out of memory",   "platform failure",
	};

	if ((unsigned)fault >= sizeof(names) / sizeof(names[0]))
		return "unknown fault";
	return names[fault];
}
