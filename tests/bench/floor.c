/* See floor.h. */
#include "tests/bench/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/frame.h"

#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static int attributes(int fd, unsigned set, int userns)
{
	struct mount_attr attr = {.attr_set = set, .userns_fd = userns < 0 ? 0 : (__u64)userns};

	return mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr);
}

static int filesystem(const char *type, const char *const options[][2], unsigned attr)
{
	int fs = fsopen(type, FSOPEN_CLOEXEC);

	for (; (*options)[0]; options++)
		if (fsconfig(fs, (*options)[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, (*options)[0], (*options)[1],
			     0) < 0)
			return -1;
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	int fd = fsmount(fs, FSMOUNT_CLOEXEC, attr);
	close(fs);
	return fd;
}

static int tmpfs(uint64_t size, unsigned mode)
{
	char text[2][32];

	snprintf(text[0], sizeof text[0], "%llu", (unsigned long long)size);
	snprintf(text[1], sizeof text[1], "%o", mode);
	return filesystem("tmpfs", (const char *const[][2]){{"size", text[0]}, {"mode", text[1]}, {NULL, NULL}}, SAFE);
}

static int move(int fd, int dir, const char *path)
{
	int rc = move_mount(fd, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH);

	close(fd);
	return rc;
}

static int overlay(const struct plan_step *s)
{
	return filesystem("overlay",
			  *s->upper
			      ? (const char *const[][2]){{"lowerdir", s->text},
							 {"userxattr", NULL},
							 {"upperdir", s->upper},
							 {"workdir", s->work},
							 {NULL, NULL}}
			      : (const char *const[][2]){{"lowerdir", s->text}, {"userxattr", NULL}, {NULL, NULL}},
			  SAFE);
}

static int bind_over(int root, const char *from, const char *path, unsigned attr)
{
	int fd = open_tree(*from == '/' ? AT_FDCWD : root, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	return fd < 0 || attributes(fd, attr, -1) < 0 ? -1 : move(fd, root, path);
}

static int mask(int root, const char *path)
{
	struct stat st;

	if (fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		return bind_over(root, "/dev/null", path, SAFE);
	int fd = tmpfs(4096, 0555);
	return attributes(fd, MOUNT_ATTR_RDONLY, -1) < 0 ? -1 : move(fd, root, path);
}

static int step(const struct plan_step *s, const int *mounts, int *root)
{
	const char *in = s->target + (*s->target == '/');

	switch (s->op) {
	case PLAN_STAGE:
		return mkdir(s->target, 0755) < 0 ? -1 : move(mounts[s->mount], AT_FDCWD, s->target);
	case PLAN_FOLDER:
		return mkdir(s->target, 0755);
	case PLAN_POOL:
		return mkdir(s->target, 0755) < 0 ? -1 : move(tmpfs(s->size, 0755), AT_FDCWD, s->target);
	case PLAN_OVERLAY:
		if (move(overlay(s), AT_FDCWD, s->target) < 0)
			return -1;
		*root = *root < 0 ? open(s->target, O_PATH | O_CLOEXEC) : *root;
		return 0;
	case PLAN_MOVE:
		mkdirat(*root, in, 0755);
		return move(open(in, O_PATH | O_CLOEXEC), *root, in);
	case PLAN_ATTACH:
		mkdirat(*root, in, 0755);
		return move(mounts[s->mount], *root, in);
	case PLAN_TMPFS:
		mkdirat(*root, in, 0755);
		return move(tmpfs(s->size, s->mode), *root, in);
	case PLAN_DEVICE:
		close(openat(*root, in, O_CREAT | O_WRONLY | O_CLOEXEC, 0444));
		return bind_over(*root, s->target, in, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	case PLAN_DEVPTS:
		mkdirat(*root, in, 0755);
		return move(filesystem("devpts",
				       (const char *const[][2]){
					   {"newinstance", NULL}, {"ptmxmode", "0666"}, {"mode", "0620"}, {NULL, NULL}},
				       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
			    *root, in);
	case PLAN_PROC:
		mkdirat(*root, in, 0755);
		return move(filesystem("proc", (const char *const[][2]){{"hidepid", "invisible"}, {NULL, NULL}},
				       SAFE | MOUNT_ATTR_NOEXEC),
			    *root, in);
	case PLAN_OWNER:
		return fchownat(*root, in, s->owner, s->group, 0);
	case PLAN_SYMLINK:
		return symlinkat(s->text, *root, in);
	case PLAN_EMPTY:
		return 0;
	case PLAN_MASK:
		return mask(*root, in);
	case PLAN_FREEZE:
		return bind_over(*root, in, in, MOUNT_ATTR_RDONLY) < 0 && errno != ENOENT ? -1 : 0;
	}
	return -1;
}

_Noreturn static void child(const struct sandbox_spec *spec, const struct plan *plan, int sock)
{
	int root = -1, old = open("/", O_PATH | O_CLOEXEC);
	static struct plan ahead;
	struct frame mounts;

	if (frame_recv(sock, &mounts) != 1 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		_exit(101);
	int staging = tmpfs(1 << 20, 0700);
	if (move_mount(staging, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(staging) < 0)
		_exit(102);
	umask(0);
	plan_ahead(false, &ahead);
	for (size_t i = 0; i < ahead.nsteps; i++)
		if (step(&ahead.steps[i], mounts.fds, &staging) < 0)
			_exit(103);
	for (size_t i = 0; i < plan->nsteps; i++)
		if (step(&plan->steps[i], mounts.fds, &root) < 0)
			_exit(103);
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || fchdir(old) < 0 ||
	    umount2(".", MNT_DETACH) < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		_exit(104);
	execve(spec->argv[0], spec->argv, spec->env);
	_exit(105);
}

static int write_map(pid_t pid, const char *file, uint32_t base)
{
	char path[64], text[64];
	int n = snprintf(text, sizeof text, "0 %u %u\n", base, SANDBOX_IDS);

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = write(fd, text, (size_t)n) == n ? 0 : -1;
	close(fd);
	return rc;
}

static int provide(pid_t pid, const struct sandbox_spec *spec, const struct sandbox_sources *src,
		   const struct plan *plan, int sock)
{
	int mounts[PLAN_MAX_MOUNTS] = {0}, rc = 0;
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
	if (write_map(pid, "uid_map", spec->id_base) < 0 || write_map(pid, "gid_map", spec->id_base) < 0)
		return -1;
	int userns = open(path, O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < plan->nmounts && rc == 0; i++) {
		int from = plan->mounts[i].source == PLAN_BASE_USR ? src->base_usr : src->skeleton;

		mounts[i] = open_tree(from, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
		rc = attributes(mounts[i], SAFE | MOUNT_ATTR_RDONLY | MOUNT_ATTR_IDMAP, userns);
	}
	close(userns);
	if (rc == 0)
		rc = frame_send(sock, 1, 0, NULL, 0, mounts, (int)plan->nmounts);
	for (size_t i = 0; i < plan->nmounts; i++)
		close(mounts[i]);
	return rc;
}

int floor_run(const struct sandbox_spec *spec, const struct sandbox_sources *src, const struct plan *plan)
{
	struct clone_args args = {.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
					   CLONE_NEWCGROUP | (src->netns < 0 ? CLONE_NEWNET : 0),
				  .exit_signal = SIGCHLD};
	int pair[2], home = -1, status = -1;

	if (frame_pair(pair) < 0)
		return -1;
	if (src->netns >= 0 &&
	    ((home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) < 0 || setns(src->netns, CLONE_NEWNET) < 0))
		return -1;
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid == 0)
		child(spec, plan, pair[0]);
	if (home >= 0 && setns(home, CLONE_NEWNET) < 0)
		abort();
	if (home >= 0)
		close(home);
	if (pid > 0 && provide(pid, spec, src, plan, pair[1]) < 0)
		kill(pid, SIGKILL);
	if (pid > 0 && waitpid(pid, &status, 0) < 0)
		status = -1;
	close(pair[0]);
	close(pair[1]);
	errno = WIFEXITED(status) && WEXITSTATUS(status) > 100 ? WEXITSTATUS(status) : ECHILD;
	return status == 0 ? 0 : -1;
}
