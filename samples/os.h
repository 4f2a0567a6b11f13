/* SPDX-License-Identifier: MIT */
/*
 * What the samples need of the operating system. os_posix.c is the one for POSIX systems,
 * os_windows.c that for Windows; what a system cannot measure it says so, and the programs then
 * print null.
 */
#ifndef SAMPLES_OS_H
#define SAMPLES_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Zeroed memory straight from the system, so that a program that measures malloc does not use
 * it for itself. Pages are backed when touched. NULL: none. A @size of 0 is taken as 1.
 */
void *os_map(size_t size);
void os_unmap(void *memory, size_t size);

/*
 * Aligned memory of malloc's, for free(). @align: a power of two, a pointer's size or more, and
 * no more than os_malloc_align_max() says; else NULL.
 */
void *os_malloc_aligned(size_t align, size_t size);
size_t os_malloc_align_max(void);

/* A monotonic clock. */
uint64_t os_now_ns(void);

/* Processor time of the calling thread; 0: this system does not tell it finely enough. */
uint64_t os_thread_cpu_ns(void);

/* Page faults of this process so far, or -1. */
int64_t os_page_faults(void);

/* Those of the calling thread, or -1: this system does not count so. */
int64_t os_thread_page_faults(void);

/* Makes the peak of os_resident() start anew from now. False: this system cannot. */
bool os_reset_peak(void);

/*
 * Memory of this process that it has written to and shares with no other; on Windows, all that is
 * resident. False: this system cannot tell.
 */
bool os_private(uint64_t *bytes);

/*
 * Resident memory of this process that is no file's, now and at its peak; files too where the
 * system cannot tell them apart. False: this system cannot.
 */
bool os_resident(uint64_t *now, uint64_t *peak);

/* Gives back what malloc keeps and can give back, by the call that the loaded one has for it. */
void os_malloc_trim(void);

/* What a clock of few nanoseconds reads; os_ticks_per_ns() tells how fast it goes. */
uint64_t os_ticks(void);
double os_ticks_per_ns(void);

/*
 * Bytes that this process has committed: what counts against what the system has, touched or
 * not. False: this system does not count so.
 */
bool os_committed(uint64_t *now);

/* Whether a person watches stderr. */
bool os_stderr_is_terminal(void);

/*
 * For loops that wait for another thread: called with 0, 1, 2 ... it first spins, then yields,
 * then sleeps for as short a time as the system knows, so that waiting threads do not keep the
 * one they wait for from a processor.
 */
void os_wait(unsigned round);

struct os_thread {
	uintptr_t handle;
	void (*run)(void *argument);
	void *argument;
};

/* 0 or -1. @thread stays where it is until it is joined. */
int os_thread_start(struct os_thread *thread, void (*run)(void *argument), void *argument);
void os_thread_join(struct os_thread *thread);

#endif /* SAMPLES_OS_H */
