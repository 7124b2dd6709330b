/* Commands inside a running sandbox: that they have exactly the walls of its main process, what comes in and out, how they
 * end, and that nobody inside gets at them before they are the app's own. */
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

#include "base/cleanup.h"
#include "spawner_helper.h"

#define APP "app-9-1"

static char *idle[] = {"/usr/bin/python3", "-c", "import time; time.sleep(1000)", NULL};

struct running {
	uint32_t id;
	int fds[3]; /* the master; or stdin, stdout, stderr */
	int nfds;
};

static void app_up(char **argv)
{
	struct sandbox_spec s = spec_of(APP, argv);

	need_root();
	assert_int_equal(start(&s), 0);
}

static void app_down(void)
{
	assert_int_equal(call_stop(APP, 0), 0);
	wait_exit(APP);
	assert_int_equal(call_name(SPAWN_FORGET, APP, NULL), 0);
}

static uint32_t exec_request(const struct exec_request *q)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, APP);
	exec_request_encode(q, &b);
	return request(SPAWN_EXEC, &b, NULL, 0);
}

static void exec_take(struct frame *f, struct running *x)
{
	struct reader r = reader_of(f->payload, f->len);

	x->id = get_u32(&r);
	assert_true(get_ok(&r));
	x->nfds = f->nfds;
	for (int i = 0; i < f->nfds && i < 3; i++)
		x->fds[i] = frame_take_fd(f, i);
	frame_release(f);
}

/* 0, or the errno of the refusal. */
static int exec_start(const struct exec_request *q, struct running *x)
{
	struct frame f = {0};
	int code = answer(exec_request(q), &f);

	if (!code)
		exec_take(&f, x);
	return code;
}

static void exec_close(struct running *x)
{
	for (int i = 0; i < x->nfds; i++)
		close(x->fds[i]);
}

static int exec_signal(uint32_t id, uint32_t signo)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, APP);
	put_u32(&b, id);
	put_u32(&b, signo);
	return answer(request(SPAWN_EXEC_SIGNAL, &b, NULL, 0), NULL);
}

/* Waits for its end; `why` may be NULL. */
static uint32_t exec_wait(uint32_t id, char why[120])
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	for (;;) {
		struct pollfd p = {control, POLLIN, 0};
		struct frame f;

		for (size_t i = 0; i < ncommands_ended; i++) {
			if (commands_ended[i].id != id)
				continue;
			uint32_t status = commands_ended[i].status;
			if (why)
				memcpy(why, commands_ended[i].why, sizeof commands_ended[i].why);
			commands_ended[i] = commands_ended[--ncommands_ended];
			return status;
		}
		assert_true(io_now_ms() < end && poll(&p, 1, DEADLINE_MS) == 1);
		assert_int_equal(frame_recv(control, &f), 1);
		assert_true(note_event(&f));
	}
}

/* All that comes from `fd` until its end. */
static char *read_all(int fd)
{
	struct buf b = BUF_INIT;

	io_set_nonblock(fd, false);
	for (;;) {
		struct pollfd p = {fd, POLLIN, 0};
		buf_reserve(&b, 65536);
		assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
		ssize_t n = read(fd, b.data + b.len, 65536);
		if (n < 0 && errno == EIO) /* a terminal without another end */
			n = 0;
		assert_true(n >= 0);
		if (n == 0)
			return buf_steal(&b, NULL);
		b.len += (size_t)n;
	}
}

/* Runs it without input; its status and what it printed (malloc'd). */
static uint32_t run(char **argv, char **out, char **err)
{
	struct exec_request q = {.argv = argv};
	struct running x = {0};

	assert_int_equal(exec_start(&q, &x), 0);
	close(x.fds[0]);
	char *o = read_all(x.fds[1]);
	char *e = read_all(x.fds[2]);
	close(x.fds[1]);
	close(x.fds[2]);
	uint32_t status = exec_wait(x.id, NULL);
	if (out)
		*out = o;
	else
		free(o);
	if (err)
		*err = e;
	else
		free(e);
	return status;
}

static uint32_t run_sh(const char *script, char **out, char **err)
{
	char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)script, NULL};

	return run(argv, out, err);
}

