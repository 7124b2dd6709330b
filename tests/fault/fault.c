/* Fails the n-th system call of the launcher, for every n: SQLite's way of testing what cannot be provoked. A traced process
 * performs one operation (start, shell, freeze, exec, stop) on a real sandbox; the supervisor counts the calls of that process and
 * of all that it makes, until they exec, and lets the n-th fail with an errno. After each, the operation must have said which
 * step failed, or have succeeded where the call was one whose failure changes nothing (`harmless`), and nothing may be left:
 * process, descriptor, mount, cgroup, and the launcher is where and who it was.
 *
 *   fault OPERATION [all]     one errno for each n, in turn; `all`: every errno for every n
 *
 * Ends with 0 when all is well; 77: not here (no root, or no x86-64). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/exec.h"
#include "sandbox/netns.h"
#include "sandbox/sandbox.h"
#include "sandbox/skeleton.h"

#ifdef __x86_64__

#define TREE "spaced-fault"
#define MARK_ON 0x5fad
#define MARK_OFF 0x5fae
#define HANG_S 180
#define PATIENCE_MS 60000 /* of what is to happen, on a busy machine */
#define MAX_PIDS 64

static const int errnos[] = {ENOMEM, EMFILE, EIO, EPERM, EINTR};
#define ERRNOS (sizeof errnos / sizeof *errnos)

/* What the operation's process tells about itself. */
struct report {
	int rc;
	char msg[500];
	int children, fds, mounts, groups; /* more than before */
	bool home;			   /* network and mount namespace, ids, securebits are as before */
	int status;			   /* of the program, when it ran */
};

/* -- the operations, in the traced process ------------------------------------------------------------------------- */

static struct sandbox_sources src = {.top = -1, .netns = -1, .idmap = true};
static char folder[] = "/var/tmp/spaced-fault-XXXXXX";
static int null = -1;

/* Its own: others may run this test on the same machine. */
static char name[32];
static uint32_t id_base;

static void mark(long which)
{
	syscall(which);
}

static int count_fds(void)
{
	cleanup_dir DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d && readdir(d))
		n++;
	return n;
}

static int count_lines(const char *path)
{
	cleanup_file FILE *f = fopen(path, "re");
	int n = 0;

	for (int c; f && (c = fgetc(f)) != EOF;)
		n += c == '\n';
	return n;
}

/* The groups of that name; all hierarchies are looked through. */
static int count_groups(void)
{
	static const char *const roots[] = {"/sys/fs/cgroup",	      "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory",
					    "/sys/fs/cgroup/cpu",     "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/pids",
					    "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/blkio"};
	int n = 0;

	for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
		cleanup_free char *path = xasprintf("%s/" TREE "/%s", roots[i], name);
		n += access(path, F_OK) == 0;
	}
	return n;
}

struct place {
	ino_t net, mnt;
	uid_t uid;
	int bits;
};

static ino_t inode(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : st.st_ino;
}

static struct place where(void)
{
	return (struct place){inode("/proc/self/ns/net"), inode("/proc/self/ns/mnt"), geteuid(),
			      prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)};
}

static int start(struct sandbox *box, char **argv, struct err *err)
{
	static char path[] = "PATH=/usr/bin:/bin", *env[] = {path, NULL};
	struct sandbox_spec s = {.id_base = id_base, .uid = 1000, .gid = 1000, .argv = argv, .env = env};
	const int stdio[3] = {null, null, null};

	snprintf(s.name, sizeof s.name, "%s", name);
	s.limits = (struct sandbox_limits){.memory = 256U << 20, .cpu_milli = 1000, .pids = 32};
	return sandbox_start(&s, &src, stdio, box, err);
}

/* Without faults: whatever the operation left undone is done now. */
static int end(struct sandbox *box, struct report *r)
{
	struct err err = ERR_INIT;

	if (cgroup_host()->kill(&box->cgroup, PATIENCE_MS, &err) < 0) {
		snprintf(r->msg, sizeof r->msg, "afterwards: %.400s", err.msg);
		return -1;
	}
	syscall(SYS_pidfd_send_signal, box->pidfd, SIGKILL, NULL, 0);
	while (waitpid(box->init, NULL, 0) < 0 && errno == EINTR)
		;
	if (cgroup_host()->remove(&box->cgroup, &err) < 0) {
		snprintf(r->msg, sizeof r->msg, "afterwards: %.400s", err.msg);
		return -1;
	}
	sandbox_release(box);
	return 0;
}

static char sleep_[] = "sleep", forever[] = "1000", *idle[] = {sleep_, forever, NULL}, true_[] = "true",
	    *truth[] = {true_, NULL};

