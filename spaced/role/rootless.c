/* See rootless.h. Sources: user_namespaces(7), newuidmap(1), ioctl_ns(2). */
#include "spaced/role/rootless.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/ids.h"
#include "sandbox/pidnote.h"
#include "sandbox/worker.h"

#define NOTE "ids" /* in the state folder */
#define NOTE_MAX 200
#define HOW_TO                                                                                                         \
	"; see the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and "                            \
	"kernel.apparmor_restrict_unprivileged_userns, or start it as root"

/* -- the ids that the files of the state folder have ----------------------------------------------------------------- */

/* "one", or "range FIRST-UID FIRST-GID" as the host counts them. */
struct note {
	bool known, range;
	uint32_t uid, gid;
};

static struct note read_note(const char *state)
{
	cleanup_free char *path = xasprintf("%s/" NOTE, state);
	cleanup_buf struct buf text = BUF_INIT;
	struct note n = {0};

	if (io_read_file(AT_FDCWD, path, NOTE_MAX, &text) < 0 || !text.data)
		return n;
	n.range = sscanf(text.data, "range %" SCNu32 " %" SCNu32, &n.uid, &n.gid) == 2;
	n.known = n.range || strcmp(text.data, "one\n") == 0;
	return n;
}

/* Where IDS_FIRST lies outside. */
static uint32_t lent_first(const char *map)
{
	cleanup_buf struct buf text = BUF_INIT;
	uint32_t inside, outside;

	if (io_read_file(AT_FDCWD, map, 4096, &text) < 0)
		return 0;
	for (const char *p = text.data; p && *p; p += strcspn(p, "\n"), p += *p == '\n')
		if (sscanf(p, " %" SCNu32 " %" SCNu32, &inside, &outside) == 2 && inside == IDS_FIRST)
			return outside;
	return 0;
}

int rootless_note(const char *state, struct err *err)
{
	cleanup_free char *path = xasprintf("%s/" NOTE, state);
	char text[NOTE_MAX];
	int n;

	if (ids_kind() == IDS_ALL)
		return 0;
	if (ids_kind() == IDS_ONE)
		n = snprintf(text, sizeof text, "one\n");
	else
		n = snprintf(text, sizeof text, "range %u %u\n", lent_first("/proc/self/uid_map"),
			     lent_first("/proc/self/gid_map"));
	int r = io_write_file(AT_FDCWD, path, text, (size_t)n, 0644);
	return r < 0 ? err_set(err, -r, "write `%s`", path) : 0;
}

/* Whether to use subordinate ids: where the files of an earlier start have none, a mixture would help nobody. */
static int choose(const char *state, bool *range, struct ids_lent *uids, struct ids_lent *gids, struct err *err)
{
	struct note n = read_note(state);

	*range = ids_range_possible(uids, gids);
	if (n.known && !n.range && *range) {
		log_warn("the state folder was made without subordinate ids, so they are not used; a new one would use "
			 "them");
		*range = false;
	}
	if (n.range && (!*range || n.uid != uids->first || n.gid != gids->first))
		return err_text(err, 0,
				"the files in `%s` belong to the subordinate ids from %u (uid) and %u (gid) on, which "
				"/etc/subuid and /etc/subgid do not lend to this user now: give them back, or choose "
				"another state folder with --state",
				state, n.uid, n.gid);
	return 0;
}

/* -- the namespace that a running sandbox keeps alive ------------------------------------------------------------------ */

/* The user namespace above that of a sandbox's init, if it is one of ours. */
static int parent_namespace(pid_t init)
{
	char path[64];
	uid_t owner;

	snprintf(path, sizeof path, "/proc/%d/ns/user", (int)init);
	cleanup_close int theirs = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_close int fd = theirs < 0 ? -1 : ioctl(theirs, NS_GET_PARENT);
	if (fd < 0 || ioctl(fd, NS_GET_OWNER_UID, &owner) < 0 || owner != geteuid())
		return -1;
	return steal_fd(&fd);
}

static int find_namespace(const char *state)
{
	cleanup_free char *path = xasprintf("%s/sandboxes", state);
	cleanup_dir DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		cleanup_free char *note = xasprintf("%s/init", e->d_name);
		pid_t init;
		cleanup_close int pidfd = e->d_name[0] == '.' ? -1 : pidnote_find(dirfd(d), note, &init);
		int ns = pidfd < 0 ? -1 : parent_namespace(init);

		if (ns >= 0)
			return ns;
	}
	return -1;
}

/* -- a new one ------------------------------------------------------------------------------------------------------------ */

struct mapping {
	pid_t target;
	int go[2]; /* something to read once the target has entered its namespace */
	uid_t uid;
	gid_t gid;
	struct ids_lent uids, gids;
};

