/* SPDX-License-Identifier: MIT */
/* workload: runs a workload against an allocator and measures it. */
#include "workload.h"

#include <samples/cli.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS_MAX 64
#define WORKERS_MAX 256

static const char workload_help[] =
	"usage: workload NAME [options]\n"
	"       workload --list\n"
	"\n"
	"Runs a workload against an allocator, then against none, and prints speed and memory.\n"
	"\n"
	"  --allocator NAME  hakmem (the default), libc (malloc, or what is preloaded in its\n"
	"                    place), or null (no allocator: the runner's own cost)\n"
	"  --workers N       threads that do it; N,M,... runs it for each\n"
	"  --ops N           operations of all workers together (K, M, G: powers of 1024); or\n"
	"  --seconds S       for so long\n"
	"  --repeat N        so often; each run is told\n"
	"  --seed N          of the sizes and the order; default 1\n"
	"  --profile NAME    workers, operations and repeats: seed (1, 2 and 4 workers), quick\n"
	"                    (a tenth of the operations), full (5 times), soak (10 minutes)\n"
	"  --verify          fill each block with a pattern of its own and check it before it is\n"
	"                    freed or resized; check the arena; speed means nothing then\n"
	"  --latency         time each call: percentiles, by stage with hakmem\n"
	"  --memory          tell the 32 checkpoints: resident, live and committed bytes\n"
	"  --no-reset        frames: free one by one, as allocators must that have no arenas\n"
	"  --trace FILE      replay: the trace; default samples/traces/minetest.hkt\n"
	"  --limit BYTES     hakmem: limit of each arena\n"
	"  --address-space BYTES\n"
	"                    hakmem: address range of each arena\n"
	"  --large-pages     hakmem: ask for large pages in each arena, which it does not by itself\n"
	"  --slowdown N      waste N percent of the time, to try out comparisons\n"
	"  --json            print one JSON object; what cannot be measured is null\n"
	"  --list            a line about each workload; with --json, parameters too\n"
	"  --help            this text; with NAME, that workload's own parameters\n"
	"\n"
	"An operation is one allocation and one free, of replay an event. The first and the last\n"
	"byte of each block are written. Filling before and freeing after are not timed.\n"
	"\n"
	"Exit: 0 well, 1 a failed allocation, check or run, 2 usage.\n";

struct command {
	const struct workload *workload;
	struct workload_options options;
	unsigned workers[RUNS_MAX];
	unsigned worker_counts;
	uint64_t repeat;
	const char *profile;
	bool parameter_given[WORKLOAD_PARAMETERS];
	bool memory;
	bool json;
	bool list;
	bool help;
};

static int usage_error(const char *what, const char *argument)
{
	fprintf(stderr, "workload: %s%s (see workload --help)\n", what, argument);
	return -1;
}

static int parse_heap(const char *name, enum workload_heap *heap)
{
	static const enum workload_heap heaps[] = { WORKLOAD_HAKMEM, WORKLOAD_LIBC, WORKLOAD_NULL };
	size_t i;

	for (i = 0; name && i < sizeof(heaps) / sizeof(heaps[0]); i++) {
		if (strcmp(name, workload_heap_name(heaps[i])) == 0) {
			*heap = heaps[i];
			return 0;
		}
	}
	return usage_error("--allocator needs hakmem, libc or null", "");
}

/* "1,2,4" */
static int parse_workers(const char *text, struct command *command)
{
	char number[32];
	size_t length;
	uint64_t value;

	command->worker_counts = 0;
	for (; text; text = text[length] ? text + length + 1 : NULL) {
		length = strcspn(text, ",");
		if (length >= sizeof(number) || command->worker_counts == RUNS_MAX)
			break;
		memcpy(number, text, length);
		number[length] = '\0';
		if (!cli_number(number, 1, WORKERS_MAX, &value))
			break;
		command->workers[command->worker_counts++] = (unsigned)value;
		if (!text[length])
			return 0;
	}
	return usage_error("--workers needs numbers of 1 to 256, with commas between them", "");
}

static int parse_number(const char *value, const char *name, uint64_t min, uint64_t max,
			uint64_t *number)
{
	char what[128];

	if (value && cli_number(value, min, max, number))
		return 0;
	snprintf(what, sizeof(what), "--%s needs a number of %" PRIu64 " to %" PRIu64, name, min,
		 max);
	return usage_error(what, "");
}

