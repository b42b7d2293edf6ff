# One object for each kernel file of csrc/cuda and storage type, as Isa.cmake has one for each
# instruction set.
set(FASTACT_DTYPES float32 float64 bfloat16 float16)
set(FASTACT_CUDA_FOLDER ${CMAKE_CURRENT_LIST_DIR}/../csrc/cuda)

# Adds the kernels to a library. What follows are compile options.
function(fastact_add_cuda_kernels library)
  foreach(dtype IN LISTS FASTACT_DTYPES)
    # unary and gated are two halves of one file.
    foreach(name unary gated softmax cross_entropy bce)
      set(source ${name})
      if(name STREQUAL unary OR name STREQUAL gated)
        set(source pointwise)
      endif()
      set(objects ${library}_${name}_${dtype})
      add_library(${objects} OBJECT EXCLUDE_FROM_ALL ${FASTACT_CUDA_FOLDER}/${source}.cu)
      target_compile_definitions(${objects} PRIVATE FASTACT_DTYPE=${dtype}
                                                    FASTACT_GATED=$<STREQUAL:${name},gated>)
      target_compile_options(${objects} PRIVATE ${ARGN})
      target_link_libraries(${library} PRIVATE ${objects})
    endforeach()
  endforeach()
endfunction()
