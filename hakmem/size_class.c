/* SPDX-License-Identifier: MIT */
/*
 * The table of size classes.
 *
 * A run is the shortest of 1 to 8 slabs that wastes at most 1/32 at its end; where none does, as
 * many as waste least are few. The largest blocks, multiples of a slab, have a run each. A magazine
 * holds HK_MAGAZINE_ROUNDS blocks, fewer where these would pass a number of bytes, one of those up
 * to MAGAZINE_MAX_BLOCK, none beyond: at first, see hk_depot_fit(). What caches hold at the
 * recorded programs' peaks decided the numbers.
 */
#include <hakmem/size_class.h>

#define MAGAZINE_SMALL 2048			       /* up to this block size ... */
#define MAGAZINE_SMALL_BYTES (HK_MAGAZINE_SLOTS * 512) /* ... a magazine holds this much, ... */
#define MAGAZINE_BYTES (HK_MAGAZINE_SLOTS * 128)       /* ... beyond, this much */
#define MAGAZINE_MAX_BLOCK 32768

#define TAIL(size, slabs) ((slabs)*65536 % (size))
#define FITS(size, slabs) (TAIL(size, slabs) * 32 <= (slabs)*65536)
#define ONE_EACH(size) ((size) > HK_QUARTER_MAX)
#define SLABS(size)                                                                                \
	(FITS(size, 1)	  ? 1                                                                      \
	 : FITS(size, 2)  ? 2                                                                      \
	 : FITS(size, 3)  ? 3                                                                      \
	 : FITS(size, 4)  ? 4                                                                      \
	 : FITS(size, 5)  ? 5                                                                      \
	 : FITS(size, 6)  ? 6                                                                      \
	 : FITS(size, 7)  ? 7                                                                      \
	 : ONE_EACH(size) ? (size) / 65536                                                         \
			  : 8)
#define ROUNDS(size)                                                                               \
	((size) > MAGAZINE_MAX_BLOCK ? 0                                                           \
	 : (size) > MAGAZINE_BYTES   ? 1                                                           \
	 : (size) > MAGAZINE_SMALL   ? MAGAZINE_BYTES / (size)                                     \
				     : MAGAZINE_SMALL_BYTES / (size))
#define CAPACITY(size)                                                                             \
	(uint8_t)(ROUNDS(size) < HK_MAGAZINE_ROUNDS ? ROUNDS(size) : HK_MAGAZINE_ROUNDS)
#define CLASS(size)                                                                                \
	{                                                                                          \
		(size), ONE_EACH(size) ? 0 : (0x80000000u + (size) / 16 - 1) / ((size) / 16),      \
			SLABS(size) * 65536 / (size), SLABS(size), CAPACITY(size)                  \
	}
#define SIXTEENTHS(from)                                                                           \
	CLASS((from) + 16), CLASS((from) + 32), CLASS((from) + 48), CLASS((from) + 64),            \
		CLASS((from) + 80), CLASS((from) + 96), CLASS((from) + 112), CLASS((from) + 128)
#define EIGHTHS(from)                                                                              \
	CLASS((from) / 8 * 9), CLASS((from) / 8 * 10), CLASS((from) / 8 * 11),                     \
		CLASS((from) / 8 * 12), CLASS((from) / 8 * 13), CLASS((from) / 8 * 14),            \
		CLASS((from) / 8 * 15), CLASS((from) / 8 * 16)
#define QUARTERS(from)                                                                             \
	CLASS((from) / 4 * 5), CLASS((from) / 4 * 6), CLASS((from) / 4 * 7), CLASS((from) / 4 * 8)

/* clang-format off */
const struct hk_class_info hk_class_infos[HK_CLASSES] = {
	{ 0, 0, 0, 0, 0 },
	SIXTEENTHS(0), SIXTEENTHS(128), SIXTEENTHS(256), SIXTEENTHS(384),
	SIXTEENTHS(512), SIXTEENTHS(640), SIXTEENTHS(768), SIXTEENTHS(896),
	EIGHTHS(1024), EIGHTHS(2048), EIGHTHS(4096), EIGHTHS(8192), EIGHTHS(16384),
	QUARTERS(32768), QUARTERS(65536), QUARTERS(131072), QUARTERS(262144),
	EIGHTHS(524288),
};
/* clang-format on */

size_t hk_good_size(size_t size)
{
	if (size > PTRDIFF_MAX)
		return 0;
	if (size > HK_CLASS_MAX)
		return (size + HK_SLAB_SIZE - 1) & ~(HK_SLAB_SIZE - 1);
	return hk_class_size(hk_size_class(size ? size : 1));
}
