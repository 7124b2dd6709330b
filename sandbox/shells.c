/* See shells.h. The spawner's side; the other one is shell_maker.c. */
#include "sandbox/shells.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/cgroup.h"
#include "sandbox/ids.h"
#include "sandbox/mnt_ops.h"
#include "sandbox/shell_maker.h"

#define END_MS 10000
#define IDS_END 0x80000000U /* hosts and containers have all ids below: ids.c */

/* A name that no sandbox has. */
void shell_group(uint32_t number, char out[SANDBOX_NAME_MAX + 1])
{
	snprintf(out, SANDBOX_NAME_MAX + 1, "shell.%u", number);
}

uint32_t shell_ids(const struct spawn *s, uint32_t number)
{
	return s->id_base + (SHELL_IDS_FROM + number) * SANDBOX_IDS;
}

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
		shell_makers(s, sv[1]);
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
		shell->s->shells_worked |= shell->state == SHELL_READY;
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
	uint32_t number =
	    shell->number; /* whose group is found again, should that of the one before have been killed */
	int sv[2];

	if (!is_free(s, number))
		for (number = 0; number < SHELL_NUMBERS && !is_free(s, number);)
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
		if (err.code == EPIPE) {
			close(steal_fd(&s->shell_maker));
			s->shells_lost = s->shells_worked;
		}
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