/* An option that is a parameter of the workload. */
static int parse_parameter(struct cli *cli, const char *argument, struct command *command)
{
	const struct workload_parameter *parameter;
	char option[64];
	const char *value;
	unsigned i;

	if (!command->workload)
		return usage_error("NAME comes first; there is no option ", argument);
	for (i = 0; i < WORKLOAD_PARAMETERS && command->workload->parameters[i].name; i++) {
		parameter = &command->workload->parameters[i];
		snprintf(option, sizeof(option), "--%s", parameter->name);
		if (!cli_value(cli, argument, option, &value))
			continue;
		command->parameter_given[i] = true;
		return parse_number(value, parameter->name, parameter->min, parameter->max,
				    &command->options.parameters[i]);
	}
	return usage_error("this workload has no option ", argument);
}

static int parse_value(struct cli *cli, const char *argument, struct command *command)
{
	struct {
		const char *name;
		uint64_t min, max;
		uint64_t *number;
	} numbers[] = {
		{ "ops", 1, (uint64_t)1 << 50, &command->options.ops },
		{ "seconds", 1, 1000000, &command->options.seconds },
		{ "repeat", 1, 1000, &command->repeat },
		{ "seed", 0, UINT32_MAX, &command->options.seed },
		{ "limit", 1, SIZE_MAX, &command->options.limit },
		{ "address-space", 1, SIZE_MAX, &command->options.address_space },
		{ "slowdown", 1, 1000, &command->options.slowdown },
	};
	char option[64];
	const char *value;
	size_t i;

	if (cli_value(cli, argument, "--allocator", &value))
		return parse_heap(value, &command->options.heap);
	if (cli_value(cli, argument, "--workers", &value))
		return parse_workers(value, command);
	if (cli_value(cli, argument, "--profile", &value)) {
		command->profile = value;
		return value ? 0 : usage_error("--profile needs a name", "");
	}
	if (cli_value(cli, argument, "--trace", &value)) {
		command->options.trace = value;
		return value ? 0 : usage_error("--trace needs a file", "");
	}
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		snprintf(option, sizeof(option), "--%s", numbers[i].name);
		if (cli_value(cli, argument, option, &value))
			return parse_number(value, numbers[i].name, numbers[i].min, numbers[i].max,
					    numbers[i].number);
	}
	return parse_parameter(cli, argument, command);
}

static int parse_option(struct cli *cli, const char *argument, struct command *command)
{
	static const struct {
		const char *name;
		size_t offset;
	} flags[] = {
		{ "--verify", offsetof(struct command, options.verify) },
		{ "--latency", offsetof(struct command, options.latency) },
		{ "--no-reset", offsetof(struct command, options.no_reset) },
		{ "--large-pages", offsetof(struct command, options.large_pages) },
		{ "--memory", offsetof(struct command, memory) },
		{ "--json", offsetof(struct command, json) },
		{ "--list", offsetof(struct command, list) },
		{ "--help", offsetof(struct command, help) },
	};
	size_t i;

	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (strcmp(argument, flags[i].name) == 0) {
			*(bool *)(void *)((char *)command + flags[i].offset) = true;
			return 0;
		}
	}
	return parse_value(cli, argument, command);
}

/* What the profile sets, where the command line did not. */
static int apply_profile(struct command *command)
{
	const struct workload *workload = command->workload;
	struct workload_options *options = &command->options;
	const char *profile = command->profile;

	if (!profile)
		return 0;
	if (strcmp(profile, "seed") == 0) {
		if (!command->worker_counts)
			parse_workers("1,2,4", command);
	} else if (strcmp(profile, "quick") == 0) {
		if (!options->ops && !options->seconds && workload->ops)
			options->ops = workload->ops / 10;
		else if (!options->ops && !options->seconds)
			options->seconds = 1;
	} else if (strcmp(profile, "full") == 0) {
		if (!command->repeat)
			command->repeat = 5;
	} else if (strcmp(profile, "soak") == 0) {
		if (!options->ops && !options->seconds)
			options->seconds = 600;
		command->memory = true;
	} else {
		return usage_error("--profile needs seed, quick, full or soak", "");
	}
	return 0;
}

static int check_parameters(const struct command *command)
{
	const struct workload *workload = command->workload;
	const uint64_t *value = command->options.parameters;
	unsigned i, j;

	/* a "min-x" is no more than its "max-x", and so are "x-min" and "x-max" */
	for (i = 0; i < WORKLOAD_PARAMETERS && workload->parameters[i].name; i++) {
		const char *name = workload->parameters[i].name;
		const char *at = strstr(name, "min");
		char other[64];

		if (!at || (at != name && at[-1] != '-') || (at[3] && at[3] != '-'))
			continue;
		snprintf(other, sizeof(other), "%.*smax%s", (int)(at - name), name, at + 3);
		for (j = 0; j < WORKLOAD_PARAMETERS && workload->parameters[j].name; j++)
			if (strcmp(workload->parameters[j].name, other) == 0 && value[i] > value[j])
				return usage_error(other, " is less than its minimum");
	}
	return 0;
}

