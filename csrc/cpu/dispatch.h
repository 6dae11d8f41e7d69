// Run-time choice of the instruction set.
#pragma once

#include <string>

#include "column_transport_engine.h"
#include "engine.h"
#include "flow_engine.h"
#include "transport_engine.h"

namespace dgpde {

// "avx512", "avx2" or "generic": the best that this machine and this build have, or what set_instruction_set chose.
std::string instruction_set();
// Throws std::invalid_argument when the machine or the build lacks it. "auto" goes back to the best.
void set_instruction_set(const std::string& name);

// Memory of a run, for plan().
struct MemoryNeed {
  int64_t history_row, rows_per_block, work, replay_work;
  int64_t lanes;  // columns whose histories share their rows
};
MemoryNeed column_memory(int64_t n, int64_t nz, int64_t real_bytes, bool cuda, int threads);

void column_forward(const ColumnProblem& p, const ColumnOutput& out, ColumnHistory* history, bool single,
                    int threads);
void soil_run(const SoilCall& call);
void flow_assemble(const FlowCall& call);
void flow_reverse(const FlowCall& call);
void flow_forward(const FlowCall& call);
void flow_load(const FlowCall& call);
void flow_faces(const FlowCall& call);
void flow_side(const SideCall& call);
LinearEngine* linear_engine();  // new; it stays with the instruction set it was made for
void column_adjoint(const ColumnProblem& p, const ColumnCotangents& io, ColumnHistory& history, bool single,
                    int threads);
void transport_forward(const TransportProblem& p, const TransportWater& water, const TransportOutput& out,
                       TransportStore* kept, int threads);
void transport_adjoint(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
                       const TransportCotangents& io, int threads);
void transport_tangent(const TransportProblem& p, const TransportWater& water, TransportStore& kept,
                       const TransportTangents& io, int threads);
void water_arrays(const TransportWater& water, const WaterArrays& a, bool moves, int threads);
void water_cotangents(const TransportWater& water, const WaterArrays& a, int threads);
TransportEngine* transport_engine();  // likewise
void transport_disperse(const DispersionCall& call);
void transport_disperse_reverse(const DispersionCall& call);
void column_tangent(const ColumnProblem& p, const ColumnTangents& io, ColumnHistory& history, bool single,
                    int threads);

}  // namespace dgpde
