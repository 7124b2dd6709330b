/* Finding out what kind of cgroups this host has, and the small file work that all kinds share.
 * Called through cgroup_host() by the launcher, the monitors and the spawner. */
#include "sandbox/cgroup_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/ids.h"

static char tree[SANDBOX_NAME_MAX + 1] = "spaced";
static struct cgroup_roots roots = {.v1 = {-1, -1, -1, -1, -1, -1}, .v2 = -1};
static const struct cgroup_ops *host;

void cgroup_set_tree(const char *name)
{
	if (sandbox_name_ok(name))
		snprintf(tree, sizeof tree, "%s", name);
}

const char *cgroup_tree(void)
{
	return tree;
}

const struct cgroup_roots *cgroup_roots(void)
{
	return &roots;
}

void cgroup_note_v2_io(void)
{
	roots.v2_io = true;
}

bool cgroup_has_io(void)
{
	switch (cgroup_host()->kind) {
	case CGROUP_V1:
	case CGROUP_HYBRID:
		return roots.v1[CG_BLKIO] >= 0;
	case CGROUP_V2:
		return roots.v2_io;
	default:
		return false;
	}
}

int cg_write(int dir, const char *file, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	cleanup_close int fd = openat(dir, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	return write(fd, text, (size_t)n) == n ? 0 : -errno;
}

int cg_read(int dir, const char *file, char *dst, size_t size)
{
	cleanup_close int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t len = 0;
	ssize_t n;

	dst[0] = '\0';
	if (fd < 0)
		return -errno;
	while (len + 1 < size && (n = read(fd, dst + len, size - 1 - len)) != 0) {
		if (n < 0)
			return -errno;
		len += (size_t)n;
	}
	dst[len] = '\0';
	return (int)len;
}

static uint64_t number_of(const char *text)
{
	return text[0] == '-' || text[0] == 'm' ? UINT64_MAX : strtoull(text, NULL, 10);
}

uint64_t cg_number(int dir, const char *file)
{
	char text[64];

	return cg_read(dir, file, text, sizeof text) <= 0 ? 0 : number_of(text);
}

int cg_set(int dir, const char *file, const char *text, uint64_t *got)
{
	cleanup_close int fd = openat(dir, file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = (ssize_t)strlen(text);
	char now[64];

	if (fd < 0 || write(fd, text, (size_t)n) != n || (n = pread(fd, now, sizeof now - 1, 0)) < 0)
		return -errno;
	now[n] = '\0';
	*got = number_of(now);
	return 0;
}

uint64_t cg_value(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, n) == 0 && line[n] == ' ')
			return strtoull(line + n + 1, NULL, 10);
	}
	return 0;
}

uint64_t cg_keyed(int dir, const char *file, const char *key)
{
	char text[8192];

	return cg_read(dir, file, text, sizeof text) <= 0 ? 0 : cg_value(text, key);
}

int cg_open_group(int root, const char *name, bool make)
{
	char path[2 * SANDBOX_NAME_MAX + 8];

	snprintf(path, sizeof path, "%s/%s", tree, name);
	bool made = make && mkdirat(root, path, 0755) == 0;
	if (make && !made && errno == ENOENT)
		if ((mkdirat(root, tree, 0755) < 0 && errno != EEXIST) ||
		    (mkdirat(root, path, 0755) < 0 && errno != EEXIST))
			return -errno;
	int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int code = errno;
	if (fd < 0 && made)
		unlinkat(root, path, AT_REMOVEDIR);
	return fd < 0 ? -code : fd;
}

/* A group is busy for a moment after its last task has become a zombie. */
int cg_remove_group(int root, const char *name)
{
	uint64_t until = io_now_ms() + 2000;
	char path[2 * SANDBOX_NAME_MAX + 8];

	snprintf(path, sizeof path, "%s/%s", tree, name);
	while (unlinkat(root, path, AT_REMOVEDIR) < 0 && errno != ENOENT) {
		if (errno != EBUSY || io_now_ms() > until)
			return -errno;
		cg_pause();
	}
	return 0;
}

int cg_signal_all(int dir)
{
	cleanup_buf struct buf b = BUF_INIT;
	int n = 0, rc = io_read_file(dir, "cgroup.procs", 4U << 20, &b);

	if (rc < 0)
		return rc;
	for (char *p = b.data ? b.data : (char[]){""}, *end; *p; p = end, n++) {
		long pid = strtol(p, &end, 10);

		if (end == p)
			break;
		if (pid > 1)
			kill((pid_t)pid, SIGKILL);
	}
	return n;
}

