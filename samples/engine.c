/* SPDX-License-Identifier: MIT */
/*
 * engine: how a game engine embeds hakmem. Start reading at the end, with main().
 *
 * Every subsystem has an arena with a budget, every worker a cache of each arena. What one
 * worker allocated another may free. Memory is made ready before the first frame; from then on
 * the worker that ends a frame does the arenas' housekeeping, so that nothing within a frame
 * calls the system or touches a page for the first time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hakmem/hakmem.h>

#include "engine_show.h"
#include "os.h"

#define MAX_WORKERS 16
#define MESSAGES 16	       /* that a worker sends in a frame */
#define MEAN_LIFE 300	       /* of an entity, in frames */
#define LEVEL_FRAMES 500       /* from the loading of a level to its unloading */
#define LEVEL_ASSETS 96	       /* loaded at its start; one is streamed in every other frame */
#define STOP UINT64_MAX	       /* the frame in which everything ends */
#define TOLD 20		       /* reports that are printed; the others are counted */
#define ALL_LIMIT (160u << 20) /* of all arenas together: less than they may have by themselves */
#define ALL_SOFT_LIMIT (76u << 20) /* from here on the engine would rather have less */
#define MAINTAIN_NS 100000	   /* for an arena, after a frame */
#define STACK_READY 16384	   /* bytes of a worker's stack */
#define ALL_OF_IT SIZE_MAX

enum {
	RENDER,
	PHYSICS,
	AUDIO,
	SCRIPT,
	ASSETS,
	ARENAS
};

/* Lies in the script arena; its parts lie in the arenas of those that work on them. */
struct entity {
	struct entity *next;
	uint64_t dies; /* frame */
	void *mesh, *body;
};

struct worker {
	struct engine *engine;
	struct hk_cache *caches[ARENAS];
	struct entity *entities;
	void *inbox[2][MESSAGES]; /* one is read while a neighbour fills the other */
	uint64_t frame, random, allocations[ARENAS], worst_ns[ARENAS];
	struct engine_times times; /* of its calls of the allocator */
	int64_t page_faults;	   /* within frames */
	struct os_thread thread;
};

struct engine {
	struct hk_budget memory; /* of all arenas */
	struct hk_arena *arenas[ARENAS];
	struct worker workers[MAX_WORKERS];
	struct engine_options options;
	_Atomic uint64_t frame, done; /* the frame to do; frames done, by all workers */
	_Atomic uint64_t kept;	      /* the frame after which there was housekeeping */
	void *assets[LEVEL_ASSETS + LEVEL_FRAMES]; /* from oldest to loaded; only worker 0 */
	size_t oldest, loaded, evicted;
	_Atomic uint64_t faults, pressures;
};

/* Whatever goes wrong in an arena arrives here, on the thread where it went wrong. */
static void on_report(void *context, const struct hk_report *report)
{
	if (((struct engine *)context)->faults++ >= TOLD)
		return;
	fprintf(stderr, "%s: %s: %s (%p, %zu bytes)\n", report->arena_name,
		hk_fault_name(report->fault), report->what, report->address, report->size);
}

/* A budget is used up. Of assets the oldest goes, and the arena tries again. */
static bool on_oom(void *context, struct hk_arena *arena, size_t size)
{
	struct engine *engine = context;

	(void)size;
	if (arena != engine->arenas[ASSETS] || engine->oldest == engine->loaded)
		return false;
	hk_arena_free(arena, engine->assets[engine->oldest++]);
	engine->evicted++;
	return true;
}

/* All together have much, whichever arena it was: an engine would lower its detail. */
static void on_pressure(void *context, struct hk_arena *arena, size_t used, size_t limit)
{
	struct engine *engine = context;

	(void)arena;
	(void)used;
	(void)limit;
	engine->pressures++;
}

static size_t roll(struct worker *worker, size_t below)
{
	worker->random = worker->random * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (size_t)(worker->random >> 33) % below;
}

/* An allocation may fail, and the engine goes on: what is missing is not drawn, not heard. */
static void *take(struct worker *worker, unsigned arena, size_t size)
{
	uint64_t start = os_ticks();
	void *block =
		worker->engine->options.libc ? malloc(size) : hk_alloc(worker->caches[arena], size);

	engine_note_alloc(&worker->times, os_ticks() - start);
	worker->allocations[arena]++;
	return block ? memset(block, 1, size) : NULL;
}

