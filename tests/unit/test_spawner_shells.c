/* Sandboxes that the spawner makes ahead: what becomes of them, what they know, and what is left of them. */
#include <sys/sysmacros.h>

#include "tests/unit/spawner_helper.h"

enum { MAKERS = 2 };

static char sleep_[] = "sleep", forever[] = "1000000", *sleeper[] = {sleep_, forever, NULL};
static char true_[] = "true", *truth[] = {true_, NULL};

/* Calls `each` for the makers and for those that wait with a shell: root, of that name, with a file of this state folder. */
static int with_makers(void (*each)(pid_t pid))
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) != NULL) {
		cleanup_free char *status = xasprintf("/proc/%s/status", e->d_name);
		cleanup_free char *fds = xasprintf("/proc/%s/fd", e->d_name);
		bool ours = false;
		struct dirent *f;

		if (e->d_name[0] < '1' || e->d_name[0] > '9' || !lines_with(status, "Name:\tspaced-shell") ||
		    !lines_with(status, "Uid:\t0\t"))
			continue;
		cleanup_dir DIR *open_files = opendir(fds);
		while (open_files && (f = readdir(open_files)) != NULL) {
			char link[300];
			ssize_t k = readlinkat(dirfd(open_files), f->d_name, link, sizeof link - 1);
			link[k > 0 ? k : 0] = '\0';
			ours |= strstr(link, strrchr(state, '/')) != NULL;
		}
		n += ours;
		if (ours && each)
			each((pid_t)atoi(e->d_name));
	}
	return n;
}

static bool is_maker(pid_t pid)
{
	cleanup_free char *status = xasprintf("/proc/%d/status", pid);

	return lines_with(status, "Name:\tspaced-shells") > 0;
}

/* Those that are to end: there may be new ones at any time. */
static pid_t doomed[32];
static size_t ndoomed;

static void note(pid_t pid)
{
	assert_true(ndoomed < sizeof doomed / sizeof *doomed);
	doomed[ndoomed++] = pid;
}

static int still_there(void)
{
	int n = 0;

	for (size_t k = 0; k < ndoomed; k++)
		n += kill(doomed[k], 0) == 0;
	return n;
}

static void note_who_waits(pid_t pid)
{
	if (!is_maker(pid))
		note(pid);
}

static void note_maker(pid_t pid)
{
	if (is_maker(pid))
		note(pid);
}

static int makers_missing(void)
{
	ndoomed = 0;
	with_makers(note_maker);
	return ndoomed == MAKERS ? 0 : 1;
}

/* Pid 1 of those that wait: root of a shell's range. */
static int with_shells(void (*each)(pid_t pid))
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) != NULL) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9' || !has_id(e->d_name, 0))
			continue;
		n++;
		if (each)
			each((pid_t)atoi(e->d_name));
	}
	return n;
}

static int missing(void)
{
	return with_shells(NULL) == SHELLS ? 0 : 1;
}

static int waiting(void)
{
	return with_shells(NULL);
}

static void need_shells(void)
{
	char tree[32];

	need_root();
	snprintf(tree, sizeof tree, "spaced-%s", tag);
	cgroup_set_tree(tree);
	if (cgroup_host()->kind == CGROUP_NONE) {
		print_message("# SKIP no cgroups\n");
		skip();
	}
	assert_true(eventually_zero(missing));
}

/* By the note: its last number but for the volumes, behind that of the link, which none of these has. */
static uint32_t shell_of(const char *name)
{
	cleanup_free char *path = xasprintf("%s/sandboxes/%s/info", state, name);
	cleanup_buf struct buf b = BUF_INIT;
	const uint32_t none = NO_EGRESS;
	uint32_t number = 0;

	assert_int_equal(io_read_file(AT_FDCWD, path, 65536, &b), 0);
	const char *link = memmem(b.data, b.len, &none, sizeof none);
	assert_non_null(link);
	memcpy(&number, link + sizeof none, sizeof number);
	return number;
}

static void end(const char *name)
{
	assert_int_equal(call_stop(name, 0), 0);
	wait_exit(name);
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
}