static void test_output_and_status(void **unused)
{
	char *out, *err;
	char *missing[] = {"no-such-program", NULL};
	char *folder[] = {"/tmp", NULL};
	char *echo[] = {"printf", "%s|", "a b", "", "$HOME", NULL};

	app_up(idle);
	assert_int_equal(run_sh("echo out; echo err >&2; echo again >/dev/stdout; exit 7", &out, &err), 7);
	assert_string_equal(out, "out\nagain\n");
	assert_string_equal(err, "err\n");
	free(out);
	free(err);
	assert_int_equal(run_sh("kill -USR1 $$", NULL, NULL), 128 + SIGUSR1);
	assert_int_equal(run(missing, NULL, &err), EXEC_NOT_FOUND);
	assert_non_null(strstr(err, "exec `no-such-program`: No such file"));
	free(err);
	assert_int_equal(run(folder, NULL, &err), EXEC_NOT_EXECUTABLE);
	free(err);
	assert_int_equal(run(echo, &out, NULL), 0); /* no shell in between */
	assert_string_equal(out, "a b||$HOME|");
	free(out);
	/* its working folder and environment are the app's */
	assert_int_equal(run_sh("pwd; echo $HOME; echo ${TERM-none}; echo $PPID; echo $#", &out, NULL), 0);
	assert_string_equal(out, "/tmp\n/home/user\nnone\n1\n0\n");
	free(out);
	app_down();
}

static void test_folder(void **unused)
{
	char *pwd[] = {"pwd", NULL};
	struct exec_request q = {.argv = pwd, .cwd = "/home/user"};
	struct running x = {0};

	app_up(idle);
	assert_int_equal(exec_start(&q, &x), 0);
	char *out = read_all(x.fds[1]);
	assert_string_equal(out, "/home/user\n");
	free(out);
	exec_close(&x);
	assert_int_equal(exec_wait(x.id, NULL), 0);
	q.cwd = "/no/such";
	assert_int_equal(exec_start(&q, &x), 0);
	out = read_all(x.fds[2]);
	assert_non_null(strstr(out, "/no/such"));
	free(out);
	exec_close(&x);
	assert_int_equal(exec_wait(x.id, NULL), EXEC_CANNOT);
	/* a magic link to a folder of the host, were there one: CVE-2024-21626 */
	for (int fd = 0; fd < 20; fd++) {
		char path[32];

		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		q.cwd = path;
		assert_int_equal(exec_start(&q, &x), 0);
		exec_close(&x);
		assert_int_equal(exec_wait(x.id, NULL), EXEC_CANNOT);
	}
	q.cwd = "tmp";
	assert_int_equal(exec_start(&q, &x), EINVAL);
	app_down();
}

/* Lines of /proc/self/status that say what a process may do; and umask, limits, descriptors, session keyring. */
static const char walls[] =
    "import os,re,resource,ctypes\n"
    "s=open('/proc/self/status').read()\n"
    "keep=('Uid','Gid','Groups','Umask','CapInh','CapPrm','CapEff','CapBnd','CapAmb','NoNewPrivs','Seccomp',"
    "'Seccomp_filters','Speculation_Store_Bypass','SpeculationIndirectBranch','Cpus_allowed','Mems_allowed','SigBlk',"
    "'SigIgn','THP_enabled','CoreDumping','untag_mask')\n"
    "print([l for l in s.splitlines() if l.split(':')[0] in keep])\n"
    "print([(n,os.readlink('/proc/self/ns/'+n)) for n in sorted(os.listdir('/proc/self/ns'))])\n"
    "print(open('/proc/self/limits').read())\n"
    "print(open('/proc/self/cgroup').read())\n"
    "print(open('/proc/self/oom_score_adj').read(), os.getpriority(os.PRIO_PROCESS,0), os.getcwd(), os.environ)\n"
    "libc=ctypes.CDLL(None)\n"
    "print([libc.prctl(n,0,0,0,0) for n in (3,39,27,21)])\n" /* dumpable, no_new_privs, securebits, seccomp */
    "def t(f):\n"
    "  try: f(); return 'ok'\n"
    "  except OSError as e: return e.errno\n"
    "print(t(lambda: open('/usr/x','w')), t(lambda: open('/etc/x','w')), t(lambda: os.listdir('/sys/kernel')),"
    "t(lambda: os.listdir('/proc/1/fd')), t(lambda: os.setgroups([])), t(lambda: os.chroot('/tmp')))\n"
    "print(sorted(f for f in os.listdir('/proc/self/fd') if int(f)>2 and t(lambda: os.fstat(int(f)))=='ok'))\n";

