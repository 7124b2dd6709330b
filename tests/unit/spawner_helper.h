/* For the test_spawner_*.c: a real spawner in a child process with a state folder of its own, and a client for its
 * channel. Root is needed; without it every test is skipped with that reason. */
#ifndef TESTS_SPAWNER_HELPER_H
#define TESTS_SPAWNER_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/egress.h"
#include "sandbox/shells.h"
#include "sandbox/spawner.h"

/* a range of our own: other tests may run on this host */
#define ID_BASE (1900000000U + (uint32_t)(getpid() % 20000) * SANDBOX_IDS)
#define DEADLINE_MS 60000

static char state[64];
static char tag[6];
static pid_t spawner_pid;
static int control = -1;
static uint32_t next_id = 1;

/* Events that came while something else was waited for. */
static struct {
	char name[SANDBOX_NAME_MAX + 1];
	struct sandbox_exit exit;
} exits[64];
static size_t nexits;
static struct {
	char name[SANDBOX_NAME_MAX + 1];
	enum limit_kind kind;
	char sentence[LIMIT_SENTENCE];
} limits[64];
static size_t nlimits;

static void need_root(void)
{
	if (geteuid() != 0) {
		print_message("# SKIP needs root\n");
		skip();
	}
}

/* Of which cmocka makes a failed test: in the spawner and its children that would go on with all other tests. */
static const int crashes[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS};

static void spawner_up(void)
{
	uint32_t id_base = ID_BASE; /* ours, not the child's */
	int sv[2];

	assert_int_equal(frame_pair(sv), 0);
	spawner_pid = fork();
	if (spawner_pid == 0) {
		struct spawner_config c = {.state = state, .control = sv[1], .id_base = id_base};
		close(sv[0]);
		for (size_t k = 0; k < sizeof crashes / sizeof *crashes; k++)
			signal(crashes[k], SIG_DFL);
		log_init("spawner", LOG_LEVEL_WARN);
		_exit(spawner_main(&c));
	}
	close(sv[1]);
	control = sv[0];
}

/* By closing its channel, or by a signal. */
static void spawner_down(int sig)
{
	int status;

	if (sig)
		kill(spawner_pid, sig);
	close(control);
	assert_int_equal(waitpid(spawner_pid, &status, 0), spawner_pid);
	spawner_pid = 0;
	if (!sig)
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static inline int state_make(void **unused)
{
	struct egress e;

	if (geteuid() != 0)
		return 0;
	snprintf(state, sizeof state, "/tmp/spaced-unit-XXXXXX");
	if (!mkdtemp(state))
		return -1;
	egress_init(&e, state, "");
	memcpy(tag, e.tag, sizeof tag);
	spawner_up();
	return 0;
}

static void note_exit(struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);

	assert_true(nexits < sizeof exits / sizeof *exits);
	get_str(&r, exits[nexits].name, sizeof exits[0].name);
	assert_true(sandbox_exit_decode(&r, &exits[nexits].exit) && get_ok(&r));
	nexits++;
}

/* Commands inside that have ended. */
static struct {
	uint32_t id, status;
	char why[120];
} commands_ended[64];
static size_t ncommands_ended;

static void note_command(struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	char name[SANDBOX_NAME_MAX + 1];

	assert_true(ncommands_ended < sizeof commands_ended / sizeof *commands_ended);
	get_str(&r, name, sizeof name);
	commands_ended[ncommands_ended].id = get_u32(&r);
	commands_ended[ncommands_ended].status = get_u32(&r);
	get_str(&r, commands_ended[ncommands_ended].why, sizeof commands_ended[0].why);
	assert_true(get_ok(&r));
	ncommands_ended++;
}

static void note_limit(struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);

	assert_true(nlimits < sizeof limits / sizeof *limits);
	get_str(&r, limits[nlimits].name, sizeof limits[0].name);
	limits[nlimits].kind = (enum limit_kind)get_u8(&r);
	assert_true(get_str(&r, limits[nlimits].sentence, sizeof limits[0].sentence) && get_ok(&r));
	print_message("# %s: %s\n", limits[nlimits].name, limits[nlimits].sentence);
	nlimits++;
}

