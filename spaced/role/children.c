/* The roles: started with their descriptors, watched, started again when they die. See parent_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "proxy/route.h"
#include "spaced/role/parent_int.h"

#define RESTART_FLOOR_MS 100	/* between two starts of the same role */
#define RESTART_CEILING_MS 5000 /* when it dies again and again */

const char *const role_names[ROLES] = {"spawner", "control", "static", "proxy"};

/* In the child: puts fds[i] at ROLE_FD_PARENT + i and becomes the role. Only async-signal-safe calls. */
static void become(const struct parent *p, enum role role, const int *fds, size_t n)
{
	static char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
				    NULL};
	char *keep[16];
	size_t k = 0;
	int high[8];

	setsid(); /* a Ctrl-C on the terminal is the parent's to handle */
	sigprocmask(SIG_SETMASK, &p->inherited, NULL);
	for (size_t i = 0; i < n; i++)
		if ((high[i] = fcntl(fds[i], F_DUPFD, 64)) < 0)
			_exit(126);
	for (size_t i = 0; i < n; i++)
		if (dup2(high[i], ROLE_FD_PARENT + (int)i) < 0)
			_exit(126);
	close_range(ROLE_FD_PARENT + (unsigned)n, ~0U, 0);
	for (size_t i = 0; env[i]; i++)
		keep[k++] = env[i];
	extern char **environ;
	for (char **e = environ; *e && k < 15; e++)
		if (strncmp(*e, "SPACED_", 7) == 0 || strncmp(*e, "ASAN_OPTIONS=", 13) == 0 ||
		    strncmp(*e, "LSAN_OPTIONS=", 13) == 0 || strncmp(*e, "UBSAN_OPTIONS=", 14) == 0)
			keep[k++] = *e;
	keep[k] = NULL;
	char *argv[] = {"spaced", "--role", (char *)(uintptr_t)role_names[role], NULL};
	execve("/proc/self/exe", argv, keep);
	_exit(127);
}

static void start(struct parent *p, struct child *c, const int *extra, size_t nextra)
{
	int link[2];
	int fds[8];
	size_t n = 0;

	c->started = io_now_ms();
	if (frame_pair(link) < 0) {
		log_error("no socket pair for %s", role_names[c->role]);
		c->due = c->started + RESTART_CEILING_MS;
		return;
	}
	fds[n++] = link[1];
	fds[n++] = p->config_fd;
	for (size_t i = 0; i < nextra; i++)
		fds[n++] = extra[i];
	pid_t pid = fork();
	if (pid == 0)
		become(p, c->role, fds, n);
	close(link[1]);
	if (pid < 0) {
		log_error("fork for %s: %s", role_names[c->role], strerror(errno));
		close(link[0]);
		c->due = c->started + RESTART_CEILING_MS;
		return;
	}
	*c = (struct child){.role = c->role, .pid = pid, .started = c->started, .delay = c->delay};
	child_link(c, link[0]);
	log_info("%s started, pid %d", role_names[c->role], (int)pid);
}

struct child *child_of(struct parent *p, enum role role)
{
	for (size_t i = 0; i < p->nchildren; i++)
		if (p->children[i].role == role)
			return &p->children[i];
	abort(); /* the table has every role */
}

struct child *children_next(struct parent *p, size_t *at)
{
	while (*at < p->nchildren + MAX_LEAVING) {
		size_t i = (*at)++;
		struct child *c = i < p->nchildren ? &p->children[i] : &p->leaving[i - p->nchildren];
		if (c->pid)
			return c;
	}
	return NULL;
}

void children_init(struct parent *p)
{
	for (enum role r = ROLE_SPAWNER; r <= ROLE_PROXY; r++)
		for (uint32_t i = 0; i < (r == ROLE_PROXY ? p->config->proxies : 1); i++)
			p->children[p->nchildren++] = (struct child){.role = r, .link = -1};
	for (size_t i = 0; i < MAX_LEAVING; i++)
		p->leaving[i].link = -1;
}

void child_link(struct child *c, int link)
{
	c->link = link;
	io_set_nonblock(link, true);
}

/* Nothing of a role makes the parent wait. One that has left so much unread is stuck, or no more what it was; what it has missed
 * nobody says again, so it is started anew. */
static void tell(struct child *c, uint32_t type, uint32_t id, const struct buf *b, const int *fds, int nfds)
{
	int r = c->link < 0 ? 0 : frame_send(c->link, type, id, b ? b->data : NULL, b ? b->len : 0, fds, nfds);

	if (r < 0)
		log_warn("%s (pid %d) does not listen: %s", role_names[c->role], (int)c->pid, strerror(-r));
	if (frame_again(r) && c->pid > 0)
		kill(c->pid, SIGKILL);
}

void child_shutdown(struct child *c, enum link_shutdown how, uint32_t ms)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u8(&b, (uint8_t)how);
	put_u32(&b, ms);
	tell(c, LINK_SHUTDOWN, 0, &b, NULL, 0);
}

void child_retire(struct child *c, uint32_t ms)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, ms);
	tell(c, PROXY_RETIRE, 0, &b, NULL, 0);
}