static void test_same_walls(void **unused)
{
	cleanup_free char *script = xasprintf("%sprint('---',flush=True)\nimport time; time.sleep(1000)\n", walls);
	char *app[] = {"/usr/bin/python3", "-c", script, NULL};
	char *beside[] = {"/usr/bin/python3", "-c", (char *)(uintptr_t)walls, NULL};
	uint64_t end = io_now_ms() + DEADLINE_MS;
	char *text = NULL, *mark = NULL, *out;

	app_up(app);
	while (!mark && io_now_ms() < end) {
		free(text);
		text = log_text(APP);
		mark = strstr(text, "---\n");
		poll(NULL, 0, 20);
	}
	if (!mark) {
		fail_msg("the app says nothing");
		return;
	}
	*mark = '\0';
	assert_non_null(strstr(text, "'CapEff:\\t0000000000000000'"));
	assert_non_null(strstr(text, "'NoNewPrivs:\\t1', 'Seccomp:\\t2'"));
	assert_int_equal(run(beside, &out, NULL), 0);
	assert_string_equal(text, out);
	free(text);
	free(out);
	app_down();
}

static void test_input(void **unused)
{
	char *count[] = {"wc", "-c", NULL};
	char *cat[] = {"cat", NULL};
	struct exec_request q = {.argv = count};
	struct running x = {0};
	static char block[1 << 16];
	enum { BLOCKS = 320 };

	app_up(idle);
	assert_int_equal(exec_start(&q, &x), 0);
	io_set_nonblock(x.fds[0], false);
	for (int i = 0; i < BLOCKS; i++)
		assert_int_equal(io_write_full(x.fds[0], block, sizeof block), 0);
	close(x.fds[0]);
	char *out = read_all(x.fds[1]);
	assert_int_equal(atoi(out), BLOCKS * (int)sizeof block);
	free(out);
	close(x.fds[1]);
	close(x.fds[2]);
	assert_int_equal(exec_wait(x.id, NULL), 0);
	/* nobody at the other end any more */
	q.argv = cat;
	assert_int_equal(exec_start(&q, &x), 0);
	exec_close(&x);
	assert_int_equal(exec_wait(x.id, NULL), 0);
	app_down();
}

/* What comes out is a terminal of the sandbox's devpts, and it controls the command. */
static void test_terminal(void **unused)
{
	char *sh[] = {
	    "/bin/sh", "-c",
	    "test -t 0 && test -t 1 && test -t 2 && echo tty; stty size; tty; echo $TERM; : >/dev/tty && echo controls;"
	    " trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done",
	    NULL};
	struct exec_request q = {.argv = sh, .tty = true, .rows = 41, .cols = 133, .term = "xterm-256color"};
	struct winsize size = {.ws_row = 20, .ws_col = 77};
	struct running x = {0};
	struct stat st;
	struct statfs fs;
	char text[2000];
	size_t n = 0;

	app_up(idle);
	assert_int_equal(exec_start(&q, &x), 0);
	assert_int_equal(x.nfds, 1);
	assert_true(fstat(x.fds[0], &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 2));
	assert_true(fstatfs(x.fds[0], &fs) == 0 && fs.f_type == DEVPTS_SUPER_MAGIC);
	struct stat host;
	assert_true(stat("/dev/pts", &host) < 0 || host.st_dev != st.st_dev);
	text[0] = '\0';
	while (!strstr(text, "ready\r\n")) {
		ssize_t k = read(x.fds[0], text + n, sizeof text - 1 - n);
		assert_true(k > 0);
		n += (size_t)k;
		text[n] = '\0';
	}
	assert_string_equal(text, "tty\r\n41 133\r\n/dev/pts/0\r\nxterm-256color\r\ncontrols\r\nready\r\n");
	assert_int_equal(ioctl(x.fds[0], TIOCSWINSZ, &size), 0);
	char *rest = read_all(x.fds[0]);
	assert_string_equal(rest, "20 77\r\n");
	free(rest);
	exec_close(&x);
	assert_int_equal(exec_wait(x.id, NULL), 3);
	app_down();
}

