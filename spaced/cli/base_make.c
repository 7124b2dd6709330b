/* See base_make.h. The tree is installed into a volume with a hidden name, taken apart into what an image holds, and becomes
 * the base by one rename and its record. It is mounted only in a mount namespace of ours: killed at any time, nothing stays
 * mounted, no base is listed, and the next one made sweeps the volume away. */
#include "spaced/cli/base_make.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/resolve.h"
#include "sandbox/base.h"
#include "sandbox/bootstrap.h"
#include "sandbox/ids.h"
#include "sandbox/sandbox.h"
#include "sandbox/skeleton.h"
#include "sandbox/worker.h"
#include "spaced/build/recipe.h"
#include "spaced/cli/apt_sources.h"
#include "spaced/cli/base_progress.h"

#define IMAGE_BYTES (32ULL << 30) /* sparse */
#define TEXT_MAX (4U << 20)
#define FILE_MAX (256LL << 20)

static const char tree_dev[] = BOOTSTRAP_TREE "/dev", tree_proc[] = BOOTSTRAP_TREE "/proc";

/* What the builders call for. Both: TLS, time zones, Python with venv (whose ensurepip brings pip). */
#define MINIMAL "ca-certificates,tzdata,netbase,python3,python3-venv"
#define FULL MINIMAL ",python3-pip,python3-dev,build-essential,pkg-config,git,curl,xz-utils,bzip2,unzip,nodejs,npm"

static const struct {
	const char *name, *packages;
} variants[] = {{"full", FULL}, {"minimal", MINIMAL}};

/* A base is for programs, not for people who read manuals; licences stay. */
static const char trim[] = "path-exclude=/usr/share/man/*\n"
			   "path-exclude=/usr/share/info/*\n"
			   "path-exclude=/usr/share/lintian/*\n"
			   "path-exclude=/usr/share/locale/*\n"
			   "path-exclude=/usr/share/doc/*\n"
			   "path-include=/usr/share/doc/*/copyright\n";

struct install {
	const struct base_wish *wish;
	char suite[64];
	const char *variant;
	bool mmdebstrap;
	struct buf packages, sources, apt_conf;
	struct volumes volumes;
	int lock;
	int image, tree; /* the mounted volume; its tree/, which becomes usr/, root/, var/lib/dpkg/ */
	struct progress progress;
};

static volatile int stop;

static void on_signal(int sig)
{
	stop = sig;
}

/* ---- from where ---- */

static bool here(const char *program)
{
	static const char *const dirs[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};

	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		cleanup_free char *path = xasprintf("%s/%s", dirs[i], program);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

/* Release names, package names: nothing that a program could take for an option or a path. */
static bool plain(const char *s, const char *more)
{
	if (!isalnum((unsigned char)*s))
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr(more, *s))
			return false;
	return true;
}

static void os_release(const char *key, char *out, size_t size)
{
	cleanup_buf struct buf text = BUF_INIT;
	size_t n = strlen(key);

	out[0] = '\0';
	if (io_read_file(AT_FDCWD, "/usr/lib/os-release", TEXT_MAX, &text) < 0 || !text.data)
		return;
	for (const char *l = text.data; l; l = strchr(l, '\n')) {
		l += *l == '\n';
		if (strncmp(l, key, n) != 0 || l[n] != '=')
			continue;
		const char *v = l + n + 1 + (l[n + 1] == '"');
		snprintf(out, size, "%.*s", (int)strcspn(v, "\"\n"), v);
		return;
	}
}

static size_t take_file(const char *path, bool deb822, const char *from, const char *to, struct buf *out)
{
	cleanup_buf struct buf text = BUF_INIT;
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC); /* may well be a link */
	char chunk[8192];
	ssize_t n;

	while (fd >= 0 && text.len < TEXT_MAX && (n = read(fd, chunk, sizeof chunk)) > 0)
		buf_add(&text, chunk, (size_t)n);
	return text.len ? apt_sources_take(text.data, deb822, from, to, out) : 0;
}

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), k = strlen(with);

	return n > k && strcmp(s + n - k, with) == 0;
}

