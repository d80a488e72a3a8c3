# Programs for other instruction sets: cob_cross_test(NAME SOURCES ... ARGUMENTS ...) builds a static program of the sources
# with Debian's cross compiler for each of COB_CROSS_ISAS and runs it under qemu-user as the test cross.NAME_ISA. Without a
# compiler or qemu the test is skipped by name. In builds without sanitizers only.
set(COB_CROSS_ISAS aarch64 riscv64 s390x)

function(cob_cross_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ARGUMENTS" ${ARGN})
  if(COB_SANITIZE OR COB_FUZZ)
    return()
  endif()
  foreach(isa ${COB_CROSS_ISAS})
    set(test cross.${name}_${isa})
    find_program(COB_CXX_${isa} ${isa}-linux-gnu-g++)
    find_program(COB_QEMU_${isa} qemu-${isa})
    if(COB_CXX_${isa} AND COB_QEMU_${isa})
      cob_cross_program(program ${name} ${isa} ${ARG_SOURCES})
      add_test(NAME ${test} COMMAND ${COB_QEMU_${isa}} ${program} ${ARG_ARGUMENTS})
    else()
      add_test(NAME ${test} COMMAND sh -c
        "echo 'SKIPPED ${test}: g++-${isa}-linux-gnu or qemu-user is not installed (tools/packages.txt)'; exit 77")
    endif()
    set_tests_properties(${test} PROPERTIES LABELS cross TIMEOUT 120 SKIP_RETURN_CODE 77)
  endforeach()
endfunction()

# Sets `result` to the program's path. Each source is compiled by itself, with the warnings of cob_flags.
function(cob_cross_program result name isa)
  set(directory ${CMAKE_CURRENT_BINARY_DIR}/${isa})
  file(MAKE_DIRECTORY ${directory})
  set(objects)
  foreach(source ${ARGN})
    get_filename_component(source ${source} ABSOLUTE)
    file(RELATIVE_PATH object ${PROJECT_SOURCE_DIR} ${source})
    string(REPLACE "/" "_" object ${object})
    set(object ${directory}/${object}.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${COB_CXX_${isa}} -std=c++23 -O2 -I${PROJECT_SOURCE_DIR}/src
        "$<TARGET_PROPERTY:cob_flags,INTERFACE_COMPILE_OPTIONS>" -MD -MF ${object}.d -c ${source} -o ${object}
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
  add_custom_target(${name}_${isa} ALL DEPENDS ${directory}/${name})
  set(${result} ${directory}/${name} PARENT_SCOPE)
endfunction()
