// One evaluation of a soil relation at many points, as the bindings hand it to the CPU kernel.
#pragma once

#include <cstdint>

namespace dgpde {

// Parts of the cells whose gradients of the weights are summed apart.
constexpr int kWeightChunks = 64;

// psi and everything of its shape are [batch, cells], contiguous. Parameters and their tangents are [cells] with a
// stride in elements; 0 repeats one value. All numbers are float when `single`, else double. What is null is not
// computed.
struct SoilCall {
  int32_t relation = 0, variant = 0;
  bool single = false;
  int threads = 1;
  int64_t batch = 1, cells = 0;
  const void* psi = nullptr;  // m
  const void* raw[8] = {};
  int64_t raw_stride[8] = {};

  // tabulated soils
  const void* table = nullptr;       // [n_classes, n_knots, 4]
  const int32_t* classes = nullptr;  // [cells], stride as for parameters
  int64_t classes_stride = 0, n_classes = 0, n_knots = 0;
  double x_first = 0.0, x_step = 1.0;

  // networks
  const void *weights = nullptr, *dot_weights = nullptr;  // [2, units, 3 + features]
  int64_t n_units = 0, n_features = 0;
  void* grad_weights =
      nullptr;  // [kWeightChunks, 2, units, 3 + features], which is added to: their sum is the gradient

  void *theta = nullptr, *kr = nullptr, *capacity = nullptr, *dkr = nullptr;
  void *partial_theta = nullptr, *partial_kr = nullptr;  // [raw, batch, cells]; tabulated: of the 8 numbers in use
  void* wet_suction = nullptr;                           // [cells] m

  // reverse mode: grad_raw [raw, cells]; tabulated: grad_table [n_classes, n_knots, 4], which is added to
  const void *grad_theta = nullptr, *grad_kr = nullptr;
  void *grad_psi = nullptr, *grad_raw = nullptr, *grad_table = nullptr;

  // forward mode: tangents that are null are 0
  const void* dot_psi = nullptr;
  const void* dot_raw[8] = {};
  int64_t dot_stride[8] = {};
  const void* dot_table = nullptr;
  void *dot_theta = nullptr, *dot_kr = nullptr;
};

}  // namespace dgpde
