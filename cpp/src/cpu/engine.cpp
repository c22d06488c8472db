/// @file
/// The engine, which runs the models' stages (model.cpp). Compiled once for each instruction set, with its name as EXODUS_ISA. It exports
/// one table; everything else has internal linkage.
#include "engine.hpp"
#include "convolution.hpp"
#include "delay.hpp"
#include "pooling.hpp"
#include "product.hpp"

namespace exodus::cpu::EXODUS_ISA {

extern const IsaTable table;
template <class V>
constexpr IsaFunctions<V> all = {
    .forward = forward_row<V>,
    .backward = backward_row<V>,
    .pack_spikes = pack_spikes<V>,
    .weight_gradient = weight_gradient<V>,
    .evaluate = evaluate_range<V>,
    .delay = delay_row<V>,
    .read = read_range<V>,
    .write = write_range<V>,
    .pack = pack_rows<V>,
    .product = product_rows<V>,
    .product_gradient = product_gradient_tile<V>,
    .product_input_gradient = product_input_rows<V>,
    .convolution = convolution_frames<V>,
    .convolution_gradient = convolution_gradient_part<V>,
    .pool = pool_planes<V>,
    .spread = spread_planes<V>,
    .lanes = simd_lanes<V>,
    .product_lanes = product_vectors * simd_lanes<V>,
    .delays_in_blocks = DelaySteps<V>::in_blocks,
};
constinit const IsaTable table = {all<float>, all<double>};

}   // namespace exodus::cpu::EXODUS_ISA