static int op_start(struct sandbox *box, struct err *err, struct report *r)
{
	mark(MARK_ON);
	int rc = start(box, truth, err);
	mark(MARK_OFF);
	if (rc < 0)
		return -1;
	if (io_read_full(box->status_pipe, &r->status, sizeof r->status) < 0)
		r->status = SIGKILL;
	return end(box, r) < 0 ? -2 : 0;
}

/* Made ahead, and then started. */
static int op_shell(struct sandbox *box, struct err *err, struct report *r)
{
	mark(MARK_ON);
	src.shell = sandbox_shell_make(name, SANDBOX_APP, id_base, &src, err);
	int rc = src.shell ? start(box, truth, err) : -1;
	src.shell = NULL;
	mark(MARK_OFF);
	if (rc < 0)
		return -1;
	if (io_read_full(box->status_pipe, &r->status, sizeof r->status) < 0)
		r->status = SIGKILL;
	return end(box, r) < 0 ? -2 : 0;
}

static int op_freeze(struct sandbox *box, struct err *err, struct report *r)
{
	if (start(box, idle, err) < 0)
		return -2;
	mark(MARK_ON);
	int rc = cgroup_host()->freeze(&box->cgroup, 300, err);
	if (rc == 0)
		rc = cgroup_host()->thaw(&box->cgroup, err);
	mark(MARK_OFF);
	return end(box, r) < 0 ? -2 : rc;
}

static int op_stop(struct sandbox *box, struct err *err, struct report *r)
{
	if (start(box, idle, err) < 0)
		return -2;
	mark(MARK_ON);
	int killed = cgroup_host()->kill(&box->cgroup, 300, err);
	int rc = killed < 0 ? -1 : cgroup_host()->remove(&box->cgroup, err);
	mark(MARK_OFF);
	struct pollfd gone = {.fd = box->pidfd, .events = POLLIN};
	if (killed == 0 && poll(&gone, 1, PATIENCE_MS) != 1) {
		snprintf(r->msg, sizeof r->msg, "it was said to be dead");
		rc = -2;
	}
	/* A second try has to do what the first could not. */
	struct err again = ERR_INIT;
	if (rc < 0 && (cgroup_host()->kill(&box->cgroup, PATIENCE_MS, &again) < 0 ||
		       cgroup_host()->remove(&box->cgroup, &again) < 0)) {
		rc = -2;
		snprintf(r->msg, sizeof r->msg, "the second time: %.400s", again.msg);
	}
	while (waitpid(box->init, NULL, 0) < 0 && errno == EINTR)
		;
	sandbox_release(box);
	return rc;
}

static int exec_answer(const struct sandbox *box, struct err *err)
{
	struct pollfd p[2] = {{.fd = box->exec, .events = POLLIN}, {.fd = box->pidfd, .events = POLLIN}};
	int started = 0;

	for (;;) {
		struct frame f;
		if (poll(p, 2, PATIENCE_MS) <= 0)
			return err_text(err, ETIMEDOUT, "NO ANSWER to a command");
		int rc = p[0].revents ? frame_recv(box->exec, &f) : 0;
		if (rc <= 0)
			return err_text(err, EPIPE, "pid 1 has ended: the command and the app with it");
		uint32_t type = f.type;
		struct reader r = reader_of(f.payload, f.len);
		if (type == EXEC_FAILED) {
			get_u32(&r);
			cleanup_free char *msg = get_strdup(&r, 400);
			frame_release(&f);
			return err_text(err, EIO, "exec: %s", msg ? msg : "?");
		}
		uint32_t status = type == EXEC_ENDED ? get_u32(&r) : 0;
		frame_release(&f);
		started |= type == EXEC_STARTED;
		if (type == EXEC_ENDED)
			return started && status == 0 ? 0
						      : err_text(err, EIO, "exec: the command ended with %u", status);
	}
}

static int op_exec(struct sandbox *box, struct err *err, struct report *r)
{
	struct exec_request q = {.argv = truth};
	cleanup_buf struct buf b = BUF_INIT;

	if (start(box, idle, err) < 0)
		return -2;
	exec_request_encode(&q, &b);
	mark(MARK_ON);
	frame_send(box->exec, EXEC_RUN, 1, b.data, b.len, NULL, 0);
	int rc = exec_answer(box, err);
	mark(MARK_OFF);
	return end(box, r) < 0 ? -2 : rc;
}

