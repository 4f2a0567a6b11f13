/* SPDX-License-Identifier: MIT */
/*
 * Blocks that tell their own size and the seed of their content, so that whichever thread gets
 * hold of one can check it.
 */
#ifndef TESTS_SIGNED_BLOCK_H
#define TESTS_SIGNED_BLOCK_H

#include <string.h>

#include "model.h"

struct signature {
	size_t size;
	uint64_t seed;
};

/* @size is at least that of the signature. */
TEST_HELPER void block_sign(unsigned char *block, size_t size, uint64_t seed)
{
	struct signature signature = { size, seed };

	memcpy(block, &signature, sizeof(signature));
	model_stamp(block + sizeof(signature), size - sizeof(signature), seed);
}

/* Whether a block has its content, of which @most bytes are left, at least a signature. */
TEST_HELPER bool block_holds(const unsigned char *block, size_t most)
{
	struct signature signature;
	size_t kept;

	memcpy(&signature, block, sizeof(signature));
	if (signature.size < sizeof(signature))
		return false;
	kept = (most < signature.size ? most : signature.size) - sizeof(signature);
	return model_holds(block + sizeof(signature), signature.size - sizeof(signature), kept,
			   signature.seed);
}

#endif /* TESTS_SIGNED_BLOCK_H */
