# Installs the library into an empty prefix, then configures, builds and runs a copy of the examples with nothing but find_package(): what
# somebody else's project does. Warnings in our headers are errors there.
cmake_minimum_required(VERSION 3.25)

function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed (${result}):\n${output}")
  endif()
  message(STATUS "${what}: ok\n${output}")
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
file(COPY ${EXAMPLES}/ DESTINATION ${SCRATCH}/source)
run("install" ${CMAKE_COMMAND} --install ${BUILD} --config "${CONFIG}" --prefix ${SCRATCH}/prefix)
set(configure ${CMAKE_COMMAND} -G ${GENERATOR} -S ${SCRATCH}/source -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_BUILD_TYPE=Release
              -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror ${FLAGS}")
run("configure" ${configure} -B ${SCRATCH}/build)
run("build" ${CMAKE_COMMAND} --build ${SCRATCH}/build)
foreach(example IN ITEMS train_lif train_recurrent)
  run("${example}" ${SCRATCH}/build/${example})
endforeach()

# The package says its version, and refuses one that it is not.
foreach(wanted IN ITEMS ${VERSION} 999.0)
  file(WRITE ${SCRATCH}/version/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)\nproject(version LANGUAGES CXX)\nfind_package(exodus_core ${wanted} REQUIRED)\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -G ${GENERATOR} -S ${SCRATCH}/version -B ${SCRATCH}/version/${wanted} -D CMAKE_CXX_COMPILER=${COMPILER}
                          -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(wanted STREQUAL VERSION AND NOT result EQUAL 0)
    message(FATAL_ERROR "find_package(exodus_core ${wanted}) failed:\n${output}")
  elseif(NOT wanted STREQUAL VERSION AND result EQUAL 0)
    message(FATAL_ERROR "find_package(exodus_core ${wanted}) took version ${VERSION}")
  endif()
endforeach()

# Each header can be included first and alone.
file(GLOB headers RELATIVE ${SCRATCH}/prefix/include ${SCRATCH}/prefix/include/exodus/*.hpp)
foreach(header IN LISTS headers)
  file(WRITE ${SCRATCH}/header.cpp "#include <${header}>\n")
  run("include <${header}>" ${COMPILER} -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I ${SCRATCH}/prefix/include ${SCRATCH}/header.cpp)
endforeach()
