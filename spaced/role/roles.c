/* What each role does first: name its promises, give up the rest, enter its main. The promises are the contract that a
 * reviewer reads: see base/confine.h. (control has a file of its own.) */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/io.h"
#include "base/log.h"
#include "base/trim.h"
#include "proxy/proxy.h"
#include "proxy/rate.h"
#include "proxy/trusted.h"
#include "sandbox/spawner.h"
#include "spaced/role/role.h"
#include "spaced/static/static.h"

static int refused(const struct err *err)
{
	log_error("cannot confine itself, ends: %s", err->msg);
	return 1;
}

/* Promise: none of confine.h's; root is its duty. It parses nothing but frames. */
int role_spawner(struct config *config)
{
	struct spawner_config sc = {.state = config->state, .control = ROLE_FD_FIRST, .id_base = config->id_base};

	trim_resident();
	return spawner_main(&sc);
}

/* Promise: sockets; no file at all (its root is the folder of the two unix sockets). */
int role_proxy(struct config *config)
{
	static const struct confine_path nothing[] = {{0}};
	struct accounts a = role_accounts(config);
	cleanup_free char *run = xasprintf("%s/%s", config->state, STATE_RUN);
	int listener = ROLE_FD_FIRST;
	struct err err = ERR_INIT;

	struct rates *rates = rates_map(ROLE_FD_THIRD);
	if (!rates) {
		log_error("memory of the rates: %m");
		return 1;
	}
	close(ROLE_FD_THIRD);
	tzset(); /* before the root changes */
	if (geteuid() == 0 ? chroot(run) < 0 || chdir("/") < 0 : chdir(run) < 0) {
		log_error("enter `%s`: %m", run);
		return 1;
	}
	if (confine_user(a.proxy, a.proxy_gid, &err) < 0 || confine_files(nothing, &err) < 0 ||
	    confine_syscalls(PROMISE_INET | PROMISE_UNIX, &err) < 0)
		return refused(&err);
	struct trusted trusted = {.n = 0};
	if (trusted_add(&trusted, STRZ(config->trusted_proxies)) < 0)
		return 1; /* config_load() has checked it */
	struct proxy_config pc = {
	    .listeners = &listener,
	    .nlisteners = 1,
	    .control = ROLE_FD_SECOND,
	    .spawner = -1,
	    .parent = ROLE_FD_PARENT,
	    .rates = rates,
	    .trusted = &trusted,
	    .limits = {.per_client = config->client_connections,
		       .client_rate = config->client_rate,
		       .per_space = config->space_requests,
		       .hold_ms = config->hold_timeout_s * 1000,
		       .hold_requests = config->hold_requests},
	    .log_sample = config->access_log_bytes ? config->access_log_sample : 0,
	};
	trim_resident();
	return proxy_main(&pc);
}

/* Promise: read below sites/, accept on its socket. */
int role_static(struct config *config)
{
	struct accounts a = role_accounts(config);
	cleanup_free char *sites = xasprintf("%s/%s", config->state, STATE_SITES);
	cleanup_close int fd = open(sites, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct err err = ERR_INIT;
	const struct confine_path paths[] = {{.path = sites}, {0}};

	if (fd < 0) {
		log_error("open `%s`: %m", sites);
		return 1;
	}
	tzset();
	if (confine_user(a.files, a.files_gid, &err) < 0 || confine_files(paths, &err) < 0 ||
	    confine_syscalls(PROMISE_FILES | PROMISE_UNIX, &err) < 0)
		return refused(&err);
	trim_resident();
	return static_main(ROLE_FD_FIRST, ROLE_FD_PARENT, fd);
}
