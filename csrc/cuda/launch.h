// The launch of a kernel, without the syntax that only nvcc knows.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

namespace fastact {

// What a launch is made of beside the kernel and its arguments.
struct Shape {
  dim3 blocks, threads;
  int64_t shared_bytes = 0;
  int cluster = 1;  // blocks in each
};

struct Launch {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute cluster{};

  Launch(const Shape& shape, cudaStream_t stream) {
    config.gridDim = shape.blocks;
    config.blockDim = shape.threads;
    config.dynamicSmemBytes = size_t(shape.shared_bytes);
    config.stream = stream;
    if (shape.cluster == 1) return;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = unsigned(shape.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.attrs = &cluster;
    config.numAttrs = 1;
  }
  Launch(const Launch&) = delete;
};

namespace {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const Shape& shape, cudaStream_t stream,
                   const Arguments&... arguments) {
  const Launch how(shape, stream);
  return cudaLaunchKernelEx(&how.config, kernel, Parameters(arguments)...);
}

}  // namespace
}  // namespace fastact
