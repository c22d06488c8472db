# CMake finds every model of a registry, whatever its name, and refuses a registry that it does not understand. Run with cmake -P.
cmake_minimum_required(VERSION 3.25)
include(${ROOT}/cmake/models.cmake)

# expect_models(<registry's text> <name>...)
function(expect_models text)
  file(WRITE ${SCRATCH}/registry.hpp "${text}")
  exodus_read_models(${SCRATCH}/registry.hpp found)
  if(NOT found STREQUAL "${ARGN}")
    message(FATAL_ERROR "found ${found} instead of ${ARGN} in\n${text}")
  endif()
endfunction()

expect_models("#define EXODUS_MODELS(X) \\\n  X(Lif) \\\n  X(Lif2) \\\n  X(If_4th)\n\nX(NotOne)\n" Lif Lif2 If_4th)
expect_models("// X(Old)\n#define EXODUS_MODELS(X) X(A) X( B2 )X(_c)\n#define EXODUS_MODEL(name) X(name)\n" A B2 _c)

file(READ ${ROOT}/cpp/src/registry.hpp registry)
string(REPLACE "  X(Lif) " "  X(Lif) X(Lif2) " with_another "${registry}")
exodus_read_models(${ROOT}/cpp/src/registry.hpp models)
list(INSERT models 1 Lif2)
expect_models("${with_another}" ${models})

# expect_header(<model> <header>)
function(expect_header model header)
  exodus_model_header(${model} found)
  if(NOT found STREQUAL "EXODUS_MODEL_HEADER=\"exodus/${header}\"")
    message(FATAL_ERROR "${model}: found ${found} instead of ${header}")
  endif()
endfunction()

expect_header(Lif lif.hpp)
expect_header(CubaLif cuba_lif.hpp)
expect_header(Lif2 lif2.hpp)

# A registry that cannot be read stops cmake: in a process of its own.
foreach(text IN ITEMS "" "#define EXODUS_MODELS(X)\n" "#define EXODUS_MODELS(X) X(Lif) X(2nd)\n" "#define EXODUS_MODELS(X) X(a b)\n")
  file(WRITE ${SCRATCH}/registry.hpp "${text}")
  file(WRITE ${SCRATCH}/read.cmake "include(${ROOT}/cmake/models.cmake)\nexodus_read_models(${SCRATCH}/registry.hpp found)\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -P ${SCRATCH}/read.cmake RESULT_VARIABLE result ERROR_VARIABLE output)
  if(result EQUAL 0 OR NOT output MATCHES "EXODUS_MODELS|identifier")
    message(FATAL_ERROR "this registry was accepted, or refused without a reason (${output}):\n${text}")
  endif()
endforeach()
