// The soil relations at many points: packs of cells in SIMD lanes, packs shared out among threads. A cell's
// parameters are prepared once and used for the whole batch of heads; its gradients are summed by the thread that
// owns it.
#include <algorithm>

#include "../math/soil.h"
#include "engine.h"

#define DGPDE_JOIN2(a, b) a##b
#define DGPDE_JOIN(a, b) DGPDE_JOIN2(a, b)
#define DGPDE_ENGINE DGPDE_JOIN(engine_, DGPDE_ISA)

namespace dgpde {
namespace DGPDE_ENGINE {

// A pack of cells; lanes past the last cell repeat it and are never written.
template <class V>
struct CellPack {
  using R = RealOf<V>;
  static constexpr int W = Lane<V>::width;
  int64_t first, cells;

  int64_t cell(int lane) const { return std::min(first + lane, cells - 1); }
  V load(const void* data, int64_t offset, int64_t stride) const {
    const R* base = static_cast<const R*>(data) + offset;
    V x;
    if (stride == 0) return V{} + base[0];
    if (stride == 1 && first + W <= cells) {
      std::memcpy(&x, base + first, sizeof(V));
      return x;
    }
    for (int lane = 0; lane < W; ++lane) x[lane] = base[cell(lane) * stride];
    return x;
  }
  void store(void* data, int64_t offset, const V& x) const {
    if (!data) return;
    R* base = static_cast<R*>(data) + offset;
    if (first + W <= cells) {
      std::memcpy(base + first, &x, sizeof(V));
      return;
    }
    for (int lane = 0; lane < W && first + lane < cells; ++lane) base[first + lane] = x[lane];
  }
};

template <class V>
class SoilRun {
  using R = RealOf<V>;

 public:
  explicit SoilRun(const SoilCall& call)
      : c_(call),
        model_{static_cast<SoilKind>(call.relation), call.variant,
               SoilTable{{call.n_knots, call.x_first, call.x_step, std::exp(call.x_first)}, call.table},
               SoilNetwork{call.weights, call.n_units, call.n_features}},
        tabulated_(model_.kind == SoilKind::tabulated),
        n_raw_(soil_raw_count(model_.kind)),
        reverse_(call.grad_psi || call.grad_raw || call.grad_table || call.grad_weights),
        forward_(call.dot_theta || call.dot_kr),
        partials_(reverse_ || forward_ || call.partial_theta || call.partial_kr) {}

  // weight_sums: of this thread, added to where the gradient of the weights is asked for.
  void operator()(int64_t pack, V* weight_sums) const {
    const CellPack<V> lanes{pack * Lane<V>::width, c_.cells};
    V raw[kMaxRaw] = {}, values[kMaxDerived];
    const Strided<V> derived{values, 1};
    load_raw(lanes, raw);
    soil_prepare<V>(model_, raw, derived);
    if (c_.wet_suction) {
      V h;
      soil_wet_suction<V>(model_, derived, h);
      lanes.store(c_.wet_suction, 0, h);
    }
    if (!c_.psi) return;
    V grad_raw[kMaxRaw] = {};
    for (int64_t b = 0; b < c_.batch; ++b) {
      const int64_t row = b * c_.cells;
      const V psi = lanes.load(c_.psi, row, 1);
      const V grad_theta = c_.grad_theta ? lanes.load(c_.grad_theta, row, 1) : V{};
      const V grad_kr = c_.grad_kr ? lanes.load(c_.grad_kr, row, 1) : V{};
      // a loss of the last output time, say, asks nothing of the others; a psi that is not a number is still passed on
      if (reverse_ && all(mask_and(psi == psi, mask_and(grad_theta == V{}, grad_kr == V{})))) {
        lanes.store(c_.grad_psi, row, V{});
        continue;
      }
      SoilPoint<V> p;
      V dtheta[kMaxRaw] = {}, dkr[kMaxRaw] = {};
      if (partials_)
        soil_partials<V>(model_, derived, psi, p, dtheta, dkr);
      else
        soil_evaluate<V>(model_, derived, psi, p);
      if (tabulated_) dtheta[Tabulated::kKnot] = V{};
      lanes.store(c_.theta, row, p.theta);
      lanes.store(c_.kr, row, p.kr);
      lanes.store(c_.capacity, row, p.capacity);
      lanes.store(c_.dkr, row, p.dkr);
      for (int i = 0; i < n_raw_; ++i) {
        const int64_t offset = (i * c_.batch + b) * c_.cells;
        lanes.store(c_.partial_theta, offset, dtheta[i]);
        lanes.store(c_.partial_kr, offset, dkr[i]);
      }
      if (reverse_) {
        lanes.store(c_.grad_psi, row, grad_theta * p.capacity + grad_kr * p.dkr);
        V grad[kMaxRaw];
        for (int i = 0; i < n_raw_; ++i) grad[i] = grad_theta * dtheta[i] + grad_kr * dkr[i];
        for (int i = 0; i < n_raw_; ++i) grad_raw[i] += grad[i];
        if (c_.grad_table) scatter(lanes, derived, psi, grad);
        if (c_.grad_weights) pull_weights(lanes, derived, psi, p, grad_theta, grad_kr, weight_sums);
      }
      if (forward_) {
        const V dot_psi = c_.dot_psi ? lanes.load(c_.dot_psi, row, 1) : V{};
        V dot_raw[kMaxRaw] = {};
        load_tangents(lanes, derived, psi, dot_raw);
        V dot_theta = p.capacity * dot_psi, dot_kr = p.dkr * dot_psi;
        for (int i = 0; i < n_raw_; ++i) dot_theta += dtheta[i] * dot_raw[i], dot_kr += dkr[i] * dot_raw[i];
        if (c_.dot_weights) {
          V by_weights_theta, by_weights_kr;
          Network::push<V>(model_.network, c_.dot_weights, derived, psi, by_weights_theta, by_weights_kr);
          dot_theta += by_weights_theta, dot_kr += by_weights_kr;
        }
        lanes.store(c_.dot_theta, row, dot_theta);
        lanes.store(c_.dot_kr, row, dot_kr);
      }
    }
    if (c_.grad_raw)
      for (int i = 0; i < n_raw_; ++i) lanes.store(c_.grad_raw, i * c_.cells, grad_raw[i]);
  }