/* Keys that are signals; and that the end of the terminal is the end of the command. */
static void test_terminal_keys(void **unused)
{
	char *sleeper[] = {"sleep", "1000", NULL};
	struct exec_request q = {.argv = sleeper, .tty = true};
	struct running x = {0};

	app_up(idle);
	assert_int_equal(exec_start(&q, &x), 0);
	assert_int_equal(write(x.fds[0], "\003", 1), 1);
	assert_int_equal(exec_wait(x.id, NULL), 128 + SIGINT);
	exec_close(&x);
	assert_int_equal(exec_start(&q, &x), 0);
	exec_close(&x);
	assert_int_equal(exec_wait(x.id, NULL), 128 + SIGHUP);
	app_down();
}

/* Starts it and has it end; its status. Pid 1 hears of both signals at once if it is kept from the CPU until it is killed instead,
 * after five seconds: then once more. */
static uint32_t exec_hang_up(const struct exec_request *q)
{
	struct running x = {0};
	uint64_t end = io_now_ms() + DEADLINE_MS;

	for (;;) {
		assert_int_equal(exec_start(q, &x), 0);
		uint64_t asked = io_now_ms();
		assert_int_equal(exec_signal(x.id, 0), 0);
		uint32_t status = exec_wait(x.id, NULL);
		exec_close(&x);
		if (status != 128 + SIGKILL || io_now_ms() < asked + 5000 || io_now_ms() > end)
			return status;
	}
}

static void test_signals(void **unused)
{
	char *tree[] = {"/bin/sh", "-c", "sleep 1000 | sleep 1000; exit 3", NULL};
	char *stubborn[] = {"/bin/sh", "-c", "trap '' HUP; echo on; sleep 1000", NULL};
	char *stopped[] = {"/bin/sh", "-c", "kill -STOP $$", NULL};
	struct exec_request q = {.argv = tree};
	struct running x = {0};
	char byte;

	app_up(idle);
	assert_int_equal(exec_start(&q, &x), 0);
	assert_int_equal(exec_signal(x.id, SIGTERM), 0); /* the whole group */
	assert_int_equal(exec_wait(x.id, NULL), 128 + SIGTERM);
	exec_close(&x);
	assert_int_equal(exec_signal(x.id, SIGTERM), ESRCH);
	assert_int_equal(exec_hang_up(&q), 128 + SIGHUP);
	q.argv = stopped;
	assert_int_equal(exec_start(&q, &x), 0);
	assert_int_equal(exec_signal(x.id, 0), 0);
	exec_wait(x.id, NULL); /* by SIGHUP, or before it stopped at all */
	exec_close(&x);
	q.argv = stubborn;
	assert_int_equal(exec_start(&q, &x), 0);
	assert_int_equal(read(x.fds[1], &byte, 1), 1);
	assert_int_equal(exec_signal(x.id, 0), 0);
	assert_int_equal(exec_wait(x.id, NULL), 128 + SIGKILL);
	exec_close(&x);
	app_down();
}

static uint32_t pids_of_app(void)
{
	struct frame f;

	assert_int_equal(call_name(SPAWN_STATS, APP, &f), 0);
	struct reader r = reader_of(f.payload, f.len);
	get_u64(&r);
	get_u64(&r);
	uint32_t n = get_u32(&r);
	frame_release(&f);
	return n;
}

/* Counted with the app, dies with it, thaws it, keeps it from being frozen. */
static void test_part_of_the_app(void **unused)
{
	char *sleeper[] = {"sleep", "1000", NULL};
	struct exec_request q = {.argv = sleeper};
	struct running x = {0};
	char why[120];

	app_up(idle);
	uint32_t before = pids_of_app();
	assert_int_equal(call_freeze(APP), 0);
	assert_int_equal(exec_start(&q, &x), 0);
	if (before) /* there are cgroups */
		assert_int_equal(pids_of_app(), before + 1);
	assert_int_equal(call_name(SPAWN_FREEZE, APP, NULL), EBUSY);
	assert_int_equal(exec_signal(x.id, SIGTERM), 0);
	exec_wait(x.id, NULL);
	exec_close(&x);
	assert_int_equal(call_freeze(APP), 0);
	assert_int_equal(exec_start(&q, &x), 0);
	assert_int_equal(call_stop(APP, 0), 0);
	assert_int_equal(exec_wait(x.id, why), 128 + SIGKILL);
	assert_string_equal(why, "the app has ended");
	exec_close(&x);
	wait_exit(APP);
	assert_int_equal(exec_start(&q, &x), ESRCH);
	assert_int_equal(call_name(SPAWN_FORGET, APP, NULL), 0);
	assert_int_equal(exec_start(&q, &x), ENOENT);
}

