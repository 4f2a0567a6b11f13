/* SPDX-License-Identifier: MIT */
/* What the samples need of Windows, see os.h. */
#define WIN32_LEAN_AND_MEAN
#define PSAPI_VERSION 2 /* GetProcessMemoryInfo() is kernel32's */

#include "os.h"

#include <windows.h>

#include <malloc.h>
#include <process.h>
#include <psapi.h>
#include <stdlib.h>

#define WAIT_SPINS 64
#define WAIT_YIELDS 1024

/* What malloc promises. */
#define MALLOC_ALIGN (2 * sizeof(void *))

void *os_map(size_t size)
{
	return VirtualAlloc(NULL, size ? size : 1, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void os_unmap(void *memory, size_t size)
{
	(void)size;
	if (memory)
		VirtualFree(memory, 0, MEM_RELEASE);
}

size_t os_malloc_align_max(void)
{
	return MALLOC_ALIGN;
}

/* _aligned_malloc() is none of malloc's: its memory must not go to free(). */
void *os_malloc_aligned(size_t align, size_t size)
{
	return align <= MALLOC_ALIGN ? malloc(size) : NULL;
}

uint64_t os_now_ns(void)
{
	LARGE_INTEGER ticks, per_second;
	uint64_t seconds, rest;

	QueryPerformanceCounter(&ticks);
	QueryPerformanceFrequency(&per_second);
	seconds = (uint64_t)ticks.QuadPart / (uint64_t)per_second.QuadPart;
	rest = (uint64_t)ticks.QuadPart % (uint64_t)per_second.QuadPart;
	return seconds * 1000000000u + rest * 1000000000u / (uint64_t)per_second.QuadPart;
}

static bool memory_counters(PROCESS_MEMORY_COUNTERS *counters)
{
	return GetProcessMemoryInfo(GetCurrentProcess(), counters, sizeof(*counters));
}

/* The system counts in clock interrupts. */
uint64_t os_thread_cpu_ns(void)
{
	return 0;
}

int64_t os_page_faults(void)
{
	PROCESS_MEMORY_COUNTERS counters;

	return memory_counters(&counters) ? (int64_t)counters.PageFaultCount : -1;
}

int64_t os_thread_page_faults(void)
{
	return -1;
}

bool os_reset_peak(void)
{
	return false;
}

bool os_resident(uint64_t *now, uint64_t *peak)
{
	PROCESS_MEMORY_COUNTERS counters;

	if (!memory_counters(&counters))
		return false;
	*now = counters.WorkingSetSize;
	*peak = counters.PeakWorkingSetSize;
	return true;
}

bool os_committed(uint64_t *now)
{
	PROCESS_MEMORY_COUNTERS counters;

	if (!memory_counters(&counters))
		return false;
	*now = counters.PagefileUsage;
	return true;
}

/* What is resident, shared or not: more is not told. */
bool os_private(uint64_t *bytes)
{
	PROCESS_MEMORY_COUNTERS counters;

	if (!memory_counters(&counters))
		return false;
	*bytes = counters.WorkingSetSize;
	return true;
}

void os_malloc_trim(void)
{
	_heapmin();
}

uint64_t os_ticks(void)
{
	return os_now_ns();
}

double os_ticks_per_ns(void)
{
	return 1;
}

bool os_stderr_is_terminal(void)
{
	DWORD mode;

	return GetConsoleMode(GetStdHandle(STD_ERROR_HANDLE), &mode);
}

/* The shortest sleep lasts a millisecond or more, so it comes late. */
void os_wait(unsigned round)
{
	if (round < WAIT_SPINS)
		YieldProcessor();
	else if (round < WAIT_YIELDS)
		SwitchToThread();
	else
		Sleep(1);
}

static unsigned __stdcall thread_main(void *argument)
{
	struct os_thread *thread = argument;

	thread->run(thread->argument);
	return 0;
}

int os_thread_start(struct os_thread *thread, void (*run)(void *argument), void *argument)
{
	thread->run = run;
	thread->argument = argument;
	thread->handle = _beginthreadex(NULL, 0, thread_main, thread, 0, NULL);
	return thread->handle ? 0 : -1;
}

void os_thread_join(struct os_thread *thread)
{
	WaitForSingleObject((HANDLE)thread->handle, INFINITE);
	CloseHandle((HANDLE)thread->handle);
}
