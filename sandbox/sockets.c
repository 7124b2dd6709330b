/* See sockets.h. */
#include "sandbox/sockets.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "sandbox/ids.h"
#include "sandbox/netns.h"

#define ANSWER_S 10

static const struct {
	int family, type, protocol;
} kinds[] = {
    [SOCKET_TCP] = {AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0}, [SOCKET_RTNL] = {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}};
#define KINDS (sizeof kinds / sizeof *kinds)

static int make_here(enum socket_kind kind, uint32_t n, int *fds, struct err *err)
{
	uint32_t made = 0;

	while (made < n) {
		fds[made] = socket(kinds[kind].family, kinds[kind].type | SOCK_CLOEXEC, kinds[kind].protocol);
		if (fds[made] < 0) {
			err_set(err, errno, "socket in a sandbox's network namespace");
			break;
		}
		made++;
	}
	if (made == n)
		return 0;
	while (made)
		close(fds[--made]);
	return -1;
}

/* -- the process that goes there -------------------------------------------------------------------------------------- */

static void answer(int sock, struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	uint32_t kind = get_u32(&r);
	uint32_t n = get_u32(&r);
	cleanup_close int netns = frame_take_fd(f, 0);
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	int fds[SOCKETS_MAX];
	int rc = -1;

	if (!get_ok(&r) || kind >= KINDS || n > SOCKETS_MAX || netns < 0)
		err_set(&err, EBADMSG, "request for sockets");
	else if (setns(netns, CLONE_NEWNET) < 0)
		err_set(&err, errno, "enter a network namespace");
	else
		rc = make_here((enum socket_kind)kind, n, fds, &err);
	put_u32(&b, (uint32_t)err.code);
	put_str(&b, err.msg);
	if (frame_send(sock, 1, 0, b.data, b.len, fds, rc < 0 ? 0 : (int)n) < 0)
		_exit(1);
	for (uint32_t i = 0; rc == 0 && i < n; i++)
		close(fds[i]);
	unshare(CLONE_NEWNET); /* not to keep the sandbox's alive */
}

_Noreturn static void go_between(int sock)
{
	struct frame f;

	prctl(PR_SET_NAME, "spaced-sockets", 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (dup2(sock, 3) < 0 || close_range(4, ~0U, 0) < 0)
		_exit(1);
	while (frame_recv(3, &f) == 1) {
		answer(3, &f);
		frame_release(&f);
	}
	_exit(0);
}

static int start_helper(struct err *err)
{
	struct timeval limit = {.tv_sec = ANSWER_S};
	int sv[2];
	int r = frame_pair(sv);

	if (r < 0)
		return err_set(err, -r, "socket pair");
	pid_t pid = fork();
	if (pid == 0)
		go_between(sv[1]);
	int e = errno;
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return err_set(err, e, "fork");
	}
	setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return sv[0];
}

static int take(struct frame *f, uint32_t n, int *fds, struct err *err)
{
	struct reader r = reader_of(f->payload, f->len);
	uint32_t code = get_u32(&r);

	if (f->nfds == (int)n) {
		for (uint32_t i = 0; i < n; i++)
			fds[i] = frame_take_fd(f, (int)i);
		return 0;
	}
	get_str(&r, err->msg, sizeof err->msg);
	err->code = (int)(code ? code : EPROTO);
	return -1;
}

static int ask_helper(int netns, enum socket_kind kind, uint32_t n, int *fds, struct err *err)
{
	static int helper = -1;
	static pid_t owner;
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f;

	if (helper >= 0 && owner != getpid()) { /* our parent's: answers would go to whoever reads first */
		close(helper);
		helper = -1;
	}
	owner = getpid();
	put_u32(&b, kind);
	put_u32(&b, n);
	for (int tries = 0; tries < 2; tries++) { /* it may have been killed since */
		if (helper < 0 && (helper = start_helper(err)) < 0)
			return -1;
		if (frame_send(helper, 1, 0, b.data, b.len, &netns, 1) == 0 && frame_recv(helper, &f) == 1) {
			int rc = take(&f, n, fds, err);
			frame_release(&f);
			return rc;
		}
		close(helper);
		helper = -1;
	}
	return err_set(err, ECHILD, "the process that makes sockets");
}

int sockets_make(int netns, enum socket_kind kind, uint32_t n, int *fds, struct err *err)
{
	int back;

	if (!ids_host_root())
		return ask_helper(netns, kind, n, fds, err);
	if (netns_enter(netns, &back, err) < 0)
		return -1;
	int rc = make_here(kind, n, fds, err);
	netns_leave(back);
	return rc;
}
