/* SPDX-License-Identifier: MIT */
/*
 * hakmem as the memory of std::pmr's containers. A resource is a worker's view of one arena: it
 * has a cache of its own, so it is used by one thread at a time. Resources of one arena are
 * equal: a container may move to another worker's, which then frees what it brought along.
 */
#ifndef HAKMEM_RESOURCE_HPP
#define HAKMEM_RESOURCE_HPP

#include <cstddef>
#include <memory_resource>
#include <new>

#include <hakmem/hakmem.h>

class hakmem_resource final : public std::pmr::memory_resource
{
public:
	/* The arena must outlive the resource; the resource, its containers. */
	explicit hakmem_resource(hk_arena *arena) : arena_(arena)
	{
		if (hk_cache_create(arena, &cache_))
			throw std::bad_alloc();
	}
	~hakmem_resource() override
	{
		hk_cache_destroy(cache_);
	}
	hakmem_resource(const hakmem_resource &) = delete;
	hakmem_resource &operator=(const hakmem_resource &) = delete;

private:
	/* Of every block. One that is aligned further may not go to hk_free_sized(). */
	static constexpr std::size_t always_aligned = 16;

	void *do_allocate(std::size_t size, std::size_t align) override
	{
		void *block = align <= always_aligned ? hk_alloc(cache_, size)
						      : hk_alloc_aligned(cache_, size, align);
		if (!block)
			throw std::bad_alloc();
		return block;
	}
	void do_deallocate(void *block, std::size_t size, std::size_t align) override
	{
		if (align <= always_aligned)
			hk_free_sized(cache_, block, size);
		else
			hk_free(cache_, block);
	}
	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		auto same = dynamic_cast<const hakmem_resource *>(&other);
		return same && same->arena_ == arena_;
	}
	hk_arena *arena_;
	hk_cache *cache_ = nullptr;
};

#endif
