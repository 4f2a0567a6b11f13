/* SPDX-License-Identifier: MIT */
/* A cache and the classes that it has hardly used. */
#include "front.h"

/* Blocks smaller than a cache line: what two workers have shares none, from the first on. */
Test(front, workers_that_begin_together_share_no_line, .timeout = 60)
{
	struct hk_front *by[2];
	unsigned i, turn;
	size_t n;

	open_fronts(NULL);
	by[0] = front;
	by[1] = other;
	for (i = 1; i <= 4; i++) {
		void *mine[2][3 * ROUNDS];

		for (n = 0; n < COUNT(mine[0]); n++)
			for (turn = 0; turn < 2; turn++)
				mine[turn][n] = hk_front_alloc(by[turn], i);
		for (n = 0; n < COUNT(mine[0]) * COUNT(mine[0]); n++) {
			uintptr_t a = (uintptr_t)mine[0][n / COUNT(mine[0])] / 16;
			uintptr_t b = (uintptr_t)mine[1][n % COUNT(mine[0])] / 16;

			must((a + i - 1) / 4 < b / 4 || (b + i - 1) / 4 < a / 4,
			     "class %u: %jx0 and %jx0", i, (uintmax_t)a, (uintmax_t)b);
		}
		for (n = 0; n < COUNT(mine[0]); n++)
			for (turn = 0; turn < 2; turn++)
				hk_front_push(by[turn], i, mine[turn][n]);
		agree();
	}
	close_fronts();
}

/* A class that is hardly used: each block goes to and from its slab, and nothing is kept. */
Test(front, a_cold_class_takes_no_magazine)
{
	unsigned i, use;

	open_fronts(&(struct fault_options){ .forbid = true });
	for (i = FIRST_COLD; i < HK_CLASSES && hk_class_infos[i].capacity; i++) {
		size_t most = hk_class_infos[i].capacity + 1u;

		/* one allocates, the other frees; each is cold by itself */
		for (use = 0; use < COLD_USES; use++) {
			alloc_blocks(front, i, 1);
			must(class_of(i)->blocks_out == 1, "class %u, use %u", i, use);
			push_blocks(other, i, 1);
			must(class_of(i)->blocks_out == 0, "class %u, use %u", i, use);
			must(held_by(front) + held_by(other) == 0, "class %u, use %u", i, use);
		}
		alloc_blocks(front, i, 1);
		must(held_by(front) == 1, "class %u", i);
		must(class_of(i)->blocks_out == (most < BATCH_FIRST ? most : BATCH_FIRST),
		     "class %u: %zu", i, class_of(i)->blocks_out);
		push_blocks(other, i, 1);
		must(held_by(other) == 1 && hk_front_blocks(other, i) == 1, "class %u", i);
		hk_front_flush(front, false);
		hk_front_flush(other, false);
		/* a flush takes the magazines, but the class is known */
		alloc_blocks(front, i, 1);
		must(held_by(front) == 1, "class %u", i);
		push_blocks(front, i, 1);
		hk_front_flush(front, false);
		alloc_blocks(other, i, 1);
		must(held_by(other) == 1, "class %u", i);
		push_blocks(other, i, 1);
		hk_front_flush(other, false);
		cr_assert_eq(class_of(i)->blocks_out, 0, "class %u", i);
	}
	/* and so it stays: what is done each frame, and ended by a reset, is not cold each time */
	hk_arena_reset(arena);
	alloc_blocks(front, FIRST_COLD, 1);
	cr_assert_eq(held_by(front), 1);
	/* smaller blocks have a magazine from the first use on */
	for (i = 1; i < FIRST_COLD; i++) {
		alloc_blocks(front, i, 1);
		must(held_by(front) == i + 1, "class %u", i);
		must(class_of(i)->blocks_out == (i == 1 ? 128 / 16 : BATCH_FIRST), "class %u", i);
	}
	hk_arena_reset(arena);
	close_fronts();
}
