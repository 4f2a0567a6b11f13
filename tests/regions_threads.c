/* SPDX-License-Identifier: MIT */
/*
 * A whole life of an arena in a fixed region, by one thread and then by four that use it up
 * together, where the kernel kills the process for any system call but the exit. Linux only,
 * for seccomp.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "regions.h"
#include "signed_block.h"

#define THREADS 4
#define OWN 1200
#define SHELF 32
#define STEPS 6000
#define ROUNDS_MAX 200 /* by then threads have met at a lock, on one processor too */

struct team {
	struct region_place place;
	_Atomic(unsigned char *) shelf[SHELF];
	atomic_uint ready; /* workers that have begun */
	atomic_uint start;
	atomic_uint met; /* a thread has waited for a lock, or never will */
	atomic_uint done;
	atomic_size_t refused;
	_Atomic(const char *) error;
	struct worker {
		struct team *team;
		struct hk_cache *cache;
		uint64_t seed;
		unsigned char *blocks[OWN];
	} workers[THREADS];
};

static struct team team;

/* Whether a block lies in the region and has its content, of which @most bytes are left. */
static bool is_intact(const struct region_place *place, const unsigned char *block, size_t most)
{
	size_t usable = hk_usable_size(place->arena, block);

	return usable >= sizeof(struct signature) && region_has(place, block, usable) &&
	       block_holds(block, usable < most ? usable : most);
}

static size_t random_size(uint64_t *seed)
{
	uint64_t kind = test_random(seed) % 100;

	return sizeof(struct signature) + (size_t)(test_random(seed) % (kind < 80   ? 600
									: kind < 97 ? 20000
										    : 300000));
}

static const char *resize(struct worker *worker, unsigned char **slot)
{
	struct region_place *place = &worker->team->place;
	size_t size = random_size(&worker->seed);
	unsigned char *moved;

	if (!*slot)
		return NULL;
	moved = hk_realloc(worker->cache, *slot, size);
	worker->team->refused += !moved;
	expect(is_intact(place, moved ? moved : *slot, moved ? size : SIZE_MAX));
	if (!moved)
		return NULL;
	*slot = moved;
	block_sign(moved, size, test_random(&worker->seed));
	return NULL;
}

static const char *replace(struct worker *worker, unsigned char **slot, uint64_t how)
{
	struct region_place *place = &worker->team->place;
	size_t size = random_size(&worker->seed);

	if (*slot)
		expect(is_intact(place, *slot, SIZE_MAX));
	if (how % 4)
		hk_free(worker->cache, *slot);
	else
		hk_arena_free(place->arena, *slot);
	*slot = how % 8 == 0 ? hk_arena_alloc(place->arena, size)
		: how == 1   ? hk_zalloc(worker->cache, size)
		: how == 2   ? hk_alloc_aligned(worker->cache, size, 1024)
			     : hk_alloc(worker->cache, size);
	worker->team->refused += !*slot;
	if (*slot)
		block_sign(*slot, size, test_random(&worker->seed));
	return NULL;
}

static const char *contend(struct worker *worker)
{
	struct region_place *place = &worker->team->place;
	const char *error = NULL;
	size_t i;

	for (i = 0; i < STEPS && !error && !worker->team->error; i++) {
		unsigned char **slot = &worker->blocks[test_random(&worker->seed) % OWN];
		uint64_t what = test_random(&worker->seed) % 128;

		if (what < 2)
			hk_cache_flush(worker->cache);
		else if (what == 3)
			hk_arena_trim(place->arena, 0, what % 2 * 1000);
		else if (what < 16)
			error = resize(worker, slot);
		else if (what < 48)
			*slot = atomic_exchange(&worker->team->shelf[test_random(&worker->seed) %
								     SHELF],
						*slot);
		else
			error = replace(worker, slot, what % 32);
	}
	return error;
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct team *all = worker->team;
	const char *error;

	all->ready++;
	while (!all->start)
		;
	do {
		error = contend(worker);
		if (error)
			all->error = error;
	} while (!all->met && !all->error);
	all->done++;
	while (all->done) /* not even the end of a thread goes without system calls */
		;
	return NULL;
}

/* All that an arena does in a region, by one thread and then by four. */
static const char *live_with_threads(void)
{
	struct region_place *place = &team.place;
	const char *error = region_live(place);
	static struct hk_stats stats;
	unsigned i;

	if (!error)
		error = region_open(place);
	if (error)
		return error;
	for (i = 0; i < THREADS; i++) {
		team.workers[i].seed = i + 1;
		expect(hk_cache_create(place->arena, &team.workers[i].cache) == 0);
	}
	team.start = 1;
	for (i = 0; i < ROUNDS_MAX && !team.met && !team.error; i++) {
		error = contend(&team.workers[0]);
		if (error)
			team.error = error;
		hk_arena_stats(place->arena, &stats);
		team.met = stats.counters.lock_waited > 0;
	}
	team.met = 1;
	while (team.done < THREADS - 1)
		;
	if (team.error)
		return team.error;
	expect(hk_arena_check(place->arena) == 0);
	hk_arena_stats(place->arena, &stats);
	expect(team.refused > 0);
	expect(team.refused == place->told[HK_FAULT_EXHAUSTED]);
	expect(team.refused == stats.counters.exhausted);
	expect(stats.counters.lock_waited > 0);
	for (i = 0; i < THREADS; i++)
		hk_cache_destroy(team.workers[i].cache);
	hk_arena_reset(place->arena);
	hk_arena_trim(place->arena, 0, 0);
	hk_arena_destroy(place->arena);
	expect(place->told[HK_FAULT_LEAK] + place->told[HK_FAULT_CORRUPT] == 0);
	return NULL;
}

/* From now on any system call but the exit kills the process, whichever thread makes it. */
static int forbid_system_calls(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { COUNT(code), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			    &program);
}

static _Noreturn void live_forbidden(const char **verdict)
{
	pthread_t threads[THREADS];
	unsigned i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 1; i < THREADS; i++) {
		team.workers[i].team = &team;
		if (pthread_create(&threads[i], NULL, work, &team.workers[i]))
			_exit(2);
	}
	team.workers[0].team = &team;
	while (team.ready < THREADS - 1)
		; /* a thread makes system calls before it gets anywhere */
	if (forbid_system_calls())
		_exit(3);
	*verdict = live_with_threads();
	syscall(SYS_exit_group, 0); /* a sanitizer's _exit() looks for leaks first */
	abort();
}

Test(regions, a_life_with_threads_makes_no_system_call, .timeout = 120)
{
	const char **verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t child;

	cr_assert_neq(verdict, MAP_FAILED);
	*verdict = "nothing was done";
	region_make(&team.place, 8 * MIB, 4097);
	child = fork();
	cr_assert_geq(child, 0);
	if (!child)
		live_forbidden(verdict);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status), "killed by signal %d: a system call", WTERMSIG(status));
	cr_assert_eq(WEXITSTATUS(status), 0);
	cr_assert_null(*verdict, "%s", *verdict); /* of this very program: the same address */
	region_drop(&team.place);
}
