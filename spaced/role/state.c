/* The state folder and the listening sockets, made by the parent before any role starts. */
#include "spaced/role/state.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/base.h"
#include "sandbox/ids.h"

#define LOCK "lock"
#define PORT_MS 2000	/* to get the port */
#define LOCK_MS 1000	/* to get the lock from who lives, */
#define ORPHAN_MS 30000 /* and from what a dead one has left */

/* Where the roles may see the state folder; the first that is there. */
static const char *const meeting_points[] = {"/run/spaced", "/mnt", "/media", "/srv"};

struct folder {
	const char *name;
	mode_t mode;
	const uid_t *uid;
	const gid_t *gid;
};

static int make_folder(int state, const char *path, const struct folder *f, struct err *err)
{
	struct stat st;
	int r = io_mkdir(state, f->name, f->mode);

	if (r < 0)
		return err_set(err, -r, "make `%s/%s`", path, f->name);
	if (fstatat(state, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, errno, "look at `%s/%s`", path, f->name);
	if (geteuid() != 0)
		return 0;
	bool fresh = st.st_uid == 0 && *f->uid != 0;
	if (!fresh && st.st_uid != *f->uid)
		return err_set(
		    err, 0,
		    "`%s/%s` belongs to uid %u, this daemon's is %u: use the account it was made with (--user), or "
		    "chown -R it",
		    path, f->name, st.st_uid, *f->uid);
	if (fchownat(state, f->name, *f->uid, *f->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fchmodat(state, f->name, f->mode, 0) < 0)
		return err_set(err, errno, "owner of `%s/%s`", path, f->name);
	return 0;
}

/* Who has the lock says so in it; 0: nobody has. */
static pid_t owner_of(int lock)
{
	char text[16] = "";

	return pread(lock, text, sizeof text - 1, 0) > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

static bool lives(pid_t pid)
{
	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

/* Always as long: a full disk has room for it once it had. It serves the next one's patience and message only. */
static void sign(int lock)
{
	char text[16];
	int n = snprintf(text, sizeof text, "%-10d\n", getpid());

	if (pwrite(lock, text, (size_t)n, 0) != n)
		log_warn("write to the lock file: %s", strerror(errno));
}

/* Of a daemon that was killed the lock is held until the role that it was about to start has noticed: there it is a copy of
 * the parent still. */
static int take_lock(int state, const char *path, struct err *err)
{
	cleanup_close int held = openat(state, LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (held < 0)
		return err_set(err, errno, "lock file in `%s`", path);
	for (uint64_t since = io_now_ms(); flock(held, LOCK_EX | LOCK_NB) < 0; poll(NULL, 0, 20)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_set(err, errno, "lock file in `%s`", path);
		pid_t pid = owner_of(held);
		if (io_now_ms() - since >= (lives(pid) ? LOCK_MS : ORPHAN_MS))
			return err_set(err, 0, "state folder `%s` is in use by another spaced (process %d)", path, pid);
	}
	sign(held);
	return steal_fd(&held);
}

int state_prepare(const struct config *c, const struct accounts *a, int *lock, struct err *err)
{
	static const uid_t root = 0;
	const struct folder folders[] = {
	    {STATE_CONTROL, 0700, &a->control, &a->control_gid},
	    {STATE_REPOS, 0700, &a->control, &a->control_gid},
	    {STATE_LOGS, 0700, &a->control, &a->control_gid},
	    {STATE_ACCESS, 0700, &a->control, &a->control_gid},
	    {STATE_SITES, 0750, &a->control, &a->files_gid},
	    {STATE_BASES, 0755, &root, &root},
	    {STATE_RUN, 0711, &root, &root},
	};

	for (char *p = strchr(c->state + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		int r = mkdir(c->state, 0755);
		int e = errno;
		*p = '/';
		if (r < 0 && e != EEXIST && e != EROFS && e != EACCES)
			return err_set(err, e, "make the way to `%s`", c->state);
	}
	if (mkdir(c->state, 0755) < 0 && errno != EEXIST)
		return err_set(err, errno, "state folder `%s` (set another one with --state)", c->state);
	cleanup_close int state = open(c->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state < 0)
		return err_set(err, errno, "state folder `%s` (set another one with --state)", c->state);
	if (faccessat(state, ".", W_OK, AT_EACCESS) < 0)
		return err_set(err, errno, "state folder `%s` is not writable (set another one with --state)",
			       c->state);
	if (*lock < 0 && (*lock = take_lock(state, c->state, err)) < 0)
		return -1;
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
		if (make_folder(state, c->state, &folders[i], err) < 0)
			return -1;
	return 0;
}

int state_check(const struct config *c, const struct accounts *a, int lock, struct err *err)
{
	cleanup_close int state = open(c->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat held, there, control;

	if (state < 0 || fstat(lock, &held) < 0 || fstatat(state, LOCK, &there, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fstatat(state, STATE_CONTROL, &control, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, errno, "state folder `%s`", c->state);
	if (held.st_ino != there.st_ino || held.st_dev != there.st_dev)
		return err_set(err, 0, "state = `%s`: it can change only with a new start", c->state);
	if (geteuid() == 0 && control.st_uid != a->control)
		return err_set(err, 0, "user = `%s`: it can change only with a new start", c->user);
	return 0;
}

/* May everybody pass all folders above `path`? */
static bool open_to_all(const char *path)
{
	cleanup_free char *part = xstrdup(path);
	struct stat st;

	for (char *slash = strrchr(part, '/'); slash && slash != part; slash = strrchr(part, '/')) {
		*slash = '\0';
		if (stat(part, &st) < 0 || !(st.st_mode & S_IXOTH))
			return false;
	}
	return true;
}

static bool same_folder(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

int state_reachable(struct config *c, struct err *err)
{
	if (ids_kind() == IDS_ONE || open_to_all(c->state))
		return 0;
	const char *at = meeting_points[0];
	mkdir(at, 0755); /* only root may, and only root needs it: /run outlives no boot */
	for (size_t i = 0; access(at, F_OK) < 0 && i < sizeof meeting_points / sizeof *meeting_points; i++)
		at = meeting_points[i];
	if (same_folder(at, c->state)) { /* bound by the program that was here before */
		free(c->state);
		c->state = xstrdup(at);
		return 0;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
	    mount(c->state, at, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_set(err, errno, "bind `%s` to `%s` for the roles", c->state, at);
	log_info("`%s` is closed to other users: the roles see it as %s", c->state, at);
	free(c->state);
	c->state = xstrdup(at);
	return 0;
}

int state_listen_unix(const char *dir, const char *name, mode_t mode, uid_t uid, gid_t gid, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_set(err, errno, "unix socket");
	if ((size_t)snprintf(addr.sun_path, sizeof addr.sun_path, "%s/%s", dir, name) >= sizeof addr.sun_path)
		return err_set(err, ENAMETOOLONG, "`%s/%s`", dir, name);
	unlink(addr.sun_path);
	mode_t old = umask(0177);
	int r = bind(fd, (struct sockaddr *)&addr, sizeof addr);
	umask(old);
	if (r < 0)
		return err_set(err, errno, "bind `%s`", addr.sun_path);
	if (geteuid() == 0 && lchown(addr.sun_path, uid, gid) < 0)
		return err_set(err, errno, "owner of `%s`", addr.sun_path);
	if (chmod(addr.sun_path, mode) < 0 || listen(fd, 1024) < 0)
		return err_set(err, errno, "listen on `%s`", addr.sun_path);
	return steal_fd(&fd);
}

/* The roles of a daemon that was killed live a moment longer than it, and have its port. */
static int bind_soon(int fd, const struct addrinfo *to)
{
	uint64_t until = io_now_ms() + PORT_MS;
	int r;

	while ((r = bind(fd, to->ai_addr, to->ai_addrlen)) < 0 && errno == EADDRINUSE && io_now_ms() < until)
		poll(NULL, 0, 20);
	return r;
}

static int resolve(const char *where, struct addrinfo **list, struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	cleanup_free char *host = xstrdup(where);
	char *port = strrchr(host, ':');

	*port++ = '\0';
	const char *name = host;
	size_t n = strlen(host);
	if (n > 1 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		name = host + 1;
	}
	int r = getaddrinfo(strcmp(name, "*") == 0 ? NULL : name, port, &hints, list);
	return r != 0 ? err_set(err, 0, "listen = `%s`: %s", where, gai_strerror(r)) : 0;
}

struct place {
	struct in6_addr ip; /* IPv4 mapped; all addresses (0.0.0.0, [::]) are the same */
	in_port_t port;
};

static struct place place_of(const struct sockaddr *sa)
{
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	struct place p = {.ip = IN6ADDR_ANY_INIT};

	if (sa->sa_family == AF_INET6) {
		p = (struct place){in6->sin6_addr, in6->sin6_port};
	} else if (sa->sa_family == AF_INET) {
		p.port = in->sin_port;
		if (in->sin_addr.s_addr != htonl(INADDR_ANY))
			p.ip = (struct in6_addr){.s6_addr32 = {0, 0, htonl(0xffff), in->sin_addr.s_addr}};
	}
	return p;
}

int state_check_listener(int fd, const char *where, struct err *err)
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof sa, n = sizeof(int);
	struct addrinfo *list = NULL;
	int listens = 0;
	bool fits = false;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) < 0 || !listens ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return err_set(err, 0, "what was handed over as public socket does not listen");
	if (resolve(where, &list, err) < 0)
		return -1;
	struct place here = place_of((struct sockaddr *)&sa);
	for (struct addrinfo *a = list; a; a = a->ai_next) {
		struct place there = place_of(a->ai_addr);
		fits = fits || (here.port == there.port && memcmp(&here.ip, &there.ip, sizeof here.ip) == 0);
	}
	freeaddrinfo(list);
	if (!fits)
		return err_set(
		    err, 0,
		    "listen = `%s`: the socket that was handed over listens elsewhere; it can change only with a "
		    "new start (and in spaced.socket)",
		    where);
	int r = io_set_nonblock(fd, true);
	return r < 0 ? err_set(err, -r, "public socket") : 0;
}

int state_listen_tcp(const char *where, struct err *err)
{
	struct addrinfo *list;
	int on = 1, off = 0;

	if (resolve(where, &list, err) < 0)
		return -1;
	cleanup_close int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (list->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	}
	int r = fd < 0 ? -1 : bind_soon(fd, list);
	int e = errno;
	freeaddrinfo(list);
	if (r < 0 && e == EADDRINUSE)
		return err_set(
		    err, 0, "port taken: something else listens on %s; stop it or choose another with --listen", where);
	if (r < 0)
		return err_set(err, e, "listen on %s", where);
	if (listen(fd, 4096) < 0)
		return err_set(err, errno, "listen on %s", where);
	return steal_fd(&fd);
}
