#include "driver.h"

#include <cuda_runtime_api.h>

#include <string>

int fastact_cuda_version() { return CUDART_VERSION; }

const char* fastact_cuda_architectures() { return FASTACT_CUDA_ARCHITECTURES; }

const char* fastact_cuda_problem() {
  static const std::string problem = [] {
    const auto version = [](int v) {
      return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    };
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
      return std::string("no CUDA driver was found");
    // Within one major version, older drivers run newer code.
    if (driver / 1000 < CUDART_VERSION / 1000)
      return "the driver supports CUDA " + version(driver) + ", and the kernels were built with CUDA " +
             version(CUDART_VERSION) + "; update the driver";
    return std::string();
  }();
  return problem.empty() ? nullptr : problem.c_str();
}