static void *take_aligned(struct worker *worker, unsigned arena, size_t size, size_t align)
{
	uint64_t start = os_ticks();
	void *block = worker->engine->options.libc
			      ? os_malloc_aligned(align, size)
			      : hk_alloc_aligned(worker->caches[arena], size, align);

	engine_note_alloc(&worker->times, os_ticks() - start);
	worker->allocations[arena]++;
	return block;
}

static void give(struct worker *worker, unsigned arena, void *block)
{
	uint64_t start = os_ticks();

	if (worker->engine->options.libc)
		free(block);
	else
		hk_free(worker->caches[arena], block);
	engine_note_free(&worker->times, os_ticks() - start);
}

/* Many at once; malloc has no such calls. */
static void give_all(struct worker *worker, unsigned arena, size_t count, void **blocks)
{
	uint64_t start = os_ticks();

	if (!worker->engine->options.libc) {
		hk_free_bulk(worker->caches[arena], count, blocks);
		engine_note_free(&worker->times, os_ticks() - start);
		return;
	}
	while (count)
		give(worker, arena, blocks[--count]);
}

static bool take_all(struct worker *worker, unsigned arena, size_t size, size_t count,
		     void **blocks)
{
	uint64_t start = os_ticks();
	bool all;

	if (!worker->engine->options.libc) {
		all = hk_alloc_bulk(worker->caches[arena], size, count, blocks);
		engine_note_alloc(&worker->times, os_ticks() - start);
		worker->allocations[arena] += count;
		return all;
	}
	while (count)
		blocks[--count] = take(worker, arena, size);
	return true;
}

/* Draw commands and an aligned vertex buffer, for this frame only. */
static void render(struct worker *worker)
{
	void *commands[64], *vertices = take_aligned(worker, RENDER, 16384, 64);
	size_t i, count = 20 + roll(worker, 44);

	for (i = 0; i < count; i++)
		commands[i] = take(worker, RENDER, 64 + roll(worker, 4000));
	give_all(worker, RENDER, count, commands);
	give(worker, RENDER, vertices);
}

/* Contact points: many blocks of one size, taken and given back at once. */
static void physics(struct worker *worker)
{
	size_t count = 64 + roll(worker, 64);
	void *contacts[128];

	if (take_all(worker, PHYSICS, 48, count, contacts))
		give_all(worker, PHYSICS, count, contacts);
}

/* Frees what a neighbour sent in the frame before, and sends to the other neighbour. */
static void audio(struct worker *worker)
{
	struct engine *engine = worker->engine;
	size_t i, next = (size_t)(worker - engine->workers + 1) % (size_t)engine->options.workers;
	void **inbox = worker->inbox[worker->frame % 2];
	void **outbox = engine->workers[next].inbox[(worker->frame + 1) % 2];

	give_all(worker, AUDIO, MESSAGES, inbox);
	for (i = 0; i < MESSAGES; i++)
		outbox[i] = take(worker, AUDIO, 32 + roll(worker, 200));
}

/* Entities are born and die; at the end all die. */
static void script(struct worker *worker)
{
	size_t births = worker->frame == STOP ? 0 : roll(worker, 9);
	struct entity **link = &worker->entities, *entity;

	while ((entity = *link)) {
		if (entity->dies > worker->frame) {
			link = &entity->next;
			continue;
		}
		*link = entity->next;
		give(worker, RENDER, entity->mesh);
		give(worker, PHYSICS, entity->body);
		give(worker, SCRIPT, entity);
	}
	for (; births && (entity = take(worker, SCRIPT, sizeof(*entity))); births--) {
		entity->mesh = take(worker, RENDER, 200 + roll(worker, 3000));
		entity->body = take(worker, PHYSICS, 160);
		entity->dies = worker->frame + 1 + roll(worker, 2 * MEAN_LIFE - 1);
		entity->next = worker->entities;
		worker->entities = entity;
	}
}

/* All assets go at once: a reset costs the same whatever there is. Nobody else uses this arena. */
static void unload(struct worker *worker)
{
	struct engine *engine = worker->engine;
	uint64_t start = os_ticks();

	if (engine->options.libc) {
		give_all(worker, ASSETS, engine->loaded, engine->assets);
	} else {
		hk_arena_reset(engine->arenas[ASSETS]);
		engine_note_free(&worker->times, os_ticks() - start);
	}
	engine->oldest = engine->loaded = 0;
}

