/* Changes of a running daemon: its configuration (SIGHUP), its program (SIGUSR2). See parent_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/role/parent_int.h"
#include "spaced/role/state.h"
#include "spaced/store/store.h"

#define CHECK_MS 30000
#define CHECK_SAYS 4096
#define SCHEMA "SPACED_SCHEMA" /* tells the check which database the program uses that runs */

/* ---- the configuration ---- */

int parent_config_file(const struct config *c, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;
	cleanup_close int fd = memfd_create("spaced-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	config_print(c, &text);
	if (fd < 0 || io_write_full(fd, text.data, text.len) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return err_set(err, errno, "configuration for the roles");
	int high = fcntl(fd, F_DUPFD_CLOEXEC, HANDED_ABOVE);
	return high < 0 ? err_set(err, errno, "configuration for the roles") : high;
}

static void say_later(const struct parent *p, const struct config *fresh, enum config_change change, const char *how,
		      struct buf *said)
{
	cleanup_buf struct buf names = BUF_INIT;

	config_changes(&p->given, fresh, change, &names);
	if (names.len)
		buf_addf(said, "%sonly %s changes: %s", said->len ? "; " : "", how, names.data);
}

bool reload(struct parent *p, struct buf *said)
{
	struct config fresh;
	struct err err = ERR_INIT;
	cleanup_buf struct buf names = BUF_INIT;

	if (config_load(&fresh, p->argc, p->argv, &err) < 0) {
		buf_addf(said, "%s; the configuration stays as it is", err.msg);
		log_error("reload: %s", said->data);
		config_release(&fresh);
		return false;
	}
	config_changes(p->config, &fresh, CONFIG_AT_RELOAD, &names);
	config_adopt(p->config, &fresh);
	int file = parent_config_file(p->config, &err);
	if (file < 0) {
		config_adopt(p->config, &fresh);
		buf_addf(said, "%s; the configuration stays as it is", err.msg);
		log_error("reload: %s", said->data);
		config_release(&fresh);
		return false;
	}
	close(p->config_fd);
	p->config_fd = file;
	child_send_fd(child_of(p, ROLE_CONTROL), LINK_CONFIG, file);
	buf_addf(said, names.len ? "changed: %s" : "nothing changed%s", names.len ? names.data : "");
	say_later(p, &fresh, CONFIG_AT_UPGRADE, "an upgrade (SIGUSR2, spacectl upgrade)", said);
	say_later(p, &fresh, CONFIG_AT_START, "a new start", said);
	log_info("reload: %s", said->data);
	config_release(&fresh);
	return true;
}

/* ---- the program ---- */

static void refuse(struct parent *p, uint32_t asked_by, const char *why)
{
	log_error("upgrade: %s; all stays as it is", why);
	if (asked_by)
		control_answer(p, asked_by, false, why);
}

/* What must not be lost. The links say by their names whose they are: "proxy.1234". */
static void collect(struct parent *p, bool links, struct handed *h)
{
	struct child *c;
	size_t at = 0;

	h->n = 0;
	handed_add(h, "public", p->public_listener);
	handed_add(h, "http", p->http_listener);
	handed_add(h, "admin", p->admin_listener);
	handed_add(h, "static", p->static_listener);
	handed_add(h, "lock", p->lock);
	handed_add(h, HANDED_RATES, p->rates_fd);
	while (links && (c = children_next(p, &at)) != NULL) {
		char name[HANDED_NAME];
		snprintf(name, sizeof name, "%s.%d", role_names[c->role], (int)c->pid);
		handed_add(h, name, c->link);
	}
}

static void run_check(struct parent *p, int out)
{
	char **argv = xcalloc((size_t)p->argc + 2, sizeof *argv);
	struct err err = ERR_INIT;
	struct handed h;
	char schema[16];

	sigprocmask(SIG_SETMASK, &p->inherited, NULL);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	snprintf(schema, sizeof schema, "%u", store_schema());
	setenv(SCHEMA, schema, 1);
	memcpy(argv, p->argv, (size_t)p->argc * sizeof *argv);
	argv[p->argc] = (char[]){"--check"};
	collect(p, false, &h);
	handed_exec(&h, p->program, argv, &err);
	dprintf(STDERR_FILENO, "%s\n", err.msg);
	_exit(127);
}

static size_t leaving_room(const struct parent *p)
{
	size_t n = 0;

	for (size_t i = 0; i < MAX_LEAVING; i++)
		n += p->leaving[i].pid == 0;
	return n;
}

static void start_check(struct parent *p)
{
	uint32_t asked_by = p->check.asked_by;
	int out[2];

	p->check.waits = false;
	if (leaving_room(p) < p->nchildren) {
		refuse(p, asked_by,
		       "too many processes of earlier ones still finish what was under way; try again later");
		return;
	}
	if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0) {
		refuse(p, asked_by, strerror(errno));
		return;
	}
	pid_t pid = fork();
	if (pid == 0)
		run_check(p, out[1]);
	close(out[1]);
	if (pid < 0) {
		close(out[0]);
		refuse(p, asked_by, strerror(errno));
		return;
	}
	log_info("upgrade: asking %s whether it could start", p->program);
	p->check.pid = pid;
	p->check.out = out[0];
	p->check.until = io_now_ms() + CHECK_MS;
}

void upgrade_begin(struct parent *p, uint32_t asked_by)
{
	if (p->ending || p->check.pid || p->check.waits) {
		refuse(p, asked_by, p->ending ? "the daemon is ending" : "another one is under way");
		return;
	}
	p->check.asked_by = asked_by;
	p->check.waits = true;
	upgrade_tick(p);
}

/* The last line, which says why. */
static void check_said(struct parent *p, struct buf *said)
{
	char text[CHECK_SAYS];
	ssize_t n = read(p->check.out, text, sizeof text - 1);

	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n > 0 ? n : 0] = '\0';
	const char *line = strrchr(text, '\n');
	buf_adds(said, line ? line + 1 : text);
}

