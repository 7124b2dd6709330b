/* Takes system calls away from a program, as an older kernel does: `shim legacy-mount|no-openat2 COMMAND...` answers
 * them with ENOSYS, by a seccomp filter, in the command and all that it starts. For the fallbacks of the launcher, which
 * would otherwise be dead code on every kernel that the tests run on. Needs root (no no_new_privs: the program may
 * drop to rootless by itself). */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	unsigned calls[8]; /* 0 ends them: read(2) is not taken from anybody */
} sets[] = {
    {"legacy-mount",
     {SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr}},
    {"no-openat2", {SYS_openat2}},
};

int main(int argc, char **argv)
{
	struct sock_filter code[32];
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; argc > 2 && i < sizeof sets / sizeof *sets; i++)
		for (size_t k = 0; strcmp(argv[1], sets[i].name) == 0 && sets[i].calls[k]; k++) {
			code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, sets[i].calls[k], 0, 1);
			code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
		}
	if (n == 1) {
		fprintf(stderr, "usage: shim legacy-mount|no-openat2 COMMAND...\n");
		return 2;
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {.len = n, .filter = code};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) {
		perror("shim: seccomp");
		return 126;
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 127;
}