static const struct operation {
	const char *name;
	int (*run)(struct sandbox *box, struct err *err, struct report *r);
	bool strict; /* success is not proof enough: a wall might be missing */
	bool inside; /* the launcher's own calls are this test's */
} operations[] = {
    {"start", op_start, true, false}, {"shell", op_shell, true, false}, {"freeze", op_freeze, false, false},
    {"exec", op_exec, false, true},   {"stop", op_stop, false, false},
};

/* A first round warms up what is found once per process, and makes the folder of the groups. */
_Noreturn static void perform(const struct operation *op, int out)
{
	struct sandbox box = {.pidfd = -1};
	struct report r = {0};
	struct err err = ERR_INIT;

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	if (start(&box, truth, &err) < 0 || end(&box, &r) < 0) {
		fprintf(stderr, "the first round, without any fault: %s%s\n", err.msg, r.msg);
		_exit(2);
	}
	int fds = count_fds(), mounts = count_lines("/proc/self/mountinfo");
	struct place before = where();
	err = ERR_INIT;
	r.rc = op->run(&box, &err, &r);
	if (r.rc != -2)
		snprintf(r.msg, sizeof r.msg, "%s", err.msg);
	struct place after = where();
	r.home = memcmp(&before, &after, sizeof before) == 0;
	for (int status; waitpid(-1, &status, WNOHANG) >= 0; r.children++)
		;
	r.fds = count_fds() - fds;
	r.mounts = count_lines("/proc/self/mountinfo") - mounts;
	r.groups = count_groups();
	_exit(io_write_full(out, &r, sizeof r) < 0 ? 3 : 0);
}

/* -- the supervisor ------------------------------------------------------------------------------------------------ */

/* Of a start that went on: their failure, as such, takes no wall away. */
static const struct {
	long nr;
	int code; /* 0: any */
	const char *why;
} harmless[] = {
    {SYS_close, 0, "the descriptor is closed in any case"},
    {SYS_brk, 0, "malloc then takes its memory by mmap"},
    {SYS_munmap, 0, "some pages stay mapped"},
    {SYS_setsockopt, 0, "sizes of buffers, and a deadline"},
    {SYS_rt_sigaction, 0, "asked is whether there is anything to reset"},
    {SYS_execve, 0, "the next folder of PATH has it too"},
    {SYS_openat2, 0, "the probe for it; paths are then walked"},
    {SYS_mount_setattr, EPERM, "the base is then shown with nobody as its owner"},
    {SYS_prlimit64, EPERM, "a limit of cores of 0 stays: protection.c tells of it"},
    {SYS_capget, 0, "libcap asks which version there is; without reading back it does not go on"},
    {SYS_recvmsg, EINTR, "done again"},
    {SYS_sendmsg, EINTR, "done again"},
    {SYS_recvfrom, EINTR, "done again"},
};

static bool is_harmless(long nr, int code)
{
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		if (harmless[i].nr == nr && (!harmless[i].code || harmless[i].code == code))
			return true;
	return false;
}

/* Cannot fail, by their manual pages, or are not there to return. */
static bool eligible(long nr)
{
	static const long never[] = {SYS_getpid,       SYS_gettid,	    SYS_getppid, SYS_getuid, SYS_geteuid,
				     SYS_getgid,       SYS_getegid,	    SYS_umask,	 SYS_exit,   SYS_exit_group,
				     SYS_rt_sigreturn, SYS_restart_syscall, SYS_setsid,	 MARK_ON,    MARK_OFF,
				     SYS_rseq,	       SYS_set_robust_list};

	for (size_t i = 0; i < sizeof never / sizeof *never; i++)
		if (never[i] == nr)
			return false;
	return true;
}

struct traced {
	pid_t pid;
	int fail; /* errno for the call that it is in */
	bool libc_blocks;
};

struct outcome {
	long nr;     /* of the call that was made to fail, -1: there were fewer */
	bool parent; /* it was the launcher's own */
	bool hang;
	int status; /* wait status of the operation's process */
	struct report report;
};

static struct traced traced[MAX_PIDS];
static volatile sig_atomic_t alarmed;

static void on_alarm(int sig)
{
	alarmed = 1;
}

static struct traced *find(pid_t pid)
{
	struct traced *empty = NULL;

	for (size_t i = 0; i < MAX_PIDS; i++) {
		if (traced[i].pid == pid)
			return &traced[i];
		if (!traced[i].pid && !empty)
			empty = &traced[i];
	}
	if (!empty)
		abort();
	*empty = (struct traced){.pid = pid};
	return empty;
}

static size_t alive(void)
{
	size_t n = 0;

	for (size_t i = 0; i < MAX_PIDS; i++)
		n += traced[i].pid != 0;
	return n;
}

