/* The measuring half of tests/bench/start.py, which says what to do next on stdin, one line each, and reads one number of
 * nanoseconds (or more) per line on stdout. It keeps what a spawner keeps ready: the skeleton, the compiled filter, network
 * namespaces with `lo` up. Each row is one start of /usr/bin/true, from nothing until it has ended and is reaped.
 *
 *   floor | floor-pool | library | library-pool      floor.h; sandbox_start(); with a fresh or a ready network namespace
 *   shell                                            sandbox_start() of a shell that was made before the clock started
 *   batch | batch-shell                              starts back to back, making and removing included: ns for each
 *   run ARGUMENT...                                  another program, its words separated by tabs
 *   mounts PID                                       it is run in the mount namespace of that process; 0: in ours
 *   freeze                                           freeze and thaw, through the ops table
 *   spawner-start | spawner-freeze                   the same by the spawner's verbs
 *   syscalls | messages | blocks | files | tar | cpu  a batch of work inside, outside, outside behind one instruction
 *   names                                            the system calls that our filter lets through, for the others' filters */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/netns.h"
#include "sandbox/sandbox.h"
#include "sandbox/seccomp_profile.h"
#include "sandbox/skeleton.h"
#include "sandbox/spawner.h"
#include "tests/bench/floor.h"
#include "tests/bench/work.h"

#define ID_BASE 1700000000U
#define MIB (1024ULL * 1024)

static struct sandbox_sources src = {.top = -1, .netns = -1, .idmap = true};
static char path_env[] = "PATH=/usr/bin:/bin", *env[] = {path_env, NULL};
static char truth[] = "/usr/bin/true", *true_argv[] = {truth, NULL};
static const char *folder;
static int null;

__attribute__((format(printf, 1, 2))) _Noreturn static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static struct sandbox_spec spec_of(const char *name, char **argv)
{
	struct sandbox_spec s = {.id_base = ID_BASE, .uid = 1000, .gid = 1000, .argv = argv, .env = env};

	s.limits = (struct sandbox_limits){.memory = 512 * MIB, .cpu_milli = 2000, .pids = 64};
	snprintf(s.name, sizeof s.name, "%s-%d", name, getpid());
	return s;
}

static int ready_netns(bool pool)
{
	struct err err = ERR_INIT;
	int fd = pool ? netns_make(&err) : -1;

	if (pool && fd < 0)
		die("%s", err.msg);
	return fd;
}

static void drop_netns(void)
{
	if (src.netns >= 0)
		close(steal_fd(&src.netns));
	src.netns = -1;
}

static void one_floor(bool pool)
{
	struct sandbox_spec s = spec_of("floor", true_argv);
	struct plan_facts facts = {.idmap = true};
	static struct plan plan;
	struct err err = ERR_INIT;

	src.netns = ready_netns(pool);
	if (plan_make(&s, &facts, &plan, &err) < 0)
		die("%s", err.msg);
	uint64_t t = now_ns();
	if (floor_run(&s, &src, &plan) < 0)
		die("floor: %d", errno);
	printf("%llu\n", (unsigned long long)(now_ns() - t));
	drop_netns();
}

static void started(const struct sandbox_spec *s, const int stdio[3], struct sandbox *box)
{
	struct err err = ERR_INIT;

	if (sandbox_start(s, &src, stdio, box, &err) < 0)
		die("%s", err.msg);
}

static void ended(struct sandbox *box)
{
	struct err err = ERR_INIT;

	if (cgroup_host()->kill(&box->cgroup, 5000, &err) < 0 || cgroup_host()->remove(&box->cgroup, &err) < 0)
		die("%s", err.msg);
	sandbox_release(box);
}

/* ns until it is reaped, ns until it was exec'd, ns until its cgroup is gone too. */
static void one_library(bool pool)
{
	struct sandbox_spec s = spec_of("bench", true_argv);
	const int stdio[3] = {null, null, null};
	struct sandbox box;
	int status = -1;

	src.netns = ready_netns(pool);
	uint64_t t = now_ns();
	started(&s, stdio, &box);
	uint64_t exec = now_ns();
	io_read_full(box.status_pipe, &status, sizeof status);
	waitpid(box.init, NULL, 0);
	uint64_t end = now_ns();
	ended(&box);
	if (status != 0)
		die("true ended with %d", status);
	printf("%llu %llu %llu\n", (unsigned long long)(end - t), (unsigned long long)(exec - t),
	       (unsigned long long)(now_ns() - t));
	drop_netns();
}

