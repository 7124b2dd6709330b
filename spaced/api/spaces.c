/* Spaces as the Hub shows them: list, info, runtime, restart, pause; and the small fixed answers clients expect. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "sandbox/base.h"
#include "sandbox/egress_list.h"
#include "spaced/api/api_int.h"
#include "spaced/http/url.h"

#define LIST_PAGE_MAX 1000 /* the Hub's */
#define FULL_PAGE_MAX 100  /* each asks its repository, and everybody waits for the loop; clients follow Link */
#define EXPAND_MAX 32

/* ---- shapes ---- */

/* The commit that serves, into `out`. */
static const char *serving_commit(struct api *a, const struct space *sp, char out[41])
{
	struct space_live live;
	struct release rel;
	struct err err = ERR_INIT;

	if (spaces_live(a->parts.spaces, sp->id, &live) && *live.commit) {
		memcpy(out, live.commit, 41);
		return out;
	}
	if (!*sp->release_id || store_release_by_id(a->parts.store, sp->release_id, &rel, &err) < 0)
		return NULL;
	memcpy(out, rel.commit, 41);
	release_release(&rel);
	return out;
}

static const char *tip(struct api *a, const struct space *sp, const char *branch, char out[41])
{
	cleanup_free char *repo = xasprintf("%s.git", sp->id);
	struct err err = ERR_INIT;

	return git_repo_branch(a->repos, repo, branch, out, &err) == 0 ? out : NULL;
}

static struct space_view view_of(struct call *c, const struct space *sp)
{
	struct space_live live = {0};

	spaces_live(c->a->parts.spaces, sp->id, &live);
	return (struct space_view){.public_url = c->a->config->public_url,
				   .domain = c->a->config->domain,
				   .instances = live.instances,
				   .sleep_after_s = c->a->config->sleep_after_s};
}

/* Beside the one below ours; the names of the fields are the Hub's. */
static void add_domains(struct call *c, const struct space *sp, json_t *runtime)
{
	json_t *names = call_domain_names(c, sp), *list = json_object_get(runtime, "domains"), *name;
	size_t i;

	json_array_foreach(names, i, name)
	{
		json_array_append_new(list,
				      json_pack("{s:O, s:s, s:b}", "domain", name, "stage", "READY", "isCustom", 1));
	}
	json_decref(names);
}

json_t *call_runtime_json(struct call *c, const struct space *sp)
{
	struct space_view v = view_of(c, sp);
	char commit[41];

	v.serving = serving_commit(c->a, sp, commit);
	json_t *j = json_runtime(sp, &v);
	add_domains(c, sp, j);
	return j;
}

/* "summary" is for people. */
static json_t *egress_json(struct call *c, const struct space *sp)
{
	bool own = *sp->egress;
	struct err err = ERR_INIT;
	char **of_space = own ? egress_list_parse(STRZ(sp->egress_list), &err) : NULL;
	char *const *list = own ? of_space : c->a->config->egress_list;
	const char *policy = own ? sp->egress : config_egress_name(c->a->config->egress);
	cleanup_buf struct buf summary = BUF_INIT;
	json_t *entries = json_array();

	buf_addf(&summary, "%s%s", policy, own ? "" : " (the host's)");
	for (size_t i = 0; strcmp(policy, "list") == 0 && list && list[i]; i++) {
		json_array_append_new(entries, json_string(list[i]));
		buf_addf(&summary, "%s%s", i ? ", " : ": ", list[i]);
	}
	egress_list_free(of_space);
	return json_pack("{s:s, s:b, s:o, s:s}", "policy", policy, "own", own, "list", entries, "summary",
			 summary.data);
}

static json_t *traffic_json(struct call *c, const struct space *sp)
{
	uint64_t received = 0, sent = 0;
	struct err err = ERR_INIT;

	if (store_traffic_sum(c->a->parts.store, sp->id, &received, &sent, &err) < 0)
		return json_null();
	return json_pack("{s:I, s:I}", "received", (json_int_t)received, "sent", (json_int_t)sent);
}

/* The image that its release was built on, "host", or null: it has none. */
static json_t *stands_on(struct api *a, const struct space *sp)
{
	struct release rel;
	struct err err = ERR_INIT;

	if (!*sp->release_id || store_release_by_id(a->parts.store, sp->release_id, &rel, &err) < 0)
		return json_null();
	json_t *recipe = json_loads(rel.recipe, 0, NULL);
	const char *id = json_string_value(json_object_get(recipe, "base"));
	json_t *j = json_string(id ? id : BASE_HOST);
	json_decref(recipe);
	release_release(&rel);
	return j;
}

