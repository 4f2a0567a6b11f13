/* SPDX-License-Identifier: MIT */
/*
 * world: a level of std::pmr containers on one arena. hakmem lies in third_party/hakmem, and
 * `ninja` has run there.
 *
 *	$ c++ -std=c++17 -O2 -Ithird_party/hakmem world.cpp third_party/hakmem/build/release/libhakmem.a -o world
 *	$ ./world
 */
#include <cstdint>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hakmem_resource.hpp"

namespace
{

constexpr unsigned actors = 1500;

struct alignas(64) matrix {
	float cell[16];
};

struct level {
	explicit level(std::pmr::memory_resource *memory)
		: names(memory), transforms(memory), by_name(memory)
	{
	}

	std::pmr::vector<std::pmr::string> names;
	std::pmr::vector<matrix> transforms;
	std::pmr::unordered_map<std::pmr::string, std::size_t> by_name;
};

void on_report(void *context, const hk_report *report)
{
	/* A budget that is used up is an exception here, not a fault. */
	if (report->fault == HK_FAULT_EXHAUSTED)
		return;
	std::fprintf(stderr, "world: arena %s: %s: %s\n", report->arena_name,
		     hk_fault_name(report->fault), report->what);
	++*static_cast<unsigned *>(context);
}

void load(level &made)
{
	for (unsigned i = 0; i < actors; i++) {
		std::pmr::string name("an actor with quite a long name, number ",
				      made.names.get_allocator());
		name += std::to_string(i);
		made.by_name.emplace(name, i);
		made.names.push_back(std::move(name));
		made.transforms.push_back(matrix{ { static_cast<float>(i) } });
	}
}

bool intact(const level &loaded)
{
	if (reinterpret_cast<std::uintptr_t>(loaded.transforms.data()) % alignof(matrix) != 0)
		return false;
	for (const auto &name : loaded.names) {
		auto found = loaded.by_name.find(name);

		if (found == loaded.by_name.end() || loaded.names[found->second] != name ||
		    loaded.transforms[found->second].cell[0] != static_cast<float>(found->second))
			return false;
	}
	return loaded.names.size() == actors;
}

std::size_t live_blocks(const hk_arena *arena)
{
	static hk_stats stats;

	hk_arena_stats(arena, &stats);
	return stats.live_blocks;
}

/* Returns false when anything is not as it should be. */
bool play(hk_arena *arena)
{
	hakmem_resource loader(arena), worker(arena);
	std::size_t blocks;

	{
		level loading(&loader), playing(&worker);

		load(loading);
		blocks = live_blocks(arena);
		/* Of one arena: what the loader's cache allocated moves, and the worker's frees it. */
		auto *names = loading.names.data();
		playing.names = std::move(loading.names);
		playing.transforms = std::move(loading.transforms);
		playing.by_name = std::move(loading.by_name);
		if (playing.names.data() != names || !intact(playing))
			return false;
		std::printf("world: %u actors in %zu blocks\n", actors, blocks);
	}
	/* What a device reads begins at a page. */
	bool at_pages = true;
	void *staging[2];
	for (auto &buffer : staging) {
		buffer = worker.allocate(1000, 4096);
		at_pages &= reinterpret_cast<std::uintptr_t>(buffer) % 4096 == 0;
	}
	for (auto &buffer : staging)
		worker.deallocate(buffer, 1000, 4096);
	if (!at_pages || live_blocks(arena) != 0)
		return false;

	try {
		std::pmr::vector<char> more_than_the_budget(64u << 20, &worker);
		return false;
	} catch (const std::bad_alloc &) {
		std::printf("world: 64 MiB more: std::bad_alloc\n");
	}
	return blocks > actors && live_blocks(arena) == 0;
}

} // namespace

int main()
{
	unsigned faults = 0;
	hk_arena_config config = {};
	hk_arena *arena;

	config.name = "world";
	config.limit = 16u << 20;
	config.context = &faults;
	config.on_report = on_report;
	if (hk_arena_create(&arena, &config))
		return 1;
	bool well = play(arena);
	hk_arena_destroy(arena); /* reports what still lives */
	return well && !faults ? 0 : 1;
}