static void become_next(struct parent *p)
{
	struct err err = ERR_INIT;
	struct handed h;

	log_info("upgrade: this process becomes %s", p->program);
	if (p->check.asked_by)
		control_answer(p, p->check.asked_by, true, "");
	collect(p, true, &h);
	handed_exec(&h, p->program, p->argv, &err);
	log_error("upgrade: %s; all stays as it is", err.msg);
}

void upgrade_reaped(struct parent *p, pid_t pid, int status)
{
	cleanup_buf struct buf said = BUF_INIT;

	if (pid != p->check.pid)
		return;
	p->check.pid = 0;
	check_said(p, &said);
	close(p->check.out);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !p->ending) {
		become_next(p);
		return;
	}
	if (!said.len)
		buf_addf(&said, "%s did not say why it cannot start", p->program);
	refuse(p, p->check.asked_by, said.data);
}

void upgrade_tick(struct parent *p)
{
	if (p->check.waits && !p->replacing)
		start_check(p);
	if (p->check.pid && io_now_ms() >= p->check.until)
		kill(p->check.pid, SIGKILL);
}

/* ---- in the new program ---- */

/* "proxy.1234", if that is a child of ours that runs. */
static bool role_of(const char *name, enum role *role, pid_t *pid)
{
	for (int r = 0; r < ROLES; r++) {
		size_t n = strlen(role_names[r]);
		if (strncmp(name, role_names[r], n) != 0 || name[n] != '.')
			continue;
		char *end;
		long v = strtol(name + n + 1, &end, 10);
		*role = (enum role)r;
		*pid = (pid_t)v;
		return v > 0 && *end == '\0' && waitpid(*pid, NULL, WNOHANG) == 0;
	}
	return false;
}

static struct child *free_place(struct parent *p, enum role role)
{
	struct child *only = child_of(p, role);

	if (role == ROLE_SPAWNER || role == ROLE_CONTROL)
		return only->pid ? NULL : only;
	return child_leaving(p);
}

bool upgrade_adopt(struct parent *p, struct handed *h)
{
	uint32_t ms = p->config->drain_timeout_s * 1000;
	uint64_t now = io_now_ms();
	bool any = false;

	for (size_t i = 0; i < h->n; i++) {
		enum role role;
		pid_t pid;
		struct child *c = NULL;
		if (h->at[i].fd < 0)
			continue;
		if (role_of(h->at[i].name, &role, &pid))
			c = free_place(p, role);
		if (!c) {
			close(h->at[i].fd);
			continue;
		}
		*c = (struct child){.role = role, .pid = pid, .retiring = true, .ready = true};
		child_link(c, h->at[i].fd);
		h->at[i].fd = -1;
		any = true;
		p->replacing |= role == ROLE_PROXY;
		if (role == ROLE_CONTROL) {
			child_shutdown(c, SHUTDOWN_HAND_OVER, ms);
			c->kill_at = now + ms + STOP_MS;
		} else if (role == ROLE_STATIC) {
			kill(pid, SIGTERM); /* answers what it has; the next one takes what waits in its socket */
			c->kill_at = now + ms + STOP_MS;
		}
	}
	return any;
}

int parent_public_socket(struct handed *h)
{
	int fd = handed_take(h, "public");

	return fd < 0 && h->n == 1 ? handed_take(h, h->at[0].name) : fd;
}

/* An older program would find a database that it does not know, and end. */
static int check_schema(struct err *err)
{
	const char *text = getenv(SCHEMA);
	unsigned long used = text ? strtoul(text, NULL, 10) : 0;

	if (used <= store_schema())
		return 0;
	return err_set(
	    err, 0,
	    "the program that runs uses a database with schema %lu, this one knows only %u: install a newer one, or "
	    "stop the daemon and restore a backup",
	    used, store_schema());
}

int role_check(const struct config *config)
{
	struct err err = ERR_INIT;
	struct handed h;
	struct accounts a = role_accounts(config);

	int r = handed_receive(&h, &err);
	cleanup_close int public = r < 0 ? -1 : parent_public_socket(&h), lock = r < 0 ? -1 : handed_take(&h, "lock");
	if (r == 0 && public >= 0)
		r = state_check_listener(public, config->listen, &err);
	if (r == 0 && lock >= 0)
		r = state_check(config, &a, lock, &err);
	if (r == 0)
		r = check_schema(&err);
	if (r < 0)
		fprintf(stderr, "spaced: %s\n", err.msg);
	else
		puts("spaced " SPACED_VERSION ": it could start so");
	return r < 0;
}