/* For people; null without any. */
static json_t *domains_text(struct call *c, const struct space *sp)
{
	cleanup_buf struct buf text = BUF_INIT;
	json_t *names = call_domain_names(c, sp), *name;
	size_t i;

	json_array_foreach(names, i, name)
	{
		buf_addf(&text, "%s%s", i ? ", " : "", json_string_value(name));
	}
	json_decref(names);
	return text.len ? json_string(text.data) : json_null();
}

json_t *call_space_json(struct call *c, const struct space *sp, bool full)
{
	struct space_view v = view_of(c, sp);
	char commit[41], sha[41], sleeps[SLEEP_TEXT];
	struct space_live live;

	v.serving = serving_commit(c->a, sp, commit);
	if (full)
		v.sha = tip(c->a, sp, sp->default_branch, sha);
	json_t *j = json_space(sp, &v);
	if (full)
		add_domains(c, sp, json_object_get(j, "runtime"));
	if (!full || !call_may_write(c, sp))
		return j;
	json_t *own = json_pack("{s:s, s:i, s:i, s:s}", "defaultBranch", sp->default_branch, "slot", (int)sp->slot,
				"generation", (int)sp->generation, "release", sp->release_id);
	json_object_set_new(own, "base", json_string(*sp->base ? sp->base : "default"));
	json_object_set_new(own, "standsOn", stands_on(c->a, sp));
	if (spaces_live(c->a->parts.spaces, sp->id, &live))
		json_object_set_new(own, "live", json_live(&live));
	sleep_text(c->a->config, sp, sleeps);
	json_object_set_new(own, "sleeps", json_string(sleeps));
	json_object_set_new(own, "storage", sp->storage ? json_integer((json_int_t)sp->storage) : json_null());
	json_object_set_new(own, "egress", egress_json(c, sp));
	cleanup_free char *replicas = xasprintf("%u of %u%s", v.instances, sp->replicas, *sp->sticky ? ", sticky" : "");
	if (sp->replicas > 1 || *sp->sticky)
		json_object_set_new(own, "replicas", json_string(replicas));
	json_object_set_new(own, "domains", domains_text(c, sp));
	json_object_set_new(own, "rate", call_rate_json(c, sp));
	json_object_set_new(own, "traffic", traffic_json(c, sp));
	spaces_count_traffic(c->a->parts.spaces, sp->id); /* who looks again sees what is new */
	json_object_set_new(j, "spaced", own);
	return j;
}

/* Fields named by expand=, expand[]= (repeated) and by commas; answers 400 by itself. */
static bool expand(struct call *c, json_t *j)
{
	struct str rest = http_query(c->r), key, value;
	char *fields[EXPAND_MAX];
	const char *bad = NULL;
	size_t n = 0;
	bool ok = true;

	while (n < EXPAND_MAX && url_query_next(&rest, &key, &value)) {
		struct buf v = BUF_INIT;
		if (!str_eq(key, "expand") && !str_eq(key, "expand[]") && !str_ieq(key, "expand%5B%5D"))
			continue;
		if (url_decode(value, true, &v))
			fields[n++] = buf_steal(&v, NULL);
		else
			buf_release(&v);
	}
	if (n && !json_space_expand(j, (const char *const *)fields, n, &bad)) {
		call_error(c, 400, NULL, "\"expand\" must be one of [%s]", json_space_fields);
		ok = false;
	}
	while (n)
		free(fields[--n]);
	return ok;
}

static void answer_space(struct call *c)
{
	json_t *j = call_space_json(c, &c->space, true);

	if (expand(c, j))
		call_json(c, 200, j);
	else
		json_decref(j);
}

/* ---- handlers ---- */

void space_get(struct call *c)
{
	answer_space(c);
}

static void answer_at(struct call *c, const char *sha)
{
	json_t *j = call_space_json(c, &c->space, true);

	json_object_set_new(j, "sha", json_string(sha));
	if (expand(c, j))
		call_json(c, 200, j);
	else
		json_decref(j);
}

/* A full commit id, or the beginning of the tip's. */
static bool commit_of(struct call *c, const char *rev, char sha[41])
{
	cleanup_free char *repo = xasprintf("%s.git", c->space.id);
	size_t n = strlen(rev);
	struct err err = ERR_INIT;
	char tree[41];
	bool is_dir;

	if (n < 5 || n > 40 || strspn(rev, "0123456789abcdef") != n)
		return false;
	if (n < 40)
		return tip(c->a, &c->space, c->space.default_branch, sha) && !strncmp(sha, rev, n);
	memcpy(sha, rev, 41);
	return git_repo_entry(c->a->repos, repo, rev, "", tree, &is_dir, &err) == 0;
}

