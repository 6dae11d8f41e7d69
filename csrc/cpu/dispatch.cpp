#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "../cuda/column_run.h"
#include "../math/column_forward.h"
#include "../math/column_replay.h"

namespace dgpde {
namespace {

enum class Isa : int { generic, avx2, avx512 };

bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512)
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
#endif
  return isa == Isa::generic;
}

Isa best() { return supported(Isa::avx512) ? Isa::avx512 : supported(Isa::avx2) ? Isa::avx2 : Isa::generic; }

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{best()};
  return isa;
}

}  // namespace

std::string instruction_set() {
  switch (chosen().load()) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "generic";
  }
}

void set_instruction_set(const std::string& name) {
  Isa isa;
  if (name == "auto")
    isa = best();
  else if (name == "generic")
    isa = Isa::generic;
  else if (name == "avx2")
    isa = Isa::avx2;
  else if (name == "avx512")
    isa = Isa::avx512;
  else
    throw std::invalid_argument("name: must be auto, generic, avx2 or avx512, got " + name);
  if (!supported(isa)) throw std::invalid_argument("name: this machine has no " + name);
  chosen() = isa;
}

MemoryNeed column_memory(int64_t n, int64_t nz, int64_t real_bytes, bool cuda, int threads) {
  // the larger of the forward and the backward scratch, in lanes
  const int64_t forward = Cells<double>::size(nz), replay = ReplayCells<double>::size(nz);
  const int64_t cells = forward > replay ? forward : replay;
  if (cuda) {
    const ThreadMemory need = thread_memory(nz, real_bytes == 4);
    const int64_t groups = (n + kGroup - 1) / kGroup, window = groups * kGroup < kWindow ? groups : kWindow / kGroup;
    return {groups * need.row, kRowsPerBlock, window * (need.forward_scratch + kGroup * need.rest),
            window * need.replay_scratch, kGroup};
  }
  const int64_t bytes = chosen().load() == Isa::avx512 ? 64 : chosen().load() == Isa::avx2 ? 32 : 16;
  const int64_t lanes = bytes / real_bytes;
  ColumnHistory history;
  history.allocate(n, nz, static_cast<int>(lanes), static_cast<int>(real_bytes));
  return {static_cast<int64_t>(history.packs.size()) * history.row_bytes(), PackRows::kRowsPerBlock,
          threads * cells * bytes, threads * cells * bytes, lanes};
}

#if defined(__x86_64__)
#define DGPDE_DISPATCH(call)       \
  switch (chosen().load()) {       \
    case Isa::avx512:              \
      return engine_avx512::call;  \
    case Isa::avx2:                \
      return engine_avx2::call;    \
    default:                       \
      return engine_generic::call; \
  }
#else
#define DGPDE_DISPATCH(call) return engine_generic::call;
#endif

LinearEngine* linear_engine() { DGPDE_DISPATCH(linear_engine()); }
TransportEngine* transport_engine() { DGPDE_DISPATCH(transport_engine()); }
void transport_disperse(const DispersionCall& call) { DGPDE_DISPATCH(transport_disperse(call)) }
void transport_disperse_reverse(const DispersionCall& call) { DGPDE_DISPATCH(transport_disperse_reverse(call)) }

void column_forward(const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, bool single,
                    int threads) {
  DGPDE_DISPATCH(column_forward(p, out, history, single, threads))
}

void soil_run(const SoilCall& call) { DGPDE_DISPATCH(soil_run(call)) }

void flow_assemble(const FlowCall& call) { DGPDE_DISPATCH(flow_assemble(call)) }
void flow_reverse(const FlowCall& call) { DGPDE_DISPATCH(flow_reverse(call)) }
void flow_forward(const FlowCall& call) { DGPDE_DISPATCH(flow_forward(call)) }
void flow_load(const FlowCall& call) { DGPDE_DISPATCH(flow_load(call)) }
void flow_faces(const FlowCall& call) { DGPDE_DISPATCH(flow_faces(call)) }
void flow_side(const SideCall& call) { DGPDE_DISPATCH(flow_side(call)) }

void column_adjoint(const ColumnProblem& p, const ColumnCotangents& io, ColumnHistory& history, bool single,
                    int threads) {
  DGPDE_DISPATCH(column_adjoint(p, io, history, single, threads))
}

void transport_forward(const TransportProblem& p, const TransportWater& water, const TransportOutput& out,
                       TransportStore* kept, int threads) {
  DGPDE_DISPATCH(transport_forward(p, water, out, kept, threads))
}
void transport_adjoint(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
                       const TransportCotangents& io, int threads) {
  DGPDE_DISPATCH(transport_adjoint(p, water, kept, io, threads))
}
void transport_tangent(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
                       const TransportTangents& io, int threads) {
  DGPDE_DISPATCH(transport_tangent(p, water, kept, io, threads))
}

void water_arrays(const TransportWater& water, const WaterArrays& a, bool moves, int threads) {
  DGPDE_DISPATCH(water_arrays(water, a, moves, threads))
}
void water_cotangents(const TransportWater& water, const WaterArrays& a, int threads) {
  DGPDE_DISPATCH(water_cotangents(water, a, threads))
}

void column_tangent(const ColumnProblem& p, const ColumnTangents& io, ColumnHistory& history, bool single,
                    int threads) {
  DGPDE_DISPATCH(column_tangent(p, io, history, single, threads))
}

}  // namespace dgpde