static void test_bounds(void **unused)
{
	char *sleeper[] = {"sleep", "1000", NULL};
	char *nothing[] = {NULL};
	static char long_word[EXEC_MAX_BYTES + 2];
	char *too_long[] = {"echo", long_word, NULL};
	struct exec_request q = {.argv = sleeper};
	struct running x[EXEC_MAX + 1] = {0};
	struct frame f;

	app_up(idle);
	for (int i = 0; i < EXEC_MAX; i++)
		assert_int_equal(exec_start(&q, &x[i]), 0);
	assert_int_equal(exec_start(&q, &x[EXEC_MAX]), EAGAIN);
	assert_int_equal(exec_signal(x[0].id, SIGTERM), 0);
	exec_wait(x[0].id, NULL);
	exec_close(&x[0]);
	assert_int_equal(exec_start(&q, &x[0]), 0);
	for (int i = 0; i < EXEC_MAX; i++) {
		assert_int_equal(exec_signal(x[i].id, SIGKILL), 0);
		exec_wait(x[i].id, NULL);
		exec_close(&x[i]);
	}
	q.argv = nothing;
	assert_int_equal(answer(exec_request(&q), &f), EINVAL);
	memset(long_word, 'x', sizeof long_word - 1);
	q.argv = too_long;
	assert_int_equal(answer(exec_request(&q), &f), EBADMSG);
	app_down();
}

/* No room for one more process: a clear refusal, and the app goes on. */
static void test_no_room(void **unused)
{
	char *full[] = {"/usr/bin/python3", "-c",
			"import os,time\n"
			"try:\n"
			" while True:\n"
			"  if os.fork()==0: time.sleep(1000); os._exit(0)\n"
			"except OSError: print('full',flush=True)\n"
			"time.sleep(1000)",
			NULL};
	char *argv[] = {"true", NULL};
	struct exec_request q = {.argv = argv};
	struct sandbox_spec s = spec_of(APP, full);
	uint64_t end = io_now_ms() + DEADLINE_MS;
	struct running x = {0};
	bool is_full = false;

	need_root();
	s.limits.pids = 16;
	assert_int_equal(start(&s), 0);
	if (pids_of_app() == 0) {
		app_down();
		skip();
	}
	while (!is_full && io_now_ms() < end) {
		char *text = log_text(APP);
		is_full = strstr(text, "full") != NULL;
		free(text);
		poll(NULL, 0, 20);
	}
	assert_int_equal(exec_start(&q, &x), EAGAIN);
	assert_int_equal(listed(APP), 1);
	app_down();
}

/* A new spawner knows nothing of the commands of the old one, and ends them. */
static void test_spawner_dies(void **unused)
{
	char *sleeper[] = {"sleep", "1000", NULL};
	struct exec_request q = {.argv = sleeper};
	struct running x = {0};
	char *out;

	app_up(idle);
	assert_int_equal(exec_start(&q, &x), 0);
	spawner_down(SIGKILL);
	spawner_up();
	assert_int_equal(listed(APP), 1);
	char *rest = read_all(x.fds[1]); /* ends when the command does */
	assert_string_equal(rest, "");
	free(rest);
	exec_close(&x);
	assert_int_equal(run_sh("echo new", &out, NULL), 0);
	assert_string_equal(out, "new\n");
	free(out);
	app_down();
}

/* Within so many milliseconds. */
static bool app_says(const char *what, int ms)
{
	uint64_t end = io_now_ms() + (uint64_t)ms;

	free(log_text(APP));
	while (!lines_with(log_path, what)) {
		if (io_now_ms() >= end)
			return false;
		poll(NULL, 0, 20);
	}
	return true;
}

/* CVE-2016-9962 and CVE-2019-5736 (battery E2, A11): while commands are being started, the app looks for them in /proc,
 * for their memory, descriptors, environment, and for a way to write into the program they are forked from. */
