/* See shells.h. First the processes that make shells and wait with them, then the spawner's side. */
#include "sandbox/shells.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/cgroup.h"
#include "sandbox/ids.h"
#include "sandbox/mnt_ops.h"

#define END_MS 10000
#define KILL_MS 5000
#define IDS_END 0x80000000U /* hosts and containers have all ids below: ids.c */

enum {
	SHELL_MAKE = 1, /* to the maker: {}, id: the number; fd: the channel */
	SHELL_MADE,	/* on the channel, to the spawner: {} */
	SHELL_DEAD,	/* the same: {}, not to be given to anybody; what is left of it is removed now */
	SHELL_SPEC,	/* from it: {spec} */
	SHELL_START,	/* then: {str skeleton, u64 log budget, u32 egress, u8 has_stdin, u8 has_stdout}
			   fds: log, log pipe (both ends), listener, record, [stdin], [stdout] */
};
enum { FD_LOG, FD_PIPE_OUT, FD_PIPE_IN, FD_LISTENER, FD_RECORD, FD_STDIO };

/* A name that no sandbox has. */
void shell_group(uint32_t number, char out[SANDBOX_NAME_MAX + 1])
{
	snprintf(out, SANDBOX_NAME_MAX + 1, "shell.%u", number);
}

uint32_t shell_ids(const struct spawn *s, uint32_t number)
{
	return s->id_base + (SHELL_IDS_FROM + number) * SANDBOX_IDS;
}

/* -- who waits with a shell ------------------------------------------------------------------------------------------- */

/* Held by this process and what it forks, for the number's byte of the file: the descriptor stays open. fcntl(2), "Open file
 * description locks". */
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
	char group[SANDBOX_NAME_MAX + 1];

	shell_group(number, group);
	if (lock(s, number, err) < 0 || remove_old(group, err) < 0 || (*netns = netns_make(err)) < 0)
		return NULL;
	return sandbox_shell_make(group, shell_ids(s, number), *netns, err);
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

_Noreturn static void maker(struct spawn *s, int requests)
{
	struct frame f;

	prctl(PR_SET_NAME, "spaced-shells", 0, 0, 0);
	while (frame_recv(requests, &f) == 1) {
		int channel = frame_take_fd(&f, 0);
		uint32_t number = f.id;

		frame_release(&f);
		if (fork() == 0) {
			close(requests);
			wait_with(s, number, channel);
		}
		close(channel); /* the other end hears of a fork that failed */
	}
	_exit(0);
}

/* -- in the spawner ----------------------------------------------------------------------------------------------------- */

int shells_init(struct spawn *s, int control, struct err *err)
{
	const char *force = getenv("SPACED_FORCE");
	int sv[2];

	for (size_t k = 0; k < SHELLS; k++)
		s->shells[k] = (struct shell){.src.fd = -1, .s = s};
	if (force && strstr(force, "pool_none"))
		return 0;
	if (!ids_host_root() || !mnt_host()->detached || cgroup_host()->kind == CGROUP_NONE ||
	    s->id_base > IDS_END - (SHELL_IDS_FROM + SHELL_NUMBERS) * SANDBOX_IDS)
		return 0;
	int r = frame_pair(sv);
	if (r < 0)
		return err_set(err, -r, "socket pair");
	pid_t pid = fork();
	if (pid == 0) {
		close(sv[0]);
		close(control);
		close(s->epfd);
		maker(s, sv[1]);
	}
	int code = errno;
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return err_set(err, code, "fork");
	}
	io_set_nonblock(sv[0], true);
	s->shell_maker = sv[0];
	return 0;
}

static void forget(struct shell *shell)
{
	spawn_unwatch(shell->s, &shell->src);
	shell->src.fd = -1;
}

static void shell_ready(struct source *src, uint32_t events)
{
	struct shell *shell = container_of(src, struct shell, src);
	struct frame f;
	int r = frame_recv(src->fd, &f);

	if (r == -EAGAIN)
		return;
	if (r == 1) {
		if (f.type == SHELL_MADE && shell->state == SHELL_MAKING)
			shell->state = SHELL_READY;
		else if (f.type == SHELL_DEAD)
			shell->state = SHELL_ENDING;
		frame_release(&f);
		return;
	}
	int fd = src->fd;
	forget(shell);
	close(fd);
}

static bool is_free(struct spawn *s, uint32_t number)
{
	struct instance *i, *tmp;

	for (size_t k = 0; k < SHELLS; k++)
		if (s->shells[k].src.fd >= 0 && s->shells[k].number == number)
			return false;
	HASH_ITER(hh, s->instances, i, tmp)
	if (i->state != EXITED && i->info.shell == number)
		return false;
	return true;
}

