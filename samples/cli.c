/* SPDX-License-Identifier: MIT */
/* What the trace programs share, see cli.h. */
#include "cli.h"

#include "os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_FIRST_BYTES ((size_t)1 << 20)

const char *cli_next(struct cli *cli, bool *is_option)
{
	const char *argument;

	*is_option = false;
	if (cli->at >= cli->argc)
		return NULL;
	argument = cli->argv[cli->at++];
	if (cli->plain || argument[0] != '-' || !argument[1])
		return argument;
	if (strcmp(argument, "--") == 0) {
		cli->plain = true;
		return cli_next(cli, is_option);
	}
	*is_option = true;
	return argument;
}

bool cli_value(struct cli *cli, const char *argument, const char *name, const char **value)
{
	size_t length = strlen(name);

	if (strncmp(argument, name, length) != 0)
		return false;
	if (argument[length] == '=') {
		*value = argument + length + 1;
		return true;
	}
	if (argument[length])
		return false;
	*value = cli->at < cli->argc ? cli->argv[cli->at++] : NULL;
	return true;
}

bool cli_number(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
	static const char units[] = "KMG";
	uint64_t value = 0;
	const char *at = text;
	const char *unit;
	unsigned shift;

	while (*at >= '0' && *at <= '9') {
		if (value > (UINT64_MAX - 9) / 10)
			return false;
		value = value * 10 + (uint64_t)(*at++ - '0');
	}
	if (at == text)
		return false;
	if (*at) {
		unit = strchr(units, *at++);
		if (!unit || *at)
			return false;
		shift = 10 * (unsigned)(unit - units + 1);
		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
	}
	if (value < min || value > max)
		return false;
	*number = value;
	return true;
}

bool cli_number_option(struct cli *cli, const char *argument, const char *name, uint64_t min,
		       uint64_t max, uint64_t *number)
{
	const char *text = NULL;

	return cli_value(cli, argument, name, &text) && text && cli_number(text, min, max, number);
}

static bool double_buffer(unsigned char **bytes, size_t *mapped)
{
	unsigned char *larger;

	if (*mapped > SIZE_MAX / 4)
		return false;
	larger = os_map(*mapped * 2);
	if (!larger)
		return false;
	memcpy(larger, *bytes, *mapped);
	os_unmap(*bytes, *mapped);
	*bytes = larger;
	*mapped *= 2;
	return true;
}

int cli_read_file(const char *path, unsigned char **bytes, size_t *size, size_t *mapped,
		  const char **why)
{
	FILE *file;
	size_t got;

	*size = 0;
	*mapped = FILE_FIRST_BYTES;
	*bytes = NULL;
	errno = 0;
	file = fopen(path, "rb");
	if (!file) {
		*why = errno ? strerror(errno) : "cannot be opened";
		return -1;
	}
	/* Straight into the mapping: no buffer from malloc in a program that measures it. */
	setvbuf(file, NULL, _IONBF, 0);
	*bytes = os_map(*mapped);
	*why = "there is not enough memory";
	if (!*bytes)
		goto out_close;
	while ((got = fread(*bytes + *size, 1, *mapped - *size, file)) > 0) {
		*size += got;
		if (*size == *mapped && !double_buffer(bytes, mapped))
			goto out_unmap;
	}
	if (ferror(file)) {
		*why = errno ? strerror(errno) : "cannot be read";
		goto out_unmap;
	}
	fclose(file);
	return 0;

out_unmap:
	os_unmap(*bytes, *mapped);
	*bytes = NULL;
out_close:
	fclose(file);
	return -1;
}

void *cli_array(uint64_t count, size_t each, size_t *mapped)
{
	*mapped = 0;
	if (count > SIZE_MAX / each)
		return NULL;
	*mapped = (size_t)count * each;
	return os_map(*mapped);
}
