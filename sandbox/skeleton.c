/* See skeleton.h. */
#include "sandbox/skeleton.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/resolve.h"
#include "sandbox/egress.h"
#include "sandbox/ids.h"
#include "sandbox/spec.h"

#define SKELETON_BYTES (256ULL << 20) /* sparse */
#define FILE_MAX (32 << 20)
#define DEPTH_MAX 12
#define USER 1000
#define FORMAT "4" /* changed with the rules of what is copied */

/* What is taken over from the system, when it is there. Directories with all below. */
static const char *const taken[] = {
    /* programs find their parts by these */
    "etc/alternatives",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/python3",
    "etc/python3.9",
    "etc/python3.10",
    "etc/python3.11",
    "etc/python3.12",
    "etc/python3.13",
    "etc/python3.14",
    "etc/perl",
    "etc/fonts",
    "etc/ImageMagick-6",
    "etc/ImageMagick-7",
    "etc/OpenCL",
    "etc/terminfo",
    "etc/inputrc",
    /* trust anchors: companies have their own */
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    "etc/ca-certificates",
    "etc/ca-certificates.conf",
    "etc/pki/tls/certs",
    "etc/pki/ca-trust/extracted",
    /* tables */
    "etc/mime.types",
    "etc/magic",
    "etc/services",
    "etc/protocols",
    "etc/rpc",
    "etc/ethertypes",
    "etc/localtime",
    "etc/timezone",
    "etc/locale.alias",
    "etc/locale.gen",
    "etc/locale.conf",
    "etc/default/locale",
    "etc/shells",
    "etc/debian_version",
    "etc/os-release",
    "etc/lsb-release",
    "etc/host.conf",
    "etc/gai.conf",
    "etc/profile",
    "etc/bash.bashrc",
    "etc/login.defs",
    "etc/skel",
    "etc/deluser.conf",
    "etc/adduser.conf",
    /* apt and dpkg, for packages.txt; apt/auth.conf* is left out: it holds passwords */
    "etc/apt/apt.conf",
    "etc/apt/apt.conf.d",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg",
    "etc/apt/trusted.gpg.d",
    "etc/apt/keyrings",
    "etc/apt/preferences",
    "etc/apt/preferences.d",
    "etc/dpkg",
    "etc/debconf.conf",

    "var/lib/apt/extended_states",
    "var/lib/python",
};

static const struct folder {
	const char *path;
	mode_t mode;
	uid_t owner;
} folders[] = {
    {"etc", 0755, 0},
    {"etc/default", 0755, 0},
    {"etc/apt", 0755, 0},
    {"etc/ssl", 0755, 0},
    {"etc/ssl/private", 0700, 0},
    {"etc/pki", 0755, 0},
    {"etc/pki/tls", 0755, 0},
    {"etc/pki/ca-trust", 0755, 0},
    {"usr", 0755, 0},
    {"proc", 0555, 0},
    {"dev", 0755, 0},
    {"run", 0755, 0},
    {"tmp", 01777, 0},
    {"root", 0700, 0},
    {"mnt", 0755, 0},
    {"media", 0755, 0},
    {"srv", 0755, 0},
    {"opt", 0755, 0},
    {"opt/venv", 0755, USER},
    {"app", 0755, USER},
    {"home", 0755, 0},
    {"home/user", 0755, USER},
    {"var", 0755, 0},
    {"var/lib", 0755, 0},
    {"var/lib/dpkg", 0755, 0}, /* the base's is laid over it for packages.txt */

    {"var/lib/apt", 0755, 0},
    {"var/lib/apt/lists", 0755, 0},
    {"var/lib/apt/lists/partial", 0700, 0},
    {"var/lib/misc", 0755, 0},
    {"var/cache", 0755, 0},
    {"var/cache/apt", 0755, 0},
    {"var/cache/apt/archives", 0755, 0},
    {"var/cache/apt/archives/partial", 0700, 0},
    {"var/cache/debconf", 0755, 0},
    {"var/log", 0755, 0},
    {"var/log/apt", 0755, 0},
    {"var/tmp", 01777, 0},
    {"var/opt", 0755, 0},
    {"var/spool", 0755, 0},
    {"var/mail", 02775, 0},
    {"var/backups", 0755, 0},
};

