# What people type. Each target sets itself up: tools/setup.sh installs what tools/packages.txt lists and is missing.
PREFIX ?= /usr/local

# Architectures (Debian's names) whose islands can be built; one preset each.
ISLANDS = arm64

.PHONY: all cross setup demo test tidy bench bench-peers install clean

all: setup
	@test -f build/build.ninja || cmake --preset release
	@cmake --build build

# What islands of other instruction sets run (docs/islands.md), cross built with Debian's compilers and libraries.
cross: $(ISLANDS:%=cross-%)
cross-%: setup
	@tools/cross.sh $*

setup:
	@tools/setup.sh

demo: all
	@tools/demo.sh

test: all
	@tools/test.sh

tidy: all
	@tests/tidy_test.py --thorough

bench: all
	@build/cob bench servers

# The packaged messaging systems that cob is compared with: their packages, and a program for each.
bench-peers: all
	@tools/setup.sh packages-peers.txt
	@cmake --preset release
	@cmake --build build --target peers
	@build/cob bench peers

install: all
	@cmake --install build --prefix "$(PREFIX)"

clean:
	rm -rf build build-asan build-tsan build-dev build-fuzz