static void test_attacker(void **unused)
{
	static const char attack[] =
	    "import os,time\n"
	    "me=os.getpid()\n"
	    "print('at work',flush=True)\n"
	    "seen=set()\n"
	    "while not os.path.exists('/tmp/stop'):\n"
	    " for p in os.listdir('/proc'):\n"
	    "  if not p.isdigit() or int(p)==me: continue\n"
	    "  for f,m in (('exe',os.O_WRONLY|os.O_TRUNC),('exe',os.O_RDWR),('exe',os.O_RDONLY)):\n"
	    "   try:\n"
	    "    fd=os.open(f'/proc/{p}/{f}',m)\n"
	    "    seen.add((f,m,os.readlink(f'/proc/self/fd/{fd}'))); os.close(fd)\n"
	    "    if len(seen)==1: print('has seen one',flush=True)\n"
	    "   except OSError: pass\n"
	    "  for f in ('mem','environ','maps'):\n"
	    "   try:\n"
	    "    fd=os.open(f'/proc/{p}/{f}',os.O_RDONLY)\n"
	    "    comm=open(f'/proc/{p}/comm').read().strip()\n"
	    "    if comm=='init': seen.add((f,comm))\n"
	    "    os.close(fd)\n"
	    "   except OSError: pass\n"
	    /* its own end of a pipe, as the command that it is by then */
	    " for p in range(1,3):\n"
	    "  try: os.listdir('/proc/1/fd'); seen.add('fds of pid 1')\n"
	    "  except OSError: pass\n"
	    "open('/tmp/seen','w').write('\\n'.join(sorted(map(repr,seen)))+'\\n')\n"
	    "time.sleep(1000)\n";
	char *app[] = {"/usr/bin/python3", "-c", (char *)(uintptr_t)attack, NULL};
	char *quick[] = {"true", NULL};
	char *out;
	struct stat before, after;
	cleanup_close int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	app_up(app);
	assert_true(self >= 0 && fstat(self, &before) == 0);
	assert_true(app_says("at work", DEADLINE_MS));
	/* it may be kept from the CPU each time that one is there */
	for (int i = 0; i < 300 || (!app_says("has seen one", 0) && i < 30000); i++)
		assert_int_equal(run(quick, NULL, NULL), 0);
	assert_int_equal(
	    run_sh("touch /tmp/stop; while ! test -s /tmp/seen; do sleep 0.02; done; cat /tmp/seen", &out, NULL), 0);
	/* It has seen commands at all (the positive control), but only what they were by then: programs of the base. */
	assert_non_null(strstr(out, "('exe', 0, '/usr/bin/"));
	for (char *save = NULL, *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (strncmp(line, "('exe', 0, '/usr/bin/", 21) != 0)
			fail_msg("seen: %s", line);
	free(out);
	assert_int_equal(fstat(self, &after), 0);
	assert_true(before.st_size == after.st_size && before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
		    before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
	app_down();
}

/* `#!/proc/self/exe`: with the process that forked the command as its interpreter. */
static void test_own_exe_as_interpreter(void **unused)
{
	char *out, *err;

	app_up(idle);
	uint32_t status = run_sh(
	    "printf '#!/proc/self/exe\\n' >/tmp/x; chmod +x /tmp/x; ln -s /proc/self/exe /tmp/y; exit 0", NULL, NULL);
	assert_int_equal(status, 0);
	char *x[] = {"/tmp/x", NULL};
	status = run(x, &out, &err);
	print_message("# #!/proc/self/exe: status %u %s\n", status, err);
	assert_int_equal(status, EXEC_NOT_EXECUTABLE);
	free(out);
	free(err);
	char *y[] = {"/tmp/y", NULL};
	status = run(y, &out, &err);
	print_message("# link to /proc/self/exe: status %u %s\n", status, err);
	assert_int_equal(status, EXEC_NOT_EXECUTABLE);
	free(out);
	free(err);
	app_down();
}

static void test_nothing_is_left(void **unused)
{
	need_root();
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_output_and_status),
	    cmocka_unit_test(test_folder),
	    cmocka_unit_test(test_same_walls),
	    cmocka_unit_test(test_input),
	    cmocka_unit_test(test_terminal),
	    cmocka_unit_test(test_terminal_keys),
	    cmocka_unit_test(test_signals),
	    cmocka_unit_test(test_part_of_the_app),
	    cmocka_unit_test(test_bounds),
	    cmocka_unit_test(test_no_room),
	    cmocka_unit_test(test_spawner_dies),
	    cmocka_unit_test(test_attacker),
	    cmocka_unit_test(test_own_exe_as_interpreter),
	    cmocka_unit_test(test_nothing_is_left),
	};

	return cmocka_run_group_tests(tests, state_make, state_remove);
}
