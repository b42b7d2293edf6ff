#include "keep.h"

#include <atomic>
#include <map>
#include <mutex>
#include <tuple>

namespace fastact::cuda {
namespace {

std::atomic<bool> wanted = true;
std::atomic<long long> kept = 0;

// What a block may have.
int most_shared(int device) {
  int most = 0;
  (void)cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return most;
}

// The most shared memory that a launch may ask of a kernel on a device, in clusters of that size; 0:
// none, -1: the device could not be asked. What the kernel has declared counts towards its limit.
int64_t room_of(const void* kernel, int device, const Shape& shape) {
  cudaFuncAttributes of{};
  if (cudaFuncGetAttributes(&of, kernel) != cudaSuccess) return -1;
  const int room = most_shared(device) - int(of.sharedSizeBytes);
  // Of the code, not the device, which may have translated code for an older one (cluster.h).
  if (shape.cluster > 1 && of.ptxVersion < 90) return 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, room) != cudaSuccess)
    return -1;
  if (shape.cluster == 1) return room;
  // A part of a GPU may have too few multiprocessors side by side.
  Shape largest = shape;
  largest.shared_bytes = room;
  const Launch launch(largest, nullptr);
  int clusters = 0;
  if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &launch.config) != cudaSuccess) return -1;
  return clusters > 0 ? room : 0;
}

}  // namespace

bool may_keep(const void* kernel, const Shape& shape) {
  static std::mutex mutex;
  static std::map<std::tuple<const void*, int, int>, int64_t> rooms;
  int device = 0;
  if (!wanted || cudaGetDevice(&device) != cudaSuccess) return false;
  const std::lock_guard lock(mutex);
  const auto [found, is_new] = rooms.try_emplace({kernel, device, shape.cluster}, 0);
  if (is_new) {
    const int64_t room = room_of(kernel, device, shape);
    if (room < 0) {              // for want of memory, it may be: asked again the next time
      (void)cudaGetLastError();  // no failure of a launch
      rooms.erase(found);
      return false;
    }
    found->second = room;
  }
  const bool may = shape.shared_bytes <= found->second;
  kept += may;
  return may;
}

}  // namespace fastact::cuda

void fastact_cuda_keep_rows(bool keep) { fastact::cuda::wanted = keep; }

long long fastact_cuda_rows_kept() { return fastact::cuda::kept; }