/* True: it was an event, and is noted. */
static bool note_event(struct frame *f)
{
	if (f->type == SPAWN_EXITED)
		note_exit(f);
	else if (f->type == SPAWN_EXEC_ENDED)
		note_command(f);
	else if (f->type == SPAWN_LIMIT)
		note_limit(f);
	else
		return false;
	frame_release(f);
	return true;
}

/* One frame within the deadline; notes events on the way. False when there is none. */
static bool next_frame(int sock, struct frame *f, int ms)
{
	uint64_t end = io_now_ms() + (uint64_t)ms;

	for (;;) {
		uint64_t now = io_now_ms();
		struct pollfd p = {sock, POLLIN, 0};
		if (now >= end || poll(&p, 1, (int)(end - now)) != 1)
			return false;
		if (frame_recv(sock, f) != 1)
			return false;
		if (!note_event(f))
			return true;
	}
}

static uint32_t request(uint32_t verb, const struct buf *b, const int *fds, int nfds)
{
	assert_int_equal(frame_send(control, verb, next_id, b->data, b->len, fds, nfds), 0);
	return next_id++;
}

/* Waits for the answer: 0, or the errno of the spawner's refusal. `f` may be NULL. */
static int answer(uint32_t id, struct frame *f)
{
	struct frame own = {0};

	if (!f)
		f = &own;
	assert_true(next_frame(control, f, DEADLINE_MS));
	assert_int_equal(f->id, id); /* NOLINT(clang-analyzer-core.CallAndMessage): set when next_frame() is true */
	int code = 0;
	if (f->type == SPAWN_ERROR) {
		struct reader r = reader_of(f->payload, f->len);
		char msg[500];
		code = (int)get_u32(&r);
		get_str(&r, msg, sizeof msg);
		assert_true(get_ok(&r));
		print_message("# refused: %s\n", msg);
	} else {
		assert_int_equal(f->type, SPAWN_OK);
	}
	if (f == &own || code)
		frame_release(f);
	return code;
}

static inline int call_name(uint32_t verb, const char *name, struct frame *f)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	return answer(request(verb, &b, NULL, 0), f);
}

static inline int call_stop(const char *name, uint32_t grace)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	put_u32(&b, grace);
	return answer(request(SPAWN_STOP, &b, NULL, 0), NULL);
}

/* Which the spawner gives up after two seconds; control would try again, too. */
static inline int call_freeze(const char *name)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;
	int code;

	while ((code = call_name(SPAWN_FREEZE, name, NULL)) == ETIMEDOUT && io_now_ms() < end)
		;
	return code;
}

static inline int volume_make(const char *name, uint64_t bytes)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	put_u64(&b, bytes);
	return answer(request(SPAWN_VOLUME_CREATE, &b, NULL, 0), NULL);
}

static inline int volume_move(const char *from, const char *to)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, from);
	put_str(&b, to);
	return answer(request(SPAWN_VOLUME_RENAME, &b, NULL, 0), NULL);
}

/* A spec on literals: never released. */
static inline struct sandbox_spec spec_of(const char *name, char **argv)
{
	static char *env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/user", "PYTHONUNBUFFERED=1", NULL};
	struct sandbox_spec s = {.profile = SANDBOX_APP,
				 .id_base = ID_BASE,
				 .uid = 1000,
				 .gid = 1000,
				 .argv = argv,
				 .env = env,
				 .cwd = "/tmp",
				 .limits = {.memory = 256 << 20, .pids = 64}};

	snprintf(s.name, sizeof s.name, "%s", name);
	return s;
}

static char log_path[256];

static inline int start(const struct sandbox_spec *s)
{
	cleanup_buf struct buf b = BUF_INIT;

	snprintf(log_path, sizeof log_path, "%s/%s.log", state, s->name);
	cleanup_close int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	assert_true(log >= 0);
	sandbox_spec_encode(s, &b);
	put_u8(&b, 0);
	put_u8(&b, 0);
	return answer(request(SPAWN_START, &b, &log, 1), NULL);
}

