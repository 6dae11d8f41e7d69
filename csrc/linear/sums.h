// Sums over the rows of a field, made in fixed pieces and added in fixed order, so that they do not depend on the number of
// threads.
#pragma once

#include <algorithm>

#include "memory.h"

namespace dgpde {
inline namespace DGPDE_ISA {

struct Sums {
  double a = 0, b = 0;
};

constexpr int64_t kBlock = 4096;  // cells of a piece, about

// work(first cell, cells) over `count` rows of nx cells, in blocks; the sums of what it returns. `pieces` is scratch.
template <class Work>
Sums sum_rows(Buffer<Sums>& pieces, int64_t count, int64_t nx, int threads, const Work& work) {
  const int64_t step = std::max<int64_t>(1, kBlock / nx), items = (count + step - 1) / step;
  if (pieces.size() < items) pieces.resize(items);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && items > 3)
  for (int64_t item = 0; item < items; ++item) {
    Sums sum;
    for (int64_t row = item * step; row < count && row < (item + 1) * step; ++row) {
      const Sums more = work(row * nx, nx);
      sum.a += more.a, sum.b += more.b;
    }
    pieces[item] = sum;
  }
  Sums sum;
  for (int64_t i = 0; i < items; ++i) sum.a += pieces[i].a, sum.b += pieces[i].b;
  return sum;
}

}  // namespace DGPDE_ISA
}  // namespace dgpde
