# Programs for other instruction sets, built statically with Debian's cross compilers and run under qemu-user.
# cob_cross_test(NAME SOURCES ... ARGUMENTS ...) makes a program of the sources and the test cross.NAME_ISA for each of
# COB_CROSS_ISAS. cob_cross_unit_test(NAME ISA SOURCES ...) makes the test cross.NAME_ISA of a folder's unit tests; its program
# takes a minute and is built by the test. What a machine lacks skips the test by name. In builds without sanitizers only.
set(COB_CROSS_ISAS aarch64 riscv64 s390x)
find_path(COB_GTEST_SOURCE googletest/src/gtest-all.cc PATHS /usr/src/googletest NO_DEFAULT_PATH)
find_path(COB_FMT_INCLUDE fmt/format.h)

function(cob_cross_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ARGUMENTS" ${ARGN})
  foreach(isa ${COB_CROSS_ISAS})
    cob_cross_lacks(lacks ${isa})
    if(lacks)
      cob_cross_skipped(${name}_${isa} "${lacks}")
    elseif(NOT (COB_SANITIZE OR COB_FUZZ))
      cob_cross_program(program ${name} ${isa} SOURCES ${ARG_SOURCES})
      add_custom_target(${name}_${isa} ALL DEPENDS ${program})
      add_test(NAME cross.${name}_${isa} COMMAND ${COB_QEMU_${isa}} ${program} ${ARG_ARGUMENTS})
      set_tests_properties(cross.${name}_${isa} PROPERTIES LABELS cross TIMEOUT 120)
    endif()
  endforeach()
endfunction()

function(cob_cross_unit_test name isa)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  cob_cross_lacks(lacks ${isa})
  if(NOT COB_GTEST_SOURCE)
    string(APPEND lacks " googletest")
  endif()
  if(lacks)
    cob_cross_skipped(${name}_${isa} "${lacks}")
    return()
  elseif(COB_SANITIZE OR COB_FUZZ)
    return()
  endif()
  # Headers for the host that are right for any ISA, without the rest of /usr/include.
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/include)
  file(CREATE_LINK ${COB_FMT_INCLUDE}/fmt ${CMAKE_CURRENT_BINARY_DIR}/include/fmt SYMBOLIC)
  set(gtest ${COB_GTEST_SOURCE}/googletest)
  set(gmock ${COB_GTEST_SOURCE}/googlemock)
  cob_cross_program(program ${name} ${isa}
    SOURCES ${ARG_SOURCES} ${gtest}/src/gtest-all.cc ${gtest}/src/gtest_main.cc ${gmock}/src/gmock-all.cc
    OPTIONS -DFMT_HEADER_ONLY -isystem ${CMAKE_CURRENT_BINARY_DIR}/include -isystem ${gtest}/include -isystem ${gmock}/include
      -I${gtest} -I${gmock})
  add_custom_target(${name}_${isa} DEPENDS ${program})
  add_test(NAME cross.${name}_${isa}
    COMMAND sh -c "${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --target ${name}_${isa} && exec ${COB_QEMU_${isa}} ${program}")
  set_tests_properties(cross.${name}_${isa} PROPERTIES LABELS cross TIMEOUT 900 RUN_SERIAL TRUE)
endfunction()

# Sets `result` to what is not installed for `isa`.
function(cob_cross_lacks result isa)
  find_program(COB_CXX_${isa} ${isa}-linux-gnu-g++)
  find_program(COB_QEMU_${isa} qemu-${isa})
  set(lacks "")
  if(NOT COB_CXX_${isa})
    string(APPEND lacks " g++-${isa}-linux-gnu")
  endif()
  if(NOT COB_QEMU_${isa})
    string(APPEND lacks " qemu-user")
  endif()
  set(${result} "${lacks}" PARENT_SCOPE)
endfunction()

function(cob_cross_skipped test lacks)
  add_test(NAME cross.${test} COMMAND sh -c "echo 'SKIPPED cross.${test}: not installed (tools/packages.txt):${lacks}'; exit 77")
  set_tests_properties(cross.${test} PROPERTIES LABELS cross SKIP_RETURN_CODE 77)
endfunction()

# Sets `result` to the program's path. Each source is compiled by itself, ours with the warnings of cob_flags.
function(cob_cross_program result name isa)
  cmake_parse_arguments(ARG "" "" "SOURCES;OPTIONS" ${ARGN})
  set(directory ${CMAKE_CURRENT_BINARY_DIR}/${isa})
  file(MAKE_DIRECTORY ${directory})
  set(objects)
  foreach(source ${ARG_SOURCES})
    get_filename_component(source ${source} ABSOLUTE)
    file(RELATIVE_PATH object ${PROJECT_SOURCE_DIR} ${source})
    set(options "$<TARGET_PROPERTY:cob_flags,INTERFACE_COMPILE_OPTIONS>")
    if(object MATCHES "^\\.\\.")
      set(options -w)
    endif()
    string(REPLACE "/" "_" object ${object})
    set(object ${directory}/${object}.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${COB_CXX_${isa}} -std=c++23 -O2 -I${PROJECT_SOURCE_DIR}/src ${ARG_OPTIONS}
        "${options}" -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source}
      DEPFILE ${object}.d
      COMMAND_EXPAND_LISTS
      COMMENT "Compiling ${name} for ${isa}")
    list(APPEND objects ${object})
  endforeach()
  add_custom_command(
    OUTPUT ${directory}/${name}
    COMMAND ${COB_CXX_${isa}} -static ${objects} -o ${directory}/${name}
    DEPENDS ${objects}
    COMMENT "Linking ${name} for ${isa}")
  set(${result} ${directory}/${name} PARENT_SCOPE)
endfunction()
