# Spaced: build, run, test, bench, fuzz, lint, install. `make help` lists the targets.
# Settings: SANITIZE=1 (ASan+UBSan, into build-asan/), DEVELOPER=1 (warnings are errors), V=1 (show commands).

CC ?= cc
PREFIX ?= /usr/local
DESTDIR ?=
PORT ?= 7000
STATE ?= var
B := $(if $(SANITIZE),build-asan,build)
Q := $(if $(V),,@)

PKGS_base := libseccomp libcap
PKGS_sandbox := libseccomp libcap libmnl libnftables
PKGS_proxy := libuv libsodium
PKGS_spaced := libidn2 libuv sqlite3 libgit2 yaml-0.1 jansson libsodium zlib libbrotlienc libarchive
PKGS_spacectl := libcurl jansson libseccomp libcap libmnl libnftables
ALL_PKGS := $(sort $(PKGS_base) $(PKGS_sandbox) $(PKGS_proxy) $(PKGS_spaced) $(PKGS_spacectl))

# llhttp: the distribution's library, or the C sources of Debian's node-llhttp package compiled strictly: without
# LLHTTP_STRICT_MODE that version lets smuggling payloads through (tests/unit/test_llhttp_strict.c).
LLHTTP_SRC := /usr/share/llhttp
LLHTTP_LIB := $(shell pkg-config --silence-errors --libs libllhttp 2>/dev/null)
LLHTTP_CFLAGS := $(if $(LLHTTP_LIB),$(shell pkg-config --cflags libllhttp),-I/usr/share/include -I/usr/share/include/llhttp)

# Not every libgit2 can bound the size of one object. The option is an enum, which the preprocessor cannot see.
GIT_BOUND := $(shell grep -qs GIT_OPT_SET_PACK_MAX_OBJECT_SIZE \
	$$(pkg-config --variable=includedir libgit2 2>/dev/null)/git2/common.h && echo -DHAVE_GIT_PACK_MAX_OBJECT_SIZE)

WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wformat=2 -Wpointer-arith -Wvla \
	-Wundef -Wno-unused-parameter -fno-common $(if $(DEVELOPER),-Werror)
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
, := ,
SAN := $(if $(SANITIZE),-fsanitize=address$(,)undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
VERSION := $(shell cat VERSION)
CPPFLAGS += -D_GNU_SOURCE -I. -I$(B) -include base/banned.h -DSPACED_VERSION='"$(VERSION)"' $(GIT_BOUND)
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu17 $(CFLAGS) $(WARN) $(HARDEN) $(SAN) $(shell pkg-config --silence-errors --cflags $(ALL_PKGS)) $(LLHTTP_CFLAGS)
LDFLAGS += -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(SAN)

BASE_SRC := $(wildcard base/*.c)
SANDBOX_SRC := $(wildcard sandbox/*.c)
PROXY_SRC := $(wildcard proxy/*.c)
CLI_SRC := $(wildcard spaced/cli/*.c)
SPACED_SRC := $(filter-out $(CLI_SRC),$(wildcard spaced/*.c spaced/*/*.c))
CMD_SRC := $(wildcard sandbox/cmd/*.c) proxy/cmd/proxy.c
SPACED_SRC := $(filter-out spaced/cmd/%,$(SPACED_SRC))
ASSETS := $(sort $(wildcard schema/*.sql web/*.html web/*.css web/*.js web/*.svg))
# Objects have a folder of their own: build/proxy is a program and proxy/ a source folder.
objs = $(patsubst %.c,$(B)/obj/%.o,$(1))

PROGRAMS := $(B)/spaced $(B)/spacectl $(B)/sandbox $(B)/proxy
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,build-fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

all: $(PROGRAMS)
	@:
.PHONY: all help deps run test unit e2e sanitize vm vm-systemd lint format bench fault fuzz install uninstall clean battery \
	battery-programs soak
.DELETE_ON_ERROR:
.SECONDARY:

help:
	@echo 'make             build/spaced, build/spacectl, build/sandbox, build/proxy'
	@echo 'make run         install what is missing, build, start, deploy the example   [PORT=7000 STATE=var]'
	@echo 'make test        all tests'
	@echo 'make unit e2e    one kind of them            make sanitize   tests under ASan + UBSan'
	@echo 'make battery     99 ways out, each tried on six kinds of host; escaped must be 0'
	@echo 'make soak        10000 starts and stops, 1000 at once [CYCLES= PARALLEL=]: nothing is left behind'
	@echo 'make vm          sandbox, battery and a daemon on the kernel of Debian, cgroup v2 alone, in a VM'
	@echo 'make vm-systemd  the installed service below systemd, in such a VM'
	@echo 'make lint        format, clang-tidy, shellcheck, front end    make format'
	@echo 'make fault       every system call of the launcher fails once, with each errno'
	@echo 'make bench       measured ratios             make fuzz [SECONDS=60]'
	@echo 'make install     [PREFIX=/usr/local DESTDIR=]'

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	@$(if $(V),,echo '  CC    $<')
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/llhttp/%.o: $(LLHTTP_SRC)/%.c
	@mkdir -p $(@D)
	@$(if $(V),,echo '  CC    $<')
	$(Q)$(CC) -std=gnu17 -w $(CFLAGS) $(HARDEN) $(LLHTTP_CFLAGS) -DLLHTTP_STRICT_MODE=1 -c -o $@ $<
LLHTTP_OBJ := $(if $(LLHTTP_LIB),,$(addprefix $(B)/llhttp/,api.o http.o llhttp.o))

$(B)/assets.S: scripts/embed $(ASSETS)
	@mkdir -p $(@D)
	$(Q)scripts/embed $(ASSETS) >$@
$(B)/assets.o: $(B)/assets.S
	$(Q)$(CC) -c -o $@ $<

# The filter of sandboxes is compiled here and not at each start.
$(B)/gen/filter: sandbox/gen/filter.c sandbox/seccomp_profile.c sandbox/seccomp_profile.h
	@mkdir -p $(@D)
	@$(if $(V),,echo '  CC    $@')
	$(Q)$(CC) $(CPPFLAGS) -std=gnu17 $(CFLAGS) $(WARN) -o $@ $(filter %.c,$^) $(shell pkg-config --cflags --libs libseccomp)
$(B)/seccomp_filter.inc: $(B)/gen/filter
	$(Q)$< >$@
$(B)/obj/sandbox/seccomp.o: $(B)/seccomp_filter.inc

$(B)/base.a: $(call objs,$(BASE_SRC))
$(B)/sandbox.a: $(call objs,$(SANDBOX_SRC))
$(B)/proxy.a: $(call objs,$(PROXY_SRC)) $(LLHTTP_OBJ)
$(B)/spaced.a: $(call objs,$(SPACED_SRC)) $(B)/assets.o
%.a:
	@$(if $(V),,echo '  AR    $@')
	$(Q)rm -f $@ && ar rcs $@ $^

link = @mkdir -p $(@D); $(if $(V),,echo '  LD    $@'); $(CC) $(CFLAGS) $(LDFLAGS) -o $@
$(B)/spaced: $(B)/obj/spaced/cmd/spaced.o $(B)/spaced.a $(B)/proxy.a $(B)/sandbox.a $(B)/base.a
	$(link) $^ $(LLHTTP_LIB) $(shell pkg-config --libs $(PKGS_spaced) $(PKGS_proxy) $(PKGS_sandbox))
# What a base image gives builds is found when it is made: by the builder's own tools.c.
$(B)/spacectl: $(call objs,$(CLI_SRC) spaced/build/tools.c) $(B)/sandbox.a $(B)/base.a
	$(link) $^ $(shell pkg-config --libs $(PKGS_spacectl))
$(B)/sandbox: $(call objs,$(wildcard sandbox/cmd/*.c)) $(B)/sandbox.a $(B)/base.a
	$(link) $^ $(shell pkg-config --libs $(PKGS_sandbox))
$(B)/proxy: $(B)/obj/proxy/cmd/proxy.o $(B)/proxy.a $(B)/base.a
	$(link) $^ $(LLHTTP_LIB) $(shell pkg-config --libs $(PKGS_proxy) $(PKGS_base))

# Unit tests may look inside: each links every library.
$(B)/tests/unit/test_apt_sources: $(B)/obj/spaced/cli/apt_sources.o
$(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $(B)/spaced.a $(B)/proxy.a $(B)/sandbox.a $(B)/base.a
	$(link) $^ $(LLHTTP_LIB) $(shell pkg-config --libs $(PKGS_spaced) $(PKGS_proxy) $(PKGS_sandbox) cmocka)

# The attacker is static: it needs nothing of the system that it is in. So is what takes calls away from the launcher.
BATTERY := $(addprefix $(B)/tests/battery/,probe shim walls soak freeze)
battery_cc = @mkdir -p $(@D); $(if $(V),,echo '  CC    $@'); $(CC) -std=gnu17 -D_GNU_SOURCE -O1 $(WARN) -static -o $@
$(B)/tests/battery/probe: $(wildcard tests/battery/probe/*.c) tests/battery/probe/probe.h
	$(battery_cc) $(filter %.c,$^)
$(B)/tests/battery/shim: tests/battery/shim.c
	$(battery_cc) $^
# Programs on top of the libraries: what they find is in cmocka's words.
$(addprefix $(B)/tests/battery/,soak freeze): $(B)/tests/battery/%: $(B)/obj/tests/battery/%.o $(B)/sandbox.a $(B)/base.a
	$(link) $^ $(shell pkg-config --libs $(PKGS_sandbox) cmocka)
soak:
	@tests/run soak
$(B)/tests/battery/walls: $(B)/obj/tests/battery/walls.o $(B)/sandbox.a $(B)/base.a
	$(link) $^ -pthread $(shell pkg-config --libs $(PKGS_sandbox))
# The same two without the steps that are in the folder's name, joined by "+": tests/battery/mutations.
without = $(foreach step,$(subst +, ,$(1)),-Wl,--wrap=$(step))
$(B)/tests/battery/without-%/sandbox: $(B)/obj/tests/battery/without.o $(call objs,$(wildcard sandbox/cmd/*.c)) $(B)/sandbox.a $(B)/base.a
	$(link) $(call without,$*) $^ $(shell pkg-config --libs $(PKGS_sandbox))
$(B)/tests/battery/without-%/walls: $(B)/obj/tests/battery/walls.o $(B)/obj/tests/battery/without.o $(B)/sandbox.a $(B)/base.a
	$(link) $(call without,$*) $^ -pthread $(shell pkg-config --libs $(PKGS_sandbox))

$(B)/tests/bench/proxy/%: $(B)/obj/tests/bench/proxy/%.o
	$(link) $^
$(B)/tests/bench/start: $(call objs,$(wildcard tests/bench/*.c)) $(B)/sandbox.a $(B)/base.a
	$(link) $^ $(shell pkg-config --libs $(PKGS_sandbox))
$(B)/tests/fault/fault: $(call objs,tests/fault/fault.c) $(B)/sandbox.a $(B)/base.a
	$(link) $^ $(shell pkg-config --libs $(PKGS_sandbox))

deps:
	@scripts/setup

run: deps
	@$(MAKE) --no-print-directory -j2 all
	@scripts/run --port '$(PORT)' --state '$(STATE)'

test:
	@scripts/setup --tests
	@$(MAKE) --no-print-directory -j2 all
	@tests/run
unit: $(UNIT)
	@tests/run unit
e2e: all
	@tests/run e2e
sanitize:
	@$(MAKE) --no-print-directory -j2 SANITIZE=1 all
	@tests/run sanitize
vm: all unit-programs battery-programs
	@tests/run vm
vm-systemd: all
	@tests/run vm-systemd
unit-programs: $(UNIT)
battery-programs: $(BATTERY)
battery: all
	@tests/run battery

lint:
	@scripts/lint
format:
	@scripts/lint --format

fault: $(B)/tests/fault/fault
	@tests/run fault all

bench: all $(addprefix $(B)/tests/bench/,start proxy/backend proxy/load proxy/attack)
	@tests/bench/run

# libFuzzer: everything under test is compiled again by clang with coverage.
FUZZ_CC ?= clang-14
SECONDS ?= 60
FUZZ_OBJ = $(patsubst %.c,build-fuzz/%.o,$(BASE_SRC) $(SANDBOX_SRC) $(PROXY_SRC) $(SPACED_SRC))
build-fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) $(CPPFLAGS) -std=gnu17 -O1 -g -fsanitize=address,undefined,fuzzer-no-link -w $(LLHTTP_CFLAGS) \
		$(shell pkg-config --cflags $(ALL_PKGS)) -MMD -MP -c -o $@ $<
build-fuzz/sandbox/seccomp.o: $(B)/seccomp_filter.inc
build-fuzz/all.a: $(FUZZ_OBJ) $(LLHTTP_OBJ) $(B)/assets.o
build-fuzz/fuzz_%: build-fuzz/tests/fuzz/fuzz_%.o build-fuzz/all.a
	$(Q)$(FUZZ_CC) -fsanitize=address,undefined,fuzzer -o $@ $^ $(LLHTTP_LIB) \
		$(shell pkg-config --libs $(PKGS_spaced) $(PKGS_proxy) $(PKGS_sandbox))
fuzz: $(FUZZ)
	@tests/fuzz/run $(SECONDS)

install: all
	@scripts/install --prefix '$(PREFIX)' --destdir '$(DESTDIR)'
uninstall:
	@scripts/install --remove --prefix '$(PREFIX)' --destdir '$(DESTDIR)'

clean:
	rm -rf build build-asan build-fuzz

-include $(shell find $(B) build-fuzz -name '*.d' 2>/dev/null)
