#include "driver.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <string>

namespace {

// The newest CUDA that the driver runs; 0: there is none. The runtime's own question starts the driver,
// after which a process may not fork any more.
int driver_version() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return 0;
  int version = 0;
  const auto ask = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"));
  return ask && ask(&version) == 0 ? version : 0;
}

}  // namespace

int fastact_cuda_version() { return CUDART_VERSION; }

const char* fastact_cuda_architectures() { return FASTACT_CUDA_ARCHITECTURES; }

const char* fastact_cuda_problem() {
  static const std::string problem = [] {
    const auto version = [](int v) {
      return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    };
    const int driver = driver_version();
    if (driver == 0) return std::string("no CUDA driver was found");
    // Within one major version, older drivers run newer code.
    if (driver / 1000 < CUDART_VERSION / 1000)
      return "the driver supports CUDA " + version(driver) + ", and the kernels were built with CUDA " +
             version(CUDART_VERSION) + "; update the driver";
    return std::string();
  }();
  return problem.empty() ? nullptr : problem.c_str();
}
