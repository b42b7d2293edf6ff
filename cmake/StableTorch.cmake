# The target stable_torch: LibTorch's stable ABI from the torch that Python imports. One binary serves
# every torch from 2.10 on, since it uses nothing newer and no C++ symbol of torch.
find_package(Python REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import torch, os; print(os.path.dirname(torch.__file__))"
  OUTPUT_VARIABLE torch_folder
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE torch_missing
  ERROR_QUIET)
if(torch_missing OR NOT EXISTS ${torch_folder}/include/torch/csrc/stable/library.h)
  return()
endif()

add_library(stable_torch INTERFACE)
target_include_directories(stable_torch SYSTEM INTERFACE ${torch_folder}/include)
target_compile_options(stable_torch
                       INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-fmacro-prefix-map=${torch_folder}/include/=>")
target_compile_definitions(stable_torch INTERFACE TORCH_TARGET_VERSION=0x020a000000000000)
# torch is imported before this library is loaded, so the name alone finds it: no RPATH.
target_link_libraries(stable_torch INTERFACE ${torch_folder}/lib/libtorch_cpu.so)
set(CMAKE_SKIP_RPATH ON)
# Loads on systems as old as torch's own wheels do.
target_sources(stable_torch INTERFACE ${CMAKE_CURRENT_LIST_DIR}/../csrc/torch/old_systems.cpp)
