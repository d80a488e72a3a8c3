# The messaging layer as a library of its own: libcob_message.a with what it takes of src/base, its headers, and how
# CMake (find_package(cob_message)) and pkg-config find them. docs/messaging.md, "Using it".
# What cob_message links besides cob_base must be found again by those who use it: a package and a pkg-config name each.
include(CMakePackageConfigHelpers)

set(COB_MESSAGE_DEPENDENCIES fmt)
set(COB_MESSAGE_PKGCONFIG_REQUIRES "fmt")
set(private_libraries fmt::fmt)
get_target_property(linked cob_message LINK_LIBRARIES)
if(linked MATCHES "OpenSSL::")
  find_package(OpenSSL REQUIRED)
  list(APPEND COB_MESSAGE_DEPENDENCIES OpenSSL)
  string(APPEND COB_MESSAGE_PKGCONFIG_REQUIRES ", openssl")
  list(APPEND private_libraries OpenSSL::SSL)
endif()

add_library(cob_message_package STATIC $<TARGET_OBJECTS:cob_message> $<TARGET_OBJECTS:cob_base>)
set_target_properties(cob_message_package PROPERTIES OUTPUT_NAME cob_message EXPORT_NAME message LINKER_LANGUAGE CXX
  ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/package)
target_compile_features(cob_message_package INTERFACE cxx_std_23)
target_include_directories(cob_message_package INTERFACE $<INSTALL_INTERFACE:include/cob>)
target_link_libraries(cob_message_package PRIVATE ${private_libraries})

configure_package_config_file(cmake/package/cob_message-config.cmake.in ${CMAKE_BINARY_DIR}/package/cob_message-config.cmake
  INSTALL_DESTINATION lib/cmake/cob_message)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/cob_message-config-version.cmake COMPATIBILITY SameMinorVersion)
configure_file(cmake/package/cob_message.pc.in ${CMAKE_BINARY_DIR}/package/cob_message.pc @ONLY)

install(TARGETS cob_message_package EXPORT cob_message ARCHIVE DESTINATION lib COMPONENT message)
install(EXPORT cob_message FILE cob_message-targets.cmake NAMESPACE cob:: DESTINATION lib/cmake/cob_message COMPONENT message)
install(FILES ${CMAKE_BINARY_DIR}/package/cob_message-config.cmake ${CMAKE_BINARY_DIR}/package/cob_message-config-version.cmake
  DESTINATION lib/cmake/cob_message COMPONENT message)
install(FILES ${CMAKE_BINARY_DIR}/package/cob_message.pc DESTINATION lib/pkgconfig COMPONENT message)

# The headers of the folders' sources; what only tests and the supervisor include stays here.
foreach(folder base message message/window message/socket message/streams)
  file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${folder}/*.h)
  list(FILTER headers EXCLUDE REGEX "/(test_[a-z_]*|control|stream_world)\\.h$")
  install(FILES ${headers} DESTINATION include/cob/${folder} COMPONENT message)
endforeach()

# The offload library on top of it, likewise. docs/offload.md, "Installed".
add_library(cob_offload_package STATIC $<TARGET_OBJECTS:cob_offload>)
set_target_properties(cob_offload_package PROPERTIES OUTPUT_NAME cob_offload EXPORT_NAME offload LINKER_LANGUAGE CXX
  ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/package)
target_compile_features(cob_offload_package INTERFACE cxx_std_23)
target_include_directories(cob_offload_package INTERFACE $<INSTALL_INTERFACE:include/cob>)
target_link_libraries(cob_offload_package INTERFACE $<INSTALL_INTERFACE:cob::message> Threads::Threads)
configure_package_config_file(cmake/package/cob_offload-config.cmake.in ${CMAKE_BINARY_DIR}/package/cob_offload-config.cmake
  INSTALL_DESTINATION lib/cmake/cob_offload)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/cob_offload-config-version.cmake COMPATIBILITY SameMinorVersion)
configure_file(cmake/package/cob_offload.pc.in ${CMAKE_BINARY_DIR}/package/cob_offload.pc @ONLY)
install(TARGETS cob_offload_package EXPORT cob_offload ARCHIVE DESTINATION lib COMPONENT message)
install(EXPORT cob_offload FILE cob_offload-targets.cmake NAMESPACE cob:: DESTINATION lib/cmake/cob_offload COMPONENT message)
install(FILES ${CMAKE_BINARY_DIR}/package/cob_offload-config.cmake ${CMAKE_BINARY_DIR}/package/cob_offload-config-version.cmake
  DESTINATION lib/cmake/cob_offload COMPONENT message)
install(FILES ${CMAKE_BINARY_DIR}/package/cob_offload.pc DESTINATION lib/pkgconfig COMPONENT message)
file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/offload/*.h)
list(FILTER headers EXCLUDE REGEX "/(test_[a-z_]*|door)\\.h$")
install(FILES ${headers} DESTINATION include/cob/offload COMPONENT message)
install(TARGETS cob-offload RUNTIME DESTINATION bin)