/* One that waits is taken as soon as the spawner has heard that it is made. */
static uint32_t start_of_shell(const char *name, char **argv)
{
	uint64_t until = io_now_ms() + DEADLINE_MS;

	for (;;) {
		struct sandbox_spec s = spec_of(name, argv);

		assert_int_equal(start(&s), 0);
		if (shell_of(name) != NO_SHELL)
			return shell_of(name);
		end(name);
		assert_true(io_now_ms() < until);
		assert_true(eventually_zero(missing));
	}
}

static void run(const char *name)
{
	struct sandbox_spec s = spec_of(name, truth);

	assert_int_equal(start(&s), 0);
	assert_int_equal(wait_exit(name).status, 0);
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
}

static void test_becomes_an_app(void **unused)
{
	need_shells();
	uint32_t number = start_of_shell("app-1-1", sleeper);
	char group[SANDBOX_NAME_MAX + 1];
	struct cgroup cg;
	struct cgroup_stats stats;
	struct err err;

	shell_group(number, group);
	assert_int_equal(cgroup_host()->open(group, &cg, &err), 0);
	assert_int_equal(cgroup_host()->stats(&cg, &stats, &err), 0);
	assert_int_equal(stats.memory_limit, 256 << 20);
	assert_int_equal(stats.pids_limit, 64);
	assert_int_equal(stats.pids, 2);
	assert_int_equal(call_freeze("app-1-1"), 0);
	assert_int_equal(call_name(SPAWN_THAW, "app-1-1", NULL), 0);
	/* the number is its own as long as it runs ... */
	assert_true(eventually_zero(missing));
	uint32_t second = start_of_shell("app-1-2", sleeper);
	assert_int_not_equal(second, number);
	/* ... and then free again, with nothing left of it */
	end("app-1-1");
	assert_int_equal(cgroup_host()->open(group, &cg, &err), -1);
	end("app-1-2");
	nothing_left();
}

/* Whoever waits for the next app has never seen anything of another. The secret is made up after the maker was. */
static char secret[64];

static void knows_nothing(pid_t pid)
{
	assert_false(memory_holds(pid, secret));
}

static void test_knows_no_secret(void **unused)
{
	char path[] = "PATH=/usr/bin:/bin", *env[] = {path, secret, NULL};
	struct sandbox_spec s = spec_of("app-2-1", sleeper);

	need_shells();
	snprintf(secret, sizeof secret, "TOKEN=%llx", (unsigned long long)io_wall_ms() * 0x9e3779b97f4a7c15U);
	s.env = env;
	assert_int_equal(start(&s), 0);
	assert_true(eventually_zero(missing));
	with_shells(knows_nothing);
	assert_true(with_makers(knows_nothing) >= MAKERS + SHELLS);
	end("app-2-1");
}

/* Sockets and pipes of the spawner: control's, the monitors', the logs'. */
static bool is_spawners(const char *link)
{
	cleanup_free char *fds = xasprintf("/proc/%d/fd", spawner_pid);
	cleanup_dir DIR *d = opendir(fds);
	struct dirent *e;
	char theirs[300];

	while (d && (e = readdir(d)) != NULL) {
		ssize_t k = readlinkat(dirfd(d), e->d_name, theirs, sizeof theirs - 1);
		theirs[k > 0 ? k : 0] = '\0';
		if ((strncmp(link, "socket:", 7) == 0 || strncmp(link, "pipe:", 5) == 0) && strcmp(theirs, link) == 0 &&
		    atoi(e->d_name) > 2)
			return true;
	}
	return false;
}

static void holds_nothing(pid_t pid)
{
	cleanup_free char *fds = xasprintf("/proc/%d/fd", pid);
	cleanup_dir DIR *d = opendir(fds);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		char link[300];
		ssize_t k = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
		link[k > 0 ? k : 0] = '\0';
		if (atoi(e->d_name) > 2 && is_spawners(link))
			fail_msg("descriptor %s of process %d is the spawner's %s", e->d_name, pid, link);
	}
}