/* Worker 0 loads assets. Only on_oom() frees them, and the reset at the end of the level. */
static void assets(struct worker *worker)
{
	struct engine *engine = worker->engine;
	size_t i, loads = worker->frame % LEVEL_FRAMES == 1 ? LEVEL_ASSETS : worker->frame % 2;

	if (worker != engine->workers)
		return;
	if (worker->frame % LEVEL_FRAMES == 1)
		unload(worker);
	for (i = 0; i < loads; i++, engine->loaded++)
		engine->assets[engine->loaded] = take(worker, ASSETS, 16384 + roll(worker, 524288));
}

static const struct subsystem {
	const char *name;
	size_t budget;
	size_t ready;			    /* what a play test needed, and some more */
	void (*run)(struct worker *worker); /* its part of a frame */
} subsystems[ARENAS] = {
	[RENDER] = { "render", 96 << 20, 25 << 20, render },
	[PHYSICS] = { "physics", 32 << 20, 3 << 20, physics },
	[AUDIO] = { "audio", 16 << 20, 3 << 20, audio },
	[SCRIPT] = { "script", 32 << 20, 2 << 20, script },
	[ASSETS] = { "assets", 48 << 20, ALL_OF_IT, assets },
};

/* The worker that ends a frame last has the time until the next one begins. */
static void keep_house(struct engine *engine, uint64_t frame)
{
	unsigned i;

	for (i = 0; i < ARENAS && !engine->options.cold; i++)
		hk_arena_maintain(engine->arenas[i], MAINTAIN_NS);
	engine->kept = frame;
}

/* What the first frame would touch for the first time: the thread's stack, the clock's page. */
static void get_ready(void)
{
	volatile unsigned char bytes[STACK_READY];
	size_t i;

	for (i = 0; i < sizeof(bytes); i += 1024)
		bytes[i] = (unsigned char)os_now_ns();
}

/* A worker's part of a frame. */
static void work_on(struct worker *worker)
{
	int64_t faults = worker->engine->options.faults ? os_thread_page_faults() : -1;
	uint64_t ns;
	unsigned i;

	for (i = 0; i < ARENAS; i++) {
		ns = os_now_ns();
		subsystems[i].run(worker);
		ns = os_now_ns() - ns;
		worker->worst_ns[i] = ns > worker->worst_ns[i] ? ns : worker->worst_ns[i];
	}
	engine_end_frame(&worker->times);
	if (faults >= 0)
		worker->page_faults += os_thread_page_faults() - faults;
}

/* A worker's thread. */
static void work(void *argument)
{
	struct worker *worker = argument;
	struct engine *engine = worker->engine;
	uint64_t frame;
	unsigned round;

	get_ready();
	for (;;) {
		for (round = 0; (frame = engine->frame) == worker->frame; round++)
			os_wait(round);
		if (frame == STOP)
			return;
		worker->frame = frame;
		work_on(worker);
		if (++engine->done == frame * engine->options.workers)
			keep_house(engine, frame);
	}
}

/*
 * A range a little below the budget, which counts the arena's own data, too: where the range is
 * full and ready, nothing is committed any more, and on_oom() is asked at once.
 */
static int make_arena(struct engine *engine, unsigned arena, struct hk_arena_config config)
{
	int error;
	uint64_t j;

	config.name = subsystems[arena].name;
	config.limit = subsystems[arena].budget;
	config.address_space = config.limit - config.limit / 16;
	config.maintain_delay = 2 * LEVEL_FRAMES; /* what one level needs the next will, too */
	error = hk_arena_create(&engine->arenas[arena], &config);
	for (j = 0; j < engine->options.workers && !error; j++)
		error = hk_cache_create(engine->arenas[arena], &engine->workers[j].caches[arena]);
	if (error || engine->options.libc || engine->options.cold)
		return error;
	/* without memory for all of it now the engine runs, and may have a hitch later */
	hk_arena_prewarm(engine->arenas[arena], subsystems[arena].ready);
	return 0;
}

