/* SPDX-License-Identifier: MIT */
/* What the samples need of a POSIX system, see os.h. */
#define _GNU_SOURCE

#include "os.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WAIT_SPINS 64
#define WAIT_YIELDS 256
#define WAIT_SLEEP_NS 20000
#define CALIBRATION_NS 20000000u

void *os_map(size_t size)
{
	void *memory;

	memory = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

void os_unmap(void *memory, size_t size)
{
	if (memory)
		munmap(memory, size ? size : 1);
}

/* Not aligned_alloc(): where C11 is taken at its word, that refuses sizes that @align leaves. */
void *os_malloc_aligned(size_t align, size_t size)
{
	void *memory;

	return posix_memalign(&memory, align, size) ? NULL : memory;
}

size_t os_malloc_align_max(void)
{
	return SIZE_MAX / 2 + 1;
}

uint64_t os_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t os_thread_cpu_ns(void)
{
	struct timespec now;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now))
		return 0;
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int64_t os_page_faults(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage))
		return -1;
	return (int64_t)usage.ru_minflt + (int64_t)usage.ru_majflt;
}

int64_t os_thread_page_faults(void)
{
#if defined(RUSAGE_THREAD)
	struct rusage usage;

	if (getrusage(RUSAGE_THREAD, &usage))
		return -1;
	return (int64_t)usage.ru_minflt + (int64_t)usage.ru_majflt;
#else
	return -1;
#endif
}

bool os_reset_peak(void)
{
	bool done;
	int fd;

	fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	done = write(fd, "5", 1) == 1;
	close(fd);
	return done;
}

/* The number of kilobytes behind @key in /proc/self/status, in bytes. */
static bool status_bytes(const char *status, const char *key, uint64_t *bytes)
{
	const char *at = strstr(status, key);

	if (!at)
		return false;
	*bytes = strtoull(at + strlen(key), NULL, 10) * 1024;
	return true;
}

/* Without stdio, whose buffer would come from malloc in the middle of a measurement. */
static bool read_status(const char *path, char status[4096])
{
	ssize_t got;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, status, 4095);
	close(fd);
	if (got <= 0)
		return false;
	status[got] = '\0';
	return true;
}

bool os_private(uint64_t *bytes)
{
	char status[4096];

	return read_status("/proc/self/smaps_rollup", status) &&
	       status_bytes(status, "\nPrivate_Dirty:", bytes);
}

/*
 * The kernel knows a peak of all that is resident only, files too, whose pages come with the first
 * use of some code; and it counts by processor, so that both numbers may be wrong by a quarter of a
 * MiB. How far the peak is above what is there is what it is good for. Not what is dirty: pages
 * that may be taken, but were not yet (MADV_FREE), were so at the peak.
 */
bool os_resident(uint64_t *now, uint64_t *peak)
{
	char status[4096], rollup[4096];
	uint64_t resident, highest;

	if (!read_status("/proc/self/status", status) ||
	    !status_bytes(status, "\nVmRSS:", &resident) ||
	    !status_bytes(status, "\nVmHWM:", &highest))
		return false;
	if (!read_status("/proc/self/smaps_rollup", rollup) ||
	    !status_bytes(rollup, "\nAnonymous:", now))
		*now = resident;
	*peak = *now + (highest > resident ? highest - resident : 0);
	return true;
}

/* A function of whichever malloc is loaded; NULL: it has none of that name. */
typedef void (*any_function)(void);

static any_function loaded_function(const char *name)
{
	void *symbol = dlsym(RTLD_DEFAULT, name);
	any_function function;

	/* ISO C has no cast for that. */
	memcpy(&function, &symbol, sizeof(function));
	return function;
}

void os_malloc_trim(void)
{
	any_function function;

	if ((function = loaded_function("mi_collect")))
		((void (*)(bool))function)(true);
	else if ((function = loaded_function("mallctl"))) /* 4096: all of jemalloc's arenas */
		((int (*)(const char *, void *, size_t *, void *,
			  size_t))function)("arena.4096.purge", NULL, NULL, NULL, 0);
	else if ((function = loaded_function("MallocExtension_ReleaseFreeMemory")))
		function();
	else if ((function = loaded_function("scalable_allocation_command")))
		((int (*)(int, void *))function)(0, NULL); /* TBBMALLOC_CLEAN_ALL_BUFFERS */
	else
		malloc_trim(0);
}

/* Not before what is measured has begun, nor after it has ended. */
#if defined(__x86_64__)
uint64_t os_ticks(void)
{
	__builtin_ia32_lfence();
	return __builtin_ia32_rdtsc();
}
#else
uint64_t os_ticks(void)
{
	return os_now_ns();
}
#endif

double os_ticks_per_ns(void)
{
	uint64_t start_ns = os_now_ns(), start = os_ticks(), now;

	do
		now = os_now_ns();
	while (now - start_ns < CALIBRATION_NS);
	return (double)(os_ticks() - start) / (double)(now - start_ns);
}

/* Linux can count so for all processes together only. */
bool os_committed(uint64_t *now)
{
	(void)now;
	return false;
}

bool os_stderr_is_terminal(void)
{
	return isatty(STDERR_FILENO) == 1;
}

void os_wait(unsigned round)
{
	struct timespec sleep = { 0, WAIT_SLEEP_NS };

	if (round < WAIT_SPINS)
		return;
	if (round < WAIT_YIELDS)
		sched_yield();
	else
		nanosleep(&sleep, NULL);
}

static void *thread_main(void *argument)
{
	struct os_thread *thread = argument;

	thread->run(thread->argument);
	return NULL;
}

int os_thread_start(struct os_thread *thread, void (*run)(void *argument), void *argument)
{
	pthread_t handle;

	thread->run = run;
	thread->argument = argument;
	if (pthread_create(&handle, NULL, thread_main, thread))
		return -1;
	thread->handle = (uintptr_t)handle;
	return 0;
}

void os_thread_join(struct os_thread *thread)
{
	pthread_join((pthread_t)thread->handle, NULL);
}