 private:
  void load_raw(const CellPack<V>& lanes, V* raw) const {
    if (tabulated_) {
      for (int lane = 0; lane < Lane<V>::width; ++lane)
        raw[0][lane] = static_cast<R>(c_.classes[lanes.cell(lane) * c_.classes_stride]);
      return;
    }
    for (int i = 0; i < n_raw_; ++i)
      if (c_.raw[i]) raw[i] = lanes.load(c_.raw[i], 0, c_.raw_stride[i]);
  }
  void load_tangents(const CellPack<V>& lanes, const Strided<V>& derived, V psi, V* dot_raw) const {
    if (!tabulated_) {
      for (int i = 0; i < n_raw_; ++i)
        if (c_.dot_raw[i]) dot_raw[i] = lanes.load(c_.dot_raw[i], 0, c_.dot_stride[i]);
    } else if (c_.dot_table) {
      const auto places = Tabulated::places(model_.table, derived, psi);
      for (int lane = 0; lane < Lane<V>::width; ++lane) {
        const R* from = static_cast<const R*>(c_.dot_table) + places.at[lane];
        for (int i = 0; i < n_raw_; ++i) dot_raw[i][lane] = from[i];
      }
    }
  }
  void pull_weights(const CellPack<V>& lanes, const Strided<V>& derived, V psi, const SoilPoint<V>& p, V grad_theta,
                    V grad_kr, V* sums) const {
    for (int lane = 0; lane < Lane<V>::width; ++lane)  // lanes past the last cell repeat it
      if (lanes.first + lane >= c_.cells) grad_theta[lane] = grad_kr[lane] = R(0);
    Network::pull<V>(model_.network, derived, psi, p.capacity, p.dkr, grad_theta, grad_kr,
                     [&](int64_t i, V x) { sums[i] += x; });
  }
  void scatter(const CellPack<V>& lanes, const Strided<V>& derived, V psi, const V* grad) const {
    const auto places = Tabulated::places(model_.table, derived, psi);
    for (int lane = 0; lane < Lane<V>::width && lanes.first + lane < c_.cells; ++lane) {
      R* to = static_cast<R*>(c_.grad_table) + places.at[lane];
      for (int i = 0; i < n_raw_; ++i) to[i] += grad[i][lane];
    }
  }

  const SoilCall& c_;
  SoilModel model_;
  bool tabulated_;
  int n_raw_;
  bool reverse_, forward_, partials_;
};

template <class Real>
void run(const SoilCall& call) {
  using V = typename Pack<Real>::type;
  const SoilRun<V> work(call);
  const int64_t packs = (call.cells + Lane<V>::width - 1) / Lane<V>::width;
  if (call.grad_weights) {  // a fixed number of parts, whatever the number of threads
    const int64_t size = SoilNetwork{call.weights, call.n_units, call.n_features}.size();
#pragma omp parallel for schedule(static) num_threads(std::max(call.threads, 1))
    for (int64_t chunk = 0; chunk < kWeightChunks; ++chunk) {
      V sums[kMaxWeights] = {};
      for (int64_t pack = chunk * packs / kWeightChunks; pack < (chunk + 1) * packs / kWeightChunks; ++pack)
        work(pack, sums);
      Real* to = static_cast<Real*>(call.grad_weights) + chunk * size;
      for (int64_t i = 0; i < size; ++i)
        for (int lane = 0; lane < Lane<V>::width; ++lane) to[i] += sums[i][lane];
    }
    return;
  }
  // All cells add to one table: one thread, so that the sum has the same bits on every run.
  const int threads = call.grad_table ? 1 : static_cast<int>(std::min<int64_t>(std::max(call.threads, 1), packs));
#pragma omp parallel for schedule(static) num_threads(std::max(threads, 1))
  for (int64_t pack = 0; pack < packs; ++pack) work(pack, nullptr);
}

void soil_run(const SoilCall& call) {
  if (call.single)
    run<float>(call);
  else
    run<double>(call);
}

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