static inline struct sandbox_exit wait_exit(const char *name)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	for (;;) {
		for (size_t i = 0; i < nexits; i++) {
			if (strcmp(exits[i].name, name) == 0) {
				struct sandbox_exit e = exits[i].exit;
				exits[i] = exits[--nexits];
				return e;
			}
		}
		struct pollfd p = {control, POLLIN, 0};
		struct frame f;
		assert_true(io_now_ms() < end && poll(&p, 1, DEADLINE_MS) == 1);
		assert_int_equal(frame_recv(control, &f), 1);
		assert_true(note_event(&f));
	}
}

/* 1 running, 0 exited, -1 not listed. */
static inline int listed(const char *name)
{
	cleanup_buf struct buf none = BUF_INIT;
	struct frame f;
	int found = -1;

	assert_int_equal(answer(request(SPAWN_LIST, &none, NULL, 0), &f), 0);
	struct reader r = reader_of(f.payload, f.len);
	for (uint32_t n = get_u32(&r); n; n--) {
		struct sandbox_exit e;
		char who[SANDBOX_NAME_MAX + 1];
		get_str(&r, who, sizeof who);
		int running = get_u8(&r);
		get_u64(&r);
		assert_true(sandbox_exit_decode(&r, &e));
		if (strcmp(who, name) == 0)
			found = running;
	}
	assert_true(get_ok(&r));
	frame_release(&f);
	return found;
}

static inline char *log_text(const char *name)
{
	cleanup_buf struct buf b = BUF_INIT;

	snprintf(log_path, sizeof log_path, "%s/%s.log", state, name);
	assert_int_equal(io_read_file(AT_FDCWD, log_path, 16 << 20, &b), 0);
	return buf_steal(&b, NULL);
}

/* How many lines of a file hold `what`. */
static inline int lines_with(const char *path, const char *what)
{
	cleanup_file FILE *f = fopen(path, "re");
	char line[4096];
	int n = 0;

	while (f && fgets(line, sizeof line, f))
		n += strstr(line, what) != NULL;
	return n;
}

/* Loop devices on images below the state folder. */
static inline int loops(void)
{
	cleanup_dir DIR *d = opendir("/sys/block");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) != NULL) {
		char path[300];
		snprintf(path, sizeof path, "/sys/block/%s/loop/backing_file", e->d_name);
		/* seen from a mount namespace that is gone, a path may lack what /tmp is mounted on */
		n += lines_with(path, strrchr(state, '/')) > 0;
	}
	return n;
}

static inline int links(void)
{
	char prefix[16];

	snprintf(prefix, sizeof prefix, EGRESS_PREFIX "%s", tag);
	return lines_with("/proc/net/dev", prefix);
}

static inline uint32_t uid_of(const char *pid)
{
	cleanup_free char *status = xasprintf("/proc/%s/status", pid);
	cleanup_file FILE *f = fopen(status, "re");
	char line[256];
	uint32_t uid = 0;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Uid:\t%u", &uid) == 1)
			break;
	return uid;
}

/* Whether a process has the id `inside` in the range that the test asks for, or in that of one of the first shells. */
static inline bool has_id(const char *pid, uint32_t inside)
{
	enum { SHELLS_IN_USE = 16 };
	uint32_t uid = uid_of(pid);

	for (uint32_t n = 0; n < SHELLS_IN_USE; n++)
		if (uid == ID_BASE + (SHELL_IDS_FROM + n) * SANDBOX_IDS + inside)
			return true;
	return uid == ID_BASE + inside;
}

/* The user of an app of ours: in the range that the test asks for, or in a shell's and in a group of this spawner, for other tests'
 * ranges may be ours. */
static inline bool is_app(const char *pid)
{
	cleanup_free char *cgroup = xasprintf("/proc/%s/cgroup", pid);
	char tree[32];

	snprintf(tree, sizeof tree, "/spaced-%s/", tag);
	return uid_of(pid) == ID_BASE + 1000 || (has_id(pid, 1000) && lines_with(cgroup, tree) > 0);
}

/* A group of one that was made ahead and is nobody's yet: its pid 1 is root of its range. */
static inline bool is_waiting(const char *group)
{
	cleanup_free char *procs = xasprintf("%s/cgroup.procs", group);
	cleanup_file FILE *f = spawner_pid > 0 && strstr(group, "/shell.") ? fopen(procs, "re") : NULL;
	char pid[32] = "";

	if (!f || !fgets(pid, sizeof pid, f))
		return false;
	pid[strcspn(pid, "\n")] = '\0';
	return uid_of(pid) > ID_BASE && (uid_of(pid) - ID_BASE) % SANDBOX_IDS == 0;
}

