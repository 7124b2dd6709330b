/* The one table of routes, and matching. Paths and shapes are Hugging Face's where it has the thing. */
#include <string.h>

#include "spaced/api/api_int.h"
#include "spaced/http/url.h"

const struct route_row route_rows[] = {
    {"GET", "/", ACCESS_OPEN, page_first, false},
    {"GET", "/assets/:file", ACCESS_OPEN, page_asset, false},
    {"GET", "/healthz", ACCESS_OPEN, health_get, false},
    {"GET", "/metrics", ACCESS_ADMIN, metrics_get, false},
    {"GET", "/sign-in", ACCESS_OPEN, sign_in_get, false},
    {"POST", "/sign-in", ACCESS_OPEN, sign_in_post, false},
    {"POST", "/sign-out", ACCESS_OPEN, sign_out_post, false},
    {"GET", "/spaces", ACCESS_OPEN, page_spaces_redirect, false},
    {"GET", "/spaces/:owner/:name", ACCESS_SPACE_READ, page_space, false},
    {"GET", "/spaces/:owner/:name/logs/:kind", ACCESS_SPACE_WRITE, logs_get, false},
    {"GET", "/spaces/:owner/:name/settings", ACCESS_SPACE_WRITE, page_settings, false},
    {"POST", "/spaces/:owner/:name/settings", ACCESS_OPEN, page_settings_post, false},

    {"GET", "/api/whoami-v2", ACCESS_USER, whoami_get, false},
    {"GET", "/api/agent-harnesses", ACCESS_OPEN, harnesses_get, false},
    {"POST", "/api/repos/create", ACCESS_USER, repo_create, true},
    {"DELETE", "/api/repos/delete", ACCESS_USER, repo_delete, true},

    {"GET", "/api/spaces", ACCESS_OPEN, spaces_list_get, false},
    {"GET", "/api/spaces/hardware", ACCESS_OPEN, hardware_get, false},
    {"GET", "/api/spaces/:owner/:name", ACCESS_SPACE_READ, space_get, false},
    {"GET", "/api/spaces/:owner/:name/revision/:rev", ACCESS_SPACE_READ, space_revision_get, false},
    {"GET", "/api/spaces/:owner/:name/runtime", ACCESS_SPACE_READ, space_runtime_get, false},
    {"GET", "/api/spaces/:owner/:name/host", ACCESS_SPACE_READ, space_host_get, false},
    {"GET", "/api/spaces/:owner/:name/jwt", ACCESS_SPACE_READ, space_jwt_get, false},
    {"PUT", "/api/spaces/:owner/:name/settings", ACCESS_SPACE_WRITE, space_settings_put, true},
    {"POST", "/api/spaces/:owner/:name/restart", ACCESS_SPACE_WRITE, space_restart, false},
    {"POST", "/api/spaces/:owner/:name/pause", ACCESS_SPACE_WRITE, space_pause, false},
    {"POST", "/api/spaces/:owner/:name/sleep", ACCESS_SPACE_WRITE, space_sleep, false},
    {"POST", "/api/spaces/:owner/:name/wake", ACCESS_SPACE_WRITE, space_wake, false},
    {"POST", "/api/spaces/:owner/:name/sleeptime", ACCESS_SPACE_WRITE, space_sleep_time, true},
    {"POST", "/api/spaces/:owner/:name/exec", ACCESS_SPACE_WRITE, space_exec, true},
    {"POST", "/api/spaces/:owner/:name/replicas", ACCESS_SPACE_WRITE, space_replicas, true},
    {"POST", "/api/spaces/:owner/:name/egress", ACCESS_SPACE_WRITE, space_egress_set, true},
    {"POST", "/api/spaces/:owner/:name/rate", ACCESS_SPACE_WRITE, space_rate_set, true},
    {"POST", "/api/spaces/:owner/:name/storage", ACCESS_SPACE_WRITE, space_storage_set, true},
    {"DELETE", "/api/spaces/:owner/:name/storage", ACCESS_SPACE_WRITE, space_storage_off, false},
    {"GET", "/api/spaces/:owner/:name/usage", ACCESS_SPACE_WRITE, space_usage_get, false},
    {"POST", "/api/spaces/:owner/:name/base", ACCESS_SPACE_WRITE, space_base, true},
    {"GET", "/api/spaces/:owner/:name/domains", ACCESS_SPACE_WRITE, space_domains_get, false},
    {"POST", "/api/spaces/:owner/:name/domains", ACCESS_SPACE_WRITE, space_domain_add, true},
    {"DELETE", "/api/spaces/:owner/:name/domains/:domain", ACCESS_SPACE_WRITE, space_domain_remove, false},
    {"GET", "/api/spaces/:owner/:name/logs/:kind", ACCESS_SPACE_WRITE, logs_get, false},
    {"GET", "/api/spaces/:owner/:name/access-log", ACCESS_SPACE_WRITE, space_access_log_get, false},
    {"GET", "/api/spaces/:owner/:name/builds", ACCESS_SPACE_WRITE, builds_get, false},
    {"GET", "/api/spaces/:owner/:name/builds/:build", ACCESS_SPACE_WRITE, build_get, false},
    {"POST", "/api/spaces/:owner/:name/builds/:build/cancel", ACCESS_SPACE_WRITE, build_cancel, false},
    {"GET", "/api/spaces/:owner/:name/events", ACCESS_SPACE_WRITE, events_get, false},
    {"GET", "/api/spaces/:owner/:name/releases", ACCESS_SPACE_WRITE, releases_get, false},
    {"GET", "/api/builds/:build", ACCESS_USER, build_any_get, false},
    {"POST", "/api/builds/:build/cancel", ACCESS_USER, build_any_cancel, false},

    {"GET", "/api/admin/status", ACCESS_ADMIN, admin_status_get, false},
    {"POST", "/api/admin/reload", ACCESS_ADMIN, admin_reload, false},
    {"POST", "/api/admin/upgrade", ACCESS_ADMIN, admin_upgrade, false},
    {"GET", "/api/admin/users", ACCESS_ADMIN, admin_users_get, false},
    {"POST", "/api/admin/users", ACCESS_ADMIN, admin_user_add, true},
    {"DELETE", "/api/admin/users/:user", ACCESS_ADMIN, admin_user_remove, false},
    {"GET", "/api/admin/users/:user/tokens", ACCESS_ADMIN, admin_tokens_get, false},
    {"POST", "/api/admin/users/:user/tokens", ACCESS_ADMIN, admin_token_add, true},
    {"GET", "/api/admin/tokens", ACCESS_ADMIN, admin_tokens_all_get, false},
    {"DELETE", "/api/admin/tokens/:token", ACCESS_ADMIN, admin_token_remove, false},
    {"DELETE", "/api/admin/bases/:base", ACCESS_ADMIN, admin_base_remove, false},
    {"GET", "/api/admin/access-log", ACCESS_ADMIN, access_log_get, false},
    {"GET", "/api/admin/builds", ACCESS_ADMIN, builds_all_get, false},
    {"GET", "/api/admin/domains", ACCESS_ADMIN, admin_domains_get, false},
    {"GET", "/api/admin/events", ACCESS_ADMIN, admin_events_get, false},
    {0},
};

