// The linear solver on the CPU, compiled once per instruction set.
#include "../linear/krylov.h"
#include "engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {

// Hierarchy and work vectors in one number type; the hierarchies of A and of its transpose are built when they are first needed.
template <class V>
class Preconditioned {
 public:
  void forget() { state_[0] = state_[1] = State::none; }
  void forget_answers() { work_.past.forget(); }

  bool prepare(const StencilData& matrix, bool transposed, int threads) {
    const int which = transposed && !matrix.symmetric ? 1 : 0;
    const Form form = matrix.symmetric ? Form::symmetric : which ? Form::transposed : Form::plain;
    if (state_[which] == State::none)
      state_[which] = hierarchy_[which].build(matrix, form, threads) ? State::ready : State::failed;
    return state_[which] == State::ready;
  }

  LinearReport solve(const StencilData& matrix, const double* b, double* x, const LinearOptions& options) {
    if (!prepare(matrix, options.transposed, options.threads)) {
      for (int64_t i = 0; i < matrix.nz * matrix.ny * matrix.nx; ++i) x[i] = NAN;
      return {0, NAN, LinearStatus::pivot};
    }
    return Krylov<V>(matrix, hierarchy_[options.transposed && !matrix.symmetric ? 1 : 0], work_, options).solve(b, x);
  }

  double contrast(int which) const { return hierarchy_[which].contrast(); }
  int levels(int which) const { return state_[which] == State::ready ? hierarchy_[which].levels() : 0; }
  int64_t bytes() const { return hierarchy_[0].bytes() + hierarchy_[1].bytes() + work_.bytes(); }

 private:
  enum class State { none, ready, failed };
  Hierarchy<V> hierarchy_[2];
  State state_[2] = {State::none, State::none};
  Workspace<RealOf<V>> work_;
};

// Preconditions in float32, which is half the memory traffic, unless weak couplings decide the answer and strong ones
// drown them in float32 round-off: above a contrast of kContrast, or when a solve has not converged in kTrial iterations. Then the
// preconditioner goes over to float64, and stays there as long as the shape of the matrix does.
class Engine final : public LinearEngine {
 public:
  void set_matrix(const StencilData& matrix, bool keep) override {
    const bool same = matrix.nz == matrix_.nz && matrix.ny == matrix_.ny && matrix.nx == matrix_.nx &&
                      matrix.symmetric == matrix_.symmetric;
    if (!same) {
      single_ = std::make_unique<Preconditioned<PackF>>();
      double_ = nullptr;
      if (begin_in_double_) go_double();
      begin_in_double_ = false;
    }
    if (!keep || !same) {
      if (single_) single_->forget();
      if (double_) double_->forget();
    }
    if (single_) single_->forget_answers();
    if (double_) double_->forget_answers();
    matrix_ = matrix;
  }

  void prepare(bool transposed, int threads) override {
    if (single_ &&
        (!single_->prepare(matrix_, transposed, threads) || single_->contrast(which(transposed)) < kContrast))
      return;
    go_double();
    double_->prepare(matrix_, transposed, threads);
  }

  LinearReport solve(const double* b, double* x, const LinearOptions& options) override {
    prepare(options.transposed, options.threads);
    if (double_) return double_->solve(matrix_, b, x, options);
    LinearOptions trial = options;
    trial.max_iterations = std::min(options.max_iterations, kTrial);
    const LinearReport first = single_->solve(matrix_, b, x, trial);
    const bool overflow = first.status == LinearStatus::not_finite && first.iterations > 0;
    if (first.status == LinearStatus::converged || first.status == LinearStatus::pivot ||
        (first.status == LinearStatus::not_finite && !overflow) || first.iterations >= options.max_iterations)
      return first;
    go_double();
    LinearOptions rest = options;
    rest.max_iterations -= first.iterations;
    rest.guess = !overflow;
    LinearReport report = double_->solve(matrix_, b, x, rest);
    report.iterations += first.iterations;
    return report;
  }

  int levels(bool transposed) const override {
    return double_ ? double_->levels(which(transposed)) : single_->levels(which(transposed));
  }

  bool in_double() const override { return begin_in_double_ || double_; }
  void begin_in_double() override { begin_in_double_ = true; }
  int64_t bytes() const override { return (single_ ? single_->bytes() : 0) + (double_ ? double_->bytes() : 0); }

 private:
  int which(bool transposed) const { return transposed && !matrix_.symmetric ? 1 : 0; }
  void go_double() {
    if (!double_) double_ = std::make_unique<Preconditioned<PackD>>();
    single_ = nullptr;
  }

  static constexpr double kContrast = 1e4;
  static constexpr int64_t kTrial = Workspace<float>::kRestart;
  StencilData matrix_;
  bool begin_in_double_ = false;
  std::unique_ptr<Preconditioned<PackF>> single_ = std::make_unique<Preconditioned<PackF>>();
  std::unique_ptr<Preconditioned<PackD>> double_;  // of these two, the one that is there is the one in use
};

LinearEngine* linear_engine() { return new Engine; }

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