static int set_up(struct engine *engine)
{
	struct hk_budget_config all = { .limit = ALL_LIMIT, .soft_limit = ALL_SOFT_LIMIT };
	struct hk_arena_config config = { .context = engine, .on_oom = on_oom };
	unsigned i;
	int error;
	uint64_t j;

	all.context = engine;
	all.on_pressure = on_pressure;
	error = hk_budget_init(&engine->memory, &all);
	config.budget = &engine->memory;
	config.on_report = on_report;
	for (j = 0; j < engine->options.workers; j++) {
		/* touched, so that no frame is the first to */
		memset(&engine->workers[j], 0, sizeof(engine->workers[j]));
		engine->workers[j].engine = engine;
		engine->workers[j].random = engine->options.seed * MAX_WORKERS + j;
	}
	memset(engine->assets, 0, sizeof(engine->assets));
	for (i = 0; i < ARENAS && !error; i++)
		error = make_arena(engine, i, config);
	/* entities are born even if all else is used up by then */
	for (j = 0; j < engine->options.workers && !error; j++)
		error = hk_cache_prefill(engine->workers[j].caches[SCRIPT], sizeof(struct entity),
					 64);
	if (error)
		fprintf(stderr, "engine: %s: %s\n", i < ARENAS ? subsystems[i].name : "script",
			hk_error_name(error));
	return error;
}

/* The host's own thread: one frame after the other, each when the last is done and cleared up. */
static void play(struct engine *engine)
{
	uint64_t frame;
	unsigned round;

	for (frame = 1; frame <= engine->options.frames; frame++) {
		engine->frame = frame;
		for (round = 0; engine->kept < frame; round++)
			os_wait(round);
		engine_progress(&engine->options, frame);
	}
}

static void measure(const struct engine *engine, unsigned arena, struct engine_row *row)
{
	const struct worker *worker = engine->workers;

	row->name = subsystems[arena].name;
	row->budget = subsystems[arena].budget;
	hk_arena_stats(engine->arenas[arena], &row->stats);
	for (; worker < engine->workers + engine->options.workers; worker++) {
		row->allocations += worker->allocations[arena];
		if (worker->worst_ns[arena] > row->worst_ns)
			row->worst_ns = worker->worst_ns[arena];
	}
}

/* The workers have ended: the host uses their caches to free what they left behind. */
static void shut_down(struct engine *engine)
{
	struct worker *worker, *end = engine->workers + engine->options.workers;
	int i;

	for (worker = engine->workers; worker < end; worker++) {
		give_all(worker, AUDIO, MESSAGES, worker->inbox[(worker->frame + 1) % 2]);
		worker->frame = STOP;
		script(worker);
	}
	unload(engine->workers);
	for (i = 0; i < ARENAS; i++) {
		engine->faults += hk_arena_check(engine->arenas[i]);
		hk_arena_destroy(engine->arenas[i]); /* reports what is still live */
	}
	engine->faults += hk_budget_used(&engine->memory) != 0;
	engine->faults += hk_budget_destroy(&engine->memory) != 0;
}

int main(int argc, char **argv)
{
	static struct engine engine = { .options = { .frames = 2000, .workers = 4, .seed = 1 } };
	static struct engine_row rows[ARENAS];
	static struct engine_totals totals = { .limit_bytes = ALL_LIMIT };
	struct worker *worker;
	unsigned i, started = 0;
	int status;

	if (!engine_parse(&engine.options, MAX_WORKERS, argc, argv, &status))
		return status;
	if (set_up(&engine))
		return 1;
	for (worker = engine.workers; started < engine.options.workers; started++, worker++)
		if (os_thread_start(&worker->thread, work, worker))
			break;
	if (started == engine.options.workers)
		play(&engine);
	else
		engine.faults =
			(uint64_t)fprintf(stderr, "engine: worker %u cannot be started: %s\n",
					  started, "no memory for its stack, or too many threads");
	engine.frame = STOP;
	while (started)
		os_thread_join(&engine.workers[--started].thread);
	for (i = 0; i < ARENAS; i++)
		measure(&engine, i, &rows[i]);
	totals.used_bytes = hk_budget_used(&engine.memory);
	totals.peak_bytes = hk_budget_peak(&engine.memory);
	totals.page_faults = engine.options.faults ? 0 : -1;
	for (worker = engine.workers; worker < engine.workers + engine.options.workers; worker++) {
		histogram_merge(&totals.times.allocs, &worker->times.allocs);
		histogram_merge(&totals.times.frees, &worker->times.frees);
		histogram_merge(&totals.times.frames, &worker->times.frames);
		totals.page_faults += engine.options.faults ? worker->page_faults : 0;
	}
	shut_down(&engine);
	totals.evicted = engine.evicted;
	totals.pressures = engine.pressures;
	totals.faults = engine.faults;
	engine_show(&engine.options, rows, ARENAS, &totals);
	return engine.faults > 0;
}
