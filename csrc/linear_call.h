// What the linear solver offers to its bindings: one object for each instruction set behind one interface.
#pragma once

#include <cstdint>

namespace dgpde {

// A 7-point matrix on (nz, ny, nx), x fastest: coefficients [7, nz, ny, nx], diag, below, above, south, north, west, east,
// each the coefficient of that neighbour in the row of the cell; zero where there is no neighbour.
struct StencilData {
  const double* coefficients = nullptr;
  int64_t nz = 0, ny = 0, nx = 0;
  bool symmetric = false;
};

struct LinearOptions {
  double tolerance = 1e-8;  // of ||b - A x|| / ||b||
  int64_t max_iterations = 200;
  bool transposed = false;
  bool guess = false;  // x holds a first guess
  // Of a symmetric matrix: begin from a combination of the answers of earlier such solves, and keep this one's. A guess
  // serves where there are none.
  bool recall = false;
  int gamma = 1;  // visits of each coarser level: 1 V cycle, 2 W cycle
  int threads = 1;
};

enum class LinearStatus : int { converged, iterations, breakdown, pivot, not_finite, stagnated };

struct LinearReport {
  int64_t iterations = 0;  // applications of the preconditioner
  double residual = 0;     // ||b - A x|| / ||b||, from x
  LinearStatus status = LinearStatus::converged;
};

class LinearEngine {
 public:
  virtual ~LinearEngine() = default;
  // The coefficients must outlive the solves. keep: go on with the hierarchies of the matrix before, if the shape is
  // the same.
  virtual void set_matrix(const StencilData& matrix, bool keep) = 0;
  // Builds what a solve needs, so that its cost can be told from that of the solve.
  virtual void prepare(bool transposed, int threads) = 0;
  virtual LinearReport solve(const double* b, double* x, const LinearOptions& options) = 0;
  virtual int levels(bool transposed) const = 0;
  virtual bool in_double() const = 0;  // whether the preconditioner has gone over to float64
  // To be called before the first matrix: precondition in float64 from the start, as an engine does that was in_double.
  virtual void begin_in_double() = 0;
  virtual int64_t bytes() const = 0;
};

}  // namespace dgpde