void cg_pause(void)
{
	poll(NULL, 0, 1);
}

static int none_ok(const struct cgroup *cg, struct err *err)
{
	return 0;
}

static int none_open(const char *name, struct cgroup *out, struct err *err)
{
	*out = (struct cgroup){.v2_dir = -1};
	return 0;
}

static int none_create(const char *name, const struct sandbox_limits *limits, struct cgroup *out, struct err *err)
{
	return none_open(name, out, err);
}

static int none_limit(const struct cgroup *cg, const struct sandbox_limits *limits, struct err *err)
{
	return 0;
}

static int none_attach(const struct cgroup *cg, pid_t pid, struct err *err)
{
	return 0;
}

static int none_doors(const struct cgroup *cg, int out[], struct err *err)
{
	return 0;
}

static int none_io(const struct cgroup *cg, dev_t disk, uint64_t read, uint64_t write, struct err *err)
{
	return err_set(err, ENOTSUP, "io limit: this host has no usable cgroups");
}

static void none_lift_io(const struct cgroup *cg)
{
}

static int none_freeze(const struct cgroup *cg, int timeout_ms, struct err *err)
{
	return err_set(err, ENOTSUP, "freeze: this host has no usable cgroups");
}

static int none_freeze_begin(const struct cgroup *cg, int *events, struct err *err)
{
	*events = -1;
	return none_freeze(cg, 0, err);
}

static bool none_frozen(const struct cgroup *cg, int events, unsigned tries)
{
	return false;
}

int cgroup_no_page_out(const struct cgroup *cg, struct err *err)
{
	return err_set(err, ENOTSUP, "memory is written out by cgroup v2 alone");
}

static int none_events(const struct cgroup *cg, int out[])
{
	return 0;
}

/* Without a group the kill of pid 1 inside, which ends its namespace, has to do. */
static int none_kill(const struct cgroup *cg, int timeout_ms, struct err *err)
{
	return 0;
}

static int none_stats(const struct cgroup *cg, struct cgroup_stats *out, struct err *err)
{
	*out = (struct cgroup_stats){0};
	return 0;
}

static int none_remove(struct cgroup *cg, struct err *err)
{
	return 0;
}

const struct cgroup_ops cgroup_none_ops = {
    .kind = CGROUP_NONE,
    .label = "none",
    .create = none_create,
    .limit = none_limit,
    .open = none_open,
    .attach = none_attach,
    .doors = none_doors,
    .io = none_io,
    .lift_io = none_lift_io,
    .freeze = none_freeze,
    .freeze_begin = none_freeze_begin,
    .frozen = none_frozen,
    .thaw = none_ok,
    .page_out = cgroup_no_page_out,
    .kill = none_kill,
    .stats = none_stats,
    .events = none_events,
    .remove = none_remove,
};

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ',' || p[-1] == ' ') && strchr(", \n", p[n]))
			return true;
	return false;
}

/* mountinfo(5): "id parent dev root mountpoint options - type source superoptions". */
static void find_mounts(void)
{
	static const char *const names[CG_CONTROLLERS] = {"memory", "cpu", "cpuacct", "pids", "freezer", "blkio"};
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char point[1024], type[32], super[1024];
		const char *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*s %*s %*s %*s %1023s", point) != 1 ||
		    sscanf(dash, " - %31s %*s %1023s", type, super) != 2)
			continue;
		if (strcmp(type, "cgroup2") == 0 && roots.v2 < 0)
			roots.v2 = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		for (int i = 0; strcmp(type, "cgroup") == 0 && i < CG_CONTROLLERS; i++)
			if (roots.v1[i] < 0 && has_word(super, names[i]))
				roots.v1[i] = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
}

/* Freeze, kill and CLONE_INTO_CGROUP are core features of v2: they work beside v1 controllers, and the tree need not
 * be visible anywhere. */
