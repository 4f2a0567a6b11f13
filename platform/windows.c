/* SPDX-License-Identifier: MIT */
/*
 * The platform for Windows 8 and later.
 *
 * A reservation is one range of VirtualAlloc(). Windows charges what is committed, touched or
 * not, against what the whole system has, so commit takes just the range and decommit gives it
 * back at once.
 *
 * kernel32 is all that this file is linked with. What older versions lack is looked up in
 * kernelbase.dll, which every process has, at each use: it is rarely used, and a place to
 * remember it would be a global. A look-up may take the loader's lock, see windows_park().
 */
#if !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN
#endif
#if !defined(_WIN32_WINNT)
#define _WIN32_WINNT 0x0602
#endif

#include <windows.h>

#include <hakmem/hakmem.h>
#include <platform/platform.h>

#define PAGE_SIZE_MIN 4096u
#define PAGE_SIZE_MAX 65536u
#define ALIGN_TRIES 16 /* for an aligned range that another thread may take first */
#define PARK_MS 100u

#define ADDRESS_REQUIREMENTS 1u /* MemExtendedParameterAddressRequirements */

/* MEM_ADDRESS_REQUIREMENTS, which SDKs before that of Windows 10 1803 lack. */
struct address_requirements {
	void *lowest;
	void *highest;
	SIZE_T alignment;
};

/* MEM_EXTENDED_PARAMETER; @value holds a pointer. */
struct extended_parameter {
	DWORD64 type;
	DWORD64 value;
};

typedef void *(WINAPI *virtual_alloc2_function)(HANDLE process, void *address, SIZE_T size,
						ULONG type, ULONG protection,
						struct extended_parameter *parameters,
						ULONG parameter_count);
typedef BOOL(WINAPI *wait_function)(volatile void *address, void *compare, SIZE_T size,
				    DWORD milliseconds);
typedef void(WINAPI *wake_function)(void *address);
typedef void (*any_function)(void);

static any_function find_function(const char *name)
{
	HMODULE module = GetModuleHandleA("kernelbase.dll");

	return module ? (any_function)GetProcAddress(module, name) : NULL;
}

static void *reserve_at(void *where, size_t size)
{
	return VirtualAlloc(where, size, MEM_RESERVE, PAGE_READWRITE);
}

/* For Windows 10 1803 and later. */
static void *reserve_aligned(size_t size, size_t align)
{
	virtual_alloc2_function virtual_alloc2 =
		(virtual_alloc2_function)find_function("VirtualAlloc2");
	struct address_requirements requirements = { NULL, NULL, align };
	struct extended_parameter parameter = { ADDRESS_REQUIREMENTS, 0 };

	if (!virtual_alloc2)
		return NULL;
	parameter.value = (uintptr_t)&requirements;
	return virtual_alloc2(GetCurrentProcess(), NULL, size, MEM_RESERVE, PAGE_READWRITE,
			      &parameter, 1);
}

/*
 * A range cannot be given back in parts: one that is large enough shows where an aligned one
 * would fit, is given back, and the aligned one is asked for. Another thread may be faster.
 */
static void *reserve_by_trying(size_t size, size_t align)
{
	void *ptr, *aligned;
	unsigned tries;

	if (size > SIZE_MAX - align)
		return NULL;
	for (tries = 0; tries < ALIGN_TRIES; tries++) {
		ptr = reserve_at(NULL, size + align);
		if (!ptr)
			return NULL;
		aligned = (void *)(((uintptr_t)ptr + align - 1) & ~(uintptr_t)(align - 1));
		VirtualFree(ptr, 0, MEM_RELEASE);
		ptr = reserve_at(aligned, size);
		if (ptr)
			return ptr;
	}
	return NULL;
}

static void *reserve_some(size_t size, size_t align)
{
	void *ptr = reserve_at(NULL, size);

	if (!ptr || ((uintptr_t)ptr & (align - 1)) == 0)
		return ptr;
	VirtualFree(ptr, 0, MEM_RELEASE);
	ptr = reserve_aligned(size, align);
	return ptr ? ptr : reserve_by_trying(size, align);
}

/*
 * Here the distance stays reserved, until all is released. (There is none where large pages are
 * asked for, which would be taken for it.)
 */
