/* The state folder and the listening sockets, made by the parent before any role starts. */
#include "spaced/role/state.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
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

#define PORT_MS 2000 /* to get the port */

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
	cleanup_close int held = openat(state, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (held < 0)
		return err_set(err, errno, "lock file in `%s`", c->state);
	if (flock(held, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, 0, "state folder `%s` is in use by another spaced", c->state);
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
		if (make_folder(state, c->state, &folders[i], err) < 0)
			return -1;
	*lock = steal_fd(&held);
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

int state_reachable(struct config *c, struct err *err)
{
	if (ids_kind() == IDS_ONE || open_to_all(c->state))
		return 0;
	const char *at = meeting_points[0];
	mkdir(at, 0755); /* only root may, and only root needs it: /run outlives no boot */
	for (size_t i = 0; access(at, F_OK) < 0 && i < sizeof meeting_points / sizeof *meeting_points; i++)
		at = meeting_points[i];
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

int state_listen_tcp(const char *where, struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list;
	cleanup_free char *host = xstrdup(where);
	char *port = strrchr(host, ':');
	int on = 1, off = 0;

	*port++ = '\0';
	const char *name = host;
	size_t n = strlen(host);
	if (n > 1 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		name = host + 1;
	}
	int r = getaddrinfo(strcmp(name, "*") == 0 ? NULL : name, port, &hints, &list);
	if (r != 0)
		return err_set(err, 0, "listen = `%s`: %s", where, gai_strerror(r));
	cleanup_close int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (list->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	}
	r = fd < 0 ? -1 : bind_soon(fd, list);
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
