/* spacectl exec's daily work: bytes between our stdin, stdout, stderr and the command's, in fixed buffers; signals and
 * terminal sizes; and the terminal put back as it was. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"
#include "base/io.h"
#include "sandbox/exec.h"
#include "spaced/cli/cli.h"

#define ROOM 65536
#define QUIET_MS 200 /* behind the end of a command: so long for a terminal's last bytes, when others keep it open */

/* One direction. The command's ends do not block; ours do, and are shared with whoever started us: they are asked by poll
 * first, and given no more than what a pipe then takes without waiting. */
struct flow {
	int from, to;
	bool ours; /* `to` is */
	bool done;
	size_t rest;		 /* so many bytes are still read: all, until the command has ended */
	struct harmless *filter; /* `to` is a terminal of ours that the command may not control */
	size_t at, len;
	char data[ROOM + HARMLESS_MORE];
};

/* ---- the terminal ---- */

static struct termios before;
static bool raw;

static void terminal_restore(void)
{
	if (raw)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	raw = false;
}

static void terminal_raw(void)
{
	struct termios t;

	if (!raw && tcgetattr(STDIN_FILENO, &before) < 0)
		return;
	t = before;
	cfmakeraw(&t);
	if (!raw)
		atexit(terminal_restore);
	raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &t) == 0;
}

static void terminal_size(int master)
{
	struct winsize size;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
		ioctl(master, TIOCSWINSZ, &size);
}

/* ---- bytes ---- */

static void flow_close(struct flow *f)
{
	f->done = true;
	f->at = f->len = 0;
}

static void flow_read(struct flow *f)
{
	static char chunk[ROOM];
	ssize_t n = read(f->from, f->filter ? chunk : f->data, f->rest < ROOM ? f->rest : ROOM);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) { /* EIO: nobody has the other end of the terminal open */
		f->done = true;
		return;
	}
	f->rest -= (size_t)n;
	f->done = f->rest == 0;
	f->at = 0;
	f->len = f->filter ? make_harmless(f->filter, chunk, (size_t)n, f->data) : (size_t)n;
}

static void flow_write(struct flow *f)
{
	size_t n = f->len - f->at;
	ssize_t sent = write(f->to, f->data + f->at, f->ours && n > PIPE_BUF ? PIPE_BUF : n);

	if (sent < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (sent < 0) { /* nobody reads it any more */
		flow_close(f);
		return;
	}
	f->at += (size_t)sent;
	if (f->at == f->len)
		f->at = f->len = 0;
}

/* What to wait for. A flow is done when it has read its last and written it. */
static struct pollfd flow_wants(const struct flow *f)
{
	if (f->len)
		return (struct pollfd){f->to, POLLOUT, 0};
	return (struct pollfd){f->done ? -1 : f->from, POLLIN, 0};
}

static void flow_go(struct flow *f, const struct pollfd *p)
{
	if (p->fd < 0 || !p->revents)
		return;
	if (f->len)
		flow_write(f);
	else
		flow_read(f);
}

/* ---- the whole ---- */

enum { IN, OUT, ERR, FLOWS, CONTROL = FLOWS, SIGNALS, POLLS };

struct session {
	struct relay *r;
	struct flow flows[FLOWS];
	bool tty;
	bool ended; /* the command has */
	int status;
};

static void tell_signal(struct session *s, uint32_t signo)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, signo);
	frame_send(s->r->control, EXEC_SIGNAL, 0, b.data, b.len, NULL, 0);
}

static void on_signal(struct session *s, int fd)
{
	struct signalfd_siginfo si;

	if (read(fd, &si, sizeof si) != (ssize_t)sizeof si)
		return;
	switch (si.ssi_signo) {
	case SIGWINCH:
		if (s->tty)
			terminal_size(s->r->in);
		break;
	case SIGCONT: /* somebody had stopped us, and the shell had its terminal back */
		if (s->tty) {
			terminal_raw();
			terminal_size(s->r->in);
		}
		break;
	case SIGINT:
	case SIGQUIT:
	case SIGUSR1:
	case SIGUSR2:
		tell_signal(s, si.ssi_signo);
		break;
	case SIGTERM:
		if (!s->tty) { /* as if the command had been started here */
			tell_signal(s, si.ssi_signo);
			break;
		} /* fall through */
	default:  /* we are to go, and the daemon ends the command */
		s->ended = true;
		s->status = 128 + (int)si.ssi_signo;
		for (int i = 0; i < FLOWS; i++)
			flow_close(&s->flows[i]);
	}
}

/* The command has ended: what it has written is in the pipe by now, and is all that is still read. Others inside may hold
 * the other end, and write without end. Of a terminal, the kernel keeps no more than ROOM. */
