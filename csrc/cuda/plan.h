// How rows are shared out among threads. It follows from the shape alone, and so do all sums.
#pragma once

#include "../cpu/rows.h"

namespace fastact::cuda {

struct Plan {
  int lanes;           // threads at a row: a power of two, up to 32, or a whole block
  int threads;         // of a block
  int rows_per_block;  // at a time
  int64_t blocks;

  Plan(const cpu::Rows& rows, int64_t itemsize) {
    const int64_t chunks = rows.classes * itemsize / 16;
    lanes = 1;
    if (rows.class_stride == 1) {
      // Two chunks or more for each lane of a warp, four for each thread of a block.
      while (lanes < 32 && lanes * 2 < chunks) lanes *= 2;
      if (chunks >= 512)
        for (lanes = 128; lanes < most_threads(itemsize) && lanes * 8 < chunks;) lanes *= 2;
    }
    threads = lanes > 32 ? lanes : 128;
    rows_per_block = threads / lanes;
    const int64_t sets = (rows.count() + rows_per_block - 1) / rows_per_block;
    blocks = sets < most_blocks ? sets : most_blocks;
  }

  // Enough to fill any GPU several times; beyond, blocks take several sets of rows.
  static constexpr int64_t most_blocks = 16384;
  // Double takes twice the registers.
  static constexpr int most_threads(int64_t itemsize) { return itemsize == 8 ? 256 : 512; }
};

}  // namespace fastact::cuda
