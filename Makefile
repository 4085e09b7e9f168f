# A thin front to Meson for those who type "make". SPDX-License-Identifier: GPL-2.0-or-later

PREFIX ?= /usr/local
BUILD = build

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@scripts/install-deps
	meson setup $(BUILD) --prefix=$(PREFIX) -Dtests=false

# All tests; the last line is "N passed, N failed, N skipped".
check:
	@scripts/install-deps
	@scripts/check

# A guest snapshotted under load, killed, and restored; the figures beside QEMU's own.
demo:
	@scripts/install-deps
	@scripts/demo

install: all
	meson install -C $(BUILD)

format:
	clang-format -i $$(git ls-files --cached --others --exclude-standard '*.c' '*.h')

clean:
	rm -rf build build-check build-asan build-fuzz

.PHONY: all check demo install format clean