static void test_holds_nothing_of_others(void **unused)
{
	need_shells();
	start_of_shell("app-3-1", sleeper);
	assert_true(eventually_zero(missing));
	assert_int_equal(with_shells(holds_nothing), SHELLS);
	with_makers(holds_nothing);
	end("app-3-1");
}

/* What a process may have open. `what`: how its link begins, with @ for the state folder; "" for any. */
struct allowed {
	const char *what, *purpose;
	mode_t type; /* 0: any */
	int min, max;
};

/* Of who is looked at and is not as it should be: with what, the last one, and how many. */
static char complaint[700];
static int complaints;

/* Each descriptor must be one of a list, and of each kind there must be so many. */
static void holds_only(pid_t pid, const struct allowed *list)
{
	cleanup_free char *fds = xasprintf("/proc/%d/fd", pid);
	cleanup_dir DIR *d = opendir(fds);
	int seen[16] = {0};
	struct dirent *e;
	struct stat st;
	size_t n;

	while (d && (e = readdir(d)) != NULL) {
		char link[300];
		ssize_t k = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);

		if (k < 0 || fstatat(dirfd(d), e->d_name, &st, 0) < 0)
			continue;
		link[k] = '\0';
		for (n = 0; list[n].what; n++) {
			cleanup_free char *begin =
			    *list[n].what == '@' ? xasprintf("%s%s", state, list[n].what + 1) : xstrdup(list[n].what);
			if ((!list[n].type || (st.st_mode & S_IFMT) == list[n].type) &&
			    strncmp(link, begin, strlen(begin)) == 0)
				break;
		}
		if (!list[n].what) {
			snprintf(complaint, sizeof complaint,
				 "process %d has descriptor %s open, %s, which is for nothing", pid, e->d_name, link);
			complaints++;
			return;
		}
		seen[n]++;
	}
	for (n = 0; list[n].what; n++) {
		if (seen[n] < list[n].min || seen[n] > list[n].max) {
			snprintf(complaint, sizeof complaint, "process %d: %d descriptors for %s", pid, seen[n],
				 list[n].purpose);
			complaints++;
		}
	}
}

/* Pid 1, all the time that it waits. Who waits with it has the other ends. */
static void pid_1_holds(pid_t pid)
{
	static const struct allowed list[] = {
	    {"", "0, 1 and 2: /dev/null, that no other gets these numbers", S_IFCHR, 3, 3},
	    {"socket:", "what it is to be, and what went wrong; requests for commands inside", S_IFSOCK, 2, 2},
	    {"pipe:", "how the main process has ended", S_IFIFO, 1, 1},
	    {NULL, NULL, 0, 0, 0},
	};
	cleanup_free char *null = xasprintf("/proc/%d/fd/2", pid);
	struct stat st;

	holds_only(pid, list);
	if (stat(null, &st) < 0 || st.st_rdev != makedev(1, 3)) {
		snprintf(complaint, sizeof complaint, "2 of process %d is not /dev/null", pid);
		complaints++;
	}
}

/* Privileged, and outside. Sockets are counted for all three kinds of processes: what they may not be is in is_spawners(). */
static void its_parents_hold(pid_t pid)
{
	static const struct allowed list[] = {
	    {"/dev/", "stdin and the log of the role", S_IFCHR, 0, 3},
	    {"pipe:", "the log of the role; how the main process has ended", S_IFIFO, 0, 4},
	    {"/", "the log of the role, or the lock on a number", S_IFREG, 0, 4},
	    {"@/volumes", "where volumes are", S_IFDIR, 1, 1},
	    {"@/sandboxes", "where the lock is", S_IFDIR, 1, 1},
	    {"/sys/fs/cgroup", "the roots of groups, and a shell's own", S_IFDIR, 0, 9},
	    {"/", "the root of groups that is mounted nowhere, and a shell's own", S_IFDIR, 0, 2},
	    {"mnt:", "the host's mounts, for the monitor; where sandboxes are born", S_IFREG, 2, 2},
	    {"net:", "the network of the shell", S_IFREG, 0, 1},
	    {"user:", "its ids", S_IFREG, 0, 1},
	    {"socket:", "to the spawner; two to pid 1", S_IFSOCK, 1, 3},
	    {"anon_inode:[pidfd]", "pid 1, or the other maker", 0, 0, 1},
	    {NULL, NULL, 0, 0, 0},
	};

	holds_only(pid, list);
}