#define APART_MS 5 /* time between two starts, in which a shell is through with its part */

static void one_shell(void)
{
	struct sandbox_spec s = spec_of("shell", true_argv);
	const int stdio[3] = {null, null, null};
	struct err err = ERR_INIT;
	struct sandbox box;
	int status = -1;

	src.netns = ready_netns(true);
	src.shell = sandbox_shell_make(s.name, s.profile, s.id_base, &src, &err);
	if (!src.shell)
		die("%s", err.msg);
	poll(NULL, 0, APART_MS);
	uint64_t t = now_ns();
	started(&s, stdio, &box);
	src.shell = NULL;
	uint64_t exec = now_ns();
	io_read_full(box.status_pipe, &status, sizeof status);
	waitpid(box.init, NULL, 0);
	uint64_t end = now_ns();
	ended(&box);
	if (status != 0)
		die("true ended with %d", status);
	printf("%llu %llu\n", (unsigned long long)(end - t), (unsigned long long)(exec - t));
	drop_netns();
}

/* Nobody is fooled: what is made ahead takes its time, too. One after the other, all of it counted. */
static void one_batch(bool ahead)
{
	enum { BATCH = 10 };
	const int stdio[3] = {null, null, null};
	uint64_t t = now_ns();

	for (int i = 0; i < BATCH; i++) {
		struct sandbox_spec s = spec_of("batch", true_argv);
		struct err err = ERR_INIT;
		struct sandbox box;
		int status = -1;

		src.netns = ready_netns(true);
		if (ahead && !(src.shell = sandbox_shell_make(s.name, s.profile, s.id_base, &src, &err)))
			die("%s", err.msg);
		started(&s, stdio, &box);
		src.shell = NULL;
		io_read_full(box.status_pipe, &status, sizeof status);
		waitpid(box.init, NULL, 0);
		ended(&box);
		drop_netns();
	}
	printf("%llu\n", (unsigned long long)(now_ns() - t) / BATCH);
}

