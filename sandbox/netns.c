/* See netns.h. */
#include "sandbox/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "base/log.h"

#define SELF_NET "/proc/thread-self/ns/net"

static int set_sysctl(const char *path, const char *value)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno; /* a kernel without IPv6 */
	return io_write_full(fd, value, strlen(value));
}

static int set_up(struct err *err)
{
	struct ifreq lo = {.ifr_name = "lo"};
	cleanup_close int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r;

	if (s < 0 || ioctl(s, SIOCGIFFLAGS, &lo) < 0)
		return err_set(err, errno, "loopback of a new network namespace");
	lo.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(s, SIOCSIFFLAGS, &lo) < 0)
		return err_set(err, errno, "loopback of a new network namespace");
	if ((r = set_sysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")) < 0 ||
	    (r = set_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")) < 0)
		return err_set(err, -r, "settings of a new network namespace");
	return 0;
}

ino_t netns_inode(int netns)
{
	struct stat st;
	return fstat(netns, &st) < 0 ? 0 : st.st_ino;
}

int netns_owner(int netns, int *userns, struct err *err)
{
	cleanup_close int owner = ioctl(netns, NS_GET_USERNS);
	struct stat ours, theirs;

	if (owner < 0 || stat("/proc/self/ns/user", &ours) < 0 || fstat(owner, &theirs) < 0)
		return err_set(err, errno, "owner of a network namespace");
	*userns = theirs.st_ino == ours.st_ino ? -1 : steal_fd(&owner);
	return 0;
}

int netns_enter(int netns, int *back, struct err *err)
{
	*back = open(SELF_NET, O_RDONLY | O_CLOEXEC);
	if (*back < 0)
		return err_set(err, errno, "open " SELF_NET);
	if (setns(netns, CLONE_NEWNET) < 0) {
		err_set(err, errno, "enter a network namespace");
		close(*back);
		*back = -1;
		return -1;
	}
	return 0;
}

void netns_leave(int back)
{
	struct stat here;
	int r = setns(back, CLONE_NEWNET);

	if (r < 0 || stat(SELF_NET, &here) < 0 || here.st_ino != netns_inode(back)) {
		log_error("cannot leave a sandbox's network namespace: giving up");
		abort();
	}
	close(back);
}

int netns_make(struct err *err)
{
	int back = open(SELF_NET, O_RDONLY | O_CLOEXEC);
	int made = -1;

	if (back < 0)
		return err_set(err, errno, "open " SELF_NET);
	if (unshare(CLONE_NEWNET) < 0) {
		err_set(err, errno, "new network namespace");
		close(back);
		return -1;
	}
	if (set_up(err) == 0) {
		made = open(SELF_NET, O_RDONLY | O_CLOEXEC);
		if (made < 0)
			err_set(err, errno, "open " SELF_NET);
	}
	netns_leave(back);
	return made;
}

void netns_pool_init(struct netns_pool *p)
{
	*p = (struct netns_pool){.refill = -1};
}

void netns_pool_release(struct netns_pool *p)
{
	for (size_t i = 0; i < p->n; i++)
		close(p->ready[i]);
	if (p->refill >= 0)
		close(p->refill);
	netns_pool_init(p);
}

int netns_pool_take(struct netns_pool *p)
{
	return p->n ? p->ready[--p->n] : -1;
}

int netns_pool_refill(struct netns_pool *p, struct err *err)
{
	size_t missing = NETNS_POOL - p->n;
	int sv[2];

	if (missing == 0 || p->refill >= 0)
		return 0;
	int r = frame_pair(sv);
	if (r < 0)
		return err_set(err, -r, "socket pair");
	pid_t pid = fork();
	if (pid == 0) {
		struct err e = ERR_INIT;
		close(sv[0]);
		for (size_t i = 0; i < missing; i++) {
			int fd = netns_make(&e);
			if (fd < 0 || frame_send(sv[1], 1, 0, NULL, 0, &fd, 1) < 0)
				_exit(1);
			close(fd);
		}
		_exit(0);
	}
	int e = errno;
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return err_set(err, e, "fork");
	}
	p->refill = sv[0];
	return 0;
}

bool netns_pool_refilled(struct netns_pool *p)
{
	struct frame f;

	if (frame_recv(p->refill, &f) == 1) {
		int fd = frame_take_fd(&f, 0);
		frame_release(&f);
		if (fd >= 0 && p->n < NETNS_POOL)
			p->ready[p->n++] = fd;
		else if (fd >= 0)
			close(fd);
		return true;
	}
	return false;
}

void netns_pool_refill_end(struct netns_pool *p)
{
	close(p->refill);
	p->refill = -1;
}
