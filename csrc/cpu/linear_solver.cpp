// The linear solver on the CPU, compiled once per instruction set.
#include "../linear/krylov.h"
#include "engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {

class Engine final : public LinearEngine {
 public:
  void set_matrix(const StencilData& matrix, bool keep) override {
    const bool same = matrix.nz == matrix_.nz && matrix.ny == matrix_.ny && matrix.nx == matrix_.nx &&
                      matrix.symmetric == matrix_.symmetric;
    if (!keep || !same) state_[0] = state_[1] = State::none;
    matrix_ = matrix;
  }

  void prepare(bool transposed, int threads) override {
    const int which = transposed && !matrix_.symmetric ? 1 : 0;
    if (state_[which] != State::none) return;
    const Form form = matrix_.symmetric ? Form::symmetric : which ? Form::transposed : Form::plain;
    state_[which] = hierarchy_[which].build(matrix_, form, threads) ? State::ready : State::failed;
  }

  LinearReport solve(const double* b, double* x, const LinearOptions& options) override {
    const int which = options.transposed && !matrix_.symmetric ? 1 : 0;
    prepare(options.transposed, options.threads);
    if (state_[which] == State::failed) {
      for (int64_t i = 0; i < matrix_.nz * matrix_.ny * matrix_.nx; ++i) x[i] = NAN;
      return {0, NAN, LinearStatus::pivot};
    }
    return Krylov(matrix_, hierarchy_[which], work_, options).solve(b, x);
  }

  int levels(bool transposed) const override {
    const int which = transposed && !matrix_.symmetric ? 1 : 0;
    return state_[which] == State::ready ? hierarchy_[which].levels() : 0;
  }

  int64_t bytes() const override { return hierarchy_[0].bytes() + hierarchy_[1].bytes() + work_.bytes(); }

 private:
  enum class State { none, ready, failed };
  StencilData matrix_;
  Hierarchy hierarchy_[2];  // of the matrix and of its transpose, each built when it is first needed
  State state_[2] = {State::none, State::none};
  Workspace work_;
};

LinearEngine* linear_engine() { return new Engine; }

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