static int mounts_of(const char *pid)
{
	cleanup_free char *path = xasprintf("/proc/%s/ns/mnt", strcmp(pid, "0") == 0 ? "self" : pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("open `%s`", path);
	return fd;
}

static void one_run(char *line, int mounts)
{
	cleanup_close int home = mounts_of("0");
	posix_spawn_file_actions_t files;
	char *argv[256], *save = NULL;
	int n = 0, status = -1;
	pid_t pid;

	for (char *p = strtok_r(line, "\t", &save); p && n < 255; p = strtok_r(NULL, "\t", &save))
		argv[n++] = p;
	argv[n] = NULL;
	posix_spawn_file_actions_init(&files);
	for (int i = 0; i < 2; i++)
		posix_spawn_file_actions_adddup2(&files, null, i);
	if (mounts >= 0 && setns(mounts, CLONE_NEWNS) < 0)
		die("mount namespace");
	uint64_t t = now_ns();
	if (n == 0 || posix_spawn(&pid, argv[0], &files, NULL, argv, env) != 0 || waitpid(pid, &status, 0) < 0)
		die("run");
	uint64_t end = now_ns();
	posix_spawn_file_actions_destroy(&files);
	if (mounts >= 0 && setns(home, CLONE_NEWNS) < 0)
		die("mount namespace");
	if (status != 0)
		die("%s: wait status %d", argv[0], status);
	printf("%llu\n", (unsigned long long)(end - t));
}

static void names(void)
{
	for (const char *const *n = seccomp_allowed; *n; n++)
		printf("%s ", *n);
	for (const struct seccomp_rule *r = seccomp_rules; r->name; r++)
		if (r == seccomp_rules || strcmp(r->name, r[-1].name) != 0)
			printf("%s ", r->name);
	putchar('\n');
}

/* -- freeze ------------------------------------------------------------------------------------------------------- */

static struct sandbox sleeper = {.init = -1};

static void one_freeze(void)
{
	static char sleeps[] = "sleep", forever[] = "1000000", *argv[] = {sleeps, forever, NULL};
	const int stdio[3] = {null, null, null};
	struct sandbox_spec s = spec_of("frozen", argv);
	struct err err = ERR_INIT;

	if (sleeper.init < 0)
		started(&s, stdio, &sleeper);
	uint64_t t = now_ns();
	if (cgroup_host()->freeze(&sleeper.cgroup, 1000, &err) < 0)
		die("%s", err.msg);
	uint64_t stopped = now_ns();
	if (cgroup_host()->thaw(&sleeper.cgroup, &err) < 0)
		die("%s", err.msg);
	uint64_t end = now_ns();
	printf("%llu %llu\n", (unsigned long long)(stopped - t), (unsigned long long)(end - stopped));
}

/* -- the spawner -------------------------------------------------------------------------------------------------- */

static pid_t spawner;
static int control = -1;
static char app[SANDBOX_NAME_MAX + 1], frozen[SANDBOX_NAME_MAX + 1];

static void spawner_up(void)
{
	cleanup_free char *state = xasprintf("%s/state", folder);
	struct spawner_config c = {.state = state, .id_base = ID_BASE};
	int sv[2];

	if (frame_pair(sv) < 0)
		die("socket pair");
	spawner = fork();
	if (spawner == 0) {
		close(sv[0]);
		c.control = sv[1];
		log_init("spawner", LOG_LEVEL_WARN);
		_exit(spawner_main(&c));
	}
	close(sv[1]);
	control = sv[0];
}

/* Waits for the answer to a request, or for the event that a sandbox has ended. */
static void spawner_await(uint32_t type)
{
	struct frame f;

	for (;;) {
		if (frame_recv(control, &f) != 1)
			die("the spawner is gone");
		struct reader r = reader_of(f.payload, f.len);
		if (f.type == SPAWN_ERROR) {
			get_u32(&r);
			char *text = get_strdup(&r, 500);
			die("spawner: %s", text ? text : "?");
		}
		uint32_t got = f.type;
		frame_release(&f);
		if (got == type)
			return;
	}
}

static void spawner_verb(uint32_t verb, const struct buf *b, const int *fds, int nfds, uint32_t answer)
{
	if (frame_send(control, verb, 1, b->data, b->len, fds, nfds) < 0)
		die("verb %u", verb);
	spawner_await(answer);
}

static void spawner_start(char **argv)
{
	static unsigned n;
	cleanup_buf struct buf b = BUF_INIT;
	struct sandbox_spec s = spec_of("verb", argv);
	char name[sizeof s.name];

	snprintf(name, sizeof name, "verb-%u", n++);
	memcpy(s.name, name, sizeof name);
	memcpy(app, name, sizeof name);
	sandbox_spec_encode(&s, &b);
	put_u8(&b, 0);
	put_u8(&b, 0);
	int log = null;
	spawner_verb(SPAWN_START, &b, &log, 1, SPAWN_OK);
}

static void spawner_name(uint32_t verb)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, app);
	spawner_verb(verb, &b, NULL, 0, SPAWN_OK);
}

static void one_spawner_start(void)
{
	if (control < 0)
		spawner_up();
	uint64_t t = now_ns();
	spawner_start(true_argv);
	printf("%llu\n", (unsigned long long)(now_ns() - t));
	spawner_await(SPAWN_EXITED);
	spawner_name(SPAWN_FORGET);
}

static void one_spawner_freeze(void)
{
	static char sleeps[] = "sleep", forever[] = "1000000", *argv[] = {sleeps, forever, NULL};

	if (control < 0)
		spawner_up();
	if (!*frozen) {
		spawner_start(argv);
		memcpy(frozen, app, sizeof frozen);
	}
	memcpy(app, frozen, sizeof app);
	uint64_t t = now_ns();
	spawner_name(SPAWN_FREEZE);
	uint64_t stopped = now_ns();
	spawner_name(SPAWN_THAW);
	uint64_t end = now_ns();
	printf("%llu %llu\n", (unsigned long long)(stopped - t), (unsigned long long)(end - stopped));
}

/* -- steady work -------------------------------------------------------------------------------------------------- */

/* Workers that live on: inside, outside, and outside behind a filter of one instruction, which is the kernel's own price of
 * any filter. Each batch is asked for by a byte and answered with its ns. */
enum { INSIDE, OUTSIDE, FILTERED, WORKERS };
static struct worker {
	int to, from;
	struct sandbox box;
	pid_t pid;
} workers[WORKERS] = {{.pid = -1}, {.pid = -1}, {.pid = -1}};

static char program[] = "/bench/start", work[] = "work", *work_argv[] = {program, work, NULL};

