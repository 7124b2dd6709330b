/* The compiled filter, run by a small BPF machine: every rule of the profile gives what it says, whatever order
 * libseccomp has put the rules in, and the high halves of arguments open no way around. */
#include <errno.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "sandbox/contain.h"
#include "sandbox/seccomp_profile.h"

#define ALLOWED 0

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

static const struct sock_fprog *filter;

/* The instructions that libseccomp emits. */
static uint32_t run(const struct seccomp_data *d)
{
	uint32_t a = 0;

	for (size_t pc = 0; pc < filter->len; pc++) {
		const struct sock_filter *i = &filter->filter[pc];

		switch (i->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(i->k + 4 <= sizeof *d);
			memcpy(&a, (const char *)d + i->k, 4);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= i->k;
			break;
		case BPF_JMP | BPF_JA:
			pc += i->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			pc += a == i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGT | BPF_K:
			pc += a > i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			pc += a >= i->k ? i->jt : i->jf;
			break;
		case BPF_RET | BPF_K:
			return i->k;
		default:
			fail_msg("instruction %#x", i->code);
		}
	}
	fail_msg("ran off the end");
	return 0;
}

/* 0, SECCOMP_PRETEND or the errno. */
static int ask4(uint32_t arch, int nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct seccomp_data data = {.arch = arch, .nr = nr, .args = {a, b, c, d}};
	uint32_t r = run(&data);

	if (r == SECCOMP_RET_ALLOW)
		return ALLOWED;
	assert_int_equal(r & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ERRNO);
	return r & SECCOMP_RET_DATA ? (int)(r & SECCOMP_RET_DATA) : SECCOMP_PRETEND;
}

static int ask(uint32_t arch, int nr, uint64_t a, uint64_t b, uint64_t c)
{
	return ask4(arch, nr, a, b, c, 0);
}

#define ASK(name, ...) ask(ARCH, SYS_##name, __VA_ARGS__)
#define HIGH 0xffffffff00000000ULL

static int setup(void **state)
{
	filter = seccomp_filter();
	return 0;
}

static void lists(void **state)
{
	for (const char *const *n = seccomp_allowed; *n; n++) {
		int nr = seccomp_syscall_resolve_name(*n);

		if (nr >= 0 && ask(ARCH, nr, 1, 2, 3) != ALLOWED)
			fail_msg("%s is not allowed", *n);
	}
	for (const char *const *n = seccomp_refused; *n; n++) {
		int nr = seccomp_syscall_resolve_name(*n);

		if (nr >= 0 && ask(ARCH, nr, 0, 0, 0) != EPERM)
			fail_msg("%s is not refused", *n);
	}
}

static void unknown_calls_do_not_exist(void **state)
{
	for (int nr = 470; nr < 2000; nr++)
		assert_int_equal(ask(ARCH, nr, 0, 0, 0), ENOSYS);
	assert_int_equal(ask(ARCH, -1, 0, 0, 0), ENOSYS);
	assert_int_equal(ask(ARCH, INT_MAX, 0, 0, 0), ENOSYS);
	assert_int_equal(ask(ARCH, INT_MIN, 0, 0, 0), ENOSYS);
	assert_int_equal(ASK(clone3, 0, 0, 0), ENOSYS);
	assert_int_equal(ASK(io_uring_setup, 1, 0, 0), ENOSYS);
	assert_int_equal(ASK(fsopen, 0, 0, 0), ENOSYS);
	assert_int_equal(ASK(move_mount, 0, 0, 0), ENOSYS);
	assert_int_equal(ASK(mount_setattr, 0, 0, 0), ENOSYS);
}

static void other_abis_do_not_exist(void **state)
{
	for (int nr = 0; nr < 500; nr++) {
		assert_int_equal(ask(AUDIT_ARCH_I386, nr, 0, 0, 0), ENOSYS);
#if defined(__x86_64__)
		assert_int_equal(ask(ARCH, nr | 0x40000000, 0, 0, 0), ENOSYS);
#endif
	}
}

static void clone_makes_no_namespace(void **state)
{
	static const uint64_t bits[] = {CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
					CLONE_NEWUSER, CLONE_NEWPID,	CLONE_NEWNET};

	assert_int_equal(ASK(clone, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, 0, 0), ALLOWED);
	assert_int_equal(ASK(clone, 17 /* SIGCHLD */, 0, 0), ALLOWED);
	for (size_t i = 0; i < 7; i++) {
		assert_int_equal(ASK(clone, bits[i] | 17, 0, 0), EPERM);
		assert_int_equal(ASK(clone, bits[i] | HIGH, 0, 0), EPERM);
		assert_int_equal(ASK(clone, bits[i] | CLONE_NEWUSER, 0, 0), EPERM);
	}
}

