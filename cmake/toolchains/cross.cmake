# For another instruction set: the parts that an island of it runs. COB_CROSS_ISA names the compiler (aarch64-linux-gnu-g++),
# COB_SYSROOT the folder that tools/sysroot.sh has filled. Programs are static, so that they run in any guest and under
# qemu-user alone; libcob.so is not, as it is a guest of its programs' C library.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES COB_CROSS_ISA COB_SYSROOT)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${COB_CROSS_ISA})
set(CMAKE_C_COMPILER ${COB_CROSS_ISA}-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER ${COB_CROSS_ISA}-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE ${COB_CROSS_ISA}-linux-gnu)

set(CMAKE_FIND_ROOT_PATH ${COB_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
set(OPENSSL_USE_STATIC_LIBS TRUE)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${COB_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${COB_SYSROOT}/usr/lib/${COB_CROSS_ISA}-linux-gnu/pkgconfig)

# Debian has a part of OpenSSL's headers by architecture.
set(CMAKE_CXX_FLAGS_INIT "-isystem ${COB_SYSROOT}/usr/include/${COB_CROSS_ISA}-linux-gnu")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-${COB_CROSS_ISA})