void child_send_fd(struct child *c, uint32_t type, int fd)
{
	tell(c, type, 0, NULL, &fd, 1);
}

struct child *child_leaving(struct parent *p)
{
	for (size_t i = 0; i < MAX_LEAVING; i++)
		if (!p->leaving[i].pid)
			return &p->leaving[i];
	return NULL;
}

static void start_spawner(struct parent *p)
{
	int pair[2];

	if (frame_pair(pair) < 0) {
		child_of(p, ROLE_SPAWNER)->due = io_now_ms() + RESTART_CEILING_MS;
		return;
	}
	start(p, child_of(p, ROLE_SPAWNER), &pair[1], 1);
	child_send_fd(child_of(p, ROLE_CONTROL), LINK_SPAWNER, pair[0]);
	close(pair[0]);
	close(pair[1]);
}

/* A control that is about to make way is told of no proxy any more: they meet the next one. */
static bool control_stays(struct parent *p)
{
	struct child *control = child_of(p, ROLE_CONTROL);

	return control->pid && !control->retiring;
}

static void tell_control_of(struct parent *p, const struct child *c, int channel)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, (uint32_t)c->pid);
	tell(child_of(p, ROLE_CONTROL), LINK_PROXY, 0, &b, &channel, 1);
}

/* A fresh channel between control and a proxy that runs. */
static void join(struct parent *p, struct child *c)
{
	int pair[2];

	if (frame_pair(pair) < 0)
		return;
	child_send_fd(c, PROXY_NEW_CONTROL, pair[1]);
	tell_control_of(p, c, pair[0]);
	close(pair[0]);
	close(pair[1]);
}

static void start_proxy(struct parent *p, struct child *c)
{
	int pair[2];

	if (frame_pair(pair) < 0) {
		c->due = io_now_ms() + RESTART_CEILING_MS;
		return;
	}
	int extra[3] = {p->public_listener, pair[1], p->rates_fd};
	start(p, c, extra, 3);
	if (control_stays(p))
		tell_control_of(p, c, pair[0]);
	close(pair[0]);
	close(pair[1]);
}

static void start_control(struct parent *p)
{
	int extra[2] = {p->http_listener, p->admin_listener};
	struct child *c;
	size_t at = 0;

	start(p, child_of(p, ROLE_CONTROL), extra, 2);
	while ((c = children_next(p, &at)) != NULL)
		if (c->role == ROLE_PROXY)
			join(p, c);
}

static void start_child(struct parent *p, struct child *c)
{
	switch (c->role) {
	case ROLE_SPAWNER:
		start_spawner(p);
		break;
	case ROLE_CONTROL:
		start_control(p);
		break;
	case ROLE_STATIC:
		start(p, c, &p->static_listener, 1);
		break;
	case ROLE_PROXY:
		start_proxy(p, c);
		break;
	}
}

/* Control's end takes the spawner along (its channel closes), and a new control gets a new spawner: order matters. */
static void start_due(struct parent *p, uint64_t now)
{
	struct child *control = child_of(p, ROLE_CONTROL);
	struct child *spawner = child_of(p, ROLE_SPAWNER);

	if (!control->pid && spawner->pid && now > control->due + 2000)
		kill(spawner->pid, SIGKILL); /* it has not noticed; what it started lives on with its monitors */
	if (!control->pid && !spawner->pid && control->due <= now)
		start_control(p);
	if (control_stays(p) && !spawner->pid && spawner->due <= now)
		start_spawner(p);
	for (size_t i = 0; i < p->nchildren; i++) {
		struct child *c = &p->children[i];
		if (c != control && c != spawner && !c->pid && c->due <= now)
			start_child(p, c);
	}
}

/* When one that ended, or is replaced, may be started again: the later, the sooner that came. */
static void set_due(struct child *c, uint64_t now, bool meant)
{
	c->delay = now - c->started > 10000 ? RESTART_FLOOR_MS : c->delay * 2 + (c->delay ? 0 : RESTART_FLOOR_MS);
	if (c->delay > RESTART_CEILING_MS)
		c->delay = RESTART_CEILING_MS;
	c->due = now + (c->delay > RESTART_FLOOR_MS && !meant ? c->delay : 0);
}

/* Control and this proxy have closed the channel between them: its routes would stay as they are. Another one starts, which
 * gets all of them, and this one makes way as at an upgrade; for what it holds until then it gets one more channel. One that
 * serves nobody yet, or has no place to go, just ends. */
static void replace(struct parent *p, struct child *c, uint64_t now)
{
	struct child *old = child_leaving(p);

	c->replace = false;
	if (!old || !c->ready) {
		kill(c->pid, SIGKILL);
		return;
	}
	*old = *c;
	old->retiring = true;
	*c = (struct child){.role = ROLE_PROXY, .link = -1, .started = old->started, .delay = old->delay};
	set_due(c, now, false);
	p->replacing = true;
	log_warn("proxy (pid %d) and control do not understand each other: another one takes its place", (int)old->pid);
	if (control_stays(p))
		join(p, old);
}

