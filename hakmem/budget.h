/* SPDX-License-Identifier: MIT */
/*
 * Budgets: memory that several arenas share. hakmem.h includes this.
 *
 * A budget has a limit and may lie within another: the engine's, in that the renderer's, in that
 * the textures'. What an arena takes from its platform is charged to the arena's own limit, to its
 * budget, to that one's parent and so on up: to all of them, or to none and the arena has no
 * memory. So no limit is ever passed, not for a moment, whichever arena asks.
 *
 *	static struct hk_budget engine, textures;
 *
 *	hk_budget_init(&engine, &(struct hk_budget_config){ .limit = 512u << 20 });
 *	hk_budget_init(&textures, &(struct hk_budget_config){ .parent = &engine,
 *							      .limit = 128u << 20 });
 *	hk_arena_create(&arena, &(struct hk_arena_config){ .budget = &textures });
 */
#ifndef HK_BUDGET_H
#define HK_BUDGET_H

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Levels: budgets that lie within each other, and an arena's own limit. */
#define HK_BUDGET_DEPTH 16

/**
 * struct hk_budget_config - all choices about a budget; all zero is the default
 * @parent: the budget that this one lies in, which must outlive it; NULL: in none.
 * @limit: bytes that its arenas may take together; 0: no limit but the parent's.
 * @soft_limit: bytes from which on @on_pressure is called; at most @limit; 0: none.
 * @context: handed to the callback.
 * @on_pressure: The bytes in use have come to @limit, the soft limit, or beyond, by a charge for
 *	@arena; @used are those in use now, which may be fewer again. Called once for each such
 *	crossing, by the thread whose call it was, before that call returns, with no lock held; or,
 *	while it runs for the same arena already, by that thread once it has returned. Crossings
 *	of an arena that come before the first is told are one; one by a charge that is then refused
 *	further up may be told, too. It may allocate, free, trim and read statistics, of any arena;
 *	reset and destroy it may not call, and of caches it may use only its own thread's.
 *
 * New fields are added at the end; zero means default.
 */
struct hk_budget_config {
	struct hk_budget *parent;
	size_t limit;
	size_t soft_limit;
	void *context;
	void (*on_pressure)(void *context, struct hk_arena *arena, size_t used, size_t limit);
};

/**
 * struct hk_budget - a budget; the host's memory, from hk_budget_init() to hk_budget_destroy()
 *
 * All fields are private. It must stay where it is.
 */
struct hk_budget {
	struct hk_budget *parent;
	size_t limit; /* SIZE_MAX: none; this and what follows is read and written as atomics */
	size_t soft_limit; /* SIZE_MAX: none */
	size_t used;
	size_t peak;
	size_t users; /* arenas and budgets within */
	unsigned depth;
	void *context;
	void (*on_pressure)(void *context, struct hk_arena *arena, size_t used, size_t limit);
};

/**
 * hk_budget_init() - make a budget
 * @budget: memory for it, the host's.
 * @config: copied; NULL: no limit, no parent.
 *
 * Context: any thread; takes no lock. Return: 0, or HK_ERROR_ARGUMENT: a soft limit above the
 * limit, or more than HK_BUDGET_DEPTH levels. An arena is a level, too.
 */
HK_API int hk_budget_init(struct hk_budget *budget, const struct hk_budget_config *config);

/**
 * hk_budget_destroy() - give a budget up
 * @budget: the budget, or NULL; its memory is the host's again.
 *
 * Context: any thread, while nobody else uses the budget; takes no lock. Return: 0, or
 * HK_ERROR_STATE: arenas or other budgets are within, and nothing was done.
 */
HK_API int hk_budget_destroy(struct hk_budget *budget);

/**
 * hk_budget_set_limits() - change a budget's limits
 * @budget: the budget.
 * @limit: bytes, 0: none. It may be less than is in use: nothing more is granted until it is kept.
 * @soft_limit: bytes, at most @limit; 0: none. Where more is in use already, that is no crossing.
 *
 * Context: any thread, the callbacks too; takes no lock. A charge that runs at the same time may
 * still go by the old limits. Return: 0 or HK_ERROR_ARGUMENT.
 */
HK_API int hk_budget_set_limits(struct hk_budget *budget, size_t limit, size_t soft_limit);

/**
 * hk_budget_used() - bytes that a budget's arenas have taken from their platforms
 * @budget: the budget.
 *
 * Metadata included, and what a charge that is about to fail elsewhere holds for a moment.
 *
 * Context: any thread; a load, no lock. Return: bytes.
 */
HK_API size_t hk_budget_used(const struct hk_budget *budget);

/**
 * hk_budget_peak() - the most bytes that a budget's arenas had at once, as looked at after each
 * commit
 * @budget: the budget.
 *
 * Context: any thread; a load, no lock. Return: bytes.
 */
HK_API size_t hk_budget_peak(const struct hk_budget *budget);

#ifdef __cplusplus
}
#endif

#endif /* HK_BUDGET_H */
