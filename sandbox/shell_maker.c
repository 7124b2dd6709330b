/* See shell_maker.h. */
#include "sandbox/shell_maker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/cgroup.h"
#include "sandbox/shells.h"

#define KILL_MS 5000
#define AGAIN_MS 1000 /* no process to be had for the other maker */

/* -- who waits with a shell ------------------------------------------------------------------------------------------- */

/* Held by this process, and by pid 1 until that is in its group, where remove_old() finds it: the descriptor stays open. For the
 * number's byte of the file; fcntl(2), "Open file description locks". */
static int lock(const struct spawn *s, uint32_t number, struct err *err)
{
	struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = number, .l_len = 1};
	int fd = openat(s->sandboxes, ".shells", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 || fcntl(fd, F_OFD_SETLKW, &byte) < 0)
		return err_set(err, errno, "lock sandbox %u", number);
	return 0;
}

/* Of one whose process was killed together with its spawner. */
static int remove_old(const char *group, struct err *err)
{
	struct cgroup cg;

	if (cgroup_host()->open(group, &cg, err) < 0)
		return err->code == ENOENT ? 0 : -1;
	int r = cgroup_host()->kill(&cg, KILL_MS, err);
	if (r == 0)
		r = cgroup_host()->remove(&cg, err);
	if (cg.v2_dir >= 0)
		close(cg.v2_dir);
	return r;
}

static struct sandbox_shell *make(const struct spawn *s, uint32_t number, int *netns, struct err *err)
{
	/* Most apps stand on the host's own; without it, nothing of it is made ahead. */
	cleanup_close int usr = open("/usr", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char group[SANDBOX_NAME_MAX + 1];

	shell_group(number, group);
	if (lock(s, number, err) < 0 || remove_old(group, err) < 0 || (*netns = netns_make(err)) < 0)
		return NULL;
	const struct sandbox_sources src = {.base_usr = usr, .idmap = true, .netns = *netns};
	return sandbox_shell_make(group, SANDBOX_APP, shell_ids(s, number), &src, err);
}

static bool hear_spec(int channel, struct sandbox_spec *spec, struct err *err)
{
	struct frame f;

	if (frame_recv(channel, &f) != 1)
		return false;
	struct reader r = reader_of(f.payload, f.len);
	bool ok = f.type == SHELL_SPEC && sandbox_spec_decode(&r, spec, err) == 0;
	explicit_bzero(f.payload, f.len);
	frame_release(&f);
	return ok;
}

static bool hear_start(int channel, struct start *st)
{
	struct instance *i = st->i;
	struct frame f;
	bool has[2];
	int at = FD_STDIO;

	if (frame_recv(channel, &f) != 1)
		return false;
	struct reader r = reader_of(f.payload, f.len);
	get_str(&r, i->s->skeleton, sizeof i->s->skeleton);
	i->info.log_budget = get_u64(&r);
	i->info.egress = get_u32(&r);
	has[0] = get_u8(&r);
	has[1] = get_u8(&r);
	bool ok = f.type == SHELL_START && get_ok(&r) && f.nfds == FD_STDIO + has[0] + has[1];
	if (ok) {
		i->fds[MONITOR_LOG] = frame_take_fd(&f, FD_LOG);
		i->fds[MONITOR_LOG_PIPE] = st->log_pipe[0] = frame_take_fd(&f, FD_PIPE_OUT);
		st->log_pipe[1] = frame_take_fd(&f, FD_PIPE_IN);
		i->fds[MONITOR_LISTENER] = frame_take_fd(&f, FD_LISTENER);
		i->fds[MONITOR_RECORD] = frame_take_fd(&f, FD_RECORD);
		for (int k = 0; k < 2; k++)
			st->stdio[k] = has[k] ? frame_take_fd(&f, at++) : -1;
	}
	frame_release(&f);
	return ok;
}

/* Until it is given to somebody; false: the spawner has gone, or wants no more of it, or it has died. */
static bool await_start(int channel, const struct sandbox_shell *shell, struct start *st)
{
	struct pollfd p[2] = {{.fd = channel, .events = POLLIN}, {.fd = sandbox_shell_pidfd(shell), .events = POLLIN}};
	struct err err = ERR_INIT;

	while (poll(p, 2, -1) < 0)
		;
	if (p[1].revents) {
		frame_send(channel, SHELL_DEAD, 0, NULL, 0, NULL, 0);
		log_warn("sandbox %u that was made ahead has died", st->i->info.shell);
		return false;
	}
	return hear_spec(channel, &st->spec, &err) && hear_start(channel, st);
}

/* A channel that ends is how the spawner hears that there is nothing left. */
_Noreturn static void wait_with(struct spawn *s, uint32_t number, int channel)
{
	struct instance i = {.s = s, .dir = -1, .info = {.shell = number}};
	struct start st = {.i = &i, .netns = -1, .channel = channel};
	struct err err = ERR_INIT;

	prctl(PR_SET_NAME, "spaced-shell", 0, 0, 0);
	signal(SIGCHLD, SIG_DFL);
	setsid(); /* as the monitor that it will be */
	for (int k = 0; k < MONITOR_NFDS; k++)
		i.fds[k] = -1;
	struct sandbox_shell *shell = make(s, number, &st.netns, &err);
	if (!shell) {
		log_warn("make a sandbox ahead: %s", err.msg);
		_exit(1);
	}
	if (frame_send(channel, SHELL_MADE, 0, NULL, 0, NULL, 0) == 0 && await_start(channel, shell, &st)) {
		st.src.shell = shell;
		start_run(&st);
	}
	sandbox_shell_free(shell);
	_exit(0);
}

/* -- the makers -------------------------------------------------------------------------------------------------------- */

struct maker {
	struct spawn *s;
	int requests;
	int other; /* pidfd of the other one, or -1: to be forked */
};

static void replace_other(struct maker *m)
{
	int self = pidfd_open(getpid(), 0);
	pid_t pid = self < 0 ? -1 : fork();

	if (pid == 0) {
		if (m->other >= 0)
			close(m->other);
		m->other = self;
		return;
	}
	if (m->other >= 0)
		log_warn("who makes sandboxes ahead was killed, replaced");
	if (m->other >= 0)
		close(m->other);
	if (self >= 0)
		close(self);
	m->other = pid < 0 ? -1 : pidfd_open(pid, 0);
}

/* One request, which the other one may have taken meanwhile. False: the spawner has gone. */
static bool serve(const struct maker *m)
{
	struct frame f;
	int r = frame_recv(m->requests, &f);

	if (r != 1)
		return r == -EAGAIN;
	int channel = frame_take_fd(&f, 0);
	uint32_t number = f.id;
	frame_release(&f);
	if (fork() == 0) {
		close(m->requests);
		if (m->other >= 0)
			close(m->other);
		wait_with(m->s, number, channel);
	}
	close(channel); /* the other end hears of a fork that failed */
	return true;
}

_Noreturn void shell_makers(struct spawn *s, int requests)
{
	struct maker m = {s, requests, -1};

	prctl(PR_SET_NAME, "spaced-shells", 0, 0, 0);
	io_set_nonblock(requests, true);
	for (;;) {
		if (m.other < 0)
			replace_other(&m);
		struct pollfd p[2] = {{.fd = requests, .events = POLLIN}, {.fd = m.other, .events = POLLIN}};
		if (poll(p, 2, m.other < 0 ? AGAIN_MS : -1) < 0)
			continue;
		if (p[0].revents && !serve(&m))
			_exit(0);
		if (p[1].revents)
			replace_other(&m);
	}
}