static int wrong_in_pid_1(void)
{
	complaints = 0;
	return with_shells(pid_1_holds) != SHELLS || complaints;
}

static int wrong_in_its_parents(void)
{
	complaints = 0;
	return with_makers(its_parents_hold) != MAKERS + SHELLS || complaints;
}

/* As soon as they wait: one that is still being made has more. */
static void test_holds_what_it_needs(void **unused)
{
	need_shells();
	assert_true(eventually_zero(makers_missing));
	if (!eventually_zero(wrong_in_pid_1) || !eventually_zero(wrong_in_its_parents))
		fail_msg("%d are wrong; %s", complaints, complaint);
}

/* All that an app can learn of itself and its surroundings without asking others, and that is not of the whole host. Its ids and the
 * folders below /usr are told apart from a sandbox of its own by nothing but their names and numbers. */
static char describe[] =
    "import ctypes, os, re, signal\n"
    "def show(what, text):\n"
    "    for line in str(text).splitlines():\n"
    "        print(what, *line.split())\n"
    "def read(path):\n"
    "    try:\n"
    "        return open(path, errors='replace').read().replace('\\0', ' ')\n"
    "    except OSError as e:\n"
    "        return e.strerror\n"
    "me = '/proc/self/'\n"
    "show('status', '\\n'.join(l for l in read(me + 'status').splitlines() if not re.match('Vm|Rss|vol|nonvol|Huge', "
    "l)))\n"
    "stat = read(me + 'stat').rpartition(')')[2].split()\n"
    "show('stat', [stat[i] for i in (1, 2, 3, 4, 5, 6, 15, 16, 17, 18, 35, 37, 38)])\n"
    "for name in ('uid_map', 'gid_map'):\n"
    "    show(name, '\\n'.join(re.sub(r'^( *\\d+) +\\d+', r'\\1', l) for l in read(me + name).splitlines()))\n"
    "for name in ('limits', 'oom_score_adj', 'timerslack_ns', 'personality', 'coredump_filter', 'loginuid', "
    "'sessionid', 'cgroup',\n"
    "             'cpuset', 'setgroups', 'projid_map', 'attr/current', 'timens_offsets', 'environ', 'cwd', 'root'):\n"
    "    show(name, read(me + name))\n"
    "mounts = [re.sub('([ug]id|lowerdir)=[^,]*', '', ' '.join(l.split()[3:])) for l in read(me + "
    "'mountinfo').splitlines()]\n"
    "show('mounts', '\\n'.join(sorted(mounts)))\n"
    "libc = ctypes.CDLL(None)\n"
    "out = ctypes.c_long()\n"
    "for get in (2, 3, 5, 7, 9, 11, 13, 19, 21, 25, 27, 30, 34, 37, 39, 42, 52, 56, 58):\n"
    "    show(f'prctl {get}', [libc.prctl(get, ctypes.byref(out), 0, 0, 0), out.value])\n"
    "show('sched', [os.sched_getscheduler(0), os.sched_getparam(0), os.getpriority(os.PRIO_PROCESS, 0), "
    "os.sched_getaffinity(0)])\n"
    "show('timers', [signal.getitimer(i) for i in range(3)])\n"
    "show('ids', [os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0), os.getresuid(), os.getresgid(), "
    "os.getgroups()])\n"
    "show('place', [os.getcwd(), os.umask(0), os.uname()])\n"
    "show('fds', [(fd, oct(os.stat(me + 'fd/' + fd).st_mode)) for fd in '012'] + os.listdir(me + 'fd'))\n"
    "ours = "
    "re.compile('/proc/sys/(kernel/(host|domain|sem|shm|msg|ns_last)|net/|user/)|/proc/sysvipc/|/proc/self/net/"
    "(dev|snmp|unix|route)$')\n"
    "for top in ('/proc/sys', '/proc/sysvipc', '/proc/self/net'):\n"
    "    for folder, _, names in os.walk(top):\n"
    "        for path in sorted(f'{folder}/{name}' for name in names):\n"
    "            if ours.match(path):\n"
    "                show(path, read(path))\n"
    "for top in ('/', '/dev', '/dev/pts', '/dev/shm', '/tmp', '/run', '/home/user'):\n"
    "    v = os.statvfs(top)\n"
    "    show('volume ' + top, [v.f_bsize, v.f_blocks, v.f_files, v.f_flag, v.f_blocks - v.f_bfree, v.f_files - "
    "v.f_ffree])\n"
    "    for entry in sorted(os.scandir(top), key=lambda e: e.name):\n"
    "        s = entry.stat(follow_symlinks=False)\n"
    "        show(entry.path, [oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev])\n"
    "print('that is all')\n";

