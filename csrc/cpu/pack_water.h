// The water of one pack of columns: made as rows in memory of one pack, and its derivatives handed on from such rows. For
// translation units that are compiled once per instruction set.
#pragma once

#include "column_transport_engine.h"
#include "packs.h"

namespace dgpde {
namespace DGPDE_ENGINE {

// Numbers of scratch memory that the three ask for.
template <class V>
int64_t water_scratch(const TransportWater& water, int64_t nz);
// Chunks of packs that share their sums (packs.h).
int64_t water_chunks(const TransportWater& water, int64_t n);

// Each is there for packs of double and of float, as the water's numbers are.
template <class V>
void load_water(const TransportWater& water, int64_t pack, WaterStore& rows, V* scratch);
// Tangents of the rows; returns whether there are any.
template <class V>
bool move_water(const TransportWater& water, int64_t pack, WaterStore& moves, V* scratch);
// Makes room for the cotangents of rows, with those of later segments where they are summed; returns whether there are
// such sums.
template <class V>
bool begin_bars(const TransportWater& water, int64_t pack, const WaterStore& rows, WaterStore& bars);
template <class V>
void pull_water(const TransportWater& water, int64_t pack, int64_t chunk, WaterStore& bars, V* scratch);
inline bool wants_bars(const TransportWater& water) { return water.cotangents || water.theta_sum; }

}  // namespace DGPDE_ENGINE
}  // namespace dgpde
