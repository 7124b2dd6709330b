/* See monitor.h. */
#include "sandbox/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/ids.h"

#define NOBODY 65534
#define CLIENTS 4
#define CHUNK 16384
#define RECORD_EVERY (1U << 20)
#define THROTTLE_MS 10 /* over the budget: at most a pipe's content per that, so that it costs us no CPU (battery G6) */

bool monitor_read_record(int fd, struct monitor_record *r)
{
	return pread(fd, r, sizeof *r, 0) == (ssize_t)sizeof *r && r->magic == MONITOR_MAGIC;
}

static void write_record(struct monitor *m, const struct monitor_record *r)
{
	if (pwrite(m->fds[MONITOR_RECORD], r, sizeof *r, 0) != (ssize_t)sizeof *r)
		return; /* the disk is full: a spawner that is there hears of the end all the same */
}

static void say(struct monitor *m, const char *what, uint64_t n)
{
	char line[160];
	int k = snprintf(line, sizeof line, "\n[spaced] %s: %" PRIu64 " bytes\n", what, n);
	io_write_full(m->fds[MONITOR_LOG], line, (size_t)k);
}

static void log_bytes(struct monitor *m, struct monitor_record *r, const char *p, size_t n)
{
	uint64_t before = r->logged;
	uint64_t room = m->log_budget > r->logged ? m->log_budget - r->logged : 0;
	size_t take = n < room ? n : (size_t)room;

	if (take && io_write_full(m->fds[MONITOR_LOG], p, take) < 0)
		take = 0;
	r->logged += take;
	if (n > take && r->dropped == 0)
		say(m, "the log is full, what follows is dropped; limit", m->log_budget);
	r->dropped += n - take;
	if (before / RECORD_EVERY != r->logged / RECORD_EVERY)
		write_record(m, r);
}

/* One chunk. False at the end of the output. */
static bool copy_log(struct monitor *m, struct monitor_record *r)
{
	char chunk[CHUNK];
	ssize_t n;

	do
		n = read(m->fds[MONITOR_LOG_PIPE], chunk, sizeof chunk);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN;
	if (n == 0)
		return false;
	log_bytes(m, r, chunk, (size_t)n);
	return true;
}

static uint32_t exit_status(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128U + (uint32_t)WTERMSIG(wait_status) : (uint32_t)WEXITSTATUS(wait_status);
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

/* All processes are gone: what is still in the pipe, and the last word. */
static void finish(struct monitor *m, struct monitor_record *r, int main_status)
{
	int status;
	siginfo_t si;

	if (main_status < 0 && readable(m->fds[MONITOR_STATUS]) &&
	    read(m->fds[MONITOR_STATUS], &status, sizeof status) == (ssize_t)sizeof status)
		main_status = (int)exit_status(status);
	while (readable(m->fds[MONITOR_LOG_PIPE]) && copy_log(m, r))
		;
	if (r->dropped)
		say(m, "dropped because the log was full", r->dropped);
	waitid((idtype_t)P_PIDFD, (id_t)m->fds[MONITOR_PIDFD], &si, WEXITED | WNOHANG); /* ours only if we started it */
	r->exited = 1;
	r->status = main_status < 0 ? 128 + SIGKILL : (uint32_t)main_status;
	write_record(m, r);
}

static void broadcast(int *clients, uint32_t event)
{
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i] >= 0)
			frame_send(clients[i], event, 0, NULL, 0, NULL, 0);
}

static void greet(struct monitor *m, int *client)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, (uint32_t)m->init);
	if (frame_send(*client, MONITOR_STATE, 0, b.data, b.len, m->fds, MONITOR_NFDS) < 0) {
		close(*client);
		*client = -1;
	}
}

