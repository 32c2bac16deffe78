#include "cuda/concat.hpp"

#include <algorithm>

#include "cuda/table_bytes.hpp"

namespace oc::cuda {

namespace {

constexpr int kThreads = 256, kImages = 16;  // images of a launch

struct Job {
  PlacedImage image;
  int64_t first_channel;
  int64_t pieces;  // of the result, `together` bytes each
  int together;
};

struct Jobs {
  Job job[kImages];
  Placement to;
  int64_t channels;
};

template <int kCount>
__device__ __forceinline__ void place_piece(const Job& job, const Placement& to, int64_t channels, int64_t piece,
                                            const ByteTable& table) {
  const PlacedImage& image = job.image;
  const int64_t pieces = image.channels / kCount, pixel = piece / pieces, channel = (piece - pixel * pieces) * kCount;
  const int64_t row = pixel / to.width, column = pixel - row * to.width;
  const int64_t from = row / image.down * (to.width / image.across) + column / image.across;
  Bytes<kCount> bytes = load_bytes<kCount>(image.x + from * image.channels + channel);
  if (image.table) bytes = look_up(table, bytes);
  store_bytes(to.y + pixel * channels + job.first_channel + channel, bytes);
}

// Threads in the order of the result, of which one image's channels are whole pieces.
__global__ void __launch_bounds__(kThreads) place_kernel(const __grid_constant__ Jobs jobs) {
  __shared__ ByteTable table;
  const Job& job = jobs.job[blockIdx.y];
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  load_table(table, job.image.table);
  __syncthreads();
  if (piece >= job.pieces) return;
  if (job.together == 16) place_piece<16>(job, jobs.to, jobs.channels, piece, table);
  else if (job.together == 4) place_piece<4>(job, jobs.to, jobs.channels, piece, table);
  else place_piece<1>(job, jobs.to, jobs.channels, piece, table);
}

Job job_of(const PlacedImage& image, int64_t first_channel, const Placement& to, int64_t channels) {
  const auto fits = [&](int64_t bytes) {
    return image.channels % bytes == 0 && first_channel % bytes == 0 && channels % bytes == 0;
  };
  const int together = fits(16) ? 16 : fits(4) ? 4 : 1;
  return {image, first_channel, to.rows * to.width * (image.channels / together), together};
}

}  // namespace

void place(const PlacedImage* images, int count, const Placement& placement, void* stream) {
  Jobs jobs{{}, placement, 0};
  for (int i = 0; i < count; ++i) jobs.channels += images[i].channels;
  int64_t first_channel = 0;
  for (int begin = 0; begin < count; begin += kImages) {
    const int together = std::min(kImages, count - begin);
    int64_t most = 0;
    for (int i = 0; i < together; ++i) {
      const PlacedImage& image = images[begin + i];
      jobs.job[i] = job_of(image, first_channel, placement, jobs.channels);
      most = std::max(most, jobs.job[i].pieces);
      first_channel += image.channels;
    }
    if (most == 0) continue;
    OC_LAUNCH(place_kernel, dim3(blocks_of(most, kThreads), static_cast<unsigned>(together)), dim3(kThreads), 0, stream,
              jobs);
  }
}

}  // namespace oc::cuda
