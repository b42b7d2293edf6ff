// How rows are shared out among threads. It follows from the shape alone, and so do all sums.
#pragma once

#include "../cpu/rows.h"

// Smaller under emulation, where rows are short and few.
#if !defined(FASTACT_PART_BYTES)
#define FASTACT_PART_BYTES 65536
#define FASTACT_MOST_BLOCKS 16384
#endif

namespace fastact::cuda {

// Rows whose classes are contiguous; those that stay in shared memory between two passes; and rows
// whose classes lie apart, side by side with other rows.
enum class RowKind { contiguous, kept, strided };

struct Plan {
  bool strided;
  int lanes;           // threads at a row: a power of two
  int across;          // threads from one of them to the next; neighbours have other rows
  int threads;         // of a block
  int rows_per_block;  // at a time
  int64_t blocks;      // or clusters

  // Parts are added up by themselves, and then in their order. Of contiguous rows that are gone over
  // twice they may be kept in shared memory, by as many blocks of a cluster: a power of two. Whether
  // one block does it all or each block a part, it comes to the same.
  int parts = 1, part_size;
  int kept;  // bytes of one tensor's part

  // `tensors` of the storage type are gone over twice.
  Plan(const cpu::Rows& rows, int64_t itemsize, int tensors = 0) : strided(rows.class_stride != 1) {
    if (strided)
      share_strided(rows, itemsize);
    else
      share_contiguous(rows, itemsize, tensors);
    rows_per_block = threads / lanes;
    const int64_t sets = (rows.count() + rows_per_block - 1) / rows_per_block;
    blocks = sets < most_blocks ? sets : most_blocks;
  }

  // Shared memory, in bytes: what Team::sum needs; and to keep the parts of so many tensors.
  int for_sums() const { return strided ? (lanes > 1 ? tile_bytes : 0) : lanes > 32 ? sum_bytes : 0; }
  int64_t for_keeping(int tensors) const { return sum_bytes + int64_t(tensors) * kept; }
  bool may_keep() const { return !strided && lanes > 32; }

  // Enough to fill any GPU several times; beyond, blocks take several sets of rows.
  static constexpr int64_t most_blocks = FASTACT_MOST_BLOCKS;
  // Double takes twice the registers.
  static constexpr int most_threads(int64_t itemsize) { return itemsize == 8 ? 256 : 512; }
  // Shared memory of sm_90 has room for three such blocks, its registers for two. More than eight
  // blocks in a cluster are not portable: beyond, parts grow, as long as a block has room.
  static constexpr int64_t part_bytes = FASTACT_PART_BYTES;
  static constexpr int most_parts = 8;
  static constexpr int most_kept = 1 << 24;  // more than any GPU has
  // Twice, for each warp of each part: three numbers.
  static constexpr int sum_bytes = 2 * most_parts * 16 * 3 * 4;
  // Twice, for each row of each warp: 16 warps and rows of 16-bit elements, else half as many numbers.
  static constexpr int tile_bytes = 2 * 16 * 16 * 3 * 4;
  // As many classes as a lane of a strided row adds up before it begins anew: beyond, digits are lost.
  static constexpr int run = 64;

 private:
  // A part of a warp, or a whole block.
  void share_contiguous(const cpu::Rows& rows, int64_t itemsize, int tensors) {
    const int64_t chunks = rows.classes * itemsize / 16;
    lanes = across = 1;
    // Two chunks or more for each lane of a warp, four for each thread of a block.
    while (lanes < 32 && lanes * 2 < chunks) lanes *= 2;
    if (chunks >= 512)
      for (lanes = 128; lanes < most_threads(itemsize) && lanes * 8 < chunks;) lanes *= 2;
    threads = lanes > 32 ? lanes : 128;

    if (lanes > 32)
      while (parts < most_parts && tensors * rows.classes * itemsize > parts * part_bytes) parts *= 2;
    const int64_t in_part = (rows.classes * itemsize + parts * 16 - 1) / (parts * 16);  // chunks
    part_size = int(in_part * 16 / itemsize);
    kept = int(in_part < most_kept / 16 ? in_part * 16 : most_kept);
  }

  // A block is a tile: rows that lie side by side, a sector of 32 bytes or half of those that there
  // are, times lanes with 16 classes or more each. The number of rows does not matter, only that of
  // those in one set, or the sums of a row would hang on the size of its batch.
  void share_strided(const cpu::Rows& rows, int64_t itemsize) {
    lanes = across = 1;
    if (rows.classes >= 64) {
      while (across * itemsize < 32 && across * 2 < rows.inner) across *= 2;
      for (lanes = 8; lanes * across < most_threads(itemsize) && lanes * 32 <= rows.classes;)
        lanes *= 2;
    }
    while (lanes * across < 128) across *= 2;
    threads = lanes * across;
    part_size = lanes * run;
    parts = int((rows.classes + part_size - 1) / part_size);
    kept = 0;
  }
};

}  // namespace fastact::cuda
