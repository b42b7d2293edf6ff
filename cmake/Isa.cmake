# The kernels are compiled once for each instruction set, into objects that export tables.

# No call to libm may set errno, and no comparison may have to trap, or the loops would not vectorise.
# Contraction is off so that a vector body and its scalar tail round alike (csrc/formulas/intrinsics.h).
# Jump threading would turn "x < 0 ? 0 : x" before a conversion to float16 into a branch around the
# conversion, and no loop with a branch vectorises: 40 of 340 did not (tests/test_vectorised.py).
# A loop that copies is to stay a loop: blocks are small, and a call of memcpy for each halved the speed
# of cross entropy.
# -ffast-math stays away: linking with it switches the whole process to flush-to-zero.
set(FASTACT_KERNEL_FLAGS -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off -fno-thread-jumps
    -fno-tree-loop-distribute-patterns)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(FASTACT_ISAS v2 v3 v4)
else()
  set(FASTACT_ISAS generic)
endif()

function(fastact_add_isas library)
  foreach(isa IN LISTS FASTACT_ISAS)
    set(objects ${library}_${isa})
    add_library(${objects} OBJECT EXCLUDE_FROM_ALL csrc/cpu/bce.cpp csrc/cpu/cross_entropy.cpp csrc/cpu/pointwise.cpp
                csrc/cpu/softmax.cpp)
    target_compile_definitions(${objects} PRIVATE FASTACT_ISA=${isa})
    target_compile_options(${objects} PRIVATE ${FASTACT_KERNEL_FLAGS})
    if(NOT isa STREQUAL generic)
      target_compile_options(${objects} PRIVATE -march=x86-64-${isa})
    endif()
    if(isa STREQUAL v4)
      target_compile_options(${objects} PRIVATE -mprefer-vector-width=512)
    endif()
    target_link_libraries(${library} PRIVATE ${objects})
  endforeach()
endfunction()