/* Of one that was made ahead, or was not: the first one that is so. */
static char *description(bool ahead)
{
	char python[] = "python3", c[] = "-c", *argv[] = {python, c, describe, NULL};
	uint64_t until = io_now_ms() + DEADLINE_MS;

	for (;;) {
		struct sandbox_spec s = spec_of("app-9-1", argv);

		assert_int_equal(start(&s), 0);
		bool is = shell_of(s.name) != NO_SHELL;
		assert_int_equal(wait_exit(s.name).status, 0);
		assert_int_equal(call_name(SPAWN_FORGET, s.name, NULL), 0);
		char *text = log_text(s.name);
		assert_int_equal(unlink(log_path), 0);
		assert_non_null(strstr(text, "that is all"));
		if (is == ahead)
			return text;
		free(text);
		assert_true(io_now_ms() < until);
		assert_true(eventually_zero(missing));
	}
}

/* No app can tell from what it finds that its sandbox has waited, nor by whom it was made. */
static void test_looks_like_any_other(void **unused)
{
	need_shells();
	cleanup_free char *ahead = description(true);
	spawner_down(0);
	setenv("SPACED_FORCE", "pool_none", 1);
	spawner_up();
	cleanup_free char *direct = description(false);
	spawner_down(0);
	unsetenv("SPACED_FORCE");
	spawner_up();
	size_t n = 0, line = 0;
	for (; ahead[n] && ahead[n] == direct[n]; n++)
		line = ahead[n] == '\n' ? n + 1 : line;
	if (ahead[n] || direct[n])
		fail_msg("made ahead `%.*s`, else `%.*s`", (int)strcspn(ahead + line, "\n"), ahead + line,
			 (int)strcspn(direct + line, "\n"), direct + line);
}

/* Notes all; who waited with one that has died may not have ended yet. */
static int not_all_wait(void)
{
	ndoomed = 0;
	with_shells(note);
	with_makers(note_who_waits);
	return ndoomed == 2 * SHELLS ? 0 : 1;
}

/* Dead ones are noticed, and a start makes do without, or with the next ones: these have other numbers then. All are found before
 * the first dies: for each there is a new one. */
static void test_dies(void **unused)
{
	for (size_t k = 0; k < 4; k++) {
		need_shells();
		assert_true(eventually_zero(not_all_wait));
		for (size_t n = 0; n < SHELLS; n++)
			kill(doomed[k / 2 * SHELLS + n], SIGKILL);
		assert_true(eventually_zero(still_there));
		if (k % 2) {
			run("app-4-1");
		} else {
			start_of_shell("app-4-1", sleeper);
			end("app-4-1");
		}
	}
	nothing_left();
}

/* Either has the other's place filled again, and there are shells as before, that hold and know as little. */
static void test_a_maker_is_replaced(void **unused)
{
	for (int k = 0; k < 3; k++) {
		need_shells();
		assert_true(eventually_zero(makers_missing));
		pid_t gone = doomed[k % MAKERS];

		kill(gone, SIGKILL);
		assert_true(eventually_zero(makers_missing));
		while (doomed[0] == gone || doomed[1] == gone) /* it may have been seen while it was dying */
			assert_true(eventually_zero(makers_missing));
		for (int n = 0; n < SHELLS; n++) {
			start_of_shell("app-8-1", sleeper);
			end("app-8-1");
		}
		with_makers(holds_nothing);
	}
	nothing_left();
}