static void set_regs(pid_t pid, bool entry, long rax)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) < 0)
		return;
	if (entry)
		regs.orig_rax = (unsigned long long)-1;
	else
		regs.rax = (unsigned long long)rax;
	ptrace(PTRACE_SETREGS, pid, NULL, &regs);
}

/* glibc blocks every signal around what must not be interrupted (since 2.41, sigaction of SIGABRT), does not ask whether that
 * worked, and lets them through again; a mask of every signal is what it gives nobody else. */
static bool of_libc(struct traced *t, const struct __ptrace_syscall_info *info)
{
	if (info->entry.nr != SYS_rt_sigprocmask)
		return false;
	bool ends = t->libc_blocks;
	t->libc_blocks = !ends && info->entry.args[0] == SIG_BLOCK && info->entry.args[1] &&
			 ptrace(PTRACE_PEEKDATA, t->pid, (void *)info->entry.args[1], NULL) == -1;
	return ends || t->libc_blocks;
}

/* At each entry and exit of a call. */
static void on_syscall(const struct operation *op, struct traced *t, pid_t target, int n, int code, int *seen,
		       bool *counting, struct outcome *o)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, t->pid, sizeof info, &info) <= 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
		if (t->fail)
			set_regs(t->pid, false, -t->fail);
		t->fail = 0;
		return;
	}
	if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return;
	long nr = (long)info.entry.nr;
	if (t->pid == target && (nr == MARK_ON || nr == MARK_OFF))
		*counting = nr == MARK_ON;
	if (of_libc(t, &info) || !*counting || !eligible(nr) || (op->inside && t->pid == target) || ++*seen != n)
		return;
	o->nr = nr;
	o->parent = t->pid == target;
	t->fail = code;
	if (nr != SYS_close) /* which always closes */
		set_regs(t->pid, true, 0);
}

static void kill_all(void)
{
	for (size_t i = 0; i < MAX_PIDS; i++)
		if (traced[i].pid)
			kill(traced[i].pid, SIGKILL);
}

/* One stop or end of a traced process. False: it is gone, or traced no longer. */
static bool one_stop(const struct operation *op, pid_t pid, int status, pid_t target, int n, int code, int *seen,
		     bool *counting, struct outcome *o)
{
	struct traced *t = find(pid);
	int sig = 0, event = status >> 16;

	if (WIFEXITED(status) || WIFSIGNALED(status)) {
		if (pid == target)
			o->status = status;
		*t = (struct traced){0};
		return false;
	}
	if (event == PTRACE_EVENT_VFORK_DONE || event == PTRACE_EVENT_EXEC)
		*counting = false; /* it has begun; what follows belongs to the program's life */
	/* Known from here on: its parent may be gone before it makes its first stop. */
	unsigned long born = 0;
	if ((event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) &&
	    ptrace(PTRACE_GETEVENTMSG, pid, NULL, &born) == 0)
		find((pid_t)born);
	if (event == PTRACE_EVENT_EXEC) {
		*t = (struct traced){0};
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
		return false;
	}
	if (WSTOPSIG(status) == (SIGTRAP | 0x80))
		on_syscall(op, t, target, n, code, seen, counting, o);
	else if (!event && WSTOPSIG(status) != SIGSTOP)
		sig = WSTOPSIG(status);
	ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)sig);
	return true;
}

static struct outcome attempt(const struct operation *op, int n, int code)
{
	struct outcome o = {.nr = -1};
	int out[2], status, seen = 0;
	bool counting = false;

	memset(traced, 0, sizeof traced);
	if (pipe2(out, O_CLOEXEC) < 0)
		abort();
	pid_t target = fork();
	if (target == 0) {
		close(out[0]);
		perform(op, out[1]);
	}
	close(out[1]);
	waitpid(target, &status, __WALL);
	find(target);
	ptrace(PTRACE_SETOPTIONS, target, NULL,
	       (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
			      PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORKDONE | PTRACE_O_EXITKILL));
	ptrace(PTRACE_SYSCALL, target, NULL, NULL);
	alarmed = 0;
	alarm(HANG_S);
	while (alive()) {
		pid_t pid = waitpid(-1, &status, __WALL);

		if (pid < 0 && errno == EINTR && alarmed) {
			o.hang = true;
			kill_all();
			alarm(1);
			alarmed = 0;
			continue;
		}
		if (pid < 0 && errno != EINTR)
			break;
		if (pid > 0)
			one_stop(op, pid, status, target, n, code, &seen, &counting, &o);
	}
	alarm(0);
	if (io_read_full(out[0], &o.report, sizeof o.report) < 0)
		o.report.rc = -3;
	close(out[0]);
	return o;
}