static int run_mapper(const char *program, pid_t target, uint32_t own, const struct ids_lent *lent, struct err *err)
{
	char pid[16], id[16], inside[16], first[16], count[16];
	const char *const argv[] = {program, pid, "0", id, "1", inside, first, count, NULL};

	snprintf(pid, sizeof pid, "%d", (int)target);
	snprintf(id, sizeof id, "%u", own);
	snprintf(inside, sizeof inside, "%u", IDS_FIRST);
	snprintf(first, sizeof first, "%u", lent->first);
	snprintf(count, sizeof count, "%u", lent->count);
	return worker_exec(argv, 0, err);
}

/* In a child that stays outside, as newuidmap(1) wants it. */
static int map_range(void *arg, struct buf *result, struct err *err)
{
	struct mapping *m = arg;
	char byte;

	(void)result;
	close(m->go[1]); /* the target's end, whose close we wait for if it fails */
	if (read(m->go[0], &byte, 1) != 1)
		return err_text(err, ECANCELED, "no namespace");
	if (run_mapper("newgidmap", m->target, m->gid, &m->gids, err) < 0)
		return -1;
	return run_mapper("newuidmap", m->target, m->uid, &m->uids, err);
}

static int wait_worker(int fd, struct err *err)
{
	cleanup_buf struct buf raw = BUF_INIT;
	struct pollfd p = {fd, POLLIN, 0};

	while (worker_read(fd, &raw) == 0)
		poll(&p, 1, -1);
	while (waitpid(-1, NULL, 0) < 0 && errno == EINTR)
		;
	return worker_result(&raw, NULL, err);
}

static int write_file(const char *path, const char *text, struct err *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || io_write_full(fd, text, strlen(text)) < 0)
		return err_set(err, errno, "write %s" HOW_TO, path);
	return 0;
}

static int map_one(uid_t uid, gid_t gid, struct err *err)
{
	char text[40];

	if (write_file("/proc/self/setgroups", "deny", err) < 0)
		return -1;
	snprintf(text, sizeof text, "0 %u 1", gid);
	if (write_file("/proc/self/gid_map", text, err) < 0)
		return -1;
	snprintf(text, sizeof text, "0 %u 1", uid);
	return write_file("/proc/self/uid_map", text, err);
}

static int new_user_namespace(struct err *err)
{
	return unshare(CLONE_NEWUSER) < 0
		   ? err_set(err, errno, "not root, and this host gives no user namespace" HOW_TO)
		   : 0;
}

static int make_with_range(const struct ids_lent *uids, const struct ids_lent *gids, struct err *err)
{
	struct mapping m = {.target = getpid(), .uid = geteuid(), .gid = getegid(), .uids = *uids, .gids = *gids};

	if (pipe2(m.go, O_CLOEXEC) < 0)
		return err_set(err, errno, "pipe");
	cleanup_close int worker = worker_start(map_range, &m, err);
	close(m.go[0]);
	int r = worker < 0 ? -1 : new_user_namespace(err);
	if (r == 0 && write(m.go[1], "", 1) != 1)
		r = err_set(err, errno, "pipe");
	close(m.go[1]);
	if (worker >= 0) {
		struct err theirs;
		if (wait_worker(worker, &theirs) < 0 && r == 0) {
			*err = theirs;
			r = -1;
		}
	}
	return r;
}

/* Tried in a child first: a namespace that has only half of its map is of no use, and there is no way out of it. */
static int try_range(void *arg, struct buf *result, struct err *err)
{
	const struct ids_lent *lent = arg;

	(void)result;
	return make_with_range(&lent[0], &lent[1], err);
}

static int make_namespace(const char *state, struct err *err)
{
	struct ids_lent lent[2];
	struct err why = ERR_INIT;
	bool range;

	if (choose(state, &range, &lent[0], &lent[1], err) < 0)
		return -1;
	if (range && worker_run(try_range, lent, NULL, &why) < 0) {
		if (read_note(state).range) {
			*err = why;
			return err_prefix(err, "subordinate ids");
		}
		log_warn("subordinate ids cannot be used: %s", why.msg);
		range = false;
	}
	if (range)
		return make_with_range(&lent[0], &lent[1], err);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	return new_user_namespace(err) < 0 ? -1 : map_one(uid, gid, err);
}

int rootless_enter(const char *state, struct err *err)
{
	if (geteuid() == 0)
		return 0;
	cleanup_close int there = find_namespace(state);
	if (there >= 0) {
		if (setns(there, CLONE_NEWUSER) < 0)
			return err_set(err, errno, "enter the user namespace of the sandboxes that run");
		log_info("sandboxes of an earlier start run: entered their user namespace again");
	} else if (make_namespace(state, err) < 0) {
		return -1;
	}
	ids_forget();
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_set(err, errno, "become root of the user namespace" HOW_TO);
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_set(err, errno, "not root, and this host gives no mount namespace" HOW_TO);
	return 0;
}
