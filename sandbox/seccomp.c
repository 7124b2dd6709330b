/* The filter: compiled from the profile once per process by libseccomp, kept as BPF, loaded with one system call.
 * Native ABI only: i386 and x32 calls do not exist (ENOSYS), which closes socketcall as well (battery D2). */
#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/contain.h"
#include "sandbox/seccomp_profile.h"

#define ABSENT SCMP_ACT_ERRNO(ENOSYS)
#define MAX_INSTRUCTIONS 4096

/* A call that this libseccomp or this machine does not know stays under the default. */
static int add_names(scmp_filter_ctx ctx, uint32_t action, const char *const *names, struct err *err)
{
	for (; *names; names++) {
		int nr = seccomp_syscall_resolve_name(*names);

		if (nr < 0)
			continue;
		int rc = seccomp_rule_add(ctx, action, nr, 0);
		if (rc < 0)
			return err_set(err, -rc, "seccomp rule for %s", *names);
	}
	return 0;
}

static int add_rules(scmp_filter_ctx ctx, struct err *err)
{
	for (const struct seccomp_rule *r = seccomp_rules; r->name; r++) {
		struct scmp_arg_cmp args[3];
		unsigned n = 0;
		int nr = seccomp_syscall_resolve_name(r->name);

		if (nr < 0)
			continue;
		for (; n < 3 && r->args[n].mask; n++)
			args[n] = (struct scmp_arg_cmp){r->args[n].arg, SCMP_CMP_MASKED_EQ, r->args[n].mask,
							r->args[n].value};
		int rc = seccomp_rule_add_array(ctx, r->refuse ? SCMP_ACT_ERRNO((unsigned)r->refuse) : SCMP_ACT_ALLOW,
						nr, n, args);
		if (rc < 0)
			return err_set(err, -rc, "seccomp rule for %s", r->name);
	}
	return 0;
}

/* libseccomp writes BPF only to a descriptor. */
static int export_bpf(scmp_filter_ctx ctx, struct sock_fprog *out, struct err *err)
{
	cleanup_close int fd = memfd_create("seccomp", MFD_CLOEXEC);
	int rc = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
	off_t size = rc < 0 ? 0 : lseek(fd, 0, SEEK_END);

	if (rc < 0 || size <= 0 || size % (off_t)sizeof(struct sock_filter) != 0 ||
	    size / (off_t)sizeof(struct sock_filter) > MAX_INSTRUCTIONS)
		return err_set(err, rc < 0 ? -rc : EIO, "export the seccomp filter");
	struct sock_filter *code = xmalloc((size_t)size);
	if (lseek(fd, 0, SEEK_SET) < 0 || io_read_full(fd, code, (size_t)size) < 0) {
		free(code);
		return err_set(err, EIO, "read the seccomp filter");
	}
	*out = (struct sock_fprog){.len = (unsigned short)((size_t)size / sizeof *code), .filter = code};
	return 0;
}

const struct sock_fprog *seccomp_filter(struct err *err)
{
	static struct sock_fprog program;
	int rc = -1;

	if (program.filter)
		return &program;
	scmp_filter_ctx ctx = seccomp_init(ABSENT);
	if (!ctx) {
		err_set(err, ENOMEM, "seccomp filter");
		return NULL;
	}
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, ABSENT);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* binary tree */
	if (add_names(ctx, SCMP_ACT_ALLOW, seccomp_allowed, err) == 0 &&
	    add_names(ctx, SCMP_ACT_ERRNO(EPERM), seccomp_refused, err) == 0 && add_rules(ctx, err) == 0)
		rc = export_bpf(ctx, &program, err);
	seccomp_release(ctx);
	return rc < 0 ? NULL : &program;
}

int seccomp_apply(struct contain *c, struct err *err)
{
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, c->filter) < 0)
		return err_set(err, errno, "load the filter");
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_FILTER)
		return err_set(err, EPERM, "the filter is not active");
	return 0;
}
