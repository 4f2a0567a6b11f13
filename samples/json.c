/* SPDX-License-Identifier: MIT */
/* What the programs print as JSON, see json.h. */
#include "json.h"

#include <inttypes.h>
#include <stdio.h>

/* The counters of struct hk_counters, by the names they have there. */
static const struct {
	const char *name;
	size_t offset;
} counters[] = {
	{ "spare_swap", offsetof(struct hk_counters, spare_swap) },
	{ "depot_swap", offsetof(struct hk_counters, depot_swap) },
	{ "slab_batch", offsetof(struct hk_counters, slab_batch) },
	{ "new_slab", offsetof(struct hk_counters, new_slab) },
	{ "new_superslab", offsetof(struct hk_counters, new_superslab) },
	{ "large_alloc", offsetof(struct hk_counters, large_alloc) },
	{ "platform_call", offsetof(struct hk_counters, platform_call) },
	{ "magazine_to_depot", offsetof(struct hk_counters, magazine_to_depot) },
	{ "depot_to_slab", offsetof(struct hk_counters, depot_to_slab) },
	{ "slab_emptied", offsetof(struct hk_counters, slab_emptied) },
	{ "superslab_emptied", offsetof(struct hk_counters, superslab_emptied) },
	{ "large_free", offsetof(struct hk_counters, large_free) },
	{ "arena_alloc", offsetof(struct hk_counters, arena_alloc) },
	{ "arena_free", offsetof(struct hk_counters, arena_free) },
	{ "free_null", offsetof(struct hk_counters, free_null) },
	{ "refused", offsetof(struct hk_counters, refused) },
	{ "exhausted", offsetof(struct hk_counters, exhausted) },
	{ "oom_calls", offsetof(struct hk_counters, oom_calls) },
	{ "lock_acquired", offsetof(struct hk_counters, lock_acquired) },
	{ "lock_waited", offsetof(struct hk_counters, lock_waited) },
};

#define COUNTERS (sizeof(counters) / sizeof(counters[0]))

_Static_assert(COUNTERS == sizeof(struct hk_counters) / sizeof(uint64_t), "each has its name");

static uint64_t counter(const struct hk_counters *from, size_t index)
{
	return *(const uint64_t *)((const char *)from + counters[index].offset);
}

void json_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text < ' ')
			printf("\\u%04x", (unsigned)*text);
		else
			putchar(*text);
	}
	putchar('"');
}

void json_counters(const struct hk_counters *from, const char *indent)
{
	size_t i;

	if (!from) {
		printf("null");
		return;
	}
	for (i = 0; i < COUNTERS; i++)
		printf("%s\n%s  \"%s\": %" PRIu64, i ? "," : "{", indent, counters[i].name,
		       counter(from, i));
	printf("\n%s}", indent);
}