static void replace_all(struct parent *p, uint64_t now)
{
	for (size_t i = 0; i < p->nchildren; i++)
		if (p->children[i].pid && p->children[i].replace)
			replace(p, &p->children[i], now);
}

bool children_serve(const struct parent *p)
{
	for (size_t i = 0; i < p->nchildren; i++)
		if (p->children[i].role == ROLE_PROXY && !p->children[i].ready)
			return false;
	return true;
}

/* Those of before accept until all new ones do. */
static void let_go(struct parent *p, uint64_t now)
{
	uint32_t ms = p->config->drain_timeout_s * 1000;

	for (size_t i = 0; i < MAX_LEAVING; i++) {
		struct child *c = &p->leaving[i];
		if (!c->pid || c->role != ROLE_PROXY)
			continue;
		child_retire(c, ms);
		if (!c->kill_at)
			c->kill_at = now + ms + STOP_MS;
	}
	p->replacing = false;
	log_info("the new proxies serve; those of before have %u s for what is under way", p->config->drain_timeout_s);
}

void children_tick(struct parent *p)
{
	uint64_t now = io_now_ms();
	struct child *c;
	size_t at = 0;

	replace_all(p, now);
	start_due(p, now);
	if (p->replacing && children_serve(p))
		let_go(p, now);
	while ((c = children_next(p, &at)) != NULL)
		if (c->kill_at && now >= c->kill_at)
			kill(c->pid, SIGKILL);
}

static void ended(struct parent *p, struct child *c, int status, bool ending)
{
	uint64_t now = io_now_ms();
	int pid = (int)c->pid;
	bool meant = c->retiring;

	c->pid = 0;
	close(c->link);
	c->link = -1;
	c->retiring = false;
	c->kill_at = 0;
	c->replace = false;
	set_due(c, now, meant);
	if (ending)
		return;
	if (meant)
		log_info("%s (pid %d) has ended, another one has its place", role_names[c->role], pid);
	else if (WIFEXITED(status) && WEXITSTATUS(status) == ROLE_GIVES_UP)
		p->given_up = true;
	else if (WIFSIGNALED(status))
		log_error("%s (pid %d) was killed by signal %d; it is started again", role_names[c->role], pid,
			  WTERMSIG(status));
	else
		log_warn("%s (pid %d) ended with status %d; it is started again", role_names[c->role], pid,
			 WEXITSTATUS(status));
}

void children_reap(struct parent *p, bool ending)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct child *c;
		size_t at = 0;
		while ((c = children_next(p, &at)) != NULL && c->pid != pid)
			;
		if (!c) {
			upgrade_reaped(p, pid, status);
			continue;
		}
		ended(p, c, status, ending);
	}
}

/* ---- what roles say ---- */

void control_answer(struct parent *p, uint32_t id, bool done, const char *text)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u8(&b, done);
	put_str(&b, text);
	tell(child_of(p, ROLE_CONTROL), LINK_ANSWER, id, &b, NULL, 0);
}

/* One that has left, or died, has no place any more for another to take. */
static void replace_later(struct parent *p, const struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	uint32_t proxy = get_u32(&r);

	for (size_t i = 0; i < p->nchildren && get_ok(&r); i++)
		if (p->children[i].role == ROLE_PROXY && (uint32_t)p->children[i].pid == proxy)
			p->children[i].replace = true;
}

static void control_says(struct parent *p, const struct frame *f)
{
	cleanup_buf struct buf said = BUF_INIT;

	if (f->type == LINK_RELOAD) {
		bool done = reload(p, &said);
		control_answer(p, f->id, done, said.data);
	} else if (f->type == LINK_UPGRADE && f->id) {
		upgrade_begin(p, f->id);
	} else if (f->type == LINK_REPLACE) {
		replace_later(p, f);
	}
}

static void take_frame(struct parent *p, struct child *c)
{
	struct frame f;

	int r = frame_recv(c->link, &f);
	if (r != 1) {
		c->mute = r != -EAGAIN;
		return;
	}
	if (c->role == ROLE_CONTROL)
		control_says(p, &f);
	else if (c->role == ROLE_PROXY && f.type == PROXY_READY)
		c->ready = true;
	else if (c->role == ROLE_PROXY && f.type == PROXY_LOST)
		c->replace = true;
	frame_release(&f);
}

int children_wait(struct parent *p, int ms)
{
	struct pollfd fds[1 + 3 + CONFIG_PROXIES_MAX + MAX_LEAVING] = {{.fd = p->signals, .events = POLLIN}};
	struct child *who[sizeof fds / sizeof *fds], *c;
	struct signalfd_siginfo si;
	size_t n = 1, at = 0;

	while ((c = children_next(p, &at)) != NULL)
		if (!c->mute && c->link >= 0) {
			who[n] = c;
			fds[n++] = (struct pollfd){.fd = c->link, .events = POLLIN};
		}
	if (poll(fds, n, ms) <= 0)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (fds[i].revents)
			take_frame(p, who[i]);
	return fds[0].revents && read(p->signals, &si, sizeof si) == sizeof si ? (int)si.ssi_signo : 0;
}