static void read_no_more(struct session *s)
{
	for (int i = OUT; i <= ERR; i++) {
		struct flow *f = &s->flows[i];
		int there = 0;

		if (f->done)
			continue;
		f->rest = s->tty ? ROOM : ioctl(f->from, FIONREAD, &there) == 0 ? (size_t)there : 0;
		f->done = f->rest == 0;
	}
}

static void on_control(struct session *s)
{
	struct frame f;
	int rc = frame_recv(s->r->control, &f);
	char why[200] = "the daemon has ended, and with it the command";

	if (rc == -EAGAIN)
		return;
	s->ended = true;
	s->status = EXEC_CANNOT;
	read_no_more(s);
	if (rc == 1) {
		struct reader r = reader_of(f.payload, f.len);
		int status = (int)get_u32(&r);
		if (f.type == EXEC_ENDED && get_str(&r, why, sizeof why) && get_ok(&r))
			s->status = status;
		frame_release(&f);
	}
	if (*why) {
		terminal_restore();
		complain("%s", why);
	}
}

/* The command's stdin ends when ours does; and its writers are told when nobody reads. */
static void close_ends(struct session *s)
{
	int *ends[FLOWS] = {&s->r->in, &s->r->out, &s->r->err};

	if (s->tty)
		return;
	for (int i = 0; i < FLOWS; i++)
		if (s->flows[i].done && !s->flows[i].len && *ends[i] >= 0) {
			close(*ends[i]);
			*ends[i] = -1;
		}
}

/* Behind the end of the command only what it has written is carried on, not what others inside may still write. */
static bool over(const struct session *s, const struct pollfd *p, int ready)
{
	if (!s->ended)
		return false;
	for (int i = OUT; i <= ERR; i++)
		if (s->flows[i].len || (!s->flows[i].done && (ready < 0 || p[i].revents)))
			return false;
	return true;
}

static void carry(struct session *s, int signals)
{
	struct pollfd p[POLLS];
	int ready = -1;

	do {
		for (int i = 0; i < FLOWS; i++)
			p[i] = flow_wants(&s->flows[i]);
		if (s->ended)
			p[IN].fd = -1;
		p[CONTROL] = (struct pollfd){s->ended ? -1 : s->r->control, POLLIN, 0};
		p[SIGNALS] = (struct pollfd){signals, POLLIN, 0};
		bool waits = s->flows[OUT].len || s->flows[ERR].len;
		ready = poll(p, POLLS, !s->ended || waits ? -1 : s->tty ? QUIET_MS : 0);
		if (ready < 0)
			continue;
		if (p[SIGNALS].revents)
			on_signal(s, signals);
		for (int i = 0; i < FLOWS; i++)
			flow_go(&s->flows[i], &p[i]);
		close_ends(s);
		if (p[CONTROL].revents) {
			on_control(s);
			ready = -1;
		}
	} while (!over(s, p, ready));
}

static int take_signals(bool tty)
{
	static const int with_terminal[] = {SIGWINCH, SIGCONT, SIGTERM, SIGHUP, SIGINT, SIGQUIT, 0};
	static const int without[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, 0};
	sigset_t set;

	sigemptyset(&set);
	for (const int *s = tty ? with_terminal : without; *s; s++)
		sigaddset(&set, *s);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (tty)
		signal(SIGTSTP, SIG_IGN); /* ours; the key goes to the command */
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void set_flow(struct flow *f, int from, int to, bool ours, struct harmless *filter)
{
	f->from = from;
	f->to = to;
	f->ours = ours;
	f->done = from < 0;
	f->rest = SIZE_MAX;
	f->filter = filter;
}

int relay_run(struct relay *r)
{
	static struct session s;
	static struct harmless filters[2];
	int *ends[] = {&r->in, &r->out, &r->err};

	s = (struct session){.r = r, .tty = r->out < 0, .status = EXEC_CANNOT};
	cleanup_close int signals = take_signals(s.tty);
	for (size_t i = 0; i < 3; i++)
		if (*ends[i] >= 0)
			io_set_nonblock(*ends[i], true);
	io_set_nonblock(r->control, true);
	set_flow(&s.flows[IN], STDIN_FILENO, r->in, false, NULL);
	if (s.tty) {
		set_flow(&s.flows[OUT], r->in, STDOUT_FILENO, true, NULL);
		set_flow(&s.flows[ERR], -1, -1, false, NULL);
		terminal_raw();
		terminal_size(r->in); /* it may have changed meanwhile */
	} else {
		set_flow(&s.flows[OUT], r->out, STDOUT_FILENO, true, isatty(STDOUT_FILENO) ? &filters[0] : NULL);
		set_flow(&s.flows[ERR], r->err, STDERR_FILENO, true, isatty(STDERR_FILENO) ? &filters[1] : NULL);
	}
	carry(&s, signals);
	terminal_restore();
	for (size_t i = 0; i < 3; i++)
		if (*ends[i] >= 0)
			close(*ends[i]);
	return s.status;
}