static int find_sources(struct install *m, struct err *err)
{
	static const char folder[] = "/etc/apt/sources.list.d";
	cleanup_dir DIR *d = opendir(folder);
	char host[64], id[64];
	struct dirent *e;
	size_t n;

	os_release("VERSION_CODENAME", host, sizeof host);
	os_release("ID", id, sizeof id);
	if (m->wish->suite)
		snprintf(m->suite, sizeof m->suite, "%s", m->wish->suite);
	else
		snprintf(m->suite, sizeof m->suite, "%s", *host ? host : "bookworm");
	if (!plain(m->suite, ".-"))
		return err_text(err, EINVAL, "`%s` is no name of a release", m->suite);
	if (m->wish->mirror) {
		if (strpbrk(m->wish->mirror, " \t\r\n") || !strchr(m->wish->mirror, ':'))
			return err_text(err, EINVAL, "--mirror: `%s` is no URL", m->wish->mirror);
		buf_addf(&m->sources, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n\n", m->wish->mirror,
			 m->suite);
		return 0;
	}
	n = take_file("/etc/apt/sources.list", false, host, m->suite, &m->sources);
	while (d && (e = readdir(d)) != NULL) {
		cleanup_free char *path = xasprintf("%s/%s", folder, e->d_name);
		if (ends(e->d_name, ".list") || ends(e->d_name, ".sources"))
			n += take_file(path, ends(e->d_name, ".sources"), host, m->suite, &m->sources);
	}
	return n ? 0
		 : err_text(err, ENOENT,
			    "the host's apt names no mirror of %s itself (%s): say where from with --mirror URL "
			    "--suite NAME",
			    *id ? id : "its distribution", *host ? host : "no code name in os-release");
}

