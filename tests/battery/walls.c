/* Single walls, taken out of the launcher: what cannot be seen through a whole start. Prints acts as the probe does.
 *
 *   walls race A B            exchanges two names until it is killed
 *   walls targets ROOT N      A3: N times mnt_target(ROOT, "volume/swap/iN") while "volume/swap" is exchanged
 *   walls naive ROOT N        the same with plain mkdir(2): the positive control
 *   walls swapped DIR OTHER   A8: DIR is opened as the source of a bind, exchanged with OTHER, and mounted
 *   walls landlock HOST ROOT  D14: ROOT is the root, a folder of HOST was forgotten open and another one mounted
 *   walls no-landlock HOST ROOT       the same without the wall: the positive control */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/contain.h"
#include "sandbox/skeleton.h"

static char *first, *second;
static atomic_bool done;

static void say(bool reached, const char *name)
{
	if (reached)
		printf("reached %s\n", name);
	else
		printf("blocked %s (%s)\n", name, strerrorname_np(errno) ? strerrorname_np(errno) : "0");
	fflush(stdout);
}

_Noreturn static void broken(const char *what)
{
	fprintf(stderr, "walls: %s: %s\n", what, strerror(errno));
	exit(99);
}

static void *race(void *unused)
{
	while (!done)
		if (renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE) < 0)
			broken("exchange");
	return NULL;
}

/* ROOT holds volume/swap, a folder, and volume/link, a symlink that leads out: the thread exchanges them. */
static int targets(const char *root, int n, bool naive)
{
	int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), made = 0, refused = 0;
	pthread_t thread;

	first = xasprintf("%s/volume/swap", root);
	second = xasprintf("%s/volume/link", root);
	if (dir < 0 || pthread_create(&thread, NULL, race, NULL) != 0)
		broken("set-up");
	for (int i = 0; i < n; i++) {
		cleanup_free char *path = xasprintf("volume/swap/%s%d", naive ? "n" : "i", i);
		struct err err = ERR_INIT;
		int fd = -1;

		if (naive)
			fd = mkdirat(dir, path, 0755) == 0 ? openat(dir, path, O_PATH | O_CLOEXEC) : -1;
		else
			fd = mnt_target(dir, path, i % 2, &err);
		made += fd >= 0;
		refused += fd < 0;
		if (fd >= 0)
			close(fd);
	}
	done = true;
	pthread_join(thread, NULL);
	printf("fact made %d\nfact refused %d\n", made, refused);
	return 0;
}

/* The launcher holds a descriptor of DIR, which it has checked; the path then leads to OTHER. */
static int swapped(char *dir, char *other, bool rootless)
{
	char path[] = "PATH=/usr/bin:/bin", *env[] = {path, NULL};
	char *argv[] = {"cat", "/opt/bind/name", NULL};
	char skeleton[] = "/tmp/walls-XXXXXX";
	struct sandbox_spec s = {.uid = 1000, .gid = 1000, .argv = argv, .env = env};
	struct sandbox_sources src = {.top = -1, .netns = -1, .idmap = !rootless};
	struct sandbox box;
	struct err err = ERR_INIT;
	int out[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), status;
	char text[64] = "";

	snprintf(s.name, sizeof s.name, "walls-%d", getpid());
	s.id_base = rootless ? 0 : 1900000000;
	s.binds[s.nbinds++] = (struct sandbox_bind){.source = dir, .target = "/opt/bind"};
	src.base_usr = open("/usr", O_PATH | O_CLOEXEC);
	src.binds[0] = open(dir, O_PATH | O_CLOEXEC);
	/* The change of ids makes us undumpable, and our /proc files root's. */
	if (rootless && (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0 ||
			 prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0))
		broken("become nobody");
	if (!mkdtemp(skeleton) || chmod(skeleton, 0755) < 0 || pipe2(out, O_CLOEXEC) < 0)
		broken("set-up");
	src.skeleton = open(skeleton, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (skeleton_build(SKELETON_HOST, src.skeleton, &err) < 0)
		broken(err.msg);
	if (!rootless && !sandbox_can_idmap(src.skeleton) && skeleton_shift(src.skeleton, s.id_base, &err) < 0)
		broken(err.msg);
	printf("fact exchange %d\n", rootless);
	fflush(stdout);
	if (getchar() != '\n') /* the harness, who may, exchanges them now */
		broken("exchange");
	const int stdio[3] = {null, out[1], null};
	if (sandbox_start(&s, &src, stdio, &box, &err) < 0) {
		printf("fact refused %s\n", err.msg);
		errno = err.code;
	} else {
		close(out[1]);
		if (read(out[0], text, sizeof text - 1) < 0)
			broken("read");
		text[strcspn(text, "\n")] = '\0';
		printf("fact shown %s\n", text);
		waitpid(box.init, &status, 0);
		cgroup_host()->kill(&box.cgroup, 5000, &err);
		cgroup_host()->remove(&box.cgroup, &err);
		sandbox_release(&box);
		errno = ESTALE;
	}
	say(strcmp(text, "other") == 0, "the folder that was put in the place of the one that was checked");
	io_remove_tree(AT_FDCWD, skeleton);
	return 0;
}

/* Everything before Landlock has failed: a descriptor of the host is still open, a folder of it is mounted writable. */
static int landlock(const char *host, const char *root, bool with)
{
	struct sandbox_spec s = {.uid = 1000, .gid = 1000};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct contain c = {.spec = &s, .stdio = {null, null, null}};
	int leaked = open(host, O_PATH | O_DIRECTORY);
	cleanup_free char *left = xasprintf("%s/left", root);
	struct err err = ERR_INIT;

	if (leaked < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(host, left, NULL, MS_BIND, NULL) < 0 || chroot(root) < 0 || chdir("/") < 0)
		broken("set-up");
	if (with && (no_new_privs(&c, &err) < 0 || landlock_apply(&c, &err) < 0))
		broken(err.msg);
	say(openat(leaked, "file", O_RDONLY) >= 0, "read a host file through a forgotten descriptor");
	say(openat(leaked, ".", O_RDONLY | O_DIRECTORY) >= 0, "list a host folder through a forgotten descriptor");
	say(openat(leaked, "file", O_WRONLY) >= 0, "write a host file through a forgotten descriptor");
	say(openat(leaked, "made", O_CREAT | O_WRONLY, 0600) >= 0, "make a file through a forgotten descriptor");
	say(open("/left/file", O_WRONLY) >= 0, "write in a host folder that is still mounted");
	say(mkdir("/left/folder", 0755) == 0, "make a folder in a host folder that is still mounted");
	say(unlink("/left/victim") == 0, "delete in a host folder that is still mounted");
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc >= 4 ? argv[1] : "";

	cgroup_set_tree("spaced-walls");
	if (strcmp(what, "race") == 0) {
		first = argv[2];
		second = argv[3];
		race(NULL);
	}
	if (strcmp(what, "targets") == 0 || strcmp(what, "naive") == 0)
		return targets(argv[2], atoi(argv[3]), what[0] == 'n');
	if (strcmp(what, "swapped") == 0 || strcmp(what, "swapped-rootless") == 0)
		return swapped(argv[2], argv[3], strchr(what, '-') != NULL);
	if (strcmp(what, "landlock") == 0 || strcmp(what, "no-landlock") == 0)
		return landlock(argv[2], argv[3], what[0] == 'l');
	fprintf(stderr, "walls: see the head of walls.c\n");
	return 99;
}