static void accept_client(struct monitor *m, int *clients)
{
	int fd = accept4(m->fds[MONITOR_LISTENER], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (int i = 0; fd >= 0 && i < CLIENTS; i++) {
		if (clients[i] < 0) {
			clients[i] = fd;
			greet(m, &clients[i]);
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

/* A client has nothing to say: anything but silence ends it. */
static void check_clients(int *clients, const struct pollfd *p)
{
	for (int i = 0; i < CLIENTS; i++) {
		if (clients[i] >= 0 && p[i].fd == clients[i] && p[i].revents) {
			close(clients[i]);
			clients[i] = -1;
		}
	}
}

static void loop(struct monitor *m, struct monitor_record *r, int *clients)
{
	enum { PIDFD, STATUS, OUTPUT, LISTENER, FIRST, N = FIRST + CLIENTS };
	struct pollfd p[N] = {[PIDFD] = {m->fds[MONITOR_PIDFD], POLLIN, 0},
			      [STATUS] = {m->fds[MONITOR_STATUS], POLLIN, 0},
			      [OUTPUT] = {m->fds[MONITOR_LOG_PIPE], POLLIN, 0},
			      [LISTENER] = {m->fds[MONITOR_LISTENER], POLLIN, 0}};
	int main_status = -1;
	int status;

	for (;;) {
		for (int i = 0; i < CLIENTS; i++)
			p[FIRST + i] = (struct pollfd){clients[i], POLLIN, 0};
		if (poll(p, N, -1) < 0)
			continue;
		if (p[OUTPUT].revents && !copy_log(m, r))
			p[OUTPUT].fd = -1;
		if (p[STATUS].revents) {
			ssize_t n = read(m->fds[MONITOR_STATUS], &status, sizeof status);
			p[STATUS].fd = -1; /* read, or init died without a word */
			if (n == (ssize_t)sizeof status) {
				main_status = (int)exit_status(status);
				broadcast(clients, MONITOR_MAIN_EXITED);
			}
		}
		if (p[PIDFD].revents) {
			finish(m, r, main_status);
			broadcast(clients, MONITOR_EXITED);
			return;
		}
		check_clients(clients, p + FIRST);
		if (p[LISTENER].revents)
			accept_client(m, clients);
		if (r->dropped && p[OUTPUT].revents)
			poll(NULL, 0, THROTTLE_MS);
	}
}

static int keep_descriptors(struct monitor *m)
{
	int *all[MONITOR_NFDS + 2];
	int n = 0;

	for (int i = 0; i < MONITOR_NFDS; i++)
		all[n++] = &m->fds[i];
	all[n++] = &m->channel;
	all[n++] = &m->host_mnt;
	return io_keep_fds(all, n);
}

static int drop_privileges(struct monitor *m, struct err *err)
{
	if (setns(m->host_mnt, CLONE_NEWNS) < 0 || chdir("/") < 0)
		return err_set(err, errno, "leave the spawner's mount namespace");
	close(m->host_mnt);
	uid_t id = ids_kind() == IDS_ONE ? 0 : NOBODY;
	return confine_user(id, id, err);
}

_Noreturn static void fail(struct monitor *m, const struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, (uint32_t)err->code);
	put_str(&b, err->msg);
	frame_send(m->channel, MONITOR_FAILED, 0, b.data, b.len, NULL, 0);
	_exit(1);
}

_Noreturn void monitor_main(struct monitor *m)
{
	struct monitor_record r = {.magic = MONITOR_MAGIC};
	struct monitor_record old;
	int clients[CLIENTS] = {-1, -1, -1, -1};
	struct err err = ERR_INIT;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	prctl(PR_SET_NAME, "spaced-monitor", 0, 0, 0);
	setsid(); /* a Ctrl-C at the daemon's terminal is not for us */
	if (keep_descriptors(m) < 0)
		_exit(1);
	if (drop_privileges(m, &err) < 0)
		fail(m, &err);
	io_set_nonblock(m->channel, true);
	clients[0] = m->channel;
	greet(m, &clients[0]); /* the start is over for who waits for it; the rest takes milliseconds */
	if (confine_syscalls(PROMISE_UNIX, &err) < 0)
		fail(m, &err);
	malloc_trim(0);
	if (monitor_read_record(m->fds[MONITOR_RECORD], &old)) { /* we take the place of one that died */
		r.logged = old.logged;
		r.dropped = old.dropped;
	}
	io_set_nonblock(m->fds[MONITOR_LOG_PIPE], true);
	loop(m, &r, clients);
	_exit(0);
}