/* Proxies, certificates, retries: what apt-config knows of fetching, wherever it is set. */
static void find_apt_settings(struct install *m)
{
	static const char *const wanted[] = {"Acquire::http::",
					     "Acquire::https::",
					     "Acquire::Retries",
					     "Acquire::Check-",
					     "Acquire::AllowInsecureRepositories",
					     "Acquire::Queue-Mode",
					     "Acquire::ForceIPv"};
	static const char *const argv[] = {"apt-config", "dump", "Acquire", NULL};
	cleanup_buf struct buf text = BUF_INIT;
	char *save = NULL;

	buf_adds(&m->apt_conf, "// how the host's apt fetched when this base was made\n");
	if (worker_output(argv, &text, NULL) < 0 || !text.data)
		return;
	for (char *l = strtok_r(text.data, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
			if (strncasecmp(l, wanted[i], strlen(wanted[i])) == 0)
				buf_addf(&m->apt_conf, "%s\n", l);
}

static int find_packages(struct install *m, struct err *err)
{
	const char *variant = m->wish->variant ? m->wish->variant : variants[0].name;
	cleanup_free char *more = xstrdup(m->wish->packages ? m->wish->packages : "");
	char *save = NULL;

	for (size_t i = 0; i < sizeof variants / sizeof *variants && !m->variant; i++)
		if (strcmp(variants[i].name, variant) == 0) {
			m->variant = variants[i].name;
			buf_adds(&m->packages, variants[i].packages);
		}
	if (!m->variant)
		return err_text(err, EINVAL, "--variant: `%s` is neither full nor minimal", variant);
	for (char *p = strtok_r(more, ", \t\n", &save); p; p = strtok_r(NULL, ", \t\n", &save)) {
		if (!plain(p, ".+-:"))
			return err_text(err, EINVAL, "--packages: `%s` is no name of a package", p);
		buf_addf(&m->packages, ",%s", p);
	}
	return 0;
}

/* ---- installing ---- */

static int run(struct install *m, const char *const *const *steps, struct err *err)
{
	const struct bootstrap_file files[] = {
	    {"base.sources", m->sources.data}, {"apt.conf", m->apt_conf.data}, {"dpkg.conf", trim}, {NULL, NULL}};
	const struct bootstrap b = {
	    .tree = m->tree, .files = files, .steps = steps, .line = progress_line, .ctx = &m->progress, .stop = &stop};

	return bootstrap_run(&b, err);
}

/* mmdebstrap in its mode "root": root is that of our namespaces. (Its own mode "unshare" wants entries in /etc/subuid and
 * would unpack into files of other owners.) */
static int install_mmdebstrap(struct install *m, struct err *err)
{
	cleanup_free char *include = xasprintf("--include=%s", m->packages.data);
	const char *const install[] = {"mmdebstrap",
				       "--mode=root",
				       "--format=directory",
				       "--variant=apt",
				       "--dpkgopt=/tmp/dpkg.conf",
				       "--aptopt=/tmp/apt.conf",
				       include,
				       m->suite,
				       BOOTSTRAP_TREE,
				       "/tmp/base.sources",
				       NULL};
	const char *const *const steps[] = {install, NULL};

	progress_phase(&m->progress, "installing %s with mmdebstrap", m->suite);
	return run(m, steps, err);
}

/* debootstrap knows one mirror and no security updates: it makes the least that has apt, and apt does the rest. */
static int install_debootstrap(struct install *m, struct err *err)
{
	char mirror[1024];
	cleanup_free char *words = xstrdup(m->packages.data);
	cleanup_free const char **install = NULL;
	char *save = NULL;
	size_t n = 0;

#define IN_TREE "chroot", BOOTSTRAP_TREE
	const char *const debootstrap[] = {"debootstrap", "--variant=minbase", m->suite, BOOTSTRAP_TREE, mirror, NULL};
	const char *const proc[] = {"mount", "--rbind", "/proc", tree_proc, NULL};
	const char *const dev[] = {"mount", "--rbind", "/dev", tree_dev, NULL};
	const char *const resolv[] = {"cp", "/etc/resolv.conf", BOOTSTRAP_TREE "/etc/resolv.conf", NULL};
	const char *const no_list[] = {"rm", "-f", BOOTSTRAP_TREE "/etc/apt/sources.list", NULL};
	const char *const sources[] = {"cp", "/tmp/base.sources", BOOTSTRAP_TREE "/etc/apt/sources.list.d/", NULL};
	const char *const conf[] = {"cp", "/tmp/apt.conf", BOOTSTRAP_TREE "/etc/apt/apt.conf.d/99base", NULL};
	const char *const dpkg[] = {"cp", "/tmp/dpkg.conf", BOOTSTRAP_TREE "/etc/dpkg/dpkg.cfg.d/99base", NULL};
	const char *const update[] = {IN_TREE, "apt-get", "-q", "update", NULL};
	const char *const upgrade[] = {IN_TREE, "apt-get", "-q", "-y", "dist-upgrade", NULL};
	static const char *const head[] = {IN_TREE, "apt-get", "-q", "-y", "--no-install-recommends", "install"};
	const char *const *const unpack[] = {debootstrap, NULL};

	if (!apt_sources_mirror(m->sources.data, mirror, sizeof mirror))
		return err_text(err, ENOENT, "no mirror");
	progress_phase(&m->progress, "installing %s with debootstrap", m->suite);
	if (run(m, unpack, err) < 0)
		return -1;
	install = xcalloc(sizeof head / sizeof *head + m->packages.len / 2 + 3, sizeof *install);
	for (; n < sizeof head / sizeof *head; n++)
		install[n] = head[n];
	for (char *p = strtok_r(words, ",", &save); p; p = strtok_r(NULL, ",", &save))
		install[n++] = p;
	const char *const *const rest[] = {proc, dev,	 resolv,  no_list, sources, conf,
					   dpkg, update, upgrade, install, NULL};
	progress_phase(&m->progress, "installing the packages with apt");
	return run(m, rest, err);
}

/* ---- what is added ---- */

/* The folder of `path` in the tree, made where it is missing; no link is followed. */
static int folder_in_tree(struct install *m, const char *path, struct err *err)
{
	cleanup_close int at = resolve_beneath(m->tree, ".", O_RDONLY | O_DIRECTORY);

	for (const char *slash; at >= 0 && (slash = strchr(path, '/')) != NULL; path = slash + 1) {
		cleanup_free char *name = xstrndup(path, (size_t)(slash - path));
		if (mkdirat(at, name, 0755) < 0 && errno != EEXIST)
			return err_set(err, errno, "make `%s` in the base", name);
		int next = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return err_set(err, errno, "open `%s` in the base", name);
		close(at);
		at = next;
	}
	return at < 0 ? err_set(err, -at, "open the base") : steal_fd(&at);
}

static int put(struct install *m, int from, const char *path, mode_t mode, struct err *err)
{
	const char *at = path + (*path == '/'), *slash = strrchr(at, '/');
	cleanup_close int folder = folder_in_tree(m, at, err);
	struct stat st;

	if (folder < 0)
		return -1;
	cleanup_close int out = openat(folder, slash ? slash + 1 : at,
				       O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (out < 0 || fstat(from, &st) < 0)
		return err_set(err, errno, "write `%s` in the base", at);
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(out, from, NULL, (size_t)left);
		if (n <= 0)
			return err_set(err, n < 0 ? errno : EIO, "copy `%s` into the base", at);
		left -= n;
	}
	return fchmod(out, mode) < 0 ? err_set(err, errno, "mode of `%s`", at) : 0;
}

static int put_file(struct install *m, const char *source, const char *path, mode_t mode, struct err *err)
{
	cleanup_close int from = open(source, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (from < 0 || fstat(from, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return 0;
	return put(m, from, path, mode, err);
}

struct adding {
	struct install *m;
	struct err *err;
	int rc;
};

static void add_keyring(void *ctx, const char *path)
{
	struct adding *a = ctx;
	cleanup_close int there = resolve_beneath(a->m->tree, path + 1, O_PATH);

	if (there == -ENOENT && a->rc == 0) /* a link (-ELOOP) is there too */
		a->rc = put_file(a->m, path, path, 0644, a->err);
}

/* A company's certificates, as Debian keeps those that were added by hand. */
static int add_certificates(struct install *m, bool *any, struct err *err)
{
	static const char folder[] = "/usr/local/share/ca-certificates";
	cleanup_dir DIR *d = opendir(folder);
	struct dirent *e;

	*any = false;
	while (d && (e = readdir(d)) != NULL) {
		cleanup_free char *path = xasprintf("%s/%s", folder, e->d_name);
		if (!ends(e->d_name, ".crt"))
			continue;
		*any = true;
		if (put_file(m, path, path, 0644, err) < 0)
			return -1;
	}
	return 0;
}

/* The program itself: what lies at /usr/local/bin may be a link into a virtual environment. */
static int add_uv(struct install *m, struct err *err)
{
	static const char *const places[] = {"/usr/local/bin/uv", "/usr/bin/uv"};

	for (size_t i = 0; i < 2; i++) {
		cleanup_close int fd = open(places[i], O_RDONLY | O_CLOEXEC);
		char magic[4];
		if (fd >= 0 && pread(fd, magic, 4, 0) == 4 && memcmp(magic, "\177ELF", 4) == 0)
			return put(m, fd, "usr/local/bin/uv", 0755, err);
	}
	return 0;
}

static int add_all(struct install *m, struct err *err)
{
	static const char *const dev[] = {"mount", "--rbind", "/dev", tree_dev, NULL};
	static const char *const update[] = {"chroot", BOOTSTRAP_TREE, "update-ca-certificates", NULL};
	static const char *const *const steps[] = {dev, update, NULL};
	struct adding a = {m, err, 0};
	bool certificates;

	progress_phase(&m->progress, "adding certificates, keyrings and uv");
	apt_sources_keyrings(m->sources.data, add_keyring, &a);
	if (a.rc < 0 || add_uv(m, err) < 0 || add_certificates(m, &certificates, err) < 0)
		return -1;
	return certificates ? run(m, steps, err) : 0;
}

/* ---- from the tree to an image ---- */

static int move(struct install *m, const char *from, const char *to, struct err *err)
{
	cleanup_free char *folder = xstrdup(from);
	char *name = strrchr(folder, '/');

	if (name)
		*name++ = '\0';
	cleanup_close int at = resolve_beneath(m->tree, name ? folder : ".", O_RDONLY | O_DIRECTORY);
	if (at < 0 || renameat2(at, name ? name : folder, m->image, to, RENAME_NOREPLACE) < 0)
		return err_set(err, at < 0 ? -at : errno, "`%s` of the base", from);
	return 0;
}

static int take_apart(struct install *m, struct tools *tools, const char *id, struct err *err)
{
	cleanup_close int root = openat(m->image, "root", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	progress_phase(&m->progress, "making the image");
	tools_find(tools, m->tree, id);
	if (root < 0)
		return err_set(err, errno, "open the skeleton's folder");
	if (skeleton_build(m->tree, root, err) < 0)
		return -1;
	if (mkdirat(m->image, "var", 0755) < 0 || mkdirat(m->image, "var/lib", 0755) < 0)
		return err_set(err, errno, "make var/lib in the image");
	if (move(m, "usr", "usr", err) < 0 || move(m, "var/lib/dpkg", "var/lib/dpkg", err) < 0)
		return -1;
	if (fstatat(m->image, "usr", &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
		return err_text(err, ENOTDIR, "the base has no folder /usr");
	close(steal_fd(&m->tree));
	int r = io_remove_tree(m->image, "tree");
	return r < 0 ? err_set(err, -r, "remove what the image does not need") : 0;
}

static uint64_t used(const struct install *m, const char *volume)
{
	cleanup_free char *file = xasprintf("%s.%s", volume, m->volumes.images ? "img" : "dir");
	struct stat st;

	return fstatat(m->volumes.dirfd, file, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static int commit(struct install *m, const char *id, const struct tools *tools, json_t **record, struct err *err)
{
	cleanup_free char *volume = base_volume(id);
	cleanup_buf struct buf text = BUF_INIT;

	progress_phase(&m->progress, "writing it to disk");
	close(steal_fd(&m->image));
	if (volume_rename(&m->volumes, BASE_MAKING, volume, err) < 0)
		return -1;
	*record = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:o}", "id", id, "name", m->wish->name,
			    "suite", m->suite, "variant", m->variant, "packages", m->packages.data, "madeWith",
			    m->mmdebstrap ? "mmdebstrap" : "debootstrap", "created", (json_int_t)io_wall_ms(), "bytes",
			    (json_int_t)used(m, volume), "spaced", SPACED_VERSION, "tools", tools_json(tools));
	cleanup_free char *dump = json_dumps(*record, JSON_INDENT(2));
	buf_adds(&text, dump ? dump : "");
	buf_addc(&text, '\n');
	if (base_record_write(m->wish->state, id, &text, err) == 0)
		return 0;
	volume_remove(&m->volumes, volume, NULL);
	return -1;
}

/* ---- all of it ---- */

static int open_volume(struct install *m, struct err *err)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_set(err, errno, "private mount namespace");
	if (volumes_join(m->wish->state, &m->volumes, err) < 0)
		return -1;
	base_sweep(&m->volumes, m->wish->state);
	if (volume_create(&m->volumes, BASE_MAKING, IMAGE_BYTES, err) < 0 ||
	    (m->image = volume_mount(&m->volumes, BASE_MAKING, err)) < 0)
		return -1;
	if (mkdirat(m->image, "tree", 0755) < 0 ||
	    (m->tree = openat(m->image, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
		return err_set(err, errno, "make the tree");
	return 0;
}

static int make(struct install *m, json_t **record, struct err *err)
{
	struct tools tools = {0};
	char id[BASE_ID];

	if (find_sources(m, err) < 0 || find_packages(m, err) < 0)
		return -1;
	find_apt_settings(m);
	if ((m->lock = base_lock(m->wish->state, err)) < 0 || open_volume(m, err) < 0)
		return -1;
	if ((m->mmdebstrap ? install_mmdebstrap(m, err) : install_debootstrap(m, err)) < 0 || add_all(m, err) < 0)
		return -1;
	base_id_new(m->wish->state, m->wish->name, id);
	int rc = take_apart(m, &tools, id, err);
	if (rc == 0 && stop)
		rc = err_text(err, EINTR, "interrupted");
	if (rc == 0)
		rc = commit(m, id, &tools, record, err);
	tools_release(&tools);
	return rc;
}

int base_make(const struct base_wish *wish, json_t **record, struct err *err)
{
	struct install m = {.wish = wish, .lock = -1, .image = -1, .tree = -1, .volumes.dirfd = -1};
	struct sigaction act = {.sa_handler = on_signal};

	if (!ids_host_root())
		return err_text(err, EPERM, "a base is made by root: it mounts a volume; use sudo");
	const char *force = getenv("SPACED_FORCE");
	m.mmdebstrap = here("mmdebstrap") && !(force && strstr(force, "debootstrap"));
	if (!m.mmdebstrap && !here("debootstrap"))
		return err_text(err, ENOENT, "no mmdebstrap or debootstrap: apt install mmdebstrap");
	if (!sandbox_has_idmaps())
		return err_text(err, ENOSYS,
				"this kernel or container runtime has no mount_setattr(2), by which a base's files get "
				"ids of their own while it is installed");
	for (size_t i = 0; i < 3; i++)
		sigaction((int[]){SIGINT, SIGTERM, SIGHUP}[i], &act, NULL);
	int rc = make(&m, record, err);
	progress_end(&m.progress, rc < 0 && err->code == EIO);
	cleanup_closep(&m.tree);
	cleanup_closep(&m.image);
	if (rc < 0 && m.volumes.dirfd >= 0)
		volume_remove(&m.volumes, BASE_MAKING, NULL);
	if (m.volumes.dirfd >= 0)
		volumes_release(&m.volumes);
	cleanup_closep(&m.lock);
	buf_release(&m.packages);
	buf_release(&m.sources);
	buf_release(&m.apt_conf);
	return rc;
}