static int ask_for(struct spawn *s, struct shell *shell, struct err *err)
{
	uint32_t number = 0;
	int sv[2];

	while (number < SHELL_NUMBERS && !is_free(s, number))
		number++;
	if (number == SHELL_NUMBERS)
		return 0;
	int r = frame_pair(sv);
	if (r < 0)
		return err_set(err, -r, "socket pair");
	io_set_nonblock(sv[0], true);
	*shell = (struct shell){.src = {sv[0], shell_ready}, .s = s, .number = number, .state = SHELL_MAKING};
	r = frame_send(s->shell_maker, SHELL_MAKE, number, NULL, 0, &sv[1], 1);
	close(sv[1]);
	if (r == 0 && spawn_watch(s, &shell->src, EPOLLIN) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	close(sv[0]);
	shell->src.fd = -1;
	return err_set(err, -r, "who makes sandboxes ahead does not answer");
}

/* Without them, starts are as good and slower: nothing that goes wrong here is more than a word in the log. */
void shells_refill(struct spawn *s)
{
	for (size_t k = 0; k < SHELLS && s->shell_maker >= 0; k++) {
		struct err err = ERR_INIT;

		if (s->shells[k].src.fd >= 0 || ask_for(s, &s->shells[k], &err) == 0)
			continue;
		log_warn("%s", err.msg);
		if (err.code == EPIPE)
			close(steal_fd(&s->shell_maker));
	}
}

/* Builds bring their own top, and stay with what needs nothing but the host. */
struct shell *shells_take(struct spawn *s, const struct sandbox_spec *spec)
{
	for (size_t k = 0; k < SHELLS && spec->profile == SANDBOX_APP; k++) {
		struct shell *shell = &s->shells[k];

		if (shell->src.fd >= 0 && shell->state == SHELL_READY) {
			shell->state = SHELL_TAKEN;
			return shell;
		}
	}
	return NULL;
}

static int tell(int channel, const struct start *st)
{
	const struct instance *i = st->i;
	cleanup_buf struct buf spec = BUF_INIT, rest = BUF_INIT;
	int fds[FD_STDIO + 2] = {[FD_LOG] = i->fds[MONITOR_LOG],
				 [FD_PIPE_OUT] = st->log_pipe[0],
				 [FD_PIPE_IN] = st->log_pipe[1],
				 [FD_LISTENER] = i->fds[MONITOR_LISTENER],
				 [FD_RECORD] = i->fds[MONITOR_RECORD]};
	int n = FD_STDIO;

	sandbox_spec_encode(&st->spec, &spec);
	int r = frame_send(channel, SHELL_SPEC, 0, spec.data, spec.len, NULL, 0);
	explicit_bzero(spec.data, spec.len); /* secrets of the environment */
	put_str(&rest, i->s->skeleton);
	put_u64(&rest, i->info.log_budget);
	put_u32(&rest, i->info.egress);
	for (int k = 0; k < 2; k++) {
		put_u8(&rest, st->stdio[k] >= 0);
		if (st->stdio[k] >= 0)
			fds[n++] = st->stdio[k];
	}
	return r < 0 ? r : frame_send(channel, SHELL_START, 0, rest.data, rest.len, fds, n);
}

int shell_give(struct shell *shell, const struct start *st, struct err *err)
{
	int r = tell(shell->src.fd, st);

	if (r < 0)
		return err_set(err, -r, "start of %s: the sandbox that was made ahead is gone", st->i->info.name);
	int channel = shell->src.fd;
	forget(shell);
	instance_follow(st->i, channel);
	return 0;
}

void shell_end(struct shell *shell)
{
	shell->state = SHELL_ENDING;
	shutdown(shell->src.fd, SHUT_WR);
}

void shells_end(struct spawn *s)
{
	uint64_t until = io_now_ms() + END_MS, now;

	if (s->shell_maker >= 0)
		close(steal_fd(&s->shell_maker));
	for (size_t k = 0; k < SHELLS; k++)
		if (s->shells[k].src.fd >= 0)
			shell_end(&s->shells[k]);
	for (size_t k = 0; k < SHELLS; k++) {
		struct pollfd p = {.fd = s->shells[k].src.fd, .events = POLLIN};

		while (s->shells[k].src.fd >= 0 && (now = io_now_ms()) < until)
			if (poll(&p, 1, (int)(until - now)) == 1)
				shell_ready(&s->shells[k].src, 0);
	}
}
