# Lets a library that links something static, here cudart, load on systems older than this one. Since
# glibc 2.34, libdl, libpthread and librt are part of libc, and a linker gives their functions that
# version; newer systems still have them in the old one. So they are linked from stubs of the libraries
# they were in, with the versions they had. (x86-64; what the compiler's headers ask for beyond
# that is in csrc/torch/old_systems.cpp.)
set(FASTACT_OLD_dl_2 "GLIBC_2.2.5" dlclose dlerror dlopen dlsym dlvsym)
set(FASTACT_OLD_dl_2_newer "GLIBC_2.3.4" dlmopen)
set(FASTACT_OLD_rt_1 "GLIBC_2.2.5" shm_open shm_unlink)
set(FASTACT_OLD_pthread_0 "GLIBC_2.2.5"
    pthread_condattr_setpshared pthread_create pthread_detach pthread_getspecific pthread_join
    pthread_key_create pthread_key_delete pthread_kill pthread_mutex_trylock pthread_mutexattr_destroy
    pthread_mutexattr_init pthread_mutexattr_setpshared pthread_mutexattr_settype pthread_once
    pthread_rwlock_destroy pthread_rwlock_init pthread_rwlock_rdlock pthread_rwlock_timedrdlock
    pthread_rwlock_timedwrlock pthread_rwlock_tryrdlock pthread_rwlock_trywrlock pthread_rwlock_unlock
    pthread_rwlock_wrlock pthread_rwlockattr_destroy pthread_rwlockattr_init
    pthread_rwlockattr_setpshared pthread_setspecific pthread_spin_destroy pthread_spin_init
    pthread_spin_lock pthread_spin_trylock pthread_spin_unlock sem_destroy sem_init sem_post
    sem_timedwait sem_trywait sem_wait)

function(fastact_link_old_glibc target)
  if(NOT CMAKE_SYSTEM_NAME STREQUAL Linux OR NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    return()
  endif()
  foreach(library dl_2 rt_1 pthread_0)
    string(REPLACE "_" ";" parts ${library})
    list(GET parts 0 name)
    list(GET parts 1 version)
    set(code "")
    set(script "")
    foreach(list FASTACT_OLD_${library} FASTACT_OLD_${library}_newer)
      if(DEFINED ${list})
        list(POP_FRONT ${list} node)
        list(JOIN ${list} "; " names)
        string(APPEND script "${node} { global: ${names}; };\n")
        foreach(function IN LISTS ${list})
          string(APPEND code "extern \"C\" void ${function}() {}\n")
        endforeach()
      endif()
    endforeach()
    set(folder ${CMAKE_CURRENT_BINARY_DIR}/stub)
    file(CONFIGURE OUTPUT ${folder}/${name}.cpp CONTENT "${code}" @ONLY)
    file(CONFIGURE OUTPUT ${folder}/${name}.map CONTENT "${script}" @ONLY)
    add_library(old_${name} SHARED ${folder}/${name}.cpp)
    target_compile_options(old_${name} PRIVATE -fno-builtin -fvisibility=default)
    target_link_options(old_${name} PRIVATE -nostdlib -Wl,--version-script=${folder}/${name}.map)
    set_target_properties(old_${name} PROPERTIES OUTPUT_NAME ${name} SOVERSION ${version}
                                                 LIBRARY_OUTPUT_DIRECTORY ${folder})
    target_link_libraries(${target} PRIVATE old_${name})
  endforeach()
endfunction()