/* Cuts the first segment (behind its '/') off `s`. */
static bool next_segment(struct str *s, struct str *seg)
{
	if (!s->n || *s->p != '/')
		return false;
	const char *from = s->p + 1, *end = s->p + s->n, *slash = memchr(from, '/', (size_t)(end - from));
	seg->p = from;
	seg->n = (size_t)((slash ? slash : end) - from);
	s->p = from + seg->n;
	s->n = (size_t)(end - s->p);
	return true;
}

bool route_match(const char *pattern, struct str path, char *vars[API_VARS])
{
	struct str want = STRZ(pattern), w, p;
	size_t n = 0;

	memset(vars, 0, API_VARS * sizeof(*vars));
	/* Matched while still encoded: "%2F" never separates segments. A slash at the end is forgiven. */
	if (path.n > 1 && path.p[path.n - 1] == '/')
		path.n--;
	while (next_segment(&want, &w)) {
		struct buf value = BUF_INIT;
		if (!next_segment(&path, &p))
			goto no;
		if (!w.n || *w.p != ':') {
			if (w.n != p.n || memcmp(w.p, p.p, p.n) != 0)
				goto no;
			continue;
		}
		if (!p.n || n == API_VARS || !url_decode(p, false, &value)) {
			buf_release(&value);
			goto no;
		}
		vars[n++] = buf_steal(&value, NULL);
	}
	if (!path.n)
		return true;
no:
	for (size_t i = 0; i < API_VARS; i++) {
		free(vars[i]);
		vars[i] = NULL;
	}
	return false;
}