/* Groups of sandboxes below our tree in any hierarchy. */
static inline int groups_below(const char *root)
{
	char path[300];
	int n = 0;

	snprintf(path, sizeof path, "%s/spaced-%s", root, tag);
	cleanup_dir DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d)) != NULL) {
		cleanup_free char *group = xasprintf("%s/%s", path, e->d_name);
		n += e->d_type == DT_DIR && e->d_name[0] != '.' && !is_waiting(group);
	}
	return n;
}

static inline int groups(void)
{
	cleanup_dir DIR *d = opendir("/sys/fs/cgroup");
	struct dirent *e;
	int n = groups_below("/sys/fs/cgroup");

	while (d && (e = readdir(d)) != NULL) {
		char path[280];
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s", e->d_name);
		if (e->d_name[0] != '.')
			n += groups_below(path);
	}
	return n;
}

/* Is it anywhere in the memory of that process? */
static inline bool memory_holds(pid_t pid, const char *what)
{
	char path[64], line[512];

	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	cleanup_file FILE *maps = fopen(path, "re");
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	cleanup_close int mem = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(maps && mem >= 0);
	while (fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		if (sscanf(line, "%lx-%lx", &from, &to) != 2 || to - from > 256UL << 20 || strstr(line, "[v"))
			continue;
		cleanup_free char *room = xmalloc(to - from);
		ssize_t n = pread(mem, room, to - from, (off_t)from);
		if (n > 0 && memmem(room, (size_t)n, what, strlen(what)))
			return true;
	}
	return false;
}

/* Of apps, monitors, and, once the spawner is gone, all that hold a file below the state folder. */
static inline int processes(void)
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) != NULL) {
		char path[300];
		char link[200];
		struct stat st;
		snprintf(path, sizeof path, "/proc/%s", e->d_name);
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || stat(path, &st) < 0)
			continue;
		bool ours = is_app(e->d_name); /* a shell that waits is root of its range */
		snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
		if (spawner_pid > 0 && lines_with(path, "spaced-shell"))
			continue;
		for (int fd = 3; fd < 12 && !ours; fd++) {
			snprintf(path, sizeof path, "/proc/%s/fd/%d", e->d_name, fd);
			ssize_t k = readlink(path, link, sizeof link - 1);
			if (k > 0) {
				link[k] = '\0';
				ours = strstr(link, strrchr(state, '/')) && (pid_t)atoi(e->d_name) != getpid() &&
				       (pid_t)atoi(e->d_name) != spawner_pid;
			}
		}
		n += ours;
	}
	return n;
}

static inline bool eventually_zero(int (*what)(void))
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	while (what() != 0) {
		if (io_now_ms() >= end)
			return false;
		poll(NULL, 0, 20);
	}
	return true;
}

/* After everything was stopped and forgotten and the spawner has ended, nothing of it may be left. */
static inline void nothing_left(void)
{
	spawner_down(0);
	assert_true(eventually_zero(processes));
	assert_true(eventually_zero(loops));
	assert_true(eventually_zero(links));
	assert_true(eventually_zero(groups));
	assert_int_equal(lines_with("/proc/self/mountinfo", state), 0);
	spawner_up();
}

/* The empty tree of our groups, in each hierarchy. */
static inline void groups_remove(void)
{
	cleanup_dir DIR *d = opendir("/sys/fs/cgroup");
	struct dirent *e;
	char path[300];

	snprintf(path, sizeof path, "/sys/fs/cgroup/spaced-%s", tag);
	rmdir(path);
	while (d && (e = readdir(d)) != NULL) {
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/spaced-%s", e->d_name, tag);
		rmdir(path);
	}
}

static inline int state_remove(void **unused)
{
	struct egress e;
	struct err err;

	if (geteuid() != 0)
		return 0;
	close(control);
	waitpid(spawner_pid, NULL, 0);
	egress_init(&e, state, "");
	egress_remove_rules(&e, &err);
	eventually_zero(loops);
	groups_remove();
	return io_remove_tree(AT_FDCWD, state);
}

#endif