/* The launcher ends itself rather than go on in the wrong namespace or folder or with the wrong ids. Its group is then adopted, or
 * removed, by whoever starts that sandbox next. */
static bool may_abort(const struct outcome *o)
{
	return o->parent && (o->nr == SYS_setns || o->nr == SYS_fchdir || o->nr == SYS_setresuid || o->nr == SYS_prctl);
}

/* NULL when all is as it should be. */
static const char *judge(const struct operation *op, const struct outcome *o, int code)
{
	const struct report *r = &o->report;

	if (o->hang)
		return "hangs";
	if (WIFSIGNALED(o->status))
		return WTERMSIG(o->status) == SIGABRT && may_abort(o) ? NULL : "the launcher was killed by a signal";
	if (r->rc == -3)
		return "the launcher ended";
	if (r->rc == -2)
		return "cannot be ended afterwards";
	if (!r->home)
		return "the launcher is not where or who it was";
	if (r->children)
		return "a process is left";
	if (r->fds)
		return "a descriptor is left";
	if (r->mounts)
		return "a mount is left";
	if (r->groups)
		return "a cgroup is left";
	if (r->rc < 0)
		return strlen(r->msg) > 10 && !strstr(r->msg, "NO ANSWER") ? NULL : "no error that says what failed";
	if (r->status != 0)
		return "it started, and its program failed";
	return o->nr < 0 || !op->strict || is_harmless(o->nr, code) ? NULL
								    : "it went on although a call failed that matters";
}

static void clean(void)
{
	struct cgroup cg;
	struct err err;

	if (cgroup_host()->open(name, &cg, &err) == 0 || count_groups()) {
		cgroup_host()->kill(&cg, PATIENCE_MS, &err);
		cgroup_host()->remove(&cg, &err);
		if (cg.v2_dir >= 0)
			close(cg.v2_dir);
	}
}

static int run_all(const struct operation *op, bool every)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	int bad = 0, runs = 0, succeeded = 0, aborted = 0;

	for (int n = 1;; n++) {
		bool over = false;

		for (size_t e = 0; e < (every ? ERRNOS : 1) && !over; e++) {
			int code = errnos[every ? e : (size_t)n % ERRNOS];
			struct outcome o = attempt(op, n, code);
			const char *why = judge(op, &o, code);
			over = o.nr < 0;
			runs++;
			succeeded += o.report.rc == 0 && !over;
			aborted += WIFSIGNALED(o.status);
			if (why || WIFSIGNALED(o.status) || o.report.rc < 0)
				clean();
			if (!why)
				continue;
			bad++;
			printf("%s: call %d (%ld, %s), %s: %s%s%s\n", op->name, n, o.nr,
			       o.parent ? "launcher" : "inside", strerror(code), why, *o.report.msg ? ": " : "",
			       o.report.msg);
			fflush(stdout);
		}
		if (over) {
			printf("%s: %d runs, %d calls, %d failures changed nothing, %d ended the launcher, %d wrong\n",
			       op->name, runs, n - 1, succeeded, aborted, bad);
			return bad ? 1 : 0;
		}
	}
}

static int prepare(void)
{
	struct err err = ERR_INIT;
	struct sigaction sa = {.sa_handler = on_alarm};

	snprintf(name, sizeof name, "fault-%d", (int)getpid());
	id_base = 1600000000U + (uint32_t)getpid() % 4096 * 65536;
	sigaction(SIGALRM, &sa, NULL);
	cgroup_set_tree(TREE);
	cgroup_host();
	if (!mkdtemp(folder) || chmod(folder, 0755) < 0)
		return -1;
	cleanup_close int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (skeleton_build(SKELETON_HOST, dir, &err) < 0)
		return -1;
	src.skeleton = open(folder, O_PATH | O_CLOEXEC);
	src.base_usr = open("/usr", O_PATH | O_CLOEXEC);
	src.netns = netns_make(&err);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	return src.netns < 0 || null < 0 || sandbox_birthplace(&err) < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
	int rc = 2;

	if (geteuid() != 0)
		return 77;
	if (argc < 2 || prepare() < 0)
		return 2;
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
		if (strcmp(operations[i].name, argv[1]) == 0)
			rc = run_all(&operations[i], argc > 2 && strcmp(argv[2], "all") == 0);
	io_remove_tree(AT_FDCWD, folder);
	return rc;
}

#else
int main(void)
{
	return 77;
}
#endif
