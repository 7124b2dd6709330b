/* Ids: the range of one Space in its own user namespace, in which nothing maps to root of the host; and pid 1's way
 * from that namespace's root down to the user of the spec. Sources: user_namespaces(7), CVE-2022-29162. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/contain.h"

#define NOBODY 65534U
#define OOM_SCORE "500"

/* The same words in the same order; the kernel lays them out in columns. */
static int verify_proc(int fd, const char *file, const char *text, struct err *err)
{
	static const char blanks[] = " \n";
	char got[256];
	ssize_t n = pread(fd, got, sizeof got - 1, 0);

	if (n < 0)
		return err_set(err, errno, "read %s back", file);
	got[n] = '\0';
	for (const char *a = text, *b = got;;) {
		a += strspn(a, blanks);
		b += strspn(b, blanks);
		size_t word = strcspn(a, blanks);
		if (word != strcspn(b, blanks) || strncmp(a, b, word) != 0)
			return err_set(err, EIO, "%s was not kept", file);
		if (word == 0)
			return 0;
		a += word;
		b += word;
	}
}

static int write_proc(pid_t pid, const char *file, const char *text, struct err *err)
{
	char path[64];
	size_t n = strlen(text);

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || write(fd, text, n) != (ssize_t)n)
		return err_set(err, errno, "write %s", file);
	return verify_proc(fd, file, text, err);
}

/* Parent. As root: 0..2046 and nobody onto the range. Rootless: the one id that the kernel lets us map, after giving
 * up setgroups, else a group could be left that denies access. */
int user_write_maps(pid_t pid, uint32_t id_base, const struct sandbox_spec *spec, struct err *err)
{
	char map[128];

	if (id_base) {
		snprintf(map, sizeof map, "0 %u %u\n%u %u 1\n", id_base, SANDBOX_IDS - 1, NOBODY,
			 id_base + SANDBOX_IDS - 1);
		return write_proc(pid, "uid_map", map, err) < 0 || write_proc(pid, "gid_map", map, err) < 0 ? -1 : 0;
	}
	snprintf(map, sizeof map, "%u %u 1\n", spec->uid, geteuid());
	if (write_proc(pid, "setgroups", "deny", err) < 0 || write_proc(pid, "uid_map", map, err) < 0)
		return -1;
	snprintf(map, sizeof map, "%u %u 1\n", spec->gid, getegid());
	return write_proc(pid, "gid_map", map, err);
}

/* Parent: when the host itself is out of memory, apps die before the daemon (whose service may be protected) and before
 * the host's services. Written by root, it is also the lowest value that the app can choose (battery B10). */
int user_write_oom(pid_t pid, struct err *err)
{
	return write_proc(pid, "oom_score_adj", OOM_SCORE, err);
}

static int become(uid_t uid, gid_t gid, bool groups, struct err *err)
{
	uid_t u[3];
	gid_t g[3];

	if (groups && setgroups(0, NULL) < 0)
		return err_set(err, errno, "leave all groups");
	if (setresgid(gid, gid, gid) < 0)
		return err_set(err, errno, "take gid %u", gid);
	if (setresuid(uid, uid, uid) < 0)
		return err_set(err, errno, "take uid %u", uid);
	if (getresuid(&u[0], &u[1], &u[2]) < 0 || getresgid(&g[0], &g[1], &g[2]) < 0)
		return err_set(err, errno, "read back ids");
	for (int i = 0; i < 3; i++)
		if (u[i] != uid || g[i] != gid)
			return err_set(err, EPERM, "uid %u, gid %u were not kept", uid, gid);
	return 0;
}

int user_enter(struct contain *c, struct err *err)
{
	if (c->rootless)
		return become(c->spec->uid, c->spec->gid, false, err);
	return become(0, 0, true, err);
}

int user_drop(struct contain *c, struct err *err)
{
	return become(c->spec->uid, c->spec->gid, !c->rootless, err);
}

static int loopback_up(struct err *err)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = {.ifr_name = "lo"};

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r) < 0)
		return err_set(err, errno, "loopback");
	r.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &r) < 0 || ioctl(fd, SIOCGIFFLAGS, &r) < 0)
		return err_set(err, errno, "switch the loopback on");
	if (!(r.ifr_flags & IFF_UP))
		return err_set(err, EIO, "the loopback stays off");
	/* Any port may be bound: they are all the app's own. */
	cleanup_close int ports = open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_WRONLY | O_CLOEXEC);
	if (ports >= 0 && write(ports, "0", 1) < 0)
		return err_set(err, errno, "let any port be bound");
	return 0;
}

/* No hierarchy is mounted inside, and no namespace is to be had in which one could be (CVE-2022-0492; battery B6, B7).
 * The cgroup namespace comes now and not with clone3: there its root would be the parent's group, and
 * /proc/self/cgroup would show the way to ours (battery B9). */
int namespaces_finish(struct contain *c, struct err *err)
{
	if (unshare(CLONE_NEWCGROUP) < 0)
		return err_set(err, errno, "cgroup namespace");
	return c->own_netns ? loopback_up(err) : 0;
}

int hostname_set(struct contain *c, struct err *err)
{
	const char *name = c->spec->hostname ? c->spec->hostname : c->spec->name;
	size_t n = strnlen(name, 64);
	struct utsname now;

	if (sethostname(name, n) < 0)
		return err_set(err, errno, "host name");
	if (uname(&now) < 0 || strnlen(now.nodename, sizeof now.nodename) != n || memcmp(now.nodename, name, n) != 0)
		return err_set(err, EIO, "the host name was not kept");
	return 0;
}
