/* SPDX-License-Identifier: MIT */
/* replay: runs a recorded heap trace against an allocator and measures it. */
#include "replay.h"

#include "cli.h"
#include "os.h"

#include <inttypes.h>
#include <string.h>

static const char replay_help[] =
	"usage: replay FILE [options]\n"
	"\n"
	"Runs the heap trace FILE against an allocator, each event through the cache of the\n"
	"thread that made it, and prints speed and memory.\n"
	"\n"
	"  --allocator NAME  hakmem (the default), libc (malloc, or what is preloaded in its\n"
	"                    place), or null (no allocator: the replayer's own cost)\n"
	"  --threads         on as many threads as were recorded, instead of one; the order is\n"
	"                    kept where a block or its slot passes between threads\n"
	"  --repeat N        run the trace N times; the first pass is timed apart\n"
	"  --verify          fill each block with a pattern of its own, and check it before it\n"
	"                    is freed or resized; check alignment, zeroed blocks and the arena\n"
	"  --limit BYTES     hakmem: the arena's limit (K, M, G: powers of 1024)\n"
	"  --address-space BYTES\n"
	"                    hakmem: the arena's address range\n"
	"  --marks           list the trace's marks: events, live bytes and time at each\n"
	"  --json            print one JSON object; what cannot be measured is null\n"
	"  --help            this text\n"
	"\n"
	"The first and the last byte of each block and one byte in every 4096 are written when it\n"
	"is allocated and when it is resized, the same for every allocator. Blocks live at the\n"
	"end of a pass are freed, which is not timed. Speed is that of the median of the passes\n"
	"after the first. Peak memory is the most that was resident, less what was before the\n"
	"first pass.\n"
	"\n"
	"Exit: 0 well, 1 bad data or a failed check, 2 usage.\n";

struct command {
	struct replay_options options;
	const char *path;
	bool json;
	bool help;
};

static int usage_error(const char *what, const char *argument)
{
	fprintf(stderr, "replay: %s%s (see replay --help)\n", what, argument);
	return -1;
}

static int parse_heap(const char *name, enum replay_heap *heap)
{
	static const enum replay_heap heaps[] = { REPLAY_HAKMEM, REPLAY_LIBC, REPLAY_NULL };
	size_t i;

	for (i = 0; name && i < sizeof(heaps) / sizeof(heaps[0]); i++) {
		if (strcmp(name, replay_heap_name(heaps[i])) == 0) {
			*heap = heaps[i];
			return 0;
		}
	}
	return usage_error("--allocator needs hakmem, libc or null", "");
}

/* An option with a value. */
static int parse_value(struct cli *cli, const char *argument, struct replay_options *options)
{
	const char *value;

	if (cli_value(cli, argument, "--allocator", &value))
		return parse_heap(value, &options->heap);
	if (cli_value(cli, argument, "--repeat", &value)) {
		if (!value || !cli_number(value, 1, 1000000, &options->repeat))
			return usage_error("--repeat needs a number of 1 to 1000000", "");
		return 0;
	}
	if (cli_value(cli, argument, "--limit", &value)) {
		if (!value || !cli_number(value, 1, SIZE_MAX, &options->limit))
			return usage_error("--limit needs a number of bytes", "");
		return 0;
	}
	if (cli_value(cli, argument, "--address-space", &value)) {
		if (!value || !cli_number(value, 1, SIZE_MAX, &options->address_space))
			return usage_error("--address-space needs a number of bytes", "");
		return 0;
	}
	return usage_error("there is no option ", argument);
}

static int parse_option(struct cli *cli, const char *argument, struct command *command)
{
	if (strcmp(argument, "--help") == 0)
		command->help = true;
	else if (strcmp(argument, "--threads") == 0)
		command->options.threads = true;
	else if (strcmp(argument, "--verify") == 0)
		command->options.verify = true;
	else if (strcmp(argument, "--marks") == 0)
		command->options.marks = true;
	else if (strcmp(argument, "--json") == 0)
		command->json = true;
	else
		return parse_value(cli, argument, &command->options);
	return 0;
}

static int parse(struct cli *cli, struct command *command)
{
	struct replay_options *options = &command->options;
	const char *argument;
	bool is_option;

	options->repeat = 1;
	while ((argument = cli_next(cli, &is_option))) {
		if (is_option) {
			if (parse_option(cli, argument, command))
				return -1;
			if (command->help)
				return 0;
		} else if (!command->path) {
			command->path = argument;
		} else {
			return usage_error("one argument too many: ", argument);
		}
	}
	if (!command->path)
		return usage_error("FILE is needed", "");
	if (options->limit && options->heap != REPLAY_HAKMEM)
		return usage_error("--limit is for --allocator hakmem", "");
	if (options->address_space && options->heap != REPLAY_HAKMEM)
		return usage_error("--address-space is for --allocator hakmem", "");
	if (options->verify && options->heap == REPLAY_NULL)
		return usage_error("--allocator null has nothing to verify", "");
	return 0;
}

static int load(struct replay *replay, const struct command *command)
{
	struct trace_error error;
	unsigned char *bytes;
	const char *why;
	size_t mapped;
	size_t size;
	int failed;

	if (cli_read_file(command->path, &bytes, &size, &mapped, &why)) {
		fprintf(stderr, "replay: %s: %s\n", command->path, why);
		return -1;
	}
	failed = replay_load(replay, &command->options, bytes, size, &error);
	os_unmap(bytes, mapped);
	if (!failed)
		return 0;
	fprintf(stderr, "replay: %s: ", command->path);
	if (error.fault)
		trace_print_error(stderr, &error);
	else
		fputs(error.text, stderr);
	fputc('\n', stderr);
	return -1;
}

static void complain(const struct replay_result *result)
{
	if (result->failed)
		fprintf(stderr, "replay: %" PRIu64 " allocations failed\n", result->failed);
	if (result->broken)
		fprintf(stderr, "replay: %" PRIu64 " checks failed\n", result->broken);
	if (result->faults)
		fprintf(stderr, "replay: %" PRIu64 " reports by the allocator\n", result->faults);
	if (result->text[0])
		fprintf(stderr, "replay: the first: %s\n", result->text);
}

int main(int argc, char **argv)
{
	struct cli cli = { argc, argv, 1, false };
	struct command command = { 0 };
	struct replay_result result;
	struct replay replay;
	int status = CLI_BAD;

	if (parse(&cli, &command))
		return CLI_USAGE;
	if (command.help) {
		fputs(replay_help, stdout);
		return CLI_WELL;
	}
	command.options.progress = os_stderr_is_terminal();
	if (load(&replay, &command))
		return CLI_BAD;
	if (replay_run(&replay, &result)) {
		fprintf(stderr, "replay: %s\n", result.text);
		goto out_unload;
	}
	replay_report(&replay, &result, command.path, command.json);
	complain(&result);
	if (replay_is_well(&result))
		status = CLI_WELL;

out_unload:
	replay_unload(&replay);
	return status;
}
