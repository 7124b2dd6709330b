/* See instance.h: what the spawner keeps on disk about its sandboxes, STATE/sandboxes/NAME/{info,init,monitor,exit,ended},
 * and how a new spawner takes over what runs. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/ids.h"
#include "sandbox/instance.h"
#include "sandbox/pidnote.h"

#define INFO_VERSION 2
#define INFO_NO_SHELLS 1 /* version of a spawner that had none; what it has started may still run */
#define INFO_MAX (64U * 1024)
#define ADOPT_MS 2000

struct instance *instance_new(struct spawn *s, const struct instance_info *info)
{
	struct instance *i = xcalloc(1, sizeof *i);

	i->s = s;
	i->info = *info;
	i->monitor.fd = i->exec.fd = i->freezing.events.fd = -1;
	for (int k = 0; k < MONITOR_NFDS; k++)
		i->fds[k] = -1;
	if (io_mkdir(s->sandboxes, info->name, 0700) < 0)
		log_error("make the folder of %s: %m", info->name);
	i->dir = openat(s->sandboxes, info->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	HASH_ADD_STR(s->instances, info.name, i);
	return i;
}

void instance_free(struct instance *i)
{
	HASH_DEL(i->s->instances, i);
	instance_limits_unwatch(i);
	if (i->freezing.events.fd >= 0) {
		spawn_unwatch(i->s, &i->freezing.events);
		close(i->freezing.events.fd);
	}
	if (i->has_group && i->group.v2_dir >= 0)
		close(i->group.v2_dir);
	if (i->monitor.fd >= 0) {
		spawn_unwatch(i->s, &i->monitor);
		close(i->monitor.fd);
	}
	instance_exec_detach(i);
	while (i->commands) {
		struct command *c = i->commands;
		i->commands = c->next;
		free(c);
	}
	for (int k = 0; k < MONITOR_NFDS; k++)
		if (i->fds[k] >= 0)
			close(i->fds[k]);
	if (i->dir >= 0)
		close(i->dir);
	free(i->stops);
	free(i);
}

void instance_remove(struct instance *i)
{
	struct spawn *s = i->s;
	cleanup_free char *name = xstrdup(i->info.name);

	instance_free(i);
	int r = io_remove_tree(s->sandboxes, name);
	if (r < 0)
		log_error("remove the folder of %s: %s", name, strerror(-r));
}

/* The socket's name by way of the folder's descriptor: a state folder may be deeper than sun_path is long. */
static void socket_name(const struct instance *i, struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/monitor", i->dir);
}

int instance_listen(struct instance *i, struct err *err)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	i->fds[MONITOR_LISTENER] = fd;
	i->fds[MONITOR_RECORD] = openat(i->dir, "exit", O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	socket_name(i, &a);
	if (i->fds[MONITOR_RECORD] < 0 || fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 8) < 0)
		return err_set(err, errno, "folder of %s", i->info.name);
	return 0;
}

/* -- info ------------------------------------------------------------------------------------------------------------ */

int info_write(int dir, const struct instance_info *info, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_u32(&b, INFO_VERSION);
	put_str(&b, info->name);
	put_u8(&b, info->build);
	put_u64(&b, info->started_wall);
	put_u64(&b, info->started);
	put_u64(&b, info->memory);
	put_u32(&b, info->timeout_s);
	put_u64(&b, info->log_budget);
	put_u32(&b, info->egress);
	put_u32(&b, info->shell);
	put_u32(&b, info->nuses);
	for (uint32_t k = 0; k < info->nuses; k++) {
		put_str(&b, info->uses[k].name);
		put_u8(&b, info->uses[k].write);
	}
	int r = io_write_file(dir, "info", b.data, b.len, 0600);
	return r < 0 ? err_set(err, -r, "note what %s is", info->name) : 0;
}

