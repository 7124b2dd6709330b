/* Starting for real: exit statuses, signals, walls that an image cannot move, and that a failed start leaves nothing.
 * Needs root for id ranges; skipped otherwise. The wider proof is tests/battery. */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/sandbox.h"
#include "sandbox/skeleton.h"

#define ID_BASE 1800000000U
#define DEADLINE_MS 60000

static char folder[] = "/var/tmp/test-sandbox-XXXXXX";
static int dir = -1;
static struct sandbox_sources src;

static int setup(void **state)
{
	struct err err = ERR_INIT;

	cgroup_set_tree("spaced-test-start");
	if (geteuid() != 0)
		return 0;
	if (!mkdtemp(folder) || chmod(folder, 0755) < 0)
		return -1;
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mkdirat(dir, "skeleton", 0755) < 0 || mkdirat(dir, "layer", 0755) < 0 ||
	    mkdirat(dir, "layer/root", 0755) < 0 || mkdirat(dir, "top", 0755) < 0)
		return -1;
	cleanup_close int skeleton = openat(dir, "skeleton", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (skeleton_build(SKELETON_HOST, skeleton, &err) < 0 ||
	    (!sandbox_has_idmaps() && skeleton_shift(skeleton, ID_BASE, &err) < 0))
		return -1;
	src = (struct sandbox_sources){.top = -1, .netns = -1, .idmap = true};
	src.base_usr = open("/usr", O_PATH | O_CLOEXEC);
	src.skeleton = openat(dir, "skeleton", O_PATH | O_CLOEXEC);
	src.layers[0] = openat(dir, "layer", O_PATH | O_CLOEXEC);
	return 0;
}

static int teardown(void **state)
{
	const char *slash = strrchr(folder, '/');

	if (dir >= 0)
		io_remove_tree(AT_FDCWD, folder);
	return slash ? 0 : -1;
}

static struct sandbox_spec spec_of(char **argv)
{
	static char path[] = "PATH=/usr/bin:/bin", *env[] = {path, NULL};
	struct sandbox_spec s = {.id_base = ID_BASE, .uid = 1000, .gid = 1000, .argv = argv, .env = env};

	snprintf(s.name, sizeof s.name, "test-%d", getpid());
	return s;
}

static int start(const struct sandbox_spec *s, struct sandbox *box, int out, struct err *err)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const int stdio[3] = {null, out >= 0 ? out : null, null};

	*err = ERR_INIT;
	return sandbox_start(s, &src, stdio, box, err);
}

/* Waits for the end; the wait status that pid 1 has reported. */
static int finish(struct sandbox *box)
{
	struct err err;
	int status = -1;

	assert_int_equal(io_read_full(box->status_pipe, &status, sizeof status), 0);
	assert_int_equal(waitpid(box->init, NULL, 0), box->init);
	assert_int_equal(cgroup_host()->kill(&box->cgroup, DEADLINE_MS, &err), 0);
	assert_int_equal(cgroup_host()->remove(&box->cgroup, &err), 0);
	sandbox_release(box);
	return status;
}

static int run(char **argv)
{
	struct sandbox_spec s = spec_of(argv);
	struct sandbox box;
	struct err err;

	if (start(&s, &box, -1, &err) < 0)
		fail_msg("%s", err.msg);
	return finish(&box);
}

static void need_root(void)
{
	if (geteuid() != 0)
		skip();
}

static void exit_statuses(void **state)
{
	char *ok[] = {"true", NULL}, *seven[] = {"sh", "-c", "exit 7", NULL},
	     *killed[] = {"sh", "-c", "kill -9 $$", NULL};

	need_root();
	assert_int_equal(run(ok), 0);
	assert_int_equal(WEXITSTATUS(run(seven)), 7);
	assert_int_equal(WTERMSIG(run(killed)), SIGKILL);
}

/* As the kernel wants it for a pipe of kernel.core_pattern; what an app sets has no effect. Also where the caller may have no
 * cores at all, if it may change that (CAP_SYS_RESOURCE). */
