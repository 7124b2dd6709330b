/* Landlock: a second wall around files, independent of mounts and modes (battery D14): what is not below the new root
 * cannot be opened, and only the folders that belong to the app can be written. landlock(7). */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/contain.h"

#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13) /* ABI 2 */
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14) /* ABI 3 */
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15) /* ABI 5 */
#endif
#define SCOPES 3ULL /* ABI 6: abstract Unix sockets, signals */

#define FS_READ (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_DEVICES (LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)
#define FS_ON_FILE                                                                                                     \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE |                   \
	 LANDLOCK_ACCESS_FS_TRUNCATE | LANDLOCK_ACCESS_FS_IOCTL_DEV)

/* As of ABI 6; the headers of the build host may know less than the kernel that runs. */
struct ruleset {
	__u64 fs, net, scoped;
};

/* What uid 1000 owns, or may write by mode. Not /proc: a launcher without CAP_SYS_RESOURCE cannot set a floor for
 * oom_score_adj (B10), and nothing else in there is an app's to write. */
static const char *const writable[] = {"/app", "/data", "/dev", "/home", "/opt/venv", "/run", "/tmp", "/var"};

/* Asked once, by the launcher before it clones: were a child to ask and get no answer, it would go on without. */
int landlock_abi(void)
{
	static long abi = -1;

	if (abi < 0)
		abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	abi = abi < 0 ? 0 : abi;
	return (int)abi;
}

static __u64 all_of(int abi)
{
	__u64 all = (1ULL << 13) - 1;

	if (abi >= 2)
		all |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		all |= LANDLOCK_ACCESS_FS_TRUNCATE;
	if (abi >= 5)
		all |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
	return all;
}

static int add_fd(int ruleset, int fd, __u64 access, struct err *err)
{
	struct landlock_path_beneath_attr rule = {.parent_fd = fd};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, errno, "landlock rule");
	rule.allowed_access = S_ISDIR(st.st_mode) ? access : access & FS_ON_FILE;
	/* EBADFD: a memfd or another file of a kernel-internal mount, which Landlock never restricts */
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0 && errno != EBADFD)
		return err_set(err, errno, "landlock rule");
	return 0;
}

static int add_path(int ruleset, const char *path, __u64 access, struct err *err)
{
	cleanup_close int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT || errno == EACCES ? 0 : err_set(err, errno, "open `%s`", path);
	return add_fd(ruleset, fd, access, err) < 0 ? err_prefix(err, "%s", path) : 0;
}

static int add_rules(struct contain *c, int ruleset, __u64 all, struct err *err)
{
	const struct sandbox_spec *s = c->spec;
	__u64 write = all & ~(__u64)FS_DEVICES;
	struct stat st;

	if (s->profile == SANDBOX_BUILD_ROOT)
		return add_path(ruleset, "/", write, err);
	if (add_path(ruleset, "/", FS_READ, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof writable / sizeof *writable; i++)
		if (add_path(ruleset, writable[i], write, err) < 0)
			return -1;
	for (size_t i = 0; i < s->nbinds; i++)
		if (s->binds[i].write && add_path(ruleset, s->binds[i].target, write, err) < 0)
			return -1;
	/* A file of the host that was handed on as stdin or stdout may be opened again by /dev/stdout. */
	for (int i = 0; i < 3; i++) {
		if (fstat(c->stdio[i], &st) < 0)
			return err_set(err, errno, "look at stdin, stdout and stderr");
		if ((S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)) &&
		    add_fd(ruleset, c->stdio[i], all & FS_ON_FILE & ~(__u64)LANDLOCK_ACCESS_FS_EXECUTE, err) < 0)
			return -1;
	}
	return 0;
}

/* The kernel does not say whether it restricts us, so it is tried: a block device in a folder that is ours to write is
 * refused to all who lack CAP_MKNOD on the host, but Landlock, which is asked first, says EACCES, and that check EPERM.
 * (A character device would not do: whiteouts pass Landlock on some kernels, Debian's 6.1 among them.) */
static int verify(struct err *err)
{
	static const char probe[] = "/tmp/.landlock";

	if (mknod(probe, S_IFBLK | 0600, 0) == 0) {
		unlink(probe);
		return err_set(err, EPERM, "Landlock does not restrict");
	}
	if (errno == EPERM)
		return err_set(err, EPERM, "Landlock does not restrict");
	return errno == EACCES ? 0 : err_set(err, errno, "try Landlock");
}

int landlock_apply(struct contain *c, struct err *err)
{
	int abi = landlock_abi();
	__u64 all = all_of(abi);
	struct ruleset attr = {.fs = all, .scoped = abi >= 6 ? SCOPES : 0};

	if (abi == 0)
		return 0; /* sandbox_probe() reports it */
	size_t size = abi >= 6 ? sizeof attr : abi >= 4 ? 2 * sizeof(__u64) : sizeof(__u64);
	cleanup_close int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (ruleset < 0)
		return err_set(err, errno, "landlock ruleset");
	if (add_rules(c, ruleset, all, err) < 0)
		return -1;
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return err_set(err, errno, "landlock restrict");
	return verify(err);
}