static const struct text {
	const char *path;
	mode_t mode;
	const char *content;
} texts[] = {
    {"etc/passwd", 0644,
     "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
     "bin:x:2:2:bin:/bin:/usr/sbin/nologin\nsys:x:3:3:sys:/dev:/usr/sbin/nologin\n"
     "sync:x:4:65534:sync:/bin:/bin/sync\ngames:x:5:60:games:/usr/games:/usr/sbin/nologin\n"
     "man:x:6:12:man:/var/cache/man:/usr/sbin/nologin\nlp:x:7:7:lp:/var/spool/lpd:/usr/sbin/nologin\n"
     "mail:x:8:8:mail:/var/mail:/usr/sbin/nologin\nnews:x:9:9:news:/var/spool/news:/usr/sbin/nologin\n"
     "uucp:x:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin\nproxy:x:13:13:proxy:/bin:/usr/sbin/nologin\n"
     "www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nbackup:x:34:34:backup:/var/backups:/usr/sbin/nologin\n"
     "list:x:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin\nirc:x:39:39:ircd:/run/ircd:/usr/sbin/nologin\n"
     "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/bash\n"
     "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
    {"etc/group", 0644,
     "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nmail:x:8:\nnews:x:9:\n"
     "uucp:x:10:\nman:x:12:\nproxy:x:13:\nkmem:x:15:\ndialout:x:20:\nfax:x:21:\nvoice:x:22:\ncdrom:x:24:\n"
     "floppy:x:25:\ntape:x:26:\nsudo:x:27:\naudio:x:29:\ndip:x:30:\nwww-data:x:33:\nbackup:x:34:\noperator:x:37:\n"
     "list:x:38:\nirc:x:39:\nsrc:x:40:\nshadow:x:42:\nutmp:x:43:\nvideo:x:44:\nsasl:x:45:\nplugdev:x:46:\nstaff:x:50:\n"
     "games:x:60:\nusers:x:100:\nuser:x:1000:\nnogroup:x:65534:\n"},
    {"etc/shadow", 0640, "root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n"},
    {"etc/gshadow", 0640, "root:*::\nuser:*::\n"},
    {"etc/hosts", 0644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"},
    {"etc/hostname", 0644, "space\n"},
    {"etc/nsswitch.conf", 0644,
     "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\n"
     "services: files\n"},
    {"etc/resolv.conf", 0644, "nameserver " EGRESS_DNS "\noptions timeout:3 attempts:3\n"},
    {"etc/environment", 0644, ""},
    {"etc/fstab", 0644, ""},
};

static const struct link {
	const char *path, *target;
} links[] = {
    {"etc/mtab", "../proc/self/mounts"},
    {"home/user/app", "/app"},
    {"var/run", "/run"},
    {"var/lock", "/run/lock"},
};

/* -- one walk for both: naming what the host has, and copying it ---------------------------------------------------- */

struct walk {
	int to;	       /* -1: only the hash */
	uint64_t hash; /* FNV-1a over path, type, size, time */
	struct err *err;
};

static void mix(struct walk *w, const void *p, size_t n)
{
	const unsigned char *c = p;

	for (size_t i = 0; i < n; i++)
		w->hash = (w->hash ^ c[i]) * 1099511628211ULL;
}

/* Every local user may read apt's lists of sources and proxies; strangers may not have the passwords in them. */
static bool holds_password(int dirfd, const char *name)
{
	cleanup_buf struct buf text = BUF_INIT;

	if (io_read_file(dirfd, name, 1 << 20, &text) < 0)
		return true;
	for (const char *p = text.data; p && (p = strstr(p, "://")) != NULL;) {
		p += strlen("://");
		p += strcspn(p, "@/ \t\n\"");
		if (*p == '@') /* also a name alone: it may be a token */
			return true;
	}
	return false;
}

static int copy_file(struct walk *w, int dirfd, const char *name, const char *path, const struct stat *st)
{
	cleanup_close int in = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (in < 0)
		return 0; /* it has just gone */
	if (strncmp(path, "etc/apt/apt", 11) == 0 || strncmp(path, "etc/apt/sources", 15) == 0)
		if (holds_password(dirfd, name))
			return 0;
	cleanup_close int out = openat(w->to, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return err_set(w->err, errno, "skeleton: create %s", path);
	for (off_t left = st->st_size; left > 0;) {
		ssize_t n = sendfile(out, in, NULL, (size_t)left);
		if (n < 0)
			return err_set(w->err, errno, "skeleton: copy %s", path);
		if (n == 0)
			break;
		left -= n;
	}
	if (fchmod(out, st->st_mode & 0755) < 0)
		return err_set(w->err, errno, "skeleton: mode of %s", path);
	struct timespec times[2] = {st->st_mtim, st->st_mtim};
	futimens(out, times);
	return 0;
}

static int copy_link(struct walk *w, int dirfd, const char *name, const char *path)
{
	char target[4096];
	ssize_t n = readlinkat(dirfd, name, target, sizeof target - 1);

	if (n < 0)
		return 0;
	target[n] = '\0';
	if (symlinkat(target, w->to, path) < 0 && errno != EEXIST)
		return err_set(w->err, errno, "skeleton: link %s", path);
	return 0;
}

static int walk(struct walk *w, int dirfd, const char *name, const char *path, int depth);

static int walk_folder(struct walk *w, int dirfd, const char *name, const char *path, int depth)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return 0;
	if (w->to >= 0 && mkdirat(w->to, path, 0755) < 0 && errno != EEXIST)
		return err_set(w->err, errno, "skeleton: folder %s", path);
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		cleanup_free char *sub = xasprintf("%s/%s", path, e->d_name);
		if (walk(w, fd, e->d_name, sub, depth + 1) < 0)
			return -1;
	}
	return 0;
}

/* `path` is relative to both roots. What not everybody may read is not taken, whatever the list says. */
static int walk(struct walk *w, int dirfd, const char *name, const char *path, int depth)
{
	struct stat st;

	if (depth > DEPTH_MAX || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	mix(w, path, strlen(path));
	mix(w, &st.st_mode, sizeof st.st_mode);
	if (S_ISLNK(st.st_mode)) { /* one is never changed, only made anew */
		mix(w, &st.st_mtim, sizeof st.st_mtim);
		return w->to < 0 ? 0 : copy_link(w, dirfd, name, path);
	}
	if (S_ISDIR(st.st_mode))
		return (st.st_mode & 0005) == 0005 ? walk_folder(w, dirfd, name, path, depth) : 0;
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0004) || st.st_size > FILE_MAX)
		return 0;
	mix(w, &st.st_size, sizeof st.st_size);
	mix(w, &st.st_mtim, sizeof st.st_mtim);
	return w->to < 0 ? 0 : copy_file(w, dirfd, name, path, &st);
}

