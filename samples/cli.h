/* SPDX-License-Identifier: MIT */
/* What the trace programs share: reading options, reading a file. */
#ifndef SAMPLES_CLI_H
#define SAMPLES_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What every program of this folder exits with. */
enum cli_exit {
	CLI_WELL = 0,
	CLI_BAD = 1, /* bad data, or a check that failed */
	CLI_USAGE = 2,
};

/**
 * struct cli - a command line being read
 * @argc: as main() got it.
 * @argv: "
 * @at: index of the next argument.
 * @plain: after "--": options have ended.
 */
struct cli {
	int argc;
	char **argv;
	int at;
	bool plain;
};

/* The next argument, or NULL. *is_option: it begins with "-" and is not "-" alone. */
const char *cli_next(struct cli *cli, bool *is_option);

/*
 * Whether @argument is the option @name with a value, "--name value" or "--name=value". *value
 * is NULL where the value is missing.
 */
bool cli_value(struct cli *cli, const char *argument, const char *name, const char **value);

/* A decimal number of @min to @max, K, M and G behind it meaning powers of 1024. */
bool cli_number(const char *text, uint64_t min, uint64_t max, uint64_t *number);

/* Whether @argument is the option @name with a number from @min to @max. */
bool cli_number_option(struct cli *cli, const char *argument, const char *name, uint64_t min,
		       uint64_t max, uint64_t *number);

/*
 * Reads a whole file, or a pipe to its end, into memory of os_map(). 0, or -1 with *why told.
 * To be given back with os_unmap(*bytes, *mapped).
 */
int cli_read_file(const char *path, unsigned char **bytes, size_t *size, size_t *mapped,
		  const char **why);

/*
 * Zeroed memory of os_map() for @count entries of @each bytes; *mapped is what to unmap. NULL:
 * none, or more than the machine can address.
 */
void *cli_array(uint64_t count, size_t each, size_t *mapped);

#endif /* SAMPLES_CLI_H */
