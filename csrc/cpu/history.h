// What a CPU run keeps of its accepted steps, for whatever walks them again: one growing list of rows per pack.
//
// Row r of a pack holds for each lane what belongs to its r-th accepted step (row 0: the initial state), the step that
// led there and its output interval. Lanes count their own steps, so a row mixes times but never columns. The columns'
// flow (heads), the water of its steps, their solutes and the cotangents of all these share the rows: row r of one is
// the step of row r of the others.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace dgpde {

struct FreeDeleter {
  void operator()(void* block) const { std::free(block); }
};
using Block = std::unique_ptr<char, FreeDeleter>;

// Memory of the rows of all packs, in pieces that double up to kMost. A sweep backwards reads the rows of a run once
// from main memory, where the look-up of small pages costs as much as the reading: from kPage on pieces have large ones.
class RowMemory {
 public:
  char* take(size_t bytes) {
    const std::lock_guard<std::mutex> guard(lock);
    if (left < bytes) {
      size_t piece = held < kMost ? held : kMost;
      if (piece < bytes) piece = bytes;
      const size_t page = piece < kPage ? 64 : kPage;
      piece = (piece + page - 1) / page * page;
      pieces.emplace_back(static_cast<char*>(std::aligned_alloc(page, piece)));
      if (!pieces.back()) throw std::bad_alloc();
#ifdef __linux__
      if (page == kPage) madvise(pieces.back().get(), piece, MADV_HUGEPAGE);  // a hint: refused, nothing is lost
#endif
      next = pieces.back().get(), left = piece, held += piece;
    }
    char* at = next;
    next += bytes, left -= bytes;
    return at;
  }

 private:
  static constexpr size_t kPage = size_t(2) << 20, kMost = size_t(32) << 20;
  std::mutex lock;
  std::vector<Block> pieces;
  char* next = nullptr;
  size_t left = 0, held = 0;
};

// Memory of one pack; what the bytes mean is known to RowView.
struct PackRows {
  static constexpr int64_t kRowsPerBlock = 8;
  RowMemory* memory = nullptr;
  std::vector<char*> blocks;
  std::vector<int64_t> counts;  // rows of each lane
  std::vector<char> complete;   // whether the lane's last row ends its interval

  char* row(int64_t r, int64_t bytes) {
    while (r >= static_cast<int64_t>(blocks.size()) * kRowsPerBlock)
      blocks.push_back(memory->take(static_cast<size_t>(bytes * kRowsPerBlock)));
    return blocks[static_cast<size_t>(r / kRowsPerBlock)] + (r % kRowsPerBlock) * bytes;
  }
};

struct RowStore {
  int64_t n = 0, nz = 0, values = 0;  // values: packs of numbers in a row
  int width = 0, real_bytes = 0;
  std::vector<PackRows> packs;
  std::unique_ptr<RowMemory> memory;

  void allocate(int64_t columns, int64_t cells, int lanes, int bytes, int64_t values_in_row) {
    n = columns, nz = cells, values = values_in_row, width = lanes, real_bytes = bytes;
    packs.clear();
    memory = std::make_unique<RowMemory>();
    packs.resize(static_cast<size_t>((columns + lanes - 1) / lanes));
    for (PackRows& pack : packs) {
      pack.memory = memory.get();
      pack.counts.assign(static_cast<size_t>(lanes), 0);
      pack.complete.assign(static_cast<size_t>(lanes), 0);
    }
  }
  // values [..][W], dt [W] (double), interval [W] (int64), rounded up to whole cache lines
  int64_t row_bytes() const {
    const int64_t bytes = values * width * real_bytes + 2 * width * 8;
    return (bytes + 63) / 64 * 64;
  }
  // Accepted steps [s] of one column in one output interval.
  void steps_of(int64_t column, int64_t interval, std::vector<double>& steps) {
    PackRows& pack = packs[static_cast<size_t>(column / width)];
    const int64_t lane = column % width, state = values * width * real_bytes;
    for (int64_t r = 1; r < pack.counts[static_cast<size_t>(lane)]; ++r) {
      const char* row = pack.row(r, row_bytes()) + state;
      if (reinterpret_cast<const int64_t*>(row + width * 8)[lane] == interval)
        steps.push_back(reinterpret_cast<const double*>(row)[lane]);
    }
  }
  int64_t bytes() const {
    int64_t sum = 0;
    for (const PackRows& pack : packs) sum += static_cast<int64_t>(pack.blocks.size()) * PackRows::kRowsPerBlock;
    return sum * row_bytes();
  }
};

// psi [nz], ponding
struct ColumnHistory : RowStore {
  void allocate(int64_t columns, int64_t cells, int lanes, int bytes) {
    RowStore::allocate(columns, cells, lanes, bytes, cells + 1);
  }
};

}  // namespace dgpde
