# libfastact_cuda: the GPU kernels, where there is an nvcc.
include(CudaKernels)
include(OldGlibc)

set(FASTACT_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where nvcc is found), ON or OFF")
set(FASTACT_CUDA_ARCHITECTURES 80 86 89 90 100 120 CACHE STRING "The architectures to build for")

# Sets <problem> where CMAKE_CUDA_COMPILER cannot build the kernels, and FASTACT_CUDA_ARCHITECTURES to
# those that it can build for.
function(fastact_ask_nvcc problem)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE said ERROR_QUIET)
  if(NOT said MATCHES "release ([0-9]+\\.[0-9]+)")
    set(${problem} "${CMAKE_CUDA_COMPILER} is no nvcc" PARENT_SCOPE)
    return()
  endif()
  set(version ${CMAKE_MATCH_1})
  if(version VERSION_LESS 12.0)
    set(${problem} "${CMAKE_CUDA_COMPILER} is nvcc ${version}, and C++20 needs 12.0 or newer" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE listed ERROR_QUIET)
  string(REGEX MATCHALL "[0-9]+" listed "${listed}")
  set(known ${FASTACT_CUDA_ARCHITECTURES})
  list(FILTER known INCLUDE REGEX "^[0-9]+$")
  foreach(architecture IN LISTS known)
    if(NOT architecture IN_LIST listed)
      list(REMOVE_ITEM known ${architecture})
    endif()
  endforeach()
  if(NOT known STREQUAL "${FASTACT_CUDA_ARCHITECTURES}")
    set(left_out ${FASTACT_CUDA_ARCHITECTURES})
    list(REMOVE_ITEM left_out ${known})
    list(JOIN left_out ", " left_out)
    set(reason "${CMAKE_CUDA_COMPILER} is nvcc ${version}, which cannot build for sm_${left_out}")
    if(NOT known OR FASTACT_CUDA STREQUAL ON)
      set(${problem} "${reason}" PARENT_SCOPE)
      return()
    endif()
    message(WARNING "${reason}: newer GPUs translate the PTX of the newest that it can.")
    set(FASTACT_CUDA_ARCHITECTURES ${known} PARENT_SCOPE)
  endif()
endfunction()

function(fastact_add_cuda_library)
  # SASS for each, and PTX of the newest for what comes after it.
  list(TRANSFORM FASTACT_CUDA_ARCHITECTURES APPEND -real OUTPUT_VARIABLE CMAKE_CUDA_ARCHITECTURES)
  list(GET FASTACT_CUDA_ARCHITECTURES -1 newest)
  list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)

  add_library(fastact_cuda SHARED csrc/cuda/dispatch.cpp csrc/cuda/driver.cpp csrc/cuda/keep.cpp
              csrc/torch/allocate.cpp csrc/torch/pointwise_cuda.cpp csrc/torch/register_cuda.cpp)
  # Contraction is off, and fma explicit, so that a GPU computes what a CPU with FMA does.
  # What is compressed for size needs a driver of 550.54 or newer, as every one of CUDA 13 is.
  set(compress $<$<VERSION_GREATER_EQUAL:${CMAKE_CUDA_COMPILER_VERSION},13.0>:--compress-mode=size>)
  fastact_add_cuda_kernels(fastact_cuda -fmad=false --expt-relaxed-constexpr ${compress}
                           $<$<BOOL:${FASTACT_WERROR}>:-Werror=all-warnings>)
  list(JOIN FASTACT_CUDA_ARCHITECTURES " " architectures)
  target_compile_definitions(fastact_cuda PRIVATE USE_CUDA
                             "FASTACT_CUDA_ARCHITECTURES=\"${architectures}\"")
  target_link_libraries(fastact_cuda PRIVATE stable_torch CUDA::cudart_static)
  fastact_link_old_glibc(fastact_cuda)  # after cudart, which needs it

  # torch's stream comes from libtorch_cuda, which a CPU build of torch does not have. Any library of
  # that name does to link against: by the time ours is loaded, torch has loaded its own.
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/stub/torch_cuda.cpp
       "extern \"C\" __attribute__((visibility(\"default\"))) int aoti_torch_get_current_cuda_stream(int, void**) { return 1; }\n")
  add_library(torch_cuda_stub SHARED ${CMAKE_CURRENT_BINARY_DIR}/stub/torch_cuda.cpp)
  set_target_properties(torch_cuda_stub PROPERTIES OUTPUT_NAME torch_cuda
                        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/stub)
  target_link_libraries(fastact_cuda PRIVATE torch_cuda_stub)
  install(TARGETS fastact_cuda LIBRARY DESTINATION fastact/lib)
endfunction()

if(FASTACT_CUDA STREQUAL OFF)
  return()
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  set(problem "no CUDA compiler was found in CUDACXX or on the PATH")
elseif(CMAKE_VERSION VERSION_LESS 3.25.2)
  set(problem "CMake ${CMAKE_VERSION} does not know how to ask nvcc for C++20, as 3.25.2 and newer do")
else()
  fastact_ask_nvcc(problem)
endif()
if(NOT problem)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  fastact_add_cuda_library()
elseif(FASTACT_CUDA STREQUAL ON)
  message(FATAL_ERROR "FASTACT_CUDA=ON, but ${problem}")
else()
  message(STATUS "fastact is installed without GPU kernels: ${problem}.")
endif()