/* Walks from the folder of `path`, which is opened inside the root, wherever links in a base's tree may point. */
static int walk_from(struct walk *w, int root, const char *path)
{
	const char *slash = strrchr(path, '/');
	cleanup_free char *folder = xstrndup(path, (size_t)(slash - path));
	cleanup_close int dir = resolve_in_root(root, folder, O_PATH | O_DIRECTORY);

	return dir < 0 ? 0 : walk(w, dir, slash + 1, path, 0);
}

static int walk_root(struct walk *w, int root)
{
	static const char *const top[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"};

	for (size_t i = 0; i < sizeof top / sizeof *top; i++) {
		struct stat st;
		char target[32];
		if (fstatat(root, top[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		snprintf(target, sizeof target, "usr/%s", top[i]);
		mix(w, target, strlen(target));
		if (w->to >= 0 && symlinkat(target, w->to, top[i]) < 0)
			return err_set(w->err, errno, "skeleton: link %s", top[i]);
	}
	for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
		if (walk_from(w, root, taken[i]) < 0)
			return -1;
	return 0;
}

static int walk_system(struct walk *w, int root)
{
	cleanup_close int host = -1;

	if (root != SKELETON_HOST)
		return walk_root(w, root);
	host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return host < 0 ? err_set(w->err, errno, "open /") : walk_root(w, host);
}

static void own_hash(struct walk *w)
{
	mix(w, FORMAT, strlen(FORMAT));
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		mix(w, folders[i].path, strlen(folders[i].path));
		mix(w, &folders[i].mode, sizeof folders[i].mode);
	}
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		mix(w, texts[i].content, strlen(texts[i].content));
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		mix(w, links[i].target, strlen(links[i].target));
}

void skeleton_name(int root, char out[SKELETON_NAME])
{
	struct err err = ERR_INIT;
	struct walk w = {.to = -1, .hash = 14695981039346656037ULL, .err = &err};

	own_hash(&w);
	walk_system(&w, root);
	snprintf(out, SKELETON_NAME, SKELETON_PREFIX "%016llx", (unsigned long long)w.hash);
}

/* -- building ------------------------------------------------------------------------------------------------------- */

/* A base's packages have accounts of their own, which are nobody's secret; ours is added. */
static void base_accounts(int root, const char *path, struct buf *out)
{
	static const struct {
		const char *path, *line;
	} files[] = {
	    {"etc/passwd", "user:x:1000:1000:user:/home/user:/bin/bash\n"},
	    {"etc/group", "user:x:1000:\n"},
	};

	for (size_t i = 0; root != SKELETON_HOST && i < sizeof files / sizeof *files; i++) {
		if (strcmp(files[i].path, path) != 0)
			continue;
		cleanup_close int fd = resolve_beneath(root, path, O_RDONLY | O_NONBLOCK);
		char chunk[16384];
		ssize_t n;
		while (fd >= 0 && out->len < FILE_MAX && (n = read(fd, chunk, sizeof chunk)) > 0)
			buf_add(out, chunk, (size_t)n);
		if (out->len && !strstr(out->data, "\nuser:"))
			buf_adds(out, files[i].line);
	}
}

static int make_own(int root, int to, struct err *err)
{
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		cleanup_buf struct buf content = BUF_INIT;

		base_accounts(root, texts[i].path, &content);
		if (!content.len)
			buf_adds(&content, texts[i].content);
		unlinkat(to, texts[i].path, 0);
		cleanup_close int fd = openat(to, texts[i].path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || io_write_full(fd, content.data, content.len) < 0 || fchmod(fd, texts[i].mode) < 0)
			return err_set(err, errno, "skeleton: write %s", texts[i].path);
	}
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		if (symlinkat(links[i].target, to, links[i].path) < 0)
			return err_set(err, errno, "skeleton: link %s", links[i].path);
	return 0;
}

int skeleton_build(int root, int dirfd, struct err *err)
{
	struct walk w = {.to = dirfd, .err = err};

	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		const struct folder *f = &folders[i];
		int r = io_mkdir(dirfd, f->path, f->mode);
		if (r < 0)
			return err_set(err, -r, "skeleton: folder %s", f->path);
		/* without other ids everything belongs to the caller, who is id 1000 inside */
		uint32_t owner = ids_base(0) + f->owner;
		if (geteuid() == 0 && ids_kind() != IDS_ONE &&
		    fchownat(dirfd, f->path, owner, owner, AT_SYMLINK_NOFOLLOW) < 0)
			return err_set(err, errno, "skeleton: owner of %s", f->path);
	}
	if (walk_system(&w, root) < 0)
		return -1;
	return make_own(root, dirfd, err);
}

/* A change of owner takes the set-id bits away. What is in the range already stays. */
static int shift(int dirfd, const char *name, const struct stat *st, uint32_t base)
{
	uid_t uid = st->st_uid >= base ? st->st_uid : base + st->st_uid;
	gid_t gid = st->st_gid >= base ? st->st_gid : base + st->st_gid;

	if (fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	return S_ISLNK(st->st_mode) ? 0 : fchmodat(dirfd, name, st->st_mode & 07777, 0);
}

int skeleton_shift(int dirfd, uint32_t base, struct err *err)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;

	if (!d || fstat(fd, &st) < 0 || shift(fd, ".", &st, base) < 0)
		return err_set(err, errno, "skeleton: owner of a folder");
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return err_set(err, errno, "skeleton: %s", e->d_name);
		if (!S_ISDIR(st.st_mode)) {
			if (shift(fd, e->d_name, &st, base) < 0)
				return err_set(err, errno, "skeleton: owner of %s", e->d_name);
			continue;
		}
		cleanup_close int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0 || skeleton_shift(sub, base, err) < 0)
			return sub < 0 ? err_set(err, errno, "skeleton: open %s", e->d_name) : -1;
	}
	return 0;
}

int skeleton_ensure(const struct volumes *v, const char *name, struct err *err)
{
	static const char making[] = SKELETON_PREFIX "new";

	if (volume_exists(v, name))
		return 0;
	if (volume_remove(v, making, err) < 0 || volume_create(v, making, SKELETON_BYTES, err) < 0)
		return err_prefix(err, "skeleton");
	cleanup_close int mnt = volume_mount(v, making, err);
	cleanup_close int root = mnt < 0 ? -1 : openat(mnt, "root", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (root < 0)
		return mnt < 0 ? -1 : err_set(err, errno, "open the skeleton");
	if (skeleton_build(SKELETON_HOST, root, err) < 0 ||
	    (ids_kind() == IDS_RANGE && skeleton_shift(root, ids_base(0), err) < 0))
		return -1;
	return volume_rename(v, making, name, err);
}
