/* spacectl exec: asks the daemon for a command inside a running app. The daemon hands over the command's terminal or pipes,
 * and relay.c does the rest: ours never get near the app. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/exec.h"
#include "spaced/cli/cli.h"

#define HEAD_MAX 8192
#define MOST_FDS 4

struct answer {
	struct buf text; /* head, and for an error the body */
	int fds[MOST_FDS];
	int nfds;
};

static void answer_release(struct answer *a)
{
	for (int i = 0; i < a->nfds; i++)
		if (a->fds[i] >= 0)
			close(a->fds[i]);
	buf_release(&a->text);
}

static void take_fds(struct msghdr *m, struct answer *a)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (a->nfds < MOST_FDS)
				a->fds[a->nfds++] = fd;
			else
				close(fd);
		}
	}
}

/* All that comes until the daemon closes: it does so behind its one answer. */
static int receive(int sock, struct answer *a)
{
	char chunk[4096];

	for (;;) {
		union {
			struct cmsghdr align;
			char space[CMSG_SPACE(sizeof(int) * MOST_FDS)];
		} ctl;
		struct iovec iov = {chunk, sizeof chunk};
		struct msghdr m = {
		    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.space, .msg_controllen = sizeof ctl.space};
		ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		take_fds(&m, a);
		if (n == 0)
			return 0;
		if (a->text.len + (size_t)n > HEAD_MAX)
			return -EMSGSIZE;
		buf_add(&a->text, chunk, (size_t)n);
	}
}

static int send_request(int sock, const char *path, json_t *body)
{
	cleanup_free char *text = json_dumps(body, JSON_COMPACT);
	cleanup_buf struct buf b = BUF_INIT;

	if (!text)
		return -EILSEQ;
	buf_addf(&b,
		 "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade\r\nUpgrade: spaced-exec\r\n"
		 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		 path, strlen(text), text);
	return io_write_full(sock, b.data, b.len);
}

/* The daemon's words for a failure. */
static void refused(const struct answer *a)
{
	const char *body = a->text.data ? strstr(a->text.data, "\r\n\r\n") : NULL;
	json_t *j = body ? json_loads(body + 4, 0, NULL) : NULL;
	const char *why = json_string_value(json_object_get(j, "error"));

	complain("%s", why ? why : "the daemon has ended the connection");
	json_decref(j);
}

static json_t *request_of(struct cli *c)
{
	static char shell[] = "if [ -x /bin/bash ]; then exec /bin/bash -l; fi; exec /bin/sh -l", sh[] = "/bin/sh",
		    script[] = "-c";
	static char *login[] = {sh, script, shell, NULL};
	json_t *argv = json_array();
	struct winsize size = {0};
	const char *term = getenv("TERM");

	for (char **a = c->command && *c->command ? c->command : login; *a; a++)
		if (json_array_append_new(argv, json_string(*a)) < 0) {
			json_decref(argv);
			return NULL;
		}
	json_t *j = json_pack("{s:o, s:b}", "argv", argv, "tty", c->tty);
	if (c->folder)
		json_object_set_new(j, "cwd", json_string(c->folder));
	if (!c->tty)
		return j;
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
		json_object_set_new(j, "rows", json_integer(size.ws_row));
		json_object_set_new(j, "cols", json_integer(size.ws_col));
	}
	json_object_set_new(j, "term", json_string(term && *term ? term : "dumb"));
	return j;
}

static int run(struct cli *c, const struct answer *a)
{
	struct relay r = {a->fds[0], a->fds[1], -1, -1};

	if (!c->tty) {
		r.out = a->fds[2];
		r.err = a->fds[3];
	}
	return relay_run(&r);
}

static int exec(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/exec");
	cleanup_with(answer_release) struct answer a = {0};

	if (!path)
		return CLI_USAGE;
	if (!c->command && !isatty(STDIN_FILENO)) {
		complain("which command? (`spacectl exec %s -- COMMAND`; a shell starts when stdin is a terminal)",
			 c->word[0]);
		return CLI_USAGE;
	}
	c->tty |= !c->command;
	json_t *body = request_of(c);
	if (!body) {
		complain("the command is not UTF-8");
		return EXEC_CANNOT;
	}
	cleanup_close int sock = client_connect(c);
	int rc = sock < 0 ? 0 : send_request(sock, path, body);
	json_decref(body);
	if (sock < 0)
		return EXEC_CANNOT;
	if (rc < 0 || (rc = receive(sock, &a)) < 0) {
		complain("the daemon in `%s`: %s", c->state, strerror(-rc));
		return EXEC_CANNOT;
	}
	if (a.nfds != 1 + exec_ends(c->tty) || strncmp(a.text.data, "HTTP/1.1 101 ", 13) != 0) {
		refused(&a);
		return EXEC_CANNOT;
	}
	rc = run(c, &a);
	a.nfds = 1; /* the others were taken over */
	return rc;
}

const struct verb exec_verbs[] = {
    {"exec", NULL, "OWNER/NAME", 1, 1, "command tty cwd",
     "run a command inside the running app\n\n"
     "It runs beside the app with all its walls, limits and environment, and ends with it. Without a command: a shell\n"
     "in a terminal of the sandbox's own. Exit status: the command's; 128+N when signal N ended it; 127 not found, "
     "126\n"
     "cannot be executed, 125 it could not be started or the daemon ended.",
     exec},
    {0},
};