_Noreturn static void worker_outside(const int stdio[3], bool filtered)
{
	struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
	struct sock_fprog filter = {1, &allow};

	if (dup2(stdio[0], 0) == 0 && dup2(stdio[1], 1) == 1 && setresgid(65534, 65534, 65534) == 0 &&
	    setresuid(65534, 65534, 65534) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    (!filtered || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0))
		execve("/proc/self/exe", work_argv, env);
	_exit(127);
}

static void worker_up(struct worker *w, int kind)
{
	cleanup_close int bind = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	struct sandbox_spec s = spec_of("work", work_argv);
	int to[2], from[2];

	if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
		die("pipe");
	const int stdio[3] = {to[0], from[1], 2};
	if (kind == INSIDE) {
		s.binds[0] = (struct sandbox_bind){.source = program, .target = program};
		s.nbinds = 1;
		src.binds[0] = bind;
		started(&s, stdio, &w->box);
		w->pid = w->box.init;
	} else if ((w->pid = fork()) == 0) {
		worker_outside(stdio, kind == FILTERED);
	}
	close(to[0]);
	close(from[1]);
	w->to = to[1];
	w->from = from[0];
}

static uint64_t worker_batch(int kind, char what)
{
	struct worker *w = &workers[kind];
	uint64_t ns;

	if (w->pid < 0)
		worker_up(w, kind);
	if (io_write_full(w->to, &what, 1) < 0 || io_read_full(w->from, &ns, sizeof ns) < 0)
		die("worker");
	return ns;
}

/* Another one is first each time: a neighbour's noise and the clock's ramp then hit all. */
static void one_work(char what)
{
	static int turn;
	uint64_t ns[WORKERS];

	turn++;
	for (int i = 0; i < WORKERS; i++)
		ns[(turn + i) % WORKERS] = worker_batch((turn + i) % WORKERS, what);
	printf("%llu %llu %llu\n", (unsigned long long)ns[INSIDE], (unsigned long long)ns[OUTSIDE],
	       (unsigned long long)ns[FILTERED]);
}

/* ----------------------------------------------------------------------------------------------------------------- */

static void prepare(void)
{
	cleanup_close int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct err err = ERR_INIT;

	if (dir < 0 || mkdirat(dir, "skeleton", 0755) < 0 || mkdirat(dir, "state", 0700) < 0)
		die("make `%s`", folder);
	cleanup_close int skeleton = openat(dir, "skeleton", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fchmod(skeleton, 0755) < 0 || skeleton_build(SKELETON_HOST, skeleton, &err) < 0)
		die("%s", err.msg);
	src.base_usr = open("/usr", O_PATH | O_CLOEXEC);
	src.skeleton = openat(dir, "skeleton", O_PATH | O_CLOEXEC);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (sandbox_birthplace(&err) < 0) /* as the spawner does */
		die("%s", err.msg);
}

static void finish(void)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (sleeper.init > 0)
		ended(&sleeper);
	if (workers[INSIDE].pid > 0)
		ended(&workers[INSIDE].box);
	if (*frozen) {
		put_str(&b, frozen);
		put_u32(&b, 0);
		spawner_verb(SPAWN_STOP, &b, NULL, 0, SPAWN_OK);
	}
	if (control >= 0) {
		close(control);
		waitpid(spawner, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	char line[16384];
	int mounts = -1;

	if (argc == 2 && strcmp(argv[1], "work") == 0)
		return work_loop(0, 1);
	if (argc != 2)
		return 2;
	folder = argv[1];
	cgroup_set_tree("spaced-bench");
	prepare();
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "run\t", 4) == 0)
			one_run(line + 4, mounts);
		else if (strncmp(line, "mounts ", 7) == 0)
			mounts = strcmp(line + 7, "0") == 0 ? -1 : mounts_of(line + 7);
		else if (strncmp(line, "floor", 5) == 0)
			one_floor(strcmp(line, "floor-pool") == 0);
		else if (strncmp(line, "library", 7) == 0)
			one_library(strcmp(line, "library-pool") == 0);
		else if (strcmp(line, "shell") == 0)
			one_shell();
		else if (strncmp(line, "batch", 5) == 0)
			one_batch(strcmp(line, "batch-shell") == 0);
		else if (strcmp(line, "freeze") == 0)
			one_freeze();
		else if (strcmp(line, "spawner-start") == 0)
			one_spawner_start();
		else if (strcmp(line, "spawner-freeze") == 0)
			one_spawner_freeze();
		else if (strcmp(line, "names") == 0)
			names();
		else
			one_work(line[0]);
		fflush(stdout);
	}
	finish();
	return 0;
}
