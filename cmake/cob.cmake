# One library a folder: cob_library(NAME DEPS ... [SUBFOLDERS ...]) takes the *.cc of the folder and of subfolders without a library of their
# own, leaves out *_test.cc, *_fuzz.cc and *_bench.cc,
# and makes one GoogleTest executable of the *_test.cc, and of each *_fuzz.cc a libFuzzer binary (COB_FUZZ) or, under the
# address sanitizer, a test of FUZZ_RUNS fixed inputs beyond its corpus (tests/fuzz/main.cc). The DEPS are the design's arrows; tests/arrows_test.py holds the
# includes against them.

# What zeroes and copies structs of known size. g++ would take `rep stos` and `rep movs`, whose start alone costs 10 ns
# (128 and 192 bytes zeroed in a loop: 36 ns so, 13 by these). Of this compiler alone, so not among cob_flags, which cross compilers take too.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  add_compile_options(-mmemset-strategy=unrolled_loop:256:noalign,libcall:-1:noalign
                      -mmemcpy-strategy=unrolled_loop:256:noalign,libcall:-1:noalign)
endif()

add_library(cob_flags INTERFACE)
target_compile_options(cob_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fno-omit-frame-pointer)
target_include_directories(cob_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
if(COB_SANITIZE)
  target_compile_options(cob_flags INTERFACE -fsanitize=${COB_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(cob_flags INTERFACE -fsanitize=${COB_SANITIZE})
endif()

if(COB_FUZZ)
  target_compile_options(cob_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_package(GTest REQUIRED)
find_package(fmt REQUIRED)

function(cob_library name)
  cmake_parse_arguments(ARG "" "FUZZ_RUNS" "DEPS;SUBFOLDERS" ${ARGN})
  list(TRANSFORM ARG_SUBFOLDERS APPEND /*.cc OUTPUT_VARIABLE subfolders)
  file(GLOB sources CONFIGURE_DEPENDS *.cc ${subfolders})
  set(tests ${sources})
  set(fuzzers ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_(test|fuzz|bench|check)|/main)\\.cc$")
  if(sources)
    add_library(cob_${name} STATIC ${sources})
    target_link_libraries(cob_${name} PUBLIC ${ARG_DEPS} PRIVATE cob_flags)
    target_include_directories(cob_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    if(COB_SANITIZE AND "CLI11::CLI11" IN_LIST ARG_DEPS)
      target_compile_options(cob_${name} PRIVATE -O0)  # commands: most of their code is CLI11's, in every file
    endif()
  else()
    add_library(cob_${name} INTERFACE)
    target_link_libraries(cob_${name} INTERFACE ${ARG_DEPS})
    target_include_directories(cob_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
  endif()
  if(tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE cob_${name} cob_flags GTest::gmock GTest::gtest_main)
    if(COB_SANITIZE)
      target_compile_options(${name}_test PRIVATE -Og)  # halves their compilation; what they test keeps its -O1
    endif()
    set_target_properties(${name}_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/unit)
    add_test(NAME unit.${name} COMMAND ${name}_test)
    set_tests_properties(unit.${name} PROPERTIES LABELS unit TIMEOUT 600)
  endif()
  if(COB_FUZZ)
    foreach(source ${fuzzers})
      get_filename_component(fuzzer ${source} NAME_WE)
      add_executable(${fuzzer} ${source})
      target_link_libraries(${fuzzer} PRIVATE cob_${name} cob_flags)
      target_compile_options(${fuzzer} PRIVATE -fsanitize=fuzzer)
      target_link_options(${fuzzer} PRIVATE -fsanitize=fuzzer)
      set_target_properties(${fuzzer} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
    endforeach()
  elseif(COB_SANITIZE MATCHES "address")
    foreach(source ${fuzzers})
      get_filename_component(fuzzer ${source} NAME_WE)
      add_executable(${fuzzer}_smoke ${source} ${PROJECT_SOURCE_DIR}/tests/fuzz/main.cc)
      target_link_libraries(${fuzzer}_smoke PRIVATE cob_${name} cob_flags GTest::gtest)
      set_target_properties(${fuzzer}_smoke PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
      string(REGEX REPLACE "\\.cc$" ".corpus" corpus ${source})
      add_test(NAME fuzz.${fuzzer}
        COMMAND ${fuzzer}_smoke ${corpus} ${ARG_FUZZ_RUNS})
      set_tests_properties(fuzz.${fuzzer} PROPERTIES LABELS fuzz TIMEOUT 300)
    endforeach()
  endif()
endfunction()
