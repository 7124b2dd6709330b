/* What the values of a configuration have to be for the daemon to serve with them: said here, to who wrote them, and not by
 * a role that cannot use them. See config.h. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proxy/rate.h"
#include "proxy/route.h"
#include "proxy/trusted.h"
#include "spaced/config.h"

#define DOMAIN_LENGTH 180 /* with a label before it, a host name */
#define HOLD_MAX_S 3600
#define DRAIN_MAX_S 86400
#define STATE_LENGTH 80

/* ---- where people come ---- */

static int check_listen(struct config *c, struct err *err)
{
	const char *colon = strrchr(c->listen, ':');
	uint32_t port;

	if (!colon || colon == c->listen || config_parse_count(colon + 1, &port) < 0 || port == 0 || port > 65535)
		return err_set(err, 0, "listen = `%s`: expected ADDRESS:PORT, for example 0.0.0.0:7000", c->listen);
	c->port = (uint16_t)port;
	return 0;
}

/* The hosts of all routes are made of it, and a proxy takes none but canonical ones. */
static int check_domain(struct config *c, struct err *err)
{
	char canonical[ROUTE_HOST_MAX + 1];

	for (char *p = c->domain; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	if (strlen(c->domain) > DOMAIN_LENGTH ||
	    strspn(c->domain, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(c->domain) ||
	    !route_canonical_host(STRZ(c->domain), canonical) || strcmp(canonical, c->domain) != 0)
		return err_set(err, 0,
			       "domain = `%s`: expected a host name without port, as spaces.example.org, of at most %d "
			       "characters",
			       c->domain, DOMAIN_LENGTH);
	return 0;
}

/* Addresses are made by putting paths behind it, and labels before its host. */
static int check_public_url(struct config *c, struct err *err)
{
	if (!*c->public_url) {
		free(c->public_url);
		c->public_url =
		    c->port == 80 ? xasprintf("http://%s", c->domain) : xasprintf("http://%s:%u", c->domain, c->port);
		return 0;
	}
	char *url = c->public_url, host[ROUTE_HOST_MAX + 1];
	size_t n = strlen(url), scheme = strncmp(url, "http://", 7) == 0 ? 7 : strncmp(url, "https://", 8) == 0 ? 8 : 0;

	while (n > scheme && url[n - 1] == '/')
		url[--n] = '\0';
	if (!scheme || !route_canonical_host(STRZ(url + scheme), host) || url[n - 1] == ':')
		return err_set(err, 0, "public-url = `%s`: expected http://%s or https://%s, with :PORT or not", url,
			       c->domain, c->domain);
	if (strcmp(host, c->domain) != 0)
		return err_set(err, 0, "public-url = `%s`: its host has to be the domain, which is `%s`", url,
			       c->domain);
	return 0;
}

/* ---- numbers ---- */

static int check_visitors(const struct config *c, struct err *err)
{
	if (c->proxies > CONFIG_PROXIES_MAX)
		return err_set(err, 0, "proxies = %u: expected at most %d", c->proxies, CONFIG_PROXIES_MAX);
	if (c->client_rate > RATE_MAX || c->space_rate > RATE_MAX)
		return err_set(err, 0, "client-rate, space-rate: expected at most %d", RATE_MAX);
	struct trusted trusted = {.n = 0};
	if (trusted_add(&trusted, STRZ(c->trusted_proxies)) < 0)
		return err_set(err, 0,
			       "trusted-proxies = `%s`: expected at most %d addresses or networks, as 10.0.0.0/8",
			       c->trusted_proxies, TRUSTED_MAX);
	if (c->space_requests == 0)
		return err_set(err, 0, "space-requests: expected at least 1");
	/* The proxies take 0 for their own default, and have both as milliseconds in 32 bits. */
	if (c->hold_timeout_s == 0 || c->hold_timeout_s > HOLD_MAX_S || c->hold_requests == 0)
		return err_set(err, 0, "hold-timeout, hold-requests: expected 1s to 1h, and at least 1");
	if (c->drain_timeout_s > DRAIN_MAX_S)
		return err_set(err, 0, "drain-timeout: expected at most 24h");
	if (c->access_log_sample == 0 || c->access_log_sample > 1000000)
		return err_set(err, 0, "access-log-sample = %u: expected 1 to 1000000", c->access_log_sample);
	if (c->access_log_bytes && c->access_log_bytes < 1U << 20)
		return err_set(err, 0, "access-log-size: expected 0 or at least 1M");
	return 0;
}

static int check_apps(const struct config *c, struct err *err)
{
	if (c->replicas_max < 1 || c->replicas_max > ROUTE_ENDPOINTS_MAX)
		return err_set(err, 0, "replicas-max: expected 1 to %d", ROUTE_ENDPOINTS_MAX);
	if (c->starts == 0 || c->starts > 64 || c->builds == 0 || c->builds > 64)
		return err_set(err, 0, "starts = %u, builds = %u: expected 1 to 64", c->starts, c->builds);
	if ((c->egress == EGRESS_LIST && !*c->egress_list) ||
	    (c->build_egress == EGRESS_LIST && !*c->build_egress_list))
		return err_set(err, 0, "%segress = list: then %segress-list has to name what may be reached",
			       c->egress == EGRESS_LIST ? "" : "build-", c->egress == EGRESS_LIST ? "" : "build-");
	if (c->id_base < 65536)
		return err_set(err, 0, "id-base = %u: expected at least 65536, clear of real accounts", c->id_base);
	if ((c->io && c->io < SANDBOX_IO_MIN) || (c->build_io && c->build_io < SANDBOX_IO_MIN))
		return err_set(err, 0, "io, build-io: expected 0 or at least %u bytes per second", SANDBOX_IO_MIN);
	return 0;
}

/* ---- the rest ---- */

static int check_log_level(const struct config *c, struct err *err)
{
	static const char *const levels[] = {"debug", "info", "warn", "error"};

	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
		if (strcmp(levels[i], c->log_level) == 0)
			return 0;
	return err_set(err, 0, "log-level = `%s`: expected debug, info, warn or error", c->log_level);
}

static int check_state(struct config *c, struct err *err)
{
	if (c->state[0] != '/') {
		cleanup_free char *cwd = getcwd(NULL, 0);
		if (!cwd)
			return err_set(err, errno, "current folder");
		char *abs = xasprintf("%s/%s", cwd, c->state);
		free(c->state);
		c->state = abs;
	}
	size_t n = strlen(c->state);
	while (n > 1 && c->state[n - 1] == '/')
		c->state[--n] = '\0';
	if (n > STATE_LENGTH)
		return err_set(err, 0, "state = `%s`: longer than %d characters, which unix sockets in it do not allow",
			       c->state, STATE_LENGTH);
	return 0;
}

int config_check(struct config *c, struct err *err)
{
	if (check_listen(c, err) < 0 || check_domain(c, err) < 0 || check_public_url(c, err) < 0 ||
	    check_visitors(c, err) < 0 || check_apps(c, err) < 0 || check_log_level(c, err) < 0)
		return -1;
	return check_state(c, err);
}