static int settle(struct command *command)
{
	const struct workload *workload = command->workload;
	struct workload_options *options = &command->options;

	if (!workload)
		return usage_error("NAME is needed", "");
	if (options->ops && options->seconds)
		return usage_error("--ops or --seconds, not both", "");
	if (options->heap != WORKLOAD_HAKMEM &&
	    (options->limit || options->address_space || options->large_pages))
		return usage_error("--limit, --address-space and --large-pages are for --allocator "
				   "hakmem",
				   "");
	if (options->heap == WORKLOAD_NULL && options->verify)
		return usage_error("--allocator null has nothing to verify", "");
	if (options->verify && options->latency)
		return usage_error("--verify or --latency, not both", "");
	if (options->trace && workload->recipe != RECIPE_REPLAY)
		return usage_error("--trace is for replay", "");
	if (options->no_reset && workload->recipe != RECIPE_FRAMES)
		return usage_error("--no-reset is for frames", "");
	if (check_parameters(command) || apply_profile(command))
		return -1;
	if (!command->worker_counts) {
		command->workers[0] = workload->workers;
		command->worker_counts = 1;
	}
	if (!command->repeat)
		command->repeat = 1;
	if (!options->ops && !options->seconds)
		options->ops = workload->ops;
	return 0;
}

static int parse(struct cli *cli, struct command *command)
{
	const char *argument;
	bool is_option;
	unsigned i;

	command->options.seed = 1;
	while ((argument = cli_next(cli, &is_option))) {
		if (is_option) {
			if (parse_option(cli, argument, command))
				return -1;
			continue;
		}
		if (command->workload)
			return usage_error("one argument too many: ", argument);
		command->workload = workload_find(argument);
		if (!command->workload)
			return usage_error("there is no workload ", argument);
		for (i = 0; i < WORKLOAD_PARAMETERS; i++)
			command->options.parameters[i] = command->workload->parameters[i].value;
	}
	if (command->help || (command->list && !command->workload))
		return 0;
	return settle(command);
}

static void help(const struct workload *workload)
{
	unsigned i;

	if (!workload) {
		fputs(workload_help, stdout);
		return;
	}
	printf("%s: %s\n\n", workload->name, workload->about);
	for (i = 0; i < WORKLOAD_PARAMETERS && workload->parameters[i].name; i++)
		printf("  --%-18s %s; default %" PRIu64 "\n", workload->parameters[i].name,
		       workload->parameters[i].about, workload->parameters[i].value);
	printf("\nOptions of all workloads: workload --help\n");
}

static void complain(const struct workload_result *result)
{
	if (result->failed)
		fprintf(stderr, "workload: %" PRIu64 " allocations failed\n", result->failed);
	if (result->broken)
		fprintf(stderr, "workload: %" PRIu64 " checks failed\n", result->broken);
	if (result->faults)
		fprintf(stderr, "workload: %" PRIu64 " reports by the allocator\n", result->faults);
	if (result->text[0])
		fprintf(stderr, "workload: the first: %s\n", result->text);
}

/* One run: told, and whether all was well. */
static bool run_one(const struct command *command, const struct workload_options *options,
		    struct timings *timings)
{
	static struct workload_result result;

	result.timings = timings;
	if (workload_run(command->workload, options, &result)) {
		fprintf(stderr, "workload: %s\n", result.text);
		return false;
	}
	workload_report(command->workload, options, &result, command->memory, command->json);
	complain(&result);
	return workload_is_well(&result);
}

int main(int argc, char **argv)
{
	static struct timings timings;
	struct cli cli = { argc, argv, 1, false };
	struct command command = { 0 };
	struct workload_options options;
	bool well = true, many;
	unsigned i, printed = 0;
	uint64_t repeat;

	if (parse(&cli, &command))
		return CLI_USAGE;
	if (command.help || command.list) {
		if (command.help)
			help(command.workload);
		else
			workload_list(command.json);
		return CLI_WELL;
	}
	many = command.json && (command.worker_counts > 1 || command.repeat > 1);
	if (many)
		printf("{\n\"profile\": %s%s%s,\n\"runs\": [\n", command.profile ? "\"" : "",
		       command.profile ? command.profile : "null", command.profile ? "\"" : "");
	options = command.options;
	options.progress = os_stderr_is_terminal();
	for (i = 0; i < command.worker_counts; i++) {
		options.workers = command.workers[i];
		for (repeat = 0; well && repeat < command.repeat; repeat++) {
			if (many && printed++)
				printf(",\n");
			well = run_one(&command, &options, options.latency ? &timings : NULL);
			fflush(stdout);
		}
	}
	if (many)
		printf("]\n}\n");
	return well ? CLI_WELL : CLI_BAD;
}