/* HEAD, a branch, or a commit. */
void space_revision_get(struct call *c)
{
	const char *rev = c->vars[2], *branch = strcmp(rev, "HEAD") != 0 ? rev : c->space.default_branch;
	char sha[41];

	if (!strncmp(branch, "refs/heads/", 11))
		branch += 11;
	if (tip(c->a, &c->space, branch, sha)) {
		answer_at(c, sha);
		return;
	}
	/* A Space to which nothing was pushed has no commit, but its info is there. */
	if (!strcmp(branch, c->space.default_branch)) {
		answer_space(c);
		return;
	}
	if (commit_of(c, rev, sha))
		answer_at(c, sha);
	else
		call_error(c, 404, "RevisionNotFound", "Invalid rev id: %s", rev);
}

void space_runtime_get(struct call *c)
{
	call_json(c, 200, call_runtime_json(c, &c->space));
}

void space_host_get(struct call *c)
{
	struct space_view v = view_of(c, &c->space);
	cleanup_free char *url = json_app_url(&v, c->space.label);

	call_json(c, 200, json_pack("{s:s, s:s}", "host", url, "subdomain", c->space.label));
}

/* The stage has changed with the call: read it again. */
void call_runtime_now(struct call *c)
{
	struct err err = ERR_INIT;
	struct space now;

	if (store_space_by_id(c->a->parts.store, c->space.id, &now, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	call_json(c, 200, call_runtime_json(c, &now));
	space_release(&now);
}

static void note(struct call *c, const char *kind, const char *text)
{
	struct err err = ERR_INIT;

	/* For people; what was asked for has been done either way. */
	store_event_add(c->a->parts.store, c->space.id, c->me.id, kind, text, &err);
}

void space_restart(struct call *c)
{
	struct err err = ERR_INIT;
	bool factory = call_flag(c, "factory");

	if (spaces_restart(c->a->parts.spaces, c->space.id, factory, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	note(c, "restart", factory ? "factory rebuild asked for" : "restart asked for");
	call_runtime_now(c);
}

void space_pause(struct call *c)
{
	struct err err = ERR_INIT;

	if (spaces_pause(c->a->parts.spaces, c->space.id, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	note(c, "pause", "pause asked for");
	call_runtime_now(c);
}

/* {"policy": "none", "internet", "list" or "default", "list": text of a file}. It is the operator's: what leaves the host is
 * not for owners to say. */
void space_egress_set(struct call *c)
{
	const char *policy = json_string_value(json_object_get(c->body, "policy"));
	const char *text = json_string_value(json_object_get(c->body, "list"));
	bool listed = policy && strcmp(policy, "list") == 0;
	cleanup_buf struct buf lines = BUF_INIT;
	enum sandbox_egress known;
	struct err err = ERR_INIT;
	struct space now;

	if (!c->me.admin) {
		call_error(c, 403, NULL, "only an admin may do this");
		return;
	}
	if (!policy || (strcmp(policy, "default") != 0 && config_parse_egress(policy, &known) < 0) ||
	    listed != !!text || (text && strlen(text) > EGRESS_LIST_BYTES)) {
		call_error(c, 400, NULL, "policy is none, internet, default, or list with its entries");
		return;
	}
	char **list = egress_list_parse(STRZ(text ? text : ""), &err);
	if (!list) {
		call_error(c, 400, NULL, "%s", err.msg);
		return;
	}
	buf_adds(&lines, "");
	for (char **e = list; *e; e++)
		buf_addf(&lines, "%s\n", *e);
	egress_list_free(list);
	if (store_space_set_egress(c->a->parts.store, c->space.id, strcmp(policy, "default") != 0 ? policy : "",
				   lines.data, &err) < 0 ||
	    store_space_by_id(c->a->parts.store, c->space.id, &now, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	note(c, "egress", policy);
	call_json(c, 200, egress_json(c, &now));
	space_release(&now);
}

/* {"base": NAME, "host", or "default"}. The operator's choice, not the owner's: a base is part of the walls. */
void space_base(struct call *c)
{
	const char *base = json_string_value(json_object_get(c->body, "base"));
	struct err err = ERR_INIT;

	if (!c->me.admin) {
		call_error(c, 403, NULL, "only an admin may choose a base");
		return;
	}
	if (!base || (!base_name_ok(base) && strcmp(base, BASE_HOST) != 0 && strcmp(base, "default") != 0)) {
		call_error(c, 400, NULL, "\"base\" must be the name of a base, \"host\" or \"default\"");
		return;
	}
	if (spaces_set_base(c->a->parts.spaces, c->space.id, strcmp(base, "default") == 0 ? "" : base, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	note(c, "base", base);
	call_json(c, 200, json_pack("{s:s}", "base", base));
}

/* ---- list ---- */

/* Link: <the same query with cursor=last>; rel="next" (hub-api §3: absolute, one space, double quotes). */
static void link_next(struct call *c, const char *last)
{
	cleanup_buf struct buf link = BUF_INIT;
	cleanup_free char *endpoint = call_endpoint(c);
	struct str rest = http_query(c->r), key, value;

	buf_addf(&link, "<%s/api/spaces?", endpoint);
	while (url_query_next(&rest, &key, &value)) {
		cleanup_buf struct buf k = BUF_INIT, v = BUF_INIT;
		if (str_eq(key, "cursor") || !url_decode(key, true, &k) || !url_decode(value, true, &v))
			continue;
		url_encode(k.data ? k.data : "", k.len, false, &link);
		buf_addc(&link, '=');
		url_encode(v.data ? v.data : "", v.len, false, &link);
		buf_addc(&link, '&');
	}
	buf_addf(&link, "cursor=%s>; rel=\"next\"", last);
	http_set_header(c->r, "Link", "%s", link.data);
}

static size_t page_size(struct call *c, size_t max)
{
	cleanup_buf struct buf v = BUF_INIT;
	unsigned long n;
	char *end;

	if (!call_query(c, "limit", &v))
		return max;
	n = strtoul(v.data, &end, 10);
	if (*end || !n || v.data[0] == '-')
		return max;
	return n < max ? n : max;
}

void spaces_list_get(struct call *c)
{
	cleanup_buf struct buf author = BUF_INIT, search = BUF_INIT, cursor = BUF_INIT;
	bool full = call_flag(c, "full"), ok = true;
	size_t limit = page_size(c, full ? FULL_PAGE_MAX : LIST_PAGE_MAX), n = 0;
	struct space_filter f = {.viewer_id = !c->known ? NULL : c->me.admin ? "*" : c->me.id, .limit = limit + 1};
	struct err err = ERR_INIT;
	struct user owner = {0};
	struct space *list = NULL;
	json_t *out = json_array();

	if (call_query(c, "search", &search))
		f.search = search.data;
	if (call_query(c, "cursor", &cursor))
		f.after_id = cursor.data;
	if (call_query(c, "author", &author)) {
		/* Nobody of that name: no Spaces. */
		if (store_user_by_name(c->a->parts.store, author.data, &owner, &err) < 0)
			f.owner_id = "-";
		else
			f.owner_id = owner.id;
	}
	if (store_space_list(c->a->parts.store, &f, &list, &n, &err) < 0) {
		call_fail(c, &err);
		ok = false;
	}
	if (ok && n > limit)
		link_next(c, list[limit - 1].id);
	for (size_t i = 0; i < n && i < limit && ok; i++) {
		if (list[i].stage == STAGE_DELETING)
			continue;
		json_t *j = call_space_json(c, &list[i], full);
		json_array_append_new(out, j);
		ok = expand(c, j);
	}
	for (size_t i = 0; i < n; i++)
		space_release(&list[i]);
	free(list);
	user_release(&owner);
	if (ok)
		call_json(c, 200, out);
	else
		json_decref(out);
}

/* ---- small fixed answers ---- */

void whoami_get(struct call *c)
{
	cleanup_free char *endpoint = call_endpoint(c);

	call_json(c, 200, json_whoami(&c->me, endpoint));
}

/* Nearly each Python process that uses huggingface_hub asks (hub-api §1.10). */
void harnesses_get(struct call *c)
{
	call_json(c, 200, json_pack("{s:[], s:{}}", "standardEnvVars", "harnesses"));
}

void health_get(struct call *c)
{
	call_text(c, 200, "text/plain; charset=utf-8", STR("ok\n"));
}

/* One kind of hardware: a share of this machine. */
void hardware_get(struct call *c)
{
	const struct config *config = c->a->config;
	cleanup_free char *cpu = xasprintf("%.3g vCPU", config->cpu_milli / 1000.0);
	cleanup_free char *ram = xasprintf("%.3g GB", (double)config->memory / (1U << 30));
	json_t *row =
	    json_pack("{s:s, s:s, s:s, s:s, s:n, s:i, s:i, s:s}", "name", "cpu-basic", "prettyName", "CPU Basic", "cpu",
		      cpu, "ram", ram, "accelerator", "unitCostMicroUSD", 0, "unitCostUSD", 0, "unitLabel", "minute");

	call_json(c, 200, json_pack("[o]", row));
}
