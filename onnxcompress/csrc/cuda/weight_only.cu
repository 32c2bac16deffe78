#include "cuda/weight_only.hpp"

#include <algorithm>

#include "cuda/weight_only_gemm.hpp"
#include "cuda/weight_only_gemv.hpp"

namespace oc::cuda {
namespace {

constexpr int kMostGemvRows = 16;

template <int kBits, int kTiles, int kColumns>
void launch_gemv(const WeightOnlyLayer& layer, const WeightOnlyPlan& plan, void* stream) {
  using Shape = Gemv<kBits, kTiles, kColumns>;
  const dim3 grid((layer.w.n + Shape::kN - 1) / Shape::kN, plan.splits);
  const size_t shared = Shape::shared_bytes(layer.m, plan.split_steps);
  OC_LAUNCH((gemv_kernel<kBits, kTiles, kColumns>), grid, dim3(kThreads), shared, stream, layer, plan.split_steps);
}

template <int kBits, int kTiles>
void launch_gemm(const WeightOnlyLayer& layer, const WeightOnlyPlan& plan, void* stream) {
  using Stage = GemmStage<kBits, kTiles>;
  const dim3 grid((layer.m + Stage::kM - 1) / Stage::kM, (layer.w.n + kGemmN - 1) / kGemmN, plan.splits);
  const size_t shared = kGemmStages * sizeof(Stage);
  OC_LAUNCH((gemm_kernel<kBits, kTiles>), grid, dim3(kThreads), shared, stream, layer, plan.split_steps);
}

template <int kBits>
void launch_bits(const WeightOnlyLayer& layer, const WeightOnlyPlan& plan, void* stream) {
  switch (plan.tile_rows) {
    case 2: return launch_gemv<kBits, 1, 1>(layer, plan, stream);
    case 4: return launch_gemv<kBits, 2, 1>(layer, plan, stream);
    case 8: return launch_gemv<kBits, 4, 1>(layer, plan, stream);
    case 16: return launch_gemv<kBits, 8, 2>(layer, plan, stream);
    case 32: return launch_gemm<kBits, 1>(layer, plan, stream);
    case 64: return launch_gemm<kBits, 2>(layer, plan, stream);
    default: return launch_gemm<kBits, 4>(layer, plan, stream);
  }
}

int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

}  // namespace

WeightOnlyPlan plan_weight_only(const WeightOnlyLayer& layer, int multiprocessors) {
  const int steps = ceil_div(layer.w.k, kStepK), m = layer.m;
  WeightOnlyPlan plan;
  int64_t tiles;
  int tile_values, least_steps, most_steps = steps;  // of a split
  if (m <= kMostGemvRows) {
    plan.tile_rows = m <= 2 ? 2 : m <= 4 ? 4 : m <= 8 ? 8 : 16;
    const int warps_n = plan.tile_rows / 2;  // kTiles of the kernel
    tiles = ceil_div(layer.w.n, warps_n * kTileRows);
    tile_values = std::max(kThreads * 2, warps_n * kTileRows * 8 * (plan.tile_rows > 8 ? 2 : 1));
    least_steps = kStages * kWarps / warps_n;  // or filling the rings would be all of the work
    most_steps = std::max(1, (kXBytes / (std::max(m, 1) * static_cast<int>(sizeof(half))) - 32) / kStepK);
  } else {
    // Fewer rows in a block where the larger ones would leave multiprocessors idle.
    const int tiles_n = ceil_div(layer.w.n, kGemmN);
    const bool leaves_idle = static_cast<int64_t>(ceil_div(m, 128)) * tiles_n < multiprocessors;
    plan.tile_rows = m <= 32 ? 32 : m <= 64 || leaves_idle || layer.w.k % 8 != 0 ? 64 : 128;
    tiles = static_cast<int64_t>(ceil_div(m, plan.tile_rows)) * tiles_n;
    tile_values = plan.tile_rows * kGemmN;
    least_steps = 8;
  }
  constexpr int kBlocksEach = 2;  // of a multiprocessor
  const int64_t wanted = std::max<int64_t>(tiles, 1) < kBlocksEach * multiprocessors
                             ? kBlocksEach * multiprocessors / std::max<int64_t>(tiles, 1) : 1;
  const int step_share = ceil_div(steps, wanted);
  plan.split_steps = std::min({std::max(step_share, least_steps), most_steps, steps});
  plan.splits = ceil_div(steps, plan.split_steps);
  if (plan.splits > 1) plan.partial = tiles * plan.splits * tile_values, plan.arrived = tiles;
  return plan;
}

void weight_only(const WeightOnlyLayer& layer, const WeightOnlyPlan& plan, void* stream) {
  if (layer.m <= 0 || layer.w.n <= 0) return;
  if (layer.w.bits == 4) {
    launch_bits<4>(layer, plan, stream);
  } else {
    launch_bits<8>(layer, plan, stream);
  }
}

}  // namespace oc::cuda