static void kill_makers(void)
{
	assert_true(eventually_zero(makers_missing));
	for (size_t k = 0; k < ndoomed; k++)
		kill(doomed[k], SIGSTOP); /* at once */
	for (size_t k = 0; k < ndoomed; k++)
		kill(doomed[k], SIGKILL);
}

/* Nobody makes any more: all starts are by forks of the spawner, as long as it has something to do. Then it ends, and what runs is
 * the next one's, who has makers. */
static void test_without_their_makers(void **unused)
{
	struct sandbox_spec build = spec_of("build-5-1", sleeper), app = spec_of("app-5-2", sleeper);
	struct pollfd p = {.events = POLLIN};
	struct frame f;
	int status;

	build.profile = SANDBOX_BUILD;
	need_shells();
	assert_int_equal(start(&build), 0);
	kill_makers();
	for (int k = 0; k < 2 * SHELLS; k++)
		run("app-5-1");
	assert_true(eventually_zero(waiting)); /* the last one may be dead, and nobody has looked at it yet */
	assert_int_equal(start(&app), 0);
	assert_int_equal(call_stop(build.name, 0), 0);
	assert_false(next_frame(control, &f, DEADLINE_MS));
	p.fd = control;
	assert_int_equal(poll(&p, 1, 0), 1); /* it is the end, and not the deadline */
	close(control);
	assert_int_equal(waitpid(spawner_pid, &status, 0), spawner_pid);
	assert_int_equal(status, 0);
	spawner_up();
	need_shells();
	assert_int_equal(listed(app.name), 1);
	assert_int_equal(call_name(SPAWN_FORGET, build.name, NULL), 0);
	start_of_shell("app-5-3", sleeper);
	end("app-5-3");
	end(app.name);
	nothing_left();
}

/* A spawner that is killed takes those that wait along, not what has become of one; and the next one knows its number. */
static void test_after_a_restart(void **unused)
{
	static const char *const names[] = {"app-6-1", "app-6-2", "app-6-3", "app-6-4", "app-6-5"};
	enum { BEFORE = 3, ALL = 5 };
	uint32_t numbers[ALL];

	need_shells();
	for (int k = 0; k < ALL; k++) {
		if (k == BEFORE) {
			assert_true(eventually_zero(missing));
			spawner_down(SIGKILL);
			assert_true(eventually_zero(waiting));
			spawner_up();
		}
		assert_true(eventually_zero(missing));
		numbers[k] = start_of_shell(names[k], sleeper);
		for (int other = 0; other < k; other++)
			assert_int_not_equal(numbers[other], numbers[k]);
	}
	for (int k = 0; k < ALL; k++) {
		assert_int_equal(listed(names[k]), 1);
		end(names[k]);
	}
	nothing_left();
}

/* With the spawner at once: what they leave is found by the next ones of the same numbers. */
static void test_all_are_killed(void **unused)
{
	need_shells();
	ndoomed = 0;
	with_makers(note);
	for (size_t k = 0; k < ndoomed; k++)
		kill(doomed[k], SIGKILL);
	spawner_down(SIGKILL);
	assert_true(eventually_zero(waiting));
	spawner_up();
	need_shells();
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_becomes_an_app),	    cmocka_unit_test(test_knows_no_secret),
	    cmocka_unit_test(test_holds_nothing_of_others), cmocka_unit_test(test_holds_what_it_needs),
	    cmocka_unit_test(test_looks_like_any_other),    cmocka_unit_test(test_dies),
	    cmocka_unit_test(test_a_maker_is_replaced),	    cmocka_unit_test(test_without_their_makers),
	    cmocka_unit_test(test_after_a_restart),	    cmocka_unit_test(test_all_are_killed),
	};

	close_range(3, ~0U, 0); /* what this test was started with is nobody's secret */
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
