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
#include <new>
#include <vector>

namespace dgpde {

struct FreeDeleter {
  void operator()(void* block) const { std::free(block); }
};
using Block = std::unique_ptr<char, FreeDeleter>;

// Memory of one pack; what the bytes mean is known to RowView.
struct PackRows {
  static constexpr int64_t kRowsPerBlock = 8;
  std::vector<Block> blocks;
  std::vector<int64_t> counts;  // rows of each lane
  std::vector<char> complete;   // whether the lane's last row ends its interval

  char* row(int64_t r, int64_t bytes) {
    while (r >= static_cast<int64_t>(blocks.size()) * kRowsPerBlock) {
      void* block = std::aligned_alloc(64, static_cast<size_t>(bytes * kRowsPerBlock));
      if (!block) throw std::bad_alloc();
      blocks.emplace_back(static_cast<char*>(block));
    }
    return blocks[static_cast<size_t>(r / kRowsPerBlock)].get() + (r % kRowsPerBlock) * bytes;
  }
};

struct RowStore {
  int64_t n = 0, nz = 0, values = 0;  // values: packs of numbers in a row
  int width = 0, real_bytes = 0;
  std::vector<PackRows> packs;

  void allocate(int64_t columns, int64_t cells, int lanes, int bytes, int64_t values_in_row) {
    n = columns, nz = cells, values = values_in_row, width = lanes, real_bytes = bytes;
    packs.clear();
    packs.resize(static_cast<size_t>((columns + lanes - 1) / lanes));
    for (PackRows& pack : packs) {
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