static void *windows_reserve(void *context, size_t size, size_t align)
{
	size_t apart = hk_platform_distance(size);
	void *ptr = size <= SIZE_MAX - apart ? reserve_some(size + apart, align) : NULL;

	(void)context;
	return ptr || !apart ? ptr : reserve_some(size, align);
}

/*
 * Windows itself refuses a size that is no multiple of a large page, and a host that has not
 * enabled SeLockMemoryPrivilege.
 */
static void *windows_reserve_large(void *context, size_t size, size_t align)
{
	void *ptr;

	(void)context;
	ptr = VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT | MEM_LARGE_PAGES, PAGE_READWRITE);
	if (!ptr || ((uintptr_t)ptr & (align - 1)) == 0)
		return ptr;
	VirtualFree(ptr, 0, MEM_RELEASE);
	return NULL;
}

static int windows_commit(void *context, void *ptr, size_t size)
{
	(void)context;
	return VirtualAlloc(ptr, size, MEM_COMMIT, PAGE_READWRITE) ? 0 : -1;
}

static int windows_decommit(void *context, void *ptr, size_t size)
{
	(void)context;
	return VirtualFree(ptr, size, MEM_DECOMMIT) ? 0 : -1;
}

static void windows_release(void *context, void *ptr, size_t size)
{
	(void)context;
	(void)size;
	VirtualFree(ptr, 0, MEM_RELEASE);
}

/* The ticks are split, since all of them times a thousand million would overflow in a day. */
static uint64_t windows_now_ns(void *context)
{
	LARGE_INTEGER ticks, per_second;
	uint64_t seconds, rest;

	(void)context;
	QueryPerformanceCounter(&ticks);
	QueryPerformanceFrequency(&per_second);
	seconds = (uint64_t)ticks.QuadPart / (uint64_t)per_second.QuadPart;
	rest = (uint64_t)ticks.QuadPart % (uint64_t)per_second.QuadPart;
	return seconds * 1000000000u + rest * 1000000000u / (uint64_t)per_second.QuadPart;
}

/* A store that faults the page in, keeps the content and races with no other thread. */
static int windows_populate(void *context, void *ptr, size_t size)
{
	unsigned char *page = ptr, *end = page + size;

	(void)context;
	for (; page < end; page += PAGE_SIZE_MIN)
		InterlockedOr((volatile LONG *)(void *)page, 0);
	return 0;
}

/*
 * Ends by itself after a while: a thread that holds the loader's lock, as in DllMain(), may
 * park, and whoever is to wake it may have to wait for that lock while it looks up how.
 */
static void windows_park(void *context, uint32_t *word, uint32_t value)
{
	DWORD saved = GetLastError();
	wait_function wait;

	(void)context;
	wait = (wait_function)find_function("WaitOnAddress");
	if (wait)
		wait(word, &value, sizeof(value), PARK_MS);
	SetLastError(saved);
}

static void windows_wake(void *context, uint32_t *word)
{
	DWORD saved = GetLastError();
	wake_function wake;

	(void)context;
	wake = (wake_function)find_function("WakeByAddressSingle");
	if (wake)
		wake(word);
	SetLastError(saved);
}

static bool is_power_of_2(DWORD value)
{
	return value && !(value & (value - 1));
}

int hk_platform_system(struct hk_platform *platform)
{
	struct hk_platform windows = {
		.flags = HK_PLATFORM_ZEROED | HK_PLATFORM_CHARGED,
		.reserve = windows_reserve,
		.commit = windows_commit,
		.decommit = windows_decommit,
		.release = windows_release,
		.now_ns = windows_now_ns,
		.populate = windows_populate,
		.reserve_large = windows_reserve_large,
	};
	SYSTEM_INFO info;

	GetSystemInfo(&info);
	if (!is_power_of_2(info.dwPageSize) || info.dwPageSize < PAGE_SIZE_MIN ||
	    info.dwPageSize > PAGE_SIZE_MAX || !is_power_of_2(info.dwAllocationGranularity) ||
	    info.dwAllocationGranularity < info.dwPageSize)
		return HK_ERROR_PLATFORM;
	windows.page_size = info.dwPageSize;
	windows.granularity = info.dwAllocationGranularity;
	if (find_function("WaitOnAddress") && find_function("WakeByAddressSingle")) {
		windows.park = windows_park;
		windows.wake = windows_wake;
	}
	*platform = windows;
	return 0;
}