static void ioctls(void **state)
{
	static const uint64_t refused[] = {TIOCSTI, TIOCLINUX, TIOCSETD, TIOCSCTTY};

	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(ASK(ioctl, 0, refused[i], 0), EPERM);
		assert_int_equal(ASK(ioctl, 0, refused[i] | HIGH, 0), EPERM);
		assert_int_equal(ASK(ioctl, 0, refused[i] | (1ULL << 32), 0), EPERM);
	}
	assert_int_equal(ASK(ioctl, 0, TIOCGWINSZ, 0), ALLOWED);
	assert_int_equal(ASK(ioctl, 0, FIONREAD, 0), ALLOWED);
	assert_int_equal(ASK(ioctl, 0, TCGETS, 0), ALLOWED);
}

static int may(uint64_t family, uint64_t type, uint64_t protocol)
{
	return ASK(socket, family, type, protocol);
}

static void sockets(void **state)
{
	static const uint64_t families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

	for (uint64_t f = 0; f < 64; f++) {
		bool known = false;

		for (size_t i = 0; i < 4; i++)
			known |= f == families[i];
		for (uint64_t type = 1; !known && type < 11; type++) {
			assert_int_equal(may(f, type, 0), EAFNOSUPPORT);
			assert_int_equal(may(f | HIGH, type, 0), EAFNOSUPPORT);
		}
	}
	for (size_t i = 1; i < 3; i++) {
		assert_int_equal(may(families[i], SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ALLOWED);
		assert_int_equal(may(families[i], SOCK_DGRAM, 17), ALLOWED);
		assert_int_equal(may(families[i], SOCK_STREAM, 262 /* MPTCP */), EPROTONOSUPPORT);
		assert_int_equal(may(families[i], SOCK_DGRAM, 1 /* ICMP */), EPROTONOSUPPORT);
		assert_int_equal(may(families[i], SOCK_RAW, 255), EPERM);
		assert_int_equal(may(families[i], SOCK_RAW | SOCK_CLOEXEC, 1), EPERM);
	}
	assert_int_equal(may(AF_UNIX, SOCK_SEQPACKET, 0), ALLOWED);
	assert_int_equal(may(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), ALLOWED);
	assert_int_equal(may(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), ALLOWED);
	for (uint64_t protocol = 1; protocol < 24; protocol++)
		assert_int_equal(may(AF_NETLINK, SOCK_RAW, protocol), EPROTONOSUPPORT);
}

static void nodes_and_personality(void **state)
{
	assert_int_equal(ASK(mknodat, 0, 0, S_IFIFO | 0600), ALLOWED);
	assert_int_equal(ASK(mknodat, 0, 0, S_IFCHR | 0600), EPERM);
	assert_int_equal(ASK(mknodat, 0, 0, S_IFBLK), EPERM);
	assert_int_equal(ASK(personality, 0, 0, 0), ALLOWED);
	assert_int_equal(ASK(personality, 0xffffffff, 0, 0), ALLOWED);
	assert_int_equal(ASK(personality, 0x0400000, 0, 0), EPERM); /* READ_IMPLIES_EXEC */
	assert_int_equal(ASK(personality, 0x0040000, 0, 0), EPERM); /* ADDR_NO_RANDOMIZE */
	assert_int_equal(ASK(personality, 0x0040001, 0, 0), EPERM);
}

static void the_limit_of_cores_stays(void **state)
{
	static const uint64_t pointers[] = {0x7ffc00001000, 0x7ffc00001001, 1, 0x100000000};

	for (uint64_t resource = 0; resource < RLIM_NLIMITS; resource++) {
		int changed = resource == RLIMIT_CORE ? SECCOMP_PRETEND : ALLOWED;
		int swapped = resource == RLIMIT_CORE ? EPERM : ALLOWED;

		assert_int_equal(ASK(getrlimit, resource, 1, 0), ALLOWED);
		for (size_t i = 0; i < 4; i++) {
			uint64_t p = pointers[i];

			assert_int_equal(ASK(setrlimit, resource, p, 0), changed);
			assert_int_equal(ASK(setrlimit, resource | HIGH, p, 0), changed);
			assert_int_equal(ask4(ARCH, SYS_prlimit64, 0, resource, 0, p), ALLOWED);
			assert_int_equal(ask4(ARCH, SYS_prlimit64, 0, resource, p, 0), changed);
			assert_int_equal(ask4(ARCH, SYS_prlimit64, 0, resource | HIGH, p, 0), changed);
			assert_int_equal(ask4(ARCH, SYS_prlimit64, 7, resource, p, p), swapped);
			assert_int_equal(ask4(ARCH, SYS_prlimit64, 7, resource | 1ULL << 32, p, p), swapped);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(lists),
	    cmocka_unit_test(unknown_calls_do_not_exist),
	    cmocka_unit_test(other_abis_do_not_exist),
	    cmocka_unit_test(clone_makes_no_namespace),
	    cmocka_unit_test(ioctls),
	    cmocka_unit_test(sockets),
	    cmocka_unit_test(nodes_and_personality),
	    cmocka_unit_test(the_limit_of_cores_stays),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