static bool info_read(int dir, const char *name, struct instance_info *info)
{
	cleanup_buf struct buf b = BUF_INIT;

	*info = (struct instance_info){0};
	if (io_read_file(dir, "info", INFO_MAX, &b) < 0)
		return false;
	struct reader r = reader_of(b.data, b.len);
	uint32_t version = get_u32(&r);
	if (version != INFO_VERSION && version != INFO_NO_SHELLS)
		return false;
	get_str(&r, info->name, sizeof info->name);
	info->build = get_u8(&r);
	info->started_wall = get_u64(&r);
	info->started = get_u64(&r);
	info->memory = get_u64(&r);
	info->timeout_s = get_u32(&r);
	info->log_budget = get_u64(&r);
	info->egress = get_u32(&r);
	info->shell = version == INFO_NO_SHELLS ? NO_SHELL : get_u32(&r);
	info->nuses = get_u32(&r);
	if (info->nuses > MAX_USES)
		return false;
	for (uint32_t k = 0; k < info->nuses; k++) {
		get_str(&r, info->uses[k].name, sizeof info->uses[k].name);
		info->uses[k].write = get_u8(&r);
	}
	return get_ok(&r) && strcmp(info->name, name) == 0;
}

void ended_write(struct instance *i)
{
	cleanup_buf struct buf b = BUF_INIT;

	sandbox_exit_encode(&i->exit, &b);
	int r = io_write_file(i->dir, "ended", b.data, b.len, 0600);
	if (r < 0)
		log_error("note how %s ended: %s", i->info.name, strerror(-r));
	unlinkat(i->dir, "monitor", 0);
}

static bool ended_read(int dir, struct sandbox_exit *e)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (io_read_file(dir, "ended", INFO_MAX, &b) < 0)
		return false;
	struct reader r = reader_of(b.data, b.len);
	return sandbox_exit_decode(&r, e) && get_ok(&r);
}

/* -- adoption -------------------------------------------------------------------------------------------------------- */

static int connect_monitor(struct instance *i)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	socket_name(i, &a);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

void instance_missed(struct instance *i)
{
	i->fds[MONITOR_RECORD] = openat(i->dir, "exit", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	i->lost = true;
	i->init = -1; /* it may have run: its end is reported */
	log_info("sandbox %s has ended while no spawner was there", i->info.name);
	instance_end(i);
}

/* A monitor answers at once, unless it is still busy with the start: then the answer comes by way of the loop. */
static void adopt(struct spawn *s, const char *name, const struct instance_info *info)
{
	struct instance *i = instance_new(s, info);

	if (ended_read(i->dir, &i->exit)) {
		i->state = EXITED;
		return;
	}
	int channel = connect_monitor(i);
	if (channel >= 0) {
		struct pollfd p = {channel, POLLIN, 0};
		poll(&p, 1, ADOPT_MS);
		instance_follow(i, channel);
		i->monitor.ready(&i->monitor, p.revents);
		log_info("sandbox %s %s", name, i->state == RUNNING ? "taken over" : "is on its way");
		return;
	}
	instance_missed(i);
}

static bool link_wanted(void *ctx, uint32_t n)
{
	struct spawn *s = ctx;
	struct instance *i, *tmp;

	HASH_ITER(hh, s->instances, i, tmp)
	if (i->state != EXITED && i->info.egress == n)
		return true;
	return false;
}

void instance_adopt_all(struct spawn *s)
{
	int fd = openat(s->sandboxes, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct err err = ERR_INIT;
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		struct instance_info info;
		if (!sandbox_name_ok(e->d_name))
			continue;
		cleanup_close int dir =
		    openat(s->sandboxes, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (dir >= 0 && info_read(dir, e->d_name, &info))
			adopt(s, e->d_name, &info);
		else /* the note is written before anything else is done */
			io_remove_tree(s->sandboxes, e->d_name);
	}
	if (ids_host_root() && egress_sweep(&s->egress, link_wanted, s, &err) < 0)
		log_warn("left-over links: %s", err.msg);
}
