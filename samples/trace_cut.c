/* SPDX-License-Identifier: MIT */
/* trace-cut: the first events of a heap trace, as a trace of its own. */
#include "cli.h"
#include "os.h"
#include "trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct cut_options {
	const char *in;
	const char *out;
	uint64_t events;
	uint64_t bytes;
	bool help;
};

static const char cut_help[] =
	"usage: trace-cut IN OUT --events N | --bytes B\n"
	"\n"
	"Writes the first events of the heap trace IN to OUT, with a header that is right for\n"
	"them. What lies behind them in IN is not read: a file that is damaged further on can be\n"
	"cut before the damage.\n"
	"\n"
	"  --events N   the first N events, or all when there are fewer\n"
	"  --bytes B    as many events as fit into a file of B bytes (K, M, G: powers of 1024)\n"
	"  --help       this text\n"
	"\n"
	"With both, the stricter one holds. Exit: 0 well, 1 bad data, 2 usage.\n";

/* How far to cut, and the header for it. */
struct cut {
	struct trace_header header;
	uint64_t end;
};

static int usage_error(const char *what, const char *argument)
{
	fprintf(stderr, "trace-cut: %s%s (see trace-cut --help)\n", what, argument);
	return -1;
}

static int parse_option(struct cli *cli, const char *argument, struct cut_options *options)
{
	const char *value;

	if (strcmp(argument, "--help") == 0) {
		options->help = true;
		return 0;
	}
	if (cli_value(cli, argument, "--events", &value)) {
		if (!value || !cli_number(value, 0, UINT64_MAX - 1, &options->events))
			return usage_error("--events needs a number", "");
		return 0;
	}
	if (cli_value(cli, argument, "--bytes", &value)) {
		if (!value || !cli_number(value, TRACE_HEADER, UINT64_MAX - 1, &options->bytes))
			return usage_error("--bytes needs a number, at least 40", "");
		return 0;
	}
	return usage_error("there is no option ", argument);
}

static int parse(struct cli *cli, struct cut_options *options)
{
	const char *argument;
	bool is_option;

	options->events = UINT64_MAX;
	options->bytes = UINT64_MAX;
	while ((argument = cli_next(cli, &is_option))) {
		if (is_option) {
			if (parse_option(cli, argument, options))
				return -1;
			if (options->help)
				return 0;
		} else if (!options->in) {
			options->in = argument;
		} else if (!options->out) {
			options->out = argument;
		} else {
			return usage_error("one argument too many: ", argument);
		}
	}
	if (!options->out)
		return usage_error("IN and OUT are needed", "");
	if (options->events == UINT64_MAX && options->bytes == UINT64_MAX)
		return usage_error("--events or --bytes is needed", "");
	return 0;
}

static void find_cut(struct trace_reader *reader, const struct cut_options *options,
		     struct cut *cut)
{
	struct trace_event event;

	memset(cut, 0, sizeof(*cut));
	cut->end = TRACE_HEADER;
	while (cut->header.events < options->events && trace_next(reader, &event)) {
		if (reader->offset > options->bytes)
			return;
		cut->header.events = reader->read;
		cut->header.slots = reader->used_slots;
		cut->header.threads = reader->used_threads;
		cut->end = reader->offset;
	}
}

static int write_cut(const char *path, const unsigned char *bytes, const struct cut *cut)
{
	unsigned char header[TRACE_HEADER];
	size_t body = (size_t)(cut->end - TRACE_HEADER);
	bool good;
	FILE *file;

	errno = 0;
	file = fopen(path, "wb");
	if (!file) {
		fprintf(stderr, "trace-cut: %s: %s\n", path, strerror(errno));
		return -1;
	}
	trace_put_header(header, &cut->header);
	good = fwrite(header, 1, sizeof(header), file) == sizeof(header) &&
	       fwrite(bytes + TRACE_HEADER, 1, body, file) == body;
	if (fclose(file))
		good = false;
	if (!good) {
		fprintf(stderr, "trace-cut: %s: %s\n", path, strerror(errno));
		return -1;
	}
	printf("%s: %" PRIu64 " events, %" PRIu64 " slots, %" PRIu64 " threads, %" PRIu64
	       " bytes\n",
	       path, cut->header.events, cut->header.slots, cut->header.threads, cut->end);
	return 0;
}

static int cut_file(const struct cut_options *options)
{
	struct trace_reader reader;
	int error = -1;
	uint64_t *sizes = NULL;
	size_t sizes_bytes = 0;
	unsigned char *bytes;
	size_t mapped;
	const char *why;
	struct cut cut;
	size_t size;

	if (cli_read_file(options->in, &bytes, &size, &mapped, &why)) {
		fprintf(stderr, "trace-cut: %s: %s\n", options->in, why);
		return -1;
	}
	if (trace_open(&reader, bytes, size) == 0) {
		sizes = cli_array(reader.slots, sizeof(*sizes), &sizes_bytes);
		if (!sizes) {
			fprintf(stderr, "trace-cut: %s: no memory for %" PRIu64 " slots\n",
				options->in, reader.slots);
			goto out_unmap;
		}
		trace_start(&reader, sizes);
		find_cut(&reader, options, &cut);
	}
	if (reader.error.fault) {
		fprintf(stderr, "trace-cut: %s: ", options->in);
		trace_print_error(stderr, &reader.error);
		fputc('\n', stderr);
		goto out_unmap;
	}
	error = write_cut(options->out, bytes, &cut);

out_unmap:
	os_unmap(sizes, sizes_bytes);
	os_unmap(bytes, mapped);
	return error;
}

int main(int argc, char **argv)
{
	struct cli cli = { argc, argv, 1, false };
	struct cut_options options = { 0 };

	if (parse(&cli, &options))
		return CLI_USAGE;
	if (options.help) {
		fputs(cut_help, stdout);
		return CLI_WELL;
	}
	return cut_file(&options) ? CLI_BAD : CLI_WELL;
}
