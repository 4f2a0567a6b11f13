/* SPDX-License-Identifier: MIT */
/* Budgets and charges; see budget.h and charge.h. */
#include <hakmem/charge.h>

_Static_assert(sizeof(_Atomic size_t) == sizeof(size_t), "fields are read as atomics");
_Static_assert(HK_BUDGET_DEPTH <= 32, "a bit for each level");

static _Atomic size_t *atomic_of(size_t *field)
{
	return (_Atomic size_t *)(void *)field;
}

/* More or less in use at one level. A sum that wraps round subtracts. */
static size_t add(struct hk_budget *budget, size_t bytes)
{
	return atomic_fetch_add_explicit(atomic_of(&budget->used), bytes, memory_order_relaxed);
}

/* Charges one level: whether it was within the limit. @old: what was in use before. */
static bool charge_level(struct hk_budget *budget, size_t bytes, size_t *old)
{
	size_t limit = hk_budget_load(&budget->limit);

	*old = hk_budget_load(&budget->used);
	do {
		if (*old > limit || bytes > limit - *old)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(atomic_of(&budget->used), old, *old + bytes,
							memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

int hk_charge(struct hk_budget *budget, size_t bytes, uint32_t *pressed)
{
	struct hk_budget *level, *refused;
	uint32_t crossed = 0, bit = 1;
	size_t old, soft;

	for (level = budget; level && charge_level(level, bytes, &old); level = level->parent) {
		soft = hk_budget_load(&level->soft_limit);
		if (level->on_pressure && old < soft && bytes >= soft - old)
			crossed |= bit;
		bit <<= 1;
	}
	refused = level;
	for (level = budget, bit = 1; refused && level != refused; level = level->parent) {
		old = add(level, 0 - bytes);
		/* others that charged meanwhile did not see themselves cross */
		if (old - bytes < hk_budget_load(&level->soft_limit))
			crossed &= ~bit;
		bit <<= 1;
	}
	*pressed = crossed;
	return refused ? HK_ERROR_LIMIT : 0;
}

void hk_uncharge(struct hk_budget *budget, size_t bytes)
{
	for (; budget; budget = budget->parent)
		add(budget, 0 - bytes);
}

void hk_charge_settled(struct hk_budget *budget)
{
	size_t now, peak;

	for (; budget; budget = budget->parent) {
		now = hk_budget_load(&budget->used);
		peak = hk_budget_load(&budget->peak);
		while (peak < now &&
		       !atomic_compare_exchange_weak_explicit(atomic_of(&budget->peak), &peak, now,
							      memory_order_relaxed,
							      memory_order_relaxed))
			;
	}
}

size_t hk_charge_limit(const struct hk_budget *budget)
{
	size_t least = SIZE_MAX, limit;

	for (; budget; budget = budget->parent) {
		limit = hk_budget_load(&budget->limit);
		if (limit < least)
			least = limit;
	}
	return least;
}

size_t hk_charge_left(const struct hk_budget *budget)
{
	size_t least = SIZE_MAX, limit, used;

	for (; budget; budget = budget->parent) {
		limit = hk_budget_load(&budget->limit);
		used = hk_budget_load(&budget->used);
		if (limit == SIZE_MAX)
			continue;
		if (used > limit)
			return 0;
		if (limit - used < least)
			least = limit - used;
	}
	return least;
}

void hk_budget_join(struct hk_budget *budget)
{
	if (budget)
		atomic_fetch_add_explicit(atomic_of(&budget->users), 1, memory_order_relaxed);
}

void hk_budget_leave(struct hk_budget *budget, size_t bytes)
{
	hk_uncharge(budget, bytes);
	/* release: whoever finds that nobody is within may give the memory up */
	if (budget)
		atomic_fetch_sub_explicit(atomic_of(&budget->users), 1, memory_order_release);
}

int hk_budget_init(struct hk_budget *budget, const struct hk_budget_config *config)
{
	static const struct hk_budget_config defaults;
	struct hk_budget *parent;

	if (!config)
		config = &defaults;
	parent = config->parent;
	if (parent && parent->depth >= HK_BUDGET_DEPTH)
		return HK_ERROR_ARGUMENT;
	*budget = (struct hk_budget){ .parent = parent,
				      .depth = parent ? parent->depth + 1 : 1,
				      .context = config->context,
				      .on_pressure = config->on_pressure };
	if (hk_budget_set_limits(budget, config->limit, config->soft_limit))
		return HK_ERROR_ARGUMENT;
	hk_budget_join(parent);
	return 0;
}

int hk_budget_destroy(struct hk_budget *budget)
{
	if (!budget)
		return 0;
	/* acquire: pairs with the release in hk_budget_leave() */
	if (atomic_load_explicit(atomic_of(&budget->users), memory_order_acquire))
		return HK_ERROR_STATE;
	hk_budget_leave(budget->parent, 0);
	return 0;
}

int hk_budget_set_limits(struct hk_budget *budget, size_t limit, size_t soft_limit)
{
	if (!limit)
		limit = SIZE_MAX;
	if (soft_limit > limit)
		return HK_ERROR_ARGUMENT;
	atomic_store_explicit(atomic_of(&budget->limit), limit, memory_order_relaxed);
	atomic_store_explicit(atomic_of(&budget->soft_limit), soft_limit ? soft_limit : SIZE_MAX,
			      memory_order_relaxed);
	return 0;
}

size_t hk_budget_used(const struct hk_budget *budget)
{
	return hk_budget_load(&budget->used);
}

size_t hk_budget_peak(const struct hk_budget *budget)
{
	return hk_budget_load(&budget->peak);
}
