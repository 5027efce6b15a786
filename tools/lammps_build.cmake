# SPDX-License-Identifier: BSD-3-Clause
#
# read_lammps_build(folder): how a LAMMPS with KOKKOS was compiled, from the files that CMake left in its build folder (for Ninja or Make). Plugins must
# be compiled alike: LAMMPS' classes change with its definitions, and those of Kokkos with the compiler's options.
#   build_defines     -D...
#   build_options     what changes the meaning of code: -fopenmp, -arch=..., --extended-lambda, but no optimisation and no warnings
#   build_includes    folders
#   build_standard    17 or 20
function(read_lammps_build folder)
  if(EXISTS ${folder}/build.ninja)
    set(file ${folder}/build.ninja)
  elseif(EXISTS ${folder}/CMakeFiles/lammps.dir/flags.make)
    set(file ${folder}/CMakeFiles/lammps.dir/flags.make)
  else()
    message(FATAL_ERROR "LAMMPS_BUILD_DIR=${folder} holds no build of LAMMPS by CMake: neither build.ninja nor CMakeFiles/lammps.dir/flags.make")
  endif()
  file(STRINGS ${file} lines REGEX "(DEFINES|FLAGS|INCLUDES) = ")
  set(begun FALSE)
  foreach(line IN LISTS lines)    # the definitions, then in any order options and folders
    string(REGEX MATCH "(DEFINES|FLAGS|INCLUDES) = (.*)" found "${line}")
    set(key ${CMAKE_MATCH_1})
    separate_arguments(words UNIX_COMMAND "${CMAKE_MATCH_2}")
    if(key STREQUAL "DEFINES")
      if(begun)
        break()
      elseif("-DLMP_KOKKOS" IN_LIST words)
        set(begun TRUE)
      endif()
    endif()
    if(begun)
      set(of_${key} ${words})
    endif()
  endforeach()
  if(NOT begun)
    message(FATAL_ERROR "The LAMMPS in ${folder} was built without KOKKOS (PKG_KOKKOS=ON); without LAMMPS_BUILD_DIR mtpplugin.so alone is built")
  endif()

  set(standard 17)
  if("${of_FLAGS}" MATCHES "-std=[a-z+]*([0-9]+)")
    set(standard ${CMAKE_MATCH_1})
  endif()
  list(FILTER of_FLAGS EXCLUDE REGEX "^-(O|g[0-9]*$|ggdb|W|std=|DNDEBUG|fPIC)")
  list(FILTER of_DEFINES EXCLUDE REGEX "_EXPORTS$")
  list(REMOVE_ITEM of_INCLUDES "-isystem")
  list(TRANSFORM of_INCLUDES REPLACE "^-I" "")
  set(build_defines ${of_DEFINES} PARENT_SCOPE)
  set(build_options ${of_FLAGS} PARENT_SCOPE)
  set(build_includes ${of_INCLUDES} PARENT_SCOPE)
  set(build_standard ${standard} PARENT_SCOPE)
endfunction()