static int mount_v2(void)
{
	cleanup_close int fs = fsopen("cgroup2", FSOPEN_CLOEXEC);

	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	return fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

/* Not root: only below our own group, if the service manager has delegated it (systemd Delegate=yes). */
static void enter_delegated(void)
{
	char text[1024], *path;

	if (cg_read(AT_FDCWD, "/proc/self/cgroup", text, sizeof text) <= 0 || !(path = strstr(text, "0::/")))
		return;
	path += strlen("0::/");
	path[strcspn(path, "\n")] = '\0';
	/* Our own leaf, made by empty_into_leaf() of an earlier start: its parent is what was delegated. */
	size_t n = strlen(path), leaf = strlen(CG_LEAF);
	if (n >= leaf && strcmp(path + n - leaf, CG_LEAF) == 0)
		path[n - leaf] = '\0';
	int own = openat(roots.v2, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	close(roots.v2);
	roots.v2 = own;
	if (own >= 0 && faccessat(own, "cgroup.subtree_control", W_OK, 0) < 0) {
		close(own);
		roots.v2 = -1;
	}
	roots.v2_delegated = true;
}

static void leave_v1(enum cgroup_controller c)
{
	if (roots.v1[c] >= 0)
		close(roots.v1[c]);
	roots.v1[c] = -1;
}

static const struct cgroup_ops *detect(void)
{
	const char *force = getenv("SPACED_FORCE");
	struct err err = ERR_INIT;
	bool root = ids_host_root();

	if (force && has_word(force, "cgroup_none"))
		return &cgroup_none_ops;
	find_mounts();
	if (roots.v2 >= 0 && !root)
		enter_delegated();
	bool v1 = root && roots.v1[CG_MEMORY] >= 0 && roots.v1[CG_PIDS] >= 0;
	if (v1 && force && has_word(force, "cgroup_v1"))
		return &cgroup_v1_ops;
	if (roots.v2 < 0 && root)
		roots.v2 = mount_v2();
	if (v1 && roots.v2 >= 0 && !(force && has_word(force, "cgroup_v2"))) {
		/* What v2 does in any case takes no group on v1, whose making is a good part of a start. */
		leave_v1(CG_FREEZER);
		leave_v1(CG_CPUACCT);
		return &cgroup_hybrid_ops;
	}
	if (v1 && !(force && has_word(force, "cgroup_v2")))
		return &cgroup_v1_ops;
	if (roots.v2 < 0)
		return &cgroup_none_ops;
	if (cgroup_v2_prepare(&err) < 0) {
		log_warn("cgroup v2 is there but not usable: %s", err.msg);
		return &cgroup_none_ops;
	}
	return &cgroup_v2_ops;
}

const struct cgroup_ops *cgroup_host(void)
{
	if (!host)
		host = detect();
	return host;
}

bool cgroup_limits(const char *controller)
{
	enum cgroup_kind kind = cgroup_host()->kind;

	return kind != CGROUP_NONE && (kind != CGROUP_V2 || cgroup_v2_has(controller));
}

/* A line of /proc/PID/cgroup is "id:controllers:path", and "0::path" for v2. */
static bool in_group(const char *lines, const char *controller, const char *end)
{
	size_t n = strlen(end);

	for (const char *line = lines; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
		char words[256];

		if (!path)
			return false;
		snprintf(words, sizeof words, "%.*s", (int)(path - list - 1), list + 1);
		if (controller ? !has_word(words, controller) : *words || *line != '0')
			continue;
		size_t length = strcspn(path, "\n");
		return length >= n && strncmp(path + length - n, end, n) == 0;
	}
	return false;
}

char *cgroup_path(const char *name, pid_t pid)
{
	char file[64], end[2 * SANDBOX_NAME_MAX + 8], lines[4096];
	size_t n = (size_t)snprintf(end, sizeof end, "/%s/%s", tree, name);

	snprintf(file, sizeof file, "/proc/%d/cgroup", pid);
	if (cg_read(AT_FDCWD, file, lines, sizeof lines) < 0)
		return xstrdup("");
	for (const char *line = lines; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t length = strcspn(line, "\n");
		const char *path = memchr(line, '/', length);

		if (path && length >= n && strncmp(line + length - n, end, n) == 0)
			return xstrndup(path, length - (size_t)(path - line));
	}
	return xstrdup("");
}

int cgroup_verify(const struct cgroup *cg, struct err *err)
{
	static const char *const limiting[] = {
	    [CG_MEMORY] = "memory", [CG_CPU] = "cpu", [CG_CPUACCT] = NULL, [CG_PIDS] = "pids"};
	char end[2 * SANDBOX_NAME_MAX + 8], lines[4096];

	if (!cg->name[0])
		return 0;
	snprintf(end, sizeof end, "/%s/%s", tree, cg->name);
	if (cg_read(AT_FDCWD, "/proc/self/cgroup", lines, sizeof lines) < 0)
		return err_set(err, EIO, "read which groups we are in");
	bool in = cg->v2_dir < 0 || in_group(lines, NULL, end);
	for (size_t i = 0; i < sizeof limiting / sizeof *limiting; i++)
		if (host->kind != CGROUP_V2 && limiting[i] && roots.v1[i] >= 0)
			in &= in_group(lines, limiting[i], end);
	return in ? 0 : err_set(err, EIO, "we are not in the cgroup `%s`", cg->name);
}