static void the_limit_of_cores_is_one(void **state)
{
	static const char script[] = "test $(grep -c 'Max core file size  *1  *1 ' /proc/self/limits) = 1";
	char both[200];
	char *argv[] = {"sh", "-c", both, NULL};

	need_root();
	snprintf(both, sizeof both, "%s && ulimit -c 0 && ulimit -Sc 0 && %s", script, script);
	assert_int_equal(run(argv), 0);
	pid_t pid = fork();
	if (pid == 0) {
		const struct rlimit none = {0, 0}, one = {1, 1};
		bool may = setrlimit(RLIMIT_CORE, &none) == 0 && setrlimit(RLIMIT_CORE, &one) == 0;

		_exit(setrlimit(RLIMIT_CORE, &none) < 0 || (may && run(argv) != 0));
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void signals_are_handed_on(void **state)
{
	char *argv[] = {"sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done", NULL};
	struct sandbox_spec s = spec_of(argv);
	struct sandbox box;
	struct err err;
	int out[2];
	char byte;

	need_root();
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(start(&s, &box, out[1], &err), 0);
	close(out[1]);
	assert_int_equal(read(out[0], &byte, 1), 1);
	assert_int_equal(syscall(SYS_pidfd_send_signal, box.pidfd, SIGTERM, NULL, 0), 0);
	assert_int_equal(WEXITSTATUS(finish(&box)), 9);
	close(out[0]);
}

static void all_of_it_ends_with_the_main_process(void **state)
{
	char *argv[] = {"sh", "-c", "(trap '' TERM HUP; sleep 1000) & exit 0", NULL};

	need_root();
	assert_int_equal(run(argv), 0); /* finish() removes the group, which must be empty */
}

static size_t children(void)
{
	cleanup_buf struct buf b = BUF_INIT;
	char path[64];

	snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
	io_read_file(AT_FDCWD, path, 4096, &b);
	return b.len;
}

/* A start that must fail, with `why` in its message, and nothing of it may stay. */
static void fails(struct sandbox_spec *s, const char *why)
{
	struct sandbox box;
	struct cgroup cg;
	struct err err, ignored;

	int before = dup(0);
	close(before);
	bool made = src.shell;
	assert_int_equal(start(s, &box, -1, &err), strncmp(why, "exec", 4) == 0 ? SANDBOX_NO_PROGRAM : -1);
	if (!strstr(err.msg, why))
		fail_msg("`%s` does not say `%s`", err.msg, why);
	int after = dup(0);
	close(after);
	if (!made)
		assert_int_equal(after, before);
	assert_int_equal(children(), 0);
	if (cgroup_host()->kind != CGROUP_NONE)
		assert_int_equal(cgroup_host()->open(s->name, &cg, &ignored), -1);
}

static void failures_leave_nothing(void **state)
{
	char *argv[] = {"no-such-program", NULL}, *sh[] = {"sh", NULL}, *data[] = {"/etc/passwd", NULL};
	struct sandbox_spec s = spec_of(argv);

	need_root();
	fails(&s, "exec `no-such-program`: No such file");
	s.argv = data;
	fails(&s, "exec `/etc/passwd`: Permission denied");
	s.argv = sh;
	s.cwd = (char[]){"/nowhere"};
	fails(&s, "working folder `/nowhere`");
	s.cwd = NULL;
	s.name[0] = '/';
	assert_int_equal(sandbox_name_ok(s.name), 0);
}

static void cwd_through_descriptors(void **state)
{
	static const char *const paths[] = {"/proc/self/fd/5", "/proc/1/cwd", "/proc/1/root"};
	char *sh[] = {"sh", NULL};

	need_root();
	for (size_t i = 0; i < 3; i++) {
		struct sandbox_spec s = spec_of(sh);
		char path[64];

		snprintf(path, sizeof path, "%s", paths[i]);
		s.cwd = path;
		fails(&s, "working folder"); /* A10, CVE-2024-21626 */
	}
}

static void image_cannot_move_the_walls(void **state)
{
	static const char *const names[] = {"proc", "dev", "tmp", "usr", "run"};
	static const char *const targets[] = {"/", "../../etc", "/app"};
	char *ok[] = {"true", NULL};

	need_root();
	for (size_t i = 0; i < 5; i++) {
		for (size_t k = 0; k < 3; k++) {
			struct sandbox_spec s = spec_of(ok);
			char path[64];

			snprintf(path, sizeof path, "layer/root/%s", names[i]);
			assert_int_equal(symlinkat(targets[k], dir, path), 0);
			s.layers[0] = (char[]){"layer"};
			s.nlayers = 1;
			fails(&s, "is not a folder"); /* A2, A4 */
			assert_int_equal(unlinkat(dir, path, 0), 0);
		}
	}
}

static void bind_follows_links_only_inside(void **state)
{
	char *argv[] = {"test", "-e", "/etc/bound/here", NULL};
	struct sandbox_spec s = spec_of(argv);
	struct sandbox box;
	struct err err;

	need_root();
	/* `/link -> /etc` is the image's own /etc, never the host's. */
	assert_int_equal(symlinkat("/etc", dir, "layer/root/link"), 0);
	assert_int_equal(mkdirat(dir, "source", 0755), 0);
	close(openat(dir, "source/here", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	s.layers[0] = (char[]){"layer"};
	s.nlayers = 1;
	s.binds[0] = (struct sandbox_bind){.volume = (char[]){"source"}, .target = (char[]){"/link/bound"}};
	s.nbinds = 1;
	src.binds[0] = openat(dir, "source", O_PATH | O_CLOEXEC);
	if (start(&s, &box, -1, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(finish(&box), 0);
	assert_int_equal(access("/etc/bound", F_OK), -1);
	close(src.binds[0]);
	assert_int_equal(unlinkat(dir, "layer/root/link", 0), 0);
}

static void top_keeps_what_is_written(void **state)
{
	char *argv[] = {"sh", "-c", "echo kept >/app/file", NULL};
	struct sandbox_spec s = spec_of(argv);
	struct sandbox box;
	struct err err;
	struct stat st;

	need_root();
	src.top = openat(dir, "top", O_PATH | O_CLOEXEC);
	int rc = start(&s, &box, -1, &err);
	close(src.top);
	src.top = -1;
	if (!sandbox_has_idmaps()) { /* then it is said, and no file of the host gets an owner that is wrong */
		assert_int_equal(rc, -1);
		assert_int_equal(err.code, ENOSYS);
		assert_non_null(strstr(err.msg, "mount_setattr(2)"));
		return;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(finish(&box), 0);
	/* Ids on disk are ids inside: C9. */
	assert_int_equal(fstatat(dir, "top/root/app/file", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(st.st_size, 5);
}

/* Else all sandboxes and the host's root would share one count of inotify instances, queued signals, ... */
static void is_counted_for_itself(void **state)
{
	char *argv[] = {"sleep", "1000", NULL};
	struct sandbox_spec s = spec_of(argv);
	cleanup_buf struct buf score = BUF_INIT;
	struct sandbox box;
	struct err err;
	char path[64];
	uid_t owner = 0;

	need_root();
	if (start(&s, &box, -1, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(geteuid(), 0);
	snprintf(path, sizeof path, "/proc/%d/ns/user", box.init);
	cleanup_close int userns = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(ioctl(userns, NS_GET_OWNER_UID, &owner), 0);
	assert_int_equal(owner, s.id_base);
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", box.init);
	assert_int_equal(io_read_file(AT_FDCWD, path, 64, &score), 0);
	assert_string_equal(score.data, "500\n");
	assert_int_equal(syscall(SYS_pidfd_send_signal, box.pidfd, SIGKILL, NULL, 0), 0);
	waitpid(box.init, NULL, 0);
	assert_int_equal(cgroup_host()->remove(&box.cgroup, &err), 0);
	sandbox_release(&box);
}

static void memory_limit(void **state)
{
	char *argv[] = {"perl", "-e", "$x = 'x' x 200_000_000; sleep 1000", NULL};
	struct sandbox_spec s = spec_of(argv);
	struct cgroup_stats stats;
	struct sandbox box;
	struct err err;
	int status = -1;

	need_root();
	if (cgroup_host()->kind == CGROUP_NONE)
		skip();
	s.limits.memory = 64 << 20;
	assert_int_equal(start(&s, &box, -1, &err), 0);
	/* with cgroup v2 the whole group goes, pid 1 that would report too */
	if (io_read_full(box.status_pipe, &status, sizeof status) == 0)
		assert_int_equal(WTERMSIG(status), SIGKILL);
	assert_int_equal(cgroup_host()->stats(&box.cgroup, &stats, &err), 0);
	assert_true(stats.oom_kills > 0);
	waitpid(box.init, NULL, 0);
	assert_int_equal(cgroup_host()->remove(&box.cgroup, &err), 0);
	sandbox_release(&box);
}

/* Battery I1: what is frozen must still be killable, and a thawed one goes on. */
static void freeze_thaw_kill(void **state)
{
	char *argv[] = {"sh", "-c", "while :; do echo tick; sleep 0.01; done", NULL};
	struct sandbox_spec s = spec_of(argv);
	struct sandbox box;
	struct err err;
	int out[2], status;
	char byte;

	need_root();
	if (cgroup_host()->kind == CGROUP_NONE)
		skip();
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(start(&s, &box, out[1], &err), 0);
	close(out[1]);
	assert_int_equal(read(out[0], &byte, 1), 1);
	if (cgroup_host()->freeze(&box.cgroup, DEADLINE_MS, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(cgroup_host()->thaw(&box.cgroup, &err), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(read(out[0], &byte, 1), 1);
	assert_int_equal(cgroup_host()->freeze(&box.cgroup, DEADLINE_MS, &err), 0);
	assert_int_equal(cgroup_host()->kill(&box.cgroup, DEADLINE_MS, &err), 0);
	assert_int_equal(waitpid(box.init, &status, 0), box.init);
	assert_int_equal(cgroup_host()->remove(&box.cgroup, &err), 0);
	sandbox_release(&box);
	close(out[0]);
}

static struct sandbox_shell *shell_of(const struct sandbox_spec *s)
{
	struct err err = ERR_INIT;
	struct sandbox_shell *shell = sandbox_shell_make(s->name, s->profile, s->id_base, &src, &err);

	if (!shell && err.code != ENOTSUP)
		fail_msg("%s", err.msg);
	return shell;
}

/* Made for `s`, hit by a signal, started with `spec`. */
static void shell_fails(const struct sandbox_spec *s, struct sandbox_spec *spec, int signo, const char *why)
{
	struct sandbox_shell *shell = shell_of(s);

	src.shell = shell;
	if (signo)
		assert_int_equal(syscall(SYS_pidfd_send_signal, sandbox_shell_pidfd(shell), signo, NULL, 0), 0);
	fails(spec, why);
	src.shell = NULL;
}

/* Made ahead, it is no other sandbox; and what cannot be made of it leaves nothing either. */
static void made_ahead(void **state)
{
	char *argv[] = {"sh", "-c",
			"test $(hostname) = it && test $(id -u) = 1000 && echo x | tee /dev/shm/x /tmp/x /run/x", NULL};
	char *nothing[] = {"no-such-program", NULL};
	struct sandbox_spec s = spec_of(argv);
	struct sandbox box;
	struct err err;

	need_root();
	s.hostname = (char[]){"it"};
	if (!(src.shell = shell_of(&s)))
		skip();
	int rc = start(&s, &box, -1, &err);
	src.shell = NULL;
	if (rc < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(finish(&box), 0);

	/* made of another base, of which nothing may be seen */
	cleanup_close int elsewhere = open("/etc", O_PATH | O_CLOEXEC);
	int usr = src.base_usr;
	src.base_usr = elsewhere;
	src.shell = shell_of(&s);
	src.base_usr = usr;
	rc = start(&s, &box, -1, &err);
	src.shell = NULL;
	if (rc < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(finish(&box), 0);

	struct sandbox_spec other = s;
	other.id_base += SANDBOX_IDS;
	shell_fails(&s, &other, 0, "made ahead for something else");
	other = s;
	other.profile = SANDBOX_BUILD_ROOT;
	shell_fails(&s, &other, 0, "made ahead for something else");
	other = s;
	other.argv = nothing;
	shell_fails(&s, &other, 0, "exec `no-such-program`: No such file");
	shell_fails(&s, &s, SIGKILL, "");
}

/* Without anybody's use of it, and when who has made it is killed. */
static void made_for_nothing(void **state)
{
	struct sandbox_spec s = spec_of(NULL);
	struct sandbox_shell *shell;
	struct cgroup cg;
	struct err err;

	need_root();
	if (!(shell = shell_of(&s)))
		skip();
	sandbox_shell_free(shell);
	assert_int_equal(children(), 0);
	assert_int_equal(cgroup_host()->open(s.name, &cg, &err), -1);
	pid_t maker = fork();
	if (maker == 0) {
		if (shell_of(&s))
			kill(getpid(), SIGKILL);
		_exit(1);
	}
	int status;
	assert_int_equal(waitpid(maker, &status, 0), maker);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(cgroup_host()->open(s.name, &cg, &err), 0);
	uint64_t end = io_now_ms() + DEADLINE_MS;
	int rc;
	while ((rc = cgroup_host()->remove(&cg, &err)) < 0 && io_now_ms() < end)
		poll(NULL, 0, 10);
	assert_int_equal(rc, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(exit_statuses),
	    cmocka_unit_test(the_limit_of_cores_is_one),
	    cmocka_unit_test(signals_are_handed_on),
	    cmocka_unit_test(all_of_it_ends_with_the_main_process),
	    cmocka_unit_test(failures_leave_nothing),
	    cmocka_unit_test(cwd_through_descriptors),
	    cmocka_unit_test(image_cannot_move_the_walls),
	    cmocka_unit_test(bind_follows_links_only_inside),
	    cmocka_unit_test(top_keeps_what_is_written),
	    cmocka_unit_test(is_counted_for_itself),
	    cmocka_unit_test(memory_limit),
	    cmocka_unit_test(freeze_thaw_kill),
	    cmocka_unit_test(made_ahead),
	    cmocka_unit_test(made_for_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
